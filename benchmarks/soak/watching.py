"""What `live_soak.py` watches with: videos, a graph that tells of every frame, and a session in a thread."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import psutil

from onlooker.operators.contract import Config, Inputs, Operator, Outputs, Port
from onlooker.operators.events import Event, make_event
from onlooker.operators.packets import Events, Packet
from onlooker.pipeline.assemble import runner_factory
from onlooker.pipeline.graph import Graph, Node, load_graph
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.session import Session

PATIENCE = 180.0
"""Seconds after which something is said not to have happened."""
_NAME = "every frame"


class ProbeConfig(Config):
    """What the probe costs."""

    slow: float = 0.0
    """Seconds of work for each frame."""


@dataclass
class ProbeState:
    """What a stream has seen in its epoch."""

    stream: str
    seen: int = 0


class Probe(Operator[ProbeState]):
    """Tells an event for every frame or embedding that it gets."""

    Config = ProbeConfig
    inputs = {"seen": Port(Packet)}
    outputs = {"events": Events}
    config: ProbeConfig

    def initial_state(self, stream: str) -> ProbeState:
        """Nothing seen."""
        return ProbeState(stream)

    def process_batch(self, states: list[ProbeState], inputs: list[Inputs]) -> list[tuple[ProbeState, Outputs]]:
        """Tell each packet of each stream."""
        return [(state, self._tell(state, given)) for state, given in zip(states, inputs, strict=True)]

    def _tell(self, state: ProbeState, given: Inputs) -> Outputs:
        told: list[Packet] = []
        for packet in given.packets.get("seen", ()):
            time.sleep(self.config.slow)
            event = make_event(
                "query",
                stream=packet.stream,
                epoch=packet.epoch,
                event_no=state.seen,
                rev=0,
                phase="end",
                t_start=packet.t,
                t_end=packet.t,
                t_seen=packet.t,
                query=_NAME,
            )
            state.seen += 1
            told.append(Events(packet.stream, packet.epoch, packet.t, (event,)))
        return Outputs({"events": told})


def soak_graph(*, light: bool, slow: float = 0.0, **source: Any) -> Graph:
    """The graph `live` with a probe behind its tower; with `light` the probe alone. `source` sets the camera's node."""
    settings = {"live": source, "query_localizer": {"queries": ["a person at the door"]}}
    graph = load_graph("live", settings=settings)
    if light:
        graph = graph.without([node.name for node in graph.nodes if not node.is_source])
    edge, stage = ("decode.frames", "probe") if light else ("tower.embedding", "language")
    probe = Node("probe", "probe", Probe, ProbeConfig(slow=slow), {"seen": edge}, stage)
    return dataclasses.replace(graph, nodes=(*graph.nodes, probe))


def make_video(path: Path, seconds: float = 10.0, *, size: str = "640x360", codec: str = "libx264") -> Path:
    """A moving test pattern at 25 fps with a key frame each second, as a camera sends it: no reordered frames."""
    pattern = f"testsrc2=size={size}:rate=25:duration={seconds:g}"
    options = {"g": "25", "bf": "0", "preset": "ultrafast"}
    quiet = {"x265-params": "log-level=error:bframes=0:keyint=25"} if codec == "libx265" else {}
    with av.open(pattern, format="lavfi") as source, av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={**options, **quiet})
        stream.width, stream.height = map(int, size.split("x"))
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 25)
        for frame in source.decode(video=0):
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that left the graph."""

    came: float
    """When its event came, monotonic seconds."""
    arrived: float
    """When it arrived at this host, Unix time."""
    age: float
    """Seconds from there to the log."""
    unix: float
    """The event's wall time, Unix time."""
    source: str
    error: float
    """The declared source of the wall time and its bound, seconds."""


@dataclass(frozen=True, slots=True)
class Told:
    """A state that the log told."""

    came: float
    status: str
    reason: str
    retry_in: float | None
    counters: dict[str, int] | None

    def __str__(self) -> str:
        """As the log has it."""
        return f"{self.status} ({self.reason})"


class NotSeenError(Exception):
    """What a scenario waited for did not happen."""


