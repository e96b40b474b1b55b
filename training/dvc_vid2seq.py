"""The Vid2Seq variant of the dense captioner, trained from nothing on videos of captioned photographs.

Targets, loss and schedule are those of the released Vid2Seq configurations of Zhou et al., "Streaming Dense Video
Captioning" (CVPR 2024): earlier captions without times are the prefix, all tokens count alike, the gradient is clipped
and the learning rate falls along a cosine. The T5 is a small one with words of our own, since the published one is as
large as the data here is small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from onlooker.operators.caption.dense_config import SearchConfig
from onlooker.operators.caption.vid2seq.config import Vid2SeqConfig
from onlooker.operators.caption.vid2seq.load import save_vid2seq
from onlooker.operators.caption.vid2seq.model import Vid2Seq
from onlooker.operators.caption.wordpiece import WordPiece
from onlooker.training.captioner import own_captioner
from onlooker.training.captions import Split
from onlooker.training.dvc import DvcRecipe, DvcTrainer
from onlooker.training.dvc_loss import CaptionLoss, CaptionLossOptions
from onlooker.training.dvc_scenes import SceneRecipe, SceneVideos
from onlooker.training.dvc_targets import TargetOptions
from onlooker.training.schedules import LearningRate


@dataclasses.dataclass(frozen=True)
class Vid2SeqRecipe:
    """Everything that decides the weights, beside the data.

    Attributes:
        start: captioner, a name or folder, whose vocabulary is used.
        points: P, decoding points of a video.
        max_length: L of a row: the events of a point, and those told before.
        rate: learning rate after warm-up, which takes a tenth of the steps; it falls along half a cosine.
        width: D of the model; attention heads are 64 wide.
        layers: of the visual encoder, of the encoder of earlier captions and of the decoder each.
        scenes: how videos are drawn. There are as many time bins as a video has frames.
    """

    seed: int = 0
    start: str = "tiny"
    steps: int = 2000
    videos: int = 4
    points: int = 4
    max_length: int = 96
    rate: float = 1e-3
    width: int = 256
    layers: int = 3
    dropout: float = 0.1
    scenes: SceneRecipe = dataclasses.field(default_factory=SceneRecipe)


def new_vid2seq(vocabulary: WordPiece, feature_width: int, recipe: Vid2SeqRecipe) -> Vid2Seq:
    """A model with random weights; rows of time tokens follow the words."""
    torch.manual_seed(recipe.seed)
    heads = max(1, recipe.width // 64)
    return Vid2Seq(
        Vid2SeqConfig(
            vocab_size=len(vocabulary) + recipe.scenes.frames,
            num_bins=recipe.scenes.frames,
            num_frames=recipe.scenes.frames,
            width=recipe.width,
            feature_width=feature_width,
            num_heads=heads,
            head_dim=recipe.width // heads,
            ffn_size=2 * recipe.width,
            encoder_layers=recipe.layers,
            decoder_layers=recipe.layers,
            dropout=recipe.dropout,
            visual_layers=recipe.layers,
            visual_heads=heads,
            visual_ffn_size=2 * recipe.width,
            end_token=vocabulary.end,
            max_length=recipe.max_length,
            train_points=recipe.points,
            test_points=recipe.points,
            search=SearchConfig(beam=3),
        )
    )


def train_vid2seq(
    data: Path,
    cache: Path,
    out: Path,
    recipe: Vid2SeqRecipe | None = None,
    report: Callable[[int, CaptionLoss], None] | None = None,
) -> Vid2Seq:
    """Train a Vid2Seq model and write the folder that `vid2seq.load.load_vid2seq` reads, its words beside it.

    Args:
        data: the data folder (see `onlooker.training.flickr`).
        cache: a token cache that is filled (see `onlooker.training.features`).
        out: folder for weights, vocabulary and config.
        recipe: what decides the weights.
        report: is told the number and the loss of every step.

    Raises:
        ValueError: the captioner whose words are used is not one of ours.
    """
    recipe = recipe or Vid2SeqRecipe()
    vocabulary = own_captioner(recipe.start).vocabulary
    split = Split.open(data, cache, None, "train")
    model = new_vid2seq(vocabulary, split.tokens.shape[-1], recipe)
    training = DvcRecipe(
        seed=recipe.seed,
        steps=recipe.steps,
        videos=recipe.videos,
        rate=LearningRate(recipe.rate, recipe.steps // 10, cosine_steps=recipe.steps),
        clip=1.0,
        targets=TargetOptions(num_dense_outputs=recipe.points),
        loss=CaptionLossOptions(time_weight=None),
    )
    DvcTrainer(model, training).run(SceneVideos(split, vocabulary, recipe.scenes), report)
    save_vid2seq(out, model.eval(), vocabulary.pieces, torch.float16)
    return model
