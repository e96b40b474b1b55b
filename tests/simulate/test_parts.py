"""The parts that need no camera: how faults are written, clocks, and packets taken apart again by their RFCs."""

import asyncio
import contextlib
import random
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.pipeline.errors import UsageError
from onlooker.pipeline.simulate import nal
from onlooker.pipeline.simulate.clock import CameraClock
from onlooker.pipeline.simulate.faults import KINDS, Effects, Fault, fault_of_json, parse_fault
from onlooker.pipeline.simulate.formats import Wish
from onlooker.pipeline.simulate.jpeg import jpeg_payloads
from onlooker.pipeline.simulate.media import Media
from onlooker.pipeline.simulate.nal import parameter_sets, split, units_of_extradata
from onlooker.pipeline.simulate.rtp import nal_payloads
from onlooker.pipeline.simulate.stream import open_udp
from tests.videos import write_video

FOREVER = float("inf")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stall", Fault("stall", seconds=5)),
        ("stall@10:30", Fault("stall", seconds=30, at=10)),
        ("kill@10/20:2", Fault("kill", seconds=2, at=10, every=20)),
        ("loss:5", Fault("loss", 5, FOREVER)),
        ("loss@1.5:2.5,60", Fault("loss", 2.5, 60, 1.5)),
        ("codec@3:h265", Fault("codec", "h265", at=3)),
        ("size:320x240", Fault("size", "320x240")),
        ("clock:-3600", Fault("clock", -3600)),
        ("401", Fault("401", seconds=FOREVER)),
    ],
)
def test_faults_as_they_are_written(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


def test_every_example_is_a_fault() -> None:
    assert {parse_fault(spec.example).kind for spec in KINDS.values()} == set(KINDS)


@pytest.mark.parametrize(
    "text",
    ["", "explode", "stall@", "stall@x", "stall:x", "stall:1,2", "stall:-1", "loss:101", "loss:nan", "reset:1"]
    + ["codec", "codec:vp9", "size:9", "clock", "fps:0", "slow:0", "kill@1/0:1", "stall@-1"],
)
def test_faults_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20


def test_faults_as_json() -> None:
    assert fault_of_json({"fault": "loss", "percent": 5, "seconds": 3, "at": 2}) == Fault("loss", 5, 3, 2)
    for wrong in ({"fault": "loss", "share": 5}, {"fault": "reset", "seconds": 5}, {"fault": "stall", "seconds": True}):
        with pytest.raises(UsageError):
            fault_of_json(wrong)


def test_losses_repeat_with_the_seed() -> None:
    def draw(seed: int) -> list[bool]:
        effects = Effects(seed)
        effects.begin(parse_fault("loss:30"))
        return [effects.loses() for _ in range(1000)]

    assert draw(1) == draw(1) != draw(2)
    assert 250 < sum(draw(1)) < 350


def test_clock() -> None:
    now = time.monotonic()
    clock = CameraClock(offset=100, drift_ppm=100)
    assert clock.wall(now) - time.time() == pytest.approx(100, abs=1)
    assert clock.wall(now + 1000) - clock.wall(now) == pytest.approx(1000.1, abs=1e-5)
    assert clock.ticks(now + 1000) - clock.ticks(now) == pytest.approx(90_009_000, abs=1)
    assert clock.instant(clock.ticks(now)) == pytest.approx(now, abs=1e-4)
    before, ticks = clock.wall(now), clock.ticks(now)
    clock.jump(-3600)
    assert clock.wall(now) - before == pytest.approx(-3600)
    assert clock.ticks(now) == ticks


def taken_apart(codec: str, payloads: list[bytes]) -> list[bytes]:
    """Put NAL units together again: RFC 6184 sections 5.6 to 5.8, RFC 7798 sections 4.4.1 to 4.4.3."""
    units: list[bytes] = []
    ended = True  # the fragmented unit before
    head = 1 if codec == "h264" else 2
    for payload in payloads:
        kind = payload[0] & 0x1F if codec == "h264" else payload[0] >> 1 & 0x3F
        if kind == (24 if codec == "h264" else 48):
            place = head
            while place < len(payload):
                size = int.from_bytes(payload[place : place + 2], "big")
                units.append(payload[place + 2 : place + 2 + size])
                place += 2 + size
        elif kind == (28 if codec == "h264" else 49):
            flags, body = payload[head], payload[head + 1 :]
            assert ended == bool(flags & 0x80)
            ended = bool(flags & 0x40)
            if flags & 0x80:
                first = payload[0] & 0xE0 | flags & 0x1F if codec == "h264" else payload[0] & 0x81 | (flags & 0x3F) << 1
                units.append(bytes([first]) + payload[1:head])
            units[-1] += body
        else:
            units.append(payload)
    assert ended
    return units


def unit(codec: str, kind: int, size: int) -> bytes:
    body = random.Random(size).randbytes(size)
    return (bytes([0x60 | kind]) if codec == "h264" else bytes([kind << 1, 1])) + body


@pytest.mark.parametrize("codec", ["h264", "h265"])
@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=5), sets=st.booleans())
def test_nal_units_survive_the_way(codec: str, sizes: list[int], sets: bool) -> None:
    kinds = ((7, 8) if codec == "h264" else (32, 33, 34)) if sets else ()
    units = [unit(codec, kind, 10) for kind in kinds] + [unit(codec, 5 if codec == "h264" else 19, n) for n in sizes]
    payloads = nal_payloads(codec, tuple(units))  # type: ignore[arg-type]
    assert max(map(len, payloads)) <= 1400
    assert taken_apart(codec, payloads) == units
    assert not sets or len(payloads) < len(units) or max(sizes) > 1390


