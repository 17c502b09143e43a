"""The exceptions. One base, what to do about them as a second axis, and a class for each kind."""

from __future__ import annotations

import builtins
import types
from typing import Any, ClassVar, cast


class Error(Exception):
    """Base of everything that ottla raises on its own account.

    str(error) says what happened and what to do about it.
    """

    code: str
    """The kind, the same word in every language of ottla: "timeout", "unknown_topic", ..."""
    message: str
    """The message: what happened, without advice."""
    advice: str
    """One sentence on what to do about it."""
    broker_code: int | None
    """The Kafka error code, if a broker answered one."""
    retriable: bool
    """Whether the same call may succeed later without a change."""
    fatal: bool
    """Whether the handle that raised it is of no more use."""
    maybe_written: bool
    """Whether the record may be in the log although its send failed. False: certainly not."""

    _code: ClassVar[str] = "internal"
    _advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        advice: str | None = None,
        broker_code: int | None = None,
        retriable: bool | None = None,
        fatal: bool | None = None,
        maybe_written: bool = False,
    ) -> None:
        self.code = self._code
        self.message = message
        self.advice = self._advice if advice is None else advice
        self.broker_code = broker_code
        self.retriable = isinstance(self, RetriableError) if retriable is None else retriable
        self.fatal = isinstance(self, FatalError) if fatal is None else fatal
        self.maybe_written = maybe_written
        if text is None:
            text = f"{message}; {self.advice}" if self.advice else message
            if maybe_written:
                text += " (the record may have been written)"
        self._text = text
        super().__init__(text)

    def __str__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        made = kind in _RETRIABLE.values()
        # All there is to know of it is an attribute, notes included.
        return _copied, (kind.__bases__[0] if made else kind, made, self._text), self.__dict__


class RetriableError(Error):
    """The same call may succeed later."""


class FatalError(Error):
    """The handle that raised it is of no more use."""


class ConfigError(FatalError, ValueError):
    """A setting is missing, misspelt or out of its range."""

    _code = "config"
    _advice = "correct the setting and start again"


class InvalidArgumentError(Error, ValueError):
    """An argument of a call is not usable."""

    _code = "invalid_argument"
    _advice = "correct the argument"


class ConnectError(RetriableError, ConnectionError):
    """Nobody could be reached."""

    _code = "connect"


class ResolveError(ConnectError):
    """A host name could not be resolved."""

    _code = "resolve"


class NotKafkaError(Error):
    """The peer is not a Kafka broker."""

    _code = "not_kafka"


class UnsupportedVersionError(Error):
    """The broker and this client share no version of a request that is needed."""

    _code = "unsupported_version"


class DisconnectedError(RetriableError, ConnectionError):
    """A connection was lost with requests in flight."""

    _code = "disconnected"


class TimeoutError(RetriableError, builtins.TimeoutError):  # noqa: A001 - it is one
    """A deadline passed."""

    _code = "timeout"
    _advice = "look at broker load and network, or allow more time"


class BufferFull(RetriableError):
    """The buffer stayed full for longer than max_block."""

    _code = "buffer_full"


class RecordTooLargeError(Error):
    """One record is larger than the client or the topic takes."""

    _code = "record_too_large"


class InvalidRecordError(Error):
    """The broker refused the record's content."""

    _code = "invalid_record"


class UnknownTopicError(Error):
    """The cluster does not know the topic."""

    _code = "unknown_topic"


class UnknownPartitionError(Error):
    """The topic exists, but not this partition."""

    _code = "unknown_partition"


class TopicExistsError(Error):
    """The topic to be created exists."""

    _code = "topic_exists"


class AuthorizationError(Error):
    """The credentials do not allow this."""

    _code = "authorization"


class AuthenticationError(FatalError):
    """The credentials were refused."""

    _code = "authentication"


class FencedError(Error):
    """The producer was fenced, or its state on the broker is lost beyond mending; or the consumer is no member of its
    group now."""

    _code = "fenced"


class OffsetOutOfRangeError(Error):
    """The offset asked for is outside what the partition holds."""

    _code = "offset_out_of_range"


class CorruptError(Error):
    """Fetched bytes are damaged."""

    _code = "corrupt"


class UnsupportedCodecError(Error):
    """Fetched records use a codec that this build cannot read."""

    _code = "unsupported_codec"


