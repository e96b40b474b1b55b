"""Dense video captioning with a streaming memory and streaming outputs: the GIT variant.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024). Frames become tokens, a clustering memory keeps a
constant number of them, and at every decoding point a GIT decoder writes `<start> <end> word ...` for the events so
far, with the captions of earlier points as its prefix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onlooker.operators.caption.contexts import StreamingResult, streaming_decode
from onlooker.operators.caption.dense_config import DenseConfig, FrameEncoderConfig, SearchConfig
from onlooker.operators.caption.dense_memory import memories_at_frames, memories_at_points, point_frames
from onlooker.operators.caption.git import GitDecoder, TextState
from onlooker.operators.caption.search import beam_search, greedy_search
from onlooker.operators.caption.spans import with_spans
from onlooker.operators.memory.times import MOMENTS, split_moments, with_moments
from onlooker.operators.tower.vit import VisionTransformer, normalize


class FrameEncoder(nn.Module):
    """Frames to tokens: the trunk and, if the config wants it, an embedding of the frame's number."""

    def __init__(self, config: FrameEncoderConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        self.vision = VisionTransformer(config.vision)
        shape = (config.num_frames, 1, config.vision.width)
        self.temporal_embedding = nn.Parameter(torch.zeros(shape)) if config.temporal_embedding else None

    def forward(self, images: Tensor) -> Tensor:
        """Videos (B, T, H, W, 3) uint8 to tokens (B, T, N, D) float32.

        Frames are taken as they are; `tower.vit.resize_crop` makes them the trunk's size.

        Raises:
            ValueError: another number of frames than the config's, or no RGB frames.
        """
        if images.ndim != 5 or images.shape[-1] != 3 or images.shape[1] != self.config.num_frames:
            raise ValueError(
                f"images of shape {tuple(images.shape)} are not videos (B, {self.config.num_frames}, H, W, 3)"
            )
        pixels = normalize(images.flatten(0, 1), self.config.pixel_mean, self.config.pixel_std)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            tokens = self.vision(pixels.to(self.vision.patch.weight.dtype))  # B * T, N, D
        return self.add_time(tokens.unflatten(0, images.shape[:2]))

    def add_time(self, tokens: Tensor) -> Tensor:
        """Tokens of the trunk (B, T, N, D) with the embedding of their frame, for tokens computed beforehand."""
        return tokens if self.temporal_embedding is None else tokens + self.temporal_embedding


class DenseCaptioner(nn.Module):
    """The dense model. `forward` gives logits under teacher forcing, `decode` writes the captions of videos."""

    def __init__(self, config: DenseConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        self.encoder = None if config.encoder is None else FrameEncoder(config.encoder)
        self.decoder = GitDecoder(config.decoder)

    def forward(
        self, images: Tensor, targets: Tensor, context: Tensor | None = None, frames: Tensor | None = None
    ) -> Tensor:
        """Logits (B * C, L, V) of the token after each target token, for C decoding points per video.

        Args:
            images: (B, T, H, W, 3) uint8.
            targets: (B, C, L) int64 rows `begin, tokens, end`, padded with 0.
            context: (B, C, P) int64 earlier captions in the same form; None = no prefix.
            frames: (B, C) int64, the frame from 0 after which each point lies; needed by, and only used by,
                memory points 'given_checkpoints'.
        """
        return self.forward_tokens(self.encode(images), targets, context, frames)

    def encode(self, images: Tensor) -> Tensor:
        """Videos (B, T, H, W, 3) uint8 to tokens (B, T, N, D); see `FrameEncoder`.

        Raises:
            ValueError: the model has no trunk.
        """
        if self.encoder is None:
            raise ValueError("this model has no trunk: give it the tokens of its tower (forward_tokens, decode_tokens)")
        return self.encoder(images)  # type: ignore[no-any-return]

    def forward_tokens(
        self, tokens: Tensor, targets: Tensor, context: Tensor | None = None, frames: Tensor | None = None
    ) -> Tensor:
        """`forward` from the tokens (B, T, N, D) of the frames, the temporal embedding included."""
        memory = self.training_memories(tokens, targets.shape[1], frames)  # B, C, M, D
        prefix = None if context is None else context.flatten(0, 1)
        return self.decoder(targets.flatten(0, 1), memory.flatten(0, 1), None, prefix)  # type: ignore[no-any-return]

    def training_memories(self, tokens: Tensor, points: int, frames: Tensor | None = None) -> Tensor:
        """Memories (B, C, M, D) of the tokens (B, T, N, D) at the C = `points` decoding points of training.

        Raises:
            ValueError: `frames` are missing, there are more points than the config allows, or the memories have
                different sizes.
        """
        config = self.config
        if config.memory.points == "given_checkpoints":
            if frames is None or frames.shape[1] != points:
                raise ValueError(
                    f"memory points 'given_checkpoints' need the frames of {points} points per video, got "
                    f"{None if frames is None else tuple(frames.shape)}"
                )
            if not config.spans:
                return memories_at_frames(tokens, config.memory, frames)
            memories = memories_at_frames(_numbered(tokens), config.memory, frames, MOMENTS)
            return self.memory_with_spans(*split_moments(memories), frames + 1)
        if points != config.train_points:
            raise ValueError(f"targets for {points} points do not fit train_points {config.train_points}")
        at_points = self._at_points(tokens, points)
        if len({memory.shape[1] for memory in at_points}) > 1:
            raise ValueError(f"memory method {config.memory.method!r} grows with the video: train it with one point")
        return torch.stack(at_points, 1)

    def memory_with_spans(self, memory: Tensor, times: Tensor, age: Tensor | float) -> Tensor:
        """The memory (..., M, D) as the decoder of a model with spans reads it: (..., M, D + 2 Q).

        Args:
            memory: the centres.
            times: (..., M, 2) mean and deviation of their times since the memory began, in any unit.
            age: (...) or one number, from there to the decoding point in the same unit.
        """
        return with_spans(memory, times, age, self.config.num_bins)

    def _at_points(self, tokens: Tensor, points: int) -> list[Tensor]:
        """The memory (B, M, D) of the tokens (B, T, N, D) at each decoding point, as the decoder reads it."""
        memory = self.config.memory
        if not self.config.spans:
            return memories_at_points(tokens, memory, points)
        timed = memories_at_points(_numbered(tokens), memory, points, MOMENTS)
        frames = point_frames(tokens.shape[1], points)
        return [
            self.memory_with_spans(*split_moments(centers), frame + 1.0)
            for centers, frame in zip(timed, frames, strict=True)
        ]

    @torch.no_grad()
    def decode(self, images: Tensor, search: SearchConfig | None = None) -> StreamingResult:
        """The captions of videos (B, T, H, W, 3) uint8, as token rows; `search` overrides the config's."""
        return self.decode_tokens(self.encode(images), search)

    @torch.no_grad()
    def decode_tokens(
        self, tokens: Tensor, search: SearchConfig | None = None, points: int | None = None
    ) -> StreamingResult:
        """`decode` from the tokens (B, T, N, D) of the frames, the temporal embedding included.

        `points` overrides the config's number of decoding points.
        """
        return self.decode_memories(self._at_points(tokens, points or self.config.test_points), search)

    @torch.no_grad()
    def decode_memories(self, memories: list[Tensor], search: SearchConfig | None = None) -> StreamingResult:
        """`decode` from the memory (B, M, D) at each decoding point, with its spans where the model has them."""
        config, decoder = self.config, self.config.decoder

        def decode_point(point: int, context: Tensor | None) -> Tensor:
            return search_text(self.decoder, memories[point], context, search or config.search, config.max_length)

        return streaming_decode(
            decode_point,
            len(memories),
            config.times,
            batch=len(memories[0]),
            length=config.max_length,
            begin=decoder.begin_token,
            end=decoder.end_token,
            options=config.context,
            device=memories[0].device,
        )


def _numbered(tokens: Tensor) -> Tensor:
    """Tokens (..., T, N, D) with the number of their frame as their time."""
    return with_moments(tokens, torch.arange(tokens.shape[-3], device=tokens.device))


@torch.no_grad()
def search_text(
    decoder: GitDecoder, memory: Tensor, prefix: Tensor | None, search: SearchConfig, max_length: int
) -> Tensor:
    """The likeliest text about each memory (B, M, D) after its prefix (B, P) int64: (B, max_length) int64."""
    begin = torch.full((len(memory), max_length), decoder.config.end_token, device=memory.device)
    begin[:, 0] = decoder.config.begin_token
    context = decoder.encode_context(memory, None, prefix)
    if search.method == "greedy":
        return greedy_search(TextState(decoder, context, max_length), begin, decoder.config.end_token)[0]
    state = TextState(decoder, context.repeat(search.beam), max_length)
    return beam_search(state, begin, decoder.config.end_token, search.beam, search.alpha).best
