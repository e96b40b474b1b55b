"""Small dense and paragraph captioners with far from tame random weights."""

import torch

from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import (
    DenseConfig,
    FrameEncoderConfig,
    MemoryConfig,
    ParagraphConfig,
    SearchConfig,
)
from onlooker.operators.caption.git import GitConfig
from onlooker.operators.caption.paragraph import ParagraphCaptioner
from onlooker.operators.tower.vit import VitConfig

FRAMES, BINS, WORDS, LENGTH, WIDTH = 8, 8, 20, 12, 16
BEGIN, END = 2, 3
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{index}" for index in range(4, WORDS))]


def vision(**options):
    small = {"image_size": 28, "width": WIDTH, "num_layers": 2, "num_heads": 2, "drop_path": 0.0}
    return VitConfig(**(small | options))


def decoder(vocabulary=WORDS + BINS, width=WIDTH):
    return GitConfig(
        vocab_size=vocabulary, visual_width=width, hidden_size=16, num_heads=2, num_layers=2, ffn_size=64,
        max_positions=16, dropout=0.0, attention_dropout=0.0, begin_token=BEGIN, end_token=END,
    )  # fmt: skip


def dense_config(memory=None, encoder=None, **options):
    return DenseConfig(
        encoder=FrameEncoderConfig(vision(), FRAMES, **(encoder or {})),
        decoder=decoder(),
        memory=MemoryConfig(**({"size": 10} | (memory or {}))),
        **({"num_bins": BINS, "max_length": LENGTH, "train_points": 4, "test_points": 2} | options),
    )


def paragraph_config(memory=None, **options):
    encoder = FrameEncoderConfig(vision(**options.pop("vision", {})), FRAMES, temporal_embedding=True)
    return ParagraphConfig(
        encoder, decoder(WORDS), MemoryConfig(**({"size": 10} | (memory or {}))), SearchConfig(beam=2), LENGTH
    )


def wild(model, seed):
    """The model with weights that make it say something else about every video."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.6, generator=generator)
        else:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def dense(seed=5, **options):
    return wild(DenseCaptioner(dense_config(**options)), seed)


def paragraph(seed=5, **options):
    return wild(ParagraphCaptioner(paragraph_config(**options)), seed)


def videos(count=2, seed=0):
    """(count, FRAMES, 28, 28, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, FRAMES, 28, 28, 3), dtype=torch.uint8, generator=generator)


def targets(count=2, points=4, seed=0):
    """(count, points, LENGTH) int64 rows: begin, two times, words, end."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, points, LENGTH, dtype=torch.int64)
    rows[..., 0] = BEGIN
    rows[..., 1:3] = torch.randint(WORDS, WORDS + BINS, (count, points, 2), generator=generator)
    rows[..., 3:7] = torch.randint(4, WORDS, (count, points, 4), generator=generator)
    rows[..., 7] = END
    return rows
