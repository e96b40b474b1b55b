"""Who may do what with a bus, over real sockets with real keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq

from onlooker.pipeline.bus.handover import Handover
from onlooker.pipeline.bus.keys import AllowList, ClientKeys, KeyPair, KeysError, Role, ServerKeys, new_keys
from onlooker.pipeline.bus.requests import Command
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.sockets import BusError
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.errors import UsageError

from .buses import bus, caption, eventually, free_address, put
from .raw_clients import client


class Keys:
    """A bus's keys and those of its clients, made as `onlooker keys new` does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.allowed = folder, folder / "allowed"
        self.allowed.mkdir()
        self.server_files = new_keys("server", folder)

    def server(self) -> ServerKeys:
        return ServerKeys.read(self.server_files[1], self.allowed)

    def client(self, name: str, role: Role | None = None, *, allow: bool = True) -> ClientKeys:
        public, secret = new_keys(name, self.folder, role)
        if allow:
            shutil.copy(public, self.allowed)
        return ClientKeys.read(secret, self.server_files[0])


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def obey(command: Command, done: Any) -> None:
    done({"accepted": 1, "told": command.op})


def test_with_keys_events_and_answers_come_only_to_allowed_clients(keys: Keys, tmp_path: Path) -> None:
    good, bad = keys.client("good"), keys.client("bad", allow=False)
    address = free_address()
    with bus(address, tmp_path / "s.db", keys.server(), heartbeat=0.1) as server:
        with client(address, good) as one, client(address, bad) as other, client(address) as plain:
            one.wait()
            put(server, [caption(0)])
            assert one.events(1)[0][1]["seq"] == 1
            assert one.ask(op="hello")[0]["commands"] is False
            for outsider in (other, plain):
                with pytest.raises(TimeoutError):
                    outsider.next(0.5)
                with pytest.raises(TimeoutError):
                    outsider.ask(op="hello", seconds=0.5)
        assert server.counters()["refused"] >= 2


def test_a_bus_of_another_key_gets_no_connection(keys: Keys, tmp_path: Path) -> None:
    own = keys.client("good")
    wrong = ClientKeys(own.own, KeyPair.read(new_keys("impostor", tmp_path)[0], secret=False).public)
    address = free_address()
    with (
        bus(address, tmp_path / "s.db", keys.server(), heartbeat=0.1),
        client(address, wrong) as one,
        pytest.raises(TimeoutError),
    ):
        one.next(0.5)


@pytest.mark.parametrize(("role", "may"), [(None, False), ("read", False), ("publish", False), ("control", True)])
def test_only_the_role_control_gives_commands(role: Role | None, may: bool, keys: Keys, tmp_path: Path) -> None:
    address = free_address()
    with (
        bus(address, tmp_path / "s.db", keys.server(), commands=obey),
        client(address, keys.client("someone", role)) as one,
    ):
        assert one.ask(op="hello")[0]["commands"] is may
        reply, _ = one.ask(op="query.add", text="a cat")
        assert reply["ok"] is may
        assert reply.get("told") == "query.add" if may else reply["error"]["code"] == "not_allowed"


def test_without_keys_commands_are_taken_only_where_the_bus_says_so(tmp_path: Path) -> None:
    for commands, may in ((False, False), (obey, True)):
        address = free_address()
        with bus(address, tmp_path / "s.db", commands=commands), client(address) as one:
            assert one.ask(op="hello")[0]["commands"] is may
            assert one.ask(op="stream.remove", stream="cam1")[0]["ok"] is may


def test_keys_that_come_into_the_folder_are_let_in_and_those_that_leave_it_are_shut_out(
    keys: Keys, tmp_path: Path
) -> None:
    address = free_address()
    late = keys.client("late", "control", allow=False)
    with bus(address, tmp_path / "s.db", keys.server(), commands=obey, heartbeat=0.1) as server:
        with client(address, late) as one, pytest.raises(TimeoutError):
            one.next(0.5)
        shutil.copy(tmp_path / "late.key", keys.allowed)
        with client(address, late) as one:
            one.wait()
            assert one.ask(op="ask", stream="cam1")[0]["ok"]
            (keys.allowed / "late.key").write_text((tmp_path / "late.key").read_text().replace("control", "read"))
            eventually(lambda: not one.ask(op="ask", stream="cam1")[0]["ok"])
            (keys.allowed / "late.key").unlink()
            eventually(lambda: server.subscribers == 0)
            with pytest.raises(TimeoutError):
                one.ask(op="hello", seconds=1)


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.7", "eth0", "[::]"])
def test_other_machines_are_served_only_with_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="onlooker keys new server"):
        BusServer(f"tcp://{host}:5571", EventStore(tmp_path / "s.db"))
    assert not (tmp_path / "s.db").exists()


