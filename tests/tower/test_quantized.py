"""Word vectors in eight bits: what they lose, and that a tower with them loads as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from onlooker.operators.tower import TowerError, load_tower
from onlooker.operators.tower.quantized import dequantized, is_quantized, quantized_rows
from tests.towers import save_tower

SENTENCES = ["a dog runs", "two people on a bench", "snow"]
TABLE = "token_embedding.weight"


def shrink(folder: Path) -> Path:
    """Keep the word vectors of a saved tower in eight bits, under the name that an embedded tower has."""
    old = folder / "weights.safetensors"
    state = load_file(old)
    old.unlink()
    path = folder / "open_clip_model.safetensors"
    save_file({**quantized_rows(TABLE, state.pop(TABLE)), **state}, path)
    return path


def test_a_number_is_off_by_half_a_step_at_most() -> None:
    table = torch.randn(50, 16) * torch.logspace(-2, 1, 50)[:, None]
    table[7] = 0
    kept = quantized_rows("t", table)
    whole = dequantized({**kept, "other": torch.ones(2)})
    assert set(whole) == {"t", "other"}
    assert is_quantized(kept)
    assert not is_quantized(whole)
    assert ((whole["t"] - table).abs() <= kept["t.steps"].float()[:, None] * 0.51).all()


def test_a_tower_with_them_reads_nearly_the_same(tmp_path: Path) -> None:
    save_tower(tmp_path / "wide", "timm_cnn")
    save_tower(tmp_path / "small", "timm_cnn")
    path = shrink(tmp_path / "small")
    wide = load_tower(str(tmp_path / "wide"), parts="text").encode_texts(SENTENCES)
    small = load_tower(str(tmp_path / "small"), parts="text").encode_texts(SENTENCES)
    assert F.cosine_similarity(wide, small).min() > 0.999

    state = load_file(path)  # the twin: rows in another order
    save_tower(tmp_path / "other", "timm_cnn")
    other = shrink(tmp_path / "other")
    save_file({**state, TABLE + ".multiples": state[TABLE + ".multiples"].flip(0)}, other)
    assert F.cosine_similarity(wide, load_tower(str(other.parent), parts="text").encode_texts(SENTENCES)).min() < 0.99


def test_multiples_without_steps_are_one_clear_error(tmp_path: Path) -> None:
    save_tower(tmp_path, "timm_cnn")
    path = shrink(tmp_path)
    state = load_file(path)
    del state[TABLE + ".steps"]
    save_file(state, path)
    with pytest.raises(TowerError, match=f"{TABLE} lacks the steps"):
        load_tower(str(tmp_path))


def test_nothing_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tower(tmp_path, "timm_cnn")
    shrink(tmp_path)
    load_tower(str(tmp_path))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []
