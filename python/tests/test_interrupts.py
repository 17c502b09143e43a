"""Ctrl-C ends every wait: each call would last ten minutes otherwise."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from conftest import Program

PROGRAM = """
import os, sys
import ottla, ottla.testing

broker = ottla.testing.Broker(brokers=2)
broker.create_topic("stuck")
broker.set_replica_delay(None)
producer = ottla.Producer(broker.bootstrap, buffer_memory="1 MiB", batch_size="64 KiB",
                          max_block=600, delivery_timeout=600, compression="none")
consumer = ottla.Consumer(broker.bootstrap, topics=["stuck"])

def send_when_full():
    while True:
        producer.send("stuck", bytes(10_000))

calls = {
    "connect": lambda: ottla.Producer(sys.argv[2], connect_timeout=600),
    "send": send_when_full,
    "send_many": lambda: producer.send_many("stuck", [bytes(10_000)] * 1000),
    "result": lambda: producer.send("stuck", b"x").result(),
    "many_result": lambda: producer.send_many("stuck", [b"x"]).result(),
    "exception": lambda: producer.send("stuck", b"x").exception(timeout=600),
    "flush": lambda: (producer.send("stuck", b"x"), producer.flush()),
    "close": lambda: (producer.send("stuck", b"x"), producer.close(timeout=600)),
    "iterate": lambda: next(iter(consumer)),
    "next": lambda: consumer.next(timeout=600),
    "batches": lambda: next(consumer.batches()),
}
try:
    print("ready", flush=True)
    calls[sys.argv[1]]()
    print("returned", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
# What is on its way stays there: leaving is another test's.
os._exit(0)
"""


@pytest.fixture
def silent_peer() -> Iterator[str]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize(
    "call",
    [
        "connect",
        "send",
        "send_many",
        "result",
        "many_result",
        "exception",
        "flush",
        "close",
        "iterate",
        "next",
        "batches",
    ],
)
def test_ctrl_c(program: Callable[..., Program], silent_peer: str, call: str) -> None:
    child = program(PROGRAM, call, silent_peer)
    assert child.line() == "ready"
    child.wait_until_it_waits()
    child.interrupt()
    assert child.line() == "interrupted"
    assert child.end()[0] == 0


@pytest.fixture
def signals_are_ignored_and_blocked() -> Iterator[None]:
    """As below nohup, in a shell's background, or below a supervisor that blocks them."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_are_ignored_and_blocked")
def test_ctrl_c_whatever_these_tests_were_started_by(
    program: Callable[..., Program], silent_peer: str
) -> None:
    child = program(PROGRAM, "next", silent_peer)
    assert child.line() == "ready"
    child.wait_until_it_waits()
    child.interrupt()
    assert child.line() == "interrupted"
    assert child.end()[0] == 0
