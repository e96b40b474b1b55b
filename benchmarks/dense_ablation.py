"""What the parts of streaming dense captioning are worth: each is left out or changed, and trained anew.

    python benchmarks/dense_ablation.py --data FOLDER --cache FOLDER --runs FILE [--start dense] [--steps 400]

Every variant gets the same number of updates on videos made of train photographs, from the embedded captioner, which
has never seen a time token, or with `--start dense` from the embedded dense captioner, which was trained as shipped;
it is scored on videos made of test photographs, decoded as the paper evaluates, greedily. By default videos are cut
out of longer ones: at every decoding point the last scene goes on, as in a stream. Where videos are whole the last
scene ends with the video, which is an event at the last point and none at the others, and nothing that the model sees
tells these apart. Each finished run is a line
of `--runs`, and a run that stands there is not made again: stop and go on as you like. The table is made of what is
there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import publish, table
from dense_scenes import SceneStream, Told, draw_streams, score
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from onlooker.operators.caption.captioner import Captioner
from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import MemoryConfig, SearchConfig
from onlooker.operators.caption.dense_load import load_video_captioner
from onlooker.operators.caption.dense_opening import row_reader
from onlooker.operators.caption.git import Context, GitDecoder
from onlooker.operators.caption.metrics.meteor import Meteor
from onlooker.training.captioner import own_captioner
from onlooker.training.captions import Split
from onlooker.training.dvc_scenes import SceneRecipe, SceneVideos
from onlooker.training.dvc_tiny import DenseTinyRecipe, dense_from_captioner, train_on_scenes
from onlooker.training.flickr import data_root

SHOWN = ("CIDEr", "METEOR", "SODA_c", "F1")


class WithoutPrefix(GitDecoder):
    """A decoder that is never told earlier captions."""

    def encode_context(
        self, memory: Tensor, memory_mask: Tensor | None = None, prefix: Tensor | None = None
    ) -> Context:
        """`GitDecoder.encode_context` without its prefix."""
        return super().encode_context(memory, memory_mask)


def recipes(base: DenseTinyRecipe) -> dict[str, DenseTinyRecipe]:
    """The variants by name; "no prefix" differs in its decoder alone."""
    memory = base.memory
    return {
        "as shipped": base,
        "no prefix": base,
        "1 decoding point": replace(base, points=1),
        "2 decoding points": replace(base, points=2),
        "8 decoding points": replace(base, points=8),
        "no momentum": replace(base, memory=replace(memory, momentum=False)),
        "K = 49 (one frame's tokens)": replace(base, memory=replace(memory, size=49)),
        "K = 196": replace(base, memory=replace(memory, size=196)),
        "mean over time": replace(base, memory=MemoryConfig("temporal_mean_pool")),
        "EMA, 0.9": replace(base, memory=MemoryConfig("ema")),
        "no spans": replace(base, spans=False),
    }


def beginning(start: str, recipe: DenseTinyRecipe, captioner: Captioner) -> DenseCaptioner:
    """The model of a variant before its first update."""
    model = dense_from_captioner(captioner, recipe)
    if start == "dense":
        state = load_video_captioner(recipe.start).model.decoder.state_dict()
        # The columns behind those of a token's look are for its span; a variant without spans has none.
        state["visual_projection.weight"] = state["visual_projection.weight"][:, : model.config.decoder.visual_width]
        model.decoder.load_state_dict(state)
    return model


def one_run(
    name: str,
    start: str,
    recipe: DenseTinyRecipe,
    captioner: Captioner,
    videos: SceneVideos,
    streams: list[SceneStream],
    step: Callable[[], None],
) -> dict[str, Any]:
    """Train and score one variant with one seed."""
    model = beginning(start, recipe, captioner)
    if name == "no prefix":
        decoder = WithoutPrefix(model.config.decoder)
        decoder.load_state_dict(model.decoder.state_dict())
        model.decoder = decoder
    started = time.monotonic()
    trained = train_on_scenes(model, videos, recipe, lambda *_: step())
    minutes = (time.monotonic() - started) / 60
    told = decoded(trained, captioner, streams)
    with Meteor() as meteor:
        scores = score(streams, told, meteor)
    run = {"variant": name, "start": start, "cut_share": recipe.scenes.cut_share, "seed": recipe.seed}
    run["steps"] = recipe.steps
    return run | {"minutes": minutes, "scores": scores}


def decoded(model: DenseCaptioner, captioner: Captioner, streams: list[SceneStream]) -> list[list[Told]]:
    """The captions of whole videos, each T frames long."""
    reader = row_reader(model.config, captioner.vocabulary.pieces)
    told = []
    for first in range(0, len(streams), 10):
        tokens = torch.stack([stream.tokens for stream in streams[first : first + 10]])
        rows = model.decode_tokens(tokens, SearchConfig("greedy")).tokens
        for row in rows:
            captions = reader.read(row[None], 0, tokens.shape[1] * 1_000_000).values()
            told.append([Told(c.start_us / 1e6, c.end_us / 1e6, c.text) for c in captions])
    return told


def read_runs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that were finished of those that the options ask for."""
    path: Path = arguments.runs
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    wanted = {name: getattr(arguments, name) for name in ("start", "cut_share", "steps")}
    return [run for run in map(json.loads, lines) if wanted.items() <= run.items()]


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--cache", type=Path, required=True, help="token cache")
    parser.add_argument("--runs", type=Path, required=True, help="JSON lines of finished runs; appended to")
    parser.add_argument("--start", choices=("captioner", "dense"), default="captioner")
    parser.add_argument("--cut-share", type=float, default=1.0, help="videos cut out of longer ones, see SceneRecipe")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--videos", type=int, default=2, help="per step")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-videos", type=int, default=100)
    parser.add_argument("--only", action="append", help="only this variant; repeatable")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of the runs there are")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenes = SceneRecipe(cut_share=arguments.cut_share)
    base = DenseTinyRecipe(steps=arguments.steps, videos=arguments.videos, rate=3e-4, average=0.99, scenes=scenes)
    base = replace(base, warmup_steps=arguments.steps // 8)
    variants = recipes(base)
    wanted = arguments.only or list(variants)
    unknown = [name for name in wanted if name not in variants]
    if unknown:
        parser.error(f"no variant {unknown[0]!r}; known: {', '.join(variants)}")
    if not arguments.table:
        data, captioner = data_root(arguments.data), own_captioner(base.start)
        videos = SceneVideos(Split.open(data, arguments.cache, None, "train"), captioner.vocabulary, base.scenes)
        photographs = Split.open(data, arguments.cache, None, "test")
        streams = draw_streams(photographs, captioner.vocabulary, arguments.test_videos, base.scenes)
        done = {(run["variant"], run["seed"]) for run in read_runs(arguments)}
        todo = [(n, s) for s in range(arguments.seeds) for n in wanted if (n, s) not in done]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            task = bar.add_task("", total=len(todo) * arguments.steps)
            for name, seed in todo:
                bar.update(task, description=f"{name}, seed {seed}")
                recipe = replace(variants[name], seed=seed)
                run = one_run(name, arguments.start, recipe, captioner, videos, streams, lambda: bar.advance(task))
                with arguments.runs.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
    report(read_runs(arguments), list(variants), arguments)


def report(runs: list[dict[str, Any]], order: list[str], arguments: argparse.Namespace) -> None:
    """Mean and spread over the seeds."""
    rows = []
    for name in order:
        own = [run["scores"] for run in runs if run["variant"] == name]
        if own:
            means = [_mean([100 * scores[metric] for scores in own]) for metric in SHOWN]
            rows.append([name, len(own), *means, _mean([scores["captions per event"] for scores in own])])
    minutes = [run["minutes"] for run in runs]
    origin = {"captioner": "the embedded captioner", "dense": "the embedded dense captioner"}[arguments.start]
    note = (
        f"\n\nMean and standard deviation over the seeds, scores times 100 by the reference's protocol. Each run: "
        f"{arguments.steps} updates of {arguments.videos} videos of 32 frames from {origin}, "
        f"{arguments.cut_share:.0%} of them cut out of longer ones, at most "
        f"{max(minutes, default=0.0):.1f} minutes on one core; scored on {arguments.test_videos} videos of test "
        f"photographs. Command: `python benchmarks/dense_ablation.py --start {arguments.start} "
        f"--cut-share {arguments.cut_share:g} --steps {arguments.steps}`."
    )
    publish(
        "Ablations of dense captioning",
        table(["variant", "seeds", *SHOWN, "captions per event"], rows) + note,
        arguments.out,
    )


def _mean(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main()
