"""The event store at its limits: caps, a full disk, and files that are not what they should be."""

import dataclasses
import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.store import EventStore, StoreError
from onlooker.pipeline.bus.store_read import StoreReader

from .buses import PATIENCE, place
from .stores import caption, check_whole, everything, numbers

CAP = 16 << 20
_BODY = 3000
_WORDS = [f"{first}{second}" for first, second in itertools.product(("ba", "ko", "ti", "mu", "re"), repeat=2)] * 8


def _captions(count, at=0, length=30):
    """Captions of some length, in bodies of a few kilobytes."""
    chosen = random.Random(at)
    said = [caption(at + n, " ".join(chosen.choices(_WORDS, k=length))) for n in range(count)]
    return [dataclasses.replace(record, body=record.body.ljust(_BODY)) for record in said]


def _on_disk(path):
    return sum(path.with_name(path.name + end).stat().st_size for end in ("", "-wal"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


def test_the_cap_on_size_holds_for_ever(path):
    """Many times as much as it may keep goes in; the newest remain, as many of them as there is room for."""
    store = EventStore(path, max_bytes=CAP)
    store.open()
    groups = [_captions(128, n) for n in range(8)]
    largest = written = turn = 0
    while written < 4 * CAP:
        written += sum(len(event.body) for event in store.append(groups[turn % 8]))
        turn += 1
        if store.crowded:
            assert store.prune() > 0
        largest = max(largest, _on_disk(path))
    kept = everything(path)
    store.close()
    assert largest <= CAP
    assert numbers(kept) == list(range(store.oldest_seq, store.last_seq + 1))
    assert sum(len(event.body) for event in kept) > CAP / 3
    check_whole(path)


def test_without_deletion_it_grows(path):
    """What the test above would see if nothing were deleted."""
    store = EventStore(path, max_bytes=4 * CAP)
    store.open()
    group = _captions(256)
    while _on_disk(path) <= CAP:
        assert not store.crowded and store.prune() == 0
        store.append(group)
    store.close()


def test_the_cap_holds_behind_a_bus_that_publishes_as_fast_as_it_can(path):
    groups = [_captions(256, n) for n in range(4)]
    largest = turn = 0
    with place() as address, BusServer(address, EventStore(path, max_bytes=CAP)) as server:
        while server.store.last_seq < 3 * CAP / _BODY:
            server.put(groups[turn % 4])
            turn += 1
            largest = max(largest, _on_disk(path))
        assert server.flush(PATIENCE)
        assert server.store.oldest_seq > 1
    assert largest <= CAP
    check_whole(path)


def test_a_log_that_readers_kept_long_is_begun_anew(path):
    store = EventStore(path, max_bytes=4 * CAP)
    store.open()
    group = _captions(256)
    log = path.with_name("events.db-wal")
    store.append(group)
    with closing(StoreReader(path)) as reader:
        with reader._view():
            while not store.crowded:
                store.append(group)
            assert log.stat().st_size > CAP / 2
            store.prune()  # the reader has its state of the store for as long as it wants
            assert log.stat().st_size > CAP / 2 and reader._db.execute("SELECT max(seq) FROM events").fetchone() == (
                256,
            )
            assert not store.crowded  # tried again later
        store._shorten_at = 0.0
        assert store.crowded
        store.prune()
        assert log.stat().st_size == 0 and not store.crowded
        assert reader.page(store.last_seq - 1).last == store.last_seq
    store.close()


def test_a_smaller_cap_makes_the_file_smaller(path):
    store = EventStore(path)
    store.open()
    group = _captions(256)
    while path.stat().st_size <= 1.2 * CAP:
        store.append(group)
    last = store.last_seq
    store.close()
    store = EventStore(path, max_bytes=CAP)
    store.open()
    while store.prune(seconds=0.0):  # one small transaction at a time
        pass
    store.prune()
    store.close()
    assert path.stat().st_size <= CAP
    assert numbers(everything(path))[-1] == last
    check_whole(path)


def test_the_cap_on_age(path):
    now = 0.0
    store = EventStore(path, max_age=100, clock=lambda: now)
    store.open()
    for now in range(0, 300, 10):
        store.append([caption(now), caption(now + 1)])
        store.prune()
    assert [event.header.time for event in everything(path)] == [
        float(t) for t in range(190, 300, 10) for _ in range(2)
    ]
    store.close()


def test_deletion_leaves_room_between_for_others(path):
    """Each step of a deletion is short: other threads append between them."""
    store = EventStore(path, max_age=0.0, clock=lambda: 0.0)
    store.open()
    store.append(_captions(2048, length=5))
    store._clock = lambda: 10.0
    assert 0 < store.prune(seconds=0.0) <= 256
    store.append([caption(9999)])
    assert store.prune() == 2048 - 256
    assert numbers(everything(path)) == [2049]
    store.close()


def test_a_cap_too_small_to_work_with_is_refused(path):
    with pytest.raises(StoreError, match="at least"):
        EventStore(path, max_bytes=4096)


_FULL_DISK = """
    import resource, sys
    from onlooker.pipeline.bus.store import EventStore, StoreFull
    from tests.bus.stores import caption, everything, numbers, check_whole
    from pathlib import Path

    path = Path(sys.argv[1])
    store = EventStore(path)
    store.open()
    store.append([caption(n) for n in range(10)])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, limit[1]))
    failures = 0
    for group in range(60):
        before = store.last_seq
        try:
            store.append([caption(n, "many words " * 100, stream=f"cam{group}", run=f"run{group}") for n in range(20)])
        except StoreFull as error:
            assert "no room" in str(error) and "\\n" not in str(error)
            failures += 1
            assert store.last_seq == before == numbers(everything(path))[-1]
    assert 0 < failures < 60, failures
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    before = store.last_seq
    [event] = store.append([caption(7777, stream="cam59", run="run59")])
    assert (event.header.seq, event.header.prev) == (before + 1, 0)
    assert store.open_runs()[-1] == "run59" and f"run{60 - failures}" not in store.open_runs()[:-1]
    store.close()
    check_whole(path)
    store.open()
    assert numbers(everything(path)) == list(range(1, before + 2))
    assert everything(path)[-1] == event
    store.close()
"""


def test_a_full_disk_stores_nothing_by_halves(path):
    """With a real limit on the size of files: some groups fit, the later ones do not."""
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FULL_DISK), str(path)], capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr


