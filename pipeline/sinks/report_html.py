"""Pieces of HTML and of text that the parts of the report share."""

from __future__ import annotations

__all__ = ["clock", "count", "number", "span_of", "time_cell"]


def span_of(t_start: float, t_end: float | None) -> str:
    """Attributes of an element that stands for [t_start, t_end), which the script reads; None where it still lasts."""
    return f'data-s="{number(t_start)}" data-e="{"" if t_end is None else number(t_end)}"'


def time_cell(t_start: float, t_end: float | None) -> str:
    """The cell of a table with a span, which is a button that selects its beginning."""
    end = "…" if t_end is None else clock(t_end, tenths=True)
    return f'<td class="time"><button type="button">{clock(t_start, tenths=True)} – {end}</button></td>'


def number(value: float) -> str:
    """A number in as few characters as three decimals take."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def count(items: int, word: str, plural: str = "") -> str:
    """``1 caption``, ``2,000 captions``."""
    return f"{items:,} {word if items == 1 else plural or word + 's'}"


def clock(seconds: float, *, tenths: bool = False) -> str:
    """``m:ss`` or ``h:mm:ss``, with ``tenths`` one decimal more."""
    units = round(max(0.0, seconds) * 10) if tenths else 10 * round(max(0.0, seconds))
    whole, tenth = divmod(units, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{text}.{tenth}" if tenths else text
