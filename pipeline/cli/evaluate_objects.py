"""``onlooker eval objects``: score boxes, tracks and their captions against the truth."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onlooker.operators.caption.metrics.meteor import Meteor
    from onlooker.operators.objects.metrics.world import World

__all__ = ["add_task"]

_OBJECTS = """\
Score tracked objects: HOTA, and MOTA and IDF1 where the package trackers is installed; where the truth holds captions
also CHOTA, with its parts DetA, AssA and CapA at IoU .5, and the average precision of captioned boxes.

GT is JSON {"images": [{"id", "video_id"}], "annotations": [{"image_id", "bbox", "track_id", "caption"}]} with bbox
[left, top, width, height], or MOT text (.txt). PRED is
  .json   a list [{"image_id", "bbox", "track_id", "score", "caption"}], or an object with such "annotations"
  .txt    MOT text, as `onlooker run --mot` writes it, against MOT text
  .jsonl  an event log of onlooker, against JSON whose images have "t" (seconds), "width" and "height"; streams are
          videos by name
"""

_CAPTIONS = """\
CapA is the mean of CIDEr (0 to 10) and METEOR (0 to 1). Dense VOC averages SPICE too, which is not computed here, so
CapA and CHOTA compare within these tables only. METEOR needs Java and the extra onlooker[eval]; --no-meteor does
without it.
"""


def add_task(tasks: Any) -> None:
    """Add ``onlooker eval objects``."""
    parser = tasks.add_parser(
        "objects",
        help="boxes, tracks and their captions",
        description=_OBJECTS,
        epilog=_CAPTIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", metavar="PRED", help="what was told")
    parser.add_argument("truth", metavar="GT", help="what is true")
    parser.add_argument(
        "--score",
        type=float,
        help="tracks are made of boxes with more than this (default: 0.5 for .json, as Dense VOC; else all)",
    )
    parser.add_argument(
        "--looked-at",
        action="store_true",
        help="score only frames in which anything was told: onlooker looks at two frames a second, GT may tell of all",
    )
    parser.add_argument("--no-meteor", action="store_true", help="leave out METEOR, which needs Java")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(func=_objects)


def _objects(args: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from onlooker.operators.caption.metrics.meteor import Meteor
    from onlooker.operators.objects.metrics.files import read_world

    world = read_world(args.predictions, args.truth)
    world = world.looked_at() if args.looked_at else world
    plain = args.predictions.removesuffix(".gz").endswith(".json")
    score = args.score if args.score is not None else 0.5 if plain else -1.0
    captioned = any(world.truth.captions)
    with nullcontext() if args.no_meteor or not captioned else Meteor() as meteor:
        scores = _tracks(world, score) | (_captions(world, score, meteor) if captioned else {})
    if args.json:
        print(json.dumps({**_counts(world), "score": score, "scores": scores}))
    else:
        _print_table(scores, world)
    return 0


def _counts(world: World) -> dict[str, int]:
    return {
        "videos": len(set(world.videos)),
        "frames": len(world.videos),
        "true_boxes": len(world.truth),
        "told_boxes": len(world.told),
    }


def _tracks(world: World, score: float) -> dict[str, float]:
    """HOTA over all its thresholds is ours; the rest needs the kept library."""
    from onlooker.operators.objects.metrics.chota import HOTA_THRESHOLDS, chota
    from onlooker.operators.objects.metrics.mot import MotUnavailable, mot_scores

    scores = {"HOTA": chota(world, {}, thresholds=HOTA_THRESHOLDS, score=score).means()["HOTA"]}
    try:
        kept = mot_scores(world, score=score)
    except MotUnavailable as error:
        print(f"onlooker: {error}", file=sys.stderr)
        return scores
    return scores | {name: kept[name] for name in ("MOTA", "IDF1", "IDSW")}


def _captions(world: World, score: float, meteor: Meteor | None) -> dict[str, float]:
    from onlooker.operators.objects.metrics.chota import chota, cider_scorer, meteor_scorer
    from onlooker.operators.objects.metrics.densecap import densecap

    scorers = {"CIDEr": cider_scorer} | ({"METEOR": meteor_scorer(meteor)} if meteor is not None else {})
    found = chota(world, scorers, score=score).means()
    names = ("CHOTA", "DetA", "AssA", "CapA", *(f"CapA-{name}" for name in scorers))
    boxes = densecap(world, meteor.each if meteor is not None else None)
    kept = ("mAP", "mAP_detection", "cap_switch")
    return {name: found[name] for name in names} | {name: boxes[name] for name in kept if name in boxes}


def _print_table(scores: dict[str, float], world: World) -> None:
    """Scores times 100, as papers print them; changes of identity are counted."""
    from rich.console import Console
    from rich.table import Table

    counts = _counts(world)
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in scores.items():
        table.add_row(name, f"{value:.0f}" if name == "IDSW" else f"{100 * value:.2f}")
    console = Console(highlight=False)
    console.print(
        f"{counts['videos']} videos, {counts['frames']} frames, {counts['true_boxes']} true boxes, "
        f"{counts['told_boxes']} told, scores times 100",
        soft_wrap=True,
    )
    console.print(table)
