"""UnLoc's losses and their gradients against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onlooker.training.localize_loss import (
    LocalizeLoss,
    LocalizeLossOptions,
    center_offset_squared,
    classification_loss,
    detection_loss,
    normalized_l1,
    retrieval_loss,
    segmentation_loss,
    temporal_iou,
)

from .goldens import Case, require
from .unloc_tables import find_tables, parametrize_tables, settings

RELATIVE = 1e-5

DEFAULTS: dict[str, Any] = {
    "classification_loss_type": "sigmoid",
    "classification_loss_alpha": 1.0,
    "focal_loss_alpha": 0.5,
    "focal_loss_gamma": 2.0,
    "box_loss_type": "l1+iou",
    "label_smoothing": None,
    "all_gather_loss": True,
}
"""Those of the reference's code, where its configurations are silent."""


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_tables(metafunc, "losses", tal="tal", mr="mr", frames="as", prim="prim")


def options_of(given: dict[str, Any]) -> LocalizeLossOptions:
    """The reference's keys as ours."""
    told = DEFAULTS | given
    return LocalizeLossOptions(
        told["classification_loss_type"],
        told["classification_loss_alpha"],
        told["focal_loss_alpha"],
        told["focal_loss_gamma"],
        told["box_loss_type"],
        told["label_smoothing"] or 0.0,
        told["all_gather_loss"],
    )


def loss_of_detections(logits: Tensor, given: dict[str, Tensor], config: dict[str, Any]) -> LocalizeLoss:
    """Logits (B, N, 3C) class by class, or (B, N, C + 2)."""
    if config.get("output_per_class_displacements", True):
        outputs = logits.unflatten(-1, (-1, 3))
        scores, displacements = outputs[..., 0], outputs[..., 1:]
    else:
        scores, displacements = logits[..., :-2], logits[..., -2:]
    weights = given["batch_mask"][:, None] * given["input_mask"]
    return detection_loss(scores, displacements, given["label"], given["displacements"], weights, options_of(config))


def loss_of_moments(logits: Tensor, given: dict[str, Tensor], config: dict[str, Any]) -> LocalizeLoss:
    """Logits (B, B*K, N, 3)."""
    return retrieval_loss(
        logits[..., 0],
        logits[..., 1:],
        given["label"][..., 0],
        given["displacements"],
        given["input_mask"],
        given["caption_mask"],
        given["batch_mask"],
        options_of(config),
    )


def loss_of_frames(logits: Tensor, given: dict[str, Tensor], config: dict[str, Any]) -> LocalizeLoss:
    weights = given["batch_mask"][:, None] * given["input_mask"]
    return segmentation_loss(logits, given["label"], weights, options_of(config))


def check(case: Case, config: dict[str, Any], loss_of: Any) -> LocalizeLoss:
    given = {name: case.tensor(f"in/{name}") for name in case.below("in/") if not name.endswith("json")}
    logits = given["logits"].requires_grad_()
    loss: LocalizeLoss = loss_of(logits, given, config)
    expected = case.arrays["out/loss"].item()
    assert loss.total.item() == pytest.approx(expected, rel=RELATIVE)
    (gradient,) = torch.autograd.grad(loss.total, logits)
    wanted = case.tensor("out/grad_logits")
    torch.testing.assert_close(gradient, wanted, rtol=RELATIVE, atol=RELATIVE * float(wanted.abs().max()))
    return loss


def test_detections(tal: Case | None) -> None:
    case = require(tal, "losses of temporal localization")
    check(case, settings(case, "config_json"), loss_of_detections)


def test_moments(mr: Case | None) -> None:
    case = require(mr, "losses of moment retrieval")
    check(case, settings(case, "config_json"), loss_of_moments)


def test_frames(frames: Case | None) -> None:
    """These cases tell their smoothing by name only: `ls_0.1`."""
    case = require(frames, "losses of action segmentation")
    smoothing = case.name.rpartition("ls_")[2]
    named = {} if smoothing in ("None", case.name) else {"label_smoothing": float(smoothing)}
    check(case, named | settings(case, "config_json"), loss_of_frames)


def test_parts(prim: Case | None) -> None:
    case = require(prim, "parts of losses")
    predicted, true, logits = (case.tensor(f"in/{name}") for name in ("pred", "gt", "logits"))
    for part in (temporal_iou, normalized_l1, center_offset_squared):
        assert_near(part(predicted, true), case.arrays[f"out/{part.__name__}"])
    for target in (0, 1):
        for name, options in {
            "focal": LocalizeLossOptions(alpha=0.25, gamma=2.0),
            "sigmoid_ce": LocalizeLossOptions(classification="sigmoid"),
        }.items():
            expected = case.arrays[f"out/{name}_t{target}"]
            label, weight = torch.tensor([target]), torch.ones(1, dtype=torch.float64)
            found = [classification_loss(one.reshape(1, 1).double(), label, weight, options) for one in logits]
            assert_near(torch.stack(found).reshape(expected.shape), expected)


def assert_near(found: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=RELATIVE, atol=1e-7)


def test_another_loss_is_noticed() -> None:
    """The crippled twin: half the weight of the classification loss."""
    cases = find_tables("losses", "tal", "in/logits")
    assert cases, "no golden case of temporal localization"
    for case in cases:
        config = DEFAULTS | settings(case, "config_json")
        config["classification_loss_alpha"] /= 2
        with pytest.raises(AssertionError):
            check(case, config, loss_of_detections)
