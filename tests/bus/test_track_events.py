"""Track events on the bus: stored, found by name and by caption, chosen by kind, and none of the bridges' business."""

from __future__ import annotations

from pathlib import Path

from onlooker.operators.events import Event, TrackEvent
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.bus.store_read import StoreReader
from onlooker.pipeline.bus.subscriber import Subscription
from onlooker.pipeline.cli.bus_client import text_line
from onlooker.pipeline.cli.display import describe
from tests.sinks.tracks import Point, told

from .buses import PATIENCE, bus, caption, place, put
from .test_bridge_homeassistant import HomeAssistant, stored

WAY: list[Point] = [(t / 2, 0.1, 0.2, 0.3, 0.4) for t in range(6)]


def dog() -> list[Event]:
    return told(4, WAY, name="dog", text="runs over a meadow")


def test_what_the_bus_knows_of_a_track_is_the_same_from_its_bytes() -> None:
    for event in [*dog(), *told(0, WAY), *told(1, WAY, name="cat")]:
        record = Record.from_event(event, "r")
        assert Record.from_body(record.body, "r") == record
        assert record.kind == "track"
    assert [Record.from_event(told(0, WAY, **words)[0], "r").text for words in ({}, {"name": "cat"})] == [None, "cat"]


def test_tracks_are_found_by_name_and_by_caption_once_each(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events.db")
    store.open()
    store.append([Record.from_event(event, "r") for event in [*dog(), caption(0, text="a dog sleeps")]])
    reader = StoreReader(store.path)
    assert [found.kind for found in reader.search("meadow")] == ["track"]
    assert {found.kind for found in reader.search("dog")} == {"track", "caption"}
    [found] = reader.search("dog meadows", kinds=["track"])
    assert b'"phase":"end"' in found.body, "the newest revision"
    assert text_line(found).endswith("track end     4 dog: runs over a meadow")
    assert not reader.search("dog", kinds=["query"])
    reader.close()
    store.close()


def test_subscribers_choose_tracks_by_kind_phase_and_words(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "events.db") as server:
        put(server, [caption(0, "clip", "a dog"), *told(1, WAY, name="cat"), *dog()])
        with Subscription(address, kinds="track", phase="end", text="dog", since="all") as events:
            event = events.get(PATIENCE)
            assert isinstance(event, TrackEvent)
            assert (event.event_no, event.data.name, len(event.data.boxes)) == (4, "dog", 6)


def test_home_assistant_is_told_nothing_of_tracks() -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    assert [home.of(stored(Record.from_event(event, "r"))) for event in dog()] == [[]] * len(dog())


def test_a_person_is_told_of_an_object_once_it_is_gone() -> None:
    lines = [describe(event) for event in dog()]
    assert lines[:-1] == [None] * (len(lines) - 1)
    assert lines[-1] == "0:00.0-0:02.5  object 4, dog: runs over a meadow"
