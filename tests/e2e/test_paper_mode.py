"""`onlooker run --graph dense --mode paper` is the model's own decoding of frames from the whole file."""

import json

import pytest
import torch

from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import DenseConfig, MemoryConfig, SearchConfig
from onlooker.operators.caption.dense_events import parse_events
from onlooker.operators.caption.dense_load import save_video_captioner
from onlooker.operators.caption.git import GitConfig
from onlooker.operators.decode import sample_uniform
from onlooker.operators.tower import load_tower
from onlooker.pipeline.cli.main import main

WORDS, BINS, FRAMES = 12, 8, 10
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{index}" for index in range(4, WORDS))]


def talkative():
    """Random weights; time tokens are likelier than the end, so that events are written."""
    torch.manual_seed(3)
    decoder = GitConfig(
        vocab_size=WORDS + BINS, visual_width=1280, hidden_size=32, num_heads=2, num_layers=1, ffn_size=64,
        max_positions=24, dropout=0.0, attention_dropout=0.0, begin_token=2, end_token=3,
    )  # fmt: skip
    model = DenseCaptioner(
        DenseConfig(
            None,
            decoder,
            MemoryConfig(size=98),
            SearchConfig("greedy", 1),
            num_bins=BINS,
            max_length=24,
            train_points=2,
            test_points=2,
        )  # fmt: skip
    )
    with torch.no_grad():
        model.decoder.output.weight.normal_()
        model.decoder.output.bias[3] = -100.0
    return model.eval()


@pytest.fixture(scope="module")
def events(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    model = talkative()
    save_video_captioner(folder / "model", model, PIECES)
    command = ["run", str(demo[0]), "--graph", "dense", "--mode", "paper", "--runner", "local", "--quiet"]
    command += ["-o", f"caption.model={folder / 'model'}", "-o", f"decode.frames={FRAMES}"]
    command += ["--events", str(folder / "e.jsonl"), "--activitynet", str(folder / "a.json")]
    assert main(command) == 0
    told = [json.loads(line) for line in (folder / "e.jsonl").read_text().splitlines()]
    return model, folder, [event["data"] for event in told if event["type"].startswith("onlooker.caption")]


def test_the_events_are_the_models(demo, events):
    model, _, told = events
    pixels, _ = sample_uniform(demo[0], FRAMES, (224, 224))
    tokens = load_tower("tiny").encode_frames(pixels, 4).tokens
    row = model.decode_tokens(tokens[None]).tokens[0, 1:].tolist()
    written = parse_events(row, model.config.times, round(demo[1].duration * 1e6), strict=False)
    expected = [
        (event.start_us / 1e6, event.end_us / 1e6, " ".join(PIECES[token] for token in event.tokens if token > 3))
        for event in written
        if min(event.start_bin, event.end_bin) >= 0 and any(token > 3 for token in event.tokens)
    ]
    assert expected
    assert [(event["t_start"], event["t_end"], event["text"]) for event in told] == [
        (min(start, end), max(start, end), text) for start, end, text in expected
    ]
    assert all(event["phase"] == "end" for event in told)


def test_the_other_output_has_them_too(demo, events):
    _, folder, told = events
    (found,) = json.loads((folder / "a.json").read_text())["results"].values()
    assert sorted(event["sentence"] for event in found) == sorted(event["text"] for event in told)


def test_a_graph_without_the_mode(demo, capsys):
    assert main(["run", str(demo[0]), "--mode", "paper"]) == 2
    assert "'file' has no paper mode; those that have: dense" in capsys.readouterr().err
