"""The loss from its definition, and what does not count in it."""

import pytest
import torch
from torch.nn import functional as F

from onlooker.training.dvc_loss import CaptionLossOptions, caption_loss

VOCABULARY, BINS, BEGIN, END = 20, 6, 2, 3
ROWS = torch.tensor(
    [
        [BEGIN, 14, 16, 5, 6, END, 0, 0],  # an event: two times, two words
        [BEGIN, 15, 19, 7, 14, 15, 8, END],
        [BEGIN, END, 0, 0, 0, 0, 0, 0],  # empty
    ]
)


def logits(seed=0):
    return torch.randn(*ROWS.shape, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def by_definition(scores, smoothing):
    """(rows, L - 1) cross entropy with the whole smoothed distribution."""
    target = F.one_hot(ROWS[:, 1:], VOCABULARY).float()
    target = target * (1 - smoothing) + (1 - target) * smoothing / (VOCABULARY - 1)
    return -(target * scores[:, :-1].log_softmax(-1)).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_words_and_times_are_averaged_apart(smoothing):
    scores, options = logits(), CaptionLossOptions(label_smoothing=smoothing, time_weight=0.5)
    losses = by_definition(scores, smoothing)
    wanted = ROWS[:, 1:]
    valid = (wanted > 0) & (wanted[:, :1] != END)
    times = valid & (wanted >= VOCABULARY - BINS)
    words = valid & ~times
    loss = caption_loss(scores, ROWS, BINS, END, options)
    torch.testing.assert_close(loss.caption, losses[words].mean())
    torch.testing.assert_close(loss.time, losses[times].mean())
    torch.testing.assert_close(loss.total, losses[words].mean() + 0.5 * losses[times].mean())
    assert float(loss.caption_tokens) == pytest.approx(int(words.sum()) / 3)
    assert float(loss.time_tokens) == pytest.approx(6 / 3)


def test_one_mean_without_a_time_weight():
    scores = logits()
    losses = by_definition(scores, 0.1)
    wanted = ROWS[:, 1:]
    every = caption_loss(scores, ROWS, BINS, END, CaptionLossOptions(time_weight=None, ignore_empty=False))
    torch.testing.assert_close(every.total, losses[wanted > 0].mean())
    some = caption_loss(scores, ROWS, BINS, END, CaptionLossOptions(time_weight=None))
    torch.testing.assert_close(some.total, losses[:2][wanted[:2] > 0].mean())


def test_padding_and_empty_rows_get_no_gradient():
    scores = logits().requires_grad_()
    caption_loss(scores, ROWS, BINS, END).total.backward()
    assert scores.grad is not None
    reached = scores.grad.abs().sum(-1) > 0
    assert torch.equal(reached[:2, :-1], ROWS[:2, 1:] > 0) and not reached[2].any() and not reached[:, -1].any()


def test_nothing_but_empty_rows_is_a_loss_of_zero():
    scores = logits()[2:].requires_grad_()
    loss = caption_loss(scores, ROWS[2:], BINS, END)
    loss.total.backward()
    assert float(loss.total.detach()) == 0.0 and scores.grad is not None and not scores.grad.any()


def test_points_of_a_video_weigh_differently():
    scores = logits()
    rows = torch.cat([ROWS[:2], ROWS[:2]])
    options = CaptionLossOptions(time_weight=None, point_weights=(1.0, 3.0))
    weighted = caption_loss(torch.cat([scores[:2]] * 2), rows, BINS, END, options).total
    losses = by_definition(scores, 0.1)[:2]
    valid = ROWS[:2, 1:] > 0
    expected = (losses * torch.tensor([[1.0], [3.0]]))[valid].mean()
    torch.testing.assert_close(weighted, expected)
    with pytest.raises(ValueError, match="2 point_weights do not divide 3 rows"):
        caption_loss(scores, ROWS, BINS, END, options)


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"label_smoothing 1\.0"):
        CaptionLossOptions(label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"time_weight -1\.0 must not be negative"):
        CaptionLossOptions(time_weight=-1.0)
