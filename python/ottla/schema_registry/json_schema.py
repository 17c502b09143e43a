"""JSON Schema, by jsonschema: `pip install ottla[json]`.

    registry = RegistryClient("http://localhost:8081")
    orders = JsonSchemaSerializer(registry, ORDER)      # the schema, as JSON or as what JSON has been read into
    producer = SerializingProducer(ottla.Producer("localhost:9092"), value_serializer=orders)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

try:
    import jsonschema
    import jsonschema.exceptions
    import jsonschema.validators
    import referencing
    import referencing.exceptions
    import referencing.jsonschema
except ImportError as _error:
    raise ImportError("JSON Schema needs jsonschema: pip install 'ottla[json]'", name=_error.name) from _error

from ottla.schema_registry._avro_walk import MAX_SCHEMA_DEPTH, check_depth, depth
from ottla.schema_registry._client import RegistryClient
from ottla.schema_registry._errors import InvalidSchemaError
from ottla.schema_registry._schema import Reference, Schema, SubjectName, topic_name
from ottla.schema_registry._serde import RegistryDeserializer, RegistrySerializer, converted
from ottla.schema_registry._wire import parse_header
from ottla.serde._errors import DecodeError, SerializeError
from ottla.serde._hooks import Context

__all__ = ["JsonSchemaDeserializer", "JsonSchemaSerializer"]

_T = TypeVar("_T")

AnySchema: TypeAlias = str | Mapping[str, Any] | Schema


class _Validator:
    """A schema as jsonschema takes it. What it refers to is registered, or in it: nothing is fetched from anywhere else."""

    def __init__(self, schema: Schema, needed: list[tuple[str, Schema]]) -> None:
        read = _read(schema.text)
        others = [(name, _read(one.text)) for name, one in needed]
        resources: list[tuple[str, Any]] = []
        try:
            for name, one in others:
                resource = referencing.Resource.from_contents(one, default_specification=referencing.jsonschema.DRAFT7)
                resources.append((name, resource))
                if own := resource.id():
                    resources.append((own, resource))
            kind = jsonschema.validators.validator_for(read, default=jsonschema.Draft7Validator)
            kind.check_schema(read)
            registry: referencing.Registry[Any] = referencing.Registry().with_resources(resources)
        except jsonschema.exceptions.SchemaError as error:
            raise InvalidSchemaError(f"the JSON Schema is not valid at '{error.json_path}': {error.message}") from None
        except MemoryError:
            raise
        except Exception as error:
            raise InvalidSchemaError(f"jsonschema cannot take the schema: {type(error).__name__}") from error
        title = read.get("title") if isinstance(read, dict) else None
        self.name: str | None = title if isinstance(title, str) else None
        self._validator = kind(read, registry=registry)

    def wrong(self, value: Any) -> tuple[str, str] | None:
        """What of a value does not agree, and with which rule. Its message is not used: it has the value in it.

        Raises InvalidSchemaError if the schema refers to what is nowhere, or to itself without an end, and RecursionError for a
        value that is too deep.
        """
        try:
            found = jsonschema.exceptions.best_match(self._validator.iter_errors(value))
        except RecursionError:
            if depth(value) > MAX_SCHEMA_DEPTH:
                raise
            raise InvalidSchemaError("the JSON Schema refers to itself without an end, or is too deep") from None
        except referencing.exceptions.Unresolvable as error:
            raise InvalidSchemaError(
                f"the JSON Schema refers to '{error.ref}', which is neither in it nor among its references",
                advice="register it, and name it as a reference",
            ) from None
        if found is None:
            return None
        # A `required` names what is missing, which is of the schema.
        detail = ""
        if found.validator == "required" and isinstance(found.instance, Mapping):
            missing = [name for name in found.validator_value if name not in found.instance]
            detail = f", {missing!r} is missing"
        elif found.validator in ("type", "maximum", "minimum", "maxLength", "minLength", "format"):
            detail = f", which is {found.validator_value!r}"
        return found.json_path.removeprefix("$").removeprefix("."), f"it breaks the rule '{found.validator}'{detail}"


def _read(text: str) -> Any:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidSchemaError("the JSON Schema is not JSON") from None
    if not isinstance(read, dict | bool):
        raise InvalidSchemaError("the JSON Schema is neither an object nor true or false")
    check_depth(read)
    return read


def _schema(given: AnySchema, references: Sequence[Reference]) -> Schema:
    if isinstance(given, Schema):
        if given.type != "JSON":
            raise InvalidSchemaError(f"the schema is of type {given.type}, and not JSON")
        return given._replace(references=(*given.references, *references))
    text = given if isinstance(given, str) else json.dumps(given)
    return Schema(text, "JSON", tuple(references))


def _dumps(value: Any) -> str:
    # As Confluent's writes it (where it uses orjson, exponents of numbers look otherwise), and without NaN and infinities, which
    # Python writes and other readers of JSON do not take.
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


class JsonSchemaSerializer(RegistrySerializer[_T, _Validator]):
    """Writes values as JSON that agrees with one JSON Schema, as Confluent's serializers do.

    registry: where the schema is registered, or looked up.
    schema: as JSON, as what that was read into, or a Schema. Draft 7, if it does not say.
    references: other schemas that it needs, which are registered. They are asked for when the first value is serialized.
    to_dict: makes of a value what json takes.
    dumps: writes JSON; `json.dumps` without spaces and without NaN if not said.
    validate: whether values are looked at, True if not said.
    subject_name: `topic_name`, `record_name` and `topic_record_name` by the schema's title, or a function.
    auto_register, use_latest, normalize: as of AvroSerializer.

    Raises InvalidSchemaError, if the schema is none.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"] = "JSON"

    def __init__(
        self,
        registry: RegistryClient,
        schema: AnySchema,
        *,
        references: Sequence[Reference] = (),
        to_dict: Callable[[_T], Any] | None = None,
        dumps: Callable[[Any], str] = _dumps,
        validate: bool = True,
        subject_name: SubjectName = topic_name,
        auto_register: bool | None = None,
        use_latest: bool = False,
        normalize: bool = False,
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
        self._dumps = dumps
        self._validate = validate
        if not self._schema.references:
            # What is wrong with it is said here, where it is written.
            self._ready.put(self._schema, self._prepare(self._schema))

    def _prepare(self, schema: Schema) -> _Validator:
        return _Validator(schema, self._registry.references(schema))

    def _own(self, value: _T, context: Context, wait: bool) -> tuple[Schema, _Validator, str | None]:
        ready = self._made_ready(self._schema, wait)
        return self._schema, ready, ready.name

    def _encode(self, value: _T, ready: _Validator) -> bytes:
        plain = converted(self._to_dict, value, "to_dict")
        if self._validate and (wrong := ready.wrong(plain)) is not None:
            raise SerializeError(wrong[1], path=wrong[0])
        try:
            return self._dumps(plain).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise SerializeError(f"it cannot be written as JSON ({type(error).__name__})") from error


class JsonSchemaDeserializer(RegistryDeserializer[_T, _Validator | None]):
    """Reads JSON that was written with any JSON Schema, and says where it does not agree.

    registry: where the schemas are that records were written with. None: nobody is asked, and values agree with `schema`, if
        that is said.
    schema: what values have to agree with, instead of the writer's schema.
    references: other schemas that it needs.
    from_dict: makes something of what was read.
    loads: reads JSON; `json.loads` if not said.
    validate: whether values are looked at, True if not said. With False nobody is asked.

    Raises InvalidSchemaError, if the schema is none.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"] = "JSON"

    def __init__(
        self,
        registry: RegistryClient | None = None,
        schema: AnySchema | None = None,
        *,
        references: Sequence[Reference] = (),
        from_dict: Callable[[Any], _T] | None = None,
        loads: Callable[[bytes], Any] = json.loads,
        validate: bool = True,
    ) -> None:
        super().__init__(registry)
        self._from_dict = from_dict
        self._loads = loads
        self._validate = validate
        self._schema = None if schema is None else _schema(schema, references)
        if self._schema is not None and not self._schema.references:
            self._given.put(self._schema, _Validator(self._schema, []))
        elif self._schema is not None and registry is None:
            raise InvalidSchemaError("a schema with references needs registry=, where they are")

    def _prepare(self, schema: Schema) -> _Validator:
        assert self._registry is not None
        return _Validator(schema, self._registry.references(schema))

    def _deserialize(self, data: bytes, wait: bool) -> _T:
        found: _Validator | None = None
        if not self._validate or self._schema is not None or self._registry is None:
            parse_header(data)
            if self._validate and self._schema is not None:
                found = self._readers(self._schema, wait)
        else:
            found = self._writers(self._registry, data, wait)
        try:
            read = self._loads(bytes(self._payload(data)))
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"it is not JSON ({type(error).__name__})") from error
        if self._validate and found is not None:
            try:
                wrong = found.wrong(read)
            except RecursionError:
                raise DecodeError("it is too deep") from None
            except InvalidSchemaError as error:
                if self._schema is not None:
                    # The program's own: no record is the reason.
                    raise
                raise DecodeError(error.message, advice=error.advice) from error
            if wrong is not None:
                raise DecodeError(wrong[1], path=wrong[0])
        return converted(self._from_dict, read, "from_dict")
