from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .bridge_events import bus, caption, until
from .bridge_process import complete, endless
from .certificates import make_certificate
from .web_receiver import WebReceiver

SECRET = "whsec_" + base64.b64encode(b"a key of twenty-four byt").decode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebReceiver]:
    receiver = WebReceiver(tmp_path)
    yield receiver
    receiver.close()


def texts(server: WebReceiver) -> list[str]:
    return [event["data"]["text"] for event in server.events()]


def test_events_arrive_in_batches_that_are_signed(
    server: WebReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    spec = f"http://127.0.0.1:{server.port}/hook?token=a%20b&secret=${{env:HOOK_SECRET}}&wait=0.1&batch=5"
    with bus(tmp_path / "store", spec) as one:
        one.append(*(caption("cam1", number) for number in range(12)))
        one.settle()
    requests = server.requests()
    assert texts(server) == [f"caption {number}" for number in range(12)]
    assert all(len(json.loads(request["body"])) <= 5 for request in requests)
    for request in requests:
        headers = request["headers"]
        assert request["path"] == "/hook?token=a%20b"
        assert headers["content-type"] == "application/cloudevents-batch+json"
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request["body"]
        digest = hmac.new(b"a key of twenty-four byt", signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
        assert abs(int(headers["webhook-timestamp"]) - request["time"]) < 60
    assert SECRET not in "".join(one.notices)


def test_one_event_a_request_and_a_login(server: WebReceiver, tmp_path: Path) -> None:
    with bus(tmp_path / "store", f"http://me:p%40ss@127.0.0.1:{server.port}?batch=1&phase=end") as one:
        one.append(caption("cam1", 0), caption("cam1", 1, phase="new"), caption("cam1", 2))
        one.settle()
    first, second = server.requests()
    assert (first["path"], first["headers"]["content-type"]) == ("/", "application/cloudevents+json")
    assert base64.b64decode(first["headers"]["authorization"].removeprefix("Basic ")) == b"me:p@ss"
    assert json.loads(second["body"])["data"]["text"] == "caption 2"
    assert "p@ss" not in "".join(one.notices) and "webhook-signature" not in first["headers"]


@pytest.mark.parametrize("trouble", ["500", "408", "429:0", "drop", "garbage", "hang"])
def test_what_fails_is_sent_again_in_order(server: WebReceiver, tmp_path: Path, trouble: str) -> None:
    server.behave(trouble)
    with bus(tmp_path / "store", f"http://127.0.0.1:{server.port}?wait=0&timeout=0.3&batch=10") as one:
        one.append(*(caption("cam1", number) for number in range(7)))
        until(lambda: one.bridge.status().failures > 2)
        status = one.bridge.status()
        assert (status.state, status.sent, status.refused, status.behind) == ("failing", 0, 0, 7)
        one.append(*(caption("cam1", number) for number in range(7, 15)))
        until(lambda: one.bridge.status().failures > status.failures)
        server.behave("ok")
        one.settle()
        assert one.bridge.status().state == "delivering"
    assert texts(server) == [f"caption {number}" for number in range(15)]
    ids = [request["headers"]["webhook-id"] for request in server.requests()]
    assert len(ids) > 3 and len(set(ids)) == 2, "an attempt of the same batch has the same id"
    assert len(one.notices) == 2, one.notices  # one for each change
    assert "delivers again" in one.notices[1]


def test_retry_after_is_kept(server: WebReceiver, tmp_path: Path) -> None:
    server.behave("429:2")
    with bus(tmp_path / "store", f"http://127.0.0.1:{server.port}?wait=0") as one:
        one.append(caption("cam1", 0))
        until(lambda: one.bridge.status().failures > 0)
        server.behave("ok")
        one.settle()
    first, second = server.requests()
    assert second["time"] - first["time"] >= 2.0


def test_only_what_is_refused_is_left_out(server: WebReceiver, tmp_path: Path) -> None:
    server.behave("poison:caption 7")
    with bus(tmp_path / "store", f"http://127.0.0.1:{server.port}?wait=0&tries=3&batch=10") as one:
        one.append(*(caption("cam1", number) for number in range(20)))
        one.settle()
        until(lambda: one.bridge.status().sent == 19)
        assert one.bridge.status().refused == 1
    assert texts(server) == [f"caption {number}" for number in range(20) if number != 7]
    assert sum(request["status"] == 422 for request in server.requests()) == 4  # three batches, and itself
    assert any("leaves out event 8" in line and "422" in line for line in one.notices)


def test_a_redirect_is_not_followed(server: WebReceiver, tmp_path: Path) -> None:
    server.behave("redirect")
    with bus(tmp_path / "store", f"http://127.0.0.1:{server.port}/a?wait=0&secret=s&tries=2") as one:
        one.append(caption("cam1", 0))
        until(lambda: one.bridge.status().refused)
    assert {request["path"] for request in server.requests()} == {"/a"}
    assert any("redirects are not followed" in line for line in one.notices)


def test_a_certificate_is_verified(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = WebReceiver(tmp_path, tls=certificate)
    try:
        with bus(tmp_path / "unknown", f"https://localhost:{server.port}?wait=0") as one:
            one.append(caption("cam1", 0))
            until(lambda: one.bridge.status().failures)
            assert "certificate cannot be trusted" in one.bridge.status().reason
        with bus(tmp_path / "known", f"https://localhost:{server.port}?wait=0&ca={certificate}") as one:
            one.append(caption("cam1", 1))
            one.settle()
        assert texts(server) == ["caption 1"]
    finally:
        server.close()


def test_a_refused_connection_is_told_and_ended_at_once(tmp_path: Path) -> None:
    before = threading.active_count()
    with bus(tmp_path / "store", "http://127.0.0.1:9?wait=0") as one:
        one.append(caption("cam1", 0), caption("cam1", 1))
        until(lambda: one.bridge.status().failures > 2)
        assert "connection refused" in one.bridge.status().reason
    assert threading.active_count() == before
    assert "2 events still to come" in one.notices[-1] and len(one.notices) == 2


def test_a_server_that_never_answers_does_not_hold_up_the_end(server: WebReceiver, tmp_path: Path) -> None:
    server.behave("hang")
    before = threading.active_count()
    with bus(tmp_path / "store", f"http://127.0.0.1:{server.port}?wait=0&timeout=300") as one:
        one.append(caption("cam1", 0))
        until(lambda: server.requests())
        began = time.monotonic()
        one.bridge.close(0.5)
        assert time.monotonic() - began < 60  # the request alone may take 300
    assert threading.active_count() == before


def test_nothing_is_left_behind(server: WebReceiver, tmp_path: Path) -> None:
    me = psutil.Process()
    for turn in range(6):
        with bus(tmp_path / f"store{turn}", f"http://127.0.0.1:{server.port}?wait=0") as one:
            one.append(caption("cam1", turn))
            one.settle()
        if turn == 2:
            before = me.num_fds(), threading.active_count()
    # Threads of the server's side may end a moment later.
    until(lambda: me.num_fds() <= before[0] and threading.active_count() <= before[1])


def test_a_bridge_begins_with_what_is_new_or_with_the_oldest_and_goes_on_where_it_was(
    server: WebReceiver, tmp_path: Path
) -> None:
    path, address = tmp_path / "store", f"http://127.0.0.1:{server.port}?wait=0"
    with bus(path, address) as one:
        one.append(caption("cam1", 0))
        one.settle()
    with bus(path, f"{address}&name=second") as one:
        one.append(caption("cam1", 1))
        one.settle()
    with bus(path, address) as one:
        one.settle()
    with bus(path, f"{address}&name=third&since=oldest") as one:
        one.settle()
    assert texts(server) == [f"caption {number}" for number in (0, 1, 1, 0, 1)]


def test_a_bridge_of_an_empty_store_loses_nothing_that_came_before_it_was_killed(
    server: WebReceiver, tmp_path: Path
) -> None:
    server.behave("500")
    with bus(tmp_path / "store", f"http://127.0.0.1:{server.port}?wait=0") as one:
        one.append(caption("cam1", 0))
        until(lambda: one.bridge.status().failures)
    server.behave("ok")
    with bus(tmp_path / "store", f"http://127.0.0.1:{server.port}?wait=0") as one:
        one.settle()
    assert texts(server) == ["caption 0"]


def test_what_the_store_deleted_is_counted(server: WebReceiver, tmp_path: Path) -> None:
    moment = [1000.0]
    server.behave("500")
    spec = f"http://127.0.0.1:{server.port}?wait=0&batch=10"
    with bus(tmp_path / "store", spec, max_age=60.0, clock=lambda: moment[0]) as one:
        one.append(*(caption("cam1", number) for number in range(30)))
        until(lambda: one.bridge.status().failures)
        moment[0] += 100.0
        one.append(caption("cam1", 30))
        assert one.store.prune() == 30
        server.behave("ok")
        one.settle()
        assert one.bridge.status().lost == 30
    assert texts(server) == ["caption 30"]
    assert any("lost 30 events at most" in line for line in one.notices)


@pytest.mark.parametrize("hasty", [False, True], ids=["bridge", "twin that moves its place too early"])
def test_killed_at_random_every_event_arrives_in_order(server: WebReceiver, tmp_path: Path, hasty: bool) -> None:
    store, random_ = tmp_path / "store", random.Random(7)
    address = f"http://127.0.0.1:{server.port}?wait=0.02&batch=20&timeout=1&since=oldest"
    for behaviour in ("500",) if hasty else ("500", "slow", "drop"):
        server.behave(behaviour)
        before = len(server.requests())
        process = endless(store, address, hasty=hasty)
        until(lambda before=before: len(server.requests()) > before)
        time.sleep(random_.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    server.behave("ok")
    expected = complete(store, address, hasty=hasty)
    found = _first_appearances(server)
    if hasty:
        assert found != expected
    else:
        assert found == expected


def _first_appearances(server: WebReceiver) -> dict[str, list[int]]:
    """Numbers of the events by stream, in the order in which they were first acknowledged."""
    found: dict[str, dict[int, None]] = {}
    for event in server.events():
        found.setdefault(event["data"]["stream"], {})[int(event["data"]["t_start"])] = None
    return {stream: list(numbers) for stream, numbers in sorted(found.items())}
