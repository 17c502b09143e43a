"""What is taken as a value, and what the objects that come back can do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import DEADLINE, read

import ottla
import ottla.testing


class Number:
    """An int as libraries for numbers have them: it is none, and says which it is."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


HEADERS: list[tuple[Any, bytes | None]] = [
    ("name", b"text"),
    (b"\xff\xfe", b"no UTF-8"),
    (b"bytes", None),
    ("\udcff", b"as it was read"),
    ("ä\udc80", b"both"),
]
NAMES = ["name", "\udcff\udcfe", "bytes", "\udcff", "ä\udc80"]


@pytest.mark.parametrize("settings", [{}, {"partitioner": "key_hash"}])
def test_headers_go_on_as_they_were_read(
    broker: ottla.testing.Broker, topic: str, settings: Any
) -> None:
    with ottla.Producer(broker.bootstrap, **settings) as producer:
        producer.send(topic, b"x", key=b"k", headers=HEADERS)
    [first] = read(broker.bootstrap, topic, 1)
    assert [name for name, _ in first.headers] == NAMES
    assert [value for _, value in first.headers] == [value for _, value in HEADERS]
    broker.create_topic(f"{topic}-on")
    with ottla.Producer(broker.bootstrap, **settings) as producer:
        producer.send(f"{topic}-on", b"x", headers=first.headers)
    [second] = read(broker.bootstrap, f"{topic}-on", 1)
    assert second.headers == first.headers


def test_headers_survive_a_batch_that_is_taken_apart() -> None:
    with ottla.testing.Broker(max_message_bytes="10 KiB") as broker:
        broker.create_topic("small")
        with ottla.Producer(broker.bootstrap, compression="none") as producer:
            for i in range(10):
                producer.send("small", bytes(5000), headers=[(bytes([0xF0 + i]), b"%d" % i)])
        records = read(broker.bootstrap, "small", 10)
        names = {name: value for record in records for name, value in record.headers}
        assert names == {chr(0xDCF0 + i): b"%d" % i for i in range(10)}


