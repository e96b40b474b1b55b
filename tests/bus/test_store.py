"""The event store: numbers, positions, pages, what is open."""

import itertools

import pytest

from onlooker.pipeline.bus.protocol import ProtocolError
from onlooker.pipeline.bus.store import EventStore, StoreError
from onlooker.pipeline.bus.store_read import SCAN_EVENTS, StoreReader

from .stores import RUN, caption, check_whole, everything, ids, news, numbers


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def store(path):
    store = EventStore(path)
    store.open()
    yield store
    store.close()


@pytest.fixture
def reader(store, path):
    reader = StoreReader(path)
    yield reader
    reader.close()


def test_what_is_appended_is_what_is_read(store, reader):
    records = [caption(0, phase="new"), caption(0, "a red truck parks", rev=1), news("live"), caption(0, stream="door")]
    stored = store.append(records)
    assert numbers(stored) == [1, 2, 3, 4]
    assert [event.header.prev for event in stored] == [0, 1, 2, 0]
    assert [(event.stream, event.kind, event.body) for event in stored] == [
        (record.stream, record.kind, record.body) for record in records
    ]
    assert {(event.header.run, event.header.epoch) for event in stored} == {(RUN, store.epoch)}
    assert reader.page(0) == (stored, 4, 4)
    assert (store.last_seq, store.oldest_seq) == reader.bounds()[::-1] == (4, 1)


def test_numbers_go_on_under_a_new_epoch(store, path):
    first = store.append([caption(0), caption(1)])
    epochs = [store.epoch]
    for _ in range(2):  # the first of them without an event
        store.close()
        store.open()
        epochs.append(store.epoch)
    second = store.append([caption(2)])
    assert sorted(set(epochs)) == epochs
    assert numbers(second) == [3] and second[0].header.prev == 2
    assert everything(path) == first + second
    assert [event.header.epoch for event in everything(path)] == [epochs[0], epochs[0], epochs[2]]


def test_numbers_go_on_when_everything_was_deleted(path):
    now = itertools.count(1000)
    store = EventStore(path, max_age=10, clock=lambda: next(now))
    store.open()
    before = store.append([caption(0), caption(1)])
    now = itertools.count(5000)
    assert store.prune() == 2
    assert (store.last_seq, store.oldest_seq) == (2, 3)
    store.close()
    now = itertools.count(10)  # the clock went back
    store.open()
    assert (store.last_seq, store.oldest_seq) == (2, 3)
    [event] = store.append([caption(2)])
    assert event.header.seq == 3 and event.header.prev == 2
    assert event.header.time >= before[-1].header.time
    store.close()
    check_whole(path)


def test_time_never_falls_and_neither_do_epochs(path):
    now = iter([2000.0, 1000.0, 3000.0])
    store = EventStore(path, clock=lambda: next(now))
    store.open()
    assert [store.append([caption(n)])[0].header.time for n in range(3)] == [2000.0, 2000.0, 3000.0]
    store.close()


def test_an_epoch_is_later_even_if_the_clock_went_back(store, path, monkeypatch):
    store.close()
    names = [store.epoch]
    for moment in (10.0, 20.0):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        store.open()
        names.append(store.epoch)
        store.close()
    assert sorted(names) == names and len({name[-8:] for name in names}) == 1
    assert all(len(name) == 26 for name in names)


def test_pages_end_at_events_and_bytes(store, reader):
    store.append([caption(n) for n in range(10)])
    assert numbers(reader.page(0, limit=3).stored) == [1, 2, 3]
    assert reader.page(3, limit=3)[1:] == (6, 10)
    size = len(reader.page(0, limit=1).stored[0].body)
    assert numbers(reader.page(0, max_bytes=2 * size).stored) == [1, 2]
    assert numbers(reader.page(4, max_bytes=1).stored) == [5]  # one comes in any case
    assert reader.page(0, until=4)[1:] == (4, 10) and numbers(reader.page(0, until=4).stored) == [1, 2, 3, 4]
    assert reader.page(10) == ([], 10, 10) and reader.page(99) == ([], 99, 10)


def test_pages_of_streams_and_kinds(store, reader):
    store.append([caption(0), caption(0, stream="cam10"), news("live"), caption(1), news("live", stream="door")])
    assert numbers(reader.page(0, streams=["cam1"]).stored) == [1, 3, 4]
    assert numbers(reader.page(0, streams=["cam1", "door"], kinds=["stream"]).stored) == [3, 5]
    assert reader.page(0, streams=["nobody"]) == ([], 5, 5)
    assert reader.page(0, kinds=["caption"], limit=1) == (reader.page(0, limit=1).stored, 1, 5)


def test_a_page_looks_at_a_bounded_number_of_events(store, reader):
    store.append([caption(0, "x", stream="busy")] * (SCAN_EVENTS + 500) + [caption(0, stream="rare")])
    page = reader.page(0, streams=["rare"])
    assert page.stored == [] and page.upto == SCAN_EVENTS < page.last
    assert numbers(reader.page(page.upto, streams=["rare"]).stored) == [page.last]


