"""An operator that reads the numbers off numbered frames, so that an event says which frames it is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from onlooker.operators import registry
from onlooker.operators.contract import Config, Inputs, Operator, Outputs, Port
from onlooker.operators.events import make_event
from onlooker.operators.packets import Events, Frame, Packet
from onlooker.pipeline.config import GraphSpec
from onlooker.pipeline.graph import Graph, build_graph
from tests.videos import frame_number

from .live_runs import QUICK


class NumberReaderConfig(Config):
    """How many frames an event is about."""

    every: int = 10


@dataclass
class NumberReaderState:
    """What the open event has seen."""

    stream: str
    epoch: int = 0
    told: int = 0
    seen: list[tuple[float, int]] = field(default_factory=list)


class NumberReader(Operator[NumberReaderState]):
    """Every few frames a caption with their numbers; one more at the end."""

    Config = NumberReaderConfig
    inputs = {"frames": Port(Frame)}
    outputs = {"events": Events}
    config: NumberReaderConfig

    def initial_state(self, stream: str) -> NumberReaderState:
        return NumberReaderState(stream)

    def process_batch(
        self, states: list[NumberReaderState], inputs: list[Inputs]
    ) -> list[tuple[NumberReaderState, Outputs]]:
        return [(state, self._read(state, one)) for state, one in zip(states, inputs, strict=True)]

    def flush(self, state: NumberReaderState, t_end: float) -> tuple[NumberReaderState, Outputs]:
        return state, Outputs({"events": [self._event(state, t_end)] if state.seen else []})

    def _read(self, state: NumberReaderState, inputs: Inputs) -> Outputs:
        events: list[Packet] = []
        for frame in inputs.packets.get("frames", []):
            if len(state.seen) == self.config.every:
                events.append(self._event(state, frame.t))
            state.epoch = frame.epoch
            state.seen.append((frame.t, frame_number(frame.pixels)))
        return Outputs({"events": events})

    @staticmethod
    def _event(state: NumberReaderState, t: float) -> Packet:
        event = make_event(
            "caption",
            stream=state.stream,
            epoch=state.epoch,
            event_no=state.told,
            rev=0,
            phase="end",
            t_start=state.seen[0][0],
            t_end=t,
            t_seen=t,
            text=" ".join(str(number) for _, number in state.seen),
        )
        state.told += 1
        state.seen = []
        return Events(state.stream, state.epoch, t, (event,))


@contextmanager
def registered() -> Iterator[None]:
    """The operator can be used by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.OPERATORS, "number_reader", f"{__name__}:NumberReader")
        yield


def reader_graph(use: str = "live", every: int = 10, **source: Any) -> Graph:
    """decode -> reader, at 10 samples a second."""
    config = {"fps": 10.0, "width": 80, "height": 48, **(QUICK if use == "live" else {}), **source}
    document = {
        "name": "numbers",
        "nodes": {
            "decode": {"use": use, "stage": "decode", "config": config},
            "reader": {
                "use": "number_reader",
                "inputs": {"frames": "decode.frames"},
                "config": {"every": every},
                "stage": "models",
            },
        },
        "stages": {"decode": {"num_cpus": 0}, "models": {"num_cpus": 0}},
        "runtime": {"in_flight": 2},
    }
    with registered():
        return build_graph(GraphSpec.model_validate(document))
