"""Scores of whole paragraphs (one text a video): CIDEr and METEOR over the corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .cider import cider
from .meteor import Meteor

__all__ = ["evaluate_paragraphs"]

_NOT_A_LETTER = re.compile(r"[^a-zA-Z]")


def evaluate_paragraphs(
    predicted: Sequence[str], references: Sequence[Sequence[str]], *, meteor: Meteor | None = None
) -> dict[str, float]:
    """Corpus scores as the reference of Vid2Seq computes them (arXiv 2302.14115).

    Text is lower-cased and everything but a-z becomes a blank; the PTB tokenizer is not used.

    Args:
        predicted: one paragraph a video.
        references: one or more a video.
        meteor: without it there is no ``Para_METEOR``.

    Returns:
        ``Para_CIDER`` and ``Para_METEOR``, fractions.
    """
    hypotheses = [_letters(text) for text in predicted]
    truths = [[_letters(text) for text in texts] for texts in references]
    scores = {"Para_CIDER": cider(hypotheses, truths)[0]}
    return scores if meteor is None else scores | {"Para_METEOR": meteor.corpus(hypotheses, truths)}


def _letters(text: str) -> str:
    return " ".join(_NOT_A_LETTER.sub(" ", text).lower().split())
