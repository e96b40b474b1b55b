"""Do live sources hold what they promise? Real cameras, each a process of its own, break in front of the real engine.

Scenarios, all unless named by --only:
  kills      a camera is killed and started again, many times: how long until frames come again?
  faults     one camera stalls, is replaced, refuses, sends garbage, loses packets: does another one notice?
  slow       a consumer ten times slower than its camera: does age stay below the target, and memory flat?
  clock      cameras whose clocks run fast, jump by an hour, or tell no time: are wall times as good as declared?
  leftovers  after a stop and after Ctrl-C while connecting: is anything left behind?

Each says by its own rule whether it held, and the exit code is 1 if one did not. Frames pass the graph `live` (tower,
captions, a query) and a probe that tells of each; --light leaves only the probe. The scenario slow is always light: its
probe sleeps over each frame.

examples:
  python benchmarks/live_soak.py --light --kills 3 --stall 12 --window 5 --seconds 60   a quick look, some minutes
  python benchmarks/live_soak.py --out benchmarks/results/live_soak.md                  the real one, half an hour
  python benchmarks/live_soak.py --only kills --only clock
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import publish, table
from soak.breaks import faults, kills
from soak.clocks import clock
from soak.leftovers import leftovers
from soak.pace import slow
from soak.scenario import Found, Soak, say, word
from soak.watching import NotSeenError, make_video

SCENARIOS: dict[str, Callable[[Soak], Found]] = {
    "kills": kills,
    "faults": faults,
    "slow": slow,
    "clock": clock,
    "leftovers": leftovers,
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number: dict[str, Any] = {"type": float, "metavar": "S"}
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="run this scenario; repeatable")
    parser.add_argument("--light", action="store_true", help="a probe instead of the models: for a busy machine")
    parser.add_argument(
        "--runner",
        choices=["local", "ray"],
        default="local",
        help="engine of kills, faults and clock (default: %(default)s)",
    )
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="kills of a camera (default: %(default)s)")
    parser.add_argument("--down", **number, default=1.0, help="a killed camera stays away (default: %(default)s)")
    parser.add_argument("--cap", **number, default=4.0, help="longest wait between attempts (default: %(default)s)")
    parser.add_argument(
        "--connecting",
        **number,
        default=5.0,
        help="what an attempt may take: a decoding process starts, a key frame comes (default: %(default)s)",
    )
    parser.add_argument("--window", **number, default=20.0, help="fault-free before each fault (default: %(default)s)")
    parser.add_argument("--stall", **number, default=30.0, help="length of the stall (default: %(default)s)")
    parser.add_argument("--fault", **number, default=15.0, help="length of other faults (default: %(default)s)")
    parser.add_argument("--seconds", **number, default=600.0, help="of the slow consumer (default: %(default)s)")
    parser.add_argument("--target", **number, default=2.0, help="target_latency there (default: %(default)s)")
    parser.add_argument("--clock", **number, default=120.0, help="of the cameras' clocks (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="also write the tables to this Markdown file")
    return parser.parse_args()


def main() -> int:
    """Run the scenarios and print what they found; 1 if one did not hold."""
    args = parse()
    results: dict[str, tuple[Found, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        video = make_video(Path(name) / "camera.mp4")
        other = make_video(Path(name) / "other.mp4", size="320x240", codec="libx265")
        for scenario in args.only or SCENARIOS:
            say(f"{scenario} ...")
            started = time.monotonic()
            try:
                found = SCENARIOS[scenario](Soak(args, video, other))
            except NotSeenError as error:
                found = Found(False, str(error), ["found"], [])
            results[scenario] = (found, time.monotonic() - started)
            say(f"{scenario}: {word(found.held)}")
    summary = [[name, word(found.held), f"{seconds:.0f}"] for name, (found, seconds) in results.items()]
    parts = [table(["scenario", "", "seconds"], summary)]
    for name, (found, _) in results.items():
        parts.append(f"## {name}: {word(found.held)}\n\nRule: {found.rule}.\n\n{table(found.header, found.rows)}")
    nodes = "a probe alone" if args.light else "the graph `live` with tower, captions and a query, and a probe"
    parts.append(
        f"Runner: {args.runner}. Frames pass {nodes}; in `slow` a probe alone, on the local runner. "
        "Cameras are processes of `onlooker simulate-camera`."
    )
    publish("Live sources under faults", "\n\n".join(parts), args.out)
    return 0 if all(found.held for found, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
