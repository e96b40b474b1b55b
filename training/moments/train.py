"""Training of a localizer on annotated videos, from features of any tower; a run that was interrupted goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from onlooker.operators.errors import OnlookerError
from onlooker.operators.localize.unloc.config import FusionConfig, HeadConfig, Task, UnlocConfig
from onlooker.operators.localize.unloc.load import save_localizer
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.training.checkpoints import Checkpoint
from onlooker.training.localize_loss import LocalizeLoss
from onlooker.training.localize_trainer import LocalizeRecipe, LocalizeTrainer
from onlooker.training.schedules import LearningRate

from .windows import MomentWindows, WindowRecipe

__all__ = ["SIZES", "MomentRecipe", "new_localizer", "train_moments"]

Size = Literal["small", "base", "large"]
SIZES: dict[Size, dict[str, Any]] = {
    "small": {"width": 96, "heads": 4, "mlp_width": 192, "layers": 4},
    "base": {"width": 512, "heads": 8, "mlp_width": 2048, "layers": 6},
    "large": {"width": 768, "heads": 12, "mlp_width": 3072, "layers": 6},
}
"""Of the fusion; `base` and `large` are UnLoc's."""
# Windows from which it is learnt how large features are and how they are spread.
_PROBES = 64
_SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class MomentRecipe:
    """What decides the weights beside the data.

    Attributes:
        task: decides head and labels; segmentation has one level and no boundaries.
        size: of the fusion, by name.
        encoder: how the pyramid is made.
        levels: of the pyramid.
        windows: how videos are looked at.
        seed: everything random depends on it.
        steps: updates.
        batch: windows per update.
        rate: learning rate after a twentieth of the steps; it falls along half a cosine.
    """

    task: Task = "moment_retrieval"
    size: Size = "small"
    encoder: Literal["simple_pyramid", "fpn"] = "simple_pyramid"
    levels: int = 4
    windows: WindowRecipe = field(default_factory=WindowRecipe)
    seed: int = 0
    steps: int = 3000
    batch: int = 8
    rate: float = 1e-3

    @property
    def segments(self) -> bool:
        """Whether frames are told apart by class, without boundaries."""
        return self.task == "action_segmentation"

    def config(self, video_width: int, text_width: int) -> UnlocConfig:
        """The model for features of these widths.

        Raises:
            OnlookerError: the parts do not fit each other.
        """
        try:
            fusion, head = self._parts()
            return UnlocConfig(
                task=self.task,
                frames=self.windows.frames,
                video_width=video_width,
                text_width=text_width,
                fusion=fusion,
                head=head,
                project_text=True,
                projection_bias=True,
                # Where frames and texts are in one space a small fusion need not learn anew how alike they are.
                similarity=self.size == "small" and video_width == text_width,
            )
        except ValueError as error:
            raise OnlookerError(f"no such model: {error}.") from error

    def _parts(self) -> tuple[FusionConfig, HeadConfig]:
        sizes = SIZES[self.size]
        if self.segments:
            return FusionConfig(**sizes, kind="transformer", levels=1), HeadConfig(kind="linear", class_bias=-2.0)
        first = sizes["layers"] - self.levels
        blocks = tuple(range(first, sizes["layers"])) if self.encoder == "fpn" else ()
        fusion = FusionConfig(**sizes, kind=self.encoder, levels=self.levels, pyramid_blocks=blocks)
        return fusion, HeadConfig(convs=2 if self.size == "small" else 3, class_bias=-2.0, box_bias=2.0)


def new_localizer(windows: MomentWindows, recipe: MomentRecipe) -> Unloc:
    """A model with random weights, fitted to how large the features are and how they are spread.

    Raises:
        OnlookerError: the recipe's parts do not fit each other, or features cannot be used.
    """
    torch.manual_seed(recipe.seed)
    model = Unloc(recipe.config(windows.width, windows.text_width))
    rng = np.random.default_rng([recipe.seed, 1])
    probes = [windows(rng) for _ in range(_PROBES)]
    frames = torch.from_numpy(np.concatenate([probe.features[: probe.length] for probe in probes]))
    texts = torch.from_numpy(np.concatenate([probe.texts for probe in probes]))
    assert model.video_projection is not None and model.text_projection is not None
    _standardise(model.video_projection, frames)
    _standardise(model.text_projection, texts)
    if model.similarity is not None:
        model.similarity.calibrate(frames)
    return model


def train_moments(
    windows: MomentWindows,
    out: Path,
    recipe: MomentRecipe,
    *,
    tower: str = "",
    device: str = "cpu",
    report: Callable[[int, LocalizeLoss], None] | None = None,
    save_every: int = 100,
) -> Unloc:
    """Train a localizer and write the folder that `load_localizer` reads.

    Args:
        windows: of the annotated videos, by `recipe.windows`.
        out: folder for weights and checkpoint. A checkpoint of the same run that lies there is gone on from, with the
            result of a run without interruption.
        recipe: what decides the weights.
        tower: name of the tower of frames and texts, which the folder remembers.
        device: where the model is trained.
        report: is told the number and the loss of every step.
        save_every: steps between checkpoints.

    Returns:
        The running average of the weights, in eval mode.

    Raises:
        OnlookerError: the folder holds another run, the loss is no number any more, or features cannot be used.
        OSError: the folder cannot be written.
    """
    trainer = LocalizeTrainer(_moved(new_localizer(windows, recipe), device), _training(recipe))
    model = trainer.model.config.to_dict()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(out, {"recipe": asdict(recipe), "model": model, "tower": tower, "videos": len(windows)})
    checkpoint.resume(trainer)

    def told(step: int, loss: LocalizeLoss) -> None:
        if not math.isfinite(float(loss.total)):
            raise OnlookerError(f"the loss is no number any more at step {step}: take a lower learning rate (--rate).")
        if report is not None:
            report(step, loss)
        if step % save_every == 0 or step == recipe.steps:
            checkpoint.save(trainer)

    average = trainer.run(windows, told)
    save_localizer(out, average, tower=tower, extra=_settings(windows))
    return average


def _moved(model: Unloc, device: str) -> Unloc:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise OnlookerError(
            f"device {device!r} cannot be used ({reason}): take cpu, or a GPU that is there."
        ) from error


def _training(recipe: MomentRecipe) -> LocalizeRecipe:
    rate = LearningRate(recipe.rate, recipe.steps // 20, cosine_steps=recipe.steps)
    return LocalizeRecipe(seed=recipe.seed, steps=recipe.steps, windows=recipe.batch, rate=rate)


def _settings(windows: MomentWindows) -> dict[str, Any]:
    """What whoever uses the localizer has to know."""
    settings: dict[str, Any] = {"sampling": windows.recipe.sampling}
    if windows.recipe.sampling == "fixed":
        settings["fps"] = windows.recipe.fps
    if windows.templates:
        settings["templates"] = list(windows.templates)
    return settings


@torch.no_grad()
def _standardise(projection: nn.Linear, rows: Tensor) -> None:
    """Scale and shift a new projection so that what comes out of rows (n, E) has mean 0 and, over all, variance 1."""
    centre = rows.mean(0)
    spread = ((rows - centre) @ projection.weight.T).std()
    projection.weight /= max(float(spread), _SMALLEST_SPREAD)
    projection.bias.copy_(-projection.weight @ centre)
