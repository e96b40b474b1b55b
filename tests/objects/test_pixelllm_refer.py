"""The embedded PixelLLM finds things in pictures by words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onlooker.operators.objects.pixelllm.load import PixelLlmError
from onlooker.operators.objects.pixelllm.refer import PixelReferrer, load_pixel_referrer
from onlooker.training.objects.pixelllm_words import expressions, ious, read_boxed


@pytest.fixture(scope="module")
def referrer() -> PixelReferrer:
    return load_pixel_referrer("tiny")


def test_one_place_inside_the_picture(referrer: PixelReferrer) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    [place] = referrer.refer(picture, "the dog on the left")
    x0, y0, x1, y1 = place.box
    assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 and np.isfinite(place.score)
    assert referrer.refer(picture, "the dog on the left") == [place]
    [other] = referrer.refer(picture, "the dog on the right")
    assert sum(other.box[::2]) > sum(place.box[::2])
    long = "the dog " * 40  # more words than the model has places for
    assert len(referrer.refer(picture, long)) <= 1


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(PixelLlmError, match="did you mean 'tiny'"):
        load_pixel_referrer("tine")


@pytest.mark.data
def test_things_in_photographs_are_found(referrer: PixelReferrer) -> None:
    """Against boxes of the teacher, on photographs of the dev split; the twin sees them turned by half a turn."""
    root = Path(os.environ["ONLOOKER_DATA"])
    photographs = read_boxed(root, "dev")
    told = [
        (name, found[0])
        for name, texts, boxes in zip(photographs.files, photographs.captions, photographs.boxes, strict=True)
        if (found := expressions(texts, boxes))
    ][:40]
    truth = np.array([one.box for _, one in told], np.float32)
    shares = []
    for step in (1, -1):
        found = []
        for name, one in told:
            picture = np.asarray(Image.open(root / "flickr8k" / "images" / name).convert("RGB"))[::step, ::step]
            places = referrer.refer(np.ascontiguousarray(picture), one.text)
            found.append(places[0].box if places else (0.0, 0.0, 0.0, 0.0))
        shares.append(float((ious(np.array(found, np.float32), truth) > 0.5).mean()))
    assert shares[0] > 0.65 and shares[1] < 0.5 * shares[0], shares
