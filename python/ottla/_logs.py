"""What the client has to say, handed to Python's logging.

The engine never calls into the interpreter: a daemon thread of this module takes its lines and gives
them to the loggers `ottla.net`, `ottla.cluster`, `ottla.producer` and `ottla.consumer`. It starts with
the first handle that is made while any of them takes anything, and ends when the interpreter does.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ottla._ottla import LogReader

_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG, 5: 5}
"""The engine's numbers: from errors to a line for every batch, below DEBUG."""

_LOGGERS = [
    logging.getLogger(name)
    for name in ("ottla.cluster", "ottla.consumer", "ottla.net", "ottla.producer")
]

_LOOK = 1.0
"""Seconds until a level that a program has changed is noticed."""

_STOP = 1.0
"""Seconds that the end of the interpreter waits for a handler that does not come back."""


def _wanted() -> int:
    """The least important level that any logger takes; 0 for none."""
    takes = (
        number
        for number, level in _LEVELS.items()
        if any(logger.isEnabledFor(level) for logger in _LOGGERS)
    )
    return max(takes, default=0)


class _Drain:
    """The thread and what it reads from."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pid = os.getpid()
        self.thread: threading.Thread | None = None
        self.reader: LogReader | None = None
        self.ended = False

    def watch(self) -> None:
        """Starts the thread, if it is of use and there is none."""
        # Whoever is here already starts it. It may be this very thread, in the middle of a signal whose
        # handler makes a handle: nobody waits.
        if not self.lock.acquire(blocking=False):
            return
        try:
            if self.ended or self.thread is not None or not _wanted():
                return
            thread = threading.Thread(target=self._run, name="ottla-logs", daemon=True)
            try:
                self.reader = _open(_wanted())
                thread.start()
            except BaseException:
                # No thread to be had, the interpreter ends, or a signal's handler raised: the next
                # handle tries again, unless the thread is there all the same.
                if thread.is_alive():
                    self.thread = thread
                else:
                    self.reader = None
                raise
            self.thread = thread
        finally:
            self.lock.release()

    def _run(self) -> None:
        level = _wanted()
        while (reader := self.reader) is not None:
            line = reader.next(_LOOK)
            if line is not None:
                _tell(*line)
            elif reader.closed():
                return
            if (wanted := _wanted() or level) != level:
                level = wanted
                self._reopen(reader, level)

    def _reopen(self, old: LogReader, level: int) -> None:
        with self.lock:
            if self.ended:
                return
            try:
                self.reader = _open(level)
            except Exception:
                # No descriptors left, for example: the old one goes on.
                return
        old.close()
        while (line := old.next(0)) is not None:
            _tell(*line)

    def end(self) -> None:
        """Takes what was said until now, and ends the thread."""
        # Who makes a handle in this moment, on another thread, is not waited for longer than a handler.
        locked = self.lock.acquire(timeout=_STOP)
        self.ended = True
        thread, reader = self.thread, self.reader
        if locked:
            self.lock.release()
        if reader is not None:
            reader.close()
        if thread is not None:
            thread.join(_STOP)


def _open(level: int) -> LogReader:
    from ottla._ottla import LogReader

    return LogReader(level)


def _tell(number: int, target: str, text: str, time: float, lost: int) -> None:
    try:
        logger = logging.getLogger(target.replace("::", "."))
        if lost:
            logger.warning("%d lines were lost: they came faster than they were taken", lost)
        level = _LEVELS.get(number, logging.INFO)
        if logger.isEnabledFor(level):
            record = logger.makeRecord(logger.name, level, target, 0, text, (), None)
            record.created, record.msecs = time, time % 1 * 1000
            logger.handle(record)
    except Exception:
        # A filter of the program's: what it raises is not worth the lines that follow.
        if logging.raiseExceptions:
            traceback.print_exc()


_drain = _Drain()


def watch() -> None:
    """Called for every handle that is made. What is told is no reason for one not to be."""
    global _drain
    if _drain.pid != os.getpid():
        # A fork that the interpreter did not see.
        _drain = _Drain()
    try:
        _drain.watch()
    except Exception:
        pass


def _after_fork_in_child() -> None:
    global _drain
    _drain = _Drain()


def _at_exit() -> None:
    # After a fork that the interpreter did not see, lock and thread are the parent's.
    if _drain.pid == os.getpid():
        _drain.end()


# Before the flush at exit is registered, so that it comes after it.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
