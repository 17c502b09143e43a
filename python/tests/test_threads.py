"""Who reads holds nobody up: not other threads, and not a signal handler in the middle of its wait."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import DEADLINE, Program, until

import ottla
import ottla.testing


class Reader:
    """A thread that reads until the consumer ends."""

    def __init__(self, read: Callable[[], object]) -> None:
        self.end: BaseException | object | None = None
        self.reading = threading.Event()

        def run() -> None:
            self.reading.set()
            try:
                self.end = read()
            except ottla.ClosedError as error:
                self.end = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def join(self) -> None:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), "the reader waits on"


def in_time(call: Callable[[], Any]) -> Any:
    """What a call gives, on a thread that is given up if it does not end."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert result, "the call waits for the reader"
    return result[0]


@pytest.fixture
def waiting(broker: ottla.testing.Broker, topic: str) -> Iterator[tuple[ottla.Consumer, Reader]]:
    """A consumer of partitions without records, for which a thread waits."""
    consumer = ottla.Consumer(broker.bootstrap, topics=[topic])
    until(lambda: len(consumer.assignment()) == 3, "the partitions are known")
    reader = Reader(lambda: consumer.next(timeout=600))
    assert reader.reading.wait(DEADLINE)
    yield consumer, reader
    consumer.close()
    reader.join()


def test_asking_does_not_wait_for_the_reader(
    waiting: tuple[ottla.Consumer, Reader], topic: str
) -> None:
    consumer, reader = waiting
    # Whether the thread is in its wait yet is not to be seen: any one of these would be.
    for _ in range(20):
        assert in_time(consumer.assignment) == [(topic, 0), (topic, 1), (topic, 2)]
        assert in_time(lambda: consumer.position(topic, 0)) in (None, 0)
        assert in_time(consumer.stats)["connections_open"] > 0
        assert "closed" not in in_time(lambda: repr(consumer))
    assert reader.thread.is_alive()


