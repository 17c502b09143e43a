"""Topics that a member of a group subscribes to by a pattern."""

from __future__ import annotations

import uuid
from typing import Literal

import pytest
from conftest import DEADLINE

import ottla
import ottla.testing


@pytest.mark.parametrize("protocol", ["classic", "next"])
def test_what_matches_is_read(
    broker: ottla.testing.Broker, protocol: Literal["classic", "next"]
) -> None:
    mark = uuid.uuid4().hex
    topics = [f"{mark}-pay", f"{mark}-pay-in", f"{mark}-pay-out"]
    with ottla.Producer(broker.bootstrap) as producer:
        for topic in topics:
            broker.create_topic(topic)
            producer.send(topic, topic.encode())
        producer.flush(timeout=DEADLINE)
    with ottla.Consumer(
        broker.bootstrap, group=mark, topics=[f"^{mark}-pay-.*"], group_protocol=protocol
    ) as consumer:
        read = set()
        for _ in range(2):
            record = consumer.next(timeout=DEADLINE)
            assert record is not None
            read.add(record.topic)
        assert read == set(topics[1:])
        consumer.subscribe([f"^{mark}-pay"])
        record = consumer.next(timeout=DEADLINE)
        assert record is not None and record.topic == topics[0]


def test_what_nobody_can_read_is_refused(broker: ottla.testing.Broker) -> None:
    with pytest.raises(ottla.InvalidArgumentError, match="not a pattern of topics"):
        ottla.Consumer(broker.bootstrap, group="g", topics=["^("])
    with pytest.raises(ottla.ConfigError, match="there is no group"):
        ottla.Consumer(broker.bootstrap, topics=["^pay-.*"])
