"""The Python side of the interop matrix: writes the records of a file, reads records into one.

    interop.py write BOOTSTRAP TOPIC FILE CODEC    codec: none, lz4, snappy, gzip or zstd
    interop.py read BOOTSTRAP TOPIC COUNT FILE

A file is records of little-endian fields, as the tools of all languages exchange them:

    record: partition i32 (-1: no choice) | offset i64 (-1: to be written)
            | bytes key | bytes value | count u32 | count x (u32 length, name | bytes value)
    bytes:  length i32 (-1: null) | content
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ottla

TIMEOUT = 120.0
"""Seconds without a record, or an acknowledgement, after which a tool gives up."""

PLACE = struct.Struct("<iq")
COUNT = struct.Struct("<I")
LENGTH = struct.Struct("<i")

Headers = list[tuple[str, bytes | None]]


def take(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        sys.exit("the file ends within a record")
    return data


def take_bytes(file: BinaryIO) -> bytes | None:
    (length,) = LENGTH.unpack(take(file, LENGTH.size))
    return None if length < 0 else take(file, length)


def put_bytes(file: BinaryIO, data: bytes | None) -> None:
    file.write(LENGTH.pack(-1 if data is None else len(data)))
    file.write(data or b"")


def load(file: BinaryIO) -> Iterator[tuple[int, bytes | None, bytes | None, Headers]]:
    """Partition, key, value and headers of each record."""
    while place := file.read(PLACE.size):
        partition, _ = PLACE.unpack(place)
        key, value = take_bytes(file), take_bytes(file)
        headers: Headers = []
        (count,) = COUNT.unpack(take(file, COUNT.size))
        for _ in range(count):
            (length,) = COUNT.unpack(take(file, COUNT.size))
            name = take(file, length).decode()
            headers.append((name, take_bytes(file)))
        yield partition, key, value, headers


def save(file: BinaryIO, record: ottla.Record) -> None:
    file.write(PLACE.pack(record.partition, record.offset))
    put_bytes(file, record.key)
    put_bytes(file, record.value)
    headers = record.headers
    file.write(COUNT.pack(len(headers)))
    for name, value in headers:
        encoded = name.encode(errors="surrogateescape")
        file.write(COUNT.pack(len(encoded)))
        file.write(encoded)
        put_bytes(file, value)


def write(bootstrap: str, topic: str, path: Path, codec: Any) -> None:
    with ottla.Producer(bootstrap, compression=codec) as producer, path.open("rb") as file:
        deliveries = [
            producer.send(
                topic,
                value,
                key=key,
                headers=headers,
                partition=None if partition < 0 else partition,
            )
            for partition, key, value, headers in load(file)
        ]
        for delivery in deliveries:
            delivery.result(timeout=TIMEOUT)
    print(f"wrote {len(deliveries)}")


def read(bootstrap: str, topic: str, number: int, path: Path) -> None:
    with ottla.Consumer(bootstrap, topics=[topic]) as consumer, path.open("wb") as file:
        for got in range(number):
            record = consumer.next(timeout=TIMEOUT)
            if record is None:
                sys.exit(f"{got} of {number} records, and no more within {TIMEOUT} s")
            save(file, record)
    print(f"read {number}")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["write", bootstrap, topic, file, codec]:
            write(bootstrap, topic, Path(file), codec)
        case ["read", bootstrap, topic, number, file]:
            read(bootstrap, topic, int(number), Path(file))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
