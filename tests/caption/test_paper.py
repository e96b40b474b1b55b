"""The paper's form of dense captioning: all frames of a file, decoded at its points, told once."""

import numpy as np
import pytest
import torch

from onlooker.operators.caption.dense_events import caption_text, parse_events, wordpiece_text
from onlooker.operators.caption.dense_load import save_video_captioner
from onlooker.operators.caption.paper_node import PaperCaptioner
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.packets import Tokens

from .dense_parts import paragraph
from .trained_dense import BEGIN, END, FRAMES, PIECES, one, trained

LONG = 90.0
"""Seconds of the file that the frames are spread over."""


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("paper") / "dense"
    save_video_captioner(path, model, PIECES)
    return path


def video(seed):
    return one(np.random.default_rng(seed))[0].tokens.numpy()


def told(folder, tokens, chunk=100, **config):
    node = PaperCaptioner(PaperCaptioner.Config(model=str(folder), **config))
    node.open(Context())
    state = node.initial_state("film")
    packets = [Tokens("film", 0, i * LONG / (len(tokens) - 1), frame) for i, frame in enumerate(tokens)]
    for start in range(0, len(packets), chunk):
        part = packets[start : start + chunk]
        state, out = node.process(state, Inputs({"tokens": part}, part[-1].t, part[-1].t))
        assert not out.packets
    state, out = node.flush(state, LONG)
    assert not state.frames
    return [event.data for packet in out.packets.get("events", []) for event in packet.events]


def reference(model, tokens):
    row = model.decode_tokens(torch.from_numpy(tokens)[None]).tokens[0, 1:].tolist()
    found = []
    for event in parse_events(row, model.config.times, round(LONG * 1e6), strict=False):
        words = [t for t in event.tokens if t not in (0, BEGIN, END)]
        start, end = sorted((event.start_us / 1e6, event.end_us / 1e6))
        found.append((start, end, caption_text(words, lambda ids: wordpiece_text(ids, PIECES), ())))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_a_file_is_decoded_as_the_model_does_it(folder, model, seed, chunk):
    events = told(folder, video(seed), chunk)
    assert len(events) > 1
    assert [(e.t_start, e.t_end, e.text) for e in events] == reference(model, video(seed))
    assert {(e.phase, e.rev) for e in events} == {("end", 0)}
    assert len({e.event_id for e in events}) == len(events)
    assert max(e.t_end for e in events) <= LONG


def test_another_order_of_frames_or_number_of_points_gives_something_else(folder, model):
    expected = [reference(model, video(seed)) for seed in range(4)]
    backwards = [told(folder, video(seed)[::-1]) for seed in range(4)]
    one_point = [told(folder, video(seed), points=1) for seed in range(4)]
    for other in (backwards, one_point):
        assert [[(e.t_start, e.t_end, e.text) for e in events] for events in other] != expected


def test_fewer_frames_than_points(folder):
    assert told(folder, video(0)[:2], points=FRAMES) is not None


def test_what_cannot_be_done_is_said(folder, tmp_path):
    with pytest.raises(OnlookerError, match="at most 5.*decode.frames"):
        told(folder, video(0), most=5)
    with pytest.raises(OnlookerError, match="no dense captioner 'tny'"):
        PaperCaptioner(PaperCaptioner.Config(model="tny")).open(Context())
    save_video_captioner(tmp_path / "text", paragraph(), ["a"])
    with pytest.raises(OnlookerError, match="one text about a whole video"):
        PaperCaptioner(PaperCaptioner.Config(model=str(tmp_path / "text"))).open(Context())


def test_no_frame_no_event(folder):
    node = PaperCaptioner(PaperCaptioner.Config(model=str(folder)))
    node.open(Context())
    assert not node.flush(node.initial_state("film"), 3.0)[1].packets
