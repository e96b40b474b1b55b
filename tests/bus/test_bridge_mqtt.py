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

from .bridge_events import bus, caption, query, until
from .bridge_process import complete, endless
from .certificates import make_certificate
from .mosquitto import Listener, Mosquitto, needs_mosquitto

pytestmark = needs_mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path / "broker")
    yield one
    one.close()


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    one = Listener(broker.port)
    yield one
    one.close()


def texts(listener: Listener, topic: str) -> list[str]:
    return [json.loads(payload)["data"]["text"] for payload in listener.of(topic)]


def kept(port: int, topic: str) -> dict[str, Any]:
    """What the broker keeps for those who come later."""
    late = Listener(port, topic, name=f"late {time.monotonic()}")
    time.sleep(0.3)
    late.close()
    return {name: payload for name, payload, retained in late.messages if retained}


def test_events_and_status(broker: Mosquitto, listener: Listener, tmp_path: Path) -> None:
    with bus(tmp_path / "store", f"mqtt://127.0.0.1:{broker.port}?discovery=off") as one:
        one.append(*(caption(f"cam{number % 2}", number) for number in range(250)))
        one.settle()
        until(lambda: len(listener.messages) == 251)
        assert listener.of("onlooker/status") == [b"online"]
        assert one.bridge.status().sent == 250
    for stream in range(2):
        expected = [f"caption {number}" for number in range(stream, 250, 2)]
        assert texts(listener, f"onlooker/cam{stream}/caption") == expected
    until(lambda: listener.of("onlooker/status") == [b"online", b"offline"])
    assert listener.properties[5].ContentType == "application/cloudevents+json"
    assert dict(listener.properties[5].UserProperty)["seq"] == "5"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_home_assistant_sees_captions_and_queries(
    broker: Mosquitto, listener: Listener, tmp_path: Path, protocol: str
) -> None:
    with bus(tmp_path / "store", f"mqtt://127.0.0.1:{broker.port}/house?phase=end&protocol={protocol}") as one:
        one.append(caption("cam.1", 0, text="a cat"), query("cam.1", 0, "ein roter Bus", "new"))
        one.settle()
        configs = kept(broker.port, "homeassistant/#")
        sensor, binary = (
            json.loads(next(payload for name, payload in configs.items() if f"/{component}/" in name))
            for component in ("sensor", "binary_sensor")
        )
        assert sensor["availability_topic"] == binary["availability_topic"] == "house/status"
        assert binary["name"] == "ein roter Bus" and sensor["unique_id"] != binary["unique_id"]
        assert sensor["device"] == binary["device"]
        assert json.loads(listener.of(sensor["state_topic"])[-1])["state"] == "a cat"
        assert listener.of(binary["state_topic"]) == [b"ON"]
        one.append(query("cam.1", 0, "ein roter Bus", "end"))
        one.settle()
        until(lambda: listener.of(binary["state_topic"]) == [b"ON", b"OFF"])
    assert texts(listener, "house/cam.1/caption") == ["a cat"]
    assert len(listener.of("house/cam.1/query")) == 1  # phase=end concerns the events, not the states


def switched_on(listener: Listener) -> list[str]:
    """Topics of the queries that were told to be on."""
    return [topic for topic, payload, _ in listener.messages if "/query/" in topic and payload == b"ON"]


