"""Part of `objects.py`: is what is told of each object true? On generated videos in which photographs move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from common import table
from objects_parts import Eyes, OwnTracker, Row, Scene, Seen, Worlds, draw, true_detections, truth_rows

from onlooker.operators.caption.metrics.meteor import Meteor, MeteorUnavailable
from onlooker.operators.objects.metrics.chota import Scorer, chota, cider_scorer, meteor_scorer
from onlooker.operators.packets import Detections
from onlooker.training.bleu import corpus_bleu, sentence_bleu
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.pseudo_video import PANNED, PHOTOGRAPHS

__all__ = ["captions"]

_KINDS = {
    "moving": replace(PHOTOGRAPHS, seconds=12.0),
    "panned": replace(PANNED, seconds=12.0),
}
"""Whole photographs that move about, and things in one photograph under a camera that pans and zooms."""
_SHUFFLED = "twin: frames of another video"
_OTHERS = 25
"""Photographs that a caption is compared with beside its own."""
_SECONDS, _FPS = _KINDS["moving"].seconds, _KINDS["moving"].fps


@dataclass
class _Result:
    """What was told on all scenes."""

    worlds: Worlds = field(default_factory=Worlds)
    texts: list[str] = field(default_factory=list)
    """One for each track that lies on an object."""
    photographs: list[int] = field(default_factory=list)
    """That of the object."""
    untrue: int = 0
    """Tracks that lie on no object."""


def captions(bank: ObjectBank, model: str, tower: str, captioner: str, scenes: int, first_seed: int) -> str:
    """The tables, as Markdown: captions of tracks on detections of ours and on true ones, and twins."""
    eyes = Eyes(model, tower)
    tracker = OwnTracker(model=model, captioner=captioner, tower=tower)
    results: dict[str, _Result] = {}
    for kind, options in _KINDS.items():
        before: Seen | None = None
        for scene in draw(bank, scenes, first_seed, options, kind):
            seen = eyes.see(scene.name, scene.video.frames, scene.video.fps)
            found, true = eyes.detect(seen), eyes.detect(seen, true_detections(scene, seen))
            ways = {"our detections": (found, seen), "true boxes": (true, seen)}
            if before is not None:
                ways[_SHUFFLED] = (true, Seen(seen.features, before.frames))
            for name, (detections, own) in ways.items():
                _tell(results.setdefault(f"{kind}, {name}", _Result()), tracker, bank, scene, detections, own)
            before = seen
    return _told(results, bank, scenes)


def _tell(
    result: _Result, tracker: OwnTracker, bank: ObjectBank, scene: Scene, detections: Sequence[Detections], seen: Seen
) -> None:
    """Add what is told of a scene."""
    told = tracker(detections, seen, scene.video.fps)
    photographs = dict(zip(scene.video.ids.tolist(), scene.video.sources.tolist(), strict=True))
    truth = truth_rows(scene, [bank.captions[photograph][0] for photograph in photographs.values()])
    result.worlds.add(scene.name, len(detections), truth, told)
    texts = {row.track: row.caption for row in told}
    objects = _objects(truth, told)
    for track, text in texts.items():
        if track in objects:
            result.texts.append(text)
            result.photographs.append(photographs[objects[track]])
        else:
            result.untrue += 1


def _objects(truth: Sequence[Row], told: Sequence[Row]) -> dict[int, int]:
    """Track told -> the object that it lies on in most of its frames, if it lies on one in half of them.

    A box lies on what covers most of it: a detector finds the people in a photograph that moves, not its frame.
    """
    there: dict[int, list[Row]] = {}
    for row in truth:
        there.setdefault(row.frame, []).append(row)
    votes: dict[int, Counter[int]] = {}
    for row in told:
        covers = {other.track: _covered(row, other) for other in there.get(row.frame, ())}
        true = max(covers, key=covers.__getitem__, default=None)
        if true is not None and covers[true] >= 0.5:
            votes.setdefault(row.track, Counter())[true] += 1
    lengths = Counter(row.track for row in told)
    best = {track: count.most_common(1)[0] for track, count in votes.items()}
    return {track: true for track, (true, count) in best.items() if 2 * count >= lengths[track]}


def _covered(row: Row, other: Row) -> float:
    """Share of a box that another one covers."""
    (x, y, w, h), (left, top, width, height) = row.box, other.box
    across, down = min(x + w, left + width) - max(x, left), min(y + h, top + height) - max(y, top)
    return max(across, 0.0) * max(down, 0.0) / max(w * h, 1e-12)


def _told(results: Mapping[str, _Result], bank: ObjectBank, scenes: int) -> str:
    scorers: dict[str, Scorer] = {"CIDEr": cider_scorer}
    truths, chotas = [], []
    with _meteor() as meteor:
        if meteor is not None:
            scorers["METEOR"] = meteor_scorer(meteor)
        for name, result in results.items():
            truths.append([name, *_truth(result, bank)])
            found = chota(result.worlds.world(), scorers).means()
            parts = ("CHOTA", "DetA", "AssA", "CapA", *(f"CapA-{scorer}" for scorer in scorers))
            chotas.append([name, *(found[part] for part in parts)])
    head = ["captions of", "tracks on objects", "others", "BLEU-4 own", "BLEU-4 random", "own > random", "different"]
    without = "" if meteor is not None else " METEOR is left out, for there is no Java."
    return "\n\n".join(
        [
            table(head, truths),
            table(["captions of", *parts], chotas),
            f"{scenes} scenes of each kind, {_SECONDS:g} s at {_FPS:g} frames a second. Moving: two or three whole "
            "photographs move about, each an object. Panned: a camera pans and zooms over one photograph, whose boxes "
            "by the teacher are the objects. Own: the five captions of the photograph that the track lies on; random: "
            f"those of another photograph of the split. Own > random: share of pairs of a track and one of {_OTHERS} "
            "other photographs whose sentence BLEU-4 is higher against the own one; where both are 0 it is lost. In "
            "brackets 95 % of drawings of the tracks. CHOTA at IoU .5 against the "
            "first caption of each photograph; CapA-CIDEr goes from 0 to 10 and has the videos' few captions alone to "
            "weigh words by." + without,
        ]
    )


def _meteor() -> Meteor | nullcontext[None]:
    try:
        return Meteor()
    except MeteorUnavailable:
        return nullcontext()


def _truth(result: _Result, bank: ObjectBank) -> list[object]:
    """Tracks on objects and off them, corpus BLEU-4 of own and random captions, share of wins, different texts."""
    rng = np.random.default_rng(0)
    own = [bank.captions[photograph] for photograph in result.photographs]
    if not result.texts:
        return [0, result.untrue, "", "", "", 0]
    others = (np.array(result.photographs)[:, None] + rng.integers(1, len(bank), (len(own), _OTHERS))) % len(bank)
    random = [bank.captions[photograph] for photograph in others[:, 0].tolist()]
    scores = [corpus_bleu(result.texts, references)[3] for references in (own, random)]

    @cache
    def bleu(text: str, photograph: int) -> float:
        return sentence_bleu(text, bank.captions[photograph])

    wins = np.array(
        [
            np.mean([bleu(text, mine) > bleu(text, other) for other in row])
            for text, mine, row in zip(result.texts, result.photographs, others.tolist(), strict=True)
        ]
    )
    drawn = wins[rng.integers(0, len(wins), (2000, len(wins)))].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    share = f"{wins.mean():.3f} ({low:.3f}-{high:.3f})"
    return [len(result.texts), result.untrue, *scores, share, len(set(result.texts))]
