"""No panic reaches a program: what the system refuses, and what breaks here, is an ordinary exception."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Program

import ottla
import ottla.testing
from ottla import _ottla


@pytest.mark.parametrize("waits", [False, True])
def test_a_panic_is_an_ordinary_exception(waits: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ottla.InternalError, match="a panic was caught: injected") as caught:
        _ottla._panic(waits)
    assert isinstance(caught.value, Exception) and caught.value.code == "internal"
    assert not caught.value.retriable and not caught.value.fatal
    # Rust says where.
    assert "guard.rs" in capfd.readouterr().err


NO_THREADS = """
import os, resource, sys, ottla

bootstrap, topic = sys.argv[1:]
if os.getuid() == 0:
    # Nothing is refused to root.
    os.setuid(65534)
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
made = [
    lambda: ottla.Producer(bootstrap),
    lambda: ottla.Consumer(bootstrap, topics=[topic]),
    lambda: ottla.Admin(bootstrap),
    lambda: ottla.create_topic(bootstrap, "other"),
]
for make in made:
    try:
        make()
    except ottla.RetriableError as error:
        assert error.code == "out_of_resources", error
        assert "ulimit" in str(error), error
    else:
        raise AssertionError("there was a thread left")
resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
with ottla.Producer(bootstrap) as producer:
    producer.send(topic, b"x").result(timeout=30)
"""


def test_no_threads_left(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    assert program(NO_THREADS, broker.bootstrap, topic).end() == (0, "", "")


NO_DESCRIPTORS = """
import os, resource, sys, threading, ottla

bootstrap, topic = sys.argv[1:]
producer = ottla.Producer(bootstrap, delivery_timeout=600)
consumer = ottla.Consumer(bootstrap, topics=[topic])
producer.send(topic, b"one").result(timeout=30)
assert consumer.next(timeout=30).value == b"one"

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
# What is open goes on; what needs a new one is refused, time and again.
for number in range(20):
    try:
        ottla.Admin(bootstrap, client_id=f"{number}", connect_timeout=0.2).partitions(topic)
    except ottla.Error as error:
        assert not isinstance(error, ottla.InternalError), error
delivery = producer.send(topic, b"two")
assert producer.stats()["records_acknowledged"] >= 1
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
delivery.result(timeout=30)
assert consumer.next(timeout=30).value == b"two"
assert ottla.Admin(bootstrap, client_id="again").partitions(topic) == 3
producer.close()
consumer.close()
"""


def test_handles_outlive_a_shortage_of_descriptors(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    status, out, errors = program(NO_DESCRIPTORS, broker.bootstrap, topic).end()
    assert (status, out) == (0, "") and "Traceback" not in errors and "panicked" not in errors, errors
