"""The tokens on which captions are scored: Penn Treebank tokens in lower case, without punctuation.

CIDEr and METEOR are defined on the output of the Stanford PTB tokenizer (CoreNLP 3.4.1, ``-preserveLines -lowerCase``)
from which the COCO caption evaluation drops a list of punctuation. This is an implementation of our own in Python,
made from what that program answers; ``tests/caption/test_metrics_ptb.py`` compares the two.

At each place all rules are tried; the one that reads furthest wins, what it only looks ahead at included, and of equals
the first. What follows a line counts too, as it does there: an abbreviation's period also ends the sentence when a
sentence begins after it, on the same line or the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .ptb_rules import OTHER_RULES, SPACE, WORD_RULES, WORD_START
from .ptb_words import ABBREVIATIONS, FUSED, NUMBER_ABBREVIATIONS, TITLES

__all__ = ["PUNCTUATION", "caption_tokens", "split_words", "tokenize"]

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""Tokens the COCO evaluation drops. It lists brackets in capitals, so the lower-cased ones stay."""

_LINE_BREAKS = re.compile("[\n\r\v\f\u2028\u2029]")
# The short cut for most words: letters that end at a blank or mark of punctuation, and are nothing special.
_PLAIN = re.compile("([A-Za-z]{2,})(?:[ \\n,;)]|\\.[ \\n]|\\.?\\Z)")
_NOT_PLAIN = ABBREVIATIONS | TITLES | NUMBER_ABBREVIATIONS


def tokenize(captions: Sequence[str]) -> list[str]:
    """Tokens between blanks, one string per caption.

    The captions are read as the lines of one text, in their order; see the module about what that can change.
    """
    lines = split_words("\n".join(_LINE_BREAKS.sub(" ", caption) for caption in captions))
    return [" ".join(word for word in line if word not in PUNCTUATION) for line in lines][: len(captions)]


@lru_cache(maxsize=1 << 16)
def caption_tokens(caption: str) -> str:
    """Tokens between blanks of one caption by itself: they do not depend on what else is scored."""
    return tokenize([caption, ""])[0]


def split_words(text: str) -> list[list[str]]:
    """All tokens of every line, in lower case."""
    text = text.replace("\u00ad", "")  # soft hyphens
    lines: list[list[str]] = [[]]
    position, end = 0, len(text)
    while position < end:
        match = _PLAIN.match(text, position)
        if match and match[1] not in _NOT_PLAIN and match[1].lower() not in FUSED:
            lines[-1].append(match[1].lower())
            position = match.end(1)
            continue
        if text[position] == "\n":
            lines.append([])
            position += 1
            continue
        if match := SPACE.match(text, position):
            position = match.end()
            continue
        words, position = _next(text, position)
        lines[-1] += [word.lower() for word in words]
    return lines


def _next(text: str, position: int) -> tuple[list[str], int]:
    """The tokens of the rule that reads furthest, and where they end. What no rule reads is dropped."""
    best, end, emit = None, position, None
    for pattern, maker in WORD_RULES if WORD_START.match(text, position) else OTHER_RULES:
        match = pattern.match(text, position)
        if match and match.end() > end:
            best, end, emit = match, match.end(), maker
    if best is None or emit is None:
        return [], position + 1
    return emit(best), best.end(1)
