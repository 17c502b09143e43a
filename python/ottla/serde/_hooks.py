"""What turns values into bytes and back: functions of one argument, or objects that are told where a record goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar, cast

from typing_extensions import Buffer

from ottla.serde._errors import SerializeError, WouldWait

_T = TypeVar("_T")


class Context(NamedTuple):
    """Where a key or value goes, or comes from."""

    topic: str
    field: Literal["key", "value"]
    headers: Sequence[tuple[str | bytes, Buffer | None]] = ()
    """The headers of the record, to be looked at."""


class Serializer(Generic[_T]):
    """Makes bytes of values. To be derived from where a function of the value alone is not enough.

    It is called by every thread that sends. What it raises reaches whoever sends: an ottla.Error as it is, and
    anything else as the cause of a SerializeError.
    """

    def serialize(self, value: _T, context: Context, /) -> Buffer:
        """The bytes of a value, which is never None: None is sent as it is, a tombstone. To give None is an error."""
        raise NotImplementedError

    def serialize_at_once(self, value: _T, context: Context, /) -> Buffer:
        """The same for a loop of asyncio, which must not be held up: raises WouldWait where somebody would have to be
        asked, and is followed by a call of `serialize` on a thread then."""
        return self.serialize(value, context)


class Deserializer(Generic[_T]):
    """Makes values of bytes. To be derived from where a function of the bytes alone is not enough.

    It is called by every thread that looks at a record. An ottla.Error that it raises is told as it is, and says nothing
    about the record, and neither does a MemoryError; anything else is the cause of a DecodeError, and says that the record cannot
    be decoded. So what is wrong with its set-up is to be an ottla.Error.
    """

    def deserialize(self, data: bytes, context: Context, /) -> _T:
        """The value of some bytes. What is null in the record is None without a call."""
        raise NotImplementedError

    def deserialize_at_once(self, data: bytes, context: Context, /) -> _T:
        """The same for a loop of asyncio; see Serializer.serialize_at_once."""
        return self.deserialize(data, context)


AnySerializer: TypeAlias = Serializer[_T] | Callable[[_T], Buffer]
AnyDeserializer: TypeAlias = Deserializer[_T] | Callable[[bytes], _T]


class _SerializerFunction(Serializer[_T]):
    def __init__(self, function: Callable[[_T], Buffer]) -> None:
        self._function = function

    def serialize(self, value: _T, context: Context, /) -> Buffer:
        return self._function(value)


class _DeserializerFunction(Deserializer[_T]):
    def __init__(self, function: Callable[[bytes], _T]) -> None:
        self._function = function

    def deserialize(self, data: bytes, context: Context, /) -> _T:
        return self._function(data)


def a_serializer(name: str, hook: AnySerializer[_T] | None) -> Serializer[_T] | None:
    if hook is None or isinstance(hook, Serializer):
        return hook
    if isinstance(hook, Deserializer) or not callable(hook):
        raise TypeError(f"{name} takes a function of the value or an ottla.serde.Serializer, not {hook!r}")
    return _SerializerFunction(hook)


def a_deserializer(name: str, hook: AnyDeserializer[_T] | None) -> Deserializer[_T] | None:
    if hook is None or isinstance(hook, Deserializer):
        return hook
    if isinstance(hook, Serializer) or not callable(hook):
        raise TypeError(f"{name} takes a function of the bytes or an ottla.serde.Deserializer, not {hook!r}")
    return _DeserializerFunction(hook)


def serialized(
    hook: Serializer[_T] | None, value: _T | None, context: Context, *, at_once: bool = False
) -> Buffer | None:
    """The bytes to send for a value.

    Raises SerializeError, WouldWait with `at_once`, and whatever ottla.Error the serializer has.
    """
    if value is None:
        return None
    if hook is None:
        # Without a hook the type says that it is bytes, and the producer looks.
        return cast("Buffer", value)
    try:
        made = hook.serialize_at_once(value, context) if at_once else hook.serialize(value, context)
        if cast("object", made) is None:
            # Sent, it would delete what has the key, and a function that forgets its `return` gives it as well.
            raise SerializeError("its serializer gave None, which is a tombstone: to send one, send None")
        return made
    except (WouldWait, MemoryError):
        # Neither is about the value.
        raise
    except Exception as error:
        raise told(error, context) from error.__cause__ if isinstance(error, SerializeError) else error


def told(error: Exception, context: Context) -> Exception:
    """What whoever sends is told of an error of a serializer: always where the record was to go."""
    from ottla._errors import Error

    if isinstance(error, SerializeError):
        error.place(context)
        return error
    if isinstance(error, Error):
        # Not the value's fault, and it may be good later: the error's own kind and advice are what counts.
        error.add_note(f"while the {context.field} of a record for topic '{context.topic}' was to be serialized")
        return error
    # Its own words may repeat the value, which may be a secret: they stay in the cause.
    made = SerializeError(f"its serializer raised {type(error).__name__}")
    made.place(context)
    return made
