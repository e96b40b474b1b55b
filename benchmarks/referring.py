"""Are things found by words? Expressions about photographs, and names of categories on photographs with people's boxes.

    python benchmarks/referring.py --data FOLDER [--split dev] [--photographs 150] [--out FILE]

Expressions come from captions and a detector's boxes (`training/objects/pixelllm_words.py`): "the dog", "the small
brown dog", "a small brown dog jumps over", "the dog on the left". One is drawn for each photograph. On coco_mini each
category with one large enough instance is asked for by its name, and the boxes are people's. A find is right if its
IoU is above .5.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import publish, table
from PIL import Image

from onlooker.operators.objects.finding import CropReferrer, Place, load_referrer
from onlooker.operators.objects.pixelllm.finder import Finder, load_finder
from onlooker.operators.tower import Tower, load_tower
from onlooker.training.flickr import data_root
from onlooker.training.objects.pixelllm_words import expressions, ious, read_boxed

RGB = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
Item = tuple[Path, str, Box]
"""A photograph, an expression and the true box in 0..1."""
Method = Callable[[Path, str], Box]

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_SMALLEST = 0.02
"""Share of the picture that an instance of coco_mini has at least."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--split", default="dev", choices=["dev", "test"])
    parser.add_argument("--photographs", type=int, default=150)
    parser.add_argument("--model", default="tiny", help="any PixelLLM on a tower: a name or a folder")
    parser.add_argument("--detector", default="tiny", help="object model of the others; '' leaves them out")
    parser.add_argument("--out", help="also write the table to this file")
    args = parser.parse_args()
    root = data_root(args.data)
    rng = np.random.default_rng(0)
    worlds = {
        f"Flickr8k {args.split}": _flickr(root, args.split, args.photographs, rng),
        "coco_mini": _coco(root, args.photographs, rng),
    }
    finder, tower = load_finder(args.model)
    crops = load_referrer(args.detector, pointer=None) if args.detector else None
    voted = load_referrer(args.detector, pointer=args.model) if args.detector else None
    methods = _methods(finder, load_tower(tower, None, "image"), crops, voted)
    rows = [[name, *_row(method, worlds)] for name, method in methods.items()]
    sizes = [f"{name} ({len(items)})" for name, items in worlds.items()]
    titles = [part for size in sizes for part in (f"{size}: found", "95 %", "left/right")]
    publish("Finding things by words", table(["method", *titles], rows), args.out)


def _flickr(root: Path, split: str, count: int, rng: np.random.Generator) -> list[Item]:
    photographs = read_boxed(root, split)
    items = []
    for row in rng.permutation(len(photographs)):
        told = expressions(photographs.captions[row], photographs.boxes[row])
        if told and len(items) < count:
            one = told[rng.integers(len(told))]
            items.append((root / "flickr8k" / "images" / photographs.files[row], one.text, one.box))
    return items


def _coco(root: Path, count: int, rng: np.random.Generator) -> list[Item]:
    (path,) = sorted((root / "coco_mini").rglob("*instances*.json"))[:1]
    told = json.loads(path.read_text(encoding="utf-8"))
    names = {kind["id"]: kind["name"] for kind in told["categories"]}
    images = {image["id"]: image for image in told["images"]}
    shown = collections.Counter((each["image_id"], each["category_id"]) for each in told["annotations"])
    places = {file.name: file for file in (root / "coco_mini").rglob("*.jpg")}
    items = []
    for each in told["annotations"]:
        image, (x, y, w, h) = images[each["image_id"]], each["bbox"]
        large = w * h >= _SMALLEST * image["width"] * image["height"]
        if shown[each["image_id"], each["category_id"]] == 1 and large and not each["iscrowd"]:
            box = (x / image["width"], y / image["height"], (x + w) / image["width"], (y + h) / image["height"])
            items.append((places[Path(image["file_name"]).name], f"the {names[each['category_id']]}", box))
    return [items[row] for row in rng.permutation(len(items))[:count]]


def _methods(finder: Finder, tower: Tower, crops: CropReferrer | None, voted: CropReferrer | None) -> dict[str, Method]:
    """Each says where something is; the twin looks at the picture turned by half a turn.

    Args:
        finder: of a PixelLLM.
        tower: the finder's, with its image side.
        crops: the objects of a detector, compared with the words by a tower alone.
        voted: the same with the finder's vote, as `onlooker find` has it.
    """

    def best(places: list[Place]) -> Box:
        return places[0].box if places else _WHOLE

    def pointed(picture: RGB, words: str) -> Box:
        seen = tower.encode_frames(tower.preprocess([picture]), batch=1, maps=True)
        return finder.point(seen, words) or _WHOLE

    methods: dict[str, Method] = {"whole picture": lambda path, words: _WHOLE}
    if crops is not None:
        compared = functools.cache(lambda path, words: crops.refer(_read(path), words))
        methods["largest object of the detector"] = lambda path, words: _largest(compared(path, words))
        methods["objects of the detector, cut out"] = lambda path, words: best(compared(path, words))
    if voted is not None:
        methods["objects cut out, with PixelLLM's vote"] = lambda path, words: best(voted.refer(_read(path), words))
    methods["PixelLLM"] = lambda path, words: pointed(_read(path), words)
    methods["PixelLLM that sees the picture turned"] = lambda path, words: pointed(
        np.ascontiguousarray(_read(path)[::-1, ::-1]), words
    )
    return methods


def _largest(places: list[Place]) -> Box:
    return max((place.box for place in places), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=_WHOLE)


def _row(method: Method, worlds: dict[str, list[Item]]) -> list[object]:
    cells: list[object] = []
    for items in worlds.values():
        found = np.array([method(path, words) for path, words, _ in items], np.float32)
        right = ious(found, np.array([box for _, _, box in items], np.float32)) > 0.5
        drawn = np.random.default_rng(0).integers(len(right), size=(2000, len(right)))
        low, high = np.quantile(right[drawn].mean(1), (0.025, 0.975))
        side = np.array([words.endswith((" on the left", " on the right")) for _, words, _ in items])
        cells += [float(right.mean()), f"{low:.2f}-{high:.2f}", float(right[side].mean()) if side.any() else "-"]
    return cells


def _read(path: Path) -> RGB:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main()
