"""What a dense captioning model learns to write at each decoding point of a video, and what it is told of before.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 3.3). A point at bin b asks for the events
that end before b. Some that end before the previous point are handed over as *context* instead; which ones is drawn at
random, so that the model copes with contexts that miss some of what happened. Without points (`whole_video_row`), the
target is that of Vid2Seq: all events of the video in one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onlooker.operators.caption.time_tokens import TimeTokens
from onlooker.operators.errors import OnlookerError

_PAD = 0

Mask = npt.NDArray[np.bool_]


class TargetError(OnlookerError):
    """An annotation or option that no targets can be made of."""


class Draws(Protocol):
    """The randomness of targets; `numpy.random.Generator` is one."""

    def integers(self, low: int, high: int, /) -> Any:
        """One integer in low .. high - 1."""

    def random(self, size: int, /, *, dtype: type[np.float32]) -> npt.NDArray[np.float32]:
        """Uniform numbers (size,) in [0, 1)."""


@dataclass(frozen=True)
class AnnotatedVideo:
    """The events of a video, in the order in which they were annotated.

    Attributes:
        start_us: (n,) int64 microseconds.
        end_us: (n,) int64 microseconds.
        duration_us: of the video, positive.
        captions: n lists of word ids without begin and end token.
    """

    start_us: npt.NDArray[np.int64]
    end_us: npt.NDArray[np.int64]
    duration_us: int
    captions: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        """Check that every caption has its times."""
        if not len(self.captions) == len(self.start_us) == len(self.end_us):
            raise TargetError(
                f"{len(self.captions)} captions with {len(self.start_us)} starts and {len(self.end_us)} ends: "
                "every caption needs one of each"
            )


@dataclass(frozen=True)
class RowFormat:
    """How events become a row of tokens.

    Attributes:
        times: the time tokens; their number of bins is also the number of frames per video.
        begin: token that starts a row.
        end: token that ends it.
        length: L of a row, begin and end included; what is too long is cut off.
        event_length: length of an event's own row, begin token included. With times, an event keeps
            `event_length - 3` word pieces, because the reference drops two columns to make room for them.
    """

    times: TimeTokens
    begin: int
    end: int
    length: int = 256
    event_length: int = 128

    def row(self, captions: Iterable[Sequence[int]], bins: npt.NDArray[np.integer[Any]] | None) -> npt.NDArray[Any]:
        """(L,) int64 row of all captions, each after its two time tokens, or without times if `bins` (n, 2) is None."""
        tokens: list[int] = []
        for index, words in enumerate(captions):
            if bins is None:
                tokens += words[: self.event_length - 1]
            else:
                tokens += [self.times.vocab_size + int(time) for time in bins[index]]
                tokens += words[: self.event_length - 3]
        tokens = [token for token in tokens if token not in (_PAD, self.begin)][: self.length - 2]
        row = np.full(self.length, _PAD, np.int64)
        row[: len(tokens) + 2] = [self.begin, *tokens, self.end]
        return row

    def event_bins(self, video: AnnotatedVideo) -> npt.NDArray[np.int32]:
        """(n, 2) start and end bins on the whole video."""
        return self.times.encode(video.start_us, video.end_us, video.duration_us) - np.int32(self.times.vocab_size)


@dataclass(frozen=True)
class TargetOptions:
    """Where the points lie and what is handed over; names as in the reference's configuration, defaults those of GIT.

    Attributes:
        num_dense_outputs: number P of decoding points.
        normalize_early_timestamps: times of a point are relative to the part of the video seen so far.
        no_timestamp_in_context: captions are handed over without their times.
        dynamic_location: points lie anywhere, the last at the end (Vid2Seq on YouCook2), instead of at equal distances.
        continuous_random_mask: what is handed over are the events that end before a random bin; otherwise each event
            is drawn on its own.
        context_mask_ratio: probability with which an event is drawn.
        only_use_augmented_context: one row per point. Without it two: first the one with everything before the
            previous point as context, then the one with the random part.
    """

    num_dense_outputs: int = 16
    normalize_early_timestamps: bool = True
    no_timestamp_in_context: bool = True
    dynamic_location: bool = False
    continuous_random_mask: bool = True
    context_mask_ratio: float = 0.5
    only_use_augmented_context: bool = True

    def __post_init__(self) -> None:
        """Check the number of points."""
        if self.num_dense_outputs < 1:
            raise TargetError(f"num_dense_outputs {self.num_dense_outputs}: there must be at least one decoding point")


@dataclass(frozen=True)
class DenseTargets:
    """Rows of a video: R = P, or 2 P with `only_use_augmented_context` off.

    Attributes:
        text_tokens: (R, L) int64 what is to be written.
        context_tokens: (R, L) int64 what is known before.
        checkpoint_inds: (R,) int64 the frame after which the memory is read.
    """

    text_tokens: npt.NDArray[np.int64]
    context_tokens: npt.NDArray[np.int64]
    checkpoint_inds: npt.NDArray[np.int64]


def streaming_targets(video: AnnotatedVideo, rows: RowFormat, options: TargetOptions, draws: Draws) -> DenseTargets:
    """Rows for all decoding points of a video.

    An event belongs to the points behind the bin in which it ends, strictly: one that ends in a point's own bin is left
    to the next point.
    """
    bins = rows.event_bins(video)
    ends = bins[:, 1]
    texts, contexts, frames = [], [], []
    for point in range(options.num_dense_outputs):
        first, last = _point_range(point, rows.times.num_bins, options, draws)
        done, before = ends < last, ends < first
        drawn = _random_events(ends, done, options, draws)
        # Points anywhere have no previous point: all that is over may be handed over.
        handed = drawn & (done if options.dynamic_location else before)
        seen = _relative_bins(bins, last, rows.times.num_bins) if options.normalize_early_timestamps else bins
        for context in [handed] if options.only_use_augmented_context else [before, handed]:
            contexts.append(_select(rows, video, None if options.no_timestamp_in_context else seen, context))
            texts.append(_select(rows, video, seen, done & ~context))
            frames.append(min(last, rows.times.num_bins) - 1)
    return DenseTargets(np.stack(texts), np.stack(contexts), np.array(frames, np.int64))


def whole_video_row(video: AnnotatedVideo, rows: RowFormat) -> npt.NDArray[np.int64]:
    """(L,) all events in one row, with times relative to the whole video (Vid2Seq, and models without streaming)."""
    return rows.row(video.captions, rows.event_bins(video))


def _point_range(point: int, num_bins: int, options: TargetOptions, draws: Draws) -> tuple[int, int]:
    """Bins of the previous point and of this one."""
    if options.dynamic_location:
        last = int(draws.integers(1, num_bins + 1))
        # One point must see everything, since many events end with the video. Its draw is spent all the same, so that
        # recorded draws stay in step.
        return 0, num_bins if point == options.num_dense_outputs - 1 else last
    size = (num_bins - 1) // options.num_dense_outputs + 1
    return point * size, (point + 1) * size


def _random_events(ends: npt.NDArray[np.int32], done: Mask, options: TargetOptions, draws: Draws) -> Mask:
    """(n,) which events may be handed over."""
    if not options.continuous_random_mask:
        return draws.random(len(ends), dtype=np.float32) < np.float32(options.context_mask_ratio)
    # Below the latest end, so that at least one event is left to be written.
    latest = max(2, int(ends[done].max(initial=0)))
    return ends < int(draws.integers(1, latest))


def _relative_bins(bins: npt.NDArray[np.int32], last: int, num_bins: int) -> npt.NDArray[np.int32]:
    """Bins relative to the part of the video before bin `last`, which may be longer than the video."""
    relative: npt.NDArray[np.int32] = np.minimum(bins * num_bins // last, num_bins - 1)
    return relative


def _select(rows: RowFormat, video: AnnotatedVideo, bins: npt.NDArray[np.int32] | None, mask: Mask) -> npt.NDArray[Any]:
    """Row (L,) of the events in the mask."""
    chosen = np.flatnonzero(mask)
    return rows.row([video.captions[i] for i in chosen.tolist()], None if bins is None else bins[chosen])
