"""Which frames are sampled, and how they are resized and cropped, against the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onlooker.operators.decode.random_access import uniform_indices
from onlooker.operators.decode.sampling import strided_indices
from onlooker.operators.tower.vit import resize_crop

from .goldens import Case, assert_close, find_cases, parametrize, require

# Values run from 0 to 255; the bar for values near 1 is 5e-5.
PIXEL_TOLERANCE = 5e-5 * 255


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize(metafunc, "streaming_dvc", "frame_sampling_and_resize")


def test_case(case: Case | None) -> None:
    case = require(case, "frame sampling and resizing")
    if case.has("sampled_frame_indices"):
        frames, samples = case.number("num_video_frames"), case.number("num_frames")
        # Padded slots of the reference are black frames; the goldens show them as frame 0.
        indices = (
            strided_indices(frames, samples)[0] if case.number("zero_pad_frames") else uniform_indices(frames, samples)
        )
        assert indices.tolist() == case.tensor("sampled_frame_indices").tolist()
    elif case.has("frames", "crop_size"):
        cropped = resize_crop(torch.from_numpy(case.arrays["frames"].copy()), case.number("crop_size"))
        assert_close(cropped, case.tensor("out"), PIXEL_TOLERANCE)
    else:
        pytest.fail(f"{case} holds {sorted(case.arrays)}: no check knows this kind")


def test_resizing_with_antialias_is_noticed() -> None:
    """The crippled twin: pictures smoothed before they are made smaller."""
    cases = find_cases("streaming_dvc", "frame_sampling_and_resize", "frames", "crop_size")
    assert cases, "no golden case for resizing: nothing was compared"

    def crippled(case: Case) -> torch.Tensor:
        frames = torch.from_numpy(case.arrays["frames"].astype("float32")).movedim(-1, 1)
        short, size = min(frames.shape[-2:]), case.number("crop_size")
        whole = [max(side * size // short, size) for side in frames.shape[-2:]]
        resized = torch.nn.functional.interpolate(frames, whole, mode="bilinear", antialias=True)
        top, left = ((side - size) // 2 for side in whole)
        return resized[..., top : top + size, left : left + size].movedim(1, -1)

    def off(case: Case) -> bool:
        return bool((crippled(case) - case.tensor("out")).abs().max() > 1.0)

    shrinking = [case for case in cases if min(case.arrays["frames"].shape[1:3]) > case.number("crop_size")]
    if not shrinking:
        pytest.skip("no golden case makes a picture smaller")
    assert all(off(case) for case in shrinking)
