"""Detectors of transformers: their boxes lie where they belong in the picture, whatever was done to it on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.objects.transformers_detector import (
    Found,
    TransformersDetector,
    TransformersDetectorError,
    load_transformers_detector,
)
from onlooker.operators.packets import Detections, Frame
from onlooker.operators.registry import operator_class

from . import small_detectors
from .small_detectors import LABELS, SIDE, library

NAMES = ("dog", "red cup")
WIDE = np.ascontiguousarray(photographs.chelsea()[:150, :300])
TALL = np.ascontiguousarray(photographs.chelsea()[:300, :150])
ALL = {"least": 0.0, "most": 999}


def made(build: Callable[..., Path], **options: bool) -> Callable[[pytest.TempPathFactory], Path]:
    def fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return build(tmp_path_factory.mktemp("detector") / "saved", **options)

    return fixture


rt_detr = pytest.fixture(scope="module", name="rt_detr")(made(small_detectors.rt_detr))
padded = pytest.fixture(scope="module", name="padded")(made(small_detectors.rt_detr, pad=True))
d_fine = pytest.fixture(scope="module", name="d_fine")(made(small_detectors.d_fine))
owl = pytest.fixture(scope="module", name="owl")(made(small_detectors.owlv2))
grid = pytest.fixture(scope="module", name="grid")(made(small_detectors.owlv2, grid=True))
dino = pytest.fixture(scope="module", name="dino")(made(small_detectors.grounding_dino))


def size_of(picture: np.ndarray) -> tuple[int, int]:
    return picture.shape[1], picture.shape[0]


def detect(detector: TransformersDetector, *pictures: np.ndarray, nms: float | None = None) -> list[Found]:
    return detector.detect(pictures, [size_of(picture) for picture in pictures], **ALL, nms=nms)


def visible(boxes: np.ndarray) -> np.ndarray:
    """The parts of boxes within the picture, of those that are in it."""
    clipped = boxes.clip(0, 1)
    return clipped[(clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])]


def assert_same_boxes(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-4) -> None:
    assert len(found) == len(wanted)
    distances = np.abs(found[:, None] - wanted[None]).max(-1)
    assert distances.min(1).max() < tolerance and distances.min(0).max() < tolerance


@pytest.mark.parametrize("kind", ["rt_detr", "d_fine"])
def test_closed_detectors_find_what_transformers_finds(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    found = detect(load_transformers_detector(folder), WIDE)[0]
    model = library.AutoModelForObjectDetection.from_pretrained(folder).eval()
    processor = library.AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        output = model(**processor(images=[WIDE], return_tensors="pt"))
    [own] = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[WIDE.shape[:2]])
    # Transformers may tell one box under several names; here it has the best one.
    boxes = own["boxes"].numpy() / np.array([300, 150, 300, 150])
    kept: list[int] = []
    for i in range(len(boxes)):
        clipped = boxes[i].clip(0, 1)
        is_new = all(np.abs(boxes[i] - boxes[k]).max() > 1e-6 for k in kept)
        if is_new and clipped[2] > clipped[0] and clipped[3] > clipped[1]:
            kept.append(i)
    count = len(kept)
    assert count >= 3
    assert np.allclose(found.boxes[:count], boxes[kept].clip(0, 1), atol=1e-5)
    assert np.allclose(found.scores[:count], own["scores"][kept].numpy(), atol=1e-5)
    assert list(found.names[:count]) == [LABELS[i] for i in own["labels"][kept].tolist()]


def test_padding_of_a_closed_detector_is_no_part_of_the_picture(padded: Path) -> None:
    found = detect(load_transformers_detector(padded), WIDE)[0]
    model = library.AutoModelForObjectDetection.from_pretrained(padded).eval()
    pixels = library.AutoImageProcessor.from_pretrained(padded)(images=[WIDE], return_tensors="pt")
    assert pixels["pixel_values"].shape[-2:] == (SIDE, SIDE)
    assert pixels["pixel_mask"][0].any(1).sum() == SIDE // 2, "the lower half is padding"
    with torch.inference_mode():
        x, y, w, h = model(**pixels).pred_boxes[0].numpy().T
    # All of the canvas is twice as high as the picture.
    wanted = visible(np.stack([x - w / 2, 2 * (y - h / 2), x + w / 2, 2 * (y + h / 2)], -1))
    assert_same_boxes(found.boxes, wanted)


@pytest.mark.parametrize("picture", [WIDE, TALL], ids=["wide", "tall"])
def test_boxes_of_padded_squares_lie_right_in_the_picture(grid: Path, picture: np.ndarray) -> None:
    found = detect(load_transformers_detector(grid, NAMES), picture, nms=1.0)[0]
    cells = SIDE // 16
    centers = np.stack(np.meshgrid(*[np.arange(1, cells + 1) / cells] * 2), -1).reshape(-1, 2)
    square = np.concatenate([centers - 0.5 / cells, centers + 0.5 / cells], 1)
    stretch = np.array([1, 2, 1, 2] if picture is WIDE else [2, 1, 2, 1])  # of the square, half is picture
    wanted = visible(square * stretch)
    assert 4 < len(wanted) < len(square)
    assert_same_boxes(found.boxes, wanted, 0.01)


@pytest.mark.parametrize("kind", ["owl", "padded"])
def test_a_squashed_frame_gives_the_boxes_of_the_picture(kind: str, request: pytest.FixtureRequest) -> None:
    detector = load_transformers_detector(request.getfixturevalue(kind), () if kind == "padded" else NAMES)
    squashed = np.array(Image.fromarray(WIDE).resize((150, 150), Image.Resampling.BILINEAR))
    [whole] = detector.detect([WIDE], [(300, 150)], **ALL, nms=1.0)
    [right] = detector.detect([squashed], [(1920, 960)], **ALL, nms=1.0)
    [twin] = detector.detect([squashed], [(150, 150)], **ALL, nms=1.0)

    def apart(one: Found) -> float:
        """Mean distance from each box of the whole picture to the nearest one."""
        return float(np.abs(whole.boxes[:, None] - one.boxes[None]).max(-1).min(1).mean())

    assert apart(right) < 0.03
    assert apart(twin) > 2 * apart(right)


def test_a_name_of_several_words_scores_by_its_best_word(dino: Path) -> None:
    found = detect(load_transformers_detector(dino, ["Dog", "red  cup", "car"]), WIDE)[0]
    model = library.AutoModelForZeroShotObjectDetection.from_pretrained(dino).eval()
    processor = library.AutoProcessor.from_pretrained(dino)
    inputs = processor(images=[WIDE], text="dog. red cup. car.", return_tensors="pt")
    pieces = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    with torch.inference_mode():
        output = model(**inputs)
    of_tokens = output.logits[0].sigmoid().numpy()
    columns = [[pieces.index(word) for word in name.split()] for name in ("dog", "red cup", "car")]
    scores = np.stack([of_tokens[:, tokens].max(1) for tokens in columns], 1)
    order = np.argsort(-scores.max(1), kind="stable")
    assert found.names == tuple(("Dog", "red  cup", "car")[i] for i in scores.argmax(1)[order])
    assert np.allclose(found.scores, scores.max(1)[order], atol=1e-5)
    x, y, w, h = output.pred_boxes[0].numpy()[order].T
    assert np.allclose(found.boxes, np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).clip(0, 1), atol=1e-5)
    assert np.ptp(found.scores) > 1e-3


@pytest.mark.parametrize("kind", ["rt_detr", pytest.param("d_fine", marks=pytest.mark.slow), "owl", "dino"])
def test_company_in_the_batch_changes_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    names = () if kind in ("rt_detr", "d_fine") else NAMES
    detector = load_transformers_detector(request.getfixturevalue(kind), names, batch=2)
    pictures = [WIDE, TALL, WIDE[:, ::-1].copy(), WIDE[::-1].copy()]
    together = detect(detector, *pictures)
    for picture, found in zip(pictures, together, strict=True):
        [alone] = detect(detector, picture)
        if kind == "dino":  # whose attention adds up rows of a batch in different ways
            assert np.allclose(alone.boxes, found.boxes, atol=1e-5) and np.allclose(
                alone.scores, found.scores, atol=1e-5
            )
        else:
            assert np.array_equal(alone.boxes, found.boxes) and np.array_equal(alone.scores, found.scores)
            assert alone.names == found.names
    assert not np.array_equal(together[0].scores, together[2].scores)


def overlaps(found: Found) -> float:
    """Largest IoU of two boxes of one name."""
    low = np.maximum(found.boxes[:, None, :2], found.boxes[None, :, :2])
    high = np.minimum(found.boxes[:, None, 2:], found.boxes[None, :, 2:])
    common = (high - low).clip(0).prod(-1)
    area = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(-1)
    same = np.array(found.names)[:, None] == np.array(found.names)[None]
    iou = np.where(same, common / (area[:, None] + area - common), 0.0)
    np.fill_diagonal(iou, 0)
    return float(iou.max())


def test_neighbouring_patches_tell_an_object_once(owl: Path) -> None:
    detector = load_transformers_detector(owl, NAMES)
    every, kept, few = (detect(detector, WIDE, nms=nms)[0] for nms in (1.0, None, 0.2))
    assert overlaps(every) > 0.5 >= overlaps(kept) and overlaps(few) <= 0.2
    assert len(every.boxes) > len(kept.boxes) > 0
    assert kept.scores[0] == every.scores[0], "the best one stays"


def test_the_best_come_first_and_no_more_than_asked_for(rt_detr: Path) -> None:
    detector = load_transformers_detector(rt_detr)
    every = detect(detector, WIDE)[0]
    least = float(every.scores[4])
    [some] = detector.detect([WIDE], [size_of(WIDE)], least=least, most=99)
    [three] = detector.detect([WIDE], [size_of(WIDE)], least=least, most=3)
    assert (np.diff(every.scores) <= 0).all() and len(some.scores) == 5 and len(three.scores) == 3
    [none] = detector.detect([WIDE], [size_of(WIDE)], least=1.0, most=3)
    assert none.boxes.shape == (0, 4) and none.names == ()


def test_a_closed_detector_looks_for_some_of_its_classes(rt_detr: Path) -> None:
    every, some = (detect(load_transformers_detector(rt_detr, names), WIDE)[0] for names in ((), ("cup", "car")))
    assert set(some.names) <= {"cup", "car"} and len(some.boxes) == len(every.boxes)


def test_as_a_node_it_serves_several_streams(rt_detr: Path) -> None:
    operator_type = operator_class("hf_detector")
    node = operator_type(operator_type.Config(model=str(rt_detr), least_score=0.0, most=4, batch=2))
    node.open(Context())
    frames = [Frame(f"cam{i % 2}", 0, i / 2, [WIDE, TALL][i % 2], i, size_of([WIDE, TALL][i % 2])) for i in range(4)]
    given = [Inputs({"frames": frames[i::2]}, 9.0, 9.0) for i in range(2)]
    told = node.process_batch([None, None], given)
    one_by_one = [
        node.process(None, Inputs({"frames": [frame]}, 9.0, 9.0))[1].packets["detections"][0] for frame in frames
    ]
    for stream in range(2):
        packets = told[stream][1].packets["detections"]
        assert [(p.stream, p.t) for p in packets] == [(f.stream, f.t) for f in frames[stream::2]]
        for packet, alone in zip(packets, one_by_one[stream::2], strict=True):
            assert isinstance(packet, Detections) and packet.names is not None and len(packet.names) == 4
            assert np.array_equal(packet.boxes, alone.boxes) and packet.names == alone.names
    assert node.process(None, Inputs({}, 9.0, 9.0))[1].packets["detections"] == []


def refusal(folder: Path, *names: str) -> str:
    with pytest.raises(TransformersDetectorError) as caught:
        load_transformers_detector(folder, names)
    message = str(caught.value)
    assert isinstance(caught.value, OnlookerError) and "\n" not in message and len(message) < 700
    return message


def test_wrong_wishes_are_told_in_one_line(rt_detr: Path, owl: Path, dino: Path) -> None:
    assert "did you mean 'person'?" in refusal(rt_detr, "persn")
    assert "give it names" in refusal(owl)
    assert "give it names" in refusal(dino)
    assert "ask for fewer" in refusal(dino, *["red cup"] * 40)


def test_folders_that_are_no_detector_are_told_in_one_line(rt_detr: Path, tmp_path: Path) -> None:
    assert "cannot be loaded" in refusal(tmp_path / "missing")
    (tmp_path / "bert").mkdir()
    library.BertConfig().save_pretrained(tmp_path / "bert")
    assert "known kinds: owlv2" in refusal(tmp_path / "bert")
    for name in ("preprocessor_config.json", "model.safetensors"):
        folder = tmp_path / name.split(".")[0]
        shutil.copytree(rt_detr, folder)
        (folder / name).unlink()
        assert "cannot be loaded" in refusal(folder)
