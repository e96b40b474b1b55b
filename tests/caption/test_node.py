"""The caption node: which memory is captioned when, and which span its caption covers."""

import numpy as np
import pytest

from onlooker.operators.caption.node import GitCaptioner, GitCaptionerConfig
from onlooker.operators.contract import Context, Control, Inputs
from onlooker.operators.packets import Embedding, Memory
from onlooker.operators.tower import load_tower
from onlooker.training.captioner import save_captioner
from tests.towers import save_tower

from .conftest import SENTENCES, SIZE, memory_of


@pytest.fixture(scope="session")
def folder(captioner, tmp_path_factory):
    path = tmp_path_factory.mktemp("captioner") / "small"
    save_captioner(path, captioner)
    return path


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    path = tmp_path_factory.mktemp("tower")
    save_tower(path, "vit")
    return f"local-dir:{path}"


def make(folder, **config):
    node = GitCaptioner(GitCaptionerConfig(model=str(folder), **config))
    node.open(Context())
    return node


def memory(t, scene=0, stream="cam"):
    return Memory(stream, 0, t, memory_of(scene).numpy(), np.ones(SIZE, np.int32), 0.0, SIZE)


def run(node, packets, t_end, chunk=None):
    state, events, watermarks = node.initial_state("cam"), [], []
    size = chunk or len(packets)
    for start in range(0, len(packets), size):
        part = packets[start : start + size]
        state, outputs = node.process(state, Inputs({"memory": part}, watermark=part[-1].t, now=part[-1].t))
        events += outputs.packets.get("events", [])
        watermarks.append(outputs.watermarks["events"])
    state, outputs = node.flush(state, t_end)
    return events + outputs.packets.get("events", []), watermarks


def spans(events):
    return [(e.t_start, e.t_end) for packet in events for e in packet.events]


def texts(events):
    return [e.data.text for packet in events for e in packet.events]


def test_captions_cover_the_stream_without_gaps(folder):
    events, _ = run(make(folder), [memory(0.5 * i) for i in range(25)], 12.5)
    assert spans(events) == [(0.0, 5.0), (5.0, 10.0), (10.0, 12.5)]
    assert [packet.t for packet in events] == [5.0, 10.0, 12.5]
    assert [e.event_no for p in events for e in p.events] == [0, 1, 2]
    assert {(e.phase, e.data.rev) for p in events for e in p.events} == {("end", 0)}


def test_a_caption_is_about_the_last_memory_before_its_point(folder):
    packets = [memory(4.0, 0), memory(4.9, 1), memory(5.0, 2), memory(9.0, 0)]
    events, _ = run(make(folder), packets, 9.5)
    assert texts(events) == [text[0].upper() + text[1:] for text in (SENTENCES[1], SENTENCES[0])]


def test_points_without_a_memory_between_share_a_caption(folder):
    events, _ = run(make(folder), [memory(0.0), memory(1.0), memory(17.0)], 18.0)
    assert spans(events) == [(0.0, 15.0), (15.0, 18.0)]


def test_one_memory_gives_one_caption(folder):
    assert spans(run(make(folder), [memory(0.0)], 0.5)[0]) == [(0.0, 0.5)]


def test_a_stream_that_ends_on_a_point_has_no_empty_caption(folder):
    events, _ = run(make(folder), [memory(0.0), memory(4.5), memory(5.0)], 5.0)
    assert spans(events) == [(0.0, 5.0)]


def test_no_memory_no_caption(folder):
    node = make(folder)
    assert node.flush(node.initial_state("cam"), 3.0)[1].packets == {}


@pytest.mark.parametrize("interval", [0.1, 0.3, 2.5])
def test_points_are_multiples_whatever_their_rounding(folder, interval):
    events, _ = run(make(folder, interval=interval), [memory(i * interval) for i in range(8)], 8 * interval)
    assert [t_end for _, t_end in spans(events)] == pytest.approx([(i + 1) * interval for i in range(8)])


