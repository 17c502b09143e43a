"""Producers of ottla.aio: what is awaited and cancelled, in which order records go, and what they wait for."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from aio_loops import LARGE, LOOPS, fill, gather, numbers, run_by, stuck, turns, waiting
from conftest import DEADLINE, read

import ottla
import ottla.testing
from ottla import aio

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return run_by("asyncio", main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_record_is_taken_and_acknowledged(
    broker: ottla.testing.Broker, topic: str, loop: str
) -> None:
    async def main() -> None:
        async with aio.Producer(broker.bootstrap) as producer:
            delivery = await producer.send(topic, b"0", key=b"k", partition=2, headers=[("a", b"b")])
            assert isinstance(delivery, aio.Delivery)
            at = await delivery
            assert (at.partition, at.offset) == (2, 0)
            # Again, by several, and in all the other ways.
            assert await asyncio.gather(delivery, delivery.result(timeout=1)) == [at, at]
            assert await delivery.exception() is None and delivery.done()
            assert repr(delivery) == "<ottla.aio.Delivery acknowledged: partition 2, offset 0>"
            assert (await producer.send_and_wait(topic, b"1", partition=2)).offset == 1
            task = asyncio.create_task(producer.send_and_wait(topic, b"2", partition=2))
            assert (await task).offset == 2
            waited = await asyncio.wait_for(producer.send_and_wait(topic, b"3", partition=2), DEADLINE)
            assert waited.offset == 3
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(producer.send_and_wait(topic, b"4", partition=2)),
                    group.create_task(producer.send(topic, b"5", partition=2)),
                ]
            await producer.flush()
            assert [task.exception() for task in tasks] == [None, None]
        assert repr(producer) == "<ottla.aio.Producer closed>"
        await producer.close()

    run_by(loop, main())
    records = read(broker.bootstrap, topic, 6)
    assert [record.value for record in records] == [b"%d" % i for i in range(6)]
    assert (records[0].key, records[0].headers) == (b"k", (("a", b"b"),))


def test_many_in_one_call(broker: ottla.testing.Broker, topic: str) -> None:
    async def main() -> None:
        async with aio.Producer(broker.bootstrap) as producer:
            many = await producer.send_many(topic, (b"%d" % i for i in range(5_000)))
            assert len(many) == 5_000 and bool(many)
            one, again, none = await asyncio.gather(many, many.result(), many.exception(timeout=DEADLINE))
            assert (one, again, none) == (ottla.BatchAcked(5_000), one, None)
            places = [(at.partition, at.offset) for at in await many.outcomes() if isinstance(at, ottla.Acked)]
            assert len(set(places)) == len(places) == 5_000
            assert many.done() and repr(many) == "<ottla.aio.BatchDelivery of 5000 records, done>"
            assert (await (await producer.send_many(topic, [None, bytearray(b"x")]))).records == 2
            for wrong in (b"x", "x"):
                with pytest.raises(TypeError, match="takes a list"):
                    await producer.send_many(topic, wrong)  # type: ignore[arg-type]

    run(main())
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 5_002


@pytest.mark.parametrize("loop", LOOPS)
def test_records_are_in_the_order_of_the_calls(
    broker: ottla.testing.Broker, topic: str, loop: str
) -> None:
    async def main() -> None:
        async with aio.Producer(broker.bootstrap) as producer:

            async def send(number: int) -> ottla.Acked:
                return await producer.send_and_wait(topic, b"%d" % number, partition=0)

            acked = await asyncio.gather(*(send(number) for number in range(2_000)))
            assert [at.offset for at in acked] == list(range(2_000))

    run_by(loop, main())
    assert [record.value for record in read(broker.bootstrap, topic, 2_000)] == [
        b"%d" % number for number in range(2_000)
    ]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_full_buffer_holds_up_who_sends_and_not_the_loop(loop: str) -> None:
    with stuck() as (broker, settings):

        async def main() -> int:
            async with aio.Producer(broker.bootstrap, **settings) as producer:
                before = await fill(producer)
                # In the order of the calls, also of those that would fit where another does not.
                sizes = [LARGE, 10, LARGE, 10, 10, LARGE] * 10
                calls = [
                    producer.send_and_wait("stuck", b"%05d" % (len(before) + i) + bytes(size), partition=0)
                    for i, size in enumerate(sizes)
                ]
                tasks = [asyncio.ensure_future(call) for call in calls]
                # Nobody is through, and the loop goes on.
                await turns(100)
                assert not any(task.done() for task in tasks)
                flush = asyncio.ensure_future(producer.flush())
                await turns()
                broker.set_replica_delay(0)
                acked = await asyncio.gather(*tasks)
                await flush
                assert [at.offset for at in acked] == [len(before) + i for i in range(len(sizes))]
                return len(before) + len(sizes)

        count = run_by(loop, main())
        assert numbers(broker, count) == list(range(count))


def test_a_flush_waits_for_calls_that_wait_for_space() -> None:
    with stuck() as (broker, settings):

        async def main() -> int:
            async with aio.Producer(broker.bootstrap, **settings) as producer:
                before = await fill(producer)
                async with waiting(producer.send("stuck", b"%05d" % len(before) + bytes(LARGE), partition=0)) as sending:
                    async with waiting(producer.flush()) as flushing:
                        broker.set_replica_delay(0)
                        await flushing
                    assert (await sending).done()
                return len(before) + 1

        count = run(main())
        assert numbers(broker, count) == list(range(count))


def test_nobody_waits_for_space_longer_than_max_block() -> None:
    with stuck() as (broker, settings):
        settings["max_block"] = 0.2

        async def main() -> None:
            producer = aio.Producer(broker.bootstrap, **settings)
            before = await fill(producer)
            began = time.monotonic()
            calls = [producer.send("stuck", bytes(LARGE), partition=0) for _ in range(10)]
            ended: list[float] = []
            for call in calls:
                with pytest.raises(ottla.BufferFull, match="stayed full for 200ms"):
                    await call
                ended.append(time.monotonic() - began)
            # One after the other they would take ten times as long as the first.
            assert ended[0] >= 0.2 and ended[-1] < 5 * ended[0], ended
            broker.set_replica_delay(0)
            assert len(await asyncio.gather(*before)) == len(before)
            await producer.close()

        run(main())


def test_a_cancelled_send_that_waited_for_space_is_not_sent() -> None:
    with stuck() as (broker, settings):

        async def main() -> int:
            async with aio.Producer(broker.bootstrap, **settings) as producer:
                before = await fill(producer)
                calls = [producer.send("stuck", b"%05d" % i + bytes(LARGE), partition=0) for i in range(100, 110)]
                tasks = [asyncio.ensure_future(call) for call in calls]
                await turns()
                # The first of the line, one within, and the last.
                for number in (0, 4, 9):
                    tasks[number].cancel()
                broker.set_replica_delay(0)
                outcomes = await gather(tasks)
                cancelled = [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]
                assert [i for i, was in enumerate(cancelled) if was] == [0, 4, 9]
                return len(before)

        count = run(main())
        sent = [*range(count), *(100 + i for i in range(10) if i not in (0, 4, 9))]
        assert numbers(broker, len(sent)) == sent


@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancelled_wait_leaves_the_record_on_its_way(loop: str) -> None:
    with stuck() as (broker, _):

        async def main() -> None:
            async with aio.Producer(broker.bootstrap) as producer:
                one = await producer.send("stuck", b"00000", partition=0)
                waits = [
                    producer.send_and_wait("stuck", b"00001", partition=0),
                    one,
                    one.result(),
                    one.exception(timeout=DEADLINE),
                ]
                tasks = [asyncio.ensure_future(wait) for wait in waits]
                await turns()
                for task in tasks:
                    task.cancel()
                outcomes = await gather(tasks)
                assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
                # In a task that never ran.
                task = asyncio.create_task(producer.send_and_wait("stuck", b"00002", partition=0))
                task.cancel()
                assert isinstance((await gather([task]))[0], asyncio.CancelledError)
                with pytest.raises(ottla.TimeoutError) as caught:
                    await one.result(timeout=0.05)
                assert caught.value.maybe_written
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(one, 0.05)
                assert repr(one) == "<ottla.aio.Delivery on its way>" and not one.done()
                broker.set_replica_delay(0)
                assert (await one).offset == 0

        run_by(loop, main())
        assert numbers(broker, 3) == [0, 1, 2]


def test_waits_that_were_cancelled_leave_nothing_behind() -> None:
    with stuck() as (broker, _):

        async def main() -> None:
            async with aio.Producer(broker.bootstrap) as producer:
                delivery = await producer.send("stuck", b"x")
                many = await producer.send_many("stuck", [b"x"])

                async def wait_in_vain(number: int) -> None:
                    for _ in range(number):
                        for wait in (delivery, delivery.result(), many):
                            task = asyncio.ensure_future(wait)
                            await turns(2)
                            task.cancel()
                            await gather([task])

                def left() -> int:
                    gc.collect()
                    return sum(isinstance(one, asyncio.Future) for one in gc.get_objects())

                before = left()
                await wait_in_vain(1_500)
                # 4,500 have waited.
                assert left() < before + 1_100
                broker.set_replica_delay(0)
                await delivery
                await many
                await turns()
                assert left() < before + 10

        run(main())


def test_a_cancelled_flush_can_be_repeated() -> None:
    with stuck() as (broker, _):

        async def main() -> None:
            async with aio.Producer(broker.bootstrap) as producer:
                delivery = await producer.send("stuck", b"00000")
                flush = asyncio.ensure_future(producer.flush())
                await turns()
                flush.cancel()
                assert isinstance((await gather([flush]))[0], asyncio.CancelledError)
                with pytest.raises(ottla.TimeoutError, match="flushing"):
                    await producer.flush(timeout=0.05)
                broker.set_replica_delay(0)
                await producer.flush(timeout=DEADLINE)
                assert delivery.done()

        run(main())
        assert numbers(broker, 1) == [0]


def test_a_cancelled_send_many_sends_what_it_has_taken() -> None:
    with stuck() as (broker, settings):

        async def main() -> None:
            async with aio.Producer(broker.bootstrap, **settings) as producer:
                values = [b"%05d" % i + bytes(LARGE) for i in range(100)]
                async with waiting(producer.send_many("stuck", values)) as sending:
                    # One behind it, which goes on.
                    async with waiting(producer.send("stuck", b"00100")) as behind:
                        sending.cancel()
                        assert isinstance((await gather([sending]))[0], asyncio.CancelledError)
                        broker.set_replica_delay(0)
                        await (await behind)

        run(main())
        end = broker.log_end("stuck", 0)
        assert 5 < end < 50
        assert numbers(broker, end) == [*range(end - 1), 100]


def test_what_waits_when_a_producer_is_closed_is_told() -> None:
    with stuck() as (broker, settings):

        async def main() -> None:
            producer = aio.Producer(broker.bootstrap, **settings)
            before = await fill(producer)
            calls: list[Any] = [
                producer.send("stuck", bytes(LARGE), partition=0),
                producer.send_many("stuck", [b"x"]),
            ]
            tasks = [asyncio.ensure_future(call) for call in calls]
            waits = [asyncio.ensure_future(delivery) for delivery in before]
            await turns()
            closing = asyncio.ensure_future(producer.close(timeout=0.1))
            # At once, and not when the close is over.
            outcomes = await gather(tasks)
            assert {type(outcome) for outcome in outcomes} == {ottla.ClosedError}
            assert not closing.done() and not any(wait.done() for wait in waits)
            with pytest.raises(ottla.TimeoutError, match="closing"):
                await closing
            outcomes = await gather(waits)
            assert all(isinstance(outcome, ottla.Error) for outcome in outcomes)
            # Those of the batch that was on its way.
            assert outcomes[0].maybe_written and not outcomes[-1].maybe_written
            for call in (producer.send, producer.send_and_wait):
                with pytest.raises(ottla.ClosedError):
                    await call("stuck", b"x")
            with pytest.raises(ottla.ClosedError):
                await producer.flush()

        run(main())


def test_administration(broker: ottla.testing.Broker, topic: str) -> None:
    async def main() -> None:
        async with aio.Admin(broker.bootstrap) as admin:
            await admin.create_topic(f"{topic}-aio", 2, config={"cleanup.policy": "compact"})
            with pytest.raises(ottla.TopicExistsError):
                await admin.create_topic(f"{topic}-aio", 2)
            async with aio.Producer(broker.bootstrap) as producer:
                await producer.send_and_wait(f"{topic}-aio", b"x", key=b"k", partition=1)
            places = [(f"{topic}-aio", 0), (f"{topic}-aio", 1), (f"{topic}-aio", 9)]
            assert await admin.partitions(f"{topic}-aio") == 2
            assert await admin.offsets(places[:2]) == {places[0]: 0, places[1]: 1}
            found = await admin.offsets(places, "earliest", return_exceptions=True)
            assert isinstance(found.pop(places[2]), ottla.UnknownPartitionError)
            assert found == {places[0]: 0, places[1]: 0}

    run(main())
