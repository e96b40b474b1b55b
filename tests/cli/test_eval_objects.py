"""`onlooker eval objects` on files of each format."""

from __future__ import annotations

import builtins
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from onlooker.operators.events import make_event
from onlooker.pipeline.cli.main import main

FRAMES = 8
CAPTIONS = {1: "a brown dog runs over the grass", 2: "a man in a red coat walks"}


def box(track: int, frame: int) -> list[float]:
    return [10.0 + 5 * frame + 60 * track, 20.0, 30.0, 40.0]


def truth(video: Any = "cam") -> dict[str, Any]:
    images = [{"id": f, "video_id": video, "t": 0.5 * f, "width": 400, "height": 100} for f in range(1, FRAMES + 1)]
    rows = [
        {"image_id": f, "bbox": box(track, f), "track_id": track, "caption": CAPTIONS[track]}
        for f in range(1, FRAMES + 1)
        for track in CAPTIONS
    ]
    return {"images": images, "annotations": rows}


def predictions(captions: dict[int, str] = CAPTIONS, *, switch: bool = False) -> list[dict[str, Any]]:
    """What is true, with other words, or with an identity that changes half-way."""
    rows = [row | {"score": 0.9, "caption": captions[row["track_id"]]} for row in truth()["annotations"]]
    if switch:
        for row in rows:
            row["track_id"] += 10 * (row["image_id"] > FRAMES // 2)
    return rows


def mot(rows: Sequence[dict[str, Any]], score: float = 1) -> str:
    return "".join(
        ",".join(map(str, [row["image_id"], row["track_id"], *row["bbox"], score, -1, -1, -1])) + "\n" for row in rows
    )


def point(track: int, frame: int) -> tuple[float, ...]:
    left, top, width, height = box(track, frame)
    return (0.5 * frame + 0.01, left / 400, top / 100, (left + width) / 400, (top + height) / 100)


def log(stream: str = "cam", epoch: int = 0, phases: Sequence[str] = ("new", "update", "end")) -> str:
    """Both tracks as an event log: half of the way in `new`, half in `update`, and thinned in `end`."""
    lines = []
    ways = {"new": range(1, 5), "update": range(5, FRAMES + 1), "end": range(1, FRAMES + 1, 2)}
    for track, text in CAPTIONS.items():
        for rev, phase in enumerate(phases):
            event = make_event(
                "track",
                stream=stream,
                epoch=epoch,
                event_no=track,
                rev=rev,
                phase=phase,  # type: ignore[arg-type]
                t_start=0.5,
                t_end=4.0 if phase == "end" else None,
                t_seen=4.0,
                score=0.3,
                text="something" if phase == "new" and len(phases) > 1 else text,
                boxes=[point(track, frame) for frame in ways[phase]],
            )
            lines.append(event.to_json())
    return "\n".join(lines) + "\n\n"


@pytest.fixture
def score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command on contents of files, and returns what it prints as JSON."""

    def run(told: Any, true: Any, names: tuple[str, str] = ("p.json", "t.json"), *options: str) -> dict[str, Any]:
        command = files(tmp_path, told, true, names)
        assert main([*command, "--json", "--no-meteor", *options]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def files(folder: Path, told: Any, true: Any, names: tuple[str, str] = ("p.json", "t.json")) -> list[str]:
    for name, content in zip(names, (told, true), strict=True):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return ["eval", "objects", *(str(folder / name) for name in names)]


def test_each_fault_costs_its_own_score(score: Any) -> None:
    right = score(predictions(), truth())
    assert right["videos"] == 1 and right["frames"] == FRAMES and right["told_boxes"] == 2 * FRAMES
    best = right["scores"]
    assert best["HOTA"] == pytest.approx(1) and best["DetA"] == best["AssA"] == pytest.approx(1)
    assert best["CapA-CIDEr"] > 5 and "mAP" not in best and best["mAP_detection"] == 1
    switched = score(predictions(switch=True), truth())["scores"]
    assert switched["DetA"] == pytest.approx(1) and switched["AssA"] == pytest.approx(0.5)
    swapped = score(predictions({1: CAPTIONS[2], 2: CAPTIONS[1]}), truth())["scores"]
    assert swapped["AssA"] == pytest.approx(1) and swapped["CapA"] < best["CapA"] / 2 and swapped["cap_switch"] == 0


def test_scores_below_half_are_left_out_unless_asked_for(score: Any) -> None:
    weak = [row | {"score": 0.4} for row in predictions()]
    assert score(weak, truth())["scores"]["HOTA"] == 0
    assert score({"annotations": weak}, truth(), ("p.json", "t.json"), "--score", "0.3")["scores"]["HOTA"] == 1


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_mot_text(score: Any, suffix: str) -> None:
    """-1 means that a tracker has no scores; rows of the truth with confidence 0 do not count."""
    true = mot(truth()["annotations"]) + "1,9,0,0,5,5,0,-1,-1,-1\n"
    found = score(mot(predictions(switch=True), -1), true, ("p" + suffix, "t" + suffix))
    assert found["true_boxes"] == 2 * FRAMES and found["frames"] == FRAMES
    assert 0.6 < found["scores"]["HOTA"] < 0.8 and "CHOTA" not in found["scores"], "MOT text has no captions"


def test_frames_that_were_looked_at(score: Any) -> None:
    """Who looks at every second frame misses the others, or is not asked about them."""
    told = mot([row for row in predictions() if row["image_id"] % 2])
    names = ("p.txt", "t.txt")
    assert score(told, mot(truth()["annotations"]), names)["scores"]["HOTA"] == pytest.approx(0.5)
    asked = score(told, mot(truth()["annotations"]), names, "--looked-at")
    assert asked["scores"]["HOTA"] == pytest.approx(1) and asked["frames"] == FRAMES / 2


@pytest.mark.parametrize("phases", [("new", "update", "end"), ("end",)])
def test_event_logs(score: Any, phases: tuple[str, ...]) -> None:
    """Times are those of the nearest frame, words the last ones; without updates the thinned way of the end."""
    found = score(log(phases=phases), truth(), ("p.jsonl", "t.json"))
    assert found["told_boxes"] == (2 * FRAMES if len(phases) > 1 else FRAMES)
    assert found["scores"]["CapA-CIDEr"] > 5 and found["scores"]["AssA"] > 0.4
    assert found["scores"]["HOTA"] == pytest.approx(1 if len(phases) > 1 else 0.5)


def test_a_single_stream_is_the_single_video(score: Any) -> None:
    assert score(log("dog"), truth(7), ("p.jsonl", "t.json"))["scores"]["HOTA"] == pytest.approx(1)


def test_table_and_the_library_that_may_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package one line says what is left out, and the rest is scored."""
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name.startswith("trackers"):
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main([*files(tmp_path, predictions(), truth()), "--no-meteor"]) == 0
    out, err = capsys.readouterr()
    assert "100.00" in out and "CHOTA" in out and "MOTA" not in out
    assert err.count("\n") == 1 and "pip install 'trackers>=2.6'" in err


def test_bare_truth_has_no_scores_of_captions(score: Any) -> None:
    bare = truth()
    for row in bare["annotations"]:
        del row["caption"]
    assert not {"CHOTA", "mAP_detection"} & score(predictions(), bare)["scores"].keys()


@pytest.mark.parametrize(
    ("told", "true", "names", "says"),
    [
        ("[", truth(), ("p.json", "t.json"), "p.json' is not JSON"),
        ({}, truth(), ("p.json", "t.json"), "is no list of predictions"),
        ([], [], ("p.json", "t.json"), "is no ground truth"),
        ([], {"images": [{}]}, ("p.json", "t.json"), "image 0: it lacks 'id'"),
        ([], {"images": [{"id": 1}, {"id": 1}]}, ("p.json", "t.json"), "two images have one id"),
        ([], {"images": [{"id": 1}]}, ("p.json", "t.json"), 'has no "annotations"'),
        ([{"image_id": 99, "bbox": [0, 0, 1, 1]}], truth(), ("p.json", "t.json"), "the truth has no image 99"),
        ([{"image_id": 1, "bbox": [0, 0, 1]}], truth(), ("p.json", "t.json"), "not [left, top, width, height]"),
        ([{"image_id": 1, "bbox": [0, 0, 1, 1], "track_id": "x"}], truth(), ("p.json", "t.json"), "is no number"),
        ("1,2,3\n", mot(predictions()), ("p.txt", "t.txt"), "line 1: expected frame (from 1), id"),
        ("1,2,x,4,5,6\n", mot(predictions()), ("p.txt", "t.txt"), "line 1: could not convert"),
        ("", "", ("p.txt", "t.txt"), "tells no boxes to score by"),
        ([], mot(predictions()), ("p.json", "t.txt"), "what was told has to be MOT text too"),
        ("", truth(), ("p.txt", "t.json"), "the truth has to be MOT text too"),
        ("{}\n", truth(), ("p.jsonl", "t.json"), "line 1: no event of onlooker"),
        (log() + log(epoch=5), truth(), ("p.jsonl", "t.json"), "stream 'cam' began anew"),
        (log() + log("other"), truth(), ("p.jsonl", "t.json"), "the truth has no video 'other'"),
        (log(), {"images": [{"id": 1}], "annotations": []}, ("p.jsonl", "t.json"), "every image needs 't' (seconds)"),
    ],
)
def test_bad_files_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], told: Any, true: Any, names: tuple[str, str], says: str
) -> None:
    assert main([*files(tmp_path, told, true, names), "--no-meteor"]) == 2
    err = capsys.readouterr().err
    assert says in err and err.startswith("onlooker: ") and err.count("\n") == 1
