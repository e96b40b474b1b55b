"""The GIT text decoder against the reference, from the reference's own visual tokens on.

Every whole-text result is also computed token by token, and both must give the reference's numbers.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from onlooker.operators.caption.convert import decoder_state_from_reference
from onlooker.operators.caption.git import GitConfig, GitDecoder, TextState
from onlooker.operators.caption.search import beam_search, greedy_search
from onlooker.operators.memory.alternatives import checkpoint_frames, offline_kmeans
from onlooker.operators.memory.clustering import StreamingKMeans

from .goldens import Case, assert_close, parametrize, require

BEGIN, END = 101, 102


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize(metafunc, "streaming_dvc", "model_git", "config", "params/textual/output/bias")


def options(case: Case) -> dict[str, Any]:
    return dict(json.loads(str(case.arrays["config"])))


def build(case: Case) -> GitDecoder:
    params = case.below("params/textual/")
    args = options(case)["text_decoder_args"]
    positions, hidden = params["embedding/positions/embedding"].shape
    decoder = GitDecoder(
        GitConfig(
            vocab_size=params["output/bias"].shape[0],
            visual_width=params["visual_projection.0/kernel"].shape[0],
            hidden_size=hidden,
            num_heads=args["num_heads"],
            num_layers=args["num_hidden_layers"],
            ffn_size=params["transformer/encoder/layer.0/intermediate/dense/kernel"].shape[1],
            max_positions=positions,
            begin_token=options(case).get("begin_token_id", BEGIN),
            end_token=options(case).get("end_token_id", END),
        )
    )
    decoder.load_state_dict(decoder_state_from_reference(params))
    return decoder.eval()


def both_ways(
    decoder: GitDecoder, tokens: torch.Tensor, memory: torch.Tensor, prefix: torch.Tensor | None
) -> torch.Tensor:
    """Logits of the whole text; asserts that one token at a time gives the same."""
    with torch.no_grad():
        whole = decoder(tokens, memory, None, prefix)
        state = TextState(decoder, decoder.encode_context(memory, None, prefix), tokens.shape[1])
        steps = [state.step(tokens[:, position], position) for position in range(tokens.shape[1])]
    assert_close(torch.stack(steps, 1), whole)
    return whole


def test_teacher_forced_logits(case: Case | None) -> None:
    case = require(case, "the GIT decoder")
    if not case.has("teacher_forced_logits"):
        pytest.skip("a case without teacher forcing")
    points = zip(case.tensor("memory_per_frame"), case.tensor("checkpoint_inds"), strict=True)
    memory = torch.cat([frames[index] for frames, index in points])  # B * C, K, D
    logits = both_ways(
        build(case), case.tensor("gt_text_tokens").flatten(0, 1), memory, case.tensor("context_tokens").flatten(0, 1)
    )
    assert_close(logits, case.tensor("teacher_forced_logits"))


def test_memory_of_visual_features(case: Case | None) -> None:
    case = require(case, "the memory inside the model")
    if not case.has("visual_features", "memory_per_frame"):
        pytest.skip("a case without visual features")
    config = options(case)
    memory = StreamingKMeans(config["streaming_buffer_size"], config["kmeans_num_iters"])
    for item, features in enumerate(case.tensor("visual_features")):
        state = memory.initial_state(features.shape[-1])
        for number, frame in enumerate(features.unflatten(0, (config["num_frames"], -1))):
            state = memory.update(state, frame)
            if memory.ready(state):
                assert_close(state.tokens, case.tensor("memory_per_frame")[item, number])
        points = case.tensor("memory_eval_points")[item]
        last = checkpoint_frames(config["num_frames"], len(points))[-1]
        assert_close(case.tensor("memory_per_frame")[item, last - 1], points[-1])


def test_decode_path_logits(case: Case | None) -> None:
    case = require(case, "the decode path")
    decoder = build(case)
    if case.has("decode_text_tokens"):
        tokens, points = case.tensor("decode_text_tokens"), case.tensor("memory_eval_points")
        with_context = both_ways(decoder, tokens, points[:, -1], case.tensor("decode_text_context"))
        assert_close(with_context, case.tensor("decode_text_logits_last_memory_with_context"))
        without = both_ways(decoder, tokens, points[:, 0], None)
        assert_close(without, case.tensor("decode_text_logits_first_memory_no_context"))
    elif case.has("bos_logits", "memory"):
        begin = torch.full((len(case.tensor("memory")), 1), decoder.config.begin_token)
        assert_close(both_ways(decoder, begin, case.tensor("memory"), None)[:, 0], case.tensor("bos_logits"))
    else:
        pytest.fail(f"{case} has no decode path to compare")


def without_times(context: torch.Tensor, first_time: int) -> torch.Tensor:
    """The context (B, L) without time tokens, packed to the left."""
    packed = torch.zeros_like(context)
    for row, tokens in zip(packed, context, strict=True):
        words = tokens[(tokens > 0) & (tokens < first_time)]
        row[: len(words)] = words
    return packed


def test_decoded_tokens(case: Case | None) -> None:
    """Every decoding point from the reference's own context: beams and greedy, token by token."""
    case = require(case, "decoded texts")
    decoder, config = build(case), options(case)
    runs = {match[1] for name in case.arrays if (match := re.match(r"(decode_(?:greedy|beam\d+))/text_tokens_0", name))}
    for run in runs:
        point = 0
        while case.has(f"{run}/text_tokens_{point}"):
            context = case.tensor(f"{run}/context_{point}")
            if config.get("no_timestamp_in_context"):
                context = without_times(context, config["vocab_size"] - config["num_bins"])
            expected = case.tensor(f"{run}/text_tokens_{point}")
            memory = case.tensor("memory_eval_points")[:, point]
            actual = decode(decoder, config, run, memory, context, expected.shape[1])
            assert actual.tolist() == expected.tolist(), (run, point)
            point += 1
    if case.has("decoded", "memory"):
        expected = case.tensor("decoded")
        run = f"decode_beam{config['decode_beam_size']}"
        actual = decode(decoder, config, run, case.tensor("memory"), None, expected.shape[1])
        assert actual.tolist() == expected.tolist()
    assert runs or case.has("decoded"), f"{case} holds no decoded text"


def decode(
    decoder: GitDecoder,
    config: dict[str, Any],
    run: str,
    memory: torch.Tensor,
    prefix: torch.Tensor | None,
    length: int,
) -> torch.Tensor:
    end = decoder.config.end_token
    begin = torch.full((memory.shape[0], length), end)
    begin[:, 0] = decoder.config.begin_token
    with torch.no_grad():
        context = decoder.encode_context(memory, None, prefix)
        if run.endswith("greedy"):
            return greedy_search(TextState(decoder, context, length), begin, end)[0]
        beam = int(run.removeprefix("decode_beam"))
        alpha = config.get("decode_brevity_penalty_alpha", 0.6)
        return beam_search(TextState(decoder, context.repeat(beam), length), begin, end, beam, alpha).best


def test_paragraph_memory_is_offline(case: Case | None) -> None:
    """Only that the paragraph model's memory has the shape that offline clustering gives."""
    case = require(case, "the paragraph model")
    if not case.has("memory"):
        pytest.skip("not a paragraph case")
    config = options(case)
    tokens = torch.zeros(config["num_frames"], 5, case.tensor("memory").shape[-1])
    assert offline_kmeans(tokens, config["streaming_buffer_size"]).shape == case.tensor("memory").shape[1:]
