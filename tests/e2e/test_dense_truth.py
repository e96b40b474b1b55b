"""The embedded dense captioner on a video with known cuts: its starts and ends follow them; the twins' do not."""

import numpy as np
import pytest

from onlooker.operators.caption.dense_node import DenseCaptioner
from onlooker.operators.caption.metrics.detections import interval_iou
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.packets import Tokens
from onlooker.pipeline.assemble import make_plan, runner_factory, source_spec
from onlooker.pipeline.session import Session
from onlooker.pipeline.sinks.base import Sink


class Seen(Sink):
    ports = ("tokens",)

    def __init__(self):
        self.tokens = []

    def open(self):
        pass

    def packets(self, port, packets):
        self.tokens += packets

    def close(self):
        pass


@pytest.fixture(scope="module")
def watched(demo):
    """What the graph `dense` said about the video, what its tower saw, and the true intervals."""
    video, truth = demo
    seen = Seen()
    session = Session(make_plan("dense").graph, runner_factory("local"), [source_spec(str(video))], [seen])
    captions = [event.data for event in session.events() if event.kind == "caption" and event.data.phase == "end"]
    return captions, seen.tokens, np.array([(scene.t_start, scene.t_end) for scene in truth.scenes])


def found(captions, truth):
    """Share of the scenes that a caption's interval meets with an IoU of .7 or more."""
    told = np.array([(caption.t_start, caption.t_end) for caption in captions]).reshape(-1, 2)
    return float((interval_iou(told, truth).max(0) >= 0.7).mean())


def watch(frames):
    """The memory and the captioner of the graph over frames, in the order given, a second each."""
    nodes = {node.name: node.config for node in make_plan("dense").graph.nodes}
    memory, captioner = ClusteringMemory(nodes["memory"]), DenseCaptioner(nodes["caption"])
    memory.open(Context())
    captioner.open(Context())
    packets = [Tokens("s", 0, float(second), frame.grid, frame.cls) for second, frame in enumerate(frames)]
    end = float(len(packets))
    kept, made = memory.process(memory.initial_state("s"), Inputs({"tokens": packets}, end - 1, end - 1))
    state, told = captioner.process(captioner.initial_state("s"), Inputs(made.packets, end - 1, end - 1))
    _, last = captioner.flush(state, end)
    events = [*told.packets.get("events", []), *last.packets.get("events", [])]
    return [event.data for packet in events for event in packet.events if event.data.phase == "end"]


def test_every_scene_is_told(watched):
    captions, _, truth = watched
    assert len(truth) - 1 <= len(captions) <= 3 * len(truth)
    assert all(caption.text and 0 <= caption.t_start <= caption.t_end <= truth[-1, 1] for caption in captions)


def test_starts_and_ends_follow_the_cuts(watched):
    captions, tokens, truth = watched
    rng = np.random.default_rng(0)
    shuffled = [found(watch([tokens[i] for i in rng.permutation(len(tokens))]), truth) for _ in range(3)]
    assert found(captions, truth) >= 0.6 and found(watch(tokens), truth) >= 0.6
    assert np.mean(shuffled) <= 0.3
