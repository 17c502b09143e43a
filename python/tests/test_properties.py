"""What people bring from other clients: their names for settings, and the properties they have."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import DEADLINE, read

import ottla
import ottla.testing


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bootstrap_servers", "use bootstrap, the first argument"),
        ("bootstrap.servers", "use bootstrap, the first argument"),
        ("security_protocol", r"use tls=ottla.Tls\("),
        ("ssl_cafile", r"use tls=ottla.Tls\("),
        ("ssl_context", "TLS is 1.2 or 1.3"),
        ("sasl_plain_password", r"use sasl=ottla.Plain\("),
        ("sasl.username", r"use sasl=ottla.Plain\("),
        ("value_serializer", "keys and values are bytes"),
        ("key.serializer", "keys and values are bytes"),
        ("retries", "a record is sent again until its delivery_timeout"),
        ("on_delivery", "every send gives a delivery"),
        ("linger.ms", r"use linger \(seconds\)"),
        ("queue.buffering.max.kbytes", r"use buffer_memory \(bytes\)"),
        ("max_batch_size", r"use batch_size \(bytes\)"),
        ("compression.type", "use compression"),
        ("transactional_id", "transactions are not offered yet"),
        ("group_id", "it is a consumer's: group"),
        ("fetch_max_bytes", "it is a consumer's: max_bytes"),
        ("api_version", "versions are agreed on"),
        ("loop", "a thread of its own"),
        ("lingr", "use linger"),
    ],
)
def test_a_producer_says_its_name_for_it(name: str, hint: str) -> None:
    given: dict[str, Any] = {name: "hunter2"}
    for call in (
        lambda: ottla.Producer("localhost:9092", **given),
        lambda: ottla.Producer(**given),
        lambda: ottla.Producer.from_properties({}, **given),
    ):
        with pytest.raises(ottla.ConfigError, match=hint) as caught:
            call()
        assert f"'{name}'" in caught.value.message and "hunter2" not in str(caught.value)
        assert "nothing" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bootstrap_servers", "use bootstrap, the first argument"),
        ("group.id", "use group"),
        ("group_id", "use group"),
        ("enable_auto_commit", "use commit"),
        ("session_timeout_ms", r"use session_timeout \(seconds\)"),
        ("heartbeat_interval_ms", "a heartbeat goes out every 3 s"),
        ("on_revoke", "takes events"),
        ("consumer_timeout_ms", "the calls that wait for records take a timeout"),
        ("auto_offset_reset", "use start"),
        ("value_deserializer", "keys and values are bytes"),
        ("fetch.wait.max.ms", r"use max_wait \(seconds\)"),
        ("max_poll_records", "one by one, or a batch at a time"),
        ("acks", "it is a producer's: acks"),
        ("topic", "use topics"),
    ],
)
def test_a_consumer_says_its_name_for_it(name: str, hint: str) -> None:
    given: dict[str, Any] = {name: 1}
    for call in (
        lambda: ottla.Consumer("localhost:9092", topics=["t"], **given),
        lambda: ottla.Consumer(topics=["t"], **given),
    ):
        with pytest.raises(ottla.ConfigError, match=hint):
            call()


def test_send_says_what_it_has_instead(producer: Any, topic: str) -> None:
    for name, hint in {
        "on_delivery": "every send gives a delivery",
        "callback": "every send gives a delivery",
        "timestamp_ms": "use timestamp",
        "header": "use headers",
        "zebra": "it has headers, key, partition, timestamp",
    }.items():
        with pytest.raises(TypeError, match=rf"send\(\) has no argument '{name}'.*{hint}"):
            producer.send(topic, b"x", **{name: None})


def test_properties_of_a_java_client(broker: ottla.testing.Broker, topic: str) -> None:
    producer = ottla.Producer.from_properties(
        {
            "bootstrap.servers": broker.bootstrap,
            "client.id": "from-java",
            "acks": "all",
            "linger.ms": 5,
            "batch.size": 65536,
            "compression.type": "gzip",
            "compression.gzip.level": "9",
            "enable.idempotence": True,
            "delivery.timeout.ms": "60000",
            "key.serializer": "org.apache.kafka.common.serialization.ByteArraySerializer",
            "transactional.id": None,
            "security.protocol": "PLAINTEXT",
        }
    )
    with producer:
        producer.send(topic, b"x" * 1000).result(timeout=DEADLINE)
    assert broker.codecs(topic) == {"gzip"}
    [record] = read(broker.bootstrap, topic, 1)
    assert record.value == b"x" * 1000


def test_keywords_overrule_and_complete_properties(broker: ottla.testing.Broker, topic: str) -> None:
    properties = {"bootstrap.servers": "localhost:1", "compression.codec": "gzip"}
    with ottla.Producer.from_properties(
        properties, bootstrap=broker.bootstrap, compression="zstd", in_doubt="reroute"
    ) as producer:
        producer.send(topic, b"x" * 1000).result(timeout=DEADLINE)
    assert broker.codecs(topic) == {"zstd"}
    assert properties == {"bootstrap.servers": "localhost:1", "compression.codec": "gzip"}


@pytest.mark.parametrize(("reset", "values"), [("smallest", [b"old"]), ("end", [])])
def test_a_consumer_from_properties(
    broker: ottla.testing.Broker, topic: str, reset: str, values: list[bytes]
) -> None:
    with ottla.Producer(broker.bootstrap) as producer:
        producer.send(topic, b"old").result(timeout=DEADLINE)
    properties = {
        "bootstrap.servers": broker.bootstrap,
        "auto.offset.reset": reset,
        "enable.auto.commit": "false",
        "fetch.wait.max.ms": 100,
        "check.crcs": True,
    }
    with ottla.Consumer.from_properties(properties, topics=[topic]) as consumer:
        record = consumer.next(timeout=DEADLINE if values else 0.5)
        assert [record.value for record in [record] if record] == values
    # Keywords come first here too.
    with ottla.Consumer.from_properties(properties, topics=[topic], start="earliest") as consumer:
        record = consumer.next(timeout=DEADLINE)
        assert record is not None and record.value == b"old"


def test_an_admin_from_properties(broker: ottla.testing.Broker, topic: str) -> None:
    admin = ottla.Admin.from_properties({"metadata.broker.list": broker.bootstrap, "acks": 1})
    assert admin.partitions(topic) == 3


def test_all_that_is_not_taken_is_said_at_once_without_values() -> None:
    properties = {
        "bootstrap.servers": "localhost:9092",
        "sasl.password": "hunter2",
        "retries": 3,
        "group.id": "hunter2",
        "lingr.ms": "hunter2",
        "linger": 0.005,
    }
    make: Any
    for make in (ottla.Producer, ottla.Consumer):
        more: dict[str, Any] = {"topics": ["t"]} if make is ottla.Consumer else {}
        with pytest.raises(ottla.ConfigError) as caught:
            make.from_properties(properties, **more)
        text = str(caught.value)
        assert "'sasl.password' (set security.protocol: SSL, SASL_SSL" in text
        assert "'lingr.ms' (there is linger.ms)" in text
        assert "'linger' (as a property it is linger.ms)" in text
        assert "hunter2" not in text and "hunter2" not in repr(caught.value)


def test_what_are_no_properties() -> None:
    make: Any = ottla.Producer.from_properties
    for wrong in ("client.properties", 7, None, [1]):
        with pytest.raises(TypeError, match="properties must be a dict"):
            make(wrong)
    with pytest.raises(TypeError, match="the name of a property must be a str, not int"):
        make({1: 2})
    with pytest.raises(ottla.ConfigError, match="bootstrap is empty"):
        make({"linger.ms": 5})
