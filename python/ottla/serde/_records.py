"""Records whose keys and values are decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, SupportsIndex, TypeVar, cast, overload

from ottla._errors import Error
from ottla._ottla import Batch, Record
from ottla.serde._errors import DecodeError, WouldWait
from ottla.serde._hooks import Context, Deserializer

_K = TypeVar("_K")
_V = TypeVar("_V")

UNKNOWN: Any = object()
"""In place of what was not decoded yet."""


def decoded(hook: Deserializer[_V] | None, record: Record, field: Literal["key", "value"], *, at_once: bool = False) -> _V | None:
    """What a key or a value of a record says.

    Raises DecodeError, WouldWait with `at_once`, and whatever ottla.Error the deserializer has.
    """
    data = record.value if field == "value" else record.key
    if data is None:
        return None
    if hook is None:
        # Without a hook the type says that it is bytes.
        return cast("_V", data)
    context = Context(record.topic, field, record.headers)
    try:
        return hook.deserialize_at_once(data, context) if at_once else hook.deserialize(data, context)
    except (WouldWait, MemoryError):
        # Neither is about the record, which may be decoded later.
        raise
    except DecodeError as error:
        error.place(record, field)
        raise
    except Error as error:
        # Nobody could say whether the record is good: who passes over what cannot be decoded must not pass over this.
        error.add_note(
            f"while the {field} of the record at offset {record.offset} of {record.topic}-{record.partition} was decoded"
        )
        raise
    except Exception as error:
        # Its own words may repeat what is in the record: they stay in the cause.
        made = DecodeError(f"its deserializer raised {type(error).__name__}")
        made.place(record, field)
        raise made from error


class Hooks(Generic[_K, _V]):
    """How the records of a consumer are decoded."""

    __slots__ = ("key", "value")

    def __init__(self, key: Deserializer[_K] | None, value: Deserializer[_V] | None) -> None:
        self.key = key
        self.value = value


class Undecoded(Generic[_K, _V]):
    """What records of both kinds, for threads and for asyncio, have in common."""

    __slots__ = ("_hooks", "_key", "_value", "raw")

    raw: Record
    """The record as it was read; `raw.key` and `raw.value` are its bytes."""

    def __init__(self, raw: Record, hooks: Hooks[_K, _V]) -> None:
        self.raw = raw
        self._hooks = hooks
        self._key: _K | None = UNKNOWN
        self._value: _V | None = UNKNOWN

    @property
    def topic(self) -> str:
        return self.raw.topic

    @property
    def partition(self) -> int:
        return self.raw.partition

    @property
    def offset(self) -> int:
        return self.raw.offset

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970, UTC."""
        return self.raw.timestamp

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        return self.raw.headers

    def ack(self) -> None:
        """Says that the record is done; see ottla.Record.ack."""
        self.raw.ack()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self.raw!r}>"


class DecodedRecord(Undecoded[_K, _V]):
    """A record whose `key` and `value` are decoded when they are first asked for."""

    __slots__ = ()

    @property
    def key(self) -> _K | None:
        """What the key says; None without one.

        Raises what `value` raises.
        """
        if self._key is UNKNOWN:
            self._key = decoded(self._hooks.key, self.raw, "key")
        return self._key

    @property
    def value(self) -> _V | None:
        """What the value says; None for a tombstone.

        Raises DecodeError, which has the raw record, if it cannot be decoded: it is as well passed over by going on with the
        next record. Any other ottla.Error is about who had to be asked; to ask for the value again tries again.
        """
        if self._value is UNKNOWN:
            self._value = decoded(self._hooks.value, self.raw, "value")
        return self._value


_R = TypeVar("_R", bound=Undecoded[Any, Any])


class Records(Sequence[_R]):
    """A batch whose records are decoded when they are looked at. It is a sequence as ottla.Batch is one."""

    __slots__ = ("_hooks", "_kind", "raw")

    raw: Batch
    """The batch as it was read."""

    def __init__(self, raw: Batch, kind: type[_R], hooks: Hooks[Any, Any]) -> None:
        self.raw = raw
        self._kind = kind
        self._hooks = hooks

    @property
    def topic(self) -> str:
        return self.raw.topic

    @property
    def partition(self) -> int:
        return self.raw.partition

    @property
    def base_offset(self) -> int:
        return self.raw.base_offset

    @property
    def next_offset(self) -> int:
        return self.raw.next_offset

    def ack(self) -> None:
        """Says that the batch is done; see ottla.Batch.ack."""
        self.raw.ack()

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> _R: ...
    @overload
    def __getitem__(self, key: slice, /) -> list[_R]: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> _R | list[_R]:
        if isinstance(key, slice):
            return [self._made(record) for record in self.raw[key]]
        return self._made(self.raw[key])

    def __iter__(self) -> Iterator[_R]:
        return map(self._made, self.raw)

    def _made(self, record: Record) -> _R:
        return self._kind(record, self._hooks)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self.raw!r}>"


DecodedBatch = Records[DecodedRecord[_K, _V]]