class BrokerError(Error):
    """Any other error of the broker; see broker_code."""

    _code = "broker"


class ClosedError(FatalError):
    """The handle was used after it was closed."""

    _code = "closed"
    _advice = "make a new handle"


class ForkedClientError(FatalError):
    """The process forked: a handle does not survive into the child."""

    _code = "forked"
    _advice = "make a new client after the fork"


class InternalError(Error):
    """A fault of this library. Please report it."""

    _code = "internal"


class CancelledError(RetriableError):
    """The wait was cancelled."""

    _code = "cancelled"


class OutOfResourcesError(RetriableError):
    """The operating system has no thread, descriptor or memory left for this process."""

    _code = "out_of_resources"


class TruncatedError(Error):
    """The log is not the one that was read: it was cut back, or its topic was made anew.

    The message says how far it was read, and where reading goes on.
    """

    _code = "truncated"


class UndeliveredError(Error):
    """Records failed and nobody had looked at their Delivery: told by flush, close, and the end of a
    with block. retriable and maybe_written are those of any of the records."""

    records: int
    """How many."""
    topics: list[str]
    """The topics they were for, 16 at most."""
    first: Error
    """The error of the record that failed first."""

    _code = "undelivered"
    _advice = "keep the Delivery of a record whose fate matters"


class TlsError(Error):
    """TLS with a broker failed: a certificate that is not trusted, on either side, or a listener
    without TLS."""

    _code = "tls"


class CredentialsError(Error):
    """There is nothing to log in with: no token was to be had. No broker has refused anything."""

    _code = "credentials"


class ClusterChangedError(FatalError):
    """Another cluster answers at the addresses now; the message names both.

    See the setting on_cluster_change.
    """

    _code = "cluster_changed"


_BY_CODE: dict[str, type[Error]] = {
    cls._code: cls  # pyright: ignore[reportPrivateUsage]
    for cls in (
        ConfigError,
        InvalidArgumentError,
        ConnectError,
        ResolveError,
        NotKafkaError,
        UnsupportedVersionError,
        DisconnectedError,
        TimeoutError,
        BufferFull,
        RecordTooLargeError,
        InvalidRecordError,
        UnknownTopicError,
        UnknownPartitionError,
        TopicExistsError,
        AuthorizationError,
        AuthenticationError,
        FencedError,
        OffsetOutOfRangeError,
        CorruptError,
        UnsupportedCodecError,
        BrokerError,
        ClosedError,
        ForkedClientError,
        InternalError,
        CancelledError,
        OutOfResourcesError,
        TruncatedError,
        UndeliveredError,
        TlsError,
        CredentialsError,
        ClusterChangedError,
    )
}

_RETRIABLE: dict[type[Error], type[Error]] = {}


def _retriable(kind: type[Error]) -> type[Error]:
    """The kind as a RetriableError too: of some kinds only some errors are (a broker's answer may
    be either), and `except RetriableError` has to catch exactly those."""
    if issubclass(RetriableError, kind):
        return RetriableError
    found = _RETRIABLE.get(kind)
    if found is None:
        bases: tuple[type[Error], ...] = (kind, RetriableError)
        made = types.new_class(kind.__name__, bases)
        made.__module__ = "ottla"
        found = cast("type[Error]", made)
        _RETRIABLE[kind] = found
    return found


def _copied(kind: type[Error], retriable: bool, text: str) -> Error:
    """An error without its attributes, for pickle and copy to fill."""
    if retriable:
        kind = _retriable(kind)
    error = kind.__new__(kind)
    error.args = (text,)
    return error


def make(
    code: str,
    text: str,
    message: str,
    advice: str,
    broker_code: int | None,
    retriable: bool,
    fatal: bool,
    maybe_written: bool,
) -> Error:
    """The exception for an error of the engine. A kind that this version does not know is an
    Error with its code."""
    kind = _BY_CODE.get(code, Error)
    if retriable and not issubclass(kind, RetriableError):
        kind = _retriable(kind)
    error = kind(
        message,
        text=text,
        advice=advice,
        broker_code=broker_code,
        retriable=retriable,
        fatal=fatal,
        maybe_written=maybe_written,
    )
    error.code = code
    return error


for _class in [Error, RetriableError, FatalError, *_BY_CODE.values()]:
    # What people see in a traceback is where they import it from.
    _class.__module__ = "ottla"
