"""The protocol: states, status codes, transports, and requests that no client should send."""

import random
import socket
import time
from pathlib import Path

import pytest

from onlooker.pipeline.simulate import SimulatedCamera
from tests.simulate.rtsp_client import PATIENCE, TCP, RtspClient, read_rtp, wait_for
from tests.simulate.watching import take


def test_a_session_from_beginning_to_end(camera: SimulatedCamera) -> None:
    with RtspClient(camera.url) as client:
        assert {"DESCRIBE", "SETUP", "PLAY", "PAUSE", "TEARDOWN"} <= set(
            client.ask("OPTIONS").headers["public"].split(", ")
        )
        described = client.ask("DESCRIBE", Accept="application/sdp")
        assert described.headers["content-type"] == "application/sdp"
        assert b"a=rtpmap:96 H264/90000" in described.body and b"sprop-parameter-sets=" in described.body
        assert "server_port" not in client.setup().headers["transport"]
        session = client.session or ""
        told = client.ask("PLAY", Session=session).headers["rtp-info"]
        first = next(client.rtp())
        assert f"seq={first.sequence};" in told
        announced = int(told.rpartition("=")[2])
        assert 0 <= first.timestamp - announced & 0xFFFFFFFF < 90_000 * PATIENCE
        for method in ("GET_PARAMETER", "SET_PARAMETER", "OPTIONS"):
            assert client.ask(method, Session=session).status == 200
        assert client.ask("SETUP", Transport=TCP, Session=session).status == 455
        assert client.ask("PAUSE", Session=session).status == 200
        assert camera.status()["playing"] == 0
        assert client.ask("PLAY", Session=session).status == 200
        assert next(client.rtp()).sequence > 0
        assert client.ask("TEARDOWN", Session=session).status == 200
        assert client.ask("PLAY", Session=session).status == 454
        assert camera.status()["playing"] == 0


def test_requests_in_the_wrong_state_or_without_sense(camera: SimulatedCamera) -> None:
    with RtspClient(camera.url) as client:
        assert client.ask("PLAY").status == 455
        assert client.ask("PAUSE").status == 455
        assert client.ask("PLAY", Session="nobody").status == 454
        assert client.ask("TEARDOWN", Session="nobody").status == 454
        assert client.ask("SETUP", Transport=TCP, Session="nobody").status == 454
        assert client.ask("GET_PARAMETER", Session="nobody").status == 454
        assert client.ask("DESCRIBE", url=camera.url + "/other").status == 404
        assert client.ask("DESCRIBE", Accept="text/html").status == 406
        assert client.ask("DESCRIBE", Require="funny-feature").headers["unsupported"] == "funny-feature"
        assert client.ask("ANNOUNCE").status == 405
        assert "PLAY" in client.ask("FLY").headers["allow"]
        for transport in (
            "",
            "RTP/AVP;multicast",
            "RTP/SAVP;unicast;client_port=5000-5001",
            "RTP/AVP;unicast",
            "RTP/AVP;unicast;client_port=0-1",
            "RTP/AVP;unicast;client_port=99999-99999",
            "RTP/AVP/TCP;unicast;interleaved=300-301",
        ):
            assert client.setup(transport).status == 461, transport
        # The first that the camera has is taken.
        assert "TCP" in client.setup(f"RTP/AVP;multicast,{TCP}").headers["transport"]
        assert client.ask("PLAY", Session="nobody").status == 454
        assert client.ask("OPTIONS", url="*").status == 200


def test_udp_goes_to_the_port_that_was_asked_for(camera: SimulatedCamera) -> None:
    with RtspClient(camera.url) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(PATIENCE)
        port = ear.getsockname()[1]
        told = client.setup(f"RTP/AVP;unicast;client_port={port}-{port + 1}").headers["transport"]
        assert f"client_port={port}-{port + 1}" in told
        assert client.ask("PLAY", Session=client.session or "").status == 200
        data, sender = ear.recvfrom(2048)
        assert f"server_port={sender[1]}-{sender[1] + 1}" in told and sender[1] % 2 == 0
        assert f"ssrc={read_rtp(data, 0).ssrc:08X}" in told
        client.ask("TEARDOWN", Session=client.session or "")


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\nno colon\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\nCSeq: one\r\n\r\n",
        b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nCSeq: 1\r\n\r\n",
        b"DESCRIBE rtsp://[::1/live RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -5\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999999999\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"OPTIONS * RTSP/1.0\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\r\n" * 1000,
        b"$\x00",
        b"$\x00\xff\xff" + bytes(70_000),
        b"OPTIONS",
        random.Random(0).randbytes(5000),
    ],
    ids=range(17),
)
def test_junk_is_refused_and_harms_nobody(camera: SimulatedCamera, junk: bytes) -> None:
    with RtspClient(camera.url) as client:
        try:
            client.socket.sendall(junk)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.answer().status in (400, 413, 505)
        except (EOFError, ConnectionError):
            pass  # closed without a word; data that nobody read makes that a reset
    with RtspClient(camera.url) as client:
        assert client.ask("DESCRIBE").status == 200
    assert camera.running and not [line for line in camera.log() if "Traceback" in line]


def test_requests_may_come_in_pieces_and_in_a_row(camera: SimulatedCamera) -> None:
    with RtspClient(camera.url) as client:
        for piece in (b"\r\n\r\nOPTI", b"ONS * RTSP/1.0\r", b"\nCSeq: 1\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 2\r\n\r\n"):
            client.socket.sendall(piece)
            time.sleep(0.05)
        assert [client.answer().headers["cseq"] for _ in range(2)] == ["1", "2"]


def test_a_client_that_asks_and_never_reads_is_dropped(video: Path) -> None:
    with SimulatedCamera(video, session_timeout=0.7) as camera, RtspClient(camera.url) as client:
        client.socket.settimeout(0.5)
        question = f"DESCRIBE {camera.url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode() * 1000
        with pytest.raises(OSError):  # first nobody reads our questions any more, then the connection is broken
            for _ in range(100_000):
                client.socket.sendall(question)
        wait_for(lambda: camera.status()["clients"] == 0, "the end of the connection")


def test_silent_clients_are_dropped_and_those_that_report_are_not(video: Path) -> None:
    with SimulatedCamera(video, session_timeout=0.7) as camera:
        # libav sends reports and requests of its own.
        assert take(camera.url, 60)[-1].pts
        with RtspClient(camera.url) as client:
            assert client.setup().headers["session"].endswith(";timeout=1")
            client.ask("PLAY", Session=client.session or "")
            with pytest.raises((EOFError, ConnectionError)):
                for _ in client.packets():
                    pass
        with RtspClient(camera.url) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            ear.bind(("127.0.0.1", 0))
            ear.settimeout(PATIENCE)
            port = ear.getsockname()[1]
            client.setup(f"RTP/AVP;unicast;client_port={port}-{port + 1}")
            client.ask("PLAY", Session=client.session or "")
            begin = time.monotonic()
            while time.monotonic() < begin + 2:  # about three times the time-out
                ear.sendto(b"still here", ear.recvfrom(2048)[1])
            assert client.ask("GET_PARAMETER", Session=client.session or "").status == 200
        wait_for(lambda: camera.status()["clients"] == 0, "the end of all connections")
        assert camera.status()["playing"] == 0
