#!/usr/bin/env python3
"""Produces and consumes through librdkafka and compares, to the byte.

Needs `confluent-kafka`; takes the bootstrap string as its argument or from BOOTSTRAP.
"""

import os
import sys
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


def main() -> None:
    bootstrap = sys.argv[1] if len(sys.argv) > 1 else os.environ["BOOTSTRAP"]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for codec in CODECS:
        topic = f"librdkafka-{codec}-{uuid.uuid4().hex[:8]}"
        for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
            future.result(SECONDS)
        produce(bootstrap, topic, codec)
        consume(bootstrap, topic, codec)
        for future in admin.create_partitions([NewPartitions(topic, PARTITIONS + 2)]).values():
            future.result(SECONDS)
        for future in admin.delete_topics([topic]).values():
            future.result(SECONDS)
        print(f"librdkafka {codec}: {RECORDS} records produced, consumed and equal", flush=True)


if __name__ == "__main__":
    main()
