"""Threads for what a loop of asyncio must not wait for itself.

They are not those of the loop's executor: other code may have filled that, one registry that is slow would fill it for all, and a loop
that ends waits for it. Each producer and each consumer has a few of its own. They begin when there is something to do, end when there
is nothing, and nobody waits for them when the interpreter ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ottla._errors import OutOfResourcesError

_T = TypeVar("_T")

MOST = 4
"""Threads of one producer or consumer. What they ask for is asked for once however many want it, and over as few connections."""


class _Job(NamedTuple):
    future: asyncio.Future[Any]
    call: Callable[[], Any]


_all: weakref.WeakSet[Threads] = weakref.WeakSet()


class Threads:
    """Calls functions for tasks, `MOST` at once, in the order in which they came."""

    def __init__(self) -> None:
        self._fresh()
        _all.add(self)

    def _fresh(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._running = 0

    def run(self, function: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        """What a function gives or raises. Cancelled before its turn, it is not called.

        Raises OutOfResourcesError if there is no thread to be had.
        """
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        job = _Job(future, functools.partial(contextvars.copy_context().run, function, *arguments))
        with self._lock:
            self._jobs.append(job)
            if self._running >= MOST:
                return future
            self._running += 1
        try:
            threading.Thread(target=self._work, name="ottla-serde", daemon=True).start()
        except RuntimeError as error:
            left: list[_Job] = []
            with self._lock:
                self._running -= 1
                if not self._running:
                    left.extend(self._jobs)
                    self._jobs.clear()
            # Where others run, they come to it.
            for one in left:
                made = OutOfResourcesError("there is no thread to ask a schema registry on")
                made.__cause__ = error
                _settle_from_here(one.future, None, made)
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._running -= 1
                    return
                job = self._jobs.popleft()
            _do(job)
            # Nothing of the program's is kept until the next one comes.
            del job


def _do(job: _Job) -> None:
    if job.future.cancelled():
        return
    value: Any = None
    failed: BaseException | None = None
    try:
        value = job.call()
    except BaseException as error:
        failed = error
    try:
        _settle_from_here(job.future, value, failed)
    finally:
        # Of a traceback and what it is of.
        failed = None


def _settle_from_here(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """From any thread."""
    # A loop that was closed has nobody who waits.
    with contextlib.suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(_settle, future, value, error)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _in_child() -> None:
    # Threads that held a lock or were at work are not in the child.
    for threads in list(_all):
        threads._fresh()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
