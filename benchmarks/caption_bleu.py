"""BLEU of the captioner on the photographs of a Flickr8k split, one photograph at a time: photograph, tower, caption.

    python benchmarks/caption_bleu.py --data FOLDER [--split test] [--model tiny] [--tower tiny] [--beam 3]

Lower case, punctuation removed, five references, corpus BLEU. The folder holds ``flickr8k/``; ``ONLOOKER_DATA`` names
it where ``--data`` is not given. "Checked" captions are chosen among the beams with the help of the tower's text side,
as the `file` graph does. The twin scores the same captions against the photographs in another order.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from common import publish, table
from PIL import Image

from onlooker.operators.caption.check import DEFAULT_WEIGHT, nearness
from onlooker.operators.caption.load import load_captioner
from onlooker.operators.tower import load_tower
from onlooker.training.bleu import corpus_bleu, sentence_bleu
from onlooker.training.flickr import data_root, read_split


def nearer(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of captions that are nearer to their own references than to those of a random other photograph."""
    rng = np.random.default_rng(0)
    others = [(i + int(rng.integers(1, len(captions)))) % len(captions) for i in range(len(captions))]
    scored = [
        sentence_bleu(text, references[i]) > sentence_bleu(text, references[others[i]])
        for i, text in enumerate(captions)
    ]
    return sum(scored) / len(scored)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"))
    parser.add_argument("--model", default="tiny", help="any name load_captioner takes")
    parser.add_argument("--tower", default="tiny", help="any name load_tower takes")
    parser.add_argument("--beam", type=int, help="default: the model's own")
    parser.add_argument("--limit", type=int, help="only the first photographs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    photographs = read_split(data_root(arguments.data), arguments.split)
    tower, captioner = load_tower(arguments.tower), load_captioner(arguments.model)
    beam = arguments.beam or captioner.options.beam
    captions, checked, seconds = [], [], []
    for name in photographs.files[: arguments.limit]:
        with Image.open(photographs.images / name) as image:
            seen = tower.encode_frames(tower.preprocess([image.convert("RGB")]), batch=1)
        start = time.process_time()
        (proposals,) = captioner.propose([seen.tokens[0]], beam=beam)
        seconds.append(time.process_time() - start)
        captions.append(proposals[0].text)
        texts = [proposal.text for proposal in proposals]
        bonus = nearness(tower, texts, seen.features[0].numpy(), beam, DEFAULT_WEIGHT)
        totals = [proposal.total + extra for proposal, extra in zip(proposals, bonus, strict=True)]
        checked.append(texts[int(np.argmax(totals))])
    references = photographs.captions[: len(captions)]
    shuffled = [references[i] for i in np.random.default_rng(0).permutation(len(references))]
    rows = [
        [what, *(f"{score:.4f}" for score in corpus_bleu(texts, against)), f"{nearer(texts, against):.3f}"]
        for what, texts, against in (
            ("search alone", captions, references),
            ("checked by the tower", checked, references),
            ("twin: photographs shuffled", captions, shuffled),
        )
    ]
    note = (
        f"\n\n{len(captions)} photographs of {arguments.split}, {len(set(captions))} different captions, "
        f"beam {beam}; {1000 * np.median(seconds):.0f} ms of CPU time a caption "
        f"with {arguments.threads} thread(s), tower not counted. Nearer to own: sentence BLEU-4 higher against the "
        "photograph's own captions than against those of a random other one."
    )
    body = table(["captions", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "nearer to own"], rows) + note
    publish(f"Captions of `{arguments.model}` on Flickr8k {arguments.split}", body, arguments.out)


if __name__ == "__main__":
    main()
