"""One embedded cluster for all tests, a topic for each, and programs run on the side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path

import pytest

import ottla
import ottla.testing

DEADLINE = 30.0
"""Seconds after which something that should happen did not. Far from what anything takes."""


LIMIT = 60.0
"""Seconds that a test may take: more than any wait in it, so that one that ends says what it waited for."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that does not end fails by its name, and the others run. One that waits without listening to
    signals cannot be ended so: there pytest's own limit (faulthandler_timeout) ends all of them."""

    def hangs(number: int, frame: object) -> None:
        pytest.fail(f"HANGS {item.nodeid}: not over within {LIMIT} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def broker() -> Iterator[ottla.testing.Broker]:
    with ottla.testing.Broker(brokers=3) as broker:
        yield broker


_numbers = count()


@pytest.fixture
def topic(broker: ottla.testing.Broker, request: pytest.FixtureRequest) -> str:
    name = f"topic-{next(_numbers)}"
    broker.create_topic(name, partitions=3)
    return name


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4()}"


@pytest.fixture
def producer(broker: ottla.testing.Broker) -> Iterator[ottla.Producer]:
    with ottla.Producer(broker.bootstrap) as producer:
        yield producer


@pytest.fixture
def kafka() -> str:
    bootstrap = os.environ.get("OTTLA_KAFKA_BOOTSTRAP")
    if not bootstrap:
        pytest.skip("OTTLA_KAFKA_BOOTSTRAP names no cluster")
    return bootstrap


def read(bootstrap: str, topic: str, number: int) -> list[ottla.Record]:
    """That many records of a topic, in the order they come."""
    with ottla.Consumer(bootstrap, topics=[topic]) as consumer:
        records: list[ottla.Record] = []
        while len(records) < number:
            record = consumer.next(timeout=DEADLINE)
            assert record is not None, f"{len(records)} of {number} records came"
            records.append(record)
        return records


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        time.sleep(0.01)


SIGNALS = """\
import signal
signal.pthread_sigmask(signal.SIG_SETMASK, [])
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
"""Signals as a program has them that was started from a terminal. What ignores or blocks them (nohup, a
shell's `&`, a supervisor) hands that down to these tests, and they to what they start."""


class Program:
    """A Python program in a process of its own."""

    def __init__(self, path: Path, code: str, *arguments: str) -> None:
        path.write_text(SIGNALS + code)
        self.process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Its next line of output."""
        assert self.process.stdout is not None
        # One that says nothing must not hold up all tests.
        deadline = threading.Timer(DEADLINE, self.process.kill)
        deadline.start()
        try:
            line = self.process.stdout.readline()
        finally:
            deadline.cancel()
        if not line:
            _, errors = self.process.communicate(timeout=DEADLINE)
            raise AssertionError(f"the program ended: {errors}")
        return line.rstrip("\n")

    def wait_until_it_waits(self) -> None:
        """Until its main thread sleeps and goes on sleeping: it is in the call it announced."""
        stat = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/stat")
        samples: list[tuple[str, str]] = []

        def settled() -> bool:
            fields = stat.read_text().rpartition(")")[2].split()
            samples.append((fields[0], fields[11]))
            last = samples[-10:]
            return len(last) == 10 and last[0][0] == "S" and len(set(last)) == 1

        until(settled, "the program waits")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def signal(self) -> None:
        """One that means what the program makes of it."""
        self.process.send_signal(signal.SIGUSR1)

    def end(self) -> tuple[int, str, str]:
        """Its exit status and what it still said."""
        try:
            out, errors = self.process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, errors = self.process.communicate()
            raise AssertionError(f"the program did not end: {out}\n{errors}") from None
        return self.process.returncode, out, errors


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(code: str, *arguments: str) -> Program:
        started.append(Program(tmp_path / f"program{len(started)}.py", code, *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
