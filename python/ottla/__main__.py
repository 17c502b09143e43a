"""`python -m ottla`: which version this is, on what, and whether it works here. For reports: no name of the machine, its users,
files or network is in it, and no secret."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import sysconfig
import time
from collections.abc import Callable
from typing import Any

import ottla
import ottla.testing

DEADLINE = 20.0
"""Seconds for each check. They take milliseconds."""

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

BESIDE = ("confluent-kafka", "aiokafka", "kafka-python", "uvloop", "pyarrow", "polars", "pandas", "fastavro", "protobuf")
"""Packages that matter for how this one is used."""


def versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in BESIDE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def about() -> dict[str, Any]:
    libc = " ".join(platform.libc_ver()).strip()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "ottla": ottla.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}"
        + ("" if gil else ", without the GIL"),
        "platform": sysconfig.get_platform() + (f", {libc}" if libc else ""),
        "kernel": f"{platform.system()} {platform.release()}",
        "beside": versions(),
    }


def round_trip(**settings: Any) -> None:
    """What one end writes the other reads, by each codec."""
    users = {"self-check": "self-check"}
    secured = settings.pop("tls", False)
    with ottla.testing.Broker(brokers=1, tls=secured, sasl=users if secured else None) as broker:
        handles: dict[str, Any] = {}
        if secured:
            handles = {"tls": ottla.Tls(ca=broker.ca), "sasl": ottla.Scram("SHA-512", "self-check", "self-check")}
        broker.create_topic("self-check")
        sent = [b"%d of the check " % number * 50 for number in range(100)]
        with ottla.Producer(broker.bootstrap, **settings, **handles) as producer:
            producer.send_many("self-check", sent).result(timeout=DEADLINE)
        with ottla.Consumer(broker.bootstrap, topics=["self-check"], **handles) as consumer:
            came = [record.value for record in consumer.records(DEADLINE, until={("self-check", 0): len(sent)})]
        if came != sent:
            raise AssertionError(f"{len(came)} records came, or others than were sent")


def grouped() -> None:
    """A member of a group commits what it has read."""
    with ottla.testing.Broker(brokers=1) as broker:
        broker.create_topic("self-check")
        with ottla.Producer(broker.bootstrap) as producer:
            producer.send("self-check", b"x").result(timeout=DEADLINE)
        with ottla.Consumer(broker.bootstrap, group="self-check", topics=["self-check"]) as consumer:
            record = consumer.next(timeout=DEADLINE)
            if record is None:
                raise AssertionError("the record did not come")
            record.ack()
        group = broker.group("self-check")
        if group is None or group.committed != {("self-check", 0): 1}:
            raise AssertionError(f"the group has {group}")


def awaited() -> None:
    """A record by asyncio."""
    import asyncio

    from ottla import aio

    async def main() -> None:
        with ottla.testing.Broker(brokers=1) as broker:
            broker.create_topic("self-check")
            async with aio.Producer(broker.bootstrap) as producer:
                await asyncio.wait_for(producer.send_and_wait("self-check", b"x"), DEADLINE)

    asyncio.run(main())


CHECKS: dict[str, Callable[[], None]] = {
    **{f"codec {codec}": lambda codec=codec: round_trip(compression=codec) for codec in CODECS},  # type: ignore[misc]
    "TLS and SCRAM": lambda: round_trip(tls=True),
    "group": grouped,
    "asyncio": awaited,
}


def check(name: str) -> dict[str, Any]:
    begun = time.monotonic()
    try:
        CHECKS[name]()
        said = None
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return {"check": name, "ok": said is None, "said": said, "ms": round((time.monotonic() - begun) * 1000)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ottla",
        description="Tells version and platform, and checks that Ottla works here, with a cluster inside of this process.",
    )
    parser.add_argument("--version", action="version", version=f"ottla {ottla.__version__}")
    parser.add_argument("--json", action="store_true", help="for programs")
    wanted = parser.parse_args(arguments)
    report = about()
    if not wanted.json:
        for name in ("ottla", "python", "platform", "kernel"):
            print(f"{name:<10} {report[name]}")
        beside = ", ".join(f"{name} {version}" for name, version in report["beside"].items())
        print(f"{'beside':<10} {beside or 'nothing that matters'}\n")
    checks = []
    for name in CHECKS:
        checks.append(outcome := check(name))
        if not wanted.json:
            print(f"{name:<14} {'ok' if outcome['ok'] else outcome['said']}   {outcome['ms']} ms", flush=True)
    if wanted.json:
        print(json.dumps(report | {"checks": checks}, indent=1))
    return 0 if all(outcome["ok"] for outcome in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
