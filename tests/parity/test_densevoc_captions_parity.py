"""Dense VOC's text decoder against the reference: logits, loss, greedy captions and likelihoods of sentences.

What a case holds decides what is compared; an array that no test here knows is a failure, not a skip.
"""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
import torch

from onlooker.operators.caption.git import GitDecoder
from onlooker.operators.objects.densevoc.captions import write_captions
from onlooker.operators.objects.densevoc.convert import to_reference
from onlooker.operators.objects.densevoc.grounding import Likelihood, sentence_likelihood
from onlooker.training.objects.caption_loss import object_caption_loss

from .dense_voc_model import DECODER, build_decoder, parametrize_files
from .dense_voc_recipe import recipe_tree
from .goldens import Case, assert_close, require

GREEDY = re.compile(r"greedy(?P<masked>_masked)?(?P<bias>_eosbias)?_tokens")
GROUND = re.compile(r"ground_(sum\w+)")
KNOWN = re.compile(
    r"text_tokens|object_features|feature_valid_mask|num_(heads|layers)|bos|eos|vocab_size|p:.+|recipe_seed|param_\w+"
    r"|logits(_masked|_head|_argmax|_logsumexp)?|hidden_masked|matched|text_loss(_tokens_per_matched)?"
    r"|greedy(_masked)?(_eosbias)?_(tokens|logprob)|greedy_eosbias_delta|ground_(sum(log)?prob|features|scores|sentences)"
)


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_files(metafunc, "d_caption_decoder_tiny", "d_caption_decoder_full_recipe")


def build(case: Case) -> GitDecoder:
    tree = recipe_tree(case.arrays) if case.has("recipe_seed") else case.below("p:")
    begin, end = (int(case.arrays.get(name, default)) for name, default in (("bos", 101), ("eos", 102)))
    return build_decoder(tree, int(case.arrays.get("num_heads", 12)), begin, end)


def plain_mask(case: Case) -> torch.Tensor | None:
    """What the arrays without "masked" in their names were computed with: the mask, unless there are such with it."""
    return None if case.has("logits_masked") else case.tensor("feature_valid_mask").bool()


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Networks: 1e-4 of the largest value."""
    assert_close(actual, expected, 1e-4 * float(expected.abs().max()))


def test_every_array_is_compared(case: Case | None) -> None:
    unknown = [name for name in require(case, "text decoders").arrays if not KNOWN.fullmatch(name)]
    assert not unknown, f"{case} holds {unknown}: no check knows this kind"


def test_trees_go_both_ways(case: Case | None) -> None:
    case = require(case, "text decoders")
    tree = recipe_tree(case.arrays) if case.has("recipe_seed") else case.below("p:")
    again = to_reference(build(case), "captioner")
    assert {name.removeprefix(DECODER) for name in tree} == {name.removeprefix(DECODER) for name in again}
    for name, array in tree.items():
        assert (again[DECODER + name.removeprefix(DECODER)] == array).all(), name


@torch.no_grad()
def test_logits(case: Case | None) -> None:
    case = require(case, "text decoders")
    decoder, tokens, features = build(case), case.tensor("text_tokens"), case.tensor("object_features")
    logits, compared = decoder(tokens, features, plain_mask(case)), 0
    for name, own in (
        ("logits", logits),
        ("logits_head", logits[..., : case.arrays.get("logits_head", logits).shape[-1]]),
        ("logits_logsumexp", logits.logsumexp(-1)),
    ):
        if case.has(name):
            close(own, case.tensor(name))
            compared += 1
    if case.has("logits_argmax"):
        assert logits.argmax(-1).equal(case.tensor("logits_argmax"))
    mask = case.tensor("feature_valid_mask").bool()
    if case.has("logits_masked"):
        close(decoder(tokens, features, mask), case.tensor("logits_masked"))
    if case.has("hidden_masked"):
        close(decoder.decode(tokens, decoder.encode_context(features, mask)), case.tensor("hidden_masked"))
    assert compared


@torch.no_grad()
def test_captions(case: Case | None) -> None:
    case = require(case, "text decoders")
    features, mask = case.tensor("object_features"), case.tensor("feature_valid_mask").bool()
    found = [match for name in case.arrays if (match := GREEDY.fullmatch(name))]
    assert found
    for match in found:
        name, decoder = match[0], build(case)
        if match["bias"]:
            decoder.output.bias[decoder.config.end_token] += float(case.number("greedy_eosbias_delta"))
        wanted = case.tensor(name)
        own = write_captions(decoder, features, mask if match["masked"] else plain_mask(case), wanted.shape[1])
        assert own.tokens.equal(wanted), name
        close(own.logprobs, case.tensor(name.replace("_tokens", "_logprob")))


@torch.no_grad()
def test_loss(case: Case | None) -> None:
    case = require(case, "text decoders")
    if not case.has("text_loss"):
        pytest.skip("holds no loss")
    tokens = case.tensor("text_tokens")
    loss = object_caption_loss(case.tensor("logits_masked"), tokens, case.tensor("matched"), int(case.number("eos")))
    assert loss.total.item() == pytest.approx(case.number("text_loss"), rel=1e-5)
    if case.has("text_loss_tokens_per_matched"):
        assert loss.tokens.item() == pytest.approx(case.number("text_loss_tokens_per_matched"), rel=1e-5)


@torch.no_grad()
def test_likelihood_of_sentences(case: Case | None) -> None:
    case = require(case, "text decoders")
    methods = {found[0]: found[1] for name in case.arrays if (found := GROUND.fullmatch(name))}
    if not methods:
        pytest.skip("holds no sentences")
    decoder, features, scores = build(case), case.tensor("ground_features"), case.tensor("ground_scores")
    for name, method in methods.items():
        own = sentence_likelihood(decoder, features, scores, case.tensor("ground_sentences"), cast(Likelihood, method))
        assert_close(own, case.tensor(name), 1e-5)
