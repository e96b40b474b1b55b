"""The eight models of UnLoc that its authors configured, by the names of their configurations.

No weights of them were released; `onlooker convert` reads those of whoever has trained one.
"""

from __future__ import annotations

from typing import Any, Literal

from .config import FusionConfig, HeadConfig, ImageTowerConfig, Task, TextTowerConfig, UnlocConfig

Size = Literal["base", "large"]
_SIZES: dict[Size, dict[str, dict[str, Any]]] = {
    "base": {
        "image": {"width": 768, "layers": 12, "heads": 12, "patch": 16, "patches": 196},
        "text": {"width": 512, "heads": 8},
        "fusion": {"width": 512, "heads": 8, "mlp_width": 2048},
    },
    "large": {
        "image": {"width": 1024, "layers": 24, "heads": 16, "patch": 14, "patches": 256},
        "text": {"width": 768, "heads": 12},
        "fusion": {"width": 768, "heads": 12, "mlp_width": 3072},
    },
}
_FPN: dict[str, Any] = {"kind": "fpn", "pyramid_blocks": (2, 3, 4, 5)}


def _preset(
    task: Task,
    size: Size,
    frames: int,
    head: HeadConfig,
    *,
    words: int | None,
    pool: Literal["token", "gap"] = "token",
    freeze: Literal["", "image", "text"] = "",
    **fusion: Any,
) -> UnlocConfig:
    """One of CLIP's sizes; `words` is the length of texts, None = texts come as features."""
    sizes = _SIZES[size]
    return UnlocConfig(
        task=task,
        frames=frames,
        image=ImageTowerConfig(**sizes["image"], pool=pool),
        text=None if words is None else TextTowerConfig(**sizes["text"], length=words),
        video_width=sizes["image"]["width"],
        text_width=sizes["text"]["width"],
        fusion=FusionConfig(**(sizes["fusion"] | fusion)),
        head=head,
        freeze_image=freeze == "image",
        freeze_text=freeze == "text",
    )


_QVH = HeadConfig(convs=3, shared=True, box_bias=2.0)
_TAL = HeadConfig(convs=4, shared=True, class_bias=-5.0, box_bias=2.0)

PRESETS: dict[str, UnlocConfig] = {
    "qvh_b": _preset("highlight_detection", "base", 144, _QVH, words=32),
    "qvh_l": _preset("highlight_detection", "large", 144, _QVH, words=32, freeze="image"),
    "charades_b": _preset(
        "moment_retrieval", "base", 128, HeadConfig(shared=False, box_bias=0.0), words=16, freeze="text", **_FPN
    ),
    "anetcap_b": _preset("moment_retrieval", "base", 128, HeadConfig(shared=False), words=32, freeze="image"),
    "anetcap_l": _preset(
        "moment_retrieval", "large", 128, HeadConfig(convs=4), words=16, pool="gap", freeze="text", **_FPN
    ),
    "tal_b": _preset("temporal_localization", "base", 128, _TAL, words=16, freeze="text"),
    "tal_l": _preset("temporal_localization", "large", 160, _TAL, words=None, pool="gap", levels=5),
    "coin_l": _preset(
        "action_segmentation", "large", 512, HeadConfig(kind="linear", class_bias=-6.6), words=None, pool="gap",
        kind="transformer", levels=1,
    ),
}  # fmt: skip
"""QVHighlights, Charades-STA, ActivityNet Captions and ActivityNet-1.3, COIN; `b` is CLIP's B/16, `l` its L/14."""
