#!/usr/bin/env python3
"""Runs librdkafka's mock cluster in a process of its own, for clients that are not librdkafka.

Prints the bootstrap addresses, then obeys one command a line from its standard input, answering each
with "ok" or why not, and ends when the input does:

    topic NAME PARTITIONS     creates a topic
    leader NAME PARTITION ID  moves a partition to another broker
    down ID                   the broker is gone: its port refuses, its connections are cut
    up ID                     it is back, on its old port

Needs `confluent-kafka`, whose wheel brings the library; its Python side does not reach the cluster's
controls, so the library is called directly.
"""

import ctypes
import sys
from pathlib import Path

import confluent_kafka

BROKERS = 3
PRODUCER = 0


def library() -> ctypes.CDLL:
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = sorted(beside.glob("librdkafka-*.so*")) or sorted(
        Path(confluent_kafka.__file__).parent.glob(".dylibs/librdkafka*.dylib")
    )
    if not found:
        sys.exit(f"no librdkafka in {beside}")
    lib = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32
    for name, result, arguments in [
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_new", pointer, [ctypes.c_int, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_err2str", text, [ctypes.c_int]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, ctypes.c_int]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_topic_create", ctypes.c_int, [pointer, text, ctypes.c_int, ctypes.c_int]),
        ("rd_kafka_mock_partition_set_leader", ctypes.c_int, [pointer, text, number, number]),
        ("rd_kafka_mock_broker_set_down", ctypes.c_int, [pointer, number]),
        ("rd_kafka_mock_broker_set_up", ctypes.c_int, [pointer, number]),
    ]:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def obey(lib: ctypes.CDLL, cluster: int, line: str) -> str:
    match line.split():
        case ["topic", name, partitions]:
            code = lib.rd_kafka_mock_topic_create(cluster, name.encode(), int(partitions), BROKERS)
        case ["leader", name, partition, broker]:
            code = lib.rd_kafka_mock_partition_set_leader(
                cluster, name.encode(), int(partition), int(broker)
            )
        case ["down", broker]:
            code = lib.rd_kafka_mock_broker_set_down(cluster, int(broker))
        case ["up", broker]:
            code = lib.rd_kafka_mock_broker_set_up(cluster, int(broker))
        case _:
            return f"what is {line!r}?"
    return "ok" if code == 0 else lib.rd_kafka_err2str(code).decode()


def main() -> None:
    lib = library()
    reason = ctypes.create_string_buffer(256)
    handle = lib.rd_kafka_new(PRODUCER, lib.rd_kafka_conf_new(), reason, len(reason))
    if not handle:
        sys.exit(reason.value.decode())
    cluster = lib.rd_kafka_mock_cluster_new(handle, BROKERS)
    if not cluster:
        sys.exit("the mock cluster did not start")
    print(lib.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        print(obey(lib, cluster, line.strip()), flush=True)


if __name__ == "__main__":
    main()
