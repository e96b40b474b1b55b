"""The small parts: the queue that accounts for every frame, the wire, options, and the words for problems."""

from __future__ import annotations

import errno
import random
import socket
import struct
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.handoff import Handoff
from onlooker.operators.decode.live.options import LiveOptions
from onlooker.operators.decode.live.problems import Problem, ProblemKind, explain, problem
from onlooker.operators.decode.live.wire import Channel, ChannelClosed

from .sources import free_port


@pytest.mark.parametrize(("policy", "expected"), [("latest", [9]), ("drop_oldest", [7, 8, 9])])
def test_policies_keep_the_newest(policy: str, expected: list[int]) -> None:
    handoff: Handoff[int] = Handoff(policy, 3)  # type: ignore[arg-type]
    for number in range(10):
        handoff.put(number)
    handoff.refuse("unsampled")
    taken = []
    while not handoff.empty:
        handoff.want(True)
        taken.append(handoff.take(0))
    assert taken == expected
    counts = handoff.counts()
    assert counts.pop("decoded") == 11 == sum(counts.values())


def test_nothing_is_given_unasked_and_the_end_wakes() -> None:
    handoff: Handoff[int] = Handoff("latest")
    handoff.put(1)
    assert handoff.take(0.01) is None
    handoff.want(True)
    handoff.want(False)
    assert handoff.take(0.01) is None
    handoff.want(True)
    assert handoff.take(0.01) == 1
    threading.Timer(0.05, handoff.finish).start()
    began = time.monotonic()
    assert handoff.take(100) is None
    assert time.monotonic() - began < 50


def test_a_spoiled_frame_is_a_drop() -> None:
    handoff: Handoff[int] = Handoff("latest")
    handoff.put(1)
    handoff.want(True)
    handoff.take(0)
    handoff.spoil("unconvertible")
    assert handoff.counts() == {"decoded": 1, "taken": 0, "unconvertible": 1}
    assert handoff.wanted


def test_blocking_waits_for_room() -> None:
    handoff: Handoff[int] = Handoff("block", 2)
    producer = threading.Thread(target=lambda: [handoff.put(i) for i in range(50)])
    producer.start()
    taken = []
    while len(taken) < 50:
        handoff.want(True)
        found = handoff.take(10)
        assert found is not None
        taken.append(found)
    producer.join()
    assert taken == list(range(50))


def pair() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Channel(ours), Channel(theirs)


def test_messages_arrive_whole_whatever_their_size_and_order() -> None:
    reader, writer = pair()
    draw = random.Random(1)
    sent = [({"n": n}, draw.randbytes(draw.choice([0, 1, 1000, 3_000_000]))) for n in range(20)]
    thread = threading.Thread(target=lambda: [writer.send(head, body[:7], body[7:]) for head, body in sent])
    thread.start()
    got = []
    while len(got) < len(sent):
        message = reader.receive(0.001)  # gives up in the middle of most of them
        if message is not None:
            got.append((message[0], bytes(message[1])))
    thread.join()
    assert got == sent
    writer.close()
    with pytest.raises(ChannelClosed):
        reader.receive(1)
    with pytest.raises(ChannelClosed):
        reader.send({})
    reader.close()


def test_a_peer_that_reads_nothing_does_not_block_and_one_gone_wild_is_cut_off() -> None:
    reader, writer = pair()
    with pytest.raises(ChannelClosed):
        for _ in range(10_000):
            reader.send({"do": "want"}, bytes(1000))
    reader.close()
    writer.close()
    reader, writer = pair()
    writer._sock.sendall(b"\xff" * 8)
    with pytest.raises(ChannelClosed):
        reader.receive(5)
    reader.close()
    writer.close()


@pytest.mark.parametrize("header", [b"{", b"\xff\xff", b"[1]", b"[" * 5000, b"1"])
def test_a_header_that_is_none_cuts_the_peer_off(header: bytes) -> None:
    reader, writer = pair()
    writer._sock.sendall(struct.pack(">II", len(header), 0) + header)
    with pytest.raises(ChannelClosed):
        reader.receive(5)
    reader.close()
    writer.close()


