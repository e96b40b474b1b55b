"""The one error a video source raises when it cannot be used at all."""

from typing import Literal

from ..errors import OnlookerError

SourceErrorCode = Literal[
    "missing",
    "permission",
    "not_a_file",
    "empty",
    "not_a_video",
    "no_video_stream",
    "no_such_stream",
    "no_frames",
    "changed",
]


class SourceError(OnlookerError):
    """A video source cannot be read, and no frame of it was delivered.

    The message is one line: the file's name without its folder, what is wrong, what to do. A file that breaks off
    half way is not an error but an end reason, see `EndOfVideo`.
    """

    def __init__(self, code: SourceErrorCode, message: str) -> None:
        """Keep the one-line message and a code to tell the cases apart."""
        super().__init__(message)
        self.code: SourceErrorCode = code

    def __reduce__(self) -> tuple[type["SourceError"], tuple[SourceErrorCode, str]]:
        """Rebuild from both arguments; `args` holds the message alone and could not cross a process border."""
        return type(self), (self.code, str(self))
