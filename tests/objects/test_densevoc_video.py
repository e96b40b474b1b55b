"""Whole videos by a model with a backbone: sizes of pictures, boxes where they belong, captions as texts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from onlooker.operators.objects.densevoc.load import ObjectModel, ObjectModelError
from onlooker.operators.objects.densevoc.video import describe_video, fit_frames, fitted_size

from .densevoc_parts import ON_TRUNK, SMALL, WORDS, random_model


@pytest.mark.parametrize(
    ("given", "fitted"),
    [((480, 640), (288, 384)), ((640, 480), (384, 288)), ((384, 384), (384, 384)), ((100, 130), (295, 383))],
)
def test_longer_sides_are_brought_to_one_length(given: tuple[int, int], fitted: tuple[int, int]) -> None:
    """The last one is as the reference rounds: 384 becomes 383."""
    assert fitted_size(*given, 384) == fitted
    assert fitted_size(1, 4000, 384) == (1, 384)


def test_pictures_keep_their_shape_and_place() -> None:
    frames = torch.zeros(2, 30, 60, 3, dtype=torch.uint8)
    frames[:, 15:, :30] = 200
    images = fit_frames(frames, 64)
    assert images.shape == (2, 64, 64, 3) and not images[:, 32:].any()
    assert images[:, 17:32, :31].eq(200).all() and not images[:, :15].any()


def loaded(**changes: object) -> ObjectModel:
    return ObjectModel(random_model(replace(SMALL, **changes)), "", {}, WORDS)  # type: ignore[arg-type]


def test_tracks_of_a_video_in_its_own_pixels() -> None:
    torch.manual_seed(2)
    model, frames = loaded(), (255 * torch.rand(4, 90, 180, 3)).to(torch.uint8)
    tracks = describe_video(model, frames)
    whole = model.model(fit_frames(frames, 64))
    assert whole.identities is not None and len(tracks) == int(whole.identities.max()) > 0
    for track in tracks:
        own = whole.identities == track.identity
        assert track.frames == tuple(own.nonzero()[:, 0].tolist())
        scaled = whole.detected.boxes[own] * (180 / 64)
        limit = torch.tensor([180.0, 90.0, 180.0, 90.0])
        torch.testing.assert_close(track.boxes, scaled.minimum(limit))
        assert track.caption is not None and "[SEP]" not in track.caption
        assert set(track.caption.split()) <= {*WORDS, *(word + "s" for word in WORDS)}
    assert describe_video(model, frames[:0]) == []


def test_models_that_cannot_are_told() -> None:
    frames = torch.zeros(1, 64, 64, 3)
    with pytest.raises(ObjectModelError, match="a tower's features"):
        describe_video(ObjectModel(random_model(ON_TRUNK), "tiny", {}, ()), frames)
    with pytest.raises(ObjectModelError, match="follows nothing"):
        describe_video(loaded(association=None), frames)
    tracks = describe_video(loaded(captioner=None), frames)
    assert all(track.caption is None for track in tracks)
