"""The paper's way with a file: one memory over frames from all of it, decoded at points known beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..errors import OnlookerError
from ..events import make_event
from ..packets import Events, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from .live import LiveCaption

__all__ = ["PaperCaptioner", "PaperCaptionerConfig", "PaperState"]


class PaperCaptionerConfig(Config):
    """Settings of the paper's evaluation."""

    model: str = Field(
        default="tiny",
        description="Dense captioner: tiny, which comes with the package, or a folder (config.json, model.safetensors, "
        "vocab.txt).",
    )
    points: int | None = Field(default=None, ge=1, description="Decoding points; default: the model's own.")
    beam: int | None = Field(default=None, ge=1, description="Beams; 1 = greedy; default: the model's own.")
    most: int = Field(default=4096, ge=1, description="Frames that are held at most; more of them are an error.")


@dataclass(slots=True)
class PaperState:
    """The frames of one stream so far."""

    stream: str
    epoch: int = 0
    frames: list[Tensor] = field(default_factory=list)
    """(N, D) float32 each."""


class PaperCaptioner(Operator[PaperState]):
    """Writes timed captions about a whole file, as Zhou et al., "Streaming Dense Video Captioning", evaluate.

    All frames are held until the stream ends; then the model's memory takes them in one by one, and its decoding
    points, at equal distances, are decoded one after the other. Every event is told once, as final. Times are parts of
    the file's length, so a model whose frames are sampled over the whole file (source `uniform`) is what this is for;
    `dense_captioner` is the form for streams.
    """

    Config = PaperCaptionerConfig
    inputs = {"tokens": Port(Tokens)}
    outputs = {"events": Events}

    config: PaperCaptionerConfig

    def open(self, context: Context) -> None:
        """Load the model.

        Raises:
            OnlookerError: the folder holds none, or another kind.
        """
        from .dense_opening import open_dense_captioner, require_width

        self._require_width = require_width
        self._model, self._search, self._captions = open_dense_captioner(
            self.config.model, context.device, self.config.beam
        )
        self._device = context.device

    def initial_state(self, stream: str) -> PaperState:
        """No frame."""
        return PaperState(stream)

    def process_batch(self, states: list[PaperState], inputs: list[Inputs]) -> list[tuple[PaperState, Outputs]]:
        """Hold the frames.

        Raises:
            OnlookerError: a stream has more frames than may be held.
        """
        return [(state, self._hold(state, given)) for state, given in zip(states, inputs, strict=True)]

    def flush(self, state: PaperState, t_end: float) -> tuple[PaperState, Outputs]:
        """Decode all points; t_end is the length of the file in seconds."""
        if not state.frames:
            return state, Outputs()
        events = tuple(
            make_event(
                "caption",
                stream=state.stream,
                epoch=state.epoch,
                event_no=number,
                rev=0,
                phase="end",
                t_start=caption.start_us / 1e6,
                t_end=caption.end_us / 1e6,
                t_seen=t_end,
                text=caption.text,
            )
            for number, caption in enumerate(self._decode(state, round(t_end * 1e6)))
        )
        state.frames = []
        return state, Outputs({"events": [Events(state.stream, state.epoch, t_end, events)]} if events else {})

    def _hold(self, state: PaperState, given: Inputs) -> Outputs:
        import torch

        for tokens in given.packets.get("tokens", ()):
            assert isinstance(tokens, Tokens)
            if len(state.frames) == self.config.most:
                raise OnlookerError(
                    f"paper mode holds all frames, at most {self.config.most}: take fewer (-o decode.frames=64), or "
                    "watch a stream with --graph dense"
                )
            self._require_width(self._model, tokens.grid.shape[1])
            state.epoch = tokens.epoch
            state.frames.append(torch.from_numpy(tokens.all.copy()))  # N, D; packets are read-only
        return Outputs()

    def _decode(self, state: PaperState, duration_us: int) -> list[LiveCaption]:
        """The captions of all decoding points, with times in a file of this length."""
        import torch

        video = torch.stack(state.frames)[None].to(self._device)  # 1, T, N, D
        if self._model.encoder is not None:
            video = self._model.encoder.add_time(video)
        points = min(self.config.points or self._model.config.test_points, len(state.frames))
        row = self._model.decode_tokens(video, self._search, points).tokens.cpu()  # 1, L
        return list(self._captions.read(row, 0, duration_us).values())
