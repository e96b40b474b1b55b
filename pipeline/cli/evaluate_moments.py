"""``onlooker eval moments``: score predicted moments against annotations."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from onlooker.training.moments import FORMAT_NAMES

if TYPE_CHECKING:
    from onlooker.training.moments.annotations import Annotations
    from onlooker.training.moments.results import Joined

__all__ = ["add_task"]

_MOMENTS = """\
Score predicted moments: recall of the best predictions at IoU .5 and .7, and mAP over IoU .5, .55 ... .95.

GT is an annotation file as its authors publish it, plain or gzipped. PRED is, by format:
  qvhighlights                  a JSON object a line, {"qid", "vid", "pred_relevant_windows": [[start, end, score]]}
  charades, activitynet, tacos  {"results": {video: [{"sentence", "timestamp": [start, end], "score"}]}}
  activitynet1.3                {"results": {video: [{"label", "segment": [start, end], "score"}]}}
Times are seconds. Without scores, predictions count in the order of the file.
"""

_PROTOCOLS = """\
protocols:
  unloc   as UnLoc computes its numbers. mAP ranks the predictions for all queries together, and counts classes that
          are neither true nor predicted as 0. Recall on QVHighlights is ours; UnLoc has none.
  public  as the public evaluators of QVHighlights and ActivityNet do, whose numbers most papers report. On
          QVHighlights, recall of the first prediction, and mAP of each query on its first ten, averaged over
          queries; on ActivityNet-1.3, mAP over the classes that are true somewhere.
Both are the same for captions with one moment each: charades, activitynet, tacos.
"""

# Steps of coin are no moments: they are told apart frame by frame.
_FORMATS = tuple(name for name in FORMAT_NAMES if name != "coin")


def add_task(tasks: Any) -> None:
    """Add ``onlooker eval moments``."""
    parser = tasks.add_parser(
        "moments",
        help="moments of queries, captions or classes",
        description=_MOMENTS,
        epilog=_PROTOCOLS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", metavar="PRED", help="what was predicted")
    parser.add_argument("truth", metavar="GT", help="what is true")
    parser.add_argument("--format", required=True, choices=_FORMATS, help="whose format the annotations have")
    parser.add_argument("--subset", help="part of the annotations, for activitynet1.3: training, validation or testing")
    parser.add_argument(
        "--protocol",
        choices=["unloc", "public"],
        default="unloc",
        help="whose rules to score by, see below (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(func=_moments)


def _moments(args: argparse.Namespace) -> int:
    from onlooker.operators.errors import OnlookerError
    from onlooker.operators.localize.metrics.moments import evaluate_moments
    from onlooker.training.moments.formats import read_moments
    from onlooker.training.moments.results import join_results

    annotations = read_moments(args.truth, args.format, args.subset)
    if not any(video.moments for video in annotations.videos):
        raise OnlookerError(f"{args.truth!r} tells no moments to score by: is it the file of a test set?")
    joined = join_results(args.predictions, annotations)
    scores = evaluate_moments(joined.entries, annotations.kind, args.protocol, max(1, len(annotations.classes)))
    _say_what_is_missing(annotations, joined)
    if args.json:
        print(json.dumps(_as_json(args.protocol, scores, joined)))
    else:
        _print_table(args.protocol, scores, joined)
    return 0


def _say_what_is_missing(annotations: Annotations, joined: Joined) -> None:
    for names, what in (
        (annotations.left_out, "annotated moments are left out"),
        (joined.unpredicted, "entries without prediction count as misses"),
        (joined.unknown, "entries with predictions are not asked for and left out"),
    ):
        if names:
            some = "; ".join(names[:3]) + ("; ..." if len(names) > 3 else "")
            print(f"onlooker: {len(names)} {what}: {some}", file=sys.stderr)


def _as_json(protocol: str, scores: dict[str, float], joined: Joined) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
        "entries": len(joined.entries),
        "predictions": joined.predictions,
        "without_prediction": joined.unpredicted,
        "not_asked_for": joined.unknown,
    }


def _print_table(protocol: str, scores: dict[str, float], joined: Joined) -> None:
    """Scores times 100, as papers print them."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in scores:
        table.add_column(name, justify="right")
    table.add_row(*(f"{100 * value:.2f}" for value in scores.values()))
    console = Console(highlight=False)
    console.print(
        f"{len(joined.entries)} entries, {joined.predictions / len(joined.entries):.2f} predictions each, "
        f"protocol {protocol}, scores times 100",
        soft_wrap=True,
    )
    console.print(table)
