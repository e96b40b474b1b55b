"""Reading the event store: pages for replay, snapshots of what is open, and search. Needs no bus that runs."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .protocol import PAGE_BYTES, PAGE_EVENTS, Header, ProtocolError
from .record import Stored
from .store_schema import EVENT_COLUMNS, StoreError, connect_reader, failures, first_at, transaction

__all__ = ["Page", "Position", "Snapshot", "StoreError", "StoreReader", "StreamState"]

SCAN_EVENTS = 20_000
"""Events that one page looks at, so that a page of a rare kind in a long store takes no longer than others."""
SEARCH_EVENTS = 20_000
"""Matching events among which search chooses the best, the newest ones: words may be in every event of a long store."""
_QUOTED = re.compile(r'"([^"]*)"|([^\s"]+)')


class Page(NamedTuple):
    """One page of a replay."""

    stored: list[Stored]
    upto: int
    """The page holds everything that was asked for up to this number."""
    last: int
    """Last number in the store."""


class Position(NamedTuple):
    """Where a replay begins; section 5 of the protocol."""

    seq: int
    """The number to read after."""
    reset: bool
    lost: tuple[int, int] | None


class Snapshot(NamedTuple):
    """The newest revisions of open events, by number."""

    stored: list[Stored]
    seq: int
    more: bool


class StreamState(NamedTuple):
    """What the store knows of a stream."""

    stream: str
    seq: int
    time: float
    run: str
    status: str | None
    open: bool


class _Row(NamedTuple):
    seq: int
    time: float
    prev: int
    event: int
    run: int
    stream: int
    kind: int
    text: str | None
    body: bytes


_BARE_COLUMNS = EVENT_COLUMNS.replace("text", "NULL")


class StoreReader:
    """A view of the store for one thread. Each call sees one state of it, and holds up no writer.

    Raises:
        StoreError: there is no store at the path, or it is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the file; it is read only."""
        self.path = Path(path)
        self._db = connect_reader(self.path)
        self._names: dict[str, dict[int, str]] = {"streams": {}, "runs": {}, "kinds": {}}
        self._epochs: list[tuple[int, str]] = []

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def bounds(self) -> tuple[int, int]:
        """First number that is stored (last + 1 where nothing is), and the last one that was given."""
        with self._view() as bounds:
            return bounds

    def page(
        self,
        after: int,
        *,
        until: int | None = None,
        streams: Collection[str] = (),
        kinds: Collection[str] = (),
        limit: int = PAGE_EVENTS,
        max_bytes: int = PAGE_BYTES,
    ) -> Page:
        """The next events after a number, in order.

        Args:
            after: a number, as `position` gives it.
            until: last number that is wanted.
            streams, kinds: only these; empty for all.
            limit: most events.
            max_bytes: most bytes of bodies; one event comes in any case.
        """
        with self._view() as (_, last):
            end = min(last, after + SCAN_EVENTS, last if until is None else until)
            where, values = self._filter(streams, kinds)
            found, cut = self._gather(
                f"SELECT {_BARE_COLUMNS} FROM events WHERE seq > ? AND seq <= ?{where} ORDER BY seq",
                (after, end, *values),
                limit,
                max_bytes,
            )
            return Page(found, found[-1].seq if cut else max(after, end), last)

    def position(self, after: Mapping[str, Any]) -> Position:
        """Where to read on for one who says where he was; section 5 of the protocol, ``replay``.

        Raises:
            ProtocolError: that is no position.
        """
        with self._view() as (oldest, last):
            if after.get("oldest") is True:
                return Position(oldest - 1, False, None)
            if "time" in after:
                return Position(first_at(self._db, oldest, last, _number(after["time"])) - 1, False, None)
            seq, epoch = after.get("seq"), after.get("epoch")
            if type(seq) is not int or seq < 0 or not isinstance(epoch, str | None):
                raise ProtocolError('a position is {"seq": ..., "epoch": ...}, {"time": ...} or {"oldest": true}')
            begin, reset = self._known(seq, epoch, oldest, last)
            lost = (begin + 1, oldest - 1) if begin + 1 < oldest else None
            return Position(max(begin, oldest - 1), reset, lost)

    def open_events(
        self,
        *,
        after: int = 0,
        streams: Collection[str] = (),
        kinds: Collection[str] = (),
        limit: int = PAGE_EVENTS,
        max_bytes: int = PAGE_BYTES,
    ) -> Snapshot:
        """The newest revision of every open event, and so of every stream that has not ended.

        Args:
            after: number of the last event of the page before.
            streams, kinds: only these; empty for all.
            limit: most events.
            max_bytes: most bytes of bodies; one event comes in any case.
        """
        with self._view() as (_, last):
            where, values = self._filter(streams, kinds)
            found, more = self._gather(
                f"SELECT * FROM (SELECT {_BARE_COLUMNS} FROM events UNION ALL SELECT {_BARE_COLUMNS} FROM kept) "
                f"WHERE seq IN (SELECT seq FROM open WHERE seq > ?){where} ORDER BY seq",
                (after, *values),
                limit,
                max_bytes,
            )
            return Snapshot(found, last, more)

    def streams(self) -> list[StreamState]:
        """All streams that ever had an event, the one with the newest event first."""
        with self._view():
            rows = self._db.execute(
                "SELECT streams.name, seq, time, runs.name, status, NOT over FROM streams "
                "JOIN runs ON runs.id = streams.run ORDER BY seq DESC"
            )
            return [
                StreamState(stream, seq, time, run, status, bool(going))
                for stream, seq, time, run, status, going in rows
            ]

    def search(
        self,
        text: str,
        *,
        since: float | None = None,
        until: float | None = None,
        streams: Collection[str] = (),
        kinds: Collection[str] = (),
        limit: int = 50,
    ) -> list[Stored]:
        """Events whose words match, best first by BM25, newest first where equal.

        Of an event with several revisions that match, the newest comes. Where very many match, these are the best among
        the `SEARCH_EVENTS` newest.

        Args:
            text: words, all of which must occur; ``"..."`` for a phrase. Nothing else is syntax.
            since, until: Unix seconds of the commit, half-open.
            streams, kinds: only these; empty for all.
            limit: most events.
        """
        query = match_expression(text)
        if not query:
            return []
        with self._view() as (oldest, last):
            first = oldest if since is None else first_at(self._db, oldest, last, _number(since))
            end = last + 1 if until is None else first_at(self._db, oldest, last, _number(until))
            where, values = self._filter(streams, kinds)
            rows = self._db.execute(
                "WITH found AS MATERIALIZED ("
                "SELECT seq, event, words.rank AS score FROM words JOIN events ON seq = words.rowid "
                f"WHERE words MATCH ? AND words.rowid >= ? AND words.rowid < ?{where} "
                "ORDER BY words.rowid DESC LIMIT ?) "
                # Beside max() SQLite takes the other columns from the same row: the score is that of the newest.
                "SELECT max(seq) AS newest, score FROM found GROUP BY event ORDER BY score, newest DESC LIMIT ?",
                (query, first, end, *values, SEARCH_EVENTS, limit),
            )
            return [self._stored(self._row(seq)) for seq, _ in rows.fetchall()]

    @contextmanager
    def _view(self) -> Iterator[tuple[int, int]]:
        """One state of the store for all that the block reads; gives the first and the last number."""
        with failures(self.path), transaction(self._db, "DEFERRED"):
            oldest, last, gone = self._db.execute(
                "SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events), gone FROM state"
            ).fetchone()
            epochs = self._db.execute("SELECT max(id) FROM epochs").fetchone()[0]
            if epochs != len(self._epochs):
                self._epochs = self._db.execute("SELECT first, name FROM epochs ORDER BY id").fetchall()
            yield oldest or gone + 1, last or gone

    def _gather(self, question: str, values: Sequence[float], limit: int, max_bytes: int) -> tuple[list[Stored], bool]:
        """The events of a query up to the limits, one in any case, and whether these cut it short."""
        found: list[Stored] = []
        size = 0
        with closing(self._db.execute(question, values)) as rows:
            for row in map(_Row._make, rows):
                size += len(row.body)
                if found and (size > max_bytes or len(found) >= limit):
                    return found, True
                found.append(self._stored(row))
        return found, False

    def _row(self, seq: int) -> _Row:
        return _Row._make(self._db.execute(f"SELECT {_BARE_COLUMNS} FROM events WHERE seq = ?", (seq,)).fetchone())

    def _stored(self, row: _Row) -> Stored:
        # Several epochs may begin at the same number: those between had no event.
        epoch = self._epochs[bisect_right(self._epochs, row.seq, key=lambda epoch: epoch[0]) - 1][1]
        header = Header(epoch, row.seq, row.prev, self._name("runs", row.run), row.time)
        return Stored(self._name("streams", row.stream), self._name("kinds", row.kind), header, row.body)

    def _name(self, table: str, number: int) -> str:
        names = self._names[table]
        if number not in names:
            names.update(self._db.execute(f"SELECT id, name FROM {table}"))
        return names[number]

    def _filter(self, streams: Collection[str], kinds: Collection[str]) -> tuple[str, list[int]]:
        """A condition on events, with its values."""
        where, values = "", list[int]()
        for column, table, wanted in (("stream", "streams", streams), ("kind", "kinds", kinds)):
            if wanted:
                self._names[table].update(self._db.execute(f"SELECT id, name FROM {table}"))
                numbers = [number for number, name in self._names[table].items() if name in wanted]
                where += f" AND {column} IN ({', '.join('?' * len(numbers))})"
                values += numbers
        return where, values

    def _known(self, seq: int, epoch: str | None, oldest: int, last: int) -> tuple[int, bool]:
        """After which number one has to read who was at ``seq`` in ``epoch``, and whether that is another place.

        Epochs are ULIDs, later ones sort behind earlier ones, and all of one store and its copies end in the same
        tag (`store_schema.epoch_after`).
        """
        ends = [first - 1 for first, _ in self._epochs[1:]] + [last]
        names = [name for _, name in self._epochs]
        if epoch is None:
            return (seq, False) if seq <= last else (oldest - 1, True)
        if epoch in names:
            end = ends[names.index(epoch)]
            return min(seq, end), seq > end
        if epoch[-8:] != names[-1][-8:]:
            return 0, True
        # This store is a copy of one that went on, or lost its end: only what began later here is new.
        later = bisect_right(names, epoch)
        return min(seq, self._epochs[min(later, len(names) - 1)][0] - 1), True


def match_expression(text: str) -> str:
    """Words and phrases as an expression of FTS5, nothing of them syntax; empty where there are no words."""
    clean = text.encode("utf-8", "replace").decode().replace("\0", " ")
    terms = dict.fromkeys(phrase or word for phrase, word in _QUOTED.findall(clean))
    return " AND ".join(f'"{term}"' for term in terms if any(map(str.isalnum, term)))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ProtocolError("a time is a number of Unix seconds")
    return float(value)