def test_positions_of_who_was_here(store, reader):
    store.append([caption(n) for n in range(4)])
    assert reader.position({"seq": 2, "epoch": store.epoch}) == (2, False, None)
    assert reader.position({"seq": 2}) == (2, False, None)
    assert reader.position({"oldest": True}) == (0, False, None)
    assert reader.position({"seq": 4, "epoch": store.epoch}) == (4, False, None)


def test_positions_by_time(path):
    now = iter(range(100, 200, 10))
    store = EventStore(path, clock=lambda: float(next(now)))
    store.open()
    for n in range(5):
        store.append([caption(2 * n), caption(2 * n + 1)])
    reader = StoreReader(path)
    places = {moment: reader.position({"time": moment}).seq for moment in (0, 100, 100.5, 120, 140, 141)}
    assert places == {0: 0, 100: 0, 100.5: 2, 120: 4, 140: 8, 141: 10}
    reader.close()
    store.close()


@pytest.mark.parametrize(
    "after",
    [{}, {"seq": -1}, {"seq": "3"}, {"seq": True}, {"seq": 1.5}, {"seq": 1, "epoch": 7}, {"time": "x"}]
    + [{"time": float("nan")}, {"time": float("inf")}, {"time": None}, {"oldest": False}],
)
def test_what_is_no_position(reader, after):
    with pytest.raises(ProtocolError):
        reader.position(after)


def test_a_huge_position_is_only_unknown(store, reader):
    store.append([caption(0)])
    assert reader.position({"seq": 10**30}) == (0, True, None)
    assert reader.position({"time": 10**30}) == (1, False, None)


def test_what_was_deleted_is_told_as_lost(path):
    store = EventStore(path, max_age=10, clock=lambda: now)
    store.open()
    now = 100.0
    store.append([caption(n) for n in range(5)])
    now = 200.0
    store.append([caption(5)])
    store.prune()
    reader = StoreReader(path)
    assert reader.position({"seq": 2, "epoch": store.epoch}) == (5, False, (3, 5))
    assert reader.position({"seq": 5, "epoch": store.epoch}) == (5, False, None)
    assert reader.position({"seq": 0}) == (5, False, (1, 5))
    assert reader.position({"oldest": True}) == (5, False, None)
    reader.close()
    store.close()


def test_another_store_is_read_from_its_beginning(store, reader, tmp_path):
    store.append([caption(0)])
    other = EventStore(tmp_path / "other.db")
    other.open()
    assert reader.position({"seq": 0, "epoch": other.epoch}) == (0, True, None)
    assert reader.position({"seq": 1, "epoch": other.epoch}) == (0, True, None)
    assert reader.position({"seq": 7}) == (0, True, None)
    other.close()


def _lost_end(store, path, tmp_path):
    """A copy of the file as it was at number 4, in which a bus published two more; and the epochs of the original."""
    store.append([caption(0), caption(1)])
    store.close()
    epochs = [store.epoch]
    store.open()
    store.append([caption(2), caption(3)])
    epochs.append(store.epoch)
    store.close()
    older = tmp_path / "older.db"
    older.write_bytes(path.read_bytes())
    for n in (4, 6):
        store.open()
        epochs.append(store.epoch)
        store.append([caption(n), caption(n + 1)])
        store.close()
    restored = EventStore(older)
    restored.open()
    restored.append([caption(50), caption(51)])
    restored.close()
    store.open()
    return older, epochs


def test_a_store_that_lost_its_end(store, path, tmp_path):
    older, (first, second, third, fourth) = _lost_end(store, path, tmp_path)
    reader = StoreReader(older)
    assert numbers(reader.page(0).stored) == [1, 2, 3, 4, 5, 6]
    # Whoever is in what both have reads on; whoever saw what is lost begins with what came after the loss.
    assert reader.position({"seq": 1, "epoch": first}) == (1, False, None)
    assert reader.position({"seq": 4, "epoch": second}) == (4, False, None)
    assert reader.position({"seq": 6, "epoch": third}) == (4, True, None)
    assert reader.position({"seq": 8, "epoch": fourth}) == (4, True, None)
    # Who had heard of a lost epoch but had not read so far has the rest of the common part to read.
    assert reader.position({"seq": 3, "epoch": fourth}) == (3, True, None)
    reader.close()


def test_a_file_that_lost_the_end_of_its_newest_epoch(store, path, tmp_path):
    """As after a power failure: the epoch is known, but not so far."""
    store.append([caption(0), caption(1)])
    for name in ("events.db", "events.db-wal"):
        (tmp_path / name.replace("events", "older")).write_bytes((tmp_path / name).read_bytes())
    store.append([caption(2), caption(3)])
    reader = StoreReader(tmp_path / "older.db")
    assert reader.position({"seq": 4, "epoch": store.epoch}) == (2, True, None)
    assert reader.position({"seq": 2, "epoch": store.epoch}) == (2, False, None)
    older = EventStore(tmp_path / "older.db")
    older.open()
    older.append([caption(9), caption(10), caption(11)])
    assert reader.position({"seq": 4, "epoch": store.epoch}) == (2, True, None)
    reader.close()
    older.close()


