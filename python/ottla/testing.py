"""An embedded Kafka cluster, for a program's own tests: no Docker, up in milliseconds.

    with ottla.testing.Broker(brokers=3) as broker:
        broker.create_topic("events", partitions=12)
        with ottla.Producer(broker.bootstrap) as producer:
            producer.send("events", b"hello").result(timeout=5)

And a schema registry, for what ottla.schema_registry and others ask of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla._groups import Group, GroupMember
from ottla._ottla import Broker

if TYPE_CHECKING:
    from ottla._registry_server import SchemaRegistry

__all__ = ["Broker", "Group", "GroupMember", "SchemaRegistry"]


def __getattr__(name: str) -> Any:
    # It has a web server with it, and this module is loaded with every run of pytest.
    if name == "SchemaRegistry":
        from ottla._registry_server import SchemaRegistry

        globals()[name] = SchemaRegistry
        return SchemaRegistry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
