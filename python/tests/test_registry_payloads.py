"""Avro, JSON Schema and Protobuf: bytes that are Confluent's, what does not agree, and bytes that mean harm."""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import fastavro.schema
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

import ottla.testing
from ottla.schema_registry import (
    InvalidSchemaError,
    Reference,
    RegistryClient,
    RegistryError,
    RegistryUnavailableError,
    Schema,
    SchemaNotFoundError,
    record_name,
    topic_record_name,
)
from ottla.schema_registry._avro_walk import Walk
from ottla.schema_registry.avro import AvroDeserializer, AvroSerializer
from ottla.schema_registry.json_schema import JsonSchemaDeserializer, JsonSchemaSerializer
from ottla.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from ottla.serde import Context, DecodeError, Deserializer, SerializeError, Serializer

GIVEN: Any = json.loads((Path(__file__).parent / "registry_payloads.json").read_text())
CASES: list[Any] = GIVEN["cases"]
VALUE = Context("orders", "value")

_pool = descriptor_pool.DescriptorPool()
for _file in GIVEN["files"]:
    _pool.AddSerializedFile(base64.b64decode(_file))


def message(name: str) -> type[Message]:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


def pairs(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict):
        return (value[0], value[1])
    return {name: pairs(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.fixture
def server() -> Iterator[ottla.testing.SchemaRegistry]:
    with ottla.testing.SchemaRegistry(first_id=0x01020304) as server:
        yield server


@pytest.fixture
def registry(server: ottla.testing.SchemaRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(server.url, retries=0) as registry:
        yield registry


def serializer(case: Any, registry: RegistryClient, **options: Any) -> Serializer[Any]:
    if case["kind"] == "protobuf":
        return ProtobufSerializer(registry, message(case["name"]), **options)
    references = [Reference(*one[:3]) for one in case.get("references", ())]
    kind = AvroSerializer if case["kind"] == "avro" else JsonSchemaSerializer
    return kind(registry, case["schema"], references=references, **options)


def deserializer(case: Any, registry: RegistryClient) -> Deserializer[Any]:
    if case["kind"] == "protobuf":
        return ProtobufDeserializer([message("shop.Bill.Line"), message(case["name"])], registry)
    return AvroDeserializer(registry) if case["kind"] == "avro" else JsonSchemaDeserializer(registry)


def value_of(case: Any) -> Any:
    if case["kind"] == "protobuf":
        return json_format.ParseDict(case["value"], message(case["name"])())
    return pairs(case["value"]) if case["kind"] == "avro" else case["value"]


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}: {case['about']}" for case in CASES])
def test_a_payload_is_confluents_to_the_byte(
    case: Any, server: ottla.testing.SchemaRegistry, registry: RegistryClient
) -> None:
    for _, subject, _, schema in case.get("references", ()):
        server.register(subject, schema)
    made = serializer(case, registry)
    payload = bytes(made.serialize(value_of(case), VALUE))
    theirs = bytes.fromhex(case["payload"])
    assert payload[5:].hex() == theirs[5:].hex()
    [(_, number, text)] = server.versions("orders-value")
    assert payload[:5] == b"\x00" + struct.pack(">I", number)
    # What is registered is the same, too: both find the other's schema, and its id.
    assert text == case["registered"]
    read = deserializer(case, registry).deserialize(payload, VALUE)
    wanted = value_of(case)
    if case["about"] == "defaults":
        # What was left out has its default, and what was a pair is its record.
        wanted |= {"note": None, "paid": True, "to": {"street": "s"}}
    assert read == wanted


def test_what_is_known_is_not_asked_for_again(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    for case in (CASES[0], CASES[5], CASES[7]):
        topic = Context(case["kind"], "value")
        made, read = serializer(case, registry), deserializer(case, registry)
        payload = bytes(made.serialize(value_of(case), topic))
        read.deserialize(payload, topic)
        asked = len(server.requests)
        for _ in range(3):
            assert bytes(made.serialize_at_once(value_of(case), topic)) == payload
            read.deserialize_at_once(payload, topic)
        assert len(server.requests) == asked


def test_who_does_not_register_looks_up(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    made = AvroSerializer(registry, "string", auto_register=False)
    with pytest.raises(SchemaNotFoundError, match="orders-value"):
        made.serialize("x", VALUE)
    assert server.versions("orders-value") == []
    with RegistryClient(server.url, missing_ttl=0) as patient:
        made = AvroSerializer(patient, "string", auto_register=False)
        number = server.register("orders-value", '"string"')
        # Of another text, though it means the same.
        with pytest.raises(SchemaNotFoundError):
            made.serialize("x", VALUE)
        number = server.register("orders-value", '{"type":"string"}')
        assert made.serialize("x", VALUE) == b"\x00" + struct.pack(">I", number) + b"\x02x"


def test_the_latest_version_is_written_with(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    later = {
        "type": "record",
        "name": "O",
        "fields": [{"name": "b", "type": "int", "default": 7}, {"name": "a", "type": "int"}],
    }
    number = server.register("orders-value", json.dumps(later))
    own = {"type": "record", "name": "O", "fields": [{"name": "a", "type": "int"}]}
    made = AvroSerializer(registry, own, use_latest=True)
    assert made.serialize({"a": 1}, VALUE) == b"\x00" + struct.pack(">I", number) + b"\x0e\x02"
    assert AvroDeserializer(registry, own).deserialize(made.serialize({"a": 1}, VALUE), VALUE) == {"a": 1}
    with pytest.raises(ottla.ConfigError, match="exclude each other"):
        AvroSerializer(registry, own, use_latest=True, auto_register=True)
    bill = ProtobufSerializer(registry, message("shop.Bill"), use_latest=True)
    with pytest.raises(InvalidSchemaError, match="of type AVRO"):
        bill.serialize(message("shop.Bill")(), VALUE)
    number = server.register("bills-value", "message Bill {}", "PROTOBUF")
    payload = bytes(bill.serialize(message("shop.Bill")(), Context("bills", "value")))
    assert payload == b"\x00" + struct.pack(">I", number) + b"\x02\x02"


def test_subjects_by_what_they_are_named_for(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    order = {"type": "record", "name": "shop.Order", "fields": []}
    AvroSerializer(registry, order).serialize({}, Context("orders", "key"))
    AvroSerializer(registry, order, subject_name=record_name).serialize({}, VALUE)
    AvroSerializer(registry, order, subject_name=topic_record_name).serialize({}, VALUE)
    AvroSerializer(registry, order, subject_name=lambda to, name: f"{to.field}/{name}").serialize({}, VALUE)
    JsonSchemaSerializer(registry, {"title": "Place"}, subject_name=record_name).serialize({}, VALUE)
    kind = message("shop.Bill.Sum")
    ProtobufSerializer(registry, kind, subject_name=record_name).serialize(kind(), VALUE)
    named = {"orders-key", "shop.Order", "orders-shop.Order", "value/shop.Order", "Place", "shop.Bill.Sum"}
    # What a file of Protobuf imports is named as in its import.
    assert set(registry.subjects()) == named | {"shop/units.proto"}
    with pytest.raises(ottla.ConfigError, match="has no name of its own"):
        AvroSerializer(registry, "string", subject_name=record_name).serialize("x", VALUE)


def test_what_does_not_agree_with_a_schema_is_said_by_its_place(registry: RegistryClient) -> None:
    city = {"type": "record", "name": "City", "fields": [{"name": "zip", "type": "int"}]}
    order = {"type": "record", "name": "Order", "fields": [{"name": "to", "type": city}]}
    avro = AvroSerializer(registry, order)
    with pytest.raises(SerializeError, match="str where the schema has int") as wrong:
        avro.serialize({"to": {"zip": "a secret"}}, VALUE)
    assert wrong.value.path is not None and wrong.value.path.endswith("zip")
    with pytest.raises(SerializeError, match="nothing, or None, where") as missing:
        avro.serialize({}, VALUE)
    schema = {"properties": {"to": {"properties": {"zip": {"type": "integer"}}}}, "required": ["to"]}
    place = JsonSchemaSerializer(registry, schema)
    with pytest.raises(SerializeError, match="rule 'type', which is 'integer'") as typed:
        place.serialize({"to": {"zip": "a secret"}}, VALUE)
    assert typed.value.path == "to.zip"
    with pytest.raises(SerializeError, match="'to'] is missing"):
        place.serialize({}, VALUE)
    with pytest.raises(SerializeError, match="cannot be written as JSON"):
        JsonSchemaSerializer(registry, {}, validate=False).serialize(float("nan"), VALUE)
    with pytest.raises(SerializeError, match="Order where the serializer takes shop.Bill"):
        ProtobufSerializer(registry, message("shop.Bill")).serialize(message("shop.Order")(), VALUE)
    for error in (wrong.value, missing.value, typed.value):
        # Neither it nor what is shown of its cause.
        assert "a secret" not in str(error) and error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__


def test_strict_avro_takes_no_fields_that_the_schema_has_not(registry: RegistryClient) -> None:
    order = {"type": "record", "name": "Order", "fields": [{"name": "a", "type": "int"}]}
    assert bytes(AvroSerializer(registry, order).serialize({"a": 1, "b": 2}, VALUE)).endswith(b"\x02")
    with pytest.raises(SerializeError):
        AvroSerializer(registry, order, strict=True).serialize({"a": 1, "b": 2}, VALUE)


def test_values_of_the_programs_own_types(registry: RegistryClient) -> None:
    class Order:
        def __init__(self, number: int) -> None:
            self.number = number

    order = {"type": "record", "name": "Order", "fields": [{"name": "number", "type": "int"}]}
    made: AvroSerializer[Order] = AvroSerializer(registry, order, to_dict=vars)
    read: AvroDeserializer[Order] = AvroDeserializer(registry, from_dict=lambda plain: Order(**plain))
    assert read.deserialize(made.serialize(Order(7), VALUE), VALUE).number == 7
    broken: AvroDeserializer[Order] = AvroDeserializer(registry, from_dict=lambda plain: Order(plain["none"]))
    with pytest.raises(DecodeError, match="from_dict raised KeyError"):
        broken.deserialize(made.serialize(Order(7), VALUE), VALUE)


def test_a_union_of_schemas_that_are_registered(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    for name in ("A", "B"):
        server.register(name, json.dumps({"type": "record", "name": f"x.{name}", "fields": [{"name": name, "type": "int"}]}))
    made = AvroSerializer(registry, '["x.A", "x.B"]', references=[Reference("x.A", "A", 1), Reference("x.B", "B", 1)])
    payload = made.serialize({"B": 3}, VALUE)
    assert payload.endswith(b"\x02\x06")
    assert AvroDeserializer(registry).deserialize(payload, VALUE) == {"B": 3}
    assert AvroDeserializer(registry, return_record_name=True).deserialize(payload, VALUE) == ("x.B", {"B": 3})


def test_a_json_schema_with_references(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    server.register("zip", '{"type": "integer"}', "JSON")
    schema = {"properties": {"zip": {"$ref": "zip.json"}}}
    made = JsonSchemaSerializer(registry, schema, references=[Reference("zip.json", "zip", 1)])
    payload = made.serialize({"zip": 1}, VALUE)
    assert JsonSchemaDeserializer(registry).deserialize(payload, VALUE) == {"zip": 1}
    with pytest.raises(SerializeError):
        made.serialize({"zip": "x"}, VALUE)
    with pytest.raises(DecodeError, match="rule 'type'") as wrong:
        JsonSchemaDeserializer(registry).deserialize(payload[:5] + b'{"zip": "x"}', VALUE)
    assert wrong.value.path == "zip"
    # Nothing is fetched from where a schema says: not by a consumer, for whoever wrote a schema.
    elsewhere = f"{server.url}/subjects/zip/versions/1"
    asked = len(server.requests)
    made = JsonSchemaSerializer(registry, {"properties": {"zip": {"$ref": elsewhere}}})
    with pytest.raises(InvalidSchemaError, match="neither in it nor among its references"):
        made.serialize({"zip": 1}, VALUE)
    assert all(path.startswith("/subjects/orders-value") for _, path in server.requests[asked:])


def test_a_deserializer_of_one_message_asks_nobody(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    case = CASES[8]
    payload = bytes(serializer(case, registry).serialize(value_of(case), VALUE))
    asked = len(server.requests)
    assert ProtobufDeserializer(message(case["name"])).deserialize(payload, VALUE) == value_of(case)
    assert len(server.requests) == asked
    with pytest.raises(DecodeError, match="a message 'shop.Bill', and the deserializer takes shop.Order"):
        ProtobufDeserializer(message("shop.Order"), registry).deserialize(payload, VALUE)
    with pytest.raises(ottla.ConfigError, match="a registry says"):
        ProtobufDeserializer([message("shop.Order"), message("shop.Bill")])


def test_files_that_registries_have_are_not_registered(
    server: ottla.testing.SchemaRegistry, registry: RegistryClient
) -> None:
    pool = descriptor_pool.DescriptorPool()
    names = ("google/type/money.proto", "confluent/meta.proto", "confluent/type/decimal.proto", "mine/google/type/money.proto")
    for at, name in enumerate(names):
        needed = descriptor_pb2.FileDescriptorProto(name=name, package=f"p{at}")
        needed.message_type.add(name="M")
        pool.Add(needed)
    proto = descriptor_pb2.FileDescriptorProto(name="bill.proto", package="bill", dependency=names)
    proto.message_type.add(name="Bill").field.add(name="sum", number=1, type=11, type_name=".p0.M", label=1)
    pool.Add(proto)
    kind: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName("bill.Bill"))
    payload = ProtobufSerializer(registry, kind).serialize(kind(), VALUE)
    assert set(registry.subjects()) == {"orders-value", "mine/google/type/money.proto"}
    assert ProtobufDeserializer(kind, registry).deserialize(payload, VALUE) == kind()


def test_fields_of_proto2_that_are_not_set(registry: RegistryClient) -> None:
    proto = descriptor_pb2.FileDescriptorProto(name="old.proto", package="old")
    field = proto.message_type.add(name="Old").field.add(name="needed", number=1, type=9, label=2)
    assert field.name == "needed"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    kind: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName("old.Old"))
    with pytest.raises(SerializeError, match="fields are not set: needed"):
        ProtobufSerializer(registry, kind).serialize(kind(), VALUE)


def test_a_schema_that_is_none_is_said_where_it_is_written(registry: RegistryClient) -> None:
    deep: Any = "int"
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    for wrong in ('{"type": "record"}', "{", '{"type": "no such"}', json.dumps(deep)):
        with pytest.raises(InvalidSchemaError):
            AvroSerializer(registry, wrong)
    for wrong in ("{", "[]", '{"type": "no such"}'):
        with pytest.raises(InvalidSchemaError):
            JsonSchemaSerializer(registry, wrong)
    with pytest.raises(InvalidSchemaError, match="of type JSON"):
        AvroSerializer(registry, Schema("{}", "JSON"))


# What whoever can write to a topic can send.


@pytest.mark.parametrize("kind", ["avro", "json", "protobuf"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it has 0 bytes"),
        (b"\x00\x00\x00\x00", "it has 4 bytes"),
        (b"\x01\x01\x02\x03\x04", "begins with byte 0x01"),
        (b'{"a": 1}', "begins with byte 0x7b"),
    ],
)
def test_headers_that_are_none(registry: RegistryClient, kind: str, data: bytes, words: str) -> None:
    case = next(case for case in CASES if case["kind"] == kind)
    with pytest.raises(DecodeError, match=words):
        deserializer(case, registry).deserialize(data, VALUE)


@pytest.mark.parametrize("kind", ["avro", "json", "protobuf"])
def test_an_id_that_is_unknown_is_asked_for_once(
    server: ottla.testing.SchemaRegistry, registry: RegistryClient, kind: str
) -> None:
    case = next(case for case in CASES if case["kind"] == kind)
    made = deserializer(case, registry)
    for _ in range(3):
        with pytest.raises(DecodeError, match="schema 9 cannot be had"):
            made.deserialize(b"\x00\x00\x00\x00\x09\x00", VALUE)
    assert len(server.requests) == 1
    # Of another kind it is no use either.
    other = server.register("other", '{"a": 1}', "JSON" if kind != "json" else "AVRO")
    with pytest.raises(DecodeError, match="is of type"):
        made.deserialize(b"\x00" + struct.pack(">I", other) + b"\x00", VALUE)


def test_what_cannot_be_judged_is_no_fault_of_the_record(server: ottla.testing.SchemaRegistry, registry: RegistryClient) -> None:
    payload = bytes(AvroSerializer(registry, "string").serialize("x", VALUE))
    with RegistryClient(server.url, retries=0) as other:
        made = AvroDeserializer(other)
        server.fail(503)
        with pytest.raises(RegistryUnavailableError):
            made.deserialize(payload, VALUE)
        assert made.deserialize(payload, VALUE) == "x"


def test_a_fault_of_the_set_up_is_no_fault_of_the_record(server: ottla.testing.SchemaRegistry) -> None:
    with RegistryClient(server.url, missing_ttl=0) as registry:
        avro = bytes(AvroSerializer(registry, "string").serialize("x", VALUE))
        listed = bytes(JsonSchemaSerializer(registry, {"type": "array"}).serialize([], Context("lists", "value")))
        needs = [Reference("x.A", "a", 1)]
        # Whoever passes over each DecodeError would pass over each record, until somebody registers what the program needs.
        readers: list[tuple[Deserializer[Any], bytes, str]] = [
            (AvroDeserializer(registry, '["string", "x.A"]', references=needs), avro, '{"type": "enum", "name": "x.A", "symbols": []}'),
            (JsonSchemaDeserializer(registry, {"$ref": "x.A"}, references=needs), listed, "{}"),
        ]
        for made, payload, missing in readers:
            for _ in range(2):
                with pytest.raises(SchemaNotFoundError, match="Subject 'a' not found"):
                    made.deserialize(payload, VALUE)
            # What it is has to be known as well.
            server.register("a", "{", "AVRO")
            with pytest.raises(InvalidSchemaError, match="is not JSON"):
                made.deserialize(payload, VALUE)
            server._subjects.clear()
            server.register("a", missing)
            registry._versions._fresh()
            assert made.deserialize(payload, VALUE) in ("x", [])
            assert made.deserialize_at_once(payload, VALUE) in ("x", [])
            server._subjects.clear()
            registry._versions._fresh()
        # The reader's JSON Schema refers to what is nowhere, or goes round in circles.
        for schema in ({"$ref": "nowhere"}, {"$ref": "#"}):
            with pytest.raises(InvalidSchemaError, match="refers to"):
                JsonSchemaDeserializer(None, schema).deserialize(listed, VALUE)
        # That of the writer is the record's: it cannot be decoded by anybody who looks at it.
        number = server.register("circle", '{"$ref": "#"}', "JSON")
        with pytest.raises(DecodeError, match="refers to itself"):
            JsonSchemaDeserializer(registry).deserialize(b"\0" + struct.pack(">I", number) + b"[]", VALUE)
        number = server.register("lost", '"x.A"', references=[("x.A", "none", 1)])
        with pytest.raises(DecodeError, match="Subject 'none' not found"):
            AvroDeserializer(registry).deserialize(b"\0" + struct.pack(">I", number), VALUE)
        # An id is a number: a registry that finds the question wrong has another fault with it.
        server.fail(422)
        with pytest.raises(InvalidSchemaError, match="status 422"):
            AvroDeserializer(registry).deserialize(b"\0" + struct.pack(">I", 77), VALUE)
        # But four bytes that are no id are damage, and nobody is asked.
        asked = len(server.requests)
        with pytest.raises(DecodeError, match="ids are 0 to"):
            AvroDeserializer(registry).deserialize(b"\0\xff\xff\xff\xff\0", VALUE)
        assert len(server.requests) == asked


def test_a_registry_that_gives_text_only_is_no_fault_of_the_record(
    server: ottla.testing.SchemaRegistry, registry: RegistryClient
) -> None:
    made = ProtobufDeserializer(message("shop.Order"), registry)
    number = server.register("s", 'syntax = "proto3"; message Order {}', "PROTOBUF")
    with pytest.raises(RegistryError, match="as text only.*one class and no registry") as told:
        made.deserialize(b"\0" + struct.pack(">I", number) + b"\0", VALUE)
    assert type(told.value) is RegistryError
    number = server.register("s", base64.b64encode(b"\xff").decode(), "PROTOBUF")
    with pytest.raises(DecodeError, match="is no file of Protobuf"):
        made.deserialize(b"\0" + struct.pack(">I", number) + b"\0", VALUE)


def test_no_memory_is_no_fault_of_the_record(registry: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any, **__: Any) -> Any:
        raise MemoryError

    payload = bytes(AvroSerializer(registry, "string").serialize("x", VALUE))
    for name in ("schemaless_reader", "schemaless_writer"):
        with monkeypatch.context() as patch:
            patch.setattr(fastavro, name, out_of_memory)
            with pytest.raises(MemoryError):
                AvroDeserializer(registry).deserialize(payload, VALUE)
                AvroSerializer(registry, "string").serialize("x", VALUE)
    with pytest.raises(MemoryError):
        AvroDeserializer(registry, from_dict=out_of_memory).deserialize(payload, VALUE)
    with monkeypatch.context() as patch:
        patch.setattr(fastavro.schema, "parse_schema", out_of_memory)
        with pytest.raises(MemoryError):
            AvroDeserializer(registry).deserialize(payload, VALUE)
    assert AvroDeserializer(registry).deserialize(payload, VALUE) == "x"


@pytest.mark.parametrize(
    ("indexes", "words"),
    [
        (b"", "is cut off"),
        (b"\x02", "is cut off"),
        (b"\x02\x80", "is cut off"),
        (b"\x80\x80\x80\x80\x80\x80\x01", "longer than any is"),
        (b"\x01", "-1 message indexes"),
        (b"\xfe\xff\xff\xff\x0f", "and there may be 1 to 64"),
        (b"\x82\x01" + b"\x00" * 65, "65 message indexes"),
        (b"\x02\x01", "message index -1"),
        (b"\x02\x80\x80\x80\x80\x08", "message index"),
        (b"\x02\x06", "which has no such"),
        (b"\x04\x00\x00", "which has no such"),
    ],
)
def test_message_indexes_that_are_none(registry: RegistryClient, indexes: bytes, words: str) -> None:
    case = CASES[7]
    payload = bytes(serializer(case, registry).serialize(value_of(case), VALUE))
    with pytest.raises(DecodeError, match=words):
        deserializer(case, registry).deserialize(payload[:5] + indexes, VALUE)


def test_a_payload_that_is_cut_off(registry: RegistryClient) -> None:
    for case in CASES:
        if case.get("references") or case["about"] in ("an empty one", "an empty list"):
            continue
        topic = Context(case["about"], "value")
        payload = bytes(serializer(case, registry).serialize(value_of(case), topic))
        with pytest.raises(DecodeError):
            deserializer(case, registry).deserialize(payload[:-1], topic)


def test_data_that_go_too_deep_for_a_compiled_reader(registry: RegistryClient) -> None:
    node = CASES[2]
    assert node["about"] == "what has itself in it"
    made, read = serializer(node, registry), deserializer(node, registry)
    value: Any = None
    for at in range(150):
        value = {"at": at, "next": value}
    payload = bytes(made.serialize(value, VALUE))
    assert read.deserialize(payload, VALUE) == value
    # A level takes two bytes: this would be the end of the process.
    with pytest.raises(DecodeError, match="more than 400 levels"):
        read.deserialize(payload[:5] + b"\x02\x02" * 1_000_000 + b"\x02\x00", VALUE)
    with pytest.raises(DecodeError, match="is cut off"):
        read.deserialize(payload[:5] + b"\x02\x02" * 10, VALUE)
    with pytest.raises(DecodeError, match="branch 2 of a union of 2"):
        read.deserialize(payload[:5] + b"\x02\x04", VALUE)
    deep = b"[" * 200_000
    listed = JsonSchemaSerializer(registry, {"type": "array"}).serialize([], Context("lists", "value"))
    with pytest.raises(DecodeError):
        JsonSchemaDeserializer(registry).deserialize(listed[:5] + deep, VALUE)


@pytest.mark.parametrize(
    "items", ["null", {"type": "fixed", "name": "F", "size": 0}, {"type": "record", "name": "R", "fields": []}]
)
def test_many_items_that_take_no_bytes(registry: RegistryClient, items: Any) -> None:
    made = AvroSerializer(registry, {"type": "array", "items": items})
    head = bytes(made.serialize([], VALUE))[:5]
    read = AvroDeserializer(registry)
    assert len(read.deserialize(head + b"\x06\x00", VALUE)) == 3
    for count in (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xfe\xff\xff\x01" * 8):
        with pytest.raises(DecodeError, match="items that take no bytes"):
            read.deserialize(head + count + b"\x00", VALUE)


def test_what_may_harm_is_told_by_the_schema() -> None:
    inner = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "map", "values": "R"}}]}
    assert Walk(inner, {"R": inner}).needed
    assert not Walk(json.loads(CASES[0]["schema"]), {}).needed
    assert not Walk({"type": "array", "items": ["null", "int"]}, {}).needed
    walk = Walk({"type": "array", "items": "null"}, {})
    assert walk.needed
    walk.check(memoryview(b"\x03\x00\x00"))
    everything = {
        "type": "record",
        "name": "E",
        "fields": [
            {"name": str(at), "type": kind}
            for at, kind in enumerate(
                ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
                + [{"type": "enum", "name": "N", "symbols": ["A"]}, {"type": "fixed", "name": "F", "size": 2}]
                + [{"type": "map", "values": {"type": "string"}}, {"type": {"type": "int"}}]
            )
        ],
    }
    data = b"\x01" + b"\x02" * 2 + bytes(12) + b"\x02x" * 2 + b"\x00" + b"ff" + b"\x02\x02k\x02v\x00" + b"\x02"
    Walk(everything, {}).check(memoryview(data))
    for end in range(len(data)):
        with pytest.raises(DecodeError, match="cut off"):
            Walk(everything, {}).check(memoryview(data[:end]))
    with pytest.raises(DecodeError, match="longer than any"):
        Walk("long", {}).check(memoryview(b"\xff" * 12))


def doubled(leaf: str, times: int) -> list[Any]:
    """Records of which each has the one before twice, in a union."""
    named = [{"type": "record", "name": "R0", "fields": [{"name": "a", "type": leaf}]}]
    for at in range(times):
        fields = [{"name": name, "type": f"R{at}"} for name in "ab"]
        named.append({"type": "record", "name": f"R{at + 1}", "fields": fields})
    return named


def test_a_type_that_is_used_many_times_over_is_looked_at_once(registry: RegistryClient) -> None:
    # Each of them once for each use would be 2 to the 200.
    made = AvroSerializer(registry, json.dumps(doubled("int", 200)))
    assert not made._made_ready(made._schema, False).walk.needed
    arrays = [*doubled("null", 200), {"type": "array", "items": "R200"}]
    empty = AvroSerializer(registry, json.dumps(arrays))
    assert empty._made_ready(empty._schema, False).walk.needed
    # The circle is found from whichever of its types it is entered.
    one = {"type": "record", "name": "One", "fields": [{"name": "a", "type": {"type": "array", "items": "Two"}}]}
    two = {"type": "record", "name": "Two", "fields": [{"name": "a", "type": ["null", "One"]}]}
    for schema in ("One", "Two", ["int", one], {"type": "map", "values": "Two"}):
        assert Walk(schema, {"One": one, "Two": two}).needed
    # Names may go deeper than text does, and then data go deeper than a compiled reader.
    chain = doubled("int", 500)
    named = {one["name"]: one for one in chain}
    assert Walk(chain, named).needed
    assert not Walk(chain[:200], named).needed
    with pytest.raises(InvalidSchemaError, match="too deep"):
        Walk("R3000", {one["name"]: one for one in doubled("int", 3_000)})


@pytest.mark.parametrize(
    ("module", "extra"), [("avro", "avro"), ("json_schema", "json"), ("protobuf", "protobuf")]
)
def test_a_format_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch, module: str, extra: str) -> None:
    import importlib

    name = f"ottla.schema_registry.{module}"
    monkeypatch.delitem(sys.modules, name)
    for needed in ("fastavro", "jsonschema", "google.protobuf.descriptor_pb2"):
        monkeypatch.setitem(sys.modules, needed, None)
    with pytest.raises(ImportError, match=rf"pip install 'ottla\[{extra}\]'"):
        importlib.import_module(name)
