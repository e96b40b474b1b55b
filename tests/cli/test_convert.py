"""`onlooker convert`: trees of small models become folders; what cannot be converted is told in one line."""

import json

import numpy as np
import pytest
import torch

from onlooker.operators.caption.convert import to_reference
from onlooker.operators.caption.dense_load import load_video_captioner
from onlooker.operators.caption.vid2seq.convert import state_from_reference
from onlooker.operators.caption.vid2seq.load import build, load_pieces, load_vid2seq
from onlooker.pipeline.cli.main import main

from ..caption.dense_parts import LENGTH, PIECES, dense, paragraph, videos
from ..caption.flax_files import nested, packed
from ..caption.test_vid2seq import TINY
from ..caption.test_vid2seq_weights import tree_of
from ..videos import write_video

HEADS = ["--config", "backbone_args.num_heads=2", "--config", "text_decoder_args.num_heads=2"]
SMALL = [*HEADS, "--config", f"max_caption_length={LENGTH}"]


@pytest.fixture
def words(tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(PIECES) + "\n")
    return ["--vocab", str(tmp_path / "words.txt")]


@pytest.fixture
def tree(tmp_path):
    """Writes a tree to a file; its path."""

    def write(arrays, name="tree.npz"):
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


def run(*command):
    return main(["convert", *map(str, command)])


@pytest.fixture
def refused(capsys):
    """What the command says when it refuses; always one line and exit code 2."""

    def call(*command):
        capsys.readouterr()
        assert run(*command) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err
        return said.err

    return call


def test_sizes_are_read_off_the_arrays(tmp_path, tree, words, capsys):
    model = dense(1)
    assert run(tree(to_reference(model)), tmp_path / "out", *words, *SMALL) == 0
    loaded, pieces = load_video_captioner(tmp_path / "out")
    assert pieces == PIECES
    told, own = loaded.config, model.config
    assert told.encoder.vision == type(own.encoder.vision)(**{**vars(own.encoder.vision), "drop_path": 0.1})
    assert (told.num_bins, told.max_length, told.memory) == (own.num_bins, own.max_length, own.memory)
    assert told.encoder.num_frames == own.encoder.num_frames and told.context == own.context
    assert loaded.decode(videos()).tokens.tolist() == model.decode(videos()).tokens.tolist()
    assert loaded.decode(videos()).tokens.tolist() != dense(2).decode(videos()).tokens.tolist()
    said = capsys.readouterr().out
    assert "git-dense" in said and "num_dense_outputs=8" in said and f"tower.model=trunk:{tmp_path}/out" in said


def test_what_it_says_comes_next_runs(tmp_path, tree, words, capsys):
    video = tmp_path / "video.mp4"
    write_video(video, 250)
    assert run(tree(to_reference(dense(1))), tmp_path / "out", *words, *SMALL) == 0
    commands = [line.split() for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("onlooker")]
    assert len(commands) == 2
    for number, (_, *arguments) in enumerate(commands):
        given = [str(video) if word == "VIDEO" else word for word in arguments]
        events = tmp_path / f"{number}.jsonl"
        assert main([*given, "--runner", "local", "--quiet", "--events", str(events)]) == 0
        assert events.read_text().count("onlooker.stream.v1") == 2


def test_checkpoints_of_flax_become_the_same_folder(tmp_path, tree, words):
    arrays = to_reference(paragraph(1))
    state = {"params": nested(arrays), "opt_state": {"0": {"mu": nested(arrays)}}, "global_step": np.int32(5)}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint_5").write_bytes(packed(state))
    assert run(tmp_path / "run", tmp_path / "one", *words, *SMALL) == 0
    assert run(tree(arrays), tmp_path / "two", *words, *SMALL) == 0
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    loaded = load_video_captioner(tmp_path / "one").model
    own = torch.cat([p.flatten() for p in paragraph(1).parameters()])
    assert torch.equal(torch.cat([p.flatten() for p in loaded.parameters()]), own)


