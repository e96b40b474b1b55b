"""``onlooker ask``: what is to be seen in a part of a frame."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .still import add_source, check_picture, draw, still_at
from .values import moment, region

if TYPE_CHECKING:
    from ..sinks.paths import Box
    from .still import Still

__all__ = ["add_parser"]

_EXAMPLES = """\
examples:
  onlooker ask walk.mp4 --at 3.5                           the whole picture at second 3.5
  onlooker ask walk.mp4 --at 0:03.5 --box 0.5,0,1,1        its right half
  onlooker ask photo.jpg --box 0.1,0.2,0.6,0.9 --picture asked.jpg

Of a camera that is being watched ask with `onlooker tell ask NAME --box ...`.
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker ask``."""
    parser = commands.add_parser(
        "ask",
        help="say what is to be seen in a part of a frame",
        description="Describe a frame of a video, or a part of it, in a sentence.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    add_source(parser)
    parser.add_argument(
        "--at", metavar="TIME", type=moment, help="when: 12.5, 12.5s or 0:12.5 (default: the first frame)"
    )
    parser.add_argument(
        "--box",
        metavar="X0,Y0,X1,Y1",
        type=region,
        help="where: parts of the picture from 0 to 1, 0,0 at the top left (default: all of it)",
    )
    parser.add_argument("--captioner", metavar="NAME|DIR", default="tiny", help="who tells it (default: %(default)s)")
    parser.add_argument("--model", metavar="NAME", default="tiny", help="tower it reads (default: %(default)s)")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    check_picture(args.picture, args.source)
    still = still_at(args.source, args.at)
    box: Box = args.box or (0.0, 0.0, 1.0, 1.0)
    text, score = _caption(still, box, args.captioner, args.model)
    if args.picture:
        draw(args.picture, still, [(box, text)])
    if args.json:
        said = {"t": round(still.t, 6), "box": box, "text": text, "score": round(score, 4)}
        print(json.dumps(said, ensure_ascii=False))
    else:
        print(text)
    return 0


def _caption(still: Still, box: Box, captioner: str, model: str) -> tuple[str, float]:
    from onlooker.operators.caption.load import load_captioner
    from onlooker.operators.objects.cutouts import CutoutCaptioner
    from onlooker.operators.tower import load_tower

    describer = CutoutCaptioner(load_captioner(captioner), load_tower(model))
    height, width = still.pixels.shape[:2]
    [told] = describer.caption([describer.look(still.pixels, np.array([box], np.float32), width / height)])
    return told
