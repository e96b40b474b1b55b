"""Retrieval figures of a tower on captioned photographs, as one table.

    python benchmarks/retrieval.py --data FOLDER [--tower tiny] [--split test]

The folder holds ``flickr8k/`` and ``coco_mini/``; ``ONLOOKER_DATA`` names it where ``--data`` is not given.
"""

from __future__ import annotations

import argparse

import torch

from onlooker.operators.tower import load_tower
from onlooker.training.evaluate import Retrieval, coco_pictures, flickr_pictures, measure
from onlooker.training.flickr import data_root

HEAD = (
    "| set | photographs | t2i R@1 | R@5 | R@10 | i2t R@1 | R@5 | R@10 | AUROC raw | AUROC z | AUROC in query |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, photographs: int, result: Retrieval) -> str:
    """Return one line of the table."""
    calibrated = "-" if result.auroc_calibrated is None else f"{result.auroc_calibrated:.4f}"
    recalls = " | ".join(f"{value:.3f}" for value in (*result.text_to_image, *result.image_to_text))
    return f"| {name} | {photographs} | {recalls} | {result.auroc_raw:.4f} | {calibrated} | {result.auroc_within:.4f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--tower", default="tiny", help="any name load_tower takes")
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = data_root(arguments.data)
    tower = load_tower(arguments.tower)
    print(f"tower {arguments.tower}\n\n{HEAD}")
    for captioned in (flickr_pictures(data, arguments.split), coco_pictures(data / "coco_mini")):
        print(row(captioned.name, len(captioned.pictures), measure(tower, captioned)), flush=True)


if __name__ == "__main__":
    main()