class Watched:
    """A session of cameras in a thread; what it tells, as it comes."""

    def __init__(self, graph: Graph, cameras: dict[str, str], runner: str = "local") -> None:
        """Begin to watch."""
        specs = [SourceSpec(url, name) for name, url in cameras.items()]
        self.session = Session(graph, runner_factory(runner), specs, [])
        self.frames: defaultdict[str, list[Seen]] = defaultdict(list)
        self.states: defaultdict[str, list[Told]] = defaultdict(list)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watched")
        self._thread.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """End all streams and wait for the end of the log."""
        self.session.interrupt()
        self._thread.join()

    def add(self, name: str, url: str) -> None:
        """Watch one more camera."""
        self.session.add(SourceSpec(url, name))

    def remove(self, name: str) -> None:
        """End one stream."""
        self.session.remove(name)
        self.until(lambda: self.states[name][-1].status == "ended", f"the end of {name}")

    def until(self, done: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
        """Wait for something; raises NotSeenError."""
        deadline = time.monotonic() + patience
        while not done():
            if self.error is not None:
                raise NotSeenError(f"{what}: {self.error!r}")
            if time.monotonic() > deadline:
                raise NotSeenError(f"{what} did not come in {patience:g} s")
            time.sleep(0.02)

    def more(self, name: str, number: int = 5, patience: float = PATIENCE) -> None:
        """Wait for that many frames more."""
        goal = len(self.frames[name]) + number
        self.until(lambda: len(self.frames[name]) >= goal, f"frames of {name}", patience)

    def first_after(self, name: str, instant: float) -> Seen:
        """The first frame that arrived after an instant, monotonic seconds; waits for it."""

        def found() -> Seen | None:
            return next((one for one in self.frames[name] if one.came - one.age > instant), None)

        self.until(found, f"a frame of {name}")
        seen = found()
        assert seen is not None
        return seen

    def ages(self, name: str, start: float, end: float) -> list[float]:
        """Ages of the frames that came in a window of monotonic time, seconds."""
        return [one.age for one in list(self.frames[name]) if start <= one.came < end]

    def drops(self, name: str) -> int:
        """Frames that should have been seen and were not."""
        return self.session.progress.streams[name].dropped

    def conserved(self) -> bool:
        """Whether every frame of every stream that has ended is accounted for."""
        return all(_balanced(states[-1].counters) for states in self.states.values())

    def _run(self) -> None:
        try:
            for event in self.session.events():
                self._take(event)
        except BaseException as error:
            self.error = error
            print(f"the session broke off: {error!r}", file=sys.stderr)

    def _take(self, event: Event) -> None:
        data: Any = event.data
        now, side = time.monotonic(), data.side
        if event.kind == "stream":
            told = Told(now, data.status, data.reason, data.retry_in, side.counters)
            self.states[data.stream].append(told)
        elif event.kind == "query" and data.query == _NAME and side.wall and side.age_ms is not None:
            unix, age = datetime.fromisoformat(side.wall).timestamp(), side.age_ms / 1e3
            seen = Seen(now, time.time() - age, age, unix, side.time_source, (side.clock_err_ms or 0.0) / 1e3)
            self.frames[data.stream].append(seen)


def _balanced(counters: dict[str, int] | None) -> bool:
    if counters is None:
        return False
    dropped = sum(number for name, number in counters.items() if name.startswith("frames_dropped_"))
    return counters["frames_in"] == counters["frames_processed"] + dropped


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed; nan of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def resident(without: set[int]) -> float:
    """Bytes that this process and its children hold, but for those named."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += 0 if process.pid in without else process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return float(total)


def held() -> dict[str, set[str]]:
    """Threads, children and descriptors (sockets by their ends) of this process."""
    me = psutil.Process()
    folder = Path("/proc/self/fd")
    listed = [(name, folder / name) for name in os.listdir(folder)] if folder.exists() else []
    return {
        "threads": {str(thread.id) for thread in me.threads()},
        "processes": {str(child.pid) for child in me.children(recursive=True)},
        "descriptors": {f"{name} {os.readlink(link)}" for name, link in listed if os.path.lexists(link)},
    }
