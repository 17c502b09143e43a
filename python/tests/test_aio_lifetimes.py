"""Threads, event loops, forks and ends of processes, with handles of ottla.aio."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from aio_loops import LOOPS, LARGE, descriptors, fill, gather, run_by, stuck, threads, turns, until, values
from conftest import DEADLINE, Program, read

import ottla
import ottla.testing
from ottla import aio


@pytest.mark.parametrize("loop", LOOPS)
def test_no_thread_is_started(broker: ottla.testing.Broker, topic: str, loop: str) -> None:
    async def at_work(number: int) -> None:
        async with (
            aio.Producer(broker.bootstrap) as producer,
            aio.Consumer(broker.bootstrap, topics=[topic], group=f"{topic}-{loop}-{number}") as consumer,
            aio.Admin(broker.bootstrap) as admin,
        ):
            await asyncio.gather(*(producer.send_and_wait(topic, b"x") for _ in range(100)))
            await (await producer.send_many(topic, [b"x"] * 100)).result(timeout=DEADLINE)
            await values(consumer, 150)
            await consumer.commit()
            assert await admin.partitions(topic) == 3
            await producer.flush()

    # The engine's own are there; one that compresses or looks up names may end meanwhile.
    run_by(loop, at_work(0))
    before, names = threads(), {thread.name for thread in threading.enumerate()}

    async def main() -> None:
        started: set[str] = set()
        tasks = [asyncio.create_task(at_work(number)) for number in range(1, 21)]
        while not all(task.done() for task in tasks):
            started |= threads() - before
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        assert started == set()

    run_by(loop, main())
    assert {thread.name for thread in threading.enumerate()} == names


def test_two_loops_in_two_threads_share_handles(broker: ottla.testing.Broker, topic: str) -> None:
    producer = aio.Producer(broker.bootstrap)
    consumer = aio.Consumer(broker.bootstrap, topics=[topic])
    seen: dict[str, list[bytes | None]] = {loop: [] for loop in LOOPS}
    enough = threading.Event()
    failed: list[BaseException] = []

    async def main(loop: str) -> None:
        async def read() -> None:
            async for record in consumer:
                seen[loop].append(record.value)
                if sum(map(len, seen.values())) == 1_000:
                    enough.set()

        reading = asyncio.create_task(read())
        for number in range(0, 500, 50):
            calls = [
                producer.send_and_wait(topic, b"%s %d" % (loop.encode(), number + i))
                for i in range(50)
            ]
            await asyncio.gather(*calls)
        await until(enough.is_set, "all is read")
        await consumer.close()
        await reading

    def run(loop: str) -> None:
        try:
            run_by(loop, main(loop))
        except BaseException as error:
            failed.append(error)

    both = [threading.Thread(target=run, args=(loop,)) for loop in LOOPS]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(2 * DEADLINE)
    assert failed == []
    expected = {b"%s %d" % (loop.encode(), number) for loop in LOOPS for number in range(500)}
    assert set(seen["asyncio"]) | set(seen["uvloop"]) == expected
    assert len(seen["asyncio"]) + len(seen["uvloop"]) == 1_000


def test_one_delivery_is_awaited_by_two_loops() -> None:
    with stuck() as (broker, _):
        producer = aio.Producer(broker.bootstrap)
        got: list[ottla.Acked] = []

        async def main(delivery: aio.Delivery, many: aio.BatchDelivery) -> None:
            waits = asyncio.gather(delivery, delivery.result(), many)
            await turns()
            ready.wait(DEADLINE)
            got.append((await waits)[0])

        async def sends() -> tuple[aio.Delivery, aio.BatchDelivery]:
            return await producer.send("stuck", b"x"), await producer.send_many("stuck", [b"x"])

        handles = run_by("asyncio", sends())
        ready = threading.Barrier(3)
        both = [threading.Thread(target=run_by, args=(loop, main(*handles))) for loop in LOOPS]
        for thread in both:
            thread.start()
        ready.wait(DEADLINE)
        broker.set_replica_delay(0)
        for thread in both:
            thread.join(DEADLINE)
        assert len(got) == 2 and got[0] == got[1]
        run_by("asyncio", closes(producer))


async def closes(producer: aio.Producer) -> None:
    await producer.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handle_outlives_loops(broker: ottla.testing.Broker, topic: str, loop: str) -> None:
    producer = aio.Producer(broker.bootstrap)
    consumer = aio.Consumer(broker.bootstrap, topics=[topic])

    async def main(number: int) -> None:
        await producer.send_and_wait(topic, b"%d" % number, partition=0)
        record = await consumer.next()
        assert record is not None and record.value == b"%d" % number

    run_by(loop, main(0))
    before = descriptors()
    for number in range(1, 20):
        run_by(loop, main(number))
    # Each loop had one, which went with it.
    gc.collect()
    assert descriptors() <= before
    run_by(loop, closes(producer))


def test_a_loop_that_is_closed_loses_no_record() -> None:
    with stuck() as (broker, settings):
        producer = aio.Producer(broker.bootstrap, **settings)
        consumer = aio.Consumer(broker.bootstrap, topics=["stuck"])
        taken: list[aio.Delivery] = []

        async def leaves() -> None:
            taken.extend(await fill(producer))
            calls: list[Any] = [
                producer.send_and_wait("stuck", b"99999" + bytes(LARGE), partition=0),
                producer.flush(),
                consumer.next(),
                taken[0],
            ]
            for call in calls:
                left.append(asyncio.ensure_future(call))
            await turns()

        left: list[asyncio.Future[object]] = []
        loop = asyncio.new_event_loop()
        said: list[object] = []
        loop.set_exception_handler(lambda _, context: said.append(context["message"]))
        loop.run_until_complete(leaves())
        gone = [weakref.ref(one) for one in [*left, loop]]
        loop.close()
        left.clear()
        del loop
        gc.collect()
        assert [one() for one in gone] == [None] * 5
        assert said == ["Task was destroyed but it is pending!"] * 4
        broker.set_replica_delay(0)

        async def goes_on() -> None:
            acked = await asyncio.gather(*taken)
            assert [at.offset for at in acked] == list(range(len(taken)))
            # What waited for space then was not sent.
            assert (await producer.send_and_wait("stuck", b"x", partition=0)).offset == len(taken)
            assert len(await values(aiter(consumer), len(taken) + 1)) == len(taken) + 1
            await consumer.close()
            await producer.close()

        run_by("asyncio", goes_on())


def test_a_loop_that_nobody_closes_is_collected(broker: ottla.testing.Broker, topic: str) -> None:
    producer = aio.Producer(broker.bootstrap, linger=60)

    class Loop(asyncio.SelectorEventLoop):
        def __del__(self) -> None:
            self.close()

    async def leaves() -> None:
        asyncio.ensure_future(producer.send_and_wait(topic, b"x"))
        await turns()

    loop = Loop()
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(leaves())
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    run_by("asyncio", closes(producer))
    assert len(read(broker.bootstrap, topic, 1)) == 1


def test_what_waited_on_a_closed_loop_says_so() -> None:
    with stuck() as (broker, settings):
        producer = aio.Producer(broker.bootstrap, **settings)

        async def stands() -> None:
            await fill(producer)
            kept.append(producer.send("stuck", bytes(LARGE), partition=0))

        async def awaits() -> None:
            with pytest.raises(ottla.InvalidArgumentError, match="loop.*is closed"):
                await kept.pop()
            await gather([producer.close(timeout=0)])

        kept: list[Any] = []
        run_by("asyncio", stands())
        run_by("asyncio", awaits())


FORK = """
import asyncio, gc, os, sys, warnings, ottla
from ottla import aio

