"""CLIP towers: frames and sentences in one space. See :func:`load_tower`.

Names are imported on first use: listing and checking nodes must not pay for torch and open_clip.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onlooker.operators.tower.calibration import Calibration
    from onlooker.operators.tower.errors import TowerError, UnknownModelError
    from onlooker.operators.tower.loading import known_towers, load_tower
    from onlooker.operators.tower.tower import Tower
    from onlooker.operators.tower.vision import TowerOutput

__all__ = ["Calibration", "Tower", "TowerError", "TowerOutput", "UnknownModelError", "known_towers", "load_tower"]

_HOMES = {
    "Calibration": "calibration",
    "Tower": "tower",
    "TowerError": "errors",
    "TowerOutput": "vision",
    "UnknownModelError": "errors",
    "known_towers": "loading",
    "load_tower": "loading",
}


def __getattr__(name: str) -> Any:
    """Import an exported name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
