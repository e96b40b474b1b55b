import numpy as np
import pytest

from onlooker.operators.packets import Detections, Embedding, FeatureMaps, Frame, Memory, PacketError, Scores, Tokens


def test_frame_takes_rgb_uint8_only():
    Frame("s", 0, 0.0, np.zeros((4, 6, 3), np.uint8), 0, (6, 4))
    for pixels in (np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 4), np.uint8)):
        with pytest.raises(PacketError, match="pixels"):
            Frame("s", 0, 0.0, pixels, 0, (6, 4))


def test_time_must_be_finite():
    with pytest.raises(PacketError, match="nan"):
        Embedding("s", 0, float("nan"), np.zeros(3, np.float32))


def test_class_token_comes_first_and_is_as_wide_as_the_grid():
    grid, cls = np.zeros((4, 8), np.float32), np.ones(8, np.float32)
    assert Tokens("s", 0, 0.0, grid).all is grid
    assert (Tokens("s", 0, 0.0, grid, cls).all[0] == 1).all()
    with pytest.raises(PacketError, match="wide"):
        Tokens("s", 0, 0.0, grid, np.ones(7, np.float32))


def test_memory_holds_at_most_its_capacity():
    centers, counts = np.zeros((4, 8), np.float32), np.ones(4, np.int32)
    assert len(Memory("s", 0, 1.0, centers, counts, 0.0, 4).centers) == 4
    with pytest.raises(PacketError, match="capacity"):
        Memory("s", 0, 1.0, centers, counts, 0.0, 3)
    with pytest.raises(PacketError, match="counts"):
        Memory("s", 0, 1.0, centers, counts.astype(np.int64), 0.0, 4)
    with pytest.raises(PacketError, match="start"):
        Memory("s", 0, 1.0, centers, counts, 2.0, 4)


def test_scores_have_one_value_per_query():
    with pytest.raises(PacketError, match="one value per query"):
        Scores("s", 0, 0.0, ("a", "b"), np.zeros(3, np.float32))


def test_detections_belong_together():
    boxes, scores = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    assert Detections("s", 0, 0.0, boxes[:0], scores[:0]).features is None
    Detections("s", 0, 0.0, boxes, scores, np.zeros((2, 49, 8), np.float32), ("dog", "ball"))
    with pytest.raises(PacketError, match="boxes"):
        Detections("s", 0, 0.0, boxes[:1], scores)
    with pytest.raises(PacketError, match="one feature per box"):
        Detections("s", 0, 0.0, boxes, scores, np.zeros((1, 49, 8), np.float32))
    with pytest.raises(PacketError, match="one name per box"):
        Detections("s", 0, 0.0, boxes, scores, names=("dog",))
    with pytest.raises(PacketError, match="one vector per box"):
        Detections("s", 0, 0.0, boxes, scores, looks=np.zeros((1, 8), np.float32))


def test_feature_maps_are_maps():
    FeatureMaps("s", 0, 0.0, (np.zeros((4, 4, 8), np.float32),))
    with pytest.raises(PacketError, match="at least one"):
        FeatureMaps("s", 0, 0.0, ())
    with pytest.raises(PacketError, match=r"maps\[1\]"):
        FeatureMaps("s", 0, 0.0, (np.zeros((4, 4, 8), np.float32), np.zeros((4, 8), np.float32)))
