#!/usr/bin/env python3
"""Plants faults and sees which tests notice.

Each `*.toml` in this folder lists faults: a place in a file, what stands there, and what stands there
instead while the fault is on. All of them are built at once into a copy of the tree (target/faults),
where each is off until OTTLA_FAULT names it; so a fault costs the time of the tests that find it,
not a build. README.md of tests/ says how to read what comes out.

    python3 tests/faults/faults.py check                  # every place is still there, once
    python3 tests/faults/faults.py run [NAME|FILE ...]    # the test that a fault names, then all
    python3 tests/faults/faults.py run --directed [...]   # the test that it names, and no other
    python3 tests/faults/faults.py run some/faults.toml   # those of a file that is no part of the catalogue

"All" are those that come past the fault, where that can be told: one run of the tests of Rust and Python with
every fault off notes which tests look at which switch.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import switches
from planting import OPEN, PLACE, TARGET, TREE, Stale, catalogue, plant, sync

# So many tests that come past a fault are run before more are.
PART = 60

# A run of tests that takes longer than this hangs, and nothing ended it.
LIMIT = {"rust": 600, "c": 300, "python": 600, "go": 700}

NOT_REAL = "not (test(real_) or test(foreign_broker_))"
WORKSPACE = ["--workspace", "--exclude", "ottla-python"]


class NoSuchTest(Exception):
    """The test that a fault names is not there."""


def environment(name=""):
    env = dict(os.environ)
    env["CARGO_TARGET_DIR"] = str(TARGET)
    # What is installed for C is a release build: quickly built matters more here than quick.
    env["CARGO_PROFILE_RELEASE_OPT_LEVEL"] = "1"
    env["CARGO_PROFILE_RELEASE_DEBUG"] = "false"
    env.pop(switches.NAME, None)
    if name:
        env[switches.NAME] = name
    return env


def tools():
    """Where cargo-nextest is: as `cargo xtask test` fetched it, or on the path."""
    found = shutil.which("cargo-nextest")
    cache = pathlib.Path(os.environ.get("OTTLA_CACHE", pathlib.Path.home() / ".cache/ottla"))
    for path in sorted(cache.glob("venvs/cargo-tools-*/bin/cargo-nextest")):
        found = found or str(path)
    if not found:
        raise SystemExit("no cargo-nextest: `cargo xtask test --only rust` fetches it")
    return found


def tell(command, name, limit, cwd=TREE, more=None):
    """Runs to its end or limit, in a process group of its own; status (None: limit) and output."""
    env = environment(name) | (more or {})
    # Of its own: several runs may share the place, once it is built.
    log = PLACE / f"output-{os.getpid()}"
    with open(log, "wb") as out:
        child = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = None
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    text = log.read_text(errors="replace")
    log.unlink()
    return status, text


def must(command, what, **options):
    status, output = tell(command, "", 3600, **options)
    if status != 0:
        print(output[-12000:])
        raise SystemExit(f"{what}: failed without any fault")
    return output


def first(tests, seconds):
    """The quickest of them first, a part at a time: one of them mostly is enough."""
    tests = sorted(tests, key=lambda test: seconds.get(test, 0.0))
    while tests:
        yield tests[:PART]
        tests = tests[PART:]


class Rust:
    """nextest, on what was built once."""

    def reach(self, seen):
        status, output = tell(self.command(NOT_REAL, "--no-fail-fast"), "", 1800, more={switches.REACHED: str(seen)})
        if status not in (0, 100):
            print(output[-4000:])
            raise SystemExit(f"nextest ended with {status}")
        # Taking notes takes memory, which some tests count.
        took = re.findall(r"^\s+(?:PASS|FAIL) \[\s*([\d.]+)s\](?: \([^)]*\))? (\S+) (\S+)$", output, re.M)
        return {f"{binary} {test}": float(seconds) for seconds, binary, test in took}

    def build(self):
        nextest = tools()
        must([nextest, "nextest", "run", *WORKSPACE, "--no-run"], "building the tests")
        listed = subprocess.run(
            [nextest, "nextest", "list", *WORKSPACE, "--list-type", "binaries-only", "--message-format", "json"],
            cwd=TREE, env=environment(), check=True, capture_output=True, text=True,
        )
        (PLACE / "binaries.json").write_text(listed.stdout)
        metadata = subprocess.run(
            ["cargo", "metadata", "--format-version", "1"],
            cwd=TREE, env=environment(), check=True, capture_output=True, text=True,
        )
        (PLACE / "cargo.json").write_text(metadata.stdout)

    def command(self, filter_, *more):
        return [
            tools(), "nextest", "run", "--binaries-metadata", str(PLACE / "binaries.json"),
            "--cargo-metadata", str(PLACE / "cargo.json"), "-E", filter_, "--no-tests", "fail", *more,
        ]

    def either(self, tests):
        return " or ".join(f"({test})" for test in tests)

    def run_those(self, name, tests):
        pairs = [test.split(" ") for test in tests]
        return self.run(name, " or ".join(f"(binary_id(={b}) and test(={t}))" for b, t in pairs))

    def run(self, name, test):
        filter_ = f"({test}) and ({NOT_REAL})" if test else NOT_REAL
        status, output = tell(self.command(filter_), name, LIMIT["rust"])
        failed = re.findall(r"^\s+(?:FAIL|TIMEOUT|SIG\w+|ABORT)\s+\[[^\]]*\](?: \([^)]*\))? (.+)$", output, re.M)
        hung = status is None or bool(re.search(r"^\s+TIMEOUT ", output, re.M))
        if status == 4:
            raise NoSuchTest(test)
        if status not in (0, 100, None):
            print(output[-4000:])
            raise SystemExit(f"{name}: nextest ended with {status}")
        return status != 0, failed, hung


def lay_out():
    """The C library, as `cargo xtask dist` lays it out."""
    must(["cargo", "xtask", "dist"], "building the C library")
    return TARGET / "ottla-dist"


class C:
    """The programs of c-api/tests/c, compiled against what was laid out."""

    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-g"]
    # As `cargo xtask test` has them: what forks goes without the first.
    address = ["-fsanitize=address", "-fno-omit-frame-pointer"]

    def build(self):
        dist = lay_out()
        (PLACE / "c").mkdir(exist_ok=True)
        for source in sorted((TREE / "c-api/tests/c").glob("test_*.c")):
            address = [] if source.stem == "test_forks" else self.address
            command = ["cc", *self.flags, *address, "-I", str(dist / "include"), str(source)]
            command += ["-o", str(PLACE / "c" / source.stem), "-L", str(dist / "lib"), "-lottla"]
            must([*command, f"-Wl,-rpath,{dist}/lib", "-lpthread"], f"compiling {source.name}")

    def either(self, tests):
        return "|".join(tests)

    def run(self, name, test):
        ran = False
        for program in sorted((PLACE / "c").glob("test_*")):
            if test and program.name not in test.split("|"):
                continue
            ran = True
            status, output = tell([str(program)], name, LIMIT["c"])
            if status != 0:
                said = re.findall(r"^FAILED (.*)$|^(HANGS .*)$", output, re.M)
                said = ["".join(one) for one in said] or output.strip().splitlines()[-1:]
                return True, [program.name, *said], status is None or "\nHANGS " in f"\n{output}"
        if not ran:
            raise NoSuchTest(test)
        return False, [], False


class Python:
    """pytest, with the package laid out without a wheel: the module is linked in seconds so."""

    def tools(self):
        """An interpreter that has pytest: the one that `cargo xtask test` fetches it for."""
        cache = pathlib.Path(os.environ.get("OTTLA_CACHE", pathlib.Path.home() / ".cache/ottla"))
        for python in sorted(cache.glob("venvs/python-tools-*/bin/python")):
            if subprocess.run([python, "-c", "import pytest"], capture_output=True).returncode == 0:
                return python
        raise SystemExit("no pytest: `cargo xtask test --only python` fetches it")

    def build(self):
        python = {"PYO3_PYTHON": str(self.tools())}
        features = ["--features", "extension-module,testing"]
        must(["cargo", "build", "-p", "ottla-python", *features], "building for Python", more=python)
        package = PLACE / "python/ottla"
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(TREE / "python/ottla", package)
        for made in ("lib_ottla.so", "lib_ottla.dylib"):
            if (TARGET / "debug" / made).exists():
                shutil.copy(TARGET / "debug" / made, package / "_ottla.abi3.so")

    def pytest(self, name, *arguments, **more):
        command = [str(self.tools()), "-P", "-m", "pytest", "-q", "-m", "not kafka", "-p", "no:cacheprovider"]
        more |= {"PYTHONPATH": str(PLACE / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
        return tell([*command, *arguments], name, LIMIT["python"], cwd=TREE / "python", more=more)

    def reach(self, seen):
        status, output = self.pytest("", "--durations=0", **{switches.REACHED: str(seen)})
        if status != 0:
            print(output[-4000:])
            raise SystemExit("the tests fail without any fault")
        took = re.findall(r"^([\d.]+)s call +(\S.*)$", output, re.M)
        return {test: float(seconds) for seconds, test in took}

    def either(self, tests):
        return " or ".join(f"({test})" for test in tests)

    def run_those(self, name, tests):
        return self.judged(*self.pytest(name, "-x", *tests), None)

    def run(self, name, test):
        return self.judged(*self.pytest(name, "-x", *(["-k", test] if test else [])), test)

    def judged(self, status, output, test):
        if status == 5:
            raise NoSuchTest(test)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
        hung = status is None or bool(re.search(r"^FAILED .* HANGS |^Timeout \(", output, re.M))
        return status != 0, failed or output.strip().splitlines()[-1:], hung


class Go:
    """go test, against the library that was laid out."""

    def environment(self):
        dist = TARGET / "ottla-dist"
        return {
            "CGO_ENABLED": "1", "CGO_CFLAGS": f"-I{dist}/include", "GOFLAGS": "-mod=readonly",
            "CGO_LDFLAGS": f"-L{dist}/lib -Wl,-rpath,{dist}/lib", "LD_LIBRARY_PATH": f"{dist}/lib",
            "GOTOOLCHAIN": "local",
        }

    def build(self):
        lay_out()
        shutil.rmtree(PLACE / "go", ignore_errors=True)
        (PLACE / "go").mkdir()
        # Linked once. -vet=off: a fault may be what vet complains of, which is not what is asked here.
        for name, package in (("ottla", "."), ("interop", "./internal/interop")):
            command = ["go", "test", "-race", "-vet=off", "-c", "-o", str(PLACE / "go" / name), package]
            must(command, "building for Go", cwd=TREE / "go-bindings", more=self.environment())

    def either(self, tests):
        return "|".join(tests)

    def run(self, name, test):
        ran = False
        for program, folder in (("ottla", "."), ("interop", "internal/interop")):
            command = [str(PLACE / "go" / program), "-test.failfast", "-test.timeout=10m", "-test.v"]
            command += ["-test.skip=^TestReal", *([f"-test.run={test}"] if test else [])]
            folder = TREE / "go-bindings" / folder
            status, output = tell(command, name, LIMIT["go"], cwd=folder, more=self.environment())
            ran = ran or "=== RUN" in output
            if status != 0:
                failed = re.findall(r"^\s*--- FAIL: (\S+)|^(panic: .*)$", output, re.M)
                failed = ["".join(one) for one in failed]
                hung = status is None or bool(re.search(r"panic: (HANGS|test timed out)", output))
                return True, failed or output.strip().splitlines()[:1], hung
        if test and not ran:
            raise NoSuchTest(test)
        return False, [], False


RUNNERS = {"rust": Rust, "c": C, "python": Python, "go": Go}


def reached(name):
    """For each fault the tests that come past it, and how long each takes; None where nobody can tell."""
    runner = RUNNERS[name]()
    if not hasattr(runner, "reach"):
        return None
    print(f"running all tests of {name} without a fault", flush=True)
    seen = PLACE / "reached"
    shutil.rmtree(seen, ignore_errors=True)
    seen.mkdir()
    seconds = runner.reach(seen)
    tests = {}
    for note in seen.iterdir():
        for line in note.read_text().splitlines():
            fault, _, test = line.partition("\t")
            if test in seconds:
                tests.setdefault(fault, set()).add(test)
    return tests, seconds


def fail_anyway(runner, tests):
    """Those that fail where no fault is on: whoever asks them is told of every fault."""
    failing = set()
    for part in first(tests, {}):
        try:
            if runner.run("", runner.either(part))[0]:
                failing |= {test for test in part if runner.run("", test)[0]}
        except NoSuchTest:
            # Said of the fault that names it.
            pass
    return failing


def look(fault, directed, past, failing=()):
    """(how it was noticed, by what): "its test", "another", "hangs", "anyway", "no test"."""
    runner = RUNNERS[fault["in"]]()
    missing = []
    if fault.get("test") in failing:
        return "anyway", [f"{fault['test']} fails without any fault"]
    if fault.get("test"):
        try:
            caught, by, hung = runner.run(fault["name"], fault["test"])
        except NoSuchTest:
            caught, missing = False, [f"there is no test {fault['test']}"]
        if caught:
            return ("hangs" if hung else "its test"), by
    if directed:
        return "no test", missing
    if past is None:
        caught, by, hung = runner.run(fault["name"], "")
        return (("hangs" if hung else "another"), by) if caught else ("no test", missing)
    tests, seconds = past
    if not tests.get(fault["name"]):
        return "no test", ["no test comes past it"]
    for part in first(tests[fault["name"]], seconds):
        caught, by, hung = runner.run_those(fault["name"], part)
        if caught:
            return ("hangs" if hung else "another"), by
    return "no test", [*missing, f"{len(tests[fault['name']])} tests come past it"]


def run(args):
    faults = catalogue(args.names)
    chosen = [fault for fault in faults if fault["chosen"]]
    if not chosen:
        raise SystemExit("no such fault")
    PLACE.mkdir(parents=True, exist_ok=True)
    sync(faults)
    for name in sorted({fault["in"] for fault in chosen}):
        print(f"building for {name}", flush=True)
        RUNNERS[name]().build()
    past, failing = {}, {}
    for name in sorted({fault["in"] for fault in chosen}):
        past[name] = None if args.directed else reached(name)
        tests = {fault["test"] for fault in chosen if fault["in"] == name and fault.get("test")}
        failing[name] = fail_anyway(RUNNERS[name](), tests)
    counts = {}
    for fault in chosen:
        started = time.monotonic()
        how, by = look(fault, args.directed, past[fault["in"]], failing[fault["in"]])
        counts[how] = counts.get(how, 0) + 1
        seconds = time.monotonic() - started
        print(f"{how:9} {seconds:5.1f} s  {fault['list']}: {fault['name']}  {'; '.join(by[:2])}", flush=True)
        with open(PLACE / "results.jsonl", "a") as out:
            row = {"name": fault["name"], "list": fault["list"], "in": fault["in"], "how": how, "by": by[:4]}
            out.write(json.dumps(row) + "\n")
    print(", ".join(f"{how}: {n}" for how, n in sorted(counts.items())))
    return counts.keys() <= {"its test", "another"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    checks = commands.add_parser("check")
    checks.add_argument("names", nargs="*", metavar="FILE")
    runs = commands.add_parser("run")
    runs.add_argument("names", nargs="*", metavar="NAME|FILE")
    runs.add_argument("--directed", action="store_true")
    args = parser.parse_args()
    try:
        if args.command == "check":
            plant(catalogue(args.names))
            if not args.names:
                plant(catalogue([pathlib.Path(OPEN).stem]))
            return 0
        return 0 if run(args) else 1
    except Stale as why:
        print(f"faults: {why}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
