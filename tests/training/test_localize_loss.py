"""Losses of UnLoc: what counts, what does not, and what the options refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onlooker.training.localize_loss import (
    LocalizeLossOptions,
    detection_loss,
    pair_loss,
    retrieval_loss,
    segmentation_loss,
)

B, K, N = 3, 2, 7
OPTIONS = LocalizeLossOptions(box="0.5*l1+iou", label_smoothing=0.1)


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Outputs for all pairs of B videos and B*K texts, and the labels of each video's own texts."""
    g = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(B, B * K, N, generator=g, dtype=torch.float64),
        "displacements": torch.rand(B, B * K, N, 2, generator=g, dtype=torch.float64),
        "labels": torch.randint(0, 2, (B, K, N), generator=g),
        "targets": torch.rand(B, K, N, 2, generator=g, dtype=torch.float64),
        "frame_mask": torch.ones(B, N, dtype=torch.bool),
    }


def test_all_pairs_of_a_batch_are_pairs_of_which_few_match() -> None:
    given = batch()
    labels, targets = torch.zeros(B, B, K, N), torch.zeros(B, B, K, N, 2, dtype=torch.float64)
    for i in range(B):
        labels[i, i], targets[i, i] = given["labels"][i].float(), given["targets"][i]
    pairs = pair_loss(
        given["logits"].flatten(0, 1),
        given["displacements"].flatten(0, 1),
        labels.flatten(0, 2),
        targets.flatten(0, 2),
        torch.ones(B * B * K, N, dtype=torch.float64),
        OPTIONS,
    )
    torch.testing.assert_close(pairs, retrieval_loss(**given, options=OPTIONS))


def test_what_is_masked_has_no_part_in_the_loss() -> None:
    given = batch()
    given["frame_mask"][0, 4:] = False
    masks = {
        "caption_mask": torch.tensor([[1, 0], [1, 1], [1, 1]]),
        "batch_mask": torch.tensor([1.0, 1.0, 0.0]),
    }
    logits, displacements = given["logits"].requires_grad_(), given["displacements"].requires_grad_()
    retrieval_loss(**given, **masks, options=OPTIONS).total.backward()
    assert logits.grad is not None and displacements.grad is not None
    seen = logits.grad.reshape(B, B, K, N).abs() > 0
    assert not seen[2].any() and not seen[:, 2].any(), "the third video only fills up the batch"
    assert not seen[:, 0, 1].any(), "the second text of the first video is not there"
    assert not seen[:, 0, 0, 4:].any(), "frames of the owner of the text are not there"
    assert seen[:2, 0, 0, :4].all() and seen[:2, 1].all(), "all else counts"
    boxes = displacements.grad.reshape(B, B, K, N, 2).abs().sum(-1) > 0
    assert not boxes[0, 1].any() and not boxes[1, 0].any(), "boxes count where text and video belong together"
    assert boxes[1, 1].equal(given["labels"][1] > 0)


def test_own_pairs_alone() -> None:
    given = batch()
    own = LocalizeLossOptions(every_pair=False)
    before = retrieval_loss(**given, options=own)
    given["logits"].view(B, B, K, N)[0, 1] += 5
    torch.testing.assert_close(retrieval_loss(**given, options=own), before)
    assert retrieval_loss(**given).total > before.total


def test_a_perfect_answer_costs_nothing() -> None:
    labels, targets = batch()["labels"], batch()["targets"]
    perfect = (2 * labels - 1) * 40.0
    loss = detection_loss(perfect.mT, targets.transpose(1, 2), labels.mT, targets.transpose(1, 2), torch.ones(B, N))
    assert 0 <= loss.total < 1e-5
    assert 0 <= segmentation_loss(perfect.mT, labels.mT, torch.ones(B, N)).total < 1e-5


def test_nothing_positive_and_nothing_there_is_no_nan() -> None:
    given = batch()
    given["labels"].zero_()
    given["frame_mask"].zero_()
    assert retrieval_loss(**given).total == 0


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"box": "giou"}, "'giou' is none of iou, l1, center_offset_squared"),
        ({"box": "half*iou"}, "'half' is not a weight"),
        ({"classification": "softmax"}, "focal or sigmoid"),
        ({"label_smoothing": 1.0}, "below 1"),
    ],
)
def test_wrong_options_are_refused(told: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LocalizeLossOptions(**told)  # type: ignore[arg-type]
