"""The pyramid on a trunk's maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from onlooker.operators.objects.densevoc.trunk_pyramid import TrunkPyramid, TrunkPyramidConfig

SMALL = TrunkPyramidConfig((5, 7, 9), width=8, groups=2)
DEEP = replace(SMALL, detail=3, inner=12, bottleneck=4, blocks=(1, 2, 0))


def maps(batch: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, channels, side, side) for channels, side in zip(SMALL.channels, (16, 8, 4), strict=True)]


def deep_maps() -> list[torch.Tensor]:
    return [torch.randn(2, 3, 32, 32), *maps()]


def test_levels_have_the_sides_of_the_maps_and_one_width() -> None:
    levels = TrunkPyramid(SMALL)(maps())
    assert [tuple(level.shape) for level in levels] == [(2, 8, 16, 16), (2, 8, 8, 8), (2, 8, 4, 4)]


def test_sides_need_not_be_powers_of_two() -> None:
    odd = [torch.randn(1, 5, 9, 15), torch.randn(1, 7, 5, 8), torch.randn(1, 9, 3, 4)]
    assert [tuple(level.shape[2:]) for level in TrunkPyramid(SMALL)(odd)] == [(9, 15), (5, 8), (3, 4)]


@torch.no_grad()
def test_what_is_coarse_reaches_all_finer_levels_and_not_the_reverse() -> None:
    pyramid, given = TrunkPyramid(SMALL).eval(), maps()
    before = pyramid(given)
    for changed in range(3):
        after = pyramid([level + (index == changed) * torch.randn_like(level) for index, level in enumerate(given)])
        differs = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
        assert differs == [index <= changed for index in range(3)]


@torch.no_grad()
def test_pictures_of_a_batch_do_not_meet() -> None:
    pyramid, given = TrunkPyramid(SMALL).eval(), maps()
    for both, alone in zip(pyramid(given), pyramid([level[1:] for level in given]), strict=True):
        torch.testing.assert_close(both[1:], alone)


@torch.no_grad()
def test_finer_maps_than_its_own_are_left_out() -> None:
    pyramid, given = TrunkPyramid(SMALL).eval(), maps()
    for one, other in zip(pyramid(given), pyramid([torch.randn(2, 3, 32, 32), *given]), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_with_blocks_everything_reaches_every_level() -> None:
    pyramid, given = TrunkPyramid(DEEP).eval(), deep_maps()
    before = pyramid(given)
    assert [tuple(level.shape) for level in before] == [(2, 8, 16, 16), (2, 8, 8, 8), (2, 8, 4, 4)]
    for changed in range(4):
        after = pyramid([level + (index == changed) * torch.randn_like(level) for index, level in enumerate(given)])
        assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@torch.no_grad()
def test_with_blocks_sides_need_not_be_powers_of_two() -> None:
    odd = [torch.randn(1, 3, 17, 30), torch.randn(1, 5, 9, 15), torch.randn(1, 7, 5, 8), torch.randn(1, 9, 3, 4)]
    assert [tuple(level.shape[2:]) for level in TrunkPyramid(DEEP)(odd)] == [(9, 15), (5, 8), (3, 4)]


def test_other_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 7, 9\) channels, but was given \(5, 7\)"):
        TrunkPyramid(SMALL)(maps()[:2])


@pytest.mark.parametrize("sizes", [{"channels": ()}, {"width": 10, "groups": 4}, {"width": 0}, {"inner": 12}])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"multiple of groups|sizes"):
        TrunkPyramidConfig(**sizes)  # type: ignore[arg-type]


def test_blocks_are_told_for_every_level() -> None:
    with pytest.raises(ValueError, match="one number for each of 3 levels"):
        TrunkPyramidConfig(blocks=(1, 2))


@pytest.mark.parametrize("config", [SMALL, DEEP])
def test_the_config_survives_a_file(config: TrunkPyramidConfig) -> None:
    assert TrunkPyramidConfig(**config.to_dict()) == config
