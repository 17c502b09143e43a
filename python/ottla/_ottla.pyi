from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Protocol, Self, SupportsIndex, TypeAlias, final, overload

from typing_extensions import Buffer

from ottla._columns import Columns
from ottla._errors import Error
from ottla._events import Assigned, GivingUp, Lost
from ottla._groups import Group
from ottla._stats import Stats

__all__ = [
    "Acked",
    "Admin",
    "BackwardsIterator",
    "Batch",
    "BatchAcked",
    "BatchDelivery",
    "BatchIterator",
    "Batches",
    "Broker",
    "ClientCredentials",
    "Consumer",
    "Delivery",
    "Events",
    "LogReader",
    "OAuth",
    "Plain",
    "Producer",
    "Record",
    "Records",
    "Scram",
    "Tls",
    "Token",
    "TokenQueue",
    "TokenRequest",
    "__version__",
    "_kinds",
    "_panic",
]

__version__: str
_kinds: list[str]

_Start: TypeAlias = Literal["earliest", "latest"] | SupportsIndex | datetime
_Ends: TypeAlias = dict[tuple[str, int], int]
_Seconds: TypeAlias = float | SupportsIndex | timedelta
_Size: TypeAlias = SupportsIndex | str
_Assignor: TypeAlias = Literal["range", "roundrobin", "sticky", "cooperative-sticky"]
_Offsets: TypeAlias = (
    dict[tuple[str, int], int]
    | Iterable[tuple[str, SupportsIndex, SupportsIndex]]
)

class _ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class _NumpyArray(Protocol):
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

_Values: TypeAlias = Iterable[Buffer | None] | _ArrowArray | _ArrowStream | _NumpyArray
_Codec: TypeAlias = Literal["none", "lz4", "snappy", "gzip", "zstd"]
_Pem: TypeAlias = str | bytes | PathLike[str]

@final
class Tls:
    def __new__(
        cls,
        *,
        ca: _Pem | None = None,
        identity: tuple[_Pem, _Pem] | None = None,
        server_name: str | None = None,
        verify: Literal["full", "chain", "none"] | None = None,
    ) -> Self: ...

@final
class Plain:
    def __new__(cls, user: str, password: str | bytes) -> Self: ...

@final
class Scram:
    def __new__(
        cls,
        hash: Literal["SHA-256", "SHA-512"],
        user: str,
        password: str | bytes,
        *,
        delegation_token: bool = False,
    ) -> Self: ...

@final
class Token:
    def __new__(
        cls,
        token: str | bytes,
        *,
        expires_in: _Seconds | None = None,
        expires_at: float | datetime | None = None,
        extensions: Mapping[str, str] | None = None,
    ) -> Self: ...

@final
class ClientCredentials:
    def __new__(
        cls,
        url: str,
        client_id: str,
        client_secret: str | bytes | None = None,
        *,
        client_secret_file: str | PathLike[str] | None = None,
        scope: str | None = None,
        params: Mapping[str, str] | None = None,
        secret_in_body: bool = False,
        encoded_header: bool = False,
        ca: _Pem | None = None,
    ) -> Self: ...

_Token: TypeAlias = str | bytes | tuple[str | bytes, float | datetime] | Token

@final
class OAuth:
    def __new__(
        cls,
        source: ClientCredentials | None = None,
        *,
        token: _Token | Callable[[], _Token] | Callable[[], Awaitable[_Token]] | None = None,
        file: str | PathLike[str] | None = None,
        extensions: Mapping[str, str] | None = None,
    ) -> Self: ...

_Sasl: TypeAlias = Plain | Scram | OAuth

@final
class TokenQueue:
    def __new__(cls) -> Self: ...
    def tag(self) -> int: ...
    def next(self, timeout: float) -> tuple[int, int, int, TokenRequest | None] | None: ...
    def close(self) -> None: ...
    def closed(self) -> bool: ...

@final
class TokenRequest:
    def wanted(self) -> bool: ...
    def give(self, token: object) -> None: ...
    def fail(self, words: str) -> None: ...

