"""BLEU of the captioner on the photographs of a Flickr8k split, one photograph at a time: photograph, tower, caption.

    python benchmarks/caption_bleu.py --data FOLDER [--split test] [--model tiny] [--tower tiny] [--beam 3]

Lower case, punctuation removed, five references, corpus BLEU. The folder holds ``flickr8k/``; ``ONLOOKER_DATA`` names
it where ``--data`` is not given. The twin scores the same captions against the photographs in another order.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import publish, table
from PIL import Image

from onlooker.operators.caption.load import load_captioner
from onlooker.operators.tower import load_tower
from onlooker.training.bleu import corpus_bleu
from onlooker.training.flickr import data_root, read_split


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
    captions, seconds = [], []
    for name in photographs.files[: arguments.limit]:
        with Image.open(photographs.images / name) as image:
            pixels = np.asarray(image.convert("RGB").resize((tower.image_size,) * 2))
        tokens = tower.encode_frames(pixels[None], batch=1).tokens[0]  # N, D
        start = time.process_time()
        captions.append(captioner.caption(tokens, beam=arguments.beam)[0][0])
        seconds.append(time.process_time() - start)
    references = photographs.captions[: len(captions)]
    shuffled = [references[i] for i in np.random.default_rng(0).permutation(len(references))]
    rows = [
        ["own photographs", *(f"{score:.4f}" for score in corpus_bleu(captions, references))],
        ["photographs shuffled (twin)", *(f"{score:.4f}" for score in corpus_bleu(captions, shuffled))],
    ]
    note = (
        f"\n\n{len(captions)} photographs of {arguments.split}, {len(set(captions))} different captions, "
        f"beam {arguments.beam or captioner.options.beam}; {1000 * np.median(seconds):.0f} ms of CPU time a caption "
        f"with {arguments.threads} thread(s), tower not counted."
    )
    body = table(["captions against", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"], rows) + note
    publish(f"Captions of `{arguments.model}` on Flickr8k {arguments.split}", body, arguments.out)


if __name__ == "__main__":
    main()
