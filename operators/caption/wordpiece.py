"""WordPiece over a small vocabulary, and readable English back from its pieces.

Pieces as in BERT (Devlin et al. 2018): the longest known prefix of a word first, then the longest known continuation
written with `##`. Text is lower-cased and loses its punctuation, except hyphens and apostrophes inside words, because
captions are learnt and scored in that form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIAL = (PAD, UNKNOWN, BEGIN, END)

_WORD = re.compile(r"[a-z0-9]+|['-]")
_TEXT = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*|'s\b")


def normalise(text: str) -> str:
    """Lower case, words of letters and digits separated by one space; "man 's" becomes "man's"."""
    return " ".join(_TEXT.findall(text.lower())).replace(" 's", "'s")


class WordPiece:
    """Text to piece ids and back. The id of a piece is its line in `vocab.txt`."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """Take the pieces in the order of their ids.

        Raises:
            ValueError: the special tokens do not come first.
        """
        if tuple(pieces[: len(SPECIAL)]) != SPECIAL:
            raise ValueError(f"a vocabulary starts with {', '.join(SPECIAL)}; this one starts with {pieces[:4]}")
        self.pieces = list(pieces)
        self._ids = {piece: index for index, piece in enumerate(self.pieces)}
        self._cache: dict[str, list[int]] = {}
        self.begin = self._ids[BEGIN]
        self.end = self._ids[END]

    @classmethod
    def from_file(cls, path: Path) -> WordPiece:
        """Read a vocabulary with one piece a line."""
        return cls(path.read_text(encoding="utf-8").splitlines())

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces of `text`, without begin and end; a word that cannot be spelt becomes one unknown."""
        return [piece for word in _WORD.findall(normalise(text)) for piece in self._word(word)]

    def decode(self, ids: Iterable[int]) -> str:
        """English text of the ids up to the end token: first letter upper case, special tokens left out."""
        words: list[str] = []
        for index in ids:
            if index == self.end:
                break
            piece = self.pieces[index]
            if piece in SPECIAL:
                continue
            if piece.startswith("##") and words:
                words[-1] += piece[2:]
            else:
                words.append(piece.removeprefix("##"))
        text = re.sub(r" ?(['-]) ?", r"\1", " ".join(words)).strip("'- ")
        return text[:1].upper() + text[1:]

    def _word(self, word: str) -> list[int]:
        known = self._cache.get(word)
        if known is None:
            known = self._cache[word] = self._split(word)
        return known

    def _split(self, word: str) -> list[int]:
        pieces: list[int] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            for stop in range(len(word), start, -1):
                index = self._ids.get(mark + word[start:stop])
                if index is not None:
                    pieces.append(index)
                    start = stop
                    break
            else:
                return [self._ids[UNKNOWN]]
        return pieces
