"""The file of the event store: its tables, how it is opened, and its errors in words."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OnlookerError
from .protocol import new_ulid

__all__ = [
    "BUSY_SECONDS",
    "EVENT_COLUMNS",
    "PAGE_SIZE",
    "StoreError",
    "StoreFull",
    "connect",
    "connect_reader",
    "epoch_after",
    "failures",
    "first_at",
    "lock_writer",
    "transaction",
]

APPLICATION_ID = 0x6F6E6C6B
SCHEMA_VERSION = 1
PAGE_SIZE = 4096
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
BUSY_SECONDS = 2.0
EVENT_COLUMNS = "seq, time, prev, event, run, stream, kind, text, body"

# `event` is the seq of the event's first revision that the store saw: the same for all its revisions.
# `text` stands before `body`, so that neither search nor deletion reads the pages of long bodies.
# `kept` holds open events whose newest revision was deleted with all others of its age: snapshots still give them.
_EVENTS = """(
    seq INTEGER PRIMARY KEY, time REAL NOT NULL, prev INTEGER NOT NULL, event INTEGER NOT NULL,
    run INTEGER NOT NULL, stream INTEGER NOT NULL, kind INTEGER NOT NULL, text TEXT, body BLOB NOT NULL)"""
_TABLES = f"""
CREATE TABLE events {_EVENTS};
CREATE TABLE kept {_EVENTS};
CREATE VIEW said AS SELECT seq, text FROM events WHERE text IS NOT NULL;
CREATE VIRTUAL TABLE words USING fts5(
    text, content='said', content_rowid='seq', tokenize='porter unicode61 remove_diacritics 2');
