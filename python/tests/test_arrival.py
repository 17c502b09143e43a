"""Every setting arrives, under its own name and in its own unit: what is at the edge of its range is taken,
what is beyond is refused by that name. And what only an effect can show."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conftest import DEADLINE, until

import ottla
import ottla.testing

DAY = 86_400

CLIENT = [
    ("connect_timeout", [1, timedelta(hours=1)], [0, 3600.001]),
    ("request_timeout", [40, 3600], [0.099, 3600.001]),
    ("idle_timeout", [1, DAY], [0.999, DAY + 0.001]),
]
PRODUCER = [
    ("linger", [0, 60], [60.001]),
    ("batch_size", ["1 KiB", "16 MiB"], ["1 kB", "17 MB", 1023, "1 GiB"]),
    ("buffer_memory", ["1 MiB", "1024 GiB"], [(1 << 20) - 1, "1 MB", "1025 GiB"]),
    ("max_block", [0, DAY], [DAY + 0.001]),
    ("delivery_timeout", [0.01, DAY], [0.009, DAY + 0.001]),
    ("max_record_size", [1, "32 MiB"], [0, (100 << 20) + 1]),
]
CONSUMER = [
    ("max_wait", [0, 29.9], [300.001]),
    ("min_bytes", [0, "1 GiB"], [(1 << 30) + 1]),
    ("max_bytes", ["1_024 B", "100 MiB"], [1023, (100 << 20) + 1]),
    ("max_partition_bytes", [" 1 KiB ", "100MiB"], [1023, (100 << 20) + 1]),
    ("buffer_memory", ["64 KiB", "1 GB"], [(64 << 10) - 1, "1025 GiB"]),
]


def arrives(make: Any, name: str, taken: list[Any], refused: list[Any]) -> None:
    for value in [*taken, None]:
        make(**{name: value}).close()
    for value in refused:
        with pytest.raises(ottla.ConfigError) as caught:
            make(**{name: value})
        # By the number that it is, so that "1 kB" is known to be 1000 bytes and no more.
        assert caught.value.message.startswith(f"{name} is "), (value, caught.value.message)
        assert not isinstance(value, int) or isinstance(value, bool) or value < 1000 or str(value) in caught.value.message


def test_isolation_is_one_of_two_words(broker: ottla.testing.Broker) -> None:
    for word in ("read_uncommitted", "read_committed", None):
        ottla.Consumer(broker.bootstrap, topics=["t"], isolation=word).close()
    with pytest.raises(ottla.ConfigError, match="read_committed"):
        ottla.Consumer(broker.bootstrap, topics=["t"], isolation="serializable")  # type: ignore[arg-type]
    properties = {"bootstrap.servers": broker.bootstrap, "isolation.level": "read_committed"}
    ottla.Consumer.from_properties(properties, topics=["t"]).close()


@pytest.mark.parametrize(("name", "taken", "refused"), CLIENT + PRODUCER)
def test_a_setting_of_a_producer(
    broker: ottla.testing.Broker, name: str, taken: list[Any], refused: list[Any]
) -> None:
    arrives(lambda **settings: ottla.Producer(broker.bootstrap, **settings), name, taken, refused)


@pytest.mark.parametrize(("name", "taken", "refused"), CLIENT + CONSUMER)
def test_a_setting_of_a_consumer(
    broker: ottla.testing.Broker, topic: str, name: str, taken: list[Any], refused: list[Any]
) -> None:
    def make(**settings: Any) -> ottla.Consumer:
        return ottla.Consumer(broker.bootstrap, topics=[topic], **settings)

    arrives(make, name, taken, refused)


@pytest.mark.parametrize(
    ("size", "number"), [("1 kB", 1000), ("1 KB", 1000), ("17 MB", 17_000_000), ("2 GB", 2_000_000_000), ("1 GiB", 1 << 30)]
)
def test_a_size_is_the_number_it_says(broker: ottla.testing.Broker, size: str, number: int) -> None:
    with pytest.raises(ottla.ConfigError, match=f"batch_size is {number};"):
        ottla.Producer(broker.bootstrap, batch_size=size)


@pytest.mark.parametrize("size", ["99999999999999 GiB", "1 TiB", "-1 KiB", "KiB", "1.5 MiB", ""])
def test_a_size_that_is_none(broker: ottla.testing.Broker, size: str) -> None:
    with pytest.raises(ottla.ConfigError, match="write a size like"):
        ottla.Producer(broker.bootstrap, batch_size=size)


def first_words(**settings: Any) -> bytes:
    """What a producer says first to a peer that hangs up on it."""
    said: list[bytes] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                said.append(connection.recv(256))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ottla.Error):
            ottla.Producer(f"127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.5, **settings)
        thread.join(DEADLINE)
    return said[0]


def test_what_brokers_are_told() -> None:
    # Behind its length; the software's is one more.
    said = first_words(client_id="shop-7")
    assert b"\x06shop-7" in said and b"\x0dottla-python" in said
    assert b"\x05ottla" in first_words()


@contextmanager
def between(broker: ottla.testing.Broker, says: bytes = b"", instead: bytes = b"") -> Iterator[tuple[str, bytearray]]:
    """Stands between clients and the one broker there is: keeps what it is asked, and changes what it says."""
    heard = bytearray()
    port = int(broker.bootstrap.rpartition(":")[2])
    listener = socket.create_server(("127.0.0.1", 0))
    own = listener.getsockname()[1]

    def asks(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(1 << 16):
                heard.extend(piece)
                server.sendall(piece)
            server.shutdown(socket.SHUT_RDWR)

    def connection(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            asking = threading.Thread(target=asks, args=(client, server))
            asking.start()
            with suppress(OSError), server.makefile("rb") as answers:
                while size := answers.read(4):
                    answer = answers.read(int.from_bytes(size, "big"))
                    # The broker is at this address for whoever came here.
                    answer = answer.replace(struct.pack(">i", port), struct.pack(">i", own))
                    client.sendall(size + answer.replace(says, instead))
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            asking.join()

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=connection, args=(client,)).start()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield f"127.0.0.1:{own}", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        serving.join(DEADLINE)
        listener.close()


def test_checksums_are_verified_unless_it_is_said() -> None:
    with ottla.testing.Broker() as broker, between(broker, b"whole", b"wrong") as (bootstrap, _):
        broker.create_topic("t")
        with ottla.Producer(bootstrap, compression="none") as producer:
            producer.send("t", b"whole").result(timeout=DEADLINE)
        for check in (None, True):
            with ottla.Consumer(bootstrap, topics=["t"], check_crc=check) as consumer:
                with pytest.raises(ottla.CorruptError):
                    consumer.next(timeout=DEADLINE)
        with ottla.Consumer(bootstrap, topics=["t"], check_crc=False) as consumer:
            record = consumer.next(timeout=DEADLINE)
            assert record is not None and record.value == b"wrong"


def test_the_config_of_a_topic_is_told() -> None:
    with ottla.testing.Broker() as broker, between(broker) as (bootstrap, heard):
        ottla.Admin(bootstrap).create_topic("t", 1, 1, config={"retention.ms": "1234567", "segment.ms": "7654321"})
        assert 0 <= heard.find(b"retention.ms") < heard.find(b"1234567")
        assert 0 <= heard.find(b"segment.ms") < heard.find(b"7654321")


def test_topics_are_read_from_where_it_is_said(broker: ottla.testing.Broker) -> None:
    broker.create_topic("said")
    with ottla.Producer(broker.bootstrap) as producer:
        for i in range(4):
            producer.send("said", b"%d" % i, timestamp=i * 1000).result(timeout=DEADLINE)
        moment = datetime.fromtimestamp(1.001, tz=timezone.utc)
        places: list[tuple[Any, int]] = [(None, 0), ("earliest", 0), (3, 3), (moment, 2)]
        for start, offset in places:
            with ottla.Consumer(broker.bootstrap, topics=["said"], start=start) as consumer:
                record = consumer.next(timeout=DEADLINE)
                assert record is not None and record.offset == offset
        with ottla.Consumer(broker.bootstrap, topics=["said"], start="latest") as consumer:
            # What comes until the end is known is passed over.
            record = None
            while record is None:
                producer.send("said", b"new").result(timeout=DEADLINE)
                record = consumer.next(timeout=0.01)
            assert record.offset >= 4


def test_topics_are_made_as_it_is_said() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        admin = ottla.Admin(broker.bootstrap)
        admin.create_topic("alone", 3, 1)
        admin.create_topic("both", 1, 2)
        admin.create_topic("default")
        assert admin.partitions("alone") == 3 and admin.partitions("default") == 1
        # Nobody copies anything: what has no copies is acknowledged all the same.
        broker.set_replica_delay(None)
        with ottla.Producer(broker.bootstrap) as producer:
            assert producer.send("alone", b"x").result(timeout=DEADLINE).offset == 0
            waits = producer.send("both", b"x")
            until(lambda: broker.log_end("both", 0) == 1, "it is written")
            assert not waits.done()
            broker.set_replica_delay(0)
            waits.result(timeout=DEADLINE)


def test_leaders_move_if_it_is_said() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("moves")
        with ottla.Producer(broker.bootstrap) as producer:
            producer.send("moves", b"x").result(timeout=DEADLINE)
            # Partition 0 is led by the first.
            broker.stop_broker(1)
            assert producer.send("moves", b"y").result(timeout=DEADLINE).offset == 1


def test_a_full_buffer_is_waited_for() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("slow")
        # Far more is sent until the first is acknowledged than there is memory for.
        broker.set_replica_delay(0.1)
        with ottla.Producer(
            broker.bootstrap,
            buffer_memory="1 MiB",
            batch_size="64 KiB",
            compression="none",
            max_block=DEADLINE,
        ) as producer:
            deliveries = [producer.send("slow", bytes(10_000)) for _ in range(300)]
            assert all(d.result(timeout=DEADLINE).offset >= 0 for d in deliveries)


def test_a_partly_written_list_is_not_done() -> None:
    with ottla.testing.Broker(brokers=2, max_message_bytes="10 KiB") as broker:
        broker.create_topic("t")
        broker.set_replica_delay(None)
        with ottla.Producer(broker.bootstrap, compression="none") as producer:
            many = producer.send_many("t", [bytes(50_000), None])
            until(lambda: producer.stats()["records_failed"] == 1, "the first is refused")
            until(lambda: broker.log_end("t", 0) == 1, "the second is written, and not acknowledged")
            assert not many.done()
            broker.set_replica_delay(0)
            refused, acked = many.outcomes(timeout=DEADLINE)
            assert isinstance(refused, ottla.RecordTooLargeError) and isinstance(acked, ottla.Acked)
            assert many.done() and isinstance(many.exception(), ottla.RecordTooLargeError)


def test_the_first_error_of_many_is_the_first_records() -> None:
    with ottla.testing.Broker(brokers=2, max_message_bytes="10 KiB") as broker:
        broker.create_topic("t")
        broker.set_replica_delay(None)
        producer = ottla.Producer(broker.bootstrap, compression="none")
        many = producer.send_many("t", [bytes(50_000), None])
        until(lambda: broker.log_end("t", 0) == 1, "the second is written, and not acknowledged")
        until(lambda: producer.stats()["records_failed"] == 1, "the first is refused")
        with pytest.raises(ottla.Error):
            producer.close(timeout=0)
        assert [type(outcome) for outcome in many.outcomes()][1] is not ottla.RecordTooLargeError
        assert isinstance(many.exception(), ottla.RecordTooLargeError)


def test_a_look_at_a_repr_is_no_look_at_the_outcome() -> None:
    with ottla.testing.Broker(max_message_bytes="10 KiB") as broker:
        broker.create_topic("t")
        with ottla.Producer(broker.bootstrap, compression="none") as producer:
            delivery = producer.send("t", bytes(50_000))
            until(lambda: "failed: record_too_large" in repr(delivery), "it failed")
            with pytest.raises(ottla.UndeliveredError):
                producer.flush()


def connected_to(port: int) -> int:
    """Connections to a port of this machine."""
    with open("/proc/self/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[3] == "01" and int(row[2].rpartition(":")[2], 16) == port for row in rows)


def test_a_dropped_producer_leaves_no_connection() -> None:
    with ottla.testing.Broker() as broker:
        broker.create_topic("t")
        port = int(broker.bootstrap.rpartition(":")[2])
        producer = ottla.Producer(broker.bootstrap)
        producer.send("t", b"x").result(timeout=DEADLINE)
        assert connected_to(port) > 0
        del producer
        until(lambda: connected_to(port) == 0, "its connections are closed")


def test_a_producer_dropped_with_records_on_their_way_leaves_no_connection() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("t", replication=2)
        port = int(broker.bootstrap.partition(",")[0].rpartition(":")[2])
        broker.set_replica_delay(None)
        producer = ottla.Producer(broker.bootstrap)
        delivery = producer.send("t", b"x")
        until(lambda: broker.log_end("t", 0) == 1, "it is written, and not acknowledged")
        del producer
        broker.set_replica_delay(0)
        delivery.result(timeout=DEADLINE)
        until(lambda: connected_to(port) == 0, "its connections are closed")
