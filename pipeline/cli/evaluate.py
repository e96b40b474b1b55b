"""``onlooker eval``: score predictions against ground truth."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from onlooker.pipeline.cli import evaluate_moments, evaluate_objects

if TYPE_CHECKING:
    from onlooker.operators.caption.metrics.activitynet import Joined
    from onlooker.operators.caption.metrics.protocols import Report

__all__ = ["add_parser"]

_DENSE = """\
Score dense captions: CIDEr, METEOR, SODA_c, and precision, recall and F1 of the intervals at IoU .3, .5, .7 and .9.

PRED.json holds {"results": {video: [{"sentence", "timestamp": [start, end]}]}}, as `onlooker run --activitynet` writes;
GT.json holds {video: {"duration", "timestamps", "sentences"}}, one file per annotator. Times are seconds.
"""

_PROTOCOLS = """\
protocols:
  reference    as Streaming DVC and Vid2Seq compute their numbers: F1 per video, times in microseconds
  activitynet  as the public ActivityNet evaluator and SODA do, whose numbers most papers report

METEOR and SODA_c need Java and the extra onlooker[eval]; --no-meteor does without them.
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker eval``."""
    parser = commands.add_parser(
        "eval", help="score predictions against ground truth", description="Score predictions against ground truth."
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    dense = tasks.add_parser(
        "dense-captions",
        help="captions with start and end",
        description=_DENSE,
        epilog=_PROTOCOLS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    dense.add_argument("predictions", metavar="PRED.json", help="what was predicted")
    dense.add_argument("truth", metavar="GT.json", nargs="+", help="what is true, one file per annotator")
    dense.add_argument(
        "--protocol",
        choices=["reference", "activitynet"],
        default="reference",
        help="whose rules to score by, see below (default: %(default)s)",
    )
    dense.add_argument("--no-meteor", action="store_true", help="leave out METEOR and SODA_c, which need Java")
    dense.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    dense.set_defaults(func=_dense_captions)
    evaluate_moments.add_task(tasks)
    evaluate_objects.add_task(tasks)


def _dense_captions(args: argparse.Namespace) -> int:
    from onlooker.operators.caption.metrics.activitynet import read_predictions, read_truth
    from onlooker.operators.caption.metrics.meteor import Meteor
    from onlooker.operators.caption.metrics.protocols import evaluate, prepare

    joined = prepare(read_predictions(args.predictions), [read_truth(path) for path in args.truth], args.protocol)
    with nullcontext() if args.no_meteor else Meteor() as meteor, _progress(len(joined.videos)) as step:
        report = evaluate(joined.videos, args.protocol, meteor=meteor, progress=step)
    _say_what_is_missing(joined)
    if args.json:
        print(json.dumps(_as_json(report, joined)))
    else:
        _print_table(report)
    return 0


@contextmanager
def _progress(videos: int) -> Iterator[Callable[[], None]]:
    """A bar over the videos on a terminal, nothing elsewhere; yields what to call after each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=videos)
        yield lambda: bar.advance(task)


def _say_what_is_missing(joined: Joined) -> None:
    for videos, what in (
        (joined.unpredicted, "without prediction count as 0"),
        (joined.unknown, "with predictions have no ground truth and are left out"),
        (joined.untold, "have no caption in the ground truth and are left out"),
    ):
        if videos:
            some = ", ".join(videos[:3]) + (", ..." if len(videos) > 3 else "")
            print(f"onlooker: {len(videos)} videos {what}: {some}", file=sys.stderr)


def _as_json(report: Report, joined: Joined) -> dict[str, Any]:
    return {
        "protocol": report.protocol,
        "scores": report.scores,
        "videos": len(joined.videos),
        "predictions_per_video": report.predictions_per_video,
        "without_prediction": joined.unpredicted,
        "without_truth": joined.unknown,
        "without_true_captions": joined.untold,
    }


def _print_table(report: Report) -> None:
    """Scores times 100, as papers print them; captions first, then the intervals per threshold."""
    from rich.console import Console
    from rich.table import Table

    scores = {name: f"{100 * value:.2f}" for name, value in report.scores.items()}
    thresholds = [name.partition("@")[2] for name in scores if name.startswith("precision@")]
    console = Console(highlight=False)
    console.print(
        f"{len(report.videos.keys)} videos, {report.predictions_per_video:.2f} captions each, "
        f"protocol {report.protocol}, scores times 100",
        soft_wrap=True,
    )
    captions = Table()
    names = [name for name in ("CIDEr", "METEOR", "SODA_c", "F1") if name in scores]
    for name in names:
        captions.add_column(name, justify="right")
    captions.add_row(*(scores[name] for name in names))
    intervals = Table()
    for head in ("IoU", *thresholds, "mean"):
        intervals.add_column(head, justify="right")
    for row in ("precision", "recall"):
        intervals.add_row(row, *(scores[f"{row}@{t}"] for t in thresholds), scores[row])
    console.print(captions)
    console.print(intervals)
