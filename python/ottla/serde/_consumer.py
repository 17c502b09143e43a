"""A consumer of values instead of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from ottla._events import Assigned, GivingUp, Lost
from ottla._ottla import Batch, Consumer, Record
from ottla.serde._hooks import AnyDeserializer, a_deserializer
from ottla.serde._records import DecodedBatch, DecodedRecord, Hooks, Records

_K = TypeVar("_K")
_V = TypeVar("_V")
# Of __init__ alone.
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class DeserializingConsumer(Generic[_K, _V]):
    """A consumer whose records have keys and values that were deserialized, when they are asked for.

    It is a layer over an ottla.Consumer, which has the settings and steers (`seek`, `pause`, `lag`). What is done, and what a
    thread has in hand, is as it is without it: a record whose value raises is in hand like any other.
    """

    @overload
    def __init__(
        self: DeserializingConsumer[_Key, _Value],
        consumer: Consumer,
        *,
        key_deserializer: AnyDeserializer[_Key],
        value_deserializer: AnyDeserializer[_Value],
    ) -> None: ...
    @overload
    def __init__(
        self: DeserializingConsumer[bytes, _Value],
        consumer: Consumer,
        *,
        key_deserializer: None = None,
        value_deserializer: AnyDeserializer[_Value],
    ) -> None: ...
    @overload
    def __init__(
        self: DeserializingConsumer[_Key, bytes],
        consumer: Consumer,
        *,
        key_deserializer: AnyDeserializer[_Key],
        value_deserializer: None = None,
    ) -> None: ...
    def __init__(
        self,
        consumer: Consumer,
        *,
        key_deserializer: AnyDeserializer[Any] | None = None,
        value_deserializer: AnyDeserializer[Any] | None = None,
    ) -> None:
        self._consumer = consumer
        self._hooks: Hooks[_K, _V] = Hooks(
            a_deserializer("key_deserializer", key_deserializer),
            a_deserializer("value_deserializer", value_deserializer),
        )

    @property
    def consumer(self) -> Consumer:
        """What it is a layer over, for everything else."""
        return self._consumer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DecodedRecord[_K, _V]:
        return self._record(next(self._consumer))

    def next(
        self, timeout: float | timedelta | None = None, *, until: dict[tuple[str, int], int] | None = None
    ) -> DecodedRecord[_K, _V] | None:
        """The next record, or None after the time or at the end; see ottla.Consumer.next."""
        record = self._consumer.next(timeout, until=until)
        return None if record is None else self._record(record)

    def records(
        self, timeout: float | timedelta | None = None, *, until: dict[tuple[str, int], int] | None = None
    ) -> Iterator[DecodedRecord[_K, _V]]:
        """Records until none comes for that time, or the end; see ottla.Consumer.records."""
        # No generator: one that has raised is over, has the last record in hand, and is of one thread at a time.
        return map(self._record, self._consumer.records(timeout, until=until))

    def batches(
        self, timeout: float | timedelta | None = None, *, until: dict[tuple[str, int], int] | None = None
    ) -> Iterator[DecodedBatch[_K, _V]]:
        """The same by the batch; see ottla.Consumer.batches."""
        return map(self._batch, self._consumer.batches(timeout, until=until))

    def next_event(
        self, timeout: float | timedelta | None = None
    ) -> DecodedBatch[_K, _V] | Assigned | GivingUp | Lost | None:
        """The next batch or event of the group; see ottla.Consumer.next_event."""
        event = self._consumer.next_event(timeout)
        return None if event is None else self._event(event)

    def events(
        self, timeout: float | timedelta | None = None
    ) -> Iterator[DecodedBatch[_K, _V] | Assigned | GivingUp | Lost]:
        """Batches, and between them what the group says; see ottla.Consumer.events."""
        return map(self._event, self._consumer.events(timeout))

    def commit(self, timeout: float | timedelta | None = None) -> None:
        """See ottla.Consumer.commit."""
        self._consumer.commit(timeout)

    def close(self, timeout: float | timedelta | None = None) -> None:
        """Closes the consumer below; see ottla.Consumer.close."""
        self._consumer.close(timeout)

    def __enter__(self) -> Self:
        self._consumer.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._consumer.__exit__(exc_type, exc, traceback)

    def _record(self, record: Record) -> DecodedRecord[_K, _V]:
        return DecodedRecord(record, self._hooks)

    def _batch(self, batch: Batch) -> DecodedBatch[_K, _V]:
        return Records(batch, DecodedRecord, self._hooks)

    def _event(self, event: Batch | Assigned | GivingUp | Lost) -> DecodedBatch[_K, _V] | Assigned | GivingUp | Lost:
        return self._batch(event) if isinstance(event, Batch) else event
