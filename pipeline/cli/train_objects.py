"""``onlooker train objects``: the embedded detector and what follows its objects, from photographs with boxes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .train_parts import add_data_option, count, data_folder, positive, progress_bar, writing

if TYPE_CHECKING:
    from onlooker.training.objects.detector_train import ObjectsLoss

__all__ = ["add_steps"]

_DESCRIPTION = """\
Train a class-agnostic detector and an association, which tells objects apart, on the maps of the embedded tower.

It needs photographs of 224x224 pixels with boxes: flickr8k/images, the file names of the train split and
flickr8k/pseudo_boxes.json, {"boxes": {FILE: [[class, score, x0, y0, x1, y1], ...]}}. With --teacher a YOLOX network
looks at the photographs first: what it is less sure of is taught too, as far as it is sure. From them it draws

  pictures   grids of crops of photographs, in which objects have all sizes; they teach the detector
  clips      videos of 16 frames in which cut-out objects move, cross and hide; they teach the association

The tower sees each of them once and its maps are kept in --cache (290 KB a picture, 4.6 MB a clip: 5.5 GB with the
recipe's numbers). Then the detector learns, in steps of 16 pictures, and after it the association, on what the finished
detector sees. On a core the drawing takes a quarter of an hour and the training an hour and a half. What was
interrupted goes on when the same command is given again.
"""

_EPILOG = """\
example:
  onlooker train objects --data data --teacher data/detector_teacher --cache cache/objects --out out/objects
  onlooker run video.mp4 --graph objects -o objects.model=out/objects -o tracks.model=out/objects
"""


def add_steps(steps: Any) -> None:
    """Add the step of ``onlooker train``."""
    train = steps.add_parser(
        "objects",
        help="train a detector and what follows its objects",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_option(train)
    train.add_argument(
        "--teacher",
        metavar="DIR",
        help="folder of a YOLOX network in ONNX, for boxes that pseudo_boxes.json lacks; needs onnxruntime",
    )
    train.add_argument(
        "--cache", metavar="DIR", default="cache/objects", help="maps of what was drawn (default: %(default)s)"
    )
    train.add_argument("--out", metavar="DIR", default="out/objects", help="weights (default: %(default)s)")
    for name, of_what in (("views", "pictures"), ("clips", "clips"), ("steps", "updates")):
        train.add_argument(f"--{name}", type=count, help=f"{of_what} (default: the recipe's)")
    train.add_argument("--rate", type=positive, help="learning rate (default: the recipe's)")
    train.add_argument("--seed", type=int, default=0, help="everything random depends on it (default: 0)")
    train.set_defaults(func=_objects)


def _objects(args: argparse.Namespace) -> int:
    data, cache, out = data_folder(args), Path(args.cache), Path(args.out)
    _need_boxes(data)
    from onlooker.training.flickr import read_split
    from onlooker.training.objects.teacher import label_photographs
    from onlooker.training.objects.tiny import LABELS, TinyObjectsRecipe, fill_clips, fill_views, train_tiny_objects

    names = ("views", "clips", "steps", "rate")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    recipe = dataclasses.replace(TinyObjectsRecipe(seed=args.seed, taught=args.teacher is not None), **given)
    if recipe.views < recipe.training.pictures:
        raise UsageError(f"--views {recipe.views} is too few: one update shows {recipe.training.pictures}.")
    with writing(args.cache):
        if args.teacher is not None:
            with progress_bar("photographs", len(read_split(data, "train").files)) as show:
                label_photographs(data, "train", cache / LABELS, Path(args.teacher), show)
        try:
            with progress_bar("pictures", recipe.views) as show:
                fill_views(data, cache, recipe, show)
            with progress_bar("clip frames", recipe.clips * recipe.filming.frames) as show:
                fill_clips(data, cache, recipe, show)
        except ValueError as error:  # a cache of other sizes
            raise UsageError(f"--cache {args.cache!r} cannot be used: {error}.") from error
    with progress_bar("objects", recipe.steps) as show, writing(args.out):
        train_tiny_objects(cache, out, recipe, _losses(show))
    print(f"written to {args.out}; use it with --graph objects -o objects.model={args.out} -o tracks.model={args.out}")
    return 0


def _need_boxes(data: Path) -> None:
    if not (data / "flickr8k" / "pseudo_boxes.json").is_file():
        raise UsageError(f"{str(data)!r} has no boxes of the photographs: flickr8k/pseudo_boxes.json is missing.")


def _losses(show: Callable[[int, str], None]) -> Callable[[int, ObjectsLoss], None]:
    """Tells the bar the step and what the losses are."""

    def report(step: int, loss: ObjectsLoss) -> None:
        parts = f"proposals {float(loss.proposals):.3f} regions {float(loss.regions):.3f}"
        show(step, f"{parts} tracks {float(loss.track):.3f}" if float(loss.track) else parts)

    return report
