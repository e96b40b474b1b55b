"""Small open_clip models with random weights, saved in the layouts that hub checkpoints have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISIONS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 64, "layers": 3, "width": 48, "head_width": 16, "patch_size": 16},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None},
    "timm_cnn": {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "mlp", "image_size": 64},
    "timm_vit": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160},
    "timm_nhwc": {"timm_model_name": "swin_tiny_patch4_window7_224", "timm_proj": "linear", "image_size": 224},
}


def save_tower(folder: Path, vision: str, seed: int = 0) -> Any:
    """Save a random model as open_clip lays out a local folder and return it."""
    torch.manual_seed(seed)
    config = {"embed_dim": 40, "vision_cfg": VISIONS[vision], "text_cfg": TEXT}
    model = open_clip.CLIP(**config).eval()
    for module in model.visual.modules():  # fresh statistics would make every normalisation an identity
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "weights.safetensors")
    return model
