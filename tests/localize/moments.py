"""A small localizer with a tower of its own, and one that is always right, for tests of what is made of its scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.localize.moment_node import MomentLocalizer, MomentLocalizerConfig
from onlooker.operators.localize.unloc.config import FusionConfig, HeadConfig, UnlocConfig
from onlooker.operators.localize.unloc.heads import Scored
from onlooker.operators.localize.unloc.load import save_localizer
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.packets import Embedding
from onlooker.operators.tower import load_tower
from tests.towers import save_tower

FPS, FRAMES, LEVELS = 2.0, 16, 3
WIDTH = 40
"""E of the small towers, and d of the localizers: nothing is projected."""


def config(**changes):
    sizes = {"frames": FRAMES, "video_width": WIDTH, "text_width": WIDTH, "project_video": False, **changes}
    fusion = FusionConfig(width=WIDTH, heads=4, mlp_width=48, layers=2, levels=LEVELS)
    return UnlocConfig(fusion=fusion, head=HeadConfig(convs=1), **sizes)


def random_unloc(seed=0, unloc=None):
    """Weights large enough for scores and boundaries that differ from step to step."""
    torch.manual_seed(seed)
    model = Unloc(unloc or config())
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.25 * torch.randn_like(weights)
    return model.eval()


def save_moments(folder: Path, model=None, **settings):
    """A localizer in `folder`, with its tower beside it; returns the folder."""
    save_tower(folder / "tower", "vit")
    extra = {"fps": FPS, "hop": 4, "settle": 2.0, "on": 0.5, "off": 0.4, **settings}
    save_localizer(folder, model or random_unloc(), tower=f"local-dir:{folder / 'tower'}", extra=extra)
    return folder


class Truthful(Unloc):
    """Scores a step by whether its frame fits the text, and tells how far in the window that goes on."""

    def score(self, video, text, mask=None, text_mask=None):
        fits = torch.einsum("ptd,pd->pt", video, text) > 0.5  # P, T
        logits, boxes = [], []
        for level, length in enumerate(self.config.level_lengths):
            stride = self.config.fusion.stride**level
            at = torch.arange(length) * stride
            logits.append(torch.where(fits[:, at], 5.0 - level, -5.0))
            boxes.append(
                torch.stack([_run(fits.flip(1))[:, video.shape[1] - 1 - at] - 1, _run(fits)[:, at]], -1) / stride
            )
        return Scored(torch.cat(logits, 1), torch.cat(boxes, 1).clamp(min=0))


def _run(fits):
    """(P, T) how many frames from each one on fit without a break."""
    length, runs = torch.zeros(len(fits)), []
    for column in fits.flip(1).unbind(1):
        length = (length + 1) * column
        runs.append(length)
    return torch.stack(runs, 1).flip(1)


def localizer(folder, queries=("a dog runs past", "a red car stops"), truthful=False, **settings):
    operator = MomentLocalizer(MomentLocalizerConfig(model=str(folder), queries=list(queries), **settings))
    operator.open(Context())
    if truthful:
        operator._model.model = Truthful(config()).eval()
    return operator


def pictures(folder, texts=("a dog runs past", "a red car stops", "a house with trees", "nothing at all here")):
    """For each text the features of a frame that fits it, by a product of 1, and no other."""
    vectors = np.asarray(load_tower(f"local-dir:{folder / 'tower'}").encode_texts(list(texts)))
    return dict(zip(texts, np.linalg.pinv(vectors).T.astype(np.float32), strict=True))


def embeddings(frames, times=None, stream="s", epoch=0):
    """Packets of (E,) features, half a second apart."""
    times = [i / FPS for i in range(len(frames))] if times is None else times
    return [Embedding(stream, epoch, t, frame) for t, frame in zip(times, frames, strict=True)]


def noise(frames, seed=0):
    """(E,) features without meaning, which drift."""
    steps = np.random.default_rng(seed).normal(size=(frames, WIDTH)) * 0.5
    return list(np.cumsum(steps, axis=0).astype(np.float32))


def run(operator, packets, chunk=None, control=(), t_end=None):
    """All events with the times at which they were told, and all scores, of one stream."""
    state = operator.initial_state(packets[0].stream)
    events, scores, chunk = [], [], chunk or len(packets)
    for i in range(0, len(packets), chunk):
        part = packets[i : i + chunk]
        given = Inputs({"embedding": part}, part[-1].t, part[-1].t, control if i == 0 else ())
        state, out = operator.process(state, given)
        events += [(p.t, e) for p in out.packets.get("events", []) for e in p.events]
        scores += out.packets.get("scores", [])
        assert all(s.t <= out.watermarks["scores"] for s in scores)
    state, out = operator.flush(state, packets[-1].t + 1 / FPS if t_end is None else t_end)
    events += [(p.t, e) for p in out.packets.get("events", []) for e in p.events]
    return events, scores + out.packets.get("scores", [])


def ends(events):
    """Query, start and end of what was settled."""
    return [(e.data.query, e.t_start, e.t_end) for _, e in events if e.phase == "end"]
