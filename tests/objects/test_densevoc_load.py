"""Models of objects as folders: what is written is read, and what cannot be is told in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from onlooker.operators.objects.densevoc.load import (
    ObjectModelError,
    load_object_model,
    object_model_names,
    read_object_model,
    save_object_model,
)
from onlooker.operators.objects.densevoc.model import DenseVocConfig

from .densevoc_parts import ON_TRUNK, SMALL, WORDS, random_model


@pytest.mark.parametrize("config", [SMALL, ON_TRUNK], ids=["whole", "on a trunk"])
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
