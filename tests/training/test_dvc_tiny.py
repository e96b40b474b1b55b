"""Dense training on drawn videos: their truth, the start from a captioner, and what the run leaves behind."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from onlooker.operators.caption.captioner import Captioner, DecodeOptions
from onlooker.operators.caption.dense_config import MemoryConfig
from onlooker.operators.caption.dense_load import load_video_captioner
from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece
from onlooker.pipeline.cli.main import main
from onlooker.training.captioner import save_captioner
from onlooker.training.captions import Split
from onlooker.training.dvc_scenes import SceneRecipe, SceneVideos
from onlooker.training.dvc_tiny import DenseTinyRecipe, dense_from_captioner, train_dense_tiny

CAPTIONS = [["a dog runs", "a brown dog"], ["two men", "men play chess"], ["a red boat", "a boat"], ["a cat"]] * 2
N, D, VIEWS = 4, 12, 2
SCENES = SceneRecipe(frames=16, scene=(3, 6), overlap=2, overlap_share=0.5, noise=0.0)


@pytest.fixture
def data(tmp_path):
    """Captions and splits in Flickr8k's layout, and a token cache of as many photographs."""
    folder = tmp_path / "flickr8k"
    folder.mkdir()
    files = [f"{i}.jpg" for i in range(len(CAPTIONS))]
    lines = [
        f"{file}#{n}\t{text} ." for file, texts in zip(files, CAPTIONS, strict=True) for n, text in enumerate(texts)
    ]
    with gzip.open(folder / "Flickr8k.token.txt.gz", "wt") as stream:
        stream.write("\n".join(lines) + "\n")
    cache = tmp_path / "cache"
    cache.mkdir()
    # Each photograph has values of its own, so that every frame says which one it shows.
    tokens = np.arange(1, len(files) + 1, dtype=np.float16)[:, None, None, None] / 2 * np.ones((1, VIEWS, N, D))
    np.save(cache / "tokens_train.npy", tokens.astype(np.float16))
    np.save(cache / "done_train.npy", np.ones((len(files), VIEWS), dtype=bool))
    (cache / "index.json").write_text(json.dumps({"train": files}))
    return tmp_path


@pytest.fixture
def captioner():
    vocabulary = WordPiece([*SPECIAL, *sorted({word for texts in CAPTIONS for text in texts for word in text.split()})])
    torch.manual_seed(0)
    config = GitConfig(
        vocab_size=len(vocabulary), visual_width=D, hidden_size=32, num_heads=2, num_layers=2, ffn_size=32,
        max_positions=10, dropout=0.0, attention_dropout=0.0, begin_token=2, end_token=3, tie_word_embeddings=True,
    )  # fmt: skip
    return Captioner(GitDecoder(config), vocabulary, 8, DecodeOptions(max_length=10, prefix_length=10))


@pytest.fixture
def start(captioner, tmp_path):
    save_captioner(tmp_path / "start", captioner)
    return str(tmp_path / "start")


def recipe(start, **options):
    small = {"videos": 2, "points": 2, "max_length": 40, "warmup_steps": 2, "memory": MemoryConfig(size=8)}
    return DenseTinyRecipe(start=start, scenes=SCENES, **(small | options))


def test_frames_show_what_the_truth_says(data, captioner):
    videos = SceneVideos(Split.open(data, data / "cache", None, "train"), captioner.vocabulary, SCENES)
    overlaps = 0
    for seed in range(20):
        video, photographs = videos.draw(np.random.default_rng(seed))
        events = video.events
        assert events.duration_us == 16_000_000 and events.start_us[0] == 0 and events.end_us[-1] == 16_000_000
        seen = [set() for _ in range(SCENES.frames)]
        for photograph, start, end, ids in zip(
            photographs, events.start_us // 1_000_000, events.end_us // 1_000_000, events.captions, strict=True
        ):
            assert captioner.vocabulary.decode(ids).lower() in CAPTIONS[photograph]
            for frame in range(start, end):
                seen[frame].add((photograph + 1) / 2)
        for frame, values in zip(video.tokens, seen, strict=True):
            assert set(frame.unique().tolist()) == values
        overlaps += sum(len(values) == 2 for values in seen)
    assert overlaps


