"""Training of the caption decoder `tiny`, with the clustering memory in the loop.

The trunk is frozen: its tokens come from the cache of `onlooker.training.features`, memories from
`onlooker.training.memories`. The decoder starts from layers and word vectors of MiniLM-L6. A batch holds photographs
with all their captions: visual and prefix rows never see the text, so they are computed once per photograph and its
captions are packed behind them, kept apart by the mask.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.caption.captioner import Captioner, DecodeOptions
from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.load import load_captioner
from onlooker.operators.caption.wordpiece import WordPiece
from onlooker.operators.model_folder import save_weights
from onlooker.training.averages import follow
from onlooker.training.bleu import corpus_bleu
from onlooker.training.captions import IGNORED, Batch, Batches, CaptionerRecipe, Split, build_vocabulary
from onlooker.training.files import whole_file
from onlooker.training.memories import VideoRecipe, fill_memories
from onlooker.training.tiny import minilm_folder

_MINILM_LAYERS = (0, 2, 4)
_PREFIX_LENGTH = 32

_LAYER_NAMES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.dense": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "norm": "output.LayerNorm",
}


def batch_loss(decoder: GitDecoder, batch: Batch, label_smoothing: float) -> Tensor:
    """Mean cross entropy over all text pieces of a batch."""
    context = decoder.encode_context(batch.memory, None, batch.prefix)
    same = batch.segment[:, :, None] == batch.segment[:, None, :]  # B, T, T
    hidden = decoder.decode(batch.text, context, batch.positions, same.tril())  # B, T, H
    real = batch.target != IGNORED
    return F.cross_entropy(decoder.output(hidden[real]), batch.target[real], label_smoothing=label_smoothing)


def minilm_decoder(vocabulary: WordPiece, visual_width: int, recipe: CaptionerRecipe) -> GitDecoder:
    """A tied three-layer decoder whose layers and embeddings are MiniLM's; only the visual projection is new."""
    folder = minilm_folder()
    weights = load_file(folder / "model.safetensors")
    rows = {piece: i for i, piece in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())}
    torch.manual_seed(recipe.seed)
    config = GitConfig(
        vocab_size=len(vocabulary),
        visual_width=visual_width,
        hidden_size=384,
        num_layers=len(_MINILM_LAYERS),
        ffn_size=1536,
        max_positions=max(recipe.max_length, _PREFIX_LENGTH),
        dropout=recipe.dropout,
        attention_dropout=0.0,
        tie_word_embeddings=True,
        begin_token=vocabulary.begin,
        end_token=vocabulary.end,
    )
    decoder = GitDecoder(config)
    state = decoder.state_dict()
    state["words.weight"] = weights["embeddings.word_embeddings.weight"][[rows[p] for p in vocabulary.pieces]]
    state["output.weight"] = state["words.weight"]
    kinds = weights["embeddings.token_type_embeddings.weight"][0]
    state["positions.weight"] = weights["embeddings.position_embeddings.weight"][: config.max_positions] + kinds
    for part in ("weight", "bias"):
        state[f"embedding_norm.{part}"] = weights[f"embeddings.LayerNorm.{part}"]
        # Visual rows enter the same layers: give them the scale those expect.
        state[f"visual_norm.{part}"] = weights[f"embeddings.LayerNorm.{part}"].clone()
        for index, source in enumerate(_MINILM_LAYERS):
            for own, theirs in _LAYER_NAMES.items():
                state[f"layers.{index}.{own}.{part}"] = weights[f"encoder.layer.{source}.{theirs}.{part}"]
    decoder.load_state_dict(state)
    return decoder


