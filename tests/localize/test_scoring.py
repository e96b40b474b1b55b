"""Scores of pictures by sentences on a small real tower, with and without moments of its pictures."""

import numpy as np
import pytest
import torch

from onlooker.operators.localize.prompts import BACKGROUND
from onlooker.operators.localize.scoring import Scorer, default_thresholds
from onlooker.operators.tower import load_tower
from onlooker.operators.tower.calibration import Calibration
from tests.towers import save_tower

ASKED = {"dog": ["a dog", "there is a dog"], "a man juggles": ["a man juggles"]}


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    save_tower(folder, "vit")
    return load_tower(f"local-dir:{folder}")


@pytest.fixture
def pictures(tower):
    rng = np.random.default_rng(3)
    return rng.normal(size=(200, tower.embed_dim)).astype(np.float32)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cosines(tower, pictures, texts):
    return unit(pictures) @ unit(tower.encode_texts(texts).numpy()).T


@pytest.fixture
def calibrated(tower, pictures, monkeypatch):
    monkeypatch.setattr(tower, "calibration", Calibration.measure(torch.from_numpy(unit(pictures))))
    return tower


def test_sentences_that_ask_for_one_thing_are_averaged(tower):
    dog, juggles = Scorer(tower, 0.0).read(ASKED)
    vectors = unit(tower.encode_texts(ASKED["dog"]).numpy())
    np.testing.assert_allclose(dog.vector, unit(vectors.mean(0)), atol=1e-6)
    assert (dog.name, juggles.name) == ("dog", "a man juggles")
    assert Scorer(tower, 0.0).read({}) == []


def test_without_moments_the_mean_of_ordinary_sentences_is_zero(tower, pictures):
    scorer = Scorer(tower, 0.25)
    asked = scorer.read({"x": ["a man juggles"]})
    expected = cosines(tower, pictures[:5], ["a man juggles"])[:, 0] - cosines(tower, pictures[:5], BACKGROUND).mean(1)
    assert not scorer.calibrated
    np.testing.assert_allclose([scorer(p, asked)[0] for p in pictures[:5]], expected, atol=1e-5)


def test_with_moments_scores_are_deviations_less_a_part_of_the_best_sentences(calibrated, pictures):
    plain, contrasted = Scorer(calibrated, 0.0), Scorer(calibrated, 0.5)
    asked = plain.read(ASKED)
    scores = np.array([plain(p, asked) for p in pictures])
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(scores.std(0), 1, atol=1e-3)
    ordinary = cosines(calibrated, pictures, BACKGROUND)
    ordinary = (ordinary - ordinary.mean(0)) / ordinary.std(0)
    level = np.sort(ordinary, axis=1)[:, -3:].mean(1)
    taken = scores - np.array([contrasted(p, asked) for p in pictures])
    np.testing.assert_allclose(taken, np.repeat(0.5 * level[:, None], 2, axis=1), atol=1e-3)


def test_an_ordinary_sentence_is_told_from_the_best_of_its_kind(calibrated):
    """Crippled twin: without contrast a picture of something ordinary is a find for what is merely near."""
    near, right = BACKGROUND[0], BACKGROUND[1]
    vectors = unit(calibrated.encode_texts([near, right]).numpy())
    picture = vectors[1] - calibrated.calibration.mean.numpy()
    margins = []
    for contrast in (0.0, 0.25):
        scorer = Scorer(calibrated, contrast)
        margins.append(scorer(picture, scorer.read({near: [near]}))[0])
    assert margins[1] < margins[0]


def test_scores_do_not_depend_on_company_or_length(calibrated, pictures):
    scorer = Scorer(calibrated, 0.25)
    dog, juggles = scorer.read(ASKED)
    assert scorer(pictures[0], [dog, juggles]) == [*scorer(pictures[0], [dog]), *scorer(pictures[0], [juggles])]
    np.testing.assert_allclose(scorer(7 * pictures[0], [dog]), scorer(pictures[0], [dog]), atol=1e-4)


def test_towers_without_moments_have_thresholds_of_their_own():
    assert default_thresholds(calibrated=True) != default_thresholds(calibrated=False)


def test_the_ordinary_sentences_are_many_and_different():
    assert len(BACKGROUND) == len(set(BACKGROUND)) > 80
