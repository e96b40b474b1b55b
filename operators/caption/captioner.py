"""Captions from a memory: the decoder, its vocabulary and the search, in calls of fixed shape."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .git import PAD_TOKEN, GitDecoder, TextState
from .search import BeamResult, beam_search, brevity_penalty
from .wordpiece import WordPiece

MemoryLike = Tensor | npt.NDArray[Any]
Bonus = Callable[[int, list[str]], Sequence[float]]
"""What is added to the search scores of the texts about memory number i: a second opinion."""


class Proposal(NamedTuple):
    """A text that a search found."""

    text: str
    probability: float
    """Geometric mean of its tokens' probabilities."""
    total: float
    """Search score (log-probability over brevity penalty) plus bonus: what texts are compared by."""


@dataclass(frozen=True)
class DecodeOptions:
    """How texts are searched.

    Attributes:
        beam: live texts; 1 is nearly greedy.
        alpha: exponent of the brevity penalty; larger values prefer longer texts.
        max_length: positions of a text, begin and end included.
        prefix_length: positions of the earlier captions, begin and end included; the latest are kept.
        batch: memories decoded per model call. Calls are padded to it, since results depend on shapes in the last bits.
    """

    beam: int = 3
    alpha: float = 0.6
    max_length: int = 24
    prefix_length: int = 32
    batch: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        smallest = {"beam": 1, "max_length": 3, "prefix_length": 3, "batch": 1}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


class CaptionModel(ABC):
    """Anything that writes captions about memories; its calls are thread-safe.

    Attributes:
        options: how it searches.
    """

    options: DecodeOptions

    @property
    @abstractmethod
    def token_width(self) -> int:
        """Width D of the memory tokens it was trained on."""

    @abstractmethod
    def to(self, device: str) -> None:
        """Move the model; memories may come from anywhere."""

    @abstractmethod
    def propose(
        self,
        memories: Sequence[MemoryLike],
        prefixes: Sequence[Sequence[str]] | None = None,
        beam: int | None = None,
        bonus: Bonus | None = None,
    ) -> list[list[Proposal]]:
        """The texts that the search finds for each memory, best first by search score plus `bonus`."""

    def caption(
        self, memory: MemoryLike, prefix: Sequence[str] = (), beam: int | None = None
    ) -> list[tuple[str, float]]:
        """Captions of one memory (M, D), best first, with the geometric mean of their token probabilities.

        Args:
            memory: its tokens, float32.
            prefix: earlier captions, oldest first.
            beam: overrides the option.

        Raises:
            ValueError: the memory is empty, too long or of another width.
        """
        return self.caption_batch([memory], [prefix], beam)[0]

    def caption_batch(
        self,
        memories: Sequence[MemoryLike],
        prefixes: Sequence[Sequence[str]] | None = None,
        beam: int | None = None,
    ) -> list[list[tuple[str, float]]]:
        """`caption` for several memories; what one of them gets does not depend on the others."""
        proposals = self.propose(memories, prefixes, beam)
        return [[(proposal.text, proposal.probability) for proposal in own] for own in proposals]


