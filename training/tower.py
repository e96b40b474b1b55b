"""Training of the embedded tower ``tiny``: heads over two frozen encoders.

Image side: the ImageNet trunk, mean pooling and a two-layer head. Text side: MiniLM-L6 with mean pooling and a
linear map that starts as the identity. What is learned from, at once:

- pairs: symmetric InfoNCE (CLIP, Radford et al. 2021, section 2.3) between a random view of a photograph and one
  of its captions;
- the trunk's ImageNet knowledge: its classifier's distribution over 1000 classes is the target of the tower's own
  zero-shot distribution over the class names, which pulls concepts the captions never name to the place where
  their names lie. It is asked about photographs, about random windows of their token grids, and about features
  moved towards a random class, since the photographs show few of the thousand;
- optionally, real CLIP: similarities among photographs under CLIP ViT-B/32 image vectors, for the training
  photographs that have one.

Everything random comes from the recipe's seed: on one machine with one thread count the weights repeat exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from onlooker.operators.tower.calibration import Calibration
from onlooker.operators.tower.loading import WEIGHTS_FILE
from onlooker.training.evaluate import Retrieval, figures
from onlooker.training.features import GRID_TOKENS, WIDTH, cache_trunk, imagenet_trunk
from onlooker.training.tiny import EMBED_DIM, TinyModel

Log = Callable[[str], None]

# Features are drawn half-way to the mean, which keeps the length of real ones, then moved this many class directions:
# from a trace of the class (the classifier agrees for a third of them) to a clear case of it (nine in ten).
SHRINK = 0.5
MOVES = (3.0, 9.0)


@dataclass(frozen=True)
class TowerRecipe:
    """How to train; the defaults are those of the shipped weights.

    Attributes:
        seed: everything random depends on it alone.
        epochs: passes over the photographs.
        batch: photographs a step.
        rate: peak learning rate of the image head (50 steps of warm-up, then cosine to zero).
        text_rate: the text map's share of that rate.
        decay: AdamW's weight decay.
        dropout: on pooled features and on the hidden layer.
        classes: weight of the ImageNet term.
        clip: weight of the CLIP term; 0 because it lowered dev R@1.
        moved: share of the ImageNet term's rows that are moved towards a random class.
        windows: random token windows kept for each photograph.
    """

    seed: int = 0
    epochs: int = 20
    batch: int = 500
    rate: float = 1e-3
    text_rate: float = 0.3
    decay: float = 0.05
    dropout: float = 0.2
    classes: float = 0.5
    clip: float = 0.0
    moved: float = 0.5
    windows: int = 10


class Heads(nn.Module):
    """What is trained: the image head, the text map and one temperature for each kind of comparison."""

    def __init__(self, dropout: float) -> None:
        """Start the text map at the identity and temperatures at 1/20."""
        super().__init__()
        self.hidden = nn.Linear(WIDTH, 2 * EMBED_DIM)
        self.out = nn.Linear(2 * EMBED_DIM, EMBED_DIM, bias=False)
        self.text = nn.Linear(EMBED_DIM, EMBED_DIM, bias=False)
        nn.init.eye_(self.text.weight)
        self.drop = nn.Dropout(dropout)
        self.scales = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(math.log(20.0))) for name in ("pairs", "classes", "clip")}
        )

    @classmethod
    def of_tower(cls, folder: Path, dropout: float) -> Heads:
        """Return the heads that :func:`train_tower` wrote to a folder; only the temperature of pairs was kept."""
        state = load_file(folder / WEIGHTS_FILE)
        heads = cls(dropout)
        names = {
            "visual.head.mlp.fc1.weight": heads.hidden.weight,
            "visual.head.mlp.fc1.bias": heads.hidden.bias,
            "visual.head.mlp.fc2.weight": heads.out.weight,
            "text.proj.weight": heads.text.weight,
            "logit_scale": heads.scales["pairs"],
        }
        with torch.no_grad():
            for name, parameter in names.items():
                parameter.copy_(state[name])
        return heads

    def images(self, pooled: Tensor) -> Tensor:
        """Return unit embeddings (B, E) of pooled trunk features (B, 1280)."""
        return F.normalize(self.out(self.drop(F.gelu(self.hidden(self.drop(pooled))))), dim=-1)

    def texts(self, sentences: Tensor) -> Tensor:
        """Return unit embeddings (B, E) of pooled MiniLM states (B, 384)."""
        return F.normalize(self.text(sentences), dim=-1)

    def scale(self, name: str) -> Tensor:
        """Return the inverse temperature of one comparison, at most 100."""
        scale: Tensor = self.scales[name].exp().clamp(max=100.0)
        return scale


@dataclass(frozen=True)
class TowerData:
    """Frozen features of the training split.

    Attributes:
        pooled: (P, V, 1280) mean grid tokens of each view.
        windows: (P, W, 1280) mean tokens of random windows of the whole photograph.
        sentences: (P, 5, 384) MiniLM states of the captions.
        class_names: (1000, 384) MiniLM states of "a photo of a <class>".
        clip: (P, 512) unit CLIP vectors, zero where there is none.
    """

    pooled: Tensor
    windows: Tensor
    sentences: Tensor
    class_names: Tensor
    clip: Tensor


def train_tower(cache: Path, data: Path, out: Path, recipe: TowerRecipe | None = None, log: Log = print) -> Retrieval:
    """Train ``tiny`` on a complete feature cache, write it to the folder ``out`` and return its dev figures.

    Args:
        cache: folder of :func:`onlooker.training.features.fill_cache`; sentence states are cached there too.
        data: the data folder.
        out: where ``open_clip_model.safetensors``, its configuration, vocabulary and calibration go.

    Raises:
        FileNotFoundError: the cache does not exist.
        ValueError: the cache is not complete.
    """
    recipe = recipe or TowerRecipe()
    tiny = TinyModel(out, cache_trunk(cache))
    train = load_data(cache, data, tiny, recipe)
    heads = fit(train, recipe, log)
    dev = evaluate_heads(heads, mean_tokens(cache, "dev")[:, 0], tiny.cached_captions(cache, data, "dev"))
    log(f"dev t2i {dev.text_to_image} i2t {dev.image_to_text} AUROC {dev.auroc_raw:.4f}")
    tiny.set_heads(heads.hidden, heads.out, heads.text, heads.scale("pairs"))
    tiny.save()
    with torch.inference_mode():
        calibration = Calibration.measure(heads.images(train.pooled.flatten(0, 1)))
    calibration.save(out / "calibration.safetensors")
    return dev


def load_data(cache: Path, data: Path, tiny: TinyModel, recipe: TowerRecipe) -> TowerData:
    """Read the training split and encode its sentences."""
    names = [f"a photo of a {name}" for name in open_clip.IMAGENET_CLASSNAMES]
    return TowerData(
        pooled=mean_tokens(cache, "train"),
        windows=random_windows(cache, recipe.windows, recipe.seed),
        sentences=tiny.cached_captions(cache, data, "train"),
        class_names=tiny.encode(names),
        clip=clip_vectors(data, json.loads((cache / "index.json").read_text(encoding="utf-8"))["train"]),
    )


def mean_tokens(cache: Path, split: str) -> Tensor:
    """Return mean grid tokens (P, V, 1280) float32 of a split."""
    missing = int((~np.load(cache / f"done_{split}.npy")).sum())
    if missing:
        raise ValueError(f"feature cache: {missing} views of split {split!r} are not filled yet; run fill_cache first")
    tokens = np.load(cache / f"tokens_{split}.npy", mmap_mode="r")
    return torch.stack([torch.from_numpy(row.astype(np.float32)).mean(1) for row in tokens])


def random_windows(cache: Path, count: int, seed: int) -> Tensor:
    """Return mean tokens (P, count, 1280) of windows of 2x2 to 5x5 cells of each whole photograph."""
    tokens = np.load(cache / "tokens_train.npy", mmap_mode="r")
    rng = np.random.default_rng(seed)
    side = math.isqrt(GRID_TOKENS)
    out = torch.empty(len(tokens), count, WIDTH)
    for index in range(len(tokens)):
        grid = tokens[index, 0].astype(np.float32).reshape(side, side, WIDTH)
        for number in range(count):
            height, width = rng.integers(2, 6, 2)
            top, left = rng.integers(0, side + 1 - height), rng.integers(0, side + 1 - width)
            out[index, number] = torch.from_numpy(grid[top : top + height, left : left + width].mean((0, 1)))
    return out


def clip_vectors(data: Path, files: list[str]) -> Tensor:
    """Return unit CLIP ViT-B/32 vectors (P, 512) of the named photographs, zero rows where there is none."""
    stored = np.load(data / "clip_vectors" / "clip_b32_openai_flickr8k_2.4k.npz")
    rows = {str(name): index for index, name in enumerate(stored["files"])}
    vectors = torch.from_numpy(stored["emb"].astype(np.float32))
    out = torch.zeros(len(files), vectors.shape[1])
    for index, name in enumerate(files):
        if name in rows:
            out[index] = F.normalize(vectors[rows[name]], dim=0)
    return out


def fit(train: TowerData, recipe: TowerRecipe, log: Log = print) -> Heads:
    """Return trained heads in eval mode."""
    torch.manual_seed(recipe.seed)
    heads = Heads(recipe.dropout).train()
    teacher = ImageNet(train.pooled[:, 0], recipe.moved) if recipe.classes else None
    with_clip = train.clip.any(1).nonzero()[:, 0]
    image_side = [value for name, value in heads.named_parameters() if not name.startswith("text.")]
    optimizer = torch.optim.AdamW(
        [{"params": image_side, "share": 1.0}, {"params": heads.text.parameters(), "share": recipe.text_rate}],
        lr=recipe.rate,
        weight_decay=recipe.decay,
    )
    photographs = len(train.pooled)
    batch = min(recipe.batch, photographs)
    steps = recipe.epochs * (photographs // batch)
    step = 0
    for epoch in range(recipe.epochs):
        order, total = torch.randperm(photographs), 0.0
        for start in range(0, photographs - batch + 1, batch):
            rate = recipe.rate * min(1.0, step / 50) * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            chosen = order[start : start + batch]
            loss = pair_loss(heads, train, chosen)
            if teacher is not None:
                loss = loss + recipe.classes * class_loss(heads, train, chosen, teacher)
            if recipe.clip and len(with_clip):
                loss = loss + recipe.clip * clip_loss(heads, train, with_clip, batch // 2)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach())
            step += 1
        log(f"epoch {epoch + 1}/{recipe.epochs} loss {total / (photographs // batch):.4f}")
    return heads.eval()


def pair_loss(heads: Heads, train: TowerData, chosen: Tensor) -> Tensor:
    """Symmetric InfoNCE of one random view and one random caption of each chosen photograph."""
    views = torch.randint(train.pooled.shape[1], chosen.shape)
    captions = torch.randint(train.sentences.shape[1], chosen.shape)
    images = heads.images(train.pooled[chosen, views])  # (B, E)
    logits = heads.scale("pairs") * images @ heads.texts(train.sentences[chosen, captions]).T  # (B, B)
    own = torch.arange(len(chosen))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class ImageNet:
    """The trunk's classifier as a teacher.

    A linear classifier's weights are its class means up to the features' covariance (linear discriminant analysis:
    w_c = S^-1 (m_c - m)), so S w_c points from the mean feature towards class c.
    """

    def __init__(self, pooled: Tensor, moved: float) -> None:
        """Measure the covariance of pooled features (P, 1280)."""
        self.classifier = imagenet_trunk().get_submodule("classifier")
        weight = self.classifier.get_parameter("weight")
        self.mean = pooled.mean(0)
        self.directions = (weight - weight.mean(0)) @ torch.cov(pooled.T)  # (1000, 1280)
        self.moved = moved

    def question(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Move a share of the features (B, 1280) towards random classes; return them and their class targets."""
        count = int(self.moved * len(pooled))
        towards = self.directions[torch.randint(len(self.directions), (count,))]
        moved = torch.lerp(self.mean, pooled[:count], SHRINK) + torch.empty(count, 1).uniform_(*MOVES) * towards
        features = torch.cat([moved.clamp_min(0.0), pooled[count:]])  # the trunk ends in ReLU6
        with torch.no_grad():
            return features, self.classifier(features).softmax(-1)


