"""The moment localizer: a trained UnLoc on a stream. `windows` says how it looks, `live_segments` what it tells."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ..contract import Context, Control, Inputs, Operator, Outputs, Port
from ..events import Event, make_event
from ..packets import Embedding, Events, FloatArray, Scores
from .asking import AskingConfig
from .class_lists import query_prompts
from .live_segments import Found, QuerySegments, SegmentRules, Told
from .windows import Pool, Ring, Window

if TYPE_CHECKING:
    from .moment_model import MomentModel

__all__ = ["MomentLocalizer", "MomentLocalizerConfig", "MomentState"]


class MomentLocalizerConfig(AskingConfig):
    """Settings of the moment localizer. Where a default is the localizer's own, its folder says it."""

    model: str = Field(default="tiny", description="Localizer: tiny, which comes with the package, or a folder.")
    pretrained: str | None = Field(default=None, description="open_clip pretrained tag or checkpoint of its tower.")
    hop: int | None = Field(default=None, ge=1, description="Frames between windows; default: the localizer's own.")
    settle: float | None = Field(
        default=None,
        ge=0,
        description="Seconds that an end must lie back to be told; default: the localizer's own.",
    )
    revise: float = Field(default=1.0, ge=0, description="Seconds by which a start moves before it is told again.")
    update_every: float = Field(default=10.0, gt=0, description="Seconds between updates of an open event at most.")
    shortest: float = Field(default=0.0, ge=0, description="Seconds; what is shorter is not told.")
    pairs: int = Field(default=16, ge=1, description="Windows times queries in one model call; fewer are filled up.")


@dataclass(slots=True)
class _Query:
    text: str
    vector: FloatArray
    """(D,) float32."""
    pool: Pool
    segments: QuerySegments = field(default_factory=QuerySegments)
    removed: bool = False
    """Nobody asks any more; its open events end at the next frame."""


@dataclass(slots=True)
class MomentState:
    """What is remembered of one stream: a window of vectors, and per query as much as a window has anchors."""

    stream: str
    queries: list[_Query]
    ring: Ring = field(default_factory=Ring)
    epoch: int = 0
    next_event_no: int = 0
    scored: int = 0
    """Slots since the first whose scores were given."""
    scored_until: float = -np.inf
    """Media time of the last of them."""


@dataclass(slots=True)
class _Turn:
    """A window that is complete, and when it was."""

    window: Window
    t: float


