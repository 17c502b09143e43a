"""The pytest plugin, in runs of pytest's own; and `python -m ottla`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DEADLINE

import ottla


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Of this run nothing is to be known in the inner one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
    )


def pytest_of(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_inner.py").write_text(code)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error\n")
    return run(folder, "-m", "pytest", "-q")


FIXTURES = """
import ottla, ottla.testing, pytest

pytestmark = pytest.mark.ottla(racks=["a"])
seen = set()

def trip(broker, **settings):
    broker.create_topic("events")
    with ottla.Producer(broker.bootstrap, **settings) as producer:
        # Nothing of another test is there.
        assert producer.send("events", b"x").result(timeout=10).offset == 0
    assert broker.bootstrap not in seen
    seen.add(broker.bootstrap)

@pytest.mark.parametrize("number", [1, 2])
def test_one(ottla_broker, number):
    assert len(ottla_broker.bootstrap.split(",")) == 1
    trip(ottla_broker)

@pytest.mark.ottla(racks=["a", "b", "c"])
def test_three(ottla_cluster):
    assert len(ottla_cluster.bootstrap.split(",")) == 3
    trip(ottla_cluster)

def test_a_registry(ottla_schema_registry):
    from ottla.schema_registry import RegistryClient, Schema
    with RegistryClient(ottla_schema_registry.url) as client:
        assert client.subjects() == [] and client.register("s", Schema('"int"')) == 1

@pytest.mark.ottla(sasl={"alice": "p"}, tls=True)
class TestSecured:
    @pytest.mark.ottla(sasl={"bob": "q"})
    def test_the_nearest_counts(self, ottla_broker):
        trip(ottla_broker, tls=ottla.Tls(ca=ottla_broker.ca), sasl=ottla.Plain("bob", "q"))
"""


def test_each_test_has_a_cluster_of_its_own(tmp_path: Path) -> None:
    done = pytest_of(tmp_path, FIXTURES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_a_mark_with_what_it_does_not_take_says_so(tmp_path: Path) -> None:
    done = pytest_of(
        tmp_path,
        "import pytest\n@pytest.mark.ottla(3)\ndef test_one(ottla_broker): pass\n"
        "@pytest.mark.ottla(brokes=3)\ndef test_two(ottla_broker): pass\n",
    )
    assert done.returncode == 1 and "2 errors" in done.stdout
    assert "takes keywords, those of ottla.testing.Broker, and not (3,)" in done.stdout
    assert "brokes" in done.stdout


def test_the_report(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "ottla")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["ottla", ottla.__version__]
    for name in ("codec zstd", "codec gzip", "TLS and SCRAM", "group", "asyncio"):
        [line] = [line for line in lines if line.startswith(name)]
        assert line.removeprefix(name).split()[0] == "ok"
    # What says where this is and whose it is has no place in it.
    for private in (str(Path.home()), os.uname().nodename, str(tmp_path)):
        assert private not in done.stdout


def test_the_report_for_programs(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "ottla", "--json")
    report = json.loads(done.stdout)
    assert report["ottla"] == ottla.__version__
    assert report["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert {check["check"] for check in report["checks"]} >= {"codec none", "codec lz4", "group"}
    assert all(check["ok"] for check in report["checks"])
    assert run(tmp_path, "-m", "ottla", "--version").stdout == f"ottla {ottla.__version__}\n"


def test_a_check_that_fails_says_why_and_is_told_by_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ottla import __main__ as report

    def fails() -> None:
        raise ottla.ConnectError("nobody answers")

    monkeypatch.setitem(report.CHECKS, "group", fails)
    assert report.main([]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("group")]
    assert "ConnectError: nobody answers" in line


def test_a_web_server_is_loaded_for_who_wants_a_registry(tmp_path: Path) -> None:
    code = """
import sys
import ottla.pytest_plugin, ottla.testing
assert "http.server" not in sys.modules and "http.client" not in sys.modules
assert not hasattr(ottla.testing, "Registry")
from ottla.testing import *
assert "http.server" in sys.modules and SchemaRegistry is ottla.testing.SchemaRegistry
"""
    done = run(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
