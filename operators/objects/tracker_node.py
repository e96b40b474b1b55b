"""The tracker as a node: detections to objects that are followed and described. `window` says how identities come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self, cast

import numpy as np
from pydantic import Field, model_validator

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..errors import OnlookerError
from ..events import Event
from ..packets import Detections, Events, FloatArray, Frame, Tokens
from .bank import Bank, spread
from .captioning import Allowance, Describer, FrameDescriber, wanted
from .tracks import Track
from .views import Cutout, View
from .window import Seen, Window, WindowRules

if TYPE_CHECKING:
    from .matching import Matcher
    from .naming import Namer

__all__ = ["ObjectTracker", "ObjectTrackerConfig", "TrackerState"]


class ObjectTrackerConfig(Config):
    """Settings of the tracker."""

    model: str = Field(default="tiny", description="Tracker: tiny, which comes with the package, or a folder.")
    window: int = Field(default=16, ge=2, description="Frames that are looked at together; who is gone longer is new.")
    delay: int = Field(
        default=0, ge=0, description="Frames that a detection waits for its identity, which later ones may make surer."
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Score from which two detections begin a track together; default: the model's own.",
    )
    birth_score: float | None = Field(
        default=None,
        ge=0,
        description="Scores of an object's detections must add up to it for the object to be told; default: the "
        "model's own.",
    )
    detections: int = Field(default=16, ge=1, description="Detections of a frame that are followed, the best ones.")
    tracks: int = Field(
        default=32, ge=1, description="Objects that are followed at a time; beyond, the one unseen for longest ends."
    )
    update_every: float = Field(
        default=1.0, gt=0, le=60, description="Seconds between updates of where an object is; captions come at once."
    )
    captioner: str | None = Field(default="tiny", description="What describes the objects; null: nothing.")
    describe_by: Literal["cut-outs", "tokens"] = Field(
        default="cut-outs",
        description="cut-outs: the tower reads the object anew, out of the frames, which have to be connected; tokens: "
        "what its pass over the whole frame left of it, from the tokens, which costs less and tells less.",
    )
    captions_per_second: float = Field(
        default=1.0, gt=0, description="Captions that may be written in a second of media time; others wait."
    )
    names: list[str] = Field(
        default_factory=list, description="What objects may be called, in words; needs the frames connected."
    )
    name_score: float = Field(
        default=1.0, description="Score from which a name is given, in standard deviations as of the query localizer."
    )
    looks_per_second: float = Field(
        default=4.0, gt=0, description="Objects that are compared with the names in a second of media time."
    )
    tower: str = Field(default="tiny", description="Tower that reads cut-outs, and compares objects with names.")
    pretrained: str | None = Field(default=None, description="open_clip pretrained tag or checkpoint of that tower.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.delay > self.window // 2:
            raise ValueError(f"delay should be at most half of window, got {self.delay = }, {self.window = }")
        return self


@dataclass(slots=True)
class TrackerState:
    """What is remembered of one stream. Its size depends on the settings, not on how long the stream has run."""

    stream: str
    epoch: int = 0
    window: Window = field(default_factory=Window)
    tracks: dict[int, Track] = field(default_factory=dict)
    """Those that go on, by identity."""
    captions: Allowance = field(default_factory=Allowance)
    looks: Allowance = field(default_factory=Allowance)


class ObjectTracker(Operator[TrackerState]):
    """Follows objects and describes them; tells each when it appears, moves, is described better, and is gone.

    With every frame the last W of them are associated anew: tracks go on with the detections that fit them in looks,
    size and place, and groups among the others, by the association alone, begin tracks. What has been told is not taken
    back. An object that is seen again less than W frames after it was seen last is itself; one that was gone for longer
    is ended, and would come back as another.

    **Captions** (with the `frames`, or the tower's `tokens`) are written when an object appears, anew when it has been
    seen twice as often, and when it may be gone; where more are due than `captions_per_second`, in that order. The last
    caption stands in the `end`. At the end of the stream all that may be said better is, whatever that costs.

    **Names** are those of the detections, or, with `names` and the `frames`, those of them that fit cut-outs of the
    object best, looked at when it has been seen twice as often, as long as `looks_per_second` allows.
    """

    Config = ObjectTrackerConfig
    inputs = {
        "detections": Port(Detections),
        "tokens": Port(Tokens, optional=True),
        "frames": Port(Frame, optional=True),
    }
    outputs = {"events": Events}

    config: ObjectTrackerConfig

    def open(self, context: Context) -> None:
        """Load what associates and what describes.

        Raises:
            OnlookerError: there is no such model.
        """
        from .matching import load_matcher

        config = self.config
        self._matcher: Matcher = load_matcher(config.model, context.device)
        self._rules = WindowRules(
            frames=config.window,
            threshold=self._matcher.threshold if config.threshold is None else config.threshold,
            birth_score=self._matcher.birth_score if config.birth_score is None else config.birth_score,
            delay=config.delay,
        )
        self._describer = self._load_describer(context.device)
        self._namer: Namer | None = None
        if config.names:
            from ..tower import load_tower
            from .naming import Namer

            tower = load_tower(config.tower, config.pretrained, "both", context.device)
            self._namer = Namer(tower, config.names, config.name_score)

    def _load_describer(self, device: str) -> Describer | FrameDescriber | None:
        config = self.config
        if config.captioner is None:
            return None
        if config.describe_by == "tokens":
            from .captions import load_region_captioner

            return load_region_captioner(config.captioner, device=device)
        from ..caption.load import load_captioner
        from ..tower import load_tower
        from .cutouts import CutoutCaptioner

        tower = load_tower(config.tower, config.pretrained, "both", device)
        return CutoutCaptioner(load_captioner(config.captioner, device), tower)

    def initial_state(self, stream: str) -> TrackerState:
        """Nothing seen."""
        return TrackerState(stream)

    def process_batch(self, states: list[TrackerState], inputs: list[Inputs]) -> list[tuple[TrackerState, Outputs]]:
        """Advance all streams, frame by frame."""
        return [(state, self._process(state, given)) for state, given in zip(states, inputs, strict=True)]

    def flush(self, state: TrackerState, t_end: float) -> tuple[TrackerState, Outputs]:
        """All that is open ends, with its last caption."""
        self._join(state, last=True)
        self._describe(wanted(state.tracks.values(), set(state.tracks)))
        events = [track.end(state.stream, state.epoch, t_end) for track in state.tracks.values()]
        state.tracks = {}
        return state, _told(state, t_end, events)

    def _process(self, state: TrackerState, given: Inputs) -> Outputs:
        outputs = Outputs()
        tokens = {packet.t: packet for packet in given.packets.get("tokens", ())}
        frames = {packet.t: packet for packet in given.packets.get("frames", ())}
        for packet in given.packets.get("detections", ()):
            told = self._step(state, packet, self._seen(packet, tokens.get(packet.t), frames.get(packet.t)))
            for port, packets in told.packets.items():
                outputs.packets.setdefault(port, []).extend(packets)
        return outputs

    def _step(self, state: TrackerState, packet: Detections, seen: Seen) -> Outputs:
        """One frame: who is who, who is gone, what is said of them."""
        state.epoch = packet.epoch
        state.window.push(seen, self._rules)
        self._join(state)
        gone = self._gone(state)
        self._look(state)
        granted = state.captions.grant(packet.t, self.config.captions_per_second)
        due = wanted([*gone, *state.tracks.values()], self._leaving(state, gone))[:granted]
        state.captions.spend(self._describe(due))
        stream, epoch, t = state.stream, state.epoch, packet.t
        events = [track.end(stream, epoch, t) for track in gone]
        going = [track for track in state.tracks.values() if track.is_due(t, self.config.update_every)]
        events += [track.tell(stream, epoch, t) for track in going]
        return _told(state, t, events)

    def _seen(self, packet: Detections, tokens: Tokens | None, frame: Frame | None) -> Seen:
        """The detections that count, best first."""
        if packet.features is None or packet.looks is None:
            raise OnlookerError(
                "object_tracker needs detections with features: connect an object_detector, whose input `proposals` "
                "takes the detections of another one."
            )
        self._check_inputs(tokens, frame)
        kept = np.argsort(-packet.scores, kind="stable")[: self.config.detections]
        boxes = packet.boxes[kept]
        return Seen(
            0,
            packet.t,
            boxes,
            packet.scores[kept],
            self._matcher.embed(packet.features[kept]),
            packet.looks[kept].astype(np.float16),  # a window of them is most of what a stream remembers
            None if packet.names is None else tuple(packet.names[i] for i in kept),
            self._views(boxes, tokens, frame),
            None if frame is None or self._namer is None else frame.pixels,
        )

    def _check_inputs(self, tokens: Tokens | None, frame: Frame | None) -> None:
        """Say what is not connected though the settings need it; an operator cannot see its connections before.

        Raises:
            OnlookerError: so it is.
        """
        by_frames = isinstance(self._describer, FrameDescriber)
        if frame is None and (by_frames or self._namer is not None):
            raise OnlookerError(
                "object_tracker describes and names objects out of the frames: connect its input `frames`, or set "
                "`captioner` to null and `names` to nothing."
            )
        if self._describer is not None and not by_frames and (tokens is None or tokens.shape is None):
            raise OnlookerError(
                "object_tracker is to describe objects by a tower's tokens: connect its input `tokens` to a tower that "
                "tells the shape of its grid, or set `describe_by` to cut-outs, or `captioner` to null."
            )

    def _views(self, boxes: FloatArray, tokens: Tokens | None, frame: Frame | None) -> list[View | None]:
        """What captions are made from."""
        if isinstance(self._describer, FrameDescriber):
            if frame is None:
                return []
            width, height = frame.source_size
            return list(self._describer.look(frame.pixels, boxes, width / height))
        if self._describer is None or tokens is None or tokens.shape is None or not len(boxes):
            return []  # no captions are wanted, or there is nothing to see
        grid = tokens.grid.reshape(*tokens.shape, -1)
        # Half precision is what tokens are worth, and half the memory of all that is kept of a track.
        return [view.astype(np.float16) for view in self._describer.tokens(grid, boxes)]

    def _join(self, state: TrackerState, *, last: bool = False) -> None:
        """Give new detections to their tracks; tracks begin."""
        for sighting in state.window.settle(self._matcher.relate, self._rules, last=last):
            if sighting.identity not in state.tracks:
                # Twice as many as a caption takes, so that those are spread evenly also between two thinnings.
                capacity = 2 * (1 if self._describer is None else self._describer.views)
                state.tracks[sighting.identity] = Track(sighting.identity, Bank(capacity))
            state.tracks[sighting.identity].see(sighting)

    def _gone(self, state: TrackerState) -> list[Track]:
        """Tracks that end now, which are no longer among those that go on."""
        present = state.window.present()
        ended = [identity for identity in state.tracks if identity not in present]
        left = sorted(present & set(state.tracks), key=lambda identity: (state.tracks[identity].t_last, identity))
        for identity in left[: max(0, len(left) - self.config.tracks)]:
            state.window.close(identity)
            ended.append(identity)
        return [state.tracks.pop(identity) for identity in sorted(ended)]

    def _look(self, state: TrackerState) -> None:
        """Compare objects with the names: those never looked at, then those seen twice as often since."""
        ready = len(state.window.frames) - 1 - self.config.delay  # whose detections have just got their identities
        if self._namer is None or ready < 0:
            return
        seen = state.window.frames[ready]
        granted = state.looks.grant(seen.t, self.config.looks_per_second)
        shown = [t for t in state.tracks.values() if t.t_last == seen.t and t.count >= 2 * t.looked_at]
        due = sorted(shown, key=lambda track: (track.looked_at > 0, track.identity))[:granted]
        if seen.pixels is not None and due:
            for track, features in zip(due, self._namer.look(seen.pixels, [t.latest[1:] for t in due]), strict=True):
                track.looks = features if track.looks is None else track.looks + features
                track.looked_at = track.count
                track.given_name = self._namer.name(track.looks)
            state.looks.spend(len(due))
        seen.pixels = None

    def _leaving(self, state: TrackerState, gone: Sequence[Track]) -> set[int]:
        """Tracks that may never be seen again: those that are gone, and those not seen for a quarter of the window."""
        since = len(state.window.frames) - 1 - self.config.delay - self.config.window // 4
        if since < 0:
            return {track.identity for track in gone}
        t = state.window.frames[since].t
        return {track.identity for track in [*gone, *state.tracks.values()] if track.t_last < t}

    def _describe(self, tracks: Sequence[Track]) -> int:
        """Write the captions of these tracks; how many."""
        if self._describer is None or not tracks:
            return 0
        views = [spread(track.views.items, self._describer.views) for track in tracks]
        if isinstance(self._describer, FrameDescriber):
            told = self._describer.caption(cast("list[list[Cutout]]", views))
        else:
            told = self._describer.caption(
                [np.stack(own).astype(np.float32) for own in cast("list[list[FloatArray]]", views)]
            )
        for track, (text, _) in zip(tracks, told, strict=True):
            track.text, track.captioned_at = text, track.views.count
        return len(tracks)


def _told(state: TrackerState, t: float, events: Iterable[Event]) -> Outputs:
    """One packet of all that becomes known at one instant."""
    ordered = tuple(sorted(events, key=lambda event: event.order))
    return Outputs({"events": [Events(state.stream, state.epoch, t, ordered)]} if ordered else {})
