"""What localizers are asked for: the settings that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from ..contract import Config
from .class_lists import CLASS_TEMPLATES, class_prompts, parse_classes, query_prompts, read_class_list

__all__ = ["AskingConfig"]


def _read_classes(value: Any) -> Any:
    return read_class_list(value) if isinstance(value, str | Path) else value


class AskingConfig(Config):
    """Queries and classes. A list of classes is read when the settings are, so that a graph needs its file once."""

    queries: list[str] = Field(default_factory=list, description="What to look for, in words.")
    classes: Annotated[list[str], BeforeValidator(_read_classes)] = Field(
        default_factory=list, description="Class names to look for, or a text file with one a line."
    )
    templates: list[str] | None = Field(
        default=None,
        description="Sentences that ask for a class, {} being its name; the mean of all is what is looked for.",
    )
    on: float | None = Field(default=None, description="Score at which an event begins; default: the model's own.")
    off: float | None = Field(default=None, description="Score down to which it goes on; default: the model's own.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.on is not None and self.off is not None and self.off > self.on:
            raise ValueError(f"off should not be above on, got {self.off = }, {self.on = }")
        for query in self.queries:
            if not query.strip():
                raise ValueError("a query should say something, got an empty one")
        for entry in parse_classes(self.classes):
            class_prompts(entry, CLASS_TEMPLATES if self.templates is None else self.templates)
            if entry.name in self.queries:
                raise ValueError(f"{entry.name!r} is both a query and a class; leave one of them out")
        return self

    def prompts(self, templates: Sequence[str] = CLASS_TEMPLATES) -> dict[str, Sequence[str]]:
        """What to look for, by name, and the sentences that ask for it.

        Args:
            templates: those that ask for a class where the settings name none.
        """
        chosen = templates if self.templates is None else self.templates
        classes = {entry.name: class_prompts(entry, chosen) for entry in parse_classes(self.classes)}
        return {**{query: query_prompts(query) for query in self.queries}, **classes}
