"""Addresses: what libav is given, what may be shown, and that secrets are in the one and never in the other."""

import json
import pickle

import pytest

from onlooker.operators.decode.live.address import AddressError, LiveAddress, parse_source

SECRET = "s3cr3t"

WITH_SECRETS = [
    f"rtsp://admin:{SECRET}@cam/stream",
    f"rtsp://{SECRET}@cam/stream",
    f"rtsps://cam:322/live?token={SECRET}",
    f"http://cam/video.mjpg?user=admin&password={SECRET}",
    f"https://cam/live/index.m3u8?a=1&{SECRET}",
    f"rtsp://cam:554/user=admin_password={SECRET}_channel=1_stream=0.sdp",
    f"rtsp://cam:554/user=admin&password={SECRET}&channel=1&stream=0.sdp",
    f"rtsp://admin:{SECRET}#1?@cam:554/x",
    f"srt://cam:9000?passphrase={SECRET}&mode=caller",
    f"rtmp://cam/live?sign={SECRET}",
    f"rtsp://cam:7441/hX12{SECRET}AbCdEfGhIj",
    f"rtsp://cam/x#{SECRET}",
]


@pytest.mark.parametrize("text", WITH_SECRETS)
def test_no_secret_is_shown(text: str) -> None:
    address = parse_source(text)
    for shown in (str(address), repr(address), address.shown, f"{address}", repr(address.open_arguments())):
        assert SECRET not in shown
    assert "cam" in address.shown, "nothing but the secret is taken away"
    given = address.open_arguments().file
    assert SECRET in given or "#" in text, "libav must get it"
    assert SECRET not in repr({"a": [address]})


@pytest.mark.parametrize(
    "text",
    [f"rtsp://admin:123/{SECRET}@cam/x", f"rtsp://admin:p@ss/{SECRET}@cam/x",
        f"rtsp://{SECRET}@cam/@x",
        f"gopher://me:{SECRET}@host/", f"rtsp://me:{SECRET}@ho:st:port/x",
     f"rtsp://me:{SECRET}@/x", f"udp://me:{SECRET}@cam", f"rtsp://a:{SECRET}@cam/x?transport=pigeon"],
)  # fmt: skip
def test_no_secret_in_refusals(text: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_source(text)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["rtsp://192.168.1.64:554/Streaming/Channels/101", "rtsp://cam/cam/realmonitor?channel=1&subtype=0",
     "rtsp://cam:554/h264Preview_01_main", "rtsp://cam/axis-media/media.amp", "http://cam/axis-cgi/mjpg/video.cgi"],
)  # fmt: skip
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert parse_source(text).shown == text


def test_tokens_in_the_path_are_masked() -> None:
    assert parse_source("rtsps://nvr:7441/123e4567-e89b-12d3-a456-426614174000/x").shown == "rtsps://nvr:7441/***/x"
    assert parse_source("rtsps://nvr:7441/hXyZ12AbCdEfGhIj?enableSrtp").shown == "rtsps://nvr:7441/***?***"


def test_the_mask_is_needed() -> None:
    assert SECRET in "rtsp://cam/live?token=" + SECRET  # the check above would see it


@pytest.mark.parametrize(
    ("text", "user", "password", "host", "port"),
    [
        ("rtsp://cam/x", None, None, "cam", 554),
        ("rtsp://admin:pw@cam:8554/x", "admin", "pw", "cam", 8554),
        ("rtsp://admin@cam/x", "admin", None, "cam", 554),
        ("rtsp://admin:p%40ss%3A@cam/x", "admin", "p@ss:", "cam", 554),
        ("rtsp://admin:p@ss:w@cam/x", "admin", "p@ss:w", "cam", 554),
        ("rtsp://admin:p/ss@cam:554/x", "admin", "p/ss", "cam", 554),
        ("http://[fe80::1]:8080/x", None, None, "fe80::1", 8080),
        ("https://cam/@scope/video.mp4", None, None, "cam", 443),
        ("udp://@:1234", None, None, "", 1234),
    ],
)
def test_parts(text: str, user: str | None, password: str | None, host: str, port: int) -> None:
    address = parse_source(text)
    assert (address.user, address.password, address.host, address.port) == (user, password, host, port)


def test_credentials_apart_are_encoded_into_the_url() -> None:
    address = parse_source("rtsp://cam/x?channel=1", user="a:b", password="p@/w%?#")
    assert address.open_arguments().file == "rtsp://a%3Ab:p%40%2Fw%25%3F%23@cam/x?channel=1"
    assert address.shown == "rtsp://cam/x?channel=1"
    with pytest.raises(AddressError, match="takes no user"):
        parse_source("udp://cam:1", user="me")


def test_rtsp_goes_by_tcp_unless_told() -> None:
    assert parse_source("rtsp://cam/x").open_arguments().options["rtsp_transport"] == "tcp"
    told = parse_source("rtsp://cam/x?a=%20b&transport=udp&c")
    assert told.open_arguments().options["rtsp_transport"] == "udp"
    assert told.open_arguments().file == "rtsp://cam/x?a=%20b&c", "the rest stays byte by byte"
    assert parse_source("rtsp://cam/x", transport="udp").transport == "udp"
    with pytest.raises(AddressError, match="rtsp:// only"):
        parse_source("http://cam/x", transport="udp")


def test_time_outs_are_in_microseconds() -> None:
    assert parse_source("rtsp://cam/x").open_arguments(2.5).options["timeout"] == "2500000"
    assert parse_source("http://cam/x").open_arguments(2.5).options["rw_timeout"] == "2500000"


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_what_comes_from_outside_may_not_name_local_files(scheme: str) -> None:
    allowed = parse_source(f"{scheme}://cam/x").open_arguments().options["protocol_whitelist"].split(",")
    assert "file" not in allowed and "tcp" in allowed


def test_devices_patterns_and_files(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for text in ("/dev/video2", "webcam:2"):
        given = parse_source(text).open_arguments()
        assert (given.format, given.file) == ("v4l2", "/dev/video2")
    monkeypatch.setattr("sys.platform", "darwin")
    assert parse_source("webcam:0").open_arguments().file == "0:none"
    monkeypatch.setattr("sys.platform", "win32")
    given = parse_source("webcam:USB Camera").open_arguments()
    assert (given.format, given.file) == ("dshow", "video=USB Camera")

    pattern = parse_source("lavfi:testsrc2=size=64x48:rate=5")
    assert (pattern.open_arguments().format, pattern.live) == ("lavfi", False)

    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x")
    for text in (str(path), f"file:{path}"):
        address = parse_source(text)
        assert (address.shown, address.open_arguments().file, address.live) == ("clip.mp4", f"file:{path}", False)
    for text in ("", "no-such-file.mp4", "webcam:", "lavfi:", "rtsp://", "a\nb"):
        with pytest.raises(AddressError):
            parse_source(text)


def test_an_address_crosses_a_pipe() -> None:
    address = parse_source("rtsp://admin:pw@cam/x?transport=udp")
    assert LiveAddress.from_wire(json.loads(json.dumps(address.to_wire()))) == address
    assert pickle.loads(pickle.dumps(address)) == address
