"""The query localizer, zero-shot: free-text queries and classes, scored sample by sample by the tower itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from ..contract import Context, Control, Inputs, Operator, Outputs, Port
from ..events import Event, Phase, make_event
from ..packets import Embedding, Events, FloatArray, Packet, Scores
from .asking import AskingConfig
from .changes import step_size, within_shot
from .class_lists import query_prompts
from .hysteresis import Hysteresis
from .scoring import Asked, Scorer, default_thresholds

__all__ = ["LocalizerState", "QueryLocalizer", "QueryLocalizerConfig", "default_thresholds"]


class QueryLocalizerConfig(AskingConfig):
    """Settings of the query localizer."""

    model: str = Field(default="tiny", description="Tower whose text side reads the queries.")
    pretrained: str | None = Field(default=None, description="open_clip pretrained tag or checkpoint of the tower.")
    window: int = Field(default=3, ge=1, description="Samples whose features are averaged, centred on the sample.")
    change: float = Field(
        default=0.3, gt=0, description="1 - cosine between two samples that is a cut; nothing is averaged over one."
    )
    contrast: float = Field(
        default=0.25, ge=0, description="Part taken off a score of what ordinary sentences reach in the same sample."
    )
    reach: float = Field(
        default=4.0, ge=0, description="Seconds by which an event may begin before its score reaches `on`."
    )
    update_every: float = Field(default=10.0, gt=0, description="Seconds between updates of an open event.")


@dataclass(slots=True)
class _Query:
    asked: Asked
    interval: Hysteresis
    event_no: int = -1
    rev: int = 0
    told_at: float = 0.0
    """Media time of the last event about the open interval."""
    removed: bool = False
    """Nobody asks any more; its open event ends at the next sample."""


@dataclass(frozen=True, slots=True)
class _Sample:
    t: float
    features: FloatArray
    """(E,) raw."""
    begins: bool
    """What is seen changed between the sample before and this one."""


@dataclass(slots=True)
class LocalizerState:
    """What the localizer remembers of one stream."""

    stream: str
    queries: list[_Query]
    window: list[_Sample] = field(default_factory=list)
    """The samples that later windows still need."""
    scored: int = 0
    """How many of ``window`` have been scored."""
    latest: FloatArray | None = None
    """(E,) raw features of the newest sample."""
    epoch: int = 0
    next_event_no: int = 0
    scored_until: float = -np.inf
    """Media time of the last scored sample."""


class QueryLocalizer(Operator[LocalizerState]):
    """Scores each query in each sample and tells when it begins and ends.

    The score of a sample compares each query with the mean of the raw features over a window centred on the sample,
    relative to pictures of all kinds and to ordinary sentences (`scoring.py`). The window ends at cuts (`changes.py`),
    and so does an event, unless what comes after the cut would begin one itself (`hysteresis.py`). A window looks ahead
    by half its width; scores and events come later by that much, and say so in their watermarks.

    Classes are queries with several sentences each, every one on its own: two of them may be seen at once.

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

        tower = load_tower(self.config.model, self.config.pretrained, "text", context.device)
        self._scorer = Scorer(tower, self.config.contrast)
        default_on, default_off = default_thresholds(calibrated=self._scorer.calibrated)
        self._on = default_on if self.config.on is None else self.config.on
        self._off = min(default_off if self.config.off is None else self.config.off, self._on)
        self._prepared = self._read(self.config.prompts())
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

    def _read(self, prompts: dict[str, Sequence[str]]) -> list[_Query]:
        return [_Query(asked, Hysteresis(self.config.reach)) for asked in self._scorer.read(prompts)]

    def _process(self, state: LocalizerState, given: Inputs) -> Outputs:
        outputs = Outputs()
        for control in given.control:
            self._obey(state, control)
        found: list[Packet] = []
        for packet in given.packets.get("embedding", ()):
            state.epoch = packet.epoch
            before, state.latest = state.latest, packet.features
            begins = before is not None and step_size(before, packet.features) >= self.config.change
            state.window.append(_Sample(packet.t, packet.features, begins))
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
        if (
            control.kind == "query.add"
            and text.strip()
            and all(query.removed or query.asked.name != text for query in state.queries)
        ):
            state.queries += self._read({text: query_prompts(text)})
        elif control.kind == "query.remove":
            for query in state.queries:
                query.removed |= query.asked.name == text

    def _score_next(self, state: LocalizerState, outputs: Outputs, seen: float) -> list[Event]:
        """Score the first sample that has not been scored; returns the events that follow from it."""
        i, window = state.scored, state.window
        t, begins = window[i].t, window[i].begins
        first, last = within_shot([sample.begins for sample in window], i, self._half)
        mean: FloatArray = np.mean([sample.features for sample in window[first:last]], axis=0, dtype=np.float32)  # (E,)
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
        values = self._scorer(mean, [query.asked for query in state.queries])
        names = tuple(query.asked.name for query in state.queries)
        scores = Scores(state.stream, state.epoch, t, names, np.asarray(values, dtype=np.float32))
        outputs.packets.setdefault("scores", []).append(scores)
        events = [
            self._advance(state, q, t, value, begins, seen) for q, value in zip(state.queries, values, strict=True)
        ]
        return ended + [event for event in events if event is not None]

    def _advance(
        self, state: LocalizerState, query: _Query, t: float, value: float, begins: bool, seen: float
    ) -> Event | None:
        step = query.interval.step(t, value, self._on, self._off, change=begins)
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
            query=query.asked.name,
        )
        query.rev += 1
        query.told_at = seen
        if phase == "end":
            query.interval.reset()
        return event
