"""Does one more frame cost the same after an hour as after a minute?

The live form of dense captioning (memory and captioner of the `dense` graph) runs over an hour of tokens. Then the
states of minute 1 and of the last minute go on side by side over the same frames, turn by turn, so that a noisy machine
disturbs both alike: their ratio is the figure. Beside it stands what re-encoding costs: the same decoder reads all
tokens so far at every decoding point, as a model without a memory has to.

The plot has both curves.
"""

from __future__ import annotations

import argparse
import copy
import pickle
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import publish, table

from onlooker.operators.caption.dense import DenseCaptioner as DenseModel
from onlooker.operators.caption.dense_load import load_video_captioner
from onlooker.operators.caption.dense_node import DenseCaptioner
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.packets import Tokens
from onlooker.operators.tower import load_tower
from onlooker.pipeline.assemble import make_plan
from onlooker.training.scenes import demo_scenes

Curve = list[tuple[float, float]]
"""(minute, milliseconds per frame)."""

FRAMES = 60
"""A minute, at a frame a second."""

COMPARED = 4
"""Minutes that are compared side by side: what a frame costs depends on how much the model has to say about it."""


class Live:
    """Memory and captioner of the `dense` graph over one stream."""

    def __init__(self) -> None:
        """Load both."""
        nodes = {node.name: node.config for node in make_plan("dense").graph.nodes}
        self.memory = ClusteringMemory(nodes["memory"])
        self.captioner = DenseCaptioner(nodes["caption"])
        self.memory.open(Context())
        self.captioner.open(Context())

    def start(self) -> list[Any]:
        """The states of a new stream."""
        return [self.memory.initial_state("bench"), self.captioner.initial_state("bench")]

    def step(self, states: list[Any], t: float, tokens: npt.NDArray[np.float32]) -> float:
        """Take one frame in; the seconds it took."""
        begin = time.perf_counter()
        packets = {"tokens": [Tokens("bench", 0, t, tokens)]}
        states[0], out = self.memory.process(states[0], Inputs(packets, t, t))
        given = Inputs({"memory": out.packets.get("memory", [])}, out.watermarks.get("memory", t), t)
        states[1], _ = self.captioner.process(states[1], given)
        return time.perf_counter() - begin


def pictures() -> npt.NDArray[np.float32]:
    """(P, N, D) tokens of the demo's photographs."""
    tower = load_tower("tiny", parts="image")
    images = [scene.image for scene in demo_scenes() if isinstance(scene.image, np.ndarray)]
    tokens: npt.NDArray[np.float32] = tower.encode_frames(tower.preprocess(images)).tokens.numpy()
    return tokens


