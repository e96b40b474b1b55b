"""Every kind of open_clip tower through the one code path, on models with random weights saved by the test.

The layouts are the ones hub checkpoints have; only the sizes are small. What open_clip computes is the reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from onlooker.operators.tower import TowerError, UnknownModelError, load_tower
from tests.towers import TEXT, VISIONS, save_tower


def photographs(size: int) -> np.ndarray:
    """Return four real photographs at size x size, uint8 (4, size, size, 3)."""
    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    return np.stack([np.asarray(Image.fromarray(picture).resize((size, size))) for picture in pictures])


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Return what open_clip's own transform makes of the pixels."""
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    return ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)


@pytest.fixture(scope="module", params=list(VISIONS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, save_tower(folder, request.param)


def test_features_equal_open_clips(saved: tuple[str, Path, Any]) -> None:
    kind, folder, model = saved
    tower = load_tower(f"local-dir:{folder}")
    pixels = photographs(VISIONS[kind]["image_size"])
    output = tower.encode_frames(pixels)
    with torch.inference_mode():
        torch.testing.assert_close(output.features, model.encode_image(normalised(pixels)), atol=2e-5, rtol=2e-5)
    assert output.features.shape == (4, tower.embed_dim) == (4, 40)
    assert output.tokens.shape == (4, tower.grid[0] * tower.grid[1], tower.token_width)


def test_tokens_are_the_trunks_last_grid(saved: tuple[str, Path, Any]) -> None:
    kind, folder, model = saved
    pixels = photographs(VISIONS[kind]["image_size"])
    output = load_tower(str(folder)).encode_frames(pixels)
    images = normalised(pixels)
    with torch.inference_mode():
        if kind == "vit":  # the class token, projected, is the image feature
            visual = model.visual
            assert output.class_token is not None
            torch.testing.assert_close(output.class_token @ visual.proj, visual(images), atol=2e-5, rtol=2e-5)
            visual.output_tokens = True
            wanted = visual(images)[1]
            visual.output_tokens = False
        elif kind == "resnet":
            visual = model.visual
            grid = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))
            wanted = grid.flatten(2).transpose(1, 2)
        else:
            grid = model.visual.trunk.forward_features(images)
            if kind == "timm_vit":
                assert output.class_token is not None
                torch.testing.assert_close(output.class_token, grid[:, 0], atol=2e-5, rtol=2e-5)
                wanted = grid[:, 1:]
            else:
                wanted = grid.flatten(1, 2) if kind == "timm_nhwc" else grid.flatten(2).transpose(1, 2)
    torch.testing.assert_close(output.tokens, wanted, atol=2e-5, rtol=2e-5)


