"""The recipe of the embedded PixelLLM: features by the tower, training, figures, the folder.

    python -m onlooker.training.objects.pixelllm_recipe --data data --cache cache/pixelllm --out out/pixelllm

It takes a quarter of an hour on one core: 3,091 photographs of the train split have a word that names one box.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import onlooker.operators.caption as caption
from onlooker.operators.caption.wordpiece import WordPiece
from onlooker.operators.objects.pixelllm.finder import FINE_MAP
from onlooker.operators.objects.pixelllm.load import save_pixelllm
from onlooker.operators.objects.pixelllm.model import PixelLlm
from onlooker.operators.tower import Tower, load_tower
from onlooker.training.files import whole_file
from onlooker.training.flickr import data_root
from onlooker.training.objects.pixelllm_tiny import (
    FinderData,
    TinyOptions,
    find_all,
    find_words,
    tiny_config,
    train_finder,
)
from onlooker.training.objects.pixelllm_words import BoxedPhotographs, expressions, ious, named_words, read_boxed

__all__ = ["RECIPE", "TOWER", "accuracy", "open_finder_data"]

TOWER = "tiny"
RECIPE = TinyOptions(steps=1500, texts=4, rate=2e-3)
_BATCH = 16


def open_finder_data(data: Path, cache: Path, split: str, words: WordPiece, tower: Tower) -> FinderData:
    """What a finder learns from or is measured by: photographs of a split with a text that names one box.

    Args:
        data: the data folder.
        cache: keeps the tower's features, ``<split>.npz``, 170 KB a photograph.
        split: train, dev or test.
        words: of the model.
        tower: its image side reads what the cache lacks.
    """
    photographs = _useful(read_boxed(data, split))
    path = cache / f"{split}.npz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        tokens, fine = [], []
        for start in range(0, len(photographs), _BATCH):
            names = photographs.files[start : start + _BATCH]
            pictures = [Image.open(data / "flickr8k" / "images" / name) for name in names]
            seen = tower.encode_frames(tower.preprocess(pictures), batch=_BATCH, maps=True)
            tokens.append(seen.tokens.numpy().astype(np.float16))
            fine.append(seen.maps[FINE_MAP].numpy().astype(np.float16))
        with whole_file(path) as part, part.open("wb") as file:
            np.savez(file, tokens=np.concatenate(tokens), fine=np.concatenate(fine))
    with np.load(path) as stored:
        return FinderData(stored["tokens"], stored["fine"], photographs, words)


def _useful(photographs: BoxedPhotographs) -> BoxedPhotographs:
    rows = [
        row
        for row, (texts, boxes) in enumerate(zip(photographs.captions, photographs.boxes, strict=True))
        if expressions(texts, boxes) or any(named_words(text, boxes) for text in texts)
    ]
    return BoxedPhotographs(
        tuple(photographs.files[row] for row in rows),
        tuple(photographs.captions[row] for row in rows),
        tuple(photographs.boxes[row] for row in rows),
    )


def accuracy(data: FinderData, model: PixelLlm) -> dict[str, float]:
    """Share found with an IoU above .5.

    Of expressions all, bare nouns, longer ones, and left or right of two; and of the words of captions.
    """
    found, truth, texts = find_all(data, model)
    right = ious(found, truth) > 0.5
    side = np.array([text.endswith((" on the left", " on the right")) for text in texts])
    short = np.array([len(text.split()) == 2 for text in texts])
    kinds = {"all": side | ~side, "noun": short, "longer": ~short & ~side, "side": side}
    shares = {kind: round(float(right[chosen].mean()), 3) for kind, chosen in kinds.items() if chosen.any()}
    return shares | {"words": round(float((ious(*find_words(data, model)) > 0.5).mean()), 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--cache", type=Path, default=Path("cache/pixelllm"))
    parser.add_argument("--out", type=Path, default=Path("out/pixelllm"))
    args = parser.parse_args(arguments)
    words = WordPiece.from_file(Path(caption.__file__).parent / "weights" / "tiny" / "vocab.txt")
    tower, data = load_tower(TOWER, None, "image"), data_root(args.data)
    train, dev = (open_finder_data(data, args.cache, split, words, tower) for split in ("train", "dev"))
    torch.manual_seed(RECIPE.seed)
    model = PixelLlm(tiny_config(len(words)))

    def report(step: int, loss: float, average: PixelLlm) -> None:
        print(
            f"step {step}: loss {loss:.3f}" + (f", dev {accuracy(dev, average)}" if step % 500 == 0 else ""), flush=True
        )

    model = train_finder(train, model, RECIPE, report)
    figures = {"dev": accuracy(dev, model)}
    save_pixelllm(args.out, model, words.pieces, tower=TOWER, settings=figures, dtype=torch.float16)
    print(figures)


if __name__ == "__main__":
    main()
