"""The rules of the PTB tokenizer: what one token can look like, see ``ptb.py``.

A rule is a pattern and what it makes. Group 1 of the pattern is what is consumed; what it matches beyond is looked at
only, but counts when rules compete. Each was found by asking the Stanford tokenizer and is compared with it in the
tests; none is taken from its source.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .ptb_words import ABBREVIATIONS, FUSED, NUMBER_ABBREVIATIONS, SENTENCE_STARTERS, TITLES

__all__ = ["OTHER_RULES", "SPACE", "WORD_RULES", "WORD_START", "Rule"]

Emit = Callable[[re.Match[str]], list[str]]
Rule = tuple[re.Pattern[str], Emit]


def _same(match: re.Match[str]) -> list[str]:
    return [match[1]]


def _as(*words: str) -> Emit:
    return lambda match: list(words)


def _head_and_period(match: re.Match[str]) -> list[str]:
    """An abbreviation, and the period of the sentence that it ends."""
    return [match[1], "."]


def _clitic(match: re.Match[str]) -> list[str]:
    return ["'" + match[1][1:]]


def _joined(match: re.Match[str]) -> list[str]:
    """One token with blanks inside, which become no-break spaces; parentheses get their names."""
    text = re.sub(_S, "\u00a0", match[1])
    return [text.replace("(", "-lrb-").replace(")", "-rrb-")]


_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}

# Character classes: a letter of any script with its combining marks, a letter or digit, an apostrophe, a blank, and a
# blank or end of line. Python counts numerals such as superscripts among the word characters; they are no letters here.
_NUMERAL = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u2189\u2460-\u249b\u24ea-\u24ff\u2776-\u2793"
_L = f"(?:[^\\W\\d_{_NUMERAL}][\u0300-\u036f]*)"
_A = f"(?:{_L}|[0-9])"
_Q = "['\u2019\x92]"
_S = "[ \\t\u00a0\u2000-\u200a\u3000]"
_N = "[ \\t\u00a0\u2000-\u200a\u3000\n]"

_fused = "|".join(FUSED)


def _any(words: frozenset[str]) -> str:
    """A pattern for one of the words, longer ones first."""
    return "(?:" + "|".join(sorted(words, key=lambda w: (-len(w), w))) + ")"


_starter = _any(frozenset(w for w in SENTENCE_STARTERS if w[0].isupper()))
_PATH = '[^\\s"<>|()]'
_PATH_END = '[^\\s"<>|.!?(){},-]'
_HOST = f"(?:(?:{_L}{_A}*\\.)+(?i:com|net|org|edu)|(?i:www)\\.(?:[A-Za-z0-9-]+\\.)+[A-Za-z]{{2,4}})"
_CLITIC = "(?i:s|d|m|ll|re|ve)(?![A-Za-z])"
_TAG = "<[!/]?[A-Za-z][^<>\n]*>"
_CAPITAL = "[A-Z\u00c0-\u00d6\u00d8-\u00de]"
_short = f"(?:{_any(ABBREVIATIONS)}|(?i:ph|ed)\\.[dD])"
_THING = f"{_A}+(?:[-_]{_A}+)*"

_WORDS: list[tuple[str, Emit]] = [
    # fused words and contractions
    (f"((?i:{_fused}))", lambda m: [m[1][:3], m[1][3:]]),
    (f"([A-Za-z]*[A-MO-Za-mo-z])[nN]{_Q}[tT]", _same),
    (f"([nN]{_Q}[tT])", lambda m: ["n't"]),
    # words, and compounds: well-known, he/she, file.txt
    (f"({_L}+)", _same),
    (f"({_THING})", _same),
    ("([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*(?:\\\\?/[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*){1,2})", _same),
    (f"({_L}{_A}*(?:\\.{_L}{_A}*)+(?:-{_A}+)*)", _same),
    # words that keep an apostrophe: O'Neill, l'amour, ma'am; y'all is cut after it
    (f"([dlnoA-HJ-Z]{_Q}(?!{_CLITIC}){_L}{_A}+|{_L}+[aeiouyAEIOUY]{_Q}(?!{_CLITIC})[aeiouA-Z]{_L}*)", _same),
    (f"((?i:[djly]|ol|somethin){_Q})", _same),
    (f"((?i:e{_Q}er|c{_Q}mon|c{_Q}est|ev{_Q}ry|li{_Q}l))", _same),
    # AT&T, C++, US$, Yahoo!s
    ("([A-Z]+(?:&[A-Z]+)+)", _same),
    ("([cC]\\+\\+|[cCfF]#|[A-Z]{1,3}\\$)", _same),
    ("([A-Za-z]+(?:[?!][A-Za-z]+)+)", _same),
    # abbreviations and acronyms
    # a letter with a period, alone or several: the sentence ends there if a usual beginning of one follows
    (f"([A-Za-z]\\.){_N}+(?:{_starter}{_S}|{_TAG}{_N})", lambda m: [m[1][0], "."]),
    (f"((?:[A-Za-z]\\.){{2,}}){_N}+(?:{_starter}{_S}|{_TAG}{_N})", _head_and_period),
    ("((?:[A-Za-z]\\.)+)", _same),
    # an abbreviation ends the sentence before a capital, a tag and the end of the text
    (f"({_short}\\.)(?:{_N}+(?:{_CAPITAL}|{_TAG}|\\Z)|\\Z)", _head_and_period),
    (f"({_short}\\.)(?:[\\s\\S][\\s\\S]|,)", _same),
    (f"({_short}\\.)", _head_and_period),
    (f"({_any(TITLES)}\\.)", _same),
    (f"({_any(NUMBER_ABBREVIATIONS)}\\.){_S}?[0-9]", _same),
    # any word keeps a period before these marks, and within a compound
    (f"({_THING}\\.)[,;:]", _same),
    ("([A-Za-z0-9][A-Za-z0-9.,]*(?:-[A-Za-z0-9]+)+)", _same),
    # addresses
    (f"((?i:https?://)(?={_PATH}*[./]){_PATH}*{_PATH_END})", _same),
    (f"({_HOST}(?:/{_PATH}+{_PATH_END})?)", _same),
    ('([A-Za-z0-9][^\\s"<>|()@]*@(?:[^\\s"<>|()@.]+\\.)*[^\\s"<>|()@.]*[^\\s"<>|()@.])', _same),
    # numbers
    ("([0-9]+(?:[.:,][0-9]+)*)", _same),
    (f"([0-9]+{_S}[0-9]+\\\\?/[0-9]+)", _joined),
    ("([0-9]{2,4}(?:[- \u00a0][0-9]{2,4})?[- \u00a0][0-9]{3,4}[- \u00a0][0-9]{3,5})", _joined),  # telephone
]

_SYMBOLS = (
    "\u2016\u2017\u201a\u201e-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e\u2080-\u208e\u20a4\u2100-\u2144"
    "\u214a-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffe6"
)

_OTHERS: list[tuple[str, Emit]] = [
    # addresses and numbers behind a sign
    (f"([#%&*+~^\u00a1-\u1fff\u2010-\u2027\u2030-\u2fff]{_HOST}(?:/{_PATH}+{_PATH_END})?)", _same),
    ("([-+]?[0-9]*(?:[.:,][0-9]+)+|[-+][0-9]+)", _same),
    # apostrophes and quotes; a straight one opens before a word and closes elsewhere
    (f"({_Q}(?i:[sdm]|ll|re|ve))[^A-Za-z]", _clitic),
    (f"({_Q}[sSdDmM])", _clitic),
    ("('(?i:tis|twas))", lambda m: [m[1][:2], m[1][2:]]),
    (f"({_Q}(?i:cause|em|n|till?))", _same),
    ("('n')", _same),
    (f"({_Q}[0-9]0s)", _same),
    (f"({_Q}[0-9]{{2}}){_N}", _same),
    ("('')", _same),
    ("(')[A-Za-z][^\\s]", _as("`")),
    (f"({_Q})", _as("'")),
    ("(``?)", _same),
    ("([\u2018\x91\u201b\u2039])", _as("`")),
    ("([\u2019\u201d]{2,})", lambda m: [m[1].replace("\u2019", "'").replace("\u201d", "''")]),
    ("(\u203a)", _as("'")),
    ("([\u201c\x93\u00ab])", _as("``")),
    ("([\u201d\x94\u00bb])", _as("''")),
    ('("|&quot;)[A-Za-z0-9$]', _as("``")),
    ('("|&quot;)', _as("''")),
    # dashes and dots
    ("(-[LRlr][RCSrcs][Bb]-)", _same),
    ("(-_-)", _same),
    ("(-{2,4}|[\u2013-\u2015\x96\x97])", _as("--")),
    ("(-+)", _same),
    ("(\\.{3,5}|[\u2026\x85]|\\.(?: \\.){2,4})", _as("...")),
    ("(\\.)", _same),
    ("(\\([0-9]{2,4}\\)[- \u00a0]?[0-9]{3,4}[- \u00a0]?[0-9]{3,5})", _joined),  # telephone
    # mark-up
    (f"({_TAG}|<!--[^\n]*?-->)", _joined),
    ("(<<|>>)", _same),
    ("(&(?i:amp);|&)", _as("&")),
    ("(&(?i:lt);|<)", _as("<")),
    ("(&(?i:gt);|>)", _as(">")),
    ("(&(?i:nbsp);)", _as()),
    ("(&(?i:apos);)", _as("'")),
    ("(&(?i:mdash|ndash);)", _as("--")),
    ("(&#[0-9]+;)", _same),
    # currencies and fractions
    ("([$\u20ac\x80\u00a4\u20a0])", _as("$")),
    ("(\u00a3)", _as("#")),
    ("(\u00a2)", _as("cents")),
    ("([\u00bc\u00bd\u00be\u2153\u2154])", lambda m: [_FRACTIONS[m[1]]]),
    # tags, runs of marks, faces (which need something after them), brackets, and what stands alone
    (f"(#{_L}+|##)", _same),
    ("(@[A-Za-z_][A-Za-z0-9_]*|@@)", _same),
    ("(\\*+|_+)", _same),
    ("([!?]+)", _same),
    ("(\\^_\\^|>_<|\\^\\.\\^)", _same),
    ("([:;=][-'o]?[()DPpdO\\]\\[{|@\\\\]|>:[()])[^A-Za-z0-9]", _joined),
    ("([()\\[\\]{}])", lambda m: [_BRACKETS[m[1]]]),
    ("([#%+,/:;=@\\\\^|~\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bf\u00d7\u00f7])", _same),
    (f"([{_SYMBOLS}])", _same),
]

SPACE = re.compile(f"{_S}+")
WORD_START = re.compile(_A)
"""A letter or an ASCII digit: ``WORD_RULES`` apply; else ``OTHER_RULES``."""
WORD_RULES: list[Rule] = [(re.compile(pattern), emit) for pattern, emit in _WORDS]
OTHER_RULES: list[Rule] = [(re.compile(pattern), emit) for pattern, emit in _OTHERS]
