"""Each fault, as a client sees it; where it matters also that nothing of the kind is seen without it."""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from onlooker.pipeline.simulate import SimulatedCamera
from tests.simulate.conftest import FPS
from tests.simulate.rtsp_client import Rtp, RtspClient, wait_for
from tests.simulate.watching import frames, opened, take

RATE = 90_000


@pytest.fixture
def client(camera: SimulatedCamera) -> Iterator[RtspClient]:
    with RtspClient(camera.url) as client:
        yield client


def seconds(before: Rtp, after: Rtp) -> float:
    """Time between two packets by their timestamps, which may go back."""
    ticks = after.timestamp - before.timestamp & 0xFFFFFFFF
    return (ticks - (1 << 32) if ticks >> 31 else ticks) / RATE


def until(packets: Iterator[Rtp], condition: Callable[[], object]) -> list[Rtp]:
    seen: list[Rtp] = []
    for packet in packets:
        seen.append(packet)
        if packet.marker and condition():
            return seen
    raise AssertionError


def plays_again(camera: SimulatedCamera) -> bool:
    try:
        return len(take(camera.url, 3)) == 3
    except (av.error.FFmpegError, OSError):
        return False


def test_stall_keeps_the_connection_and_loses_the_time(camera: SimulatedCamera, client: RtspClient) -> None:
    client.play()
    packets = client.rtp()
    next(packets)
    assert camera.fault("stall", seconds=1.5)["faults"] == ["stall"]
    with RtspClient(camera.url) as other:
        assert other.ask("OPTIONS").status == 200  # it lives, it only shows nothing
    seen = until(packets, lambda: not camera.status()["faults"])
    seen += [next(packets) for _ in range(5)]
    gap, first = max((seconds(a, b), b.sequence) for a, b in itertools.pairwise(seen))
    assert gap > 1.2
    after = next(packet for packet in seen if packet.sequence == first)
    assert after.payload[0] & 0x1F in (5, 24)  # goes on with a key frame
    assert all(b.sequence == a.sequence + 1 & 0xFFFF for a, b in itertools.pairwise(seen))


def test_hang_says_nothing_at_all(camera: SimulatedCamera, client: RtspClient) -> None:
    assert client.ask("OPTIONS").status == 200
    camera.fault("hang", seconds=3600)
    with RtspClient(camera.url) as late:
        for one in (client, late):
            one.socket.settimeout(0.5)
            with pytest.raises(TimeoutError):
                one.ask("OPTIONS")
        camera.clear()
        for one in (client, late):
            one.socket.settimeout(60)
            assert one.answer().status == 200


def test_kill_closes_everything_and_comes_back(camera: SimulatedCamera) -> None:
    address = ("127.0.0.1", int(camera.url.rpartition(":")[2].partition("/")[0]))
    with opened(camera.url) as container:
        playing = frames(container)
        next(playing)
        camera.fault("kill", seconds=3600)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address).close()
        assert sum(1 for _ in playing) < 200  # an end, not an error
        camera.fault("kill", seconds=0.05)
    wait_for(lambda: plays_again(camera), "the camera's return")


def test_kill_can_be_repeated(video: Path) -> None:
    with SimulatedCamera(video, fault=["kill@0.2/0.3:0.1"]) as camera:
        wait_for(lambda: sum("is back" in line for line in camera.log()) >= 3, "three returns")
        camera.fault("stall", seconds=0)
        assert camera.running


def test_a_second_kill_takes_the_place_of_the_first(video: Path) -> None:
    with SimulatedCamera(video) as camera:
        camera.fault("kill", seconds=0.5)
        camera.fault("kill", seconds=0.05)
        wait_for(lambda: plays_again(camera), "the camera's return")
        camera.fault("kill", seconds=3600)
        time.sleep(1)  # the first one's return would be long over
        assert not plays_again(camera)


def test_reset_is_no_orderly_end(camera: SimulatedCamera, client: RtspClient) -> None:
    client.play()
    next(client.packets())
    camera.fault("reset")
    with pytest.raises(ConnectionResetError):
        for _ in client.packets():
            pass
    assert plays_again(camera)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("401", av.error.HTTPUnauthorizedError),
        ("404", av.error.HTTPNotFoundError),
        ("503", av.error.HTTPServerError),
    ],
)
def test_refusals(camera: SimulatedCamera, kind: str, error: type[Exception]) -> None:
    with opened(camera.url) as container:
        playing = frames(container)
        next(playing)
        camera.fault(kind)
        assert sum(1 for _ in playing) < 200  # who is in is put out
    with pytest.raises(error):
        take(camera.url, 1)
    camera.clear()
    assert plays_again(camera)


def test_garbage_in_the_video(camera: SimulatedCamera, client: RtspClient) -> None:
    client.play()
    packets = client.rtp()
    sound = {1, 5, 6, 24, 28}  # slices, SEI, STAP-A, FU-A
    assert {next(packets).payload[0] & 0x1F for _ in range(20)} <= sound
    camera.fault("garbage", seconds=60)
    kinds: set[int] = set()
    wait_for(lambda: kinds.add(next(packets).payload[0] & 0x1F) or len(kinds) > 10, "garbage")
    camera.clear()
    wait_for(lambda: {next(packets).payload[0] & 0x1F for _ in range(15)} <= sound, "sound video")


def test_libav_lives_through_garbage(camera: SimulatedCamera) -> None:
    with opened(camera.url) as container:
        playing = frames(container)
        next(playing)
        camera.fault("garbage", seconds=0.5)
        camera.fault("garbage-rtsp", seconds=0)
        wait_for(lambda: not camera.status()["faults"], "its end")
        assert [next(playing) for _ in range(30)]


