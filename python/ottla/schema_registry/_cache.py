"""What the registry said, kept for a while: bounded, and asked for once however many threads want it."""

from __future__ import annotations

import copy
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from ottla.schema_registry._errors import RegistryUnavailableError, SchemaNotFoundError
from ottla.serde._errors import WouldWait

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class _Flight:
    """Somebody asks, and others wait for what comes of it."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.value: Any = None
        self.error: Exception | None = None
        self.abandoned = True
        """Whoever asked was interrupted: one of those who waited asks."""


_all: weakref.WeakSet[Cache[Any, Any]] = weakref.WeakSet()


class Cache(Generic[_K, _V]):
    """The `size` values that were used last.

    A value is good for `ttl` seconds, without an end if None. After that it is asked for again, and still used while the
    registry is unavailable: who knows a schema goes on without it. That there is none is believed for `missing_ttl`
    seconds; so much is kept apart, so that records with made-up ids push out no schema.
    """

    def __init__(
        self,
        size: int,
        *,
        ttl: float | None = None,
        missing_ttl: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._ttl = ttl
        self._missing_ttl = missing_ttl
        self._clock = clock
        self._fresh()
        _all.add(self)

    def _fresh(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[_K, tuple[_V, float]] = OrderedDict()
        self._missing: OrderedDict[_K, tuple[SchemaNotFoundError, float]] = OrderedDict()
        self._flights: dict[_K, _Flight] = {}

    def get(self, key: _K, load: Callable[[], _V], *, wait: bool = True) -> _V:
        """The value of a key, by `load` if it is not here; that runs without a lock, and once for all who ask.

        Raises what `load` raises, and WouldWait in place of a call of it if not `wait`.
        """
        while True:
            mine: _Flight | None = None
            try:
                with self._lock:
                    now = self._clock()
                    found = self._values.get(key)
                    if found is not None:
                        self._values.move_to_end(key)
                        if now < found[1]:
                            return found[0]
                    missing = self._missing.get(key)
                    if missing is not None:
                        if now < missing[1]:
                            raise copy.copy(missing[0])
                        del self._missing[key]
                    if not wait:
                        raise WouldWait
                    flight = self._flights.get(key)
                    if flight is None or flight.over.is_set():
                        # This one knows of it before others do: whatever interrupts it in between, they do not wait for ever.
                        mine = flight = _Flight()
                        self._flights[key] = mine
                if mine is not None:
                    return self._fly(key, mine, load, found)
            finally:
                if mine is not None:
                    self._land(key, mine)
            flight.over.wait()
            if flight.error is not None:
                # One object for several threads would collect all of their tracebacks.
                raise copy.copy(flight.error) from flight.error.__cause__
            if not flight.abandoned:
                return flight.value

    def _fly(self, key: _K, flight: _Flight, load: Callable[[], _V], stale: tuple[_V, float] | None) -> _V:
        try:
            value = load()
        except (WouldWait, MemoryError):
            # It is about the thread that asked, and not about what was asked for.
            raise
        except Exception as error:
            with self._lock:
                now = self._clock()
                # As it is now, and not as it was before: somebody may have put it there meanwhile.
                found = self._values.get(key, stale)
                old = found is None or found[1] <= now
                if found is not None and isinstance(error, RegistryUnavailableError):
                    if old:
                        _put(self._values, key, (found[0], self._end()), self._size)
                    flight.value, flight.abandoned = found[0], False
                    return found[0]
                flight.error = error
                if isinstance(error, SchemaNotFoundError) and old:
                    # What was there is there no longer, and an outage does not bring it back.
                    self._values.pop(key, None)
                    if self._missing_ttl > 0:
                        kept = copy.copy(error)
                        _put(self._missing, key, (kept, self._clock() + self._missing_ttl), self._size)
            raise
        flight.value, flight.abandoned = value, False
        self.put(key, value)
        return value

    def _land(self, key: _K, flight: _Flight) -> None:
        try:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
        finally:
            flight.over.set()

    def _end(self) -> float:
        """Until when what is known now is good."""
        return float("inf") if self._ttl is None else self._clock() + self._ttl

    def put(self, key: _K, value: _V) -> None:
        """Keeps what is known without asking."""
        with self._lock:
            _put(self._values, key, (value, self._end()), self._size)
            self._missing.pop(key, None)

    def __len__(self) -> int:
        return len(self._values) + len(self._missing)


def _put(kept: OrderedDict[_K, _V], key: _K, value: _V, size: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > size:
        kept.popitem(last=False)


def _in_child() -> None:
    # Threads that held a lock or were asking are not in the child.
    for cache in list(_all):
        cache._fresh()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
