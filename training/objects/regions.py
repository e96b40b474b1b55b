"""Training of the captioner of regions: it goes on from the captioner of whole pictures.

Three kinds of steps are mixed: views of objects in generated scenes (photographs that move, things whose class their
photograph's captions name), boxes of the photographs themselves, and whole photographs, so that nothing is forgotten.
Of the tower only tokens are needed; those of scenes are drawn and kept once in a folder:

- ``tokens.npy``   (F, h * w, D) float16, S frames for each scene;
- ``objects.json`` one row for each object: its photograph, first frame, boxes (S, 4) and visible shares (S,).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onlooker.operators.caption.git import GitDecoder
from onlooker.operators.caption.wordpiece import WordPiece
from onlooker.operators.objects.captions import region_tokens, save_region_captioner
from onlooker.operators.tower import Tower, load_tower
from onlooker.training.bleu import sentence_bleu
from onlooker.training.captioner import Trainer, own_captioner
from onlooker.training.captions import Batch, Batches, CaptionerRecipe, Split
from onlooker.training.files import whole_file
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.pseudo_video import PHOTOGRAPHS, draw_scene

__all__ = [
    "RegionRecipe",
    "SceneTokens",
    "draw_scenes",
    "is_named",
    "share_true",
    "train_region_captioner",
    "train_regions",
]

FloatArray = npt.NDArray[np.float32]

_PEOPLE = (
    "person|people|man|men|woman|women|boy|boys|girl|girls|child|children|kid|kids|player|players|lady|guy|guys|"
    "baby|toddler|couple|crowd|skier|surfer|rider|biker|skateboarder|snowboarder|climber|runner|dancer|swimmer|hiker"
)
_SYNONYMS = {
    "person": _PEOPLE,
    "bicycle": "bicycle|bicycles|bike|bikes|cyclist|bicyclist",
    "motorbike": "motorbike|motorcycle|motorcycles|bike|dirtbike|motorcyclist",
    "sports ball": "ball|balls|football|soccer|basketball|baseball|volleyball",
    "dog": "dog|dogs|puppy|puppies",
    "horse": "horse|horses|pony",
}


@dataclass(frozen=True)
class RegionRecipe:
    """Everything that decides the weights, beside the data.

    Attributes:
        captioner: rates and passes; one pass is as many steps as all photographs would need.
        scenes: scenes that are drawn, every third of things and the others of photographs.
        frames: S, of each scene, two seconds apart.
        size: bins along each side of a box.
        views: most frames that an object is told of from in training.
        read: the same, afterwards.
        region_share: share of steps on boxes of photographs.
        whole_share: share of steps on whole photographs; the rest is about objects in scenes.
        min_visible: share of an object that must be seen in a view.
        jitter: how far, in its sides, an edge of a box is moved.
    """

    captioner: CaptionerRecipe = CaptionerRecipe(
        epochs=0.7,
        photographs=24,
        learning_rate=1.5e-4,
        warmup_steps=15,
        decay=0.8,
        memory_from=0,
        average=0.97,
    )
    scenes: int = 500
    frames: int = 4
    size: int = 4
    views: int = 4
    read: int = 6
    region_share: float = 0.2
    whole_share: float = 0.2
    min_visible: float = 0.35
    jitter: float = 0.08


# ---- scenes as tokens


@dataclass(frozen=True)
class ObjectRow:
    """One object in the S frames of a scene."""

    photograph: int
    first: int
    """Its scene's first frame, a row of the tokens."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """S, as shares of the picture."""
    visible: tuple[float, ...]


@dataclass(frozen=True)
class SceneTokens:
    """Drawn scenes as a tower sees them.

    Attributes:
        tokens: (F, h, w, D) float16, read from disk as they are used.
        objects: those in them.
    """

    tokens: npt.NDArray[np.float16]
    objects: tuple[ObjectRow, ...]

    def seen(self, min_visible: float) -> list[tuple[ObjectRow, list[int]]]:
        """Objects with the frames of their scene in which enough of them is seen, if there is any."""
        rows = [(row, [t for t, share in enumerate(row.visible) if share >= min_visible]) for row in self.objects]
        return [(row, frames) for row, frames in rows if frames]

    def views(self, row: ObjectRow, frames: Sequence[int], size: int, jitter: FloatArray | None = None) -> FloatArray:
        """Tokens (n * size * size, D) of an object in some frames; `jitter` (n, 4) moves edges, in sides of the box."""
        boxes = np.array([row.boxes[t] for t in frames], np.float32)
        if jitter is not None:
            boxes = boxes + jitter * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        found = [
            region_tokens(self.tokens[row.first + t], box[None], size)[0] for t, box in zip(frames, boxes, strict=True)
        ]
        return np.concatenate(found)


