"""Tokens of OAUTHBEARER that a program gets in its own way.

The engine never calls into the interpreter: a daemon thread of this module takes its requests, and has each answered
by the program's function, on a thread of its own; an `async def` runs on an event loop that uses `ottla.aio`. It starts
with the first handle that has such a function, and ends when the interpreter does.

A function is kept by its `ottla.OAuth` and by the handles that were made with that, and not by this module: it may be
a method of an object that keeps these, and the collector has to see all of such a circle.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from ottla._ottla import TokenQueue, TokenRequest

_STOP = 1.0
"""Seconds that the end of the interpreter waits for this module's thread."""

_WAIT = 3600.0
"""Seconds of one look for requests. It ends as soon as there is one."""

_PAUSE = 1.0
"""Seconds until the next look, after one that raised."""

_WANTED, _GIVEN_UP, _RELEASED = 1, 2, 3


class Provider:
    """A program's function."""

    __slots__ = ("__weakref__", "function", "is_async")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.is_async = is_async(function)


class _Asked:
    """A call of an `async def`, or of what turned out to be one. It is over when its task is, and not when that was
    cancelled: whoever takes no notice of a cancellation is not called again beside itself."""

    def __init__(
        self,
        desk: _Desk,
        provider: Provider,
        request: TokenRequest,
        number: int,
        loop: asyncio.AbstractEventLoop,
        given: Awaitable[Any] | None,
    ) -> None:
        self.desk = desk
        self.provider: Provider | None = provider
        self.request = request
        self.number = number
        self.loop = loop
        self.given = given
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From any thread."""
        self.desk.working[self.number] = self
        try:
            self.loop.call_soon_threadsafe(self._begin)
        except RuntimeError as error:
            # It was closed in this moment.
            self.over(_words(error))

    def _begin(self) -> None:
        try:
            if not self.request.wanted():
                self.over("nobody waits for the token any more")
                return
            # The task has no result: what a task has, asyncio shows where it debugs.
            self.task = self.loop.create_task(self._ask())
            self.task.add_done_callback(self._done)
        except BaseException as error:
            self.over(_words(error))
            raise

    async def _ask(self) -> None:
        provider, given = self.provider, self.given
        self.provider = self.given = None
        try:
            if given is None and provider is not None:
                given = provider.function()
            if given is not None:
                self.request.give(await given)
        except BaseException as error:
            self.request.fail(_words(error))
            # A cancellation, and what ends a loop, are the loop's.
            if not isinstance(error, Exception):
                raise

    def _done(self, task: asyncio.Task[None]) -> None:
        # One that was cancelled before it began has not run at all.
        self.over("CancelledError" if task.cancelled() else "")

    def give_up(self) -> None:
        """From any thread: nobody waits for the answer any more."""
        try:
            self.loop.call_soon_threadsafe(self._cancel)
        except RuntimeError as error:
            self.over(_words(error))

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def over(self, words: str) -> None:
        """It has ended, or its loop has; nothing if it was answered."""
        self.desk.working.pop(self.number, None)
        given, self.given, self.provider = self.given, None, None
        self.request.fail(words)
        _close(given)


class _Desk:
    """The thread, what it reads from, and who answers. Its dicts are changed by many threads, each time in one step."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Held for moments. What a collector finds meanwhile may come here again, on the same thread.
        self.lock = threading.RLock()
        self.starting = threading.Lock()
        self.thread: threading.Thread | None = None
        self.queue: TokenQueue | None = None
        self.ended = threading.Event()
        self.providers: dict[int, weakref.ref[Provider]] = {}
        self.homes: dict[int, weakref.ref[asyncio.AbstractEventLoop]] = {}
        self.working: dict[int, _Asked] = {}
        self.loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
        """Loops that `ottla.aio` is used under."""

    def enter(self, provider: Provider) -> tuple[TokenQueue, int]:
        """A function is to be asked from now on, by this number, until the engine says that nobody uses it."""
        from ottla._ottla import TokenQueue

        new = TokenQueue() if self.queue is None else None
        with self.lock:
            if self.queue is None:
                self.queue = new
            queue = self.queue
        assert queue is not None
        tag = queue.tag()
        self.providers[tag] = weakref.ref(provider)
        return queue, tag

    def used(self, tag: int) -> None:
        """A handle is made with this provider, maybe under a loop."""
        loop = _running()
        if loop is not None:
            self.homes[tag] = weakref.ref(loop)
        self._start()

    def _start(self) -> None:
        """Has the thread run. Whoever is here already sees to that. It may be this very thread, in the middle of a
        signal whose handler makes a handle: nobody waits."""
        if self.ended.is_set() or self._runs() or not self.starting.acquire(blocking=False):
            return
        try:
            queue = self.queue
            if queue is None or self._runs():
                return
            thread = threading.Thread(target=self._run, args=(queue,), name="ottla-tokens", daemon=True)
            try:
                thread.start()
            finally:
                # A signal's handler may have raised after it began.
                if thread.ident is not None:
                    self.thread = thread
        finally:
            self.starting.release()

    def _runs(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def _run(self, queue: TokenQueue) -> None:
        while not queue.closed():
            request = None
            try:
                wanted = queue.next(_WAIT)
                if wanted is not None:
                    request = wanted[3]
                    self._take(*wanted)
            except BaseException as error:
                # Without a net here one error would end all tokens of the process, and nobody would say so.
                _tell()
                if request is not None:
                    request.fail(_words(error))
                else:
                    self.ended.wait(_PAUSE)
            # Nothing of the program's is kept here while nothing comes.
            wanted = request = None

    def _take(self, kind: int, tag: int, number: int, request: TokenRequest | None) -> None:
        self.sweep()
        if kind == _RELEASED:
            self.providers.pop(tag, None)
            self.homes.pop(tag, None)
        elif kind == _GIVEN_UP:
            asked = self.working.get(number)
            if asked is not None:
                asked.give_up()
        elif request is not None and request.wanted():
            known = self.providers.get(tag)
            provider = known() if known is not None else None
            if provider is None:
                request.fail("the token provider is gone: its handles have been collected")
            elif provider.is_async:
                self._on_loop(provider, tag, number, request, None)
            else:
                self._on_thread(provider, tag, number, request)

    def _on_thread(self, provider: Provider, tag: int, number: int, request: TokenRequest) -> None:
        arguments = (provider, tag, number, request)
        try:
            threading.Thread(
                target=self._answer, args=arguments, name="ottla-token", daemon=True
            ).start()
        except RuntimeError:
            # No thread to be had, or the interpreter ends: records that are left want a token still.
            self._answer(*arguments)

    def _answer(self, provider: Provider, tag: int, number: int, request: TokenRequest) -> None:
        import inspect

        try:
            given = provider.function()
            if inspect.isawaitable(given):
                self._on_loop(provider, tag, number, request, given)
            else:
                request.give(given)
        except BaseException as error:
            request.fail(_words(error))

    def _on_loop(
        self,
        provider: Provider,
        tag: int,
        number: int,
        request: TokenRequest,
        given: Awaitable[Any] | None,
    ) -> None:
        loop = self._loop_of(tag)
        if loop is None:
            request.fail("the token provider is to run on an event loop of ottla.aio, and none runs")
            _close(given)
            return
        _Asked(self, provider, request, number, loop, given).start()

    def _loop_of(self, tag: int) -> asyncio.AbstractEventLoop | None:
        """A loop that runs: that of the provider's last handle, else the last one that was seen."""
        for known in (self.homes.get(tag), *reversed(self.loops)):
            loop = known() if known is not None else None
            if loop is not None and loop.is_running():
                return loop
        return None

    def seen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handles of `ottla.aio` are used under this loop."""
        new = weakref.ref(loop)
        with self.lock:
            self.loops = [known for known in self.loops if known() not in (None, loop)] + [new]
        self.sweep()

    def sweep(self) -> None:
        """What ran on a loop that was closed will not end."""
        for asked in list(self.working.values()):
            if asked.loop.is_closed():
                asked.over("the event loop was closed")

    def end(self) -> None:
        """Takes no more requests, and ends the thread."""
        self.ended.set()
        if self.queue is not None:
            self.queue.close()
        if self.thread is not None:
            self.thread.join(_STOP)


def _running() -> asyncio.AbstractEventLoop | None:
    # Who has a loop has imported it.
    asyncio = sys.modules.get("asyncio")
    return asyncio._get_running_loop() if asyncio is not None else None


def _close(given: object) -> None:
    """A coroutine that is not to run would be complained of."""
    import inspect

    if inspect.iscoroutine(given):
        try:
            given.close()
        except BaseException:
            _tell()


def _tell() -> None:
    """What must not happen, for people. There may be nowhere to tell it."""
    try:
        traceback.print_exc()
    except Exception:
        pass


def _words(error: BaseException) -> str:
    """What a program raised, for who waits for a token."""
    try:
        text = str(error)
    except Exception:
        text = ""
    # Names of files that are no UTF-8 have surrogates, which text of the core has not.
    text = text.encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_async(function: object) -> bool:
    """Whether what it gives is to be awaited, as far as it says so itself."""
    import inspect

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)
    )


_desk = _Desk()


def _here() -> _Desk:
    global _desk
    if _desk.pid != os.getpid():
        # A fork that the interpreter did not see.
        _desk = _Desk()
    return _desk


def enter(provider: Provider) -> tuple[TokenQueue, int]:
    return _here().enter(provider)


def used(tag: int) -> None:
    _here().used(tag)


def seen(loop: asyncio.AbstractEventLoop) -> None:
    _here().seen(loop)


def _after_fork_in_child() -> None:
    # Loops of the parent's other threads look as if they ran, and locks may be held for ever.
    global _desk
    _desk = _Desk()


def _at_exit() -> None:
    # After a fork that the interpreter did not see, thread and queue are the parent's.
    if _desk.pid == os.getpid():
        _desk.end()


# Before the flush at exit is registered, so that it comes after it: what is flushed may want a token.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
