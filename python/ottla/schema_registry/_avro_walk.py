"""Goes through bytes of Avro that could do harm to whoever decodes them, before they are decoded.

fastavro is compiled: data of a schema that has itself in it go as deep as the bytes say, a level for each byte, and the stack of the
process ends before the bytes do. And an array of items that take no bytes is as long as a number says. Both are written by
whoever can write to the topic. Schemas in which neither can be (most) are not gone through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from ottla.schema_registry._errors import InvalidSchemaError
from ottla.serde._errors import DecodeError

MAX_DEPTH: Final = 400
"""Levels of data, of a schema that has itself in it: a list of 200 that are linked. fastavro goes some thousands deep in a stack
of 8 MiB, and threads may have less."""

MAX_SCHEMA_DEPTH: Final = 100
"""Levels of a schema."""

MAX_EMPTY: Final = 1 << 16
"""Items of arrays that take no bytes, in one value."""

_PRIMITIVES: Final = frozenset(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])


def depth(value: Any, most: int = MAX_SCHEMA_DEPTH * 3) -> int:
    """Levels of what JSON was read into, and of more than `most` one more than that. It goes through it without a stack."""
    level = [value]
    for number in range(most):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        if not below:
            return number
        level = below
    return most + 1


def check_depth(schema: Any) -> None:
    """Raises InvalidSchemaError for a schema that is too deep to be parsed."""
    # A level of a schema is up to three of JSON.
    if depth(schema, MAX_SCHEMA_DEPTH * 3) > MAX_SCHEMA_DEPTH * 3:
        raise InvalidSchemaError(f"the schema has more than {MAX_SCHEMA_DEPTH} levels")


class Walk:
    """Whether data of a schema may do harm, and whether some bytes do."""

    def __init__(self, schema: Any, named: Mapping[str, Any]) -> None:
        self._schema = schema
        self._named = named
        # Of each type that has a name, as it may be used many times over: None while it is looked at.
        self._levels_of: dict[str, float | None] = {}
        self._least_of: dict[str, int] = {}
        try:
            self.needed = self._levels(schema) > MAX_DEPTH
        except RecursionError:
            raise InvalidSchemaError("the schema is too deep") from None

    def _levels(self, schema: Any) -> float:
        """Levels that data may have: no number is enough for a schema that has itself in it, or an array of items that take no
        bytes."""
        if isinstance(schema, list):
            return 1 + max((self._levels(one) for one in schema), default=0)
        if isinstance(schema, str):
            return 1 if schema in _PRIMITIVES else self._levels(self._named[schema])
        kind = schema["type"]
        if kind in ("record", "error"):
            name = schema["name"]
            if name not in self._levels_of:
                self._levels_of[name] = None
                self._levels_of[name] = 1 + max((self._levels(field["type"]) for field in schema["fields"]), default=0)
            # Whoever comes back to one that is looked at is in a circle, and so is everybody on the way.
            known = self._levels_of[name]
            return math.inf if known is None else known
        if kind == "array":
            return math.inf if self._least(schema["items"]) == 0 else 1 + self._levels(schema["items"])
        if kind == "map":
            return 1 + self._levels(schema["values"])
        if isinstance(kind, dict | list):
            return self._levels(kind)
        return 1

    def _least(self, schema: Any) -> int:
        """Bytes that a value takes at least: 0 or 1 is all that counts."""
        if isinstance(schema, list):
            return 1
        if isinstance(schema, str):
            if schema in _PRIMITIVES:
                return 0 if schema == "null" else 1
            return self._least(self._named[schema])
        kind = schema["type"]
        if kind in ("record", "error"):
            name = schema["name"]
            if name not in self._least_of:
                # What is in itself with nothing in between has no end, and so no value.
                self._least_of[name] = 1
                self._least_of[name] = max((self._least(field["type"]) for field in schema["fields"]), default=0)
            return self._least_of[name]
        if kind == "fixed":
            return min(schema["size"], 1)
        if kind == "null":
            return 0
        if isinstance(kind, dict | list):
            return self._least(kind)
        return 1

    def check(self, data: memoryview) -> None:
        """Raises DecodeError for data that are too deep or cut off, or have too many items of no bytes."""
        try:
            _Steps(data, self._named).take(self._schema, 0)
        except RecursionError:
            raise DecodeError("it is too deep") from None


class _Steps:
    def __init__(self, data: memoryview, named: Mapping[str, Any]) -> None:
        self._data = data
        self._named = named
        self._at = 0
        self._empty = 0

    def _long(self) -> int:
        number = shift = 0
        while True:
            if self._at >= len(self._data):
                raise DecodeError("it is cut off")
            byte = self._data[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (number >> 1) ^ -(number & 1)
            shift += 7
            if shift > 63:
                raise DecodeError("a number in it is longer than any is")

    def _skip(self, size: int) -> None:
        if not 0 <= size <= len(self._data) - self._at:
            raise DecodeError("it is cut off")
        self._at += size

    def take(self, schema: Any, depth: int) -> None:
        """Goes over a value."""
        if depth > MAX_DEPTH:
            raise DecodeError(f"it has more than {MAX_DEPTH} levels")
        if isinstance(schema, list):
            branch = self._long()
            if not 0 <= branch < len(schema):
                raise DecodeError(f"it says branch {branch} of a union of {len(schema)}")
            self.take(schema[branch], depth + 1)
            return
        if isinstance(schema, str):
            if schema not in _PRIMITIVES:
                self.take(self._named[schema], depth)
                return
            schema = {"type": schema}
        kind = schema["type"]
        match kind:
            case "null":
                pass
            case "boolean":
                self._skip(1)
            case "int" | "long" | "enum":
                self._long()
            case "float":
                self._skip(4)
            case "double":
                self._skip(8)
            case "bytes" | "string":
                self._skip(self._long())
            case "fixed":
                self._skip(schema["size"])
            case "record" | "error":
                for field in schema["fields"]:
                    self.take(field["type"], depth + 1)
            case "array":
                self._blocks(depth, schema["items"], is_map=False)
            case "map":
                self._blocks(depth, schema["values"], is_map=True)
            case _:
                self.take(kind, depth)

    def _blocks(self, depth: int, items: Any, *, is_map: bool) -> None:
        while (count := self._long()) != 0:
            if count < 0:
                # Followed by the size in bytes, which fastavro does not look at either.
                count = -count
                self._long()
            for _ in range(count):
                begin = self._at
                if is_map:
                    self._skip(self._long())
                self.take(items, depth + 1)
                if self._at == begin:
                    self._empty += 1
                    if self._empty > MAX_EMPTY:
                        raise DecodeError(f"it has more than {MAX_EMPTY} items that take no bytes")
