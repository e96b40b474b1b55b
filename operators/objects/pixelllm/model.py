"""PixelLLM: captions of places, places of words, boxes and masks of expressions.

Source: Xu et al., "Pixel-Aligned Language Model" (CVPR 2024). A location becomes tokens, an adapter reads the picture
with them, a decoder writes or reads a text about what the adapter saw, and a head tells for every word where it is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from onlooker.operators.caption.git import Context, GitDecoder, TextState
from onlooker.operators.caption.search import beam_search, greedy_search
from onlooker.operators.tower.vit import PIXEL_MEAN, PIXEL_STD, normalize

from .adapter import MaskAdapter, PromptAdapter
from .config import PixelLlmConfig
from .eva import EvaTransformer, resize_map
from .map_head import MapHead
from .masks import MaskDecoder
from .points import PointHead, boxes_to_points, pad_after_end, solid_grid, to_pixels, token_mask, word_boxes
from .prompts import PromptEncoder
from .sam import SamEncoder

SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)


class ImageFeatures(NamedTuple):
    """What the model keeps of B pictures."""

    grid: Tensor
    """(B, h, w, C), what the adapter reads."""
    canvas: tuple[int, int]
    """(height, width) in pixels, padding included, in which locations are given."""
    sizes: Tensor
    """(B, 2) height and width in pixels of the pictures without padding; found locations are relative to these."""
    masks: Tensor | None = None
    """(B, h, w, C), what the mask decoder reads."""
    mask_canvas: tuple[int, int] = (0, 0)
    """(height, width) in pixels that boxes are relative to there."""


class Read(NamedTuple):
    """What became of texts that the model read."""

    logits: Tensor
    """(B, N, L, V) for the token after each one."""
    words: Tensor
    """(B, N, L, D) the features of the tokens."""


class Captions(NamedTuple):
    """Texts about N locations of B pictures."""

    tokens: Tensor
    """(B, N, L) int64: begin, words, end; after the first end there are only ends, or zeros from beam search."""
    scores: Tensor
    """(B, N) mean log-probability (greedy), or log-probability over brevity penalty."""


class PixelLlm(nn.Module):
    """The model. Locations are pixels of the canvas, boxes xyxy; `visual` are `see`'s tokens (B, N, V, D)."""

    def __init__(self, config: PixelLlmConfig | None = None) -> None:
        """Random weights; None = the released sizes."""
        super().__init__()
        self.config = config = config or PixelLlmConfig()
        self.eva = EvaTransformer(config.eva) if config.eva else None
        self.sam = SamEncoder(config.sam) if config.sam else None
        self.prompt_encoder = PromptEncoder(config.prompt_width)
        self.adapter = PromptAdapter(config.adapter, config.grid_width, config.prompt_width)
        self.decoder = GitDecoder(config.decoder)
        self.point_head: PointHead | MapHead | None = None
        if config.points:
            self.point_head = (
                MapHead(config.word_width, config.grid_width, config.points.hidden_size)
                if config.points.on_map
                else PointHead(config.points, config.word_width)
            )
        self.mask_decoder: MaskDecoder | None = None
        self.mask_adapter: MaskAdapter | None = None
        if config.masks:
            self.mask_decoder = MaskDecoder(config.masks, config.prompt_width)
        if config.masks and config.masks.adapter_depth is not None:
            self.mask_adapter = MaskAdapter(
                config.masks.adapter_depth,
                config.prompt_width,
                config.adapter.output_width,
                config.word_width,
                gated=config.masks.gated,
            )

    def encode_images(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        """Features of pictures (B, H, W, 3), 0 to 255; `valid` (B, H, W) is 0 where a picture is only padded.

        Raises:
            ValueError: the model has no trunk of its own; make `ImageFeatures` of maps from elsewhere.
        """
        found: list[tuple[tuple[int, int], Tensor]] = []
        if self.eva is not None:
            size = self.eva.config.input_size
            found.append((size, self.eva(prepare(images, valid, size, PIXEL_MEAN, PIXEL_STD))))
        masks, mask_canvas = None, (0, 0)
        if self.sam is not None:
            mask_canvas = self.sam.config.input_size
            masks = self.sam(prepare(images, valid, mask_canvas, SAM_MEAN, SAM_STD))
            found.append((mask_canvas, masks))
        if not found:
            raise ValueError("this model has no trunk of its own: give it features from elsewhere")
        largest = max((grid.shape[1], grid.shape[2]) for _, grid in found)
        grid = torch.cat([resize_map(grid, largest, "bicubic") for _, grid in found], -1)
        return ImageFeatures(grid, max(size for size, _ in found), picture_sizes(images, valid), masks, mask_canvas)

    def see(
        self,
        features: ImageFeatures,
        boxes: Tensor | None = None,
        points: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """What the adapter reads of each location: (B, N, V, D).

        Args:
            features: of B pictures.
            boxes: (B, N, 4). One without any positive coordinate counts as not given; then its points are taken.
            points: (B, N, P, 2); None = a grid in each box.
            labels: (B, N, P) 1 inside, 0 outside, -1 none; None = all inside.
        """
        if points is None:
            if boxes is None:
                raise ValueError("a location is needed: boxes or points")
            points = boxes_to_points(boxes, solid_grid(self.config.points_per_side))
        if labels is None:
            labels = torch.ones(points.shape[:-1], device=points.device)
        encoder = self.prompt_encoder
        prompts = encoder.embed_points(points, labels, features.canvas)  # B, N, P + 1, C
        if boxes is not None:
            corners = encoder.embed_boxes(boxes, features.canvas)
            filler = encoder.no_mask_embed.expand(*corners.shape[:2], prompts.shape[2] - 2, -1)
            given = (boxes.amax(-1) > 0)[..., None, None]
            prompts = torch.where(given, torch.cat([corners, filler], 2), prompts)
        grid = features.grid
        places = encoder.grid_code((grid.shape[1], grid.shape[2]))
        tokens: Tensor
        tokens, dense = self.adapter(grid, places, prompts, encoder.no_mask_embed)
        return dense.flatten(2, 3) if self.config.adapter.dense else tokens

    def read(self, tokens: Tensor, visual: Tensor, context: Tensor | None = None) -> Read:
        """Texts (B, N, L) about what was seen; `context` (B, N, P), padded with 0, is what they answer."""
        states = self._states(tokens, visual, context)
        logits = self.decoder.output(states[-1])
        return Read(logits.view(*tokens.shape, -1), self._fused(states).view(*tokens.shape, -1))

    def words(self, tokens: Tensor, visual: Tensor, context: Tensor | None = None) -> Tensor:
        """The features (B, N, L, D) that `read` gives, without the work for its logits."""
        return self._fused(self._states(tokens, visual, context)).view(*tokens.shape, -1)

    def caption(
        self, visual: Tensor, length: int = 40, context: Tensor | None = None, beam: int = 1, per_beam: int = 2
    ) -> Captions:
        """Write a text about what was seen.

        Args:
            visual: see there.
            length: tokens at most, begin and end included.
            context: as for `read`.
            beam: texts followed at once; 1 = greedy, which never repeats a word at once.
            per_beam: see `search.beam_search`; the released configurations have 2 beside 4 beams, 1 beside 3.
        """
        config, shape = self.config.decoder, visual.shape[:2]
        seen = self._context(visual, context)
        begin = torch.full((len(seen.mask), length), config.end_token, device=visual.device)
        begin[:, 0] = config.begin_token
        if beam == 1:
            tokens, scores = greedy_search(TextState(self.decoder, seen, length), begin, config.end_token)
        else:
            state = TextState(self.decoder, seen.repeat(beam), length)
            found = beam_search(state, begin, config.end_token, beam, per_beam=per_beam)
            tokens, scores = found.best, found.scores[:, -1]
        return Captions(tokens.view(*shape, length), scores.view(shape))

    def word_points(self, words: Tensor, features: ImageFeatures) -> Tensor:
        """Points (B, N, L, n, 2) in pixels of `read`'s words; which words count is `located`'s to say.

        Raises:
            ValueError: the model tells no locations.
        """
        return to_pixels(self.relative_points(words, features)[0], features.sizes)

    def relative_points(self, words: Tensor, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """As `word_points`, in 0..1 of the pictures, and the head's logits."""
        if self.point_head is None:
            raise ValueError("this model tells no locations: it was made without points")
        found: tuple[Tensor, Tensor]
        found = (
            self.point_head(words, features.grid) if isinstance(self.point_head, MapHead) else self.point_head(words)
        )
        return found

    def located(self, tokens: Tensor) -> Tensor:
        """Which tokens' points count: (B, N, L) bool, by the configuration."""
        config = self.config.decoder
        return token_mask(tokens, self.config.located, config.begin_token, config.end_token)

    def refer(
        self, features: ImageFeatures, visual: Tensor, tokens: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Where expressions are: boxes (B, N, 4) in pixels, and the features of their words, see `words`.

        Args:
            features: of B pictures.
            visual: of the whole picture, or of a part that it is looked for in.
            tokens: (B, N, L) the expressions with begin and end; what follows the first end does not count.
            context: (B, N, P) the questions, in training the expressions themselves after "where is" with an end.
        """
        tokens = pad_after_end(tokens, self.config.decoder.end_token)
        words = self.words(tokens, visual, context)
        return word_boxes(self.word_points(words, features), self.located(tokens)), words

    def masks(self, features: ImageFeatures, boxes: Tensor, visual: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of boxes (B, N, 4) about which a text was read: logits (B, N, h, w), expected IoUs (B, N).

        Raises:
            ValueError: the model makes no masks, or the features have nothing to make them of.
        """
        if self.mask_decoder is None or features.masks is None:
            raise ValueError("this model makes no masks: it was made without them")
        encoder = self.prompt_encoder
        corners = encoder.embed_boxes(boxes, features.mask_canvas)
        if self.mask_adapter is not None:
            corners = self.mask_adapter(corners, visual, words)
        places = encoder.grid_code((features.masks.shape[1], features.masks.shape[2]))
        masks, quality = self.mask_decoder(features.masks, places, corners, encoder.no_mask_embed)
        return masks[:, :, 0], quality[:, :, 0]

    def _states(self, tokens: Tensor, visual: Tensor, context: Tensor | None) -> list[Tensor]:
        """Hidden states (B * N, L, H) of all depths."""
        return self.decoder.decode_states(tokens.flatten(0, 1), self._context(visual, context))

    def _fused(self, states: list[Tensor]) -> Tensor:
        """Features of words out of hidden states."""
        if not self.config.fuse_layers:
            return states[-1]
        chosen = [states[depth] for depth in self.config.fuse_layers]
        return torch.cat(chosen, -1) if self.config.fuse == "concat" else torch.stack(chosen).sum(0)

    def _context(self, visual: Tensor, context: Tensor | None) -> Context:
        """The decoder's view of what was seen and asked, one row for each location."""
        return self.decoder.encode_context(
            visual.flatten(0, 1), prefix=None if context is None else context.flatten(0, 1)
        )


def prepare(
    images: Tensor,
    valid: Tensor | None,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """Normalised pictures (B, *size, 3); padding is 0, so that it looks like the mean colour."""
    x = normalize(images, mean, std)
    if valid is not None:
        x = x * valid[..., None]
    return resize_map(x, size, "bilinear")


def picture_sizes(images: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B, 2) height and width in pixels of pictures (B, H, W, 3) without what `valid` (B, H, W) calls padding."""
    if valid is None:
        return images.new_tensor(images.shape[1:3], dtype=torch.float32).expand(len(images), 2)
    return torch.stack([valid.amax(2).sum(1), valid.amax(1).sum(1)], 1).float()
