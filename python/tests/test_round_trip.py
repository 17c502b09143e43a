"""What goes in comes out."""

from __future__ import annotations

import itertools
import threading
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conftest import DEADLINE, read, until

import ottla
import ottla.testing


def test_a_record_with_everything(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    headers = [("trace", b"7f"), ("trace", None), ("näme", b"")]
    delivery = producer.send(
        topic, b"hello", key=b"user-1", headers=headers, partition=2, timestamp=1_700_000_000_123
    )
    at = delivery.result(timeout=DEADLINE)
    assert at == delivery.result()
    assert delivery.done() and delivery.exception() is None
    assert (at.partition, at.offset, at.timestamp) == (2, 0, 1_700_000_000_123)
    [record] = read(broker.bootstrap, topic, 1)
    assert (record.topic, record.partition, record.offset) == (topic, 2, 0)
    assert (record.key, record.value) == (b"user-1", b"hello")
    assert record.headers == tuple(headers)
    assert record.timestamp == 1_700_000_000_123


@pytest.mark.parametrize("compression", ["none", "lz4", "snappy", "gzip", "zstd"])
def test_null_and_empty_are_different(
    broker: ottla.testing.Broker, topic: str, compression: Any
) -> None:
    cases = list(itertools.product([None, b"", b"x" * 3000], repeat=2))
    with ottla.Producer(broker.bootstrap, compression=compression) as producer:
        for key, value in cases:
            producer.send(topic, value, key=key, partition=0)
    records = read(broker.bootstrap, topic, len(cases))
    assert [(record.key, record.value) for record in records] == cases


def test_anything_with_bytes_is_taken(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    changed = bytearray(b"one")
    producer.send(topic, changed, partition=0)
    changed[:] = b"xxx"
    producer.send(topic, memoryview(b"-two-")[1:4], partition=0)
    producer.send(topic, memoryview(b"t-h-r-e-e")[::2], partition=0)
    producer.flush(timeout=DEADLINE)
    assert [r.value for r in read(broker.bootstrap, topic, 3)] == [b"one", b"two", b"three"]


def test_a_moment_as_timestamp(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=timezone(timedelta(hours=2)))
    producer.send(topic, b"", timestamp=moment).result(timeout=DEADLINE)
    [record] = read(broker.bootstrap, topic, 1)
    assert record.timestamp == round(moment.timestamp() * 1000)
    with pytest.raises(ValueError, match="without a time zone"):
        producer.send(topic, b"", timestamp=datetime(2026, 1, 2))


@pytest.mark.parametrize("nulls", [False, True])
def test_many_at_once(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str, nulls: bool
) -> None:
    values = [None if nulls and i % 5 == 0 else b"%d" % i for i in range(5000)]
    delivery = producer.send_many(topic, tuple(values) if nulls else iter(values))
    assert len(delivery) == 5000
    assert delivery.result(timeout=DEADLINE).records == 5000
    assert delivery.done() and delivery.exception() is None
    got = [record.value for record in read(broker.bootstrap, topic, 5000)]
    assert sorted(got, key=repr) == sorted(values, key=repr)


def test_no_values_at_all(producer: ottla.Producer, topic: str) -> None:
    delivery = producer.send_many(topic, [])
    assert delivery
    assert len(delivery) == 0
    assert delivery.result(timeout=DEADLINE).records == 0


def test_a_batch_is_a_sequence(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    values = [b"%d" % i for i in range(100)]
    for value in values:
        producer.send(topic, value, partition=1)
    producer.flush(timeout=DEADLINE)
    got: list[bytes | None] = []
    with ottla.Consumer(broker.bootstrap, assignment=[(topic, 1, "earliest")]) as consumer:
        for batch in consumer.batches(timeout=DEADLINE):
            records = list(batch)
            assert len(batch) == len(records)
            assert (batch.topic, batch.partition) == (topic, 1)
            assert batch.base_offset == len(got)
            assert batch.next_offset == batch.base_offset + len(batch)
            assert batch[0].offset == records[0].offset
            assert batch[-1].offset == records[-1].offset
            assert [r.value for r in batch[::-2]] == [r.value for r in records[::-2]]
            with pytest.raises(IndexError):
                batch[len(batch)]
            with pytest.raises(IndexError):
                batch[-len(batch) - 1]
            got.extend(record.value for record in records)
            if len(got) == 100:
                break
        assert consumer.position(topic, 1) == 100
        assert consumer.assignment() == [(topic, 1)]
    assert got == values


def test_batches_give_what_records_left(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    producer.send_many(topic, [b"%d" % i for i in range(10)]).result(timeout=DEADLINE)
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        first = consumer.next(timeout=DEADLINE)
        assert first is not None
        got = [first.value]
        for batch in consumer.batches(timeout=DEADLINE):
            assert len(batch) == len(list(batch)) > 0
            got.extend(record.value for record in batch)
            if len(got) == 10:
                break
        # All of a batch was taken as records: nothing is left to be one.
        producer.send(topic, b"alone").result(timeout=DEADLINE)
        assert consumer.next(timeout=DEADLINE) is not None
        assert list(consumer.batches(timeout=0.02)) == []
    assert sorted(value or b"" for value in got) == [b"%d" % i for i in range(10)]


def test_starting_places_and_seeking(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    for i in range(10):
        producer.send(topic, b"%d" % i, partition=0, timestamp=1_700_000_000_000 + i)
        producer.flush(timeout=DEADLINE)
    moment = datetime.fromtimestamp(1_700_000_000.004, tz=timezone.utc)
    places: list[tuple[Any, int]] = [("earliest", 0), (7, 7), (moment, 4)]
    for start, offset in places:
        with ottla.Consumer(broker.bootstrap, assignment=[(topic, 0, start)]) as consumer:
            record = consumer.next(timeout=DEADLINE)
            assert record is not None and record.offset == offset
    with ottla.Consumer(broker.bootstrap, assignment=[(topic, 0, 0)]) as consumer:
        assert next(consumer).offset == 0
        consumer.seek(topic, 0, 6)
        assert next(consumer).offset == 6
        with pytest.raises(ottla.UnknownPartitionError):
            consumer.seek(topic, 1, 0)
        before_1970 = datetime(1969, 12, 31, tzinfo=timezone.utc)
        with pytest.raises(ottla.InvalidArgumentError):
            consumer.seek(topic, 0, before_1970)
        with pytest.raises(ottla.InvalidArgumentError):
            ottla.Consumer(broker.bootstrap, assignment=[(topic, 0, before_1970)])
    with pytest.raises(ottla.ClosedError):
        consumer.seek(topic, 0, 6)


def test_nothing_to_read_ends_in_time(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        assert consumer.next(timeout=0) is None
        assert consumer.next(timeout=timedelta(milliseconds=20)) is None
        assert list(consumer.batches(timeout=0.02)) == []


def test_leaving_the_block_flushes(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap, linger=10) as producer:
        deliveries = [producer.send(topic, b"%d" % i) for i in range(100)]
    assert all(delivery.done() for delivery in deliveries)
    assert {delivery.result().partition for delivery in deliveries} <= {0, 1, 2}
    assert len(read(broker.bootstrap, topic, 100)) == 100


def test_leaving_by_an_exception_flushes_too(broker: ottla.testing.Broker, topic: str) -> None:
    deliveries: list[ottla.Delivery] = []
    with pytest.raises(ZeroDivisionError), ottla.Producer(broker.bootstrap) as producer:
        deliveries.append(producer.send(topic, b"x"))
        _ = 1 / 0
    assert deliveries[0].done() and deliveries[0].result().offset == 0


def test_threads_share_handles(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    def send(name: int) -> None:
        for i in range(500):
            producer.send(topic, b"%d-%d" % (name, i))

    got: list[bytes | None] = []

    def receive(consumer: ottla.Consumer) -> None:
        got.extend(record.value for record in consumer)

    senders = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        receivers = [threading.Thread(target=receive, args=(consumer,)) for _ in range(3)]
        for thread in senders + receivers:
            thread.start()
        for thread in senders:
            thread.join(DEADLINE)
        until(lambda: len(got) == 2000, "every record is read once")
    # Closing ended the iterations of the others.
    for thread in receivers:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert len(set(got)) == 2000


def test_other_threads_run_while_one_waits() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("slow")
        broker.set_replica_delay(None)
        with ottla.Producer(broker.bootstrap) as producer:
            delivery = producer.send("slow", b"x")
            assert not delivery.done()
            # Nobody else can let it go, so a wait that kept the interpreter would never end.
            thread = threading.Thread(target=broker.set_replica_delay, args=(0,))
            thread.start()
            assert delivery.result(timeout=DEADLINE).offset == 0
            thread.join(DEADLINE)


@pytest.mark.kafka
def test_real_kafka(kafka: str) -> None:
    topic = f"ottla-python-{uuid.uuid4()}"
    ottla.create_topic(kafka, topic, partitions=3)
    values = [b"%d" % i for i in range(10_000)]
    with ottla.Producer(kafka) as producer:
        producer.send_many(topic, values).result(timeout=DEADLINE)
        producer.send(topic, None, key=b"k", headers=[("h", None)]).result(timeout=DEADLINE)
    records = read(kafka, topic, 10_001)
    assert sorted(r.value for r in records if r.value is not None) == sorted(values)
    [null] = [record for record in records if record.value is None]
    assert (null.key, null.headers) == (b"k", (("h", None),))


def test_a_seek_with_a_batch_in_hand_is_of_its_partition_alone(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    producer.send(topic, b"another", partition=1).result(timeout=DEADLINE)
    for i in range(4):
        producer.send(topic, b"%d" % i, partition=0)
    producer.flush(timeout=DEADLINE)
    assignment: list[Any] = [(topic, 0, "earliest"), (topic, 1, 1)]
    with ottla.Consumer(broker.bootstrap, assignment=assignment) as consumer:
        assert next(consumer).value == b"0"
        # Elsewhere: what is in hand stays.
        consumer.seek(topic, 1, 1)
        assert next(consumer).value == b"1"
        # Here: it goes.
        consumer.seek(topic, 0, 3)
        assert next(consumer).value == b"3"
        consumer.seek(topic, 0, 0)
        assert [next(consumer).value for _ in range(3)] == [b"0", b"1", b"2"]
