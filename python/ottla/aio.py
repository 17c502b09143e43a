"""Ottla for asyncio: the same handles, awaited.

    from ottla import aio

    async with aio.Producer("localhost:9092") as producer:
        at = await producer.send_and_wait("events", b"hello")   # acknowledged
        delivery = await producer.send("events", b"hello")      # taken; `await delivery` for the rest

    async with aio.Consumer("localhost:9092", group="billing", topics=["events"]) as consumer:
        async for record in consumer:                           # done when the next one is asked for
            print(record.value)

Handles are made anywhere, also where no loop runs, and used under any loop of asyncio that watches descriptors:
asyncio's own, uvloop, and anyio's on them. No thread is started for them, and none waits: each loop has one descriptor
to watch. What a call gives is a coroutine in all but name, to be awaited once: at once, or by create_task, gather, wait_for and
task groups.
"""

from __future__ import annotations

from ottla._aio import (
    Admin,
    Batches,
    BatchDelivery,
    Consumer,
    Delivery,
    Events,
    Producer,
    Records,
)

__all__ = [
    "Admin",
    "BatchDelivery",
    "Batches",
    "Consumer",
    "Delivery",
    "Events",
    "Producer",
    "Records",
]
