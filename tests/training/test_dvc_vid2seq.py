"""The Vid2Seq variant on drawn videos: it learns what happens when, and leaves a folder that can be loaded."""

import dataclasses
import gzip
import json

import numpy as np
import pytest
import torch

from onlooker.operators.caption.captioner import Captioner, DecodeOptions
from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.vid2seq.decoding import decode_videos
from onlooker.operators.caption.vid2seq.load import load_pieces, load_vid2seq
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece
from onlooker.pipeline.cli.main import main
from onlooker.training.captioner import save_captioner
from onlooker.training.captions import Split
from onlooker.training.dvc import DvcRecipe, DvcTrainer, TokenVideo
from onlooker.training.dvc_loss import CaptionLossOptions
from onlooker.training.dvc_scenes import SceneRecipe, SceneVideos
from onlooker.training.dvc_targets import TargetOptions
from onlooker.training.dvc_vid2seq import Vid2SeqRecipe, new_vid2seq, train_vid2seq
from onlooker.training.schedules import LearningRate

PHOTOGRAPHS, VIEWS, N, D = 40, 2, 4, 40
WORDS = WordPiece([*SPECIAL, *(f"thing{i}" for i in range(PHOTOGRAPHS)), "a"])
SCENES = SceneRecipe(frames=8, scene=(3, 5), overlap=1, overlap_share=0.0, noise=0.05)
SMALL = Vid2SeqRecipe(videos=16, points=2, max_length=20, rate=4e-3, width=64, layers=2, dropout=0.0, scenes=SCENES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Flickr8k's layout, a token cache, and a captioner whose words are used."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "flickr8k").mkdir()
    (folder / "cache").mkdir()
    files = [f"{i}.jpg" for i in range(PHOTOGRAPHS)]
    with gzip.open(folder / "flickr8k" / "Flickr8k.token.txt.gz", "wt") as stream:
        stream.writelines(f"{file}#0\ta thing{i} .\n" for i, file in enumerate(files))
    looks = 6 * np.eye(PHOTOGRAPHS, D)[:, None, None] * np.ones((1, VIEWS, N, 1))  # unlike each other
    np.save(folder / "cache" / "tokens_train.npy", looks.astype(np.float16))
    np.save(folder / "cache" / "done_train.npy", np.ones((PHOTOGRAPHS, VIEWS), dtype=bool))
    (folder / "cache" / "index.json").write_text(json.dumps({"train": files}))
    decoder = GitConfig(
        vocab_size=len(WORDS), visual_width=D, hidden_size=16, num_heads=2, num_layers=1, ffn_size=16,
        max_positions=10, begin_token=2, end_token=3,
    )  # fmt: skip
    save_captioner(
        folder / "start", Captioner(GitDecoder(decoder), WORDS, 8, DecodeOptions(max_length=10, prefix_length=8))
    )
    return folder


def few(data, photographs):
    """Videos of the first photographs only."""
    whole = Split.open(data, data / "cache", None, "train")
    return SceneVideos(Split(whole.tokens, whole.done, whole.captions[:photographs]), WORDS, SCENES)


def shuffled(videos):
    """The crippled twin: captions of anything instead of what is seen."""

    def draw(rng, count):
        wrong = []
        for video in videos(rng, count):
            captions = [
                videos.captions[i][0] for i in rng.integers(0, len(videos.captions), len(video.events.captions))
            ]
            wrong.append(TokenVideo(video.tokens, dataclasses.replace(video.events, captions=captions)))
        return wrong

    return draw


def trained(draw, steps=180):
    """A model, and the loss of words at the end."""
    model, losses = new_vid2seq(WORDS, D, SMALL), []
    recipe = DvcRecipe(
        steps=steps,
        videos=SMALL.videos,
        rate=LearningRate(SMALL.rate, steps // 10, cosine_steps=steps),
        clip=1.0,
        targets=TargetOptions(num_dense_outputs=SMALL.points),
        loss=CaptionLossOptions(label_smoothing=0.0, time_weight=None),
    )
    DvcTrainer(model, recipe).run(draw, lambda _, loss: losses.append(float(loss.caption.detach())))
    return model, float(np.mean(losses[-10:]))


@torch.no_grad()
def told(model, videos):
    """Share of the events of new videos that are told at their place (half of it at least) by their words."""
    found = total = 0
    drawn = videos(np.random.default_rng(99), 12)
    rows = decode_videos(model, torch.stack([video.tokens.mean(1) for video in drawn])).tokens.tolist()
    first = model.config.times.vocab_size
    for row, video in zip(rows, drawn, strict=True):
        said = [tuple(row[i : i + 4]) for i in range(len(row) - 3) if row[i] >= first and row[i + 1] >= first]
        ends = first + np.round(np.stack([video.events.start_us, video.events.end_us], 1) / 8e6 * 7)
        for (start, end), words in zip(ends, video.events.captions, strict=True):
            total += 1
            found += any(
                list(text) == words and min(end, stop) - max(start, begin) >= (end - start) / 2
                for begin, stop, *text in said
            )
    return found / total


def test_it_learns_what_happens_when(data):
    videos = few(data, 5)
    model, words = trained(videos)
    twin, guesses = trained(shuffled(videos))
    right, lucky = told(model, videos), told(twin, videos)
    print(f"words {words:.3f} twin {guesses:.3f}; told {right:.2f} twin {lucky:.2f}")
    assert words < 0.6 * guesses
    assert right > 0.65 and lucky < 0.5


def test_the_same_seed_gives_the_same_weights(data, tmp_path):
    def weights(seed):
        recipe = dataclasses.replace(SMALL, start=str(data / "start"), steps=3, videos=2, seed=seed)
        model = train_vid2seq(data, data / "cache", tmp_path / "out", recipe)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights(1)
    assert torch.equal(first, weights(1)) and not torch.equal(first, weights(2))


def test_the_command_leaves_a_model(data, tmp_path, capsys):
    out = str(tmp_path / "out")
    command = [
        "train",
        "dvc",
        "--variant",
        "vid2seq",
        "--data",
        str(data),
        "--start",
        str(data / "start"),
        "--out",
        out,
    ]
    assert main([*command, "--cache", str(data / "cache"), "--steps", "2", "--points", "2"]) == 0
    assert f"load_vid2seq('{out}')" in capsys.readouterr().out
    model = load_vid2seq(out)
    assert load_pieces(out) == WORDS.pieces and model.config.times.vocab_size == len(WORDS)
    assert (model.config.train_points, model.config.feature_width, model.config.num_frames) == (2, D, 32)
    assert decode_videos(model, torch.rand(1, 32, D)).tokens.shape == (1, 96)
    assert main([*command, "--cache", str(tmp_path / "nothing")]) == 2
    assert "onlooker train features" in capsys.readouterr().err
