"""The live form of dense captioning: the paper's decoding while a memory lives, phases of events beyond."""

import math

import numpy as np
import pytest
import torch

from onlooker.operators.caption.contexts import StreamingOptions
from onlooker.operators.caption.dense_config import SearchConfig
from onlooker.operators.caption.dense_events import caption_text, parse_events, wordpiece_text
from onlooker.operators.caption.dense_load import save_video_captioner
from onlooker.operators.caption.dense_node import DenseCaptioner
from onlooker.operators.caption.live import LiveCaptions, LiveContext
from onlooker.operators.caption.time_tokens import TimeTokens
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.packets import Tokens

from .dense_parts import dense, paragraph
from .trained_dense import BEGIN, END, FRAMES, LENGTH, PIECES, SCENES, SIZE, WORDS, frames_of, one, trained

POINTS = 3


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "dense"
    save_video_captioner(path, model, PIECES)
    return path


def frames(count, seed=0):
    """(count, N, D) float32 of scenes of four frames."""
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, SCENES, count // 4 + 1).repeat(4)[:count]
    return frames_of(scenes, rng).numpy()


def run(folder, tokens, horizon, interval, t_end=None, fps=1.0, chunk=None, times=True, **config):
    """The events of a stream, and the state after its last frame."""
    memory = ClusteringMemory(ClusteringMemory.Config(size=SIZE, horizon=horizon, times=times))
    node = DenseCaptioner(DenseCaptioner.Config(model=str(folder), interval=interval, **config))
    for operator in (memory, node):
        operator.open(Context())
    kept, state, events = memory.initial_state("cam"), node.initial_state("cam"), []
    packets = [Tokens("cam", 0, 5.0 + i / fps, frame) for i, frame in enumerate(tokens)]
    size = chunk or len(packets)
    last = -math.inf
    for start in range(0, len(packets), size):
        part = packets[start : start + size]
        kept, made = memory.process(kept, Inputs({"tokens": part}, part[-1].t, part[-1].t))
        mark = made.watermarks.get("memory", part[-1].t)
        state, told = node.process(state, Inputs({"memory": made.packets.get("memory", [])}, mark, part[-1].t))
        for packet in told.packets.get("events", []):
            assert packet.t > last, "an event behind its watermark"
            last = packet.t
            events += packet.events
        last = max(last, told.watermarks.get("events", last))
    t_end = 5.0 + len(packets) / fps if t_end is None else t_end
    kept, made = memory.flush(kept, t_end)
    if made.packets:
        state, told = node.process(state, Inputs({"memory": made.packets["memory"]}, t_end, t_end))
        events += [event for packet in told.packets.get("events", []) for event in packet.events]
    state, told = node.flush(state, t_end)
    return events + [event for packet in told.packets.get("events", []) for event in packet.events], state


def final(events):
    ended = [e.data for e in events if e.data.phase == "end"]
    return [(round(data.t_start, 6), round(data.t_end, 6), data.text) for data in ended]


def reference(model, tokens, search=None, fps=1.0):
    """What the paper's decoding of the whole video says, with the rules of the live form about broken events."""
    row = model.decode_tokens(torch.from_numpy(tokens)[None], search).tokens[0, 1:].tolist()
    duration = round(len(tokens) / fps * 1e6)
    expected = []
    for event in parse_events(row, model.config.times, duration, strict=False):
        words = [t for t in event.tokens if t not in (0, BEGIN, END)]
        text = caption_text(words, lambda ids: wordpiece_text(ids, PIECES), ())
        if text and min(event.start_bin, event.end_bin) >= 0:
            start, end = sorted((event.start_us, event.end_us))
            expected.append((round(5.0 + start / 1e6, 6), round(5.0 + end / 1e6, 6), text))
    return expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fps", [1.0, 3.0])
@pytest.mark.parametrize("beam", [1, 2])
def test_a_stream_no_longer_than_the_horizon_is_decoded_as_in_the_paper(folder, model, seed, fps, beam):
    tokens = one(np.random.default_rng(seed))[0].tokens.numpy()
    expected = reference(model, tokens, SearchConfig("greedy" if beam == 1 else "beam", beam), fps)
    events, _ = run(
        folder, tokens, horizon=FRAMES / fps, interval=FRAMES / POINTS / fps, fps=fps, chunk=1 + seed, beam=beam
    )
    assert len(expected) > 1
    assert final(events) == expected


