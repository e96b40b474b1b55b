"""Entry point of the ``onlooker`` command: the parsers, and what happens with errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from onlooker import __version__
from onlooker.operators.errors import OnlookerError

__all__ = ["main"]

_DESCRIPTION = """\
Watch video and tell what happens, while it happens: captions, and when something you ask for in words begins and ends.
Everything runs on this machine, with weights that come with the package.
"""

_EXAMPLES = """\
examples:
  onlooker demo                                      make a short video, watch it, write a report
  onlooker run holiday.mp4                           caption a video on the terminal
  onlooker run holiday.mp4 --query "a dog" --report holiday.html
  onlooker run holiday.mp4 --events events.jsonl --vtt holiday.vtt -o caption.interval=2
  onlooker run holiday.mp4 --publish tcp://127.0.0.1:5571    and, elsewhere: onlooker subscribe
  onlooker find holiday.mp4 "a dog" --picture dog.jpg   where it is; `onlooker ask` says what is where
  onlooker graph show file                           what a graph is made of, and every setting
  onlooker doctor                                    what is installed, what is missing

exit codes: 0 complete, 2 wrong usage or nothing processed, 3 partial (input or an output broke off), 130 Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        run: Callable[[argparse.Namespace], int] = args.func
        return run(args)
    except OnlookerError as error:
        print(f"onlooker: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`onlooker run ... | head`); there is nobody left to tell.
        sys.stderr.close()
        return 3
    except KeyboardInterrupt:
        print("onlooker: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onlooker",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"onlooker {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    from . import (
        ask,
        bus,
        convert,
        demo,
        doctor,
        evaluate,
        events,
        find,
        graphs,
        keys,
        replay,
        run,
        simulate,
        subscribe,
        tell,
        train,
    )

    for module in (
        demo,
        run,
        ask,
        find,
        graphs,
        train,
        convert,
        evaluate,
        doctor,
        simulate,
        bus,
        keys,
        subscribe,
        events,
        replay,
        tell,
    ):
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
