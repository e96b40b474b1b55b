"""``onlooker convert``: checkpoints of the reference as folders of ours."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from onlooker.operators.convert.folder import Converted

__all__ = ["add_parser"]

_DESCRIPTION = """\
Convert a trained model of Streaming Dense Video Captioning, UnLoc, Dense VOC or PixelLLM (scenic, JAX) to a folder that
onlooker loads: config.json, model.safetensors, and vocab.txt for captions.

SOURCE is a checkpoint of flax (the file checkpoint_1000, or the folder it lies in), or a .npz or .safetensors file of
arrays named by their path, as textual/output/kernel. Nothing in it is run: pickles are refused, also those of PyTorch.
Every array is compared with what the model has, and the folder is loaded again before it gets its name.
"""

_EXAMPLES = """\
examples:
  onlooker convert runs/anet/checkpoint_5000 models/anet --vocab bert-base-uncased/vocab.txt
  onlooker convert params.npz models/mine --vocab vocab.txt --config model.json --dtype float16
  onlooker convert params.npz models/mine --vocab vocab.txt --config backbone_args.num_heads=16
  onlooker convert runs/vid2seq models/vid2seq --config decode_beam_size=1
  onlooker convert runs/unloc models/unloc --config config.json

Sizes are read off the arrays. What they do not tell (heads, frames, decoding points, search) is as in the released
configurations; the command says what it assumed. --config changes it, by the reference's own names: an option as
NAME=VALUE, with dots inside (backbone_args.num_heads=16), or a JSON file of the reference's whole `config.model`, in
which options that are absent have the reference's own defaults. It may be given several times.

kinds:
  git-dense      events with start and end; knows more tokens than words, the last ones being times
  git-paragraph  one text about a whole video
  vid2seq        events with start and end, T5 on features of CLIP; needs no --vocab, T5's words are SentencePiece's
  unloc          when something that is described happens; needs no --vocab, its words are CLIP's
  densevoc       every object, which of them are one, and a caption of each; --vocab unless it has no captions
  pixelllm       captions of places and places of words; the BERT-style decoder, without a detector of its own
"""

_NEXT = {
    "git-dense": (
        "next, frames over a whole file as in the paper, or the live form:",
        "onlooker run VIDEO --graph dense --mode paper -o decode.frames={frames} -o tower.model=trunk:{out} "
        "-o caption.model={out}",
        "onlooker run VIDEO --graph dense -o tower.model=trunk:{out} -o caption.model={out}",
    ),
    "git-paragraph": (
        "next, in Python:",
        "from onlooker.operators.caption.dense_load import load_video_captioner",
        "model, words = load_video_captioner({out!r})",
        "model.decode(frames)  # frames: (videos, {frames}, height, width, 3) uint8",
    ),
    "vid2seq": (
        "next, in Python:",
        "from onlooker.operators.caption.vid2seq.load import load_vid2seq",
        "from onlooker.operators.caption.vid2seq.decoding import decode_videos",
        "decode_videos(load_vid2seq({out!r}), features).tokens  # features: (videos, {frames}, {width}) float32",
    ),
    "unloc": (
        "next, in Python:",
        "from onlooker.operators.localize.unloc.load import load_localizer",
        "model = load_localizer({out!r}).model",
        "model(videos, texts)  # videos: (videos, {frames}, height, width, 3), or features; see its help",
    ),
    "densevoc": (
        "next, in Python:",
        "from onlooker.operators.objects.densevoc.load import load_object_model",
        "from onlooker.operators.objects.densevoc.video import describe_video",
        "describe_video(load_object_model({out!r}), frames)  # of one video: (number, height, width, 3) uint8",
    ),
    "pixelllm": (
        "next, in Python:",
        "from onlooker.operators.objects.pixelllm.load import load_pixelllm",
        "model = load_pixelllm({out!r}).model",
        "seen = model.see(model.encode_images(images), boxes)  # (pictures, height, width, 3) and (pictures, n, 4)",
        "model.caption(seen, beam=4)",
    ),
}


def add_parser(commands: Any) -> None:
    """Add ``onlooker convert``."""
    parser = commands.add_parser(
        "convert",
        help="checkpoints of the reference as folders of ours",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="checkpoint, or .npz or .safetensors file")
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument(
        "--kind",
        choices=["git-dense", "git-paragraph", "vid2seq", "unloc", "densevoc", "pixelllm"],
        help="default: found by the arrays, see below",
    )
    parser.add_argument("--vocab", metavar="FILE", help="words by their ids, one a line; captions need it")
    parser.add_argument(
        "--config",
        metavar="FILE|NAME=VALUE",
        action="append",
        default=[],
        help="what the arrays do not tell, see below",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="of the stored weights; half of them take half the space (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace a model that lies in OUT")
    parser.set_defaults(func=_convert)


def _convert(args: argparse.Namespace) -> int:
    file, changes = _options(args.config)
    pieces = None if args.vocab is None else _words(Path(args.vocab))
    if not Path(args.source).exists():
        raise UsageError(f"no file or folder {args.source!r}: check the path.")
    from onlooker.operators.convert.folder import Conversion, convert

    how = Conversion(args.kind, file, changes, pieces, args.dtype, args.force)
    with _progress() as report:
        converted = convert(Path(args.source), Path(args.out), how, report)
    _tell(converted, Path(args.out))
    return 0


def _options(given: list[str]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The options of all files, None without any, and those given one by one."""
    file: dict[str, Any] | None = None
    changes: dict[str, Any] = {}
    for item in given:
        if "=" not in item:
            file = (file or {}) | _json(Path(item))
            continue
        name, _, text = item.partition("=")
        *parts, last = name.split(".")
        place = changes
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"--config {item}: {part} was given as a value before; give one or the other.")
        place[last] = _value(text)
    return file, changes


def _value(text: str) -> Any:
    """JSON where it is some, else the text itself; Python's True, False and None too."""
    named = {"True": True, "False": False, "None": None}
    try:
        return named[text] if text in named else json.loads(text)
    except ValueError:
        return text


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--config {str(path)!r} cannot be read ({error.strerror}); it is a file, or NAME=VALUE."
        ) from error
    except ValueError as error:
        raise UsageError(f"--config {str(path)!r} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {str(path)!r} is not a JSON object of options.")
    return values


def _words(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"--vocab {str(path)!r} cannot be read: {reason}") from error
    words = text.removesuffix("\n").split("\n")
    if words == [""]:
        raise UsageError(f"--vocab {str(path)!r} is empty: one word a line is needed.")
    return words


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal, nothing elsewhere; yields what to tell about the work."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _tell(converted: Converted, out: Path) -> None:
    """What was made, what was assumed, and what can be done with it."""
    config: dict[str, Any] = json.loads((out / "config.json").read_text(encoding="utf-8"))
    size = (out / "model.safetensors").stat().st_size
    print(f"{converted.kind}: {converted.arrays} arrays, {converted.numbers:,} numbers, {size / 1e6:.1f} MB in {out}")
    if converted.assumed:
        told = " ".join(f"{name}={json.dumps(value)}" for name, value in sorted(converted.assumed.items()))
        print(f"as released, change it by --config: {told}")
    parts = config.get("encoder") or config.get("model") or config
    frames = parts.get("num_frames") or parts.get("frames")
    heading, *lines = _NEXT[converted.kind]
    print(heading)
    for line in lines:
        print("  " + line.format(out=str(out), frames=frames, width=config.get("width")))