def test_start_codes_and_lengths_are_told_apart() -> None:
    units = [unit("h264", 7, 5).rstrip(b"\0"), unit("h264", 5, 300).replace(b"\0", b"\1")]
    delimiter = b"\x09\xf0"
    by_code = b"".join(b"\0\0\0\1" + u for u in [delimiter, *units])
    assert split("h264", by_code, b"") == units
    by_length = b"".join(len(u).to_bytes(4, "big") + u for u in [delimiter, *units])
    assert split("h264", by_length, b"\x01\x64\x00\x1f\xff\xe1") == units


@pytest.mark.parametrize("codec", ["h264", "h265"])
@given(data=st.binary(max_size=60))
def test_damaged_decoder_configurations_are_no_crash(codec: str, data: bytes) -> None:
    for extradata in (data, b"\1" + data, b"\0\0\1\0\0\1" + data):
        units = units_of_extradata(codec, extradata)  # type: ignore[arg-type]
        parameter_sets(codec, units)  # type: ignore[arg-type]


def test_a_file_whose_configuration_is_not_understood_is_encoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "a.mp4", 10, codec_options={"bf": "0"})
    monkeypatch.setattr(nal, "units_of_extradata", lambda codec, extradata: [])
    with contextlib.closing(Media(video, Wish())) as media:
        assert [unit[0] & 0x1F for unit in media.format.parameter_sets] == [7, 8]


def test_udp_is_sent_in_bursts_and_in_order() -> None:
    async def send(ear: socket.socket) -> tuple[int, list[int]]:
        outlet = await open_udp("127.0.0.1", *ear.getsockname()[:1], (ear.getsockname()[1],) * 2)
        for number in range(300):
            outlet.send(0, number.to_bytes(2, "big"))
        at_once = len(read(ear))
        outlet.close()
        return at_once, [int.from_bytes(data, "big") for data in read(ear)]

    def read(ear: socket.socket) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(ear.recv(100))
        return found

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.setblocking(False)
        at_once, rest = asyncio.run(send(ear))
    assert at_once == 1
    assert len(rest) > 20 and rest == list(
        range(1, 1 + len(rest))
    )  # closing sends what waits, as much as the socket takes


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", random.Random(1).randbytes(500)])
def test_what_is_no_jpeg_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="JPEG"):
        jpeg_payloads(data)
