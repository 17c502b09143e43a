#!/usr/bin/env python3
"""A member of a group through librdkafka that says what it does, with the arguments and the lines of Kafka's
`VerifiableConsumer`. Needs `confluent-kafka`.
"""

import argparse
import json
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

# Messages that are handled together.
BATCH = 500


def say(name: str, **members: object) -> None:
    line = {"timestamp": time.time_ns() // 1_000_000, "name": name, **members}
    print(json.dumps(line, separators=(",", ":")), flush=True)


def named(partitions: list[TopicPartition]) -> list[dict[str, object]]:
    return [{"topic": one.topic, "partition": one.partition} for one in partitions]


class Member:
    def __init__(self, args: argparse.Namespace) -> None:
        self.told_to_end = False
        self.batch: list[Message] = []
        settings = {
            "bootstrap.servers": args.bootstrap_server,
            "group.id": args.group_id,
            "enable.auto.commit": False,
            "auto.offset.reset": args.reset_policy,
            "fetch.wait.max.ms": 100,
            "group.protocol": args.group_protocol,
        }
        strategy = args.assignment_strategy
        if args.group_protocol == "classic":
            settings |= {
                "partition.assignment.strategy": strategy,
                "session.timeout.ms": args.session_timeout,
                "heartbeat.interval.ms": min(3000, args.session_timeout // 3),
            }
        if args.group_instance_id:
            settings["group.instance.id"] = args.group_instance_id
        self.is_incremental = args.group_protocol != "classic" or strategy == "cooperative-sticky"
        self.consumer = Consumer(settings)
        self.consumer.subscribe(
            [args.topic], on_assign=self.gained, on_revoke=self.given_up, on_lost=self.given_up
        )

    def gained(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        say("partitions_assigned", partitions=named(partitions))
        (consumer.incremental_assign if self.is_incremental else consumer.assign)(partitions)

    def given_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # What was taken before is handled before.
        self.handle()
        say("partitions_revoked", partitions=named(partitions))
        if self.is_incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def handle(self) -> None:
        batch, self.batch = self.batch, []
        if not batch:
            return
        parts: dict[tuple[str, int], list[int]] = {}
        for message in batch:
            parts.setdefault((message.topic(), message.partition()), []).append(message.offset())
        told = [
            {
                "topic": topic,
                "partition": partition,
                "count": len(offsets),
                "minOffset": offsets[0],
                "maxOffset": offsets[-1],
            }
            for (topic, partition), offsets in parts.items()
        ]
        say("records_consumed", count=len(batch), partitions=told)
        nexts = [TopicPartition(t, p, offsets[-1] + 1) for (t, p), offsets in parts.items()]
        error = None
        try:
            answers = self.consumer.commit(offsets=nexts, asynchronous=False)
            errors = [str(answer.error) for answer in answers if answer.error]
            error = errors[0] if errors else None
        except KafkaException as refused:
            error = str(refused)
        offsets = [
            {"topic": one.topic, "partition": one.partition, "offset": one.offset} for one in nexts
        ]
        more = {} if error is None else {"error": error}
        say("offsets_committed", offsets=offsets, success=error is None, **more)

    def run(self) -> None:
        say("startup_complete")
        while not self.told_to_end:
            message = self.consumer.poll(0.2)
            while message is not None:
                if message.error():
                    print(f"librdkafka: {message.error()}", file=sys.stderr)
                else:
                    self.batch.append(message)
                if len(self.batch) >= BATCH:
                    break
                message = self.consumer.poll(0)
            self.handle()
        self.consumer.close()
        say("shutdown_complete")

    def end(self, *_: object) -> None:
        self.told_to_end = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-server", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group-id", required=True)
    parser.add_argument("--group-protocol", default="classic")
    parser.add_argument("--group-instance-id")
    parser.add_argument("--session-timeout", type=int, default=30_000)
    parser.add_argument("--reset-policy", default="earliest")
    parser.add_argument("--assignment-strategy", default="range")
    member = Member(parser.parse_args())
    signal.signal(signal.SIGTERM, member.end)
    signal.signal(signal.SIGINT, member.end)
    member.run()


if __name__ == "__main__":
    main()
