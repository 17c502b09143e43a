"""What the client has to say reaches Python's logging at once, and holds nobody up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import DEADLINE, Program

import ottla
from ottla import _ottla

TROUBLE = """
import logging, os, sys, threading, time
import ottla

def trouble():
    # Nobody listens there: the client says so while the call waits.
    try:
        ottla.Producer("127.0.0.1:1", connect_timeout=0.5)
    except ottla.ConnectError:
        return
    raise AssertionError("somebody listens")

def drains():
    return [thread for thread in threading.enumerate() if thread.name == "ottla-logs"]

def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)

class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []
    def emit(self, record):
        self.records.append(record)
"""


def test_a_warning_reaches_the_handlers_of_a_program(program: Callable[..., Program]) -> None:
    child = program(
        TROUBLE
        + """
lines = Lines()
logging.getLogger("ottla.net").addHandler(lines)
before = time.time()
trouble()
until(lambda: lines.records)
first = lines.records[0]
assert first.name == "ottla.net" and first.levelno == logging.WARNING, first
assert "127.0.0.1:1" in first.getMessage(), first.getMessage()
assert before - 1 < first.created < time.time() + 1
assert len(drains()) == 1 and drains()[0].daemon
trouble()
assert len(drains()) == 1
"""
    )
    assert child.end()[:2] == (0, "")


def test_without_any_logging_warnings_go_to_standard_error(
    program: Callable[..., Program],
) -> None:
    child = program(TROUBLE + "trouble()")
    status, out, errors = child.end()
    assert (status, out) == (0, "") and "127.0.0.1:1" in errors


def test_who_wants_nothing_has_no_thread(program: Callable[..., Program]) -> None:
    child = program(
        TROUBLE
        + """
logging.getLogger("ottla").setLevel(logging.CRITICAL)
trouble()
assert not drains()
logging.getLogger("ottla").setLevel(logging.NOTSET)
logging.disable(logging.CRITICAL)
trouble()
assert not drains()
# Whoever makes up his mind has one with the next handle.
logging.disable(logging.NOTSET)
trouble()
assert drains()
"""
    )
    status, out, _ = child.end()
    assert (status, out) == (0, "")


def test_a_level_that_changes_is_noticed(program: Callable[..., Program]) -> None:
    child = program(
        TROUBLE
        + """
import ottla.testing
broker = ottla.testing.Broker()
broker.create_topic("t")
lines = Lines()
logging.getLogger("ottla").addHandler(lines)
producer = ottla.Producer(broker.bootstrap)
assert drains()
producer.send("t", b"x").result(timeout=30)
assert not lines.records
# Every batch is worth a line to who wants it.
logging.getLogger("ottla.producer").setLevel(5)
def told():
    producer.send("t", b"x").result(timeout=30)
    return lines.records
until(told)
assert {(record.name, record.levelno) for record in lines.records} == {("ottla.producer", 5)}
"""
    )
    status, out, _ = child.end()
    assert (status, out) == (0, "")


def test_a_forked_child_has_a_thread_of_its_own(program: Callable[..., Program]) -> None:
    child = program(
        TROUBLE
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that threads exist at a fork is the point
lines = Lines()
logging.getLogger("ottla").addHandler(lines)
trouble()
until(lambda: lines.records)
pid = os.fork()
if pid == 0:
    assert not drains()
    lines.records.clear()
    trouble()
    until(lambda: lines.records)
    assert drains()
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
"""
    )
    assert child.end() == (0, "", "")


@pytest.mark.parametrize(
    "handler",
    ["raise RuntimeError('a handler fails')", "time.sleep(0.3)", "os.getpid()"],
)
def test_no_handler_holds_up_the_end(program: Callable[..., Program], handler: str) -> None:
    child = program(
        TROUBLE
        + f"""
class Bad(logging.Handler):
    def emit(self, record):
        print("said", flush=True)
        {handler}


logging.getLogger("ottla").addHandler(Bad())
trouble()
"""
    )
    assert child.line() == "said"
    assert child.end()[0] == 0