def test_a_model_without_spans_is_decoded_as_in_the_paper(tmp_path):
    model = trained(steps=20, spans=False)
    save_video_captioner(tmp_path / "plain", model, PIECES)
    tokens = one(np.random.default_rng(0))[0].tokens.numpy()
    for times in (False, True):
        events, _ = run(tmp_path / "plain", tokens, horizon=FRAMES, interval=FRAMES / POINTS, times=times)
        assert final(events) == reference(model, tokens)


def test_a_model_with_spans_needs_a_memory_with_times(folder):
    tokens = one(np.random.default_rng(0))[0].tokens.numpy()
    with pytest.raises(OnlookerError, match="times: true"):
        run(folder, tokens, horizon=FRAMES, interval=4.0, times=False)


def test_with_a_shorter_memory_the_decoding_is_another(folder, model):
    """The twin: the equality above does not hold for anything that runs."""
    tokens = [one(np.random.default_rng(seed))[0].tokens.numpy() for seed in range(4)]
    assert any(final(run(folder, t, horizon=6.0, interval=4.0)[0]) != reference(model, t) for t in tokens)


def test_what_is_told_is_true(folder):
    """In the middle of an event its scene is seen; the twin, with the scenes shuffled in time, is mostly wrong."""

    def right(shuffled):
        found = []
        for seed in range(20):
            rng = np.random.default_rng(100 + seed)
            video, truth = one(rng)
            tokens = video.tokens.numpy()
            if shuffled:
                tokens = tokens[rng.permutation(len(tokens))]
            events, _ = run(folder, tokens, horizon=FRAMES, interval=FRAMES / POINTS)
            for start, end, text in final(events):
                middle = (start + end) / 2 - 5.0
                shown = {scene for first, last, scene in truth if first <= middle < last}
                found.append(any(text == f"scene{scene}" for scene in shown))
        return np.mean(found)

    assert right(shuffled=False) > 1.4 * right(shuffled=True)


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_do_not_matter(folder, chunk):
    tokens = frames(40)
    whole, _ = run(folder, tokens, horizon=8.0, interval=3.0)
    parts, _ = run(folder, tokens, horizon=8.0, interval=3.0, chunk=chunk)
    assert [event.model_dump() for event in parts] == [event.model_dump() for event in whole]


def test_events_of_a_long_stream_begin_once_and_end_once(folder):
    horizon, interval = 8.0, 2.0
    events, state = run(folder, frames(60), horizon=horizon, interval=interval)
    stories = {}
    for event in events:
        stories.setdefault(event.data.event_id, []).append(event.data)
    assert len(stories) > 5
    for story in stories.values():
        assert [data.rev for data in story] == list(range(len(story)))
        assert [data.phase for data in story] == ["new", *["update"] * (len(story) - 2), "end"]
        assert all(5.0 <= data.t_start <= data.t_end <= data.t_seen + 1e-6 for data in story)
    ended = [e.data for e in events if e.data.phase == "end" and e.data.t_seen < 65.0]
    assert ended, "nothing became final while the stream ran"
    # What is final by a point ended before the start of the memory that is decoded there.
    assert all(data.t_end <= data.t_seen - horizon / 2 + interval for data in ended)
    assert not state.context.told and state.context.row is None


def test_no_more_events_are_open_than_a_context_holds(folder):
    events, _ = run(folder, frames(120), horizon=8.0, interval=2.0)
    open_now, most = set(), 0
    for event in events:
        (open_now.discard if event.data.phase == "end" else open_now.add)(event.data.event_id)
        most = max(most, len(open_now))
    assert 0 < most <= LENGTH // 3


def test_a_short_stream_and_a_late_end(folder):
    events, _ = run(folder, frames(1), horizon=8.0, interval=2.0)
    assert {e.data.phase for e in events} <= {"new", "end"}
    late, _ = run(folder, frames(7), horizon=8.0, interval=2.0, t_end=100.0)
    assert all(event.data.t_end <= 100.0 for event in late)


def test_an_interval_that_hardly_moves_is_not_told_again(folder):
    often, _ = run(folder, frames(40), horizon=20.0, interval=2.0, revise=0.0)
    seldom, _ = run(folder, frames(40), horizon=20.0, interval=2.0, revise=100.0)
    updates = [sum(event.data.phase == "update" for event in events) for events in (often, seldom)]
    assert updates[0] > updates[1]
    assert final(often) == final(seldom)


