"""Every choice of a client and a producer does what it says, seen from the embedded cluster."""

from __future__ import annotations

import random
from typing import Any

import pytest
from conftest import DEADLINE, until

import ottla
import ottla.testing

CODECS = ["none", "lz4", "snappy", "gzip", "zstd"]

TEXT = bytes(random.Random(1).choices(b"etaoinshrdlu   ", k=200_000))
"""Has little order: levels of a codec differ on it."""


def codecs_of(topic: str, **settings: Any) -> set[str]:
    with ottla.testing.Broker() as broker:
        broker.create_topic(topic)
        with ottla.Producer(broker.bootstrap, **settings) as producer:
            producer.send(topic, TEXT).result(timeout=DEADLINE)
        return broker.codecs(topic)


def test_the_codec() -> None:
    assert codecs_of("t") == {"lz4"}
    for codec in CODECS:
        assert codecs_of("t", compression=codec) == {codec}


@pytest.mark.parametrize(("topic", "codec"), [("a", "zstd"), ("b", "gzip"), ("c", "snappy")])
def test_a_topic_with_a_codec_of_its_own(topic: str, codec: str) -> None:
    own = {"a": "zstd", "b": ("gzip", 9)}
    assert codecs_of(topic, compression="snappy", topic_compression=own) == {codec}


@pytest.mark.parametrize(("codec", "quick", "small"), [("gzip", 1, 9), ("zstd", -7, 19)])
def test_levels(
    broker: ottla.testing.Broker, topic: str, codec: Any, quick: int, small: int
) -> None:
    def size(**settings: Any) -> int:
        with ottla.Producer(broker.bootstrap, **settings) as producer:
            before = producer.stats()["produce_bytes"]
            producer.send(topic, TEXT).result(timeout=DEADLINE)
            return producer.stats()["produce_bytes"] - before

    large = size(compression=codec, compression_level=quick)
    assert size(compression=codec, compression_level=small) < large
    assert size(compression=codec) < large
    assert size(topic_compression={topic: (codec, small)}) < large
    assert size(topic_compression={topic: (codec, quick)}) > size(compression=codec)


def test_keys_go_where_java_puts_them() -> None:
    # What Java's Utils.murmur2 makes of them.
    keys = {
        b"21": -973_932_308,
        b"foobar": -790_332_482,
        b"abc": 479_470_107,
        b"a-little-bit-long-string": -985_981_536,
        b"a-little-bit-longer-string": -1_486_304_829,
    }
    with ottla.testing.Broker(brokers=3) as broker:
        broker.create_topic("t", partitions=7)
        with ottla.Producer(broker.bootstrap, partitioner="key_hash") as producer:
            for key, hashed in keys.items():
                for _ in range(3):
                    at = producer.send("t", b"", key=key).result(timeout=DEADLINE)
                    assert at.partition == (hashed & 0x7FFF_FFFF) % 7


@pytest.mark.parametrize(("acks", "offset"), [("all", 0), ("leader", 0), ("none", -1)])
def test_acks(acks: Any, offset: int) -> None:
    with ottla.testing.Broker(brokers=2) as broker:
        broker.create_topic("t")
        # Followers copy nothing: only what needs them waits.
        broker.set_replica_delay(None)
        with ottla.Producer(broker.bootstrap, acks=acks) as producer:
            delivery = producer.send("t", b"x")
            until(lambda: broker.log_end("t", 0) == 1, "the record is written")
            if acks == "all":
                assert not delivery.done()
                broker.set_replica_delay(0)
            assert delivery.result(timeout=DEADLINE).offset == offset
            # Only what is idempotent needs an id.
            requests = [b["requests"] for b in producer.stats()["brokers"].values()]
            assert any("InitProducerId" in r for r in requests) == (acks == "all")


@pytest.mark.parametrize("in_doubt", ["wait", "reroute"])
def test_in_doubt(in_doubt: Any) -> None:
    """The broker is lost that has the record and did not say so."""
    with ottla.testing.Broker(brokers=3) as broker:
        broker.create_topic("t", partitions=3)
        broker.set_replica_delay(None)

        def written() -> list[int]:
            return [p for p in range(3) for _ in range(broker.log_end("t", p))]

        with ottla.Producer(broker.bootstrap, in_doubt=in_doubt) as producer:
            delivery = producer.send("t", b"x")
            until(lambda: len(written()) == 1, "the record is written")
            [at] = written()
            # Partition p is led by broker p + 1.
            broker.stop_broker(at + 1, move_leaders=False)
            broker.set_replica_delay(0)
            if in_doubt == "wait":
                broker.start_broker(at + 1)
            partition = delivery.result(timeout=DEADLINE).partition
            assert (partition == at) == (in_doubt == "wait")
            assert len(written()) == (1 if in_doubt == "wait" else 2)


def brokers_used(producer: ottla.Producer) -> set[int]:
    """Sends bursts of small batches until five brokers took some. A producer with little to send uses
    six of twelve: five are more than are left of those if the ones that must not be used are taken
    away."""

    # Of all clients of this process that share the pool.
    before = producer.stats()["acknowledged_by_broker"]

    def used() -> set[int]:
        now = producer.stats()["acknowledged_by_broker"]
        return {id for id, records in now.items() if records > before.get(id, 0)}

    def burst() -> bool:
        producer.send_many("t", [bytes(900)] * 40).result(timeout=DEADLINE)
        return len(used()) >= 5

    until(burst, "five brokers are used")
    return used()