class MomentLocalizer(Operator[MomentState]):
    """Finds moments by a trained model of windows; tells each when it opens, changes and has ended.

    Every frame is projected once. Every `hop` frames the last T of them are a window, which the model scores for each
    query; scores and boundaries are averaged over the windows that see an anchor, decoded and suppressed as in UnLoc.
    All windows and queries of all streams of a call share model calls of one fixed shape.

    **Latency.** An `end` is told by the first window that shows it to lie `settle` seconds back: at most settle +
    hop / fps seconds after it in media time (8 s for 4 s and 8 frames at 2 per second), or, where earlier windows took
    the end to be later, after what they took it for. What can only be found later is not told. Scores come no later.

    **Frames** are expected at the localizer's rate. More of them are thinned out; where some are missing, the one
    before is what was seen. After a gap longer than a window everything begins anew, within the same epoch.

    Control packets: ``query.add`` and ``query.remove`` with ``{"text": ...}``. A new query is scored with the next
    window, all of it: it finds what is going on, also if that began before anybody asked.
    """

    Config = MomentLocalizerConfig
    controls = frozenset({"query.add", "query.remove"})
    inputs = {"embedding": Port(Embedding)}
    outputs = {"events": Events, "scores": Scores}

    config: MomentLocalizerConfig

    def open(self, context: Context) -> None:
        """Load the localizer and its tower's text side; the queries are read once for all streams.

        Raises:
            OnlookerError: there is no such localizer or tower, or it cannot watch a stream.
        """
        from ..tower import load_tower
        from .moment_model import MomentModel, MomentSettings, require_tower, window_plan
        from .unloc.load import load_localizer
        from .unloc.nms import NmsOptions

        localizer = load_localizer(self.config.model, context.device)
        asked = {name: getattr(self.config, name) for name in ("hop", "settle", "on", "off", "templates")}
        own = MomentSettings.of({**localizer.settings, **{n: value for n, value in asked.items() if value is not None}})
        tower = load_tower(localizer.tower, self.config.pretrained, "text", context.device)
        self._plan = window_plan(localizer.model, own)
        require_tower(localizer.model, tower)
        self._model: MomentModel = MomentModel(localizer.model, tower, own, self.config.pairs, context.device)
        off = min(own.off, own.on)
        self._rules = SegmentRules(
            on=own.on,
            off=off,
            settle=own.settle,
            reach=self._plan.hop / self._plan.fps,
            edge=self._plan.margin / self._plan.fps,
            revise=self.config.revise,
            update_every=self.config.update_every,
            shortest=self.config.shortest,
        )
        self._nms = NmsOptions(score_threshold=off)
        self._wants_scores = context.wants("scores")
        self._prepared = self._read(self.config.prompts(own.templates))

    def initial_state(self, stream: str) -> MomentState:
        """The configured queries, nothing seen."""
        return MomentState(stream, copy.deepcopy(self._prepared))

    def process_batch(self, states: list[MomentState], inputs: list[Inputs]) -> list[tuple[MomentState, Outputs]]:
        """Advance all streams, window by window together."""
        results = [(state, Outputs()) for state in states]
        feeds = [self._feed(state, given, out) for (state, out), given in zip(results, inputs, strict=True)]
        while turns := [(i, turn) for i, feed in enumerate(feeds) if (turn := next(feed, None)) is not None]:
            self._advance([(*results[i], turn) for i, turn in turns])
        for state, outputs in results:
            outputs.watermarks["scores"] = state.scored_until
        return results

    def flush(self, state: MomentState, t_end: float) -> tuple[MomentState, Outputs]:
        """Look at the last window; all is final."""
        outputs = Outputs()
        self._end_removed(state, outputs, t_end)
        if not self._is_gap(state, t_end):
            for window in state.ring.hold(t_end, self._plan):
                self._advance([(state, outputs, _Turn(window, t_end))])
        if (last := state.ring.close(self._plan)) is not None:
            self._advance([(state, outputs, _Turn(last, t_end))])
        return state, outputs

    def _read(self, prompts: Mapping[str, Sequence[str]]) -> list[_Query]:
        vectors = self._model.read_texts(list(prompts.values())) if prompts else []
        return [_Query(name, vector, Pool.empty(self._plan)) for name, vector in zip(prompts, vectors, strict=True)]

    def _obey(self, state: MomentState, control: Control) -> None:
        text = str(control.data.get("text", ""))
        if control.kind == "query.add" and text.strip() and all(q.removed or q.text != text for q in state.queries):
            state.queries += self._read({text: query_prompts(text)})
        elif control.kind == "query.remove":
            for query in state.queries:
                query.removed |= query.text == text

    def _feed(self, state: MomentState, given: Inputs, outputs: Outputs) -> Iterator[_Turn]:
        """Take in the packets of one stream; yields every window as soon as it is complete."""
        for control in given.control:
            self._obey(state, control)
        for packet in given.packets.get("embedding", ()):
            state.epoch = packet.epoch
            self._end_removed(state, outputs, packet.t)
            if self._is_gap(state, packet.t):
                yield from self._restart(state, packet.t)
            vector = self._model.project_frame(packet.features)
            for window in state.ring.push(packet.t, vector, self._plan):
                yield _Turn(window, packet.t)

    def _is_gap(self, state: MomentState, t: float) -> bool:
        """Whether nothing has been seen for longer than a window."""
        return state.ring.slot(t, self._plan) - state.ring.end >= self._plan.frames

    def _restart(self, state: MomentState, t: float) -> Iterator[_Turn]:
        """Nothing was seen for longer than a window: what is open ended with the last frame before."""
        if (window := state.ring.close(self._plan)) is not None:
            yield _Turn(window, t)
        state.ring, state.scored = Ring(), 0
        for query in state.queries:
            query.pool, query.segments = Pool.empty(self._plan), QuerySegments()

    def _end_removed(self, state: MomentState, outputs: Outputs, t: float) -> None:
        """End the open events of queries that nobody asks any more, by the frame at `t`, which is no part of them."""
        for query in (query for query in state.queries if query.removed):
            told = [self._rules.close(query.segments, live, t) for live in list(query.segments.live)]
            self._tell(state, outputs, query, t, told)
        state.queries = [query for query in state.queries if not query.removed]

    def _advance(self, turns: Sequence[tuple[MomentState, Outputs, _Turn]]) -> None:
        """Score windows of several streams, one each, and tell what follows."""
        asked = [(turn.window, query.vector) for state, _, turn in turns for query in state.queries]
        scored = iter(self._model.score(asked, self._plan))
        for state, outputs, turn in turns:
            for query in state.queries:
                query.pool.add(turn.window, *next(scored), self._plan)
            for query, found in zip(state.queries, self._found(state.queries, turn.window), strict=True):
                self._follow(state, outputs, query, found, turn)
            self._score(state, outputs, turn.window)

    def _found(self, queries: Sequence[_Query], window: Window) -> list[list[Found]]:
        from .moment_candidates import found_runs, found_segments

        if self._model.linear and queries:
            return found_runs([query.pool for query in queries], window, self._plan)
        return [found_segments(query.pool, window, self._plan, self._nms) for query in queries]

    def _follow(self, state: MomentState, outputs: Outputs, query: _Query, found: Sequence[Found], turn: _Turn) -> None:
        window = turn.window
        left = window.times[0] if window.origin > 0 else -np.inf
        now = min(window.seconds(window.filled, self._plan.fps), turn.t if window.last else np.inf)
        told = self._rules.step(query.segments, found, left, now, state.next_event_no, last=window.last)
        state.next_event_no += sum(one.phase == "new" for one in told)
        self._tell(state, outputs, query, turn.t, told)

    def _score(self, state: MomentState, outputs: Outputs, window: Window) -> None:
        """Give the scores of the slots that no later window changes much."""
        from .moment_candidates import slot_scores

        until = window.origin + window.filled - (0 if window.last else self._plan.margin)
        start, end = state.scored - window.origin, until - window.origin
        if end <= start:
            return
        if state.queries and self._wants_scores:
            names = tuple(query.text for query in state.queries)
            curves = np.stack([slot_scores(query.pool, start, end, self._plan) for query in state.queries], axis=1)
            found = [
                Scores(state.stream, state.epoch, t, names, values)
                for t, values in zip(window.times[start:end], curves, strict=True)
            ]
            outputs.packets.setdefault("scores", []).extend(found)
        state.scored, state.scored_until = until, window.times[end - 1]

    def _tell(self, state: MomentState, outputs: Outputs, query: _Query, t: float, told: Sequence[Told]) -> None:
        """Put revisions into the packet of the instant `t`; all that becomes known then travels in one."""
        if not told:
            return
        events = tuple(_event(state, query.text, t, one) for one in told)
        packets = outputs.packets.setdefault("events", [])
        if packets and packets[-1].t == t:
            before = packets.pop()
            assert isinstance(before, Events)
            events = before.events + events
        packets.append(Events(state.stream, state.epoch, t, events))


def _event(state: MomentState, query: str, t: float, told: Told) -> Event:
    return make_event(
        "query",
        stream=state.stream,
        epoch=state.epoch,
        event_no=told.number,
        rev=told.rev,
        phase=told.phase,
        t_start=told.start,
        t_end=told.end,
        t_seen=t,
        score=told.score,
        query=query,
    )
