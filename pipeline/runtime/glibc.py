"""What is told to glibc's allocator; elsewhere than on glibc nothing here does anything."""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["give_back_freed_memory", "keep_freed_memory"]


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed activations instead of giving it back after each model call.

    Otherwise every call faults its tens of megabytes in again, a quarter of a CNN's time. One arena for all threads,
    since only the main one can grow without limit. Elsewhere than on glibc this does nothing.
    """
    mmap_threshold, trim_threshold, arena_max = -3, -1, -8  # malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((arena_max, 1), (mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1)):
        mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Return what loading took and freed to the system; glibc would keep it, see `keep_freed_memory`.

    A tower is built whole before the side that is not used is dropped: that is 100 MB. Elsewhere than on glibc this
    does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
