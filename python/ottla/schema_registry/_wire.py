"""What stands in front of a payload: a zero, the id of the schema, and for Protobuf which of its messages it is.

All of it comes from whoever can write to the topic.
"""

from __future__ import annotations

import struct

from ottla.serde._errors import DecodeError

MAGIC = 0
HEADER = struct.Struct(">bI")

MAX_INDEXES = 64
"""Messages within messages, as deep as a path may go. protoc itself takes 32."""

MAX_INDEX = 65_535
"""Messages beside each other in a file. Larger is damage."""


def header(schema_id: int) -> bytes:
    return HEADER.pack(MAGIC, schema_id)


def parse_header(data: bytes) -> int:
    """The id of the schema.

    Raises DecodeError if that is not what stands there.
    """
    if len(data) < HEADER.size:
        raise DecodeError(
            f"it has {len(data)} bytes, and the header of the schema registry alone has {HEADER.size}",
            advice="see that its producer writes with a schema registry",
        )
    magic, schema_id = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DecodeError(
            f"it begins with byte {data[0]:#04x}, and not with 0x00 as what was written with a schema registry",
            advice="see that its producer writes with a schema registry, in its usual format",
        )
    return schema_id


def _zigzag(number: int) -> bytes:
    """A varint of protobuf, of a number that is not negative."""
    rest = number << 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def message_indexes(path: list[int]) -> bytes:
    """Which message of a file: its place among its siblings, from the outermost on. The first one is a zero alone."""
    if path == [0]:
        return b"\x00"
    return _zigzag(len(path)) + b"".join(map(_zigzag, path))


def _read_zigzag(data: bytes, at: int, what: str) -> tuple[int, int]:
    number = shift = 0
    # Five bytes have 32 bits, which is all that any of these numbers has.
    for place in range(at, min(at + 5, len(data))):
        byte = data[place]
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), place + 1
    reason = "is cut off" if at + 5 > len(data) else "is longer than any is"
    raise DecodeError(f"{what} {reason}")


def parse_message_indexes(data: bytes, at: int) -> tuple[list[int], int]:
    """The path of a message from `at` on, and where the payload begins.

    Raises DecodeError.
    """
    count, at = _read_zigzag(data, at, "the number of its message indexes")
    if count == 0:
        return [0], at
    if not 0 < count <= MAX_INDEXES:
        raise DecodeError(f"it has {count} message indexes, and there may be 1 to {MAX_INDEXES}")
    path: list[int] = []
    for _ in range(count):
        index, at = _read_zigzag(data, at, "one of its message indexes")
        if not 0 <= index <= MAX_INDEX:
            raise DecodeError(f"message index {index} is not within 0 and {MAX_INDEX}")
        path.append(index)
    return path, at
