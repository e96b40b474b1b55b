"""Asking a host with plain sockets: logins as the RFC has them, and servers that go on for ever."""

from __future__ import annotations

import socket
import time

import pytest

from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.digest import digest_fields, digest_response
from onlooker.operators.decode.live.reach import can_reach, reach

from .sources import tcp_server


def test_the_example_of_the_rfc() -> None:
    """RFC 2617 section 3.5."""
    who = ("Mufasa", "testrealm@host.com", "Circle Of Life")
    quality = ("00000001", "0a4f113b", "auth")
    nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
    proof = digest_response(*who, "GET", "/dir/index.html", nonce, quality=quality)
    assert proof == "6629fae49393a05397450978507c4ef1"


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_login_with_quality_of_protection(scheme: str) -> None:
    asked: list[str] = []

    def serve(connection: socket.socket) -> None:
        protocol = "RTSP/1.0" if scheme == "rtsp" else "HTTP/1.1"
        while request := connection.recv(4096).decode():
            asked.append(request)
            fields = digest_fields(request.partition("Authorization: Digest ")[2].partition("\r\n")[0])
            if fields:
                method, uri, _ = request.split("\r\n")[0].split(" ")
                quality = (fields["nc"], fields["cnonce"], fields["qop"])
                right = digest_response("me", "a, b=c", "p w", method, uri, "n1", quality=quality)
                assert (fields["uri"], fields["opaque"]) == (uri, "xyz")
                status = "200 OK" if fields["response"] == right else "401 No"
                connection.sendall(f"{protocol} {status}\r\n\r\n".encode())
            else:
                head = f'{protocol} 401 No\r\nWWW-Authenticate: Basic realm="x"\r\nWWW-Authenticate: Digest '
                connection.sendall(
                    (head + 'realm="a, b=c",nonce="n1",qop="auth-int, auth",opaque="xyz"\r\n\r\n').encode()
                )

    with tcp_server(serve) as port:
        found = reach(parse_source(f"{scheme}://me:p%20w@127.0.0.1:{port}/a b?c=1#d"))
    assert (found.problem, found.status, found.login) == (None, 200, "Basic or Digest")
    assert all("/a%20b?c=1" in request and "#" not in request for request in asked) and len(asked) == 2


def test_without_a_login_none_is_sent() -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(b'RTSP/1.0 401 No\r\nWWW-Authenticate: Digest realm="x", nonce="n"\r\n\r\n')
        asked.append(connection.recv(4096))

    with tcp_server(serve) as port:
        found = reach(parse_source(f"rtsp://127.0.0.1:{port}/x"))
    assert (found.status, found.login) == (401, "Digest")
    assert asked[1] == b"", "nothing more is asked"


@pytest.mark.parametrize(
    "stream",
    [b"RTSP/1.0 200 OK\r\n" + b"A: b\r\n" * 10, b"x", b"RTSP/1.0 200 OK\r\nContent-Length: 99999999999\r\n\r\n"],
)
def test_a_server_that_goes_on_for_ever_is_left(stream: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(stream)
        while True:  # until the other side is gone
            connection.sendall(b"x: y\r\n")
            time.sleep(0.01)

    with tcp_server(serve) as port:
        found = reach(parse_source(f"rtsp://127.0.0.1:{port}/x"), patience=0.5)
    assert found.connected and (found.status == 200 or found.problem is not None)


def test_only_what_connects_is_reached() -> None:
    for text, expected in (("rtsp://cam/x", True), ("tcp://cam:1", True), ("udp://cam:1", False), ("webcam:0", False)):
        assert can_reach(parse_source(text)) == expected