def test_a_query_that_nobody_watches_any_more_is_off_after_a_restart(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    address = f"mqtt://127.0.0.1:{broker.port}"
    with bus(tmp_path / "store", address) as one:
        one.append(query("cam1", 0, "red bus", "new", run="dead"), query("cam2", 0, "red bus", "new", run="alive"))
        one.settle()
        # The bridge has sent them; this client may hear of them a moment later.
        until(lambda: len(switched_on(listener)) == 2)
        off, on = (next(t for t in switched_on(listener) if f"/{cam}/" in t) for cam in ("cam1", "cam2"))
        assert (listener.of(off), listener.of(on)) == ([b"ON"], [b"ON"])
    with bus(tmp_path / "store", address) as one:
        pass
    with bus(tmp_path / "store", address) as one:
        one.store.end_run("dead")
    with bus(tmp_path / "store", address) as one:
        until(lambda: listener.of(off)[-1] == b"OFF")
        one.settle()
    states = kept(broker.port, "onlooker/+/query/+/state")
    assert states == {off: b"OFF", on: b"ON"}


def test_a_run_that_dies_switches_its_queries_off(
    broker: Mosquitto, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlooker.pipeline.bus.bridges.mqtt._COMPARE_SECONDS", 0.1)
    with bus(tmp_path / "store", f"mqtt://127.0.0.1:{broker.port}?stream=cam1&kinds=caption") as one:
        one.append(query("cam1", 0, "red bus", "new", run="dead"), query("cam2", 0, "red bus", "new", run="dead"))
        one.settle()
        one.store.end_run("dead")  # no event tells it
        until(lambda: any(payload == b"OFF" for _, payload, _ in listener.messages))
    assert {topic.split("/")[1] for topic, payload, _ in listener.messages if payload == b"ON"} == {"cam1"}


def test_a_broker_that_goes_and_comes_back(broker: Mosquitto, listener: Listener, tmp_path: Path) -> None:
    with bus(tmp_path / "store", f"mqtt://127.0.0.1:{broker.port}") as one:
        one.append(caption("cam1", 0))
        one.settle()
        until(lambda: texts(listener, "onlooker/cam1/caption") == ["caption 0"])
        broker.stop()
        until(lambda: one.bridge.status().state == "failing")
        one.append(*(caption("cam1", number) for number in range(1, 40)))
        until(lambda: one.bridge.status().failures > 2)
        broker.start()
        one.settle()
        until(lambda: len(texts(listener, "onlooker/cam1/caption")) >= 40)
        assert len(one.notices) <= 4, one.notices
    assert list(dict.fromkeys(texts(listener, "onlooker/cam1/caption"))) == [f"caption {n}" for n in range(40)]


def test_a_broker_that_stops_to_answer_holds_up_nobody(broker: Mosquitto, tmp_path: Path) -> None:
    before = threading.active_count()
    with bus(tmp_path / "store", f"mqtt://127.0.0.1:{broker.port}") as one:
        until(lambda: one.bridge.status().state == "delivering")
        broker.process.send_signal(signal.SIGSTOP)
        one.append(caption("cam1", 0))
        time.sleep(0.3)
        began = time.monotonic()
        one.bridge.close(0.5)
        assert time.monotonic() - began < 60
        assert one.bridge.status().behind == 1
        broker.process.send_signal(signal.SIGCONT)
    assert threading.active_count() == before


def test_login_and_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    broker = Mosquitto(tmp_path / "secured", login=("me", "p@ss/w%rd"), tls=certificate)
    place = f"localhost:{broker.port}?ca={certificate}"
    monkeypatch.setenv("MQTT_PASSWORD", "p@ss/w%rd")
    try:
        with bus(tmp_path / "right", f"mqtts://me:${{env:MQTT_PASSWORD}}@{place}") as one:
            one.append(caption("cam1", 0))
            one.settle()
        monkeypatch.setenv("MQTT_PASSWORD", "wrong-one")
        for store, address, reason in (
            ("wrong", f"mqtts://me:${{env:MQTT_PASSWORD}}@{place}", "not authorized"),
            ("unknown", f"mqtts://localhost:{broker.port}", "certificate cannot be trusted"),
        ):
            with bus(tmp_path / store, address) as one:
                until(lambda one=one: one.bridge.status().failures)
                assert reason in one.bridge.status().reason
            assert "wrong-one" not in "".join(one.notices)
    finally:
        broker.close()


def test_an_event_that_is_too_large_for_the_broker_is_left_out(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "small", more="max_packet_size 4000")
    listener = Listener(broker.port)
    try:
        with bus(tmp_path / "store", f"mqtt://127.0.0.1:{broker.port}?discovery=off") as one:
            one.append(caption("cam1", 0), caption("cam1", 1, text="x" * 8000), caption("cam1", 2))
            one.settle()
            assert one.bridge.status().refused == 1
        until(lambda: texts(listener, "onlooker/cam1/caption") == ["caption 0", "caption 2"])
    finally:
        listener.close()
        broker.close()


def test_nothing_is_left_behind(broker: Mosquitto, tmp_path: Path) -> None:
    me = psutil.Process()
    for turn in range(6):
        with bus(tmp_path / f"store{turn}", f"mqtt://127.0.0.1:{broker.port}") as one:
            one.append(caption("cam1", turn))
            one.settle()
        if turn == 2:
            before = me.num_fds(), threading.active_count()
    # Threads of the server's side may end a moment later.
    until(lambda: me.num_fds() <= before[0] and threading.active_count() <= before[1])


def test_killed_its_will_is_told_and_every_event_arrives(broker: Mosquitto, listener: Listener, tmp_path: Path) -> None:
    store, address = tmp_path / "store", f"mqtt://127.0.0.1:{broker.port}?since=oldest"
    for _ in range(2):
        before, gone = len(listener.messages), len(listener.of("onlooker/status"))
        process = endless(store, address)
        until(lambda before=before: len(listener.messages) > before + 10)
        process.kill()
        process.wait()
        until(lambda gone=gone: listener.of("onlooker/status")[gone:] == [b"online", b"offline"])
    for stream, numbers in complete(store, address).items():
        expected = [f"caption {number}" for number in numbers]
        topic = f"onlooker/{stream}/caption"
        until(lambda topic=topic, expected=expected: texts(listener, topic)[-1:] == expected[-1:])
        assert list(dict.fromkeys(texts(listener, topic))) == expected
