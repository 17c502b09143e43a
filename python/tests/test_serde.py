"""Layers of serializers and deserializers over handles, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import json
import pickle
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from conftest import DEADLINE, Program, read, until

import ottla
import ottla.testing
from ottla import aio
from ottla.schema_registry import RegistryClient, RegistryUnavailableError
from ottla.schema_registry.avro import AvroDeserializer, AvroSerializer
from ottla.serde import (
    Context,
    DecodeError,
    Deserializer,
    DeserializingConsumer,
    SerializeError,
    Serializer,
    SerializingProducer,
    WouldWait,
)
from ottla.serde import aio as serde_aio


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


class Seen(Serializer[str], Deserializer[str]):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []

    def serialize(self, value: str, context: Context, /) -> bytes:
        self.contexts.append(context)
        return value.encode()

    def deserialize(self, data: bytes, context: Context, /) -> str:
        self.contexts.append(context)
        return data.decode()


class Slow(Serializer[str], Deserializer[str]):
    """Has to ask somebody for what it does not know yet, who answers when the test says so."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.asked: list[str] = []
        self.begun = threading.Event()
        self.answer = threading.Event()

    def serialize(self, value: str, context: Context, /) -> bytes:
        self._ask(value)
        return value.encode()

    def serialize_at_once(self, value: str, context: Context, /) -> bytes:
        if value[0] not in self.known:
            raise WouldWait
        return value.encode()

    def deserialize(self, data: bytes, context: Context, /) -> str:
        self._ask(data.decode())
        return data.decode()

    def deserialize_at_once(self, data: bytes, context: Context, /) -> str:
        return self.serialize_at_once(data.decode(), context).decode()

    def _ask(self, value: str) -> None:
        self.asked.append(value)
        self.begun.set()
        assert self.answer.wait(DEADLINE)
        self.known.add(value[0])


def layer(broker: ottla.testing.Broker, topic: str, key: Any = None, value: Any = None) -> DeserializingConsumer[Any, Any]:
    consumer = ottla.Consumer(broker.bootstrap, topics=[topic])
    return DeserializingConsumer(consumer, key_deserializer=key, value_deserializer=value)


def test_values_go_in_and_out(broker: ottla.testing.Broker, topic: str) -> None:
    seen = Seen()
    with SerializingProducer(
        ottla.Producer(broker.bootstrap), key_serializer=seen, value_serializer=to_json
    ) as producer:
        at = producer.send(topic, {"a": 1}, key="k", headers=[("h", b"x")], partition=1, timestamp=5).result(DEADLINE)
        producer.send(topic, None, partition=1).result(DEADLINE)
        producer.send_many(topic, [[1], None]).result(DEADLINE)
        producer.flush(DEADLINE)
    assert seen.contexts == [Context(topic, "key", [("h", b"x")])]
    with layer(broker, topic, seen, json.loads) as consumer:
        records = {(one.partition, one.offset): one for one in (consumer.next(DEADLINE) for _ in range(4)) if one}
        first, tombstone = records[1, at.offset], records[1, at.offset + 1]
        # Nothing is decoded that nobody has asked for, and nothing twice.
        assert len(seen.contexts) == 1
        assert (first.key, first.value, first.key) == ("k", {"a": 1}, "k")
        assert first.value is first.value
        assert seen.contexts[1:] == [Context(topic, "key", (("h", b"x"),))]
        assert (first.topic, first.timestamp, first.headers, first.raw.value) == (topic, 5, (("h", b"x"),), b'{"a": 1}')
        assert repr(first) == f"<ottla.serde._records.DecodedRecord of {first.raw!r}>"
        assert tombstone.key is None and tombstone.value is None
        assert sorted(str(one.value) for one in records.values()) == ["None", "None", "[1]", "{'a': 1}"]


