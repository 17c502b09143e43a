"""Shares the work of a topic among members of a group, and goes on where an earlier run has stopped.

    pip install ottla
    python groups.py                        # starts a cluster in this process, and two members
    python groups.py --bootstrap HOST:PORT  # one member of the group, until Ctrl-C; start several of them

Each record is handled by a pool of threads, in any order. What is committed is what was finished without a
gap: a record whose work failed, or was cut short, is read again by the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import ottla


def work(record: ottla.Record, done: Counter[bytes | None]) -> None:
    # ... what there is to do, and then:
    record.ack()
    done[record.value] += 1


def run(consumer: ottla.Consumer, done: Counter[bytes | None]) -> None:
    """Reads until the consumer is closed."""
    with ThreadPoolExecutor(8) as pool:
        for event in consumer.events():
            match event:
                case ottla.Batch():
                    # One batch at a time: no more is taken than is worked on.
                    list(pool.map(lambda record: work(record, done), event))
                case ottla.Assigned(partitions):
                    print("assigned  ", sorted(partitions))
                case ottla.GivingUp(partitions):
                    print("giving up ", sorted(partitions))
                case ottla.Lost(partitions):
                    print("lost      ", sorted(partitions))


def member(bootstrap: str, topic: str) -> ottla.Consumer:
    return ottla.Consumer(
        bootstrap,
        group="ottla-groups",
        topics=[topic],
        commit="acked",
        # Members go on reading what they keep while the group shares out anew.
        assignors=["cooperative-sticky"],
    )


def embedded(topic: str, records: int) -> None:
    import ottla.testing

    with ottla.testing.Broker(brokers=3) as broker:
        broker.create_topic(topic, partitions=4)
        with ottla.Producer(broker.bootstrap) as producer:
            producer.send_many(topic, [b"%d" % number for number in range(records)])
        done: Counter[bytes | None] = Counter()
        enough = threading.Event()
        with member(broker.bootstrap, topic) as one, member(broker.bootstrap, topic) as two:
            threads = [threading.Thread(target=run, args=(it, done)) for it in (one, two)]
            for thread in threads:
                thread.start()
            while len(done) < records or not (one.assignment() and two.assignment()):
                enough.wait(0.01)
        for thread in threads:
            thread.join()
        group = broker.group("ottla-groups")
        assert group is not None
        print(f"{len(done):,} records handled, {sum(group.committed.values()):,} committed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads a topic as a member of a group.")
    parser.add_argument("--bootstrap", help="host:port,... of a cluster (default: an embedded one)")
    parser.add_argument("--topic", default="ottla-groups")
    parser.add_argument("--records", type=int, default=10_000)
    arguments = parser.parse_args()
    if not arguments.bootstrap:
        embedded(arguments.topic, arguments.records)
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        member(arguments.bootstrap, arguments.topic) as consumer,
    ):
        run(consumer, Counter())


if __name__ == "__main__":
    main()
