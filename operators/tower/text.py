"""The text side of any open_clip tower at fixed shapes.

A sentence's row must not depend on its companions, so each call of the text model has one batch size and one of
a few lengths: sentences are grouped by their own length bucket and a short batch is filled with empty sentences.
Models with learned absolute positions over a fixed context (OpenAI's layout) always get their full context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BUCKETS = (16, 32, 64)


class TextReader:
    """Encodes sentences with an open_clip model and its tokenizer."""

    def __init__(self, model: Any, tokenize: Callable[[list[str]], Tensor], device: torch.device) -> None:
        """Wrap ``model.encode_text``; ``tokenize`` returns (n, context) int64 ids."""
        self.model = model
        self.tokenize = tokenize
        self.device = device
        # Only Hugging Face encoders mask padding themselves and so may be cut to the sentence's bucket.
        config = getattr(getattr(model, "text", None), "config", None)
        self.pad: int | None = getattr(config, "pad_token_id", None)

    def __call__(self, texts: Sequence[str], batch: int) -> Tensor:
        """Return raw features (n, E) float32, rows in the order of ``texts``.

        Raises:
            TypeError: ``texts`` is one string, or holds something that is none.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a list of strings, got the single string {texts!r}")
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"texts must be strings, got {text!r} of type {type(text).__name__}")
        ids = self.tokenize([*texts, ""])  # (n + 1, context); the last row fills short batches
        filler, ids = ids[-1], ids[:-1]
        rows: list[Tensor | None] = [None] * len(texts)
        for length, members in self._groups(ids).items():
            for start in range(0, len(members), batch):
                chosen = members[start : start + batch]
                padded = filler[:length].repeat(batch, 1)  # (batch, length)
                padded[: len(chosen)] = ids[chosen, :length]
                features = self._encode(padded)  # (batch, E)
                for index, row in zip(chosen, features[: len(chosen)], strict=True):
                    rows[index] = row
        if not texts:
            return torch.stack(list(self._encode(filler[None])))[:0]
        # Stacked outside inference mode, so that callers may do with the result what they like.
        return torch.stack([row for row in rows if row is not None])

    @torch.inference_mode()
    def _encode(self, ids: Tensor) -> Tensor:
        features: Tensor = self.model.encode_text(ids.to(self.device)).float().cpu()
        return features

    def _groups(self, ids: Tensor) -> dict[int, list[int]]:
        """Return {length: row numbers} by each row's own bucket."""
        context = ids.shape[1]
        if self.pad is None:
            return {context: list(range(len(ids)))}
        groups: dict[int, list[int]] = {}
        for index, used in enumerate((ids != self.pad).sum(1).tolist()):
            length = next((bucket for bucket in BUCKETS if used <= bucket < context), context)
            groups.setdefault(length, []).append(index)
        return groups
