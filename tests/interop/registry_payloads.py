"""Writes python/tests/registry_payloads.json: bytes that Confluent's serializers for Python make, for tests to compare with.

    pip install 'confluent-kafka[schemaregistry,avro,json,protobuf]==2.16.1'
    python tests/interop/registry_payloads.py

Run again when a case is added; the file is in the repository, so that tests need none of that. The registry is ottla.testing's,
so that running this shows that their client gets along with it.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

ROOT = Path(__file__).parents[2]
FIRST_ID = 0x01020304
TYPES = {"string": 9, "int64": 3, "bool": 8, "double": 1, "message": 11}

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "price", "type": "double"},
        {"name": "paid", "type": "boolean", "default": True},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "SENT"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "stock", "type": {"type": "map", "values": "int"}},
        {"name": "to", "type": [
            {"type": "record", "name": "Street", "fields": [{"name": "street", "type": "string"}]},
            {"type": "record", "name": "Box", "fields": [{"name": "number", "type": "int"}]},
        ]},
    ],
}  # fmt: skip
NODE = {"type": "record", "name": "Node", "fields": [
    {"name": "at", "type": "int"}, {"name": "next", "type": ["null", "Node"]},
]}  # fmt: skip
CUSTOMER = {"type": "record", "name": "shop.Customer", "fields": [{"name": "name", "type": "string"}]}
BILL = {"type": "record", "name": "shop.Bill", "fields": [
    {"name": "of", "type": "shop.Customer"}, {"name": "cc", "type": ["null", "shop.Customer"]},
]}  # fmt: skip

AVRO: list[tuple[str, Any, Any]] = [
    ("every type", ORDER, {
        "id": 1 << 40, "name": "Ä\u20ac\U0001f600", "note": "x", "price": 1.5, "paid": False, "state": "SENT",
        "tags": ["a", "", "b"], "stock": {"a": -1, "b": 64}, "to": {"number": 300},
    }),
    ("defaults", ORDER, {
        "id": -1, "name": "", "price": -0.0, "state": "NEW", "tags": [], "stock": {}, "to": ["shop.Street", {"street": "s"}],
    }),
    ("what has itself in it", NODE, {"at": 1, "next": {"at": 2, "next": None}}),
    ("a primitive", "string", "hello"),
]  # fmt: skip

PLACE = {
    "title": "Place",
    "type": "object",
    "properties": {"city": {"type": "string"}, "at": {"type": "array", "items": {"type": "number"}}},
    "required": ["city"],
}
JSON: list[tuple[str, Any, Any]] = [
    ("an object", PLACE, {"city": "Köln \U0001f600 \"'/", "at": [1, 2.5, -1e-7, 1e22], "more": {"b": None, "a": True}}),
    ("an empty list", {"type": "array"}, []),
]


def field(name: str, number: int, kind: str, of: str = "", *, many: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "number": number, "type": TYPES[kind], "label": 3 if many else 1}
    return made | ({"typeName": of} if of else {})


UNITS = {"name": "shop/units.proto", "package": "shop", "syntax": "proto3", "messageType": [
    {"name": "Unit", "field": [field("name", 1, "string")]},
]}  # fmt: skip
SHOP = {"name": "shop/order.proto", "package": "shop", "syntax": "proto3", "dependency": ["shop/units.proto"], "messageType": [
    {"name": "Order", "field": [
        field("id", 1, "int64"), field("name", 2, "string"), field("tags", 3, "string", many=True),
        field("unit", 4, "message", ".shop.Unit"),
    ]},
    {"name": "Bill", "field": [field("total", 1, "double"), field("paid", 2, "bool")], "nestedType": [
        {"name": "Line", "field": [field("text", 1, "string")]},
        {"name": "Sum", "field": [field("text", 1, "string")]},
    ]},
]}  # fmt: skip
PROTOBUF: list[tuple[str, str, Any]] = [
    ("the first message", "shop.Order", {"id": "7", "name": "Ä", "tags": ["a", "b"], "unit": {"name": "kg"}}),
    ("the second", "shop.Bill", {"total": 1.5, "paid": True}),
    ("one in another", "shop.Bill.Sum", {"text": "x"}),
    ("an empty one", "shop.Order", {}),
]


def server() -> Any:
    path = ROOT / "python/ottla/_registry_server.py"
    spec = importlib.util.spec_from_file_location("registry_server", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SchemaRegistry(first_id=FIRST_ID)


def pairs(value: Any) -> Any:
    """A list of a name and a dict is a pair to fastavro, which JSON has none of."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict):
        return (value[0], value[1])
    return {name: pairs(one) for name, one in value.items()} if isinstance(value, dict) else value


def main() -> None:
    cases: list[dict[str, Any]] = []
    pool = descriptor_pool.DescriptorPool()
    files = []
    for one in (UNITS, SHOP):
        proto = json_format.ParseDict(one, descriptor_pb2.FileDescriptorProto())
        pool.Add(proto)
        files.append(base64.b64encode(proto.SerializeToString()).decode())

    with server() as registry:
        client = SchemaRegistryClient({"url": registry.url})

        def add(kind: str, about: str, serializer: Any, given: Any, **more: Any) -> None:
            topic = f"topic-{len(cases)}"
            payload = serializer(given, SerializationContext(topic, MessageField.VALUE))
            case = {"kind": kind, "about": about, "id": int.from_bytes(payload[1:5], "big"), "payload": payload.hex(), **more}
            case["registered"] = registry.versions(f"{topic}-value")[0][2]
            cases.append(case)

        for about, schema, value in AVRO:
            text = json.dumps(schema)
            add("avro", about, AvroSerializer(client, text), pairs(value), schema=text, value=value)
        client.register_schema("customers", Schema(json.dumps(CUSTOMER), "AVRO"))
        bill = Schema(json.dumps(BILL), "AVRO", [SchemaReference("shop.Customer", "customers", 1)])
        value = {"of": {"name": "a"}, "cc": {"name": "b"}}
        references = [["shop.Customer", "customers", 1, json.dumps(CUSTOMER)]]
        add("avro", "a reference", AvroSerializer(client, bill), value, schema=bill.schema_str, value=value, references=references)

        for about, schema, value in JSON:
            text = json.dumps(schema)
            add("json", about, JSONSerializer(text, client), value, schema=text, value=value)

        for about, name, value in PROTOBUF:
            kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            message = json_format.ParseDict(value, kind())
            serializer = ProtobufSerializer(kind, client, {"use.deprecated.format": False})
            add("protobuf", about, serializer, message, name=name, value=value)

    out = {"by": f"confluent-kafka {confluent_kafka.__version__}", "files": files, "cases": cases}
    (ROOT / "python/tests/registry_payloads.json").write_text(json.dumps(out, indent=1) + "\n")
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
