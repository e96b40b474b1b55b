"""Dense VOC as a whole on small random models: what holds whatever the weights are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from onlooker.operators.objects.densevoc.aggregation import track_tokens
from onlooker.operators.objects.densevoc.captions import write_captions
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig, Found, TrackingConfig

from .densevoc_parts import ON_TRUNK, SMALL, TRACKING, random_model


@pytest.fixture(scope="module")
def model() -> DenseVoc:
    return random_model()


@pytest.fixture(scope="module")
def found(model: DenseVoc) -> Found:
    torch.manual_seed(1)
    return model(255 * torch.rand(3, 64, 64, 3))


def test_objects_of_a_video(found: Found) -> None:
    assert found.detected.boxes.shape == (3, 4, 4) and found.features.shape == (3, 4, 9, 16)
    assert found.scores is not None and found.scores.shape == (12, 12)
    assert found.identities is not None and bool((found.identities > 0).any())
    for frame in found.identities:
        assert len(set(frame[frame > 0].tolist())) == int((frame > 0).sum()), "an identity twice in a frame"
    low = found.detected.scores < TRACKING.background
    assert not found.features[low].any() and not found.identities[low].any()


def test_one_caption_for_all_detections_of_a_track(model: DenseVoc, found: Found) -> None:
    """As if every detection were decoded, though each track is decoded once."""
    assert model.captioner is not None and found.identities is not None
    captions, given = model.describe(found), model.evidence(found)
    slow = write_captions(model.captioner, given.tokens, given.mask, TRACKING.max_length)
    assert captions.tokens.equal(slow.tokens)
    torch.testing.assert_close(captions.logprobs, slow.logprobs)
    for identity in found.identities.unique().tolist():
        if identity:
            assert len({tuple(row) for row in captions.tokens[found.identities == identity].tolist()}) == 1


@torch.no_grad()
def test_captions_of_nothing_are_those_of_the_language_model(model: DenseVoc) -> None:
    """A track without tokens is decoded as if there were no visual rows at all; nothing becomes NaN."""
    assert model.captioner is not None
    features = torch.randn(1, 9, 16)
    nothing = torch.zeros(1, 9, dtype=torch.bool)
    masked = write_captions(model.captioner, features, nothing, 8)
    bare = write_captions(model.captioner, features[:, :0], None, 8)
    assert masked.tokens.equal(bare.tokens) and bool(masked.logprobs.isfinite().all())
    assert write_captions(model.captioner, torch.zeros(0, 9, 16)).tokens.shape == (0, 40)


@pytest.mark.parametrize("options", [{"aggregation": "soft"}, {"aggregation": "soft", "consistent": True}, {}])
def test_aggregations_read_the_tracks_alone(options: dict[str, object], found: Found) -> None:
    """With each kind a detection's evidence lies within what its own track's features span."""
    config = replace(SMALL, tracking=replace(TRACKING, **options))  # type: ignore[arg-type]
    model = random_model(config)
    again = model.follow(found.detected, found.features)
    given = model.evidence(again)
    assert bool(given.tokens.isfinite().all()) and given.mask.shape == given.tokens.shape[:-1]
    assert model.describe(again).tokens.shape == (3, 4, TRACKING.max_length)
    if options.get("consistent"):
        assert again.identities is not None
        for identity in again.identities.unique().tolist():
            own = again.identities == identity
            torch.testing.assert_close(
                given.tokens[own], found.features[own].mean(0).expand_as(given.tokens[own]), atol=1e-4, rtol=1e-4
            )


def test_tracks_of_a_short_or_an_empty_clip() -> None:
    features = torch.randn(1, 2, 9, 16)
    tokens = track_tokens(features, torch.tensor([[1, 2]]), 3, 4)
    assert tokens.tokens.shape == (3, 36, 16) and tokens.mask.sum(1).tolist() == [9, 9, 0]
    empty = track_tokens(features[:, :0], torch.zeros(1, 0, dtype=torch.int64), 3, 4)
    assert empty.tokens.shape == (3, 36, 16) and not empty.mask.any()


def test_a_model_on_the_maps_of_a_trunk() -> None:
    model = random_model(ON_TRUNK)
    maps = [torch.randn(2, channels, side, side) for channels, side in ((5, 8), (6, 4), (7, 2))]
    levels = model.levels(maps)
    assert [tuple(level.shape) for level in levels] == [(2, 16, 8, 8), (2, 16, 4, 4), (2, 16, 2, 2)]
    found = model.find(levels, (64, 64))
    assert found.identities is not None and found.identities.shape == (2, 4)
    assert model.video_tokens(levels, (64, 64)).shape == (2 * 9, 16)
    with pytest.raises(TypeError, match="not pictures"):
        model.levels(torch.zeros(1, 64, 64, 3))
    with pytest.raises(RuntimeError, match="no captioner"):
        model.describe(found)
    with pytest.raises(TypeError, match="not maps"):
        random_model().levels(maps)


@pytest.mark.parametrize("config", [DenseVocConfig(), SMALL, ON_TRUNK])
def test_configs_survive_json(config: DenseVocConfig) -> None:
    assert DenseVocConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trunk": ON_TRUNK.trunk}, "drop one of them"),
        ({"tracking": TrackingConfig(resolution=7)}, "features have 784 numbers"),
        ({"captioner": replace(SMALL.captioner, visual_width=8)}, "captioner reads 8"),  # type: ignore[type-var]
    ],
)
def test_parts_that_do_not_fit_are_told(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(SMALL, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="32 channels"):
        replace(ON_TRUNK, trunk=replace(ON_TRUNK.trunk, width=32))  # type: ignore[type-var]


@pytest.mark.parametrize("values", [{"aggregation": "mean"}, {"frames": 0}, {"threshold": 0.0}, {"max_length": 2}])
def test_options_of_tracking_are_checked(values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        TrackingConfig(**values)  # type: ignore[arg-type]
