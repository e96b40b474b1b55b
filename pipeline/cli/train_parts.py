"""What steps of `onlooker train` share: the data folder, numbers of options, a bar."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError, UsageError

__all__ = ["add_data_option", "count", "data_folder", "filled_cache", "positive", "progress_bar", "writing"]


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("ONLOOKER_DATA"),
        help="folder that holds flickr8k/ (default: $ONLOOKER_DATA)",
    )


def data_folder(args: argparse.Namespace) -> Path:
    """The folder.

    Raises:
        UsageError: none is named, or it lacks the photographs.
    """
    if not args.data:
        raise UsageError("name the data folder by --data or ONLOOKER_DATA.")
    data = Path(args.data)
    if not (data / "flickr8k").is_dir():
        raise UsageError(f"{args.data!r} holds no folder flickr8k; --data names the folder above it.")
    return data


def filled_cache(args: argparse.Namespace) -> Path:
    """The feature cache of ``--cache``.

    Raises:
        UsageError: it is none.
    """
    cache = Path(args.cache)
    if not (cache / "index.json").is_file():
        raise UsageError(f"{args.cache!r} is no feature cache; fill it with: onlooker train features --cache DIR.")
    return cache


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal; yields what takes how many are done, and a text beside it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, text="")
        yield lambda done, text: bar.update(task, completed=done, text=text)


@contextmanager
def writing(out: str) -> Iterator[None]:
    """Tell in one line that a folder cannot be written.

    Raises:
        OutputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write to {out!r}: {(error.strerror or str(error)).lower()}.") from error


def positive(text: str) -> float:
    """An option's positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be a positive number")
    return value


def count(text: str) -> int:
    """An option's whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
