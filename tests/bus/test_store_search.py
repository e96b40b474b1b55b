"""Search in the event store: what is found, in which order, and that no text is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.bus.store_read import StoreReader, match_expression

from .stores import caption, check_whole, ids, news, numbers


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    store = EventStore(tmp_path_factory.mktemp("store") / "events.db")
    store.open()
    store.append([caption(0, 'a red truck AND a "blue" car* NEAR the -gate', phase="new"), caption(1, "naïve dogs")])
    reader = StoreReader(store.path)
    yield reader
    reader.close()
    store.close()


@pytest.fixture
def store(tmp_path):
    store = EventStore(tmp_path / "events.db", clock=lambda: store.now)
    store.now = 100.0
    store.open()
    yield store
    store.close()


@pytest.fixture
def reader(store):
    reader = StoreReader(store.path)
    yield reader
    reader.close()


@pytest.mark.parametrize(
    "text",
    [
        "red truck",
        "TRUCKS",
        "truck red",
        '"red truck"',
        '"red truck',
        "blue car",
        "gate -gate",
        "near",
        "and",
        "naive dog",
    ]
    + ["“red truck”", "red\ttruck\n", "red, truck!", 'truck"blue"', "red\0truck", "red-truck", "dogs'"],
)
def test_words_are_found(shared, text):
    assert len(shared.search(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        '"truck red"',
        "red dogs",
        "green",
        "",
        " ",
        '"',
        '""',
        "***",
        "-",
        "NOT",
        "OR",
        "text:red",
        "red OR dogs",
        "tru*",
    ],
)
def test_what_is_not_said_is_not_found(shared, text):
    assert shared.search(text) == []


@given(st.one_of(st.text(), st.text(alphabet=" \"*^:+-(){}.,'\\\0aANDORTNE"), st.text(alphabet="\ud800\udfff\"a 'é")))
def test_no_text_is_an_error(shared, text):
    shared.search(text)


@given(st.lists(st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=8), min_size=1, max_size=5))
def test_what_was_said_is_found_by_its_own_words(tmp_path_factory, words):
    store = EventStore(tmp_path_factory.mktemp("store") / "events.db")
    store.open()
    text = " ".join(words)
    store.append([caption(0, text)])
    reader = StoreReader(store.path)
    assert len(reader.search(text)) == len(reader.search(f'"{text}"')) == len(reader.search(" ".join(words[::-1]))) == 1
    reader.close()
    store.close()


def test_long_texts(shared):
    assert shared.search("red " * 16_000) != []
    assert shared.search(" ".join(f"word{n}" for n in range(2_000))) == []
    assert shared.search('"' + "red " * 16_000 + '"') == []
    assert shared.search("x" * 65_536) == []
    assert match_expression('say "a b" c') == '"say" AND "a b" AND "c"'


def test_the_newest_revision_that_matches_comes(store, reader):
    store.append([caption(0, "a red truck", phase="new"), caption(1, "a red truck")])
    store.append([caption(0, "a red truck parks", phase="update", rev=1), caption(0, "a blue truck parks", rev=2)])
    assert ids(reader.search("red truck")) == ["cam1/0/caption/1/0", "cam1/0/caption/0/1"]
    assert ids(reader.search("truck")) == ["cam1/0/caption/1/0", "cam1/0/caption/0/2"]
    assert ids(reader.search("red truck", until=200.0, limit=1)) == ["cam1/0/caption/1/0"]


def test_the_same_event_of_another_run_is_another_one(store, reader):
    store.append([caption(0, phase="new"), caption(0, phase="new", run="01OTHER"), caption(0, rev=1)])
    assert [event.header.run for event in reader.search("truck")] == ["01RUN", "01OTHER"]


def test_the_best_come_first_and_of_equals_the_newest(store, reader):
    store.append(
        [caption(0, "a dog among many other things and words"), caption(1, "dog dog dog"), caption(2, "a cat")]
    )
    store.append([caption(3, "dog dog dog")])
    assert numbers(reader.search("dog")) == [4, 2, 1]


def test_of_very_many_the_newest_are_looked_at(store, reader, monkeypatch):
    store.append([caption(0, "dog dog dog"), caption(1, "a dog"), caption(2, "a cat"), caption(3, "a dog")])
    assert numbers(reader.search("dog", limit=1)) == [1]
    monkeypatch.setattr("onlooker.pipeline.bus.store_read.SEARCH_EVENTS", 2)
    assert numbers(reader.search("dog")) == [4, 2]


def test_search_in_times_streams_and_kinds(store, reader):
    store.append([caption(0), news("stalled", message="red light: the truck is silent")])
    store.now = 200.0
    store.append([caption(1), caption(0, stream="door")])
    assert numbers(reader.search("truck red", since=150)) == [4, 3]
    assert numbers(reader.search("truck red", until=200)) == [1, 2]
    assert numbers(reader.search("truck red", since=100, until=200.5, streams=["door"])) == [4]
    assert numbers(reader.search("truck red", kinds=["stream", "alarm"])) == [2]
    assert reader.search("truck red", streams=["nobody"]) == []
    assert reader.search("truck red", since=300) == []


def test_deletion_empties_the_index(store, reader):
    words = [f"word{n}" for n in range(1000)]
    store.append([caption(n, f"{word} and the truck") for n, word in enumerate(words)])
    store.now += 10_000
    store.append([caption(2000, "a later truck")])
    store._max_age = 100
    assert store.prune() == 1000
    assert numbers(reader.search("truck")) == [1001]
    assert all(reader.search(word) == [] for word in words[::50])
    store.close()
    check_whole(store.path)
