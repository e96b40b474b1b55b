"""Localizers learn from annotated videos and find what they are asked, untrained ones do not; runs can be resumed."""

import re

import numpy as np
import pytest
import torch

from onlooker.operators.errors import OnlookerError
from onlooker.operators.localize.moment_model import MomentModel, MomentSettings, window_plan
from onlooker.operators.localize.offline import find_moments
from onlooker.operators.localize.unloc.load import load_localizer
from onlooker.training.checkpoints import CHECKPOINT
from onlooker.training.localize_labels import BASE_RANGES, LabelOptions
from onlooker.training.localize_loss import LocalizeLoss
from onlooker.training.localize_trainer import LocalizeRecipe, LocalizeTrainer, default_ranges
from onlooker.training.moments.annotations import Annotations, Moment, MomentVideo
from onlooker.training.moments.features import FeatureFolder, write_features
from onlooker.training.moments.train import MomentRecipe, new_localizer, train_moments
from onlooker.training.moments.windows import MomentWindows, WindowRecipe

FPS, WIDTH, SECONDS = 1.0, 24, 40.0
TEXTS = [f"thing {number}" for number in range(12)]


def vector(text):
    """The look of the thing that a sentence is about: a direction of its own."""
    number = re.findall(r"\d+", text)[0]
    return np.random.default_rng([5, int(number)]).standard_normal(WIDTH).astype(np.float32)


def encode(texts):
    return np.stack([vector(text) for text in texts])


class Reader:
    """The text side of the tower that sees such looks."""

    name, embed_dim = "looks", WIDTH

    def encode_texts(self, texts):
        return torch.from_numpy(encode(texts))


