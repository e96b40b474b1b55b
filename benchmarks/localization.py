"""Are moments found, live? Generated videos whose truth is known; zero-shot, trained offline, trained online.

    python benchmarks/localization.py --data FOLDER [--videos FOLDER] [--split dev] [--quick]

Each video shows about twenty scenes, some of them again, beside others that resemble them; `training/moment_scenes.py`
says how. Queries are captions of scenes that are shown once, or two or three times, or not at all, and class names.

All forms read the same features of the same samples. The operators run on what the tower's node gave; the first video
also runs through the whole graph, which has to give the same events. Twins are the online form with its meaning
destroyed: queries of another video, and heads that learnt nothing. A bar that a twin reaches would say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import publish, table
from localization_data import GRAPH, Seen, make_videos, see
from localization_measure import Found, Moment, Result, by_kind, figures

from onlooker.operators.contract import Context, Control, Inputs, Operator, Outputs
from onlooker.operators.events import Event
from onlooker.operators.localize.changes import step_size
from onlooker.operators.localize.hysteresis import Hysteresis
from onlooker.operators.localize.moment_model import MomentModel, MomentSettings, window_plan
from onlooker.operators.localize.moment_node import MomentLocalizer
from onlooker.operators.localize.node import QueryLocalizer, QueryLocalizerConfig, default_thresholds
from onlooker.operators.localize.offline import find_moments
from onlooker.operators.localize.unloc.load import load_localizer, save_localizer
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.nms import NmsOptions, soft_nms
from onlooker.operators.packets import Scores
from onlooker.operators.tower import load_tower
from onlooker.pipeline.assemble import make_plan, runner_factory, source_spec
from onlooker.pipeline.session import Session

Texts = Sequence[str]
Array = npt.NDArray[np.float32]

_FIRST_FORM = {"change": 2.5, "contrast": 0.0, "reach": 0.0, "on": 3.0, "off": 2.2}
"""The zero-shot form as it was before: no cuts, no ordinary sentences, the thresholds of that time."""
_LADDER = np.arange(4.0, 0.0, -0.2)
"""Thresholds whose intervals the zero-shot form proposes, to be ranked; of equal scores the narrower comes first."""
_LOW = 0.02
"""Threshold of the online form that proposes nearly all, to be ranked."""


def moments_of(events: Sequence[Event], texts: Texts) -> Found:
    """What ended, query by query."""
    found: Found = [[] for _ in texts]
    for event in events:
        data = event.data
        if event.kind == "query" and event.phase == "end" and data.t_end is not None and data.t_end > data.t_start:
            moment = Moment(data.t_start, data.t_end, data.score or 0.0, data.t_seen)
            found[list(texts).index(data.query)].append(moment)
    return found


@dataclass
class Heard:
    """What an operator said about a video."""

    events: list[Event] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)

    def add(self, outputs: Outputs) -> None:
        self.events += [event for told in outputs.packets.get("events", ()) for event in told.events]
        self.scores += outputs.packets.get("scores", ())


def replay(operator: Operator[Any], video: Seen, texts: Texts) -> Heard:
    """Ask an operator for texts and give it what the tower gave, sample by sample."""
    state = operator.initial_state(video.name)
    heard = Heard()
    control = [Control("query.add", {"text": text}) for text in texts]
    for packet in video.packets():
        state, out = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t, control))
        heard.add(out)
        control = []
    _, out = operator.flush(state, video.end)
    heard.add(out)
    return heard


def opened(cls: type[Operator[Any]], **config: Any) -> Operator[Any]:
    """An operator that is ready."""
    operator = cls(cls.Config(**config))
    operator.open(Context())
    return operator


class ZeroShot:
    """The tower alone: told is what the operator tells; ranked are the intervals of many thresholds, suppressed."""

    def __init__(self, **config: Any) -> None:
        self._operator = opened(QueryLocalizer, **config)
        self._config: QueryLocalizerConfig = self._operator.config
        on, off = default_thresholds(calibrated=True)
        self._gap = (self._config.on or on) - (self._config.off or off)

    def __call__(self, video: Seen, texts: Texts) -> tuple[Found, Found]:
        heard = replay(self._operator, video, texts)
        times = [packet.t for packet in heard.scores]
        steps = zip(video.features, video.features[1:], strict=False)
        begins = [False, *(step_size(a, b) >= self._config.change for a, b in steps)]
        curves = np.stack([packet.values for packet in heard.scores], axis=1)
        proposals = [
            [one for on in _LADDER for one in self._intervals(times, curve, begins, float(on), video.end)]
            for curve in curves
        ]
        return moments_of(heard.events, texts), [suppressed(moments) for moments in proposals]

    def _intervals(
        self, times: Sequence[float], curve: Array, begins: Sequence[bool], on: float, end: float
    ) -> list[Moment]:
        """Intervals of a curve; they are ranked by its mean, which finds more on the dev videos than the peak."""
        state, spans = Hysteresis(self._config.reach), []
        for t, score, change in zip(times, curve.tolist(), begins, strict=True):
            if state.step(t, score, on, on - self._gap, change=change) == "finish":
                spans.append((state.t_start or 0.0, t))
                state.reset()
        spans += [] if state.t_start is None else [(state.t_start, end)]
        inside = [[s for t, s in zip(times, curve.tolist(), strict=True) if a <= t < b] for a, b in spans]
        return [Moment(a, b, sum(part) / len(part)) for (a, b), part in zip(spans, inside, strict=True)]


class Online:
    """The trained operator; ranked are its events at a very low threshold."""

    def __init__(self, model: str) -> None:
        self._telling = opened(MomentLocalizer, model=model)
        self._proposing = opened(MomentLocalizer, model=model, on=_LOW, off=_LOW)

    def __call__(self, video: Seen, texts: Texts) -> tuple[Found, Found]:
        told, ranked = (replay(operator, video, texts).events for operator in (self._telling, self._proposing))
        return moments_of(told, texts), moments_of(ranked, texts)


class Offline:
    """The trained model on the whole video; told is what scores as high as an event has to."""

    def __init__(self, model: str) -> None:
        localizer = load_localizer(model)
        settings = MomentSettings.of(localizer.settings)
        self._on = settings.on
        self._model = MomentModel(localizer.model, load_tower(localizer.tower, parts="text"), settings, pairs=16)
        self._plan = window_plan(localizer.model, settings)

    def __call__(self, video: Seen, texts: Texts) -> tuple[Found, Found]:
        found = find_moments(self._model, self._plan, video.features, video.times.tolist(), texts, NmsOptions())
        ranked = [[Moment(one.start, min(one.end, video.end), one.score) for one in moments] for moments in found]
        return [[one for one in moments if one.score >= self._on] for moments in ranked], ranked


Form = ZeroShot | Online | Offline


def suppressed(moments: list[Moment]) -> list[Moment]:
    """The best proposals, those that overlap better ones with lower scores, as the trained form has it."""
    if not moments:
        return []
    spans = np.array([(one.start, one.end) for one in moments], np.float32)
    scores = np.array([one.score for one in moments], np.float32)
    kept, values = soft_nms(spans, scores, NmsOptions(score_threshold=0.0))
    return [Moment(moments[i].start, moments[i].end, float(v)) for i, v in zip(kept, values, strict=True)]


def watch_all(form: Form, videos: Sequence[Seen], swapped: bool = False) -> Result:
    """Run a form over all videos; with ``swapped`` each is asked what was meant for the next one."""
    result = Result()
    for i, video in enumerate(videos):
        texts = [query.text for query in video.queries]
        if swapped:
            other = [query.text for query in videos[(i + 1) % len(videos)].queries if query.text not in texts]
            texts = [other[k % len(other)] + " " * (k // len(other)) for k in range(len(texts))]
        told, ranked = form(video, texts)
        result.told.append(told)
        result.ranked.append(ranked)
        print(f"{type(form).__name__} {video.name}", file=sys.stderr, flush=True)
    return result


def untrained(model: str, folder: Path) -> str:
    """The same localizer with fresh heads."""
    localizer = load_localizer(model)
    torch.manual_seed(0)
    fresh = Unloc(localizer.model.config)
    state = {name: value for name, value in localizer.model.state_dict().items() if not name.startswith("head")}
    left = fresh.load_state_dict(state, strict=False)
    assert left.missing_keys and not left.unexpected_keys, "only heads are to be fresh"
    save_localizer(folder, fresh.eval(), tower=localizer.tower, extra=dict(localizer.settings))
    return str(folder)


def check_graph(video: Seen, model: str | None) -> None:
    """The whole graph, from the file on, gives the same events as the operators on their own.

    Raises:
        RuntimeError: it does not.
    """
    texts = [query.text for query in video.queries]
    nodes = [("queries", "moments", opened(QueryLocalizer))]
    if model is not None:
        nodes.append(("moments", "queries", opened(MomentLocalizer, model=model)))
    for name, other, operator in nodes:
        overrides = [f"{name}.queries={json.dumps(texts)}"] + ([f"moments.model={model}"] if model else [])
        graph = make_plan(str(GRAPH), queries=texts, overrides=overrides).graph.without([other])
        session = Session(graph, runner_factory("local"), [source_spec(str(video.path))], [])
        live = [event.to_json(canonical=True) for event in session.events() if event.kind == "query"]
        alone = [event.to_json(canonical=True) for event in replay(operator, video, texts).events]
        if sorted(live) != sorted(alone):
            raise RuntimeError(f"{video.name}: the graph gave {len(live)} events, node {name!r} alone {len(alone)}")


def main() -> None:
    """Write the videos, watch them, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ONLOOKER_DATA"), help="folder that holds flickr8k/")
    parser.add_argument("--videos", type=Path, default=Path("cache/localization"), help="where videos are kept")
    parser.add_argument("--split", default="test", choices=["dev", "test"])
    parser.add_argument("--count", type=int, help="videos (default: 30, on dev 20)")
    parser.add_argument(
        "--model", default="tiny", help="name or folder of a trained localizer; `none` for zero-shot only"
    )
    parser.add_argument("--quick", action="store_true", help="three videos")
    parser.add_argument("--out", help="also write the tables to this Markdown file")
    args = parser.parse_args()
    if not args.data:
        parser.error("name the data folder by --data or ONLOOKER_DATA")
    torch.set_num_threads(1)
    count = 3 if args.quick else args.count or {"dev": 20, "test": 30}[args.split]
    videos = [see(path) for path in make_videos(args.videos / args.split, Path(args.data), args.split, count)]
    trained = args.model != "none"
    check_graph(videos[0], args.model if trained else None)
    results = {
        "zero-shot, first form": watch_all(ZeroShot(**_FIRST_FORM), videos),
        "zero-shot": watch_all(ZeroShot(), videos),
    }
    if trained:
        results["trained, offline"] = watch_all(Offline(args.model), videos)
        results["trained, online"] = watch_all(Online(args.model), videos)
        results["twin: texts of another video"] = watch_all(Online(args.model), videos, swapped=True)
        with tempfile.TemporaryDirectory() as folder:
            results["twin: heads untrained"] = watch_all(Online(untrained(args.model, Path(folder))), videos)
    columns = {name: figures(videos, result) for name, result in results.items()}
    rows = [[name, *(column[name] for column in columns.values())] for name in columns["zero-shot"]]
    body = table(["measure", *columns], rows)
    kinds = {name: by_kind(videos, result) for name, result in results.items()}
    body += "\n\nR@1 at IoU .5 by kind of query:\n\n"
    body += table(["queries", *kinds], [[k, *(kind[k] for kind in kinds.values())] for k in kinds["zero-shot"]])
    body += f"\n\n{len(videos)} videos of Flickr8k {args.split}, {sum(v.end for v in videos) / 60:.0f} minutes, "
    body += f"{sum(len(v.queries) for v in videos)} queries. The first three rows rank all that a form would propose; "
    body += "the others judge events as they are told."
    if trained:
        body += "\n\n" + bars(columns)
    publish("Moments found in streams", body, args.out)


def bars(columns: dict[str, dict[str, float]]) -> str:
    """What the issue asks for, and whether it is so."""
    plain, offline, online = columns["zero-shot"], columns["trained, offline"], columns["trained, online"]
    twins = [column for name, column in columns.items() if name.startswith("twin")]
    rows = []
    for name in ("R@1 IoU .5", "mAP .5:.95", "R@1 IoU .5, events", "mAP .5:.95, events"):
        rows.append([f"{name}: trained offline / zero-shot", ">= 1.2", offline[name] / plain[name]])
        rows.append([f"{name}: online / offline", ">= 0.9", online[name] / offline[name]])
        rows.append([f"{name}: best twin / zero-shot", "< 1.2", max(twin[name] for twin in twins) / plain[name]])
    rows.append(["false events, all absent", "<= 1", online["the same, all absent"]])
    rows.append(["latency of `end`, most, s", "<= 10", online["latency of `end`, most, s"]])
    return table(["bar", "goal", "here"], rows)


if __name__ == "__main__":
    main()