warnings.simplefilter("ignore", DeprecationWarning)  # that threads exist at a fork is the point
bootstrap, topic = sys.argv[1:]
producer = aio.Producer(bootstrap, linger=1)
consumer = aio.Consumer(bootstrap, topics=[topic])
admin = aio.Admin(bootstrap)
state = []

async def begin():
    delivery = await producer.send(topic, b"parent")
    many = await producer.send_many(topic, [b"parent"])
    record = await anext(aiter(consumer))
    state.extend([delivery, many, record, producer.flush(), consumer.next(timeout=1)])
    state.append(asyncio.get_running_loop())
    # Left behind with a reader, as a prefork server's loop.
    asyncio.ensure_future(consumer.next())
    asyncio.ensure_future((await producer.send(topic, b"parent")).result())
    await asyncio.sleep(0)

loop = asyncio.new_event_loop()
loop.run_until_complete(begin())

async def inherited(delivery, many, record, flush, following, loop):
    calls = [
        lambda: producer.send(topic, b"x"),
        lambda: producer.send_and_wait(topic, b"x"),
        lambda: producer.send_many(topic, [b"x"]),
        lambda: producer.flush(),
        lambda: producer.close(),
        lambda: producer.__aenter__(),
        lambda: delivery,
        lambda: delivery.result(timeout=1),
        lambda: many,
        lambda: flush,
        lambda: following,
        lambda: anext(aiter(consumer)),
        lambda: consumer.next(timeout=1),
        lambda: consumer.next_event(timeout=1),
        lambda: consumer.commit(),
        lambda: consumer.close(),
        lambda: admin.partitions(topic),
    ]
    for number, call in enumerate(calls):
        try:
            await call()
        except ottla.ForkedClientError as error:
            assert error.code == "forked" and "after the fork" in str(error), error
        else:
            raise AssertionError(f"call {number} did not say that it is of no use")
    for steer in (lambda: consumer.position(topic, 0), lambda: consumer.pause([(topic, 0)])):
        try:
            steer()
        except ottla.ForkedClientError:
            pass
        else:
            raise AssertionError("it was steered")
    assert repr(delivery) == "<ottla.aio.Delivery of the parent process>", delivery
    assert repr(many) == "<ottla.aio.BatchDelivery of the parent process>", many
    repr(producer), repr(consumer)
    assert record.value == b"parent"

