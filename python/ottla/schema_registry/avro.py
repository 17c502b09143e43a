"""Avro, by fastavro: `pip install ottla[avro]`.

    registry = RegistryClient("http://localhost:8081")
    orders = AvroSerializer(registry, ORDER)            # the schema, as JSON or as what JSON has been read into
    producer = SerializingProducer(ottla.Producer("localhost:9092"), value_serializer=orders)
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

try:
    import fastavro
    import fastavro.schema
    import fastavro.validation
except ImportError as _error:
    raise ImportError("Avro needs fastavro: pip install 'ottla[avro]'", name=_error.name) from _error

from ottla.schema_registry._avro_walk import Walk, check_depth
from ottla.schema_registry._client import RegistryClient
from ottla.schema_registry._errors import InvalidSchemaError
from ottla.schema_registry._schema import Reference, Schema, SubjectName, topic_name
from ottla.schema_registry._serde import RegistryDeserializer, RegistrySerializer, converted
from ottla.serde._errors import DecodeError, SerializeError
from ottla.serde._hooks import Context

__all__ = ["AvroDeserializer", "AvroSerializer"]

_T = TypeVar("_T")

AnySchema: TypeAlias = str | Mapping[str, Any] | Sequence[Any] | Schema


class _Parsed:
    """A schema as fastavro takes it."""

    def __init__(self, schema: Schema, needed: list[tuple[str, Schema]]) -> None:
        named: dict[str, Any] = {}
        try:
            for _, one in needed:
                _parse(one.text, named)
            parsed = _parse(schema.text, named)
        except (InvalidSchemaError, MemoryError):
            raise
        except RecursionError:
            raise InvalidSchemaError("the schema is too deep") from None
        except Exception as error:
            # Of its words there may be any kind: names that are not known, types that are none.
            raise InvalidSchemaError(f"fastavro cannot parse the schema: {type(error).__name__}: {error}") from error
        if isinstance(parsed, list):
            # In a union fastavro looks up no names a second time: what they name is put in their place.
            parsed = [named.get(one, one) if isinstance(one, str) else one for one in parsed]
        self.schema: Any = parsed
        self.name: str | None = parsed.get("name") if isinstance(parsed, dict) else None
        self.walk = Walk(parsed, named)


def _parse(text: str, named: dict[str, Any]) -> Any:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidSchemaError("the schema is not JSON") from None
    check_depth(read)
    return fastavro.schema.parse_schema(read, named_schemas=named)


def _schema(given: AnySchema, references: Sequence[Reference]) -> Schema:
    if isinstance(given, Schema):
        if given.type != "AVRO":
            raise InvalidSchemaError(f"the schema is of type {given.type}, and not AVRO")
        return given._replace(references=(*given.references, *references))
    if isinstance(given, str):
        text = given.strip()
        if text[:1] not in ("{", "["):
            # The name of a type alone, as people write it. Registries get it as Confluent's serializers write it.
            text = f'{{"type":{text if text[:1] == chr(34) else json.dumps(text)}}}'
    else:
        text = json.dumps(given)
    return Schema(text, "AVRO", tuple(references))


class AvroSerializer(RegistrySerializer[_T, _Parsed]):
    """Writes values of one schema of Avro, as Confluent's serializers do.

    Values are what fastavro takes: dicts for records; a pair of name and dict says which record of a union is meant.

    registry: where the schema is registered, or looked up.
    schema: as JSON, as what that was read into, or a Schema.
    references: other schemas that it needs, which are registered. They are asked for when the first value is serialized.
    to_dict: makes of a value what fastavro takes.
    subject_name: `topic_name`, `record_name`, `topic_record_name` or a function of a Context and the record's name.
    auto_register: whether the schema is registered when its first value is serialized, True if not said and not use_latest. With
        False, and without use_latest, it has to be there.
    use_latest: whether the newest version of the subject is written with, whatever it is, instead of `schema`.
    normalize: whether the registry compares what schemas mean instead of what they look like.
    strict: whether fields that the schema does not have are refused; they are left out if not said.

    Raises InvalidSchemaError, if fastavro cannot parse the schema.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"] = "AVRO"

    def __init__(
        self,
        registry: RegistryClient,
        schema: AnySchema,
        *,
        references: Sequence[Reference] = (),
        to_dict: Callable[[_T], Any] | None = None,
        subject_name: SubjectName = topic_name,
        auto_register: bool | None = None,
        use_latest: bool = False,
        normalize: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__(
            registry,
            subject_name=subject_name,
            auto_register=not use_latest if auto_register is None else auto_register,
            use_latest=use_latest,
            normalize=normalize,
        )
        self._schema = _schema(schema, references)
        self._to_dict = to_dict
        self._strict = strict
        if not self._schema.references:
            # What is wrong with it is said here, where it is written.
            self._ready.put(self._schema, self._prepare(self._schema))

    def _prepare(self, schema: Schema) -> _Parsed:
        return _Parsed(schema, self._registry.references(schema))

    def _own(self, value: _T, context: Context, wait: bool) -> tuple[Schema, _Parsed, str | None]:
        ready = self._made_ready(self._schema, wait)
        return self._schema, ready, ready.name

    def _encode(self, value: _T, ready: _Parsed) -> bytes:
        plain = converted(self._to_dict, value, "to_dict")
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, ready.schema, plain, strict=self._strict)
        except RecursionError:
            raise SerializeError("it is too deep") from None
        except MemoryError:
            raise
        except Exception as error:
            # Its words have the value in them, and do not always have the field. The place and the type are found again.
            raise self._wrong(plain, ready, error) from None
        return out.getvalue()

    def _wrong(self, plain: Any, ready: _Parsed, error: Exception) -> SerializeError:
        try:
            fastavro.validation.validate(plain, ready.schema, strict=self._strict)
        except fastavro.validation.ValidationError as found:
            if found.errors and not isinstance(first := found.errors[0], str):
                # It is written as a full name with a path, or in words around one.
                field = first.field.removeprefix(f"{ready.name}.") if ready.name else first.field
                wanted = _short(first.schema)
                return SerializeError(f"{_kind(first.datum)} where the schema has {wanted}", path=field or None)
        except Exception:  # noqa: S110 - what it stumbles over is what the writer has said already
            pass
        return SerializeError(f"it does not agree with the schema ({type(error).__name__} of fastavro)")


def _kind(value: Any) -> str:
    return "nothing, or None," if value is None else type(value).__name__


def _short(schema: Any) -> str:
    """A schema in a few words."""
    if isinstance(schema, dict):
        name = schema.get("name")
        return f"{schema.get('type')} {name}" if name else _short(schema.get("type"))
    if isinstance(schema, list):
        return " or ".join(_short(one) for one in schema)
    return str(schema)


class AvroDeserializer(RegistryDeserializer[_T, _Parsed]):
    """Reads values that were written with any schema of Avro.

    registry: where the schemas are that records were written with.
    schema: the schema that values are to have, if not that of the writer: fields that are missing get their defaults.
    references: other schemas that it needs.
    from_dict: makes something of what fastavro has read.
    return_record_name: whether records in unions come as pairs of name and dict.

    Raises InvalidSchemaError, if fastavro cannot parse the schema.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"] = "AVRO"

    def __init__(
        self,
        registry: RegistryClient,
        schema: AnySchema | None = None,
        *,
        references: Sequence[Reference] = (),
        from_dict: Callable[[Any], _T] | None = None,
        return_record_name: bool = False,
    ) -> None:
        super().__init__(registry)
        self._client = registry
        self._from_dict = from_dict
        self._return_record_name = return_record_name
        self._schema = None if schema is None else _schema(schema, references)
        if self._schema is not None and not self._schema.references:
            self._given.put(self._schema, _Parsed(self._schema, []))

    def _prepare(self, schema: Schema) -> _Parsed:
        return _Parsed(schema, self._client.references(schema))

    def _deserialize(self, data: bytes, wait: bool) -> _T:
        reader = None if self._schema is None else self._readers(self._schema, wait)
        writer = self._writers(self._client, data, wait)
        payload = self._payload(data)
        if writer.walk.needed:
            writer.walk.check(payload)
        try:
            read = fastavro.schemaless_reader(
                io.BytesIO(payload),
                writer.schema,
                None if reader is None else reader.schema,
                return_record_name=self._return_record_name,
            )
        except MemoryError:
            raise
        except Exception as error:
            # Its words may have what was read in them.
            raise DecodeError(
                f"its bytes do not agree with its schema ({type(error).__name__} of fastavro)",
                advice="look at error.record; see that its writer's schema and yours are compatible",
            ) from error
        return converted(self._from_dict, read, "from_dict")
