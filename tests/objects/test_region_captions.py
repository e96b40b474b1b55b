"""Captions of regions: the tokens of a box are those of what is in it, and texts depend on nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from onlooker.operators.caption import load
from onlooker.operators.caption.captioner import Captioner, DecodeOptions
from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.load import CaptionerError, embedded_weights
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece
from onlooker.operators.objects.captions import (
    RegionCaptioner,
    load_region_captioner,
    region_tokens,
    save_region_captioner,
)

WIDTH = 16


def quarters() -> np.ndarray:
    """A grid (6, 8, 16) of four quarters of one token each."""
    grid = np.zeros((6, 8, WIDTH), np.float32)
    grid[:3, :4, 0], grid[:3, 4:, 1], grid[3:, :4, 2], grid[3:, 4:, 3] = 1, 1, 1, 1
    return grid


def test_a_box_gets_the_tokens_of_what_is_in_it() -> None:
    boxes = np.array([[0.1, 0.1, 0.4, 0.4], [0.6, 0.1, 0.9, 0.4], [0.0, 0.5, 0.5, 1.0], [0.5, 0.5, 1, 1]], np.float32)
    tokens = region_tokens(quarters(), boxes, 3)
    assert tokens.shape == (4, 9, WIDTH) and tokens.dtype == np.float32
    for k in (0, 1):
        np.testing.assert_allclose(tokens[k], np.eye(WIDTH)[[k]].repeat(9, 0), atol=1e-6)
    assert (tokens[2].argmax(1) == 2).all() and (tokens[3].argmax(1) == 3).all()


def test_bins_go_row_by_row_over_the_whole_picture() -> None:
    tokens = region_tokens(quarters(), np.array([[0, 0, 1, 1]], np.float32), 2)[0]
    np.testing.assert_allclose(tokens, np.eye(WIDTH)[:4], atol=1e-6)


def test_the_edge_of_the_picture_is_no_fainter() -> None:
    """Bins that reach over the outermost centres of the grid; without padding they would fade to zero."""
    boxes = np.array([[0.0, 0.0, 0.05, 0.05], [0.98, 0.9, 1.0, 1.0]], np.float32)
    np.testing.assert_allclose(region_tokens(quarters(), boxes, 2).sum(-1), 1, atol=1e-6)


def test_nothing_gives_nothing() -> None:
    assert region_tokens(quarters(), np.zeros((0, 4), np.float32), 3).shape == (0, 9, WIDTH)


def captioner(batch: int = 2) -> Captioner:
    torch.manual_seed(0)
    pieces = [*SPECIAL, *"abcdefghijklmnop"]
    config = GitConfig(
        vocab_size=len(pieces), visual_width=WIDTH, hidden_size=32, num_heads=4, num_layers=2, ffn_size=64,
        max_positions=16, begin_token=2, end_token=3,
    )  # fmt: skip
    decoder = GitDecoder(config)
    with torch.no_grad():
        for layer in decoder.layers:
            layer.attention.value.weight.mul_(20)  # so that untrained texts differ at all
            layer.attention.dense.weight.mul_(20)
        decoder.output.weight.mul_(20)
    return Captioner(decoder, WordPiece(pieces), 24, DecodeOptions(max_length=8, prefix_length=8, batch=batch))


def some_tracks(count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1 + number % 4, 4, WIDTH)).astype(np.float32) for number in range(count)]


def test_what_a_track_is_told_does_not_depend_on_others() -> None:
    regions = RegionCaptioner(captioner(), size=2, views=6)
    tracks = some_tracks()
    together = regions.caption(tracks)
    assert together == [regions.caption([track])[0] for track in tracks]
    assert regions.caption(tracks[::-1]) == together[::-1]
    assert len({text for text, _ in together}) > 1
    assert all(0 < score <= 1 for _, score in together)


def test_no_track_no_text() -> None:
    assert RegionCaptioner(captioner()).caption([]) == []


@pytest.mark.parametrize("soft", [False, True])
def test_of_many_views_some_are_read_the_first_among_them(soft: bool) -> None:
    regions = RegionCaptioner(captioner(), size=2, views=3, soft=soft)
    track = np.random.default_rng(1).standard_normal((7, 4, WIDTH)).astype(np.float32)
    assert regions.caption([track]) == regions.caption([track[[0, 2, 4]]])
    assert regions.caption([track]) != regions.caption([track[:3]])


def test_the_mean_of_views_is_read_or_one_after_the_other() -> None:
    track = np.random.default_rng(1).standard_normal((3, 4, WIDTH)).astype(np.float32)
    model = captioner()
    soft, hard = (RegionCaptioner(model, size=2, soft=soft).caption([track])[0] for soft in (True, False))
    assert soft == pytest.approx(model.caption(track.mean(0))[0])
    assert hard == pytest.approx(model.caption(track.reshape(12, WIDTH))[0])
    assert soft != hard


def test_views_of_the_wrong_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 16"):
        RegionCaptioner(captioner(), size=2).caption([np.zeros((1, 4, 8), np.float32)])


def test_a_folder_holds_how_a_decoder_differs_from_its_base(tmp_path: Path) -> None:
    base = embedded_weights("tiny")
    torch.manual_seed(0)
    moved = {
        name: weights + (0 if name.startswith("words") else 0.01 * weights.abs().mean() * torch.randn_like(weights))
        for name, weights in base.items()
    }
    save_region_captioner(tmp_path / "mine", moved, "tiny", size=3, views=5)
    regions = load_region_captioner(tmp_path / "mine")
    assert (regions.size, regions.views) == (3, 5)
    read = regions.captioner.decoder.state_dict()  # type: ignore[attr-defined]
    for name, weights in moved.items():
        off = (read[name] - weights).abs().mean() / weights.abs().mean()
        assert off < (1e-6 if name.startswith("words") else 5e-3), name
    assert (tmp_path / "mine" / "model.safetensors").stat().st_size < 4e6


def test_without_a_folder_of_its_own_a_captioner_of_pictures_tells_of_regions(tmp_path: Path) -> None:
    shutil.copytree(Path(load.__file__).parent / "weights" / "tiny", tmp_path / "pictures")
    regions = load_region_captioner(tmp_path / "pictures")
    assert regions.captioner.token_width == 1280


def test_a_folder_beside_does_not_take_the_place_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_region_captioner(tmp_path / "tiny", embedded_weights("tiny"), "tiny", size=3, views=5)
    monkeypatch.chdir(tmp_path)
    assert load_region_captioner("tiny").soft
    assert not load_region_captioner(tmp_path / "tiny").soft


def test_what_is_no_captioner_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="did you mean 'tiny'"):
        load_region_captioner("tinny")
    with pytest.raises(CaptionerError, match="lacks"):
        load_region_captioner(tmp_path)
    save_region_captioner(tmp_path / "bad", embedded_weights("tiny"), "tiny", size=4, views=6)
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CaptionerError, match="captioner of regions 'bad' cannot be loaded: ") as raised:
        load_region_captioner(tmp_path / "bad")
    assert "\n" not in str(raised.value)
    (tmp_path / "bad" / "model.safetensors").unlink()
    with pytest.raises(CaptionerError, match="'bad' cannot be loaded: No such file"):
        load_region_captioner(tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text('{"base": "tiny"}')
    with pytest.raises(CaptionerError, match="'bad' cannot be loaded: config.json is incomplete, it lacks size, views"):
        load_region_captioner(tmp_path / "bad")
