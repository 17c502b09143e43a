"""Batches as columns for pyarrow, polars, pandas and DuckDB, and columns of theirs and numpy's as values to send."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import DEADLINE, read

import ottla
import ottla.testing
from ottla import aio
from aio_loops import run_by

AT = 1_700_000_000_123

HEADERS: list[list[tuple[str | bytes, bytes | None]]] = [
    [],
    [("name", b"value"), ("name", None), ("ä", b"")],
    [(b"\xff!", b"\x00")],
]


def batch(broker: ottla.testing.Broker, topic: str) -> ottla.Batch:
    """Three records in one batch: with everything, with nothing, and with what is empty."""
    with ottla.Producer(broker.bootstrap, linger=60) as producer:
        for number, (key, value) in enumerate([(b"k", b"\x00\xff" * 50), (None, None), (b"", b"")]):
            producer.send(
                topic, value, key=key, partition=2, timestamp=AT + number, headers=HEADERS[number]
            )
        producer.flush(timeout=DEADLINE)
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        return next(consumer.batches(timeout=DEADLINE))


def rows(topic: str) -> list[dict[str, Any]]:
    at = [datetime.datetime.fromtimestamp(AT // 1000, datetime.UTC) + datetime.timedelta(milliseconds=123 + i) for i in range(3)]
    named: list[list[dict[str, Any]]] = [
        [],
        [{"name": "name", "value": b"value"}, {"name": "name", "value": None}, {"name": "ä", "value": b""}],
        # The bytes are record.headers' to tell.
        [{"name": "\ufffd!", "value": b"\x00"}],
    ]
    return [
        {"topic": topic, "partition": 2, "offset": i, "timestamp": at[i], "key": key, "value": value, "headers": named[i]}
        for i, (key, value) in enumerate([(b"k", b"\x00\xff" * 50), (None, None), (b"", b"")])
    ]


def test_pyarrow(broker: ottla.testing.Broker, topic: str) -> None:
    found = batch(broker, topic)
    table = pa.record_batch(found)
    table.validate(full=True)
    assert table.to_pylist() == rows(topic)
    assert pa.schema(found) == table.schema
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["timestamp"] == "timestamp[ms, tz=UTC]"
    assert (kinds["key"], kinds["value"]) == ("large_binary", "large_binary")
    assert [field.nullable for field in table.schema] == [False, False, False, True, True, True, False]
    # By the stream, too; and what is imported outlives the batch.
    streamed = pa.RecordBatchReader.from_stream(found).read_all()
    made = found.to_arrow()
    assert isinstance(made, ottla.Columns) and repr(made) == f"<ottla.Columns of {found!r}>"
    assert pa.schema(made) == table.schema
    del found
    assert streamed.to_pylist() == pa.record_batch(made).to_pylist() == rows(topic)


def test_polars(broker: ottla.testing.Broker, topic: str) -> None:
    frame = pl.DataFrame(batch(broker, topic).to_arrow())
    assert frame.columns == ["topic", "partition", "offset", "timestamp", "key", "value", "headers"]
    assert frame.with_columns(pl.col("topic").cast(pl.String)).to_dicts() == rows(topic)


def test_pandas(broker: ottla.testing.Broker, topic: str) -> None:
    frame = pd.DataFrame.from_arrow(batch(broker, topic))
    assert frame["offset"].tolist() == [0, 1, 2]
    assert frame["topic"].tolist() == [topic] * 3
    assert frame["value"].tolist()[0] == b"\x00\xff" * 50 and frame["value"].isna().tolist() == [False, True, False]


def test_duckdb(broker: ottla.testing.Broker, topic: str) -> None:
    import duckdb

    records = batch(broker, topic)
    connection = duckdb.connect()
    connection.register("records", records)
    columns = records.to_arrow()
    connection.register("columns", columns)
    for name in ("records", "columns"):
        found = connection.execute(
            f'select "offset", topic::varchar, octet_length(value), len(headers) from {name} order by 1'
        )
        assert found.fetchall() == [(0, topic, 100, 0), (1, topic, None, 3), (2, topic, 0, 1)]


def test_of_what_records_have_left(broker: ottla.testing.Broker, topic: str) -> None:
    batch(broker, topic)
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        assert consumer.next(timeout=DEADLINE) is not None
        left = next(consumer.batches(timeout=DEADLINE))
        assert pa.record_batch(left).to_pylist() == rows(topic)[1:]


def test_of_asyncio(broker: ottla.testing.Broker, topic: str) -> None:
    batch(broker, topic)

    async def main() -> None:
        async with aio.Consumer(broker.bootstrap, topics=[topic]) as consumer:
            async for found in consumer.batches():
                assert pa.record_batch(found).to_pylist() == rows(topic)
                break

    run_by("asyncio", main())


VALUES = [b"one", None, b"", b"\x00\xff" * 20]

COLUMNS: dict[str, Callable[[], Any]] = {
    "binary": lambda: pa.array(VALUES),
    "large": lambda: pa.array(VALUES, pa.large_binary()),
    "view": lambda: pa.array(VALUES, pa.binary_view()),
    "sliced": lambda: pa.array([b"other", *VALUES, None]).slice(1, 4),
    "chunked": lambda: pa.chunked_array([VALUES[:1], [], VALUES[1:]]),
    "dictionary": lambda: pa.array(VALUES).dictionary_encode(),
    "table": lambda: pa.table({"v": VALUES})["v"],
    "polars": lambda: pl.Series(VALUES),
    "polars, sliced": lambda: pl.Series([b"other", *VALUES])[1:],
    "pandas": lambda: pd.Series(VALUES, dtype=object),
    "pandas, arrow": lambda: pd.Series(VALUES, dtype=pd.ArrowDtype(pa.binary())),
    "numpy, objects": lambda: np.array(VALUES, dtype=object),
}




@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("loop", [None, "asyncio"])
def test_columns_are_sent(
    broker: ottla.testing.Broker, topic: str, column: str, loop: str | None
) -> None:
    values = COLUMNS[column]()

    async def main() -> None:
        async with aio.Producer(broker.bootstrap, linger=1) as producer:
            await producer.send_many(topic, values)

    if loop:
        run_by(loop, main())
    else:
        with ottla.Producer(broker.bootstrap, linger=1) as producer:
            producer.send_many(topic, values)
    got = read(broker.bootstrap, topic, len(VALUES))
    assert sorted(repr(record.value) for record in got) == sorted(map(repr, VALUES))


@pytest.mark.parametrize(
    "values, expected",
    [
        (lambda: pa.array(["a", "ä"]), [b"a", "ä".encode()]),
        (lambda: pl.Series(["a", "ä"]), [b"a", "ä".encode()]),
        (lambda: pd.Series(["a", "ä"]), [b"a", "ä".encode()]),
        (lambda: pl.Series(["a", "b", "a"], dtype=pl.Categorical), [b"a", b"b", b"a"]),
        (lambda: pa.array([b"ab", b"cd"], pa.binary(2)), [b"ab", b"cd"]),
        (lambda: pa.array([], pa.binary()), []),
        (lambda: np.array([b"a", b"bcd", b""]), [b"a", b"bcd", b""]),
        (lambda: np.array([b"a\x00"], "V2"), [b"a\x00"]),
        (lambda: np.arange(6, dtype="u1").reshape(2, 3), [b"\x00\x01\x02", b"\x03\x04\x05"]),
        (lambda: np.arange(12, dtype="u1").reshape(2, 6)[:, ::2], [b"\x00\x02\x04", b"\x06\x08\x0a"]),
    ],
)
def test_kinds_of_columns(
    broker: ottla.testing.Broker, topic: str, values: Callable[[], Any], expected: list[bytes]
) -> None:
    with ottla.Producer(broker.bootstrap, linger=1) as producer:
        assert len(producer.send_many(topic, values())) == len(expected)
    assert sorted(record.value or b"" for record in read(broker.bootstrap, topic, len(expected))) == sorted(expected)


@pytest.mark.parametrize(
    "values, said",
    [
        (lambda: pa.array([1, 2]), "a column of int64; send_many takes binary or string"),
        (lambda: pl.Series([1.5]), "a column of double"),
        (lambda: pa.table({"v": [b"x"]}), "one column of it: table"),
        (lambda: pl.DataFrame({"v": [b"x"]}), "one column of it: dataframe"),
        (lambda: np.arange(3), "an array of int64 with 1 dimensions"),
        (lambda: np.array(["a"]), "an array of <U1"),
    ],
)
def test_what_is_no_column_of_values_says_so(
    broker: ottla.testing.Broker, topic: str, values: Callable[[], Any], said: str
) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        with pytest.raises(TypeError, match=said):
            producer.send_many(topic, values())
        # Nothing of it was sent.
        assert producer.send(topic, b"x", partition=0).result(timeout=DEADLINE).offset == 0


def test_nothing_is_made_of_each_value(broker: ottla.testing.Broker, topic: str) -> None:
    """The interpreter has as many blocks as before while a hundred thousand values are handed over."""
    values = pa.array([b"%06d" % number for number in range(100_000)])
    peak = []

    class Column:
        """Looked at when its buffers are taken, and nothing was copied yet; the call is over when it is looked at again."""

        def __arrow_c_array__(self, requested_schema: object = None) -> Any:
            peak.append(sys.getallocatedblocks())
            return values.__arrow_c_array__(requested_schema)

    with ottla.Producer(broker.bootstrap) as producer:
        delivery = producer.send_many(topic, Column())
        peak.append(sys.getallocatedblocks())
        assert len(delivery) == 100_000
        delivery.result(timeout=DEADLINE)
    assert peak[1] - peak[0] < 10_000
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 100_000


def test_pyarrow_is_not_needed(
    broker: ottla.testing.Broker, topic: str
) -> None:
    batch(broker, topic)
    program = """
import sys
sys.modules["pyarrow"] = None
import ottla, polars as pl
with ottla.Producer(sys.argv[1]) as producer:
    assert len(producer.send_many(sys.argv[2], pl.Series([b"a", None]))) == 2
with ottla.Consumer(sys.argv[1], topics=[sys.argv[2]]) as consumer:
    batch = next(consumer.batches(timeout=30))
frame = pl.DataFrame(batch.to_arrow())
assert frame["value"].to_list() == [record.value for record in batch]
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, broker.bootstrap, topic], capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
