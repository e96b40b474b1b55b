"""Time on synthetic cameras whose truth is known: no network, no clock, no waiting."""

import math
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.decode.live.clock import WRAP_PERIODS, EventClock, PacketWall, RateWatch, WallClock

STEP = 0.04


def place_all(pts: list[float | None], arrivals: list[float] | None = None) -> tuple[list[float], dict[int, str]]:
    clock = EventClock()
    arrivals = arrivals or [100 + STEP * i for i in range(len(pts))]
    times, epochs = [], {}
    for i, (p, a) in enumerate(zip(pts, arrivals, strict=True)):
        t, reason = clock.place(p, a)
        times.append(t)
        if reason:
            epochs[i] = reason
    return times, epochs


def test_plain_pts_are_followed_from_the_first_frame() -> None:
    times, epochs = place_all([7 + STEP * i for i in range(50)])
    assert times == pytest.approx([STEP * i for i in range(50)])
    assert epochs == {0: "start"}


def test_the_first_pts_may_be_missing() -> None:
    times, epochs = place_all([None, *(3600 + STEP * i for i in range(1, 50))])
    assert times == pytest.approx([STEP * i for i in range(50)], abs=1e-6)
    assert epochs == {0: "start"}


def test_missing_pts_are_bridged_by_arrival() -> None:
    pts: list[float | None] = [STEP * i for i in range(50)]
    pts[10] = pts[11] = None
    times, _ = place_all(pts)
    assert times == pytest.approx([STEP * i for i in range(50)], abs=1e-6)
    times, _ = place_all([None] * 50)
    assert times == pytest.approx([STEP * i for i in range(50)], abs=1e-6)


@pytest.mark.parametrize("period", WRAP_PERIODS)
def test_a_wrap_goes_unnoticed(period: float) -> None:
    times, epochs = place_all([(period - 1 + STEP * i) % period for i in range(100)])
    assert times == pytest.approx([STEP * i for i in range(100)], abs=1e-5)
    assert epochs == {0: "start"}


def test_repeats_and_small_steps_back_move_forward_a_little() -> None:
    times, epochs = place_all([0.0, 0.04, 0.04, 0.08, 0.05, 0.12])
    assert times == pytest.approx([0, 0.04, 0.041, 0.08, 0.081, 0.12])
    assert epochs == {0: "start"}


def test_a_jump_back_starts_an_epoch() -> None:
    times, epochs = place_all([50.0, 50.04, 10.0, 10.04])
    assert (times, epochs) == (pytest.approx([0, 0.04, 0, 0.04]), {0: "start", 2: "pts_back"})


def test_a_jump_forward_starts_an_epoch_but_a_silence_does_not() -> None:
    _, epochs = place_all([0.0, 0.04, 3600.0, 3600.04])
    assert epochs == {0: "start", 2: "pts_forward"}
    times, epochs = place_all([0.0, 0.04, 60.04, 60.08], [0.0, 0.04, 60.04, 60.08])
    assert (times[2], epochs) == (60.04, {0: "start"})


def test_catching_up_after_a_hiccup_is_no_jump() -> None:
    # 20 s of nothing, one frame from the buffer of before, then the camera goes on at the present.
    pts = [*(STEP * i for i in range(50)), 2.0, 21.0, 21.04]
    arrivals = [*(STEP * i for i in range(50)), 22.0, 22.0, 22.0]
    assert place_all(pts, arrivals)[1] == {0: "start"}


def test_standing_pts_give_way_to_arrival() -> None:
    times, epochs = place_all([5.0] * 200)
    assert list(epochs.values()) == ["start", "pts_stuck"]
    start = max(epochs)
    assert start * STEP == pytest.approx(2, abs=0.1)
    assert times[start:] == pytest.approx([STEP * i for i in range(200 - start)], abs=1e-5)


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.just(math.nan), st.floats(-1e6, 1e6), st.floats(0, 2)), st.floats(0, 3)),
        max_size=80,
    )
)
def test_event_time_increases_whatever_comes(steps: list[tuple[float | None, float]]) -> None:
    clock, arrival, last = EventClock(), 0.0, -1.0
    for pts, wait in steps:
        arrival += wait
        t, reason = clock.place(pts, arrival)
        assert math.isfinite(t)
        assert t == 0 if reason else t > last
        last = t


def test_a_forced_restart_begins_at_zero() -> None:
    clock = EventClock()
    clock.place(1.0, 0.0)
    assert clock.place(1.04, 0.04, "format") == (0.0, "format")
    assert clock.place(1.08, 0.08) == (pytest.approx(0.04), None)


def rate_changes(steps: list[float]) -> int:
    watch, t, changes = RateWatch(), 0.0, 0
    for step in steps:
        t += step
        changes += watch.changed(t)
    return changes


def test_a_new_steady_rate_is_noticed_once() -> None:
    assert rate_changes([1 / 25] * 100 + [1 / 12.5] * 200) == 1
    assert rate_changes([1 / 25] * 100 + [1 / 12.5] * 100 + [1 / 25] * 100) == 2


