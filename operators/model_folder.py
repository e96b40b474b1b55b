"""Models as folders: some come with the package and have names, all others are the user's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OnlookerError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Shelf", "save_weights"]


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


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write safetensors that everybody may read.

    The library leaves its files to their owner alone, which a wheel would carry over.
    """
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in state.items()}, path)
    path.chmod(0o644)
