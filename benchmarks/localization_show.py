"""What the localizers say about a video of five minutes with ten queries, and about real videos.

    python benchmarks/localization_show.py --data FOLDER [--folder FOLDER] [--real FOLDER] [--model NAME]

A video of test photographs is written of which six queries are true and four never happen. `onlooker run` watches it
and leaves its report, whose tracks show every query; the table here lays the events beside the truth. Every real video
is asked for what three of them show, and for three things that none of them shows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml
from common import publish, table
from localization_data import GRAPH

from onlooker.training.flickr import data_root
from onlooker.training.moment_scenes import AskedVideo, MomentLibrary, MomentRecipe, write_moment_video
from onlooker.training.scenes import VideoOptions

RECIPE = MomentRecipe(
    once=3, again=3, distractors=4, of_class=2, others=14, absent=2, hard_absent=2, classes=0, absent_classes=0
)
"""Six queries that are true, three of them several times, and four that are not; some 30 scenes."""
ASKED_OF_REAL = ("a dog runs", "someone pours coffee", "a man juggles")
NEVER = ("a train arrives at a station", "a cat sleeps on a sofa", "people swim in a pool")
NODES = {"zero-shot": "queries", "trained": "moments"}


def graph_of(form: str, texts: list[str], model: str, path: Path) -> Path:
    """The benchmark's graph with one of its two localizers, which is asked for the texts."""
    document = yaml.safe_load(GRAPH.read_text(encoding="utf-8"))
    document["nodes"] = {name: node for name, node in document["nodes"].items() if name not in NODES.values()} | {
        NODES[form]: document["nodes"][NODES[form]]
    }
    config = {"queries": texts} | ({"model": model} if form == "trained" else {})
    document["nodes"][NODES[form]]["config"] = config
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def run(video: Path, texts: list[str], form: str, model: str) -> list[dict[str, object]]:
    """`data` of the query events that ended; the report stays beside the video."""
    name = video.with_name(f"{video.stem}-{form}")
    graph, log = graph_of(form, texts, model, name.with_suffix(".yaml")), name.with_suffix(".jsonl")
    command = ["run", str(video), f"--graph={graph}", f"--events={log}", f"--report={name.with_suffix('.html')}"]
    subprocess.run(
        [sys.executable, "-m", "onlooker.pipeline.cli.main", *command, "--runner=local", "--quiet"], check=True
    )
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [event["data"] for event in events if event["data"]["phase"] == "end" and "query" in event["data"]]


def spans(pairs: list[tuple[float, float]]) -> str:
    """Times in one cell."""
    return ", ".join(f"{start:.1f}-{end:.1f}" for start, end in sorted(pairs)) or "-"


def told_of(events: list[dict[str, object]], text: str) -> str:
    """What was told of one query."""
    return spans([(float(str(e["t_start"])), float(str(e["t_end"]))) for e in events if e["query"] == text])


def generated(folder: Path, library: MomentLibrary, seed: int) -> AskedVideo:
    """A video of about five minutes and its ten queries."""
    options = VideoOptions(width=480, height=270, fps=10, seconds=(6.0, 14.0), noise=3.0, crf=28)
    return write_moment_video(library, folder / "moments.mp4", seed=seed, recipe=RECIPE, options=options)


def main() -> None:
    """Write the video, watch it and the real ones, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--folder", type=Path, default=Path("localization_show"), help="for the video and the reports")
    parser.add_argument("--seed", type=int, default=2600)
    parser.add_argument(
        "--model", default="tiny", help="name or folder of the trained localizer; `none`: zero-shot only"
    )
    parser.add_argument("--real", type=Path, help="folder of real videos (default: `videos` of the data folder)")
    parser.add_argument("--out", help="also write the tables to this Markdown file")
    args = parser.parse_args()
    root = data_root(args.data)
    args.folder.mkdir(parents=True, exist_ok=True)
    forms = ["zero-shot"] if args.model == "none" else list(NODES)
    asked = generated(args.folder, MomentLibrary(root, "test"), args.seed)
    texts = [query.text for query in asked.queries]
    told = {form: run(args.folder / "moments.mp4", texts, form, args.model) for form in forms}
    rows = [
        [query.text, query.kind, spans(list(query.moments)), *(told_of(told[form], query.text) for form in forms)]
        for query in asked.queries
    ]
    body = table(["query", "kind", "when, s", *forms], rows)
    body += f"\n\n{asked.truth.duration:.0f} s, {len(asked.truth.scenes)} scenes of test photographs.\n\n"
    rows = []
    for path in sorted((args.real or root / "videos").glob("*.mp4")):
        copy = args.folder / path.name
        copy.write_bytes(path.read_bytes())
        queries = [*ASKED_OF_REAL, *NEVER]
        events = {form: run(copy, queries, form, args.model) for form in forms}
        rows += [[path.stem, text, *(told_of(events[form], text) for form in forms)] for text in queries]
    body += table(["real video", "query", *forms], rows)
    publish("Moments of a video of five minutes, and of real ones", body, args.out)


if __name__ == "__main__":
    main()
