"""Columns: a batch as a table; and columns of other packages as bytes that the native half reads, a few objects for a column and none
for each value."""

from __future__ import annotations

import struct
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ottla._ottla import Batch

Chunk = tuple[bytes, bytes, "bytes | None"]
"""Values one behind the other; where each begins and the last ends, as int64; and a byte for each that is 0 where it is null."""


def chunks(values: Any) -> list[Chunk] | None:
    """Of what has Arrow's PyCapsule interface. None: pyarrow is not there, and what is no column of its own can be iterated."""
    try:
        pa: Any = import_module("pyarrow")
    except ImportError:
        return None
    if hasattr(values, "__arrow_c_stream__"):
        column = pa.chunked_array(values)
    else:
        column = pa.chunked_array([pa.array(values)])
    kind = column.type
    if pa.types.is_struct(kind):
        raise TypeError(
            f'values is a table; send_many takes one column of it: {type(values).__name__.lower()}["value"]'
        )
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    known = ("binary", "large_binary", "binary_view", "string", "large_string", "string_view", "null")
    if str(kind) not in known and not pa.types.is_fixed_size_binary(kind):
        raise TypeError(f"values is a column of {kind}; send_many takes binary or string: cast it first")
    if str(kind).endswith("_view") and not pa.types.is_dictionary(column.type):
        return [_chunk(pa, chunk) for chunk in column.cast(_plain(pa, kind)).chunks]
    return [_chunk(pa, chunk) for chunk in column.chunks]


def _plain(pa: Any, kind: Any) -> Any:
    """What a view is cast to first: not each kind goes into each other one."""
    return pa.large_string() if str(kind).startswith("string") else pa.large_binary()


def _chunk(pa: Any, chunk: Any) -> Chunk:
    if pa.types.is_dictionary(chunk.type):
        values = chunk.dictionary
        if str(values.type).endswith("_view"):
            values = values.cast(_plain(pa, values.type))
        chunk = pa.DictionaryArray.from_arrays(chunk.indices, values).dictionary_decode()
    if str(chunk.type) in ("string", "string_view"):
        chunk = chunk.cast(pa.large_string())
    chunk = chunk.cast(pa.large_binary())
    _, offsets, data = chunk.buffers()
    if len(chunk) == 0 or offsets is None:
        return b"", bytes(8), None
    size = struct.calcsize("=q")
    first, last = (struct.unpack_from("=q", offsets, (chunk.offset + at) * size)[0] for at in (0, len(chunk)))
    held = b"" if data is None else data.slice(first, last - first).to_pybytes()
    places = offsets.slice(chunk.offset * size, (len(chunk) + 1) * size).to_pybytes()
    if not chunk.null_count:
        return held, places, None
    valid = chunk.is_valid().cast(pa.uint8())
    return held, places, valid.buffers()[1].slice(valid.offset, len(chunk)).to_pybytes()


def rows(values: Any) -> tuple[bytes, int, bool] | None:
    """Of a numpy array: its bytes, how many a value has, and whether zeros at their end are no part of it. None: its items are
    Python objects."""
    kind, item, shape = values.dtype.kind, values.dtype.itemsize, values.shape
    if kind == "O" or 0 in (item, *shape[1:]):
        return None
    if len(shape) == 1 and kind in "SV":
        return values.tobytes(), item, kind == "S"
    if len(shape) == 2 and kind == "u" and item == 1:
        return values.tobytes(), shape[1], False
    raise TypeError(
        f"values is an array of {values.dtype} with {len(shape)} dimensions; send_many takes bytes (dtype S or V), rows of "
        "uint8, or objects that are bytes"
    )


class Columns:
    """The records of a batch as a table of topic, partition, offset, timestamp, key, value and headers, for what takes the Arrow
    PyCapsule interface: polars.DataFrame(columns), pyarrow.record_batch(columns), pandas.DataFrame.from_arrow(columns), DuckDB.

    It holds the batch; what is made of it does not.
    """

    __slots__ = ("_batch",)

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __arrow_c_schema__(self) -> object:
        return self._batch.__arrow_c_schema__()

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return self._batch.__arrow_c_array__(requested_schema)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._batch.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<ottla.Columns of {self._batch!r}>"
