"""The vision transformer of GIT and of Streaming DVC, with the pre-processing of its frames.

A CLIP-style ViT (Radford et al. 2021) as Wang et al., "GIT" (2022), use it: all tokens are returned, quick GELU, norms
before and after the blocks. Its layer norms have an epsilon of 1e-6 and positions are resized as the reference of
Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024), does it. Options cover the other trunks that this
reference can build: layer scale, BEiT's missing key bias, no class token, a patch bias, no norm before or after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
PIXEL_STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)
_EPS = 1e-6


def resize_crop(frames: Tensor, size: int) -> Tensor:
    """The central square of frames whose short side becomes `size`.

    Bilinear with half-pixel centres and no antialiasing; values are not rounded. The long side is cut to whole pixels.

    Args:
        frames: (T, H, W, 3) uint8 or float, 0 to 255.
        size: side of the square in pixels.

    Returns:
        (T, size, size, 3) float32, 0 to 255.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:3]:
        raise ValueError(f"frames of shape {tuple(frames.shape)} are not (T, H, W, 3) images")
    height, width = frames.shape[1:3]
    short = min(height, width)
    channels_first = frames.movedim(-1, 1).to(torch.float32)  # T, 3, H, W
    if short != size:
        height, width = size * height // short, size * width // short
        channels_first = F.interpolate(channels_first, (height, width), mode="bilinear", align_corners=False)
    top, left = (height - size) // 2, (width - size) // 2
    return channels_first[..., top : top + size, left : left + size].movedim(1, -1).contiguous()


def normalize(pixels: Tensor, mean: Sequence[float] = PIXEL_MEAN, std: Sequence[float] = PIXEL_STD) -> Tensor:
    """(pixels - mean) / std over the last axis: (..., 3), 0 to 255 -> (..., 3) float32."""
    pixels = pixels.to(torch.float32)
    return (pixels - pixels.new_tensor(mean)) / pixels.new_tensor(std)


def preprocess(images: Tensor, size: int = 224) -> Tensor:
    """What the trunk takes of images (..., H, W, 3) uint8: the central square, normalised, (..., size, size, 3)."""
    square = resize_crop(images.flatten(0, -4), size) if images.ndim > 3 else resize_crop(images[None], size)
    return normalize(square.view(*images.shape[:-3], size, size, 3))


