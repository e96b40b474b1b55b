"""The contract between an operator and the engine that runs it.

An operator says what it takes and gives (typed ports), how it is configured (a pydantic model) and what it remembers
(a state per stream). The engine promises the rest:

* Packets arrive per stream in order; on every edge their times strictly increase.
* All ``sync`` ports of a call are complete up to ``Inputs.watermark``, the joint watermark: nothing at or before it is
  still to come. A ``latest`` port never holds a call back; it delivers what has come in.
* ``flush`` follows the last packet of a stream, once. A live stream is cut into epochs, lines of time that each begin
  at zero: every epoch begins with a fresh state and ends with a flush.
* Control packets are never dropped and come before the packets of their call.
* How packets are cut into calls means nothing. One packet a call, three, or all: the outputs are the same. An operator
  that batches its own model calls must therefore use shapes fixed by its config (pad with zeros), since the last bits
  of a matrix product depend on the shape.

State is data: a dataclass of arrays, tensors and plain values, owned by the engine and handed in and out of every call.
Files, models and connections are resources: made in ``open``, dropped in ``close``, never part of the state. That is
what makes a state portable: it can be saved, moved to another process or compared in a test without the operator.

Modules that define operators import torch inside ``open`` and the methods that run after it, so that a graph can be
validated and drawn, and a decode or sink process can run, without it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from .packets import Packet

__all__ = [
    "Clip",
    "ClipRequest",
    "Config",
    "Context",
    "ContractError",
    "Control",
    "End",
    "Inputs",
    "Operator",
    "Outputs",
    "Port",
    "Source",
    "SourceInfo",
    "SourceOutputs",
    "StreamState",
    "StreamStatus",
    "WallTime",
]

S = TypeVar("S")
C = TypeVar("C")

StreamStatus = Literal["connecting", "live", "stalled", "reconnecting"]
"""Where a live stream stands; that it ended is told by ``End``."""
WallSource = Literal["rtcp", "host", "file"]


class ContractError(RuntimeError):
    """An operator broke the contract: a programming error, reported with the node's name."""


class Config(BaseModel):
    """Base of all operator configs: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Port:
    """One typed input."""

    type: type[Packet]
    mode: Literal["sync", "latest"] = "sync"
    """``sync`` ports are aligned by media time; a ``latest`` port delivers what is there."""
    optional: bool = False
    """An optional port may be left unconnected."""


@dataclass(frozen=True, slots=True)
class Control:
    """A command that travels with the data, e.g. ``query.add``; never dropped."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    stream: str | None = None
    """Only for this stream; None means for all."""
    lasting: bool = True
    """Whether the fresh state of a later epoch hears it too, as of a wish; not so for a question about this moment."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the engine tells an operator when it opens it."""

    threads: int = 1
    """Threads that model calls may use. Part of exact mode: results depend on it in the last bits."""
    device: str = "cpu"
    """Where models run: ``cpu``, ``cuda``, ``cuda:1`` ..."""
    outputs: frozenset[str] | None = None
    """Output ports that anything reads; the others need not be filled. None: all of them."""

    def wants(self, port: str) -> bool:
        """Whether anything reads ``port``."""
        return self.outputs is None or port in self.outputs


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one stream brings to one call."""

    packets: Mapping[str, Sequence[Any]]
    """Per port the new packets, times strictly increasing; ports without new packets may be missing."""
    watermark: float
    """Joint watermark of the sync ports in seconds of media time."""
    now: float
    """The engine's clock in seconds: media time where time is simulated (files), else the host's monotonic clock."""
    control: Sequence[Control] = ()


@dataclass(slots=True)
class Outputs:
    """What one call gives for one stream."""

    packets: dict[str, list[Packet]] = field(default_factory=dict)
    watermarks: dict[str, float] = field(default_factory=dict)
    """Per port the media time up to which the output is final; the joint input watermark where a port is missing."""
    wake_at: float | None = None
    """Call again at this time of the engine's clock even if nothing arrives."""


class Operator(ABC, Generic[S]):
    """A node of the graph that turns packets into packets.

    Subclasses set the class attributes, and implement ``initial_state`` and ``process_batch``. Stateless operators use
    ``None`` as state and set ``keyed = False``; the engine may then run several replicas of them.
    """

    Config: ClassVar[type[Config]] = Config
    inputs: ClassVar[Mapping[str, Port]] = {}
    outputs: ClassVar[Mapping[str, type[Packet]]] = {}
    keyed: ClassVar[bool] = True
    """Whether there is a state per stream."""
    controls: ClassVar[frozenset[str]] = frozenset()
    """Kinds of control packets that it obeys."""

    def __init__(self, config: Any) -> None:
        """Keep the validated config; resources are made in ``open``."""
        self.config = config

    def open(self, context: Context) -> None:
        """Load models and other resources. Called once, before any packet."""

    @abstractmethod
    def initial_state(self, stream: str) -> S:
        """The state of a stream that has brought nothing yet."""

    @abstractmethod
    def process_batch(self, states: list[S], inputs: list[Inputs]) -> list[tuple[S, Outputs]]:
        """Process the new packets of one or more streams, item i of the lists belonging to one stream."""

    def process(self, state: S, inputs: Inputs) -> tuple[S, Outputs]:
        """The one-stream form of ``process_batch``."""
        return self.process_batch([state], [inputs])[0]

    def flush(self, state: S, t_end: float) -> tuple[S, Outputs]:
        """The stream is over at media time ``t_end`` (seconds): give what is left."""
        return state, Outputs()

    def close(self) -> None:
        """Drop the resources."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a stream once its source is open."""

    stream: str
    epoch: int
    """0 for files; Unix milliseconds of when watching began for live streams, whose epochs come later."""
    width: int
    """Pixels after rotation; 0 for live streams, which may have any size in each epoch."""
    height: int
    duration: float | None = None
    """Seconds of media time, where known beforehand."""
    wall_zero: float | None = None
    """Unix time of media time zero, seconds."""
    time_source: WallSource = "host"
    clock_err_ms: float | None = None
    live: bool = False
    """Whether the stream has states and epochs."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """A live stream is in another state, or in the same one for another reason."""

    status: StreamStatus
    reason: str
    """One word."""
    unix: float
    """When, by the host's clock: Unix seconds."""
    message: str | None = None
    """What is wrong and what to do, for people; holds no credentials."""
    retry_in: float | None = None
    """Seconds until the next attempt to connect."""
    epoch: int | None = None
    """The epoch that the packets belong to from now on."""


