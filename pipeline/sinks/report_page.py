"""Writes the report's page: plain, complete HTML that a script then brings to life.

Captions, query events and key frames stand in the page as tables and pictures, so that it reads well without
JavaScript, on paper and with a screen reader; the timeline is drawn by ``report.js`` from those same elements. Whatever
a user or a model wrote is escaped, and a content security policy admits no script but ours and no network at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

from onlooker.operators.contract import SourceInfo

from .paths import Seen
from .report_html import clock, count, number, span_of, time_cell
from .report_objects import Thing, boxes_over, objects_card

__all__ = ["Caption", "Moment", "PageData", "Picture", "write_page"]

_STATUS = {
    "complete": "complete",
    "truncated": "partial: the source was cut short",
    "interrupted": "partial: interrupted",
    "failed": "partial: the run failed",
}
_LIVE_STATUS = {"interrupted": "watched until it was stopped", "removed": "watched until it was removed"}
"""Whoever watches a camera has to stop at some time; nothing is missing then."""


@dataclass(frozen=True)
class Caption:
    """A settled caption over [t_start, t_end), seconds."""

    t_start: float
    t_end: float
    text: str


@dataclass(frozen=True)
class Moment:
    """A query event over [t_start, t_end), seconds; ``t_end`` is None if it was still open."""

    query: str
    t_start: float
    t_end: float | None
    score: float | None


@dataclass(frozen=True)
class Picture:
    """A key frame: its time in seconds, size in pixels and JPEG file."""

    t: float
    width: int
    height: int
    file: Path
    boxes: Sequence[Seen] = ()
    """The objects on it."""


@dataclass(frozen=True)
class PageData:
    """What the page shows. Captions and moments are read as often as needed, one at a time."""

    info: SourceInfo
    size: tuple[int, int]
    """(width, height) of the video as shown, pixels; of a live stream the last one."""
    model: str
    status: str
    duration: float
    captions: Callable[[], Iterator[Caption]]
    moments: Callable[[], Iterator[Moment]]
    caption_count: int
    moment_count: int
    curves: dict[str, list[tuple[float, float]]]
    pictures: list[Picture]
    objects: list[Thing]
    """Of the objects that were followed, those that stayed longest."""
    object_count: int


def write_page(file: BinaryIO, page: PageData) -> None:
    """Stream the page into ``file``, UTF-8."""
    for part in _page(page):
        file.write(part.encode("utf-8", "replace"))


def _page(page: PageData) -> Iterator[str]:
    folder = files(__package__)
    script = folder.joinpath("report.js").read_text("utf-8")
    queries = _queries(page)
    yield from _head(page, folder.joinpath("report.css").read_text("utf-8"), script)
    yield from _header(page)
    yield "<main>"
    yield from _stage(page)
    yield '<div class="lists">'
    yield from _captions(page)
    yield from _moments(page, queries)
    yield "</div>"
    yield from objects_card(page.objects, page.object_count)
    yield from _pictures(page)
    yield "</main>"
    yield f'<script type="application/json" id="data">{_json(_chart_data(page, queries))}</script>'
    yield f"<script>{script}</script></body></html>\n"


def _head(page: PageData, style: str, script: str) -> Iterator[str]:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="color-scheme" content="light dark"><meta name="generator" content="onlooker">'
        f"<title>{escape(page.info.stream)} · onlooker</title><style>{style}</style></head><body>"
    )


def _header(page: PageData) -> Iterator[str]:
    facts = [
        clock(page.duration),
        *([f"from {_date(page.info.epoch / 1000)}"] if page.info.live else []),
        *([f"{page.size[0]} × {page.size[1]}"] if any(page.size) else []),
        count(page.caption_count, "caption"),
        *([count(page.moment_count, "query event")] if page.curves or page.moment_count else []),
        *([count(page.object_count, "object")] if page.object_count else []),
        *([f"model {page.model}"] if page.model else []),
    ]
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    told = _STATUS | _LIVE_STATUS if page.info.live else _STATUS
    status = told.get(page.status, f"partial: {page.status.replace('_', ' ')}")
    kind = "partial" if status.startswith("partial") else "ok"
    yield (
        '<header><div class="brand"><span>onlooker</span>'
        '<button type="button" id="theme" hidden>Dark</button></div>'
        f'<h1>{escape(page.info.stream)}</h1><ul class="facts">{items}'
        f'<li class="status {kind}">{escape(status)}</li></ul></header>'
    )


def _stage(page: PageData) -> Iterator[str]:
    """The selected moment and the timeline; both are filled by the script and hidden without it."""
    picture = (
        '<figure><img id="now-image" alt=""><div id="now-boxes"></div><figcaption id="now-frame"></figcaption></figure>'
    )
    figure = picture if page.pictures else ""
    yield (
        f'<section class="card now" id="now" aria-label="Selected moment" hidden>{figure}'
        '<div class="told" aria-live="polite"><p class="at"><span id="now-time"></span></p>'
        '<p id="now-caption"></p><ul id="now-queries" class="chips"></ul><ul id="now-objects"></ul></div></section>'
        '<section class="card" id="timeline" hidden><div class="bar"><h2>Timeline</h2><div class="zoom" role="group" '
        'aria-label="Zoom"><button type="button" id="zoom-out" aria-label="Zoom out">−</button>'
        '<button type="button" id="zoom-fit">Fit</button>'
        '<button type="button" id="zoom-in" aria-label="Zoom in">+</button></div></div>'
        '<div id="scroller" tabindex="0" role="slider" aria-label="Time" aria-describedby="keys">'
        '<div id="canvas"><div id="ruler"></div><div id="film"></div><div id="lane-captions" class="lane"></div>'
        '<div id="lanes"></div><div id="lane-objects" class="lane" hidden></div><div id="playhead"></div></div></div>'
        '<p id="keys" class="hint">Click to select a moment. Keys: ← → one second, Shift ← → caption by caption, '
        "+ − zoom, 0 fit.</p></section>"
    )


def _captions(page: PageData) -> Iterator[str]:
    yield '<section class="card"><div class="bar"><h2>Captions</h2>'
    yield '<input id="find" type="search" placeholder="Find…" aria-label="Find in captions" hidden></div>'
    if not page.caption_count:
        yield '<p class="empty">No captions.</p></section>'
        return
    yield '<div class="scroll"><table id="captions"><thead><tr><th scope="col">Time</th><th scope="col">Caption</th>'
    yield "</tr></thead><tbody>"
    for caption in page.captions():
        yield f"<tr {span_of(caption.t_start, caption.t_end)}>{time_cell(caption.t_start, caption.t_end)}"
        yield f"<td>{escape(caption.text)}</td></tr>"
    yield "</tbody></table></div></section>"


def _moments(page: PageData, queries: dict[str, int]) -> Iterator[str]:
    if not queries:
        return
    yield '<section class="card"><div class="bar"><h2>Query events</h2></div>'
    if not page.moment_count:
        yield f'<p class="empty">None of the {count(len(queries), "query", "queries")} was seen.</p></section>'
        return
    yield '<div class="scroll"><table id="moments"><thead><tr><th scope="col">Time</th><th scope="col">Query</th>'
    yield '<th scope="col" class="number">Score</th></tr></thead><tbody>'
    for moment in page.moments():
        place = queries[moment.query]
        score = "" if moment.score is None else f"{moment.score:.2f}"
        yield f'<tr data-q="{place}" {span_of(moment.t_start, moment.t_end)}>'
        yield time_cell(moment.t_start, moment.t_end)
        yield f'<td><i class="dot q{place % 8}"></i>{escape(moment.query)}</td><td class="number">{score}</td></tr>'
    yield "</tbody></table></div></section>"


def _pictures(page: PageData) -> Iterator[str]:
    if not page.pictures:
        return
    alts = _texts_at(page, [picture.t for picture in page.pictures])
    yield '<section class="card"><div class="bar"><h2>Key frames</h2>'
    yield f'<span class="hint">{len(page.pictures)}</span></div><div class="scroll frames" id="frames">'
    for picture, alt in zip(page.pictures, alts, strict=True):
        data = base64.b64encode(picture.file.read_bytes()).decode()
        alt = alt or f"Frame at {clock(picture.t, tenths=True)}"
        yield (
            f'<button type="button" data-t="{number(picture.t)}"><img decoding="async" width="{picture.width}" '
            f'height="{picture.height}" alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'
            f"{boxes_over(picture.width, picture.height, picture.boxes)}"
            f"<span>{clock(picture.t, tenths=True)}</span></button>"
        )
    yield "</div></section>"


def _texts_at(page: PageData, times: list[float]) -> list[str]:
    """The caption at each of the increasing ``times``, empty where there is none."""
    texts = [""] * len(times)
    for caption in page.captions():
        for i in range(bisect_left(times, caption.t_start), bisect_left(times, caption.t_end)):
            texts[i] = caption.text
    return texts


def _queries(page: PageData) -> dict[str, int]:
    """Each query's number, which is its colour: those with curves first, in their order."""
    queries = {name: i for i, name in enumerate(page.curves)}
    for moment in page.moments():
        queries.setdefault(moment.query, len(queries))
    return queries


def _chart_data(page: PageData, queries: dict[str, int]) -> object:
    def curve(name: str) -> list[list[float]]:
        return [[round(t, 3), round(value, 4)] for t, value in page.curves.get(name, [])]

    return {"duration": round(page.duration, 3), "queries": [{"name": n, "curve": curve(n)} for n in queries]}


def _json(value: object) -> str:
    """JSON that can stand in a script element: no character that HTML or JavaScript could take for something else."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _date(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
