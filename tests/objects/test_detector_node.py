"""The detector on a stream, with small random models: only sameness and geometry count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.objects.densevoc.config import DetectorConfig
from onlooker.operators.objects.densevoc.load import save_object_model
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig
from onlooker.operators.objects.detector_node import ObjectDetector, ObjectDetectorConfig
from onlooker.operators.packets import Detections, FeatureMaps

from .tracking import CHANNELS, FPS, RESOLUTION, random_model, save

MAPS = ((6, 10, 6), (3, 5, 10), (2, 3, 12))
"""(h, w, C) of each: frames of 48 x 80 pixels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Any:
    return save(tmp_path_factory.mktemp("objects"), random_model(1))


def detector(folder: Any, **config: Any) -> ObjectDetector:
    operator = ObjectDetector(ObjectDetectorConfig(model=str(folder), **{"least_score": 0.0, **config}))
    operator.open(Context())
    return operator


def frames(count: int, seed: int = 0, maps: Any = MAPS) -> list[FeatureMaps]:
    random = np.random.default_rng(seed)
    return [
        FeatureMaps("s", 0, i / FPS, tuple(random.normal(0, 1, shape).astype(np.float32) for shape in maps))
        for i in range(count)
    ]


def detect(operator: ObjectDetector, packets: Any, chunk: int = 100, proposals: Any = ()) -> list[Detections]:
    found = []
    for start in range(0, len(packets), chunk):
        part = packets[start : start + chunk]
        others = [packet for packet in proposals if part[0].t <= packet.t <= part[-1].t]
        _, outputs = operator.process(None, Inputs({"features": part, "proposals": others}, part[-1].t, part[-1].t))
        found += outputs.packets["detections"]
    return found


def as_bytes(packets: list[Detections]) -> list[Any]:
    return [
        (p.t, p.names, p.boxes.tobytes(), p.scores.tobytes(), p.features.tobytes(), p.looks.tobytes()) for p in packets
    ]


@torch.no_grad()
def test_gives_what_the_model_finds(folder: Any) -> None:
    """One packet a frame; boxes as parts of the picture, features as the association was trained on."""
    packets = frames(3)
    found = detect(detector(folder, batch=1), packets)
    model = random_model(1)
    assert [packet.t for packet in found] == [packet.t for packet in packets]
    for packet, given in zip(found, packets, strict=True):
        maps = [torch.from_numpy(level).permute(2, 0, 1)[None] for level in given.maps]
        whole = model.find(model.levels(maps), (48, 80))
        kept = whole.detected.scores[0] > 0
        boxes = whole.detected.boxes[0][kept] / torch.tensor([80.0, 48.0, 80.0, 48.0])
        np.testing.assert_allclose(packet.boxes, boxes, atol=1e-5)
        np.testing.assert_allclose(packet.scores, whole.detected.scores[0][kept], atol=1e-5)
        features = model.detector.pool(model.levels(maps), whole.detected.boxes, RESOLUTION)[0][kept]
        np.testing.assert_allclose(packet.features, features, atol=1e-4)
        assert len(packet.scores) > 2 and (np.diff(packet.scores) <= 0).all() and packet.names is None


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_and_company_do_not_matter(folder: Any, chunk: int) -> None:
    operator, packets = detector(folder), frames(7)
    whole = as_bytes(detect(operator, packets))
    assert as_bytes(detect(operator, packets, chunk)) == whole
    streams = [packets, frames(2, 5), frames(3, 6, ((4, 4, 6), (2, 2, 10), (1, 1, 12)))]
    inputs = [Inputs({"features": stream}, 9.0, 9.0) for stream in streams]
    results = operator.process_batch([None] * 3, [*inputs, Inputs({}, 9.0, 9.0)][:3])
    assert as_bytes(results[0][1].packets["detections"]) == whole
    assert [len(outputs.packets["detections"]) for _, outputs in results] == [7, 2, 3]


def test_only_the_best_are_given(folder: Any) -> None:
    everything = detect(detector(folder), frames(4))
    least = float(np.median(np.concatenate([packet.scores for packet in everything])))
    for before, after in zip(everything, detect(detector(folder, least_score=least, most=2), frames(4)), strict=True):
        count = min(2, int((before.scores >= least).sum()))
        np.testing.assert_array_equal(after.scores, before.scores[:count])
        np.testing.assert_array_equal(after.features, before.features[:count])
    assert [len(packet.scores) for packet in detect(detector(folder, least_score=1.0), frames(2))] == [0, 0]


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_the_model_knows_its_threshold(tmp_path: Any, background: float) -> None:
    model = random_model(1)
    model.config = replace(model.config, tracking=replace(model.config.tracking, background=background))
    found = detect(detector(save(tmp_path, model), least_score=None), frames(2))
    assert [len(packet.scores) > 0 for packet in found] == [background == 0.0] * 2


def test_boxes_of_another_detector_get_features(folder: Any) -> None:
    """Those that our own detector would give the same boxes; boxes, scores and names stay."""
    operator, packets = detector(folder, most=5), frames(5)
    own = detect(operator, packets)
    others = []
    for packet in own:
        names = tuple(f"thing {i}" for i in range(len(packet.scores)))
        turned = slice(None, None, -1)  # the worst first, as other detectors may have it
        others.append(Detections("s", 0, packet.t, packet.boxes[turned], packet.scores[turned], None, names[turned]))
    others[2] = Detections("s", 0, others[2].t, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    for chunk in (1, 3, 5):
        found = detect(operator, packets, chunk, others)
        assert [len(packet.scores) for packet in found] == [len(packet.scores) for packet in others]
        for i, (packet, expected) in enumerate(zip(found, own, strict=True)):
            if i != 2:
                np.testing.assert_array_equal(packet.boxes, expected.boxes)
                np.testing.assert_array_equal(packet.scores, expected.scores)
                np.testing.assert_allclose(packet.features, expected.features, atol=1e-4)
                assert packet.names == tuple(f"thing {k}" for k in range(len(packet.scores)))
    assert found[2].features.shape == (0, RESOLUTION**2, CHANNELS)


def test_what_does_not_fit_is_told(folder: Any, tmp_path: Any) -> None:
    with pytest.raises(OnlookerError, match="no object model 'tinny'"):
        detector("tinny")
    with pytest.raises(OnlookerError, match="reads the features of tower 'tiny' with"):
        detect(detector(folder), frames(1, maps=((6, 10, 7), (3, 5, 10), (2, 3, 12))))
    with pytest.raises(OnlookerError, match="reads the features of tower 'tiny' with"):
        detect(detector(folder), frames(1, maps=MAPS[:1]))
    config = DenseVocConfig(DetectorConfig(backbone=None, channels=8, strides=(8, 16)), None, None, None)
    save_object_model(tmp_path, DenseVoc(config))
    with pytest.raises(OnlookerError, match="sees pictures"):
        detector(tmp_path)
