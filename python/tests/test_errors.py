"""What goes wrong is typed, says what to do, and comes in time."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from conftest import DEADLINE, until

import ottla
import ottla.testing


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Taken for as long as the test, and nobody listens: one that was only free a moment ago may be somebody's."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def http_port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("make", [ottla.Producer, ottla.Admin])
def test_nothing_listens(make: Any, closed_port: int) -> None:
    with pytest.raises(ottla.ConnectError, match="check that the brokers run") as caught:
        make(f"127.0.0.1:{closed_port}", connect_timeout=1)
    error = caught.value
    assert error.code == "connect" and error.retriable and not error.maybe_written
    assert isinstance(error, ConnectionError) and isinstance(error, ottla.RetriableError)
    assert str(closed_port) in error.message and error.advice in str(error)


def test_nothing_listens_for_a_consumer(closed_port: int) -> None:
    with pytest.raises(ottla.ConnectError):
        ottla.Consumer(f"127.0.0.1:{closed_port}", topics=["t"], connect_timeout=0.5)


def test_a_host_that_is_not_there() -> None:
    with pytest.raises(ottla.ResolveError, match="spelling of the host") as caught:
        ottla.Producer("name.invalid:9092", connect_timeout=1)
    assert isinstance(caught.value, ottla.ConnectError) and caught.value.code == "resolve"


def test_a_port_that_speaks_http(http_port: int) -> None:
    with pytest.raises(ottla.NotKafkaError, match="HTTP"):
        ottla.Producer(f"127.0.0.1:{http_port}", connect_timeout=10)


def test_a_peer_that_says_nothing() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises((ottla.ConnectError, ottla.TimeoutError)) as caught:
            ottla.Producer(f"127.0.0.1:{sock.getsockname()[1]}", connect_timeout=0.3)
        assert caught.value.retriable


def test_a_topic_that_does_not_exist() -> None:
    # All at once: topics that are not there are asked about together, and later ones at a pace that slows down.
    with (
        ottla.testing.Broker(brokers=3) as broker,
        ThreadPoolExecutor() as beside,
        ottla.Producer(broker.bootstrap) as producer,
        ottla.Consumer(broker.bootstrap, topics=["nor-this"]) as consumer,
    ):
        partitions = beside.submit(ottla.Admin(broker.bootstrap).partitions, "nor-that")
        delivery = producer.send("nobody-made-it", b"x")
        with pytest.raises(ottla.UnknownTopicError, match="create the topic") as caught:
            delivery.result(timeout=DEADLINE)
        assert "nobody-made-it" in caught.value.message and not caught.value.maybe_written
        assert caught.value.broker_code == 3
        with pytest.raises(ottla.UnknownTopicError):
            consumer.next(timeout=DEADLINE)
        with pytest.raises(ottla.UnknownTopicError):
            partitions.result(timeout=DEADLINE)


def test_a_partition_that_does_not_exist(producer: ottla.Producer, topic: str) -> None:
    with pytest.raises(ottla.UnknownPartitionError):
        producer.send(topic, b"x", partition=9).result(timeout=DEADLINE)


def test_a_topic_that_exists(broker: ottla.testing.Broker, topic: str) -> None:
    assert ottla.Admin(broker.bootstrap).partitions(topic) == 3
    with pytest.raises(ottla.TopicExistsError):
        ottla.create_topic(broker.bootstrap, topic)
    ottla.create_topic(broker.bootstrap, f"{topic}-b", 2, 3, config={"retention.ms": "1000"})
    assert ottla.Admin(broker.bootstrap).partitions(f"{topic}-b") == 2


def test_a_record_too_large(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap, max_record_size="10 KiB") as producer:
        assert producer.send(topic, b"x" * 10_000).result(timeout=DEADLINE).offset == 0
        with pytest.raises(ottla.RecordTooLargeError, match="split the record"):
            producer.send(topic, b"x" * 11_000)
        with pytest.raises(ottla.RecordTooLargeError):
            producer.send_many(topic, [b"", b"x" * 11_000])


def test_a_record_too_large_for_the_topic() -> None:
    with ottla.testing.Broker(max_message_bytes="10 KiB") as broker:
        broker.create_topic("small")
        with ottla.Producer(broker.bootstrap, compression="none") as producer:
            delivery = producer.send("small", b"x" * 50_000)
            error = delivery.exception(timeout=DEADLINE)
            assert isinstance(error, ottla.RecordTooLargeError)
            assert error.broker_code == 10 and not error.maybe_written
            assert "record_too_large" in repr(delivery)
            with pytest.raises(ottla.RecordTooLargeError):
                delivery.result()


def test_a_full_buffer() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("stuck")
        broker.set_replica_delay(None)
        producer = ottla.Producer(
            broker.bootstrap,
            buffer_memory="1 MiB",
            batch_size="64 KiB",
            max_block=0.05,
            compression="none",
        )
        deliveries: list[ottla.Delivery] = []
        with pytest.raises(ottla.BufferFull, match="max_block|stayed full") as caught:
            for _ in range(10_000):
                deliveries.append(producer.send("stuck", b"x" * 10_000))
        assert caught.value.retriable and not caught.value.maybe_written
        with pytest.raises(ottla.TimeoutError):
            producer.flush(timeout=0.02)
        broker.set_replica_delay(0)
        producer.flush(timeout=DEADLINE)
        assert all(delivery.exception() is None for delivery in deliveries)
        producer.close()


def test_a_wait_that_ends_leaves_the_record_on_its_way() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("slow")
        broker.set_replica_delay(None)
        with ottla.Producer(broker.bootstrap) as producer:
            delivery = producer.send("slow", b"x")
            with pytest.raises(TimeoutError) as caught:
                delivery.result(timeout=0.02)
            assert isinstance(caught.value, ottla.TimeoutError) and caught.value.maybe_written
            many = producer.send_many("slow", [b"y"])
            with pytest.raises(ottla.TimeoutError):
                many.result(timeout=timedelta(milliseconds=20))
            with pytest.raises(ottla.TimeoutError, match="may have been written") as late:
                producer.flush(timeout=0.02)
            assert late.value.maybe_written
            assert not delivery.done() and not many.done()
            broker.set_replica_delay(0)
            assert delivery.result(timeout=DEADLINE).offset == 0
            assert many.result(timeout=DEADLINE).records == 1


def test_closing_with_a_deadline_says_what_was_left() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("stuck")
        broker.set_replica_delay(None)
        producer = ottla.Producer(broker.bootstrap)
        delivery = producer.send("stuck", b"x")
        with pytest.raises(ottla.TimeoutError, match="unresolved"):
            producer.close(timeout=0.05)
        assert isinstance(delivery.exception(timeout=DEADLINE), ottla.TimeoutError)
        producer.close()


def test_use_after_close(broker: ottla.testing.Broker, topic: str) -> None:
    producer = ottla.Producer(broker.bootstrap)
    producer.close()
    producer.close()
    for call in (
        lambda: producer.send(topic, b"x"),
        lambda: producer.send_many(topic, [b"x"]),
        lambda: producer.flush(),
    ):
        with pytest.raises(ottla.ClosedError) as caught:
            call()
        assert caught.value.fatal and isinstance(caught.value, ottla.FatalError)
    consumer = ottla.Consumer(broker.bootstrap, topics=[topic])
    consumer.close()
    consumer.close()
    assert list(consumer) == [] and list(consumer.batches()) == []
    for ask in (
        lambda: consumer.next(),
        lambda: consumer.next(timeout=1),
        lambda: consumer.assignment(),
        lambda: consumer.position(topic, 0),
        lambda: consumer.seek(topic, 0, 0),
        lambda: consumer.lag(topic, 0),
        lambda: consumer.paused(),
        lambda: consumer.assign([(topic, 0, 0)]),
    ):
        with pytest.raises(ottla.ClosedError):
            ask()
    assert "closed" in repr(producer) and "closed" in repr(consumer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lingr": 1}, r"no setting 'lingr' \(use linger\)"),
        ({"linger_ms": 1}, r"use linger \(seconds\)"),
        ({"linger.ms": 1}, r"use linger \(seconds\)"),
        ({"enable_idempotence": True}, r"'enable_idempotence' \(not needed: it is on with acks all"),
        ({"zebra": 1}, "no setting 'zebra'; it has acks, batch_size"),
        ({"linger": -1}, "linger is -1"),
        ({"linger": float("nan")}, "linger is NaN"),
        ({"batch_size": "16 bananas"}, "write a size like"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"batch_size": 1}, "batch_size is 1; allowed"),
    ],
)
def test_settings_that_are_refused(
    broker: ottla.testing.Broker, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ottla.ConfigError, match=message) as caught:
        ottla.Producer(broker.bootstrap, **settings)
    assert isinstance(caught.value, ValueError) and caught.value.code == "config"


@pytest.mark.parametrize(
    "settings",
    [{}, {"topics": ["a"], "assignment": [("a", 0, 0)]}, {"topics": []}, {"assignment": []}],
)
def test_a_consumer_reads_one_or_the_other(
    broker: ottla.testing.Broker, settings: dict[str, Any]
) -> None:
    with pytest.raises(ottla.ConfigError):
        ottla.Consumer(broker.bootstrap, **settings)


def test_bootstrap_lists_that_are_none() -> None:
    for bootstrap in ["", "kafka://a:1", "a:b"]:
        with pytest.raises(ottla.ConfigError):
            ottla.Producer(bootstrap)


def test_wrong_types_say_what_is_right(
    broker: ottla.testing.Broker, producer: Any, topic: str
) -> None:
    any_producer: Any = ottla.Producer
    any_consumer: Any = ottla.Consumer
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: producer.send(topic, "text"), r"value\.encode\(\)"),
        (lambda: producer.send(topic, b"", key="text"), r"key\.encode\(\)"),
        (lambda: producer.send(topic, 7), "value must be bytes"),
        (lambda: producer.send(topic, b"", headers={"a": b""}), r"headers\.items\(\)"),
        (lambda: producer.send(topic, b"", headers=[("a",)]), "sequence of"),
        (lambda: producer.send(topic, b"", headers=[(7, b"")]), "must be str or bytes"),
        (lambda: producer.send(topic, b"", headers=[("a", "b")]), r"\.encode\(\)"),
        (lambda: producer.send(topic, b"", timestamp="now"), "milliseconds"),
        (lambda: producer.send_many(topic, b"text"), "list of bytes"),
        (lambda: producer.send_many(topic, ["text"]), r"value\.encode\(\)"),
        (lambda: producer.flush(timeout="1"), "timedelta"),
        (lambda: producer.flush(timeout=True), "timeout must be seconds .*, not bool"),
        (lambda: ottla.Consumer(broker.bootstrap, topics=topic), "write a list"),
        (lambda: any_producer(broker.bootstrap, batch_size=1.5), r"batch_size must be an int \(bytes\)"),
        (lambda: any_consumer(broker.bootstrap, topics=[topic], check_crc=1), "check_crc must be True or False, not int"),
        (lambda: any_producer(broker.bootstrap, linger="5ms"), "linger must be seconds"),
        (lambda: any_producer(broker.bootstrap, linger=True), "linger must be seconds .*, not bool"),
    ]
    for call, message in cases:
        with pytest.raises(TypeError, match=message):
            call()


def replaced(broker: ottla.testing.Broker) -> None:
    """Another cluster listens where the first one did, and has a topic of the same name."""
    for number in (1, 2):
        broker.stop_broker(number, move_leaders=False)
    broker.replace("second-cluster")
    broker.create_topic("t")
    broker.set_replica_delay(0)
    for number in (1, 2):
        broker.start_broker(number)


def names_both(error: BaseException | None) -> ottla.ClusterChangedError:
    assert isinstance(error, ottla.ClusterChangedError), repr(error)
    assert "first-cluster" in error.message and "second-cluster" in error.message
    assert error.code == "cluster_changed" and error.fatal and not error.retriable
    return error


@pytest.mark.parametrize("change", ["fail", "accept"])
def test_another_cluster_at_the_same_addresses(change: Any) -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.replace("first-cluster")
        broker.create_topic("t")
        producer = ottla.Producer(broker.bootstrap, on_cluster_change=change)
        consumer = ottla.Consumer(broker.bootstrap, topics=["t"], on_cluster_change=change)
        producer.send("t", b"old").result(timeout=DEADLINE)
        record = consumer.next(timeout=DEADLINE)
        assert record is not None and record.value == b"old"
        broker.set_replica_delay(None)
        doubtful = producer.send("t", b"doubtful")
        until(lambda: broker.log_end("t", 0) == 2, "it is written, and not acknowledged")
        replaced(broker)
        assert names_both(doubtful.exception(timeout=DEADLINE)).maybe_written
        if change == "accept":
            assert producer.send("t", b"new").result(timeout=DEADLINE).offset == 0
            record = consumer.next(timeout=DEADLINE)
            assert record is not None and (record.value, record.offset) == (b"new", 0)
        else:
            with pytest.raises(ottla.ClusterChangedError) as caught:
                producer.send("t", b"new").result(timeout=DEADLINE)
            assert not names_both(caught.value).maybe_written
            with pytest.raises(ottla.ClusterChangedError) as caught:
                consumer.next(timeout=DEADLINE)
            names_both(caught.value)
            assert broker.log_end("t", 0) == 0
        producer.close()
        consumer.close()


def test_an_end_too_far_away_to_name_is_none(producer: ottla.Producer, topic: str) -> None:
    assert producer.send(topic, b"x").result(timeout=1e19).offset == 0
    producer.flush(timeout=1e19)


def test_errors_survive_pickling() -> None:
    with pytest.raises(ottla.ConnectError) as caught:
        ottla.Producer("127.0.0.1:1", connect_timeout=0.2)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value) and vars(copy) == vars(caught.value)
    # Of a class that is made where it is needed.
    again = made("broker", retriable=True)
    copy = pickle.loads(pickle.dumps(again))
    assert type(copy) is type(again) and isinstance(copy, ottla.BrokerError) and copy.retriable


KINDS = [
    kind
    for name in ottla.__all__
    if isinstance(kind := getattr(ottla, name), type) and issubclass(kind, ottla.Error)
    # Axes have no code of their own.
    if "_code" in vars(kind) and kind is not ottla.Error
]


def made(code: str, retriable: bool = False, fatal: bool = False) -> ottla.Error:
    from ottla import _errors

    return _errors.make(code, "text", "message", "advice", None, retriable, fatal, False)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_engine_has_its_class(kind: type[ottla.Error]) -> None:
    code = kind("x").code
    for retriable in (False, True):
        for fatal in (False, True):
            error = made(code, retriable, fatal)
            assert isinstance(error, kind) and type(error).__name__ == kind.__name__
            assert (error.code, error.retriable, error.fatal) == (code, retriable, fatal)
            assert (str(error), error.message, error.advice) == ("text", "message", "advice")
            # What may be tried again is caught as such, whatever it is.
            assert not retriable or isinstance(error, ottla.RetriableError)


def test_no_kind_of_the_engine_is_left_out() -> None:
    from ottla import _ottla

    assert sorted(kind("x").code for kind in KINDS) == sorted(_ottla._kinds)


def test_an_unknown_kind_keeps_its_code() -> None:
    error = made("of_tomorrow")
    assert type(error) is ottla.Error and error.code == "of_tomorrow"
    again = made("of_tomorrow", retriable=True)
    assert isinstance(again, ottla.RetriableError) and again.code == "of_tomorrow"


def test_what_errors_of_this_package_say() -> None:
    assert str(ottla.ClosedError("gone")) == "gone; make a new handle"
    assert str(ottla.CorruptError("bad bytes")) == "bad bytes"
    late = ottla.TimeoutError("late", advice="wait", maybe_written=True)
    assert str(late) == "late; wait (the record may have been written)" and late.advice == "wait"


def test_a_number_that_fails_says_why_itself(producer: ottla.Producer, topic: str) -> None:
    class Fails:
        def __index__(self) -> int:
            raise ZeroDivisionError("no number")

    with pytest.raises(ZeroDivisionError, match="no number"):
        producer.send(topic, b"x", partition=Fails())


def test_an_embedded_broker_says_what_it_cannot_do() -> None:
    with ottla.testing.Broker() as broker:
        broker.create_topic("t")
        for call in (
            lambda: broker.stop_broker(2),
            lambda: broker.log_end("nobody-made-it", 0),
        ):
            with pytest.raises(ottla.InvalidArgumentError):
                call()
    broker.close()
    with pytest.raises(ottla.ClosedError, match="the broker is closed"):
        broker.create_topic("u")
