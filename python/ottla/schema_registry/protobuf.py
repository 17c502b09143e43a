"""Protobuf, by protobuf: `pip install ottla[protobuf]`.

    registry = RegistryClient("http://localhost:8081")
    orders = ProtobufSerializer(registry, Order)        # a class that protoc has made
    producer = SerializingProducer(ottla.Producer("localhost:9092"), value_serializer=orders)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

try:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
    from google.protobuf.message import DecodeError as ProtobufDecodeError
    from google.protobuf.message import EncodeError, Message
except ImportError as _error:
    raise ImportError("Protobuf needs protobuf: pip install 'ottla[protobuf]'", name=_error.name) from _error

from ottla._errors import ConfigError
from ottla.schema_registry._client import MAX_DEPTH, RegistryClient
from ottla.schema_registry._errors import InvalidSchemaError, RegistryError
from ottla.schema_registry._schema import Reference, Schema, SubjectName, topic_name
from ottla.schema_registry._serde import RegistryDeserializer, RegistrySerializer
from ottla.schema_registry._wire import HEADER, message_indexes, parse_header, parse_message_indexes
from ottla.serde._errors import DecodeError, SerializeError
from ottla.serde._hooks import Context

__all__ = ["ProtobufDeserializer", "ProtobufSerializer", "import_name"]

_M = TypeVar("_M", bound=Message)

KNOWN = ("google/protobuf/", "google/type/", "confluent/")
"""Files that registries have themselves, so that nobody registers them; Confluent's serializers know them by these names."""


def import_name(context: Context, name: str) -> str:
    """The subject of a file that is imported: its name in the import."""
    return name


