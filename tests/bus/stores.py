"""Event stores of tests: what goes into them, and whether they are whole."""

import json
import sqlite3
from pathlib import Path

from onlooker.operators.events import make_event
from onlooker.pipeline.bus.record import Record, Stored
from onlooker.pipeline.bus.store_read import StoreReader

RUN = "01RUN"


def caption(no=0, text="a red truck", *, stream="cam1", phase="end", rev=0, run=RUN):
    """A caption as the bus takes it."""
    times = {"t_start": 0.0, "t_end": 1.0 if phase == "end" else None, "t_seen": 1.0}
    event = make_event("caption", stream=stream, epoch=0, event_no=no, rev=rev, phase=phase, text=text, **times)
    return Record.from_event(event, run)


def news(status, *, stream="cam1", rev=0, message=None, run=RUN):
    """A `stream` event."""
    phase = "end" if status == "ended" else "update" if rev else "new"
    times = {"t_start": 0.0, "t_end": 1.0 if phase == "end" else None, "t_seen": 1.0}
    told = {"status": status, "message": message, **times}
    return Record.from_event(
        make_event("stream", stream=stream, epoch=0, event_no=0, rev=rev, phase=phase, **told), run
    )


def everything(path: Path) -> list[Stored]:
    """All events, read page by page."""
    reader = StoreReader(path)
    found: list[Stored] = []
    upto, last = reader.position({"oldest": True}).seq, None
    while last is None or upto < last:
        stored, upto, last = reader.page(upto)
        found += stored
    reader.close()
    return found


def numbers(stored):
    """Their numbers."""
    return [event.header.seq for event in stored]


def ids(stored):
    """Their CloudEvents ids."""
    return [json.loads(event.body)["id"] for event in stored]


def check_whole(path: Path) -> None:
    """The file is sound, the full-text index says what the events say, and numbers have no gap."""
    with sqlite3.connect(path, isolation_level=None) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        count, first, last = db.execute("SELECT count(*), min(seq), max(seq) FROM events").fetchone()
        assert count == 0 or count == last - first + 1
        previous: dict[int, int] = {}
        for seq, prev, stream in db.execute("SELECT seq, prev, stream FROM events ORDER BY seq"):
            assert prev == previous.get(stream, prev) and prev < seq
            previous[stream] = seq
    db.close()
