"""What threads that share a member have in hand, and what a pause holds back of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import DEADLINE, until
from group_members import committed, member, take, write

import ottla
import ottla.testing


class Hand:
    """A thread that takes a record when it is told to."""

    def __init__(self, consumer: ottla.Consumer, all_committed: Callable[[], int]) -> None:
        self.consumer, self.all_committed = consumer, all_committed
        self.go, self.came = threading.Semaphore(0), threading.Semaphore(0)
        self.batches = consumer.batches(timeout=DEADLINE)
        self.takes: Callable[[], object] | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while self.go.acquire() and self.takes:
            self.takes()
            self.came.release()

    def take(self, batch: bool = False) -> int:
        """Gives what the group has then."""
        self.takes = (lambda: next(self.batches)) if batch else (lambda: self.consumer.next(DEADLINE))
        self.go.release()
        assert self.came.acquire(timeout=DEADLINE)
        self.consumer.commit(timeout=DEADLINE)
        return self.all_committed()

    def end(self) -> None:
        self.takes = None
        self.go.release()
        self.thread.join()


def test_threads_have_each_their_own_in_hand(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 6)
    with member(broker, group, topic) as consumer:
        one, two = (Hand(consumer, lambda: committed(broker, group, topic)) for _ in range(2))
        assert one.take() == 0  # 0
        assert two.take() == 0  # 1
        # What the other has is not done by that.
        assert two.take() == 0  # 2
        assert two.take() == 0  # 3
        assert one.take() == 3  # 4
        assert two.take() == 4  # 5
        assert consumer.next(timeout=0) is None
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic) == 4
    assert committed(broker, group, topic) == 4


@pytest.mark.parametrize("how", ["records", "batch", "paused"])
def test_to_finish_a_batch_finishes_nothing_of_anothers(
    broker: ottla.testing.Broker, topic: str, group: str, how: str
) -> None:
    write(broker, topic, 6)
    with member(broker, group, topic) as consumer:
        one, two = (Hand(consumer, lambda: committed(broker, group, topic)) for _ in range(2))
        assert one.take() == 0  # 0
        for _ in range(2 if how == "paused" else 5 if how == "records" else 1):
            assert two.take() == 0
        if how == "batch":
            assert two.take(batch=True) == 0  # 2 to 5
        if how == "paused":
            consumer.pause([(topic, 0)])
            write(broker, topic, 1, 1)
        else:
            write(broker, topic, 1)
        assert two.take() == 0
    assert committed(broker, group, topic) == 0


def test_what_a_thread_had_that_has_ended_is_in_nobodys_hand(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 3)
    # All is given up in a rebalance.
    settings: dict[str, Any] = {"max_poll_interval": 3600, "assignors": ["range"]}
    with member(broker, group, topic, **settings) as one:
        ends, goes_on = (Hand(one, lambda: committed(broker, group, topic)) for _ in range(2))
        assert ends.take() == 0  # 0
        assert goes_on.take() == 0  # 1
        ends.end()
        assert goes_on.take() == 0  # 2
        assert one.next(timeout=0) is None
        goes_on.end()
        again: list[bytes | None] = []

        def reads(consumer: ottla.Consumer) -> None:
            for record in consumer:
                again.append(record.value)

        # None of the three is waited for, and none is done.
        with member(broker, group, topic, **settings) as two:
            for consumer in (one, two):
                threading.Thread(target=reads, args=[consumer], daemon=True).start()
            until(lambda: len(again) >= 3, "they are read again")
            assert sorted(value or b"" for value in again) == [b"0.0", b"0.1", b"0.2"]


def test_what_a_pause_holds_back_is_not_done(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 3, 0)
    write(broker, topic, 3, 1)
    with member(broker, group, topic) as consumer:
        first = consumer.next(timeout=DEADLINE)
        assert first is not None
        consumer.pause([(topic, first.partition)])
        other = 1 - first.partition
        assert take(consumer, 3) == [b"%d.%d" % (other, i) for i in range(3)]
        assert consumer.next(timeout=0) is None
        consumer.commit(timeout=DEADLINE)
        assert committed(broker, group, topic, first.partition) == 1
        assert committed(broker, group, topic, other) == 3
        consumer.resume([(topic, first.partition)])
        assert take(consumer, 2) == [b"%d.%d" % (first.partition, i) for i in (1, 2)]
        assert consumer.next(timeout=0) is None
    assert committed(broker, group, topic, first.partition) == 3


@pytest.mark.parametrize("commit", ["marks", "acked"])
def test_what_is_held_back_is_given_up_without_a_wait(
    broker: ottla.testing.Broker, topic: str, group: str, commit: str
) -> None:
    for partition in range(3):
        write(broker, topic, 3, partition)
    settings: dict[str, Any] = {"assignors": ["cooperative-sticky"], "max_poll_interval": 3600}
    settings["commit"] = commit
    with member(broker, group, topic, **settings) as one:
        # One record of each, and the rest is paused.
        for _ in range(3):
            record = one.next(timeout=DEADLINE)
            assert record is not None
            one.pause([(topic, record.partition)])
            record.ack()
        assert one.next(timeout=0) is None
        with member(broker, group, topic, **settings) as two:
            seen = [record for _ in range(2) if (record := two.next(timeout=DEADLINE))]
            assert [record.offset for record in seen] == [1, 2]
            assert len(one.assignment()) == 2


def test_what_is_not_acked_is_waited_for_although_the_rest_is_held_back(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    write(broker, topic, 3)
    settings: dict[str, Any] = {"max_poll_interval": 3600, "assignors": ["range"]}
    settings["commit"] = "acked"
    with member(broker, group, topic, **settings) as one:
        record = one.next(timeout=DEADLINE)
        assert record is not None
        one.pause([(topic, 0)])
        assert one.next(timeout=0) is None
        with member(broker, group, topic, **settings) as two:
            assert two.next(timeout=1) is None
            record.ack()
            took: list[ottla.Record] = []

            def comes() -> bool:
                # Whoever the group gives it to.
                took.extend(record for one_of in (two, one) if (record := one_of.next(timeout=0.1)))
                return bool(took)

            until(comes, "it is read")
            assert took[0].offset == 1


def test_threads_lose_nothing_and_commit_all(
    broker: ottla.testing.Broker, topic: str, group: str
) -> None:
    for partition in range(3):
        write(broker, topic, 400, partition)
    with member(broker, group, topic, commit_interval=0.01) as consumer:
        seen: list[bytes | None] = []
        threads = [
            threading.Thread(target=lambda: seen.extend(r.value for r in consumer), daemon=True)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()

        def all_is_committed() -> bool:
            return [committed(broker, group, topic, p) for p in range(3)] == [400] * 3

        until(all_is_committed, "all is committed")
        assert len(seen) == len(set(seen)) == 1200
    for thread in threads:
        thread.join(DEADLINE)