def test_jitter_loss_and_variable_rates_are_no_change_of_rate() -> None:
    draw = random.Random(4)
    assert rate_changes([1 / 25] * 400) == 0
    assert rate_changes([1 / 25 * draw.choice([1] * 19 + [2]) for _ in range(2000)]) == 0
    assert rate_changes([draw.uniform(0.01, 0.2) for _ in range(2000)]) == 0
    assert rate_changes([1 / 25] * 100 + [0.0] * 100 + [-0.04] * 100 + [1 / 25] * 100) == 0


class Camera:
    """Frames with a true time; a network that delays them; a clock that may run fast or jump."""

    def __init__(self, fast: float = 0.0, delay: float = 0.15, jitter: float = 0.08) -> None:
        self.fast, self.delay, self.jitter, self.offset = fast, delay, jitter, 0.0
        self.draw = random.Random(5)

    def frames(self, seconds: float, start: float = 1e9):
        for i in range(int(seconds / STEP)):
            true = STEP * i
            media = true * (1 + self.fast)
            arrival = true + self.delay + self.draw.random() * self.jitter
            yield start + true, media, 500 + arrival, start + arrival, start + media + self.offset


def test_arrival_less_its_excess_stays_within_the_bound_and_beats_plain_arrival() -> None:
    for fast in (0, 100e-6, -100e-6):
        clock, smoothed, plain = WallClock(), [], []
        for true, t, arrival, unix, _ in Camera(fast).frames(1200):
            wall = clock.place(t, arrival, unix)
            assert wall.source == "host"
            assert abs(wall.unix - true) <= wall.error
            smoothed.append(wall.unix - true)
            plain.append(unix - true)
        late = smoothed[2000:]
        assert max(late) - min(late) < 0.02 < 0.07 < max(plain) - min(plain), "jitter cancels, drift is followed"


def test_without_the_window_drift_would_be_lost() -> None:
    """The twin of the test above: a minimum that never forgets leaves the bound when the camera's clock is slow."""
    clock = WallClock(unseen_delay=0.2, window=1e9)
    worst = 0.0
    for i in range(100):
        t = 3600.0 * i
        worst = max(worst, abs(clock.place(t * (1 - 100e-6), 500 + t, 1e9 + t).unix - (1e9 + t)))
    assert worst > 10


def test_frames_that_waited_in_the_probe_are_within_a_bound_that_says_so() -> None:
    clock = WallClock(opening=3.0)
    for i in range(300):
        true = STEP * i
        arrival = max(3.0, true)
        wall = clock.place(true, arrival, 1e9 + arrival)
        assert abs(wall.unix - (1e9 + true)) <= wall.error
    assert wall.error < 1.1, "and the bound shrinks when they are through"


def test_sender_reports_are_followed_within_their_bound_over_drift_and_an_hour() -> None:
    camera, clock = Camera(fast=100e-6), WallClock()
    sent = None
    for i, (_, t, arrival, unix, camera_now) in enumerate(camera.frames(60)):
        if i == 700:
            camera.offset = 3600.0
            continue
        if i % 125 == 0:  # a report every 5 s; libav extrapolates from it with the nominal rate
            sent = camera_now - t
        wall = clock.place(t, arrival, unix, sent + t, report=i % 125 == 0)
        assert wall.source == "rtcp"
        if i < 700 or i >= 750:  # after the jump: from the next report on, at once
            assert abs(wall.unix - camera_now) <= wall.error < 0.01
    assert i > 800


def test_the_bound_grows_while_reports_stay_away() -> None:
    clock = WallClock()
    first = clock.place(0.0, 10.0, 1e9, 1e9, report=True)
    later = clock.place(100.0, 110.0, 1e9 + 100)
    assert later.source == "rtcp" and later.unix == 1e9 + 100
    assert later.error == pytest.approx(first.error + 100 * 200e-6)


class Packet:
    """As libav's packet: side data by name."""

    def __init__(self, wall: float | None = None, report: bool = False) -> None:
        self.data = {} if wall is None else {"prft": struct.pack("<qi4x", int(wall * 1e6), 24)}
        if report:
            self.data["rtcp_sr"] = bytes(32)

    def has_sidedata(self, name: str) -> bool:
        return name in self.data

    def get_sidedata(self, name: str) -> bytes:
        return self.data[name]


def test_packet_walls_leave_out_the_first_and_clocks_that_were_never_set() -> None:
    walls = PacketWall()
    assert walls.read(Packet()) == (None, False)
    assert walls.read(Packet(1.7e9 + 0.04, report=True)) == (None, True), "libav's first one is a frame off"
    assert walls.read(Packet(1.7e9 + 0.04)) == (1.7e9 + 0.04, False)
    assert walls.read(Packet(12.0)) == (None, False)
    assert walls.reports == 1
