"""Live sources: cameras and streams that stall, reconnect, drift and lie about time.

`LiveReader` keeps one source going for ever and tells frames, epochs and states; `diagnose` looks at one once. Decoding
happens in a child process that can be killed at any moment. Nothing here imports torch.
"""

from ..clip import ClipError
from .address import AddressError, LiveAddress, parse_source
from .clock import Wall
from .diagnosis import Report, diagnose
from .items import ClipCut, EpochStart, Item, LiveFrame, LiveState, Notice, StateChange
from .options import LiveOptions
from .problems import Problem
from .reader import LiveReader

__all__ = [
    "AddressError",
    "ClipCut",
    "ClipError",
    "EpochStart",
    "Item",
    "LiveAddress",
    "LiveFrame",
    "LiveOptions",
    "LiveReader",
    "LiveState",
    "Notice",
    "Problem",
    "Report",
    "StateChange",
    "Wall",
    "diagnose",
    "parse_source",
]
