"""Objects in the report: a table, bars on the timeline, and frames on the very pictures they were seen in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from onlooker.pipeline.sinks.report import ReportSink

from .parts import complete, preview, rss, started
from .test_live_outputs import LIVE, frame
from .test_report import HOSTILE, Page
from .test_report_browser import browser, rendered
from .tracks import Point, told, track

__all__ = ["browser"]  # a fixture


def standing(begin: float, end: float, left: float = 0.25) -> list[Point]:
    return [(t, left, 0.25, left + 0.5, 0.75) for t in np.arange(begin, end, 0.5).tolist()]


def report(path: Path, text: str = "a dog runs", name: str = "dog", max_frames: int = 300) -> Page:
    """20 s, previews twice a second; object 0 from 1 to 6, object 1 from 4 on and still there at the end."""
    sink = started(ReportSink(path, max_frames))
    events = told(0, standing(1.0, 6.1), text=text, name=name) + told(1, standing(4.0, 19.1, 0.0))[:-1]
    for i in range(40):
        sink.packets("previews", [preview(i / 2, i)])
        for event in [event for event in events if i / 2 - 0.5 < event.data.t_seen <= i / 2]:
            sink.event(event)
    complete(sink, 20.0)
    return Page(path)


def framed(page: Page) -> dict[float, int]:
    """How many objects are framed on each key frame."""
    pieces = page.text.split('<button type="button" data-t="')[1:]
    return {float(piece.split('"')[0]): piece.split("</button>")[0].count("<rect ") for piece in pieces}


def test_the_page_lists_objects_and_frames_them_where_they_were_seen(tmp_path: Path) -> None:
    page = report(tmp_path / "r.html")
    assert [row for row in page.rows if row] == [
        ["0:01.0 – 0:06.0", "0 dog", "a dog runs"],
        ["0:04.0 – …", "1", ""],
    ]
    assert ">2 objects<" in page.text
    assert framed(page) == {i / 2: (1 <= i / 2 <= 6) + (4 <= i / 2 <= 19) for i in range(40)}
    place = '<rect x="8" y="4.5" width="16" height="9"'  # of pictures of 32 x 18
    assert page.text.count(place) == 11


def test_key_frames_that_give_way_take_their_boxes_along(tmp_path: Path) -> None:
    page = report(tmp_path / "r.html", max_frames=12)
    assert framed(page) == {2.0 * i: (1 <= 2 * i <= 6) + (4 <= 2 * i <= 19) for i in range(10)}


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    tame, hostile = report(tmp_path / "a.html"), report(tmp_path / "b.html", HOSTILE, HOSTILE)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in tame.elements]
    assert [row for row in hostile.rows if row][0][2] == HOSTILE


def test_without_objects_nothing_is_said_of_them(tmp_path: Path) -> None:
    sink = started(ReportSink(tmp_path / "r.html"))
    sink.packets("previews", [preview(0.0, 0)])
    complete(sink, 1.0)
    page = Page(sink.path)
    assert "Objects</h2>" not in page.text and "0 objects" not in page.text and "<rect" not in page.text


def test_objects_of_all_epochs_stand_on_one_line_of_time(tmp_path: Path) -> None:
    sink = started(ReportSink(tmp_path / "r.html"), "rtsp://host/cam", LIVE)
    for epoch, zero in enumerate((4.0, 30.0)):
        sink.epoch("clip", zero)
        for i in range(10):
            sink.packets("previews", [frame(i / 2)])
        for event in told(epoch, standing(1.0, 3.1)):
            sink.event(event)
    sink.close()
    page = Page(sink.path)
    assert [row[0] for row in page.rows if row] == ["0:05.0 – 0:07.0", "0:31.0 – 0:33.0"]
    assert {t for t, boxes in framed(page).items() if boxes} == {z + i / 2 for z in (4.0, 30.0) for i in range(2, 7)}


def test_thousands_of_objects_take_bounded_space_and_the_longest_are_listed(tmp_path: Path) -> None:
    sink = started(ReportSink(tmp_path / "r.html", max_frames=20))
    before, count = 0, 3000
    for i in range(count):
        t = i / 2
        sink.packets("previews", [preview(t, i)])
        way = [(t, 0.1, 0.1, 0.5, 0.5), (t + 1 + i / 1000, 0.1, 0.1, 0.5, 0.5)]
        sink.event(track(i, 0, "new", way[:1], t, text=f"object {i}"))
        sink.event(track(i, 1, "end", way, t + 9, text=f"object {i} " * 20))
        if i == count // 2:
            before = rss()
    assert rss() - before < 3 << 20
    complete(sink, count / 2 + 9)
    page = Page(sink.path)
    listed = [int(row[1]) for row in page.rows if row]
    assert listed == list(range(count - 400, count))
    assert "the 400 longest of 3,000 objects" in page.text and ">3,000 objects<" in page.text
    assert len(page.text) < 600_000


def test_selecting_a_moment_lights_up_its_objects(browser: str, tmp_path: Path) -> None:
    report(tmp_path / "r.html")
    dom = rendered(browser, tmp_path / "r.html", tmp_path / "profile", "#t=5")
    assert len(re.findall(r"<tr style=\"--q[^>]* class=\"on\"", dom)) == 2
    assert len(re.findall(r'class="bar-object on"', dom)) == 2
    assert re.search(r'id="now-boxes"><svg class="boxes"[^>]*><rect ', dom)
    assert re.search(r'id="now-objects"><li [^>]*><i class="dot"></i>0 dog: a dog runs</li>', dom)
    assert [name for name in re.findall(r"</i>([^<]*)</li>", dom.split('id="now-objects"')[1])] == [
        "0 dog: a dog runs",
        "1",
    ]
    later = rendered(browser, tmp_path / "r.html", tmp_path / "profile", "#t=10")
    assert len(re.findall(r'class="bar-object on"', later)) == 1
    assert "0 dog: a dog runs</li>" not in later


def test_objects_on_the_picture_are_told_before_those_that_are_hidden(browser: str, tmp_path: Path) -> None:
    sink = started(ReportSink(tmp_path / "r.html"))
    for i in range(20):
        sink.packets("previews", [preview(i / 2, i)])
    hidden = [*standing(1.0, 2.1), *standing(7.0, 8.1)]
    for event in [*told(0, hidden, name="cat"), *told(1, standing(3.0, 6.1), name="dog")]:
        sink.event(event)
    complete(sink, 10.0)
    dom = rendered(browser, tmp_path / "r.html", tmp_path / "profile", "#t=4")
    assert re.findall(r"</i>([^<]*)</li>", dom.split('id="now-objects"')[1]) == ["1 dog", "0 cat"]
