"""Small Dense VOC models for tests."""

from __future__ import annotations

import torch

from onlooker.operators.caption.git import GitConfig
from onlooker.operators.objects.densevoc.association import AssociationConfig
from onlooker.operators.objects.densevoc.config import BackboneConfig, DetectorConfig, ProposalConfig, RoiConfig
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig, TrackingConfig
from onlooker.operators.objects.densevoc.trunk_pyramid import TrunkPyramidConfig

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "runs", "red", "ball", "man", "walks", "##s")
PROPOSALS = ProposalConfig(width=16, num_layers=1, groups=4, candidates=60, proposals=20)
ROI = RoiConfig(widths=(24, 24), resolution=3, detections=4)
TRACKING = TrackingConfig(resolution=3, threshold=0.3, tracks=6, frames=2, max_length=8)
ASSOCIATION = AssociationConfig(feature_size=9 * 16, width=16, num_heads=2)
CAPTIONER = GitConfig(
    vocab_size=len(WORDS),
    visual_width=16,
    hidden_size=32,
    num_heads=4,
    num_layers=2,
    ffn_size=64,
    max_positions=32,
    begin_token=2,
    end_token=3,
)
BACKBONE = BackboneConfig(
    image_size=64, width=32, num_layers=2, num_heads=2, window_size=3, window_blocks=(0,), pretrain_size=64
)
SMALL = DenseVocConfig(
    detector=DetectorConfig(backbone=BACKBONE, channels=16, proposals=PROPOSALS, roi=ROI),
    association=ASSOCIATION,
    captioner=CAPTIONER,
    tracking=TRACKING,
)
ON_TRUNK = DenseVocConfig(
    detector=DetectorConfig(backbone=None, channels=16, strides=(8, 16, 32), proposals=PROPOSALS, roi=ROI),
    trunk=TrunkPyramidConfig(channels=(5, 6, 7), width=16, groups=4),
    association=ASSOCIATION,
    captioner=None,
    tracking=TRACKING,
)


def random_model(config: DenseVocConfig = SMALL) -> DenseVoc:
    """Random weights, those of the heads large enough that pictures differ."""
    torch.manual_seed(0)
    model = DenseVoc(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0 if "agn_hm" in name or "cls_score" in name else 1.5)
        model.detector.proposal_generator.agn_hm.bias.zero_()
        model.detector.proposal_generator.bbox_pred.bias.fill_(2.0)
    return model.requires_grad_(False)