def test_a_signal_handler_may_make_a_handle_while_one_is_made(
    program: Callable[..., Program],
) -> None:
    child = program(
        TROUBLE
        + """
import ottla._logs
opened, handled = ottla._logs._open, []

def handler(number, frame):
    trouble()
    handled.append(number)

def open_in_the_middle_of_a_signal(level):
    reader = opened(level)
    if not handled:
        signal.raise_signal(signal.SIGUSR1)
    return reader

signal.signal(signal.SIGUSR1, handler)
ottla._logs._open = open_in_the_middle_of_a_signal
lines = Lines()
logging.getLogger("ottla").addHandler(lines)
trouble()
assert handled and len(drains()) == 1
until(lambda: lines.records)
"""
    )
    assert child.end() == (0, "", "")


def test_a_handler_that_raises_while_a_handle_is_made_costs_no_lines(
    program: Callable[..., Program],
) -> None:
    child = program(
        TROUBLE
        + """
start = threading.Thread.start

def interrupted(thread):
    threading.Thread.start = start
    signal.raise_signal(signal.SIGINT)
    start(thread)

threading.Thread.start = interrupted
lines = Lines()
logging.getLogger("ottla").addHandler(lines)
try:
    trouble()
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("it was not interrupted")
trouble()
until(lambda: lines.records)
"""
    )
    assert child.end() == (0, "", "")


def test_a_child_that_was_forked_while_a_handle_was_made_ends(
    program: Callable[..., Program],
) -> None:
    child = program(
        TROUBLE
        + """
import ctypes
import ottla._logs
opened, inside, goes_on = ottla._logs._open, threading.Event(), threading.Event()

def slow(level):
    inside.set()
    goes_on.wait(30)
    return opened(level)

ottla._logs._open = slow
logging.getLogger("ottla").addHandler(Lines())
other = threading.Thread(target=trouble, daemon=True)  # or the child would wait for it
other.start()
assert inside.wait(30)
# Behind the interpreter's back, which would begin anew.
pid = ctypes.CDLL(None).fork()
if pid == 0:
    signal.alarm(20)
    sys.exit(0)
_, status = os.waitpid(pid, 0)
goes_on.set()
other.join(30)
assert os.waitstatus_to_exitcode(status) == 0, status
"""
    )
    assert child.end() == (0, "", "")


def test_a_filter_that_fails_does_not_end_the_thread(program: Callable[..., Program]) -> None:
    child = program(
        TROUBLE
        + """
class Bad(logging.Filter):
    calls = 0
    def filter(self, record):
        self.calls += 1
        raise RuntimeError("a filter fails")

bad = Bad()
logging.getLogger("ottla.net").addFilter(bad)
trouble()
until(lambda: bad.calls)
seen = bad.calls
trouble()
until(lambda: bad.calls > seen)
"""
    )
    status, out, errors = child.end()
    assert (status, out) == (0, "") and "a filter fails" in errors


def test_what_is_said_at_the_end_is_still_told(program: Callable[..., Program]) -> None:
    child = program(
        TROUBLE
        + """
import ottla.testing
broker = ottla.testing.Broker()
broker.create_topic("t")
producer = ottla.Producer(broker.bootstrap, delivery_timeout=0.3)
broker.stop_broker(1, move_leaders=False)
logging.basicConfig(stream=sys.stdout, format="%(name)s")
producer.send("t", b"x")
"""
    )
    status, out, _ = child.end()
    assert status == 0 and "ottla." in out


