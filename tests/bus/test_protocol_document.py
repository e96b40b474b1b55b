"""Whether docs/PROTOCOL.md is enough: a client written from it alone gets every event, once and in order."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onlooker.pipeline.bus.store_read import StoreReader

from .buses import PATIENCE, BusProcess, eventually, free_address

CLIENT = Path(__file__).parent / "foreign_client.py"


def in_store(store: Path, stream: str | None) -> list[str]:
    reader = StoreReader(store)
    lines, upto, last = [], 0, 1
    while upto < last:
        page, upto, last = reader.page(upto, streams=[stream] if stream else [])
        lines += [f"{event.header.seq} {json.loads(event.body)['id']}" for event in page]
    reader.close()
    return lines


@pytest.mark.parametrize("stream", [None, "cam1"])
def test_a_client_from_the_document_alone_gets_every_event_once_and_in_order(
    tmp_path: Path, stream: str | None
) -> None:
    address, store, told = free_address(), tmp_path / "store", tmp_path / "told"
    total = 0
    command = [sys.executable, "-I", str(CLIENT), address, str(2 * 20 * 21), *([stream] if stream else [])]
    with told.open("wb") as out, subprocess.Popen(command, stdout=out) as client:
        for _ in range(2):  # killed in between, while the client reads
            with BusProcess(address, store) as process:
                for _ in range(20):
                    process.publish(total, 1, "cam10")
                    process.publish(total + 1, 20, "cam1")
                    total += 21
                    time.sleep(0.03)
                if total == 2 * 20 * 21:
                    assert client.wait(PATIENCE) == 0
                else:
                    eventually(lambda: told.stat().st_size > 0)
    got = told.read_text().splitlines()
    assert got == in_store(store, stream)
    assert len(got) == total * (20 if stream else 21) / 21


def test_a_client_that_fills_no_gaps_fails(tmp_path: Path) -> None:
    """The twin: what the test above counts on happens, and shows."""
    cripple = "self.replay(until=seq - 1)"
    address, store, crippled = free_address(), tmp_path / "store", tmp_path / "client.py"
    text = CLIENT.read_text()
    assert cripple in text
    crippled.write_text(text.replace(cripple, "pass"))
    with BusProcess(address, store) as process:
        process.publish(0, 1)
        command = [sys.executable, "-I", str(crippled), address, "421"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            first = client.stdout.readline()
            for start in range(20):
                process.publish(1 + 21 * start, 21)
                time.sleep(0.03)
            process.publish(10_000, 1)
            rest = client.communicate(timeout=PATIENCE)[0]
        assert [first.strip(), *rest.splitlines()] != in_store(store, None)[:421]