def test_a_header_name_that_no_bytes_are(producer: ottla.Producer, topic: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        producer.send(topic, b"", headers=[("\ud800", b"")])


def test_everything_that_counts_as_an_int_is_one(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(
        broker.bootstrap,
        batch_size=Number(1 << 20),
        linger=Number(0),
        ordinal=(Number(0), Number(1)),
        compression="gzip",
        compression_level=Number(9),
    ) as producer:
        at = producer.send(topic, b"x", partition=Number(2), timestamp=Number(77))
        assert at.result(timeout=Number(30)).partition == 2
    ottla.create_topic(broker.bootstrap, f"{topic}-b", Number(2), Number(1))
    with ottla.Consumer(
        broker.bootstrap, assignment=[(topic, Number(2), Number(0))], min_bytes=Number(1)
    ) as consumer:
        for _ in range(2):
            batch = next(iter(consumer.batches(timeout=Number(30))))
            assert batch[Number(0)].timestamp == 77
            assert consumer.position(topic, Number(2)) == 1
            consumer.seek(topic, Number(2), Number(0))


def test_what_is_no_int_or_too_large_is_said_by_name(
    broker: ottla.testing.Broker, producer: Any, topic: str
) -> None:
    with ottla.Consumer(broker.bootstrap, assignment=[(topic, 0, 0)]) as consumer:
        anything: Any = consumer
        admin: Any = ottla.Admin(broker.bootstrap)
        wrong: list[tuple[Any, str]] = [
            (lambda: producer.send(topic, b"", partition="0"), "partition must be an int, not str"),
            (lambda: producer.send(topic, b"", partition=True), "partition must be an int, not bool"),
            (lambda: producer.send(topic, b"", partition=1.0), "partition must be an int, not float"),
            (lambda: producer.send(topic, b"", timestamp=1.5), "timestamp must be an int"),
            (lambda: anything.position(topic, "0"), "partition must be an int, not str"),
            (lambda: anything.seek(topic, 0, 1.5), "start must be 'earliest'"),
            (lambda: ottla.Consumer("a:1", topics=[["t"]]), "each of topics must be a str, not list"),  # type: ignore[list-item]
            (lambda: ottla.Consumer("a:1", topics=7), "topics must be a list of names, not int"),  # type: ignore[arg-type]
            (lambda: ottla.Consumer("a:1", assignment=7), "assignment must be a list of"),  # type: ignore[arg-type]
            (lambda: ottla.Consumer("a:1", assignment=[("t", 0)]), "assignment must be a list of"),  # type: ignore[list-item]
            (
                lambda: ottla.Consumer("a:1", assignment=[(["t"], 0, 0)]),  # type: ignore[list-item]
                "the topic in assignment must be a str, not list",
            ),
            (
                lambda: ottla.Consumer("a:1", assignment=[("t", "0", 0)]),  # type: ignore[list-item]
                "the partition in assignment must be an int, not str",
            ),
            (lambda: ottla.Producer(["a:1"]), "bootstrap must be a str, .* not list"),  # type: ignore[arg-type]
            (lambda: ottla.Producer(), "a producer needs bootstrap"),  # type: ignore[call-arg]
            (lambda: producer.send([topic], b""), "topic must be a str, not list"),
            (lambda: producer.send_many(7, [b""]), "topic must be a str, not int"),
            (lambda: anything.position(b"t", 0), "topic must be a str, not bytes"),
            (lambda: anything.seek(None, 0, 0), "topic must be a str, not NoneType"),
            (lambda: admin.create_topic([topic]), "name must be a str, not list"),
            (lambda: admin.create_topic("t", "3"), "partitions must be an int, not str"),
            (lambda: admin.create_topic("t", 3, 1.0), "replication must be an int, not float"),
            (lambda: admin.create_topic("t", config=[("a", "b")]), "config must be a dict, not list"),
            (lambda: admin.create_topic("t", config={"a": 1}), "config.*'a' must be a str, not int"),
            (lambda: admin.partitions(7), "topic must be a str, not int"),
            (lambda: producer.send_many(topic, 7), "values must be a list of bytes, not int"),
            (lambda: producer.send(topic, b"", headers=7), "headers must be a list of"),
            (lambda: producer.send(topic, b"", headers=[(7, b"")]), "must be str or bytes, not int"),
        ]
        for call, message in wrong:
            with pytest.raises(TypeError, match=message):
                call()
        large: list[tuple[Any, str]] = [
            (lambda: producer.send(topic, b"", partition=2**31), "partition is 2147483648"),
            (lambda: producer.send(topic, b"", timestamp=2**63), "timestamp is 9223372036854775808"),
            (lambda: consumer.seek(topic, 0, 2**63), "start is 9223372036854775808"),
            (lambda: consumer.seek(topic, 0, -1), "start is -1"),
            (lambda: consumer.seek(topic, 0, "middle"), "start is 'middle'"),  # type: ignore[arg-type]
            (lambda: ottla.create_topic(broker.bootstrap, "t", 2**31), "partitions is 2147483648"),
            (lambda: ottla.create_topic(broker.bootstrap, "t", 1, 2**15), "replication is 32768"),
        ]
        for call, message in large:
            with pytest.raises(ottla.InvalidArgumentError, match=message) as caught:
                call()
            assert not caught.value.fatal and not caught.value.retriable
        # The handles are as they were.
        producer.send(topic, b"", partition=0).result(timeout=DEADLINE)
        assert consumer.next(timeout=DEADLINE) is not None


def test_a_negative_timeout_is_a_wrong_argument(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    delivery = producer.send(topic, b"x")
    many = producer.send_many(topic, [b"x"])
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        for call in (
            lambda: producer.flush(timeout=-1),
            lambda: producer.close(timeout=-1),
            lambda: delivery.result(timeout=-1),
            lambda: many.exception(timeout=-0.5),
            lambda: consumer.next(timeout=-1),
            lambda: consumer.batches(timeout=-1),
        ):
            with pytest.raises(ottla.InvalidArgumentError, match="timeout is -") as caught:
                call()
            error = caught.value
            assert isinstance(error, ValueError)
            assert not error.fatal and not error.retriable and not error.maybe_written
    producer.send(topic, b"x").result(timeout=DEADLINE)


def copies(value: Any) -> list[Any]:
    by_pickle = [
        pickle.loads(pickle.dumps(value, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    return [*by_pickle, copy.copy(value), copy.deepcopy(value)]


def test_where_a_record_is_can_be_copied(producer: ottla.Producer, topic: str) -> None:
    acked = producer.send(topic, b"x").result(timeout=DEADLINE)
    for one in copies(acked):
        assert type(one) is ottla.Acked and one == acked and hash(one) == hash(acked)
        assert repr(one) == repr(acked)
    many = producer.send_many(topic, [b"x"] * 3).result(timeout=DEADLINE)
    for one in copies(many):
        assert type(one) is ottla.BatchAcked and one == many and one.records == 3
    assert ottla.Acked(partition=1, offset=2, timestamp=3).offset == 2


class Late(ottla.TimeoutError):
    """An error that a program derives."""


ERRORS = [
    value
    for name in ottla.__all__
    if isinstance(value := getattr(ottla, name), type) and issubclass(value, ottla.Error)
]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_can_be_copied(kind: type[ottla.Error]) -> None:
    error = kind("what happened", broker_code=7, maybe_written=True)
    error.add_note("seen on a Monday")
    for one in copies(error):
        assert type(one) is kind and str(one) == str(error) and one.args == error.args
        assert vars(one) == vars(error)
        assert one.__notes__ == ["seen on a Monday"]


def test_errors_that_were_raised_can_be_copied(producer: ottla.Producer) -> None:
    error = producer.send("nobody-made-it", b"x").exception(timeout=DEADLINE)
    assert isinstance(error, ottla.UnknownTopicError)
    for one in copies(error):
        assert type(one) is type(error) and str(one) == str(error) and vars(one) == vars(error)


def test_errors_of_a_program_can_be_copied() -> None:
    error = Late("five minutes", broker_code=7)
    for one in copies(error):
        assert type(one) is Late and vars(one) == vars(error)


def test_errors_that_are_retriable_sometimes_can_be_copied() -> None:
    from ottla import _errors

    error = _errors.make("broker", "text; advice", "text", "advice", 7, True, False, False)
    assert isinstance(error, ottla.BrokerError) and isinstance(error, ottla.RetriableError)
    for one in copies(error):
        assert type(one) is type(error) and vars(one) == vars(error)


def test_a_batch_is_a_sequence(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        for i in range(5):
            producer.send(topic, b"%d" % i, key=b"k", headers=[("a", b"b")], partition=0)
    with ottla.Consumer(broker.bootstrap, assignment=[(topic, 0, 0)]) as consumer:
        records: list[ottla.Record] = []
        batches: list[ottla.Batch] = []
        while len(records) < 5:
            batch = next(iter(consumer.batches(timeout=DEADLINE)))
            batches.append(batch)
            records.extend(batch)
    for batch in batches:
        assert isinstance(batch, Sequence) and issubclass(ottla.Batch, Sequence)
        own = list(batch)
        size = len(own)
        assert len(batch) == size
        assert [batch[i] for i in range(-size, size)] == own + own
        assert list(reversed(batch)) == own[::-1]
        for part in (slice(None), slice(1, None), slice(None, None, -1), slice(-2, -1), slice(9, 3)):
            assert batch[part] == own[part]
        for i, record in enumerate(own):
            assert record in batch and batch.index(record) == i and batch.count(record) == 1
            assert batch.index(record, i) == batch.index(record, i - size, i + 1) == i
            with pytest.raises(ValueError, match="not in the batch"):
                batch.index(record, i + 1)
            with pytest.raises(ValueError, match="not in the batch"):
                batch.index(record, 0, i)
            with pytest.raises(ValueError, match="not in the batch"):
                batch.index(record, 1, i)
        assert None not in batch and batch.count("x") == 0
        for index in (size, -size - 1, 2**70):
            with pytest.raises(IndexError):
                batch[index]
        match batch:
            case [first, *rest]:
                assert [first, *rest] == own
            case _:
                raise AssertionError("a batch matches as a sequence does")
    assert len(set(records)) == 5 and records[0] != records[1] and records[0] != "x"


def test_records_that_say_the_same_are_equal(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        producer.send_many(topic, [b"x"] * 10)
    first, second = (
        sorted(read(broker.bootstrap, topic, 10), key=lambda r: (r.partition, r.offset))
        for _ in range(2)
    )
    assert first == second and set(first) == set(second) and len(set(first)) == 10


def test_records_are_equal_only_if_all_of_them_is() -> None:
    parts: list[dict[str, Any]] = [
        {},
        {"value": b"y"},
        {"key": b"k"},
        {"timestamp": 2},
        {"headers": [("a", b"c")]},
        {"headers": [("a", b"b"), ("a", b"b")]},
        {"partition": 1},
        {"topic": "u"},
    ]
    records: list[ottla.Record] = []
    for changed in parts:
        # A cluster of its own, so that all are at the same offset.
        with ottla.testing.Broker() as broker:
            same: dict[str, Any] = {
                "topic": "t",
                "value": b"x",
                "timestamp": 1,
                "headers": [("a", b"b")],
                "partition": 0,
            }
            broker.create_topic("t", partitions=2)
            broker.create_topic("u", partitions=2)
            with ottla.Producer(broker.bootstrap) as producer:
                producer.send(**same | changed)
            records.extend(read(broker.bootstrap, changed.get("topic", "t"), 1))
    for i, one in enumerate(records):
        assert [one == other for other in records] == [i == k for k in range(len(records))]


def test_what_is_left_of_a_batch_is_a_sequence_too(
    broker: ottla.testing.Broker, topic: str
) -> None:
    with ottla.Producer(broker.bootstrap, linger=1) as producer:
        producer.send_many(topic, [b"a", b"b", b"c", b"d"])
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        first = consumer.next(timeout=DEADLINE)
        left = next(iter(consumer.batches(timeout=DEADLINE)))
    assert first is not None and first.value == b"a" and len(left) == 3
    values = [b"b", b"c", b"d"]
    assert [record.value for record in left] == values
    assert [left[i].value for i in range(3)] == [record.value for record in left[:]] == values
    assert [record.value for record in reversed(left)] == values[::-1]
    # What was taken is a record of elsewhere.
    assert first not in left and left.count(first) == 0
    with pytest.raises(ValueError, match="not in the batch"):
        left.index(first)


def test_indexes_of_a_batch_count_from_the_end_too(
    broker: ottla.testing.Broker, topic: str
) -> None:
    with ottla.Producer(broker.bootstrap, linger=1) as producer:
        producer.send_many(topic, [b"a", b"b", b"c"])
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as consumer:
        batch = next(iter(consumer.batches(timeout=DEADLINE)))
    assert len(batch) == 3
    assert batch.index(batch[1], 0, -1) == batch.index(batch[1], -2, 2) == 1
    for start, stop in [(0, -2), (2, 3), (0, -3), (-1, 3)]:
        with pytest.raises(ValueError, match="not in the batch"):
            batch.index(batch[1], start, stop)


def test_what_objects_say_of_themselves(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap, linger=1) as producer:
        delivery = producer.send(topic, None, key=b"key", partition=1)
        many = producer.send_many(topic, [b"x", None])
        assert many.result(timeout=DEADLINE) == ottla.BatchAcked(records=2)
        at = delivery.result(timeout=DEADLINE)
        assert repr(at) == f"Acked(partition=1, offset=0, timestamp={at.timestamp})"
        assert repr(delivery) == "<ottla.Delivery acknowledged: partition 1, offset 0>"
        assert repr(many) == "<ottla.BatchDelivery of 2 records, done>"
        assert repr(many.result()) == "BatchAcked(records=2)"
        assert repr(producer) == "<ottla.Producer>"
    with ottla.Consumer(broker.bootstrap, assignment=[(topic, 1, 0)]) as consumer:
        batch = next(iter(consumer.batches(timeout=DEADLINE)))
        assert repr(consumer) == "<ottla.Consumer>"
    size = f"{len(batch)} records before offset {batch.next_offset}"
    assert repr(batch) == f"<ottla.Batch {topic}[1] of {size}>"
    assert repr(batch[0]) == f"<ottla.Record {topic}[1] offset 0, key 3 bytes, value null>"
    anything: Any = batch
    with pytest.raises(TypeError, match="an index must be int or slice, not str"):
        anything["0"]
    assert repr(broker) == f"<ottla.testing.Broker {broker.bootstrap}>"
