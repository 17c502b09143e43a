"""The programs beside the tests: the example, and the Python side of the interop matrix."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DEADLINE

import ottla.testing

HERE = Path(__file__).parent


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=2 * DEADLINE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quickstart_starts_its_own_cluster() -> None:
    example = HERE.parents[1] / "examples" / "python" / "quickstart.py"
    out = run(str(example), "--records", "20000")
    assert "each exactly once" in out
    assert "received     20,000 records" in out


def test_the_example_of_groups_starts_its_own_cluster() -> None:
    example = HERE.parents[1] / "examples" / "python" / "groups.py"
    out = run(str(example), "--records", "2000")
    assert "2,000 records handled, 2,000 committed" in out
    assert "assigned" in out


def test_the_example_of_asyncio_starts_its_own_cluster() -> None:
    example = HERE.parents[1] / "examples" / "python" / "asyncio_service.py"
    out = run(str(example), "--records", "500")
    assert "500 receipts, 500 orders committed" in out
    assert "one " in out or "two " in out


def test_the_example_of_a_schema_registry_puts_aside_what_is_none() -> None:
    example = HERE.parents[1] / "examples" / "python" / "schema_registry.py"
    out = run(str(example))
    assert "not sent: the value for topic 'orders' cannot be serialized at 'id': str where the schema has long" in out
    assert "put aside: the value of the record at offset" in out and "3 orders, 1 put aside" in out


def test_the_example_of_a_web_service_loses_nothing_that_it_accepted() -> None:
    pytest.importorskip("fastapi")
    example = HERE.parents[1] / "examples" / "python" / "fastapi_service.py"
    out = run(str(example), "--orders", "500")
    assert out.startswith("2 workers accepted ") and "all are in the log, none twice" in out


def test_what_interop_writes_it_reads(
    broker: ottla.testing.Broker, topic: str, tmp_path: Path
) -> None:
    def data(content: bytes | None) -> bytes:
        return struct.pack("<i", -1 if content is None else len(content)) + (content or b"")

    def record(
        partition: int, offset: int, key: bytes | None, value: bytes | None, *headers: bytes
    ) -> bytes:
        place = struct.pack("<iq", partition, offset)
        return place + data(key) + data(value) + struct.pack("<I", len(headers)) + b"".join(headers)

    name = struct.pack("<I", 2) + "ä".encode()
    headers = [name + data(None), name + data(b""), name + data(b"x")]
    large = bytes(range(256)) * 3900

    given, got = tmp_path / "given", tmp_path / "got"
    given.write_bytes(
        record(0, -1, None, None)
        + record(0, -1, b"", b"", *headers)
        + record(1, -1, b"k" * 300, large)
    )
    run(str(HERE / "interop.py"), "write", broker.bootstrap, topic, str(given), "none")
    run(str(HERE / "interop.py"), "read", broker.bootstrap, topic, "3", str(got))
    read = got.read_bytes()
    assert record(0, 0, None, None) in read
    assert record(0, 1, b"", b"", *headers) in read
    assert record(1, 0, b"k" * 300, large) in read
    assert len(read) == len(given.read_bytes())
