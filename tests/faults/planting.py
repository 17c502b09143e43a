"""The catalogue of faults, and the copy of the tree that they are planted into."""

import os
import pathlib
import re
import subprocess
import tomllib

import switches

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "faults"
TREE = PLACE / "tree"
TARGET = PLACE / "target"
# Faults without a test of their own: what is still to be done.
OPEN = "open.toml"


class Stale(Exception):
    """A fault whose place is not there any more, or not there once."""


def catalogue(wanted):
    """All faults, in the order of their files; those that were asked for have `chosen`.

    Those of open.toml, which nothing notices yet, and of files elsewhere are built without the others,
    where they are asked for.
    """
    faults = []
    own = [HERE / OPEN] if pathlib.Path(OPEN).stem in wanted else []
    own += [pathlib.Path(name).resolve() for name in wanted if name.endswith(".toml")]
    wanted = [pathlib.Path(name).stem if name.endswith(".toml") else name for name in wanted]
    for path in own or sorted(HERE.glob("*.toml")):
        if path.name == OPEN and not own:
            continue
        for fault in tomllib.loads(path.read_text()).get("fault", []):
            fault["list"] = path.stem
            fault.setdefault("edit", [])
            if "find" in fault:
                fault["edit"].insert(0, {k: fault[k] for k in ("file", "find", "put")})
            fault["in"] = fault.get("in") or language(fault["edit"][0]["file"])
            fault["chosen"] = not wanted or any(w in (fault["name"], path.stem) for w in wanted)
            faults.append(fault)
    names = [fault["name"] for fault in faults]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SystemExit(f"two faults are called {', '.join(sorted(twice))}")
    return faults


def language(file):
    for prefix, name in (("c-api/", "c"), ("python/", "python"), ("go-bindings/", "go")):
        if file.startswith(prefix):
            return name
    return "rust"


def plant(faults):
    """The text of each file that has faults, with all of them in it."""
    edits = {}
    for fault in faults:
        for edit in fault["edit"]:
            edits.setdefault(edit["file"], []).append((fault["name"], edit))
    planted = {}
    for file, here in edits.items():
        try:
            text = (ROOT / file).read_text()
        except FileNotFoundError:
            raise Stale(f"{here[0][0]}: there is no {file}") from None
        found = []
        for name, edit in here:
            times = text.count(edit["find"])
            if times != 1:
                raise Stale(f"{name}: in {file} this stands {times} times:\n{edit['find']}")
            start = text.index(edit["find"])
            put = edit["put"].replace("PLANTED", switches.expression(file, name))
            if put == edit["put"]:
                raise Stale(f"{name}: nothing says PLANTED")
            found.append((start, start + len(edit["find"]), put, name))
        found.sort(reverse=True)
        for (_, end, _, first), (after, *_, second) in zip(found[1:], found):
            if end > after:
                raise Stale(f"{first} and {second} overlap in {file}")
        for start, end, put, _ in found:
            text = text[:start] + put + text[end:]
        if file.endswith((".c", ".h")):
            text = switches.C + text
        planted[file] = text
    return planted


def crate_roots(file):
    """What `file` is compiled into: lib.rs, main.rs or both of its crate, or a program of its own."""
    folder = (ROOT / file).parent
    while folder != ROOT:
        whole = (folder.parent / "Cargo.toml").exists() or folder.parent.name == "bin"
        roots = [name for name in ("lib.rs", "main.rs") if (folder / name).exists()]
        if whole and roots:
            return [str((folder / name).relative_to(ROOT)) for name in roots]
        folder = folder.parent
    raise Stale(f"{file} is in no crate")


def sync(faults):
    """The copy of the tree; only what changed is written, so that only that is built again."""
    planted = plant(faults)
    for file in [file for file in planted if file.endswith(".rs")]:
        for root in crate_roots(file):
            text = planted.get(root) or (ROOT / root).read_text()
            if "mod planted {" not in text:
                planted[root] = text + switches.RUST
    for folder in {str(pathlib.Path(f).parent) for f in planted if f.endswith(".go")}:
        some = next(f for f in planted if f.endswith(".go") and str(pathlib.Path(f).parent) == folder)
        package = re.search(r"^package (\w+)", planted[some], re.M).group(1)
        planted[f"{folder}/planted_fault.go"] = switches.GO.format(package=package)
    if any(f.endswith(".py") for f in planted):
        planted["python/ottla/_planted.py"] = switches.PYTHON
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")
    wanted = {name: None for name in listed if name and (ROOT / name).is_file()} | planted
    TREE.mkdir(parents=True, exist_ok=True)
    if not (TREE / "target").exists():
        # Where what is built in a tree is looked for.
        (TREE / "target").symlink_to(TARGET, target_is_directory=True)
    if not (TREE / ".git").exists():
        # So that no tool takes the tree around it for its own.
        subprocess.run(["git", "init", "-q", TREE], check=True)
    for name, text in wanted.items():
        bytes_ = text.encode() if text is not None else (ROOT / name).read_bytes()
        copy = TREE / name
        if not copy.exists() or copy.read_bytes() != bytes_:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(bytes_)
            copy.chmod((ROOT / name).stat().st_mode if (ROOT / name).exists() else 0o644)
    for copy in [path for path in TREE.rglob("*") if path.is_file()]:
        name = str(copy.relative_to(TREE))
        if not name.startswith((".git/", "target/")) and name not in wanted:
            if not any(part in (".pytest_cache", "__pycache__") for part in copy.parts):
                copy.unlink()