def test_vid2seq(tmp_path, tree, capsys):
    arrays = tree_of(TINY)
    options = ["--config", "max_caption_length=14", "--dtype", "bfloat16", "--force"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "vocab.txt").write_text("words\nof\nanother\nmodel\n")
    assert run(tree(arrays), tmp_path / "out", *options) == 0
    loaded = load_vid2seq(tmp_path / "out")
    assert loaded.config.num_bins == TINY.num_frames and loaded.config.max_length == 14
    direct = build(loaded.config, state_from_reference(arrays, loaded.config))
    for own, read in zip(direct.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(own.bfloat16().float(), read)
    assert load_pieces(tmp_path / "out") == []
    assert "features: (videos, 8, 16) float32" in capsys.readouterr().out


def test_a_model_that_is_there_is_only_replaced_by_force(tmp_path, tree, words, refused):
    out = tmp_path / "out"
    assert run(tree(to_reference(dense(1))), out, *words, *SMALL) == 0
    before = (out / "model.safetensors").read_bytes()
    other = tree(to_reference(dense(2)), "other.npz")
    assert "--force" in refused(other, out, *words, *SMALL)
    assert "bfloat16" not in refused(other, out, *words, *HEADS, "--config", "num_frames=-1", "--force")
    assert (out / "model.safetensors").read_bytes() == before, "what fails leaves the old model whole"
    assert run(other, out, *words, *SMALL, "--force") == 0
    assert (out / "model.safetensors").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.npz", "out", "tree.npz", "words.txt"]


def test_arrays_that_do_not_fit_are_named(tmp_path, tree, words, refused):
    def changed(change):
        arrays = to_reference(dense(1))
        change(arrays)
        said = refused(tree(arrays), tmp_path / "out", *words, *SMALL)
        assert not (tmp_path / "out").exists()
        return said

    bias = "textual/output/bias"
    renamed = changed(lambda arrays: arrays.update({"textual/outputs/bias": arrays.pop(bias)}))
    assert f"lacks {bias}" in renamed and f"unknown textual/outputs/bias (nearest known: {bias})" in renamed
    assert f"{bias} is (3,) instead of (28,)" in changed(lambda arrays: arrays.update({bias: np.zeros(3, np.float32)}))
    assert "lacks image_encoder/patch_embed.proj/kernel" in changed(
        lambda arrays: arrays.pop("image_encoder/patch_embed.proj/kernel")
    )
    assert f"{bias} holds numbers that are not finite" in changed(lambda arrays: arrays[bias].__setitem__(2, np.nan))


def test_numbers_too_large_for_half_precision_are_told(tmp_path, tree, words, refused):
    arrays = to_reference(dense(1))
    arrays["textual/output/bias"][0] = 1e5
    path = tree(arrays)
    assert "too much for float16" in refused(path, tmp_path / "out", *words, *SMALL, "--dtype", "float16")
    assert run(path, tmp_path / "out", *words, *SMALL, "--dtype", "bfloat16") == 0


def test_what_is_asked_for_wrongly_is_told(tmp_path, tree, words, refused):
    path, out = tree(to_reference(dense(1))), tmp_path / "out"
    (tmp_path / "long.txt").write_text("word\n" * 99)
    (tmp_path / "split.txt").write_text("\n".join([*PIECES[:-1], "a\x85b"]) + "\n")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "nothing.npz").write_bytes(b"")
    for message, command in {
        "no file or folder": (tmp_path / "missing.npz", out, *words),
        "the file is empty": (tmp_path / "nothing.npz", out, *words),
        "this is no parameter tree of a streaming captioner (it has a/kernel)": (
            tree({"a/kernel": np.zeros(2)}, "a.npz"), out, *words,
        ),
        "needs its words": (path, out),
        "99 words, the model only 28 tokens": (path, out, "--vocab", tmp_path / "long.txt"),
        "holds a line break": (path, out, "--vocab", tmp_path / "split.txt", *SMALL),
        "--vocab": (path, out, "--vocab", tmp_path / "none.txt"),
        "backbone_args.num_heads": (path, out, *words),
        "unknown option 'num_framse'": (path, out, *words, *SMALL, "--config", "num_framse=8"),
        "cannot be made": (path, out, *words, *SMALL, "--config", "num_dense_outputs=many"),
        "is not a JSON object": (path, out, *words, "--config", tmp_path / "list.json"),
        "is a file: name a folder": (path, path, *words, *SMALL),
    }.items():  # fmt: skip
        assert message in refused(*command), message
        assert not out.exists()


def test_a_file_of_the_reference_is_taken_at_its_word(tmp_path, tree, words, refused):
    """What it leaves out has the reference's defaults, not those of the released configurations."""
    path = tree(to_reference(dense(1)))
    values = {
        "vocab_size": 28, "num_bins": 8, "num_frames": 8, "num_dense_outputs": 4, "max_caption_length": 12,
        "backbone_args": {"num_heads": 2}, "text_decoder_args": {"num_heads": 2},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert (
        run(path, tmp_path / "out", *words, "--config", tmp_path / "config.json", "--config", "decode_beam_size=3") == 0
    )
    config = load_video_captioner(tmp_path / "out").model.config
    assert (config.search.method, config.search.beam) == ("greedy", 3)
    assert config.memory.method == "none" and config.train_points == config.test_points == 4
    (tmp_path / "config.json").write_text(json.dumps(values | {"vocab_size": 30}))
    said = refused(path, tmp_path / "other", *words, "--config", tmp_path / "config.json")
    assert "textual/output/bias is (28,) instead of (30,)" in said


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    said = capsys.readouterr().out
    assert "examples:" in said and "--vocab" in said and "pickles are refused" in said
