"""Lists of class names, and the sentences that ask for a class.

A list is a text file with one class a line. Words for the same thing follow the name, parted by commas; what stands
behind a `#` at the beginning of a line or after a space is a comment:

    # what the camera of the yard should know
    dog
    tvmonitor, television, screen

Events carry the name. Each word is put into each template, and the class is the mean of all that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OnlookerError

__all__ = [
    "CLASS_TEMPLATES",
    "ClassEntry",
    "ClassListError",
    "class_prompts",
    "parse_classes",
    "query_prompts",
    "read_class_list",
]

CLASS_TEMPLATES = ("a {}", "there is a {} in the picture")
"""Used where the user gives none."""

_ARTICLES = {"a", "an", "the"}
_COMMENT = re.compile(r"(^|\s)#.*$")
_MOST = 10_000
_LONGEST = 200


class ClassListError(OnlookerError):
    """A list of classes, or a template, that cannot be used; one line says where and why."""


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """A class and the words for it."""

    name: str
    words: tuple[str, ...]
    """At least one; the name is the first of them."""


def read_class_list(path: str | Path) -> list[str]:
    """The lines of a list that name a class, comments taken out.

    Raises:
        ClassListError: the file cannot be read, is no text, or is not a list of classes.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ClassListError(f"cannot read the class list {str(path)!r}: {reason}.") from None
    except UnicodeDecodeError:
        raise ClassListError(
            f"the class list {str(path)!r} is no UTF-8 text; write one class a line in a text file."
        ) from None
    numbered = [(number, _COMMENT.sub("", line).strip()) for number, line in enumerate(text.splitlines(), start=1)]
    numbered = [(number, line) for number, line in numbered if line]
    if not numbered:
        raise ClassListError(f"the class list {str(path)!r} names no class; write one a line.")
    seen: dict[str, int] = {}
    for number, line in numbered:
        try:
            name = _entry(line).name
        except ClassListError as error:
            raise ClassListError(f"{str(path)!r}, line {number}: {error}") from None
        if name in seen:
            raise ClassListError(
                f"{str(path)!r}, line {number}: class {name!r} was named in line {seen[name]} already."
            )
        seen[name] = number
    return [line for _, line in numbered]


def parse_classes(lines: Sequence[str]) -> list[ClassEntry]:
    """The classes of a list's lines.

    Raises:
        ClassListError: there are too many, one has no name, or two have the same.
    """
    if len(lines) > _MOST:
        raise ClassListError(f"a list may name {_MOST} classes, this one names {len(lines)}.")
    entries = [_entry(line) for line in lines]
    twice, times = max(Counter(entry.name for entry in entries).items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ClassListError(f"class {twice!r} is named {times} times.")
    return entries


def class_prompts(entry: ClassEntry, templates: Sequence[str] = CLASS_TEMPLATES) -> list[str]:
    """Every word for the class in every template, word by word.

    Raises:
        ClassListError: there is no template, or one has no place for the word.
    """
    if not templates:
        raise ClassListError("a class needs at least one template, for example 'a photo of a {}'.")
    for template in templates:
        if template.count("{}") != 1:
            raise ClassListError(f"template {template!r} needs one {{}} where the class stands.")
    return [template.replace("{}", word) for word in entry.words for template in templates]


def query_prompts(query: str) -> list[str]:
    """The sentences that ask for a query: itself, or, of one or two words, those that ask for a class of that name.

    A full stop at the end says nothing about pictures and is left out, and so is the article of a short query.
    """
    text = query.strip().rstrip(" .") or query
    words = text.split()
    if words[0].lower() in _ARTICLES and len(words) > 1:
        words = words[1:]
    if len(words) > 2:
        return [text]
    return [template.replace("{}", " ".join(words)) for template in CLASS_TEMPLATES]


def _entry(line: str) -> ClassEntry:
    words = tuple(word.strip() for word in line.split(","))
    if not all(words):
        raise ClassListError(f"{line.strip()!r} has an empty word; write NAME or NAME, WORD, WORD.")
    if len(line) > _LONGEST:
        raise ClassListError(f"{line[:40].strip()!r}... is too long for a class; write NAME or NAME, WORD, WORD.")
    return ClassEntry(words[0], tuple(dict.fromkeys(words)))
