"""Training of the captioner of regions, on tokens that say which photograph they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece
from onlooker.operators.tower.vision import TowerOutput
from onlooker.training.captioner import Trainer
from onlooker.training.captions import CaptionerRecipe, Split
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.regions import (
    ObjectRow,
    RegionBatches,
    RegionRecipe,
    SceneTokens,
    draw_scenes,
    is_named,
    share_true,
    train_regions,
)

from .object_bank import plain_bank

WIDTH, PHOTOGRAPHS = 32, 16
RECIPE = RegionRecipe(
    CaptionerRecipe(
        epochs=40, photographs=8, learning_rate=5e-3, warmup_steps=5, word_dropout=0.0, dropout=0.0,
        label_smoothing=0.0, average=0.9, max_length=6, memory_from=0, prefix_share=0.0, keep_single=4, min_count=1,
    ),
    scenes=6, frames=3, size=2, views=2, region_share=0.2, whole_share=0.2,
)  # fmt: skip
WORDS = [f"w{chr(97 + number)}" for number in range(PHOTOGRAPHS)]


def bank() -> ObjectBank:
    known = plain_bank(PHOTOGRAPHS)
    known.captions = tuple((f"dog {word}", f"a {word}") for word in WORDS)
    return known


def scenes(seed: int = 0) -> SceneTokens:
    """Objects in the left half of grids (2, 2); the right half is another photograph's."""
    rng = np.random.default_rng(seed)
    meaning = np.eye(PHOTOGRAPHS, WIDTH)
    rows, grids = [], []
    for photograph in range(PHOTOGRAPHS):
        rows.append(ObjectRow(photograph, len(grids), ((0.0, 0.0, 0.5, 1.0),) * 3, (1.0, 0.2, 0.9)))
        for _ in range(3):
            right = meaning[rng.integers(PHOTOGRAPHS)]
            grids.append(np.stack([np.stack([meaning[photograph], right])] * 2))
    noise = 0.05 * rng.standard_normal((len(grids), 2, 2, WIDTH))
    return SceneTokens((4 * (np.stack(grids) + noise)).astype(np.float16), tuple(rows))


def split() -> Split:
    tokens = 4 * np.eye(PHOTOGRAPHS, WIDTH, dtype=np.float16)[:, None, None].repeat(4, 2)
    return Split(tokens, np.ones((PHOTOGRAPHS, 1), bool), [list(texts) for texts in bank().captions])


def vocabulary() -> WordPiece:
    return WordPiece([*SPECIAL, "dog", "a", *WORDS])


def decoder() -> GitDecoder:
    torch.manual_seed(0)
    words = vocabulary()
    return GitDecoder(
        GitConfig(
            vocab_size=len(words),
            visual_width=WIDTH,
            hidden_size=32,
            num_heads=2,
            num_layers=1,
            ffn_size=64,
            max_positions=8,
            dropout=0.0,
            attention_dropout=0.0,
            begin_token=words.begin,
            end_token=words.end,
        )  # fmt: skip
    )


def test_batches_are_about_objects_seen_well_enough() -> None:
    batches = RegionBatches(split(), vocabulary(), RECIPE, scenes(), bank())
    assert all(frames == [0, 2] for _, frames in batches.objects)
    assert {thing.photograph for thing in batches.boxes} == set(range(1, PHOTOGRAPHS))
    shapes = {tuple(batch.memory.shape[1:]) for number in range(12) for batch in batches.epoch(number)}
    assert shapes == {(4, WIDTH), (8, WIDTH)}  # one view or a whole photograph, two views
    first, again = (next(iter(batches.epoch(3))) for _ in range(2))
    assert torch.equal(first.memory, again.memory) and torch.equal(first.target, again.target)


def test_memory_and_captions_of_a_batch_belong_together() -> None:
    batches = RegionBatches(split(), vocabulary(), RECIPE, scenes(), bank())
    names = vocabulary()
    compared = 0
    for number in range(8):
        for batch in batches.epoch(number):
            for memory, target in zip(batch.memory, batch.target, strict=True):
                meant = int(memory.mean(0)[:PHOTOGRAPHS].argmax())
                assert names.pieces.index(WORDS[meant]) in target.tolist()
                compared += 1
    assert compared > 100


