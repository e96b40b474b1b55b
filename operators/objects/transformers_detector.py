"""Object detectors of Hugging Face transformers behind one function: frames to boxes, scores and names.

| kind | model types | names |
|---|---|---|
| open vocabulary | `owlv2`, `owlvit`, `grounding-dino`, `mm-grounding-dino` | whatever is asked for, in words |
| closed | `rt_detr`, `rt_detr_v2`, `d_fine` | the model's own; those asked for, or all |

The models run in transformers itself, and pictures are prepared by their checkpoints' own processors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OnlookerError
from ..git_checkpoint import first_line, quiet
from ..packets import FloatArray
from ..registry import suggest
from .densevoc.boxes import pairwise_iou

__all__ = ["Found", "TransformersDetector", "TransformersDetectorError", "load_transformers_detector"]

RGB = npt.NDArray[np.uint8]

_SQUASHED = 0.02
"""From this relative difference of aspects on a frame counts as squashed."""


class TransformersDetectorError(OnlookerError):
    """A detector cannot be found, is of no known kind, or does not know what it is asked for."""


class Found(NamedTuple):
    """The objects of one picture, best first."""

    boxes: FloatArray
    """(N, 4) x0, y0, x1, y1 as parts of the picture, from 0 to 1."""
    scores: FloatArray
    """(N,)"""
    names: tuple[str, ...]


class TransformersDetector(ABC):
    """A detector and its processor."""

    least_score: float
    """From which score its detections are usually believed."""
    nms: float | None = None
    """Overlap from which the weaker of two boxes of one name goes; None for models that tell each object once."""

    def __init__(self, model: Any, processor: Any, names: Sequence[str], batch: int) -> None:
        """Keep the parts; ``processor`` prepares pictures."""
        self._model, self._processor, self._batch = model, processor, batch
        self.names = tuple(names)
        """What is looked for."""

    def detect(
        self, frames: Sequence[RGB], sizes: Sequence[tuple[int, int]], least: float, most: int, nms: float | None = None
    ) -> list[Found]:
        """Detect in frames of any sizes, in calls of one fixed number of pictures, filled up with black ones.

        Args:
            frames: (H, W, 3) uint8 each, perhaps squashed.
            sizes: (width, height) of the pictures as they were; their aspects count.
            least: detections below are left out.
            most: detections of a picture, the best ones.
            nms: instead of the model's own threshold.
        """
        found: dict[int, Found] = {}
        pictures = [_unsquashed(frame, size) for frame, size in zip(frames, sizes, strict=True)]
        overlap = self.nms if nms is None else nms
        for places in _groups([picture.shape for picture in pictures], self._batch):
            pixels = self._prepared([pictures[i] for i in places])
            with torch.inference_mode():
                boxes, scores = self._run(pixels, pictures[places[0]].shape[:2])
            for row, place in enumerate(places):
                found[place] = self._best(boxes[row].cpu(), scores[row].cpu(), least, most, overlap)
        return [found[i] for i in range(len(frames))]

    def _prepared(self, pictures: Sequence[RGB]) -> dict[str, Tensor]:
        """The processor's tensors of a whole batch of pictures of one size."""
        black = np.zeros_like(pictures[0])
        filled = [*pictures, *[black] * (self._batch - len(pictures))]
        return dict(self._processor(images=filled, return_tensors="pt").to(self._model.device))

    @abstractmethod
    def _run(self, pixels: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4) x0 y0 x1 y1 as parts of the pictures, and scores (B, Q, names); pictures are (H, W)."""

    def _best(self, boxes: Tensor, scores: Tensor, least: float, most: int, nms: float | None) -> Found:
        best, label = scores.float().max(1)  # Q
        boxes = boxes.float().clamp(0, 1)
        seen = (best >= least) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, best, label = boxes[seen], best[seen], label[seen]
        order = best.argsort(descending=True, stable=True)
        if nms is not None:
            order = order[_unsuppressed(boxes[order], label[order], nms)]
        order = order[:most]
        names = tuple(self.names[i] for i in label[order].tolist())
        return Found(boxes[order].numpy(), best[order].numpy(), names)


class _Closed(TransformersDetector):
    """RT-DETR and its kin: a sigmoid for each of the model's own classes, no suppression needed."""

    least_score = 0.5

    def __init__(self, model: Any, processor: Any, names: Sequence[str], batch: int) -> None:
        labels = [str(label) for _, label in sorted(model.config.id2label.items())]
        for name in names:
            if name not in labels:
                raise TransformersDetectorError(f"this detector knows no {name!r}; {suggest(name, labels)}")
        super().__init__(model, processor, names or labels, batch)
        self._columns = [labels.index(name) for name in self.names]

    def _run(self, pixels: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        output = self._model(**pixels)
        boxes = _corners(output.pred_boxes)
        if (mask := pixels.get("pixel_mask")) is not None:  # padded, which these models take for picture
            height, width = mask.shape[-2:]
            boxes = boxes * boxes.new_tensor([width, height] * 2) / _filled(mask[0])
        return boxes, output.logits.sigmoid()[..., self._columns]


class _Owl(TransformersDetector):
    """OWLv2 and OWL-ViT: every patch tells a box, compared with the words; so neighbours tell of one object."""

    least_score = 0.1
    nms = 0.5

    def __init__(self, model: Any, processor: Any, tokenizer: Any, names: Sequence[str], batch: int) -> None:
        super().__init__(model, processor, _asked(names), batch)
        length = int(model.config.text_config.max_position_embeddings)
        texts = [f"a photo of a {name}" for name in self.names]
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        self._text = {key: tokens[key].to(model.device) for key in ("input_ids", "attention_mask")}
        # OWLv2 pads pictures to squares at the right and at the bottom; OWL-ViT squashes them.
        self._square = bool(getattr(processor, "do_pad", False))

    def _run(self, pixels: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        text = {key: each.repeat(self._batch, 1) for key, each in self._text.items()}
        output = self._model(**text, **pixels)
        boxes = _corners(output.pred_boxes)
        if self._square:
            height, width = size
            boxes = boxes * max(size) / boxes.new_tensor([width, height] * 2)
        return boxes, output.logits.sigmoid()


class _GroundingDino(TransformersDetector):
    """Grounding DINO: one sentence holds all names, and every box is compared with each of its tokens.

    A name's score is that of its best token. Boxes are parts of the picture without its padding.
    """

    least_score = 0.25

    def __init__(self, model: Any, processor: Any, tokenizer: Any, names: Sequence[str], batch: int) -> None:
        super().__init__(model, processor, _asked(names), batch)
        clean = [" ".join(name.lower().replace(".", " ").split()) for name in self.names]
        text = ". ".join(clean) + "."
        tokens = tokenizer(text, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True)
        spans = tokens.pop("offset_mapping")[0].tolist()
        if len(spans) > (most := int(model.config.max_text_len)):
            raise TransformersDetectorError(
                f"all names together are {len(spans)} tokens, and this detector reads {most}: ask for fewer at a time."
            )
        self._text = {key: each.to(model.device) for key, each in tokens.items()}
        self._tokens: list[list[int]] = []
        end = 0
        for name in clean:
            begin, end = end, end + len(name)
            self._tokens.append([i for i, (low, high) in enumerate(spans) if begin <= low < high <= end])
            end += len(". ")

    def _run(self, pixels: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        text = {key: each.expand(self._batch, -1) for key, each in self._text.items()}
        output = self._model(**text, **pixels)
        of_tokens = output.logits.sigmoid()
        scores = torch.stack([of_tokens[..., columns].amax(-1) for columns in self._tokens], -1)
        return _corners(output.pred_boxes), scores


_CLOSED = ("rt_detr", "rt_detr_v2", "d_fine")
_OWL = ("owlv2", "owlvit")
_DINO = ("grounding-dino", "mm-grounding-dino")


def load_transformers_detector(
    name: str | Path, names: Sequence[str] = (), *, batch: int = 1, device: str = "cpu"
) -> TransformersDetector:
    """A detector from a folder, or from the Hugging Face hub by its `owner/name`.

    Args:
        name: folder or name.
        names: what to look for, in words; empty for all that a closed detector knows.
        batch: pictures in one call.
        device: where it runs.

    Raises:
        TransformersDetectorError: see there.
    """
    import transformers

    library: Any = transformers  # parts of it are untyped
    try:
        kind = library.AutoConfig.from_pretrained(name).model_type
        if kind not in (*_CLOSED, *_OWL, *_DINO):
            raise ValueError(f"it is {kind!r}; known kinds: {', '.join((*_OWL, *_DINO, *_CLOSED))}")
        auto = library.AutoModelForObjectDetection if kind in _CLOSED else library.AutoModelForZeroShotObjectDetection
        with quiet(library.utils.logging):
            model, report = auto.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True)
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if wrong:
            raise ValueError(f"its weights lack {wrong[0]} and {len(wrong) - 1} more, or they have other shapes")
        processor = library.AutoImageProcessor.from_pretrained(name)
        tokenizer = None if kind in _CLOSED else library.AutoTokenizer.from_pretrained(name)
    except TransformersDetectorError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TransformersDetectorError(f"detector {str(name)!r} cannot be loaded: {first_line(error)}") from error
    model = model.float().eval().to(device)
    if kind in _CLOSED:
        return _Closed(model, processor, names, batch)
    return (_Owl if kind in _OWL else _GroundingDino)(model, processor, tokenizer, names, batch)


def _asked(names: Sequence[str]) -> Sequence[str]:
    if not names:
        raise TransformersDetectorError(
            "this detector finds what it is asked for: give it names, such as dog, red car."
        )
    return names


def _groups(shapes: Sequence[tuple[int, ...]], batch: int) -> Iterator[list[int]]:
    """Numbers of pictures of one shape, at most a batch of them at a time."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, shape in enumerate(shapes):
        alike.setdefault(shape, []).append(i)
    for places in alike.values():
        for start in range(0, len(places), batch):
            yield places[start : start + batch]


def _corners(boxes: Tensor) -> Tensor:
    """Centre and size (..., 4) to x0 y0 x1 y1."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], -1)


def _unsuppressed(boxes: Tensor, label: Tensor, overlap: float) -> Tensor:
    """Which of (N, 4) boxes, best first, overlap no better one of their label by more than that: (N,) bool."""
    stands = torch.ones(len(boxes), dtype=torch.bool)
    near = (pairwise_iou(boxes, boxes) > overlap) & (label[:, None] == label)
    for i in range(len(boxes)):
        if stands[i]:
            stands[i + 1 :] &= ~near[i, i + 1 :]
    return stands


def _filled(mask: Tensor) -> Tensor:
    """Width, height, width, height of the picture in a padded one, by its mask (H, W)."""
    height, width = mask.any(1).sum(), mask.any(0).sum()
    return torch.stack([width, height, width, height]).float()


def _unsquashed(frame: RGB, size: tuple[int, int]) -> RGB:
    """The frame with the aspect that the picture had; no side becomes smaller."""
    height, width = frame.shape[:2]
    stretch = (size[0] / size[1]) / (width / height)
    if abs(stretch - 1) < _SQUASHED:
        return frame
    new = (height, round(width * stretch)) if stretch > 1 else (round(height / stretch), width)
    pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None].float()
    scaled = F.interpolate(pixels, new, mode="bilinear", align_corners=False)
    return scaled.round().clamp(0, 255).byte()[0].permute(1, 2, 0).contiguous().numpy()
