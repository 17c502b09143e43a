"""The Python side of the interop matrix: writes the records of a file, reads records into one.

    interop.py write BOOTSTRAP TOPIC FILE [none|lz4]
    interop.py read BOOTSTRAP TOPIC COUNT FILE

A file is one JSON object per line: {"key", "value", "headers", "timestamp", "partition"}. Bytes are
base64, null is null, headers are [name, value] pairs; timestamp (milliseconds) and partition may
be null or left out when writing. What is read also has "offset".
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import ottla

TIMEOUT = 300.0
"""Seconds without a record after which reading gives up."""


def pack(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def unpack(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def write(bootstrap: str, topic: str, file: Path, compression: str) -> None:
    deliveries: list[ottla.Delivery] = []
    settings: dict[str, Any] = {"compression": compression, "max_record_size": "8 MiB"}
    with ottla.Producer(bootstrap, **settings) as producer, file.open() as lines:
        for line in lines:
            row = json.loads(line)
            delivery = producer.send(
                topic,
                unpack(row.get("value")),
                key=unpack(row.get("key")),
                headers=[(name, unpack(value)) for name, value in row.get("headers") or []],
                timestamp=row.get("timestamp"),
                partition=row.get("partition"),
            )
            deliveries.append(delivery)
        for delivery in deliveries:
            delivery.result(timeout=TIMEOUT)
    print(f"wrote {len(deliveries)}")


def read(bootstrap: str, topic: str, number: int, file: Path) -> None:
    with ottla.Consumer(bootstrap, topics=[topic]) as consumer, file.open("w") as lines:
        for got in range(number):
            record = consumer.next(timeout=TIMEOUT)
            if record is None:
                sys.exit(f"{got} of {number} records, and no more within {TIMEOUT} s")
            row = {
                "key": pack(record.key),
                "value": pack(record.value),
                "headers": [[name, pack(value)] for name, value in record.headers],
                "timestamp": record.timestamp,
                "partition": record.partition,
                "offset": record.offset,
            }
            lines.write(json.dumps(row) + "\n")
    print(f"read {number}")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["write", bootstrap, topic, file]:
            write(bootstrap, topic, Path(file), "lz4")
        case ["write", bootstrap, topic, file, compression]:
            write(bootstrap, topic, Path(file), compression)
        case ["read", bootstrap, topic, number, file]:
            read(bootstrap, topic, int(number), Path(file))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
