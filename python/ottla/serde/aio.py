"""The same for asyncio: layers over ottla.aio.Producer and ottla.aio.Consumer.

    producer = serde.aio.SerializingProducer(aio.Producer("localhost:9092"), value_serializer=to_bytes)
    async with producer:
        await producer.send_and_wait("orders", order)

    async for record in consumer:
        order = await record.value()

What is known is serialized and decoded at once, on the loop. Where somebody has to be asked (a schema registry, for a schema that
was not met yet), that is done on a thread of the producer's or consumer's own, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, SupportsIndex, TypeAlias, TypeVar, cast, overload

from typing_extensions import Buffer

from ottla._errors import ClosedError, TimeoutError  # noqa: A004 - it is one
from ottla._events import Assigned, GivingUp, Lost
from ottla._ottla import Acked, Batch, Record
from ottla.aio import BatchDelivery, Consumer, Delivery, Producer
from ottla.serde._errors import WouldWait
from ottla.serde._hooks import AnyDeserializer, AnySerializer, Context, Deserializer, a_deserializer, a_serializer, serialized
from ottla.serde._producer import all_serialized
from ottla.serde._records import UNKNOWN, Hooks, Records, Undecoded, decoded
from ottla.serde._threads import Threads

__all__ = ["DecodedBatch", "DecodedRecord", "DeserializingConsumer", "SerializingProducer"]

_K = TypeVar("_K")
_V = TypeVar("_V")
# Of __init__ alone.
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_T = TypeVar("_T")


_Data: TypeAlias = tuple[Buffer | None, Buffer | None]
_Headers: TypeAlias = Sequence[tuple[str | bytes, Buffer | None]]


async def _failed(error: Exception) -> Any:
    raise error


def _kept(headers: _Headers | None) -> _Headers | None:
    """Headers as they are now: the caller's list may be another one when a call that waits has its turn."""
    return list(headers) if isinstance(headers, list) else headers


async def _awaited(task: asyncio.Task[_T]) -> _T:
    return await task


A_YEAR = 365 * 86_400.0

CLOSE_TIMEOUT = 30.0
CLOSE_TIMEOUT_IN_A_HURRY = 5.0
"""Seconds for calls that wait, as ottla.aio.Producer has them for records."""


