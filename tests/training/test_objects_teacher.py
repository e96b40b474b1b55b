"""What a teacher says of photographs, and how far it is believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onlooker.operators.errors import OnlookerError
from onlooker.operators.objects.densevoc.roi_heads import select_detections
from onlooker.training.objects.detection_loss import DetectionLossOptions, proposal_loss
from onlooker.training.objects.detector_data import ViewOptions, draw_view, open_boxes, rare_first
from onlooker.training.objects.targets import cell_targets
from onlooker.training.objects.teacher import Teacher, label_photographs, suppress

from .objects_world import write_world

SIDE = 32
CELLS = 16 + 4 + 1


def field(number: int, payload: bytes | int) -> bytes:
    """A field of a protocol buffer: a number, or bytes."""
    if isinstance(payload, int):
        return bytes([number << 3]) + varint(payload)
    return bytes([number << 3 | 2]) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def write_network(folder: Path, raw: np.ndarray) -> None:
    """A network in ONNX that says `raw` of every picture: a constant, plus nothing times the picture's mean."""

    def tensor(name: str, values: np.ndarray) -> bytes:
        dims = b"".join(field(1, int(side)) for side in values.shape)
        return dims + field(2, 1) + field(8, name.encode()) + field(9, values.astype("<f4").tobytes())

    def value(name: str, shape: tuple[int, ...]) -> bytes:
        dims = b"".join(field(1, field(1, side)) for side in shape)
        return field(1, name.encode()) + field(2, field(1, field(1, 1) + field(2, dims)))

    def node(kind: str, inputs: list[str], output: str) -> bytes:
        return (
            b"".join(field(1, name.encode()) for name in inputs) + field(2, output.encode()) + field(4, kind.encode())
        )

    nodes = [
        node("GlobalAveragePool", ["images"], "mean"),
        node("Mul", ["mean", "zeros"], "nothing"),
        node("ReduceSum", ["nothing"], "none"),
        node("Add", ["none", "raw"], "four"),
        node("Squeeze", ["four"], "three"),
        node("Unsqueeze", ["three", "front"], "output"),
    ]
    front = field(1, 1) + field(2, 7) + field(8, b"front") + field(9, np.zeros(1, "<i8").tobytes())
    graph = b"".join(field(1, each) for each in nodes) + field(2, b"g")
    graph += field(5, tensor("raw", raw)) + field(5, tensor("zeros", np.zeros((1, 1, 1, 1)))) + field(5, front)
    graph += field(11, value("images", (1, 3, SIDE, SIDE))) + field(12, value("output", (1, *raw.shape)))
    (folder / "net.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13)))


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Path]:
    """It sees a cat of class 1 around (12, 12), again and a little beside, and weakly a thing of class 0."""
    pytest.importorskip("onnxruntime")
    raw = np.zeros((CELLS, 5 + 2), np.float32)
    raw[5, :5] = 0.5, 0.5, 0, 0, 0.9  # second cell of the second row of the finest level, 8 pixels wide
    raw[5, 6] = 1.0
    raw[6, :5] = -0.4, 0.5, 0, 0, 0.7
    raw[6, 5] = 1.0
    raw[16, :5] = 0.5, 0.5, 0, 0, 0.1
    raw[16, 5] = 0.9
    raw[20, :5] = 0.5, 0.5, 0, 0, 0.01
    folder = tmp_path / "network"
    folder.mkdir()
    write_network(folder, raw)
    yield folder


def test_boxes_are_in_pixels_of_the_picture(network: Path) -> None:
    told = Teacher(network, least=0.05)(Image.new("RGB", (64, 32)))  # the network sees half of it, on grey
    assert told.boxes.tolist() == [[16, 16, 32, 32], [0, 0, 32, 32]]
    assert told.scores.tolist() == pytest.approx([0.9, 0.09]) and told.classes.tolist() == [1, 0]
    assert len(Teacher(network, least=0.05, overlap=0.95)(Image.new("RGB", (64, 32))).boxes) == 3
    assert len(Teacher(network, least=0.2)(Image.new("RGB", (64, 32))).boxes) == 1


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(OnlookerError, match=r"no \.onnx file"):
        Teacher(tmp_path)


