"""Models of objects as folders: what is written is read, and what cannot be is told in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from onlooker.operators.objects.densevoc.load import (
    ObjectModelError,
    load_object_model,
    object_model_names,
    read_object_model,
    save_object_model,
)
from onlooker.operators.objects.densevoc.model import DenseVocConfig

from .densevoc_parts import CAPTIONER, ON_TRUNK, SMALL, WORDS, random_model

TIED = replace(SMALL, captioner=replace(CAPTIONER, tie_word_embeddings=True))


@pytest.mark.parametrize("config", [SMALL, TIED, ON_TRUNK], ids=["whole", "tied words", "on a trunk"])
def test_what_is_written_is_read(config: DenseVocConfig, tmp_path: Path) -> None:
    model = random_model(config)
    words = WORDS if config.captioner else ()
    save_object_model(tmp_path / "m", model, tower="tiny", settings={"score": 0.3}, pieces=words)
    found = load_object_model(tmp_path / "m")
    assert found.model.config == config and found.tower == "tiny"
    assert found.settings == {"score": 0.3} and found.pieces == words
    own, read = model.state_dict(), found.model.state_dict()
    assert own.keys() == read.keys() and all(own[name].equal(read[name]) for name in own)
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())
    assert load_object_model(str(tmp_path / "m")) is found


def test_tied_words_are_kept_once_and_tell_the_same(tmp_path: Path) -> None:
    model = random_model(TIED)
    save_object_model(tmp_path, model, pieces=WORDS)
    read = read_object_model(tmp_path).model
    assert read.captioner is not None and read.captioner.output.weight is read.captioner.words.weight
    images = torch.rand(3, 64, 64, 3) * 255
    own, again = (one.describe(one(images)) for one in (model, read))
    assert own.tokens.equal(again.tokens) and own.logprobs.equal(again.logprobs)

    state = load_file(tmp_path / "model.safetensors")
    kernel = {"captioner.output.weight": state["captioner.words.weight"].clone()}
    save_file(state | kernel, tmp_path / "model.safetensors")  # told twice, as others may do
    assert read_object_model(tmp_path).model.captioner is not None
    save_file(state | {name: weights + 1 for name, weights in kernel.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ObjectModelError, match=r"words\.weight and captioner\.output\.weight are one parameter"):
        read_object_model(tmp_path)
    del state["captioner.words.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ObjectModelError, match="Missing key"):
        read_object_model(tmp_path)


def test_half_precision_is_for_storage_alone(tmp_path: Path) -> None:
    model = random_model()
    save_object_model(tmp_path / "m", model, dtype=torch.float16)
    read = read_object_model(tmp_path / "m").model
    for own, half in zip(model.parameters(), read.parameters(), strict=True):
        assert half.dtype == torch.float32 and half.equal(own.half().float())
    size = (tmp_path / "m" / "model.safetensors").stat().st_size
    assert size < 2.2 * sum(p.numel() for p in model.parameters()) + 20_000


def test_words_of_a_model_before_do_not_stay(tmp_path: Path) -> None:
    save_object_model(tmp_path / "m", random_model(), pieces=WORDS)
    save_object_model(tmp_path / "m", random_model(ON_TRUNK))
    assert read_object_model(tmp_path / "m").pieces == ()
    with pytest.raises(ValueError, match="13 words, but the model has rows for 12"):
        save_object_model(tmp_path / "m", random_model(), pieces=[*WORDS, "more"])


def test_embedded_models_have_names() -> None:
    for name in object_model_names():
        assert load_object_model(name).model.config.detector.channels > 0


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    def told(place: str | Path) -> str:
        with pytest.raises(ObjectModelError) as caught:
            load_object_model(place)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no object model 'nowhere'" in told("nowhere")
    for name in object_model_names():
        assert f"did you mean {name!r}" in told(name + "x")
    (tmp_path / "m").mkdir()
    assert "lacks config.json, model.safetensors" in told(tmp_path / "m")
    save_object_model(tmp_path / "m", random_model())
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    for change, message in (
        ({"architecture": "unloc"}, "architecture 'unloc'"),
        ({"model": {**config["model"], "colour": 1}}, "colour"),
        ({"model": {**config["model"], "captioner": None}}, "captioner"),
    ):
        (tmp_path / "m" / "config.json").write_text(json.dumps(config | change))
        assert message in told(tmp_path / "m")
    del config["tower"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert "lacks 'tower'" in told(tmp_path / "m")
