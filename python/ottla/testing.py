"""An embedded Kafka cluster, for a program's own tests: no Docker, up in milliseconds.

    with ottla.testing.Broker(brokers=3) as broker:
        broker.create_topic("events", partitions=12)
        with ottla.Producer(broker.bootstrap) as producer:
            producer.send("events", b"hello").result(timeout=5)

And a schema registry, for what ottla.schema_registry and others ask of one.
"""

from ottla._groups import Group, GroupMember
from ottla._ottla import Broker
from ottla._registry_server import SchemaRegistry

__all__ = ["Broker", "Group", "GroupMember", "SchemaRegistry"]
