"""What the tests of groups share: a member, what it takes, and what the group has of it."""

from __future__ import annotations

from typing import Any

from conftest import DEADLINE

import ottla
import ottla.testing

BY_HAND = 3600.0
"""No commit by itself comes within a test."""


def write(broker: ottla.testing.Broker, topic: str, count: int, partition: int = 0) -> None:
    """So many records in one batch."""
    with ottla.Producer(broker.bootstrap, linger=60) as producer:
        for i in range(count):
            producer.send(topic, b"%d.%d" % (partition, i), partition=partition)
        producer.flush(timeout=DEADLINE)


def committed(broker: ottla.testing.Broker, group: str, topic: str, partition: int = 0) -> int:
    """0 also where nothing is."""
    found = broker.group(group)
    return found.committed.get((topic, partition), 0) if found else 0


def member(
    broker: ottla.testing.Broker, group: str, topic: str, **settings: Any
) -> ottla.Consumer:
    settings.setdefault("commit_interval", BY_HAND)
    return ottla.Consumer(broker.bootstrap, group=group, topics=[topic], **settings)


def take(consumer: ottla.Consumer, count: int) -> list[bytes | None]:
    values = []
    for _ in range(count):
        record = consumer.next(timeout=DEADLINE)
        assert record is not None, f"{values} came"
        values.append(record.value)
    return values


def left(broker: ottla.testing.Broker, group: str, topic: str) -> list[bytes | None]:
    """What a successor reads of partition 0."""
    with ottla.Producer(broker.bootstrap) as producer:
        producer.send(topic, b"end", partition=0).result(timeout=DEADLINE)
    with member(broker, group, topic) as consumer:
        values = list(iter(lambda: take(consumer, 1)[0], b"end"))
    return values
