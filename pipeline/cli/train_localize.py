"""``onlooker train localize`` and ``localize-features``: localizers from annotated videos."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onlooker.training.moments import FORMAT_NAMES

from ..errors import UsageError
from .train_parts import add_data_option, count, data_folder, filled_cache, positive, progress_bar, writing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from onlooker.training.localize_loss import LocalizeLoss
    from onlooker.training.moments.extract import Extraction
    from onlooker.training.moments.train import MomentRecipe

__all__ = ["add_steps"]

_FEATURES = """\
Encode videos by a tower, once, for `onlooker train localize`: one file of features for each, named as the video is.

Videos that are there already are not encoded again, so a run that was interrupted goes on, and new videos are added by
the same command. Videos that cannot be read are told and left out.
"""

_LOCALIZE = """\
Train a localizer (UnLoc), which finds when something happens, from annotated videos and their features.

A run that was interrupted goes on from its last checkpoint when the same command is given again.

Without --annotations this makes an embedded localizer anew, from --data and --cache: that of moments, or, with
`--task action_segmentation`, that of classes. Of the other options only --steps, --seed and --out count then.
"""

_FORMATS = """\
formats:
  qvhighlights    a JSON object a line: qid, query, vid, duration, relevant_windows
  charades        a line each: VIDEO start end##sentence
  activitynet     ActivityNet Captions: {video: {duration, timestamps, sentences}}
  tacos           {video: {fps, num_frames, timestamps, sentences}}
  coin            COIN.json; steps, by which frames are told apart
  activitynet1.3  activity_net.v1-3.min.json; classes
Files may be gzipped. Features come from `onlooker train localize-features`, or are arrays of your own: VIDEO.npy with
(rows, width), or VIDEO.npz with `features` and, if known, `fps` and `duration`.

example:
  onlooker train localize-features videos/ --out features
  onlooker train localize --annotations charades_sta_train.txt --format charades --features features --out out/charades
