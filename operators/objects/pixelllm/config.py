"""Sizes and options of PixelLLM; the defaults are the released configuration (referring, BERT-style decoder)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from onlooker.operators.caption.git import GitConfig
from onlooker.operators.objects.densevoc.config import tuples

Fuse = Literal["concat", "sum"]


@dataclass(frozen=True)
class EvaConfig:
    """The EVA-02 trunk.

    Attributes:
        input_size: (height, width) in pixels that pictures are brought to; a square, because positions are.
        position_size: side in pixels of the pictures that the positions were learnt for.
        patch_size: side of a patch in pixels.
        width: D, width of a token.
        mlp_size: inner width of the feed-forward part; 8 / 3 of `width`, rounded down, in the paper.
        final_norm: layer norm after the last block.
        drop_path: probability of dropping a residual branch of the last block in training; it grows linearly from 0.
    """

    input_size: tuple[int, int] = (384, 384)
    position_size: int = 224
    patch_size: int = 14
    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_size: int = 2730
    final_norm: bool = True
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        """Check that heads can be turned along two axes."""
        if self.width % (4 * self.num_heads):
            raise ValueError(f"eva width {self.width} must be a multiple of 4 times its {self.num_heads} heads")


@dataclass(frozen=True)
class SamConfig:
    """The image encoder of Segment Anything (ViT-H).

    Attributes:
        input_size: (height, width) in pixels that pictures are brought to.
        position_size: side in pixels of the pictures that positions and global relative positions were learnt for.
        patch_size: side of a patch in pixels.
        width: D, width of a token.
        mlp_ratio: inner width of the feed-forward part in multiples of `width`.
        window_size: side of an attention window in patches.
        window_blocks: blocks that attend in windows; the others attend to everything.
        channels: of the neck, which are those of the features.
        drop_path: as in `EvaConfig`.
    """

    input_size: tuple[int, int] = (384, 384)
    position_size: int = 1024
    patch_size: int = 16
    width: int = 1280
    num_layers: int = 32
    num_heads: int = 16
    mlp_ratio: float = 4.0
    window_size: int = 14
    window_blocks: tuple[int, ...] = tuple(block for block in range(32) if block % 8 != 7)
    channels: int = 256
    drop_path: float = 0.5


@dataclass(frozen=True)
class AdapterConfig:
    """The prompt adapter: image features and one location to the tokens that the decoder reads.

    Attributes:
        depth: layers of the two-way transformer.
        width: of that transformer.
        num_heads: of all its attentions.
        mlp_size: inner width of its feed-forward parts.
        num_outputs: tokens per prompt.
        output_width: their width, the decoder's `visual_width`.
        dense: give the map (h * w tokens) instead of the learnt outputs.
    """

    depth: int = 6
    width: int = 512
    num_heads: int = 8
    mlp_size: int = 2048
    num_outputs: int = 32
    output_width: int = 1024
    dense: bool = False


@dataclass(frozen=True)
class PointConfig:
    """The head that tells where each word is.

    Attributes:
        num_points: points per word.
        num_classes: further logits per point beside background; not used, but part of the weights.
        hidden_size: of the inner layers.
        depth: linear layers.
        pre_norm: layer norm before the first one.
        activation: between them.
        on_map: tell two corners with the help of the image features (`map_head`) instead of all that; `hidden_size`
            is its inner width. No model of the reference has it.
    """

    num_points: int = 2
    num_classes: int = 1
    hidden_size: int = 512
    depth: int = 4
    pre_norm: bool = True
    activation: Literal["gelu", "relu"] = "gelu"
    on_map: bool = False


@dataclass(frozen=True)
class MaskConfig:
    """Segment Anything's mask decoder, and the adapter that tells it what the text says.

    Attributes:
        depth: layers of the decoder's two-way transformer; its width is that of the prompts.
        num_heads: of its attentions.
        mlp_size: inner width of its feed-forward parts.
        num_masks: masks for ambiguous prompts, beside the single one used here.
        head_size: inner width of the heads.
        head_depth: linear layers of the head that predicts the quality; those of the masks have three.
        adapter_depth: layers of the adapter's transformer; None = no adapter.
        gated: the adapter starts from nothing (tanh of a factor that starts at 0).
    """

    depth: int = 2
    num_heads: int = 8
    mlp_size: int = 2048
    num_masks: int = 3
    head_size: int = 256
    head_depth: int = 3
    adapter_depth: int | None = 2
    gated: bool = True


@dataclass(frozen=True)
class PixelLlmConfig:
    """A whole model.

    Attributes:
        eva: the language-like trunk; None = none.
        sam: the segmentation trunk; None = none. Features of both are concatenated in this order.
        feature_width: channels of features that come from outside, for a model without a trunk of its own.
        prompt_width: width of an embedded point or corner.
        adapter: see there.
        decoder: its `visual_width` is the adapter's `output_width`.
        points: see there; None = no locations.
        masks: see there; None = no masks. They need `sam`, with as many channels as `prompt_width`.
        fuse: how hidden states of several depths become the feature of a word (`fuse_layers`).
        fuse_layers: depths whose states are fused, 0 = the embedding, negative ones from the end; () = the last one.
        points_per_side: a box without extent is asked about by a grid of so many points a side.
        located: the tokens whose points count, as `points.token_mask` names those that do not: by default only the
            token before the end, at which the whole expression has been read.
        label_smoothing: of the text loss.
    """

    eva: EvaConfig | None = field(default_factory=EvaConfig)
    sam: SamConfig | None = field(default_factory=SamConfig)
    feature_width: int = 0
    prompt_width: int = 256
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    decoder: GitConfig = field(default_factory=lambda: GitConfig(vocab_size=30522))
    points: PointConfig | None = field(default_factory=PointConfig)
    masks: MaskConfig | None = None
    fuse: Fuse = "concat"
    fuse_layers: tuple[int, ...] = ()
    points_per_side: int = 2
    located: str = "^end-1"
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        if self.decoder.visual_width != self.adapter.output_width:
            raise ValueError(
                f"the decoder reads tokens of width {self.decoder.visual_width}, the adapter writes "
                f"{self.adapter.output_width}; give both the same"
            )
        if not self.grid_width:
            raise ValueError("a model without a trunk needs a feature_width")
        if (self.eva or self.sam) and self.feature_width:
            raise ValueError("feature_width is for a model without a trunk; drop it")
        if self.masks and (self.sam is None or self.sam.channels != self.prompt_width):
            raise ValueError(f"masks need a sam trunk whose channels are prompt_width {self.prompt_width}")

    @property
    def grid_width(self) -> int:
        """Channels of the features that the adapter reads."""
        if self.eva is None and self.sam is None:
            return self.feature_width
        return (self.eva.width if self.eva else 0) + (self.sam.channels if self.sam else 0)

    @property
    def word_width(self) -> int:
        """Width of the feature of a word, from which its points are told."""
        depths = len(self.fuse_layers) if self.fuse == "concat" else 1
        return self.decoder.hidden_size * max(depths, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_dict` restores the config."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> PixelLlmConfig:
        """The config that `to_dict` told, also after a way through JSON.

        Raises:
            TypeError, ValueError: unknown names or values that do not fit.
        """
        values = dict(values)
        parts = {
            "eva": EvaConfig,
            "sam": SamConfig,
            "adapter": AdapterConfig,
            "decoder": GitConfig,
            "points": PointConfig,
            "masks": MaskConfig,
        }
        for name, kind in parts.items():
            if isinstance(values.get(name), dict):
                values[name] = kind(**tuples(values[name]))
        return PixelLlmConfig(**tuples(values))
