"""Wall times of cameras whose clocks run fast, jump, or are not told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from onlooker.pipeline.simulate import SimulatedCamera
from soak.scenario import Found, Soak, word
from soak.watching import Seen

ROUNDING = 0.001
"""Wall times are written in milliseconds."""


def clock(soak: Soak) -> Found:
    """Wall times of three cameras against what their clocks said when the frames arrived.

    They send MJPEG: libav's parser of H.264 passes a frame on when the next one begins, so that it arrives late by one.
    """
    half, hour, fast = soak.args.clock / 2, 3600.0, 100e-6
    options: dict[str, dict[str, Any]] = {
        "fast": {"clock_drift": 100},
        "jumps": {},
        "silent": {"clock_drift": 100, "sender_reports": False},
    }
    with contextlib.ExitStack() as stack:
        began = time.time()
        cameras = {
            name: stack.enter_context(SimulatedCamera(soak.video, codec="mjpeg", **option))
            for name, option in options.items()
        }
        watched = stack.enter_context(soak.watch({name: camera.url for name, camera in cameras.items()}))
        for name in ("fast", "jumps"):
            watched.until(lambda: any(one.source == "rtcp" for one in watched.frames[name]), "sender reports")  # noqa: B023
        time.sleep(half)
        jumped = time.time()
        cameras["jumps"].fault("clock", jump=hour)
        time.sleep(half)
    told = {name: [one for one in watched.frames[name] if one.source == "rtcp"] for name in ("fast", "jumps")}
    after = [one for one in told["jumps"] if one.arrived > jumped]
    followed = next((one.arrived for one in after if one.unix - one.arrived > hour / 2), float("inf"))
    truths: dict[str, tuple[list[Seen], Callable[[float], float]]] = {
        "100 ppm fast": (told["fast"], lambda unix: unix + fast * (unix - began)),
        "before it jumps": ([one for one in told["jumps"] if one.arrived < jumped], lambda unix: unix),
        "jumped by an hour": ([one for one in after if one.arrived >= followed], lambda unix: unix + hour),
        "100 ppm fast, no reports": (watched.frames["silent"], lambda unix: unix),
    }
    rows: list[list[object]] = []
    good = followed - jumped < 15 and watched.conserved()
    for name, (frames, truth) in truths.items():
        errors = _errors(frames, truth)
        declared = max((one.error for one in frames), default=0.0)
        inside = bool(errors) and all(abs(error) <= bound + ROUNDING for error, bound in errors)
        good = good and inside
        worst = f"{max((abs(error) for error, _ in errors), default=0.0) * 1e3:.1f}"
        source = ", ".join(sorted({one.source for one in frames}))
        rows.append([name, source, len(frames), worst, f"{declared * 1e3:.1f}", word(inside)])
    twin = _errors(truths["jumped by an hour"][0], lambda unix: unix)
    unmoved = bool(twin) and all(abs(error) > bound for error, bound in twin)
    gap = f"{followed - jumped:.1f} s"
    rows.append(["twin: against a clock that did not jump", "rtcp", "", "", "", word(not unmoved)])
    rule = (
        "of each 5 s, the frame that was under way for the shortest time stands where the camera's clock stood at its "
        f"arrival (without reports: the host's), within the bound in the event; a jump is followed in 15 s ({gap}: the "
        "camera tells it in its next report); conservation"
    )
    header = ["camera", "declared source", "frames", "worst error, ms", "declared bound, ms", "held"]
    return Found(good and unmoved, rule, header, rows)


def _errors(frames: list[Seen], truth: Callable[[float], float]) -> list[tuple[float, float]]:
    """(error, bound) of the frame with the smallest delay in each five seconds."""
    windows: dict[int, list[tuple[float, float]]] = {}
    for one in frames:
        windows.setdefault(int(one.arrived / 5), []).append((one.unix - truth(one.arrived), one.error))
    return [max(window) for window in windows.values()]
