"""The recipe of the embedded object model and its command, at a small size, with the real tower."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onlooker.operators.errors import OnlookerError
from onlooker.operators.objects.densevoc.load import read_object_model
from onlooker.operators.tower import load_tower
from onlooker.pipeline.cli.train_objects import add_steps
from onlooker.pipeline.errors import UsageError
from onlooker.training.checkpoints import CHECKPOINT
from onlooker.training.objects.association_train import AssociationTraining
from onlooker.training.objects.clips import ClipOptions
from onlooker.training.objects.detector_data import ViewOptions
from onlooker.training.objects.detector_train import ObjectsTraining
from onlooker.training.objects.tiny import (
    TinyObjectsRecipe,
    fill_clips,
    fill_views,
    open_clips,
    open_views,
    train_tiny_objects,
)

from .objects_world import write_world

SMALL = TinyObjectsRecipe(
    taught=False,
    views=4,
    clips=1,
    steps=2,
    width=16,
    inner=16,
    bottleneck=8,
    blocks=(1, 1, 1),
    convs=1,
    resolution=3,
    box_width=16,
    association_width=16,
    drawing=ViewOptions(grids=((1, 1, 1.0),)),
    filming=ClipOptions(frames=4),
    training=ObjectsTraining(pictures=2, frames=4),
    following=AssociationTraining(steps=12),
    settings={"found": "out"},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_world(root)
    return root


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    fill_views(data, folder, SMALL)
    fill_clips(data, folder, SMALL)
    return folder


def test_from_photographs_to_a_folder_that_is_read(cache: Path, tmp_path: Path) -> None:
    assert not len(open_views(cache, SMALL).missing()) and not len(open_clips(cache, SMALL).missing())
    told: list[int] = []
    trained = train_tiny_objects(cache, tmp_path, SMALL, lambda step, _: told.append(step))
    assert told == [1, 2]
    held = read_object_model(tmp_path)
    assert held.tower == "tiny" and held.settings == {"found": "out"}
    assert held.model.config == trained.config == SMALL.config()
    for one, other in zip(held.model.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)  # stored in half precision
    frames = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    maps = load_tower("tiny", None, "image").encode_frames(frames, 1, maps=True).maps
    assert held.model.find(held.model.levels(maps), (224, 224)).detected.boxes.shape == (1, 100, 4)


def test_a_finished_run_is_not_done_again_and_another_is_refused(cache: Path, tmp_path: Path) -> None:
    train_tiny_objects(cache, tmp_path, SMALL)
    told: list[int] = []
    train_tiny_objects(cache, tmp_path, SMALL, lambda step, _: told.append(step))
    assert told == []
    with pytest.raises(OnlookerError, match="rate 0.002 instead of 0.001: name another folder by --out"):
        train_tiny_objects(cache, tmp_path, replace(SMALL, rate=1e-3))
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(OnlookerError, match="remove it to begin anew"):
        train_tiny_objects(cache, tmp_path, SMALL)


def test_a_cache_that_is_not_full_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OnlookerError, match="fill it first"):
        train_tiny_objects(tmp_path / "cache", tmp_path / "out", SMALL)


def test_a_loss_that_is_no_number_ends_the_run(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(OnlookerError, match="lower learning rate"):
        train_tiny_objects(cache, tmp_path, replace(SMALL, rate=1e30, steps=20))
    assert not (tmp_path / CHECKPOINT).exists()


def command(*options: str) -> int:
    parser = argparse.ArgumentParser()
    add_steps(parser.add_subparsers())
    args = parser.parse_args(["objects", *options])
    code: int = args.func(args)
    return code


def test_the_command_says_what_is_missing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="flickr8k"):
        command("--data", str(tmp_path))
    (tmp_path / "flickr8k").mkdir()
    with pytest.raises(UsageError, match=r"pseudo_boxes\.json is missing"):
        command("--data", str(tmp_path))
    with pytest.raises(UsageError, match="--views 3 is too few"):
        command("--data", str(data), "--views", "3")
    with pytest.raises(OnlookerError, match=r"onnx"):
        command("--data", str(data), "--teacher", str(tmp_path), "--cache", str(tmp_path / "cache"))


def test_the_command_refuses_a_cache_of_other_sizes(data: Path, tmp_path: Path) -> None:
    open_views(tmp_path, replace(SMALL, views=20))
    with pytest.raises(UsageError, match="use another folder"):
        command("--data", str(data), "--cache", str(tmp_path), "--views", "16", "--clips", "1")


@pytest.mark.slow  # a thousand steps of the association's last stage
def test_the_command_trains(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    sizes = ["--views", "16", "--clips", "1", "--steps", "2"]
    assert command("--data", str(data), "--cache", str(cache), "--out", str(out), *sizes) == 0
    assert f"-o tracks.model={out}" in capsys.readouterr().out
    assert read_object_model(out).model.config == TinyObjectsRecipe().config()