def _text(file: Any) -> str:
    """A file in the form in which registries take what is compiled."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return base64.standard_b64encode(proto.SerializeToString()).decode()


def _path(message: Any) -> list[int]:
    """The place of a message in its file."""
    path: list[int] = []
    one = message
    while one is not None:
        outer = one.containing_type
        siblings = message.file.message_types_by_name.values() if outer is None else outer.nested_types
        path.append([sibling.full_name for sibling in siblings].index(one.full_name))
        one = outer
    return path[::-1]


class ProtobufSerializer(RegistrySerializer[_M, bytes], Generic[_M]):
    """Writes messages of one class, as Confluent's serializers do.

    registry: where the schema is registered, or looked up.
    message: the class, made by protoc. Its file is the schema, and files that it imports are references: each of its own subject,
        except those that registries have themselves: `google/protobuf/`, `google/type/` and `confluent/`.
    reference_name: names the subject of an imported file; `import_name` if not said.
    subject_name: `topic_name`, `record_name`, `topic_record_name` or a function of a Context and the message's full name.
    auto_register: whether the schema and what it imports are registered when the first message is serialized, True if not said
        and not use_latest. With False, and without use_latest, they have to be there.
    use_latest: whether messages are said to be of the newest version of the subject. They are written by the class all the same.
    normalize: whether the registry compares what schemas mean instead of what they look like.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"] = "PROTOBUF"

    def __init__(
        self,
        registry: RegistryClient,
        message: type[_M],
        *,
        reference_name: Callable[[Context, str], str] = import_name,
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
        self._message = message
        self._reference_name = reference_name
        self._name = message.DESCRIPTOR.full_name
        self._indexes = message_indexes(_path(message.DESCRIPTOR))
        # Of each file: to make the text takes long, and is the same each time.
        self._texts: dict[str, str] = {}

    def _prepare(self, schema: Schema) -> bytes:
        return self._indexes

    def _latest_ready(self, schema: Schema, own: bytes, wait: bool) -> bytes:
        return own

    def _own(self, value: _M, context: Context, wait: bool) -> tuple[Schema, bytes, str | None]:
        if self._use_latest:
            return Schema("", "PROTOBUF"), self._indexes, self._name
        return self._of(self._message.DESCRIPTOR.file, context, wait, 1), self._indexes, self._name

    def _of(self, file: Any, context: Context, wait: bool, depth: int) -> Schema:
        """A file as a schema, after those that it imports are registered, or looked up."""
        if depth > MAX_DEPTH:
            raise InvalidSchemaError(f"'{self._message.DESCRIPTOR.file.name}' imports files more than {MAX_DEPTH} deep")
        references: list[Reference] = []
        for needed in file.dependencies:
            if needed.name.startswith(KNOWN):
                continue
            subject = self._reference_name(context, needed.name)
            schema = self._of(needed, context, wait, depth + 1)
            if self._auto_register:
                self._registry.register(subject, schema, normalize=self._normalize, wait=wait)
            # What was registered has a version in its subject, which only a look-up is sure to say.
            found = self._registry.lookup(subject, schema, normalize=self._normalize, wait=wait)
            references.append(Reference(needed.name, subject, found.version))
        text = self._texts.get(file.name)
        if text is None:
            text = self._texts[file.name] = _text(file)
        return Schema(text, "PROTOBUF", tuple(references))

    def _encode(self, value: _M, ready: bytes) -> bytes:
        if not isinstance(value, self._message):
            raise SerializeError(f"{type(value).__name__} where the serializer takes {self._name}")
        try:
            return ready + value.SerializeToString()
        except EncodeError as error:
            # Of proto2: fields that are required and not set. Their names are of the schema.
            missing: list[str] = getattr(value, "FindInitializationErrors", list)()
            raise SerializeError(f"fields are not set: {', '.join(missing[:10])}", path=missing[0] if missing else None) from error


class _Messages:
    """Which message each path of a file is."""

    def __init__(self, schema: Schema) -> None:
        self._file = FileDescriptorProto()
        try:
            compiled = base64.b64decode(schema.text, validate=True)
        except (binascii.Error, ValueError):
            # No InvalidSchemaError: it is not the schema that is wrong, and not its records.
            raise RegistryError(
                "the registry gives schemas of Protobuf as text only, in which their messages cannot be told apart",
                advice="give ProtobufDeserializer one class and no registry",
            ) from None
        try:
            self._file.ParseFromString(compiled)
        except ProtobufDecodeError:
            raise InvalidSchemaError("the schema is no file of Protobuf") from None

    def name(self, path: Sequence[int]) -> str:
        siblings: Any = self._file.message_type
        names = [self._file.package] if self._file.package else []
        one: DescriptorProto
        for index in path:
            if index >= len(siblings):
                raise DecodeError(f"it is message {list(path)} of its schema, which has no such")
            one = siblings[index]
            names.append(one.name)
            siblings = one.nested_type
        return ".".join(names)


class ProtobufDeserializer(RegistryDeserializer[_M, _Messages], Generic[_M]):
    """Reads messages of one class, or of several.

    messages: the class, made by protoc, or several: records of a topic that are of several kinds are told apart then, by the
        registry.
    registry: where the schemas are that records were written with. Without one, nobody is asked, and a record is taken for one of
        the class whatever it says; with one, a record of another message is told by a DecodeError. It has to give schemas in
        their serialized form (`format=serialized`).

    Raises ConfigError for several classes without a registry.
    """

    _type: Literal["AVRO", "JSON", "PROTOBUF"] = "PROTOBUF"

    def __init__(self, messages: type[_M] | Sequence[type[_M]], registry: RegistryClient | None = None) -> None:
        super().__init__(registry, format="serialized")
        classes = [messages] if isinstance(messages, type) else list(messages)
        if not classes or (len(classes) > 1 and registry is None):
            raise ConfigError(
                "which of several messages a record is, a registry says",
                advice="give ProtobufDeserializer registry=, or one class",
            )
        self._only = classes[0]
        self._messages = {one.DESCRIPTOR.full_name: one for one in classes}

    def _prepare(self, schema: Schema) -> _Messages:
        return _Messages(schema)

    def _deserialize(self, data: bytes, wait: bool) -> _M:
        parse_header(data)
        path, at = parse_message_indexes(data, HEADER.size)
        kind = self._only
        if self._registry is not None:
            name = self._writers(self._registry, data, wait).name(path)
            found = self._messages.get(name)
            if found is None:
                raise DecodeError(
                    f"it is a message '{name}', and the deserializer takes {', '.join(self._messages)}",
                    advice="give ProtobufDeserializer that class too, or go on to pass it over",
                )
            kind = found
        message = kind()
        try:
            message.ParseFromString(data[at:])
        except ProtobufDecodeError as error:
            raise DecodeError(f"its bytes are no '{kind.DESCRIPTOR.full_name}'") from error
        return message
