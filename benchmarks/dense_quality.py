"""Are the captions of the dense graph, and their starts and ends, true? On streams made of test photographs.

    python benchmarks/dense_quality.py --data FOLDER [--model tiny] [--streams 30] [--seconds 180]

Streams show photographs for 5 to 14 s each at one frame a second; in a quarter of the cuts both are seen side by side,
so that events overlap. They go through the memory and the captioner of the graph `dense`. In the same run, the same
decoder captions chunks of fixed length, which is how captions are made without a streaming memory. Twins: the frames
of a stream in another order; the truth of another stream.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from common import publish, table
from dense_scenes import SCORES, SceneStream, Told, Watcher, draw_streams, encoded, in_chunks, score
from rich.progress import track

from onlooker.operators.caption.metrics.meteor import Meteor
from onlooker.training.captioner import own_captioner
from onlooker.training.dvc_scenes import SceneRecipe
from onlooker.training.flickr import data_root


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--model", default="tiny", help="name or folder of a dense captioner")
    parser.add_argument("--photographs", type=int, default=1000, help="that streams are made of")
    parser.add_argument("--streams", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--chunks", type=int, nargs="+", default=[5, 10], help="lengths of the chunks, seconds")
    parser.add_argument("--horizon", type=float, default=32.0, help="of the memory, seconds")
    parser.add_argument("--interval", type=float, default=8.0, help="between decoding points, seconds")
    parser.add_argument("--beam", type=int, help="default: the model's own")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    watch = Watcher(arguments.model, arguments.horizon, arguments.interval, arguments.beam)
    recipe = SceneRecipe(frames=arguments.seconds)
    vocabulary = own_captioner("tiny").vocabulary
    photographs = encoded(data_root(arguments.data), arguments.split, arguments.photographs)
    streams = draw_streams(photographs, vocabulary, arguments.streams, recipe)
    told: dict[str, list[list[Told]]] = {"live form": []}
    for stream in track(streams, "captioning"):
        told["live form"].append(watch(stream.tokens))
        for seconds in arguments.chunks:
            told.setdefault(f"chunks of {seconds} s", []).append(in_chunks(watch, stream.tokens, seconds))
        order = np.random.default_rng(len(told["live form"])).permutation(len(stream.tokens))
        told.setdefault("twin: frames shuffled", []).append(watch(stream.tokens[torch.from_numpy(order)]))
    told["twin: truth of another stream"] = told["live form"][1:] + told["live form"][:1]
    with Meteor() as meteor:
        rows = [[name, *_row(streams, captions, meteor)] for name, captions in told.items()]
    note = (
        f"\n\n{len(streams)} streams of {arguments.seconds} s of {arguments.split} photographs, "
        f"{sum(len(s.truth) for s in streams)} events; horizon {arguments.horizon:g} s, a decoding point every "
        f"{arguments.interval:g} s. Scores times 100 by the reference's protocol; one true caption per event. "
        "Command: `python benchmarks/dense_quality.py`."
    )
    publish(
        "Dense captions of streams of scenes",
        table(["captioning", *SCORES, "precision / recall @.5", "captions per event"], rows) + note,
        arguments.out,
    )


def _row(streams: list[SceneStream], told: list[list[Told]], meteor: Meteor) -> list[str]:
    scores = score(streams, told, meteor)
    at_half = f"{100 * scores['precision@0.5']:.1f} / {100 * scores['recall@0.5']:.1f}"
    return [*(f"{100 * scores[name]:.2f}" for name in SCORES), at_half, f"{scores['captions per event']:.2f}"]


if __name__ == "__main__":
    main()
