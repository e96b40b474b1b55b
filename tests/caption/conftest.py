"""A small captioner with real parts: trained on the spot to name which of three directions a memory points to."""

import pytest
import torch

from onlooker.operators.caption.captioner import Captioner, DecodeOptions
from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece

SENTENCES = ("a dog runs on the grass", "two men play chess", "a red boat")
WIDTH, SIZE = 16, 8


def directions():
    """(3, WIDTH) unit vectors, one for each sentence."""
    return torch.nn.functional.normalize(torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5)), dim=-1)


def memory_of(scene, tokens=SIZE, seed=0):
    """(tokens, WIDTH) float32 memory of scene 0, 1 or 2."""
    noise = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(seed))
    return directions()[scene] * 3.0 + 0.3 * noise


@pytest.fixture(scope="session")
def captioner():
    vocabulary = WordPiece([*SPECIAL, *sorted({word for text in SENTENCES for word in text.split()})])
    torch.manual_seed(0)
    decoder = GitDecoder(
        GitConfig(
            vocab_size=len(vocabulary),
            visual_width=WIDTH,
            hidden_size=32,
            num_heads=4,
            num_layers=2,
            ffn_size=64,
            max_positions=16,
            dropout=0.0,
            attention_dropout=0.0,
            begin_token=2,
            end_token=3,
        )  # fmt: skip
    )
    texts = torch.zeros(3, 9, dtype=torch.int64)
    for row, sentence in zip(texts, SENTENCES, strict=True):
        ids = [2, *vocabulary.encode(sentence), 3]
        row[: len(ids)] = torch.tensor(ids)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=5e-3)
    prefix = torch.tensor([[2, 3]] * 3)
    for step in range(120):
        memory = torch.stack([memory_of(scene, seed=100 + step) for scene in range(3)])
        logits = decoder(texts[:, :-1], memory, None, prefix)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Captioner(decoder, vocabulary, SIZE, DecodeOptions(max_length=12, prefix_length=8, batch=2))
