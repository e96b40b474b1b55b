"""A small dense captioner that was really trained: scenes are noisy vectors, their captions name them."""

import numpy as np
import torch

from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import DenseConfig, MemoryConfig, SearchConfig
from onlooker.operators.caption.git import GitConfig
from onlooker.training.dvc import DvcRecipe, DvcTrainer, TokenVideo
from onlooker.training.dvc_loss import CaptionLossOptions
from onlooker.training.dvc_targets import AnnotatedVideo, TargetOptions
from onlooker.training.schedules import LearningRate

FRAMES = BINS = 12
SCENES, PER_FRAME, SIZE, WIDTH, LENGTH = 6, 2, 12, 24, 24
BEGIN, END, FIRST_WORD = 2, 3, 4
WORDS = FIRST_WORD + SCENES
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"scene{index}" for index in range(SCENES))]
PROTOTYPES = np.random.default_rng(0).normal(size=(SCENES, PER_FRAME, WIDTH)).astype(np.float32)


def frames_of(scenes, rng):
    """(T, PER_FRAME, WIDTH) float32 of a scene number per frame; nothing in them tells the time."""
    tokens = PROTOTYPES[scenes] + 0.1 * rng.normal(size=(len(scenes), PER_FRAME, WIDTH)).astype(np.float32)
    return torch.from_numpy(tokens)


def draw(rng, count, frames=FRAMES):
    """Videos of two or three scenes one after the other, at a frame a second."""
    return [one(rng, frames)[0] for _ in range(count)]


def one(rng, frames=FRAMES):
    """A video and its (start, end, scene), seconds."""
    inner = np.sort(rng.choice(np.arange(2, frames - 1), int(rng.integers(1, 3)), replace=False))
    borders = [0, *inner.tolist(), frames]
    names = rng.choice(SCENES, len(borders) - 1, replace=False)
    scenes = np.repeat(names, np.diff(borders))
    start, end = np.array(borders[:-1]) * 1_000_000, np.array(borders[1:]) * 1_000_000
    events = AnnotatedVideo(start, end, frames * 1_000_000, [[FIRST_WORD + int(name)] for name in names])
    return TokenVideo(frames_of(scenes, rng), events), list(zip(borders[:-1], borders[1:], names.tolist(), strict=True))


def trained(steps=200, points=3, spans=True):
    """The captioner after a few seconds of training."""
    torch.manual_seed(0)
    width = WIDTH + (2 * BINS if spans else 0)
    decoder = GitConfig(
        vocab_size=WORDS + BINS, visual_width=width, hidden_size=64, num_heads=4, num_layers=2, ffn_size=128,
        max_positions=LENGTH, dropout=0.0, attention_dropout=0.0, begin_token=BEGIN, end_token=END,
    )  # fmt: skip
    config = DenseConfig(
        encoder=None, decoder=decoder, memory=MemoryConfig(size=SIZE), search=SearchConfig(beam=2), num_bins=BINS,
        max_length=LENGTH, train_points=points, test_points=points, spans=spans,
    )  # fmt: skip
    model = DenseCaptioner(config)
    recipe = DvcRecipe(
        steps=steps,
        videos=16,
        rate=LearningRate(2e-3, warmup_steps=20, decay_events=(steps * 3 // 4,), decay_factors=(0.2,)),
        clip=1.0,
        targets=TargetOptions(num_dense_outputs=points),
        loss=CaptionLossOptions(label_smoothing=0.0),
    )
    DvcTrainer(model, recipe).run(draw)
    return model.eval()
