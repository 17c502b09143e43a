"""Tokens of OAUTHBEARER that a program gets in its own way.

The engine never calls into the interpreter: a daemon thread of this module takes its requests, and has each answered
by the program's function, on a thread of its own; an `async def` runs on an event loop that uses `ottla.aio`. It starts
with the first handle that has such a function, and ends when the interpreter does.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from ottla._ottla import TokenQueue, TokenRequest

_STOP = 1.0
"""Seconds that the end of the interpreter waits for this module's thread."""

_WAIT = 3600.0
"""Seconds of one look for requests. It ends as soon as there is one."""

_WANTED, _GIVEN_UP, _RELEASED = 1, 2, 3


class _Provider:
    """A program's function, and the loop that it belongs to, if it is an `async def`."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.loop = _running()

    def loop_of(self) -> asyncio.AbstractEventLoop | None:
        """A loop that runs: its own, else the last one that was seen."""
        for known in (self.loop, *reversed(_loops)):
            loop = known() if known is not None else None
            if loop is not None and loop.is_running():
                return loop
        return None


def _running() -> weakref.ref[asyncio.AbstractEventLoop] | None:
    # Who has a loop has imported it.
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    return weakref.ref(loop) if loop is not None else None


_loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
"""Loops that `ottla.aio` is used under."""


def seen(loop: asyncio.AbstractEventLoop) -> None:
    """Handles of `ottla.aio` are used under this loop."""
    _loops[:] = [known for known in _loops if known() not in (None, loop)]
    _loops.append(weakref.ref(loop))


class _Desk:
    """The thread, what it reads from, and who answers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pid = os.getpid()
        self.thread: threading.Thread | None = None
        self.queue: TokenQueue | None = None
        self.last = 0
        self.providers: dict[int, _Provider] = {}
        self.working: dict[int, Future[Any]] = {}
        self.ended = False

    def provider(self, function: Callable[[], Any]) -> tuple[TokenQueue, int]:
        """A function is to be asked from now on, by this number, until the engine says that nobody uses it."""
        from ottla._ottla import TokenQueue

        with self.lock:
            if self.queue is None:
                self.queue = TokenQueue()
            if self.thread is None and not self.ended:
                thread = threading.Thread(target=self._run, name="ottla-tokens", daemon=True)
                thread.start()
                self.thread = thread
            self.last += 1
            self.providers[self.last] = _Provider(function)
            return self.queue, self.last

    def note(self, tag: int) -> None:
        """A handle was made with this provider, maybe under a loop."""
        provider, loop = self.providers.get(tag), _running()
        if provider is not None and loop is not None:
            provider.loop = loop

    def _run(self) -> None:
        queue = self.queue
        while queue is not None:
            wanted = queue.next(_WAIT)
            if wanted is not None:
                self._take(*wanted)
                # Nothing of the program's is kept here while nothing comes.
                del wanted
            elif queue.closed():
                return

    def _take(self, kind: int, tag: int, number: int, request: TokenRequest | None) -> None:
        if kind == _RELEASED:
            self.providers.pop(tag, None)
        elif kind == _GIVEN_UP:
            working = self.working.get(number)
            if working is not None:
                working.cancel()
        elif request is not None and request.wanted():
            provider = self.providers.get(tag)
            if provider is None:
                request.fail("the token provider is gone")
            elif is_async(provider.function):
                self._on_loop(provider, request, number)
            else:
                self._on_thread(provider, request, number)

    def _on_thread(self, provider: _Provider, request: TokenRequest, number: int) -> None:
        def answer() -> None:
            import inspect

            try:
                given = provider.function()
                if inspect.isawaitable(given):
                    self._on_loop(provider, request, number, given)
                else:
                    _give(request, given)
            except BaseException as error:
                request.fail(_words(error))

        try:
            threading.Thread(target=answer, name="ottla-token", daemon=True).start()
        except RuntimeError:
            # No thread to be had, or the interpreter ends: records that are left want a token still.
            answer()

    def _on_loop(
        self,
        provider: _Provider,
        request: TokenRequest,
        number: int,
        given: Awaitable[Any] | None = None,
    ) -> None:
        import asyncio
        import inspect

        async def ask() -> Any:
            return await (provider.function() if given is None else given)

        loop = provider.loop_of()
        if loop is None:
            if inspect.iscoroutine(given):
                given.close()
            request.fail("the token provider is to run on an event loop of ottla.aio, and none runs")
            return
        asked = ask()
        try:
            future = asyncio.run_coroutine_threadsafe(asked, loop)
        except RuntimeError as error:
            # It was closed in this moment.
            asked.close()
            request.fail(_words(error))
            return
        self.working[number] = future

        def answered(future: Future[Any]) -> None:
            self.working.pop(number, None)
            try:
                _give(request, future.result())
            except BaseException as error:
                request.fail(_words(error))

        future.add_done_callback(answered)

    def end(self) -> None:
        """Takes no more requests, and ends the thread."""
        locked = self.lock.acquire(timeout=_STOP)
        self.ended = True
        thread, queue = self.thread, self.queue
        if locked:
            self.lock.release()
        if queue is not None:
            queue.close()
        if thread is not None:
            thread.join(_STOP)


def _give(request: TokenRequest, given: object) -> None:
    request.give(given)


def _words(error: BaseException) -> str:
    """What a program raised, for who waits for a token."""
    try:
        text = str(error)
    except Exception:
        text = ""
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


def provider(function: Callable[[], Any]) -> tuple[TokenQueue, int]:
    return _here().provider(function)


def note(tag: int) -> None:
    _here().note(tag)


def _after_fork_in_child() -> None:
    global _desk
    # Loops of the parent's other threads look as if they ran.
    _loops.clear()
    _desk = _Desk()


def _at_exit() -> None:
    # After a fork that the interpreter did not see, lock and thread are the parent's.
    if _desk.pid == os.getpid():
        _desk.end()


# Before the flush at exit is registered, so that it comes after it: what is flushed may want a token.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
