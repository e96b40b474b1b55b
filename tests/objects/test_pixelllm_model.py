"""PixelLLM: folders, the parts of its configuration, what it refuses, and that a small one learns to find things."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onlooker.operators.caption.git import GitConfig
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece
from onlooker.operators.objects.pixelllm.config import (
    AdapterConfig,
    EvaConfig,
    MaskConfig,
    PixelLlmConfig,
    PointConfig,
    SamConfig,
)
from onlooker.operators.objects.pixelllm.convert import reference_shapes
from onlooker.operators.objects.pixelllm.finder import CANVAS, Finder, load_finder, tower_features
from onlooker.operators.objects.pixelllm.load import (
    PixelLlmError,
    load_pixelllm,
    pixelllm_names,
    read_pixelllm,
    save_pixelllm,
)
from onlooker.operators.objects.pixelllm.model import PixelLlm
from onlooker.operators.objects.pixelllm.reference import PixelLlmConfigError, pixelllm_config
from onlooker.training.objects.pixelllm_tiny import FinderData, TinyOptions, find_all, tiny_config, train_finder
from onlooker.training.objects.pixelllm_words import BoxedPhotographs, expressions, ious, named_words

WORDS = (*SPECIAL, "a", "the", "and", "dog", "cat", "car", "on", "left", "right", "##s")
SMALL = PixelLlmConfig(
    eva=EvaConfig((32, 32), 32, 8, 24, 1, 2, 32),
    sam=SamConfig((48, 48), 64, 16, 16, 2, 2, 2.0, 2, (0,), 16),
    prompt_width=16,
    adapter=AdapterConfig(depth=1, width=32, mlp_size=16, num_outputs=3, output_width=20),
    decoder=GitConfig(len(WORDS), 20, 24, 4, 2, 32, 16, tie_word_embeddings=False, begin_token=2, end_token=3),
    points=PointConfig(hidden_size=16),
    masks=MaskConfig(mlp_size=16, head_size=16, adapter_depth=1),
)


def small_model(config: PixelLlmConfig = SMALL) -> PixelLlm:
    torch.manual_seed(0)
    model = PixelLlm(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


@torch.no_grad()
def test_a_box_a_text_and_a_mask() -> None:
    model = small_model()
    images = torch.rand(2, 48, 48, 3) * 255
    features = model.encode_images(images)
    assert features.grid.shape == (2, 4, 4, 24 + 16) and features.canvas == (48, 48)
    boxes = torch.tensor([[[0.0, 0.0, 48.0, 48.0], [4.0, 8.0, 20.0, 30.0], [0.0, 0.0, 0.0, 0.0]]]).expand(2, -1, -1)
    seen = model.see(features, boxes)
    captions = model.caption(seen, 8, beam=3, per_beam=1)
    assert captions.tokens.shape == (2, 3, 8) and captions.scores.shape == (2, 3)
    tokens = model.caption(seen, 8).tokens
    found, words = model.refer(features, seen, tokens)
    masks, quality = model.masks(features, found, seen, words)
    assert masks.shape == (2, 3, 12, 12) and quality.shape == (2, 3)
    # Each location is its own: alone it gets the same answer.
    alone = model.see(features, boxes[:, 1:2])
    torch.testing.assert_close(alone, seen[:, 1:2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(seen[:, 0], seen[:, 1], atol=1e-3)
    # No box at all is asked about by points.
    points = model.see(features, points=torch.zeros(2, 1, 4, 2))
    torch.testing.assert_close(points, seen[:, 2:], atol=1e-5, rtol=1e-5)


def test_dense_answers_are_as_many_as_cells() -> None:
    model = small_model(replace(SMALL, adapter=replace(SMALL.adapter, dense=True)))
    features = model.encode_images(torch.zeros(1, 48, 48, 3))
    assert model.see(features, torch.ones(1, 2, 4)).shape == (1, 2, 16, 20)


def test_what_a_model_was_not_made_for_is_refused() -> None:
    model = small_model(PixelLlmConfig(None, None, 12, 16, SMALL.adapter, SMALL.decoder, points=None, masks=None))
    with pytest.raises(ValueError, match="no trunk"):
        model.encode_images(torch.zeros(1, 8, 8, 3))
    features = tower_features(torch.zeros(1, 4, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="boxes or points"):
        model.see(features)
    with pytest.raises(ValueError, match="no locations"):
        model.word_points(torch.zeros(1, 1, 2, 24), features)
    with pytest.raises(ValueError, match="no masks"):
        model.masks(features, torch.zeros(1, 1, 4), torch.zeros(1, 1, 3, 20), torch.zeros(1, 1, 2, 24))
    with pytest.raises(ValueError, match="feature_width"):
        replace(model.config, feature_width=0)
    with pytest.raises(ValueError, match="same"):
        replace(SMALL, adapter=replace(SMALL.adapter, output_width=21))
    with pytest.raises(ValueError, match="sam trunk"):
        replace(SMALL, prompt_width=32)


def test_folders_are_read_as_written(tmp_path: Path) -> None:
    for tied in (False, True):
        model = small_model(replace(SMALL, decoder=replace(SMALL.decoder, tie_word_embeddings=tied)))
        save_pixelllm(tmp_path / str(tied), model, WORDS, tower="tiny", settings={"a": 1})
        found = load_pixelllm(tmp_path / str(tied))
        assert found.model.config == model.config and found.pieces == WORDS
        assert (found.tower, found.settings) == ("tiny", {"a": 1})
        own, read = model.state_dict(), found.model.state_dict()
        assert own.keys() == read.keys() and all(own[name].equal(read[name]) for name in own)
        assert load_pixelllm(tmp_path / str(tied)) is found
    with pytest.raises(ValueError, match="15 words"):
        save_pixelllm(tmp_path / "more", model, [*WORDS, "more"])


def test_folders_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    save_pixelllm(tmp_path, small_model(), WORDS)
    values = json.loads((tmp_path / "config.json").read_text())
    cases = {
        "it lacks 'tower'": {key: value for key, value in values.items() if key != "tower"},
        "says architecture 'git'": values | {"architecture": "git"},
        "unexpected keyword": values | {"model": values["model"] | {"colour": 1}},
        "size mismatch": values | {"model": values["model"] | {"adapter": values["model"]["adapter"] | {"width": 16}}},
    }
    for message, wrong in cases.items():
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(PixelLlmError, match=message) as raised:
            read_pixelllm(tmp_path)
        assert "\n" not in str(raised.value)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(PixelLlmError, match=r"it lacks vocab\.txt"):
        read_pixelllm(tmp_path)
    with pytest.raises(PixelLlmError, match="no PixelLLM 'nothing'"):
        load_pixelllm("nothing")


def test_released_sizes_are_read_off_a_tree() -> None:
    with torch.device("meta"):
        config = replace(PixelLlmConfig(), masks=MaskConfig())
        shapes = reference_shapes(PixelLlm(config))
    tree = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    found = pixelllm_config(tree)
    assert found.config == config
    assert found.assumed["point_output_ignore"] == "^end-1"
    assert tree["git_backbone/pos_embed"].shape == (1, 257, 1024)
    assert tree["sam_backbone/blocks.7/attn/rel_pos_h"].shape == (127, 80)
    assert tree["mask_decoder/output_upscaling/3/kernel"].shape == (2, 2, 32, 64)
    nested = {"text_decoder_args": {"out_feat_fuse_method": "sum:-1,-2"}, "unknown": 1}
    assert pixelllm_config(tree, nested).config.fuse_layers == (-1, -2)
    for changes, message in (
        ({"begin_tokn_id": 1}, "did you mean 'begin_token_id'"),
        ({"text_decoder_args.out_feat_fuse_method": "mean:1"}, "neither concat"),
        ({"prompt_fuse_fn": "thin"}, "neither 'sparse' nor 'dense'"),
        ({"point_predictor_args.num_classes": 2}, "no points with 2 classes"),
        ({"text_decoder_args.num_heads": 7}, "multiple of num_heads"),
    ):
        with pytest.raises(PixelLlmConfigError, match=message):
            pixelllm_config(tree, None, changes)


DOG = (0.0, 0.5, 0.25, 1.0)
CAR = (0.5, 0.0, 1.0, 0.5)


def test_words_that_name_one_box() -> None:
    boxes = [("dog", 0.9, DOG), ("car", 0.8, CAR)]
    assert named_words("a dog and a car and a cat", boxes) == [(1, DOG), (4, CAR)]
    assert named_words("a dog", [*boxes, ("dog", 0.3, CAR)]) == []  # which of them?
    assert named_words("a dog", [("dog", 0.4, DOG)]) == []  # is it one?
    texts = {one.text: one.box for one in expressions(["a small brown dog jumps over the car"], boxes)}
    assert texts == {
        "the dog": DOG,
        "the small brown dog": DOG,
        "a small brown dog jumps over": DOG,
    }
    two = [("dog", 0.9, CAR), ("dog", 0.9, DOG)]
    sides = {one.text: one.box for one in expressions(["two dogs play"], two)}
    assert sides == {"the dog on the left": DOG, "the dog on the right": CAR}
    assert expressions(["a dog plays"], two) == []


def _world(count: int, rng: np.random.Generator) -> FinderData:
    """Photographs of 4 x 4 cells with a dog, a cat or a car, each in cells of its own, told by its own channels."""
    kinds = ("dog", "cat", "car")
    tokens = rng.normal(0, 0.1, (count, 16, 8)).astype(np.float16)
    captions, boxes = [], []
    for photograph in range(count):
        shown = rng.permutation(3)[:2]
        places = rng.permutation(4)[:2]
        rows = []
        for kind, place in zip(shown, places, strict=True):
            top, left = 2 * int(place // 2), 2 * int(place % 2)
            cells = [(top + down) * 4 + left + right for down in (0, 1) for right in (0, 1)]
            tokens[photograph, cells, kind] += 2
            rows.append((kinds[kind], 0.9, (left / 4, top / 4, left / 4 + 0.5, top / 4 + 0.5)))
        boxes.append(tuple(rows))
        captions.append((f"a {kinds[shown[0]]} and the {kinds[shown[1]]}",))
    fine = np.zeros((count, 1, 8, 8), np.float16)
    names = tuple(str(photograph) for photograph in range(count))
    return FinderData(tokens, fine, BoxedPhotographs(names, tuple(captions), tuple(boxes)), WordPiece(WORDS))


def test_a_small_one_learns_to_find_things() -> None:
    rng = np.random.default_rng(0)
    train, test = _world(400, rng), _world(60, rng)
    torch.manual_seed(0)
    model = train_finder(
        train,
        PixelLlm(tiny_config(len(WORDS), 8, 1, 2, width=32)),
        TinyOptions(steps=100, photographs=10, texts=2, rate=3e-3, warmup=20, decay=0.97, noise=0.0),
    )
    found, truth, texts = find_all(test, model)
    assert len(found) == len(truth) == len(texts) >= 60
    share = float((ious(found, truth) > 0.5).mean())
    assert share > 0.8, share
    # The twin that looks at other photographs finds them by chance: one place of four.
    test.tokens = np.roll(test.tokens, 1, 0)
    blind = float((ious(find_all(test, model)[0], truth) > 0.5).mean())
    assert blind < 0.5, blind
    # Words of a caption, each where it is.
    test = _world(20, rng)
    finder, right = Finder(model, test.words), 0
    for row in range(20):
        features = tower_features(*test.features([row]))
        words = finder.ground(features, test.photographs.captions[row][0])
        assert [word.text for word in words] == test.photographs.captions[row][0].split()
        named = {word.text: word.box for word in words}
        for kind, _, box in test.photographs.boxes[row]:
            right += ious(np.array([named[kind]], np.float32), np.array([box], np.float32))[0] > 0.5
    assert right > 28, right


def test_every_embedded_finder_opens() -> None:
    for name in pixelllm_names():
        finder, tower = load_finder(name)
        assert tower and finder.model.config.eva is None and CANVAS == (224, 224)