@dataclass(frozen=True)
class VitConfig:
    """Sizes and options of a `VisionTransformer`; the defaults are the published ViT-L/14.

    Attributes:
        image_size: side in pixels of the images that the positions were learnt for; others get resized positions.
        patch_size: side of a patch in pixels.
        width: D, width of a token.
        mlp_ratio: inner width of the feed-forward part in multiples of `width`.
        activation: of the feed-forward part; `gelu` is the exact one.
        qkv_bias: `all`, none at all, or none of the keys (`query_value`, as BEiT has it).
        class_token: put a learnt token before the patches.
        class_position: the position table has a row for a class token, used if there is one.
        positions: add learnt positions.
        patch_bias: the patch projection has a bias.
        norm_before: layer norm before the first block.
        norm_after: layer norm after the last block.
        layer_scale: initial value of a learnt factor on each residual branch; None = no such factors.
        drop_path: probability of dropping a residual branch of the last block in training; it grows linearly from 0.
    """

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    qkv_bias: Literal["all", "none", "query_value"] = "all"
    class_token: bool = True
    class_position: bool = True
    positions: bool = True
    patch_bias: bool = False
    norm_before: bool = True
    norm_after: bool = True
    layer_scale: float | None = None
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}; change one of them")
        if self.patch_size < 1 or self.image_size < self.patch_size:
            raise ValueError(f"an image of side {self.image_size} holds no patch of side {self.patch_size}")
        if self.class_token and self.positions and not self.class_position:
            raise ValueError("class_token needs class_position: the class token has no row in the position table")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path {self.drop_path} must be at least 0 and below 1")

    @property
    def grid(self) -> int:
        """Patches along a side of an image of `image_size`."""
        return self.image_size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """N, tokens of an image of `image_size`."""
        return self.grid**2 + int(self.class_token)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `VitConfig(**values)` restores the config."""
        return asdict(self)


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


class _Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias == "all")
        self.proj = nn.Linear(width, width)
        self.q_bias = self.v_bias = None
        if config.qkv_bias == "query_value":
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        qkv = self.qkv(x)
        if self.q_bias is not None and self.v_bias is not None:
            qkv = qkv + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = qkv.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each B, heads, N, head_dim
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class _Mlp(nn.Module):
    """The feed-forward part of a block."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        inner = int(config.width * config.mlp_ratio)
        self.fc1 = nn.Linear(config.width, inner)
        self.fc2 = nn.Linear(inner, config.width)
        self.activation = quick_gelu if config.activation == "quick_gelu" else F.gelu

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.fc2(self.activation(self.fc1(x)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: VitConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=_EPS)
        self.attn = _Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPS)
        self.mlp = _Mlp(config)
        self.drop_path = drop_path
        self.gamma_1 = self.gamma_2 = None
        if config.layer_scale is not None:
            self.gamma_1 = nn.Parameter(torch.full((config.width,), config.layer_scale))
            self.gamma_2 = nn.Parameter(torch.full((config.width,), config.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self._branch(self.attn(self.norm1(x)), self.gamma_1)
        return x + self._branch(self.mlp(self.norm2(x)), self.gamma_2)

    def _branch(self, y: Tensor, gamma: Tensor | None) -> Tensor:
        """A residual branch, scaled, and in training dropped for some of the images."""
        if gamma is not None:
            y = y * gamma
        if self.training and self.drop_path > 0.0:
            keep = torch.rand(y.shape[0], 1, 1, device=y.device) >= self.drop_path
            y = y * keep / (1.0 - self.drop_path)
        return y


class VisionTransformer(nn.Module):
    """The trunk: normalised images to tokens."""

    def __init__(self, config: VitConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.config = config
        width = config.width
        self.patch = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=config.patch_bias)
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, width)) if config.class_token else None
        rows = config.grid**2 + int(config.class_position)
        self.pos_embed = nn.Parameter(torch.zeros(1, rows, width)) if config.positions else None
        self.ln_pre = nn.LayerNorm(width, eps=_EPS) if config.norm_before else nn.Identity()
        self.ln_post = nn.LayerNorm(width, eps=_EPS) if config.norm_after else nn.Identity()
        last = max(config.num_layers - 1, 1)
        self.blocks = nn.ModuleList(_Block(config, config.drop_path * i / last) for i in range(config.num_layers))
        self.apply(_init)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, H, W, 3) float32 to tokens (B, N, D): the class token first, then patches row by row.

        Pixels beyond the last whole patch are not seen.
        """
        x = self.patch(images.movedim(-1, 1))  # B, D, h, w
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # B, h * w, D
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.expand(x.shape[0], -1, -1), x], 1)
        if self.pos_embed is not None:
            x = x + self.positions(grid)
        x = self.ln_pre(x)
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x)  # type: ignore[no-any-return]

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The positions (1, N, D) of a grid of (h, w) patches, bicubically resized from the learnt ones."""
        assert self.pos_embed is not None
        classes = int(self.config.class_position)
        own, patches = self.pos_embed[:, :classes], self.pos_embed[:, classes:]
        side = self.config.grid
        if grid != (side, side):
            table = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # 1, D, side, side
            # Antialiased, with Keys' a = -0.5 and weights normalised at the border: `jax.image.resize`'s bicubic.
            table = F.interpolate(table, grid, mode="bicubic", align_corners=False, antialias=True)
            patches = table.flatten(2).transpose(1, 2)  # 1, h * w, D
        return torch.cat([own, patches], 1) if self.config.class_token else patches


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.is_meta:
        # lecun_normal, as flax draws it: cut at two standard deviations and widened to keep the variance.
        std = module.weight[0].numel() ** -0.5
        nn.init.trunc_normal_(module.weight, std=std / 0.87962566, a=-2 * std / 0.87962566, b=2 * std / 0.87962566)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, _Mlp) and not module.fc1.weight.is_meta:
        nn.init.normal_(module.fc1.weight, std=0.02)
        nn.init.normal_(module.fc2.weight, std=0.02)
