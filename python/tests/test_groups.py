"""Consumers that are members of groups. What is done is judged by what the group has committed, and by what a
successor reads."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import DEADLINE, Program, until
from group_members import BY_HAND, committed, left, member, take, write
from test_threads import in_time

import ottla
import ottla.testing


def test_one_reads_all_and_its_successor_goes_on(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    for partition in range(3):
        write(broker, topic, 5, partition)
    with member(broker, group, topic) as consumer:
        assert len(set(take(consumer, 15))) == 15
        assert consumer.next(timeout=0) is None
        found = broker.group(group)
        assert found is not None and (found.state, len(found.members)) == ("Stable", 1)
        assert sorted(consumer.assignment()) == [(topic, partition) for partition in range(3)]
    found = broker.group(group)
    assert found is not None and found.state == "Empty"
    assert found.committed == {(topic, partition): 5 for partition in range(3)}
    write(broker, topic, 1, 2)
    with member(broker, group, topic) as consumer:
        assert take(consumer, 1) == [b"2.0"]
        assert consumer.next(timeout=0.2) is None


def test_two_share(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    seen: list[tuple[int, bytes | None]] = []

    def read(who: int, consumer: ottla.Consumer) -> threading.Thread:
        def run() -> None:
            for record in consumer:
                seen.append((who, record.value))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    settings: dict[str, Any] = {"assignors": ["cooperative-sticky"], "max_poll_interval": 60}
    with member(broker, group, topic, **settings) as one, member(broker, group, topic, **settings) as two:
        threads = [read(0, one), read(1, two)]
        until(lambda: len(one.assignment()) + len(two.assignment()) == 3, "all is assigned")
        until(lambda: bool(one.assignment()) and bool(two.assignment()), "it is shared")
        for partition in range(3):
            write(broker, topic, 2, partition)
        until(lambda: len(seen) >= 6, "all is read")
        assert {who for who, _ in seen} == {0, 1}
        assert len({value for _, value in seen}) == 6
    for thread in threads:
        thread.join(DEADLINE)
    assert len(seen) == 6
    found = broker.group(group)
    assert found is not None
    # Each loop asked for the next.
    assert sum(found.committed.values()) == 6


class Halt(Exception):
    pass


def by_break(consumer: ottla.Consumer) -> None:
    with consumer:
        for record in consumer:
            if record.offset == 2:
                break


def by_exception(consumer: ottla.Consumer) -> None:
    with pytest.raises(Halt), consumer:
        for record in consumer.records(timeout=DEADLINE):
            if record.offset == 2:
                raise Halt


def by_islice(consumer: ottla.Consumer) -> None:
    with consumer:
        assert len(list(itertools.islice(consumer, 3))) == 3


def by_close_within(consumer: ottla.Consumer) -> None:
    for record in consumer:
        if record.offset == 2:
            consumer.close()


def by_another_thread(consumer: ottla.Consumer) -> None:
    for record in consumer:
        if record.offset == 2:
            in_time(lambda: [consumer.close()])


def by_dropping(consumer: ottla.Consumer) -> None:
    take(consumer, 3)


@pytest.mark.parametrize(
    "leave", [by_break, by_exception, by_islice, by_close_within, by_another_thread, by_dropping]
)
def test_the_record_in_hand_is_left_undone(
    broker: ottla.testing.Broker, topic: str, group: str, leave: Callable[[ottla.Consumer], None]
) -> None:
    write(broker, topic, 5)
    leave(member(broker, group, topic))
    until(lambda: committed(broker, group, topic) == 2, "what is done is committed")
    assert left(broker, group, topic) == [b"0.2", b"0.3", b"0.4"]


def test_to_ask_for_the_next_is_enough(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 3)
    with member(broker, group, topic, commit_interval=0.05) as consumer:
        assert len(take(consumer, 3)) == 3
        assert consumer.next(timeout=0) is None
        until(lambda: committed(broker, group, topic) == 3, "it is committed by itself")


def test_by_batch(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    write(broker, topic, 3)
    write(broker, topic, 3)
    with member(broker, group, topic) as consumer:
        for number, batch in enumerate(consumer.batches(timeout=DEADLINE)):
            # To walk it says nothing.
            assert len(list(batch)) == 3
            consumer.commit(timeout=DEADLINE)
            assert committed(broker, group, topic) == (3 if number else 0)
            if number:
                break
    assert committed(broker, group, topic) == 3
    # By record, and then the rest as a batch.
    with member(broker, group, topic) as consumer:
        assert take(consumer, 1) == [b"0.0"]
        rest = next(consumer.batches())
        assert [record.value for record in rest] == [b"0.1", b"0.2"]
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 4
        assert list(consumer.batches(timeout=0)) == []
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 6


def test_acked_in_any_order(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    write(broker, topic, 6)
    with member(broker, group, topic, commit="acked") as consumer:
        records = list(itertools.islice(consumer, 6))

        # Nothing behind the first gap is committed.
        for offset, upto in [(1, 0), (4, 0), (0, 2), (0, 2), (2, 3), (3, 5)]:
            thread = threading.Thread(target=records[offset].ack)
            thread.start()
            thread.join()
            consumer.commit(timeout=DEADLINE)
            assert committed(broker, group, topic) == upto
    assert committed(broker, group, topic) == 5
    write(broker, topic, 2)
    with member(broker, group, topic, commit="acked") as consumer:
        assert take(consumer, 1) == [b"0.5"]
        [batch] = itertools.islice(consumer.batches(), 1)
        assert [record.value for record in batch] == [b"0.0", b"0.1"]
        batch.ack()
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 5


def test_by_hand(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    write(broker, topic, 5)
    with member(broker, group, topic, commit="manual", commit_interval=0.05) as consumer:
        take(consumer, 2)
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 1
        record = consumer.next(timeout=DEADLINE)
        assert record is not None
        # The one in hand as well.
        record.ack()
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 3
        take(consumer, 2)
        consumer.commit_to({(topic, 0): 1, (topic, 1): 0})
        assert committed(broker, group, topic) == 1
        consumer.commit_to([(topic, 0, 2)], timeout=DEADLINE)
    assert committed(broker, group, topic) == 2
    assert left(broker, group, topic) == [b"0.2", b"0.3", b"0.4"]


def test_a_seek_is_committed(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    write(broker, topic, 5)
    with member(broker, group, topic) as consumer:
        take(consumer, 4)
        consumer.seek(topic, 0, 1)
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 1
        assert take(consumer, 2) == [b"0.1", b"0.2"]
    assert committed(broker, group, topic) == 2


def test_events(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    for partition in range(3):
        write(broker, topic, 2, partition)
    settings: dict[str, Any] = {"assignors": ["cooperative-sticky"]}
    with member(broker, group, topic, **settings) as one:
        events = one.events(timeout=DEADLINE)
        first = next(events)
        assert isinstance(first, ottla.Assigned)
        assert sorted(first.partitions) == [(topic, partition) for partition in range(3)]
        for _ in range(3):
            batch = next(events)
            assert isinstance(batch, ottla.Batch) and len(batch) == 2
        with member(broker, group, topic, **settings) as two:
            other = threading.Thread(target=lambda: list(two), daemon=True)
            other.start()
            event = next(event for event in events if event != ottla.Assigned([]))
            assert isinstance(event, ottla.GivingUp)
            [(given, partition)] = event.partitions
            assert given == topic and 0 < event.deadline - time.monotonic() < 300
            assert two.assignment() == []
            # What it has of them is done once it asks, and they are given up behind that.
            assert one.next_event(timeout=0.5) in (None, ottla.Assigned([]))
            until(lambda: two.assignment() == [(topic, partition)], "the other has it")
            assert committed(broker, group, topic, partition) == 2
        other.join(DEADLINE)
    with pytest.raises(ottla.ClosedError):
        one.next_event()
    assert list(one.events()) == []


def test_subscribe(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    write(broker, topic, 1)
    more = f"{topic}-more"
    broker.create_topic(more)
    with member(broker, group, topic) as consumer:
        assert take(consumer, 1) == [b"0.0"]
        in_time(lambda: [consumer.subscribe([more])])
        write(broker, more, 1)
        record = consumer.next(timeout=DEADLINE)
        assert record is not None and record.topic == more
        assert consumer.assignment() == [(more, 0)]
        assert committed(broker, group, topic) == 1
        with pytest.raises(ottla.InvalidArgumentError):
            consumer.subscribe([])
        with pytest.raises(TypeError, match="topics is a str"):
            consumer.subscribe(more)


def test_where_the_group_was_is_where_it_goes_on(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 5)
    broker.set_committed(group, topic, 0, 3)
    with member(broker, group, topic, start="latest") as consumer:
        assert take(consumer, 2) == [b"0.3", b"0.4"]
        assert (consumer.position(topic, 0), consumer.lag(topic, 0)) == (5, 0)


def test_nobody_waits_behind_the_reader(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 1)
    consumer = member(broker, group, topic)
    take(consumer, 1)
    ended: list[object] = []
    reader = threading.Thread(target=lambda: ended.append(list(consumer)), daemon=True)
    reader.start()
    for _ in range(5):
        in_time(lambda: [consumer.commit(timeout=DEADLINE)])
        in_time(lambda: [consumer.commit_to({(topic, 0): 0}, timeout=DEADLINE)])
        in_time(lambda: [consumer.subscribe([topic])])
        in_time(lambda: [consumer.pause(consumer.assignment()), consumer.resume(consumer.paused())])
    assert reader.is_alive()
    in_time(lambda: [consumer.close(timeout=DEADLINE)])
    reader.join(DEADLINE)
    assert ended == [[]]
    in_time(lambda: [consumer.close(timeout=DEADLINE)])
    with pytest.raises(ottla.ClosedError):
        consumer.commit()
    found = broker.group(group)
    assert found is not None and found.members == []


def test_a_wait_for_the_group_ends_in_time(topic: str, group: str) -> None:
    with ottla.testing.Broker() as broker:
        broker.create_topic(topic)
        write(broker, topic, 2)
        consumer = member(broker, group, topic)
        take(consumer, 2)
        broker.remove_coordinator(group)
        for call in (
            lambda: consumer.commit(timeout=0.1),
            lambda: consumer.commit_to({(topic, 0): 1}, timeout=0.1),
            lambda: consumer.close(timeout=0.1),
        ):
            with pytest.raises(ottla.TimeoutError) as caught:
                call()
            assert not caught.value.maybe_written
        # It goes on to leave, and does so when it can.
        broker.move_coordinator(group, 1)
        consumer.close(timeout=DEADLINE)
        assert committed(broker, group, topic) == 1


@pytest.mark.parametrize("protocol", ["classic", "next"])
def test_a_static_member_stays(
    broker: ottla.testing.Broker, topic: str, group: str, protocol: str
) -> None:
    write(broker, topic, 2)
    for value in (b"0.0", b"0.1"):
        settings: dict[str, Any] = {"instance_id": "one", "group_protocol": protocol}
        with member(broker, group, topic, **settings) as consumer:
            record = consumer.next(timeout=DEADLINE)
            assert record is not None and record.value == value
            record.ack()
        found = broker.group(group)
        assert found is not None
        assert [one.instance_id for one in found.members] == ["one"]
        # Nobody else was to move: it is the same generation, or epoch.
        assert found.generation == 1


def test_settings(broker: ottla.testing.Broker, topic: str) -> None:
    make: Any = ottla.Consumer
    of_group: list[tuple[dict[str, Any], str]] = [
        ({"instance_id": "i"}, "instance_id is a setting of a member of a group"),
        ({"commit": "manual"}, "commit is a setting of a member of a group"),
        ({"session_timeout": 10}, "session_timeout is a setting of a member of a group"),
        ({"group": "g", "commit": "auto"}, "commit is 'auto'; write 'marks' or 'acked' or 'manual' or 'manual_acked'"),
        ({"group": "g", "assignors": ["own"]}, "there is no assignor 'own'; there are range"),
        ({"group": "g", "assignors": []}, "assignors: none"),
        ({"group": ""}, "no group"),
        ({"group": "g", "session_timeout": 0.5}, "session_timeout is 500ms; it must be 1s to"),
        ({"group_id": "g"}, "use group"),
    ]
    for settings, words in of_group:
        with pytest.raises(ottla.ConfigError) as told:
            make(broker.bootstrap, topics=[topic], **settings)
        assert words in str(told.value), told.value
    with pytest.raises(ottla.ConfigError, match="leave out assignment, or group"):
        make(broker.bootstrap, group="g", assignment=[(topic, 0, 0)])
    with pytest.raises(TypeError, match=r"not bool \(by itself is 'marks'\)"):
        make(broker.bootstrap, group="g", topics=[topic], commit=True)
    with pytest.raises(TypeError, match="assignors is a str"):
        make(broker.bootstrap, group="g", topics=[topic], assignors="range")


def test_what_is_a_members_alone(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    write(broker, topic, 1)
    with ottla.Consumer(broker.bootstrap, topics=[topic]) as alone:
        record = alone.next(timeout=DEADLINE)
        assert record is not None
        record.ack()
        for call in (lambda: alone.commit(), lambda: alone.subscribe([topic])):
            with pytest.raises(ottla.InvalidArgumentError, match="not a member of a group"):
                call()
    consumer: Any = member(broker, group, topic)
    with consumer:
        for decides in (
            lambda: consumer.assign([(topic, 0, 0)]),
            lambda: consumer.unassign([(topic, 0)]),
        ):
            with pytest.raises(ottla.InvalidArgumentError, match="member of a group"):
                decides()
        for wrong, words in [
            ([(topic, 0)], "offsets must be (topic, partition, offset) tuples, or a dict"),
            ({topic: 1}, "offsets must be (topic, partition, offset) tuples, or a dict"),
            (7, "offsets must be a list of (topic, partition, offset) tuples"),
            ({(topic, 0): "1"}, "the offset in offsets must be an int"),
        ]:
            with pytest.raises(TypeError) as told:
                consumer.commit_to(wrong)
            assert words in str(told.value)
        with pytest.raises(ottla.InvalidArgumentError, match="negative"):
            consumer.commit_to({(topic, 0): -1})


def test_properties(broker: ottla.testing.Broker, topic: str, group: str) -> None:
    write(broker, topic, 3)
    properties = {
        "bootstrap.servers": broker.bootstrap,
        "group.id": group,
        "group.instance.id": "one",
        "session.timeout.ms": 20_000,
        "max.poll.interval.ms": 60_000,
        "partition.assignment.strategy": "org.apache.kafka.clients.consumer.RoundRobinAssignor",
        "enable.auto.commit": "false",
        "group.protocol": "classic",
    }
    with ottla.Consumer.from_properties(properties, topics=[topic]) as consumer:
        take(consumer, 2)
        found = broker.group(group)
        assert found is not None and found.assignor == "roundrobin"
        assert [one.instance_id for one in found.members] == ["one"]
    assert committed(broker, group, topic) == 0
    # Keywords come first.
    with ottla.Consumer.from_properties(properties, topics=[topic], commit="marks") as consumer:
        take(consumer, 2)
    assert committed(broker, group, topic) == 1
    stored = {**properties, "enable.auto.commit": "true", "enable.auto.offset.store": "false"}
    with ottla.Consumer.from_properties(stored, topics=[topic]) as consumer:
        records = [consumer.next(timeout=DEADLINE) for _ in range(2)]
        assert records[0] is not None
        records[0].ack()
    assert committed(broker, group, topic) == 2
    nowhere = {"bootstrap.servers": broker.bootstrap, "session.timeout.ms": "20000"}
    with pytest.raises(ottla.ConfigError, match="no group"):
        ottla.Consumer.from_properties(nowhere, topics=[topic])


WAITS = """
import os, sys, threading
import ottla, ottla.testing

