"""The event store when its process is killed, and when it is read while it is written."""

import json
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.bus.store_read import StoreReader

from .stores import RUN, caption, check_whole, everything, numbers

ROOT = Path(__file__).parents[2]

_WRITER = """
    import dataclasses, os, sys
    from onlooker.pipeline.bus.store import EventStore
    from tests.bus.stores import RUN, caption

    store = EventStore(sys.argv[1], max_bytes=16 << 20)
    store.open()
    n = store.run_number(RUN)
    words = "a red truck parks beside the gate of the long house and a dog barks " * 4
    for group in range(10**9):
        size = 1 + group * 7 % 60
        records = [caption(i, f"{words} {i}", stream=f"cam{i % 3}") for i in range(n, n + size)]
        records = [dataclasses.replace(record, body=record.body.ljust(16000)) for record in records]
        store.append(records, {RUN: n + size})
        n += size
        # The pipe holds what was said before the end.
        os.write(1, b"%d %d\\n" % (store.last_seq, n))
        if store.crowded:
            store.prune()
"""


def _write_until_killed(path: Path, seconds: float) -> tuple[int, int]:
    """Append in another process that is killed at some moment; the last number and producer's number it told."""
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_WRITER), str(path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    told = threading.Event()
    lines: list[bytes] = []

    def listen() -> None:
        for line in writer.stdout:
            lines.append(line)
            told.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        assert told.wait(60)
        time.sleep(seconds)
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
        listener.join()
        writer.stdout.close()
    last, n = lines[-1].split()
    return int(last), int(n)


def test_kill_9_loses_nothing_that_was_appended(tmp_path):
    path = tmp_path / "events.db"
    chosen = random.Random(5)
    known: dict[int, bytes] = {}
    for _ in range(4):
        told, n = _write_until_killed(path, chosen.uniform(0.0, 0.3))
        # A reader alone, before anybody has opened the store for writing again.
        found = everything(path)
        last = found[-1].header.seq
        # One group may be committed that the process had no time to tell of.
        assert told <= last <= told + 60
        assert numbers(found) == list(range(found[0].header.seq, last + 1))
        assert all(known.get(event.header.seq, event.body) == event.body for event in found)
        known |= {event.header.seq: event.body for event in found}
        store = EventStore(path)
        store.open()
        assert store.last_seq == last
        # The producer's number was committed with its events.
        assert last - told == store.run_number(RUN) - n
        assert _event_number(found[-1]) == store.run_number(RUN) - 1
        store.close()
        check_whole(path)
    assert found[0].header.seq > 1  # deletion was among what was killed


def _event_number(event):
    return int(json.loads(event.body)["data"]["event_id"].rpartition("/")[2])


def test_a_torn_end_of_the_log_is_as_if_the_last_groups_had_not_been(tmp_path):
    """As a power failure leaves it: the write-ahead log ends in the middle of what was written last."""
    path = tmp_path / "events.db"
    store = EventStore(path)
    store.open()
    for group in range(10):
        store.append([caption(10 * group + n) for n in range(10)])
    wal = tmp_path / "events.db-wal"
    for part in (0.3, 0.6, 0.95):
        torn = tmp_path / f"torn{part}.db"
        shutil.copy(path, torn)
        torn.with_name(torn.name + "-wal").write_bytes(wal.read_bytes()[: int(part * wal.stat().st_size)])
        again = EventStore(torn)
        again.open()
        whole = again.last_seq
        assert whole < 100 and whole % 10 == 0
        assert numbers(again.append([caption(1000)])) == [whole + 1]
        again.close()
        check_whole(torn)
    store.close()


def test_readers_see_whole_groups_and_the_writer_does_not_wait_for_them(tmp_path):
    path = tmp_path / "events.db"
    store = EventStore(path)
    store.open()
    store.append([caption(0)] * 8)
    held = StoreReader(path)
    halves: list[int] = []
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        reader = StoreReader(path)
        while not stop.is_set():
            page = reader.page(max(reader.bounds()[1] - 64, 0))
            seen.append(page.last)
            if page.last % 8 or page.upto % 8 or numbers(page.stored)[-1:] != [page.upto]:
                halves.append(page.last)
        reader.close()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    with held._view() as (_, last):  # a view that lasts as long as all the writing
        for group in range(300):
            store.append([caption(n) for n in range(8 * group, 8 * group + 8)])
        assert held._db.execute("SELECT max(seq) FROM events").fetchone()[0] == last == 8
    stop.set()
    for reader in readers:
        reader.join()
    assert not halves and len(set(seen)) > 3
    assert held.page(8).last == 8 * 301
    held.close()
    store.close()


def test_many_threads_append_to_one_store(tmp_path):
    store = EventStore(tmp_path / "events.db")
    store.open()
    given: list[list[int]] = [[] for _ in range(4)]

    def append(own: list[int]) -> None:
        for n in range(100):
            own += numbers(store.append([caption(n), caption(n, stream="door")]))
            store.set_cursor("bridge", own[-1])

    threads = [threading.Thread(target=append, args=(own,)) for own in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sum(given, [])) == list(range(1, 801))
    assert all(own == sorted(own) for own in given)
    store.close()
    check_whole(store.path)