def test_what_is_open(store, reader):
    store.append([caption(0, phase="new"), news("live"), caption(1), caption(2, phase="new", stream="door")])
    store.append([caption(0, "a red truck parks", phase="update", rev=1), news("live", stream="door")])
    assert ids(reader.open_events().stored) == [
        "cam1/0/stream/0/0",
        "door/0/caption/2/0",
        "cam1/0/caption/0/1",
        "door/0/stream/0/0",
    ]
    assert reader.open_events().seq == 6
    assert ids(reader.open_events(streams=["cam1"], kinds=["caption"]).stored) == ["cam1/0/caption/0/1"]
    store.append([caption(0, rev=2), news("ended", rev=1)])
    assert ids(reader.open_events().stored) == ["door/0/caption/2/0", "door/0/stream/0/0"]


def test_what_is_open_comes_in_pages_of_one_state(store, reader):
    store.append([caption(n, phase="new") for n in range(7)])
    pages, after = [], 0
    while True:
        page = reader.open_events(after=after, limit=3)
        pages.append(numbers(page.stored))
        after = pages[-1][-1]
        if not page.more:
            break
    assert pages == [[1, 2, 3], [4, 5, 6], [7]]


def test_what_is_open_outlives_restart_and_deletion(path):
    now = 100.0
    store = EventStore(path, max_age=10, clock=lambda: now)
    store.open()
    store.append([caption(0, phase="new"), caption(1), news("live")])
    now = 200.0
    assert store.prune() == 3
    store.close()
    store.open()
    reader = StoreReader(path)
    assert everything(path) == []
    assert ids(reader.open_events().stored) == ["cam1/0/caption/0/0", "cam1/0/stream/0/0"]
    [end] = store.append([caption(0, rev=1)])
    assert ids(reader.open_events().stored) == ["cam1/0/stream/0/0"]
    store.append([news("stalled", rev=1)])
    assert ids(reader.open_events().stored) == ["cam1/0/stream/0/1"]
    reader.close()
    store.close()
    check_whole(path)


def test_the_events_of_a_run_that_ended_are_open_no_more(store, reader):
    store.append([caption(0, phase="new"), caption(0, phase="new", stream="door", run="01OTHER"), news("live")])
    assert store.open_runs() == [RUN, "01OTHER"]
    store.end_run(RUN)
    store.end_run("nobody")
    assert store.open_runs() == ["01OTHER"]
    assert [event.header.run for event in reader.open_events().stored] == ["01OTHER"]
    assert {state.stream: state.open for state in reader.streams()} == {"cam1": False, "door": True}
    store.append([caption(0, phase="update", rev=1)])  # it was not dead after all
    assert store.open_runs() == [RUN, "01OTHER"]
    assert ids(reader.open_events(streams=["cam1"]).stored) == ["cam1/0/caption/0/1"]


def test_events_that_never_end_are_forgotten_in_the_end(store, reader, monkeypatch):
    monkeypatch.setattr("onlooker.pipeline.bus.store.OPEN_EVENTS", 3)
    store.append([caption(n, phase="new") for n in range(6)])
    store.append([caption(1, phase="update", rev=1)])
    store.append([caption(7)])
    assert ids(reader.open_events().stored) == ["cam1/0/caption/4/0", "cam1/0/caption/5/0", "cam1/0/caption/1/1"]
    assert len(store._open) == 3


def test_two_runs_may_tell_the_same_event_id(store, reader):
    store.append([caption(0, phase="new"), caption(0, phase="new", run="01OTHER")])
    store.append([caption(0, rev=1)])
    assert [event.header.run for event in reader.open_events().stored] == ["01OTHER"]


def test_streams(store, reader):
    store.append([news("connecting"), caption(0), caption(0, stream="door", run="01OTHER")])
    store.append([news("live", rev=1), caption(1)])
    states = {state.stream: state for state in reader.streams()}
    assert (states["cam1"].seq, states["cam1"].run, states["cam1"].status) == (5, RUN, "live")
    assert (states["door"].seq, states["door"].run, states["door"].status) == (3, "01OTHER", None)
    assert [state.stream for state in reader.streams()] == ["cam1", "door"]
    assert states["cam1"].time == reader.page(4).stored[0].header.time


def test_numbers_of_producers(store, path):
    store.append([caption(0), caption(1)], {RUN: 2})
    store.append([], {"01OTHER": 7})
    store.append([caption(2)], {RUN: 1})  # never falls
    store.close()
    store.open()
    assert (store.run_number(RUN), store.run_number("01OTHER"), store.run_number("nobody")) == (2, 7, 0)


def test_cursors(store):
    assert store.cursor("mqtt") == 0
    store.set_cursor("mqtt", 5)
    store.set_cursor("hook", 9)
    store.set_cursor("mqtt", 7)
    store.close()
    store.open()
    assert (store.cursor("mqtt"), store.cursor("hook")) == (7, 9)


def test_a_closed_store_says_so(path):
    store = EventStore(path)
    with pytest.raises(StoreError, match="closed"):
        store.append([caption(0)])
    store.close()
