"""What an awaited send costs in asyncio, beside what asyncio itself costs in the same run.

    python tests/bench/aio.py                   # with the installed wheel; aiokafka beside it if it is installed
    python tests/bench/aio.py --uvloop --rounds 9

Two ways in which programs send: a thousand tasks that each send one record after the other, and a task for each record. The
floor is the same program with futures that a callback of the loop resolves together, as a batch's acknowledgement does. Printed
is CPU time a record, of the loop's thread and of the whole process (the engine's thread too; the broker has a process of its
own): the median of the rounds, which take turns. The floor has no other thread.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ottla import aio

TASKS = 1_000
VALUE = bytes(100)

Send = Callable[[], Awaitable[Any]]
Costs = dict[str, list[tuple[float, float]]]

BROKER = """
import sys, ottla.testing
with ottla.testing.Broker() as broker:
    broker.create_topic("bench", partitions=8)
    print(broker.bootstrap, flush=True)
    sys.stdin.read()
"""


@contextmanager
def cluster() -> Iterator[str]:
    command = [sys.executable, "-c", BROKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


class Floor:
    """Futures that are resolved together, in the next turn of the loop."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    def send(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self.resolve)
        future: asyncio.Future[None] = loop.create_future()
        self.waiting.append(future)
        return future

    def resolve(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


async def looping(send: Send, records: int) -> None:
    async def task() -> None:
        for _ in range(records // TASKS):
            await send()

    await asyncio.gather(*(task() for _ in range(TASKS)))


async def task_each(send: Send, records: int) -> None:
    async def task() -> None:
        await send()

    for _ in range(records // TASKS):
        await asyncio.gather(*(asyncio.create_task(task()) for _ in range(TASKS)))


async def measure(rounds: int, records: int, senders: dict[str, Send]) -> dict[str, Costs]:
    ways = {"1,000 tasks looping": looping, "a task for each": task_each}
    costs: dict[str, Costs] = {way: {name: [] for name in senders} for way in ways}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            for name, send in senders.items():
                thread, process = time.thread_time(), time.process_time()
                await run(send, records)
                took = (time.thread_time() - thread, time.process_time() - process)
                # The first is for caches and connections.
                if turn:
                    costs[way][name].append((took[0] / records * 1e6, took[1] / records * 1e6))
    return costs


async def main(rounds: int, records: int) -> None:
    senders: dict[str, Send] = {"asyncio alone": Floor().send}
    with cluster() as bootstrap:
        async with aio.Producer(bootstrap, compression="none") as producer:
            senders["ottla.aio"] = lambda: producer.send_and_wait("bench", VALUE)
            peer: Any = None
            if importlib.util.find_spec("aiokafka"):
                import aiokafka  # pyright: ignore[reportMissingImports]

                peer = aiokafka.AIOKafkaProducer(
                    bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=5
                )
                await peer.start()
                senders["aiokafka"] = lambda: peer.send_and_wait("bench", VALUE)
            costs = await measure(rounds, records, senders)
            if peer is not None:
                await peer.stop()
    print(f"microseconds of CPU a record, {rounds} rounds of {records:,}: loop's thread (process)")
    for way, of in costs.items():
        print(way)
        floor = statistics.median(thread for thread, _ in of["asyncio alone"])
        for name, rows in of.items():
            thread, process = (statistics.median(column) for column in zip(*rows))
            more = "" if name == "asyncio alone" else f"   floor + {thread - floor:.2f}"
            print(f"  {name:<14} {thread:6.2f} ({process:.2f}){more}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What an awaited send costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio's own loop")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if given.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(given.rounds, given.records))