class _Queue:
    """Calls of one loop that wait."""

    __slots__ = ("given_up", "gone", "last")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.last: asyncio.Future[None] | None = None
        """The turn of the last one, which is over once its records are handed over."""
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done once nobody waits for what they wait for. Only the first one looks at it: the others hear of it in their turn."""
        self.given_up = 0
        """How many were not handed over for that."""


class _Line:
    """Calls of each loop that wait for a schema, in the order in which they were made: a record for which nobody has to be
    asked does not overtake one that was sent before it. One of them asks at a time."""

    def __init__(self) -> None:
        # Of loops on which somebody waits, and no longer: what waits on a loop keeps the loop.
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}
        self._threads = Threads()
        # A loop has weak references alone.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def call(
        self, make: Callable[[bool], Any], hand_over: Callable[[Any], Coroutine[Any, Any, _T]]
    ) -> Coroutine[Any, Any, _T]:
        """Hands over what `make(at_once)` makes: now, if nobody has to be asked or waited for."""
        if self._closed:
            return _failed(ClosedError("the producer is closed"))
        queue = self._queue()
        last = None if queue is None else queue.last
        if last is None or last.done():
            try:
                made = make(True)
            except WouldWait:
                pass
            except Exception as error:
                # As from an `async def`, and as with those who had to wait.
                return _failed(error)
            else:
                return hand_over(made)
        loop = asyncio.get_running_loop()
        if queue is None:
            self._sweep()
            queue = self._queues[loop] = _Queue(loop)
        turn: asyncio.Future[None] = loop.create_future()
        queue.last = turn
        pass_on = functools.partial(self._pass_on, loop, queue, last, turn)
        # It begins now, whenever it is awaited: to call is to send.
        task = loop.create_task(self._in_turn(queue, last, pass_on, make, hand_over))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # One that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda _: pass_on())
        return _awaited(task)

    async def _in_turn(
        self,
        queue: _Queue,
        before: asyncio.Future[None] | None,
        pass_on: Callable[[], None],
        make: Callable[[bool], Any],
        hand_over: Callable[[Any], Coroutine[Any, Any, _T]],
    ) -> _T:
        try:
            if before is not None:
                await asyncio.wait([before])
            if queue.gone.done():
                raise _given_up(queue)
            try:
                made = make(True)
            except WouldWait:
                made = await self._asked(queue, make)
            handed_over = hand_over(made)
        finally:
            pass_on()
        return await handed_over

    async def _asked(self, queue: _Queue, make: Callable[[bool], Any]) -> Any:
        asked = self._threads.run(make, False)
        try:
            await asyncio.wait([asked, queue.gone], return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise _given_up(queue)
            return asked.result()
        finally:
            # What comes of it after that is of no use, and no news either.
            if not asked.cancel() and not asked.cancelled():
                asked.exception()

    def _pass_on(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: _Queue,
        before: asyncio.Future[None] | None,
        turn: asyncio.Future[None],
    ) -> None:
        """A turn is over. Whoever is behind one that was cancelled waits for those before it all the same."""
        if turn.done() or loop.is_closed():
            return
        if before is None or before.done():
            turn.set_result(None)
            if queue.last is turn:
                self._queues.pop(loop, None)
        else:
            before.add_done_callback(lambda _: self._pass_on(loop, queue, None, turn))

    def _queue(self) -> _Queue | None:
        # Without any there may be no loop yet.
        return self._queues.get(asyncio.get_running_loop()) if self._queues else None

    def _sweep(self) -> None:
        """What waited on a loop that was closed waits no longer."""
        for loop in list(self._queues):
            if loop.is_closed():
                self._queues.pop(loop, None)
        for task in list(self._tasks):
            if task.get_loop().is_closed():
                self._tasks.discard(task)

    @property
    def waits(self) -> bool:
        """Whether somebody waits on this loop."""
        return self._queue() is not None

    def close(self) -> None:
        """Takes no more calls."""
        self._closed = True

    async def through(self, timeout: float | None = None) -> bool:
        """Waits until those who wait on this loop now have been handed over; whether they were by then."""
        queue = self._queue()
        if queue is None or queue.last is None:
            return True
        # uvloop has no timers of more.
        limit = None if timeout is None else min(timeout, A_YEAR)
        done, _ = await asyncio.wait([queue.last], timeout=limit)
        return bool(done)

    def give_up(self) -> _Queue | None:
        """Those who wait on this loop wait no longer, and are not handed over."""
        queue = self._queue()
        if queue is not None and not queue.gone.done():
            queue.gone.set_result(None)
        return queue


def _given_up(queue: _Queue) -> ClosedError:
    queue.given_up += 1
    return ClosedError(
        "the producer was closed while the call waited for a schema: nothing of it was sent",
        advice="look at the schema registry, or give close() more time",
    )


class SerializingProducer(Generic[_K, _V]):
    """ottla.serde.SerializingProducer over an ottla.aio.Producer.

    Records go in the order of the calls, also where a call waits for a schema. Such a call is on its way once it is made; to
    cancel it while it waits is not to send. Its value is serialized in its turn, so it is not to be changed until then. `flush` and
    `close` wait for such calls.
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
        headers = _kept(headers)

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
        headers = _kept(headers)

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
        """See ottla.aio.Producer.flush; calls of this loop that wait for a schema are waited for as well, within the same time.
        What they raise is raised where they are awaited."""
        if self._line.waits:
            seconds = self._seconds(timeout)
            begin = asyncio.get_running_loop().time()
            if not await self._line.through(seconds):
                raise TimeoutError(
                    f"flushing: calls still wait for a schema after {seconds} s",
                    advice="look at the schema registry, or allow more time",
                    maybe_written=True,
                )
            timeout = _left(seconds, begin)
        await self._producer.flush(timeout)

    async def close(self, timeout: float | timedelta | None = None) -> None:
        """Closes the producer below, after calls of this loop that wait for a schema; see ottla.aio.Producer.close.

        Calls that are made from now on raise ClosedError, and so do those that still wait at the end of the timeout (default 30
        seconds for all of it): they are not sent, and this raises TimeoutError. Cancelled: the same of those that wait, and the
        producer is closed. Calls of other loops are not waited for.
        """
        if not self._line.waits:
            closing = self._producer.close(timeout)
            self._line.close()
            await closing
            return
        given = self._seconds(timeout)
        given_up, left = await self._ended(CLOSE_TIMEOUT if given is None else given)
        await self._producer.close(left)
        if given_up:
            raise TimeoutError(_late(given_up), advice="look at the schema registry, or allow more time")

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
        if not self._line.waits:
            closing = self._producer.__aexit__(exc_type, exc, traceback)
            self._line.close()
            await closing
        elif exc is None:
            await self.close()
        else:
            given_up, _ = await self._ended(CLOSE_TIMEOUT_IN_A_HURRY)
            await self._producer.__aexit__(exc_type, exc, traceback)
            if given_up:
                exc.add_note(_late(given_up))

    async def _ended(self, seconds: float) -> tuple[int, float]:
        """Waits for the calls of this loop that wait, and gives up those that are late; how many, and what is left of the time."""
        begin = asyncio.get_running_loop().time()
        self._line.close()
        try:
            await self._line.through(seconds)
            queue = self._line.give_up()
            # They hear of it one after the other; nobody is waited for.
            await self._line.through()
        except asyncio.CancelledError:
            self._line.give_up()
            # To call it is to close; whoever wants to wait for records that are on their way closes once more.
            self._producer.close().close()
            raise
        return (0 if queue is None else queue.given_up), _left(seconds, begin) or 0

    def _seconds(self, timeout: float | timedelta | None) -> float | None:
        # What is wrong with it is said as it is without a call that waits.
        self._producer.flush(timeout).close()
        if timeout is None:
            return None
        return timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)

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


def _left(seconds: float | None, begin: float) -> float | None:
    return None if seconds is None else max(seconds - (asyncio.get_running_loop().time() - begin), 0)


def _late(given_up: int) -> str:
    return f"closing the producer: {given_up} calls still waited for a schema, and were not sent"


class _Hooks(Hooks[_K, _V]):
    """How the records of a consumer are decoded, and on which threads where somebody has to be asked."""

    __slots__ = ("threads",)

    def __init__(self, key: Deserializer[_K] | None, value: Deserializer[_V] | None) -> None:
        super().__init__(key, value)
        self.threads = Threads()


class DecodedRecord(Undecoded[_K, _V]):
    """A record whose `key()` and `value()` are awaited, and decoded when they are first asked for."""

    __slots__ = ()

    async def key(self) -> _K | None:
        """What the key says; None without one. Raises what `value` raises."""
        if self._key is UNKNOWN:
            try:
                self._key = decoded(self._hooks.key, self.raw, "key", at_once=True)
            except WouldWait:
                self._key = await self._threads.run(decoded, self._hooks.key, self.raw, "key")
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
                self._value = await self._threads.run(decoded, self._hooks.value, self.raw, "value")
        return self._value

    @property
    def _threads(self) -> Threads:
        return cast("_Hooks[_K, _V]", self._hooks).threads


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
        self._hooks: _Hooks[_K, _V] = _Hooks(
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
