"""Folders of localizers, trees of other sizes, and towers that begin as CLIP's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from onlooker.operators.convert.read import ReferenceTreeError
from onlooker.operators.localize.unloc.clip import ClipWeightsError, load_clip
from onlooker.operators.localize.unloc.config import ImageTowerConfig, TextTowerConfig
from onlooker.operators.localize.unloc.convert import load_reference, to_reference
from onlooker.operators.localize.unloc.load import (
    LocalizerError,
    load_localizer,
    localizer_names,
    read_localizer,
    save_localizer,
)
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.resize import adapted

from .unloc_parts import FPN, LINEAR, SMALL, TOWERS, random_model, with_fusion

CONFIGS = {
    "features": SMALL,
    "towers": TOWERS,
    "fpn": with_fusion(FPN, downsample="conv", positions="learned"),
    "linear": LINEAR,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_holds_the_model(name: str, tmp_path: Path) -> None:
    model = random_model(CONFIGS[name])
    save_localizer(tmp_path / "m", model, tower="tiny", extra={"rate": 2.0, "names": ["a"]})
    loaded = load_localizer(tmp_path / "m")
    assert loaded is load_localizer(str(tmp_path / "m")), "one instance a process"
    assert loaded.tower == "tiny" and loaded.settings == {"rate": 2.0, "names": ["a"]}
    assert loaded.model.config == model.config and not loaded.model.training
    assert not any(weights.requires_grad for weights in loaded.model.parameters())
    for ours, theirs in zip(model.parameters(), loaded.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    video, text = torch.randn(3, 16, 16), torch.randn(3, 16)
    if not model.config.fusion.all_text_tokens:
        with torch.inference_mode():
            assert torch.equal(model.score(video, text).logits, loaded.model.score(video, text).logits)


def test_half_precision_takes_half_the_space(tmp_path: Path) -> None:
    model = random_model(SMALL)
    save_localizer(tmp_path / "full", model)
    save_localizer(tmp_path / "half", model, dtype=torch.float16)
    full, half = ((tmp_path / n / "model.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.7 * full
    loaded = read_localizer(tmp_path / "half").model
    for ours, theirs in zip(model.parameters(), loaded.parameters(), strict=True):
        assert theirs.dtype == torch.float32 and torch.equal(ours.half().float(), theirs)


def test_what_is_no_localizer_is_told_in_one_line(tmp_path: Path) -> None:
    def refused(what: str | Path) -> str:
        with pytest.raises(LocalizerError) as caught:
            load_localizer(what)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    said = refused("no-such")
    assert "'no-such'" in said and "config.json" in said
    for name in localizer_names():
        assert name in refused("no-such-localizer-of-ours") or name in refused(name + "x")
    (tmp_path / "empty").mkdir()
    assert "lacks config.json, model.safetensors" in refused(tmp_path / "empty")
    place = tmp_path / "m"
    save_localizer(place, random_model(SMALL))
    whole = (place / "config.json").read_text()
    for broken, wanted in (
        ("{", "cannot be loaded"),
        (whole.replace('"unloc"', '"other"'), "architecture 'other'"),
        (json.dumps({k: v for k, v in json.loads(whole).items() if k != "model"}), "lacks 'model'"),
        (whole.replace('"layers": 3', '"layers": 4'), "cannot be loaded"),
        (whole.replace('"frames": 16', '"frames": 17'), "frames 17 must be a multiple"),
    ):
        (place / "config.json").write_text(broken)
        assert wanted in refused(place)
    (place / "config.json").write_text(whole)
    (place / "model.safetensors").write_bytes(b"not tensors")
    assert "cannot be loaded" in refused(place)


@pytest.mark.parametrize("name", CONFIGS)
def test_trees_go_both_ways(name: str) -> None:
    model = random_model(CONFIGS[name])
    tree = to_reference(model)
    other = random_model(CONFIGS[name], seed=9)
    load_reference(other, tree)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    broken = dict(tree)
    broken["moment_retrieval_heads/scale_0"] = broken.pop(next(iter(tree)))
    with pytest.raises(ReferenceTreeError, match="lacks"):
        load_reference(other, broken)


def test_what_the_reference_lacks_is_not_converted() -> None:
    model = Unloc(replace(SMALL, text_width=12, project_text=True, similarity=True))
    with pytest.raises(ReferenceTreeError, match="similarity"):
        to_reference(model)


def test_a_tree_of_other_sizes_is_adapted() -> None:
    """More frames and words; a mean patch instead of class tokens. What need not change does not."""
    assert TOWERS.image is not None and TOWERS.text is not None
    square = replace(TOWERS, image=replace(TOWERS.image, patches=4))
    tree = to_reference(random_model(square))
    larger = replace(
        square, frames=32, image=replace(TOWERS.image, patches=9), text=replace(TOWERS.text, length=9),
    )  # fmt: skip
    model = random_model(larger, seed=1)
    own = model.text.positions[7:].clone()  # type: ignore[union-attr]
    load_reference(model, adapted(tree, model))
    assert model.image is not None and model.image.class_embedding is not None and model.text is not None
    table = model.image.class_embedding.detach().numpy()
    old = tree["video_encoder/class_embedding"]
    assert (table[[0, -1]] == old[[0, -1]]).all() and table.shape == (32, 12)
    assert torch.equal(model.text.positions[7:], own)
    gap = Unloc(replace(square, image=replace(TOWERS.image, patches=4, pool="gap")))
    load_reference(gap, adapted(tree, gap))
    assert gap.image is not None and gap.image.class_embedding is None
    grid = tree["video_encoder/VisionTransformer/positional_embedding"][1:]
    assert (gap.image.positions.detach().numpy() == grid).all()
    same = random_model(square, seed=5)
    assert all(array is tree[path] for path, array in adapted(tree, same).items())


CLIP = open_clip.model.CLIP(
    embed_dim=16,
    vision_cfg=open_clip.CLIPVisionCfg(layers=2, width=128, head_width=64, patch_size=8, image_size=16),
    text_cfg=open_clip.CLIPTextCfg(context_length=7, vocab_size=40, width=32, heads=2, layers=2),
    quick_gelu=True,
).eval()
OF_CLIP = replace(
    SMALL,
    image=ImageTowerConfig(width=128, layers=2, heads=2, patch=8, patches=4),
    text=TextTowerConfig(vocabulary=40, width=32, layers=2, heads=2, length=7),
    video_width=128,
    text_width=32,
    project_text=True,
)


@torch.inference_mode()
def test_towers_of_clip_see_what_clip_sees() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in CLIP.parameters():
            weights.copy_(0.1 * torch.randn_like(weights))
    model = Unloc(OF_CLIP).eval()
    load_clip(model, CLIP.state_dict())
    rgb = torch.randn(2, 16, 16, 16, 3)
    wanted = CLIP.encode_image(rgb.flatten(0, 1).movedim(-1, 1)).view(2, 16, 16)
    torch.testing.assert_close(model.encode_video(rgb), wanted, atol=1e-5, rtol=1e-4)
    ids = torch.tensor([[38, 3, 4, 5, 6, 7, 39], [38, 9, 10, 11, 12, 13, 39]])
    texts = model.encode_texts(ids).tokens[:, 0]
    torch.testing.assert_close(texts, CLIP.encode_text(ids), atol=1e-5, rtol=1e-4)


def test_clip_of_another_size_is_refused() -> None:
    assert OF_CLIP.text is not None
    wide = replace(OF_CLIP, text=replace(OF_CLIP.text, vocabulary=41))
    model = Unloc(wide)
    before = [weights.clone() for weights in model.parameters()]
    with pytest.raises(ClipWeightsError, match=r"text.words.weight are \(40, 32\) instead of \(41, 32\)"):
        load_clip(model, CLIP.state_dict())
    with pytest.raises(ClipWeightsError, match="lacks 'visual.conv1.weight'"):
        load_clip(model, {})
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
