"""What serializers of all formats do with a registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

from ottla._errors import ConfigError, Error
from ottla.schema_registry._cache import Cache
from ottla.schema_registry._client import RegistryClient
from ottla.schema_registry._errors import InvalidSchemaError, SchemaNotFoundError
from ottla.schema_registry._schema import Schema, SubjectName
from ottla.schema_registry._wire import HEADER, header, parse_header
from ottla.serde._errors import DecodeError, SerializeError
from ottla.serde._hooks import Context, Deserializer, Serializer

_T = TypeVar("_T")
_P = TypeVar("_P")


class RegistrySerializer(Serializer[_T], Generic[_T, _P]):
    """Finds the id of a schema, and writes it in front of what the format makes of a value.

    _P is a schema made ready for use.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"]

    def __init__(
        self,
        registry: RegistryClient,
        *,
        subject_name: SubjectName,
        auto_register: bool,
        use_latest: bool,
        normalize: bool,
    ) -> None:
        if auto_register and use_latest:
            raise ConfigError(
                "auto_register and use_latest exclude each other",
                advice="leave out auto_register=True: what is the latest version is registered",
            )
        self._registry = registry
        self._subject_name = subject_name
        self._auto_register = auto_register
        self._use_latest = use_latest
        self._normalize = normalize
        self._ready: Cache[Schema, _P] = Cache(registry._cache_size)  # pyright: ignore[reportPrivateUsage]

    def _encode(self, value: _T, ready: _P) -> bytes:
        """The payload. Raises anything: a SerializeError where more can be said."""
        raise NotImplementedError

    def _prepare(self, schema: Schema) -> _P:
        """A schema made ready for use. Raises RegistryErrors."""
        raise NotImplementedError

    def _own(self, value: _T, context: Context, wait: bool) -> tuple[Schema, _P, str | None]:
        """The schema of a value, and its name: of those that are not the registry's latest."""
        raise NotImplementedError

    def serialize(self, value: _T, context: Context, /) -> bytes:
        return self._serialize(value, context, True)

    def serialize_at_once(self, value: _T, context: Context, /) -> bytes:
        return self._serialize(value, context, False)

    def _serialize(self, value: _T, context: Context, wait: bool) -> bytes:
        schema, ready, name = self._own(value, context, wait)
        subject = self._subject_name(context, name)
        if self._use_latest:
            latest = self._registry.latest(subject, wait=wait)
            found, schema = latest.id, latest.schema
            if schema.type != self._type:
                raise InvalidSchemaError(
                    f"the latest version of subject '{subject}' is of type {schema.type}, and the serializer of {self._type}",
                    advice="use the serializer of that type, or another subject",
                )
            ready = self._latest_ready(schema, ready, wait)
        elif self._auto_register:
            found = self._registry.register(subject, schema, normalize=self._normalize, wait=wait)
        else:
            found = self._registry.lookup(subject, schema, normalize=self._normalize, wait=wait).id
        return header(found) + self._encode(value, ready)

    def _latest_ready(self, schema: Schema, own: _P, wait: bool) -> _P:
        """The latest version of a subject made ready for use."""
        return self._made_ready(schema, wait)

    def _made_ready(self, schema: Schema, wait: bool) -> _P:
        # Not on a loop: the schemas that it needs may have to be asked for, and large ones take their time.
        return self._ready.get(schema, lambda: self._prepare(schema), wait=wait)


class RegistryDeserializer(Deserializer[_T], Generic[_T, _P]):
    """Reads the id of a schema, and finds that schema.

    _P is a schema made ready for use.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"]

    def __init__(self, registry: RegistryClient | None, *, format: str | None = None) -> None:
        self._registry = registry
        self._format = format
        size = 1_000 if registry is None else registry._cache_size  # pyright: ignore[reportPrivateUsage]
        self._ready: Cache[int, _P] = Cache(size)
        # The one that the program itself gives.
        self._given: Cache[Schema, _P] = Cache(1)

    def _prepare(self, schema: Schema) -> _P:
        """A schema made ready for use. Raises RegistryErrors."""
        raise NotImplementedError

    def _readers(self, schema: Schema, wait: bool) -> _P:
        """The schema that the program itself gives, made ready for use.

        What is wrong with it, or with those that it needs, is raised as it is: of no record it is the fault.
        """
        return self._given.get(schema, lambda: self._prepare(schema), wait=wait)

    def _writers(self, registry: RegistryClient, data: bytes, wait: bool) -> _P:
        """The schema that some bytes were written with, made ready for use.

        Raises DecodeError if these bytes are the reason that it cannot be had. Whoever passes over those passes over no record
        that is good.
        """
        found = parse_header(data)

        def load() -> _P:
            schema = registry.schema(found, format=self._format)
            if schema.type != self._type:
                raise InvalidSchemaError(f"its schema {found} is of type {schema.type}, and not {self._type}")
            return self._prepare(schema)

        try:
            return self._ready.get(found, load, wait=wait)
        except (SchemaNotFoundError, InvalidSchemaError) as error:
            # Of these the record itself is the reason, and not whether somebody can be reached now. But a 422 is about the
            # question: an id is valid, whatever it is of.
            if error.status == 422:
                raise
            raise DecodeError(f"schema {found} cannot be had: {error.message}", advice=error.advice) from error

    @staticmethod
    def _payload(data: bytes) -> memoryview:
        return memoryview(data)[HEADER.size :]

    def deserialize(self, data: bytes, context: Context, /) -> _T:
        return self._deserialize(data, True)

    def deserialize_at_once(self, data: bytes, context: Context, /) -> _T:
        return self._deserialize(data, False)

    def _deserialize(self, data: bytes, wait: bool) -> _T:
        raise NotImplementedError


def converted(convert: Callable[[Any], Any] | None, value: Any, name: str) -> Any:
    """What a program's own function makes of a value."""
    if convert is None:
        return value
    try:
        return convert(value)
    except (Error, MemoryError):
        raise
    except Exception as error:
        kind = SerializeError if name == "to_dict" else DecodeError
        raise kind(f"{name} raised {type(error).__name__}") from error
