"""The embedded tower: loads from the package alone, fixed bits, and tells photographs apart."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data

from onlooker.operators.tower import Calibration, Tower, load_tower

TRUTH = {
    "a black and white photograph of a man with a camera on a tripod": data.camera,
    "a cat": data.chelsea,
    "a cup of coffee on a saucer with a spoon": data.coffee,
    "a smiling woman astronaut in an orange space suit": data.astronaut,
    "a rocket standing on the launch pad": data.rocket,
}
ABSENT = [
    "a brown dog runs through the snow",
    "children swimming in a pool",
    "a man riding a bicycle down a mountain trail",
    "two football players fighting for the ball",
    "a surfer on a big wave",
]


@pytest.fixture(scope="module")
def tower() -> Tower:
    return load_tower("tiny")


@pytest.fixture(scope="module")
def pixels(tower: Tower) -> torch.Tensor:
    return tower.preprocess([picture() for picture in TRUTH.values()])


def z_scores(tower: Tower, pixels: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Return calibrated scores (pictures, texts)."""
    assert tower.calibration is not None
    images = F.normalize(tower.encode_frames(pixels).features, dim=-1)
    sentences = F.normalize(tower.encode_texts(texts), dim=-1)
    return tower.calibration.standardise(images @ sentences.T, sentences)


def right_pairs(scores: torch.Tensor) -> int:
    return int((scores.argmax(0) == torch.arange(scores.shape[1])).sum())


def test_shape_and_layout(tower: Tower, pixels: torch.Tensor) -> None:
    output = tower.encode_frames(pixels)
    assert output.tokens.shape == (5, 49, 1280) and output.tokens.dtype == torch.float32
    assert output.class_token is None
    assert output.features.shape == (5, tower.embed_dim)
    assert tower.image_size == (224, 224) and tower.grid == (7, 7) and tower.token_width == 1280


def test_sentences_find_their_photographs(tower: Tower, pixels: torch.Tensor) -> None:
    # The portrait of the astronaut is outside what the tower knows (see its model card).
    assert right_pairs(z_scores(tower, pixels, list(TRUTH))) >= 3


def test_shuffled_photographs_do_not_pass(tower: Tower, pixels: torch.Tensor) -> None:
    assert right_pairs(z_scores(tower, pixels.roll(2, 0), list(TRUTH))) <= 1


def test_true_sentences_stand_above_absent_ones_in_the_same_units(tower: Tower, pixels: torch.Tensor) -> None:
    own = z_scores(tower, pixels, list(TRUTH)).diagonal()
    absent = z_scores(tower, pixels, ABSENT)
    assert (own[:, None] > absent).float().mean() > 0.9
    assert own.median() > 1.5 > absent.median()


def test_a_row_is_bit_equal_in_any_company_and_any_place(tower: Tower, pixels: torch.Tensor) -> None:
    together = tower.encode_frames(pixels)
    alone = [tower.encode_frames(pixels[index : index + 1]) for index in range(len(pixels))]
    assert torch.equal(torch.cat([one.tokens for one in alone]), together.tokens)
    assert torch.equal(torch.cat([one.features for one in alone]), together.features)
    texts = [*TRUTH, *ABSENT]
    rows = torch.cat([tower.encode_texts([text]) for text in texts])
    assert torch.equal(tower.encode_texts(texts), rows)


def test_maps_of_the_stages_come_with_the_same_pass(tower: Tower, pixels: torch.Tensor) -> None:
    plain, read = tower.encode_frames(pixels[:3], batch=2), tower.encode_frames(pixels[:3], batch=2, maps=True)
    shapes = [(3, 24, 56, 56), (3, 40, 28, 28), (3, 112, 14, 14), (3, 320, 7, 7)]
    assert [tuple(level.shape) for level in read.maps] == shapes
    assert torch.equal(read.tokens, plain.tokens)
    assert plain.maps == ()
    assert [len(level) for level in tower.encode_frames(pixels[:0], maps=True).maps] == [0] * 4


def test_no_frames_and_no_sentences_give_empty_rows(tower: Tower) -> None:
    output = tower.encode_frames(np.zeros((0, 224, 224, 3), np.uint8))
    assert output.tokens.shape == (0, 49, 1280) and output.features.shape == (0, tower.embed_dim)
    assert tower.encode_texts([]).shape == (0, tower.embed_dim)


def test_frames_of_another_size_are_squashed_as_pillow_does(tower: Tower) -> None:
    picture = data.coffee()
    wanted = tower.encode_frames(tower.preprocess([Image.fromarray(picture)])).features
    squashed = tower.encode_frames(picture[None]).features
    assert F.cosine_similarity(wanted, squashed).item() > 0.999
    cropped = tower.encode_frames(np.ascontiguousarray(picture[None, :224, :224])).features
    assert F.cosine_similarity(wanted, cropped).item() < 0.95


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 224, 224, 3), np.float32), "float32"),
        (np.zeros((224, 224, 3), np.uint8), r"\(224, 224, 3\)"),
        (np.zeros((1, 3, 224, 224), np.uint8), r"\(1, 3, 224, 224\)"),
    ],
)
def test_wrong_frames_are_named(tower: Tower, frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tower.encode_frames(frames)


def test_wrong_texts_are_named(tower: Tower) -> None:
    with pytest.raises(TypeError, match="single string 'a cat'"):
        tower.encode_texts("a cat")
    with pytest.raises(TypeError, match="got 3 of type int"):
        tower.encode_texts(["a cat", 3])  # type: ignore[list-item]


def test_words_outside_the_vocabulary_and_long_sentences_are_encoded(tower: Tower) -> None:
    texts = ["", "猫", "Ein Café à la carte", "word " * 500]
    features = tower.encode_texts(texts)
    assert torch.isfinite(features).all()
    assert torch.equal(tower.encode_texts(["A CAT"]), tower.encode_texts(["a cat"]))


def test_one_process_holds_one_tower() -> None:
    assert load_tower("tiny") is load_tower("tiny")
    assert load_tower("tiny", parts="text") is load_tower("tiny")


def test_loading_touches_no_network() -> None:
    script = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from onlooker.operators.tower import load_tower\n"
        "print(load_tower('tiny').encode_texts(['a cat']).shape[0])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "1"


def test_calibration_centres_scores_of_any_sentence() -> None:
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(4000, 16, generator=generator) + torch.arange(16) / 4, dim=-1)
    texts = F.normalize(torch.randn(5, 16, generator=generator), dim=-1)
    scores = Calibration.measure(images).standardise(images @ texts.T, texts)
    torch.testing.assert_close(scores.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(scores.std(0), torch.ones(5), atol=1e-2, rtol=0)
    assert (images @ texts.T).mean(0).abs().max() > 0.1
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Calibration(torch.zeros(3), torch.zeros(4, 4))
