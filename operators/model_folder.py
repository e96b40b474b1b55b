"""Models as folders: some come with the package and have names, all others are the user's."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import OnlookerError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "VOCABULARY",
    "Once",
    "Shelf",
    "check_words",
    "load_weights",
    "read_words",
    "save_model",
    "save_weights",
    "save_words",
]

VOCABULARY = "vocab.txt"
"""The file of a folder that holds the words of its model by their ids, one a line."""

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Shelf:
    """Where the models of one kind lie that come with the package, a folder each.

    Attributes:
        place: the folder above them.
        kind: what a message calls such a model.
        error: what is raised where there is none.
        files: what a folder must hold.
    """

    place: Path
    kind: str
    error: type[OnlookerError]
    files: tuple[str, ...] = ("config.json", "model.safetensors")

    def names(self) -> list[str]:
        """Names of the models that come with the package."""
        return sorted(path.parent.name for path in self.place.glob("*/config.json"))

    def look_up(self, name_or_folder: str | Path) -> Path | None:
        """The folder of a name that comes with the package, or any folder that exists; else None."""
        name = str(name_or_folder)
        if name in self.names():
            return self.place / name
        folder = Path(name_or_folder)
        return folder if folder.is_dir() else None

    def folder(self, name_or_folder: str | Path) -> Path:
        """The folder of a name that comes with the package, or a folder of the user's.

        Raises:
            OnlookerError: as `error`, there is none, or it lacks files; the message offers the nearest name.
        """
        folder = self.look_up(name_or_folder)
        if folder is None:
            name, names = str(name_or_folder), self.names()
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            known = f"known: {', '.join(names)}; or" if names else "none comes with this package;"
            meant = f"did you mean {near[0]!r}? Or" if near else known
            raise self.error(f"no {self.kind} {name!r}: {meant} give a folder with {', '.join(self.files)}.")
        self.require_files(folder)
        return folder

    def require_files(self, folder: Path) -> None:
        """Refuse a folder that lacks files.

        Raises:
            OnlookerError: as `error`; the message names them.
        """
        missing = [name for name in self.files if not (folder / name).is_file()]
        if missing:
            raise self.error(f"folder {folder.name!r} is not a {self.kind}: it lacks {', '.join(missing)}")

    @contextmanager
    def reading(self, folder: Path, architecture: str) -> Iterator[dict[str, Any]]:
        """The values of a folder's `config.json`, to make a model of.

        Raises:
            OnlookerError: as `error`, in one line, for whatever goes wrong, also in the body of the `with`; a KeyError
                counts as a value that `config.json` lacks.
        """
        self.require_files(folder)
        try:
            values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if values["architecture"] != architecture:
                raise ValueError(f"config.json says architecture {values['architecture']!r}, known is {architecture!r}")
            yield values
        except KeyError as error:
            reason = f"config.json is incomplete, it lacks {error}"
            raise self.error(f"{self.kind} {folder.name!r} cannot be loaded: {reason}") from error
        except Exception as error:  # safetensors raises a type of its own, torch a RuntimeError, json a ValueError
            reason = " ".join(str(error).split()) or type(error).__name__
            raise self.error(f"{self.kind} {folder.name!r} cannot be loaded: {reason}") from error


class Once(Generic[_Read]):
    """Models that callers of one process share, one per place and device: a folder that changes is read once."""

    def __init__(self, read: Callable[[Path, str], _Read]) -> None:
        """`read` makes the model of a folder, on a device."""
        self._read = read
        self._models: dict[tuple[Path, str], _Read] = {}
        self._lock = threading.Lock()

    def __call__(self, folder: Path, device: str) -> _Read:
        """The model of a folder; whatever `read` raises."""
        key = (folder.resolve(), device)
        with self._lock:
            if key not in self._models:
                self._models[key] = self._read(folder, device)
            return self._models[key]


def save_model(
    folder: Path,
    architecture: str,
    model: nn.Module,
    config: Mapping[str, Any],
    *,
    tower: str,
    settings: Mapping[str, Any] | None,
    dtype: torch.dtype,
) -> None:
    """Write `config.json` and `model.safetensors` into a folder, which is made if it does not exist.

    Args:
        folder: its place.
        architecture: what `Shelf.reading` will ask for.
        model: its parameters are stored, once where several names share one.
        config: its configuration, plain values.
        tower: name of the tower whose features it reads.
        settings: values that go with the weights, plain ones.
        dtype: of the stored weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {"architecture": architecture, "tower": tower, "model": config, "settings": dict(settings or {})}
    state = {name: weights.detach().cpu().to(dtype) for name, weights in model.named_parameters()}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_weights(state, folder / "model.safetensors")


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write safetensors that everybody may read.

    The library leaves its files to their owner alone, which a wheel would carry over.
    """
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in state.items()}, path)
    path.chmod(0o644)


def load_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy weights into a model; of several names that share a parameter (tied words) one is enough.

    Args:
        model: keeps its precision, whatever that of the weights is.
        state: a tensor for each parameter, as `save_model` and `save_weights` store them.

    Raises:
        RuntimeError: a parameter is missing, unknown or of another shape, or its names are given different weights.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    complete = dict(state)
    for shared in names.values():
        told = [name for name in shared if name in state]
        if any(not state[name].equal(state[told[0]]) for name in told):
            raise RuntimeError(f"{' and '.join(told)} are one parameter of this model, but their weights differ")
        if told:
            complete |= dict.fromkeys(shared, state[told[0]])
    model.load_state_dict(complete)


def check_words(pieces: Sequence[str], rows: int) -> None:
    """Refuse words that a model cannot have.

    Args:
        pieces: the words by their ids.
        rows: how many the model has room for.

    Raises:
        ValueError: there are more of them.
    """
    if len(pieces) > rows:
        raise ValueError(f"{len(pieces)} words, but the model has rows for {rows}")


def save_words(folder: Path, pieces: Sequence[str]) -> None:
    """Write the words of a model, by their ids, into its folder; without any, those of a model before go."""
    if pieces:
        (folder / VOCABULARY).write_text("\n".join(pieces) + "\n", encoding="utf-8")
    else:
        (folder / VOCABULARY).unlink(missing_ok=True)


def read_words(folder: Path) -> tuple[str, ...]:
    """The words of the model in a folder by their ids; none for a model that has no words."""
    path = folder / VOCABULARY
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