def test_a_model_without_live_form_is_refused(tmp_path):
    copies = dense(context=StreamingOptions(copy_context=True))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    save_video_captioner(tmp_path / "copies", copies, pieces)
    save_video_captioner(tmp_path / "paragraph", paragraph(), pieces)
    wrong = {str(tmp_path / "copies"): "copy_context", str(tmp_path / "paragraph"): "one text"}
    for name, reason in [*wrong.items(), (str(tmp_path / "missing"), "no dense captioner")]:
        node = DenseCaptioner(DenseCaptioner.Config(model=name))
        with pytest.raises(OnlookerError, match=reason):
            node.open(Context())


class TestContext:
    """The context alone, with rows written by hand."""

    def captions(self, **options):
        return LiveCaptions(
            TimeTokens(WORDS, 8), LENGTH, BEGIN, END, lambda ids: wordpiece_text(ids, PIECES), **options
        )

    @staticmethod
    def row(*tokens):
        return torch.tensor([[BEGIN, *tokens, END] + [0] * (LENGTH - 2 - len(tokens))])

    def test_what_ended_before_the_new_start_is_final_and_the_rest_moves(self):
        live, context = self.captions(), LiveContext()
        assert live.advance(context, 0, 7_000_000) == []
        told = live.add(context, self.row(WORDS + 0, WORDS + 2, 4, WORDS + 4, WORDS + 7, 5))
        assert [(t.phase, t.caption.start_us, t.caption.end_us, t.caption.text) for t in told] == [
            ("new", 0, 2_000_000, "scene0"),
            ("new", 4_000_000, 7_000_000, "scene1"),
        ]
        told = live.advance(context, 3_000_000, 10_000_000)
        assert [(t.phase, t.caption.text, t.caption.rev) for t in told] == [("end", "scene0", 1)]
        assert context.row.tolist() == self.row(WORDS + 1, WORDS + 4, 5).tolist()
        assert live.prefix(context).tolist() == self.row(5).tolist()
        told = live.finish(context)
        assert [(t.phase, t.caption.number, t.caption.start_us, t.caption.end_us) for t in told] == [
            ("end", 1, 4_000_000, 7_000_000)
        ]

    def test_times_from_an_older_memory_stay(self):
        """The twin is the row that the model reads: there the start is cut off, and every point moves the end."""
        live, context = self.captions(revise_us=0), LiveContext()
        live.advance(context, 0, 7_000_000)
        live.add(context, self.row(WORDS + 2, WORDS + 7, 4))
        for point in (10, 13, 17, 23):
            assert live.advance(context, 3_000_000, point * 1_000_000) == []
            assert live.add(context, self.row()) == []
        moved = live.read(context.row, context.origin_us, context.age_us)[0]
        assert moved.start_us == 3_000_000 and moved.end_us < 6_000_000
        (told,) = live.finish(context)
        assert (told.caption.start_us, told.caption.end_us) == (2_000_000, 7_000_000)

    def test_words_before_a_time_go_on_with_the_last_caption(self):
        live, context = self.captions(), LiveContext()
        live.advance(context, 0, 7_000_000)
        live.add(context, self.row(WORDS, WORDS + 7, 4))
        live.advance(context, 0, 14_000_000)
        told = live.add(context, self.row(6))
        assert [(t.phase, t.caption.text, t.caption.rev) for t in told] == [("update", "scene0 scene2", 1)]

    def test_what_is_too_short_is_context_alone(self):
        live, context = self.captions(shortest_us=1_500_000), LiveContext()
        live.advance(context, 0, 7_000_000)
        told = live.add(context, self.row(WORDS + 2, WORDS + 3, 4, WORDS + 3, WORDS + 5, 5, WORDS + 6, WORDS + 6, 6))
        assert [t.caption.text for t in told] == ["scene1"]
        assert live.prefix(context).tolist() == self.row(4, 5, 6).tolist()
        assert [t.caption.text for t in live.finish(context)] == ["scene1"]

    def test_an_empty_output_tells_nothing(self):
        live, context = self.captions(), LiveContext()
        live.advance(context, 0, 7_000_000)
        assert live.add(context, self.row()) == []
        assert live.finish(context) == []

    def test_the_model_sees_times_if_it_was_trained_so(self):
        live, context = self.captions(with_times=True), LiveContext()
        live.advance(context, 0, 7_000_000)
        live.add(context, self.row(WORDS, WORDS + 7, 4))
        live.advance(context, 0, 14_000_000)
        assert live.prefix(context).tolist() == self.row(WORDS, WORDS + 3, 4).tolist()
