"""The event store: every event that the bus publishes, in one SQLite file, written by one bus at a time.

An event is published only after `EventStore.append` has returned. The file is in WAL mode: a process that is killed
loses nothing that was appended, and readers (`store_read.StoreReader`) and the writer do not wait for each other.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from .protocol import Header
from .record import Record, Stored
from .store_group import Changes, Names, Open
from .store_schema import (
    BUSY_SECONDS,
    EVENT_COLUMNS,
    PAGE_SIZE,
    StoreError,
    StoreFull,
    connect,
    epoch_after,
    failures,
    first_at,
    lock_writer,
    transaction,
)

__all__ = ["EventStore", "StoreError", "StoreFull"]

OPEN_EVENTS = 65_536
"""Events that may be open at once; beyond it the oldest count as open no more."""
MIN_BYTES = 16 << 20
_BATCH = 256
_WAL_BYTES = 8 << 20
_LOG_WAIT = 0.05  # seconds to wait for readers to let go of the log
_LOG_AGAIN = 1.0  # seconds until that is tried again


class EventStore:
    """The writing end of the store. Its methods may be called from any thread.

    Args:
        path: the file; it is made where there is none.
        max_bytes: size that file and write-ahead log may have together; `prune` deletes the oldest events beyond it.
        max_age: seconds to keep events, counted from their commit; None for as long as there is room.
        synchronous: ``NORMAL`` or ``FULL``, see `store_schema.connect`.
        clock: Unix seconds.
    """

    epoch: str
    """This start of the bus."""
    last_seq: int
    oldest_seq: int
    """First number that is stored; ``last_seq`` + 1 where nothing is."""

    def __init__(
        self,
        path: Path | str,
        *,
        max_bytes: int = 2 << 30,
        max_age: float | None = None,
        synchronous: str = "NORMAL",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is touched before `open`.

        Raises:
            StoreError: ``max_bytes`` is less than a store needs.
        """
        if max_bytes < MIN_BYTES:
            raise StoreError(f"an event store needs at least {MIN_BYTES} bytes; {max_bytes} were given.")
        self.path = Path(path)
        self._max_age = max_age
        self._wal_bytes = min(_WAL_BYTES, max_bytes // 8)
        # The log may outgrow its size for a moment, and the file while deletions are written.
        self._file_bytes = max_bytes - 3 * self._wal_bytes
        self._log = self.path.with_name(self.path.name + "-wal")
        self._shorten_at = 0.0
        self._synchronous = synchronous
        self._clock = clock
        self._lock = Lock()
        self._lock_fd: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._open: dict[tuple[int, str], Open] = {}

    def open(self) -> None:
        """Open or make the file and begin a new epoch; numbers go on where they were.

        Raises:
            StoreError: the file cannot be used: another bus has it, it is something else, damaged, of a newer version.
        """
        self._lock_fd = lock_writer(self.path)
        try:
            self._connection = connect(self.path, synchronous=self._synchronous, wal_bytes=self._wal_bytes)
            with failures(self.path):
                self._load(self._connection)
                self._begin_epoch(self._connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; it may be opened again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    def append(self, records: Sequence[Record], runs: Mapping[str, int] | None = None) -> list[Stored]:
        """Number and commit events, all or none.

        Args:
            records: the events.
            runs: by run, the highest number that its producer gave, to be committed with them; see `run_number`.

        Raises:
            StoreFull: the disk is full.
            StoreError: it cannot be written. In both cases nothing is stored and no number is used.
        """
        with self._lock, failures(self.path):
            db = self._db
            now = max(self._clock(), self._time)
            changes = Changes()
            try:
                stored = [
                    self._number(changes, record, now, seq) for seq, record in enumerate(records, self.last_seq + 1)
                ]
                with transaction(db):
                    self._write(db, changes, now, runs or {})
            except BaseException:
                self._settle(committed=False)
                raise
            self._settle(committed=True)
            self._apply(changes, now)
            self.last_seq += len(records)
        return stored

    def run_number(self, run: str) -> int:
        """The highest producer's number of a run that is committed; 0 where none is."""
        row = self._one("SELECT n FROM runs WHERE name = ?", run)
        return int(row[0]) if row else 0

    def open_runs(self) -> list[str]:
        """Runs that nobody has ended yet."""
        with self._lock, failures(self.path):
            return [name for (name,) in self._db.execute("SELECT name FROM runs WHERE over = 0 ORDER BY id")]

    def end_run(self, run: str) -> None:
        """The events of a run count as open no more, until it appends again."""
        with self._lock, failures(self.path):
            number = self._runs.find(run)
            if number is None:
                return
            with transaction(self._db):
                self._db.execute("UPDATE runs SET over = 1 WHERE id = ?", (number,))
                self._db.execute("DELETE FROM kept WHERE seq IN (SELECT seq FROM open WHERE run = ?)", (number,))
                self._db.execute("DELETE FROM open WHERE run = ?", (number,))
            self._open = {key: event for key, event in self._open.items() if key[0] != number}
            self._live.discard(number)

    def cursor(self, name: str) -> int:
        """The number that was kept under a name; 0 where none was."""
        row = self._one("SELECT seq FROM cursors WHERE name = ?", name)
        return int(row[0]) if row else 0

    def set_cursor(self, name: str, seq: int) -> None:
        """Keep a number under a name: how far a reader with no memory of its own has come."""
        with self._lock, failures(self.path), transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (name, seq))

    @property
    def crowded(self) -> bool:
        """Whether `prune` has something to do for the sake of size; cheap to ask."""
        with self._lock, failures(self.path):
            return self._too_large() or self._log_too_long()

    def prune(self, seconds: float = float("inf")) -> int:
        """Delete the oldest events beyond the caps on size and age, in small transactions, and give back their room.

        Args:
            seconds: time after which it stops and leaves the rest to the next call.

        Returns:
            The number of events deleted.
        """
        until = time.monotonic() + seconds
        deleted = 0
        while True:
            with self._lock, failures(self.path):
                if self._log_too_long():
                    self._shorten_log()
                upto = self._superfluous()
                if upto >= self.oldest_seq:
                    deleted += upto + 1 - self.oldest_seq
                    self._delete(upto)
                elif not self._give_back():
                    return deleted
            if time.monotonic() >= until:
                return deleted
            time.sleep(0)  # whoever waits for the lock gets it

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"the event store {self.path} is closed.")
        return self._connection

    def _one(self, question: str, *values: Any) -> tuple[Any, ...] | None:
        with self._lock, failures(self.path):
            row: tuple[Any, ...] | None = self._db.execute(question, values).fetchone()
            return row

    def _load(self, db: sqlite3.Connection) -> None:
        gone, self._time, self._tag = db.execute("SELECT gone, time, tag FROM state").fetchone()
        oldest, last = db.execute("SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events)").fetchone()
        self.last_seq = last or gone
        self.oldest_seq = oldest or gone + 1
        if last:
            self._time = db.execute("SELECT time FROM events WHERE seq = ?", (last,)).fetchone()[0]
        self._streams, self._runs, self._kinds = (
            Names(db.execute(f"SELECT id, name FROM {table}")) for table in ("streams", "runs", "kinds")
        )
        self._last_of = dict(db.execute("SELECT name, seq FROM streams"))
        self._live = {number for (number,) in db.execute("SELECT id FROM runs WHERE over = 0")}
        self._open = {
            (run, name): Open(event, seq)
            for seq, event, run, name in db.execute("SELECT seq, event, run, name FROM open ORDER BY seq")
        }

    def _begin_epoch(self, db: sqlite3.Connection) -> None:
        newest = db.execute("SELECT name FROM epochs ORDER BY id DESC LIMIT 1").fetchone()
        self.epoch = epoch_after(newest[0] if newest else "", self._tag)
        with transaction(db):
            db.execute("INSERT INTO epochs (name, first) VALUES (?, ?)", (self.epoch, self.last_seq + 1))

    def _number(self, changes: Changes, record: Record, now: float, seq: int) -> Stored:
        stream, kind, run = record.stream, record.kind, self._runs[record.run]
        key = (run, record.event_id)
        before = changes.open[key] if key in changes.open else self._open.get(key)
        first = before.first if before else seq
        changes.open[key] = None if record.phase == "end" else Open(first, seq)
        seen = changes.streams.get(stream)
        prev = seen[0] if seen else self._last_of.get(stream, 0)
        status = record.status if kind == "stream" else None
        changes.streams[stream] = (seq, run, status or (seen[2] if seen else None))
        changes.runs[run] = record.run
        text = record.text or None
        changes.events.append((seq, now, prev, first, run, self._streams[stream], self._kinds[kind], text, record.body))
        if text:
            changes.words.append((seq, text))
        return Stored(stream, kind, Header(self.epoch, seq, prev, record.run, now), record.body)

    def _write(self, db: sqlite3.Connection, changes: Changes, now: float, runs: Mapping[str, int]) -> None:
        db.executemany(f"INSERT INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", changes.events)
        db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", changes.words)
        self._write_open(db, changes)
        db.executemany(
            "INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "seq = excluded.seq, time = excluded.time, run = excluded.run, status = coalesce(excluded.status, status)",
            [
                (self._streams[name], name, seq, now, run, status)
                for name, (seq, run, status) in changes.streams.items()
            ],
        )
        if self._kinds.fresh:
            db.executemany("INSERT INTO kinds VALUES (?, ?)", [(n, name) for name, n in self._kinds.fresh.items()])
        numbered = [(self._runs[run], run, n) for run, n in runs.items()]
        db.executemany(
            "INSERT INTO runs (id, name, n) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "n = max(n, excluded.n), over = 0",
            numbered + [(run, name, 0) for run, name in changes.runs.items() if run not in self._live],
        )

    def _write_open(self, db: sqlite3.Connection, changes: Changes) -> None:
        for key in islice(self._open, max(len(self._open) - OPEN_EVENTS, 0)):
            changes.open.setdefault(key, None)
        closed = [(self._open[key].seq,) for key in changes.open if key in self._open]
        db.executemany("DELETE FROM open WHERE seq = ?", closed)
        if any(seq < self.oldest_seq for (seq,) in closed):
            db.executemany("DELETE FROM kept WHERE seq = ?", closed)
        db.executemany(
            "INSERT INTO open (seq, event, run, name) VALUES (?, ?, ?, ?)",
            [(event.seq, event.first, *key) for key, event in changes.open.items() if event],
        )

    def _settle(self, *, committed: bool) -> None:
        for names in (self._streams, self._runs, self._kinds):
            names.settle(committed=committed)

    def _apply(self, changes: Changes, now: float) -> None:
        """Remember what is committed."""
        self._time = now
        self._live.update(changes.runs)
        self._last_of.update((name, seq) for name, (seq, _, _) in changes.streams.items())
        for key, event in changes.open.items():
            # The order of the dictionary is that of the newest revisions.
            self._open.pop(key, None)
            if event:
                self._open[key] = event

    def _too_large(self) -> bool:
        pages, free = self._pages()
        return (pages - free) * PAGE_SIZE > self._file_bytes

    def _pages(self) -> tuple[int, int]:
        """Pages of the file, and how many of them are free."""
        pages, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return pages, free

    def _superfluous(self) -> int:
        """Up to which number to delete next, at most one batch further than the oldest event."""
        batch = min(self.oldest_seq + _BATCH - 1, self.last_seq)
        if self._too_large():
            return batch
        if self._max_age is None:
            return 0
        return first_at(self._db, self.oldest_seq, batch, self._clock() - self._max_age) - 1

    def _delete(self, upto: int) -> None:
        db = self._db
        with transaction(db):
            db.execute(
                f"INSERT INTO kept ({EVENT_COLUMNS}) SELECT {EVENT_COLUMNS} FROM events "
                "WHERE seq <= ? AND seq IN (SELECT seq FROM open WHERE seq <= ?)",
                (upto, upto),
            )
            db.execute(
                "INSERT INTO words (words, rowid, text) SELECT 'delete', seq, text FROM said WHERE seq <= ?",
                (upto,),
            )
            db.execute("DELETE FROM events WHERE seq <= ?", (upto,))
            db.execute("UPDATE state SET gone = ?, time = ?", (upto, self._time))
        self.oldest_seq = upto + 1

    def _give_back(self) -> bool:
        """Make the file a little smaller where the cap asks for it; below the cap its free pages wait for new events.

        Returns:
            Whether there was something to do.
        """
        pages, free = self._pages()
        excess = min(pages - self._file_bytes // PAGE_SIZE, free, _BATCH)
        if excess > 0:
            # It gives a row for each page, without columns: only executescript steps through all of them.
            self._db.executescript(f"PRAGMA incremental_vacuum({excess})")
        return excess > 0

    def _log_too_long(self) -> bool:
        if time.monotonic() < self._shorten_at:
            return False
        try:
            return self._log.stat().st_size > 2 * self._wal_bytes
        except FileNotFoundError:
            return False

    def _shorten_log(self) -> None:
        """Begin the log anew. Readers that follow each other closely keep SQLite from doing so by itself."""
        db = self._db
        db.execute(f"PRAGMA busy_timeout={_LOG_WAIT * 1000:.0f}")
        busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        db.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")
        if busy:
            self._shorten_at = time.monotonic() + _LOG_AGAIN
