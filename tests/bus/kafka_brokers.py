"""Kafka brokers in a process of their own: librdkafka's, which speak the real protocol over sockets and keep in memory.

python -m tests.bus.kafka_brokers        prints their addresses, then runs until standard input ends
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition


class KafkaBrokers:
    """Three of them."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bus.kafka_brokers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.addresses = self.process.stdout.readline().strip()

    def messages(self, topic: str, different: int) -> list[Any]:
        """Messages of a topic until so many different ones are there, by a consumer of its own."""
        consumer = Consumer(
            {"bootstrap.servers": self.addresses, "group.id": "test", "enable.auto.commit": False, "log_level": 0}
        )
        while not (partitions := consumer.list_topics(topic, timeout=30).topics[topic].partitions):
            time.sleep(0.05)  # nobody has written to it yet
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        found: list[Any] = []
        for _ in range(600):
            if len({message.value() for message in found}) >= different:
                break
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                found.append(message)
        consumer.close()
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def main() -> None:
    cluster = Producer({"test.mock.num.brokers": 3, "log_level": 0})
    brokers = cluster.list_topics(timeout=30).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