def test_the_best_of_boxes_that_overlap_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]], np.float32)
    assert suppress(boxes, np.array([0.2, 0.5, 0.3], np.float32), 0.6).tolist() == [1, 2]
    assert suppress(boxes, np.array([0.2, 0.5, 0.3], np.float32), 0.95).tolist() == [1, 2, 0]
    assert suppress(boxes[:0], np.zeros(0, np.float32), 0.6).tolist() == []


def test_photographs_are_labelled_once_and_drawn_with_beliefs(network: Path, tmp_path: Path) -> None:
    write_world(tmp_path, 3)
    path = tmp_path / "cache" / "teacher.json"
    told: list[int] = []
    label_photographs(tmp_path, "train", path, network, lambda done, _: told.append(done))
    label_photographs(tmp_path, "train", path, network, lambda done, _: told.append(done))
    assert told == [1, 2, 3]
    rows = json.loads(path.read_text())["boxes"]
    assert rows["0.jpg"] == [[1, 0.9, 56, 56, 112, 112], [0, 0.09, 0, 0, 112, 112]]
    bank = open_boxes(tmp_path, "train", path)
    assert bank.beliefs[0].tolist() == pytest.approx([1.0, 0.2])
    whole = ViewOptions(grids=((1, 1, 1.0),), zoom=(1.5, 1.5), squeeze=1.0)
    view = draw_view(bank, np.random.default_rng(0), whole)
    assert view.beliefs is not None and view.beliefs.tolist() == pytest.approx([1.0, 0.2])
    assert (view.boxes[:, 2] - view.boxes[:, 0]).tolist() == [56, 112]
    assert open_boxes(tmp_path, "train").beliefs[0].tolist() == [1.0]


def test_pictures_of_rare_things_are_drawn_more_often() -> None:
    often = rare_first([{"dog"}] * 98 + [{"dog", "cow"}, set()])
    assert often[:98].tolist() == [1.0] * 98 and often[99] == 1
    assert often[98] == pytest.approx(10**0.5)


def best_chance(belief: float) -> float:
    """Which of some probabilities a cell with an object that is believed so far had best say."""
    truth = torch.tensor([[[4.0, 4.0, 20.0, 20.0]]])
    wanted = cell_targets(truth, [(4, 4)], (8,), ((0.0, 50.0),))
    (center,) = (wanted.heatmap[0] == 1).nonzero()[:, 0].tolist()
    options = DetectionLossOptions(focal_gamma=0.0, focal_alpha=0.5)
    losses = {}
    for chance in (0.05, 0.3, 0.5, 0.7, 0.95):
        heatmap = torch.full((1, 16), -4.0)
        heatmap[0, center] = torch.tensor(chance).logit()
        loss = proposal_loss(heatmap, torch.ones(1, 16, 4), wanted, options, torch.tensor([[belief]]))
        losses[chance] = float(loss.positive + loss.negative)
    return min(losses, key=lambda chance: losses[chance])


def test_a_cell_is_told_how_likely_its_object_is() -> None:
    assert [best_chance(belief) for belief in (0.05, 0.3, 0.7, 1.0)] == [0.05, 0.3, 0.7, 0.95]


def test_what_fell_gets_the_places_that_are_left() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9], [0.8], [0.3], [0.005]]])
    plain = select_detections(boxes, scores, 0.01, 0.6, 3)
    assert plain.scores[0].tolist() == pytest.approx([0.9, 0.3, 0.0])
    more = select_detections(boxes, scores, 0.01, 0.6, 3, second_chance=True)
    assert more.scores[0].tolist() == pytest.approx([0.9, 0.3, 0.8 * 0.2**2])
    assert more.boxes[0].tolist() == boxes[0, [0, 2, 1]].tolist()