def is_named(kind: str, captions: Sequence[str]) -> bool:
    """Whether at least half of the captions of a photograph name a class of objects."""
    words = _SYNONYMS.get(kind, rf"{re.escape(kind)}|{re.escape(kind)}s|{re.escape(kind)}es")
    return 2 * sum(re.search(rf"\b({words})\b", text.lower()) is not None for text in captions) >= len(captions)


def draw_scenes(
    folder: Path, bank: ObjectBank, tower: Tower, recipe: RegionRecipe, say: Callable[[str], None] = print
) -> SceneTokens:
    """Draw the scenes of a recipe and keep their tokens in `folder`; if they are there, read them."""
    place = folder / "objects.json"
    if place.exists():
        return _read_scenes(folder)
    folder.mkdir(parents=True, exist_ok=True)
    moving = replace(PHOTOGRAPHS, size=(0.38, 0.7), fps=0.5, seconds=2.0 * recipe.frames)
    things = replace(moving, kind="things", objects=(3, 4), size=(0.3, 0.6), background_things=4, leave=0.0)
    shape = (recipe.scenes * recipe.frames, *tower.grid, tower.token_width)
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
    rows: list[ObjectRow] = []
    for scene in range(recipe.scenes):
        options = things if scene % 3 == 2 else moving
        video = draw_scene(bank, np.random.default_rng([77 + recipe.captioner.seed, scene]), options)
        first = scene * recipe.frames
        seen = tower.encode_frames(video.frames, batch=recipe.frames).tokens
        tokens[first : first + recipe.frames] = seen.half().numpy().reshape(-1, *shape[1:])
        sides = np.array([options.width, options.height] * 2)
        for k, photograph in enumerate(video.sources.tolist()):
            if video.kinds[k] == "photograph" or is_named(video.kinds[k], bank.captions[photograph]):
                boxes = tuple(tuple(box) for box in (video.boxes[:, k] / sides).tolist())
                rows.append(ObjectRow(photograph, first, boxes, tuple(video.visible[:, k].tolist())))
        if scene % 100 == 99:
            say(f"{scene + 1} of {recipe.scenes} scenes")
    tokens.flush()
    with whole_file(place) as part:
        part.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    return _read_scenes(folder)


def _read_scenes(folder: Path) -> SceneTokens:
    rows = json.loads((folder / "objects.json").read_text(encoding="utf-8"))
    objects = tuple(
        ObjectRow(row["photograph"], row["first"], tuple(map(tuple, row["boxes"])), tuple(row["visible"]))
        for row in rows
    )
    return SceneTokens(np.load(folder / "tokens.npy", mmap_mode="r"), objects)


# ---- batches