async def own():
    async with aio.Producer(bootstrap) as producer:
        await producer.send_and_wait(topic, b"child")

pid = os.fork()
if pid == 0:
    signal.alarm(60)
    asyncio.run(inherited(*state))
    state.clear()
    del producer, consumer, admin
    gc.collect()
    asyncio.run(own())
    print("child done", flush=True)
    # Without the parent's loop, whose epoll is shared.
    os._exit(0)

_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status

async def go_on():
    await state[0]
    await producer.send_and_wait(topic, b"parent")
    assert await admin.partitions(topic) == 3
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await state[3]
    await state[4]

loop.run_until_complete(go_on())
loop.close()
print("parent done", flush=True)
"""


def test_fork(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    status, out, errors = program(FORK, broker.bootstrap, topic).end()
    assert (status, errors) == (0, "")
    assert out.splitlines() == ["child done", "parent done"]
    got = sorted(record.value or b"" for record in read(broker.bootstrap, topic, 5))
    assert got == [b"child", b"parent", b"parent", b"parent", b"parent"]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_left_at_exit_is_flushed(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program], loop: str
) -> None:
    child = program(
        """
import asyncio, sys
from ottla import aio

bootstrap, topic, loop = sys.argv[1:]

async def main():
    producer = aio.Producer(bootstrap, linger=1)
    await producer.send_many(topic, [b"x"] * 1000)
    kept.append(aio.Producer(bootstrap))
    for _ in range(1000):
        await kept[0].send(topic, b"y")

kept = []
if loop == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
""",
        broker.bootstrap,
        topic,
        loop,
    )
    assert child.end() == (0, "", "")
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 2000


def test_an_exit_in_the_middle_of_everything_is_quiet(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    """A daemon thread's loop goes on while the interpreter ends: nobody calls into it."""
    children = [
        program(
            """
import asyncio, sys, threading
from ottla import aio

bootstrap, topic = sys.argv[1:]
busy = threading.Event()

async def main():
    producer = aio.Producer(bootstrap, linger=0)
    consumer = aio.Consumer(bootstrap, topics=[topic])

    async def read():
        async for _ in consumer:
            pass

    reading = asyncio.create_task(read())
    while True:
        await asyncio.gather(*(producer.send_and_wait(topic, b"x") for _ in range(100)))
        busy.set()

threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
busy.wait(30)
print("leaving", flush=True)
""",
            broker.bootstrap,
            topic,
        )
        for _ in range(6)
    ]
    for child in children:
        assert child.line() == "leaving"
    for child in children:
        status, _, errors = child.end()
        assert status == 0 and "Traceback" not in errors and "panicked" not in errors, errors


def test_code_of_the_programs_that_blocks_in_a_call_does_not_hold_up_the_exit(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    child = program(
        """
import asyncio, sys, threading
from ottla import aio

bootstrap, topic = sys.argv[1:]
inside = threading.Event()

def blocks():
    yield b"x"
    inside.set()
    threading.Event().wait()

async def main():
    await aio.Producer(bootstrap).send_many(topic, blocks())

threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
inside.wait(30)
""",
        broker.bootstrap,
        topic,
    )
    assert child.end() == (0, "", "")


def test_ctrl_c_ends_a_program_and_its_records_arrive(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    child = program(
        """
import asyncio, sys
from ottla import aio

bootstrap, topic = sys.argv[1:]

async def main():
    async with aio.Producer(bootstrap, linger=60) as producer, aio.Consumer(bootstrap, topics=[topic]) as consumer:
        await producer.send(topic, b"x")
        print("waiting", flush=True)
        async for _ in consumer:
            pass

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
""",
        broker.bootstrap,
        topic,
    )
    assert child.line() == "waiting"
    child.wait_until_it_waits()
    child.interrupt()
    assert child.end() == (0, "interrupted\n", "")
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 1