@pytest.mark.parametrize("chunk", [1, 3])
def test_cutting_into_calls_means_nothing(folder, chunk):
    packets = [memory(0.7 * i, i // 8 % 3) for i in range(30)]
    one, _ = run(make(folder), packets, 21.0, chunk)
    other, _ = run(make(folder), packets, 21.0)
    assert [e.to_json() for p in one for e in p.events] == [e.to_json() for p in other for e in p.events]


def test_watermarks_never_pass_an_event_to_come(folder):
    events, watermarks = run(make(folder), [memory(0.5 * i) for i in range(30)], 15.0, chunk=1)
    assert watermarks == sorted(watermarks)
    for packet in events[:-1]:
        index = int(packet.t / 0.5)  # the call that brings it
        assert watermarks[index - 1] < packet.t <= watermarks[index]


def test_streams_are_captioned_together_and_apart(folder):
    node = make(folder)
    streams = {"a": 0, "b": 1, "c": 2}
    given = [
        Inputs({"memory": [memory(4.0, scene, name), memory(11.0, scene, name)]}, 11.0, 11.0)
        for name, scene in streams.items()
    ]
    results = node.process_batch([node.initial_state(name) for name in streams], given)
    for (name, scene), (_, outputs) in zip(streams.items(), results, strict=True):
        (packet,) = outputs.packets["events"]
        assert packet.stream == name and texts([packet])[0].lower() == SENTENCES[scene]


def test_earlier_captions_are_read_first(folder):
    node = make(folder, prefix=2)
    state = node.initial_state("cam")
    packets = [memory(float(t)) for t in range(0, 21, 2)]
    state, _ = node.process(state, Inputs({"memory": packets}, 20.0, 20.0))
    assert len(state.captions) == 2


class TestAsk:
    """Questions what is there now, between and at the points."""

    def told(self, folder, asks, times=(0, 2, 4, 6, 8, 10, 12), t_end=14.0):
        """Events of a stream that is asked for something with the memory at each of some times."""
        node = make(folder)
        state, events = node.initial_state("cam"), []
        last = -1.0
        for t in map(float, times):
            control = tuple(Control("ask", {"ask": name}, lasting=False) for name in asks.get(t, ()))
            if control:  # commands come alone; the time is that of the call before
                state, outputs = node.process(state, Inputs({}, last, last, control))
                assert not outputs.packets, "nothing new has been seen"
            state, outputs = node.process(state, Inputs({"memory": [memory(t)]}, t, t))
            packets = outputs.packets.get("events", [])
            assert all(packet.t > last for packet in packets)
            assert len({packet.t for packet in packets}) == len(packets)
            events += packets
            last = t
        control = tuple(Control("ask", {"ask": name}) for name in asks.get("end", ()))
        state, outputs = node.process(state, Inputs({}, last, last, control))
        state, outputs = node.flush(state, t_end)
        assert len(outputs.packets["events"]) == 1
        return [e for packet in events + outputs.packets["events"] for e in packet.events]

    def test_the_next_memory_answers_and_the_points_stay(self, folder):
        plain = self.told(folder, {})
        told = self.told(folder, {2.0: ["a", "b"], 10.0: ["c"], "end": ["d"]})
        answers = {e.data.ask: e for e in told if e.data.ask}
        assert {name: e.t_end for name, e in answers.items()} == {"a": 2.0, "b": 2.0, "c": 10.0, "d": 14.0}
        assert len({e.id for e in told}) == len(told)
        assert [(e.t_start, e.t_end, e.data.text) for e in told if not e.data.ask] == [
            (e.t_start, e.t_end, e.data.text) for e in plain
        ]
        assert answers["a"].data.text == plain[0].data.text, "the same scene"

    def test_before_there_is_anything_to_see_it_waits(self, folder):
        assert [e.t_end for e in self.told(folder, {0.0: ["a"]}) if e.data.ask] == [0.0]


class TestCheck:
    """Captions checked by a small real tower: the frames' embeddings are the tower's own text vectors."""

    def caption(self, folder, tower, features, **config):
        """The caption of a stream whose memory holds scene 0 and whose frames have these features."""
        node = make(folder, tower=tower, **config)
        state = node.initial_state("cam")
        given = {"memory": [memory(0.0), memory(1.0)]}
        if features is not None:
            given["embedding"] = [Embedding("cam", 0, float(t), features) for t in range(2)]
        state, _ = node.process(state, Inputs(given, 1.0, 1.0))
        state, outputs = node.flush(state, 2.0)
        assert state.embeddings == []
        return texts(outputs.packets["events"])[0]

    def test_the_pictures_decide_among_what_is_proposed(self, folder, tower, captioner):
        proposed = [text for text, _ in captioner.caption(memory_of(0), beam=3)]
        assert len(proposed) > 1
        vectors = load_tower(tower).encode_texts(proposed, batch=3).numpy()
        for text, vector in zip(proposed, vectors, strict=True):
            assert self.caption(folder, tower, vector, check=1e6) == text
            assert self.caption(folder, tower, vector, check=0.0) == proposed[0]  # the twin: no weight, no say

    def test_without_embeddings_the_search_decides(self, folder, tower, captioner):
        assert self.caption(folder, tower, None, check=1e6) == captioner.caption(memory_of(0))[0][0]


class TestLooks:
    """A span of two scenes: every part of it proposes captions, the pictures decide."""

    def caption(self, folder, tower, captioner, shown, looks):
        """The caption of [0, 4): scene 1 in its first half, scene 2 in its second; frames look like scene `shown`."""
        node = make(folder, tower=tower, interval=4.0, looks=looks, check=1e6)
        proposed = captioner.caption(memory_of(shown), beam=1)[0][0]
        features = load_tower(tower).encode_texts([proposed], batch=3)[0].numpy()
        times = [0.0, 1.0, 2.0, 3.0]
        given = {
            "memory": [memory(t, 1 if t < 2 else 2) for t in times],
            "embedding": [Embedding("cam", 0, t, features) for t in times],
        }
        state, _ = node.process(node.initial_state("cam"), Inputs(given, 3.0, 3.0))
        _, outputs = node.flush(state, 4.0)
        return texts(outputs.packets["events"])[0], proposed

    @pytest.mark.parametrize("shown", [1, 2])
    def test_either_half_can_give_the_caption(self, folder, tower, captioner, shown):
        written, expected = self.caption(folder, tower, captioner, shown, looks=2)
        assert written == expected

    def test_one_look_sees_the_end_only(self, folder, tower, captioner):
        """The twin."""
        written, expected = self.caption(folder, tower, captioner, 1, looks=1)
        assert written != expected
