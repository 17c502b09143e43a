"""A service of asyncio between two topics: reads as a member of a group, works on many records at once, and sends what comes of
them on.

    pip install ottla
    python asyncio_service.py                        # starts a cluster in this process, and two members
    python asyncio_service.py --bootstrap HOST:PORT  # one member of the group, until Ctrl-C; start several of them

A record is acknowledged when what came of it is: so what is committed is what was finished without a gap, and a record
whose work failed, or was cut short, is read again by the next run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

import ottla
from ottla import aio

SOURCE, TARGET, GROUP = "ottla-orders", "ottla-receipts", "ottla-asyncio"


async def work(record: ottla.Record, producer: aio.Producer) -> None:
    await asyncio.sleep(0.001)  # ... a database, another service ...
    await producer.send_and_wait(TARGET, b"done: " + (record.value or b""), key=record.key)
    record.ack()


async def serve(bootstrap: str, name: str) -> None:
    """Until the task is cancelled: what is under way then is read again."""
    async with (
        aio.Producer(bootstrap) as producer,
        aio.Consumer(bootstrap, group=GROUP, topics=[SOURCE], commit="acked") as consumer,
    ):
        async for batch in consumer.batches():
            print(f"{name:<8} {len(batch)} records of partition {batch.partition}")
            # One batch at a time: no more is taken than is worked on.
            async with asyncio.TaskGroup() as group:
                for record in batch:
                    group.create_task(work(record, producer))


async def embedded(records: int) -> None:
    import ottla.testing

    with ottla.testing.Broker(brokers=3) as broker:
        async with aio.Admin(broker.bootstrap) as admin:
            for topic in (SOURCE, TARGET):
                await admin.create_topic(topic, 4)
        async with aio.Producer(broker.bootstrap) as producer:
            orders = (
                producer.send_and_wait(SOURCE, b"order %d" % number, partition=number % 4)
                for number in range(records)
            )
            await asyncio.gather(*orders)
        members = [asyncio.create_task(serve(broker.bootstrap, name)) for name in ("one", "two")]
        receipts: set[bytes | None] = set()
        async with aio.Consumer(broker.bootstrap, topics=[TARGET]) as consumer:
            async for record in consumer:
                receipts.add(record.value)
                if len(receipts) == records:
                    break
        for member in members:
            member.cancel()
        # They commit, and leave the group.
        await asyncio.gather(*members, return_exceptions=True)
        group = broker.group(GROUP)
        assert group is not None
        print(f"{len(receipts):,} receipts, {sum(group.committed.values()):,} orders committed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads a topic, works, and writes another, with asyncio.")
    parser.add_argument("--bootstrap", help="host:port,... of a cluster (default: an embedded one)")
    parser.add_argument("--records", type=int, default=2_000)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if arguments.bootstrap:
            asyncio.run(serve(arguments.bootstrap, "member"))
        else:
            asyncio.run(embedded(arguments.records))


if __name__ == "__main__":
    main()