@final
class Acked:
    def __new__(cls, partition: int, offset: int, timestamp: int) -> Self: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class BatchAcked:
    def __new__(cls, records: int) -> Self: ...
    @property
    def records(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Delivery:
    def result(self, timeout: _Seconds | None = None) -> Acked: ...
    def exception(self, timeout: _Seconds | None = None) -> BaseException | None: ...
    def done(self) -> bool: ...

@final
class BatchDelivery:
    def outcomes(self, timeout: float | timedelta | None = None) -> list[Acked | Error]: ...
    def result(self, timeout: _Seconds | None = None) -> BatchAcked: ...
    def exception(self, timeout: _Seconds | None = None) -> BaseException | None: ...
    def done(self) -> bool: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...

@final
class Producer:
    def __new__(
        cls,
        bootstrap: str,
        *,
        acks: Literal["all", "leader", "none"] | None = None,
        batch_size: _Size | None = None,
        buffer_memory: _Size | None = None,
        client_id: str | None = None,
        compression: _Codec | None = None,
        compression_level: SupportsIndex | None = None,
        connect_timeout: _Seconds | None = None,
        delivery_timeout: _Seconds | None = None,
        idle_timeout: _Seconds | None = None,
        in_doubt: Literal["wait", "reroute"] | None = None,
        linger: _Seconds | None = None,
        max_block: _Seconds | None = None,
        max_record_size: _Size | None = None,
        on_cluster_change: Literal["fail", "accept"] | None = None,
        ordinal: tuple[SupportsIndex, SupportsIndex] | None = None,
        partitioner: Literal["spread", "key_hash"] | None = None,
        rack: str | None = None,
        request_timeout: _Seconds | None = None,
        sasl: _Sasl | None = None,
        tls: Tls | None = None,
        topic_compression: Mapping[str, _Codec | tuple[_Codec, SupportsIndex]] | None = None,
    ) -> Self: ...
    @staticmethod
    def from_properties(
        properties: Mapping[str, Any],
        *,
        bootstrap: str | None = None,
        acks: Literal["all", "leader", "none"] | None = None,
        batch_size: _Size | None = None,
        buffer_memory: _Size | None = None,
        client_id: str | None = None,
        compression: _Codec | None = None,
        compression_level: SupportsIndex | None = None,
        connect_timeout: _Seconds | None = None,
        delivery_timeout: _Seconds | None = None,
        idle_timeout: _Seconds | None = None,
        in_doubt: Literal["wait", "reroute"] | None = None,
        linger: _Seconds | None = None,
        max_block: _Seconds | None = None,
        max_record_size: _Size | None = None,
        on_cluster_change: Literal["fail", "accept"] | None = None,
        ordinal: tuple[SupportsIndex, SupportsIndex] | None = None,
        partitioner: Literal["spread", "key_hash"] | None = None,
        rack: str | None = None,
        request_timeout: _Seconds | None = None,
        sasl: _Sasl | None = None,
        tls: Tls | None = None,
        topic_compression: Mapping[str, _Codec | tuple[_Codec, SupportsIndex]] | None = None,
    ) -> Producer: ...
    def send(
        self,
        topic: str,
        value: Buffer | None,
        *,
        key: Buffer | None = None,
        headers: Sequence[tuple[str | bytes, Buffer | None]] | None = None,
        partition: SupportsIndex | None = None,
        timestamp: SupportsIndex | datetime | None = None,
    ) -> Delivery: ...
    def send_many(self, topic: str, values: _Values) -> BatchDelivery: ...
    def flush(self, timeout: _Seconds | None = None) -> None: ...
    def stats(self) -> Stats: ...
    def close(self, timeout: _Seconds | None = None) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Consumer:
    def __new__(
        cls,
        bootstrap: str,
        *,
        topics: Iterable[str] | None = None,
        assignment: Iterable[tuple[str, SupportsIndex, _Start]] | None = None,
        start: _Start | None = None,
        group: str | None = None,
        assignors: Iterable[_Assignor] | None = None,
        buffer_memory: _Size | None = None,
        check_crc: bool | None = None,
        client_id: str | None = None,
        commit: Literal["marks", "acked", "manual", "manual_acked"] | None = None,
        commit_interval: _Seconds | None = None,
        connect_timeout: _Seconds | None = None,
        group_protocol: Literal["auto", "classic", "next"] | None = None,
        idle_timeout: _Seconds | None = None,
        instance_id: str | None = None,
        isolation: Literal["read_uncommitted", "read_committed"] | None = None,
        max_bytes: _Size | None = None,
        max_partition_bytes: _Size | None = None,
        max_poll_interval: _Seconds | None = None,
        max_wait: _Seconds | None = None,
        min_bytes: _Size | None = None,
        on_cluster_change: Literal["fail", "accept"] | None = None,
        ordinal: tuple[SupportsIndex, SupportsIndex] | None = None,
        rack: str | None = None,
        remote_assignor: str | None = None,
        request_timeout: _Seconds | None = None,
        sasl: _Sasl | None = None,
        session_timeout: _Seconds | None = None,
        tls: Tls | None = None,
    ) -> Self: ...
    @staticmethod
    def from_properties(
        properties: Mapping[str, Any],
        *,
        bootstrap: str | None = None,
        topics: Iterable[str] | None = None,
        assignment: Iterable[tuple[str, SupportsIndex, _Start]] | None = None,
        start: _Start | None = None,
        group: str | None = None,
        assignors: Iterable[_Assignor] | None = None,
        buffer_memory: _Size | None = None,
        check_crc: bool | None = None,
        client_id: str | None = None,
        commit: Literal["marks", "acked", "manual", "manual_acked"] | None = None,
        commit_interval: _Seconds | None = None,
        connect_timeout: _Seconds | None = None,
        group_protocol: Literal["auto", "classic", "next"] | None = None,
        idle_timeout: _Seconds | None = None,
        instance_id: str | None = None,
        isolation: Literal["read_uncommitted", "read_committed"] | None = None,
        max_bytes: _Size | None = None,
        max_partition_bytes: _Size | None = None,
        max_poll_interval: _Seconds | None = None,
        max_wait: _Seconds | None = None,
        min_bytes: _Size | None = None,
        on_cluster_change: Literal["fail", "accept"] | None = None,
        ordinal: tuple[SupportsIndex, SupportsIndex] | None = None,
        rack: str | None = None,
        remote_assignor: str | None = None,
        request_timeout: _Seconds | None = None,
        sasl: _Sasl | None = None,
        session_timeout: _Seconds | None = None,
        tls: Tls | None = None,
    ) -> Consumer: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...
    def next(
        self, timeout: _Seconds | None = None, *, until: _Ends | None = None
    ) -> Record | None: ...
    def records(
        self, timeout: _Seconds | None = None, *, until: _Ends | None = None
    ) -> Records: ...
    def batches(
        self, timeout: _Seconds | None = None, *, until: _Ends | None = None
    ) -> Batches: ...
    def next_event(
        self, timeout: _Seconds | None = None
    ) -> Batch | Assigned | GivingUp | Lost | None: ...
    def events(self, timeout: _Seconds | None = None) -> Events: ...
    def commit(self, timeout: _Seconds | None = None) -> None: ...
    def commit_to(self, offsets: _Offsets, timeout: _Seconds | None = None) -> None: ...
    def subscribe(self, topics: Iterable[str]) -> None: ...
    def position(self, topic: str, partition: SupportsIndex) -> int | None: ...
    def lag(self, topic: str, partition: SupportsIndex) -> int | None: ...
    def seek(self, topic: str, partition: SupportsIndex, start: _Start) -> None: ...
    def pause(self, partitions: Iterable[tuple[str, SupportsIndex]]) -> None: ...
    def resume(self, partitions: Iterable[tuple[str, SupportsIndex]]) -> None: ...
    def paused(self) -> list[tuple[str, int]]: ...
    def assign(self, assignment: Iterable[tuple[str, SupportsIndex, _Start]]) -> None: ...
    def unassign(self, partitions: Iterable[tuple[str, SupportsIndex]]) -> None: ...
    def assignment(self) -> list[tuple[str, int]]: ...
    def stats(self) -> Stats: ...
    def close(self, timeout: _Seconds | None = None) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Records(Iterator[Record]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...

@final
class Batches(Iterator[Batch]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> Batch: ...

@final
class Events(Iterator[Batch | Assigned | GivingUp | Lost]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> Batch | Assigned | GivingUp | Lost: ...

@final
class Batch(Sequence[Record]):
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def base_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    def ack(self) -> None: ...
    def detach(self) -> Batch: ...
    def to_arrow(self) -> Columns: ...
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Record: ...
    @overload
    def __getitem__(self, key: slice, /) -> list[Record]: ...
    def __iter__(self) -> BatchIterator: ...
    def __reversed__(self) -> BackwardsIterator: ...
    def __contains__(self, key: object, /) -> bool: ...
    def index(self, value: object, start: int = 0, stop: int | None = None) -> int: ...
    def count(self, value: object) -> int: ...

@final
class BatchIterator(Iterator[Record]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...

@final
class BackwardsIterator(Iterator[Record]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...

@final
class Record:
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]: ...
    def ack(self) -> None: ...
    def detach(self) -> Record: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class LogReader:
    def __new__(cls, level: int) -> Self: ...
    def next(self, timeout: float) -> tuple[int, str, str, float, int] | None: ...
    def close(self) -> None: ...
    def closed(self) -> bool: ...

def _panic(waits: bool) -> None: ...

@final
class Admin:
    def __new__(
        cls,
        bootstrap: str,
        *,
        client_id: str | None = None,
        connect_timeout: _Seconds | None = None,
        idle_timeout: _Seconds | None = None,
        on_cluster_change: Literal["fail", "accept"] | None = None,
        ordinal: tuple[SupportsIndex, SupportsIndex] | None = None,
        rack: str | None = None,
        request_timeout: _Seconds | None = None,
        sasl: _Sasl | None = None,
        tls: Tls | None = None,
    ) -> Self: ...
    @staticmethod
    def from_properties(
        properties: Mapping[str, Any],
        *,
        bootstrap: str | None = None,
        client_id: str | None = None,
        connect_timeout: _Seconds | None = None,
        idle_timeout: _Seconds | None = None,
        on_cluster_change: Literal["fail", "accept"] | None = None,
        ordinal: tuple[SupportsIndex, SupportsIndex] | None = None,
        rack: str | None = None,
        request_timeout: _Seconds | None = None,
        sasl: _Sasl | None = None,
        tls: Tls | None = None,
    ) -> Admin: ...
    def create_topic(
        self,
        name: str,
        partitions: SupportsIndex | None = None,
        replication: SupportsIndex | None = None,
        *,
        config: Mapping[str, str] | None = None,
    ) -> None: ...
    def partitions(self, topic: str) -> int: ...
    @overload
    def offsets(
        self,
        partitions: Iterable[tuple[str, SupportsIndex]],
        at: Literal["earliest", "latest"] | datetime = "latest",
        *,
        return_exceptions: Literal[False] = False,
    ) -> dict[tuple[str, int], int]: ...
    @overload
    def offsets(
        self,
        partitions: Iterable[tuple[str, SupportsIndex]],
        at: Literal["earliest", "latest"] | datetime = "latest",
        *,
        return_exceptions: bool,
    ) -> dict[tuple[str, int], int | Error]: ...

@final
class Broker:
    def __new__(
        cls,
        brokers: int = 1,
        *,
        max_message_bytes: _Size | None = None,
        racks: Sequence[str] | None = None,
        tls: bool = False,
        client_certificates: bool = False,
        sasl: Mapping[str, str] | None = None,
        mechanisms: Sequence[str] | None = None,
        acls: Mapping[str, Sequence[str]] | None = None,
    ) -> Self: ...
    @property
    def bootstrap(self) -> str: ...
    @property
    def ca(self) -> str | None: ...
    def client_identity(self, name: str) -> tuple[str, str]: ...
    def set_user(self, name: str, password: str) -> None: ...
    def add_token(
        self, token: str, principal: str, lifetime: _Seconds | None = None
    ) -> None: ...
    def remove_token(self, token: str) -> bool: ...
    def logins(self) -> tuple[int, int]: ...
    def create_topic(
        self, name: str, partitions: int = 1, replication: int | None = None
    ) -> None: ...
    def set_replica_delay(self, delay: _Seconds | None) -> None: ...
    def stop_broker(self, broker: int, *, move_leaders: bool = True) -> None: ...
    def start_broker(self, broker: int) -> None: ...
    def replace(self, cluster_id: str) -> None: ...
    def codecs(self, topic: str) -> set[str]: ...
    def group(self, id: str) -> Group | None: ...
    def set_committed(self, group: str, topic: str, partition: int, offset: int) -> None: ...
    def move_coordinator(self, group: str, broker: int) -> None: ...
    def remove_coordinator(self, group: str) -> None: ...
    def log_end(self, topic: str, partition: int) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