SMALL: dict[str, Any] = {"batch_size": "1 KiB", "compression": "none"}


def test_the_own_rack_is_used() -> None:
    with ottla.testing.Broker(brokers=12, racks=["a", "b"]) as broker:
        broker.create_topic("t", partitions=24, replication=1)
        for rack, odd in {"a": 1, "b": 0}.items():
            with ottla.Producer(broker.bootstrap, rack=rack, **SMALL) as producer:
                assert {id % 2 for id in brokers_used(producer)} == {odd}


def test_ordinals_share_brokers_out() -> None:
    with ottla.testing.Broker(brokers=12) as broker:
        broker.create_topic("t", partitions=24, replication=1)
        with (
            ottla.Producer(broker.bootstrap, ordinal=(0, 2), **SMALL) as first,
            ottla.Producer(broker.bootstrap, ordinal=(1, 2), **SMALL) as second,
        ):
            assert not brokers_used(first) & brokers_used(second)


@pytest.mark.parametrize("reads", [False, True])
def test_idle_connections_are_closed(reads: bool) -> None:
    with ottla.testing.Broker() as broker:
        broker.create_topic("t")
        handle: ottla.Producer | ottla.Consumer
        if reads:
            handle = ottla.Consumer(broker.bootstrap, topics=["t"], idle_timeout=1)
        else:
            handle = ottla.Producer(broker.bootstrap, idle_timeout=1)
        with handle:
            until(
                lambda: any(b["idle_closes"] for b in handle.stats()["brokers"].values()),
                "a connection is closed",
            )


def test_consumers_and_admins_have_the_settings_of_a_client(
    broker: ottla.testing.Broker, topic: str
) -> None:
    settings: dict[str, Any] = {
        "rack": "a",
        "ordinal": (1, 3),
        "idle_timeout": 60,
        "on_cluster_change": "accept",
    }
    assert ottla.Admin(broker.bootstrap, **settings).partitions(topic) == 3
    ottla.Consumer(broker.bootstrap, topics=[topic], **settings).close()
    no_such = {"rack": 7, "ordinal": 1, "idle_timeout": "1", "on_cluster_change": True}
    for name, value in no_such.items():
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(TypeError, match=name):
            ottla.Admin(broker.bootstrap, **wrong)
        with pytest.raises(TypeError, match=name):
            ottla.Consumer(broker.bootstrap, topics=[topic], **wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acks": "1"}, r"acks is '1'; write 'all' or 'leader' or 'none' \(1 is 'leader'\)"),
        ({"acks": "quorum"}, "acks is 'quorum'; write 'all'"),
        ({"partitioner": "murmur2_random"}, r"write 'spread' or 'key_hash' \(it is 'key_hash'\)"),
        ({"partitioner": "consistent_random"}, "CRC32 is not offered"),
        ({"in_doubt": "hope"}, "in_doubt is 'hope'; write 'wait' or 'reroute'"),
        ({"compression": "lzma"}, "'lzma'; this build has none, lz4, snappy, gzip, zstd"),
        ({"compression": "zstd:3"}, "'zstd:3'; this build has"),
        ({"compression": "lz4", "compression_level": 1}, "lz4 has no levels"),
        ({"compression": "gzip", "compression_level": 10}, "level is 10; gzip has 1 to 9"),
        ({"compression": "zstd", "compression_level": 2**40}, "zstd has -7 to 22"),
        ({"compression_level": 3}, "write compression='zstd' or 'gzip'"),
        ({"topic_compression": {"t": "lzma"}}, "topic 't': compression is 'lzma'"),
        ({"topic_compression": {"t": ("zstd", 23)}}, "topic 't': .* level is 23"),
        ({"idle_timeout": 0.5}, "idle_timeout is 500ms; allowed"),
        ({"ordinal": (2, 2)}, "ordinal is 2 of 2"),
        ({"on_cluster_change": "ignore"}, "on_cluster_change"),
        ({"ordinal": (-1, 2)}, r"ordinal is \(-1, 2\)"),
        ({"client.rack": "a"}, r"'client.rack' \(use rack\)"),
        ({"connections.max.idle.ms": 1}, r"use idle_timeout \(seconds\)"),
        ({"partitioner.class": "x"}, "use partitioner"),
        ({"request.required.acks": 1}, "use acks"),
        ({"compression.type": "zstd"}, "use compression"),
    ],
)
def test_what_is_refused(
    broker: ottla.testing.Broker, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ottla.ConfigError, match=message):
        ottla.Producer(broker.bootstrap, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acks": 0}, r"acks must be 'all' or 'leader' or 'none', not int \(0 is 'none'\)"),
        ({"acks": True}, "not bool"),
        ({"partitioner": hash}, "partitioner must be 'spread' or 'key_hash'"),
        ({"compression": 3}, "compression must be a str"),
        ({"compression": "zstd", "compression_level": "3"}, "level must be an int, not str"),
        ({"topic_compression": "zstd"}, "a dict of topics and codecs, not str"),
        ({"topic_compression": {"t": 3}}, r"'zstd' or \('zstd', 9\)"),
        ({"topic_compression": {"t": ("zstd", 3, 4)}}, r"'zstd' or \('zstd', 9\)"),
        ({"topic_compression": {b"t": "zstd"}}, "must have a str"),
        ({"ordinal": (1, 2, 3)}, r"two ints, \(index, count\), not tuple"),
    ],
)
def test_wrong_types(broker: ottla.testing.Broker, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ottla.Producer(broker.bootstrap, **settings)
