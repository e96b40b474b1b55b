"""The dense captioner `tiny`: the embedded caption decoder learns time tokens on videos of captioned photographs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.caption.captioner import Captioner
from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import DenseConfig, MemoryConfig, SearchConfig
from onlooker.operators.caption.dense_load import save_video_captioner
from onlooker.training.averages import follow
from onlooker.training.captioner import own_captioner
from onlooker.training.captions import Split
from onlooker.training.dvc import DvcRecipe, DvcTrainer
from onlooker.training.dvc_loss import CaptionLoss, CaptionLossOptions
from onlooker.training.dvc_scenes import SceneRecipe, SceneVideos
from onlooker.training.dvc_targets import TargetOptions
from onlooker.training.schedules import LearningRate


@dataclasses.dataclass(frozen=True)
class DenseTinyRecipe:
    """Everything that decides the weights, beside the data.

    Attributes:
        start: captioner to start from, a name or folder.
        points: P, decoding points of a video.
        max_length: L of a row: the events of a point, and those told before.
        rate: learning rate after warm-up; it falls along half a cosine.
        time_weight: of the mean loss of time tokens beside that of words.
        average: weights that are kept are a running mean of those that are trained; this share of it stays per step.
        spans: memory tokens tell when they were seen.
        scenes: how videos are drawn. There are as many time bins as a video has frames.
    """

    seed: int = 0
    start: str = "tiny"
    steps: int = 2500
    videos: int = 4
    points: int = 4
    max_length: int = 96
    rate: float = 3e-4
    warmup_steps: int = 100
    time_weight: float = 1.0
    average: float = 0.995
    spans: bool = True
    memory: MemoryConfig = dataclasses.field(default_factory=lambda: MemoryConfig(size=98))
    scenes: SceneRecipe = dataclasses.field(default_factory=lambda: SceneRecipe(cut_share=0.8))


def dense_from_captioner(captioner: Captioner, recipe: DenseTinyRecipe) -> DenseCaptioner:
    """A dense model with the captioner's weights; what it needs for time tokens, spans and later positions is new."""
    bins = recipe.scenes.frames
    own = captioner.decoder.config
    spans = 2 * bins if recipe.spans else 0
    decoder = dataclasses.replace(
        own,
        vocab_size=own.vocab_size + bins,
        visual_width=own.visual_width + spans,
        max_positions=max(own.max_positions, recipe.max_length),
    )
    model = DenseCaptioner(
        DenseConfig(
            encoder=None,
            decoder=decoder,
            memory=recipe.memory,
            search=SearchConfig(beam=3),
            spans=recipe.spans,
            num_bins=bins,
            max_length=recipe.max_length,
            train_points=recipe.points,
            test_points=recipe.points,
        )
    )
    state = dict(captioner.decoder.state_dict())
    # A span then weighs less than half as much as the look of a token.
    columns = 0.2 * torch.randn(own.hidden_size, spans, generator=torch.Generator().manual_seed(recipe.seed + 2))
    state["visual_projection.weight"] = torch.cat([state["visual_projection.weight"], columns], 1)
    state["words.weight"] = _add_times(state["words.weight"], bins, recipe.seed)
    state["positions.weight"] = _grow_rows(
        state["positions.weight"], decoder.max_positions - own.max_positions, recipe.seed
    )
    state["output.bias"] = torch.cat([state["output.bias"], state["output.bias"].new_zeros(bins)])
    state["output.weight"] = (
        state["words.weight"] if own.tie_word_embeddings else _add_times(state["output.weight"], bins, recipe.seed + 1)
    )
    model.decoder.load_state_dict(state)
    return model


def train_dense_tiny(
    data: Path,
    cache: Path,
    out: Path,
    recipe: DenseTinyRecipe | None = None,
    report: Callable[[int, CaptionLoss], None] | None = None,
) -> DenseCaptioner:
    """Train a dense captioner and write the folder that the node `dense_captioner` reads.

    Args:
        data: the data folder (see `onlooker.training.flickr`).
        cache: a token cache that is filled (see `onlooker.training.features`).
        out: folder for weights, vocabulary and config.
        recipe: what decides the weights.
        report: is told the number and the loss of every step.

    Raises:
        ValueError: the captioner to start from is not one of ours.
    """
    recipe = recipe or DenseTinyRecipe()
    captioner = own_captioner(recipe.start)
    model = dense_from_captioner(captioner, recipe)
    videos = SceneVideos(Split.open(data, cache, None, "train"), captioner.vocabulary, recipe.scenes)
    average = train_on_scenes(model, videos, recipe, report)
    save_video_captioner(out, average, captioner.vocabulary.pieces, torch.float16)
    return average


def train_on_scenes(
    model: DenseCaptioner,
    videos: SceneVideos,
    recipe: DenseTinyRecipe,
    report: Callable[[int, CaptionLoss], None] | None = None,
) -> DenseCaptioner:
    """Train `model` as the recipe says; returns the running average of its weights, in eval mode."""
    training = DvcRecipe(
        seed=recipe.seed,
        steps=recipe.steps,
        videos=recipe.videos,
        rate=LearningRate(recipe.rate, recipe.warmup_steps, cosine_steps=recipe.steps),
        clip=1.0,
        targets=TargetOptions(num_dense_outputs=recipe.points),
        loss=CaptionLossOptions(label_smoothing=0.1, time_weight=recipe.time_weight),
    )
    average = copy.deepcopy(model).eval()

    def told(step: int, loss: CaptionLoss) -> None:
        follow(average, model, recipe.average, step)
        if report is not None:
            report(step, loss)

    DvcTrainer(model, training).run(videos, told)
    return average


def _add_times(rows: Tensor, bins: int, seed: int) -> Tensor:
    """Rows (V, H) of words and `bins` more for the time tokens; neighbours are alike, as the times they stand for."""
    reach, kernel_width = 6, 2.0
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows.shape[1], 1, bins + 2 * reach, generator=generator)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / kernel_width) ** 2)
    smooth = F.conv1d(noise, kernel[None, None])[:, 0].T  # bins, H
    return torch.cat([rows, (smooth * (rows.std() / smooth.std())).to(rows.dtype)])


def _grow_rows(rows: Tensor, count: int, seed: int = 0) -> Tensor:
    """Rows (V, H) and `count` more that are drawn with the same spread: tokens the model has to learn."""
    generator = torch.Generator().manual_seed(seed)
    new = torch.randn(count, *rows.shape[1:], generator=generator) * rows.std()
    return torch.cat([rows, new.to(rows.dtype)])
