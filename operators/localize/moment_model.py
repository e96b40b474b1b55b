"""A trained localizer with its tower's text side, as the online operator uses it: vectors in, scores of windows out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OnlookerError
from ..packets import FloatArray
from .class_lists import CLASS_TEMPLATES
from .unloc.model import Unloc
from .windows import Window, WindowPlan

if TYPE_CHECKING:
    from ..tower import Tower

__all__ = ["LocalizerFormError", "MomentModel", "MomentSettings", "require_tower", "window_plan"]


class LocalizerFormError(OnlookerError):
    """A localizer that cannot watch a stream; the message says why and what to do."""


Asked = tuple[Window, FloatArray]
"""A window and the (D,) vector of a text."""
Said = tuple[FloatArray, FloatArray]
"""(N,) logits and (N, 2) displacements."""


@dataclass(frozen=True)
class MomentSettings:
    """What a localizer's own settings say about its use on streams."""

    fps: float = 2.0
    """Frames per second that it was trained with."""
    hop: int | None = None
    """Frames between windows; None: as few as its pyramid allows, but two seconds at least."""
    settle: float = 4.0
    """Seconds that an end must lie back to be final."""
    on: float = 0.5
    """Score at which an event opens."""
    off: float = 0.3
    """Score down to which it goes on."""
    unit: bool = False
    """Features of frames and texts are brought to length 1 before they are projected."""
    templates: tuple[str, ...] = CLASS_TEMPLATES
    """Sentences that ask for a class."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> MomentSettings:
        """Read those of a localizer; what they do not say keeps its default.

        Raises:
            LocalizerFormError: a value of the wrong kind, or windows that are no part of a stream.
        """
        if values.get("sampling") == "linspace":
            raise LocalizerFormError(
                "this localizer was trained on whole videos, however long; a stream needs windows at a fixed rate: "
                "train one with `onlooker train localize --sampling fixed`"
            )
        given = {name: values[name] for name in cls.__dataclass_fields__ if values.get(name) is not None}
        for name, value in given.items():
            if not isinstance(value, list | tuple if name == "templates" else bool if name == "unit" else int | float):
                raise LocalizerFormError(f"the localizer's settings say {name}: {value!r}, which is of the wrong kind")
        return cls(**{**given, "templates": tuple(given.get("templates", CLASS_TEMPLATES))})


def require_tower(model: Unloc, tower: Tower) -> None:
    """Refuse a tower that the model was not trained with.

    Raises:
        LocalizerFormError: its features are not as wide as those the model reads.
    """
    if {model.config.video_width, model.config.text_width} != {tower.embed_dim}:
        raise LocalizerFormError(
            f"the localizer reads features of width {model.config.video_width}, those of tower {tower.name!r} have "
            f"{tower.embed_dim}: run it with the tower it was trained with"
        )


def window_plan(model: Unloc, settings: MomentSettings) -> WindowPlan:
    """The windows of a model.

    Raises:
        LocalizerFormError: the model has no such windows.
    """
    config = model.config
    if config.image is not None or config.text is not None:
        raise LocalizerFormError("this localizer has towers of its own; live it reads the features of another tower")
    if config.fusion.all_text_tokens or not config.head.per_class_displacements:
        raise LocalizerFormError("this localizer needs all texts of a video at once; live each query stands alone")
    coarsest = config.fusion.stride ** (config.fusion.levels - 1)
    hop = settings.hop or coarsest * math.ceil(2 * settings.fps / coarsest)
    margin = max(0, min(round(settings.settle * settings.fps), config.frames // 2, config.frames - hop))
    try:
        return WindowPlan(config.frames, config.fusion.levels, config.fusion.stride, hop, margin, settings.fps)
    except ValueError as error:
        raise LocalizerFormError(f"the localizer cannot run with hop {hop}: {error}") from error


class MomentModel:
    """Projects frames and texts once each, and scores windows for texts in calls of one fixed shape.

    A call always holds the same number of pairs of a window and a text, filled up with zeros, so that what comes out
    for a pair is the same bits whatever stands beside it.
    """

    def __init__(self, model: Unloc, tower: Tower, settings: MomentSettings, pairs: int, device: str = "cpu") -> None:
        """Take a model that `window_plan` accepts.

        Args:
            model: the localizer, on `device`.
            tower: whose features it was trained with; its text side is loaded.
            settings: of the localizer.
            pairs: P, of a window and a text in a call.
            device: where it is.
        """
        self.model = model
        self._tower, self._settings, self._pairs, self._device = tower, settings, pairs, device

    @property
    def linear(self) -> bool:
        """Whether it tells a class per frame and no boundaries: action segmentation."""
        return self.model.config.head.kind == "linear"

    @torch.inference_mode()
    def project_frame(self, features: FloatArray) -> FloatArray:
        """(E,) raw features of a frame to the (D,) vector that windows are made of."""
        if features.shape != (self.model.config.video_width,):
            raise LocalizerFormError(
                f"the localizer reads features of width {self.model.config.video_width}, got {features.shape[0]}: "
                "the graph's tower is not the one it was trained with"
            )
        return _array(self.model.project_video(self._row(torch.from_numpy(features.copy())))[0])

    @torch.inference_mode()
    def read_texts(self, prompts: Sequence[Sequence[str]]) -> list[FloatArray]:
        """The (D,) vector of each text, which is the mean of one or more prompts; its bits depend on no other text."""
        features = iter(self._tower.encode_texts([prompt for each in prompts for prompt in each]))
        means = (torch.stack([next(features) for _ in each]).mean(0) for each in prompts)
        return [_array(self.model.project_texts(self._row(mean))[0]) for mean in means]

    @torch.inference_mode()
    def score(self, asked: Sequence[Asked], plan: WindowPlan) -> list[Said]:
        """What the model says of each window and text; a linear head's displacements are 0."""
        calls = (asked[i : i + self._pairs] for i in range(0, len(asked), self._pairs))
        return [scored for call in calls for scored in self._call(call, plan)]

    def _call(self, asked: Sequence[Asked], plan: WindowPlan) -> list[Said]:
        video = np.zeros((self._pairs, *asked[0][0].video.shape), np.float32)
        text = np.zeros((self._pairs, *asked[0][1].shape), np.float32)
        mask = np.ones((self._pairs, len(plan.steps.times)), np.bool_)
        for i, (window, vector) in enumerate(asked):
            video[i], text[i], mask[i] = window.video, vector, plan.mask(window.filled)
        given = (torch.from_numpy(array).to(self._device) for array in (video, text, mask))
        scored = self.model.score(*given)
        logits = _array(scored.logits)
        boxes = np.zeros((*logits.shape, 2), np.float32)
        if scored.displacements is not None:
            boxes = _array(scored.displacements)
        # Copies: what is kept of a pair should not keep the whole call.
        return [(logits[i].copy(), boxes[i].copy()) for i in range(len(asked))]

    def _row(self, features: Tensor) -> Tensor:
        row = features[None].to(self._device, torch.float32)
        return F.normalize(row, dim=-1) if self._settings.unit else row


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.cpu().numpy()
    return array
