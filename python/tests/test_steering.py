"""A consumer that is asked and steered while it reads, and offsets that are looked up."""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from conftest import DEADLINE, until
from test_threads import Reader, in_time

import ottla
import ottla.testing


@pytest.fixture
def admin(broker: ottla.testing.Broker) -> ottla.Admin:
    return ottla.Admin(broker.bootstrap)


@pytest.fixture
def written(broker: ottla.testing.Broker, topic: str) -> Iterator[ottla.Consumer]:
    """A consumer of partitions 0 and 1, each with three records in one batch."""
    with ottla.Producer(broker.bootstrap, linger=60) as producer:
        for partition in (0, 1):
            for i in range(3):
                producer.send(topic, f"{partition}.{i}".encode(), partition=partition)
        producer.flush(timeout=DEADLINE)
    assignment: list[Any] = [(topic, 0, "earliest"), (topic, 1, 0)]
    with ottla.Consumer(broker.bootstrap, assignment=assignment) as consumer:
        yield consumer


def values(records: Iterator[ottla.Record], number: int) -> list[bytes | None]:
    return [record.value for record in itertools.islice(records, number)]


def test_a_pause_drops_nothing_and_hands_out_nothing(written: ottla.Consumer, topic: str) -> None:
    first = next(written)
    other = 1 - first.partition
    # In the middle of a batch.
    written.pause([(topic, first.partition)])
    assert written.paused() == [(topic, first.partition)]
    assert values(written, 3) == [f"{other}.{i}".encode() for i in range(3)]
    assert written.next(timeout=0) is None
    assert list(written.batches(timeout=0)) == []
    written.resume([(topic, first.partition)])
    assert written.paused() == []
    assert values(written, 2) == [f"{first.partition}.{i}".encode() for i in (1, 2)]


def test_a_seek_while_paused_counts_when_it_is_resumed(written: ottla.Consumer, topic: str) -> None:
    written.unassign([(topic, 1)])
    assert next(written).value == b"0.0"
    written.pause([(topic, 0)])
    written.seek(topic, 0, 2)
    assert written.position(topic, 0) == 2
    assert written.next(timeout=0) is None
    written.resume([(topic, 0)])
    assert next(written).value == b"0.2"


def test_what_is_left_is_not_handed_out(
    written: ottla.Consumer, producer: ottla.Producer, topic: str
) -> None:
    first = next(written)
    other = 1 - first.partition
    written.unassign([(topic, first.partition)])
    assert written.assignment() == [(topic, other)]
    assert values(written, 3) == [f"{other}.{i}".encode() for i in range(3)]
    producer.send(topic, b"later", partition=other).result(timeout=DEADLINE)
    assert next(written).value == b"later"
    # While it reads.
    written.assign([(topic, first.partition, 1)])
    assert values(written, 2) == [f"{first.partition}.{i}".encode() for i in (1, 2)]
    # All or none.
    with pytest.raises(ottla.UnknownPartitionError):
        written.pause([(topic, 0), (topic, 2)])
    assert written.paused() == []


def test_reading_up_to_an_end(written: ottla.Consumer, admin: ottla.Admin, topic: str) -> None:
    ends = admin.offsets(written.assignment())
    assert ends == {(topic, 0): 3, (topic, 1): 3}
    # What is held back in the middle of a batch was not read.
    first = next(written)
    written.pause([(topic, first.partition)])
    assert len(list(itertools.islice(written.records(until=ends), 3))) == 3
    assert written.next(timeout=0, until=ends) is None
    reader = Reader(lambda: [record.value for record in written.records(until=ends)])
    assert reader.reading.wait(DEADLINE)
    written.resume([(topic, first.partition)])
    reader.join()
    assert reader.end == [f"{first.partition}.{i}".encode() for i in (1, 2)]
    assert written.next(until=ends) is None
    assert list(written.batches(until=ends)) == []
    written.seek(topic, 1, "earliest")
    assert sum(len(batch) for batch in written.batches(until=ends)) == 3