class Captioner(CaptionModel):
    """Our own decoder as a caption model; it keeps no state between calls."""

    def __init__(
        self, decoder: GitDecoder, vocabulary: WordPiece, memory_size: int, options: DecodeOptions | None = None
    ) -> None:
        """Put the parts together; `memory_size` is K, the longest memory that the decoder was trained on."""
        if len(vocabulary) > decoder.config.vocab_size:
            raise ValueError(
                f"the vocabulary has {len(vocabulary)} pieces but the decoder only {decoder.config.vocab_size} rows"
            )
        self.decoder = decoder.eval()
        self.vocabulary = vocabulary
        self.memory_size = memory_size
        self.options = options or DecodeOptions()

    @property
    def token_width(self) -> int:
        """Width D of the memory tokens it was trained on."""
        return self.decoder.config.visual_width

    def to(self, device: str) -> None:
        """See `CaptionModel.to`."""
        self.decoder.to(device)

    def propose(
        self,
        memories: Sequence[MemoryLike],
        prefixes: Sequence[Sequence[str]] | None = None,
        beam: int | None = None,
        bonus: Bonus | None = None,
    ) -> list[list[Proposal]]:
        """The texts that the search finds for each memory, best first by search score plus `bonus`."""
        if prefixes is None:
            prefixes = [()] * len(memories)
        texts: list[list[Proposal]] = [[] for _ in memories]
        # Two kinds of call, so that the usual one, without earlier captions, does not pay for the room of a prefix.
        for length in (2, self.options.prefix_length):
            items = [i for i, captions in enumerate(prefixes) if (len(captions) > 0) == (length > 2)]
            for start in range(0, len(items), self.options.batch):
                group = items[start : start + self.options.batch]
                packed = self._pack([memories[i] for i in group], [prefixes[i] for i in group], length)
                result = self.search(*packed, beam)
                for row, item in enumerate(group):
                    own = self._read(result, row)
                    if bonus is not None:
                        extra = bonus(item, [proposal.text for proposal in own])
                        own = [p._replace(total=p.total + more) for p, more in zip(own, extra, strict=True)]
                    texts[item] = sorted(own, key=lambda proposal: -proposal.total)
        return texts

    @torch.inference_mode()
    def search(self, memory: Tensor, mask: Tensor | None, prefix: Tensor | None, beam: int | None = None) -> BeamResult:
        """Beam search over packed tensors; shapes as in `GitDecoder.encode_context`."""
        options = self.options
        beam = beam or options.beam
        config = self.decoder.config
        context = self.decoder.encode_context(memory, mask, prefix).repeat(beam)
        begin = torch.full((memory.shape[0], options.max_length), config.end_token, device=memory.device)
        begin[:, 0] = config.begin_token
        state = TextState(self.decoder, context, options.max_length)
        return beam_search(state, begin, config.end_token, beam, options.alpha)

    def prefix_tokens(self, captions: Sequence[str]) -> list[int]:
        """Earlier captions as one prefix: begin, their pieces, end; cut at the front to `prefix_length`."""
        pieces = [piece for text in captions for piece in self.vocabulary.encode(text)]
        room = self.options.prefix_length - 2
        return [self.vocabulary.begin, *pieces[max(0, len(pieces) - room) :], self.vocabulary.end]

    def _pack(
        self, memories: Sequence[MemoryLike], prefixes: Sequence[Sequence[str]], length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tensors of the option's batch size, padded with zeros: (B, K, D), (B, K) bool, (B, length) int64."""
        batch = self.options.batch
        device = self.decoder.words.weight.device
        tokens = torch.zeros(batch, self.memory_size, self.token_width)
        mask = torch.zeros(batch, self.memory_size, dtype=torch.bool)
        prefix = torch.full((batch, length), PAD_TOKEN)
        # A padding item sees its (empty) prefix only, so that no row of attention weights is empty.
        prefix[:, 0], prefix[:, 1] = self.vocabulary.begin, self.vocabulary.end
        for item, (memory, captions) in enumerate(zip(memories, prefixes, strict=True)):
            rows = memory_rows(memory)
            self._check(rows)
            tokens[item, : rows.shape[0]] = rows
            mask[item, : rows.shape[0]] = True
            ids = self.prefix_tokens(captions)
            prefix[item, : len(ids)] = torch.tensor(ids)
        return tokens.to(device), mask.to(device), prefix.to(device)

    def _check(self, rows: Tensor) -> None:
        if rows.ndim != 2 or not 0 < rows.shape[0] <= self.memory_size or rows.shape[1] != self.token_width:
            raise ValueError(
                f"a memory of shape {tuple(rows.shape)} does not fit this captioner: it takes 1 to "
                f"{self.memory_size} tokens of width {self.token_width}"
            )

    def _read(self, result: BeamResult, item: int) -> list[Proposal]:
        """What the search found for one item, best first, each text once."""
        texts: dict[str, tuple[float, float]] = {}
        end = self.decoder.config.end_token
        for sequence, score in zip(result.sequences[item].flip(0), result.scores[item].tolist()[::-1], strict=True):
            ids = sequence[1:].tolist()
            if not any(ids):
                continue  # a slot in which no text was finished
            written = ids.index(end) + 1 if end in ids else len(ids)
            logprob = score * brevity_penalty(written, self.options.alpha)
            texts.setdefault(self.vocabulary.decode(ids), (math.exp(logprob / written), score))
        return [Proposal(text, *scores) for text, scores in texts.items()]


def memory_rows(memory: MemoryLike) -> Tensor:
    """The tokens of a memory as a float32 tensor that may be written to."""
    if isinstance(memory, np.ndarray):
        # A copy: packets are read-only and torch has no read-only tensors.
        return torch.from_numpy(memory.astype(np.float32))
    return memory.to(torch.float32)
