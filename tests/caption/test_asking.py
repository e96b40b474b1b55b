"""Questions about a part of the picture."""

import numpy as np
import pytest
import skimage.data
from PIL import Image
from torch.nn import functional as F

from onlooker.operators.caption.asking import Question, view_of
from onlooker.operators.caption.node import GitCaptioner, GitCaptionerConfig
from onlooker.operators.contract import Context, Control, Inputs
from onlooker.operators.packets import Memory, Tokens
from onlooker.operators.tower import load_tower
from onlooker.training.flickr import data_root, read_split


def tokens(rows: int, columns: int) -> Tokens:
    """Each cell's token is its row and column."""
    grid = np.stack(np.meshgrid(range(rows), range(columns), indexing="ij"), -1).reshape(-1, 2)
    return Tokens("cam", 7, 3.0, grid.astype(np.float32), shape=(rows, columns))


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ((0.0, 0.0, 1.0, 1.0), [(r, c) for r in range(2) for c in range(4)]),
        ((0.0, 0.0, 0.5, 1.0), [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ((0.5, 0.5, 1.0, 1.0), [(1, 2), (1, 3)]),
        ((0.8, 0.1, 0.85, 0.15), [(0, 3)]),  # between the centres
        ((0.99, 0.99, 1.0, 1.0), [(1, 3)]),
    ],
)
def test_a_box_is_the_cells_whose_centres_lie_in_it(box, cells):
    view = view_of(tokens(2, 4), box)
    assert [tuple(token) for token in view.centers] == cells
    assert (view.t, view.t_start, view.epoch, view.capacity, view.counts.tolist()) == (
        3.0, 3.0, 7, len(cells), [1] * len(cells),
    )  # fmt: skip


def test_a_question_says_where_to_look_or_does_not():
    assert Question.of({"ask": "a"}) == Question.of({"ask": "a", "box": None}) == Question("a", None)
    assert Question.of({"ask": "a", "box": [0, 0, 0.5, 1]}).box == (0.0, 0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def tower():
    return load_tower("tiny")


@pytest.fixture(scope="module")
def captioner():
    node = GitCaptioner(GitCaptionerConfig())
    node.open(Context())
    return node


def ask(tower, captioner, pictures):
    """Answers about the left half, the right half and all of two pictures side by side."""
    both = Image.new("RGB", (448, 224))
    for number, picture in enumerate(pictures):
        both.paste(picture.convert("RGB").resize((224, 224)), (224 * number, 0))
    grid = tower.encode_frames(tower.preprocess([both])).tokens[0].numpy()
    memory = Memory("cam", 0, 0.0, grid, np.ones(len(grid), np.int32), 0.0, len(grid))
    boxes = {"left": [0, 0, 0.5, 1], "right": [0.5, 0, 1, 1], "all": None}
    control = tuple(Control("ask", {"ask": name, "box": box}, lasting=False) for name, box in boxes.items())
    state, _ = captioner.process(captioner.initial_state("cam"), Inputs({}, 0.0, 0.0, control))
    given = {"memory": [memory], "tokens": [Tokens("cam", 0, 0.0, grid, shape=tower.grid)]}
    _, outputs = captioner.process(state, Inputs(given, 0.0, 0.0))
    (packet,) = outputs.packets["events"]
    assert {event.data.ask: event.data.box and list(event.data.box) for event in packet.events} == boxes
    return {event.data.ask: event.data.text for event in packet.events}


def test_half_a_picture_is_told_of_and_not_the_other_half(tower, captioner):
    pictures = [Image.fromarray(getattr(skimage.data, name)()) for name in ("camera", "chelsea")]
    answers = ask(tower, captioner, pictures)
    assert [name for name, text in answers.items() if "camera" in text] == ["left"], answers


@pytest.mark.data
def test_answers_are_nearer_to_their_own_half(tower, captioner):
    photographs = read_split(data_root(), "dev")
    near = {"left": [], "right": [], "all": []}
    for pair in np.random.default_rng(0).choice(len(photographs), (60, 2), replace=False):
        answers = ask(tower, captioner, [Image.open(photographs.images / photographs.files[i]) for i in pair])
        left, right = (tower.encode_texts(photographs.captions[i]).mean(0) for i in pair)
        for half, text in answers.items():
            own, other = (right, left) if half == "right" else (left, right)
            said = tower.encode_texts([text])
            near[half].append(bool(F.cosine_similarity(said, own[None]) > F.cosine_similarity(said, other[None])))
    assert np.mean(near["left"] + near["right"]) > 0.75
    assert 0.3 < np.mean(near["all"]) < 0.7, "the crippled twin: an answer about the whole picture"


def test_without_tokens_there_is_no_answer_about_a_part(captioner):
    memory = Memory("cam", 0, 0.0, np.zeros((49, 1280), np.float32), np.ones(49, np.int32), 0.0, 49)
    control = (Control("ask", {"ask": "a", "box": [0, 0, 0.5, 1]}, lasting=False),)
    state, _ = captioner.process(captioner.initial_state("cam"), Inputs({}, 0.0, 0.0, control))
    state, outputs = captioner.process(state, Inputs({"memory": [memory]}, 0.0, 0.0))
    assert not outputs.packets and not state.asked