broker = ottla.testing.Broker()
broker.create_topic("t")
with ottla.Producer(broker.bootstrap) as producer:
    producer.send_many("t", [b"0", b"1"]).result(timeout=30)
consumer = ottla.Consumer(broker.bootstrap, group="g", topics=["t"], commit_interval=3600)
assert consumer.next(timeout=30).value == b"0"
assert consumer.next(timeout=30).value == b"1"

calls = {
    "next": lambda: consumer.next(timeout=600),
    "event": lambda: [consumer.next_event(timeout=600) for _ in range(10)],
    "events": lambda: list(consumer.events()),
    "commit": lambda: consumer.commit(timeout=600),
    "commit_to": lambda: consumer.commit_to({("t", 0): 1}),
    "close": lambda: consumer.close(),
}
if sys.argv[1] in ("commit", "commit_to", "close"):
    broker.remove_coordinator("g")

def handler(number, frame):
    consumer.commit(timeout=30)
    consumer.close(timeout=30)
    print("closed", flush=True)

signal.signal(signal.SIGUSR1, handler)
try:
    print("ready", flush=True)
    calls[sys.argv[1]]()
    print("returned", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
except ottla.ClosedError:
    print("ended", flush=True)
broker.move_coordinator("g", 1)
consumer.close(timeout=30)
print(broker.group("g").committed, flush=True)
os._exit(0)
"""


def test_a_commit_that_is_not_waited_for_stays_on_its_way(topic: str, group: str) -> None:
    with ottla.testing.Broker() as broker:
        broker.create_topic(topic)
        write(broker, topic, 3)
        with member(broker, group, topic, commit="manual") as consumer:
            take(consumer, 1)
            broker.remove_coordinator(group)
            with pytest.raises(ottla.TimeoutError):
                consumer.commit_to({(topic, 0): 2}, timeout=0.1)
            broker.move_coordinator(group, 1)
            until(lambda: committed(broker, group, topic) == 2, "it is committed")


@pytest.mark.parametrize("call", ["next", "event", "events", "commit", "commit_to", "close"])
def test_ctrl_c(program: Callable[..., Program], call: str) -> None:
    child = program(WAITS, call)
    assert child.line() == "ready"
    child.wait_until_it_waits()
    child.interrupt()
    assert child.line() == "interrupted"
    # By asking for the next both are done; else the second is in hand.
    done = 2 if call in ("next", "event", "events") else 1
    assert child.line() == f"{{('t', 0): {done}}}"
    assert child.end()[0] == 0


@pytest.mark.parametrize(("call", "outcome"), [("next", "ended"), ("events", "returned")])
def test_a_signal_handler_commits_and_closes(
    program: Callable[..., Program], call: str, outcome: str
) -> None:
    child = program(WAITS, call)
    assert child.line() == "ready"
    child.wait_until_it_waits()
    child.signal()
    assert child.line() == "closed"
    assert child.line() == outcome
    assert child.line() == "{('t', 0): 2}"
    assert child.end()[0] == 0


FORK = """
import os, sys, warnings
import ottla

warnings.simplefilter("ignore", DeprecationWarning)  # that threads exist at a fork is the point
bootstrap, topic = sys.argv[1:]
consumer = ottla.Consumer(bootstrap, group=topic, topics=[topic], commit_interval=3600)
record = consumer.next(timeout=30)
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    calls = [
        lambda: consumer.next_event(timeout=1),
        lambda: next(consumer.events()),
        lambda: consumer.commit(),
        lambda: consumer.commit_to({(topic, 0): 1}),
        lambda: consumer.subscribe([topic]),
        lambda: record.ack(),
        lambda: consumer.close(),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except ottla.ForkedClientError:
            pass
        else:
            raise AssertionError(f"call {number} did not say that it is of no use")
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
record.ack()
consumer.close(timeout=30)
print("parent done", flush=True)
"""


def test_fork(broker: ottla.testing.Broker, topic: str, program: Callable[..., Program]) -> None:
    write(broker, topic, 2)
    child = program(FORK, broker.bootstrap, topic)
    assert child.end() == (0, "parent done\n", "")
    assert committed(broker, topic, topic) == 1


@pytest.mark.parametrize("how", ["global", "dropped", "raises"])
def test_what_is_open_at_exit_commits_and_leaves(
    broker: ottla.testing.Broker, topic: str, program: Callable[..., Program], how: str
) -> None:
    write(broker, topic, 3)
    child = program(
        """
import sys, ottla

def make():
    consumer = ottla.Consumer(sys.argv[1], group=sys.argv[2], topics=[sys.argv[2]], commit_interval=3600)
    assert consumer.next(timeout=30) and consumer.next(timeout=30)
    return consumer

if sys.argv[3] == "dropped":
    make()
else:
    consumer = make()
    if sys.argv[3] == "raises":
        sys.exit("told")
""",
        broker.bootstrap,
        topic,
        how,
    )
    assert child.end() == ((1, "", "told\n") if how == "raises" else (0, "", ""))
    found = broker.group(topic)
    assert found is not None and (found.state, found.members) == ("Empty", [])
    assert found.committed[topic, 0] == 1


@pytest.mark.kafka
def test_real_group(kafka: str) -> None:
    topic = f"ottla-python-{uuid.uuid4()}"
    ottla.create_topic(kafka, topic, partitions=3)
    values = [b"%d" % i for i in range(3000)]
    with ottla.Producer(kafka) as producer:
        producer.send_many(topic, values).result(timeout=DEADLINE)

    def read(records: Iterator[ottla.Record], count: int) -> list[bytes]:
        return [record.value or b"" for record in itertools.islice(records, count)]

    def make() -> ottla.Consumer:
        return ottla.Consumer(kafka, group=topic, topics=[topic])

    with make() as consumer:
        first = read(consumer, 1000)
        consumer.commit(timeout=DEADLINE)
    with make() as one, make() as two:
        seen: list[bytes] = []
        threads = [
            threading.Thread(target=lambda c=c: seen.extend(r.value or b"" for r in c), daemon=True)
            for c in (one, two)
        ]
        for thread in threads:
            thread.start()
        # The last of the first was in hand.
        until(lambda: {*first, *seen} == {*values}, "all is read")
    for thread in threads:
        thread.join(DEADLINE)
    with make() as consumer:
        assert consumer.next(timeout=1.0) is None
