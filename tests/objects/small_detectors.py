"""Small checkpoints of transformers' detectors, as the hub has large ones: random weights, real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

library: Any = transformers

LABELS = ["person", "dog", "cup", "car"]
WORDS = ["a", "photo", "of", "dog", "cup", "red", "car", "person", ".", ","]
SIDE = 64


def _wild(model: nn.Module, seed: int) -> Any:
    """Weights far from tame, so that outputs depend on the picture and differ from class to class."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.4 / parameter[0].numel() ** 0.5)
        elif "norm" not in name.lower():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def rt_detr(folder: Path, *, pad: bool = False) -> Path:
    """A closed detector with four classes."""
    backbone = library.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", out_features=
        ["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = library.RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[8, 16, 16], encoder_hidden_dim=16, encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, decoder_layers=2,
        decoder_attention_heads=2, num_queries=20, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    _wild(library.RTDetrForObjectDetection(config), 0).save_pretrained(folder)
    return _pictures(folder, pad)


def d_fine(folder: Path) -> Path:
    """The same of another family."""
    backbone = library.HGNetV2Config(
        stem_channels=[3, 8, 8], stage_in_channels=[8, 8, 8, 16], stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 8, 16, 16], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], embedding_size=8, out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = library.DFineConfig(
        backbone_config=backbone, encoder_in_channels=[8, 16, 16], encoder_hidden_dim=16, encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, decoder_layers=2,
        decoder_attention_heads=2, num_queries=20, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    _wild(library.DFineForObjectDetection(config), 1).save_pretrained(folder)
    return _pictures(folder, False)


def _pictures(folder: Path, pad: bool) -> Path:
    """The processor of RT-DETR: squashed to a square, or fitted into one and padded."""
    if pad:
        size = {"max_height": SIDE, "max_width": SIDE}
        made = library.RTDetrImageProcessor(size=size, do_pad=True, pad_size={"height": SIDE, "width": SIDE})
    else:
        made = library.RTDetrImageProcessor(size={"height": SIDE, "width": SIDE})
    made.save_pretrained(folder)
    return folder


def owlv2(folder: Path, *, grid: bool = False) -> Path:
    """An open-vocabulary detector; with ``grid`` every patch tells a box of its own size at its own corner."""
    config = library.Owlv2Config(
        text_config={
            "vocab_size": 600, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": 512, "eos_token_id": 513,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 16,
        },
        projection_dim=32,
    )  # fmt: skip
    model = _wild(library.Owlv2ForObjectDetection(config), 2)
    if grid:
        for parameter in model.box_head.parameters():
            nn.init.zeros_(parameter)
    else:  # so large that neighbours overlap
        nn.init.constant_(model.box_head.dense2.bias[2:], 2.0)
    model.save_pretrained(folder)
    library.Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    _clip_tokenizer().save_pretrained(folder)
    return folder


def _clip_tokenizer() -> Any:
    """CLIP's, with letters for pieces."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = letters + [f"{letter}</w>" for letter in letters]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    return library.CLIPTokenizer(vocab=vocabulary, merges=[])


def grounding_dino(folder: Path) -> Path:
    """An open-vocabulary detector that reads all names in one sentence."""
    vocabulary = folder / "vocab.txt"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n", encoding="utf-8")
    config = library.GroundingDinoConfig(
        backbone_config=library.SwinConfig(
            image_size=SIDE, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, out_indices=
            [2, 3, 4],
        ),
        text_config={
            "model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64,
        },
        num_queries=12, encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2, decoder_layers=2,
        decoder_ffn_dim=16, decoder_attention_heads=2, d_model=32, max_text_len=48,
    )  # fmt: skip
    _wild(library.GroundingDinoForObjectDetection(config), 3).save_pretrained(folder)
    library.GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 192}).save_pretrained(folder)
    library.BertTokenizer(vocab=str(vocabulary)).save_pretrained(folder)
    return folder
