"""Streams that come, go and never begin, in both runners: nobody else notices."""

from __future__ import annotations

import threading

import pytest

from onlooker.operators.contract import End
from onlooker.operators.events import Event
from onlooker.pipeline.errors import UsageError
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.runtime.local import LocalRunner
from onlooker.pipeline.runtime.ray_runner import RayRunner
from onlooker.pipeline.session import Runner, Session
from onlooker.pipeline.sinks.base import Sink
from tests.decode.live.sources import gone, held, wait_until
from tests.e2e.live_runs import LiveRun, check_stream, live_graph

from .graphs import canonical, counter_graph, local_log, specs
from .parts import BrokenSourceError
from .test_ray_live import source_actors

PATTERN = "lavfi:testsrc2=size=64x48:rate=25"
CAMERA = "rtsp://127.0.0.1:1/cam"


@pytest.fixture(params=[LocalRunner, RayRunner])
def runner(request: pytest.FixtureRequest) -> type[Runner]:
    if request.param is RayRunner:
        request.getfixturevalue("ray_ready")
    kind: type[Runner] = request.param
    return kind


def test_streams_come_and_go_while_others_are_watched(runner: type[Runner]) -> None:
    before = held()
    with LiveRun(live_graph(), {"one": PATTERN}, runner) as run:
        run.more_captions("one")
        run.session.add(SourceSpec(PATTERN, "two"))
        with pytest.raises(UsageError, match="there is a stream 'two' already"):
            run.session.add(SourceSpec(PATTERN, "two"))
        run.more_captions("two")
        actors = source_actors()
        run.session.remove("two")
        run.until(lambda: run.statuses("two")[-1] == "ended")
        first = check_stream(run, "two")
        assert run.states("two")[-1].data.reason == "removed" and first["frames_processed"] >= 5
        if actors:
            run.until(lambda: sum(not gone(actor.pid) for actor in actors) == 1)  # its process is not kept
        run.more_captions("one")
        again = len(run.events)
        run.session.add(SourceSpec(PATTERN, "two"))
        run.until(lambda: any(e.kind == "caption" and e.data.stream == "two" for e in run.events[again:]))
        with pytest.raises(UsageError, match="there is no stream 'three'; there are: one, two"):
            run.session.remove("three")
        for name in ("one", "two"):
            run.session.remove(name)
        run.join()
    run.events[:again] = [e for e in run.events[:again] if e.data.stream != "two"]
    for name in ("one", "two"):
        assert check_stream(run, name)["connections"] == 1
        assert run.states(name)[-1].data.reason == "removed"
    assert run.captions("two")[0].data.text.startswith("1 "), "its state began anew"
    assert run.session.exit_code == 0, "removed on purpose"
    with pytest.raises(UsageError, match="the run is over"):
        run.session.add(SourceSpec(PATTERN, "late"))
    wait_until(lambda: not source_actors())
    if runner is LocalRunner:
        wait_until(lambda: _no_more_than(before))


def test_a_stream_may_be_removed_before_it_ran_and_then_be_added_again(runner: type[Runner]) -> None:
    with LiveRun(live_graph(), {"one": PATTERN}, runner) as run:
        run.more_captions("one", 1)
        for _ in range(2):
            run.session.add(SourceSpec(PATTERN, "two"))
            run.session.remove("two")
            ends = len([e for e in run.states("two") if e.phase == "end"])
            run.until(lambda: len([e for e in run.states("two") if e.phase == "end"]) > ends)  # noqa: B023
        run.more_captions("one")
    assert {e.data.reason for e in run.states("two") if e.phase == "end"} == {"removed"}
    check_stream(run, "one")


def _no_more_than(before: tuple[set[int], int, int]) -> bool:
    """Whether nothing was left behind; something of the tests before may have gone meanwhile."""
    return all(now <= then for now, then in zip(held(), before, strict=True))  # type: ignore[operator]


