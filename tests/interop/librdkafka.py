#!/usr/bin/env python3
"""Produces and consumes through librdkafka and compares, to the byte; then reads in groups.

Needs `confluent-kafka`; takes the bootstrap string as its argument or from BOOTSTRAP.
"""

import os
import sys
import time
import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

RECORDS = 10_000
PARTITIONS = 4
SECONDS = 60
CODECS = ["none", "lz4", "gzip", "snappy", "zstd"]


def expected(index: int) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]:
    key = None if index % 5 == 0 else b"key-%d" % index
    value = None if index % 97 == 0 else (b"value-%d-" % index) * (1 + index % 20)
    headers = [("h", b"%d" % index), ("h", b"again")] if index % 3 == 0 else []
    return key, value, headers


def produce(bootstrap: str, topic: str, codec: str) -> None:
    failures = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": codec,
            "linger.ms": 5,
            "message.timeout.ms": SECONDS * 1000,
        }
    )

    def delivered(error, _message) -> None:
        if error is not None:
            failures.append(str(error))

    for index in range(RECORDS):
        key, value, headers = expected(index)
        producer.produce(
            topic,
            key=key,
            value=value,
            headers=headers,
            partition=index % PARTITIONS,
            on_delivery=delivered,
        )
        producer.poll(0)
    left = producer.flush(SECONDS)
    if left or failures:
        sys.exit(f"librdkafka/{codec}: {left} undelivered, failures {failures[:3]}")


def consume(bootstrap: str, topic: str, codec: str) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    seen = 0
    nexts = [0] * PARTITIONS
    while seen < RECORDS:
        messages = consumer.consume(1000, timeout=SECONDS)
        if not messages:
            sys.exit(f"librdkafka/{codec}: {seen} of {RECORDS} records after {SECONDS} s")
        for message in messages:
            if message.error():
                sys.exit(f"librdkafka/{codec}: {message.error()}")
            partition, offset = message.partition(), message.offset()
            if offset != nexts[partition]:
                sys.exit(f"librdkafka/{codec}: offset {offset}, {nexts[partition]} expected")
            nexts[partition] += 1
            key, value, headers = expected(offset * PARTITIONS + partition)
            got = (message.key(), message.value(), message.headers() or [])
            if got != (key, value, headers):
                sys.exit(f"librdkafka/{codec}: {partition}@{offset} differs: {got}")
            seen += 1
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS)
    if (low, high) != (0, RECORDS // PARTITIONS):
        sys.exit(f"librdkafka/{codec}: watermarks {low}, {high}")
    consumer.close()


class Member:
    """A consumer of a group, and what it was given and has read."""

    def __init__(self, bootstrap: str, group: str, topic: str, settings: dict[str, str]) -> None:
        self.assigned: set[int] = set()
        self.read: set[tuple[int, int]] = set()
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
            }
            | settings
        )
        self.cooperative = settings != EAGER
        self.consumer.subscribe([topic], on_assign=self.gained, on_revoke=self.given_up)

    def gained(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned |= {one.partition for one in partitions}
        (consumer.incremental_assign if self.cooperative else consumer.assign)(partitions)

    def given_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned -= {one.partition for one in partitions}
        if self.cooperative:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def take(self) -> None:
        for message in self.consumer.consume(1000, timeout=0.1):
            if message.error():
                sys.exit(f"librdkafka in a group: {message.error()}")
            self.read.add((message.partition(), message.offset()))


def until(what: str, members: list[Member], reached) -> None:
    deadline = time.monotonic() + SECONDS
    while not reached():
        if time.monotonic() > deadline:
            held = [sorted(member.assigned) for member in members]
            counts = [len(member.read) for member in members]
            sys.exit(f"librdkafka in a group: no {what} in {SECONDS} s; {held}, {counts} records")
        for member in members:
            member.take()


EAGER = {"partition.assignment.strategy": "range"}
GROUPS = {
    "range": EAGER,
    "cooperative-sticky": {"partition.assignment.strategy": "cooperative-sticky"},
    "next generation": {"group.protocol": "consumer"},
}


def consume_in_groups(bootstrap: str, topic: str, name: str, settings: dict[str, str]) -> None:
    """One member reads and commits, two share, and a group goes on where it was."""
    group = f"librdkafka-{name.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
    every = set(range(PARTITIONS))
    one = Member(bootstrap, group, topic, settings)
    until("records", [one], lambda: len(one.read) == RECORDS)
    one.consumer.commit(asynchronous=False)

    other = Member(bootstrap, group, topic, settings)
    halves = PARTITIONS // 2
    both = [one, other]
    until("halves", both, lambda: len(one.assigned) == len(other.assigned) == halves)
    if one.assigned | other.assigned != every:
        sys.exit(f"librdkafka/{name}: {one.assigned} and {other.assigned} are not all partitions")
    one.consumer.close()
    until("heir", [other], lambda: other.assigned == every)
    if other.read:
        sys.exit(f"librdkafka/{name}: {len(other.read)} records were read again after a commit")
    offsets = other.consumer.committed([TopicPartition(topic, p) for p in every], timeout=SECONDS)
    if any(offset.offset != RECORDS // PARTITIONS for offset in offsets):
        sys.exit(f"librdkafka/{name}: committed are {offsets}")
    other.consumer.close()
    print(f"librdkafka {name}: one read and committed, two shared, one was left with all", flush=True)


def main() -> None:
    bootstrap = sys.argv[1] if len(sys.argv) > 1 else os.environ["BOOTSTRAP"]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for codec in CODECS:
        topic = f"librdkafka-{codec}-{uuid.uuid4().hex[:8]}"
        for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
            future.result(SECONDS)
        produce(bootstrap, topic, codec)
        consume(bootstrap, topic, codec)
        if codec == CODECS[-1]:
            for name, settings in GROUPS.items():
                consume_in_groups(bootstrap, topic, name, settings)
        for future in admin.create_partitions([NewPartitions(topic, PARTITIONS + 2)]).values():
            future.result(SECONDS)
        for future in admin.delete_topics([topic]).values():
            future.result(SECONDS)
        print(f"librdkafka {codec}: {RECORDS} records produced, consumed and equal", flush=True)


if __name__ == "__main__":
    main()
