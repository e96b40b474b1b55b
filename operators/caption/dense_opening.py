"""What the nodes of the dense captioner open alike: the model of a folder, its search, and the reader of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import OnlookerError
from .dense import DenseCaptioner
from .dense_config import DenseConfig, SearchConfig
from .dense_events import wordpiece_text
from .dense_load import load_video_captioner
from .live import LiveCaptions


class OpenedCaptioner(NamedTuple):
    """A dense captioner that is ready to be used."""

    model: DenseCaptioner
    """In eval mode on its device."""
    search: SearchConfig
    captions: LiveCaptions
    """Reads the model's rows, and leads contexts from point to point."""


def open_dense_captioner(
    name_or_folder: str, device: str, beam: int | None = None, revise: float = 0.0, shortest: float = 0.0
) -> OpenedCaptioner:
    """Load a dense captioner.

    Args:
        name_or_folder: a dense captioner that comes with the package, or a folder that `save_video_captioner` wrote.
        device: where it runs.
        beam: beams, 1 = greedy; None for the model's own search.
        revise: seconds by which an interval has to move to be told again.
        shortest: seconds below which an event is not told.

    Raises:
        OnlookerError: there is no such captioner, or one that writes one text about a whole video.
    """
    model, pieces = load_video_captioner(name_or_folder, device)
    if not isinstance(model, DenseCaptioner):
        raise OnlookerError(f"model {name_or_folder!r} writes one text about a whole video, not events with times")
    search = model.config.search
    if beam is not None:
        search = SearchConfig("greedy" if beam == 1 else "beam", beam, search.alpha)
    return OpenedCaptioner(model, search, row_reader(model.config, pieces, revise, shortest))


def row_reader(config: DenseConfig, pieces: Sequence[str], revise: float = 0.0, shortest: float = 0.0) -> LiveCaptions:
    """What reads the rows that a dense captioner decodes; arguments as of `open_dense_captioner`."""
    return LiveCaptions(
        config.times,
        config.max_length,
        config.decoder.begin_token,
        config.decoder.end_token,
        lambda ids: wordpiece_text(ids, pieces),
        round(revise * 1e6),
        with_times=not config.context.no_timestamp_in_context,
        shortest_us=round(shortest * 1e6),
    )


def require_width(model: DenseCaptioner, width: int) -> None:
    """Refuse tokens of another tower.

    Raises:
        OnlookerError: the captioner reads tokens of another width.
    """
    wanted = model.config.token_width
    if width != wanted:
        tower = "its own trunk: -o tower.model=trunk:FOLDER" if model.encoder is not None else "the one it learnt from"
        raise OnlookerError(
            f"the dense captioner reads tokens of width {wanted}, the tower makes {width}: name {tower}"
        )
