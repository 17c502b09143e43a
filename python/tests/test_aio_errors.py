"""What ottla.aio says: failures, wrong calls, calls without a loop, and what nobody awaits."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import warnings
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from aio_loops import LARGE, fill, gather, run_by, stuck, turns, until
from conftest import DEADLINE
from test_errors import names_both, replaced

import ottla
import ottla.testing
from ottla import aio

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return run_by("asyncio", main)


def test_failures_reach_who_waits_or_are_told_once() -> None:
    with ottla.testing.Broker(max_message_bytes="10 KiB") as broker:
        broker.create_topic("t")

        async def main() -> None:
            settings: dict[str, Any] = {"compression": "none"}
            async with aio.Producer(broker.bootstrap, **settings) as producer:
                with pytest.raises(ottla.RecordTooLargeError):
                    await producer.send_and_wait("t", bytes(50_000))
                delivery = await producer.send("t", bytes(50_000))
                assert isinstance(await delivery.exception(timeout=DEADLINE), ottla.RecordTooLargeError)
                many = await producer.send_many("t", [bytes(50_000), b"x"])
                refused, acked = await many.outcomes()
                assert isinstance(refused, ottla.RecordTooLargeError) and isinstance(acked, ottla.Acked)
                # All of these were looked at.
                await producer.flush()
                await producer.send("t", bytes(50_000))
                with pytest.raises(ottla.UndeliveredError) as caught:
                    await producer.flush()
                assert caught.value.records == 1
                await producer.flush()
                # Whoever was cancelled has not looked.
                task = asyncio.ensure_future(producer.send_and_wait("t", bytes(50_000)))
                await turns()
                task.cancel()
                await gather([task])
                with pytest.raises(ottla.UndeliveredError):
                    await producer.flush()
            with pytest.raises(ottla.UndeliveredError):
                async with aio.Producer(broker.bootstrap, **settings) as producer:
                    await producer.send("t", bytes(50_000))
            with pytest.raises(KeyError) as left:
                async with aio.Producer(broker.bootstrap, **settings) as producer:
                    await producer.send("t", bytes(50_000))
                    raise KeyError
            assert any("closing the producer" in note for note in left.value.__notes__)

        run(main())


def test_a_fatal_error_reaches_everybody() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.replace("first-cluster")
        broker.create_topic("t")

        async def main() -> None:
            producer = aio.Producer(broker.bootstrap)
            consumer = aio.Consumer(broker.bootstrap, topics=["t"])
            await producer.send_and_wait("t", b"old")
            assert [record.value async for record in consumer.records(timeout=0.2)] == [b"old"]
            broker.set_replica_delay(None)
            doubtful = await producer.send("t", b"doubtful")
            await until(lambda: broker.log_end("t", 0) == 2, "it is written, and not acknowledged")
            waits = asyncio.ensure_future(doubtful)
            replaced(broker)
            [error] = await gather([waits])
            assert names_both(error).maybe_written
            names_both((await gather([producer.send_and_wait("t", b"new")]))[0])

            async def reads() -> None:
                async for _ in consumer:
                    pass

            names_both((await gather([reads()]))[0])
            # It is at its end.
            assert [record async for record in consumer] == []
            await consumer.close()
            await gather([producer.close()])

        run(main())


def test_what_is_wrong_is_said_at_the_call(broker: ottla.testing.Broker, topic: str) -> None:
    with pytest.raises(ottla.ConfigError, match="lingre.*use linger"):
        aio.Producer(broker.bootstrap, lingre=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs bootstrap"):
        aio.Consumer(topics=["t"])  # type: ignore[call-arg]
    properties = {"bootstrap.servers": broker.bootstrap, "linger.ms": 5}
    assert repr(aio.Producer.from_properties(properties)) == "<ottla.aio.Producer>"

    async def main() -> None:
        async with aio.Producer(broker.bootstrap) as producer:
            with pytest.raises(TypeError, match="write value.encode"):
                await producer.send(topic, "text")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="has no argument 'timestamp_ms'"):
                await producer.send(topic, b"x", timestamp_ms=1)  # type: ignore[call-arg]
            with pytest.raises(ottla.RecordTooLargeError):
                await producer.send(topic, bytes(2_000_000))
            with pytest.raises(TypeError, match="timeout"):
                await (await producer.send(topic, b"x")).result(timeout="1")  # type: ignore[arg-type]
            once = producer.flush()
            await once
            with pytest.raises(RuntimeError, match="awaited already"):
                await once

    run(main())


def test_without_a_loop_of_asyncio_it_is_said_what_to_do(
    broker: ottla.testing.Broker, topic: str
) -> None:
    producer = aio.Producer(broker.bootstrap)
    consumer = aio.Consumer(broker.bootstrap, topics=[topic])

    async def sends() -> None:
        await producer.send(topic, b"x")

    async def flushes() -> None:
        async with aio.Producer(broker.bootstrap):
            pass

    async def reads() -> None:
        async for _ in consumer:
            pass

    # As another kind of loop drives them, trio's for example.
    for foreign in (sends(), flushes(), reads()):
        with pytest.raises(RuntimeError, match="no event loop of asyncio.*trio"):
            foreign.send(None)


def test_entering_without_a_cluster_fails_and_cleans_up(unused_port: int) -> None:
    async def main() -> None:
        bootstrap = f"127.0.0.1:{unused_port}"
        producer = aio.Producer(bootstrap, connect_timeout=0.2)
        consumer = aio.Consumer(bootstrap, topics=["t"], connect_timeout=0.2)
        for handle in (producer, consumer, aio.Admin(bootstrap, connect_timeout=0.2)):
            with pytest.raises(ottla.ConnectError):
                async with handle:
                    raise AssertionError("there is nobody")
        with pytest.raises(ottla.ClosedError):
            await producer.send("t", b"x")
        with pytest.raises(ottla.ClosedError):
            await consumer.next()

    run(main())


@pytest.fixture
def unused_port() -> Iterator[int]:
    # Held, so that nobody else gets it; it does not listen.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_what_nobody_awaits_is_said_where_it_matters(
    broker: ottla.testing.Broker, topic: str
) -> None:
    with stuck() as (slow, settings), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")

        async def main() -> None:
            async with aio.Producer(broker.bootstrap) as producer:
                # Taken when it is called.
                producer.send(topic, b"x")  # type: ignore[unused-coroutine]
                producer.send_and_wait(topic, b"x")  # type: ignore[unused-coroutine]
                producer.send_many(topic, [b"x"])  # type: ignore[unused-coroutine]
                gc.collect()
                assert said == []
                producer.flush()  # type: ignore[unused-coroutine]
                assert "flush() was never awaited" in str(said.pop().message)
            producer = aio.Producer(slow.bootstrap, **settings)
            await fill(producer)
            producer.send("stuck", bytes(LARGE), partition=0)  # type: ignore[unused-coroutine]
            assert "send() was never awaited while the buffer was full" in str(said.pop().message)
            await gather([producer.close(timeout=0)])

        run(main())
        assert [str(one.message) for one in said] == []
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 3


def test_everything_that_is_awaited_says_what_a_cancellation_means() -> None:
    for of, names in {
        aio.Producer: ["send", "send_and_wait", "send_many", "flush", "close"],
        aio.Consumer: ["next", "next_event", "commit", "close"],
    }.items():
        for name in names:
            assert "ancelled" in (inspect.getdoc(getattr(of, name)) or ""), (of, name)
    for kind in (aio.Delivery, aio.BatchDelivery, aio.Admin):
        assert "ancelled" in (inspect.getdoc(kind) or ""), kind