def learning_rate(step: int, steps: int, recipe: CaptionerRecipe) -> float:
    """Linear warm-up, a plateau, then a linear fall to zero over the last `decay` of the steps."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    left = (steps - step) / max(1.0, recipe.decay * steps)
    return recipe.learning_rate * warm * min(1.0, left)


class Trainer:
    """Optimiser, averaged weights and checkpoints of one run."""

    def __init__(self, decoder: GitDecoder, batches: Batches, recipe: CaptionerRecipe) -> None:
        """Start a run; `restore` continues one."""
        self.decoder, self.batches, self.recipe = decoder, batches, recipe
        self.average = copy.deepcopy(decoder).eval().requires_grad_(False)
        matrices = [p for p in decoder.parameters() if p.ndim > 1]
        vectors = [p for p in decoder.parameters() if p.ndim == 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
        self.step_number = 0
        self.per_epoch = len(batches.ids) // recipe.photographs
        self.steps = int(recipe.epochs * self.per_epoch)

    def run(self, checkpoint: Path, report: Callable[[Trainer, float, float], None], every: int) -> None:
        """Train to the end, saving and reporting (loss, seconds per step) every so many steps."""
        total, since, begun = 0.0, 0, time.monotonic()
        while self.step_number < self.steps:
            epoch, skip = divmod(self.step_number, self.per_epoch)
            for index, batch in enumerate(self.batches.epoch(epoch)):
                if index < skip:
                    continue
                if self.step_number >= self.steps:
                    break
                total += self.step(batch)
                since += 1
                if self.step_number % every == 0 or self.step_number == self.steps:
                    self.save(checkpoint)
                    report(self, total / since, (time.monotonic() - begun) / since)
                    total, since, begun = 0.0, 0, time.monotonic()

    def step(self, batch: Batch) -> float:
        """One update; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step_number, self.steps, self.recipe)
        # A seed of its own for every step: a run that was interrupted goes on as if it had not been.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step_number)
        self.decoder.train()
        loss = batch_loss(self.decoder, batch, self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step_number += 1
        follow(self.average, self.decoder, self.recipe.average, self.step_number)
        return loss.item()

    def save(self, path: Path) -> None:
        """Write everything needed to go on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "decoder": self.decoder.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_number,
        }
        with whole_file(path) as part:
            torch.save(state, part)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.decoder.load_state_dict(state["decoder"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number = state["step"]


def save_captioner(folder: Path, captioner: Captioner) -> None:
    """Write the folder that `load_captioner` reads; weights in float16, the tied output kernel left out."""
    folder.mkdir(parents=True, exist_ok=True)
    state = captioner.decoder.state_dict()
    if captioner.decoder.config.tie_word_embeddings:
        del state["output.weight"]
    save_weights({name: value.half() for name, value in state.items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(captioner.vocabulary.pieces) + "\n", encoding="utf-8")
    config = {
        "decoder": captioner.decoder.config.to_dict(),
        "memory_size": captioner.memory_size,
        "decoding": asdict(captioner.options),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def bleu_of_inputs(
    captioner: Captioner, inputs: Sequence[npt.NDArray[Any]], captions: Sequence[Sequence[str]]
) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4 of the best caption about each input (M, D)."""
    hypotheses = [texts[0][0] for texts in captioner.caption_batch(inputs)]
    return corpus_bleu(hypotheses, captions)


def _fresh(train: Split, recipe: CaptionerRecipe) -> tuple[GitDecoder, WordPiece]:
    pieces = (minilm_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = build_vocabulary(train.captions, pieces, recipe.min_count)
    return minilm_decoder(vocabulary, train.tokens.shape[-1], recipe), vocabulary


def own_captioner(name_or_folder: str | Path) -> Captioner:
    """Load a captioner to train further.

    Raises:
        ValueError: it is not one of ours.
    """
    captioner = load_captioner(name_or_folder)
    if not isinstance(captioner, Captioner):
        name = Path(name_or_folder).name
        raise ValueError(f"captioner {name!r} is no GIT decoder of ours: start from tiny or a folder of it")
    return captioner


def train_captioner(
    data: Path,
    cache: Path,
    out: Path,
    recipe: CaptionerRecipe | None = None,
    videos: VideoRecipe | None = None,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> Captioner:
    """Train a captioner and write it to the folder `out`, ready for `load_captioner`.

    A run that was interrupted goes on where it last reported, if it is given the same `cache` and recipe.

    Args:
        data: the data folder (see `onlooker.training.flickr`).
        cache: a token cache that is filled; memories and the checkpoint are kept in it.
        out: folder for the weights, the vocabulary and the config.
        recipe: what decides the weights.
        videos: how the videos behind the memories are drawn.
        start: folder of a captioner whose weights and words are gone on from; None for those of MiniLM.
        say: takes a line of progress, about one an epoch, with BLEU on a part of dev.

    Raises:
        ValueError: `start` holds no captioner of ours.
    """
    recipe = recipe or CaptionerRecipe()
    videos = videos or VideoRecipe(seed=recipe.seed, memory_size=recipe.memory_size)
    fill_memories(cache, cache / "memories", "train", videos)
    train, dev = Split.open(data, cache, cache / "memories", "train"), Split.open(data, cache, None, "dev")
    if start is None:
        decoder, vocabulary = _fresh(train, recipe)
    else:
        begun = own_captioner(start)
        decoder, vocabulary = begun.decoder.requires_grad_(True), begun.vocabulary
    trainer = Trainer(decoder, Batches(train, vocabulary, recipe), recipe)
    options = DecodeOptions(max_length=recipe.max_length, prefix_length=_PREFIX_LENGTH)
    captioner = Captioner(trainer.average, vocabulary, recipe.memory_size, options)

    def report(trainer: Trainer, loss: float, seconds: float) -> None:
        photographs = range(0, len(dev.captions), max(1, len(dev.captions) // 250))
        bleu = bleu_of_inputs(
            captioner, [dev.tokens[p, 0] for p in photographs], [dev.captions[p] for p in photographs]
        )
        scores = " ".join(f"{score:.3f}" for score in bleu)
        say(
            f"step {trainer.step_number}/{trainer.steps} loss {loss:.3f} {seconds:.2f} s/step BLEU-1..4 on dev {scores}"
        )

    checkpoint = cache / f"captioner-{recipe.seed}.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
    trainer.run(checkpoint, report, every=trainer.per_epoch)
    save_captioner(out, captioner)
    return captioner
