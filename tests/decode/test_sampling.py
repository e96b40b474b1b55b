import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.decode.sampling import random_indices, strided_indices

sizes = st.integers(1, 300)


@given(sizes, sizes)
def test_strides_are_equal_and_padding_stands_at_the_end(frames: int, samples: int) -> None:
    indices, valid = strided_indices(frames, samples)
    count = min(frames, samples)
    assert indices.shape == valid.shape == (samples,)
    assert valid.tolist() == [True] * count + [False] * (samples - count)
    assert set(np.diff(indices[valid])) <= {max(frames // samples, 1)}
    assert indices[0] == 0 and indices.max() < frames and not indices[~valid].any()


@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_random_frames_are_distinct_and_in_order(frames: int, samples: int, seed: int) -> None:
    indices, valid = random_indices(frames, samples, np.random.default_rng(seed))
    chosen = indices[valid]
    assert len(chosen) == min(frames, samples)
    assert (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < frames
    if frames <= samples:
        assert chosen.tolist() == list(range(frames))


def test_random_frames_reach_every_part_of_the_video() -> None:
    rng = np.random.default_rng(0)
    seen = {int(index) for _ in range(200) for index in random_indices(20, 4, rng)[0]}
    assert seen == set(range(20))


def test_nothing_to_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="0 frames"):
        strided_indices(0, 4)
    with pytest.raises(ValueError, match="0 samples"):
        random_indices(4, 0, np.random.default_rng(0))