CREATE TABLE open (seq INTEGER PRIMARY KEY, event INTEGER NOT NULL, run INTEGER NOT NULL, name TEXT NOT NULL);
CREATE TABLE epochs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL);
CREATE TABLE streams (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    seq INTEGER NOT NULL, time REAL NOT NULL, run INTEGER NOT NULL, status TEXT);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, n INTEGER NOT NULL DEFAULT 0, over INTEGER NOT NULL DEFAULT 0);
CREATE TABLE kinds (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE cursors (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE state (gone INTEGER NOT NULL, time REAL NOT NULL, tag TEXT NOT NULL);
"""

# SQLite tells ENOSPC as FULL, and EDQUOT and EFBIG, like a disk that fails, as one of these.
_NOT_WRITTEN = {
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_FSYNC,
}


class StoreError(OnlookerError):
    """The event store cannot be opened, read or written."""


class StoreFull(StoreError):
    """There is no room on the disk; what should have been written was not, not even in part."""


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn errors of SQLite inside the block into a `StoreError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _in_words(path, error) from None


def _in_words(path: Path, error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", None) or 0
    if code in _NOT_WRITTEN:
        return StoreFull(
            f"no room on the disk for the event store {path}, or a quota is reached, or the disk fails ({error}); "
            "free some, or give a smaller size to keep."
        )
    if "Could not decode" in str(error):  # text that is no text; the only error of Python's own without a code
        return _damaged(path, "broken text")
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(
                f"no room on the disk for the event store {path}; free some, or give a smaller size to keep."
            )
        case sqlite3.SQLITE_NOTADB:
            return _no_store(path)
        case sqlite3.SQLITE_CORRUPT:
            return _damaged(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreError(f"another program keeps the event store {path} locked; end it, or give another path.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
            return StoreError(f"cannot open the event store {path} ({error}); check who may read and write it.")
        case _:
            return StoreError(f"the event store {path} failed: {error}.")


def _no_store(path: Path) -> StoreError:
    return StoreError(f"{path} is no event store of onlooker; give another path.")


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(
        f"the event store {path} is damaged ({what}); move it away together with its -wal and -shm files, "
        "and a new one is begun."
    )


def connect(path: Path, *, synchronous: str, wal_bytes: int) -> sqlite3.Connection:
    """Open the store for writing; make it where there is none.

    Args:
        path: the file.
        synchronous: ``NORMAL`` (a power failure may lose the newest events, never the file) or ``FULL``.
        wal_bytes: size beyond which the write-ahead log is moved into the file.

    Raises:
        StoreError: there is something else at the path, or a newer version, or it is damaged.
    """
    try:
        # The events of a camera are for its owner alone; the files beside it get the same mode from SQLite.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open the event store {path}: {error.strerror}.") from None
    with failures(path):
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
        try:
            for setting in (
                f"page_size={PAGE_SIZE}",
                "auto_vacuum=incremental",
                "journal_mode=wal",
                f"synchronous={synchronous}",
                "secure_delete=fast",
                "cache_size=-8192",
                f"journal_size_limit={wal_bytes}",
                f"wal_autocheckpoint={max(wal_bytes // 2 // PAGE_SIZE, 16)}",
            ):
                # Nothing is changed in a file of somebody else.
                if setting.startswith("journal_mode"):
                    fresh = _check(db, path)
                db.execute(f"PRAGMA {setting}")
            if fresh:
                _create(db)
        except BaseException:
            db.close()
            raise
    return db


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the store for reading alone, in one thread.

    Raises:
        StoreError: there is no store at the path.
    """
    if not path.is_file():
        raise StoreError(f"there is no event store at {path}.")
    with failures(path):
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            if _check(db, path):
                raise StoreError(f"the event store {path} is empty: no bus has written to it yet.")
            db.execute("PRAGMA cache_size=-8192")
        except BaseException:
            db.close()
            raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is empty, given that it is empty or a store of a known version."""
    application, version, tables = (
        db.execute(question).fetchone()[0]
        for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if application == 0 and version == 0 and tables == 0:
        return True
    if application != APPLICATION_ID:
        raise _no_store(path)
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"a newer onlooker wrote the event store {path} (version {version}; this one knows {SCHEMA_VERSION}); "
            "update onlooker, or give another path."
        )
    return False


def _create(db: sqlite3.Connection) -> None:
    with transaction(db):
        for statement in _TABLES.split(";\n"):
            if statement.strip():
                db.execute(statement)
        db.execute("INSERT INTO state VALUES (0, 0, ?)", (new_ulid()[-8:],))
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


@contextmanager
def transaction(db: sqlite3.Connection, mode: str = "IMMEDIATE") -> Iterator[None]:
    """All or nothing of what the block writes; with mode ``DEFERRED``, one state of the store for all that it reads."""
    db.execute(f"BEGIN {mode}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def first_at(db: sqlite3.Connection, oldest: int, last: int, time: float) -> int:
    """The first seq from ``oldest`` to ``last`` + 1 that was committed at ``time`` (Unix seconds) or later.

    Times never fall and numbers have no gaps, so this needs no index.
    """
    low, high = oldest, last + 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute("SELECT time FROM events WHERE seq = ?", (middle,)).fetchone()
        if row is None or row[0] < time:
            low = middle + 1
        else:
            high = middle
    return low


def lock_writer(path: Path) -> int:
    """Take the lock of the one writer. Its file is another one: to close the store's own would drop SQLite's locks."""
    beside = path.with_name(path.name + ".lock")
    try:
        fd = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open the event store {path}: {error.strerror}.") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise StoreError(f"another bus writes to the event store {path}; end it, or give another path.") from None
    return fd


def epoch_after(newest: str, tag: str) -> str:
    """A ULID later than ``newest`` even if the clock went back; it ends in the tag of the store.

    So whoever knows an epoch that is not in the store can still be told apart: one of a copy of it, or of another one.
    """
    fresh = new_ulid()
    moment = fresh[:10]
    if moment <= newest[:10]:
        later = sum(_ALPHABET.index(letter) << 5 * place for place, letter in enumerate(reversed(newest[:10]))) + 1
        moment = "".join(_ALPHABET[later >> shift & 31] for shift in range(45, -1, -5))
    return moment + fresh[10:-8] + tag