"""

_NEEDS_ANNOTATIONS = ("format", "subset", "features", "feature_fps", "tower")
# Texts that are read in one call.
_TEXTS = 64


def add_steps(steps: Any) -> None:
    """Add both steps of ``onlooker train``."""
    extract = steps.add_parser(
        "localize-features",
        help="encode videos for training a localizer",
        description=_FEATURES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    extract.add_argument("videos", metavar="VIDEO", nargs="+", help="video files, or folders of them")
    extract.add_argument("--tower", default="tiny", help="tower that encodes them (default: %(default)s)")
    extract.add_argument("--fps", type=positive, default=2.0, help="rows per second (default: 2)")
    extract.add_argument(
        "--batch", type=count, default=8, help="frames in one call of the tower (default: %(default)s)"
    )
    extract.add_argument("--out", metavar="DIR", default="features", help="folder (default: %(default)s)")
    extract.set_defaults(func=_extract)
    train = steps.add_parser(
        "localize",
        help="train a localizer: when something happens",
        description=_LOCALIZE,
        epilog=_FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _data_options(train)
    _model_options(train)
    train.set_defaults(func=_localize)


def _data_options(train: argparse.ArgumentParser) -> None:
    train.add_argument("--annotations", metavar="FILE", help="what happens in the videos, see below")
    train.add_argument("--format", choices=FORMAT_NAMES, help="whose format the annotations have")
    train.add_argument("--subset", help="part of the annotations, for coin and activitynet1.3 (default: training)")
    train.add_argument("--features", metavar="DIR", help="features of the videos, see below")
    train.add_argument(
        "--feature-fps", type=positive, metavar="FPS", help="rows per second of features that do not say it themselves"
    )
    train.add_argument("--tower", help="tower whose text side reads the texts (default: that of the features)")
    add_data_option(train)
    train.add_argument("--cache", metavar="DIR", default="cache/features", help="feature cache (default: %(default)s)")
    train.add_argument("--out", metavar="DIR", default="out/localizer", help="weights (default: %(default)s)")


def _model_options(train: argparse.ArgumentParser) -> None:
    tasks = ("moment_retrieval", "highlight_detection", "temporal_localization", "action_segmentation")
    train.add_argument("--task", choices=tasks, help="default: the one that belongs to the format")
    train.add_argument(
        "--sampling",
        choices=["fixed", "linspace"],
        default="fixed",
        help="fixed: windows of a fixed rate, for streams; linspace: the whole video at once (default: %(default)s)",
    )
    train.add_argument("--fps", type=positive, default=2.0, help="frames per second of fixed windows (default: 2)")
    train.add_argument("--frames", type=count, default=64, help="frames of a window (default: %(default)s)")
    train.add_argument("--levels", type=count, default=4, help="of the pyramid (default: %(default)s)")
    train.add_argument(
        "--encoder", choices=["simple_pyramid", "fpn"], default="simple_pyramid", help="(default: %(default)s)"
    )
    train.add_argument(
        "--size",
        choices=["small", "base", "large"],
        default="small",
        help="of the fusion; base and large are UnLoc's and want a GPU (default: %(default)s)",
    )
    train.add_argument("--templates", metavar="FILE", help="what class names are put into, one a line, with {}")
    train.add_argument("--queries", type=count, default=8, help="texts asked about a window (default: %(default)s)")
    train.add_argument("--batch", type=count, default=8, help="windows per update (default: %(default)s)")
    train.add_argument("--steps", type=count, help="updates (default: 3000, or those of the embedded localizer)")
    train.add_argument("--device", default="cpu", help="where it is trained: cpu, cuda ... (default: %(default)s)")
    train.add_argument("--rate", type=positive, default=1e-3, help="learning rate (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, help="everything random depends on it (default: 0)")


def _extract(args: argparse.Namespace) -> int:
    from onlooker.training.moments.extract import FeatureRecipe, extract_features, find_videos

    videos = find_videos(args.videos)
    recipe = FeatureRecipe(args.tower, args.fps, args.batch)
    with progress_bar("videos", len(videos)) as show:

        def report(state: Extraction) -> None:
            show(state.done, f"{state.frames} frames, {state.seconds / 60:.1f} min of video")

        with writing(args.out):
            state = extract_features(videos, Path(args.out), recipe, report)
    for line in state.broken:
        print(f"onlooker: left out {line}", file=sys.stderr)
    for name in state.truncated:
        print(f"onlooker: {name} broke off; what it held was used", file=sys.stderr)
    if not state.written + state.skipped:
        raise UsageError("no video could be read.")
    print(f"{state.written} written to {args.out}, {state.skipped} were there, {len(state.broken)} left out")
    return 3 if state.broken or state.truncated else 0


def _localize(args: argparse.Namespace) -> int:
    if args.annotations is None:
        return _tiny(args)
    for name in ("format", "features"):
        if getattr(args, name) is None:
            raise UsageError(f"--annotations need --{name} too; see onlooker train localize --help.")
    from onlooker.training.moments.features import FeatureFolder, missing_line
    from onlooker.training.moments.formats import FORMATS, read_moments
    from onlooker.training.moments.train import train_moments
    from onlooker.training.moments.windows import MomentWindows

    chosen = FORMATS[args.format]
    annotations = read_moments(args.annotations, args.format, args.subset or (chosen.subsets or (None,))[0])
    features = FeatureFolder(args.features, args.feature_fps)
    tower = args.tower or features.settings.get("tower")
    if not isinstance(tower, str):
        raise UsageError("nothing says which tower reads the texts: name it by --tower.")
    recipe = _recipe(args, args.task or chosen.task)
    windows = MomentWindows(annotations, features, lambda texts: _read_texts(tower, texts), recipe.windows)
    if windows.missing:
        print(f"onlooker: {missing_line(windows.missing, 'without features are left out')}", file=sys.stderr)
    if annotations.left_out:
        print(
            f"onlooker: moments left out: {len(annotations.left_out)}, the first in {annotations.left_out[0]}",
            file=sys.stderr,
        )
    with progress_bar("localize", recipe.steps) as show, writing(args.out):
        train_moments(windows, Path(args.out), recipe, tower=tower, device=args.device, report=_losses(show))
    use = f"; the node moment_localizer takes it as its `model: {args.out}`" if args.sampling == "fixed" else ""
    print(f"written to {args.out}{use}")
    return 0


def _tiny(args: argparse.Namespace) -> int:
    if given := [name for name in _NEEDS_ANNOTATIONS if getattr(args, name) is not None]:
        raise UsageError(f"--{given[0].replace('_', '-')} needs --annotations.")
    if args.task not in (None, "moment_retrieval", "action_segmentation"):
        raise UsageError(f"--task {args.task} needs --annotations: no localizer of that kind is embedded.")
    data, cache = data_folder(args), filled_cache(args)
    from onlooker.training.localize_tiny import SEGMENT, LocalizeTinyRecipe, train_localize_tiny

    recipe = SEGMENT if args.task == "action_segmentation" else LocalizeTinyRecipe()
    recipe = dataclasses.replace(recipe, seed=args.seed, steps=args.steps or recipe.steps)
    with progress_bar("localize", recipe.steps) as show, writing(args.out):
        train_localize_tiny(data, cache, Path(args.out), recipe, _losses(show))
    print(f"written to {args.out}")
    return 0


def _recipe(args: argparse.Namespace, task: Any) -> MomentRecipe:
    from onlooker.training.moments.train import MomentRecipe
    from onlooker.training.moments.windows import TEMPLATES, WindowRecipe

    windows = WindowRecipe(
        sampling=args.sampling,
        frames=args.frames,
        fps=args.fps,
        queries=args.queries,
        own=max(1, args.queries // 2),
        templates=_templates(args.templates) if args.templates else TEMPLATES,
        exclusive=task == "action_segmentation",
    )
    recipe = MomentRecipe(
        task=task,
        size=args.size,
        encoder=args.encoder,
        levels=args.levels,
        windows=windows,
        seed=args.seed,
        batch=args.batch,
        rate=args.rate,
        **({"steps": args.steps} if args.steps else {}),
    )
    recipe.config(1, 1)  # what does not fit is told before anything is read
    return recipe


def _templates(path: str) -> tuple[str, ...]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--templates {path!r} cannot be read: {error}.") from error
    if not any(map(str.strip, lines)):
        raise UsageError(f"--templates {path!r} holds no template.")
    return tuple(line.strip() for line in lines if line.strip())


def _read_texts(tower: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Features (n, E) of texts."""
    import torch

    from onlooker.operators.tower import load_tower

    reader = load_tower(tower, parts="text")
    parts = []
    with progress_bar("texts", len(texts)) as show:
        for start in range(0, len(texts), _TEXTS):
            parts.append(reader.encode_texts(texts[start : start + _TEXTS], _TEXTS))
            show(min(start + _TEXTS, len(texts)), "")
    features: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return features


def _losses(show: Callable[[int, str], None]) -> Callable[[int, LocalizeLoss], None]:
    """Tells the bar the step and what the losses are."""

    def report(step: int, loss: LocalizeLoss) -> None:
        show(step, f"classification {float(loss.classification):.4f} boundaries {float(loss.box):.3f}")

    return report
