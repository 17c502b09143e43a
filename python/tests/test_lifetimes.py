"""Handles that are dropped, processes that end, and processes that fork."""

from __future__ import annotations

import gc
import platform
import weakref
from collections.abc import Callable

from conftest import DEADLINE, Program, read

import pytest

import ottla
import ottla.testing


def test_what_was_sent_survives_its_producer(broker: ottla.testing.Broker, topic: str) -> None:
    producer = ottla.Producer(broker.bootstrap, linger=1)
    deliveries = [producer.send(topic, b"x") for _ in range(100)]
    gone = weakref.ref(producer)
    del producer
    gc.collect()
    assert gone() is None
    for delivery in deliveries:
        delivery.result(timeout=DEADLINE)


def test_a_record_outlives_everything_else(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        producer.send(topic, b"kept", headers=[("a", b"b")])
    [record] = read(broker.bootstrap, topic, 1)
    gc.collect()
    assert (record.value, record.headers, record.topic) == (b"kept", (("a", b"b"),), topic)


def test_deliveries_may_be_dropped_at_any_time(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        for i in range(20_000):
            delivery = producer.send(topic, b"x")
            if i % 1000 == 0:
                del delivery
                gc.collect()
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 20_000


def test_what_is_left_at_exit_is_flushed(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    child = program(
        """
import sys, ottla

def forgotten():
    producer = ottla.Producer(sys.argv[1], linger=1)
    producer.send_many(sys.argv[2], [b"x"] * 1000)

forgotten()
kept = ottla.Producer(sys.argv[1])
for _ in range(1000):
    kept.send(sys.argv[2], b"y")
""",
        broker.bootstrap,
        topic,
    )
    assert child.end() == (0, "", "")
    assert sum(broker.log_end(topic, partition) for partition in range(3)) == 2000


def test_what_cannot_be_delivered_at_exit_is_said(program: Callable[..., Program]) -> None:
    child = program(
        """
import ottla, ottla.testing

broker = ottla.testing.Broker(brokers=2)
broker.create_topic("stuck")
broker.set_replica_delay(None)
producer = ottla.Producer(broker.bootstrap)
producer.send("stuck", b"x")
consumer = ottla.Consumer(broker.bootstrap, topics=["stuck"])
print("leaving", flush=True)
"""
    )
    assert child.line() == "leaving"
    # It waits for five seconds, and so does a block that is left by an exception: together they take no longer.
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("stuck")
        broker.set_replica_delay(None)
        with pytest.raises(KeyError) as caught, ottla.Producer(broker.bootstrap) as producer:
            producer.send("stuck", b"x")
            raise KeyError
    assert any("closing the producer" in note and "5s" in note for note in caught.value.__notes__)
    status, _, errors = child.end()
    assert status == 0
    assert "records undelivered" in errors


STUCK = """
import ottla, ottla.testing

broker = ottla.testing.Broker(brokers=2)
broker.create_topic("stuck")
broker.set_replica_delay(None)

def sends():
    producer = ottla.Producer(broker.bootstrap)
    producer.send("stuck", b"x")
    return producer

"""


@pytest.mark.parametrize("how", ["os", "ctypes"])
def test_what_is_left_in_the_parent_is_not_the_childs(
    program: Callable[..., Program], how: str
) -> None:
    child = program(
        """
import ctypes, gc, os, sys, time, warnings
import ottla, ottla.testing

warnings.simplefilter("ignore", DeprecationWarning)  # that threads exist at a fork is the point
broker = ottla.testing.Broker(brokers=2, max_message_bytes="10 KiB")
broker.set_replica_delay(None)

def sends(failed):
    # One record that failed and that nobody has looked at, and one on its way: in a topic of its own, since
    # a partition that refused something has one batch on its way until one is acknowledged.
    topic = f"stuck-{failed}"
    broker.create_topic(topic)
    producer = ottla.Producer(broker.bootstrap, compression="none")
    producer.send(topic, bytes(50_000))
    end = time.monotonic() + 30
    while producer.stats()["records_failed"] < failed:
        assert time.monotonic() < end, "it did not fail"
        time.sleep(0.01)
    producer.send(topic, b"x")
    return producer

sends(1)
gc.collect()
kept = sends(2)
ours, theirs = os.pipe()
# The second is behind the interpreter's back, which tells nobody of it.
pid = os.fork() if sys.argv[1] == "os" else ctypes.CDLL(None).fork()
if pid == 0:
    signal.alarm(20)
    os.dup2(theirs, 2)
    sys.exit(0)
os.close(theirs)
assert os.waitpid(pid, 0)[1] == 0
print(os.read(ours, 10_000).decode(), end="", flush=True)
# What the parent has to say at its own end is another test's.
os._exit(0)
""",
        how,
    )
    status, out, errors = child.end()
    assert status == 0 and "RuntimeWarning" not in out, (out, errors)


def test_what_is_left_is_said_also_if_the_wait_at_exit_is_interrupted(
    program: Callable[..., Program],
) -> None:
    child = program(STUCK + "producer = sends()\nprint('leaving', flush=True)")
    assert child.line() == "leaving"
    child.wait_until_it_waits()
    child.interrupt()
    _, _, errors = child.end()
    assert "KeyboardInterrupt" in errors
    assert "1 records undelivered" in errors


def test_a_close_that_was_interrupted_is_made_up_for_at_exit(
    program: Callable[..., Program],
) -> None:
    child = program(
        STUCK
        + """
def closes():
    with sends():
        print("closing", flush=True)

try:
    closes()
except KeyboardInterrupt:
    pass
print("leaving", flush=True)
"""
    )
    assert child.line() == "closing"
    child.wait_until_it_waits()
    child.interrupt()
    assert child.line() == "leaving"
    _, _, errors = child.end()
    assert "1 records undelivered" in errors


def test_a_daemon_thread_that_waits_does_not_hold_up_the_exit(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    # Many at once: on a busy machine an interpreter takes longer to end than a wait does to come back to
    # it, which is when the thread finds it gone.
    children = [
        program(
            """
import sys, threading, ottla

consumer = ottla.Consumer(sys.argv[1], topics=[sys.argv[2]])
threading.Thread(target=lambda: next(consumer), daemon=True).start()
print("leaving", flush=True)
""",
            broker.bootstrap,
            topic,
        )
        for _ in range(12)
    ]
    for child in children:
        assert child.line() == "leaving"
    for child in children:
        assert child.end() == (0, "", "")


def test_a_hook_of_the_exit_may_wait_for_a_daemon_thread(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    # Registered before the module was imported, and so run after its own hook.
    child = program(
        """
import atexit, queue, sys, threading

work = queue.Queue()

def stop():
    work.put(None)
    worker.join()
    print("stopped", flush=True)

atexit.register(stop)
import ottla

producer = ottla.Producer(sys.argv[1])

def run():
    work.get()
    producer.send(sys.argv[2], b"last").result()
    print("sent", flush=True)

worker = threading.Thread(target=run, daemon=True)
worker.start()
""",
        broker.bootstrap,
        topic,
    )
    assert child.line() == "sent"
    assert child.line() == "stopped"
    assert child.end() == (0, "", "")


FORK = """
import gc, os, sys, warnings, ottla

warnings.simplefilter("ignore", DeprecationWarning)  # that threads exist at a fork is the point
bootstrap, topic = sys.argv[1:]
producer = ottla.Producer(bootstrap, linger=1)
delivery = producer.send(topic, b"parent")
many = producer.send_many(topic, [b"parent"])
consumer = ottla.Consumer(bootstrap, topics=[topic])
record = next(consumer)
admin = ottla.Admin(bootstrap)
unsent = ottla.Producer(bootstrap, linger=60)

pid = os.fork()
if pid == 0:
    calls = [
        lambda: producer.send(topic, b"x"),
        lambda: producer.send_many(topic, [b"x"]),
        lambda: producer.flush(),
        lambda: producer.close(),
        lambda: delivery.result(),
        lambda: delivery.done(),
        lambda: many.result(),
        lambda: next(consumer),
        lambda: consumer.next(timeout=1),
        lambda: consumer.close(),
        lambda: admin.partitions(topic),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except ottla.ForkedClientError as error:
            assert error.code == "forked" and "after the fork" in str(error), error
        else:
            raise AssertionError(f"call {number} did not say that it is of no use")
    assert repr(delivery) == "<ottla.Delivery of the parent process>", delivery
    assert repr(many) == "<ottla.BatchDelivery of the parent process>", many
    repr(producer), repr(consumer)
    assert record.value == b"parent"
    del calls, call, producer, delivery, many, consumer, record, admin, unsent
    gc.collect()
    with ottla.Producer(bootstrap) as own:
        own.send(topic, b"child").result(timeout=30)
    print("child done", flush=True)
    sys.exit(0)

_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
delivery.result(timeout=30)
producer.send(topic, b"parent").result(timeout=30)
assert admin.partitions(topic) == 3
print("parent done", flush=True)
"""


def test_fork(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    child = program(FORK, broker.bootstrap, topic)
    status, out, errors = child.end()
    assert (status, errors) == (0, "")
    assert out.splitlines() == ["child done", "parent done"]
    values = sorted(record.value or b"" for record in read(broker.bootstrap, topic, 4))
    assert values == [b"child", b"parent", b"parent", b"parent"]


UNSEEN_FORK = """
import ctypes, gc, os, signal, sys, ottla

bootstrap, topic, slow, how = sys.argv[1:]
libc = ctypes.CDLL(None)
producer = ottla.Producer(bootstrap, linger=1)
delivery = producer.send(topic, b"parent")
delivery.result(timeout=30)
consumer = ottla.Consumer(bootstrap, topics=[topic])
record = next(consumer)
admin = ottla.Admin(bootstrap)
waiting = ottla.Producer(slow)
pending = waiting.send("slow", b"parent")

# Behind the interpreter's back, as a host in C or a pre-forking server does it; "syscall" goes past the
# C library too.
pid = libc.fork() if how == "fork" else libc.syscall(57)
if pid == 0:
    signal.alarm(60)
    calls = [
        lambda: waiting.send("slow", b"x").result(),
        lambda: producer.send(topic, b"x").result(),
        lambda: producer.send_many(topic, [b"x"]).result(),
        lambda: producer.flush(),
        lambda: producer.close(),
        lambda: pending.result(),
        lambda: next(consumer),
        lambda: consumer.next(timeout=1),
        lambda: consumer.position(topic, 0),
        lambda: consumer.assignment(),
        lambda: consumer.seek(topic, 0, 0),
        lambda: consumer.lag(topic, 0),
        lambda: consumer.pause([(topic, 0)]),
        lambda: consumer.paused(),
        lambda: admin.offsets([(topic, 0)]),
        lambda: consumer.close(),
        lambda: admin.partitions(topic),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except ottla.ForkedClientError as error:
            assert error.code == "forked" and "fork" in str(error), error
        else:
            raise AssertionError(f"call {number} did not say that it is of no use")
    if how == "fork":
        try:
            waiting.send("slow", b"x")
        except ottla.ForkedClientError:
            pass
        else:
            raise AssertionError("a record was taken that nobody will send")
    del calls, call, producer, delivery, consumer, record, admin, waiting, pending
    gc.collect()
    with ottla.Producer(bootstrap) as own:
        own.send(topic, b"child").result(timeout=30)
    print("child done", flush=True)
    sys.exit(0)

_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
print("child gone", flush=True)
waiting.close()
pending.result(timeout=30)
producer.send(topic, b"parent").result(timeout=30)
assert admin.partitions(topic) == 3
print("parent done", flush=True)
"""


@pytest.mark.parametrize("how", ["fork", "syscall"])
def test_a_fork_that_python_does_not_see(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program], how: str
) -> None:
    if how == "syscall" and platform.machine() != "x86_64":
        pytest.skip("the number of the system call is another one")
    # A cluster that acknowledges nothing until the child is gone.
    with ottla.testing.Broker(brokers=2) as slow:
        slow.create_topic("slow")
        slow.set_replica_delay(None)
        child = program(UNSEEN_FORK, broker.bootstrap, topic, slow.bootstrap, how)
        assert [child.line(), child.line()] == ["child done", "child gone"]
        slow.set_replica_delay(0)
        status, out, errors = child.end()
    assert (status, errors) == (0, "")
    assert out.splitlines() == ["parent done"]
    values = sorted(record.value or b"" for record in read(broker.bootstrap, topic, 3))
    assert values == [b"child", b"parent", b"parent"]


def test_children_of_one_parent_draw_their_own_numbers(
    program: Callable[..., Program],
) -> None:
    child = program(
        """
import os, sys, warnings, ottla, ottla.testing

warnings.simplefilter("ignore", DeprecationWarning)  # that threads exist at a fork is the point
broker = ottla.testing.Broker(brokers=30)
ports = [address.rpartition(":")[2] for address in broker.bootstrap.split(",")]
ottla.Admin(broker.bootstrap)
chosen = set()
for _ in range(8):
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = set(os.listdir("/proc/self/fd"))
        admin = ottla.Admin(broker.bootstrap)
        # The one that was drawn among thirty.
        inodes = {
            os.readlink(f"/proc/self/fd/{fd}")[8:-1]
            for fd in set(os.listdir("/proc/self/fd")) - before
            if os.path.exists(f"/proc/self/fd/{fd}")
            and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        }
        lines = [line.split() for line in open("/proc/self/net/tcp")][1:]
        to = [str(int(line[2].rpartition(":")[2], 16)) for line in lines if line[9] in inodes]
        os.write(theirs, ",".join(port for port in to if port in ports).encode())
        os._exit(0)
    os.close(theirs)
    told = b""
    while piece := os.read(ours, 100):
        told += piece
    os.close(ours)
    os.waitpid(pid, 0)
    assert told, "the child was connected to nobody"
    chosen.add(told)
print(len(chosen))
"""
    )
    status, out, errors = child.end()
    assert (status, errors) == (0, "")
    # Eight draws of thirty: the same ones would come once in ten thousand million runs.
    assert int(out) > 1


def test_no_descriptors_left_is_an_ordinary_exception(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]
) -> None:
    child = program(
        """
import os, resource, sys, ottla

bootstrap, topic = sys.argv[1:]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
used = []
try:
    while True:
        used.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for _ in range(3):
    try:
        ottla.Producer(bootstrap)
    except ottla.RetriableError as error:
        assert isinstance(error, ottla.OutOfResourcesError), error
        assert error.code == "out_of_resources" and "ulimit" in str(error), error
    else:
        raise AssertionError("there was a descriptor left")
for fd in used:
    os.close(fd)
with ottla.Producer(bootstrap) as producer:
    producer.send(topic, b"x").result(timeout=30)
""",
        broker.bootstrap,
        topic,
    )
    assert child.end() == (0, "", "")
