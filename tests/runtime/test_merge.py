"""The log has one order, however its events arrive."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.events import Event, make_event
from onlooker.operators.packets import Events
from onlooker.pipeline.runtime.batch import Batch
from onlooker.pipeline.runtime.merge import EventMerger

STREAMS = ["a", "b"]
EDGES = ("caption.events", "query.events")


def event(stream: str, kind: str, number: int, t: float) -> Event:
    content = {"text": "x"} if kind == "caption" else {"query": "x"}
    return make_event(
        kind,
        stream=stream,
        epoch=0,
        event_no=number,
        rev=0,
        phase="end",
        t_start=0.0,
        t_end=t,
        t_seen=t,
        **content,
    )


def packets(stream: str, edge: str, times: list[int]) -> list[Events]:
    kind = edge.partition(".")[0]
    return [Events(stream, 0, float(t), (event(stream, kind, i, float(t)),)) for i, t in enumerate(times)]


def batches(stream: str, times: dict[str, list[int]], cuts: list[int]) -> list[Batch]:
    """The events of one stream cut into batches at these media times, the last with the end."""
    made = []
    before = -math.inf
    for cut in [*sorted(set(cuts)), math.inf]:
        given_now = {edge: [p for p in packets(stream, edge, times[edge]) if before < p.t <= cut] for edge in times}
        end = End("complete", 100.0) if cut == math.inf else None
        made.append(Batch(stream, given_now, dict.fromkeys(times, cut), end=end))  # type: ignore[arg-type]
        before = cut
    return made


def log(order: list[Batch]) -> list[str]:
    merger = EventMerger(STREAMS, EDGES)
    out = []
    for batch in order:
        merger.add(batch)
        out += [e.id for _, e in merger.ready()]
    return out


TIMES = st.lists(st.integers(0, 12), unique=True, max_size=6).map(sorted)
STREAM = st.fixed_dictionaries(dict.fromkeys(EDGES, TIMES))
CUTS = st.lists(st.integers(0, 12), max_size=4)


@given(st.fixed_dictionaries(dict.fromkeys(STREAMS, STREAM)), st.lists(CUTS, min_size=4, max_size=4), st.data())
def test_order_depends_on_the_events_alone(
    times: dict[str, dict[str, list[int]]], cuts: list[list[int]], data: st.DataObject
) -> None:
    logs = []
    for first, second in (cuts[:2], cuts[2:]):
        queues = [batches("a", times["a"], first), batches("b", times["b"], second)]
        order = []
        while any(queues):
            order.append(data.draw(st.sampled_from([q for q in queues if q])).pop(0))
        logs.append(log(order))
    assert logs[0] == logs[1]
    assert len(logs[0]) == sum(len(found) for stream in times.values() for found in stream.values())


@given(st.fixed_dictionaries(dict.fromkeys(STREAMS, STREAM)))
def test_order_is_time_then_stream_then_kind_then_number(times: dict[str, dict[str, list[int]]]) -> None:
    expected = sorted(
        (t, stream, edge.partition(".")[0], number)
        for stream, edges in times.items()
        for edge, found in edges.items()
        for number, t in enumerate(found)
    )
    written = log([*batches("b", times["b"], []), *batches("a", times["a"], [])])
    assert written == [f"{stream}/0/{kind}/{number}/0" for _, stream, kind, number in expected]


def begun() -> EventMerger:
    """Both streams have begun."""
    merger = EventMerger(STREAMS, EDGES[:1])
    for stream in STREAMS:
        merger.add(Batch(stream, info=SourceInfo(stream, 0, 8, 8)))
    return merger


def test_event_waits_for_the_stream_that_is_behind() -> None:
    merger = begun()
    merger.add(Batch("a", {EDGES[0]: packets("a", EDGES[0], [5])}, {EDGES[0]: 5.0}))  # type: ignore[dict-item]
    assert list(merger.ready()) == []
    merger.add(Batch("b", {}, {EDGES[0]: 5.0}))
    assert [e.id for _, e in merger.ready()] == ["a/0/caption/0/0"]


def test_ended_stream_holds_nothing_back() -> None:
    merger = begun()
    merger.add(Batch("b", end=End("complete", 1.0)))
    merger.add(Batch("a", {EDGES[0]: packets("a", EDGES[0], [5])}, {EDGES[0]: 5.0}))  # type: ignore[dict-item]
    assert [e.id for _, e in merger.ready()] == ["a/0/caption/0/0"]


def test_streams_begin_in_the_log_in_the_order_of_their_names() -> None:
    merger = EventMerger(STREAMS, EDGES[:1])
    for stream in reversed(STREAMS):
        merger.push(-math.inf, event(stream, "caption", 0, 0.0))
        merger.add(Batch(stream, info=SourceInfo(stream, 0, 8, 8)))
    assert [e.id for _, e in merger.ready()] == ["a/0/caption/0/0", "b/0/caption/0/0"]


def test_stream_that_began_holds_back_what_happens_in_another() -> None:
    merger = begun()
    merger.add(Batch("a", {EDGES[0]: packets("a", EDGES[0], [5])}, {EDGES[0]: 5.0}))  # type: ignore[dict-item]
    assert list(merger.ready()) == []