def make(folder, count, seed):
    """Videos in which two things happen, each in its own look; everything else is noise."""
    rng = np.random.default_rng(seed)
    videos = []
    for number in range(count):
        rows = rng.standard_normal((int(SECONDS * FPS), WIDTH)).astype(np.float32)
        moments = []
        for text, low in zip(rng.choice(TEXTS, 2, replace=False), (2, 22), strict=True):
            start = low + float(rng.uniform(0, 8))
            end = start + float(rng.uniform(3, 9))
            rows[int(np.ceil(start * FPS)) : int(np.ceil(end * FPS))] += 2 * vector(str(text))
            moments.append(Moment(str(text), start, end, TEXTS.index(str(text))))
        write_features(folder / f"s{seed}v{number}.npz", rows, FPS, SECONDS)
        videos.append(MomentVideo(f"s{seed}v{number}", f"s{seed}v{number}", SECONDS, tuple(moments)))
    return videos


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Annotations of training and other videos, and the folder with features of both."""
    folder = tmp_path_factory.mktemp("features")
    train, test = make(folder, 30, 1), make(folder, 8, 2)
    return Annotations("captions", tuple(train)), test, FeatureFolder(folder)


def recipe(steps=20, windows=None, **changes):
    look = {"sampling": "fixed", "frames": 16, "fps": FPS, "queries": 4, "own": 2} | (windows or {})
    values = {"levels": 3, "steps": steps, "batch": 4, "rate": 2e-3, "windows": WindowRecipe(**look)} | changes
    return MomentRecipe(**values)


def train(data, out, given, **options):
    losses = []
    windows = MomentWindows(data[0], data[2], encode, given.windows)
    train_moments(
        windows, out, given, tower="looks", report=lambda _, loss: losses.append(float(loss.total)), **options
    )
    return losses


def recall(data, localizer):
    """Share of the moments of other videos that the first segment found overlaps by half."""
    settings = MomentSettings.of(localizer.settings)
    model, plan = MomentModel(localizer.model, Reader(), settings, 4), window_plan(localizer.model, settings)
    hits = []
    for video in data[1]:
        rows = data[2].read(video.video).rows
        found = find_moments(model, plan, rows, np.arange(len(rows)) / FPS, [m.text for m in video.moments])
        for moment, segments in zip(video.moments, found, strict=True):
            start, end = (segments[0].start, segments[0].end) if segments else (0.0, 0.0)
            shared = max(0.0, min(end, moment.t_end) - max(start, moment.t_start))
            hits.append(shared >= 0.5 * (max(end, moment.t_end) - min(start, moment.t_start)))
    return float(np.mean(hits))


def test_a_trained_localizer_finds_moments_of_other_videos(data, tmp_path):
    losses = train(data, tmp_path / "out", recipe(50))
    assert len(losses) == 50 and np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    localizer = load_localizer(tmp_path / "out")
    assert localizer.tower == "looks" and localizer.settings["fps"] == FPS
    assert recall(data, localizer) >= 0.7
    train(data, tmp_path / "twin", recipe(1, rate=1e-9))
    assert recall(data, load_localizer(tmp_path / "twin")) <= 0.4, "the untrained twin fails"


def test_an_interrupted_run_ends_as_if_it_had_not_been(data, tmp_path):
    given = recipe(9)
    train(data, tmp_path / "whole", given, save_every=4)

    class Stop(KeyboardInterrupt):
        pass

    def stop(step, _):
        if step == 6:
            raise Stop

    windows = MomentWindows(data[0], data[2], encode, given.windows)
    with pytest.raises(Stop):
        train_moments(windows, tmp_path / "parts", given, tower="looks", report=stop, save_every=4)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [CHECKPOINT]
    assert len(train(data, tmp_path / "parts", given, save_every=4)) == 5, "it went on after step 4"
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert train(data, tmp_path / "parts", given) == [], "nothing is left to do"


def test_another_run_is_not_gone_on_with(data, tmp_path):
    train(data, tmp_path, recipe(2))
    with pytest.raises(OnlookerError, match="recipe.seed 0 instead of 1") as caught:
        train(data, tmp_path, recipe(2, seed=1))
    assert "--out" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(OnlookerError, match="recipe.windows.frames 16 instead of 8"):
        train(data, tmp_path, recipe(2, windows={"frames": 8}))
    (tmp_path / CHECKPOINT).write_bytes(b"noise")
    with pytest.raises(OnlookerError, match="no checkpoint that can be read"):
        train(data, tmp_path, recipe(2))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"windows": {"sampling": "linspace"}, "task": "highlight_detection"}, id="linspace"),
        pytest.param({"task": "action_segmentation", "windows": {"exclusive": True}, "rate": 1e-3}, id="segmentation"),
        pytest.param({"encoder": "fpn"}, id="fpn", marks=pytest.mark.slow),
        pytest.param({"levels": 5}, id="five levels", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_model_learns(data, tmp_path, changes):
    losses = train(data, tmp_path, recipe(40, **changes))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    localizer = load_localizer(tmp_path)
    assert localizer.model.config.head.kind == (
        "linear" if "task" in changes and "exclusive" in str(changes) else "localization"
    )
    assert ("fps" in localizer.settings) == (localizer.settings["sampling"] == "fixed")


def test_features_of_any_size_are_brought_to_one(data, tmp_path):
    """Towers differ by orders of magnitude in how large their features are."""
    for scale in (1e-3, 1e3):
        for path in data[2].folder.glob("s1*.npz"):
            read = data[2].read(path.stem)
            write_features(tmp_path / path.name, read.rows * scale + 5 * scale, FPS, SECONDS)
        given = recipe()
        windows = MomentWindows(data[0], FeatureFolder(tmp_path), encode, given.windows)
        model = new_localizer(windows, given)
        probe = torch.from_numpy(windows(np.random.default_rng(3)).features)
        tokens = model.project_video(probe[probe.any(1)])[:, : model.config.fusion.width]
        assert 0.5 < float(tokens.detach().std()) < 2


def test_wrong_settings_are_told_before_training(data, tmp_path):
    for message, given in {
        "multiple of 4": recipe(windows={"frames": 18}),
        "loss is no number": recipe(rate=1e30, steps=30),
    }.items():
        with pytest.raises(OnlookerError, match=message):
            train(data, tmp_path / str(given.rate), given)
    with pytest.raises(OnlookerError, match="device 'cuda:99'"):
        train(data, tmp_path, recipe(), device="cuda:99")


def test_ranges_are_those_of_the_paper():
    assert default_ranges(4) == BASE_RANGES
    assert default_ranges(1) == ((0.0, float("inf")),)


def test_the_trainer_refuses_what_it_cannot_train(data):
    given = recipe()
    model = new_localizer(MomentWindows(data[0], data[2], encode, given.windows), given)
    with pytest.raises(ValueError, match="4 levels of stride 2, but the model has 3"):
        LocalizeTrainer(model, LocalizeRecipe(labels=LabelOptions()))
    before = [weights.clone() for weights in model.parameters()]
    for weights in model.fusion.parameters():
        weights.requires_grad_(False)
    trainer = LocalizeTrainer(model, LocalizeRecipe(steps=2))
    loss = trainer.step([MomentWindows(data[0], data[2], encode, given.windows)(np.random.default_rng(0))])
    assert isinstance(loss, LocalizeLoss) and not loss.total.requires_grad
    kept = {id(weights) for weights in model.fusion.parameters()}
    for old, new in zip(before, model.parameters(), strict=True):
        if id(new) in kept or not new.requires_grad:
            assert torch.equal(old, new)
