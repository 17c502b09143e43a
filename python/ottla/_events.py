"""What the group of a consumer says, between batches: Consumer.events() gives these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Assigned:
    """The group has given these partitions to this consumer, besides those that it has. None: the group was
    decided anew, and nothing came."""

    partitions: list[tuple[str, int]]


@dataclass(frozen=True)
class GivingUp:
    """The group takes these partitions away. Nothing more of them is handed out. What of them is done when the next
    event is asked for is committed, and then they are given up; at the deadline at the latest."""

    partitions: list[tuple[str, int]]
    deadline: float
    """On the clock of time.monotonic()."""


@dataclass(frozen=True)
class Lost:
    """These partitions are somebody else's by now, perhaps: the membership was lost. What was not committed is read
    by others again."""

    partitions: list[tuple[str, int]]