def frame(shown: npt.NDArray[np.float32], number: int) -> npt.NDArray[np.float32]:
    """(N, D) of frame `number`: another photograph every ten seconds, a little different every second."""
    rng = np.random.default_rng(number)
    picture = shown[(number // 10) % len(shown)]
    moved: npt.NDArray[np.float32] = picture * (1 + 0.1 * rng.standard_normal(picture.shape, dtype=np.float32))
    return moved


def live_curve(live: Live, shown: npt.NDArray[np.float32], minutes: int) -> tuple[Curve, dict[int, list[Any]]]:
    """Cost of every minute, and the states after the first and before the last one."""
    states, curve, kept = live.start(), [], {}
    for minute in range(1, minutes + 1):
        spent = [live.step(states, float(n), frame(shown, n)) for n in range((minute - 1) * FRAMES, minute * FRAMES)]
        curve.append((float(minute), sum(spent) / FRAMES * 1e3))
        if minute in (1, minutes - 1):
            kept[minute] = copy.deepcopy(states)
        if minute % 10 == 0:
            print(f"minute {minute}: {curve[-1][1]:.1f} ms a frame", file=sys.stderr, flush=True)
    return curve, kept


def side_by_side(
    live: Live, kept: dict[int, list[Any]], shown: npt.NDArray[np.float32], rounds: int
) -> dict[int, list[float]]:
    """Milliseconds per frame of the minutes that follow each kept state, `rounds` times, frame by frame in turns."""
    costs: dict[int, list[float]] = {minute: [] for minute in kept}
    for _ in range(rounds):
        running = copy.deepcopy(kept)
        spent = dict.fromkeys(kept, 0.0)
        for n in range(COMPARED * FRAMES):
            for minute, states in running.items():
                spent[minute] += live.step(states, float(minute * FRAMES + n), frame(shown, n))
        for minute, seconds in spent.items():
            costs[minute].append(seconds / (COMPARED * FRAMES) * 1e3)
    return costs


@torch.inference_mode()
def reencoding_curve(shown: npt.NDArray[np.float32], interval: float, budget: float) -> Curve:
    """The same decoder over all tokens so far, once every decoding point, until one takes longer than `budget`."""
    model = load_video_captioner("tiny").model
    assert isinstance(model, DenseModel)
    curve: Curve = []
    minute = 0.25
    while not curve or curve[-1][1] * interval / 1e3 < budget:
        frames = int(minute * FRAMES)
        tokens = torch.from_numpy(np.stack([frame(shown, n) for n in range(frames)]))  # T, N, D
        when = torch.arange(float(frames))[:, None].expand(tokens.shape[:2])  # T, N
        times = torch.stack([when, torch.zeros_like(when)], -1)
        begin = time.perf_counter()
        model.decoder.encode_context(model.memory_with_spans(tokens, times, float(frames)).flatten(0, 1)[None])
        curve.append((minute, (time.perf_counter() - begin) / interval * 1e3))
        minute *= 2
    return curve


def plot(path: Path, curves: dict[str, Curve]) -> None:
    """An SVG with logarithmic axes: minutes to milliseconds per frame."""
    width, height, left, bottom = 640, 400, 70, 50
    points = np.log10(np.array([point for curve in curves.values() for point in curve]))
    low, high = np.floor(points.min(0)), np.ceil(points.max(0))

    def place(x: float, y: float) -> str:
        share = (np.array([x, y]) - low) / (high - low)
        return f"{left + share[0] * (width - left - 20):.1f},{height - bottom - share[1] * (height - bottom - 30):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="white"/>'
    ]
    for axis, name in ((0, "minutes of video"), (1, "milliseconds for one more frame")):
        for power in range(int(low[axis]), int(high[axis]) + 1):
            at = (power, low[1]) if axis == 0 else (low[0], power)
            to = (power, high[1]) if axis == 0 else (high[0], power)
            x, y = place(*at).split(",")
            parts.append(f'<path d="M{place(*at)} L{place(*to)}" stroke="#ddd"/>')
            shift = 'dy="18" text-anchor="middle"' if axis == 0 else 'dx="-8" dy="4" text-anchor="end"'
            parts.append(f'<text x="{x}" y="{y}" {shift}>{10.0**power:g}</text>')
        spots = (f'x="{width / 2}" y="{height - 10}"', f'transform="translate(16 {height / 2}) rotate(-90)"')
        parts.append(f'<text {spots[axis]} text-anchor="middle">{name}</text>')
    for (name, curve), colour in zip(curves.items(), ("#2255cc", "#cc4422"), strict=True):
        line = " ".join(place(float(np.log10(x)), float(np.log10(y))) for x, y in curve)
        x, y = line.split()[-1].split(",")
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x}" y="{y}" dy="-8" text-anchor="end" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60, help="of video (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison side by side (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=20, help="seconds for one re-encoding (default: %(default)s)")
    parser.add_argument("--out", help="also write the table to this Markdown file, and the plot beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    live, shown = Live(), pictures()
    curve, kept = live_curve(live, shown, args.minutes)
    costs = side_by_side(live, kept, shown, args.rounds)
    again = reencoding_curve(shown, live.captioner.config.interval, args.budget)
    first, last = sorted(kept)
    ratio = statistics.median(b / a for a, b in zip(costs[first], costs[last], strict=True))
    sizes = {minute: len(pickle.dumps(states)) / 1e6 for minute, states in kept.items()}
    rows = [[f"live, minute {m + 1}", statistics.median(costs[m]), sizes[m]] for m in (first, last)]
    rows += [[f"re-encoding, minute {minute:g}", cost, "-"] for minute, cost in again]
    body = table(["what", "ms for one more frame", "state, MB"], rows)
    body += f"\n\nMinute {last + 1} over minute {first + 1}, side by side: {ratio:.3f} in time (goal: within 1.1), "
    body += f"{sizes[last] / sizes[first]:.3f} in memory. A frame a second, a decoding point every "
    body += f"{live.captioner.config.interval:g} s; re-encoding is stopped when one point takes {args.budget:g} s."
    publish("Cost of one more frame", body, args.out)
    if args.out:
        plot(Path(args.out).with_suffix(".svg"), {"live, two memories": curve, "re-encoding all tokens": again})


if __name__ == "__main__":
    main()
