"""The Flickr8k folder: file names by split and their captions.

Layout expected under the data root (``ONLOOKER_DATA``)::

    flickr8k/images/<name>.jpg
    flickr8k/Flickr_8k.{train,dev,test}Images.txt   one file name a line
    flickr8k/Flickr8k.token.txt.gz                  "<name>#<k>\\t<caption>" a line, k in 0..4
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Photographs:
    """One split: ``files[i]`` (a name inside ``images``) is described by the sentences ``captions[i]``."""

    images: Path
    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.files)


def data_root(argument: str | Path | None = None) -> Path:
    """Return the data folder: the argument, else the environment variable ``ONLOOKER_DATA``.

    Raises:
        FileNotFoundError: neither is given, or the folder does not exist.
    """
    chosen = argument or os.environ.get("ONLOOKER_DATA")
    if not chosen:
        raise FileNotFoundError("no data folder: pass --data FOLDER or set ONLOOKER_DATA to it")
    root = Path(chosen)
    if not root.is_dir():
        raise FileNotFoundError(f"data folder {str(root)!r} does not exist: pass --data or set ONLOOKER_DATA")
    return root


def read_captions(root: Path) -> dict[str, list[str]]:
    """Return all captions by file name, in the order of their numbers."""
    captions: dict[str, list[str]] = {}
    with gzip.open(root / "flickr8k" / "Flickr8k.token.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            key, text = line.rstrip("\n").split("\t", 1)
            captions.setdefault(key.rsplit("#", 1)[0], []).append(text.strip())
    return captions


def read_split(root: Path, split: str) -> Photographs:
    """Return the photographs of ``split`` in the order of the split file.

    Raises:
        ValueError: ``split`` is not one of train, dev, test.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    names = (root / "flickr8k" / f"Flickr_8k.{split}Images.txt").read_text(encoding="utf-8").split()
    captions = read_captions(root)
    return Photographs(
        images=root / "flickr8k" / "images",
        files=tuple(names),
        captions=tuple(tuple(captions[name]) for name in names),
    )
