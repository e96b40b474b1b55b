from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .bridge_events import bus, caption, until
from .bridge_process import complete, endless
from .kafka_brokers import KafkaBrokers


@pytest.fixture
def brokers() -> Iterator[KafkaBrokers]:
    one = KafkaBrokers()
    yield one
    one.close()


def by_stream(messages: list[Any]) -> dict[str, list[str]]:
    """Texts in the order of their first appearance."""
    found: dict[str, dict[str, None]] = {}
    for message in messages:
        found.setdefault(message.key().decode(), {})[json.loads(message.value())["data"]["text"]] = None
    return {stream: list(texts) for stream, texts in sorted(found.items())}


def captions(total: int) -> dict[str, list[str]]:
    return {f"cam{k}": [f"caption {number}" for number in range(k, total, 3)] for k in range(3)}


def test_events_arrive_with_their_stream_as_key(brokers: KafkaBrokers, tmp_path: Path) -> None:
    with bus(tmp_path / "store", f"kafka://{brokers.addresses}/events?kinds=caption") as one:
        one.append(*(caption(f"cam{number % 3}", number) for number in range(300)))
        one.settle()
        assert one.bridge.status().sent == 300
        assert one.bridge.status().state == "delivering"
    messages = brokers.messages("events", 300)
    assert by_stream(messages) == captions(300)
    headers = dict(messages[0].headers())
    assert headers["content-type"].startswith(b"application/cloudevents+json") and int(headers["seq"]) > 0


def test_brokers_that_stop_to_answer_are_waited_for(
    brokers: KafkaBrokers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlooker.pipeline.bus.bridges.kafka._SILENCE_SECONDS", 1.0)
    with bus(tmp_path / "store", f"kafka://{brokers.addresses}/events") as one:
        one.append(*(caption(f"cam{number % 3}", number) for number in range(30)))
        one.settle()
        brokers.process.send_signal(signal.SIGSTOP)
        one.append(*(caption(f"cam{number % 3}", number) for number in range(30, 60)))
        until(lambda: one.bridge.status().failures > 1)
        assert one.bridge.status().state == "failing"
        brokers.process.send_signal(signal.SIGCONT)
        one.settle()
    messages = brokers.messages("events", 60)
    assert by_stream(messages) == captions(60)


def test_no_broker_is_told_and_ended_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onlooker.pipeline.bus.bridges.kafka._SILENCE_SECONDS", 0.5)
    before = threading.active_count()
    with bus(tmp_path / "store", "kafka://user:hush@127.0.0.1:9/events") as one:
        one.append(caption("cam1", 0))
        until(lambda: one.bridge.status().failures > 1)
        assert one.bridge.status().reason == "none of the brokers can be reached"
        began = time.monotonic()
        one.bridge.close(1.0)
        assert time.monotonic() - began < 60
    assert threading.active_count() == before
    assert "hush" not in "".join(one.notices) and len(one.notices) == 2


def test_nothing_is_left_behind(brokers: KafkaBrokers, tmp_path: Path) -> None:
    me = psutil.Process()
    for turn in range(6):
        with bus(tmp_path / f"store{turn}", f"kafka://{brokers.addresses}/events") as one:
            one.append(caption("cam1", turn))
            one.settle()
        if turn == 2:
            before = me.num_fds(), me.num_threads()
    until(lambda: me.num_fds() <= before[0] and me.num_threads() <= before[1])


def test_killed_every_event_arrives_in_order(brokers: KafkaBrokers, tmp_path: Path) -> None:
    store, address = tmp_path / "store", f"kafka://{brokers.addresses}/events?since=oldest"
    for turn in range(2):
        process = endless(store, address)
        assert len(brokers.messages("events", 5 + 40 * turn)) >= 5 + 40 * turn
        process.kill()
        process.wait()
    expected = {
        stream: [f"caption {number}" for number in numbers] for stream, numbers in complete(store, address).items()
    }
    messages = brokers.messages("events", sum(map(len, expected.values())))
    assert by_stream(messages) == expected
