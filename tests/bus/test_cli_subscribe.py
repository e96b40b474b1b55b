"""The commands that read a bus, as processes beside buses that are killed."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onlooker.operators.events import make_event, parse_event
from onlooker.pipeline.bus.event_log import EventLog
from onlooker.pipeline.bus.keys import ServerKeys, new_keys
from onlooker.pipeline.bus.requests import Command, RequestError
from onlooker.pipeline.bus.store_read import StoreReader
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.errors import OutputError

from .buses import PATIENCE, BusProcess, bus, caption, eventually, free_address, place, put, records


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "onlooker.pipeline.cli.main", *map(str, arguments)]


@contextlib.contextmanager
def running(arguments: list[str], **pipes: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive a test that fails."""
    process = subprocess.Popen(arguments, text=True, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stored(store: Path) -> list[tuple[int, str]]:
    reader = StoreReader(store)
    found, upto, last = [], 0, 1
    while upto < last:
        page, upto, last = reader.page(upto)
        found += [(event.header.seq or 0, json.loads(event.body)["id"]) for event in page]
    reader.close()
    return found


def logged(log: Path) -> list[tuple[int, str]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(int(line["sequence"]), line["id"]) for line in lines]


def ends_with(log: Path, seq: int) -> bool:
    tail = log.read_bytes()[-200:] if log.exists() else b""
    return tail.endswith(b"}\n") and f'"sequence":"{seq}"'.encode() in tail


def test_killed_at_any_moment_the_log_is_that_of_the_store(tmp_path: Path) -> None:
    address, store, log = free_address(), tmp_path / "store", tmp_path / "log"
    subscriber = command("subscribe", address, "--since", "all", "--format", "none", "--log", log)
    dice = random.Random(7)
    for start in (0, 1_000_000):
        with BusProcess(address, store) as process:
            process.publish(start, 1000)
            before = log.stat().st_size if log.exists() else 0
            with running(subscriber):
                eventually(lambda before=before: log.exists() and log.stat().st_size > before)
                process.publish_on(start + 1000, 100_000)  # goes on until the bus is killed
                time.sleep(dice.random() * 0.3)
        with log.open("ab") as file:
            file.write(b'{"specversion":"1.0","id":"cam1/0/cap')  # what a power failure leaves
    with BusProcess(address, store) as process:
        process.publish(9_000_000, 10)
        expected = stored(store)
        with running(subscriber) as reader:
            eventually(lambda: ends_with(log, expected[-1][0]))
            reader.send_signal(signal.SIGINT)
            assert reader.wait(PATIENCE) == 130
    assert logged(log) == expected
    assert [seq for seq, _ in expected] == list(range(1, len(expected) + 1))


def test_lines_for_people_and_for_programs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with place() as address, bus(address, tmp_path / "store") as server:
        query = make_event(
            "query",
            stream="door",
            epoch=0,
            event_no=0,
            rev=0,
            phase="new",
            t_start=61.5,
            t_end=None,
            t_seen=62,
            query="a\x1bb",
        )
        put(server, [caption(0, text="a red truck"), query])
        assert main(["subscribe", address, "--since", "all", "--count", "2"]) == 0
        first, second = capfd.readouterr().out.splitlines()
        assert re.fullmatch(r" +1  0:00\.0-0:01\.0 +cam1  caption end     a red truck", first)
        assert re.fullmatch(r" +2  1:01\.5 +door  query new     'a\\x1bb'", second)
        assert main(["subscribe", address, "--since", "1", "--count", "1", "--format", "jsonl"]) == 0
        line = json.loads(capfd.readouterr().out)
        assert (line.pop("sequence"), line.pop("busepoch")) == ("2", server.store.epoch)
        assert parse_event(json.dumps(line)) == query
        chosen = ["--stream", "cam1", "--type", "caption", "--phase", "end", "--text", "TRUCK", "--count", "1"]
        assert main(["subscribe", address, "--since", "all", *chosen]) == 0
        assert "a red truck" in capfd.readouterr().out


def test_ctrl_c_is_quiet_and_a_bus_that_is_away_is_told(tmp_path: Path) -> None:
    with place() as address, running(command("subscribe", address), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"onlooker: waiting for the bus at {address}\n"
        with bus(address, tmp_path / "store"):
            assert process.stderr.readline() == "onlooker: connected\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == ""


def test_what_is_wrong_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    public, secret = new_keys("server", tmp_path)
    _, own = new_keys("me", tmp_path)
    (tmp_path / "allowed").mkdir()
    address = free_address()
    keys = ["--keys", str(own), "--server-key", str(public)]
    with bus(address, tmp_path / "store", ServerKeys.read(secret, tmp_path / "allowed")):
        for arguments, told in [
            (["subscribe", free_address(), "--timeout", "0.5"], "no bus has answered at"),
            (["subscribe", "http://x"], "no address of a bus"),
            (["subscribe", address, "--since", "yesterday"], "no time: 'yesterday'"),
            (["subscribe", address, *keys], f"the bus at {address} refuses this key"),
            (["events", "search", "x", "--bus", address, *keys], f"the bus at {address} refuses this key"),
            (["tell", "--bus", address, *keys, "ask", "cam1"], f"the bus at {address} refuses this key"),
        ]:
            assert main(arguments) == 2
            error = capfd.readouterr().err
            assert told in error and error.count("\n") == 1


def test_search_in_a_store_and_over_a_bus(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    with place() as address, bus(address, store) as server:
        put(
            server, [caption(0, text="a red truck parks"), caption(1, "door", "a truck, red"), caption(2, text="a dog")]
        )
        for where in (["--store", str(store)], ["--bus", address]):
            assert main(["events", "search", "red truck", "--last", "1h", *where]) == 0
            assert {"door", "cam1"} == {line.split()[2] for line in capfd.readouterr().out.splitlines()}
            assert main(["events", "search", '"red truck"', "--stream", "cam1", "--format", "jsonl", *where]) == 0
            assert json.loads(capfd.readouterr().out)["sequence"] == "1"
            assert main(["events", "search", 'truck" OR *', "--until", "1h", *where]) == 0
            assert capfd.readouterr().out == ""
    assert main(["events", "search", "dog", "--store", str(store)]) == 0
    assert "a dog" in capfd.readouterr().out
    assert main(["events", "search", "dog", "--store", str(tmp_path / "none")]) == 2
    assert "no event store" in capfd.readouterr().err


def test_replay_keeps_the_pace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    with place() as address, bus(address, store) as server:
        for number in range(4):
            put(server, [caption(number)])
            time.sleep(0.3)

        def replay(*arguments: str) -> tuple[float, list[str]]:
            begun = time.monotonic()
            assert main(["replay", *arguments]) == 0
            return time.monotonic() - begun, capfd.readouterr().out.splitlines()

        for where in (str(store), address):
            took, lines = replay(where)
            assert took >= 0.9 and len(lines) == 4
            assert len(replay(where, "--since", "1", "--until", "3", "--speed", "max")[1]) == 2
            assert len(replay(where, "--until", "1h", "--speed", "100")[1]) == 0
            assert len(replay(where, "--stream", "door", "--since", "1h")[1]) == 0
        slow, _ = replay(str(store), "--speed", "0.5")
        assert slow >= 1.8


def test_commands_reach_the_pipelines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    taken: list[Command] = []

    def obey(command: Command, reply: Callable[[dict[str, Any] | RequestError], None]) -> None:
        taken.append(command)
        accepted = {"accepted": 0 if command.members.get("stream") == "nowhere" else 1}
        reply(accepted | {"stream.add": {"stream": "door"}, "ask": {"ask": "A7"}}.get(command.op, {}))
        if command.op == "ask":
            answer = caption(len(taken), "cam1", "a cat on a mat")
            asked = answer.data.model_copy(update={"ask": "A7"})
            server.put(records([caption(99, "cam1"), answer.model_copy(update={"data": asked})]))

    with place() as address, bus(address, tmp_path / "store", commands=obey) as server:

        def tell(*arguments: str) -> str:
            assert main(["tell", "--bus", address, *arguments]) == 0
            return capfd.readouterr().out

        assert tell("query.add", "a red truck", "--stream", "cam1") == ""
        assert tell("stream.add", "rtsp://x/y") == "door\n"
        assert tell("ask", "cam1", "--box", "0,0,.5,1").endswith("a cat on a mat\n")
        assert main(["tell", "--bus", address, "stream.remove", "nowhere"]) == 2
        assert "no pipeline took the command" in capfd.readouterr().err
    assert taken == [
        Command("query.add", {"text": "a red truck", "stream": "cam1"}),
        Command("stream.add", {"source": "rtsp://x/y"}),
        Command("ask", {"stream": "cam1", "box": [0, 0, 0.5, 1]}),
        Command("stream.remove", {"stream": "nowhere"}),
    ]


def test_a_bus_without_commands_refuses_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with place() as address, bus(address, tmp_path / "store"):
        assert main(["tell", "--bus", address, "query.add", "a red truck"]) == 2
        assert "the bus refuses" in capfd.readouterr().err


def test_logs_of_others_are_left_alone(tmp_path: Path) -> None:
    for text in ("my thesis\n", "my thesis", "5\n", "[]\n", '{"a": 1}\n'):
        file = tmp_path / "file"
        file.write_text(text)
        with pytest.raises(OutputError, match="choose another file"):
            EventLog(file)
        assert file.read_text() == text


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log"), pytest.raises(OutputError, match="another program"):
        EventLog(tmp_path / "log")


def test_a_log_knows_its_last_number(tmp_path: Path) -> None:
    file = tmp_path / "log"
    numbered = '{"specversion":"1.0","sequence":"7","busepoch":"E"}\n'
    bare = '{"specversion":"1.0"}\n'
    for text, position, kept in [
        ("", None, ""),
        (numbered, "E/7", numbered),
        (numbered + bare + bare, "E/7", numbered + bare + bare),
        (numbered + '{"specv', "E/7", numbered),
        ('{"specv', None, ""),
        (bare, None, bare),
    ]:
        file.write_text(text)
        with EventLog(file) as log:
            assert log.position == position
        assert file.read_text() == kept


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit on the size of files is as real as a full disk."""
    script = (
        "import resource, signal, sys\n"
        "from onlooker.pipeline.bus.event_log import EventLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "log = EventLog(sys.argv[1])\n"
        "try:\n"
        "    while True: log.append('x' * 90)\n"
        "except ValueError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", script, tmp_path / "log"], capture_output=True, text=True, check=True)
    assert "cannot write to" in told.stdout
    assert (tmp_path / "log").read_text() == ("x" * 90 + "\n") * 10
