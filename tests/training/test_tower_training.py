"""Training of the tower's heads on generated features with a known relation, and the measures it is judged by."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from onlooker.training.evaluate import auroc, coco_pictures, figures, flickr_pictures
from onlooker.training.features import create_cache, view_pixels
from onlooker.training.flickr import data_root, read_split
from onlooker.training.tower import Heads, TowerData, TowerRecipe, clip_vectors, evaluate_heads, fit, mean_tokens

RECIPE = TowerRecipe(epochs=12, batch=50, rate=2e-3, classes=0.0, clip=0.1, dropout=0.0)


def generated(count: int, seed: int) -> TowerData:
    """Return photographs whose features and sentences are two noisy linear images of one latent."""
    generator = torch.Generator().manual_seed(seed)
    relation = torch.Generator().manual_seed(99)
    to_image = torch.randn(24, 1280, generator=relation) / 5
    to_text = torch.randn(24, 384, generator=relation) / 5
    latent = torch.randn(count, 24, generator=generator)
    pooled = (latent @ to_image)[:, None] + 0.1 * torch.randn(count, 2, 1280, generator=generator)
    sentences = (latent @ to_text)[:, None] + 0.1 * torch.randn(count, 5, 384, generator=generator)
    clip = torch.nn.functional.normalize(latent @ torch.randn(24, 512, generator=relation), dim=-1)
    clip[count // 2 :] = 0
    return TowerData(pooled, pooled, sentences, torch.zeros(1000, 384), clip)


def recall_at_1(heads: Heads, held_out: TowerData) -> float:
    return evaluate_heads(heads, held_out.pooled[:, 0], held_out.sentences).text_to_image[0]


def silent(_: str) -> None:
    """Log nothing."""


def test_heads_learn_the_relation_and_shuffled_captions_do_not() -> None:
    train, held_out = generated(400, seed=1), generated(100, seed=2)
    torch.manual_seed(0)
    assert recall_at_1(Heads(0.0).eval(), held_out) < 0.1
    assert recall_at_1(fit(train, RECIPE, silent), held_out) > 0.6
    shuffled = replace(train, sentences=train.sentences.roll(7, 0), clip=torch.zeros_like(train.clip))
    assert recall_at_1(fit(shuffled, RECIPE, silent), held_out) < 0.1


def test_a_seed_gives_the_same_bits() -> None:
    train = generated(100, seed=1)
    short = replace(RECIPE, epochs=2, dropout=0.2)
    first, again = (fit(train, short, silent).state_dict() for _ in range(2))
    other = fit(train, replace(short, seed=1), silent).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["out.weight"], other["out.weight"])


def test_figures_of_a_hand_computed_case() -> None:
    # Pictures 0, 1; sentences 0, 1 belong to picture 0, sentence 2 to picture 1.
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.4, 0.8]])
    result = figures(scores, torch.tensor([0, 0, 1]))
    assert result.text_to_image == pytest.approx((2 / 3, 1.0, 1.0))
    assert result.image_to_text == (1.0, 1.0, 1.0)
    # True pairs .9, .2, .8 against false .1, .3, .4: 3 + 1 + 3 of 9 in the right order.
    assert result.auroc_raw == pytest.approx(7 / 9)
    assert result.auroc_within == pytest.approx(2 / 3)
    assert result.auroc_calibrated is None
    crippled = figures(-scores, torch.tensor([0, 0, 1]))
    assert crippled.text_to_image[0] == pytest.approx(1 / 3) and crippled.auroc_raw == pytest.approx(2 / 9)


def test_auroc_counts_ties_half_and_wants_both_sides() -> None:
    ones = np.ones(3, np.float32)
    assert auroc(ones, ones) == 0.5
    with pytest.raises(ValueError, match="0 negative"):
        auroc(ones, ones[:0])


def flickr_folder(root: Path) -> Path:
    """Write two photographs in Flickr8k's layout, one with CLIP vectors."""
    images = root / "flickr8k" / "images"
    images.mkdir(parents=True)
    lines = []
    for name, picture in (("a.jpg", data.coffee()), ("b.jpg", data.chelsea())):
        Image.fromarray(picture).save(images / name)
        lines += [f"{name}#{number}\tsentence {number} of {name} .\n" for number in range(5)]
    with gzip.open(root / "flickr8k" / "Flickr8k.token.txt.gz", "wt", encoding="utf-8") as out:
        out.writelines(lines)
    for split in ("train", "dev", "test"):
        (root / "flickr8k" / f"Flickr_8k.{split}Images.txt").write_text("b.jpg\na.jpg\n")
    (root / "clip_vectors").mkdir()
    vectors = {"files": np.array(["a.jpg"]), "emb": np.full((1, 512), 0.5, np.float16)}
    np.savez(root / "clip_vectors" / "clip_b32_openai_flickr8k_2.4k.npz", **vectors)
    return root


def test_photographs_keep_the_order_of_their_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = flickr_folder(tmp_path)
    photographs = read_split(root, "dev")
    assert photographs.files == ("b.jpg", "a.jpg")
    assert photographs.captions[0][4] == "sentence 4 of b.jpg ."
    captioned = flickr_pictures(root, "dev")
    assert captioned.owners == (0,) * 5 + (1,) * 5 and captioned.pictures[1].name == "a.jpg"
    vectors = clip_vectors(root, list(photographs.files))
    assert not vectors[0].any() and vectors[1].norm().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="'all'"):
        read_split(root, "all")
    monkeypatch.delenv("ONLOOKER_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="ONLOOKER_DATA"):
        data_root()
    monkeypatch.setenv("ONLOOKER_DATA", str(root))
    assert data_root() == root


def test_coco_sentences_point_at_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    images = [{"id": 30, "file_name": "x.jpg"}, {"id": 10, "file_name": "y.jpg"}]
    sentences = [{"image_id": 10, "caption": "one "}, {"image_id": 30, "caption": "two"}]
    content = json.dumps({"images": images, "annotations": sentences})
    (tmp_path / "annotations" / "captions_train2017.json").write_text(content)
    captioned = coco_pictures(tmp_path)
    assert captioned.owners == (1, 0) and captioned.texts == ("one", "two")
    assert captioned.pictures[1] == tmp_path / "train2017" / "y.jpg"


def test_views_repeat_by_seed_and_differ_from_each_other(tmp_path: Path) -> None:
    path = flickr_folder(tmp_path) / "flickr8k" / "images" / "a.jpg"
    views = [view_pixels(path, view, seed=3) for view in range(4)]
    assert all(view.shape == (224, 224, 3) and view.dtype == np.uint8 for view in views)
    assert all(np.array_equal(view, view_pixels(path, number, seed=3)) for number, view in enumerate(views))
    assert not any(np.array_equal(views[0], view) for view in views[1:])
    assert not np.array_equal(views[1], view_pixels(path, 1, seed=4))
    assert np.array_equal(views[0], view_pixels(path, 0, seed=4))


def test_a_cache_that_is_not_full_is_refused(tmp_path: Path) -> None:
    root = flickr_folder(tmp_path / "data")
    create_cache(tmp_path / "cache", root)
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    assert index["train"] == ["b.jpg", "a.jpg"]
    with pytest.raises(ValueError, match="10 views of split 'train'"):
        mean_tokens(tmp_path / "cache", "train")
