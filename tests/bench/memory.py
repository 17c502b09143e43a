"""The most memory that a process takes which reads in default settings, in Python and in other languages.

    python tests/bench/memory.py                                 # with the installed wheel (one for release)
    python tests/bench/memory.py --reader "go=/path/to/reader"   # beside programs that take PARTITIONS RECORDS BOOTSTRAP

Like `ottla-bench memory`, which measures the Rust crate: 400 MB of records of 100 bytes are there, in each codec, of 1 partition and
of 1,000. A process reads a third as fast as it can, then nothing for 3 s, so that all is fetched that may be, then on to the end.
The bound is the budget (64 MiB) and 30 MB, above what the language's process takes once the library is loaded. Fails if anything is
above it. Writer and brokers have processes of their own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ottla

CODECS = ["none", "lz4", "snappy", "gzip", "zstd"]
RECORDS, VALUE, BATCH = 4_000_000, 100, 1_000
BOUND = (64 << 20) / 1e6 + 30

BROKER = """
import sys, ottla.testing
with ottla.testing.Broker() as broker:
    broker.create_topic("bench", partitions=int(sys.argv[1]))
    print(broker.bootstrap, flush=True)
    sys.stdin.read()
"""


@contextmanager
def cluster(partitions: int) -> Iterator[str]:
    command = [sys.executable, "-c", BROKER, str(partitions)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def memory(field: str) -> float:
    """Of this process, in MB: VmHWM is the most so far."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"the system does not tell {field}")


def write(codec: str, partitions: int, bootstrap: str) -> None:
    values = [b"%0*d" % (VALUE, i * 7919) for i in range(BATCH)]
    with ottla.Producer(bootstrap, compression=codec, batch_size=BATCH * 120) as producer:
        for batch in range(RECORDS // BATCH):
            producer.send_many("bench", values, partition=batch % partitions)


def read(partitions: int, bootstrap: str) -> None:
    empty = memory("VmRSS")
    number, paused, begun = 0, False, time.monotonic()
    with ottla.Consumer(bootstrap, topics=["bench"]) as consumer:
        for batch in consumer.batches():
            number += len(batch)
            if not paused and number > RECORDS // 3:
                paused = True
                time.sleep(3)
            if number >= RECORDS:
                break
    took = time.monotonic() - begun - 3
    print(json.dumps({"peak_mb": memory("VmHWM"), "empty_mb": empty, "per_second": number / took}))


def main() -> int:
    if sys.argv[1:2] == ["write"]:
        write(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return 0
    if sys.argv[1:2] == ["read"]:
        read(int(sys.argv[2]), sys.argv[4])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", action="append", default=[], metavar="LANGUAGE=COMMAND")
    parser.add_argument("--codec", action="append", choices=CODECS)
    arguments = parser.parse_args()
    readers = {"python": [sys.executable, __file__, "read"]}
    for reader in arguments.reader:
        language, _, command = reader.partition("=")
        readers[language] = command.split()
    above = 0
    print(f"{'language':<8} {'codec':<8} {'partitions':>10} {'peak MB':>8} {'empty MB':>8} {'bound MB':>8} {'M/s':>6}")
    for codec in arguments.codec or CODECS:
        for partitions in (1, 1_000):
            with cluster(partitions) as bootstrap:
                subprocess.run([sys.executable, __file__, "write", codec, str(partitions), bootstrap], check=True)
                for language, command in readers.items():
                    command = [*command, str(partitions), str(RECORDS), bootstrap]
                    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                    bound = BOUND + said["empty_mb"]
                    above += said["peak_mb"] > bound
                    print(
                        f"{language:<8} {codec:<8} {partitions:>10} {said['peak_mb']:>8.1f} {said['empty_mb']:>8.1f} {bound:>8.1f} "
                        f"{said['per_second'] / 1e6:>6.2f}",
                        flush=True,
                    )
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
