"""The caption node: every few seconds of media time, one sentence about what the memory holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from pydantic import Field

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..events import Event, make_event
from ..packets import Embedding, Events, FloatArray, Memory, Tokens
from .asking import Box, Question, view_of
from .check import DEFAULT_WEIGHT, nearness

if TYPE_CHECKING:
    from ..tower import Tower
    from .captioner import CaptionModel, Proposal

__all__ = ["CaptionState", "GitCaptioner", "GitCaptionerConfig"]


class GitCaptionerConfig(Config):
    """Settings of the captioner."""

    model: str = Field(
        default="tiny",
        description="Captioner: a name that comes with the package, a folder, or GIT on Hugging Face (OWNER/NAME).",
    )
    interval: float = Field(default=5.0, gt=0, description="Seconds of media time between captions.")
    beam: int | None = Field(default=None, ge=1, description="Beams of the search; default: the model's own.")
    looks: int = Field(
        default=1,
        ge=1,
        description="Memories of a span that propose captions: the last of each of so many equal parts of an interval.",
    )
    prefix: int = Field(default=0, ge=0, description="Earlier captions of the stream that the model reads first.")
    tower: str | None = Field(
        default=None, description="Tower that made the embeddings: its text side checks what the search proposes."
    )
    pretrained: str | None = Field(default=None, description="open_clip pretrained tag or checkpoint of that tower.")
    check: float = Field(
        default=DEFAULT_WEIGHT,
        ge=0,
        description="Weight of the cosine to the pictures against the score of the search.",
    )


@dataclass(slots=True)
class CaptionState:
    """What the captioner remembers of one stream."""

    stream: str
    since: float | None = None
    """Start of the span that the next caption is about; None before the first memory."""
    memories: dict[int, Memory] = field(default_factory=dict)
    """The last memory of each part of the span that no caption tells of yet, by the number of the part."""
    captions: list[str] = field(default_factory=list)
    """The latest captions, as many as the prefix needs."""
    embeddings: list[tuple[float, FloatArray]] = field(default_factory=list)
    """Time and (E,) raw features of the frames since the last caption."""
    next_event_no: int = 0
    asked: list[Question] = field(default_factory=list)
    """Questions what is there now that are not answered yet."""
    latest: Memory | None = None
    frame: Tokens | None = None
    """The latest frame, where the tokens are connected."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A caption to write: about `memories`, for the span [t_start, t_end)."""

    state: CaptionState
    outputs: Outputs
    memories: list[Memory]
    """In the order of time."""
    t_start: float
    t_end: float
    features: FloatArray | None
    """(E,) median of the raw features of the span's frames."""
    answers: tuple[Question, ...] = ()
    """The questions that the caption answers; without any it is the next caption of the stream."""


