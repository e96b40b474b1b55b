"""The Python interface: ``onlooker.watch`` and ``onlooker.load``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onlooker.operators.events import Event

from .assemble import EMBEDDED_MODEL, make_plan, runner_factory, source_spec
from .session import Session

if TYPE_CHECKING:
    pass

__all__ = ["Model", "load", "watch"]


def watch(
    source: str | PathLike[str],
    *,
    queries: Sequence[str] = (),
    graph: str = "file",
    model: str | None = None,
    pretrained: str | None = None,
    runner: str = "local",
    address: str | None = None,
    stream: str | None = None,
    overrides: Sequence[str] = (),
) -> Iterator[Event]:
    """Watch a video and yield its events as they become known.

    Leaving the loop early stops the run.

    Args:
        source: the video file.
        queries: what to look for, in words.
        graph: name of a built-in graph, or a YAML file.
        model: tower to use instead of the graph's: an open_clip name or a checkpoint.
        pretrained: open_clip pretrained tag of that tower.
        runner: ``local`` (this process) or ``ray``.
        address: Ray cluster to join.
        stream: name of the stream in the events; by default made from the file's name.
        overrides: ``node.key=value`` assignments, e.g. ``decode.fps=4``.

    Yields:
        Events in the order of the log; ``event.kind``, ``event.phase``, ``event.t_start``, ``event.data.text`` ...

    Raises:
        OnlookerError: the graph or an argument is wrong.
        SourceError: the video cannot be read.

    Example:
        >>> for event in onlooker.watch("street.mp4", queries=["a red car"]):
        ...     if event.phase == "end":
        ...         print(event.t_start, event.t_end, event.to_json())
    """
    plan = make_plan(graph, model=model, pretrained=pretrained, queries=queries, overrides=overrides)
    session = Session(plan.graph, runner_factory(runner, address), [source_spec(str(source), stream)], [])
    return session.events()


def load(name: str = EMBEDDED_MODEL, pretrained: str | None = None, *, device: str = "cpu") -> Model:
    """Load a model by name.

    Args:
        name: ``tiny`` (embedded), any open_clip model name, or a checkpoint folder.
        pretrained: open_clip pretrained tag; open_clip downloads the weights on first use.
        device: where it runs.

    Raises:
        UnknownModelError: there is no such model; the message names the nearest.
    """
    return Model(name, pretrained, device)


class Model:
    """Pictures and texts in one space, and, for ``tiny``, captions of pictures."""

    def __init__(self, name: str, pretrained: str | None = None, device: str = "cpu") -> None:
        """Load the tower; the caption decoder is loaded on the first caption."""
        from onlooker.operators.tower import load_tower

        self.name = name
        self._tower = load_tower(name, pretrained, device=device)

    def embed_images(self, images: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Embed pictures.

        Args:
            images: N PIL images or (H, W, 3) uint8 RGB arrays, of any sizes.

        Returns:
            (N, D) float32, unit norm.

        Raises:
            ValueError: an array is no RGB picture.
        """
        return _unit(self._tower.encode_frames(self._tower.preprocess(_pictures(images))).features)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts: N strings to (N, D) float32, unit norm."""
        return _unit(self._tower.encode_texts(list(texts)))

    def caption(self, images: Sequence[Any]) -> list[tuple[str, float]]:
        """Caption pictures, each on its own.

        Args:
            images: N PIL images or (H, W, 3) uint8 RGB arrays.

        Returns:
            N pairs of caption and score (mean log-probability of its tokens, length-normalised).

        Raises:
            ValueError: there is no caption decoder for this tower.
        """
        if self.name != EMBEDDED_MODEL:
            raise ValueError(f"no caption decoder belongs to {self.name!r}; load {EMBEDDED_MODEL!r} for captions.")
        from onlooker.operators.caption.load import load_captioner

        tokens = self._tower.encode_frames(self._tower.preprocess(_pictures(images))).tokens  # (N, 49, 1280)
        captioner = load_captioner(EMBEDDED_MODEL)
        return [captioner.caption(picture)[0] for picture in tokens]


def _pictures(images: Sequence[Any]) -> Sequence[Any]:
    for i, image in enumerate(images):
        if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
            raise ValueError(
                f"images should be PIL images or (H, W, 3) uint8 RGB arrays; images[{i}] is {image.dtype} {image.shape}"
            )
    return images


def _unit(vectors: Any) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
    unit: npt.NDArray[np.float32] = array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)
    return unit
