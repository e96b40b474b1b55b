"""Training of dense captioners from tokens of frozen towers, with the streaming memory in the loop.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 3.3): at every decoding point of a video the
model learns to write the events that ended by then, behind a random part of the earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onlooker.operators.caption.vid2seq.config import Vid2SeqConfig
from onlooker.training.dvc_loss import CaptionLoss, CaptionLossOptions, caption_loss
from onlooker.training.dvc_targets import AnnotatedVideo, RowFormat, TargetOptions, streaming_targets
from onlooker.training.schedules import LearningRate

if TYPE_CHECKING:  # each of them brings a library of its own
    from onlooker.operators.caption.dense import DenseCaptioner
    from onlooker.operators.caption.vid2seq.model import Vid2Seq


@dataclass(frozen=True)
class TokenVideo:
    """A video as a tower sees it, and what happens in it.

    Attributes:
        tokens: (T, N, D) float32, one row of tokens per sampled frame.
        events: their captions as ids of the model's vocabulary.
    """

    tokens: Tensor
    events: AnnotatedVideo


@dataclass(frozen=True)
class DvcRecipe:
    """What decides the weights beside model and data; Adam as in the reference, that is without weight decay.

    Attributes:
        seed: everything random depends on it.
        steps: updates.
        videos: videos per update; each gives a row for every decoding point of training.
        rate: learning rate by step.
        clip: largest norm of the gradient; None = any.
        targets: what is asked for at a point and told before it; its number of points is the model's.
        loss: how tokens are weighed.
    """

    seed: int = 0
    steps: int = 5000
    videos: int = 32
    rate: LearningRate = field(default_factory=lambda: LearningRate(1e-5, warmup_steps=250))
    clip: float | None = None
    targets: TargetOptions = field(default_factory=TargetOptions)
    loss: CaptionLossOptions = field(default_factory=CaptionLossOptions)


class DvcTrainer:
    """Updates a captioner, a GIT model without a trunk or a Vid2Seq, step by step."""

    def __init__(self, model: DenseCaptioner | Vid2Seq, recipe: DvcRecipe) -> None:
        """Start a run.

        Raises:
            ValueError: the recipe asks for another number of decoding points than the model has.
        """
        if recipe.targets.num_dense_outputs != model.config.train_points:
            raise ValueError(
                f"num_dense_outputs {recipe.targets.num_dense_outputs} of the targets must be the model's "
                f"train_points {model.config.train_points}"
            )
        self.model, self.recipe = model, recipe
        config = model.config
        text = config if isinstance(config, Vid2SeqConfig) else config.decoder
        self.rows = RowFormat(config.times, text.begin_token, text.end_token, config.max_length)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate(0))
        self.step_number = 0

    def run(
        self,
        draw: Callable[[np.random.Generator, int], Sequence[TokenVideo]],
        report: Callable[[int, CaptionLoss], None] | None = None,
    ) -> None:
        """Train to the end of the recipe.

        Args:
            draw: as many random videos as it is asked for, all with T = Q frames.
            report: is told the number and the loss of every step.
        """
        while self.step_number < self.recipe.steps:
            # A seed of its own for every step: a run that was interrupted can go on as if it had not been.
            rng = np.random.default_rng([self.recipe.seed, self.step_number])
            torch.manual_seed(int(rng.integers(2**31)))
            loss = self.step(draw(rng, self.recipe.videos), rng)
            if report is not None:
                report(self.step_number, loss)

    def step(self, videos: Sequence[TokenVideo], rng: np.random.Generator) -> CaptionLoss:
        """One update; `rng` draws which captions are told before."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step_number)
        targets = [streaming_targets(video.events, self.rows, self.recipe.targets, rng) for video in videos]
        texts = torch.from_numpy(np.stack([rows.text_tokens for rows in targets]))  # B, R, L
        contexts = torch.from_numpy(np.stack([rows.context_tokens for rows in targets]))
        frames = torch.from_numpy(np.stack([rows.checkpoint_inds for rows in targets]))  # B, R
        tokens = torch.stack([video.tokens for video in videos])  # B, T, N, D
        self.model.train()
        width = _used(texts), _used(contexts)
        logits = self.model.forward_tokens(tokens, texts[..., : width[0]], contexts[..., : width[1]], frames)
        written = texts[..., : width[0]].flatten(0, 1)
        loss = caption_loss(logits, written, self.model.config.num_bins, self.rows.end, self.recipe.loss)
        self.optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step_number += 1
        self.model.eval()
        return loss


def _used(rows: Tensor) -> int:
    """Positions that any of the rows (B, R, L) uses; the padding behind them costs time and changes nothing."""
    return int((rows != 0).any(0).any(0).nonzero().max()) + 1
