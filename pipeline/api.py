"""The Python interface: ``onlooker.watch`` and ``onlooker.load``."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from onlooker.operators.events import Event

from .assemble import EMBEDDED_MODEL, is_live, make_plan, runner_factory, source_spec, source_specs
from .clips import CLIP_SECONDS, ClipSettings
from .progress import Progress
from .secrets import Secrets
from .session import Session

__all__ = ["Model", "Watch", "load", "watch"]


def watch(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    queries: Sequence[str] = (),
    classes: str | PathLike[str] | Sequence[str] = (),
    graph: str = "file",
    model: str | None = None,
    pretrained: str | None = None,
    runner: str = "local",
    address: str | None = None,
    stream: str | None = None,
    overrides: Sequence[str] = (),
    pace: Literal["fast", "realtime"] = "fast",
    clips: str | PathLike[str] | None = None,
    stay: bool = False,
    secrets: str | PathLike[str] | None = None,
) -> Watch:
    """Watch a video or cameras and yield events as they become known.

    Leaving the loop early stops the run.

    Args:
        source: the video file; or a live source such as ``rtsp://host/path``, ``webcam:0``; or several of one kind.
        queries: what to look for, in words.
        classes: names of what to look for, as of kinds of things or actions; or a file with one a line.
        graph: name of a built-in graph, or a YAML file.
        model: tower to use instead of the graph's: an open_clip name or a checkpoint.
        pretrained: open_clip pretrained tag of that tower.
        runner: ``local`` (this process) or ``ray``.
        address: Ray cluster to join.
        stream: name of the stream in the events, if there is one; by default made from the name of the file or host.
        overrides: ``node.key=value`` assignments, e.g. ``decode.fps=4``.
        pace: ``realtime`` reads a file as if it were a camera.
        clips: folder for a video and a picture of each caption and query event that ends; ``event.data.side`` names
            them as ``clip`` and ``key_frame``. The oldest give way when all are larger than 2 GB.
        stay: go on until interrupted when no live source is left; ``source`` may be empty, cameras come by ``add``.
        secrets: file for ``${secret:NAME}`` in the source and the graph.

    Returns:
        An iterator over the events in the order of the log: ``event.kind``, ``event.phase``, ``event.t_start``,
        ``event.data.text`` ... It has methods to add and remove cameras.

    Raises:
        OnlookerError: the graph or an argument is wrong.
        SourceError: the video cannot be read.

    Example:
        >>> for event in onlooker.watch("street.mp4", queries=["a red car"]):
        ...     if event.phase == "end":
        ...         print(event.t_start, event.t_end, event.to_json())
    """
    given = [source] if isinstance(source, str | PathLike) else list(source)
    known = Secrets(None if secrets is None else Path(secrets))
    uris = [known.resolve(str(one), "the source") for one in given]
    plan = make_plan(
        graph,
        model=model,
        pretrained=pretrained,
        queries=queries,
        classes=Path(classes) if isinstance(classes, PathLike) else classes,
        overrides=overrides,
        live=pace == "realtime" or stay or any(map(is_live, uris)),
        record=CLIP_SECONDS if clips is not None else 0.0,
        secrets=known,
    )
    specs = source_specs(uris)
    if stream is not None:
        [spec] = specs
        specs = [source_spec(spec.uri, stream)]
    chosen = None if clips is None else ClipSettings(clips)
    return Watch(Session(plan.graph, runner_factory(runner, address), specs, [], clips=chosen, stay=stay), known)


class Watch(Iterator[Event]):
    """The events of a run, and a hand on it. Closing it, or dropping it, stops the run."""

    def __init__(self, session: Session, secrets: Secrets | None = None) -> None:
        """Begin with the first event that is asked for."""
        self._session, self._secrets = session, secrets or Secrets()
        self._events: Generator[Event, None, None] = session.events()

    def __next__(self) -> Event:
        """Wait for the next event."""
        return next(self._events)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def progress(self) -> Progress:
        """Where the run stands; per live stream its state, rate, age and counters."""
        return self._session.progress

    def add(self, source: str, stream: str | None = None) -> str:
        """Watch one more live source while the run goes on; from any thread. Returns the name of the stream.

        Raises:
            UsageError: there is such a stream, the run is over, or it reads files.
            OnlookerError: the address or a secret in it cannot be read.
        """
        spec = source_spec(self._secrets.resolve(source, "the source"), stream)
        self._session.add(spec)
        return spec.stream

    def remove(self, stream: str) -> None:
        """End one stream and go on with the others; from any thread. See ``Session.remove``."""
        self._session.remove(stream)

    def interrupt(self) -> None:
        """End all streams soon; the events of what was read still come. From any thread."""
        self._session.interrupt()

    def close(self) -> None:
        """Stop at once, leaving nothing behind; harmless when repeated. Not while another thread iterates."""
        self._events.close()


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
