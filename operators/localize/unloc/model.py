"""UnLoc (Yan et al., "UnLoc: A Unified Framework for Video Localization Tasks", ICCV 2023).

One model for moment retrieval, highlight detection, temporal localization and action segmentation: CLIP's towers (or
features of any other tower), a transformer that reads each video together with each text, a pyramid in time, and
heads. Tested against outputs of the reference in scenic (`tests/parity`).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .blocks import init_lecun
from .config import UnlocConfig
from .fusion import Fused, Fusion
from .heads import LinearHead, LocalizationHead, Scored
from .similarity import Similarity
from .towers import ImageTower, TextTower


class Texts(NamedTuple):
    """Texts as the fusion reads them."""

    tokens: Tensor
    """(n, L, d); L is 1 for pooled texts."""
    mask: Tensor | None
    """(n, L) bool, false for fill; None = all are words."""


class Pairs(NamedTuple):
    """P videos and texts, aligned: what `Unloc.fuse` takes."""

    video: Tensor
    """(P, T, d)."""
    text: Tensor
    """(P, L, d)."""
    mask: Tensor | None
    """(P, N) bool."""
    text_mask: Tensor | None
    """(P, L) bool."""


class Unloc(nn.Module):
    """The model. `score` is what streams and training use, `forward` has the reference's layouts.

    With a tower, frames or ids come in; without one, its features. `project_video` and `project_texts` make both d
    wide. Everything up to there depends on the video or the text alone and can be kept; `score` is the only part that
    costs something for every pair.
    """

    def __init__(self, config: UnlocConfig) -> None:
        """Random weights, drawn as the reference draws them; works on the `meta` device."""
        super().__init__()
        self.config = config
        width, bias = config.fusion.width, config.projection_bias
        self.image = None if config.image is None else ImageTower(config.image, config.frames)
        self.text = None if config.text is None else TextTower(config.text)
        self.video_projection = nn.Linear(config.video_width, width, bias) if config.project_video else None
        self.text_projection = nn.Linear(config.text_width, width, bias) if config.project_text else None
        for projection in (self.video_projection, self.text_projection):
            if projection is not None:
                init_lecun(projection)
        self.similarity = Similarity(config.video_width, width, config.adapter) if config.similarity else None
        self.fusion = Fusion(config.fusion, config.frames)
        self.head: LinearHead | LocalizationHead
        if config.head.kind == "linear":
            self.head = LinearHead(width, config.head)
        else:
            self.head = LocalizationHead(width, config.fusion.levels, config.head)

    def encode_frames(self, rgb: Tensor) -> Tensor:
        """Normalised frames (B, T, H, W, 3) to features (B, T, video_width)."""
        if self.image is None:
            raise ValueError("this model has no image tower: give it the features of frames")
        with torch.no_grad() if self.config.freeze_image else nullcontext():
            return self.image(rgb)  # type: ignore[no-any-return]

    def project_video(self, features: Tensor) -> Tensor:
        """Features of frames (..., video_width) to video tokens (..., d); frames do not see each other.

        With `similarity`, what it needs of a frame stands behind the token: (..., d + video_width + 1).
        """
        tokens = features if self.video_projection is None else self.video_projection(features)
        return tokens if self.similarity is None else torch.cat([tokens, self.similarity.frames(features)], -1)

    def encode_text_tokens(self, ids: Tensor) -> Tensor:
        """Ids (n, length), filled up with 0, to projected tokens (n, length, d)."""
        if self.text is None:
            raise ValueError("this model has no text tower: give it the features of texts")
        with torch.no_grad() if self.config.freeze_text else nullcontext():
            tokens = self.text(ids)
        return self.project_texts(tokens)

    def project_texts(self, features: Tensor) -> Tensor:
        """Features of texts (..., text_width) to text tokens (..., d); with `similarity` (..., d + text_width + 1)."""
        tokens = features if self.text_projection is None else self.text_projection(features)
        return tokens if self.similarity is None else torch.cat([tokens, self.similarity.texts(features)], -1)

    def pool_text(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """The one of (n, length, d) tokens that stands for a text, (n, d).

        `eos` takes that of the largest id. In a text cut short, which has lost its end, this is its begin: as that
        sees no word, all such texts look the same.
        """
        pool = "eos" if self.config.text is None else self.config.text.pool
        if pool == "eos":
            return tokens[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]
        if pool == "token":
            return tokens[:, 0]
        words = (ids > 0).unsqueeze(-1).to(tokens)
        return (tokens * words).sum(1) / words.sum(1)

    def score(self, video: Tensor, text: Tensor, mask: Tensor | None = None, text_mask: Tensor | None = None) -> Scored:
        """Score aligned pairs, each alone.

        Args:
            video: (P, T, d) of `project_video`, rows of zeros where there is no frame.
            text: (P, d) of pooled texts, or (P, L, d).
            mask: (P, N) bool of the steps of all levels, see `step_mask`; None = all may be looked at.
            text_mask: (P, L) bool of the text's tokens.

        Returns:
            (P, N) logits and (P, N, 2) displacements.
        """
        if not self.config.head.per_class_displacements:
            raise ValueError("this model's displacements depend on all texts of a video: pairs cannot be scored alone")
        scored: Scored = self.head(self.fuse(video, text, mask, text_mask).levels)
        return scored

    def fuse(self, video: Tensor, text: Tensor, mask: Tensor | None = None, text_mask: Tensor | None = None) -> Fused:
        """What `score` gives its head."""
        text = text[:, None] if text.ndim == 2 else text
        if self.similarity is not None:
            width = self.config.fusion.width
            video = video[..., :width] + self.similarity(video[..., width:], text[:, 0, width:])
            text = text[..., :width]
        fused: Fused = self.fusion(video, text, mask, text_mask)
        return fused

    def step_mask(self, seen: Tensor) -> Tensor:
        """The mask (P, N) of windows of which only the first (P,) `seen` frames exist.

        Step i of a level stands at frame i * stride^level, and exists if that does.
        """
        fusion = self.config.fusion
        places = [
            torch.arange(length, device=seen.device) * fusion.stride**level
            for level, length in enumerate(self.config.level_lengths)
        ]
        return torch.cat(places) < seen[:, None]

    def encode_video(self, video: Tensor) -> Tensor:
        """Frames (B, T, H, W, 3), or features (B, T, video_width) without a tower, to video tokens (B, T, d)."""
        return self.project_video(video if self.image is None else self.encode_frames(video))

    def encode_texts(self, texts: Tensor, mask: Tensor | None = None) -> Texts:
        """Ids (n, length), or features (n, text_width) without a tower, as `fuse` takes them.

        `mask` (n, length) tells words from fill; None = what is not 0.
        """
        if self.text is None:
            return Texts(self.project_texts(texts)[:, None] if texts.ndim == 2 else self.project_texts(texts), mask)
        tokens = self.encode_text_tokens(texts)
        if self.config.fusion.all_text_tokens:
            return Texts(tokens, texts > 0 if mask is None else mask.bool())
        return Texts(self.pool_text(tokens, texts)[:, None], None)

    def forward(
        self, video: Tensor, texts: Tensor, mask: Tensor | None = None, text_mask: Tensor | None = None
    ) -> Tensor:
        """Score videos and texts as the reference pairs them.

        Args:
            video: (B, T, H, W, 3), or (B, T, video_width) without an image tower.
            texts: (n, length) ids, or (n, text_width) without a text tower. Every text meets every video, but for
                highlight detection: there text b belongs to video b.
            mask: (B, N) of the videos' steps.
            text_mask: (n, length) of the texts' tokens.

        Returns:
            Moment retrieval: (B, n, N, 3), a logit and two displacements. Temporal localization and highlight
            detection: (B, N, 3 * n), such a triple per class, or (B, N, n + 2), all logits and shared displacements.
            Action segmentation: (B, T, n). In highlight detection n is 1.
        """
        tokens = self.encode_video(video)
        fused = self.fuse(*self.pair(tokens, self.encode_texts(texts, text_mask), mask))
        levels = [level.reshape(len(tokens), -1, *level.shape[1:]) for level in fused.levels]  # B, n, T_l, d
        return self.layout(self.head(levels))

    def pair(self, video: Tensor, texts: Texts, mask: Tensor | None = None) -> Pairs:
        """Videos (B, T, d) with all n texts, video by video, or in highlight detection each with its own."""
        count = len(texts.tokens)
        if self.config.task == "highlight_detection":
            if len(video) != count:
                raise ValueError(f"{count} texts for {len(video)} videos: in highlight detection each has its own")
            return Pairs(video, texts.tokens, mask, texts.mask)
        return Pairs(
            video.repeat_interleave(count, 0),
            texts.tokens.repeat(len(video), 1, 1),
            None if mask is None else mask.repeat_interleave(count, 0),
            None if texts.mask is None else texts.mask.repeat(len(video), 1),
        )

    def layout(self, scored: Scored) -> Tensor:
        """What the head says of (B, n) pairs, as the reference lays it out; see `forward`."""
        logits, displacements = scored  # (B, n, N) and (B, n, N, 2), or (B, N, 2) where texts share them
        if displacements is None:
            return logits.transpose(1, 2)
        if self.config.task == "moment_retrieval":
            if displacements.ndim == 3:
                displacements = displacements[:, None].expand(-1, logits.shape[1], -1, -1)
            return torch.cat([logits[..., None], displacements], -1)
        if displacements.ndim == 3:
            return torch.cat([logits.transpose(1, 2), displacements], -1)
        return torch.cat([logits[..., None], displacements], -1).transpose(1, 2).flatten(2)
