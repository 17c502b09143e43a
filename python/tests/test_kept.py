"""What a program keeps of what it read counts against the consumer's memory, unless it is detached."""

from __future__ import annotations

import gc
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import DEADLINE, read
from group_members import committed, member, write

import ottla
import ottla.testing

MIB = 1 << 20
# Small ones: who has no memory left is given one of them at a time, and who has it ten or more.
BATCHES = 400
EACH = 10


@pytest.fixture(scope="module")
def batches() -> Iterator[ottla.testing.Broker]:
    """Batches of nearly 100 KiB, of ten records each, 40 MiB of them."""
    with ottla.testing.Broker() as broker:
        broker.create_topic("t")
        settings: dict[str, Any] = {"compression": "none", "batch_size": 2 * MIB, "linger": 1}
        with ottla.Producer(broker.bootstrap, **settings) as producer:
            for _ in range(BATCHES):
                producer.send_many("t", [bytes(MIB // 100)] * EACH).result(timeout=DEADLINE)
        yield broker


def requests_of(broker: ottla.testing.Broker, keep: Callable[[ottla.Batch], object]) -> int:
    """How often a consumer with little memory asks brokers, until it has read all."""
    kept: list[object] = []
    with ottla.Consumer(broker.bootstrap, topics=["t"], buffer_memory=8 * MIB) as consumer:
        before, records = consumer.stats()["fetch_requests"], 0
        for batch in consumer.batches(timeout=DEADLINE):
            records += len(batch)
            kept.append(keep(batch))
            if records == BATCHES * EACH:
                break
        requests = consumer.stats()["fetch_requests"] - before
    assert records == BATCHES * EACH and len(kept) >= BATCHES
    return requests


def test_what_is_detached_leaves_the_consumer_its_memory(batches: ottla.testing.Broker) -> None:
    # Without memory little is asked for at once.
    without = requests_of(batches, lambda batch: batch[1])
    for keep in (
        lambda batch: batch[1].detach(),
        lambda batch: batch.detach(),
        lambda batch: batch.detach()[1],
    ):
        assert 2 * requests_of(batches, keep) < without


def test_what_is_detached_is_the_same(broker: ottla.testing.Broker, topic: str) -> None:
    headers = [("a", b""), ("b", None), ("c", b"x")]
    with ottla.Producer(broker.bootstrap, linger=1) as producer:
        for i in range(5):
            producer.send(topic, b"%d" % i, key=b"k" if i % 2 else None, headers=headers, partition=0)
        producer.send(topic, None, partition=0)
    for record in read(broker.bootstrap, topic, 6):
        for other in (record.detach(), record.detach().detach()):
            assert other == record and hash(other) == hash(record)
            assert other.topic == topic and repr(other) == repr(record)
            assert (other.key, other.value, other.headers) == (record.key, record.value, record.headers)
            assert other.timestamp == record.timestamp
            with pytest.raises(TypeError):
                pickle.dumps(other)
    start = [(topic, 0, 2)]
    with ottla.Consumer(broker.bootstrap, assignment=start) as consumer:
        batch = next(consumer.batches(timeout=DEADLINE))
    other = batch.detach()
    assert list(other) == list(batch) and other[0] in batch and repr(other) == repr(batch)
    assert (other.topic, other.partition) == (batch.topic, batch.partition)
    assert (other.base_offset, other.next_offset) == (batch.base_offset, batch.next_offset)
    assert other[-1].detach() == batch[-1]


def test_what_is_detached_is_acked(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 6)
    with member(broker, group, topic, commit="acked") as consumer:
        records = [record.detach() for record in itertools.islice(consumer, 6)]
        gc.collect()
        for offset, upto in [(1, 0), (4, 0), (0, 2), (0, 2), (2, 3)]:
            records[offset].ack()
            consumer.commit(timeout=DEADLINE)
            assert committed(broker, group, topic) == upto
        # Of a copy of a copy.
        records[3].detach().ack()
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 5
    write(broker, topic, 2)
    with member(broker, group, topic, commit="acked") as consumer:
        records = list(itertools.islice(consumer, 3))
        [record] = [record for record in records if record.offset == 5]
        record.detach().ack()
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 6
    with member(broker, group, topic, commit="acked") as consumer:
        [batch] = itertools.islice(consumer.batches(), 1)
        batch.detach().ack()
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 6 + len(batch)
