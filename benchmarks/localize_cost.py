"""What does a query cost the online localizer, and how many can one live stream have?

    python benchmarks/localize_cost.py [--model tiny] [--queries 0 1 10 100]

The operator watches the same stream with more and more queries. Frames are projected once however many there are, and a
query adds one pass of the fusion and the heads per window; the tower runs before all that and is not measured here.
Seconds are CPU seconds of one thread per second of media. Multiply-adds are counted as the model runs (matrix products,
attention and convolutions), also those of the published model of size B with the same pyramid and 128 frames.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import publish, spread, table
from torch.utils.flop_counter import FlopCounterMode

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.localize.moment_model import MomentSettings, window_plan
from onlooker.operators.localize.moment_node import MomentLocalizer, MomentLocalizerConfig
from onlooker.operators.localize.unloc.config import UnlocConfig
from onlooker.operators.localize.unloc.load import load_localizer
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.presets import PRESETS
from onlooker.operators.packets import Embedding

PUBLISHED = "anetcap_b"
"""Size B with a simple pyramid."""


def multiply_adds(config: UnlocConfig) -> float:
    """Of one query and window: fusion, pyramid and heads."""
    model = Unloc(replace(config, image=None, text=None)).to("meta").eval()
    mask = torch.ones(1, config.steps, dtype=torch.bool, device="meta")
    with torch.no_grad():
        video = model.project_video(torch.zeros(1, config.frames, config.video_width, device="meta"))
        text = model.project_texts(torch.zeros(1, config.text_width, device="meta"))
        with FlopCounterMode(display=False) as counter:
            model.score(video, text, mask)
    return counter.get_total_flops() / 2


def stream(seconds: float, fps: float, width: int) -> list[Embedding]:
    """Features without meaning that drift as those of a video do."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(round(seconds * fps), width)) * 0.1
    rows = (rng.normal(size=width) + np.cumsum(steps, axis=0)).astype(np.float32)
    return [Embedding("stream", 0, i / fps, row) for i, row in enumerate(rows)]


def watch(operator: MomentLocalizer, packets: list[Embedding]) -> float:
    """CPU seconds for the stream, frame by frame as they come live."""
    state = operator.initial_state("stream")
    begun = time.process_time()
    for packet in packets:
        state, _ = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t))
    return time.process_time() - begun


def measure(model: str, counts: list[int], seconds: float, rounds: int) -> list[list[object]]:
    """One row per number of queries; the numbers take turns, so that a busy machine meets all of them."""
    localizer = load_localizer(model)
    fps = MomentSettings.of(localizer.settings).fps
    packets = stream(seconds, fps, localizer.model.config.video_width)
    operators = {count: opened(model, count) for count in counts}
    took: dict[int, list[float]] = {count: [] for count in counts}
    for turn in range(rounds + 1):
        for count, operator in operators.items():
            spent = watch(operator, packets[: len(packets) if turn else round(40 * fps)])
            if turn:  # the first round warms caches up
                took[count].append(spent / seconds)
    one = statistics.median(took[min(count for count in counts if count)])
    return [
        [count, spread([1e3 * each for each in took[count]]), statistics.median(took[count]) / one] for count in counts
    ]


def opened(model: str, count: int) -> MomentLocalizer:
    """A localizer with that many queries."""
    queries = [f"thing number {i} that nobody has ever seen" for i in range(count)]
    operator = MomentLocalizer(MomentLocalizerConfig(model=model, queries=queries))
    operator.open(Context())
    return operator


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="name or folder of a localizer (default: %(default)s)")
    parser.add_argument("--queries", type=int, nargs="+", default=[0, 1, 10, 100], help="how many at a time")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the stream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument("--out", help="also write the tables to this Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(args.model, args.queries, args.seconds, args.rounds)
    body = table(["queries", "CPU ms per second of media", "to the fewest"], rows)
    config, published = load_localizer(args.model).model.config, PRESETS[PUBLISHED]
    own, theirs = multiply_adds(config), multiply_adds(published)
    settings = MomentSettings.of(load_localizer(args.model).settings)
    plan = window_plan(load_localizer(args.model).model, settings)
    header = ["model", "frames", "width", "layers", "M multiply-adds per query and window", "per second of media"]
    sizes = [
        [
            Path(args.model).name,
            config.frames,
            config.fusion.width,
            config.fusion.layers,
            own / 1e6,
            own / 1e6 * plan.fps / plan.hop,
        ],
        [PUBLISHED, published.frames, published.fusion.width, published.fusion.layers, theirs / 1e6, "-"],
    ]
    body += "\n\n" + table(header, sizes)
    body += (
        f"\n\nWindows of {plan.frames} frames, {plan.hop} apart, at {plan.fps:g} frames per second; {args.seconds:g} s "
    )
    body += f"of media, {args.rounds} rounds, median (min-max). One query fills a call for 16 of them with zeros, so "
    body += "the first 16 cost the same."
    publish("Cost of queries", body, args.out)


if __name__ == "__main__":
    main()
