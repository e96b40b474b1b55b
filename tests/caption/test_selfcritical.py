"""The second stage of training: its reward is sentence BLEU, and what is rewarded becomes likelier."""

import copy

import pytest
import torch

from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.training.bleu import sentence_bleu
from onlooker.training.selfcritical import CriticRecipe, Rewards, critic_loss, sample

TEXTS = [[[4, 5, 6, 7], [4, 5, 8]], [[9, 10, 11]]]
RECIPE = CriticRecipe(samples=4, temperature=1.0, top=10)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return GitDecoder(
        GitConfig(
            vocab_size=14,
            visual_width=6,
            hidden_size=16,
            num_heads=2,
            num_layers=2,
            ffn_size=32,
            max_positions=10,
            begin_token=2,
            end_token=3,
        )  # fmt: skip
    ).eval()


@pytest.mark.parametrize("text", [[4, 5, 6, 7], [4, 5], [5, 4, 4, 9], [12, 13], []])
@pytest.mark.parametrize("photo", [0, 1])
def test_reward_is_sentence_bleu(text, photo):
    def spell(pieces):
        return " ".join(f"w{piece}" for piece in pieces)

    expected = sentence_bleu(spell(text), [spell(t) for t in TEXTS[photo]])
    assert Rewards(TEXTS)(text, photo) == pytest.approx(expected)


def test_samples_are_texts_of_their_item(decoder):
    torch.manual_seed(1)
    texts = sample(decoder, decoder.encode_context(torch.randn(3, 5, 6)), RECIPE, 8)
    assert len(texts) == 12 and all(len(text) <= 7 and 3 not in text for text in texts)


def probability(decoder, context, text):
    hidden = decoder.decode(torch.tensor([[2, *text]]), context)
    logprobs = torch.log_softmax(decoder.output(hidden), -1)[0]
    return sum(logprobs[i, piece].item() for i, piece in enumerate([*text, 3]))


def test_what_is_rewarded_becomes_likelier(decoder):
    memory = torch.randn(1, 5, 6)
    texts, advantages = [[4, 5, 6], [9, 10]], torch.tensor([1.0, -1.0])
    before = [probability(decoder, decoder.encode_context(memory), text) for text in texts]
    moved = copy.deepcopy(decoder)
    optimizer = torch.optim.SGD(moved.parameters(), lr=0.05)
    critic_loss(moved, moved.encode_context(memory), texts, advantages, samples=2).backward()
    optimizer.step()
    after = [probability(moved, moved.encode_context(memory), text) for text in texts]
    assert after[0] > before[0] and after[1] < before[1]


def test_the_loss_is_that_of_each_text_alone(decoder):
    memory = torch.randn(2, 5, 6)
    texts, advantages = [[4, 5, 6], [9, 10], [7], [8, 8, 8, 8]], torch.tensor([1.0, -0.5, 2.0, 0.3])
    packed = critic_loss(decoder, decoder.encode_context(memory), texts, advantages, samples=2)
    alone = sum(
        -float(advantages[i]) * probability(decoder, decoder.encode_context(memory[i // 2 : i // 2 + 1]), text)
        for i, text in enumerate(texts)
    )
    assert packed.item() == pytest.approx(alone / sum(len(text) + 1 for text in texts), rel=1e-4)
