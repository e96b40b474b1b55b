"""Fine-tuning of the trunk's late blocks, for retrieval and captions at once.

The early blocks stay as ImageNet left them, so what they give is cached once for every view of a photograph
(:func:`fill_early`); the late blocks, four fifths of its weights at an eighth of its cost, are trained on it.
Four things pull at them:

- pairs: a photograph and its captions (InfoNCE), through the tower's heads, which train along. Every step sees one
  caption of every training photograph as a negative, and the latest image embeddings (He et al. 2020, "Momentum
  Contrast", section 3.1, without the momentum: late blocks change slowly);
- captions: the caption decoder's cross entropy, through the grid tokens, so that places and details stay in them;
- memory: the ImageNet classifier must go on saying what it said of the untouched features (Li and Hoiem 2016,
  "Learning without Forgetting", section 3), so that concepts no caption names keep their place;
- CLIP: a linear map of the pooled features towards real CLIP ViT-B/32 vectors, for the photographs that have one.

Batch statistics are those of ImageNet throughout. Afterwards features, heads, memories and captioner are made anew on
the tuned trunk, by the same commands as on the frozen one.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onlooker.operators.caption.captioner import Captioner
from onlooker.operators.caption.git import GitDecoder
from onlooker.operators.model_folder import save_weights
from onlooker.training.averages import follow
from onlooker.training.captioner import batch_loss, bleu_of_inputs, own_captioner, save_captioner
from onlooker.training.captions import Batches, CaptionerRecipe, Split
from onlooker.training.evaluate import Retrieval
from onlooker.training.features import (
    GRID_TOKENS,
    TUNED,
    VIEWS,
    WIDTH,
    create_cache,
    imagenet_trunk,
    load_views,
    normalise,
)
from onlooker.training.files import whole_file
from onlooker.training.flickr import read_split
from onlooker.training.tiny import TinyModel
from onlooker.training.tower import Heads, TowerRecipe, clip_vectors, evaluate_heads, mean_tokens

FIRST_LATE = 5
EARLY_SHAPE = (112, 14, 14)


@dataclass(frozen=True)
class TrunkRecipe:
    """How to fine-tune; the defaults are those of the shipped weights.

    Attributes:
        epochs: passes over the photographs.
        batch: photographs a step.
        captioned: of those, how many the caption decoder reads.
        rate: peak learning rate of the late blocks (50 steps of warm-up, then cosine to zero).
        head_rate, caption_rate: of the tower's heads, of the caption decoder.
        caption, memory, clip: weights of those terms; the pairs' is 1.
        keep: grid tokens that the caption decoder sees, drawn anew each step.
        queue: image embeddings of earlier steps that captions are told apart from.
        average: decay of the running average of the late blocks, which is what is kept.
    """

    seed: int = 0
    epochs: int = 12
    batch: int = 96
    captioned: int = 32
    rate: float = 2e-4
    head_rate: float = 3e-4
    caption_rate: float = 1e-4
    decay: float = 0.05
    caption: float = 0.5
    memory: float = 0.5
    clip: float = 2.0
    keep: int = 42
    queue: int = 960
    average: float = 0.99


class LateBlocks(nn.Module):
    """The trunk from block ``FIRST_LATE`` on; its weights have the names that they have in the trunk."""

    def __init__(self, trunk: Any) -> None:
        """Take copies of the trunk's late parts, trainable but for the batch statistics."""
        super().__init__()
        self.blocks = copy.deepcopy(trunk.blocks[FIRST_LATE:])
        self.conv_head = copy.deepcopy(trunk.conv_head)
        self.bn2 = copy.deepcopy(trunk.bn2)
        self.requires_grad_(True).eval()

    def forward(self, early: Tensor) -> Tensor:
        """Return grid tokens (B, 49, 1280) of early activations (B, 112, 14, 14)."""
        for block in self.blocks:
            early = block(early)
        grid: Tensor = self.bn2(self.conv_head(early))  # (B, 1280, 7, 7)
        return grid.flatten(2).transpose(1, 2)


def fill_early(folder: Path, data: Path, seed: int = 0, batch: int = 16) -> None:
    """Cache the early activations of every view of train and dev as ``early_<split>_<view>.npy`` (P, 112, 14, 14)."""
    trunk: Any = imagenet_trunk(num_classes=0).to(memory_format=torch.channels_last)
    for split in ("train", "dev"):
        photographs = read_split(data, split)
        for view in range(VIEWS[split]):
            path = folder / f"early_{split}_{view}.npy"
            if path.exists():
                continue
            shape = (len(photographs), *EARLY_SHAPE)
            with whole_file(path) as part:
                early = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
                for start in range(0, len(photographs), batch):
                    rows = range(start, min(start + batch, len(photographs)))
                    early[rows] = _early(trunk, normalise(torch.from_numpy(load_views(photographs, rows, view, seed))))
                early.flush()


