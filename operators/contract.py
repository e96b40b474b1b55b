"""The contract between an operator and the engine that runs it.

An operator says what it takes and gives (typed ports), how it is configured (a pydantic model) and what it remembers
(a state per stream). The engine promises the rest:

* Packets arrive per stream in order; on every edge their times strictly increase.
* All ``sync`` ports of a call are complete up to ``Inputs.watermark``, the joint watermark: nothing at or before it is
  still to come. A ``latest`` port never holds a call back; it delivers what has come in.
* ``flush`` follows the last packet of a stream, once.
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
]

S = TypeVar("S")
C = TypeVar("C")

END_OF_TIME = math.inf


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
    width: int
    height: int
    duration: float | None = None
    """Seconds of media time, where known beforehand."""
    wall_zero: float | None = None
    """Unix time of media time zero, seconds."""
    time_source: Literal["rtcp", "host", "file"] = "host"
    clock_err_ms: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended."""

    reason: str
    """``complete``, ``truncated``, ``interrupted`` or what else stopped it."""
    t: float
    """End in media time: the last frame's time plus its duration, seconds."""


@dataclass(slots=True)
class SourceOutputs:
    """What one read gives."""

    packets: dict[str, list[Packet]] = field(default_factory=dict)
    watermark: float = -math.inf
    """Media time up to which the source has delivered everything."""
    end: End | None = None
    counters: dict[str, int] = field(default_factory=dict)
    """Totals since the start, e.g. ``frames_in``, ``frames_sampled``, ``frames_dropped_corrupt``."""


class Source(ABC, Generic[C]):
    """Where a stream comes from. The cursor says where it stands, so that reading can be resumed elsewhere."""

    Config: ClassVar[type[Config]] = Config
    outputs: ClassVar[Mapping[str, type[Packet]]] = {}

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

    def interrupt(self) -> None:
        """Make ``read`` end the stream soon, with reason ``interrupted``; callable from another thread."""

    def close(self) -> None:
        """Release the source; only the reading thread may call this."""
