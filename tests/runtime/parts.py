"""A small source and small operators of numpy alone, for graphs that run in a blink; workers import them from here."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onlooker.operators.contract import (
    Config,
    Context,
    End,
    Inputs,
    Operator,
    Outputs,
    Port,
    Source,
    SourceInfo,
    SourceOutputs,
)
from onlooker.operators.errors import OnlookerError
from onlooker.operators.events import make_event
from onlooker.operators.packets import Embedding, Events, Frame, Packet

FPS = 2.0


class BrokenSourceError(OnlookerError):
    """With two arguments, so that it crosses a process border only if its pickling is right."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[BrokenSourceError], tuple[str, str]]:
        return type(self), (self.code, str(self))


def die(marker: str) -> None:
    """End this process as a crash would; not again if the file ``marker`` says that it happened already."""
    if marker:
        if Path(marker).exists():
            return
        Path(marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def pixels(stream: str, index: int, size: int) -> npt.NDArray[np.uint8]:
    """Noise that belongs to one frame of one stream."""
    seed = [index, *stream.encode()]
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


class CounterConfig(Config):
    """What the source delivers."""

    frames: int = 40
    chunk: int = 3
    size: int = 8
    pause: float = 0.0
    fail_at: int | None = None
    fail_open: bool | str = False
    """Always, or for the stream of this name."""
    die_at: int | None = None
    marker: str = ""
    progress: str = ""
    """File that says how many frames have been read."""


class Counter(Source[int]):
    """Numbered frames of noise; the cursor is the number of the next."""

    Config = CounterConfig
    outputs = {"frames": Frame}
    config: CounterConfig
    stopped = False

    def open(self, context: Context) -> SourceInfo:
        if self.config.fail_open in (True, self.stream):
            raise BrokenSourceError("missing", f"{self.uri!r} does not exist; check the path.")
        return SourceInfo(self.stream, 0, self.config.size, self.config.size, time_source="file")

    def initial_cursor(self) -> int:
        return 0

    def read(self, cursor: int) -> tuple[int, SourceOutputs]:
        config = self.config
        time.sleep(config.pause)
        stop = min(cursor + config.chunk, config.frames)
        if config.fail_at is not None and stop > config.fail_at:
            raise ValueError(f"frame {config.fail_at} cannot be read")
        if config.die_at is not None and stop > config.die_at:
            die(config.marker)
        if self.stopped:
            return cursor, SourceOutputs(end=End("interrupted", cursor / FPS), counters={"frames_in": cursor})
        frames: list[Packet] = [
            Frame(self.stream, 0, i / FPS, pixels(self.stream, i, config.size), i, (config.size, config.size))
            for i in range(cursor, stop)
        ]
        if config.progress:
            partial = Path(f"{config.progress}.part")
            partial.write_text(str(stop))
            partial.replace(config.progress)  # at once, since a test reads it at any moment
        end = End("complete", stop / FPS) if stop == config.frames else None
        counters = {"frames_in": stop, "torch_imported": int("torch" in sys.modules)}
        return stop, SourceOutputs({"frames": frames}, (stop - 1) / FPS, end, counters)

    def interrupt(self) -> None:
        self.stopped = True


class MeanConfig(Config):
    """Settings of ``Mean``."""

    uneven: float = 0.0
    """Seconds to dawdle over every other frame."""
    slow: float = 0.0
    """Seconds to dawdle over each frame."""
    die_at: float | None = None
    marker: str = ""
    wake_in: float | None = None
    """Set a timer after each call, which makes it unfit for replicas."""


class Mean(Operator[None]):
    """Stateless: the mean colour of each frame."""

    Config = MeanConfig
    inputs = {"frames": Port(Frame)}
    outputs = {"mean": Embedding}
    keyed = False
    config: MeanConfig

    def initial_state(self, stream: str) -> None:
        return None

    def process_batch(self, states: list[None], inputs: list[Inputs]) -> list[tuple[None, Outputs]]:
        return [(None, self._means(one)) for one in inputs]

    def _means(self, inputs: Inputs) -> Outputs:
        outputs = Outputs({"mean": [self._mean(frame) for frame in inputs.packets.get("frames", [])]})
        if self.config.wake_in is not None:
            outputs.wake_at = inputs.now + self.config.wake_in
        return outputs

    def _mean(self, frame: Frame) -> Packet:
        if self.config.die_at == frame.t:
            die(self.config.marker)
        if frame.index % 2 == 0:
            time.sleep(self.config.uneven)
        time.sleep(self.config.slow)
        return Embedding(frame.stream, frame.epoch, frame.t, frame.pixels.mean((0, 1), dtype=np.float32))


class TellerConfig(Config):
    """Settings of ``Teller``."""

    every: int = 5
    fail_at: float | None = None
    die_at: float | None = None
    marker: str = ""
    """With it the death at ``die_at`` comes once, without it each time."""


@dataclass
class TellerState:
    """A running sum of the features, written in place as operators may."""

    stream: str
    total: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(3, np.float32))
    seen: int = 0
    told: int = 0
    reached: float = -math.inf
    since: float = 0.0
    epoch: int = 0
    heard: list[str] = field(default_factory=list)


class Teller(Operator[TellerState]):
    """Keyed: every few features an event with their sum and the commands so far; one more at the end."""

    Config = TellerConfig
    controls = frozenset({"query.add"})
    inputs = {"mean": Port(Embedding)}
    outputs = {"events": Events}
    config: TellerConfig

    def initial_state(self, stream: str) -> TellerState:
        return TellerState(stream)

    def process_batch(self, states: list[TellerState], inputs: list[Inputs]) -> list[tuple[TellerState, Outputs]]:
        return [(state, self._tell(state, one)) for state, one in zip(states, inputs, strict=True)]

    def flush(self, state: TellerState, t_end: float) -> tuple[TellerState, Outputs]:
        return state, Outputs({"events": [self._event(state, t_end)]})

    def _tell(self, state: TellerState, inputs: Inputs) -> Outputs:
        state.heard += [control.kind for control in inputs.control]
        events: list[Packet] = []
        for packet in inputs.packets.get("mean", []):
            if self.config.fail_at == packet.t:
                raise BrokenSourceError("odd", f"the packet at {packet.t} s is odd")
            if self.config.die_at == packet.t:
                die(self.config.marker)
            state.epoch = packet.epoch
            state.total += packet.features
            state.seen += 1
            state.reached = packet.t
            if state.seen % self.config.every == 0:
                events.append(self._event(state, packet.t))
        return Outputs({"events": events}, {"events": state.reached})

    @staticmethod
    def _event(state: TellerState, t: float) -> Packet:
        event = make_event(
            "caption",
            stream=state.stream,
            epoch=state.epoch,
            event_no=state.told,
            rev=0,
            phase="end",
            t_start=state.since,
            t_end=t,
            t_seen=t,
            score=float(state.total.sum()),
            text=f"{state.seen} {state.total.tolist()} {' '.join(state.heard)}",
        )
        state.told += 1
        state.since = t
        return Events(state.stream, state.epoch, t, (event,))


SOURCE_PARTS = {"counter": f"{__name__}:Counter"}
OPERATOR_PARTS = {"mean": f"{__name__}:Mean", "teller": f"{__name__}:Teller"}