def test_sqlite_full(path):
    """The other way in which SQLite tells that there is no room."""
    store = EventStore(path)
    store.open()
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 20}")
    with pytest.raises(StoreError, match="no room on the disk"):
        store.append([caption(n, "many words " * 100) for n in range(200)])
    assert store.last_seq == 0
    store._db.execute("PRAGMA max_page_count=1000000")
    assert numbers(store.append([caption(0)])) == [1]
    store.close()
    check_whole(path)


def _one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400 and "sqlite3." not in text
    return text


@pytest.fixture
def used(path):
    store = EventStore(path)
    store.open()
    store.append(_captions(2000))
    store.close()
    return path


def test_one_writer_at_a_time(used):
    first, second = EventStore(used), EventStore(used)
    first.open()
    with pytest.raises(StoreError, match="another bus writes") as error:
        second.open()
    _one_line(error)
    first.append([caption(9999)])
    first.close()
    second.open()
    second.close()


def test_a_writer_of_another_process_is_refused_until_it_is_gone(used):
    program = "import sys; from onlooker.pipeline.bus.store import EventStore; s = EventStore(sys.argv[1]); s.open(); "
    child = subprocess.Popen(
        [sys.executable, "-c", program + "print('open', flush=True); sys.stdin.read()", str(used)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    store = EventStore(used)
    try:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match="another bus writes"):
            store.open()
    finally:
        child.kill()
        child.communicate()
    store.open()
    store.close()


def test_a_program_that_locks_the_file(used):
    with sqlite3.connect(used) as db:
        db.execute("BEGIN EXCLUSIVE")
        store = EventStore(used)
        with pytest.raises(StoreError, match="locked") as error:
            store.open()
        _one_line(error)
    db.close()


@pytest.mark.parametrize("content", [b"hello, this is my diary, not a database " * 40, b"\0" * 5000, b"short"])
def test_a_file_that_is_no_store(path, content):
    path.write_bytes(content)
    for opening in (lambda: EventStore(path).open(), lambda: StoreReader(path)):
        with pytest.raises(StoreError, match="no event store") as error:
            opening()
        _one_line(error)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    content = path.read_bytes()
    for opening in (lambda: EventStore(path).open(), lambda: StoreReader(path)):
        with pytest.raises(StoreError, match="no event store") as error:
            opening()
        _one_line(error)
    assert path.read_bytes() == content


def test_a_newer_version(used):
    with sqlite3.connect(used) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    for opening in (lambda: EventStore(used).open(), lambda: StoreReader(used)):
        with pytest.raises(StoreError, match="newer onlooker .*version 99.*update") as error:
            opening()
        _one_line(error)


def test_nothing_there(tmp_path):
    with pytest.raises(StoreError, match="there is no event store") as error:
        StoreReader(tmp_path / "events.db")
    _one_line(error)
    with pytest.raises(StoreError, match="cannot open") as error:
        EventStore(tmp_path / "nowhere" / "events.db").open()
    _one_line(error)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot open"):
        EventStore(tmp_path / "folder").open()


def test_a_store_that_nobody_has_begun(path):
    path.touch()
    with pytest.raises(StoreError, match="empty"):
        StoreReader(path)


def test_a_damaged_file_is_told_as_such(used, tmp_path):
    """Pages are overwritten at random: whatever is then called works, or says so in one line."""
    pages, told = used.stat().st_size // 4096, 0
    for attempt in range(20):
        chosen = random.Random(attempt)
        damaged = tmp_path / f"damaged{attempt}.db"
        shutil.copy(used, damaged)
        with damaged.open("r+b") as file:
            for page in chosen.sample(range(1, pages), 30):
                file.seek(page * 4096)
                file.write(chosen.randbytes(4096))
        try:
            _use(damaged)
        except StoreError as error:
            assert "\n" not in str(error)
            assert "damaged" in str(error) and "move it away" in str(error), error
            told += 1
    assert told > 10


def _use(path):
    store = EventStore(path, max_age=0.0)
    store.open()
    try:
        store.append(_captions(50, 5000))
        everything(path)
        with closing(StoreReader(path)) as reader:
            reader.search("bako")
            reader.open_events()
        store.prune()
    finally:
        store.close()


def test_a_truncated_file(used):
    os.truncate(used, used.stat().st_size // 2)
    with pytest.raises(StoreError, match="damaged.*move it away") as error:
        EventStore(used).open()
        everything(used)
    _one_line(error)


def test_nothing_is_left_open(used):
    before = sorted(os.listdir("/proc/self/fd"))
    store = EventStore(used)
    store.open()
    reader = StoreReader(used)
    store.append([caption(0)])
    reader.search("truck")
    reader.close()
    store.close()
    with pytest.raises(StoreError):
        StoreReader(used.with_name("nothing"))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert used.stat().st_mode & 0o777 == 0o600
    assert not used.with_name("events.db-wal").exists()
