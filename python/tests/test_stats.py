"""Statistics: what they count, and that the types say what is there."""

from __future__ import annotations

import threading
import typing
from typing import Any

import pytest
from conftest import DEADLINE, read, until

import ottla
import ottla.testing


def assert_typed(value: Any, kind: Any, where: str) -> None:
    """The value has the shape that its type says, down to the last number."""
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        assert sorted(value) == sorted(hints), where
        for name, inner in hints.items():
            assert_typed(value[name], inner, f"{where}.{name}")
    elif typing.get_origin(kind) is dict:
        key_kind, value_kind = typing.get_args(kind)
        for key, inner in value.items():
            assert type(key) is key_kind, f"{where}: {key!r}"
            assert_typed(inner, value_kind, f"{where}[{key!r}]")
    else:
        kinds = typing.get_args(kind) or (kind,)
        assert type(value) in kinds, f"{where}: {value!r}"


def test_all_is_well() -> None:
    with ottla.testing.Broker(brokers=3) as broker:
        broker.create_topic("t", partitions=6)
        with ottla.Producer(broker.bootstrap) as producer:
            producer.send_many("t", [b"x"] * 1_000).result(timeout=DEADLINE)
            assert len(read(broker.bootstrap, "t", 1_000)) == 1_000
            stats = producer.stats()
            assert_typed(stats, ottla.Stats, "stats")
            assert not any(stats["bad_stuff"].values()), stats["bad_stuff"]
            assert stats["records_acknowledged"] == stats["records_consumed"] == 1_000
            assert sum(stats["acknowledged_by_broker"].values()) == 1_000
            requests = [b["requests"] for b in stats["brokers"].values()]
            produced = [r["Produce"] for r in requests if "Produce" in r]
            assert sum(r["answered"] for r in produced) == stats["produce_requests"]
            assert all(0 < r["latency"]["p50"] <= r["latency"]["max"] for r in produced)


def test_a_broker_that_goes_away_shows() -> None:
    with ottla.testing.Broker(brokers=1) as broker:
        broker.create_topic("t")
        with ottla.Producer(broker.bootstrap) as producer:
            producer.send("t", b"x").result(timeout=DEADLINE)
            assert not any(producer.stats()["bad_stuff"].values())
            broker.stop_broker(1, move_leaders=False)
            until(lambda: producer.stats()["bad_stuff"]["losses"] > 0, "the loss")
            broker.start_broker(1)
            producer.send("t", b"x").result(timeout=DEADLINE)
            assert producer.stats()["bad_stuff"]["reconnects"] > 0


def test_while_another_thread_waits_and_after_the_end(
    broker: ottla.testing.Broker, topic: str
) -> None:
    consumer = ottla.Consumer(broker.bootstrap, topics=[topic])
    waiting = threading.Thread(target=lambda: list(consumer))
    waiting.start()
    until(lambda: consumer.stats()["fetch_requests"] > 0, "a fetch")
    consumer.close()
    waiting.join(DEADLINE)
    assert not waiting.is_alive()
    assert consumer.stats()["fetch_requests"] > 0
    with pytest.raises(ottla.ClosedError):
        consumer.assignment()
