"""Consumers of ottla.aio: what is read, what a cancellation leaves, and groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from aio_loops import LOOPS, gather, run_by, turns, until, values, waiting
from conftest import DEADLINE
from group_members import BY_HAND, committed, left, write

import ottla
import ottla.testing
from ottla import aio

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return run_by("asyncio", main)


def expected(number: int, partition: int = 0) -> list[bytes]:
    return [b"%d.%d" % (partition, i) for i in range(number)]


@pytest.mark.parametrize("loop", LOOPS)
def test_records_and_batches(broker: ottla.testing.Broker, topic: str, loop: str) -> None:
    write(broker, topic, 100)

    async def main() -> None:
        async with aio.Consumer(broker.bootstrap, topics=[topic]) as consumer:
            assert await values(consumer, 3) == expected(3)
            record = await consumer.next(timeout=DEADLINE)
            assert record is not None and record.value == b"0.3"
            async for batch in consumer.batches():
                # What the records have left of it.
                assert [record.value for record in batch] == expected(100)[4:]
                break
            assert await consumer.next(timeout=0) is None
            assert [record async for record in consumer.records(timeout=0.01)] == []
            assert [batch async for batch in consumer.batches(timeout=0.01)] == []
            assert [event async for event in consumer.events(timeout=0.01)] == []
            waits = asyncio.create_task(anext(aiter(consumer)))
            await turns()
            async with aio.Producer(broker.bootstrap) as producer:
                await producer.send_and_wait(topic, b"late", partition=2)
            assert (await waits).value == b"late"
            assert consumer.position(topic, 2) == 1 and consumer.lag(topic, 0) == 0
            assert sorted(consumer.assignment()) == [(topic, number) for number in range(3)]
            assert consumer.stats()["bad_stuff"]
        with pytest.raises(ottla.ClosedError):
            await consumer.next()
        assert [record async for record in consumer] == []
        assert repr(consumer) == "<ottla.aio.Consumer closed>"

    run_by(loop, main())


def test_up_to_an_end(broker: ottla.testing.Broker, topic: str) -> None:
    write(broker, topic, 10)

    async def main() -> None:
        async with (
            aio.Admin(broker.bootstrap) as admin,
            aio.Consumer(broker.bootstrap, assignment=[(topic, 0, "earliest")]) as consumer,
        ):
            ends = await admin.offsets([(topic, 0)])
            assert [r.value async for r in consumer.records(until=ends)] == expected(10)
            assert await consumer.next(until=ends) is None

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancelled_wait_loses_nothing(
    broker: ottla.testing.Broker, topic: str, loop: str
) -> None:
    """Cancelled before there is anything, while it comes, and when it is there and the task has not run."""

    async def main() -> None:
        async with (
            aio.Producer(broker.bootstrap, linger=0) as producer,
            aio.Consumer(broker.bootstrap, topics=[topic]) as consumer,
        ):
            got: list[bytes | None] = []
            calls: list[Callable[[], Any]] = [consumer.next, consumer.next_event, lambda: anext(aiter(consumer.batches()))]
            for number in range(300):
                waits: asyncio.Task[Any] = asyncio.create_task(calls[number % 3]())
                await turns(2)
                await producer.send_and_wait(topic, b"%d" % number, partition=0)
                await turns(number % 7)
                waits.cancel()
                [found] = await gather([waits])
                if isinstance(found, ottla.Record):
                    got.append(found.value)
                elif isinstance(found, ottla.Batch):
                    got.extend(record.value for record in found)
                else:
                    assert isinstance(found, asyncio.CancelledError), found
            got += await values(consumer, 300 - len(got)) if len(got) < 300 else []
            assert got == [b"%d" % number for number in range(300)]

    run_by(loop, main())


def test_a_wait_in_time_is_given_up_without_a_loss(
    broker: ottla.testing.Broker, topic: str
) -> None:
    async def main() -> None:
        async with aio.Consumer(broker.bootstrap, topics=[topic]) as consumer:
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(consumer.next(), 0.01)
            write(broker, topic, 2)
            first = await asyncio.wait_for(consumer.next(), DEADLINE)
            assert first is not None and first.value == b"0.0"

    run(main())


def test_several_tasks_share_one(broker: ottla.testing.Broker, topic: str) -> None:
    async def main() -> None:
        async with aio.Consumer(broker.bootstrap, topics=[topic]) as consumer:
            seen: list[tuple[int, bytes | None]] = []

            async def read(who: int) -> None:
                async for record in consumer:
                    seen.append((who, record.value))
                    await asyncio.sleep(0)

            tasks = [asyncio.create_task(read(who)) for who in range(5)]
            await turns()
            # One that waits no more.
            tasks.pop().cancel()
            for partition in range(3):
                await asyncio.to_thread(write, broker, topic, 40, partition)
            await until(lambda: len(seen) == 120, "all is read")
            assert {who for who, _ in seen} == {0, 1, 2, 3}
            assert len({value for _, value in seen}) == 120
            await consumer.close()
            # Their iterations end.
            await asyncio.gather(*tasks)

    run(main())


def test_who_waits_sees_what_is_steered(broker: ottla.testing.Broker, topic: str) -> None:
    write(broker, topic, 5)

    async def main() -> None:
        async with aio.Consumer(broker.bootstrap, assignment=[(topic, 0, "earliest")]) as consumer:
            assert await values(consumer, 2) == expected(2)
            # In the middle of a batch.
            consumer.pause([(topic, 0)])
            assert consumer.paused() == [(topic, 0)]
            async with waiting(consumer.next()) as waits:
                consumer.resume([(topic, 0)])
                record = await waits
                assert record is not None and record.value == b"0.2"
            consumer.seek(topic, 0, "earliest")
            assert await values(consumer, 5) == expected(5)
            async with waiting(consumer.next()) as waits:
                consumer.seek(topic, 0, 4)
                record = await waits
                assert record is not None and record.value == b"0.4"
            consumer.unassign([(topic, 0)])
            async with waiting(consumer.next()) as waits:
                consumer.assign([(topic, 0, 3)])
                record = await waits
                assert record is not None and record.value == b"0.3"
            with pytest.raises(ottla.UnknownPartitionError):
                consumer.pause([(topic, 7)])

    run(main())


def test_a_close_ends_what_waits(broker: ottla.testing.Broker, topic: str) -> None:
    async def main() -> None:
        consumer = aio.Consumer(broker.bootstrap, topics=[topic])

        async def iterates() -> list[ottla.Record]:
            return [record async for record in consumer]

        tasks = [asyncio.ensure_future(one) for one in (iterates(), consumer.next(), consumer.next_event())]
        await turns()
        await consumer.close(timeout=DEADLINE)
        ended, *raised = await gather(tasks)
        assert ended == [] and {type(one) for one in raised} == {ottla.ClosedError}
        await consumer.close()
        for call in (consumer.commit, consumer.assignment):
            with pytest.raises(ottla.ClosedError):
                call()

    run(main())


def member(broker: ottla.testing.Broker, group: str, topic: str, **settings: Any) -> aio.Consumer:
    settings.setdefault("commit_interval", BY_HAND)
    return aio.Consumer(broker.bootstrap, group=group, topics=[topic], **settings)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_member_of_a_group(
    broker: ottla.testing.Broker, topic: str, group: str, loop: str
) -> None:
    write(broker, topic, 10)

    async def main() -> None:
        async with member(broker, group, topic) as consumer:
            # To break out of the loop leaves the third undone.
            assert await values(consumer, 3) == expected(3)
            assert committed(broker, group, topic) == 0
            await consumer.commit()
            assert committed(broker, group, topic) == 2
        found = broker.group(group)
        assert found is not None and (found.state, found.committed[topic, 0]) == ("Empty", 2)
        async with member(broker, group, topic) as consumer:
            async for record in consumer:
                if record.offset == 4:
                    record.ack()
                    break
            await consumer.commit(timeout=DEADLINE)
            assert committed(broker, group, topic) == 5
            await consumer.commit_to({(topic, 0): 7})
            assert committed(broker, group, topic) == 7
            with pytest.raises(ottla.Error):
                await consumer.commit_to({("elsewhere", 0): 7})

    run_by(loop, main())


def test_what_a_task_has_in_hand_is_its_own(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 6)

    async def main() -> None:
        async with member(broker, group, topic) as consumer:
            first = await consumer.next()
            assert first is not None and first.offset == 0

            async def other() -> None:
                # The second is done when this task asks again, the first is not.
                assert await values(consumer, 2) == [b"0.1", b"0.2"]

            await asyncio.create_task(other())
            await consumer.commit()
            assert committed(broker, group, topic) == 0
            # This task asks, by whatever runs it: in a task of its own here.
            third = await asyncio.wait_for(consumer.next(), DEADLINE)
            assert third is not None and third.offset == 3
            await consumer.commit()
            # The third of them was never asked behind.
            assert committed(broker, group, topic) == 2
            fourth = await asyncio.create_task(consumer.next())
            assert fourth is not None and fourth.offset == 4

    run(main())
    assert left(broker, group, topic) == [b"0.2", b"0.3", b"0.4", b"0.5"]


def test_a_cancelled_task_leaves_undone_what_it_had(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 5)

    async def main() -> None:
        at_work = asyncio.Event()

        async def work() -> None:
            async with member(broker, group, topic) as consumer:
                async for record in consumer:
                    if record.offset == 3:
                        at_work.set()
                        await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await at_work.wait()
        task.cancel()
        assert isinstance((await gather([task]))[0], asyncio.CancelledError)

    run(main())
    assert committed(broker, group, topic) == 3
    assert left(broker, group, topic) == [b"0.3", b"0.4"]


async def returns(consumer: aio.Consumer) -> None:
    assert await consumer.next(timeout=DEADLINE) is not None


async def breaks(consumer: aio.Consumer) -> None:
    async for _ in consumer.batches(timeout=DEADLINE):
        break


async def raises(consumer: aio.Consumer) -> None:
    async for _ in consumer:
        raise ValueError("the program's own")


async def is_cancelled(consumer: aio.Consumer) -> None:
    await consumer.next(timeout=DEADLINE)
    task = asyncio.current_task()
    assert task is not None and task.cancel()
    await asyncio.Event().wait()


@pytest.mark.parametrize("ends", [returns, breaks, raises, is_cancelled])
@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_task_had_that_has_ended_is_in_nobodys_hand(
    broker: ottla.testing.Broker,
    topic: str,
    group: str,
    ends: Callable[[aio.Consumer], Coroutine[Any, Any, None]],
    loop: str,
) -> None:
    write(broker, topic, 3)
    # All is given up in a rebalance, which waits an hour for what is in hand.
    settings: dict[str, Any] = {"max_poll_interval": 3600, "assignors": ["range"]}

    async def main() -> None:
        again: list[bytes | None] = []

        async def reads(consumer: aio.Consumer) -> None:
            async for record in consumer:
                again.append(record.value)

        async with member(broker, group, topic, **settings) as one:
            await gather([asyncio.create_task(ends(one))])
            await one.commit(timeout=DEADLINE)
            assert committed(broker, group, topic) == 0
            async with member(broker, group, topic, **settings) as two:
                tasks = [asyncio.create_task(reads(consumer)) for consumer in (one, two)]
                await until(lambda: {*again} >= {*expected(3)}, "it is read again")
                await one.close()
                await two.close()
                await asyncio.gather(*tasks)

    run_by(loop, main())
    assert committed(broker, group, topic) == 3


def test_what_a_group_says(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"assignors": ["cooperative-sticky"]}
        one = member(broker, group, topic, **settings)
        event = await one.next_event(timeout=DEADLINE)
        assert isinstance(event, ottla.Assigned) and len(event.partitions) == 3
        async with member(broker, group, topic, **settings) as two:

            async def assigned() -> ottla.Assigned:
                async for event in two.events():
                    if isinstance(event, ottla.Assigned) and event.partitions:
                        return event
                raise AssertionError("it ended")

            given = asyncio.create_task(assigned())
            while not isinstance(up := await one.next_event(timeout=DEADLINE), ottla.GivingUp):
                assert isinstance(up, ottla.Assigned)
            # To ask for the next says that it may go.
            asking = asyncio.ensure_future(one.next_event())
            assert sorted((await given).partitions) == sorted(up.partitions)
            asking.cancel()
            await gather([asking])
        await one.close()

    run(main())


def test_acknowledged_one_by_one(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 6)

    async def main() -> None:
        async with member(broker, group, topic, commit="acked") as consumer:

            async def handle(record: ottla.Record) -> None:
                if record.offset != 4:
                    record.ack()

            async with asyncio.TaskGroup() as workers:
                async for record in consumer.records(until={(topic, 0): 6}):
                    workers.create_task(handle(record))

    run(main())
    assert committed(broker, group, topic) == 4
