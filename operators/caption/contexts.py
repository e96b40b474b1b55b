"""Decoding a video at several points: what each point is told of the earlier ones, and how their outputs are joined.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 3.2). At every decoding point the model
writes `<start> <end> word word ... <start> <end> word ...` with times relative to the part of the video seen so far.
The captions so far are the *context* of the next point, usually without their times; at the end the context is the
result.

All functions work on rows of token ids (B, L) int64 that start with the begin token and are padded with 0, know nothing
of models and run on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onlooker.operators.caption.time_tokens import TimeTokens

_PAD = 0

DecodePoint = Callable[[int, Tensor | None], Tensor]
"""(number of the point, context (B, L) or None) -> tokens (B, L) that the model writes there."""


@dataclass(frozen=True)
class StreamingOptions:
    """How contexts are made; the names are those of the reference's configuration, the defaults its released ones.

    Attributes:
        early_segments_as_context: later points see what earlier ones wrote, and the result holds all points. Without
            it every point stands alone and the result is what the last one wrote.
        no_timestamp_in_context: the model sees earlier captions without their time tokens.
        normalize_early_timestamps: earlier times are rescaled to the longer part of the video seen at the next point.
        copy_context: a point's output replaces the context instead of being joined to it.
        remove_segments_from_wrong_checkpoint: drop events that end behind the point at which they were written.
    """

    early_segments_as_context: bool = True
    no_timestamp_in_context: bool = True
    normalize_early_timestamps: bool = True
    copy_context: bool = False
    remove_segments_from_wrong_checkpoint: bool = False


@dataclass(frozen=True)
class DecodedPoint:
    """One decoding point.

    Attributes:
        tokens: (B, L) what the model wrote.
        context: (B, L) what had been written before, with times; None where points stand alone.
        fed: (B, L) the same as the model saw it.
    """

    tokens: Tensor
    context: Tensor | None
    fed: Tensor | None


@dataclass(frozen=True)
class StreamingResult:
    """Outcome of `streaming_decode`.

    Attributes:
        tokens: (B, L) the final sequence, its times relative to the whole video.
        points: every decoding point in order.
    """

    tokens: Tensor
    points: tuple[DecodedPoint, ...]


def streaming_decode(
    decode_point: DecodePoint,
    points: int,
    times: TimeTokens,
    *,
    batch: int,
    length: int,
    begin: int,
    end: int,
    options: StreamingOptions | None = None,
    device: torch.device | str | None = None,
) -> StreamingResult:
    """Decode all points of a batch of videos, each with the context of the earlier ones.

    Args:
        decode_point: the model; its rows start with `begin`.
        points: number P of decoding points.
        times: the time tokens of the model.
        batch: number B of videos.
        length: L, longest row; what does not fit is cut off at the end.
        begin: begin token.
        end: end token.
        options: None for the released configuration.
        device: of the contexts.

    Raises:
        ValueError: no points, rows without room for two tokens, or a model that returns another shape.
    """
    if points < 1 or length < 2:
        raise ValueError(f"need at least 1 point and rows of 2 tokens, got {points} points and length {length}")
    options = options or StreamingOptions()
    context = plain = empty_context(batch, length, begin, end, device) if options.early_segments_as_context else None
    decoded: list[DecodedPoint] = []
    for point in range(points):
        fed = plain if options.no_timestamp_in_context else context
        tokens = decode_point(point, fed)
        if tokens.shape != (batch, length):
            raise ValueError(f"point {point} was decoded to {tuple(tokens.shape)}, expected {(batch, length)}")
        decoded.append(DecodedPoint(tokens, context, fed))
        if context is None:
            continue
        if options.remove_segments_from_wrong_checkpoint:
            tokens = drop_wrong_checkpoint_segments(tokens, times, checkpoint_bin(times, points, point), begin, end)
        context = tokens if options.copy_context else merge_tokens([context, tokens], length, begin, end)
        if options.normalize_early_timestamps and point < points - 1:
            context = rescale_times(context, times, point)
        plain = drop_times(context, times)
    return StreamingResult(decoded[-1].tokens if context is None else context, tuple(decoded))


def empty_context(batch: int, length: int, begin: int, end: int, device: torch.device | str | None = None) -> Tensor:
    """Rows (B, L) int64 that hold nothing: begin, end, padding."""
    rows = torch.zeros(batch, length, dtype=torch.long, device=device)
    rows[:, 0], rows[:, 1] = begin, end
    return rows


def checkpoint_bin(times: TimeTokens, points: int, point: int) -> int:
    """The bin at which point 0 .. points - 1 lies; the last may lie behind the last bin."""
    return ((times.num_bins - 1) // points + 1) * (point + 1)


def merge_tokens(parts: Sequence[Tensor], length: int, begin: int, end: int) -> Tensor:
    """Join rows: every padding, begin and end token is removed, then one begin and one end are put around the rest.

    Args:
        parts: rows (B, any length), in order.
        length: L of the result. What does not fit is cut off; the end token then stands in the last place.
        begin: begin token.
        end: end token.

    Returns:
        (B, L), padded with 0.
    """
    joined = torch.cat(list(parts), dim=1)
    keep = (joined != _PAD) & (joined != begin) & (joined != end)
    packed, count = _pack_left(joined, keep)
    merged = joined.new_zeros(len(joined), length)
    merged[:, 0] = begin
    room = min(length - 1, packed.shape[1])
    merged[:, 1 : 1 + room] = packed[:, :room]
    return merged.scatter(1, (count + 1).clamp(max=length - 1)[:, None], end)


def rescale_times(tokens: Tensor, times: TimeTokens, point: int) -> Tensor:
    """Times relative to what was seen at `point` (from 0) become relative to what will be seen at the next one.

    With points at equal distances that is bin * (point + 1) / (point + 2), rounded down. The rounding adds up over
    points: old events drift towards the start, as in the reference.
    """
    return stretch_times(tokens, times, point + 1, point + 2)


def stretch_times(tokens: Tensor, times: TimeTokens, seen: int, total: int, slack: int = 0) -> Tensor:
    """Times relative to `seen` become relative to `total`, in any common unit: bin * seen / total, rounded down.

    `slack`, in the same unit, is added first: where lengths are themselves rounded, whole quotients have to stay whole.
    """
    bins = (tokens - times.vocab_size) * seen + slack
    stretched = torch.div(bins, total, rounding_mode="floor") + times.vocab_size
    return torch.where(times.is_time(tokens), stretched, tokens)


def drop_times(tokens: Tensor, times: TimeTokens) -> Tensor:
    """Rows (B, L) without their time tokens; what is left moves left, 0 fills the end."""
    return _pack_left(tokens, ~times.is_time(tokens))[0]


def drop_wrong_checkpoint_segments(tokens: Tensor, times: TimeTokens, limit: int, begin: int, end: int) -> Tensor:
    """Remove the events that end at bin `limit` or later, and words before the first event.

    Events are taken to be well-formed. Where they are not, the outcome is the reference's: a pair of neighbouring
    time tokens starts an event, its end is looked up by counting time tokens in pairs, and an event that this counting
    does not reach is dropped.

    Args:
        tokens: (B, L), time first.
        times: the time tokens.
        limit: first bin that is too late.
        begin: begin token.
        end: end token.
    """
    is_time = times.is_time(tokens)
    followed = torch.zeros_like(is_time)
    followed[:, :-1] = is_time[:, 1:]
    event = (is_time & followed).cumsum(1) - 1  # B, L; -1 before the first event

    pairs = tokens.shape[1] // 2
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    where, count = _pack_left(places, is_time)  # B, L: places of the time tokens
    bins = tokens.gather(1, where) - times.vocab_size
    # The begin token has place 0, so a time token there is one that no row of a model holds; it counts as missing.
    bins = torch.where((places < count[:, None]) & (where > 0), bins, limit + 1)
    in_time = bins[:, 1 : 2 * pairs : 2] < limit  # B, pairs
    # Behind the last countable pair everything stays; before the first event the last pair decides, which is missing
    # unless the row holds nothing but times.
    in_time = torch.cat([in_time, torch.ones_like(in_time[:, :1])], dim=1)
    keep = in_time.gather(1, torch.where(event < 0, pairs - 1, event.clamp(max=pairs)))
    return merge_tokens([tokens * keep], tokens.shape[1], begin, end)


def _pack_left(tokens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Kept tokens of every row (B, L) in order, then 0; and how many they are (B,)."""
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
    count = keep.sum(1)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.gather(1, order) * (places < count[:, None]), count
