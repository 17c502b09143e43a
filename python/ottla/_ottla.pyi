from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Literal, Self, TypeAlias, final, overload

from typing_extensions import Buffer

from ottla._stats import Stats

__all__ = [
    "Acked",
    "Admin",
    "Batch",
    "BatchAcked",
    "BatchDelivery",
    "BatchIterator",
    "Batches",
    "Broker",
    "Consumer",
    "Delivery",
    "Producer",
    "Record",
    "__version__",
]

__version__: str

_Codec: TypeAlias = Literal["none", "lz4", "snappy", "gzip", "zstd"]

@final
class Acked:
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
    @property
    def records(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Delivery:
    def result(self, timeout: float | timedelta | None = None) -> Acked: ...
    def exception(self, timeout: float | timedelta | None = None) -> BaseException | None: ...
    def done(self) -> bool: ...

@final
class BatchDelivery:
    def result(self, timeout: float | timedelta | None = None) -> BatchAcked: ...
    def exception(self, timeout: float | timedelta | None = None) -> BaseException | None: ...
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
        batch_size: int | str | None = None,
        buffer_memory: int | str | None = None,
        client_id: str | None = None,
        compression: _Codec | None = None,
        compression_level: int | None = None,
        connect_timeout: float | timedelta | None = None,
        delivery_timeout: float | timedelta | None = None,
        idle_timeout: float | timedelta | None = None,
        in_doubt: Literal["wait", "reroute"] | None = None,
        linger: float | timedelta | None = None,
        max_block: float | timedelta | None = None,
        max_record_size: int | str | None = None,
        ordinal: tuple[int, int] | None = None,
        partitioner: Literal["spread", "key_hash"] | None = None,
        rack: str | None = None,
        request_timeout: float | timedelta | None = None,
        topic_compression: Mapping[str, _Codec | tuple[_Codec, int]] | None = None,
    ) -> Self: ...
    def send(
        self,
        topic: str,
        value: Buffer | None,
        *,
        key: Buffer | None = None,
        headers: Sequence[tuple[str, Buffer | None]] | None = None,
        partition: int | None = None,
        timestamp: int | datetime | None = None,
    ) -> Delivery: ...
    def send_many(self, topic: str, values: Iterable[Buffer | None]) -> BatchDelivery: ...
    def flush(self, timeout: float | timedelta | None = None) -> None: ...
    def stats(self) -> Stats: ...
    def close(self, timeout: float | timedelta | None = None) -> None: ...
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
        assignment: Iterable[tuple[str, int, Literal["earliest", "latest"] | int | datetime]]
        | None = None,
        start: Literal["earliest", "latest"] | int | datetime | None = None,
        buffer_memory: int | str | None = None,
        check_crc: bool | None = None,
        client_id: str | None = None,
        connect_timeout: float | timedelta | None = None,
        idle_timeout: float | timedelta | None = None,
        max_bytes: int | str | None = None,
        max_partition_bytes: int | str | None = None,
        max_wait: float | timedelta | None = None,
        min_bytes: int | str | None = None,
        ordinal: tuple[int, int] | None = None,
        rack: str | None = None,
        request_timeout: float | timedelta | None = None,
    ) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...
    def next(self, timeout: float | timedelta | None = None) -> Record | None: ...
    def batches(self, timeout: float | timedelta | None = None) -> Batches: ...
    def position(self, topic: str, partition: int) -> int | None: ...
    def seek(
        self, topic: str, partition: int, start: Literal["earliest", "latest"] | int | datetime
    ) -> None: ...
    def assignment(self) -> list[tuple[str, int]]: ...
    def stats(self) -> Stats: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Batches(Iterator[Batch]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> Batch: ...

@final
class Batch:
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def base_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> Record: ...
    @overload
    def __getitem__(self, key: slice, /) -> list[Record]: ...
    def __iter__(self) -> BatchIterator: ...

@final
class BatchIterator(Iterator[Record]):
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

@final
class Admin:
    def __new__(
        cls,
        bootstrap: str,
        *,
        client_id: str | None = None,
        connect_timeout: float | timedelta | None = None,
        idle_timeout: float | timedelta | None = None,
        ordinal: tuple[int, int] | None = None,
        rack: str | None = None,
        request_timeout: float | timedelta | None = None,
    ) -> Self: ...
    def create_topic(
        self,
        name: str,
        partitions: int | None = None,
        replication: int | None = None,
        *,
        config: Mapping[str, str] | None = None,
    ) -> None: ...
    def partitions(self, topic: str) -> int: ...

@final
class Broker:
    def __new__(
        cls,
        brokers: int = 1,
        *,
        max_message_bytes: int | str | None = None,
        racks: Sequence[str] | None = None,
    ) -> Self: ...
    @property
    def bootstrap(self) -> str: ...
    def create_topic(
        self, name: str, partitions: int = 1, replication: int | None = None
    ) -> None: ...
    def set_replica_delay(self, delay: float | timedelta | None) -> None: ...
    def stop_broker(self, broker: int, *, move_leaders: bool = True) -> None: ...
    def start_broker(self, broker: int) -> None: ...
    def codecs(self, topic: str) -> set[str]: ...
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