def test_a_decoder_learns_what_objects_are_and_shuffled_captions_teach_it_nothing(tmp_path: Path) -> None:
    truth = {}
    for name, shuffled in (("right", False), ("shuffled", True)):
        drawn = scenes()
        if shuffled:
            wrong = np.random.default_rng(0).permutation(PHOTOGRAPHS)
            drawn = SceneTokens(
                drawn.tokens,
                tuple(ObjectRow(int(wrong[r.photograph]), r.first, r.boxes, r.visible) for r in drawn.objects),
            )
        recipe = RegionRecipe(RECIPE.captioner, size=2, views=2, region_share=0.0, whole_share=0.0)
        start = decoder()
        words = start.words.weight.clone()
        losses: list[float] = []

        def report(trainer: Trainer, loss: float, seconds: float, losses: list[float] = losses) -> None:
            losses.append(loss)

        checkpoint = tmp_path / f"{name}.pt"
        trained = train_regions(bank(), split(), drawn, checkpoint, start, vocabulary(), recipe, report, every=20)
        assert losses[-1] < losses[0] / 2
        assert torch.equal(trained.words.weight, words)  # they are not trained
        truth[name] = _told(trained)
    assert truth["right"] > 0.9
    assert truth["shuffled"] < 0.7


def _told(trained: GitDecoder) -> float:
    """How true greedy texts about unseen scenes are."""
    fresh, names = scenes(seed=1), vocabulary()
    memory = torch.stack([torch.from_numpy(fresh.views(row, [0, 2], 2)) for row in fresh.objects])
    text = torch.full((len(memory), 1), names.begin)
    with torch.inference_mode():
        for _ in range(2):
            text = torch.cat([text, trained(text, memory)[:, -1].argmax(-1, keepdim=True)], 1)
    texts = [names.decode(row[1:].tolist()) for row in text]
    return share_true(texts, [row.photograph for row in fresh.objects], bank().captions)


def test_share_true_counts_wins_alone() -> None:
    captions = [("a red dog runs",), ("the blue boat floats",), ("two green birds sing",)]
    assert share_true(["a red dog runs", "the blue boat"], [0, 1], captions) == 1.0
    assert share_true(["a red dog runs"], [1], captions) < 1.0
    assert share_true(["nothing of that"], [0], captions) == 0.0  # equal is not better


def test_classes_are_found_in_captions() -> None:
    assert is_named("person", ("A man rides", "A biker", "the sky"))
    assert is_named("dog", ("two dogs",)) and is_named("bench", ("on benches",))
    assert not is_named("dog", ("a dogged man", "hotdog", "a dog"))
    assert not is_named("person", ("a dog runs", "a manhole"))


class _Eyes:
    """Stands for a tower: a token is the mean colour of its cell."""

    grid, token_width = (7, 7), 3

    def encode_frames(self, pixels: np.ndarray, batch: int = 8) -> TowerOutput:
        cells = torch.from_numpy(pixels).float().view(-1, 7, 32, 7, 32, 3).mean((2, 4)).flatten(1, 2)
        return TowerOutput(cells, None, cells.mean(1))


def test_drawn_scenes_are_kept_and_show_their_objects(tmp_path: Path) -> None:
    known = plain_bank(27)
    drawn = draw_scenes(tmp_path / "scenes", known, _Eyes(), RECIPE, say=lambda line: None)  # type: ignore[arg-type]
    again = draw_scenes(tmp_path / "scenes", known, None, RECIPE)  # type: ignore[arg-type]
    assert again.objects == drawn.objects and len(drawn.objects) >= 8
    np.testing.assert_array_equal(again.tokens, drawn.tokens)
    assert drawn.tokens.shape == (18, 7, 7, 3)
    errors = []
    for row, frames in drawn.seen(0.9):
        seen = drawn.views(row, frames[:1], 1)[0]
        wanted = np.asarray(known.pixels(row.photograph)[0, 0], np.float32)
        errors.append(np.degrees(np.arccos(seen @ wanted / np.linalg.norm(seen) / np.linalg.norm(wanted) - 1e-6)))
    assert np.median(errors) < 10
