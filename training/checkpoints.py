"""Checkpoints of runs that were interrupted and go on; a run is told by everything that decides its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from onlooker.operators.errors import OnlookerError

from .files import whole_file

__all__ = ["CHECKPOINT", "Checkpoint", "Trainer"]

CHECKPOINT = "checkpoint.pt"
"""In the folder of a run."""


class Trainer(Protocol):
    """What can be stopped and gone on with."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here: tensors and plain values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same run."""
        ...


class Checkpoint:
    """Where a run stands, in a file of its folder.

    Attributes:
        path: of the file, whether it is there or not.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        """Of the run that writes to `folder` and is told from others by `run`: all settings, as JSON can hold them."""
        self.path = folder / CHECKPOINT
        # As JSON gives them back, lists for tuples: torch's safe loading knows plain values alone.
        self._run: dict[str, Any] = json.loads(json.dumps(run))

    def save(self, trainer: Trainer) -> None:
        """Write where the trainer stands; what was there stays until all of it is written.

        Raises:
            OSError: it cannot be written.
        """
        with whole_file(self.path) as part:
            torch.save({"run": self._run, "trainer": trainer.state()}, part)

    def resume(self, trainer: Trainer) -> None:
        """Take the trainer to where the same run stood, if there is a checkpoint.

        Raises:
            OnlookerError: it cannot be read, or is of a run with other settings.
        """
        if not self.path.exists():
            return
        try:
            held = torch.load(self.path, weights_only=True, map_location="cpu")
            run, state = held["run"], held["trainer"]
        except Exception as error:  # torch raises what pickle, zip files and itself raise
            raise OnlookerError(
                f"{str(self.path)!r} is no checkpoint that can be read: remove it to begin anew."
            ) from error
        if run != self._run:
            raise OnlookerError(
                f"{str(self.path.parent)!r} holds a run with {_difference(run, self._run)}: name another folder by "
                f"--out, or remove its {self.path.name} to begin anew."
            )
        trainer.restore(state)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> str:
    """The first value that differs, in words."""
    for name in new:
        before, now = old.get(name), new[name]
        if isinstance(before, dict) and isinstance(now, dict) and before != now:
            return _difference(before, now, f"{where}{name}.")
        if before != now:
            return f"{where}{name} {before} instead of {now}"
    return "other settings"
