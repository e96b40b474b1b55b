import numpy as np
import pytest
from PIL import Image
from skimage import data

import onlooker
from onlooker.operators.errors import OnlookerError


@pytest.fixture(scope="module")
def tiny():
    return onlooker.load("tiny")


PICTURES = [data.chelsea(), data.coffee(), data.astronaut()]
TEXTS = ["a cat", "a cup of coffee", "a woman smiling"]


def test_pictures_and_texts_share_a_space_of_unit_vectors(tiny):
    images, texts = tiny.embed_images(PICTURES), tiny.embed_texts(TEXTS)
    assert images.dtype == texts.dtype == np.float32
    assert images.shape[1] == texts.shape[1]
    for vectors in (images, texts):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cat_likeness = images @ texts[0]
    assert cat_likeness.argmax() == 0
    assert (-images @ texts[0]).argmax() != 0  # the twin: the opposite direction finds another picture


def test_pil_images_and_arrays_give_the_same(tiny):
    np.testing.assert_array_equal(
        tiny.embed_images([Image.fromarray(p) for p in PICTURES]), tiny.embed_images(PICTURES)
    )


def test_a_picture_gets_a_caption_and_a_score(tiny):
    captions = tiny.caption(PICTURES)
    assert len(captions) == 3
    assert all(isinstance(text, str) and text and np.isfinite(score) for text, score in captions)
    assert len({text for text, _ in captions}) > 1


def test_nothing_in_nothing_out(tiny):
    assert tiny.embed_images([]).shape == (0, tiny.embed_texts(["a"]).shape[1])
    assert tiny.caption([]) == []


def test_a_picture_of_the_wrong_kind_is_named(tiny):
    with pytest.raises(ValueError, match=r"images\[1\] is float64 \(4, 4\)"):
        tiny.embed_images([PICTURES[0], np.zeros((4, 4))])


def test_unknown_model_names_the_nearest():
    with pytest.raises(OnlookerError, match="ViT-B-32"):
        onlooker.load("ViT-B-23")


def test_another_model_has_no_captions(tmp_path):
    from tests.towers import save_tower

    save_tower(tmp_path / "tower", "vit")
    model = onlooker.load(f"local-dir:{tmp_path / 'tower'}")
    assert model.embed_images(PICTURES).shape == (3, 40)
    with pytest.raises(ValueError, match="no caption decoder"):
        model.caption(PICTURES)


def test_watch_yields_events_and_may_be_left_early(tmp_path):
    Image.fromarray(PICTURES[0]).save(tmp_path / "cat.png")
    events = list(onlooker.watch(tmp_path / "cat.png", queries=["a cat"]))
    assert [e.kind for e in events].count("caption") == 1
    assert events[0].data.stream == "cat"
    for event in onlooker.watch(tmp_path / "cat.png"):
        assert event.kind == "stream"
        break


def test_watching_nothing_is_an_error(tmp_path):
    with pytest.raises(OnlookerError, match="none.mp4"):
        list(onlooker.watch(tmp_path / "none.mp4"))
