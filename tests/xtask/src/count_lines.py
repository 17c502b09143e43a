"""Notes which lines of the package run, in every process of the tests: `cargo xtask coverage` lays this
beside the package as `sitecustomize`, which an interpreter imports when it starts."""

import os
import sys
import threading
from types import CodeType

NOTES = os.environ.get("OTTLA_COVERAGE_NOTES")
# Links to the sources, which are what is noted.
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ottla") + os.sep


def begin(notes):
    # Each note is one write that appends: processes fork, are killed, and end without a word.
    out = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    # A test that gives its rights up writes its counts all the same.
    os.umask(0)
    seen = set()

    def note(file, lines, ran):
        counts = "".join(f"DA:{line},{ran}\n" for line in lines)
        os.write(out, f"SF:{os.readlink(file)}\n{counts}".encode())

    def lines_of(code):
        yield from (line for *_, line in code.co_lines() if line)
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                yield from lines_of(inner)

    def call(frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith(FOLDER):
            return None
        if code.co_name == "<module>":
            note(code.co_filename, sorted(set(lines_of(code))), 0)
        return line

    def line(frame, event, argument):
        here = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and here not in seen:
            seen.add(here)
            note(here[0], [here[1]], 1)
        return line

    threading.settrace(call)
    sys.settrace(call)


if NOTES:
    begin(NOTES)