def test_by_the_batch_and_up_to_an_end(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    with SerializingProducer(ottla.Producer(broker.bootstrap), value_serializer=to_json) as producer:
        for value in range(3):
            producer.send(topic, value, partition=0)
    with layer(broker, topic, value=json.loads) as consumer:
        ends = ottla.Admin(broker.bootstrap).offsets(consumer.consumer.assignment())
        [batch] = [batch for batch in consumer.batches(until=ends) if len(batch)]
        assert (batch.topic, batch.partition, batch.base_offset, batch.next_offset, len(batch)) == (topic, 0, 0, 3, 3)
        assert [one.value for one in batch] == [0, 1, 2]
        assert batch[-1].value == 2 and [one.value for one in batch[:2]] == [0, 1]
    with layer(broker, topic, value=json.loads) as consumer:
        assert [one.value for one in consumer.records(until=ends)] == [0, 1, 2]
    with DeserializingConsumer(
        ottla.Consumer(broker.bootstrap, group=group, topics=[topic], commit="acked"), value_deserializer=json.loads
    ) as member:
        kinds: list[str] = []
        for event in member.events(DEADLINE):
            kinds.append(type(event).__name__)
            if not isinstance(event, ottla.Assigned | ottla.GivingUp | ottla.Lost):
                assert [one.value for one in event] == [0, 1, 2]
                event[0].ack()
                event.ack()
                break
        assert kinds == ["Assigned", "Records"]
        member.commit(DEADLINE)
    state = broker.group(group)
    assert state is not None and state.committed[topic, 0] == 3


def test_a_value_that_cannot_be_written_is_not_sent(broker: ottla.testing.Broker, topic: str) -> None:
    def broken(value: object) -> bytes:
        raise KeyError("a secret")

    with ottla.Producer(broker.bootstrap) as below:
        producer = SerializingProducer(below, key_serializer=broken, value_serializer=to_json)
        with pytest.raises(SerializeError) as told:
            producer.send(topic, {1, 2})
        error = told.value
        assert (error.topic, error.field, error.index, error.code) == (topic, "value", None, "serialize")
        assert str(error) == (
            f"the value for topic '{topic}' cannot be serialized: its serializer raised TypeError; "
            "correct it, or change the schema or the serializer"
        )
        assert isinstance(error, ottla.Error) and isinstance(error.__cause__, TypeError)
        with pytest.raises(SerializeError, match=f"the key for topic '{topic}'") as told:
            producer.send(topic, 1, key=2)
        assert "a secret" not in str(told.value)
        # All of them or none.
        with pytest.raises(SerializeError, match=f"the value number 2 for topic '{topic}'") as told:
            producer.send_many(topic, iter([1, 2, {3}, 4]))
        assert told.value.index == 2
        below.flush(DEADLINE)
    assert [broker.log_end(topic, partition) for partition in range(3)] == [0, 0, 0]
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(copied) is SerializeError and str(copied) == str(error) and copied.topic == topic


def test_a_record_that_cannot_be_read_is_told_with_all_it_has(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        for value in (b"1", b"a secret", b"3"):
            producer.send(topic, value, key=b"\xff", partition=2)

    def member() -> DeserializingConsumer[str, Any]:
        consumer = ottla.Consumer(broker.bootstrap, group=group, topics=[topic])
        return DeserializingConsumer(consumer, key_deserializer=bytes.decode, value_deserializer=json.loads)

    # Who does not look for it ends with it, and it is read again.
    got: list[Any] = []
    with pytest.raises(DecodeError) as told, member() as consumer:
        for record in consumer:
            got.append(record.value)
    error = told.value
    assert got == [1]
    assert (error.topic, error.partition, error.offset, error.field) == (topic, 2, 1, "value")
    assert error.record.value == b"a secret" and error.record.offset == 1
    assert f"the value of the record at offset 1 of {topic}-2 cannot be decoded: its deserializer raised JSONDecode" in str(error)
    assert "a secret" not in str(error)
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (copied.offset, str(copied)) == (1, str(error))
        with pytest.raises(AttributeError, match="has no record"):
            copied.record  # noqa: B018
    passed: list[int] = []
    with member() as consumer:
        for record in consumer:
            try:
                got.append(record.value)
            except DecodeError as error:
                passed.append(error.offset)
            with pytest.raises(DecodeError, match="the key of the record"):
                record.key  # noqa: B018
            if record.offset == 2:
                record.ack()
                break
    assert got == [1, 3] and passed == [1]
    state = broker.group(group)
    assert state is not None and state.committed[topic, 2] == 3


def test_a_serializer_that_gives_none_sends_no_tombstone(broker: ottla.testing.Broker, topic: str) -> None:
    forgets: Any = lambda value: None  # noqa: E731
    with ottla.Producer(broker.bootstrap) as below:
        producer = SerializingProducer(below, key_serializer=forgets, value_serializer=to_json)
        with pytest.raises(SerializeError, match=f"the key for topic '{topic}' .* gave None, which is a tombstone"):
            producer.send(topic, 1, key="k")
        producer = SerializingProducer(below, value_serializer=forgets)
        with pytest.raises(SerializeError, match="gave None"):
            producer.send(topic, 1)
        with pytest.raises(SerializeError, match="the value number 1 .* gave None") as told:
            producer.send_many(topic, [None, 1])
        assert told.value.index == 1
        below.flush(DEADLINE)
        assert [broker.log_end(topic, partition) for partition in range(3)] == [0, 0, 0]
        producer.send(topic, None, partition=0).result(DEADLINE)
    assert broker.log_end(topic, 0) == 1


def test_no_memory_is_the_fault_of_no_value_and_no_record(broker: ottla.testing.Broker, topic: str) -> None:
    def out_of_memory(_: object) -> Any:
        raise MemoryError

    with SerializingProducer(ottla.Producer(broker.bootstrap), value_serializer=out_of_memory) as producer:
        with pytest.raises(MemoryError):
            producer.send(topic, 1)
        producer.producer.send(topic, b"x")
    with layer(broker, topic, value=out_of_memory) as consumer:
        record = consumer.next(DEADLINE)
        assert record is not None
        with pytest.raises(MemoryError):
            record.value  # noqa: B018


def test_steps_are_those_of_the_consumer_below(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        for value in (b"1", b"2"):
            producer.send(topic, value, partition=0)
    wrong: Any = "soon"
    with layer(broker, topic, value=json.loads) as consumer:
        for steps in (consumer.records, consumer.batches, consumer.events):
            with pytest.raises(TypeError, match="timeout must be"):
                steps(wrong)
        # A time without records does not end them for good, as it does not below.
        records = consumer.records(timeout=0)
        got: list[Any] = []

        def both() -> bool:
            got.extend(record.value for record in records)
            return len(got) == 2

        until(both, "both records come")
        assert got == [1, 2]
        # What they had last is in hand with nobody but who took it.
        consumer.consumer.seek(topic, 0, 0)
        records = consumer.records(timeout=DEADLINE)
        seen = weakref.ref(next(records).raw)
        assert seen() is None
        [batch] = [one for one in [consumer.next(DEADLINE)] if one]
        assert batch.value == 2


def test_what_is_no_hook_is_refused(broker: ottla.testing.Broker) -> None:
    class Out(Serializer[str]):
        pass

    class In(Deserializer[str]):
        pass

    wrong: Any
    with ottla.Producer(broker.bootstrap) as producer, ottla.Consumer(broker.bootstrap, topics=["t"]) as consumer:
        for wrong in (3, In()):
            with pytest.raises(TypeError, match="value_serializer takes"):
                SerializingProducer(producer, value_serializer=wrong)
        for wrong in (3, Out()):
            with pytest.raises(TypeError, match="key_deserializer takes"):
                DeserializingConsumer(consumer, key_deserializer=wrong)


def test_an_outage_of_the_registry_is_no_fault_of_records(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.testing.SchemaRegistry() as server, RegistryClient(server.url, retries=0) as registry:
        with SerializingProducer(
            ottla.Producer(broker.bootstrap), value_serializer=AvroSerializer(registry, "string")
        ) as producer:
            server.fail(500)
            with pytest.raises(RegistryUnavailableError) as told:
                producer.send(topic, "x")
            assert told.value.__notes__ == [f"while the value of a record for topic '{topic}' was to be serialized"]
            producer.send(topic, "x", partition=0)
        with RegistryClient(server.url, retries=0) as other:
            with layer(broker, topic, value=AvroDeserializer(other)) as consumer:
                record = consumer.next(DEADLINE)
                assert record is not None
                server.fail(500)
                # Not DecodeError: who passes over those must not pass over this.
                with pytest.raises(RegistryUnavailableError) as told:
                    record.value  # noqa: B018
                assert told.value.__notes__ == [f"while the value of the record at offset 0 of {topic}-0 was decoded"]
                assert record.value == "x"


# asyncio


def run(main: Callable[[], Any]) -> None:
    asyncio.run(main())


def test_for_asyncio(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    async def main() -> None:
        async with serde_aio.SerializingProducer(
            aio.Producer(broker.bootstrap), key_serializer=str.encode, value_serializer=to_json
        ) as producer:
            at = await producer.send_and_wait(topic, {"a": 1}, key="k", partition=0)
            await (await producer.send(topic, None, partition=0))
            await (await producer.send_many(topic, [1])).result(DEADLINE)
            task = asyncio.create_task(producer.send(topic, {1}))
            with pytest.raises(SerializeError, match="its serializer raised TypeError"):
                await task
            await producer.flush(DEADLINE)
        async with serde_aio.DeserializingConsumer(
            aio.Consumer(broker.bootstrap, topics=[topic]), key_deserializer=bytes.decode, value_deserializer=json.loads
        ) as consumer:
            ends = await aio.Admin(broker.bootstrap).offsets(consumer.consumer.assignment())
            values = [(await one.key(), await one.value()) async for one in consumer.records(until=ends)]
            assert sorted(map(str, values)) == ["('k', {'a': 1})", "(None, 1)", "(None, None)"]
            consumer.consumer.seek(topic, 0, at.offset)
            record = await asyncio.wait_for(consumer.next(), DEADLINE)
            assert record is not None and await record.value() == {"a": 1}
        async with serde_aio.DeserializingConsumer(
            aio.Consumer(broker.bootstrap, group=group, topics=[topic]), value_deserializer=json.loads
        ) as member:
            count = 0
            async for event in member.events(DEADLINE):
                if isinstance(event, serde_aio.Records):
                    count += len([await one.value() for one in event])
                if count == 3:
                    event = await member.next_event(0)
                    assert event is None
                    break
            await member.commit(DEADLINE)
        state = broker.group(group)
        assert state is not None and sum(state.committed.values()) == 3

    run(main)


def test_what_waits_for_a_schema_is_not_overtaken(broker: ottla.testing.Broker, topic: str) -> None:
    slow = Slow()

    async def main() -> None:
        async with serde_aio.SerializingProducer(aio.Producer(broker.bootstrap), value_serializer=slow) as producer:
            slow.known.add("b")
            calls = [producer.send(topic, value, partition=0) for value in ("a1", "b1", "a2", "b2", "b3")]
            await asyncio.to_thread(slow.begun.wait, DEADLINE)
            # The loop goes on meanwhile. One that is cancelled is not sent, and those behind it still wait for those before.
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.sleep(0)
            tasks[3].cancel()
            await asyncio.wait([tasks[3]])
            assert tasks[3].cancelled() and not any(task.done() for task in tasks[:3])
            assert slow.asked == ["a1"]
            slow.answer.set()
            await asyncio.gather(tasks[0], tasks[1], tasks[2], tasks[4])
            assert slow.asked == ["a1"]
            await producer.send(topic, "b4", partition=0)

    run(main)
    assert [record.value for record in read(broker.bootstrap, topic, 5)] == [b"a1", b"b1", b"a2", b"b3", b"b4"]


@contextlib.asynccontextmanager
async def waiting(
    broker: ottla.testing.Broker, slow: Slow, topic: str
) -> AsyncIterator[tuple[serde_aio.SerializingProducer[Any, Any], list[asyncio.Task[Any]]]]:
    """A producer with three calls that wait for a schema; the last one needs none itself."""
    producer = serde_aio.SerializingProducer(aio.Producer(broker.bootstrap), value_serializer=slow)
    slow.known.add("b")
    calls = [producer.send(topic, value, partition=0) for value in ("a1", "a2", "b1")]
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.to_thread(slow.begun.wait, DEADLINE)
    try:
        yield producer, tasks
    finally:
        slow.answer.set()
        await producer.close(DEADLINE)


def test_what_waits_for_a_schema_is_waited_for_at_the_end(broker: ottla.testing.Broker, topic: str) -> None:
    async def main(end: Callable[[Any], Any], sent: int) -> None:
        slow = Slow()
        async with waiting(broker, slow, topic) as (producer, tasks):
            ended = asyncio.create_task(end(producer))
            # Whoever waits does so: the loop has come round many times.
            for _ in range(100):
                await asyncio.sleep(0)
            assert not ended.done()
            slow.answer.set()
            await ended
            # They are in the log, and nobody had to await them for that.
            assert broker.log_end(topic, 0) == sent
            await asyncio.gather(*tasks)

    async def leave(producer: Any) -> None:
        async with producer:
            pass

    ends: list[Callable[[Any], Any]] = [lambda one: one.flush(), lambda one: one.close(), lambda one: one.close(3_600), leave]
    for number, end in enumerate(ends, 1):
        run(lambda end=end, number=number: main(end, 3 * number))


def test_what_waits_for_longer_than_the_end_does_is_not_sent(broker: ottla.testing.Broker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serde_aio, "CLOSE_TIMEOUT_IN_A_HURRY", 0)

    async def main(end: Callable[[Any], Any]) -> None:
        slow = Slow()
        async with waiting(broker, slow, topic) as (producer, tasks):
            wrong: Any = "soon"
            with pytest.raises(TypeError, match="timeout must be"):
                await producer.close(wrong)
            # To flush for too short a time ends nothing.
            with pytest.raises(ottla.TimeoutError, match="calls still wait for a schema after 0.0 s"):
                await producer.flush(0)
            await end(producer)
            for task in tasks:
                with pytest.raises(ottla.ClosedError, match="while the call waited for a schema: nothing of it was sent"):
                    await task
            # The answer comes after all, and calls come as well.
            slow.answer.set()
            for value in ("a", "b", "c"):
                with pytest.raises(ottla.ClosedError, match="the producer is closed"):
                    await producer.send(topic, value, partition=0)
        assert broker.log_end(topic, 0) == 0

    async def close(producer: Any) -> None:
        with pytest.raises(ottla.TimeoutError, match="3 calls still waited for a schema, and were not sent"):
            await producer.close(timedelta(0))

    async def leave(producer: Any) -> None:
        with pytest.raises(KeyError) as left:
            async with producer:
                raise KeyError("x")
        assert left.value.__notes__ == ["closing the producer: 3 calls still waited for a schema, and were not sent"]

    async def cancelled(producer: Any) -> None:
        closing = asyncio.create_task(producer.close())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Meanwhile there are no new ones.
        with pytest.raises(ottla.ClosedError, match="the producer is closed"):
            await producer.send(topic, "b", partition=0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert repr(producer.producer) == "<ottla.aio.Producer closed>"

    for end in (close, leave, cancelled):
        run(lambda end=end: main(end))


def test_an_end_waits_for_calls_of_its_own_loop(broker: ottla.testing.Broker, topic: str) -> None:
    slow = Slow()
    producer = serde_aio.SerializingProducer(aio.Producer(broker.bootstrap), value_serializer=slow)

    async def send() -> None:
        await producer.send(topic, "a", partition=0)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(asyncio.run, send())
        assert slow.begun.wait(DEADLINE)
        # Nothing waits here, and the other loop is told.
        asyncio.run(producer.close(DEADLINE))
        slow.answer.set()
        assert isinstance(other.exception(DEADLINE), ottla.ClosedError)
    assert broker.log_end(topic, 0) == 0


def test_a_loop_on_which_calls_waited_is_not_kept(broker: ottla.testing.Broker, topic: str) -> None:
    slow = Slow()
    slow.answer.set()
    producer = serde_aio.SerializingProducer(aio.Producer(broker.bootstrap), value_serializer=slow)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def send(value: str) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await producer.send(topic, value, partition=0)

    asyncio.run(send("a"))
    assert slow.asked == ["a"] and not producer._line._queues and not producer._line._tasks
    # One that is closed in the middle of it is forgotten by the next one that waits.
    slow.answer.clear()
    slow.begun.clear()

    async def begun() -> None:
        while not slow.begun.is_set():
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    task = loop.create_task(send("c"))
    loop.run_until_complete(begun())
    loop.close()
    assert list(producer._line._queues) == [loop]
    # What asyncio says of a task that was left is of this test's making.
    left: list[Any] = [task, *producer._line._tasks]
    while left:
        left.pop()._log_destroy_pending = False
    slow.answer.set()
    del loop, task
    asyncio.run(send("d"))
    assert not producer._line._queues and not producer._line._tasks
    gc.collect()
    until(lambda: gc.collect() >= 0 and all(loop() is None for loop in loops), "the loops are gone")
    asyncio.run(producer.close(DEADLINE))


def test_what_is_sent_is_what_there_was_at_the_call(broker: ottla.testing.Broker, topic: str) -> None:
    slow = Slow()

    async def main() -> None:
        async with serde_aio.SerializingProducer(aio.Producer(broker.bootstrap), value_serializer=slow) as producer:
            values, headers = ["a1", "a2"], [("h", b"1")]
            calls = [producer.send_many(topic, values), producer.send(topic, "a3", headers=headers, partition=0)]
            values.append("x")
            headers.clear()
            slow.answer.set()
            for call in calls:
                await call

    run(main)
    records = {record.value: record.headers for record in read(broker.bootstrap, topic, 3)}
    assert records == {b"a1": (), b"a2": (), b"a3": (("h", b"1"),)}
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 3


def test_threads_are_a_consumers_own(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        for _ in range(20):
            producer.send(topic, b"value", partition=0)
    slow = Slow()
    names: set[str] = set()

    class Named(Deserializer[str]):
        def deserialize(self, data: bytes, context: Context, /) -> str:
            names.add(threading.current_thread().name)
            return slow.deserialize(data, context)

        def deserialize_at_once(self, data: bytes, context: Context, /) -> str:
            return slow.deserialize_at_once(data, context)

    async def main() -> None:
        # Whatever fills the loop's executor, and what asks fills it for nobody.
        asyncio.get_running_loop().set_default_executor(pool := ThreadPoolExecutor(1))
        busy = threading.Event()
        pool.submit(busy.wait, DEADLINE)
        async with serde_aio.DeserializingConsumer(
            aio.Consumer(broker.bootstrap, topics=[topic]), value_deserializer=Named()
        ) as consumer:
            tasks = [asyncio.create_task((await anext(consumer)).value()) for _ in range(20)]
            while len(slow.asked) < 4:
                await asyncio.sleep(0.001)
            # No more than a few at once; one that is cancelled in the line is not decoded.
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(slow.asked) == 4
            tasks[19].cancel()
            slow.answer.set()
            assert await asyncio.gather(*tasks[:19]) == ["value"] * 19
            assert len(slow.asked) == 19 and names == {"ottla-serde"}
        busy.set()

    run(main)
    until(lambda: not any(one.name == "ottla-serde" for one in threading.enumerate()), "threads end when there is nothing to do")


def test_no_thread_to_be_had_is_said(broker: ottla.testing.Broker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    slow.answer.set()

    def none(_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        async with serde_aio.SerializingProducer(aio.Producer(broker.bootstrap), value_serializer=slow) as producer:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", none)
                with pytest.raises(ottla.OutOfResourcesError):
                    await producer.send(topic, "a")
            await producer.send(topic, "a")

    run(main)


EXIT = """
import asyncio, sys
from ottla.schema_registry import RegistryClient
from ottla.serde._threads import Threads

async def main():
    client = RegistryClient(sys.argv[1], timeout=3600)
    asked = Threads().run(client.schema, 1)
    await asyncio.sleep(0)
    print("asked", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main())
"""


def test_a_registry_that_does_not_answer_holds_up_no_end(program: Callable[..., Program]) -> None:
    with ottla.testing.SchemaRegistry() as server, server.slow():
        process = program(EXIT, server.url)
        assert process.line() == "asked"
        server.wait_for_requests(1)
        # Its standard input is at its end, or soon: then it ends, and does not wait for an hour.
        assert process.end()[0] == 0


def test_a_value_is_awaited_on_a_thread_where_somebody_is_asked(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        producer.send(topic, b"value", key=b"key", partition=0)
    slow = Slow()

    async def main() -> None:
        async with serde_aio.DeserializingConsumer(
            aio.Consumer(broker.bootstrap, topics=[topic]), key_deserializer=slow, value_deserializer=slow
        ) as consumer:
            record = await consumer.__aiter__().__anext__()
            asked = asyncio.create_task(record.value())
            await asyncio.to_thread(slow.begun.wait, DEADLINE)
            asked.cancel()
            slow.answer.set()
            # Cancelled, the record is in hand as before.
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert await record.value() == "value" and await record.key() == "key"
            asks = len(slow.asked)
            assert await record.value() == "value" and len(slow.asked) == asks

    run(main)
