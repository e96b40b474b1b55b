"""The dense caption node: at decoding points, the events of a stream with their start, end and caption."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..errors import OnlookerError
from ..events import make_event
from ..packets import Events, Memory

if TYPE_CHECKING:
    from torch import Tensor

    from .live import LiveContext, Told

__all__ = ["DenseCaptioner", "DenseCaptionerConfig", "DenseState"]


class DenseCaptionerConfig(Config):
    """Settings of the dense captioner."""

    model: str = Field(
        default="tiny",
        description="Dense captioner: tiny, which comes with the package, or a folder (config.json, model.safetensors, "
        "vocab.txt).",
    )
    interval: float = Field(default=10.0, gt=0, description="Seconds of media time between decoding points.")
    beam: int | None = Field(default=None, ge=1, description="Beams; 1 = greedy; default: the model's own.")
    revise: float = Field(
        default=1.0,
        ge=0,
        description="Seconds by which an interval has to move to be told again before it is final.",
    )
    shortest: float = Field(default=0.0, ge=0, description="Seconds; an event that is shorter is not told.")


@dataclass(slots=True)
class DenseState:
    """What the dense captioner remembers of one stream."""

    stream: str
    context: LiveContext
    epoch: int = 0
    t_first: float | None = None
    """Media time of the first memory; points are counted from here."""
    memory: Memory | None = None
    """The last one before the next point."""
    point: int = 0
    """Number of the last point."""


class DenseCaptioner(Operator[DenseState]):
    """Writes timed captions about the older of two memories (Streaming DVC, see `live`).

    A decoding point stands at every multiple of `interval` and at the end of the stream; it is decoded from the last
    memory before it. The captions so far that reach into that memory are the model's prefix. Events are told when they
    are first written (`new`), when a later point moves them (`update`), and when they can change no more: they ended
    before the memory's start, or the stream is over (`end`). Points that pass without a memory between them are
    decoded as one.
    """

    Config = DenseCaptionerConfig
    inputs = {"memory": Port(Memory)}
    outputs = {"events": Events}

    config: DenseCaptionerConfig

    def open(self, context: Context) -> None:
        """Load the model.

        Raises:
            OnlookerError: the folder holds none, or one whose streaming options have no live form.
        """
        from .dense import search_text
        from .dense_opening import open_dense_captioner, require_width

        self._model, self._search, self._live = open_dense_captioner(
            self.config.model, context.device, self.config.beam, self.config.revise, self.config.shortest
        )
        self._device, self._search_text, self._require_width = context.device, search_text, require_width
        options = self._model.config.context
        if (
            not options.early_segments_as_context
            or not options.normalize_early_timestamps
            or options.copy_context
            or options.remove_segments_from_wrong_checkpoint
        ):
            raise OnlookerError(
                f"model {self.config.model!r} has streaming options without a live form: it needs "
                "early_segments_as_context and normalize_early_timestamps, and neither copy_context nor "
                "remove_segments_from_wrong_checkpoint"
            )
        encoder = self._model.config.encoder
        if encoder is not None and encoder.temporal_embedding:
            raise OnlookerError(
                f"model {self.config.model!r} has a temporal embedding, one vector for each frame, so it has "
                "no live form: use --mode paper"
            )

    def initial_state(self, stream: str) -> DenseState:
        """No memory, no caption."""
        from .live import LiveContext

        return DenseState(stream, LiveContext())

    def process_batch(self, states: list[DenseState], inputs: list[Inputs]) -> list[tuple[DenseState, Outputs]]:
        """Decode the points that have passed, stream by stream."""
        return [(state, self._process(state, given)) for state, given in zip(states, inputs, strict=True)]

    def flush(self, state: DenseState, t_end: float) -> tuple[DenseState, Outputs]:
        """Decode what came since the last point; everything is final."""
        outputs = Outputs()
        if state.t_first is not None:
            told = self._decode(state, self._since_first(state, t_end)) if state.memory is not None else []
            self._tell(state, outputs, t_end, [*told, *self._live.finish(state.context)])
        return state, outputs

    def _process(self, state: DenseState, given: Inputs) -> Outputs:
        outputs = Outputs()
        for memory in given.packets.get("memory", ()):
            assert isinstance(memory, Memory)
            if state.t_first is None:
                state.t_first = memory.t
            # The small number absorbs the rounding of the quotient, as of 0.3 / 0.1.
            point = math.floor((memory.t - state.t_first) / self.config.interval + 1e-9)
            if point > state.point and state.memory is not None:
                told = self._decode(state, point * round(self.config.interval * 1e6))
                self._tell(state, outputs, state.t_first + point * self.config.interval, told)
            state.point, state.epoch, state.memory = max(point, state.point), memory.epoch, memory
        if state.t_first is not None:
            coming = state.t_first + (state.point + 1) * self.config.interval
            outputs.watermarks["events"] = min(given.watermark, math.nextafter(coming, -math.inf))
        return outputs

    def _decode(self, state: DenseState, point_us: int) -> list[Told]:
        """One decoding point, from the memory that is held."""
        import torch

        assert state.memory is not None
        self._require_width(self._model, state.memory.centers.shape[1])
        memory = torch.from_numpy(state.memory.centers.copy())[None].to(self._device)  # 1, M, D; packets are read-only
        origin_us = self._since_first(state, state.memory.t_start)
        if self._model.config.spans:
            times = self._times(state.memory).to(self._device)
            memory = self._model.memory_with_spans(memory, times, (point_us - origin_us) / 1e6)
        told = self._live.advance(state.context, origin_us, point_us)
        prefix = self._live.prefix(state.context).to(self._device)
        decoded = self._search_text(self._model.decoder, memory, prefix, self._search, self._model.config.max_length)
        state.memory = None
        return [*told, *self._live.add(state.context, decoded.cpu())]

    @staticmethod
    def _times(memory: Memory) -> Tensor:
        """(1, M, 2) times of the centres, which a model with spans cannot do without."""
        import torch

        if memory.times is None:
            raise OnlookerError("this dense captioner needs to know when its memory was seen: set times: true there")
        return torch.from_numpy(memory.times.copy())[None]

    @staticmethod
    def _since_first(state: DenseState, t: float) -> int:
        """Microseconds from the first memory to media time `t`."""
        assert state.t_first is not None
        return round((t - state.t_first) * 1e6)

    @staticmethod
    def _tell(state: DenseState, outputs: Outputs, t: float, told: list[Told]) -> None:
        """Put revisions into the outputs as they stand at media time `t`."""
        if not told or state.t_first is None:
            return
        t_first = state.t_first
        events = tuple(
            make_event(
                "caption",
                stream=state.stream,
                epoch=state.epoch,
                event_no=revision.caption.number,
                rev=revision.caption.rev,
                phase=revision.phase,
                t_start=t_first + revision.caption.start_us / 1e6,
                t_end=t_first + revision.caption.end_us / 1e6,
                t_seen=t,
                text=revision.caption.text,
            )
            for revision in told
        )
        outputs.packets.setdefault("events", []).append(Events(state.stream, state.epoch, t, events))
