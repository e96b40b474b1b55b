"""What the language model reads of a picture for one location, and what the mask decoder reads of a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import AdapterConfig
from .two_way import TwoWayTransformer


class PromptAdapter(nn.Module):
    """Learnt tokens that look at the picture together with a location."""

    def __init__(self, config: AdapterConfig, image_width: int, prompt_width: int) -> None:
        """Random weights for maps of `image_width` channels and prompts of `prompt_width`."""
        super().__init__()
        self.config = config
        width = config.width
        self.output_tokens = nn.Parameter(torch.randn(config.num_outputs, width))
        self.image_projection = nn.Linear(image_width, width)
        same = prompt_width == width
        self.prompt_projection: nn.Module = nn.Identity() if same else nn.Linear(prompt_width, width)
        self.place_projection: nn.Module = nn.Identity() if same else nn.Linear(prompt_width, width)
        self.transformer = TwoWayTransformer(config.depth, width, config.num_heads, config.mlp_size)
        self.outputs = nn.ModuleList(nn.Linear(width, config.output_width) for _ in range(config.num_outputs))
        self.dense_output = nn.Linear(width, config.output_width)

    def forward(self, image: Tensor, places: Tensor, prompts: Tensor, no_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of N prompts about each of B pictures.

        Args:
            image: (B, h, w, C) features.
            places: (h, w, c) codes of the cells.
            prompts: (B, N, P, c) embedded points or corners.
            no_mask: (1, c), what stands for the mask that no prompt has.

        Returns:
            (B, N, outputs, D) tokens, and the map (B, N, h, w, D).
        """
        batch, prompts_each = prompts.shape[:2]
        grid = image.shape[1:3]
        source = (self.image_projection(image) + self.prompt_projection(no_mask)).flatten(1, 2)  # B, h * w, width
        tokens = self.prompt_projection(prompts).flatten(0, 1)  # B * N, P, width
        tokens = torch.cat([self.output_tokens.expand(len(tokens), -1, -1), tokens], 1)
        read, source = self.transformer(
            source.repeat_interleave(prompts_each, 0), self.place_projection(places).flatten(0, 1), tokens
        )
        found = torch.stack([output(read[:, index]) for index, output in enumerate(self.outputs)], 1)
        dense = self.dense_output(source).view(batch, prompts_each, *grid, -1)
        return found.view(batch, prompts_each, *found.shape[1:]), dense


class NormLinear(nn.Module):
    """A layer norm and a linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Random weights."""
        super().__init__()
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.linear(self.norm(x))  # type: ignore[no-any-return]


class MaskAdapter(nn.Module):
    """Adds to the corners of a box what the text about it says."""

    def __init__(
        self, depth: int, width: int, visual_width: int, text_width: int, num_outputs: int = 2, gated: bool = True
    ) -> None:
        """Random weights; gated ones begin as no change at all.

        Args:
            depth: layers of the two-way transformer.
            width: of the corners.
            visual_width: of the adapter's tokens.
            text_width: of the words.
            num_outputs: corners of a box.
            gated: scale the change by the tanh of a learnt factor.
        """
        super().__init__()
        self.output_tokens = nn.Parameter(torch.randn(num_outputs, width))
        self.visual_projection = NormLinear(visual_width, width)
        self.text_projection = NormLinear(text_width, width)
        self.transformer = TwoWayTransformer(depth, width)
        self.alpha = nn.Parameter(torch.zeros(num_outputs, width)) if gated else None

    def forward(self, corners: Tensor, visual: Tensor, text: Tensor) -> Tensor:
        """Corners (B, N, 2, C), tokens (B, N, V, D), words (B, N, L, H) -> corners (B, N, 2, C)."""
        source = torch.cat([self.visual_projection(visual), self.text_projection(text)], 2).flatten(0, 1)
        tokens = self.output_tokens.expand(len(source), -1, -1)
        change: Tensor = self.transformer(source, torch.zeros_like(source[0]), tokens)[0].view(corners.shape)
        if self.alpha is not None:
            change = self.alpha.tanh() * change
        return corners + change
