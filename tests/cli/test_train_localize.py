"""`onlooker train localize`: from a user's videos to a localizer, and what is said when something does not fit."""

import os
import subprocess
import sys

import numpy as np
import pytest

from onlooker.operators.localize.moment_model import MomentSettings, window_plan
from onlooker.operators.localize.unloc.load import load_localizer
from onlooker.pipeline.cli.main import main
from onlooker.training.moments.features import SETTINGS, write_features

from ..videos import numbered_frame, write_video

SMALL = ["--frames", "16", "--levels", "3", "--batch", "2", "--queries", "2", "--steps", "3"]


def run(*command):
    return main(["train", *map(str, command)])


@pytest.fixture
def refused(capsys):
    """What the command says when it refuses; always one line and exit code 2."""

    def call(*command):
        capsys.readouterr()
        assert run(*command) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and "Traceback" not in said.err
        return said.err

    return call


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a 0.5 3.0##a dog runs\na 4.0 3.0##nothing\nb 1.0 4.0##a man sits down\nc 0 9##who knows\n")
    return path


@pytest.fixture
def features(tmp_path):
    """Features of two videos by the embedded tower's width."""
    folder = tmp_path / "features"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        write_features(folder / f"{name}.npz", rng.standard_normal((12, 384)).astype(np.float32), 2.0, 6.0)
    (folder / SETTINGS).write_text('{"fps": 2.0, "tower": "tiny"}')
    return folder


def test_from_videos_to_a_localizer(tmp_path, notes, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, name in enumerate("ab"):
        write_video(videos / f"{name}.mp4", (numbered_frame(i + 300 * number) for i in range(100)))
    (videos / "broken.mp4").write_bytes(os.urandom(3000))
    assert run("localize-features", videos, "--out", tmp_path / "features") == 3
    said = capsys.readouterr()
    assert "2 written" in said.out and "left out broken.mp4: not a video" in said.err
    (videos / "broken.mp4").unlink()
    assert run("localize-features", videos, "--out", tmp_path / "features") == 0
    assert "0 written" in capsys.readouterr().out
    given = ("--annotations", notes, "--format", "charades", "--features", tmp_path / "features")
    assert run("localize", *given, "--out", tmp_path / "out", *SMALL) == 0
    said = capsys.readouterr()
    assert "1 video without features are left out: c" in said.err
    assert "moments left out: 1, the first in notes.txt, line 2" in said.err
    assert "moment_localizer" in said.out
    localizer = load_localizer(tmp_path / "out")
    assert localizer.tower == "tiny" and localizer.settings["sampling"] == "fixed"
    assert window_plan(localizer.model, MomentSettings.of(localizer.settings)).frames == 16


def test_classes_with_templates_of_the_users(tmp_path, features):
    step = '{"id": "%d", "label": "%s", "segment": [1, 4]}'
    rows = ", ".join(
        f'"{name}": {{"duration": 6.0, "subset": "training", "annotation": [{step % (i, label)}]}}'
        for i, (name, label) in enumerate({"a": "cut", "b": "fry"}.items())
    )
    (tmp_path / "coin.json").write_text(f'{{"database": {{{rows}}}}}')
    (tmp_path / "templates.txt").write_text("someone does {}\n\n{}\n")
    given = ["--annotations", tmp_path / "coin.json", "--format", "coin", "--features", features]
    assert run("localize", *given, "--templates", tmp_path / "templates.txt", "--out", tmp_path / "out", *SMALL) == 0
    localizer = load_localizer(tmp_path / "out")
    assert localizer.model.config.task == "action_segmentation" and localizer.model.config.head.kind == "linear"
    assert localizer.settings["templates"] == ["someone does {}", "{}"]


def test_what_does_not_fit_is_told(tmp_path, notes, features, refused):
    out = ["--out", tmp_path / "out", *SMALL]
    full = ["--annotations", notes, "--format", "charades", "--features", features]
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "plain").mkdir()
    np.save(tmp_path / "plain" / "a.npy", np.ones((4, 2)))
    for message, command in {
        "name the data folder": (),
        "--features needs --annotations": ("--features", features),
        "--annotations need --format": ("--annotations", notes),
        "--annotations need --features": full[:4],
        "line 1: no JSON": [*full[:2], "--format", "tacos", "--features", features],
        "no folder": [*full[:5], tmp_path / "gone"],
        "name it by --tower": [*full[:5], tmp_path / "plain"],
        "unknown tower 'tny': did you mean 'tiny'?": [*full, "--tower", "tny"],
        "must be a multiple of 4": [*full, "--frames", "18"],
        "holds no template": [*full, "--templates", tmp_path / "empty.txt"],
        "must hold {}": [*full, "--templates", notes],
        "one subset": [*full, "--subset", "training"],
        "--task temporal_localization needs --annotations": ("--task", "temporal_localization"),
        "is no feature cache": ("--data", data_folder(tmp_path), "--cache", tmp_path / "none"),
    }.items():
        said = refused("localize", *out, *command)
        assert message in said, (message, said)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    notes.write_text("a 0.5 3.0##a dog runs\nb 1.0 4.0##a man sits down\n")
    assert "cannot write" in refused("localize", *full, *SMALL, "--out", tmp_path / "file")
    assert "no video" in refused("localize-features", tmp_path / "gone")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"no video")
    assert run("localize-features", noise, "--out", tmp_path / "f") == 2


def data_folder(folder):
    (folder / "data" / "flickr8k").mkdir(parents=True, exist_ok=True)
    return folder / "data"


@pytest.mark.parametrize("step", ["localize", "localize-features"])
def test_help_teaches(step, capsys):
    with pytest.raises(SystemExit):
        run(step, "--help")
    assert "usage: onlooker train" in capsys.readouterr().out


def test_the_commands_load_no_torch_and_no_libav_to_say_what_they_can():
    code = (
        "import sys; from onlooker.pipeline.cli.main import _parser; _parser(); "
        "sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
