from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from onlooker.pipeline.bus.handover import Handover

from .bridge_events import caption, until
from .web_receiver import WebReceiver


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebReceiver]:
    receiver = WebReceiver(tmp_path)
    yield receiver
    receiver.close()


def _bus(tmp_path: Path, bridge: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "onlooker.pipeline.cli.main", "bus", f"ipc://{tmp_path}/bus", "--quiet"]
    with (tmp_path / "said").open("ab") as said:
        return subprocess.Popen(
            [*command, "--store", str(tmp_path / "store"), "--bridge", bridge],
            env=os.environ | {"HOOK_SECRET": "hush-hush"},
            stderr=said,
        )


def test_a_bus_that_is_killed_carries_on_what_it_was_given(server: WebReceiver, tmp_path: Path) -> None:
    total, said = 60, tmp_path / "said"
    address = f"http://me:open-sesame@127.0.0.1:{server.port}/hook?wait=0.02&batch=10&secret=${{env:HOOK_SECRET}}"
    bus = _bus(tmp_path, address)
    pipeline = Handover(f"ipc://{tmp_path}/bus", again_after=0.5)
    try:
        pipeline.open(60)
        for number in range(total):
            if number == 30:
                server.behave("500")
            if number == 45:
                until(lambda: "the server answers 500" in said.read_text())
                bus.kill()
                bus.wait()
                server.behave("ok")
                bus = _bus(tmp_path, address)
            assert pipeline.put(caption("cam1", number, run="r").body, 60)
        assert pipeline.close(60) == 0
        until(lambda: len(_numbers(server)) == total)
        title = " ".join(psutil.Process(bus.pid).cmdline())
        assert "--bridge" in title and "sesame" not in title and "hush" not in title
        bus.send_signal(signal.SIGTERM)
        assert bus.wait(60) == 0
    finally:
        pipeline.close(0)
        bus.kill()
        bus.wait()
    assert "hush" not in said.read_text() and "sesame" not in said.read_text()
    assert _numbers(server) == list(range(total))
    login = server.requests()[0]["headers"]["authorization"].removeprefix("Basic ")
    assert base64.b64decode(login) == b"me:open-sesame"


def _numbers(server: WebReceiver) -> list[int]:
    """Numbers of the events in the order in which they were first acknowledged."""
    return list(dict.fromkeys(int(event["data"]["t_start"]) for event in server.events()))
