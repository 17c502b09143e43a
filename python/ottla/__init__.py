"""Ottla: a Kafka client that behaves well.

    import ottla

    with ottla.Producer("localhost:9092") as producer:
        producer.send("events", b"hello")

    with ottla.Consumer("localhost:9092", topics=["events"]) as consumer:
        for record in consumer:
            print(record.value)

    with ottla.Consumer("localhost:9092", group="billing", topics=["events"]) as consumer:
        for record in consumer:     # done when the next one is asked for
            print(record.value)

Nothing has to be polled: the engine works on a thread of its own, which never holds up the
interpreter. Every wait lets other threads run and ends on Ctrl-C. What is worth knowing goes to the
loggers of `logging` below "ottla".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ottla import _logs, _tokens  # noqa: F401 - before the rest: they are to end last
from ottla._columns import Columns
from ottla._errors import (
    AuthenticationError,
    AuthorizationError,
    BrokerError,
    BufferFull,
    CancelledError,
    ClusterChangedError,
    ClosedError,
    ConfigError,
    ConnectError,
    CorruptError,
    CredentialsError,
    DisconnectedError,
    Error,
    FatalError,
    FencedError,
    ForkedClientError,
    InternalError,
    InvalidArgumentError,
    InvalidRecordError,
    NotKafkaError,
    OffsetOutOfRangeError,
    OutOfResourcesError,
    RecordTooLargeError,
    ResolveError,
    RetriableError,
    TimeoutError,
    TlsError,
    TopicExistsError,
    TruncatedError,
    UndeliveredError,
    UnknownPartitionError,
    UnknownTopicError,
    UnsupportedCodecError,
    UnsupportedVersionError,
)
from ottla._events import Assigned, GivingUp, Lost
from ottla._ottla import (
    Acked,
    Admin,
    Batch,
    BatchAcked,
    BatchDelivery,
    ClientCredentials,
    Consumer,
    Delivery,
    OAuth,
    Plain,
    Producer,
    Record,
    Scram,
    Tls,
    Token,
    __version__,
)
from ottla._stats import (
    BadStuff,
    BrokerStats,
    LatencyStats,
    MetadataReasons,
    RequestStats,
    RetryBudgetStats,
    RetryBudgets,
    Stats,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import SupportsIndex

__all__ = [
    "Acked",
    "Admin",
    "Assigned",
    "AuthenticationError",
    "AuthorizationError",
    "BadStuff",
    "Batch",
    "BatchAcked",
    "BatchDelivery",
    "BrokerError",
    "BrokerStats",
    "BufferFull",
    "CancelledError",
    "ClientCredentials",
    "ClusterChangedError",
    "ClosedError",
    "Columns",
    "ConfigError",
    "ConnectError",
    "Consumer",
    "CorruptError",
    "CredentialsError",
    "Delivery",
    "DisconnectedError",
    "Error",
    "FatalError",
    "FencedError",
    "ForkedClientError",
    "GivingUp",
    "InternalError",
    "InvalidArgumentError",
    "InvalidRecordError",
    "LatencyStats",
    "Lost",
    "MetadataReasons",
    "NotKafkaError",
    "OAuth",
    "OffsetOutOfRangeError",
    "OutOfResourcesError",
    "Plain",
    "Producer",
    "Record",
    "RecordTooLargeError",
    "RequestStats",
    "ResolveError",
    "RetriableError",
    "RetryBudgetStats",
    "RetryBudgets",
    "Scram",
    "Stats",
    "TimeoutError",
    "Tls",
    "TlsError",
    "Token",
    "TopicExistsError",
    "TruncatedError",
    "UndeliveredError",
    "UnknownPartitionError",
    "UnknownTopicError",
    "UnsupportedCodecError",
    "UnsupportedVersionError",
    "__version__",
    "create_topic",
]

Sequence.register(Batch)  # pyright: ignore[reportAttributeAccessIssue]


def create_topic(
    bootstrap: str,
    name: str,
    partitions: SupportsIndex | None = None,
    replication: SupportsIndex | None = None,
    *,
    config: Mapping[str, str] | None = None,
    sasl: Plain | Scram | OAuth | None = None,
    tls: Tls | None = None,
) -> None:
    """Creates a topic; None takes the cluster's default. See Admin.create_topic."""
    admin = Admin(bootstrap, sasl=sasl, tls=tls)
    admin.create_topic(name, partitions, replication, config=config)
