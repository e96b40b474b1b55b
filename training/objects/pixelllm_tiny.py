"""Training of the embedded PixelLLM: a finder on the frozen tower's features (`pixelllm.finder`).

Two tasks, as in the paper: where the words of a caption are (no question), and where an expression's thing is (the
expression is the question, and only the token before the end counts).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onlooker.operators.caption.git import GitConfig
from onlooker.operators.caption.wordpiece import WordPiece
from onlooker.operators.objects.pixelllm.config import AdapterConfig, PixelLlmConfig, PointConfig
from onlooker.operators.objects.pixelllm.finder import CANVAS, Finder, feature_width, tower_features
from onlooker.operators.objects.pixelllm.map_head import cell_centres
from onlooker.operators.objects.pixelllm.model import PixelLlm
from onlooker.operators.objects.pixelllm.points import points_to_boxes
from onlooker.training.averages import follow
from onlooker.training.objects.detection_loss import giou_loss
from onlooker.training.objects.pixelllm_loss import point_loss
from onlooker.training.objects.pixelllm_words import Box, BoxedPhotographs, Expression, expressions, named_words
from onlooker.training.schedules import LearningRate

__all__ = ["FinderData", "TinyOptions", "find_all", "find_words", "tiny_config", "train_finder"]

Report = Callable[[int, float, PixelLlm], None]


@dataclass(frozen=True)
class TinyOptions:
    """How a finder is trained.

    Attributes:
        steps: updates.
        photographs: of a batch.
        texts: of each of them; half are captions, half expressions.
        rate: learning rate after warm-up; it falls along a cosine.
        warmup: updates until then.
        decay: of the running average of the weights that is kept.
        overlap_weight: of 1 - generalised IoU beside the mean distance in shares of the frame.
        distance_weight: of that distance.
        cell_weight: of the cross entropy of cells, for heads on the map.
        flip: probability of mirroring a photograph; "left" and "right" change places.
        noise: standard deviation of what is added to features, in those of the features.
        seed: of everything drawn.
    """

    steps: int = 3000
    photographs: int = 16
    texts: int = 6
    rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.998
    overlap_weight: float = 1.0
    distance_weight: float = 5.0
    cell_weight: float = 0.5
    flip: float = 0.5
    noise: float = 0.1
    seed: int = 0


def tiny_config(
    words: int, token_width: int = 1280, fine: int = 112, factor: int = 2, width: int = 128
) -> PixelLlmConfig:
    """A small model for a tower's tokens and a map with `fine` channels and `factor` times their grid."""
    return PixelLlmConfig(
        eva=None,
        sam=None,
        feature_width=feature_width(token_width, fine, factor),
        prompt_width=64,
        adapter=AdapterConfig(depth=1, width=width, num_heads=4, mlp_size=2 * width, num_outputs=4, output_width=width),
        decoder=GitConfig(
            vocab_size=words,
            visual_width=width,
            hidden_size=width,
            num_heads=4,
            num_layers=1,
            ffn_size=4 * width,
            max_positions=32,
            tie_word_embeddings=True,
            begin_token=2,
            end_token=3,
        ),
        points=PointConfig(hidden_size=width, on_map=True),
    )


class _Text(NamedTuple):
    """A text of a batch."""

    tokens: list[int]
    context: list[int]
    boxes: dict[int, Box]
    """By the index of the token that knows it."""


