"""Second stage of captioner training: sample captions, and make the better ones likelier.

Self-critical sequence training (Rennie et al. 2017) with the mean of a photograph's other samples as baseline. The
reward of a sample is its BLEU-4 against the photograph's own captions less a share of its BLEU-4 against those of
another photograph: what would be true of any picture earns little.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.caption.git import Context, GitDecoder, TextState
from onlooker.training.captions import IGNORED, Batches, padded

Grams = Counter[tuple[int, ...]]


@dataclass(frozen=True)
class CriticRecipe:
    """What decides the second stage.

    Attributes:
        photographs: photographs per step.
        samples: captions sampled for each.
        learning_rate: of AdamW, constant after the warm-up, falling linearly to zero over the last half.
        temperature, top: samples are drawn from the sharpened distribution over the likeliest pieces.
        other: share of the reward against another photograph that is taken off.
        average: decay of the running average of the weights.
    """

    seed: int = 0
    steps: int = 600
    photographs: int = 24
    samples: int = 5
    learning_rate: float = 4e-5
    warmup_steps: int = 20
    temperature: float = 0.8
    top: int = 30
    other: float = 0.5
    average: float = 0.98


class Rewards:
    """BLEU-4 of piece sequences against the captions of a photograph, with the n-grams of those counted once."""

    def __init__(self, captions: Sequence[Sequence[Sequence[int]]]) -> None:
        """Count the n-grams of all captions, given as pieces."""
        self._grams: list[Grams] = []
        self._lengths = [[len(text) for text in texts] for texts in captions]
        for texts in captions:
            most: Grams = Counter()
            for text in texts:
                most |= _ngrams(text)
            self._grams.append(most)

    def __call__(self, text: Sequence[int], photo: int) -> float:
        """Smoothed sentence BLEU-4 in 0..1, as `onlooker.training.bleu.sentence_bleu` has it for words."""
        if not text:
            return 0.0
        most = self._grams[photo]
        found, total = [0] * 4, [0] * 4
        for gram, count in _ngrams(text).items():
            found[len(gram) - 1] += min(count, most[gram])
            total[len(gram) - 1] += count
        if not found[0]:
            return 0.0
        log_sum = math.log(found[0] / total[0])
        log_sum += sum(math.log((found[n] + 1) / (total[n] + 1)) for n in (1, 2, 3))
        closest = min((abs(length - len(text)), length) for length in self._lengths[photo])[1]
        return math.exp(log_sum / 4 + min(0.0, 1.0 - closest / len(text)))


@torch.no_grad()
def sample(decoder: GitDecoder, context: Context, recipe: CriticRecipe, length: int) -> list[list[int]]:
    """Texts drawn about each item of the context: B * samples lists of pieces without begin and end."""
    wide = context.repeat(recipe.samples)
    state = TextState(decoder, wide, length)
    config = decoder.config
    tokens = torch.full((wide.mask.shape[0],), config.begin_token)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    written = []
    for position in range(length - 1):
        values, index = (state.step(tokens, position) / recipe.temperature).topk(recipe.top)
        tokens = index.gather(1, torch.multinomial(F.softmax(values, -1), 1))[:, 0]
        tokens = torch.where(ended, torch.full_like(tokens, config.end_token), tokens)
        ended |= tokens == config.end_token
        written.append(tokens)
        if bool(ended.all()):
            break
    rows = torch.stack(written, 1).tolist()
    return [row[: row.index(config.end_token)] if config.end_token in row else row for row in rows]


def critic_loss(
    decoder: GitDecoder, context: Context, texts: Sequence[Sequence[int]], advantages: Tensor, samples: int
) -> Tensor:
    """Negative log-probability of the samples' pieces weighted by advantage; texts of an item are packed in a row.

    Args:
        decoder: the policy.
        context: of B items, with gradient.
        texts: B * samples sampled texts.
        advantages: (B * samples,) float32.
        samples: texts per item.
    """
    config = decoder.config
    rows: dict[str, list[list[float]]] = {name: [] for name in ("text", "target", "positions", "segment", "weight")}
    for start in range(0, len(texts), samples):
        row: dict[str, list[float]] = {name: [] for name in rows}
        for number, text in enumerate(texts[start : start + samples]):
            row["text"] += [config.begin_token, *text]
            row["target"] += [*text, config.end_token]
            row["positions"] += range(len(text) + 1)
            row["segment"] += [number] * (len(text) + 1)
            row["weight"] += [float(advantages[start + number])] * (len(text) + 1)
        for name, values in row.items():
            rows[name].append(values)
    segment = padded(rows["segment"], -1).long()
    same = segment[:, :, None] == segment[:, None, :]  # B, T, T
    hidden = decoder.decode(padded(rows["text"], 0).long(), context, padded(rows["positions"], 0).long(), same.tril())
    target = padded(rows["target"], IGNORED).long()
    real = target != IGNORED
    losses = F.cross_entropy(decoder.output(hidden[real]), target[real], reduction="none")
    return (losses * padded(rows["weight"], 0.0).float()[real]).sum() / real.sum()


class Critic:
    """The second stage over the batches of the first: `step` after `step` until the recipe's number is reached."""

    def __init__(self, decoder: GitDecoder, average: GitDecoder, batches: Batches, recipe: CriticRecipe) -> None:
        """Go on from `decoder`; `average` follows it and is what is kept."""
        self.decoder, self.average, self.batches, self.recipe = decoder, average, batches, recipe
        self.rewards = Rewards(batches.ids)
        self.optimizer = torch.optim.AdamW(decoder.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
        self.step_number = 0

    def run(self) -> Iterator[tuple[int, float]]:
        """Step number and mean reward of its samples, step by step."""
        recipe, total = self.recipe, len(self.batches.ids)
        while self.step_number < recipe.steps:
            rng = np.random.default_rng([recipe.seed, self.step_number])
            torch.manual_seed(recipe.seed * 1_000_003 + self.step_number)
            yield self.step_number, self.step(rng, rng.choice(total, recipe.photographs, replace=False))

    def step(self, rng: np.random.Generator, photos: npt.NDArray[np.int64]) -> float:
        """One update; returns the mean reward."""
        recipe = self.recipe
        left = 2.0 * (1.0 - self.step_number / recipe.steps)
        rate = recipe.learning_rate * min(1.0, (self.step_number + 1) / recipe.warmup_steps, left)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Without dropout: what is sampled and what is made likelier must be the same distribution.
        self.decoder.eval()
        begin_end = torch.tensor([[self.batches.vocabulary.begin, self.batches.vocabulary.end]])
        context = self.decoder.encode_context(
            self.batches.memory(rng, photos, memories=True), None, begin_end.expand(len(photos), -1)
        )
        texts = sample(self.decoder, context, recipe, self.batches.recipe.max_length)
        rewards = self._score(rng, photos, texts)  # B, samples
        others = (rewards.sum(1, keepdim=True) - rewards) / (recipe.samples - 1)
        loss = critic_loss(self.decoder, context, texts, (rewards - others).flatten(), recipe.samples)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step_number += 1
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.decoder.parameters(), strict=True):
                mean.lerp_(weight, 1.0 - recipe.average)
        return float(rewards.mean())

    def _score(self, rng: np.random.Generator, photos: npt.NDArray[np.int64], texts: list[list[int]]) -> Tensor:
        """Rewards (B, samples) float32."""
        recipe, total = self.recipe, len(self.batches.ids)
        rewards = []
        for number, text in enumerate(texts):
            own = int(photos[number // recipe.samples])
            other = (own + int(rng.integers(1, total))) % total
            rewards.append(self.rewards(text, own) - recipe.other * self.rewards(text, other))
        return torch.tensor(rewards).view(len(photos), recipe.samples)


def _ngrams(text: Sequence[int]) -> Grams:
    """All n-grams of one to four pieces."""
    return Counter(tuple(text[i : i + n]) for n in range(1, 5) for i in range(len(text) - n + 1))
