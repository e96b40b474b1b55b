"""The report's file: complete, self-contained, bounded, and unmoved by hostile text."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from onlooker.operators.contract import End
from onlooker.pipeline.sinks.report import ReportSink

from .parts import caption, complete, files_beside, preview, query, rss, scores, started

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;'\"</td>"


class Page(HTMLParser):
    """The page as a browser's parser sees it: elements with attributes, and the text of table rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = path.read_text("utf-8")
        self._json = ""
        self.feed(self.text)
        self.close()
        self.data: dict[str, Any] = json.loads(self._json)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1]
        if tag == "script" and attributes.get("id") == "data":
            self._json += data
        elif self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def frames(self) -> list[tuple[float, dict[str, str | None]]]:
        """Time and image of each key frame."""
        times = [float(a["data-t"] or "nan") for a in self.all("button") if "data-t" in a]
        images = [a for a in self.all("img") if a.get("src")]
        return list(zip(times, images, strict=True))


def run(path: Path, text: str = "a cat looks into the camera", name: str = "a cat") -> Page:
    """A report of 20 s: captions every 5 s, one query event from 6 to 11."""
    sink = started(ReportSink(path, model="tiny"))
    picture = np.asarray(Image.fromarray(photographs.chelsea()).resize((320, 180)))
    for i in range(40):
        t = i / 2
        sink.packets("previews", [preview(t, i, picture)])
        sink.packets("scores", [scores(t, [name, "a dog"], [0.9 if 6 <= t < 11 else 0.1, 0.1])])
        if t == 6:
            sink.event(query(0, 6, None, name))
        if t == 11:
            sink.event(query(0, 6, 11, name, rev=1))
        if i and i % 10 == 0:
            sink.event(caption(i // 10 - 1, t - 5, t, text))
    complete(sink, 20.0)
    return Page(path)


def test_the_page_tells_what_happened(tmp_path: Path) -> None:
    page = run(tmp_path / "report.html")
    assert [row for row in page.rows if row] == [
        ["0:00.0 – 0:05.0", "a cat looks into the camera"],
        ["0:05.0 – 0:10.0", "a cat looks into the camera"],
        ["0:10.0 – 0:15.0", "a cat looks into the camera"],
        ["0:06.0 – 0:11.0", "a cat", "0.30"],
    ]
    assert page.data["duration"] == 20.0
    assert [q["name"] for q in page.data["queries"]] == ["a cat", "a dog"]
    assert max(page.data["queries"][0]["curve"], key=lambda point: point[1])[0] == 6.0
    for fact in ("clip", "0:20", "320 × 180", "3 captions", "1 query event", "model tiny", "complete"):
        assert f">{fact}<" in page.text


def test_key_frames_are_real_pictures_described_by_their_captions(tmp_path: Path) -> None:
    page = run(tmp_path / "report.html")
    assert [t for t, _ in page.frames] == [i / 2 for i in range(40)]
    t, image = page.frames[7]
    assert image["alt"] == "a cat looks into the camera"
    assert page.frames[35][1]["alt"] == "Frame at 0:17.5"
    kind, _, encoded = (image["src"] or "").partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert kind == "data:image/jpeg;base64" and picture.size == (320, 180)
    cat = np.asarray(Image.fromarray(photographs.chelsea()).resize((320, 180)), dtype=float)
    assert np.abs(np.asarray(picture, dtype=float) - cat).mean() < 6


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    page = run(tmp_path / "report.html")
    for tag, attributes in page.elements:
        assert not (tag in ("link", "iframe", "object", "embed", "base") or "srcset" in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "@import" not in page.text and "url(" not in page.text
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    tame, hostile = run(tmp_path / "tame.html"), run(tmp_path / "hostile.html", HOSTILE, HOSTILE)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in tame.elements]
    assert all(not name.startswith("on") for _, attributes in hostile.elements for name in attributes)
    assert len(hostile.all("script")) == 2
    assert hostile.rows[1][1] == HOSTILE and hostile.data["queries"][0]["name"] == HOSTILE
    assert hostile.frames[0][1]["alt"] == HOSTILE


def test_the_hostile_test_notices_unescaped_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onlooker.pipeline.sinks.report_page.escape", lambda text: text)
    with pytest.raises(AssertionError):
        test_hostile_text_stays_text(tmp_path)


def test_a_file_without_anything_in_it(tmp_path: Path) -> None:
    sink = started(ReportSink(tmp_path / "report.html"))
    complete(sink, 0.0)
    page = Page(tmp_path / "report.html")
    assert "No captions." in page.text and page.frames == [] and page.data["queries"] == []


def test_queries_that_found_nothing_are_named(tmp_path: Path) -> None:
    sink = started(ReportSink(tmp_path / "report.html"))
    sink.packets("scores", [scores(0.0, ["a cat", "a dog"], [0.1, 0.2])])
    complete(sink, 1.0)
    assert "None of the 2 queries was seen." in Page(tmp_path / "report.html").text


@pytest.mark.parametrize("events", [0, 1, 2, 3])
def test_closing_after_any_event_leaves_a_complete_page(tmp_path: Path, events: int) -> None:
    path = tmp_path / "report.html"
    sink = started(ReportSink(path))
    sink.packets("previews", [preview(0.0, 0)])
    for event in [query(0, 1, None, "a cat"), caption(0, 0, 5, "one"), caption(1, 5, 10, "two")][:events]:
        sink.event(event)
    sink.close()
    sink.close()
    page = Page(path)
    assert page.text.endswith("</html>\n") and "partial: interrupted" in page.text
    assert len([row for row in page.rows if row]) == events
    if events:
        assert page.rows[-2][0] == "0:01.0 – …"
    assert files_beside(path) == []


def test_an_older_report_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    sink = started(ReportSink(path))
    sink.event(caption(0, 0, 5, "new"))
    assert path.read_text() == "old"
    complete(sink, 5.0)
    assert "new" in path.read_text()


def test_how_the_stream_ended_is_said(tmp_path: Path) -> None:
    sink = started(ReportSink(tmp_path / "report.html"))
    sink.finish("clip", End("truncated", 3.0))
    sink.close()
    assert "partial: the source was cut short" in (tmp_path / "report.html").read_text()


def test_a_long_stream_takes_bounded_space(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    sink = started(ReportSink(path, max_frames=60))
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    before = 0
    for i in range(8_000):
        t = i / 2
        sink.packets("previews", [preview(t, i, noise)])
        sink.packets("scores", [scores(t, ["a cat", "a dog"], [float(i % 97), 1.0])])
        if i % 10 == 9:
            sink.event(caption(i // 10, t - 4.5, t + 0.5, f"caption {i // 10} about a cat"))
        if i == 2_000:
            before = rss()
        if i % 2_000 == 0:
            assert len(list(tmp_path.rglob("*.jpg"))) <= 60
    growth = rss() - before
    complete(sink, 4_000.0)
    assert growth < 4 << 20
    page = Page(path)
    times = np.array([t for t, _ in page.frames])
    assert 30 <= len(times) <= 60 and np.ptp(np.diff(times)) == 0
    assert all(len(q["curve"]) <= 2000 for q in page.data["queries"])
    assert len([row for row in page.rows if row]) == 800
    assert ">800 captions<" in page.text