@dataclass
class FinderData:
    """Features of photographs and the texts about them.

    Attributes:
        tokens: (P, h * w, D) float16.
        fine: (P, C, k h, k w) float16.
        photographs: as many.
        words: of the model.
        named: for each photograph its captions with words that name boxes.
        told: for each photograph the expressions.
    """

    tokens: npt.NDArray[np.float16]
    fine: npt.NDArray[np.float16]
    photographs: BoxedPhotographs
    words: WordPiece
    longest: int = 30
    named: list[list[_Text]] = field(init=False)
    told: list[list[Expression]] = field(init=False)

    def __post_init__(self) -> None:
        """Make the texts."""
        pairs = list(zip(self.photographs.captions, self.photographs.boxes, strict=True))
        self.named = [[text for one in texts if (text := self._caption(one, boxes)).boxes] for texts, boxes in pairs]
        self.told = [expressions(texts, boxes) for texts, boxes in pairs]

    def _caption(self, caption: str, boxes: Sequence[tuple[str, float, Box]]) -> _Text:
        tokens, last = [self.words.begin], []
        for word in caption.split():
            tokens += self.words.encode(word)
            last.append(len(tokens) - 1)  # the last piece of a word knows all of it
        found = {last[named.at]: named.box for named in named_words(caption, boxes)}
        kept = {index: box for index, box in found.items() if index <= self.longest}
        return _Text([*tokens[: self.longest + 1], self.words.end], [], kept)

    def expression(self, told: Expression) -> _Text:
        """As a question and an answer."""
        ids = self.words.encode(told.text)[: self.longest]
        return _Text([self.words.begin, *ids, self.words.end], [*ids, self.words.end], {len(ids): told.box})

    def features(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tokens and map of some photographs, float32."""
        chosen = np.asarray(rows)
        return torch.from_numpy(self.tokens[chosen]).float(), torch.from_numpy(self.fine[chosen]).float()


class _Batch(NamedTuple):
    tokens: Tensor  # B, N, L
    context: Tensor  # B, N, P
    boxes: Tensor  # B, N, L, 4 in shares; zeros where there is none


def _draw(data: FinderData, row: int, count: int, mirrored: bool, rng: np.random.Generator) -> list[_Text]:
    """Texts about a photograph."""
    texts: list[_Text] = []
    for kind in range(count):
        named, told = data.named[row], data.told[row]
        if named and (kind % 2 == 0 or not told):
            text = named[rng.integers(len(named))]
        else:
            one = told[rng.integers(len(told))]
            text = data.expression(Expression(_other_side(one.text), one.box) if mirrored else one)
        if mirrored:
            boxes = {index: (1.0 - x1, y0, 1.0 - x0, y1) for index, (x0, y0, x1, y1) in text.boxes.items()}
            text = text._replace(boxes=boxes)
        texts.append(text)
    return texts


def _other_side(text: str) -> str:
    if text.endswith(" on the left"):
        return text.removesuffix("left") + "right"
    return text.removesuffix("right") + "left" if text.endswith(" on the right") else text


def _collate(texts: Sequence[Sequence[_Text]]) -> _Batch:
    length = max(len(text.tokens) for row in texts for text in row)
    asked = max(1, *(len(text.context) for row in texts for text in row))
    shape = (len(texts), len(texts[0]))
    tokens, context = torch.zeros(*shape, length, dtype=torch.long), torch.zeros(*shape, asked, dtype=torch.long)
    boxes = torch.zeros(*shape, length, 4)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            tokens[i, j, : len(text.tokens)] = torch.tensor(text.tokens)
            context[i, j, : len(text.context)] = torch.tensor(text.context, dtype=torch.long)
            for index, box in text.boxes.items():
                boxes[i, j, index] = torch.tensor(box)
    return _Batch(tokens, context, boxes)


def _loss(model: PixelLlm, tokens: Tensor, fine: Tensor, batch: _Batch, options: TinyOptions) -> Tensor:
    """Distance and overlap of all words with a box."""
    features = tower_features(tokens, fine)
    height, width = CANVAS
    whole = tokens.new_tensor([0.0, 0.0, width, height]).expand(len(tokens), 1, 4)
    visual = model.see(features, whole).expand(-1, batch.tokens.shape[1], -1, -1)
    words, boxes = _boxed(model.words(batch.tokens, visual, batch.context), batch.boxes)
    points, cells = model.relative_points(words, features)  # B, N, L, 2, 2 and B, N, L, h * w
    valid = boxes.amax(-1) > 0
    distance = point_loss(points, boxes.view(points.shape), valid, valid)
    overlap = giou_loss(_reach(points_to_boxes(points)[valid]), _reach(boxes[valid])).mean()
    loss = options.distance_weight * distance + options.overlap_weight * overlap
    if model.config.points and model.config.points.on_map:
        inside = _inside(boxes[valid], features.grid.shape[1], features.grid.shape[2])
        loss = loss - options.cell_weight * (cells[valid].log_softmax(-1) * inside).sum(-1).mean()
    return loss


def _boxed(words: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Words (B, N, L, D) and boxes (B, N, L, 4) without most of the words that have none: (B, N, k, ...)."""
    valid = (boxes.amax(-1) > 0).to(words)
    chosen = valid.topk(int(valid.sum(-1).max()), -1).indices[..., None]
    return words.gather(2, chosen.expand(-1, -1, -1, words.shape[-1])), boxes.gather(2, chosen.expand(-1, -1, -1, 4))


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """The cells that boxes (n, 4) should be told by, (n, h * w) summing to 1: those near their centres."""
    centres = cell_centres(height, width).to(boxes)
    middle, extent = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, boxes[:, None, 2:] - boxes[:, None, :2]
    apart = (centres - middle) / extent.clamp(min=1.0 / max(height, width))
    return (-8.0 * apart.square().sum(-1)).softmax(-1)


def _reach(boxes: Tensor) -> Tensor:
    """How far boxes (..., 4) reach from the corner of the frame to the left, up, right and down."""
    return torch.cat([-boxes[..., :2], boxes[..., 2:]], -1)


def train_finder(data: FinderData, model: PixelLlm, options: TinyOptions, report: Report | None = None) -> PixelLlm:
    """Train a model; the running average of its weights is what comes back, in eval mode.

    Args:
        data: what it learns from; photographs without a text are left out.
        model: with random weights.
        options: see there.
        report: is told after every 100 updates: how many, their mean loss, the average so far.
    """
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    rows = np.array([row for row in range(len(data.told)) if data.told[row] or data.named[row]])
    kept = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=options.rate, weight_decay=0.02)
    rate = LearningRate(options.rate, options.warmup, cosine_steps=options.steps)
    losses: list[float] = []
    for step in range(1, options.steps + 1):
        chosen = rng.choice(rows, options.photographs, replace=False)
        mirrored = rng.random(len(chosen)) < options.flip
        texts = [_draw(data, int(r), options.texts, bool(m), rng) for r, m in zip(chosen, mirrored, strict=True)]
        loss = _loss(model, *_seen(data, chosen, mirrored, options.noise), _collate(texts), options)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        follow(kept, model, options.decay, step)
        losses.append(float(loss.detach()))
        if report and step % 100 == 0:
            report(step, float(np.mean(losses[-100:])), kept)
    return kept