def class_loss(heads: Heads, train: TowerData, chosen: Tensor, teacher: ImageNet) -> Tensor:
    """KL of the tower's zero-shot class distribution from the trunk's own, half on photographs, half on windows."""
    half = chosen[: len(chosen) // 2]
    windows = torch.randint(train.windows.shape[1], half.shape)
    views = torch.randint(train.pooled.shape[1], half.shape)
    pooled = torch.cat([train.pooled[half, views], train.windows[half, windows]])  # (B, 1280)
    features, target = teacher.question(pooled[torch.randperm(len(pooled))])
    logits = heads.scale("classes") * heads.images(features) @ heads.texts(train.class_names).T
    return F.kl_div(logits.log_softmax(-1), target, reduction="batchmean")


def clip_loss(heads: Heads, train: TowerData, with_clip: Tensor, count: int) -> Tensor:
    """KL between whom each photograph resembles here and whom it resembles under CLIP (temperature .03)."""
    chosen = with_clip[torch.randperm(len(with_clip))[:count]]
    images = heads.images(train.pooled[chosen, torch.randint(train.pooled.shape[1], chosen.shape)])
    itself = torch.eye(len(chosen)) * 1e4  # takes each photograph out of its own comparison
    target = (train.clip[chosen] @ train.clip[chosen].T / 0.03 - itself).softmax(-1)
    logits = heads.scale("clip") * images @ images.T - itself
    return F.kl_div(logits.log_softmax(-1), target, reduction="batchmean")


@torch.inference_mode()
def evaluate_heads(heads: Heads, pooled: Tensor, sentences: Tensor) -> Retrieval:
    """Return the figures of pooled features (P, 1280) and sentence states (P, 5, 384)."""
    owners = torch.arange(len(pooled)).repeat_interleave(sentences.shape[1])
    scores = heads.texts(sentences.flatten(0, 1)) @ heads.images(pooled).T
    return figures(scores, owners)
