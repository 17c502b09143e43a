"""Consumer groups as the embedded broker shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupMember:
    """A member of a group."""

    id: str
    """The id that it was given."""
    instance_id: str | None
    """Of a static member."""
    client_id: str


@dataclass(frozen=True)
class Group:
    """A group, as its coordinator knows it."""

    state: str
    """As Kafka writes it: "Empty", "PreparingRebalance", "CompletingRebalance" or "Stable"."""
    generation: int
    assignor: str | None
    """What its members have agreed on."""
    members: list[GroupMember]
    committed: dict[tuple[str, int], int]
    """The next offset to read, by topic and partition."""
