"""CIDEr (Vedantam et al. 2015, arXiv 1411.5726) as image and video captioning report it, in Python.

It is the variant of the COCO caption evaluation: TF-IDF over 1- to 4-grams, clipped counts, a Gaussian penalty on the
difference of lengths (sigma 6), times 10. Document frequencies come from the references that are scored together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

__all__ = ["cider"]

_ORDERS = 4
_SIGMA = 6.0

Ngram = tuple[str, ...]


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """CIDEr of tokenised captions (tokens between blanks).

    Args:
        hypotheses: one caption per item.
        references: one or more captions per item.

    Returns:
        The mean and the score of each item, in 0..10. A single item scores 0: its log document count is 0.

    Raises:
        ValueError: no items, lists of different length, or an item without reference.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(f"{len(hypotheses)} captions for {len(references)} items: each needs one, and a reference")
    cooked = [[_ngrams(text) for text in texts] for texts in references]
    frequency = Counter(ngram for counts in cooked for ngram in set().union(*counts))
    log_documents = math.log(len(cooked))
    vectors: dict[str, _Vector] = {}

    def vector(text: str, counts: Counter[Ngram] | None = None) -> _Vector:
        if text not in vectors:
            vectors[text] = _Vector(_ngrams(text) if counts is None else counts, frequency, log_documents)
        return vectors[text]

    scores = []
    for hypothesis, texts, counts in zip(hypotheses, references, cooked, strict=True):
        own = vector(hypothesis)
        total = sum(own.similarity(vector(text, count)) for text, count in zip(texts, counts, strict=True))
        scores.append(10.0 * total / len(texts))
    return math.fsum(scores) / len(scores), scores


def _ngrams(text: str) -> Counter[Ngram]:
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, _ORDERS + 1) for i in range(len(words) - n + 1))


class _Vector:
    """TF-IDF weights of one caption, with the norm per order."""

    def __init__(self, counts: Counter[Ngram], frequency: Counter[Ngram], log_documents: float) -> None:
        self.weights: list[dict[Ngram, float]] = [{} for _ in range(_ORDERS)]
        for ngram, count in counts.items():
            idf = log_documents - math.log(max(1, frequency[ngram]))
            self.weights[len(ngram) - 1][ngram] = count * idf
        self.norms = [math.sqrt(math.fsum(w * w for w in weights.values())) for weights in self.weights]
        # The published code measures the length in bigrams.
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)

    def similarity(self, reference: _Vector) -> float:
        """Mean over the orders of the clipped cosine, times the length penalty."""
        penalty = math.exp(-((self.length - reference.length) ** 2) / (2 * _SIGMA**2))
        total = 0.0
        for own, other, norm, other_norm in zip(
            self.weights, reference.weights, self.norms, reference.norms, strict=True
        ):
            if norm and other_norm:
                products = (min(w, other[ngram]) * other[ngram] for ngram, w in own.items() if ngram in other)
                total += math.fsum(products) / (norm * other_norm)
        return penalty * total / _ORDERS
