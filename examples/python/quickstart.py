"""Sends records, reads them back, and counts.

    pip install ottla
    python quickstart.py                        # starts a cluster of three brokers in this process
    python quickstart.py --bootstrap HOST:PORT  # uses a real one; creates the topic if need be
"""

from __future__ import annotations

import argparse
import contextlib
import time
import uuid
from collections import Counter

import ottla


def run(bootstrap: str, topic: str, records: int) -> None:
    with contextlib.suppress(ottla.TopicExistsError):
        ottla.create_topic(bootstrap, topic, partitions=12)

    # Records of earlier runs in the same topic are told apart by their key.
    run_id = uuid.uuid4().bytes
    values = [b'{"number": %d}' % number for number in range(records)]

    began = time.perf_counter()
    with ottla.Producer(bootstrap) as producer:
        # One by one. A Delivery may be kept and asked, or dropped.
        for value in values[:-1]:
            producer.send(topic, value, key=run_id)
        last = producer.send(topic, values[-1], key=run_id, headers=[("last", b"yes")])
        # Leaving the block waits for the acknowledgements.
    took = time.perf_counter() - began
    print(f"sent      {records:>9,} records in {took:.2f} s ({records / took:,.0f} per second)")
    print(f"          the last one is in {last.result()}")

    began = time.perf_counter()
    seen: set[bytes | None] = set()
    partitions: Counter[int] = Counter()
    with ottla.Consumer(bootstrap, topics=[topic]) as consumer:
        for record in consumer:
            if record.key == run_id:
                assert record.value not in seen, f"{record} came twice"
                seen.add(record.value)
                partitions[record.partition] += 1
                if len(seen) == records:
                    break
    took = time.perf_counter() - began
    assert seen == set(values)
    print(f"received  {records:>9,} records in {took:.2f} s ({records / took:,.0f} per second)")
    print("each exactly once, from partitions", dict(sorted(partitions.items())))
    stats = consumer.stats()
    print(f"requests of all kinds: {stats['requests_per_1000_messages']:.1f} for 1,000 records")
    bad = {name: n for name, n in stats["bad_stuff"].items() if n}
    print("bad stuff:", bad or "none")


def main() -> None:
    parser = argparse.ArgumentParser(description="Sends records to Kafka and reads them back.")
    parser.add_argument("--bootstrap", help="host:port,... of a cluster (default: an embedded one)")
    parser.add_argument("--topic", default="ottla-quickstart")
    parser.add_argument("--records", type=int, default=100_000)
    arguments = parser.parse_args()
    if arguments.records < 1:
        parser.error("--records must be 1 or more")
    if arguments.bootstrap:
        run(arguments.bootstrap, arguments.topic, arguments.records)
        return
    import ottla.testing

    with ottla.testing.Broker(brokers=3) as broker:
        print(f"embedded cluster at {broker.bootstrap}")
        run(broker.bootstrap, arguments.topic, arguments.records)


if __name__ == "__main__":
    main()
