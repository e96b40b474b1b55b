"""Names of tracks: with a random tower, so that it only counts which cut-outs are compared with what, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from onlooker.operators.errors import OnlookerError
from onlooker.operators.localize.class_lists import query_prompts
from onlooker.operators.localize.scoring import Scorer
from onlooker.operators.objects.cutouts import cut_out
from onlooker.operators.objects.naming import Namer
from onlooker.operators.tower import load_tower
from tests.towers import save_tower

from .tracking import detections, pictures, right_model, run, save, tracker

NAMES = ["dog", "red car", "man with a hat", "tree"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Any:
    return save(tmp_path_factory.mktemp("right"), right_model(), online_threshold=0.7)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: Any) -> str:
    place = tmp_path_factory.mktemp("tower")
    save_tower(place, "vit")
    return f"local-dir:{place}"


def named(folder: Any, tower: str, least: float = -100.0, **config: Any) -> Any:
    return tracker(folder, None, names=NAMES, tower=tower, name_score=least, **config)


def test_a_cut_out_shows_the_box_and_what_is_around_it() -> None:
    frame = np.arange(40 * 80 * 3, dtype=np.uint32).reshape(40, 80, 3).astype(np.uint8)
    np.testing.assert_array_equal(cut_out(frame, (0.25, 0.5, 0.5, 0.75), 0.25), frame[17:33, 15:45])
    np.testing.assert_array_equal(cut_out(frame, (0.0, 0.0, 1.0, 1.0), 0.25), frame)
    for box in ((1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (0.5, 0.5, 0.5, 0.5)):
        assert cut_out(frame, box, 0.25).size >= 3


def test_a_track_has_the_name_that_fits_its_cut_outs_best(folder: Any, tower: str) -> None:
    """All of them together: those of its first, second and fourth detection."""
    packets = detections([[3, 9]] * 5)
    frames = pictures(packets)
    told = run(named(folder, tower, looks_per_second=100.0), packets, frames=frames)
    loaded = load_tower(tower)
    scorer = Scorer(loaded, 0.25)
    asked = scorer.read({name: query_prompts(name) for name in NAMES})
    for i in range(2):
        cut = [cut_out(frames[k].pixels, tuple(packets[k].boxes[i].tolist()), 0.25) for k in (0, 1, 3)]
        vectors = torch.nn.functional.normalize(loaded.encode_frames(loaded.preprocess(cut)).features, dim=1)
        best = int(np.argmax(scorer(vectors.sum(0).numpy(), asked)))
        ends = [event for _, event in told if event.phase == "end" and event.event_no == i]
        assert [event.data.name for event in ends] == [NAMES[best]]


def test_names_are_given_at_once_and_at_any_chunk(folder: Any, tower: str) -> None:
    packets = detections([[1], [1, 2], [1, 2, 3], [2, 3], [3], [], [1]], names=True)
    whole = run(named(folder, tower), packets, frames=pictures(packets))
    assert {event.data.name for _, event in whole} <= set(NAMES)
    for chunk in (1, 3):
        parts = run(named(folder, tower), packets, chunk=chunk, frames=pictures(packets))
        assert [event.to_json() for _, event in parts] == [event.to_json() for _, event in whole]


def test_what_fits_nothing_has_the_name_that_its_detector_gave(folder: Any, tower: str) -> None:
    packets = detections([[1], [1]], names=True)
    told = run(named(folder, tower, 100.0), packets, frames=pictures(packets))
    assert {event.data.name for _, event in told} == {"thing 1"}
    with pytest.raises(OnlookerError, match="connect its input `frames`"):
        run(named(folder, tower), packets, frames=[])
    bare = detections([[1], [1]])
    assert {event.data.name for _, event in run(named(folder, tower, 100.0), bare, frames=pictures(bare))} == {None}


@pytest.mark.parametrize("delay", [0, 2])
def test_no_more_are_looked_at_than_is_allowed(folder: Any, tower: str, delay: int, monkeypatch: Any) -> None:
    """Six objects at once: two looks at first, then one a frame; with a delay each is found in its own frame."""
    packets = detections([[0, 1, 2, 3, 4, 5]] * 12)
    frames = pictures(packets)
    looked: list[tuple[int, int]] = []
    whole = Namer.look

    def look(self: Namer, pixels: Any, boxes: Any) -> Any:
        number = next(i for i, frame in enumerate(frames) if frame.pixels is pixels)
        looked.append((number, len(boxes)))
        assert all(tuple(box) in {tuple(row) for row in packets[number].boxes.tolist()} for box in boxes)
        return whole(self, pixels, boxes)

    monkeypatch.setattr(Namer, "look", look)
    run(named(folder, tower, looks_per_second=2.0, delay=delay), packets, frames=frames)
    assert looked[0] == (0, 4) and [number for number, _ in looked] == list(range(12 - delay))
    assert {count for _, count in looked[1:]} == {1}
