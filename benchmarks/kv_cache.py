"""What does the key-value cache of the caption decoder save?

The same text of 40 tokens is searched three ways, in turns: with the cache (`TextState`); with the rows of memory and
prefix kept, but the text computed anew for every token; and with everything computed anew, as the reference decodes.
All three must find the same tokens. The end token is made impossible, so that every text has its full length.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import publish, spread, table
from torch import Tensor

from onlooker.operators.caption.git import Context, GitConfig, GitDecoder, TextState
from onlooker.operators.caption.search import StepFunction, beam_search, greedy_search

SIZES = {
    "published": (GitConfig(), 514),
    "tiny": (
        GitConfig(4610, 1280, 384, 12, 3, 1536, 64, tie_word_embeddings=True, begin_token=2, end_token=3),
        98,
    ),
}
"""Decoder and tokens of its memory."""


class TextAnew:
    """A step function that keeps the context and computes the whole text for every token."""

    def __init__(self, decoder: GitDecoder, context: Context) -> None:
        self._decoder = decoder
        self._context = context
        self._text = torch.zeros(len(context.mask), 0, dtype=torch.int64)

    def step(self, tokens: Tensor, position: int) -> Tensor:
        self._text = torch.cat([self._text, tokens[:, None]], 1)
        return self._decoder.output(self._decoder.decode(self._text, self._context)[:, -1])

    def reorder(self, rows: Tensor) -> None:
        self._text = self._text[rows]


class AllAnew(TextAnew):
    """A step function that also computes the rows of memory and prefix for every token."""

    def __init__(self, decoder: GitDecoder, memory: Tensor, prefix: Tensor) -> None:
        self._again = lambda: decoder.encode_context(memory, None, prefix)
        super().__init__(decoder, self._again())

    def step(self, tokens: Tensor, position: int) -> Tensor:
        self._context = self._again()
        return super().step(tokens, position)


def make_decoder(config: GitConfig) -> GitDecoder:
    """A decoder with random weights, large enough that tokens matter, and without an end."""
    torch.manual_seed(0)
    decoder = GitDecoder(config).eval()
    for name, parameter in decoder.named_parameters():
        if name in ("words.weight", "positions.weight"):
            torch.nn.init.normal_(parameter)
    torch.nn.init.constant_(decoder.output.bias[config.end_token], -1e4)
    return decoder


def search(model: StepFunction, config: GitConfig, beam: int, length: int) -> Tensor:
    """The text (1, L) that is found."""
    begin = torch.full((1, length + 2), config.end_token)
    begin[:, 0] = config.begin_token
    if beam == 1:
        return greedy_search(model, begin, config.end_token)[0]
    return beam_search(model, begin, config.end_token, beam).best


def compare(size: str, beam: int, length: int, rounds: int) -> list[object]:
    """One row of the table: all ways in turns."""
    config, memory_size = SIZES[size]
    decoder = make_decoder(config)
    memory = torch.randn(1, memory_size, config.visual_width)
    prefix = torch.tensor([[config.begin_token, *range(200, 230), config.end_token]])

    def context() -> Context:
        return decoder.encode_context(memory, None, prefix).repeat(beam)

    ways: dict[str, Callable[[], StepFunction]] = {
        "cache": lambda: TextState(decoder, context(), length + 2),
        "text": lambda: TextAnew(decoder, context()),
        "all": lambda: AllAnew(decoder, memory.repeat(beam, 1, 1), prefix.repeat(beam, 1)),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, Tensor] = {}
    for turn in range(rounds + 1):
        for name, model in ways.items():
            started = time.process_time()
            texts[name] = search(model(), config, beam, length)
            if turn:  # the first round warms caches up
                found[name].append(time.process_time() - started)
    same = all(torch.equal(text, texts["cache"]) for text in texts.values())
    gains = [
        statistics.median(anew / cached for anew, cached in zip(found[name], found["cache"], strict=True))
        for name in ("text", "all")
    ]
    return [size, beam, *(spread([s * 1e3 for s in found[name]]) for name in ways), *gains, "yes" if same else "NO"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=40, help="length of the text (default: %(default)s)")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES), help="decoders to measure")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        rows = [compare(size, beam, args.tokens, args.rounds) for size in args.sizes for beam in (1, 4)]
    header = [
        "decoder",
        "beams",
        "cache, ms",
        "text anew, ms",
        "all anew, ms",
        "gain over text",
        "gain over all",
        "same",
    ]
    body = table(header, rows)
    body += (
        f"\n\nA text of {args.tokens} tokens about one memory and a prefix of 32 tokens, whose rows are part of each "
    )
    body += f"time. CPU time of one thread; {args.rounds} rounds, median (min-max), gains are medians of their ratios."
    publish("Key-value cache of the caption decoder", body, args.out)


if __name__ == "__main__":
    main()