class GitCaptioner(Operator[CaptionState]):
    """Writes a caption at every multiple of `interval`, and one at the end of the stream.

    The caption of point P is about the last memory before P; it is written when the first memory at or after P comes,
    and covers the span since the last caption. Points that pass without a memory between them share one caption.

    A span may show two scenes. With `looks` above 1 and a memory that reaches back no further than a part of the
    interval, each part of the span proposes captions of its own, and the check picks among them.

    With `tower`, and the frames' embeddings connected, the texts the search proposes are compared with the mean
    embedding of the span: the decoder alone leans to what is often said, the tower was trained to tell pictures apart.

    Control packets: ``ask`` with ``{"ask": ID}`` is answered by a caption of what the next memory holds, whose ``ask``
    is that id. With ``box`` (x0, y0, x1, y1 as parts of the picture), and the tower's tokens connected, it is a caption
    of that part of the newest frame. The captions at the points stay as they are.
    """

    Config = GitCaptionerConfig
    controls = frozenset({"ask"})
    inputs = {
        "memory": Port(Memory),
        "embedding": Port(Embedding, optional=True),
        "tokens": Port(Tokens, optional=True),
    }
    outputs = {"events": Events}

    config: GitCaptionerConfig

    def open(self, context: Context) -> None:
        """Load the captioner, and the tower that checks it."""
        from .load import load_captioner

        self._tower: Tower | None = None
        if self.config.tower is not None:
            from ..tower import load_tower

            self._tower = load_tower(self.config.tower, self.config.pretrained, "text", context.device)

        self._captioner: CaptionModel = load_captioner(self.config.model, context.device)

    def initial_state(self, stream: str) -> CaptionState:
        """No memory, no caption."""
        return CaptionState(stream)

    def process_batch(self, states: list[CaptionState], inputs: list[Inputs]) -> list[tuple[CaptionState, Outputs]]:
        """Write the captions whose points have passed, those of several streams together."""
        results = [(state, Outputs()) for state in states]
        if self._tower is not None:
            for state, given in zip(states, inputs, strict=True):
                state.embeddings += [(packet.t, packet.features) for packet in given.packets.get("embedding", ())]
        queues = []
        for (state, outputs), given in zip(results, inputs, strict=True):
            state.asked += [Question.of(control.data) for control in given.control if control.kind == "ask"]
            state.frame = next(reversed(given.packets.get("tokens", ())), state.frame)
            memories = given.packets.get("memory", ())
            queues.append(self._due(state, outputs, memories) + self._answer(state, outputs, bool(memories)))
        # The captions of one stream may build on each other; those of different streams are written together.
        for turn in range(max(map(len, queues), default=0)):
            self._write([queue[turn] for queue in queues if turn < len(queue)])
        for (state, outputs), given in zip(results, inputs, strict=True):
            if state.since is not None:
                before = math.nextafter(self._point_after(state.since), -math.inf)
                outputs.watermarks["events"] = min(given.watermark, before)
        return results

    def flush(self, state: CaptionState, t_end: float) -> tuple[CaptionState, Outputs]:
        """Caption what came since the last point."""
        outputs = Outputs()
        answer = self._answer(state, outputs, True, t_end)  # before the span is taken, whose pictures it needs as well
        if state.memories and state.since is not None and t_end > state.since:
            self._write([self._job(state, outputs, t_end)])
        self._write(answer)
        return state, outputs

    def _last_point(self, t: float, ahead: int = 0) -> float:
        """The last multiple of the interval at or before t, or one `ahead` of it."""
        # The small number absorbs the rounding of the quotient, as of 0.3 / 0.1.
        return (math.floor(t / self.config.interval + 1e-9) + ahead) * self.config.interval

    def _point_after(self, t: float) -> float:
        """The first multiple of the interval after t."""
        return self._last_point(t, ahead=1)

    def _due(self, state: CaptionState, outputs: Outputs, memories: Sequence[Memory]) -> list[_Job]:
        """The captions that these memories make due, in order."""
        jobs = []
        for memory in memories:
            if state.since is None:
                state.since = memory.t
            if state.memories and memory.t >= self._point_after(state.since):
                jobs.append(self._job(state, outputs, self._last_point(memory.t)))
            state.latest = memory
            part = int((memory.t - state.since) / self.config.interval * self.config.looks + 1e-9)
            state.memories[min(part, self.config.looks - 1)] = memory
        return jobs

    def _job(self, state: CaptionState, outputs: Outputs, t_end: float) -> _Job:
        """The caption of the span up to `t_end`, where the next one begins."""
        assert state.since is not None
        memories = [state.memories[part] for part in sorted(state.memories)]
        job = _Job(state, outputs, memories, state.since, t_end, self._features(state, t_end))
        state.memories, state.since = {}, t_end
        return job

    def _answer(self, state: CaptionState, outputs: Outputs, seen: bool, t_end: float | None = None) -> list[_Job]:
        """The captions that were asked for, if what is there now has been seen."""
        if not (seen and state.asked and state.latest):
            return []
        t_end = state.latest.t if t_end is None else t_end
        questions: dict[Box | None, list[Question]] = {}
        for question in state.asked:
            questions.setdefault(question.box, []).append(question)
        state.asked = []
        jobs = []
        for box, asked in questions.items():
            if box is None:
                memory, features = state.latest, _median([vector for _, vector in state.embeddings])
            elif state.frame is not None and state.frame.shape is not None:
                memory, features = view_of(state.frame, box), None  # the embeddings are of whole pictures
            else:
                continue  # `Graph.answers_boxes` keeps such questions out
            jobs.append(_Job(state, outputs, [memory], memory.t_start, t_end, features, tuple(asked)))
        return jobs

    def _features(self, state: CaptionState, t_end: float) -> FloatArray | None:
        """Median of the embeddings before `t_end`, which are forgotten."""
        features = [vector for t, vector in state.embeddings if t < t_end]
        state.embeddings = state.embeddings[len(features) :]
        return _median(features)

    def _write(self, jobs: list[_Job]) -> None:
        """Decode one caption for each job and put its event into the job's outputs."""
        keep = self.config.prefix
        asked = [(job, memory) for job in jobs for memory in job.memories]
        prefixes = [job.state.captions[-keep:] if keep else [] for job, _ in asked]
        proposals = self._captioner.propose(
            [memory.centers for _, memory in asked], prefixes, self.config.beam, partial(self._check, asked)
        )
        for job in jobs:
            own = [texts[0] for (owner, _), texts in zip(asked, proposals, strict=True) if owner is job]
            self._tell(job, max(own, key=lambda proposal: proposal.total))

    def _check(self, asked: Sequence[tuple[_Job, Memory]], item: int, texts: list[str]) -> list[float]:
        """What the tower adds to the scores of the texts about one memory: their nearness to the span's pictures."""
        features = asked[item][0].features
        if self._tower is None or features is None:
            return [0.0] * len(texts)
        batch = self.config.beam or self._captioner.options.beam
        return nearness(self._tower, texts, features, batch, self.config.check)

    def _tell(self, job: _Job, proposal: Proposal) -> None:
        state, keep, epoch = job.state, self.config.prefix, job.memories[-1].epoch
        told: list[Event] = []
        for question in job.answers or (None,):
            told.append(
                make_event(
                    "caption",
                    stream=state.stream,
                    epoch=epoch,
                    event_no=state.next_event_no,
                    rev=0,
                    phase="end",
                    t_start=job.t_start,
                    t_end=job.t_end,
                    t_seen=job.t_end,
                    score=proposal.probability,
                    text=proposal.text,
                    ask=None if question is None else question.name,
                    box=None if question is None else question.box,
                )
            )
            state.next_event_no += 1
        if not job.answers:
            state.captions = [*state.captions, proposal.text][-keep:] if keep else []
        packets = job.outputs.packets.setdefault("events", [])
        if packets and packets[-1].t == job.t_end:  # a packet for each time
            told = [*cast(Events, packets.pop()).events, *told]
        packets.append(Events(state.stream, epoch, job.t_end, tuple(told)))


def _median(features: Sequence[FloatArray]) -> FloatArray | None:
    """Median (E,); None of nothing.

    Where a span shows two scenes, the median stands by the longer one; a mean lies between them.
    """
    return np.median(np.stack(features), axis=0) if features else None
