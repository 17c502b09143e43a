"""Schemas of a registry with the REST interface of Confluent's: a client, and serializers for Avro, JSON Schema and Protobuf.

    from ottla.schema_registry import RegistryClient
    from ottla.schema_registry.avro import AvroDeserializer, AvroSerializer
    from ottla.serde import DeserializingConsumer, SerializingProducer

    with RegistryClient("http://localhost:8081") as registry:
        with SerializingProducer(
            ottla.Producer("localhost:9092"), value_serializer=AvroSerializer(registry, ORDER)
        ) as producer:
            producer.send("orders", {"id": 7})

        with DeserializingConsumer(
            ottla.Consumer("localhost:9092", topics=["orders"]), value_deserializer=AvroDeserializer(registry)
        ) as consumer:
            for record in consumer:
                print(record.value)

Payloads are those of Confluent's serializers to the byte. Each format is a module of its own, which needs what its extra installs:
`ottla[avro]`, `ottla[json]`, `ottla[protobuf]`. The client needs nothing but Python. `ottla.testing.SchemaRegistry` is a registry for tests.
"""

from __future__ import annotations

from ottla.schema_registry._client import RegistryClient
from ottla.schema_registry._errors import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryAuthError,
    RegistryError,
    RegistryUnavailableError,
    SchemaNotFoundError,
)
from ottla.schema_registry._http import Auth, Basic, Bearer
from ottla.schema_registry._schema import (
    Reference,
    Registered,
    Schema,
    SubjectName,
    record_name,
    topic_name,
    topic_record_name,
)

__all__ = [
    "Auth",
    "Basic",
    "Bearer",
    "IncompatibleSchemaError",
    "InvalidSchemaError",
    "Reference",
    "Registered",
    "RegistryAuthError",
    "RegistryClient",
    "RegistryError",
    "RegistryUnavailableError",
    "Schema",
    "SchemaNotFoundError",
    "SubjectName",
    "record_name",
    "topic_name",
    "topic_record_name",
]
