"""Runs of live sources through small graphs, watched from the test while they go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from onlooker.operators.events import Event
from onlooker.pipeline.config import GraphSpec
from onlooker.pipeline.graph import Graph, build_graph
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.runtime.local import LocalRunner
from onlooker.pipeline.session import Runner, Session
from onlooker.pipeline.sinks.base import Sink
from tests.runtime.graphs import registered_parts

PATIENCE = 120.0
QUICK = {"backoff_first": 0.1, "backoff_cap": 0.3, "refused_wait": 0.3, "stall_after": 4.0, "reconnect_after": 10.0}


def live_graph(*, source: dict[str, Any] | None = None, slow: float = 0.0, every: int = 1, in_flight: int = 2) -> Graph:
    """live -> mean -> teller: an event for each `every` frames, `slow` seconds of work for each frame."""
    document = {
        "name": "live-counters",
        "nodes": {
            "decode": {
                "use": "live",
                "stage": "decode",
                "config": {"fps": 10.0, "width": 16, "height": 12, **QUICK, **(source or {})},
            },
            "mean": {"use": "mean", "inputs": {"frames": "decode.frames"}, "config": {"slow": slow}},
            "teller": {"use": "teller", "inputs": {"mean": "mean.mean"}, "config": {"every": every}},
        },
        "stages": {"decode": {"num_cpus": 0}, "models": {"num_cpus": 0}},
        "runtime": {"in_flight": in_flight},
    }
    with registered_parts():
        return build_graph(GraphSpec.model_validate(document))


class LiveRun:
    """A session in a thread of its own; its events as they come."""

    def __init__(
        self,
        graph: Graph,
        sources: dict[str, str],
        runner: Callable[..., Runner] = LocalRunner,
        sinks: Sequence[Sink] = (),
        *,
        stay: bool = False,
    ) -> None:
        specs = [SourceSpec(uri, name) for name, uri in sources.items()]
        self.notices: list[str] = []
        self.failures: list[str] = []
        self.session = Session(
            graph,
            runner,
            specs,
            list(sinks),
            on_notice=self.notices.append,
            on_failure=self.failures.append,
            stay=stay,
        )
        self.events: list[Event] = []
        self.came: list[float] = []
        """Per event when it came, monotonic seconds."""
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="session")

    def _run(self) -> None:
        try:
            for event in self.session.events():
                self.came.append(time.monotonic())
                self.events.append(event)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> LiveRun:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Interrupt and wait for the end."""
        self.session.interrupt()
        self.join()

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def until(self, done: Callable[[], Any]) -> Any:
        """Wait until `done()` is true; its value."""
        deadline = time.monotonic() + PATIENCE
        while not (found := done()):
            assert self.error is None, self.error
            told = [(e.data.stream, e.data.status, e.data.reason) for e in self.events if e.kind == "stream"]
            assert time.monotonic() < deadline, f"did not happen; states: {told[-8:]}"
            time.sleep(0.05)
        return found

    def captions(self, stream: str) -> list[Event]:
        return [e for e in self.events if e.kind == "caption" and e.data.stream == stream]

    def states(self, stream: str) -> list[Any]:
        return [e for e in self.events if e.kind == "stream" and e.data.stream == stream]

    def statuses(self, stream: str) -> list[str]:
        return [e.data.status for e in self.states(stream)]

    def more_captions(self, stream: str, number: int = 5) -> None:
        """Wait for that many events more."""
        goal = len(self.captions(stream)) + number
        self.until(lambda: len(self.captions(stream)) >= goal)


def check_stream(run: LiveRun, stream: str) -> dict[str, int]:
    """What must hold of every stream that has ended, whatever happened on the way; returns its counters."""
    states = run.states(stream)
    assert [e.phase for e in states] == ["new", *["update"] * (len(states) - 2), "end"]
    assert [e.data.rev for e in states] == list(range(len(states)))
    assert len({e.data.event_id for e in states}) == 1
    assert run.events.index(states[-1]) == max(i for i, e in enumerate(run.events) if e.data.stream == stream)
    seen = [e.data.t_seen for e in states]
    assert seen == sorted(seen)
    counters: dict[str, int] = states[-1].data.side.counters
    dropped = sum(number for name, number in counters.items() if name.startswith("frames_dropped_"))
    assert counters["frames_in"] == counters["frames_processed"] + dropped, counters
    last: dict[int, float] = {}
    for event in run.captions(stream):
        epoch = event.data.media_epoch
        assert event.t_end is not None and event.t_end >= last.get(epoch, -1.0), "event time does not go back"
        last[epoch] = event.t_end
    assert list(last) == sorted(last), "epochs follow each other"
    return counters
