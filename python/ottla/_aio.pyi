from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer

from ottla._errors import Error
from ottla._events import Assigned, GivingUp, Lost
from ottla._ottla import (
    Acked,
    Batch,
    BatchAcked,
    Record,
    Tls,
    _Assignor,
    _Codec,
    _Ends,
    _Offsets,
    _Sasl,
    _Seconds,
    _Size,
    _Start,
    _Values,
)
from ottla._stats import Stats

__all__ = [
    "Admin",
    "BatchDelivery",
    "Batches",
    "Consumer",
    "Delivery",
    "Events",
    "Producer",
    "Records",
]

_T = TypeVar("_T")
_Awaited: TypeAlias = Coroutine[Any, Any, _T]

@final
class Delivery:
    def __await__(self) -> Generator[Any, Any, Acked]: ...
    def result(self, timeout: _Seconds | None = None) -> _Awaited[Acked]: ...
    def exception(self, timeout: _Seconds | None = None) -> _Awaited[BaseException | None]: ...
    def done(self) -> bool: ...

@final
class BatchDelivery:
    def __await__(self) -> Generator[Any, Any, BatchAcked]: ...
    def outcomes(self, timeout: _Seconds | None = None) -> _Awaited[list[Acked | Error]]: ...
    def result(self, timeout: _Seconds | None = None) -> _Awaited[BatchAcked]: ...
    def exception(self, timeout: _Seconds | None = None) -> _Awaited[BaseException | None]: ...
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
    ) -> _Awaited[Delivery]: ...
    def send_and_wait(
        self,
        topic: str,
        value: Buffer | None,
        *,
        key: Buffer | None = None,
        headers: Sequence[tuple[str | bytes, Buffer | None]] | None = None,
        partition: SupportsIndex | None = None,
        timestamp: SupportsIndex | datetime | None = None,
    ) -> _Awaited[Acked]: ...
    def send_many(
        self, topic: str, values: _Values
    ) -> _Awaited[BatchDelivery]: ...
    def flush(self, timeout: _Seconds | None = None) -> _Awaited[None]: ...
    def stats(self) -> Stats: ...
    def close(self, timeout: _Seconds | None = None) -> _Awaited[None]: ...
    def __aenter__(self) -> _Awaited[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> _Awaited[None]: ...

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
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> _Awaited[Record]: ...
    def next(
        self, timeout: _Seconds | None = None, *, until: _Ends | None = None
    ) -> _Awaited[Record | None]: ...
    def records(
        self, timeout: _Seconds | None = None, *, until: _Ends | None = None
    ) -> Records: ...
    def batches(
        self, timeout: _Seconds | None = None, *, until: _Ends | None = None
    ) -> Batches: ...
    def next_event(
        self, timeout: _Seconds | None = None
    ) -> _Awaited[Batch | Assigned | GivingUp | Lost | None]: ...
    def events(self, timeout: _Seconds | None = None) -> Events: ...
    def commit(self, timeout: _Seconds | None = None) -> _Awaited[None]: ...
    def commit_to(
        self, offsets: _Offsets, timeout: _Seconds | None = None
    ) -> _Awaited[None]: ...
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
    def close(self, timeout: _Seconds | None = None) -> _Awaited[None]: ...
    def __aenter__(self) -> _Awaited[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> _Awaited[None]: ...

@final
class Records(AsyncIterator[Record]):
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> _Awaited[Record]: ...

@final
class Batches(AsyncIterator[Batch]):
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> _Awaited[Batch]: ...

@final
class Events(AsyncIterator[Batch | Assigned | GivingUp | Lost]):
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> _Awaited[Batch | Assigned | GivingUp | Lost]: ...

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
    ) -> _Awaited[None]: ...
    def partitions(self, topic: str) -> _Awaited[int]: ...
    @overload
    def offsets(
        self,
        partitions: Iterable[tuple[str, SupportsIndex]],
        at: Literal["earliest", "latest"] | datetime = "latest",
        *,
        return_exceptions: Literal[False] = False,
    ) -> _Awaited[dict[tuple[str, int], int]]: ...
    @overload
    def offsets(
        self,
        partitions: Iterable[tuple[str, SupportsIndex]],
        at: Literal["earliest", "latest"] | datetime = "latest",
        *,
        return_exceptions: bool,
    ) -> _Awaited[dict[tuple[str, int], int | Error]]: ...
    def __aenter__(self) -> _Awaited[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> _Awaited[None]: ...
