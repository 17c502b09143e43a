"""The programs beside the tests: the example, and the Python side of the interop matrix."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

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


def test_what_interop_writes_it_reads(
    broker: ottla.testing.Broker, topic: str, tmp_path: Path
) -> None:
    def pack(data: bytes | None) -> str | None:
        return None if data is None else base64.b64encode(data).decode()

    rows = [
        {"key": pack(key), "value": pack(value), "headers": headers, "partition": i % 3}
        for i, (key, value, headers) in enumerate(
            [
                (None, None, []),
                (b"", b"", [["a", None], ["a", pack(b"")], ["a", pack(b"x")]]),
                (b"k" * 300, bytes(range(256)) * 4000, []),
            ]
        )
    ]
    given, got = tmp_path / "given", tmp_path / "got"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(str(HERE / "interop.py"), "write", broker.bootstrap, topic, str(given), "none")
    run(str(HERE / "interop.py"), "read", broker.bootstrap, topic, "3", str(got))
    read = [json.loads(line) for line in got.read_text().splitlines()]
    read.sort(key=lambda row: row["partition"])
    assert [{name: row[name] for name in rows[0]} for row in read] == rows
