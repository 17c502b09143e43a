"""A producer of values instead of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, SupportsIndex, TypeVar, overload

from typing_extensions import Buffer

from ottla._ottla import BatchDelivery, Delivery, Producer
from ottla.serde._errors import SerializeError
from ottla.serde._hooks import AnySerializer, Context, Serializer, a_serializer, serialized

_K = TypeVar("_K")
_V = TypeVar("_V")
# Of __init__ alone.
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def all_serialized(
    hook: Serializer[Any] | None, topic: str, values: Iterable[Any], *, at_once: bool = False
) -> list[Buffer | None]:
    """The bytes of all values, or an error that names the first one that has none."""
    context = Context(topic, "value")
    done: list[Buffer | None] = []
    for value in values:
        try:
            done.append(serialized(hook, value, context, at_once=at_once))
        except SerializeError as error:
            error.place(context, len(done))
            raise
    return done


class SerializingProducer(Generic[_K, _V]):
    """A producer whose keys and values are serialized by functions or ottla.serde.Serializer.

    It is a layer over an ottla.Producer, which has the settings and may be used beside it. None is sent as it is. What is
    called may be called by several threads at once.
    """

    @overload
    def __init__(
        self: SerializingProducer[_Key, _Value],
        producer: Producer,
        *,
        key_serializer: AnySerializer[_Key],
        value_serializer: AnySerializer[_Value],
    ) -> None: ...
    @overload
    def __init__(
        self: SerializingProducer[Buffer, _Value],
        producer: Producer,
        *,
        key_serializer: None = None,
        value_serializer: AnySerializer[_Value],
    ) -> None: ...
    @overload
    def __init__(
        self: SerializingProducer[_Key, Buffer],
        producer: Producer,
        *,
        key_serializer: AnySerializer[_Key],
        value_serializer: None = None,
    ) -> None: ...
    def __init__(
        self,
        producer: Producer,
        *,
        key_serializer: AnySerializer[Any] | None = None,
        value_serializer: AnySerializer[Any] | None = None,
    ) -> None:
        self._producer = producer
        self._key = a_serializer("key_serializer", key_serializer)
        self._value = a_serializer("value_serializer", value_serializer)

    @property
    def producer(self) -> Producer:
        """What it is a layer over, for everything else."""
        return self._producer

    def send(
        self,
        topic: str,
        value: _V | None,
        *,
        key: _K | None = None,
        headers: Sequence[tuple[str | bytes, Buffer | None]] | None = None,
        partition: SupportsIndex | None = None,
        timestamp: SupportsIndex | datetime | None = None,
    ) -> Delivery:
        """Serializes and sends one record; see ottla.Producer.send.

        Raises SerializeError, naming topic and field, and whatever ottla.Error a serializer has: nothing was sent then.
        """
        told = () if headers is None else headers
        return self._producer.send(
            topic,
            serialized(self._value, value, Context(topic, "value", told)),
            key=serialized(self._key, key, Context(topic, "key", told)),
            headers=headers,
            partition=partition,
            timestamp=timestamp,
        )

    def send_many(self, topic: str, values: Iterable[_V | None]) -> BatchDelivery:
        """Serializes all of them, then sends them; see ottla.Producer.send_many.

        Raises what `send` raises; a SerializeError has the `index` of the value, and nothing was sent then.
        """
        return self._producer.send_many(topic, all_serialized(self._value, topic, values))

    def flush(self, timeout: float | timedelta | None = None) -> None:
        """See ottla.Producer.flush."""
        self._producer.flush(timeout)

    def close(self, timeout: float | timedelta | None = None) -> None:
        """Closes the producer below; see ottla.Producer.close."""
        self._producer.close(timeout)

    def __enter__(self) -> Self:
        self._producer.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._producer.__exit__(exc_type, exc, traceback)
