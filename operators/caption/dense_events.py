"""Events out of the token sequences of a dense captioning model: intervals and captions.

A sequence reads `<start> <end> word word ... <start> <end> word ...`. The rules, also those for sequences that are not
well-formed, are the evaluator's of Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024), because scores depend
on them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from onlooker.operators.caption.time_tokens import TimeTokens
from onlooker.operators.errors import OnlookerError


class TruncatedEventError(OnlookerError, IndexError):
    """A sequence ends with a start time that has no end time."""


@dataclass(frozen=True)
class DenseEvent:
    """An interval and the tokens of its caption.

    Attributes:
        start_us: in microseconds of the video.
        end_us: in microseconds; not checked to lie behind the start, nor inside the video.
        start_bin: the same as a bin.
        end_bin: the same as a bin; negative where a word stood in the place of the end time.
        tokens: of the caption, as they stood in the sequence, end and padding tokens included.
    """

    start_us: int
    end_us: int
    start_bin: int
    end_bin: int
    tokens: tuple[int, ...]


def parse_events(
    tokens: Sequence[int], times: TimeTokens, duration_us: int, *, strict: bool = True
) -> list[DenseEvent]:
    """Walk through a sequence from left to right.

    A time token opens an event; the token after it, whatever it is, is the event's end. All other tokens belong to the
    caption of the open event; before the first one they open an event [0, 0], so that a sequence of nothing but end
    tokens is one event without words.

    Args:
        tokens: the sequence without its begin token.
        times: the time tokens of the model.
        duration_us: of the video, in microseconds.
        strict: refuse a last time token that stands alone, as the reference does; False leaves it out.

    Returns:
        The events in the order of the sequence, overlaps and repetitions included.

    Raises:
        TruncatedEventError: the last token is a time without an end and `strict` is set.
    """
    found: list[tuple[int, int, list[int]]] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token < times.vocab_size:
            if not found:
                found.append((0, 0, []))
            found[-1][2].append(token)
        elif position < len(tokens):
            found.append((token - times.vocab_size, tokens[position] - times.vocab_size, []))
            position += 1
        elif strict:
            raise TruncatedEventError(
                f"the sequence ends with the start time {token} (bin {token - times.vocab_size}) and no end time; "
                "give the decoder more room (length), or parse with strict=False to leave it out"
            )
    return [
        DenseEvent(times.decode_bin(start, duration_us), times.decode_bin(end, duration_us), start, end, tuple(caption))
        for start, end, caption in found
    ]


def caption_text(tokens: Iterable[int], detokenize: Callable[[list[int]], str], stop: Container[int]) -> str:
    """Plain ASCII text of a caption: cut at the first stop token, other characters become spaces, ends stripped.

    Args:
        tokens: of one event.
        detokenize: words of ids; `wordpiece_text` for BERT, the SentencePiece model's own for T5.
        stop: end and padding token.
    """
    text = detokenize(list(takewhile(lambda token: token not in stop, tokens)))
    return "".join(c if c.isascii() else " " for c in text).strip()


def wordpiece_text(ids: Iterable[int], pieces: Sequence[str]) -> str:
    """Words of BERT pieces: joined with spaces, continuations (`##`) glued to what stands before them."""
    return " ".join(pieces[index] for index in ids).replace(" ##", "")
