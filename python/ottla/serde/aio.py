"""The same for asyncio: layers over ottla.aio.Producer and ottla.aio.Consumer.

    producer = serde.aio.SerializingProducer(aio.Producer("localhost:9092"), value_serializer=to_bytes)
    async with producer:
        await producer.send_and_wait("orders", order)

    async for record in consumer:
        order = await record.value()

What is known is serialized and decoded at once, on the loop. Where somebody has to be asked (a schema registry, for a schema that
was not met yet), that is done on a thread of the loop's executor, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, SupportsIndex, TypeAlias, TypeVar, overload

from typing_extensions import Buffer

from ottla._events import Assigned, GivingUp, Lost
from ottla._ottla import Acked, Batch, Record
from ottla.aio import BatchDelivery, Consumer, Delivery, Producer
from ottla.serde._errors import WouldWait
from ottla.serde._hooks import AnyDeserializer, AnySerializer, Context, a_deserializer, a_serializer, serialized
from ottla.serde._producer import all_serialized
from ottla.serde._records import UNKNOWN, Hooks, Records, Undecoded, decoded

__all__ = ["DecodedBatch", "DecodedRecord", "DeserializingConsumer", "SerializingProducer"]

_K = TypeVar("_K")
_V = TypeVar("_V")
# Of __init__ alone.
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_T = TypeVar("_T")


_Data: TypeAlias = tuple[Buffer | None, Buffer | None]


async def _failed(error: Exception) -> Any:
    raise error


async def _awaited(task: asyncio.Task[_T]) -> _T:
    return await task


class _Line:
    """Calls of each loop that wait for a schema, in the order in which they were made: a record for which nobody has to be
    asked does not overtake one that was sent before it. One of them asks at a time."""

    def __init__(self) -> None:
        # The turn of the last one, which is over once its records are handed over.
        self._last: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]]
        self._last = weakref.WeakKeyDictionary()
        # A loop has weak references alone.
        self._tasks: set[asyncio.Task[Any]] = set()

    def call(
        self, make: Callable[[bool], Any], hand_over: Callable[[Any], Coroutine[Any, Any, _T]]
    ) -> Coroutine[Any, Any, _T]:
        """Hands over what `make(at_once)` makes: now, if nobody has to be asked or waited for."""
        # Only who has waited has an entry: without one, there may be no loop yet.
        last = self._last.get(asyncio.get_running_loop()) if self._last else None
        if last is None or last.done():
            try:
                made = make(True)
            except WouldWait:
                last = None
            except Exception as error:
                # As from an `async def`, and as with those who had to wait.
                return _failed(error)
            else:
                return hand_over(made)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        # It begins now, whenever it is awaited: to call is to send.
        task = loop.create_task(self._in_turn(last, turn, make, hand_over))
        self._last[loop] = turn
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # One that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda _: _pass_on(last, turn))
        return _awaited(task)

    async def _in_turn(
        self,
        before: asyncio.Future[None] | None,
        turn: asyncio.Future[None],
        make: Callable[[bool], Any],
        hand_over: Callable[[Any], Coroutine[Any, Any, _T]],
    ) -> _T:
        try:
            if before is not None:
                await asyncio.wait([before])
            try:
                made = make(True)
            except WouldWait:
                made = await asyncio.to_thread(make, False)
            handed_over = hand_over(made)
        finally:
            _pass_on(before, turn)
        return await handed_over


def _pass_on(before: asyncio.Future[None] | None, turn: asyncio.Future[None]) -> None:
    """Whoever is behind one that was cancelled waits for those before it all the same."""
    if turn.done():
        return
    if before is None or before.done():
        turn.set_result(None)
    else:
        before.add_done_callback(lambda _: _pass_on(None, turn))


class SerializingProducer(Generic[_K, _V]):
    """ottla.serde.SerializingProducer over an ottla.aio.Producer.

    Records go in the order of the calls, also where a call waits for a schema. Such a call is on its way once it is made; to
    cancel it while it waits is not to send.
    """

    @overload
    def __init__(
        self: SerializingProducer[_Key, _Value],
        producer: Producer,
        *,
        key_serializer: AnySerializer[_Key],
        value_serializer: AnySerializer[_Value],
    ) -> None: ...
    @overload
    def __init__(
        self: SerializingProducer[Buffer, _Value],
        producer: Producer,
        *,
        key_serializer: None = None,
        value_serializer: AnySerializer[_Value],
    ) -> None: ...
    @overload
    def __init__(
        self: SerializingProducer[_Key, Buffer],
        producer: Producer,
        *,
        key_serializer: AnySerializer[_Key],
        value_serializer: None = None,
    ) -> None: ...
    def __init__(
        self,
        producer: Producer,
        *,
        key_serializer: AnySerializer[Any] | None = None,
        value_serializer: AnySerializer[Any] | None = None,
    ) -> None:
        self._producer = producer
        self._key = a_serializer("key_serializer", key_serializer)
        self._value = a_serializer("value_serializer", value_serializer)
        self._line = _Line()

    @property
    def producer(self) -> Producer:
        """What it is a layer over, for everything else. What is sent by it directly may overtake calls that wait for a schema."""
        return self._producer

    def send(
        self,
        topic: str,
        value: _V | None,
        *,
        key: _K | None = None,
        headers: Sequence[tuple[str | bytes, Buffer | None]] | None = None,
        partition: SupportsIndex | None = None,
        timestamp: SupportsIndex | datetime | None = None,
    ) -> Coroutine[Any, Any, Delivery]:
        """Serializes and sends one record; see ottla.aio.Producer.send.

        To await it raises SerializeError, naming topic and field, and whatever ottla.Error a serializer has: nothing was
        sent then.
        """

        def hand_over(data: _Data) -> Coroutine[Any, Any, Delivery]:
            return self._producer.send(
                topic, data[0], key=data[1], headers=headers, partition=partition, timestamp=timestamp
            )

        return self._line.call(self._both(topic, value, key, headers), hand_over)

    def send_and_wait(
        self,
        topic: str,
        value: _V | None,
        *,
        key: _K | None = None,
        headers: Sequence[tuple[str | bytes, Buffer | None]] | None = None,
        partition: SupportsIndex | None = None,
        timestamp: SupportsIndex | datetime | None = None,
    ) -> Coroutine[Any, Any, Acked]:
        """Serializes and sends one record, and waits until it is acknowledged. Raises what `send` raises."""

        def hand_over(data: _Data) -> Coroutine[Any, Any, Acked]:
            return self._producer.send_and_wait(
                topic, data[0], key=data[1], headers=headers, partition=partition, timestamp=timestamp
            )

        return self._line.call(self._both(topic, value, key, headers), hand_over)

    def send_many(self, topic: str, values: Iterable[_V | None]) -> Coroutine[Any, Any, BatchDelivery]:
        """Serializes all of them, then sends them; see ottla.aio.Producer.send_many.

        Raises what `send` raises; a SerializeError has the `index` of the value, and nothing was sent then.
        """
        # Looked at once for those that are known and once more on a thread, and the caller's list may be another one by then.
        every = list(values)
        return self._line.call(
            lambda at_once: all_serialized(self._value, topic, every, at_once=at_once),
            lambda data: self._producer.send_many(topic, data),
        )

    async def flush(self, timeout: float | timedelta | None = None) -> None:
        """See ottla.aio.Producer.flush. Calls that wait for a schema are not waited for: await them."""
        await self._producer.flush(timeout)

    async def close(self, timeout: float | timedelta | None = None) -> None:
        """Closes the producer below; see ottla.aio.Producer.close."""
        await self._producer.close(timeout)

    async def __aenter__(self) -> Self:
        await self._producer.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self._producer.__aexit__(exc_type, exc, traceback)

    def _both(
        self,
        topic: str,
        value: _V | None,
        key: _K | None,
        headers: Sequence[tuple[str | bytes, Buffer | None]] | None,
    ) -> Callable[[bool], _Data]:
        told = () if headers is None else headers

        def make(at_once: bool) -> _Data:
            return (
                serialized(self._value, value, Context(topic, "value", told), at_once=at_once),
                serialized(self._key, key, Context(topic, "key", told), at_once=at_once),
            )

        return make


class DecodedRecord(Undecoded[_K, _V]):
    """A record whose `key()` and `value()` are awaited, and decoded when they are first asked for."""

    __slots__ = ()

    async def key(self) -> _K | None:
        """What the key says; None without one. Raises what `value` raises."""
        if self._key is UNKNOWN:
            try:
                self._key = decoded(self._hooks.key, self.raw, "key", at_once=True)
            except WouldWait:
                self._key = await asyncio.to_thread(decoded, self._hooks.key, self.raw, "key")
        return self._key

    async def value(self) -> _V | None:
        """What the value says; None for a tombstone.

        Raises DecodeError, which has the raw record, if it cannot be decoded: it is passed over by going on with the next
        record. Any other ottla.Error is about who had to be asked; to await the value again tries again. Cancelled, the record
        is in hand as before.
        """
        if self._value is UNKNOWN:
            try:
                self._value = decoded(self._hooks.value, self.raw, "value", at_once=True)
            except WouldWait:
                self._value = await asyncio.to_thread(decoded, self._hooks.value, self.raw, "value")
        return self._value


DecodedBatch = Records[DecodedRecord[_K, _V]]


class _Steps(AsyncIterator[_T]):
    """Steps of an iterator, turned into something else. Each step is asked for by the task that calls, not by the one that
    awaits: it is that task which has the record in hand."""

    def __init__(self, inner: AsyncIterator[Any], make: Callable[[Any], _T]) -> None:
        self._inner = inner
        self._make = make

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, _T]:
        return _made(self._inner.__anext__(), self._make)


async def _made(taken: Awaitable[Any], make: Callable[[Any], _T]) -> _T:
    return make(await taken)


class DeserializingConsumer(Generic[_K, _V]):
    """ottla.serde.DeserializingConsumer over an ottla.aio.Consumer: its records have `key()` and `value()`, which are awaited.

    What is done, and what a task has in hand, is as it is without it.
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

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, DecodedRecord[_K, _V]]:
        return _made(self._consumer.__anext__(), self._record)

    def next(
        self, timeout: float | timedelta | None = None, *, until: dict[tuple[str, int], int] | None = None
    ) -> Coroutine[Any, Any, DecodedRecord[_K, _V] | None]:
        """The next record, or None after the time or at the end; see ottla.aio.Consumer.next."""

        def make(record: Record | None) -> DecodedRecord[_K, _V] | None:
            return None if record is None else self._record(record)

        return _made(self._consumer.next(timeout, until=until), make)

    def records(
        self, timeout: float | timedelta | None = None, *, until: dict[tuple[str, int], int] | None = None
    ) -> AsyncIterator[DecodedRecord[_K, _V]]:
        """Records until none comes for that time, or the end; see ottla.aio.Consumer.records."""
        return _Steps(self._consumer.records(timeout, until=until), self._record)

    def batches(
        self, timeout: float | timedelta | None = None, *, until: dict[tuple[str, int], int] | None = None
    ) -> AsyncIterator[DecodedBatch[_K, _V]]:
        """The same by the batch; see ottla.aio.Consumer.batches."""
        return _Steps(self._consumer.batches(timeout, until=until), self._batch)

    def next_event(
        self, timeout: float | timedelta | None = None
    ) -> Coroutine[Any, Any, DecodedBatch[_K, _V] | Assigned | GivingUp | Lost | None]:
        """The next batch or event of the group; see ottla.aio.Consumer.next_event."""
        return _made(self._consumer.next_event(timeout), self._event)

    def events(
        self, timeout: float | timedelta | None = None
    ) -> AsyncIterator[DecodedBatch[_K, _V] | Assigned | GivingUp | Lost]:
        """Batches, and between them what the group says; see ottla.aio.Consumer.events."""
        return _Steps(self._consumer.events(timeout), self._event)

    async def commit(self, timeout: float | timedelta | None = None) -> None:
        """See ottla.aio.Consumer.commit."""
        await self._consumer.commit(timeout)

    async def close(self, timeout: float | timedelta | None = None) -> None:
        """Closes the consumer below; see ottla.aio.Consumer.close."""
        await self._consumer.close(timeout)

    async def __aenter__(self) -> Self:
        await self._consumer.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self._consumer.__aexit__(exc_type, exc, traceback)

    def _record(self, record: Record) -> DecodedRecord[_K, _V]:
        return DecodedRecord(record, self._hooks)

    def _batch(self, batch: Batch) -> DecodedBatch[_K, _V]:
        return Records(batch, DecodedRecord, self._hooks)

    def _event(self, event: Any) -> Any:
        return self._batch(event) if isinstance(event, Batch) else event
