"""Schemas, as a registry has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from ottla._errors import ConfigError
from ottla.serde._hooks import Context


class Reference(NamedTuple):
    """Another schema that a schema needs."""

    name: str
    """How it is named there: a full name of Avro, a `$ref` of JSON Schema, an import of Protobuf."""
    subject: str
    version: int


class Schema(NamedTuple):
    """A schema by its text."""

    text: str
    type: Literal["AVRO", "JSON", "PROTOBUF"] = "AVRO"
    references: tuple[Reference, ...] = ()


class Registered(NamedTuple):
    """A version of a subject."""

    subject: str
    version: int
    id: int
    schema: Schema


SubjectName: TypeAlias = Callable[[Context, str | None], str]
"""Names the subject of a schema: by where the record goes, and by the schema's own name, if it has one."""


def topic_name(context: Context, record_name: str | None) -> str:
    """`orders-value` or `orders-key`: one schema for a topic. What is done where nothing else is said."""
    return f"{context.topic}-{context.field}"


def record_name(context: Context, record_name: str | None) -> str:
    """`shop.Order`: the name of the schema, wherever the record goes."""
    return _named(context, record_name)


def topic_record_name(context: Context, record_name: str | None) -> str:
    """`orders-shop.Order`: several schemas for a topic."""
    return f"{context.topic}-{_named(context, record_name)}"


def _named(context: Context, name: str | None) -> str:
    if not name:
        raise ConfigError(
            f"the schema of the {context.field} for topic '{context.topic}' has no name of its own, which its subject needs",
            advice="give a record of Avro its name, a JSON Schema its title, or subject_name=topic_name",
        )
    return name
