"""Are objects found, followed and described? On photographs with known boxes and videos with known tracks.

    python benchmarks/objects.py --data FOLDER [--section detection association captions cost] [--out-folder FOLDER]

detection    boxes of ours beside the teacher's on coco_mini
association  who is who, beside trackers by IoU and Kalman filter, on generated videos
captions     what is told of each object, against the captions of the photograph that it shows, and CHOTA
cost         milliseconds a frame in the first minute of a stream and later, and memory

Each section prints its table and, with `--out-folder`, keeps it as `objects_<section>.md`. The folder of `--data` holds
`flickr8k/`, `coco_mini/` and `detector_teacher/`. Needed besides onlooker: onnxruntime (detection), trackers
(association), and for METEOR Java and pycocoevalcap. `--quick` is a look at whether everything runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from common import publish

from onlooker.training.flickr import data_root
from onlooker.training.objects.bank import ObjectBank

FIRST_SEED = {"dev": 7100, "test": 8100}
"""Seed of each split's first scene."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--section", nargs="+", choices=list(_SECTIONS), default=list(_SECTIONS))
    parser.add_argument("--split", default="test", choices=list(FIRST_SEED), help="of the photographs that move")
    parser.add_argument("--model", default="tiny", help="any object model: a name or a folder")
    parser.add_argument("--tower", default="tiny", help="the tower that the model reads")
    parser.add_argument("--captioner", default="tiny", help="what describes the objects")
    parser.add_argument("--scenes", type=int, default=40, help="generated videos (default: %(default)s)")
    parser.add_argument("--minutes", type=int, default=30, help="of the stream of `cost` (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two scenes, two minutes")
    parser.add_argument("--out-folder", type=Path, help="also write each table to a Markdown file in this folder")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.scenes, arguments.minutes = 2, 2
    torch.set_num_threads(arguments.threads)
    for name in arguments.section:
        title, section = _SECTIONS[name]
        out = arguments.out_folder and str(arguments.out_folder / f"objects_{name}.md")
        publish(title, section(arguments, data_root(arguments.data)), out)


def _detection(arguments: argparse.Namespace, root: Path) -> str:
    from objects_detection import detection

    return detection(root, arguments.model, arguments.tower)


@cache
def _bank(root: Path, split: str) -> ObjectBank:
    """The photographs of a split, opened once for all sections."""
    return ObjectBank.flickr(root, split)


def _association(arguments: argparse.Namespace, root: Path) -> str:
    from objects_association import association

    bank = _bank(root, arguments.split)
    return association(bank, arguments.model, arguments.tower, arguments.scenes, FIRST_SEED[arguments.split])


def _captions(arguments: argparse.Namespace, root: Path) -> str:
    from objects_captions import captions

    bank = _bank(root, arguments.split)
    parts = (arguments.model, arguments.tower, arguments.captioner)
    return captions(bank, *parts, arguments.scenes, FIRST_SEED[arguments.split])


def _cost(arguments: argparse.Namespace, root: Path) -> str:
    from objects_cost import cost

    bank = _bank(root, arguments.split)
    parts = (arguments.model, arguments.tower, arguments.captioner)
    return cost(bank, *parts, arguments.minutes, FIRST_SEED[arguments.split])


_SECTIONS: dict[str, tuple[str, Callable[[argparse.Namespace, Path], str]]] = {
    "detection": ("Detection of objects of any kind", _detection),
    "association": ("Who is who", _association),
    "captions": ("Captions of objects", _captions),
    "cost": ("Cost of objects on a stream", _cost),
}


if __name__ == "__main__":
    main()
