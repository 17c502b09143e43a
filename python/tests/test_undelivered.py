"""What failed and nobody looked at is told: by flush, close, the end of a block and of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import Program

import ottla
import ottla.testing

QUICKSTART = """
import sys
import ottla

with ottla.Producer(sys.argv[1]) as producer:
    producer.send("nowhere", b"hello")
"""

NEVER_CLOSED = """
import sys, time
import ottla

producer = ottla.Producer(sys.argv[1])
for _ in range(3):
    producer.send("nowhere", b"hello")
# The wait at exit is short, and the machine may be slow.
end = time.monotonic() + 30
while producer.stats()["records_failed"] < 3 and time.monotonic() < end:
    time.sleep(0.01)
"""


def lost(caught: pytest.ExceptionInfo[ottla.UndeliveredError]) -> tuple[int, list[str], str]:
    error = caught.value
    return error.records, error.topics, error.first.code


TOO_LARGE = bytes(50_000)


@pytest.fixture(scope="module")
def strict() -> Iterator[ottla.testing.Broker]:
    """A broker that refuses what is TOO_LARGE."""
    with ottla.testing.Broker(max_message_bytes="10 KiB") as broker:
        broker.create_topic("small")
        yield broker


def sends(strict: ottla.testing.Broker) -> ottla.Producer:
    return ottla.Producer(strict.bootstrap, compression="none")


def test_a_flush_tells_once(strict: ottla.testing.Broker) -> None:
    producer = sends(strict)
    for _ in range(2):
        producer.send("small", TOO_LARGE)
    with pytest.raises(ottla.UndeliveredError, match="2 records failed") as caught:
        producer.flush()
    assert lost(caught) == (2, ["small"], "record_too_large")
    assert not caught.value.maybe_written
    producer.flush()
    producer.close()


def test_what_was_looked_at_is_not_told(strict: ottla.testing.Broker) -> None:
    with sends(strict) as producer:
        delivery = producer.send("small", TOO_LARGE)
        assert isinstance(delivery.exception(), ottla.RecordTooLargeError)
        producer.flush()
    with sends(strict) as producer:
        outcomes = producer.send_many("small", [TOO_LARGE, TOO_LARGE]).outcomes()
        assert [type(outcome) for outcome in outcomes] == [ottla.RecordTooLargeError] * 2


def test_outcomes_say_where_each_record_is(broker: ottla.testing.Broker, topic: str) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        outcomes = producer.send_many(topic, [b"x", None, b"z"]).outcomes()
    assert len({(o.partition, o.offset) for o in outcomes if isinstance(o, ottla.Acked)}) == 3


def test_the_end_of_a_block_tells(strict: ottla.testing.Broker) -> None:
    with pytest.raises(ottla.UndeliveredError):
        with sends(strict) as producer:
            producer.send("small", TOO_LARGE)
    # What the block was left by matters more.
    with pytest.raises(KeyError) as caught:
        with sends(strict) as producer:
            producer.send("small", TOO_LARGE)
            raise KeyError
    assert any("1 record failed" in note for note in caught.value.__notes__)


def test_a_program_does_not_end_as_if_all_were_well(
    broker: ottla.testing.Broker, program: Callable[..., Program]
) -> None:
    code, _, errors = program(QUICKSTART, broker.bootstrap).end()
    assert code == 1
    assert "UndeliveredError" in errors
    code, _, errors = program(NEVER_CLOSED, broker.bootstrap).end()
    assert code == 0
    assert "RuntimeWarning" in errors
    assert "3 records failed" in errors