def _seen(
    data: FinderData, rows: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_], noise: float
) -> tuple[Tensor, Tensor]:
    """Features of photographs, some of them mirrored: of mirrored maps, which the trunk nearly gives of mirrored
    photographs."""
    tokens, fine = data.features(list(rows))
    side = round(tokens.shape[1] ** 0.5)
    turned = torch.from_numpy(mirrored)
    flat = tokens.view(len(tokens), side, side, -1)
    tokens = torch.where(turned[:, None, None, None], flat.flip(2), flat).flatten(1, 2)
    fine = torch.where(turned[:, None, None, None], fine.flip(3), fine)
    return tokens + noise * tokens.std() * torch.randn_like(tokens), fine + noise * fine.std() * torch.randn_like(fine)


@torch.no_grad()
def find_all(
    data: FinderData, model: PixelLlm, batch: int = 16
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], list[str]]:
    """Where the model finds every expression of every photograph: boxes (n, 4), true boxes (n, 4), the expressions."""
    finder = Finder(model.eval(), data.words)
    found, truth, texts = [], [], []
    for row, told in enumerate(data.told):
        if told:
            features = tower_features(*data.features([row]))
            found.append(finder.find(features, [one.text for one in told])[0])
            truth += [one.box for one in told]
            texts += [one.text for one in told]
    return np.concatenate(found), np.array(truth, np.float32), texts


@torch.no_grad()
def find_words(data: FinderData, model: PixelLlm) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Where the model has the words of captions that name a box: boxes (n, 4), true boxes (n, 4)."""
    finder = Finder(model.eval(), data.words)
    found, truth = [], []
    for row, texts in enumerate(data.named):
        if texts:
            features, batch = tower_features(*data.features([row])), _collate([texts])
            valid = batch.boxes.amax(-1) > 0
            found.append(finder.places(features, batch.tokens)[valid])
            truth.append(batch.boxes[valid])
    return torch.cat(found).numpy(), torch.cat(truth).numpy()
