"""Who may watch, and that nobody else learns how."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import av
import psutil
import pytest

from onlooker.pipeline.simulate import SimulatedCamera
from tests.simulate.rtsp_client import RtspClient
from tests.simulate.watching import take

USER, PASSWORD = "ad min", "s3cr:t/@é"


@pytest.fixture(scope="module")
def guarded(video: Path) -> Iterator[SimulatedCamera]:
    with SimulatedCamera(video, user=USER, password=PASSWORD) as camera:
        yield camera


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def digest(client: RtspClient, password: str, uri: str | None = None, **extra: str) -> str:
    """Answer the camera's challenge as RFC 2617 section 3.2.2 says."""
    challenge = client.ask("DESCRIBE").headers["www-authenticate"]
    found = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    middle = [found["nonce"], extra["nc"], extra["cnonce"], extra["qop"]] if extra else [found["nonce"]]
    proof = md5(":".join([md5(f"{USER}:{found['realm']}:{password}"), *middle, md5(f"DESCRIBE:{client.url}")]))
    given = {"username": USER, **found, "uri": uri or client.url, "response": proof, **extra}
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in given.items())


def test_digest_lets_the_right_password_in(guarded: SimulatedCamera) -> None:
    assert len(take(guarded.url, 3)) == 3
    assert len(take(guarded.url, 3, "udp")) == 3


@pytest.mark.parametrize("login", ["", "admin:wrong@", "wrong:s3cr@"])
def test_libav_is_told_that_it_may_not_watch(guarded: SimulatedCamera, login: str) -> None:
    with pytest.raises(av.error.HTTPUnauthorizedError):
        take(guarded.public_url.replace("://", f"://{login}"), 1)


def test_digest_with_and_without_qop(guarded: SimulatedCamera) -> None:
    with RtspClient(guarded.public_url) as client:
        assert client.ask("OPTIONS").status == 200  # free for all
        assert client.ask("DESCRIBE", Authorization=digest(client, "wrong")).status == 401
        right = digest(client, PASSWORD)
        assert client.ask("DESCRIBE", Authorization=right).status == 200
        assert client.ask("DESCRIBE", Authorization=right[:-2] + "0").status == 401
        with_qop = digest(client, PASSWORD, qop="auth", nc="00000001", cnonce="abc")
        assert client.ask("DESCRIBE", Authorization=with_qop).status == 200
        # An answer to another request, or to another nonce, is none.
        assert client.ask("DESCRIBE", Authorization=digest(client, PASSWORD, uri="rtsp://else/where")).status == 401
        stale = re.sub('nonce="[^"]*"', 'nonce="0"', right)
        assert client.ask("DESCRIBE", Authorization=stale).status == 401
        assert client.ask("SETUP", Transport="RTP/AVP/TCP;interleaved=0-1").status == 401
        for junk in ("", "Digest", "Digest ,,,", "Basic x", "x" * 500, 'Digest username="\xff'):
            assert client.ask("DESCRIBE", Authorization=junk).status == 401


def test_basic(video: Path) -> None:
    with SimulatedCamera(video, user=USER, password=PASSWORD, basic=True) as camera:
        assert len(take(camera.url, 3)) == 3
        with RtspClient(camera.public_url) as client:
            for password, status in [(PASSWORD, 200), ("wrong", 401)]:
                token = base64.b64encode(f"{USER}:{password}".encode()).decode()
                assert client.ask("DESCRIBE", Authorization=f"Basic {token}").status == status


def test_secrets_stay_secret(guarded: SimulatedCamera) -> None:
    take(guarded.url, 1)
    shown = "\n".join(guarded.log()) + " ".join(psutil.Process(guarded.pid).cmdline()) + str(guarded.status())
    assert "s3cr" not in shown
    assert "@" not in guarded.public_url