@torch.inference_mode()
def _early(trunk: Any, images: Tensor) -> npt.NDArray[np.float16]:
    hidden = trunk.bn1(trunk.conv_stem(images))
    for block in trunk.blocks[:FIRST_LATE]:
        hidden = block(hidden)
    out: npt.NDArray[np.float16] = hidden.half().numpy()
    return out


@dataclass(frozen=True)
class TrunkData:
    """What fine-tuning reads.

    Attributes:
        early: one array (P, 112, 14, 14) float16 for each view of the training photographs.
        pooled: (P, V, 1280) mean grid tokens of the same views under the untouched trunk.
        sentences: (P, 5, 384) MiniLM states of the captions.
        clip: (P, 512) unit CLIP vectors, zero where there is none.
        captions: draws packed captions; its tokens are not used.
    """

    early: list[npt.NDArray[np.float16]]
    pooled: Tensor
    sentences: Tensor
    clip: Tensor
    captions: Batches


class Tuner:
    """Models, optimiser and the running average of one run."""

    def __init__(
        self, train: TrunkData, trunk: nn.Module, heads: Heads, decoder: GitDecoder, recipe: TrunkRecipe
    ) -> None:
        """Start from the untouched trunk, its classifier included, and from heads and a decoder trained on it."""
        torch.manual_seed(recipe.seed)
        self.train, self.heads, self.decoder, self.recipe = train, heads, decoder, recipe
        self.late = LateBlocks(trunk).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.late).requires_grad_(False)
        self.average_heads = copy.deepcopy(heads).eval().requires_grad_(False)
        self.average_decoder = copy.deepcopy(decoder).eval().requires_grad_(False)
        self.classifier = trunk.get_submodule("classifier")
        self.to_clip = nn.Linear(WIDTH, train.clip.shape[1])
        groups: list[dict[str, Any]] = [
            {"params": self.late.parameters(), "peak": recipe.rate},
            {"params": [*heads.parameters(), *self.to_clip.parameters()], "peak": recipe.head_rate},
            {"params": decoder.parameters(), "peak": recipe.caption_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay, fused=True)
        self.queue = torch.zeros(0, heads.out.out_features)
        self.queue_owners = torch.zeros(0, dtype=torch.int64)
        self.per_epoch = len(train.pooled) // recipe.batch
        self.steps = recipe.epochs * self.per_epoch
        self.step_number = 0

    def epoch(self) -> Iterator[dict[str, float]]:
        """Pass over the photographs once, yielding the terms of the loss after every step."""
        number = self.step_number // self.per_epoch
        rng = np.random.default_rng([self.recipe.seed, number])
        order = rng.permutation(len(self.train.pooled))
        for index in range(self.per_epoch):
            yield self.step(rng, order[index * self.recipe.batch : (index + 1) * self.recipe.batch])

    def step(self, rng: np.random.Generator, photos: npt.NDArray[np.int64]) -> dict[str, float]:
        """One update on the chosen photographs."""
        recipe, train = self.recipe, self.train
        share = min(1.0, (self.step_number + 1) / 50) * (1 + math.cos(math.pi * self.step_number / self.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        torch.manual_seed(recipe.seed * 1_000_003 + self.step_number)
        self.heads.train()
        self.decoder.train()
        views = rng.integers(len(train.early), size=len(photos))
        early = np.stack([train.early[view][photo] for photo, view in zip(photos, views, strict=True)])
        grid = self.late(torch.from_numpy(early).float().contiguous(memory_format=torch.channels_last))  # (B, 49, 1280)
        pooled, chosen = grid.mean(1), torch.from_numpy(photos)
        terms = {
            "pairs": self._pairs(pooled, chosen),
            "caption": self._captions(rng, grid[: recipe.captioned], photos[: recipe.captioned]),
            "memory": self._memory(pooled, train.pooled[chosen, torch.from_numpy(views)]),
            "clip": self._clip(pooled, train.clip[chosen]),
        }
        weights = {"pairs": 1.0, "caption": recipe.caption, "memory": recipe.memory, "clip": recipe.clip}
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step_number += 1
        self._follow()
        return {name: float(term.detach()) for name, term in terms.items()}

    def _pairs(self, pooled: Tensor, chosen: Tensor) -> Tensor:
        """InfoNCE: one caption of every training photograph for an image; batch and queue for a caption."""
        sentences = self.train.sentences
        captions = torch.randint(sentences.shape[1], (len(sentences),))
        texts = self.heads.texts(sentences[torch.arange(len(sentences)), captions])  # (P, E)
        images, scale = self.heads.images(pooled), self.heads.scale("pairs")  # (B, E)
        to_text = F.cross_entropy(scale * images @ texts.T, chosen)
        logits = scale * texts[chosen] @ torch.cat([images, self.queue]).T  # (B, B + Q)
        same = chosen[:, None] == torch.cat([chosen, self.queue_owners])[None]
        same.fill_diagonal_(False)
        to_image = F.cross_entropy(logits.masked_fill(same, -1e4), torch.arange(len(chosen)))
        self.queue = torch.cat([images.detach(), self.queue])[: self.recipe.queue]
        self.queue_owners = torch.cat([chosen, self.queue_owners])[: self.recipe.queue]
        return (to_text + to_image) / 2

    def _captions(self, rng: np.random.Generator, grid: Tensor, photos: npt.NDArray[np.int64]) -> Tensor:
        """Cross entropy of the photographs' captions about a random part of their tokens."""
        drawn = self.train.captions.about(rng, photos, grid[:, torch.randperm(GRID_TOKENS)[: self.recipe.keep]])
        return batch_loss(self.decoder, drawn, self.train.captions.recipe.label_smoothing)

    def _memory(self, pooled: Tensor, before: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.classifier(before).softmax(-1)
        return F.kl_div(self.classifier(pooled).log_softmax(-1), target, reduction="batchmean")

    def _clip(self, pooled: Tensor, vectors: Tensor) -> Tensor:
        known = vectors.any(1)
        if not known.any():
            return pooled.new_zeros(())
        return 1.0 - F.cosine_similarity(self.to_clip(pooled[known]), vectors[known]).mean()

    def _follow(self) -> None:
        pairs = ((self.average, self.late), (self.average_heads, self.heads), (self.average_decoder, self.decoder))
        for average, model in pairs:
            follow(average, model, self.recipe.average, self.step_number)

    @torch.inference_mode()
    def tokens(self, early: npt.NDArray[np.float16], batch: int = 64) -> Tensor:
        """Return grid tokens (P, 49, 1280) of early activations under the running average."""
        parts = [torch.from_numpy(early[start : start + batch]).float() for start in range(0, len(early), batch)]
        return torch.cat([self.average(part.contiguous(memory_format=torch.channels_last)) for part in parts])

    def evaluate(self, early: npt.NDArray[np.float16], sentences: Tensor) -> tuple[Tensor, Retrieval]:
        """Return the tokens and the retrieval figures of photographs and their caption states (P, 5, 384)."""
        tokens = self.tokens(early)
        return tokens, evaluate_heads(self.average_heads, tokens.mean(1), sentences)

    def save(self, path: Path) -> None:
        """Write the averaged late blocks under timm's names."""
        save_weights(self.average.state_dict(), path)


def tune_trunk(
    data: Path,
    cache: Path,
    tower: Path,
    captioner: Path,
    tuned: Path,
    recipe: TrunkRecipe | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Fine-tune the trunk and start the feature cache `tuned`, which is filled on it from then on.

    Args:
        data: the data folder (see `onlooker.training.flickr`).
        cache: a filled feature cache of the untouched trunk; early activations are kept in it.
        tower: folder of a tower that was trained on that cache.
        captioner: folder of a captioner that was trained on it.
        tuned: the new cache; when the training is over, it holds `trunk.safetensors` and `captioner/`, the decoder that
            trained along.
        recipe: what decides the weights.
        say: takes a line of progress an epoch, with figures on dev.

    Raises:
        ValueError: `cache` is not full, or `captioner` is not one of ours.
    """
    recipe = recipe or TrunkRecipe()
    start = own_captioner(captioner)
    fill_early(cache, data)
    train, dev = Split.open(data, cache, None, "train"), Split.open(data, cache, None, "dev")
    index = json.loads((cache / "index.json").read_text(encoding="utf-8"))
    with TemporaryDirectory() as layout:
        tiny = TinyModel(Path(layout))
        sentences = {split: tiny.cached_captions(cache, data, split) for split in ("train", "dev")}
    inputs = TrunkData(
        early=[np.load(cache / f"early_train_{view}.npy", mmap_mode="r") for view in range(VIEWS["train"])],
        pooled=mean_tokens(cache, "train"),
        sentences=sentences["train"],
        clip=clip_vectors(data, index["train"]),
        captions=Batches(train, start.vocabulary, CaptionerRecipe(seed=recipe.seed)),
    )
    heads = Heads.of_tower(tower, TowerRecipe().dropout)
    tuner = Tuner(inputs, imagenet_trunk(), heads, start.decoder.requires_grad_(True), recipe)
    held_out = np.load(cache / "early_dev_0.npy")
    some = range(0, len(held_out), max(1, len(held_out) // 250))
    for epoch in range(recipe.epochs):
        steps = list(tuner.epoch())
        terms = " ".join(f"{name} {sum(step[name] for step in steps) / len(steps):.3f}" for name in steps[0])
        tokens, figures = tuner.evaluate(held_out, sentences["dev"])
        writer = Captioner(tuner.average_decoder, start.vocabulary, start.memory_size, start.options)
        bleu = bleu_of_inputs(writer, [tokens[p].numpy() for p in some], [dev.captions[p] for p in some])
        say(
            f"epoch {epoch + 1}/{recipe.epochs} {terms}; dev t2i R@1 {figures.text_to_image[0]:.3f} "
            f"AUROC {figures.auroc_raw:.4f} BLEU-4 {bleu[3]:.3f}"
        )
    create_cache(tuned, data)
    save_captioner(tuned / "captioner", writer)
    tuner.save(tuned / TUNED)
