"""Does it help a CLIP without statistics of its own to be measured next to ordinary texts?

    python benchmarks/clip_background.py --data FOLDER

Real CLIP ViT-B/32 vectors of Flickr8k photographs (dev split) and of class names, both in the data folder: a query is
"a {class}" for the 80 classes of COCO, true where a large sure box of the teacher shows it. The ordinary texts are the
class names of OpenImages. This is the rule of `operators/localize/scoring.py` for towers without calibration, and where
its thresholds come from.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import numpy.typing as npt
from common import publish, table

from onlooker.training.evaluate import auroc
from onlooker.training.flickr import data_root, read_split
from onlooker.training.moment_scenes import shown_classes

Rows = npt.NDArray[np.float32]


def unit(rows: Rows) -> Rows:
    """Each row at length 1."""
    lengths: Rows = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / lengths).astype(np.float32)


def best_f1(scores: Rows, shows: npt.NDArray[np.int8]) -> tuple[float, float]:
    """The best F1 that one threshold for all classes can have, and that threshold."""
    order = np.argsort(-scores[shows >= 0])
    hits = np.cumsum(shows[shows >= 0][order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    best = int(f1.argmax())
    return float(f1[best]), float(scores[shows >= 0][order][best])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    args = parser.parse_args()
    root = data_root(args.data)
    stored = np.load(root / "clip_vectors" / "clip_b32_openai_flickr8k_2.4k.npz")
    photographs = read_split(root, "dev")
    captions = dict(zip(photographs.files, photographs.captions, strict=True))
    files = [str(file) for file in stored["files"]]
    rows = [i for i, file in enumerate(files) if file in captions]
    pictures = unit(stored["emb"][rows].astype(np.float32))  # P, E
    boxes = json.loads((root / "flickr8k" / "pseudo_boxes.json").read_text(encoding="utf-8"))["boxes"]
    names, shows = shown_classes([boxes.get(files[i], []) for i in rows], [captions[files[i]] for i in rows])
    known = (root / "detector_teacher" / "coco.names").read_text(encoding="utf-8").split("\n")
    texts = unit(np.load(root / "clip_vectors" / "coco_clip_a+cname.npy"))[[known.index(name) for name in names]]
    ordinary = unit(np.load(root / "clip_vectors" / "oid_clip_a+cname.npy"))
    cosine: Rows = pictures @ texts.T  # P, C
    level: Rows = (pictures @ ordinary.T).mean(1, keepdims=True)
    body_rows = []
    for label, scores in (("cosine", cosine), ("cosine less the mean of ordinary texts", cosine - level)):
        f1, threshold = best_f1(scores, shows)
        body_rows.append([label, auroc(scores[shows == 1], scores[shows == 0]), f1, threshold])
    body = table(["score", "AUROC, all classes together", "best F1", "at"], body_rows)
    body += f"\n\n{len(rows)} photographs, {len(names)} classes that some of them show, {len(ordinary)} ordinary texts."
    publish("A CLIP without statistics, next to ordinary texts", body, args.out)


if __name__ == "__main__":
    main()
