"""What the tests of ottla.aio share: programs run by the event loops that are supported."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import pytest
from conftest import DEADLINE

import ottla.testing
from ottla import aio

T = TypeVar("T")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def uvloops() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloops,
}


def run_by(name: str, main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, and says where a program stands that does not end."""

    async def in_time() -> T:
        async with asyncio.timeout(DEADLINE):
            return await main

    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        return runner.run(in_time())


async def until(condition: Callable[[], bool], what: str) -> None:
    """Lets the loop go on until a condition holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.005)


async def turns(number: int = 3) -> None:
    """Lets everything run that can."""
    for _ in range(number):
        await asyncio.sleep(0)


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def gather(each: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*each, return_exceptions=True))


async def values(of: AsyncIterator[ottla.Record], number: int) -> list[bytes | None]:
    got = []
    async for record in of:
        got.append(record.value)
        if len(got) == number:
            break
    return got


@contextmanager
def stuck(**settings: Any) -> Iterator[tuple[ottla.testing.Broker, dict[str, Any]]]:
    """A cluster that writes and acknowledges nothing, and settings of a producer whose buffer is soon full."""
    with ottla.testing.Broker(brokers=2, **settings) as broker:
        broker.create_topic("stuck")
        broker.set_replica_delay(None)
        yield (
            broker,
            {
                "buffer_memory": "1 MiB",
                "batch_size": "64 KiB",
                "compression": "none",
                "max_block": DEADLINE,
            },
        )


LARGE = 50_000
"""Of these a full buffer takes no more than twenty."""


async def fill(producer: aio.Producer) -> list[aio.Delivery]:
    """Records until there is no more space; they are numbered from 0."""
    taken: list[aio.Delivery] = []
    while True:
        number = b"%05d" % len(taken)
        sending = asyncio.ensure_future(producer.send("stuck", number + bytes(LARGE), partition=0))
        await turns()
        if not sending.done():
            sending.cancel()
            assert isinstance((await gather([sending]))[0], asyncio.CancelledError)
            return taken
        taken.append(sending.result())


def numbers(broker: ottla.testing.Broker, count: int) -> list[int]:
    """Which of these records are in the log, in its order."""
    with ottla.Consumer(broker.bootstrap, topics=["stuck"]) as consumer:
        records = (consumer.next(timeout=DEADLINE) for _ in range(count))
        found = [int((record and record.value or b"")[:5]) for record in records]
        assert consumer.next(timeout=0.1) is None, "there is more"
        return found


@asynccontextmanager
async def waiting(what: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    """A task that waits for this, which nobody leaves behind."""
    task = asyncio.ensure_future(what)
    await turns()
    assert not task.done()
    try:
        yield task
    finally:
        task.cancel()
        await gather([task])