def test_what_is_cut_out_of_a_longer_video_has_no_event_that_goes_on(data, captioner):
    recipe = replace(SCENES, cut_share=1.0)
    videos = SceneVideos(Split.open(data, data / "cache", None, "train"), captioner.vocabulary, recipe)
    open_ends, early = 0, 0
    for seed in range(40):
        video, photographs = videos.draw(np.random.default_rng(seed))
        starts, ends = video.events.start_us // 1_000_000, video.events.end_us // 1_000_000
        assert len(photographs) == len(starts) == len(video.events.captions)
        assert video.tokens.abs().amin((1, 2)).min() > 0, "a frame that shows nothing"
        assert (starts >= 0).all() and (ends <= SCENES.frames).all()
        lengths = ends - starts
        assert (lengths <= SCENES.scene[1]).all() and (lengths[1:] >= SCENES.scene[0]).all()
        open_ends += SCENES.frames not in ends
        early += len(lengths) > 0 and lengths[0] < SCENES.scene[0]
    assert open_ends > 20 and early > 5  # whole videos: 0 and 0


def test_scenes_shorter_than_their_overlap_are_refused():
    with pytest.raises(ValueError, match="overlap of 4"):
        SceneRecipe(scene=(4, 8), overlap=4)


@pytest.mark.parametrize("tied", [True, False])
def test_the_start_knows_what_the_captioner_knew(captioner, start, tied):
    if not tied:
        values = captioner.decoder.config.to_dict() | {"tie_word_embeddings": False}
        captioner.decoder = GitDecoder(GitConfig(**values)).eval()
    model = dense_from_captioner(captioner, recipe(start)).eval()
    words = len(captioner.vocabulary)
    assert model.config.times.total == words + SCENES.frames == model.decoder.config.vocab_size
    memory, text = torch.rand(2, 8, D), torch.tensor([[2, 5, 6, 7], [2, 8, 9, 3]])
    with torch.no_grad():
        # Without what a token tells of its time, every word is as likely as before.
        logits = model.decoder(text, torch.cat([memory, torch.zeros(2, 8, 2 * SCENES.frames)], -1))
        torch.testing.assert_close(logits[..., :words], captioner.decoder(text, memory))
    assert logits.shape[-1] == words + SCENES.frames


def test_training_learns_and_leaves_a_captioner(data, start, tmp_path):
    losses = []
    model = train_dense_tiny(
        data, data / "cache", tmp_path / "out", recipe(start, steps=60, rate=3e-3), lambda _, loss: losses.append(loss)
    )
    first, last = (np.mean([float(loss.total.detach()) for loss in part]) for part in (losses[:10], losses[-10:]))
    assert len(losses) == 60 and last < 0.8 * first
    loaded, pieces = load_video_captioner(tmp_path / "out")
    assert loaded.config == model.config and pieces[4:] == sorted(pieces[4:])
    tokens = torch.rand(1, SCENES.frames, N, D)
    assert loaded.decode_tokens(tokens).tokens.shape == (1, 40)


def test_the_same_seed_gives_the_same_weights(data, start, tmp_path):
    runs = [train_dense_tiny(data, data / "cache", tmp_path / "out", recipe(start, steps=3, seed=s)) for s in (1, 1, 2)]
    weights = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_command(data, start, tmp_path, capsys):
    command = ["train", "dvc", "--data", str(data), "--start", start, "--out", str(tmp_path / "dense")]
    assert main([*command, "--cache", str(tmp_path / "nothing")]) == 2
    assert "onlooker train features" in capsys.readouterr().err