def test_all_interfaces_are_served_with_keys(keys: Keys, tmp_path: Path) -> None:
    address = free_address()
    public = address.replace("127.0.0.1", "0.0.0.0")
    with bus(public, tmp_path / "s.db", keys.server()), client(address, keys.client("good")) as one:
        assert one.ask(op="hello")[0]["ok"]


def test_keys_are_made_for_their_owner_alone_and_never_twice(tmp_path: Path) -> None:
    public, secret = new_keys("cam", tmp_path, "publish")
    assert secret.stat().st_mode & 0o777 == 0o600
    pair = KeyPair.read(public, secret=False)
    assert (pair.name, pair.role, pair.secret) == ("cam", "publish", None)
    own = KeyPair.read(secret, secret=True)
    assert own.public == pair.public == zmq.curve_public(own.secret)
    assert own.secret is not None and own.secret.decode() not in public.read_text() + repr(own)
    before = secret.read_bytes()
    with pytest.raises(KeysError, match="already"):
        new_keys("cam", tmp_path)
    assert secret.read_bytes() == before


def test_a_key_that_cannot_be_used_is_told_in_one_line_without_the_key(tmp_path: Path) -> None:
    public, secret = new_keys("cam", tmp_path)
    open_to_all = tmp_path / "open.key_secret"
    open_to_all.write_bytes(secret.read_bytes())
    open_to_all.chmod(0o644)
    role = tmp_path / "role.key"
    role.write_text(public.read_text().replace("metadata\n", 'metadata\n    role = "king"\n'))
    text = KeyPair.read(secret, secret=True).secret
    assert text is not None
    for path, private, words in (
        (open_to_all, True, "chmod 600"),
        (public, True, "NAME.key_secret"),
        (role, False, "king"),
        (tmp_path / "none.key", False, "no such file"),
        (tmp_path, False, "directory"),
        (Path(os.devnull), False, "NAME.key"),
    ):
        with pytest.raises(KeysError, match=words) as told:
            KeyPair.read(path, secret=private)
        assert "\n" not in str(told.value) and text.decode() not in str(told.value)


def test_a_broken_file_in_the_folder_keeps_nobody_else_out(keys: Keys) -> None:
    public = keys.client("good").own.public
    allowed = AllowList(keys.allowed)
    (keys.allowed / "broken.key").write_text("nonsense")
    (keys.allowed / "notes.txt").write_text("nonsense")
    allowed._looked = 0.0  # as if a second had passed
    access = allowed.access(public)
    assert access is not None and access.role == "read"


@pytest.mark.parametrize(("role", "may"), [("read", False), ("control", False), ("publish", True)])
def test_only_the_role_publish_hands_over_events(role: Role, may: bool, keys: Keys, tmp_path: Path) -> None:
    address = free_address()
    with bus(address, tmp_path / "s.db", keys.server(), ingest=True) as server:
        handover = Handover(address, keys=keys.client("pipeline", role))
        if may:
            handover.open(60)
            handover.put(caption(0).to_json().encode())
            assert handover.close(60) == 0 and server.store.last_seq == 1
        else:
            with pytest.raises(BusError, match="role should be publish"):
                handover.open(60)
            assert server.store.last_seq == 0


def test_the_command_line_refuses_what_is_not_safe_or_not_free(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "onlooker.pipeline.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    address = free_address()
    with bus(address, tmp_path / "taken.db"):
        for arguments, words in (
            (["bus", "tcp://0.0.0.0:5571"], "onlooker keys new server"),
            (["bus", address, "--store", "own.db"], "is in use"),
            (["bus", "tcp://127.0.0.1:5571", "--keys", "server.key_secret"], "belong together"),
        ):
            done = run(*arguments)
            assert done.returncode == 2 and words in done.stderr
            assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert run("keys", "new", "cam", "--role", "control", "--folder", "k").returncode == 0
    assert run("keys", "list", "k").stdout.startswith("cam")
    assert (tmp_path / "k" / "cam.key_secret").stat().st_mode & 0o777 == 0o600
