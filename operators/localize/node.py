"""The query localizer, first form: free-text queries scored frame by frame by the tower."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from ..contract import Config, Context, Control, Inputs, Operator, Outputs, Port
from ..events import Event, Phase, make_event
from ..packets import Embedding, Events, FloatArray, Packet, Scores
from .hysteresis import Hysteresis

if TYPE_CHECKING:
    from ..tower import Tower

# (on, off) where nothing is known of the tower but that it is a CLIP model: cosines of a match and of a near miss.
_COSINE_THRESHOLDS = (0.26, 0.23)
# (on, off) in standard deviations; chosen on generated videos of the dev split by benchmarks/quality.py.
_SPREAD_THRESHOLDS = (3.0, 2.2)

__all__ = ["LocalizerState", "QueryLocalizer", "QueryLocalizerConfig", "default_thresholds"]


def default_thresholds(*, calibrated: bool) -> tuple[float, float]:
    """(on, off) of a tower that knows how its similarities are spread, or of one that does not."""
    return _SPREAD_THRESHOLDS if calibrated else _COSINE_THRESHOLDS


class QueryLocalizerConfig(Config):
    """Settings of the query localizer."""

    model: str = Field(default="tiny", description="Tower whose text side reads the queries.")
    pretrained: str | None = Field(default=None, description="open_clip pretrained tag or checkpoint of the tower.")
    queries: list[str] = Field(default_factory=list, description="What to look for, in words.")
    window: int = Field(default=3, ge=1, description="Samples whose features are averaged, centred on the sample.")
    on: float | None = Field(default=None, description="Score at which an event begins; default: the tower's own.")
    off: float | None = Field(default=None, description="Score down to which it goes on; default: the tower's own.")
    update_every: float = Field(default=10.0, gt=0, description="Seconds between updates of an open event.")

    @model_validator(mode="after")
    def _check(self) -> QueryLocalizerConfig:
        if self.on is not None and self.off is not None and self.off > self.on:
            raise ValueError(f"off should not be above on, got {self.off = }, {self.on = }")
        for query in self.queries:
            if not query.strip():
                raise ValueError("a query should say something, got an empty one")
        return self


@dataclass(slots=True)
class _Query:
    text: str
    vector: FloatArray
    """(E,) float32 unit norm."""
    mean: float
    """Mean of this query's similarity over pictures of all kinds, or 0."""
    deviation: float
    """Its standard deviation, or 1."""
    interval: Hysteresis = field(default_factory=Hysteresis)
    event_no: int = -1
    rev: int = 0
    told_at: float = 0.0
    """Media time of the last event about the open interval."""
    removed: bool = False
    """Nobody asks any more; its open event ends at the next sample."""


@dataclass(slots=True)
class LocalizerState:
    """What the localizer remembers of one stream."""

    stream: str
    queries: list[_Query]
    window: list[tuple[float, FloatArray]] = field(default_factory=list)
    """Time and (E,) raw features of the samples that later windows still need."""
    scored: int = 0
    """How many of ``window`` have been scored."""
    epoch: int = 0
    next_event_no: int = 0
    scored_until: float = -np.inf
    """Media time of the last scored sample."""