def test_where_reading_stands(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    for partition in (0, 1):
        for _ in range(3):
            producer.send(topic, b"v", partition=partition)
    producer.flush(timeout=DEADLINE)
    assignment: list[Any] = [(topic, 0, 1), (topic, 1, "latest")]
    with ottla.Consumer(broker.bootstrap, assignment=assignment) as consumer:
        # Before the first record: where reading begins, once that is known.
        assert consumer.position(topic, 0) == 1
        until(lambda: consumer.position(topic, 1) == 3, "the end is looked up")
        assert consumer.position(topic, 2) is None
        assert consumer.lag(topic, 2) is None
        until(lambda: consumer.lag(topic, 0) == 2, "a fetch has told the end")
        asked = consumer.stats()["requests"].get("ListOffsets")
        assert len(list(consumer.records(until={(topic, 0): 3}))) == 2
        assert consumer.lag(topic, 0) == 0
        assert consumer.stats()["requests"].get("ListOffsets") == asked


def test_nobody_who_steers_waits_for_the_reader(broker: ottla.testing.Broker, topic: str) -> None:
    consumer = ottla.Consumer(broker.bootstrap, assignment=[(topic, 0, 0)])
    readers = [Reader(lambda: consumer.next(timeout=600)) for _ in range(2)]
    for reader in readers:
        assert reader.reading.wait(DEADLINE)
    for _ in range(20):
        in_time(lambda: [consumer.assign([(topic, 1, 0)]), consumer.pause([(topic, 0)])])
        assert in_time(consumer.paused) == [(topic, 0)]
        in_time(lambda: [consumer.seek(topic, 0, 0), consumer.resume([(topic, 0)])])
        assert in_time(lambda: [consumer.lag(topic, 1)]) in ([None], [0])
        in_time(lambda: [consumer.unassign([(topic, 1)])])
        assert in_time(consumer.assignment) == [(topic, 0)]
    assert all(reader.thread.is_alive() for reader in readers)
    in_time(lambda: [consumer.close()])
    for reader in readers:
        reader.join()
        assert isinstance(reader.end, ottla.ClosedError)
    for steers in (consumer.pause, consumer.resume, consumer.unassign):
        with pytest.raises(ottla.ClosedError):
            steers([(topic, 0)])


def test_who_waits_gets_what_is_resumed(written: ottla.Consumer, topic: str) -> None:
    first = next(written)
    written.pause([(topic, 0), (topic, 1)])
    reader = Reader(lambda: written.next(timeout=600))
    assert reader.reading.wait(DEADLINE)
    in_time(lambda: [written.resume([(topic, first.partition)])])
    reader.join()
    assert isinstance(reader.end, ottla.Record)
    assert (reader.end.partition, reader.end.offset) == (first.partition, 1)


def test_offsets_are_looked_up(
    admin: ottla.Admin, producer: ottla.Producer, topic: str
) -> None:
    for at in (1_000, 2_000):
        producer.send(topic, b"v", partition=1, timestamp=at).result(timeout=DEADLINE)
    places: list[Any] = [(topic, 1), (topic, 0), (topic, 1)]
    assert admin.offsets(places, "latest") == {(topic, 1): 2, (topic, 0): 0}
    assert admin.offsets(places, "earliest") == {(topic, 1): 0, (topic, 0): 0}
    moment = datetime.fromtimestamp(1.5, timezone.utc)
    assert admin.offsets(places, moment) == {(topic, 1): 1, (topic, 0): 0}
    with pytest.raises(ottla.UnknownPartitionError):
        admin.offsets([(topic, 0), (topic, 7)])
    found = admin.offsets([(topic, 1), (topic, 7)], return_exceptions=True)
    assert found[topic, 1] == 2
    assert isinstance(found[topic, 7], ottla.UnknownPartitionError)
    assert admin.offsets([]) == {}


def test_wrong_arguments_say_what_is_right(
    written: ottla.Consumer, admin: ottla.Admin, topic: str
) -> None:
    anything: Any = written
    lookup: Any = admin
    wrong = [
        (lambda: anything.pause([topic]), "partitions must be (topic, partition) tuples; one of"),
        (lambda: anything.resume(7), "partitions must be a list of (topic, partition) tuples"),
        (lambda: anything.unassign([(topic, "0")]), "the partition in partitions must be an int"),
        (lambda: anything.assign([(topic, 0)]), "assignment must be a list of (topic, partition,"),
        (lambda: anything.next(until=[]), "until must be a dict of (topic, partition) tuples"),
        (lambda: anything.records(until={(topic, 0): "1"}), "an offset in until must be an int"),
        (lambda: lookup.offsets([(topic, 0)], 7), "at must be 'earliest', 'latest' or a datetime"),
    ]
    for call, words in wrong:
        with pytest.raises(TypeError) as told:
            call()
        assert words in str(told.value)
    for call in (lambda: anything.assign([(topic, 0, -1)]), lambda: anything.assign([])):
        with pytest.raises(ottla.InvalidArgumentError):
            call()
    with pytest.raises(ottla.InvalidArgumentError, match="until names no partition"):
        anything.next(until={})
    with pytest.raises(ottla.InvalidArgumentError, match="at is 'middle'"):
        lookup.offsets([(topic, 0)], "middle")
    assert inspect.signature(admin.offsets).parameters["at"].default == "latest"


def test_pauses_from_elsewhere_lose_no_record(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        until(lambda: len(consumer.assignment()) == 3, "the partitions are known")
        done = threading.Event()

        def pause_and_resume() -> None:
            while not done.is_set():
                consumer.pause(consumer.assignment())
                consumer.resume(consumer.paused())

        thread = threading.Thread(target=pause_and_resume, daemon=True)
        thread.start()
        sent = [b"%d" % i for i in range(3000)]
        for at in range(0, len(sent), 100):
            producer.send_many(topic, sent[at : at + 100]).result(timeout=DEADLINE)
        seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
        while sum(map(len, seen.values())) < len(sent):
            record = consumer.next(timeout=DEADLINE)
            assert record is not None, f"{seen} came"
            seen[record.partition].append(record.offset)
        done.set()
        thread.join(DEADLINE)
        for offsets in seen.values():
            assert offsets == list(range(len(offsets)))