def test_a_seek_steers_the_reader(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    for value in (b"passed over", b"wanted"):
        producer.send(topic, value, partition=1).result(timeout=DEADLINE)
    # At the end, where there is nothing to read: any offset behind it would be out of range.
    consumer = ottla.Consumer(broker.bootstrap, assignment=[(topic, 1, 2)])
    until(lambda: len(consumer.assignment()) == 1, "the partition is known")
    reader = Reader(lambda: consumer.next(timeout=600))
    assert reader.reading.wait(DEADLINE)
    assert in_time(lambda: consumer.seek(topic, 1, 1)) is None
    reader.join()
    consumer.close()
    assert isinstance(reader.end, ottla.Record) and reader.end.value == b"wanted"


@pytest.mark.parametrize("how", ["next", "iterate", "batches"])
def test_close_ends_every_reader(broker: ottla.testing.Broker, topic: str, how: str) -> None:
    consumer = ottla.Consumer(broker.bootstrap, topics=[topic])
    reads: dict[str, Callable[[], object]] = {
        "next": lambda: consumer.next(timeout=600),
        "iterate": lambda: list(consumer),
        "batches": lambda: list(consumer.batches()),
    }
    readers = [Reader(reads[how]) for _ in range(4)]
    for reader in readers:
        assert reader.reading.wait(DEADLINE)
    assert in_time(lambda: consumer.close()) is None
    for reader in readers:
        reader.join()
        assert isinstance(reader.end, ottla.ClosedError) if how == "next" else reader.end == []


def test_readers_share_the_records(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    consumer = ottla.Consumer(broker.bootstrap, topics=[topic])
    seen: list[bytes | None] = []
    readers = [Reader(lambda: seen.extend(r.value for r in consumer)) for _ in range(4)]
    values = [str(i).encode() for i in range(3000)]
    for at in range(0, len(values), 100):
        producer.send_many(topic, values[at : at + 100]).result(timeout=DEADLINE)
    until(lambda: consumer.stats()["records_consumed"] >= len(values), "all is read")
    until(lambda: len(seen) >= len(values) or not any(r.thread.is_alive() for r in readers), "seen")
    consumer.close()
    for reader in readers:
        reader.join()
    assert sorted(seen, key=lambda v: int(v or b"-1")) == values


@pytest.mark.parametrize("wait", ["flush", "result", "send"])
def test_a_producer_is_closed_while_another_thread_waits(wait: str) -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("stuck")
        broker.set_replica_delay(None)
        producer = ottla.Producer(
            broker.bootstrap,
            buffer_memory="1 MiB",
            batch_size="64 KiB",
            compression="none",
            max_block=600,
            delivery_timeout=600,
        )

        def send() -> object:
            while True:
                producer.send("stuck", bytes(10_000))

        def flush() -> object:
            return producer.flush()

        delivery = producer.send("stuck", b"x")
        waits: dict[str, Callable[[], object]] = {
            "flush": flush,
            "result": lambda: delivery.exception(),
            "send": send,
        }
        ended = threading.Event()

        def run() -> None:
            try:
                waits[wait]()
            except ottla.Error:
                pass
            ended.set()

        threading.Thread(target=run, daemon=True).start()

        def close() -> bool:
            try:
                producer.close(timeout=0.2)
            except ottla.Error:
                return True
            return False

        assert in_time(lambda: producer.stats()["connections_open"]) > 0
        assert in_time(lambda: producer.send("stuck", b"y").done() if wait != "send" else False) is False
        assert in_time(close)
        assert ended.wait(DEADLINE), f"{wait} waits on after the close"


HANDLER = """
import os, signal, sys
import ottla, ottla.testing

broker = ottla.testing.Broker(brokers=2)
broker.create_topic("idle")
broker.create_topic("stuck")
consumer = ottla.Consumer(broker.bootstrap, topics=["idle"])
producer = ottla.Producer(broker.bootstrap, max_block=600, delivery_timeout=600)
while not consumer.assignment():
    pass

def read():
    # One record of a batch: the other is left for who was interrupted.
    producer.send_many("idle", [b"one", b"two"]).result(timeout=30)
    assert consumer.next(timeout=30).value == b"one"

def handler(signum, frame):
    actions = {
        "ask": lambda: (consumer.assignment(), consumer.position("idle", 0), consumer.stats(),
                        producer.stats(), repr(consumer), repr(producer), consumer.close()),
        "seek": lambda: (consumer.seek("idle", 0, "earliest"), consumer.close()),
        "close": consumer.close,
        "read": read,
        "flush": lambda: (broker.set_replica_delay(0), producer.flush(30), producer.close(30)),
        "deliver": lambda: (broker.set_replica_delay(0), delivery.result(30)),
    }
    actions[sys.argv[1]]()
    print("handled", flush=True)

signal.signal(signal.SIGUSR1, handler)
if sys.argv[1] in ("flush", "deliver"):
    broker.set_replica_delay(None)
    delivery = producer.send("stuck", b"x")
print("ready", flush=True)
if sys.argv[1] == "flush":
    producer.flush()
    print("flushed", flush=True)
elif sys.argv[1] == "deliver":
    print(delivery.result().offset, flush=True)
elif sys.argv[1] == "read":
    print(consumer.next(timeout=600).value, flush=True)
else:
    print(list(consumer), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("ask", "[]"),
        ("seek", "[]"),
        ("close", "[]"),
        ("read", "b'two'"),
        ("flush", "flushed"),
        ("deliver", "0"),
    ],
)
def test_a_signal_handler_in_the_middle_of_a_wait(
    program: Callable[..., Program], action: str, outcome: str
) -> None:
    child = program(HANDLER, action)
    assert child.line() == "ready"
    child.wait_until_it_waits()
    child.signal()
    assert child.line() == "handled"
    assert child.line() == outcome
    assert child.end()[0] == 0


def test_who_waits_for_its_turn_ends_in_time(
    waiting: tuple[ottla.Consumer, Reader], topic: str
) -> None:
    consumer, reader = waiting
    # Either of the two has the turn: the other one ends all the same.
    for _ in range(3):
        assert in_time(lambda: [consumer.next(timeout=0.02)]) == [None]
        assert in_time(lambda: [list(consumer.batches(timeout=0.02))]) == [[]]
    assert reader.thread.is_alive()


def test_a_turn_is_given_on(
    broker: ottla.testing.Broker, producer: ottla.Producer, topic: str
) -> None:
    consumer = ottla.Consumer(broker.bootstrap, topics=[topic])
    # Each thread has its own, one after the other, and the last one what came behind.
    for i in range(3):
        producer.send(topic, b"%d" % i, partition=0).result(timeout=DEADLINE)
        assert in_time(lambda: consumer.next(timeout=DEADLINE)).value == b"%d" % i
    consumer.close()


TURN = """
import sys, threading
import ottla, ottla.testing

broker = ottla.testing.Broker()
broker.create_topic("idle")
consumer = ottla.Consumer(broker.bootstrap, topics=["idle"])
other = threading.Thread(target=lambda: list(consumer), daemon=True)
other.start()

def sleeps():
    # How often it went to sleep: in a wait it does so again and again.
    with open(f"/proc/self/task/{other.native_id}/status") as status:
        return int([line for line in status if line.startswith("voluntary")][0].split()[1])

before = sleeps()
while sleeps() < before + 5:
    pass
print("ready", flush=True)
try:
    consumer.next(timeout=600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
consumer.close()
other.join()
"""


def test_ctrl_c_ends_the_wait_for_a_turn(program: Callable[..., Program]) -> None:
    child = program(TURN)
    assert child.line() == "ready"
    child.wait_until_it_waits()
    child.interrupt()
    assert child.line() == "interrupted"
    assert child.end() == (0, "", "")


def test_a_wait_lets_other_threads_run() -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("slow")
        broker.set_replica_delay(None)
        with ottla.Producer(broker.bootstrap, delivery_timeout=10) as producer:
            delivery = producer.send("slow", b"x")
            before = sys.getswitchinterval()
            sys.setswitchinterval(DEADLINE)  # Nobody takes the interpreter from a thread that keeps it.
            try:
                reader = Reader(delivery.result)
                assert reader.reading.wait(DEADLINE)
                # What the thread waits for comes of this one alone.
                broker.set_replica_delay(0)
                reader.join()
            finally:
                sys.setswitchinterval(before)
            assert isinstance(reader.end, ottla.Acked)