def test_maps_change_nothing_else(saved: tuple[str, Path, Any]) -> None:
    kind, folder, _ = saved
    size = VISIONS[kind]["image_size"]
    tower = load_tower(str(folder))
    plain, read = tower.encode_frames(photographs(size)), tower.encode_frames(photographs(size), maps=True)
    torch.testing.assert_close(read.tokens, plain.tokens, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(read.features, plain.features, atol=2e-5, rtol=2e-5)
    sides = [level.shape[2:] for level in read.maps]
    assert sides == sorted(sides, reverse=True)
    assert all(len(level) == len(read.tokens) for level in read.maps)
    if kind in ("vit", "resnet"):  # their own readers know of the last grid only
        (level,) = read.maps
        assert torch.equal(level.flatten(2).transpose(1, 2), read.tokens)


def test_another_models_weights_give_other_features(saved: tuple[str, Path, Any], tmp_path: Path) -> None:
    kind, folder, _ = saved
    save_tower(tmp_path, kind, seed=1)
    pixels = photographs(VISIONS[kind]["image_size"])[:1]
    own, other = (load_tower(str(path)).encode_frames(pixels).features for path in (folder, tmp_path))
    assert not torch.allclose(own, other, atol=1e-3)


def test_sentences_equal_open_clips(saved: tuple[str, Path, Any]) -> None:
    _, folder, model = saved
    texts = ["a cat", "a rocket on its launch pad at dawn, seen from far away", "", "coffee"]
    features = load_tower(str(folder)).encode_texts(texts)
    with torch.inference_mode():
        wanted = model.encode_text(open_clip.tokenize(texts, context_length=24))
    torch.testing.assert_close(features, wanted, atol=2e-5, rtol=2e-5)


def test_a_row_is_bit_equal_in_any_company(saved: tuple[str, Path, Any]) -> None:
    kind, folder, _ = saved
    tower = load_tower(str(folder))
    pixels = photographs(VISIONS[kind]["image_size"])
    together = tower.encode_frames(pixels, batch=4)
    for index in range(4):
        lone = np.zeros_like(pixels)
        lone[index] = pixels[index]
        alone = tower.encode_frames(lone, batch=4)
        assert torch.equal(alone.tokens[index], together.tokens[index])
        assert torch.equal(alone.features[index], together.features[index])
    texts = ["a cat", "two dogs", "a very long sentence about a rocket and the sea behind it"]
    alone_rows = torch.cat([tower.encode_texts([text]) for text in texts])
    assert torch.equal(tower.encode_texts(texts * 4), alone_rows.repeat(4, 1))


def test_one_side_alone_is_the_same_tower(saved: tuple[str, Path, Any]) -> None:
    kind, folder, _ = saved
    pixels = photographs(VISIONS[kind]["image_size"])[:1]
    (copy := folder / "copy").mkdir(exist_ok=True)
    for file in folder.glob("*.*"):
        (copy / file.name).write_bytes(file.read_bytes())
    image, text = load_tower(str(copy), parts="image"), load_tower(str(copy), parts="text")
    both = load_tower(str(folder))
    assert torch.equal(image.encode_frames(pixels).features, both.encode_frames(pixels).features)
    assert torch.equal(text.encode_texts(["a cat"]), both.encode_texts(["a cat"]))
    assert text.embed_dim == image.embed_dim == both.embed_dim
    with pytest.raises(RuntimeError, match="without its text side"):
        image.encode_texts(["a cat"])
    with pytest.raises(RuntimeError, match="without its image side"):
        text.encode_frames(pixels)


def test_model_name_with_checkpoint_file(tmp_path: Path) -> None:
    model = open_clip.create_model("test_small_vit") if "test_small_vit" in open_clip.list_models() else None
    name = "test_small_vit"
    if model is None:
        config = {"embed_dim": 40, "vision_cfg": VISIONS["vit"], "text_cfg": TEXT}
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(tmp_path / f"{name}.json")
        model = open_clip.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    tower = load_tower(name, pretrained=str(tmp_path / "weights.pt"))
    assert tower is load_tower(f"{name}:{tmp_path / 'weights.pt'}")
    pixels = photographs(64)
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = model.encode_image(images)
    torch.testing.assert_close(tower.encode_frames(pixels).features, wanted, atol=2e-5, rtol=2e-5)


def test_a_named_checkpoint_of_a_folder_is_the_one_used(tmp_path: Path) -> None:
    save_tower(tmp_path, "vit", seed=0)
    first = load_tower(str(tmp_path)).encode_texts(["a cat"])
    torch.save(open_clip.CLIP(embed_dim=40, vision_cfg=VISIONS["vit"], text_cfg=TEXT).state_dict(), tmp_path / "b.pt")
    assert torch.equal(load_tower(str(tmp_path / "weights.safetensors")).encode_texts(["a cat"]), first)
    assert not torch.equal(load_tower(str(tmp_path / "b.pt")).encode_texts(["a cat"]), first)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("tinny", UnknownModelError, "did you mean 'tiny'"),
        ("vit-b-32:openai", UnknownModelError, "'ViT-B-32'"),
        ("ViT-B-32:open-ai", UnknownModelError, "'openai'"),
        ("ViT-B-32", TowerError, "ViT-B-32:openai"),
        ("ViT-B-32:missing.safetensors", TowerError, "does not exist"),
        ("missing/weights.pt", TowerError, "no such file or folder"),
        ("local-dir:missing", TowerError, "open_clip_config.json"),
    ],
)
def test_wrong_names_are_told_with_the_right_ones(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_tower(name)


def test_a_folder_without_weights_is_an_error_not_a_random_model(tmp_path: Path) -> None:
    save_tower(tmp_path, "vit")
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(TowerError, match="has no weights"):
        load_tower(str(tmp_path))


def test_a_checkpoint_that_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    save_tower(tmp_path, "vit")
    save_file({"logit_scale": torch.zeros(())}, tmp_path / "weights.safetensors")
    with pytest.raises(TowerError, match="could not be loaded"):
        load_tower(str(tmp_path))
