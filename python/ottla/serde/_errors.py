"""What is raised where a value cannot be written, or a record cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ottla._errors import Error

if TYPE_CHECKING:
    from ottla._ottla import Record
    from ottla.serde._hooks import Context


class WouldWait(Exception):
    """Raised by `serialize_at_once` and `deserialize_at_once`: somebody has to be asked first."""


class SerializeError(Error, ValueError):
    """A key or a value cannot be serialized. Nothing was sent of the call that raised it."""

    topic: str
    """Where the record was to go."""
    field: Literal["key", "value"]
    """What cannot be serialized of it."""
    path: str | None
    """Which part of it, if the serializer knows: "address.city"."""
    index: int | None
    """Which of the values of send_many."""

    _code = "serialize"
    _advice = "correct it, or change the schema or the serializer"

    def __init__(self, reason: str, *, path: str | None = None) -> None:
        super().__init__(reason)
        self.topic = ""
        self.field = "value"
        self.path = path
        self.index = None
        self._reason = reason

    def place(self, context: Context, index: int | None = None) -> None:
        """Says where the record was to go."""
        self.topic, self.field, self.index = context.topic, context.field, index
        which = "" if index is None else f" number {index}"
        where = f" at '{self.path}'" if self.path else ""
        self.message = f"the {self.field}{which} for topic '{self.topic}' cannot be serialized{where}: {self._reason}"
        self._text = f"{self.message}; {self.advice}"
        self.args = (self._text,)


class DecodeError(Error, ValueError):
    """The key or the value of a record cannot be decoded, now or later.

    The record is as it was: look at `record`, put it elsewhere, and go on with the next one to pass it over. Where it could
    not be told whether it can be decoded, because nobody answered, there is another error.
    """

    topic: str
    partition: int
    offset: int
    field: Literal["key", "value"]
    """What of it."""
    path: str | None
    """Which part of it does not agree with its schema, if that is why."""

    _code = "decode"
    _advice = "look at error.record; going on with the next record passes this one over"

    def __init__(self, reason: str, *, path: str | None = None, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice)
        self.topic = ""
        self.partition = self.offset = -1
        self.field = "value"
        self.path = path
        self._reason = reason
        self._record: Record | None = None

    @property
    def record(self) -> Record:
        """The record, as it was read. A copy of the error, or one from another process, has none."""
        if self._record is None:
            raise AttributeError("a copy of a DecodeError has no record; it has topic, partition and offset")
        return self._record

    def place(self, record: Record, field: Literal["key", "value"]) -> None:
        """Says which record it is of."""
        self._record = record
        self.topic, self.partition, self.offset, self.field = record.topic, record.partition, record.offset, field
        where = f" at '{self.path}'" if self.path else ""
        self.message = (
            f"the {field} of the record at offset {self.offset} of {self.topic}-{self.partition} "
            f"cannot be decoded{where}: {self._reason}"
        )
        self._text = f"{self.message}; {self.advice}"
        self.args = (self._text,)

    def __reduce__(self) -> tuple[object, ...]:
        # Records are views of fetched bytes, and cannot be copied.
        make, arguments, state = super().__reduce__()
        return make, arguments, {**state, "_record": None}


for _class in (WouldWait, SerializeError, DecodeError):
    _class.__module__ = "ottla.serde"