@dataclass(frozen=True, slots=True)
class WallTime:
    """When the frame at media time ``t`` was taken."""

    t: float
    unix: float
    """Unix seconds."""
    source: WallSource
    error: float
    """Bound of the error against the clock of ``source``, seconds."""


@dataclass(frozen=True, slots=True)
class End:
    """How a stream, or an epoch of it, ended."""

    reason: str
    """``complete``, ``truncated``, ``interrupted`` or what else stopped it."""
    t: float
    """End in media time: the last frame's time plus its duration, seconds."""
    final: bool = True
    """Whether the stream is over; else only an epoch is."""
    message: str | None = None
    """What went wrong, for people; holds no credentials."""


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """Wish for the pictures of a span that a live source has seen."""

    number: int
    """By which the answer is known; chosen by who asks."""
    epoch: int
    t_start: float
    """Media time, seconds."""
    t_end: float


@dataclass(frozen=True, slots=True)
class Clip:
    """A short piece of video as the camera sent it, in a file format, and one picture of it."""

    number: int
    """Of the request."""
    video: bytes = b""
    """The file; empty where nothing can be given."""
    suffix: str = ".mp4"
    """What the file's name should end in."""
    picture: bytes = b""
    """JPEG of a frame within the span; empty where none can be decoded."""
    t_start: float = 0.0
    """Media time of the first frame in seconds: a key frame, so that it may lie before the span."""
    error: str | None = None
    """Why there is no clip; one line for people."""


@dataclass(slots=True)
class SourceOutputs:
    """What one read gives."""

    packets: dict[str, list[Packet]] = field(default_factory=dict)
    watermark: float = -math.inf
    """Media time up to which the source has delivered everything."""
    end: End | None = None
    counters: dict[str, int] = field(default_factory=dict)
    """Totals since the start, e.g. ``frames_in``, ``frames_sampled``, ``frames_dropped_corrupt``."""
    epoch: int = 0
    """The epoch of the packets and of the end."""
    arrival: float | None = None
    """When the newest of the packets arrived, monotonic seconds of the source's host; live sources tell it."""
    wall: WallTime | None = None
    """When the newest of the packets was taken, where that is not known beforehand."""
    states: tuple[StreamState, ...] = ()
    """News of a live stream. They come alone, and reach the log past all work that is under way."""
    notices: tuple[str, ...] = ()
    """What the user should know though it changes nothing; they come alone as well."""
    clips: tuple[Clip, ...] = ()
    """What was asked for by `Source.clip`; they come alone as well."""


class Source(ABC, Generic[C]):
    """Where a stream comes from. The cursor says where it stands, so that reading can be resumed elsewhere."""

    Config: ClassVar[type[Config]] = Config
    outputs: ClassVar[Mapping[str, type[Packet]]] = {}
    live: ClassVar[bool] = False
    """Whether the source drops frames instead of waiting, and delivers packets only where it was given ``credit``."""

    def __init__(self, config: Any, uri: str, stream: str) -> None:
        """Keep what to read; nothing is opened yet."""
        self.config = config
        self.uri = uri
        self.stream = stream

    @abstractmethod
    def open(self, context: Context) -> SourceInfo:
        """Open the source.

        Raises:
            SourceError: it cannot be opened; the message says why and what to do, without credentials.
        """

    @abstractmethod
    def initial_cursor(self) -> C:
        """The cursor of a source that has delivered nothing."""

    @abstractmethod
    def read(self, cursor: C) -> tuple[C, SourceOutputs]:
        """Deliver the next packets after ``cursor``; blocks until there are some or the stream ends."""

    def credit(self, batches: int, arrival: float | None = None) -> None:
        """Allow that many more reads with packets; callable from another thread. Sources that wait ignore it.

        Args:
            batches: how many more may be under way between this source and whoever takes the results.
            arrival: ``SourceOutputs.arrival`` of one that has just left the last node; tells how old results are.
        """

    def clip(self, request: ClipRequest) -> None:
        """Ask for a clip, which a later ``read`` gives; from any thread. Sources that keep nothing ignore it."""

    @property
    def lingers(self) -> bool:
        """Whether ``read`` is to be called even after the end of the stream, for clips that are asked for late."""
        return False

    def release(self) -> None:
        """Linger no longer: all that became of the stream has been told. Callable from another thread."""

    def interrupt(self) -> None:
        """Make ``read`` end the stream soon, with reason ``interrupted``; callable from another thread."""

    def close(self) -> None:
        """Release the source; only the reading thread may call this."""
