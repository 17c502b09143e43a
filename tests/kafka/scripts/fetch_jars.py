"""Fetches every file of a lock file into one folder: fetch_jars.py LOCK FOLDER."""

import hashlib
import pathlib
import shutil
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor

from jgo.maven import MavenContext

TRIES = 3


def main(lock: pathlib.Path, folder: pathlib.Path) -> None:
    wanted = tomllib.loads(lock.read_text())["dependencies"]
    folder.mkdir()
    with tempfile.TemporaryDirectory(dir=folder.parent) as repository:
        # A repository folder of our own: what stands in ~/.m2 was not fetched by this lock file.
        maven = MavenContext(repo_cache=pathlib.Path(repository), timeout=60)

        def fetch(item: dict[str, str]) -> None:
            name = f"{item['groupId']}:{item['artifactId']}:{item['version']}"
            project = maven.project(item["groupId"], item["artifactId"])
            artifact = project.at_version(item["version"]).artifact(packaging=item["packaging"])
            for attempt in range(1, TRIES + 1):
                try:
                    path = artifact.resolve()
                    break
                except Exception as error:  # the client has no common base for its errors
                    if attempt == TRIES:
                        raise SystemExit(f"{name} could not be fetched: {error}") from error
            actual = hashlib.sha256(path.read_bytes()).hexdigest()
            if actual != item["sha256"]:
                raise SystemExit(f"{name} has sha256 {actual}, not {item['sha256']}: refused")
            shutil.move(path, folder / path.name)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, wanted))


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
