"""Sends and reads orders in Avro, with their schema in a registry; a record that is none is put aside.

    pip install 'ottla[avro]'
    python schema_registry.py       # starts a cluster and a registry in this process
"""

from __future__ import annotations

import argparse

import ottla
from ottla.schema_registry import RegistryClient
from ottla.schema_registry.avro import AvroDeserializer, AvroSerializer
from ottla.serde import DecodeError, DeserializingConsumer, SerializeError, SerializingProducer

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [{"name": "id", "type": "long"}, {"name": "city", "type": "string"}],
}


def send(bootstrap: str, registry: RegistryClient, topic: str) -> None:
    with SerializingProducer(
        ottla.Producer(bootstrap), key_serializer=str.encode, value_serializer=AvroSerializer(registry, ORDER)
    ) as producer:
        for number in range(3):
            producer.send(topic, {"id": number, "city": "Oslo"}, key=f"customer-{number}")
        try:
            producer.send(topic, {"id": "three", "city": "Oslo"})
        except SerializeError as error:
            print(f"not sent: {error}")
        # What something else has written to the topic.
        producer.producer.send(topic, b"no Avro")


def receive(bootstrap: str, registry: RegistryClient, topic: str) -> None:
    with DeserializingConsumer(
        ottla.Consumer(bootstrap, topics=[topic]), value_deserializer=AvroDeserializer(registry)
    ) as consumer:
        admin = ottla.Admin(bootstrap)
        ends = admin.offsets([(topic, partition) for partition in range(admin.partitions(topic))])
        orders = aside = 0
        for record in consumer.records(until=ends):
            try:
                print(record.value)
                orders += 1
            except DecodeError as error:
                print(f"put aside: {error}")
                aside += 1
        print(f"{orders} orders, {aside} put aside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="HOST:PORT of a cluster, with --registry; otherwise one in this process")
    parser.add_argument("--registry", help="URL of a schema registry")
    parser.add_argument("--topic", default="orders")
    arguments = parser.parse_args()
    if arguments.bootstrap and arguments.registry:
        with RegistryClient(arguments.registry) as registry:
            send(arguments.bootstrap, registry, arguments.topic)
            receive(arguments.bootstrap, registry, arguments.topic)
        return
    import ottla.testing

    with ottla.testing.Broker() as broker, ottla.testing.SchemaRegistry() as server, RegistryClient(server.url) as registry:
        broker.create_topic(arguments.topic, partitions=3)
        send(broker.bootstrap, registry, arguments.topic)
        receive(broker.bootstrap, registry, arguments.topic)


if __name__ == "__main__":
    main()
