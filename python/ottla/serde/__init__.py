"""Values instead of bytes: serializers for what is sent, and deserializers for what is read.

    import json
    import ottla
    from ottla.serde import DecodeError, DeserializingConsumer, SerializingProducer

    def to_json(value: object) -> bytes:
        return json.dumps(value).encode()

    with SerializingProducer(ottla.Producer("localhost:9092"), value_serializer=to_json) as producer:
        producer.send("orders", {"id": 7})              # raises SerializeError, and sends nothing, if it cannot be

    with DeserializingConsumer(
        ottla.Consumer("localhost:9092", group="billing", topics=["orders"]), value_deserializer=json.loads
    ) as consumer:
        for record in consumer:
            try:
                handle(record.value)                    # decoded now
            except DecodeError as error:
                put_aside(error.record)                 # going on passes it over

They are layers over the handles, which stay what they are: who needs none pays for none. `ottla.serde.aio` has them for asyncio, and
`ottla.schema_registry` serializers for Avro, JSON Schema and Protobuf.
"""

from __future__ import annotations

from ottla.serde._consumer import DeserializingConsumer
from ottla.serde._errors import DecodeError, SerializeError, WouldWait
from ottla.serde._hooks import Context, Deserializer, Serializer
from ottla.serde._producer import SerializingProducer
from ottla.serde._records import DecodedBatch, DecodedRecord

__all__ = [
    "Context",
    "DecodeError",
    "DecodedBatch",
    "DecodedRecord",
    "Deserializer",
    "DeserializingConsumer",
    "SerializeError",
    "Serializer",
    "SerializingProducer",
    "WouldWait",
]