def test_garbage_between_messages(camera: SimulatedCamera, client: RtspClient) -> None:
    client.play()
    next(client.packets())
    camera.fault("garbage-rtsp", seconds=60)
    with pytest.raises((AssertionError, EOFError)):  # no frame begins where one must
        for _ in client.packets():
            pass


def test_loss_is_what_is_missing(camera: SimulatedCamera, client: RtspClient) -> None:
    client.play()
    packets = client.rtp()
    sound = [next(packets) for _ in range(20)]
    assert all(b.sequence == a.sequence + 1 & 0xFFFF for a, b in itertools.pairwise(sound))
    camera.fault("loss", percent=70)
    seen = until(packets, lambda: camera.status()["packets_dropped"] > 20)
    camera.clear()
    seen += until(packets, lambda: True)
    seen += [next(packets) for _ in range(30)]  # well past what was under way
    missing = sum((b.sequence - a.sequence & 0xFFFF) - 1 for a, b in itertools.pairwise([sound[-1], *seen]))
    assert missing == camera.status()["packets_dropped"]


def test_loss_over_udp_is_seen_by_libav(camera: SimulatedCamera) -> None:
    with opened(camera.url, "udp") as container:
        playing = frames(container)
        next(playing)
        before = camera.fault("loss", percent=20)["packets_dropped"]
        seen = [next(playing) for _ in range(30)]
        assert camera.status()["packets_dropped"] > before
    numbers = [frame.number for frame in seen]
    assert any(b != (a + 1) % 60 for a, b in itertools.pairwise(numbers))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("codec", "mjpeg", ("mjpeg", 80, FPS)),
        ("size", "160x96", ("mjpeg", 160, FPS)),
        ("codec", "h264", ("h264", 160, FPS)),
        ("fps", 5, ("h264", 160, 5)),
        ("fps", FPS, ("h264", 160, FPS)),
    ],
)
def test_changes_end_connections_and_are_told_next_time(
    camera: SimulatedCamera, kind: str, value: str | float, expected: tuple[str, int, int]
) -> None:
    with opened(camera.url) as container:
        playing = frames(container)
        before = next(playing).width
        camera.fault(kind, **{kind: value})
        assert {frame.width for frame in playing} <= {before}
    with opened(camera.url) as container:
        context = container.streams.video[0].codec_context
        times = [frame.pts for _, frame in zip(range(5), frames(container), strict=False)][1:]
    assert (context.name, context.width) == expected[:2]
    assert min(b - a for a, b in itertools.pairwise(times) if a and b) == RATE // expected[2]


def test_clock_jumps_and_timestamps_do_not(camera: SimulatedCamera, client: RtspClient) -> None:
    client.play()
    reports = client.reports()
    before = next(reports)
    camera.fault("clock", jump=-3600)
    after = next(report for report in reports if abs(report.wall - before.wall) > 1800)
    passed = (after.timestamp - before.timestamp & 0xFFFFFFFF) / RATE
    assert after.wall - before.wall - passed == pytest.approx(-3600, abs=1e-3)
    camera.fault("clock", jump=3600)


@pytest.mark.parametrize("jump", [-5.0, 5.0, 3600.0])
def test_timestamps_jump(camera: SimulatedCamera, client: RtspClient, jump: float) -> None:
    client.play()
    packets = client.rtp()
    before = next(packets)
    sent = camera.fault("pts-jump", jump=jump)["frames_sent"]
    seen = [before, *until(packets, lambda: camera.status()["frames_sent"] > sent + 5)]
    steps = [seconds(a, b) for a, b in itertools.pairwise(seen)]
    largest = max(steps, key=abs)
    assert abs(largest) > abs(jump) / 2 and (largest > 0) == (jump > 0)
    # All in all the time that passed, and the jump.
    assert seconds(seen[0], seen[-1]) - jump == pytest.approx(seen[-1].arrival - seen[0].arrival, abs=2)


def test_timestamps_freeze(camera: SimulatedCamera, client: RtspClient) -> None:
    client.play()
    packets = (packet for packet in client.rtp() if packet.marker)
    camera.fault("pts-freeze", seconds=60)
    wait_for(lambda: len({next(packets).timestamp for _ in range(5)}) == 1, "equal timestamps")
    camera.clear()
    wait_for(lambda: len({next(packets).timestamp for _ in range(5)}) == 5, "different timestamps")


def test_slow_falls_behind_and_catches_up(camera: SimulatedCamera) -> None:
    camera.fault("fps", fps=10)  # a busy machine takes long to catch up with more pictures
    with RtspClient(camera.url) as client:
        client.play()
        packets = client.rtp()
        first = next(packets)

        def late(packet: Rtp) -> float:
            return packet.arrival - first.arrival - seconds(first, packet)

        camera.fault("slow", speed=0.1, seconds=60)
        next(packet for packet in packets if late(packet) > 0.7)
        camera.clear()
        next(packet for packet in packets if late(packet) < 0.3)


def test_faults_begin_at_their_time_and_on_their_own(video: Path) -> None:
    began = time.monotonic()
    with SimulatedCamera(video, fault=["404@1", "loss:5"]) as camera:
        assert camera.status()["faults"] in (["loss"], ["loss", "404"])
        wait_for(lambda: "404" in camera.status()["faults"], "the fault")
        assert time.monotonic() - began >= 1
        with pytest.raises(av.error.HTTPNotFoundError):
            take(camera.url, 1)