@pytest.mark.parametrize(
    "wrong",
    [{"fps": 0}, {"fps": float("nan")}, {"size": (0, 5)}, {"preview": 1}, {"policy": "newest"}, {"hwaccel": "magic"},
     {"stall_after": 9.0, "reconnect_after": 1.0}, {"queue": 0}, {"record": -1.0}, {"connect_timeout": 0}],
)  # fmt: skip
def test_options_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError):
        LiveOptions(**wrong)


def test_options_and_problems_cross_the_wire() -> None:
    options = LiveOptions(size=(3, 4), record=5)
    assert LiveOptions.from_wire(options.to_wire()) == options
    found = Problem("timeout", "cam: no answer")
    assert Problem.from_wire(found.to_wire()) == found
    assert Problem.from_wire({"kind": "news", "message": "x"}).kind == "other"


CASES: list[tuple[BaseException, ProblemKind, bool]] = [
    (av.error.HTTPUnauthorizedError(1, "x"), "wrong_password", True),
    (av.error.HTTPForbiddenError(1, "x"), "forbidden", True),
    (av.error.HTTPNotFoundError(1, "x"), "not_found", True),
    (av.error.HTTPServerError(1, "x"), "server_error", False),
    (av.error.ConnectionRefusedError(111, "x"), "port_refused", False),
    (av.error.OSError(113, "x"), "no_route", False),
    (av.error.ProtocolNotFoundError(1, "x"), "unsupported_protocol", True),
]


@pytest.mark.parametrize(("error", "kind", "refused"), CASES)
def test_errors_become_words(error: BaseException, kind: ProblemKind, refused: bool) -> None:
    address = parse_source("rtsp://admin:s3cr3t@cam.example/x?token=t0k3n")
    found = explain(error, address)
    assert (found.kind, found.refused) == (kind, refused)
    assert found.message.startswith("rtsp://cam.example/x") and "\n" not in found.message
    assert "s3cr3t" not in found.message and "t0k3n" not in found.message


def test_every_kind_has_one_line_of_words() -> None:
    from typing import get_args

    for text in ("rtsp://cam/x", "webcam:0", "udp://cam:1"):
        for kind in get_args(ProblemKind):
            message = problem(parse_source(text), kind, codec="av1", why="odd").message
            assert "{" not in message and "None" not in message and "\n" not in message


def test_what_libav_calls_an_input_output_error_is_looked_into() -> None:
    error = av.error.OSError(5, "Input/output error")
    unknown = explain(error, parse_source("rtsp://no-such-host.invalid/x"))
    refused = explain(error, parse_source(f"http://127.0.0.1:{free_port()}/x"))
    assert (unknown.kind, refused.kind) == ("name_not_found", "port_refused")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=lambda: listener.accept()[0].sendall(b"I speak no TLS at all\r\n")).start()
        assert explain(error, parse_source(f"rtsps://127.0.0.1:{port}/x")).kind == "tls"


def test_what_the_system_forbids_is_told_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    error = av.error.PermissionError(errno.EACCES, "x")
    for text, kind in (("webcam:0", "no_permission"), ("udp://cam:1", "no_route"), (str(tmp_path / "a.mp4"), "file")):
        assert explain(error, parse_source(text)).kind == kind
    assert explain(av.error.OSError(5, "x"), parse_source("rtsp://cam..example/x")).kind == "name_not_found"


def test_silence_of_an_rtsp_server_is_no_bad_video() -> None:
    address, error = parse_source("tcp://127.0.0.1:1"), av.error.InvalidDataError(1, "x")
    assert explain(error, address).kind == "not_video"
    assert explain(error, address, waited=True).kind == "timeout"


def test_pictures_share_the_memory_of_the_message() -> None:
    from onlooker.operators.decode.live.reader import _pictures

    body = bytearray(range(2 * 3 * 3 + 4 * 1 * 3))
    pixels, preview = _pictures(body, [2, 3], [4, 1])
    assert pixels.shape == (2, 3, 3) and preview.shape == (4, 1, 3)
    assert np.shares_memory(pixels, np.frombuffer(body, np.uint8))
    assert preview[0, 0, 0] == 18