def test_a_line_as_a_handler_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    from ottla import _logs

    caplog.set_level(logging.INFO, "ottla.net")
    _logs._tell(3, "ottla::net", "a connection was lost", 1_700_000_000.25, 7)
    _logs._tell(4, "ottla::net", "too little", 1.0, 0)
    lost, line = caplog.records
    assert lost.levelno == logging.WARNING and lost.getMessage().startswith("7 lines were lost")
    assert (line.name, line.levelno, line.getMessage()) == ("ottla.net", logging.INFO, "a connection was lost")
    assert (line.created, line.msecs) == (1_700_000_000.25, 250.0)
    for number, level in {1: logging.ERROR, 2: logging.WARNING, 5: 5}.items():
        caplog.clear()
        caplog.set_level(1, "ottla.net")
        _logs._tell(number, "ottla::net", "100 % of it", 1.0, 0)
        assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(level, "100 % of it")]


def test_lines_that_found_no_room_are_counted(producer: ottla.Producer, topic: str) -> None:
    def sends(batches: int) -> None:
        for _ in range(batches):
            producer.send(topic, b"x").result(timeout=DEADLINE)

    # Every batch is worth a line, and nobody takes them until there are more than 1024.
    reader = _ottla.LogReader(5)
    sends(1100)
    lines = []
    while line := reader.next(0):
        lines.append(line)
    sends(1)
    while not any(line[4] for line in lines):
        line = reader.next(DEADLINE)
        assert line is not None, "no line says how many are missing"
        lines.append(line)
    reader.close()
    assert len(lines) + sum(line[4] for line in lines) >= 1101


def test_a_change_of_levels_loses_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ottla import _logs

    class Old:
        lines: list[Any] = [(2, "ottla::net", "first", 1.0, 0), (2, "ottla::net", "second", 1.0, 0)]
        closed = False

        def close(self) -> None:
            self.closed = True

        def next(self, timeout: float) -> Any:
            assert self.closed and timeout == 0
            return self.lines.pop(0) if self.lines else None

    old: Any = Old()
    drain = _logs._Drain()
    monkeypatch.setattr(_logs, "_open", lambda level: f"a reader of level {level}")
    drain._reopen(old, 4)
    assert drain.reader == "a reader of level 4" and old.closed
    assert [record.getMessage() for record in caplog.records] == ["first", "second"]


def test_a_change_of_levels_that_fails_leaves_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    from ottla import _logs

    class Old:
        closed = False

        def close(self) -> None:
            self.closed = True

    def no_descriptors(level: int) -> Any:
        raise ottla.OutOfResourcesError("none left")

    old: Any = Old()
    drain = _logs._Drain()
    drain.reader = old
    monkeypatch.setattr(_logs, "_open", no_descriptors)
    drain._reopen(old, 4)
    assert drain.reader is old and not old.closed
    # Nor does one that comes as the interpreter ends open anything.
    monkeypatch.setattr(_logs, "_open", lambda level: f"a reader of level {level}")
    drain.ended = True
    drain._reopen(old, 4)
    assert drain.reader is old and not old.closed


def test_a_thread_that_started_before_a_handler_raised_is_the_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ottla import _logs

    class Reader:
        done = threading.Event()

        def next(self, timeout: float) -> None:
            assert self.done.wait(DEADLINE)

        def closed(self) -> bool:
            return True

    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    drain, reader = _logs._Drain(), Reader()
    monkeypatch.setattr(_logs, "_open", lambda level: reader)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            drain.watch()
    thread = drain.thread
    assert thread is not None and drain.reader is reader
    drain.watch()
    assert drain.thread is thread
    reader.done.set()
    thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.mark.parametrize("told", [False, True])
def test_a_program_that_hears_of_no_failures_of_logging_hears_of_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: bool
) -> None:
    from ottla import _logs

    def fails(record: logging.LogRecord) -> bool:
        raise RuntimeError("a filter fails")

    logger = logging.getLogger("ottla.net")
    monkeypatch.setattr(logging, "raiseExceptions", told)
    logger.addFilter(fails)
    try:
        _logs._tell(1, "ottla::net", "text", 1.0, 0)
    finally:
        logger.removeFilter(fails)
    assert ("a filter fails" in capsys.readouterr().err) == told
