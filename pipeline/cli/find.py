"""``onlooker find``: where in a video something is that is said in words."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UsageError
from .display import format_time
from .still import Still, add_source, check_picture, draw, sampled, shown, still_at
from .values import moment

if TYPE_CHECKING:
    from onlooker.operators.objects.finding import Place, Referrer

__all__ = ["add_parser"]

_EXAMPLES = """\
examples:
  onlooker find walk.mp4 "a woman in a blue jacket" --at 3.5        in one frame
  onlooker find walk.mp4 "a dog"                                    in all of the video, best frames first
  onlooker find walk.mp4 "a dog" --picture dog.jpg --json

Boxes are x0,y0,x1,y1 as parts of the picture, 0,0 at the top left: what `onlooker ask --box` takes. The score says by
how much the object fits the words better than pictures of all kinds do, in standard deviations.
"""


class _Find(NamedTuple):
    t: float
    place: Place


def add_parser(commands: Any) -> None:
    """Add ``onlooker find``."""
    parser = commands.add_parser(
        "find",
        help="say where in a video something is, by words",
        description="Find an object by words, in a frame or in the whole of a video.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    add_source(parser)
    parser.add_argument("words", metavar="WORDS", help='what to look for, such as "the man in the red shirt"')
    parser.add_argument("--at", metavar="TIME", type=moment, help="look at this moment: 12.5, 12.5s or 0:12.5")
    parser.add_argument(
        "--fps", type=float, default=1.0, help="without --at: frames looked at in a second (default: %(default)s)"
    )
    parser.add_argument("--most", metavar="N", type=int, default=10, help="places to tell (default: %(default)s)")
    parser.add_argument(
        "--least", metavar="SCORE", type=float, help="tell what scores as much (default: what is a find for the model)"
    )
    parser.add_argument(
        "--detector", metavar="NAME|DIR", default="tiny", help="what finds the objects (default: %(default)s)"
    )
    parser.add_argument("--model", metavar="NAME", help="tower that reads the words (default: the detector's own)")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    _check(args)
    stills = _stills(args)
    first = list(itertools.islice(stills, 1))  # a wrong source is told before models are loaded
    from onlooker.operators.objects.finding import load_referrer

    referrer = load_referrer(args.detector, tower=args.model)
    least = referrer.threshold if args.least is None else args.least
    finds: list[_Find] = []
    best: Still | None = None
    for still in itertools.chain(first, stills):
        here = _look(referrer, still, args.words, least, args.most if args.at is not None else 1)
        if here and (not finds or here[0].place.score > finds[0].place.score):
            best = still
        finds = sorted([*finds, *here], key=lambda find: (-find.place.score, find.t))[: args.most]
    if args.picture and best is not None:
        boxes = [(find.place.box, args.words) for find in finds if find.t == best.t]
        draw(args.picture, best, boxes)
    _tell(finds, as_json=args.json)
    return 0


def _check(args: argparse.Namespace) -> None:
    if not args.words.strip():
        raise UsageError('say what to look for, in words, as in: onlooker find walk.mp4 "a dog".')
    if not (math.isfinite(args.fps) and 0 < args.fps <= 60):
        raise UsageError(f"--fps must lie between 0 and 60, not {args.fps:g}.")
    if args.most < 1:
        raise UsageError(f"--most must be at least 1, not {args.most}.")
    check_picture(args.picture, args.source)


def _stills(args: argparse.Namespace) -> Iterator[Still]:
    if args.at is not None:
        yield still_at(args.source, args.at)
    else:
        yield from sampled(args.source, args.fps)


def _look(referrer: Referrer, still: Still, words: str, least: float, most: int) -> list[_Find]:
    """The best places of one frame."""
    places = [place for place in referrer.refer(still.pixels, words) if place.score >= least]
    return [_Find(still.t, place) for place in places[:most]]


def _tell(finds: list[_Find], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"t": round(t, 6), "box": [round(part, 4) for part in place.box], "score": round(place.score, 4)}
            for t, place in finds
        ]
        print(json.dumps(rows))
        return
    if finds:
        print(f"{'time':>10}  {'score':>6}  box")
    for t, place in finds:
        print(f"{format_time(t):>10}  {place.score:>6.2f}  {shown(place.box)}")
    if not finds:
        print("onlooker: nothing found", file=sys.stderr)
