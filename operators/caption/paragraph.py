"""Paragraph captioning: one text about a whole video (the paragraph model of Streaming DVC).

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 4.5). Despite its name in the reference
the memory of this model is made at once from all frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onlooker.operators.caption.dense import FrameEncoder, search_text
from onlooker.operators.caption.dense_config import ParagraphConfig, SearchConfig
from onlooker.operators.caption.dense_memory import video_memory
from onlooker.operators.caption.git import GitDecoder


class ParagraphCaptioner(nn.Module):
    """The paragraph model. `forward` gives logits under teacher forcing, `decode` writes the texts."""

    def __init__(self, config: ParagraphConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        self.encoder = FrameEncoder(config.encoder)
        self.decoder = GitDecoder(config.decoder)

    def forward(self, images: Tensor, targets: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (B * C, L, V) of the token after each target token, for C texts about each video.

        Args:
            images: (B, T, H, W, 3) uint8.
            targets: (B, C, L) int64 rows `begin, tokens, end`, padded with 0.
            context: (B, C, P) int64 what each text follows; None = nothing.
        """
        memory = self.memory(images).repeat_interleave(targets.shape[1], 0)  # B * C, M, D
        prefix = None if context is None else context.flatten(0, 1)
        return self.decoder(targets.flatten(0, 1), memory, None, prefix)  # type: ignore[no-any-return]

    def memory(self, images: Tensor) -> Tensor:
        """The memories (B, M, D) of videos (B, T, H, W, 3) uint8."""
        return torch.stack([video_memory(video, self.config.memory) for video in self.encoder(images)])

    @torch.no_grad()
    def decode(self, images: Tensor, search: SearchConfig | None = None) -> Tensor:
        """Token rows (B, L) int64 about videos (B, T, H, W, 3) uint8; `search` overrides the config's."""
        return search_text(
            self.decoder, self.memory(images), None, search or self.config.search, self.config.max_length
        )
