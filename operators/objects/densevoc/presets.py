"""The configurations that the authors of Dense VOC released, by their names.

All see pictures of 384 pixels with ViT-B/16 and train on one class. Options that differ in training stand in
`onlooker.training.objects.densevoc_recipes`.
"""

from __future__ import annotations

from dataclasses import replace

from .config import DetectorConfig, RoiConfig
from .model import DenseVocConfig, TrackingConfig

__all__ = ["PRESETS"]

_SURE = 0.5
"""Detections below it are not evaluated in videos."""


def _detector(score_threshold: float = 0.05, detections: int = 16) -> DetectorConfig:
    return DetectorConfig(roi=RoiConfig(score_threshold=score_threshold, detections=detections))


_REGIONS = TrackingConfig(threshold=0.3, aggregation="none", tracks=4, frames=6, window=-1)
_VIDSTG = DenseVocConfig(_detector(), tracking=TrackingConfig(threshold=0.7, tracks=32, frames=6, window=8))

PRESETS = {
    "grit_vg_384": DenseVocConfig(_detector(detections=100), association=None, tracking=_REGIONS),
    "densevoc_disjoint_pretraining": DenseVocConfig(_detector(), tracking=_REGIONS),
    "densevoc_vidstg": _VIDSTG,
    "densevoc_vidstg_ftgrit_hard_aggregation": _VIDSTG,
    "densevoc_vidstg_ftgrit_soft_aggregation": DenseVocConfig(
        _detector(), tracking=replace(_REGIONS, aggregation="soft", consistent=True)
    ),
    "densevoc_vidstg_videoeval": replace(_VIDSTG, detector=_detector(_SURE)),
    "densevoc_vln": DenseVocConfig(_detector(_SURE), tracking=replace(_VIDSTG.tracking, tracks=16, frames=3)),
}
"""What their models compute at test time."""
