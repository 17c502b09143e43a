"""What a record costs a program that reads columns, beside one that reads each value; and sending a column beside sending a list.

    python tests/bench/arrow.py                # with the installed wheel (one for release: others say nothing), and pyarrow
    python tests/bench/arrow.py --rounds 9 --json

Printed is processor time a record in nanoseconds, the median of the rounds, which take turns. Reading: of the thread that reads, with
the fetching that it waits for left out (`python_consume_arrow_cpu_ns`, of the batch's own work; `python_consume_values_cpu_ns`, a list
of the values; `python_consume_records_cpu_ns`, offset, key and value of each record). Sending: of the call, into an engine that has
space. The broker has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from aio import cluster

import ottla

RECORDS, VALUE = 200_000, 100


def cost(work: Callable[[], Any]) -> float:
    begun = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - begun) / RECORDS


def fill(bootstrap: str) -> list[ottla.Batch]:
    with ottla.Producer(bootstrap, compression="none") as producer:
        for number in range(0, RECORDS, 1_000):
            values = [b"%0*d" % (VALUE, number + i) for i in range(1_000)]
            producer.send_many("bench", values)
    batches, number = [], 0
    with ottla.Consumer(bootstrap, topics=["bench"], buffer_memory="256 MiB") as consumer:
        for batch in consumer.batches():
            batches.append(batch)
            number += len(batch)
            if number == RECORDS:
                return batches
    raise AssertionError("the consumer ended")


def measure(bootstrap: str, rounds: int) -> dict[str, float]:
    batches = fill(bootstrap)
    values = [record.value for batch in batches for record in batch]
    column = pa.array(values)
    producer = ottla.Producer(bootstrap, compression="none", buffer_memory="512 MiB", linger=60)

    def sends(what: Any) -> None:
        producer.send_many("bench", what)

    works: dict[str, Callable[[], Any]] = {
        "python_consume_arrow_cpu_ns": lambda: [pa.record_batch(batch) for batch in batches],
        "python_consume_values_cpu_ns": lambda: [record.value for batch in batches for record in batch],
        "python_consume_records_cpu_ns": lambda: [(r.offset, r.key, r.value) for batch in batches for r in batch],
        "python_send_arrow_cpu_ns": lambda: sends(column),
        "python_send_list_cpu_ns": lambda: sends(values),
    }
    costs: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            costs[name].append(cost(work))
            producer.flush()
    producer.close()
    return {name: round(statistics.median(each), 1) for name, each in costs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Costs of columns.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with cluster() as bootstrap:
        found = measure(bootstrap, arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<34} {value:8.1f}")


if __name__ == "__main__":
    main()
