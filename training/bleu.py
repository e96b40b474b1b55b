"""Corpus BLEU (Papineni et al. 2002), as image captioning reports it.

Texts are lower-cased, punctuation is removed, words are split at blanks. Counts are clipped by the reference that has
most of an n-gram, summed over the corpus; the effective reference length is that of the closest reference (the
shorter one of two equally close).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = re.compile(r"[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-case words of a text without its punctuation."""
    return _PUNCTUATION.sub("", text.lower()).split()


def corpus_bleu(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], max_order: int = 4
) -> tuple[float, ...]:
    """BLEU-1 to BLEU-`max_order` in 0..1 of one hypothesis and any number of references per item.

    Raises:
        ValueError: the lists differ in length or are empty.
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} items with references; need one for each")
    matches = [0] * max_order
    totals = [0] * max_order
    hypothesis_length = reference_length = 0
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        own, others = words(hypothesis), [words(text) for text in texts]
        hypothesis_length += len(own)
        reference_length += min((abs(len(other) - len(own)), len(other)) for other in others)[1]
        for order in range(max_order):
            found, total = _clipped(own, others, order + 1)
            matches[order] += found
            totals[order] += total
    if hypothesis_length == 0:
        return (0.0,) * max_order
    brevity = min(0.0, 1.0 - reference_length / hypothesis_length)
    scores, log_sum = [], 0.0
    for order in range(max_order):
        precision = matches[order] / totals[order] if totals[order] else 0.0
        log_sum += math.log(precision) if precision else -math.inf
        scores.append(math.exp(log_sum / (order + 1) + brevity))
    return tuple(scores)


def _clipped(own: list[str], others: list[list[str]], order: int) -> tuple[int, int]:
    """Matching and all n-grams of `own`."""
    grams = _ngrams(own, order)
    best: Counter[tuple[str, ...]] = Counter()
    for other in others:
        best |= _ngrams(other, order)
    return sum((grams & best).values()), sum(grams.values())


def _ngrams(tokens: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def sentence_bleu(hypothesis: str, references: Sequence[str], max_order: int = 4) -> float:
    """Smoothed BLEU of one sentence in 0..1: one match is added to every order above the first (Lin and Och 2004).

    Without it most single sentences score 0, and two of them cannot be compared.
    """
    own, others = words(hypothesis), [words(text) for text in references]
    if not own:
        return 0.0
    closest = min((abs(len(other) - len(own)), len(other)) for other in others)[1]
    log_sum = 0.0
    for order in range(1, max_order + 1):
        found, total = _clipped(own, others, order)
        precision = (found + 1) / (total + 1) if order > 1 else found / total
        if not precision:
            return 0.0
        log_sum += math.log(precision)
    return math.exp(log_sum / max_order + min(0.0, 1.0 - closest / len(own)))