class _Replacing(Sink):
    """Lets another thread add a stream again as soon as its end is told, as a subscriber of a bus might."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.failed: list[Exception] = []
        self.again: threading.Thread | None = None

    def open(self) -> None:
        return

    def begin(self, session: Session) -> None:
        self._session = session

    def event(self, event: Event) -> None:
        if event.kind == "stream" and event.phase == "end" and event.data.stream == "two" and self.again is None:
            self.again = threading.Thread(target=self._add)
            self.again.start()
            self.again.join(0.5)  # the sinks are slow

    def _add(self) -> None:
        try:
            self._session.add(SourceSpec(PATTERN, "two"))
        except UsageError as error:
            self.failed.append(error)

    def finish(self, stream: str, end: End) -> None:
        self.finished.append(stream)

    def close(self) -> None:
        return


def test_a_stream_added_while_the_end_of_the_one_before_is_told_is_another_one() -> None:
    before, sink = held(), _Replacing()
    with LiveRun(live_graph(), {"one": PATTERN, "two": PATTERN}, sinks=[sink]) as run:
        sink.begin(run.session)
        run.more_captions("two")
        run.session.remove("two")
        run.until(lambda: "ended" in run.statuses("two"))
        assert sink.again is not None
        sink.again.join(60)
        assert not sink.failed and sink.finished == ["two"]
        run.more_captions("two")
        run.session.remove("two")
        run.until(lambda: run.statuses("two").count("ended") == 2)
    assert sink.finished == ["two", "two", "one"]
    wait_until(lambda: _no_more_than(before))


def test_a_run_may_stay_while_nothing_is_watched(runner: type[Runner]) -> None:
    with LiveRun(live_graph(source={"policy": "block"}), {}, runner, stay=True) as run:
        run.until(lambda: _added(run, "bad", CAMERA))
        run.until(lambda: run.statuses("bad") == ["ended"])
        for number in (1, 2):
            run.session.add(SourceSpec(f"{PATTERN}:duration=1", "one"))
            run.until(lambda: len([e for e in run.states("one") if e.phase == "end"]) == number)  # noqa: B023
        run.session.interrupt()
        run.join()
    assert run.error is None and len(run.captions("one")) >= 2
    with pytest.raises(UsageError, match="the run is over"):
        run.session.add(SourceSpec(PATTERN, "late"))


def _added(run: LiveRun, stream: str, uri: str) -> bool:
    """Whether a run takes a stream already: at first it still begins."""
    try:
        run.session.add(SourceSpec(uri, stream))
    except UsageError:
        return False
    return True


def test_a_file_cannot_be_joined_by_another_stream(runner: type[Runner]) -> None:
    session = Session(counter_graph(), runner, specs("a"), [])
    told = []
    for event in session.events():
        told.append(event)
        if len(told) == 1:
            with pytest.raises(UsageError, match="live sources only"):
                session.add(specs("b")[0])
    assert set(session.ends) == {"a"} and session.exit_code == 0


def test_a_camera_that_cannot_be_opened_ends_its_own_stream_only(runner: type[Runner]) -> None:
    graph = live_graph(source={"policy": "block"})  # test patterns can wait, cameras cannot
    sources = {"bad": CAMERA, "good": f"{PATTERN}:duration=2"}
    with LiveRun(graph, sources, runner) as run:
        run.more_captions("good")
        run.session.add(SourceSpec(CAMERA, "worse"))
        run.join()
    for name in ("bad", "worse"):
        [told] = run.states(name)
        assert (told.data.status, told.data.reason) == ("ended", "not_opened")
        assert "cannot wait; use policy" in told.data.message
        assert any(name in line and "cannot wait" in line for line in run.failures)
    assert check_stream(run, "good")["frames_in"] == 50
    assert run.session.exit_code == 3


def test_a_file_that_cannot_be_opened_takes_no_other_with_it(runner: type[Runner]) -> None:
    session = Session(counter_graph(source={"fail_open": "b"}), runner, specs("a", "b", "c"), [])
    events = list(session.events())
    of_b = [e for e in events if e.data.stream == "b"]
    others = canonical([e for e in events if e.data.stream != "b"])
    assert others == local_log(counter_graph(), "a", "c")
    assert [(e.phase, e.data.status) for e in of_b] == [("new", "started"), ("end", "ended")]  # type: ignore[attr-defined]
    assert session.ends["b"] == End("not_opened", 0.0, message="'/somewhere/b' does not exist; check the path.")
    assert session.exit_code == 3


def test_where_no_file_can_be_opened_nothing_was_processed(runner: type[Runner]) -> None:
    session = Session(counter_graph(source={"fail_open": True}), runner, specs("a", "b"), [])
    assert [e.data.stream for e in session.events()] == ["a", "b", "a", "b"]
    assert session.exit_code == 2
    alone = Session(counter_graph(source={"fail_open": True}), runner, specs("a"), [])
    with pytest.raises(BrokenSourceError, match="check the path"):
        list(alone.events())