class QueryLocalizer(Operator[LocalizerState]):
    """Scores each query in each sample and tells when it begins and ends.

    The score of a sample is the cosine between the query and the mean of the raw features over a window centred on the
    sample. A query that fits everything a little would always be on, so where the tower knows how similarities of
    arbitrary pictures are spread, the score is the distance from their mean in standard deviations. The window looks
    ahead by half its width; scores and events come later by that much, and say so in their watermarks.

    Control packets: ``query.add`` and ``query.remove`` with ``{"text": ...}``.
    """

    Config = QueryLocalizerConfig
    controls = frozenset({"query.add", "query.remove"})
    inputs = {"embedding": Port(Embedding)}
    outputs = {"events": Events, "scores": Scores}

    config: QueryLocalizerConfig

    def open(self, context: Context) -> None:
        """Load the tower; all queries of the config are read once for all streams."""
        from ..tower import load_tower

        self._tower: Tower = load_tower(self.config.model, self.config.pretrained, "text", context.device)
        default_on, default_off = default_thresholds(calibrated=self._tower.calibration is not None)
        self._on = default_on if self.config.on is None else self.config.on
        self._off = min(default_off if self.config.off is None else self.config.off, self._on)
        self._prepared = self._read(self.config.queries)
        self._half = self.config.window // 2

    def initial_state(self, stream: str) -> LocalizerState:
        """The configured queries, none of them open."""
        return LocalizerState(stream, copy.deepcopy(self._prepared))

    def process_batch(self, states: list[LocalizerState], inputs: list[Inputs]) -> list[tuple[LocalizerState, Outputs]]:
        """Score what windows have become complete, stream by stream."""
        return [(state, self._process(state, given)) for state, given in zip(states, inputs, strict=True)]

    def flush(self, state: LocalizerState, t_end: float) -> tuple[LocalizerState, Outputs]:
        """Score the samples whose window runs over the end, and end what is open at ``t_end``."""
        outputs = Outputs()
        events: list[Event] = []
        while state.scored < len(state.window):
            events += self._score_next(state, outputs, t_end)
        for query in state.queries:
            if query.interval.t_start is not None:
                events.append(self._event(state, query, "end", t_end, t_end))
        if events:
            outputs.packets["events"] = [Events(state.stream, state.epoch, t_end, tuple(events))]
        return state, outputs

    def _read(self, texts: Sequence[str]) -> list[_Query]:
        if not texts:
            return []
        import torch.nn.functional as F

        vectors = F.normalize(self._tower.encode_texts(list(texts)), dim=-1)  # (n, E)
        means, deviations = vectors.new_zeros(len(texts)), vectors.new_ones(len(texts))
        if self._tower.calibration is not None:
            means, deviations = self._tower.calibration.score_moments(vectors)
        return [
            _Query(text, vector.numpy(), float(mean), float(deviation))
            for text, vector, mean, deviation in zip(texts, vectors, means, deviations, strict=True)
        ]

    def _process(self, state: LocalizerState, given: Inputs) -> Outputs:
        outputs = Outputs()
        for control in given.control:
            self._obey(state, control)
        found: list[Packet] = []
        for packet in given.packets.get("embedding", ()):
            state.epoch = packet.epoch
            state.window.append((packet.t, packet.features))
            if len(state.window) - state.scored > self._half:
                events = self._score_next(state, outputs, packet.t)
                if events:
                    found.append(Events(state.stream, state.epoch, packet.t, tuple(events)))
        if found:
            outputs.packets["events"] = found
        outputs.watermarks["scores"] = state.scored_until
        return outputs

    def _obey(self, state: LocalizerState, control: Control) -> None:
        text = str(control.data.get("text", ""))
        if control.kind == "query.add" and text.strip() and all(q.removed or q.text != text for q in state.queries):
            state.queries += self._read([text])
        elif control.kind == "query.remove":
            for query in state.queries:
                query.removed |= query.text == text

    def _score_next(self, state: LocalizerState, outputs: Outputs, seen: float) -> list[Event]:
        """Score the first sample that has not been scored; returns the events that follow from it."""
        i = state.scored
        t = state.window[i][0]
        around = [features for _, features in state.window[max(0, i - self._half) : i + self._half + 1]]
        mean = np.mean(around, axis=0, dtype=np.float32)  # (E,)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        state.scored_until = t
        if i >= self._half:
            state.window.pop(0)
        else:
            state.scored += 1
        gone = [q for q in state.queries if q.removed]
        ended = [self._event(state, q, "end", t, seen) for q in gone if q.interval.t_start is not None]
        state.queries = [q for q in state.queries if not q.removed]
        if not state.queries:
            return ended
        values = [(float(q.vector @ mean) - q.mean) / q.deviation for q in state.queries]
        names = tuple(q.text for q in state.queries)
        scores = Scores(state.stream, state.epoch, t, names, np.asarray(values, dtype=np.float32))
        outputs.packets.setdefault("scores", []).append(scores)
        events = [self._advance(state, q, t, value, seen) for q, value in zip(state.queries, values, strict=True)]
        return ended + [event for event in events if event is not None]

    def _advance(self, state: LocalizerState, query: _Query, t: float, value: float, seen: float) -> Event | None:
        step = query.interval.step(t, value, self._on, self._off)
        if step == "begin":
            query.event_no, query.rev = state.next_event_no, 0
            state.next_event_no += 1
            return self._event(state, query, "new", None, seen)
        if step == "hold" and seen - query.told_at >= self.config.update_every:
            return self._event(state, query, "update", None, seen)
        if step == "finish":
            return self._event(state, query, "end", t, seen)
        return None

    def _event(self, state: LocalizerState, query: _Query, phase: Phase, t_end: float | None, seen: float) -> Event:
        assert query.interval.t_start is not None
        event = make_event(
            "query",
            stream=state.stream,
            epoch=state.epoch,
            event_no=query.event_no,
            rev=query.rev,
            phase=phase,
            t_start=query.interval.t_start,
            t_end=t_end,
            t_seen=seen,
            score=query.interval.peak,
            query=query.text,
        )
        query.rev += 1
        query.told_at = seen
        if phase == "end":
            query.interval.reset()
        return event