class RegionBatches(Batches):
    """Draws the batches of a recipe: views of objects, boxes of photographs, whole photographs."""

    def __init__(
        self, split: Split, vocabulary: WordPiece, recipe: RegionRecipe, scenes: SceneTokens, bank: ObjectBank
    ) -> None:
        """Take the photographs' own tokens and captions, the scenes, and the photographs' boxes."""
        super().__init__(split, vocabulary, recipe.captioner)
        self.regions, self.scenes = recipe, scenes
        self.objects = scenes.seen(recipe.min_visible)
        self.boxes = [
            thing for thing in bank.cuttable(0.08, 0.7) if is_named(thing.kind, bank.captions[thing.photograph])
        ]

    def epoch(self, number: int) -> Iterator[Batch]:
        """As many batches as all photographs fill, in an order given by seed and epoch."""
        rng = np.random.default_rng([self.recipe.seed, 5, number])
        for _ in range(len(self.ids) // self.recipe.photographs):
            kind = rng.random()
            if kind < self.regions.whole_share:
                photos = rng.choice(len(self.ids), self.recipe.photographs, replace=False)
                yield self._batch(rng, photos, memories=False)
            elif kind < self.regions.whole_share + self.regions.region_share:
                yield self._boxes(rng)
            else:
                yield self._objects(rng)

    def _objects(self, rng: np.random.Generator) -> Batch:
        """Objects of scenes, each told of from as many views as all others of the step."""
        recipe = self.regions
        views = int(rng.integers(1, recipe.views + 1))
        chosen = [self.objects[i] for i in rng.choice(len(self.objects), self.recipe.photographs, replace=False)]
        rows = []
        for row, frames in chosen:
            drawn = np.sort(rng.choice(frames, views, replace=len(frames) < views)).tolist()
            rows.append(self.scenes.views(row, drawn, recipe.size, self._jitter(rng, views)))
        return self.about(rng, np.array([row.photograph for row, _ in chosen]), _stacked(rows))

    def _boxes(self, rng: np.random.Generator) -> Batch:
        """Things of photographs as they stand there."""
        chosen = [self.boxes[i] for i in rng.choice(len(self.boxes), self.recipe.photographs, replace=False)]
        rows = []
        for thing in chosen:
            tokens = self.split.tokens[thing.photograph, 0]
            side = round(len(tokens) ** 0.5)
            box = np.array([thing.box], np.float32)
            box = box + self._jitter(rng, 1) * np.tile(box[:, 2:] - box[:, :2], 2)
            rows.append(region_tokens(tokens.reshape(side, side, -1), box, self.regions.size)[0])
        return self.about(rng, np.array([thing.photograph for thing in chosen]), _stacked(rows))

    def _jitter(self, rng: np.random.Generator, count: int) -> FloatArray:
        return rng.uniform(-self.regions.jitter, self.regions.jitter, (count, 4)).astype(np.float32)


def _stacked(rows: Sequence[FloatArray]) -> Tensor:
    return torch.from_numpy(np.stack(rows))


# ---- training


def train_regions(
    bank: ObjectBank,
    split: Split,
    scenes: SceneTokens,
    checkpoint: Path,
    decoder: GitDecoder,
    vocabulary: WordPiece,
    recipe: RegionRecipe | None = None,
    report: Callable[[Trainer, float, float], None] = lambda trainer, loss, seconds: None,
    every: int = 50,
) -> GitDecoder:
    """Train a decoder on, all but its words; what comes back is the running average of its weights.

    A run that was interrupted goes on where it last reported, if it is given the same recipe and `checkpoint`.

    Args:
        bank: the photographs of a split, with boxes.
        split: their own tokens and captions, in the same order.
        scenes: drawn of the bank.
        checkpoint: file for the state of the run.
        decoder: begins with its weights, which are changed.
        vocabulary: the decoder's.
        recipe: what decides the weights.
        report: is given the trainer, the mean loss and seconds per step, every so many steps and at the end.
        every: how many.
    """
    recipe = recipe or RegionRecipe()
    batches = RegionBatches(split, vocabulary, recipe, scenes, bank)
    # The words stay as they are: what is new is what the tokens look like, not how one speaks of it.
    decoder.requires_grad_(True).words.requires_grad_(False)
    trainer = Trainer(decoder, batches, recipe.captioner)
    if checkpoint.exists():
        trainer.restore(checkpoint)
    trainer.run(checkpoint, report, every)
    return trainer.average


def train_region_captioner(
    data: Path,
    cache: Path,
    out: Path,
    recipe: RegionRecipe | None = None,
    start: str = "tiny",
    tower: str = "tiny",
    say: Callable[[str], None] = print,
) -> None:
    """Train a captioner of regions and write it to the folder `out`, ready for `load_region_captioner`.

    Args:
        data: the data folder (see `onlooker.training.flickr`).
        cache: a token cache that is filled (see `onlooker.training.features`); scenes and checkpoint are kept in it.
        out: folder for how the weights differ from those of `start`.
        recipe: what decides the weights.
        start: name of the embedded captioner that it goes on from.
        tower: name of the tower whose tokens the cache holds.
        say: takes a line of progress.
    """
    recipe = recipe or RegionRecipe()
    bank = ObjectBank.flickr(data, "train")
    scenes = draw_scenes(cache / "regions", bank, load_tower(tower), recipe, say)
    begun = own_captioner(start)

    def report(trainer: Trainer, loss: float, seconds: float) -> None:
        say(f"step {trainer.step_number}/{trainer.steps} loss {loss:.3f} {seconds:.2f} s/step")

    trained = train_regions(
        bank,
        Split.open(data, cache, None, "train"),
        scenes,
        cache / f"regions-{recipe.captioner.seed}.pt",
        copy.deepcopy(begun.decoder),
        begun.vocabulary,
        recipe,
        report,
    )
    save_region_captioner(out, trained.state_dict(), start, size=recipe.size, views=recipe.read)


def share_true(
    texts: Sequence[str], photographs: Sequence[int], captions: Sequence[Sequence[str]], others: int = 40, seed: int = 0
) -> float:
    """How often a text is nearer to its own photograph's captions than to another one's, by sentence BLEU-4.

    Args:
        texts: one for each object.
        photographs: the object's own.
        captions: of all photographs.
        others: random photographs that each text is compared with; more of them make the figure steadier.
        seed: of their choice.
    """
    rng = np.random.default_rng(seed)
    wins = []
    for text, own in zip(texts, photographs, strict=True):
        score = sentence_bleu(text, captions[own])
        rest = (own + rng.choice(len(captions) - 1, min(others, len(captions) - 1), replace=False) + 1) % len(captions)
        wins += [score > sentence_bleu(text, captions[other]) for other in rest]
    return float(np.mean(wins))
