"""On a video of known photographs, queries and captions follow what is shown; the shuffled twins do not."""

import numpy as np
import pytest

from onlooker.operators.packets import Scores
from onlooker.pipeline.assemble import make_plan, runner_factory, source_spec
from onlooker.pipeline.session import Session
from onlooker.pipeline.sinks.base import Sink

QUERIES = {
    "chelsea": "a cat",
    "rocket": "a tower at sunset",
    "camera": "a photographer with a tripod",
}


class Curves(Sink):
    ports = ("scores",)

    def __init__(self):
        self.scores = []

    def open(self):
        pass

    def packets(self, port, packets):
        assert all(isinstance(p, Scores) for p in packets)
        self.scores += packets

    def close(self):
        pass


@pytest.fixture(scope="module")
def watched(demo):
    video, truth = demo
    graph = make_plan("file", queries=list(QUERIES.values())).graph
    curves = Curves()
    session = Session(graph, runner_factory("local"), [source_spec(str(video))], [curves])
    events = list(session.events())
    values = np.stack([s.values for s in curves.scores])
    shown = [truth.at(s.t).file for s in curves.scores]
    return events, values, np.array([[file == name for name in QUERIES] for file in shown])


def auroc(values, labels):
    positive, negative = values[labels], values[~labels]
    return float(np.mean(positive[:, None] > negative[None]))


def test_queries_score_high_when_their_scene_is_shown(watched):
    _, values, labels = watched
    assert auroc(values, labels) >= 0.9


def test_twin_with_shuffled_frames_fails(watched):
    _, values, labels = watched
    shuffled = values[np.random.default_rng(0).permutation(len(values))]
    assert auroc(shuffled, labels) < 0.9


def test_query_events_lie_where_their_scene_is(watched, demo):
    events, *_ = watched
    ends = [e for e in events if e.kind == "query" and e.phase == "end"]
    assert ends
    names = {query: name for name, query in QUERIES.items()}
    right = [demo[1].at((e.t_start + e.t_end) / 2).file == names[e.data.query] for e in ends]
    assert np.mean(right) >= 0.6


def test_there_is_a_caption_for_every_five_seconds(watched, demo):
    events, *_ = watched
    captions = [e for e in events if e.kind == "caption"]
    spans = [(e.t_start, e.t_end) for e in captions]
    assert spans[0][0] == 0.0
    assert all(b == pytest.approx(a + 5) for a, b in spans[:-1])
    assert all(before[1] == after[0] for before, after in zip(spans, spans[1:], strict=False))
    assert spans[-1][1] == pytest.approx(demo[1].duration, abs=1e-6)
    assert all(e.data.text[0].isupper() for e in captions)
