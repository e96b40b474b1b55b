"""`onlooker ask` and `onlooker find`: the right frame, the right part of it, and one clear line for what cannot be."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from onlooker.pipeline.cli.main import main
from onlooker.pipeline.cli.still import sampled, still_at
from onlooker.pipeline.cli.values import moment, region
from onlooker.pipeline.errors import UsageError
from tests.objects.tracking import random_model, save
from tests.videos import frame_number, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "numbers.mp4", 100, rate=25)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "cat.png"
    Image.fromarray(photographs.chelsea()).save(path)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of the tower's maps that tells of anything anywhere."""
    return save(tmp_path_factory.mktemp("objects") / "model", random_model(maps=(40, 112, 320)))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("12.5s", 12.5),
        ("0:12.5", 12.5),
        ("1:02", 62.0),
        ("1:02:03.5", 3723.5),
        ("0", 0.0),
        ("90", 90.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert moment(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "now", "-1", "0:-1", "0:75", "1:2:3:4", "1.5:10", "nan", "inf", "1e300"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        moment(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "0,0,1", "0,0,1,1,1", "a,b,c,d", "0.5,0,0.5,1", "0.9,0,0.1,1", "0,0,2,1", "0,0,nan,1"]
)
def test_what_is_no_box(text: str) -> None:
    assert region("0.1,0.2,0.3,1") == (0.1, 0.2, 0.3, 1.0)
    with pytest.raises(ArgumentTypeError):
        region(text)


@pytest.mark.parametrize(
    ("t", "number"), [(None, 0), (0.0, 0), (0.039, 0), (0.04, 1), (1.0, 25), (3.97, 99), (3.999, 99)]
)
def test_the_frame_is_the_one_that_is_shown_then(video: Path, t: float | None, number: int) -> None:
    still = still_at(str(video), t)
    assert frame_number(still.pixels) == number and still.t == pytest.approx(number / 25)


def test_the_frame_of_a_video_with_irregular_times(tmp_path: Path) -> None:
    ticks = [500, 540, 700, 1900, 2500]
    path = write_video(tmp_path / "in.mp4", 5, pts=ticks, time_base=Fraction(1, 1000), rate=25)
    for t, number in [(0.2, 0), (0.5, 0), (0.69, 1), (1.89, 2), (1.9, 3), (2.49, 3), (2.5, 4)]:
        assert frame_number(still_at(str(path), t).pixels) == number, t


def test_frames_of_a_whole_video(video: Path) -> None:
    stills = list(sampled(str(video), 2.0))
    assert [still.t for still in stills] == pytest.approx([i / 2 for i in range(8)], abs=0.021)
    assert [frame_number(still.pixels) for still in stills] == [round(still.t * 25) for still in stills]


def test_times_beyond_the_end_and_live_sources_are_refused(video: Path) -> None:
    with pytest.raises(UsageError, match=r"numbers.mp4 ends at 0:04.0; choose a time before that, not 4 s"):
        still_at(str(video), 4.0)
    for look in (lambda: still_at("rtsp://user:secret@host/1", 1.0), lambda: next(sampled("webcam:0", 1.0))):
        with pytest.raises(UsageError, match="onlooker tell ask") as caught:
            look()
        assert "secret" not in str(caught.value)


def test_asking_about_a_part_is_not_asking_about_the_whole(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "asked.jpg"
    assert main(["ask", str(photograph)]) == 0
    whole = capsys.readouterr().out
    assert len(whole.split()) > 3 and whole.count("\n") == 1
    command = ["ask", str(photograph), "--box", "0.1,0.3,0.4,0.7", "--json", "--picture", str(picture)]
    assert main(command) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["box"] == [0.1, 0.3, 0.4, 0.7] and told["t"] == 0.0 and 0 < told["score"] <= 1
    assert told["text"] != whole.strip()
    drawn, plain = np.asarray(Image.open(picture).convert("RGB")), np.asarray(Image.open(photograph).convert("RGB"))
    height, width = drawn.shape[:2]
    changed = np.abs(drawn.astype(int) - plain[:height, :width]).max(-1) > 60
    assert changed[:, round(0.1 * width) + 1].mean() > 0.3, "the left side of the box"
    assert changed[round(0.8 * height) :, round(0.8 * width) :].mean() < 0.01


def test_places_are_told_best_first_with_their_times(
    video: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "found.png"
    options = ["--detector", str(detector), "--least", "-99"]
    assert main(["find", str(video), "a dog", "--fps", "0.5", *options, "--json", "--picture", str(picture)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted(row["t"] for row in rows) == pytest.approx([0, 2], abs=0.021), "the best of each frame"
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    for x0, y0, x1, y1 in (row["box"] for row in rows):
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    assert Image.open(picture).size == (80, 48)
    assert main(["find", str(video), "a dog", "--at", "2", *options, "--most", "2"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["time", "score", "box"] and len(lines) == 2
    assert all(line.split()[0] == "0:02.0" and region(line.split()[2]) for line in lines)


def test_nothing_found_is_no_error(video: Path, detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["find", str(video), "a dog", "--at", "0", "--detector", str(detector), "--least", "99"]
    assert main(command) == 0
    told = capsys.readouterr()
    assert told.out == "" and told.err == "onlooker: nothing found\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "missing.mp4"], "missing.mp4"),
        (["ask", "VIDEO", "--at", "9"], "ends at 0:04.0"),
        (["ask", "VIDEO", "--at", "soon"], "no time"),
        (["ask", "VIDEO", "--box", "0,0,9,9"], "no box"),
        (["ask", "VIDEO", "--box", "1,0,0,1"], "X0 must lie left of X1"),
        (["ask", "VIDEO", "--picture", "a.gif"], "JPEG or PNG"),
        (["ask", "VIDEO", "--picture", "nowhere/a.png"], "does not exist"),
        (["ask", "VIDEO", "--captioner", "tiyn"], "tiyn"),
        (["find", "missing.mp4", "a dog"], "missing.mp4"),
        (["find", "VIDEO", " "], "say what to look for"),
        (["find", "VIDEO", "a dog", "--fps", "0"], "--fps"),
        (["find", "VIDEO", "a dog", "--fps", "nan"], "--fps"),
        (["find", "VIDEO", "a dog", "--most", "0"], "--most"),
        (["find", "VIDEO", "a dog", "--detector", "tiyn"], "tiyn"),
        (["find", "rtsp://user:secret@host/1", "a dog"], "onlooker tell ask"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    arguments: list[str], said: str, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(video) if argument == "VIDEO" else argument for argument in arguments]
    try:
        code: Any = main(arguments)
    except SystemExit as end:  # argparse
        code = end.code
    told = capsys.readouterr()
    assert code == 2 and told.out == ""
    assert said in told.err.splitlines()[-1] and "Traceback" not in told.err and "secret" not in told.err


def test_the_source_is_never_overwritten(photograph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = photograph.read_bytes()
    assert main(["ask", str(photograph), "--picture", str(photograph)]) == 2
    assert "overwrite the source" in capsys.readouterr().err and photograph.read_bytes() == before
