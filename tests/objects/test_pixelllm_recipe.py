"""The recipe of the embedded PixelLLM: what it reads, keeps and writes."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onlooker.operators.objects.pixelllm.load import load_pixelllm
from onlooker.training.objects import pixelllm_recipe

pytestmark = pytest.mark.slow  # it opens the embedded tower twice


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of a few pictures in which dark squares are dogs."""
    root = tmp_path / "data"
    images = root / "flickr8k" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines, boxes = [], {}
    for split, count in (("train", 20), ("dev", 3), ("test", 1)):
        names = [f"{split}{index}.jpg" for index in range(count)]
        (root / "flickr8k" / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
        for name in names:
            x, y = (int(value) for value in rng.integers(0, 112, 2))
            pixels = np.full((224, 224, 3), 200, np.uint8)
            pixels[y : y + 112, x : x + 112] = 20
            Image.fromarray(pixels).save(images / name)
            boxes[name] = [["dog", 0.9, x, y, x + 112, y + 112]]
            lines.append(f"{name}#0\tA dog sits on grass .")
    boxes["train0.jpg"] = []  # nothing can be learnt from it
    with gzip.open(root / "flickr8k" / "Flickr8k.token.txt.gz", "wt", encoding="utf-8") as captions:
        captions.write("\n".join(lines) + "\n")
    (root / "flickr8k" / "pseudo_boxes.json").write_text(json.dumps({"boxes": boxes}))
    return root


def test_features_are_read_once_and_a_folder_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = replace(pixelllm_recipe.RECIPE, steps=3, warmup=1, photographs=4)
    monkeypatch.setattr(pixelllm_recipe, "RECIPE", few)
    arguments = ["--data", str(data), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    pixelllm_recipe.main(arguments)
    with np.load(tmp_path / "cache" / "train.npz") as kept:
        assert kept["tokens"].shape == (19, 49, 1280) and kept["fine"].shape == (19, 112, 14, 14)
    stored = load_pixelllm(tmp_path / "out")
    assert stored.tower == "tiny" and set(stored.settings["dev"]) == {"all", "noun", "longer", "words"}
    said = capsys.readouterr().out
    for name in (data / "flickr8k" / "images").iterdir():
        name.unlink()  # what was read once is not read again
    pixelllm_recipe.main(arguments)
    assert capsys.readouterr().out == said
