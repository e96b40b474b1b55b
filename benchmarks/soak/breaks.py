"""Cameras that are killed, and cameras that go wrong in other ways beside a healthy one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from onlooker.pipeline.simulate import SimulatedCamera
from soak.scenario import Found, Soak, say, word
from soak.watching import PATIENCE, Watched, quantile

RATIO = 1.5
"""A fault elsewhere may raise the 95th percentile of age by this factor."""


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def kill(camera: SimulatedCamera) -> None:
    """End a camera without a word."""
    os.kill(camera.pid, signal.SIGKILL)
    camera.wait(PATIENCE)
    camera.stop()


def kills(soak: Soak) -> Found:
    """Kill and restart a camera; from each return, how long until a frame comes."""
    port = free_port()
    camera = SimulatedCamera(soak.video, port=port)
    waits: list[float] = []
    back: list[float] = []
    with soak.watch({"door": camera.url}) as watched:
        watched.more("door")
        for number in range(soak.args.kills):
            kill(camera)
            time.sleep(soak.args.down)
            watched.until(lambda: watched.states["door"][-1].status == "reconnecting", "the loss of the camera")
            camera = SimulatedCamera(soak.video, port=port)
            returned = time.monotonic()
            first = watched.first_after("door", returned)
            last = [told for told in watched.states["door"] if told.status == "reconnecting"][-1]
            waits.append(max(0.0, last.came + (last.retry_in or 0.0) - returned))
            back.append(first.came - returned)
            say(f"kill {number + 1} of {soak.args.kills}: frames {back[-1]:.1f} s after the return")
            watched.more("door", 3)
        camera.stop()
    epochs = (watched.states["door"][-1].counters or {}).get("epochs", 0)
    good = max(back) <= soak.allowed and watched.conserved() and epochs == soak.args.kills + 1
    rows: list[list[object]] = [
        [f"kills (--down {soak.args.down:g})", soak.args.kills],
        ["epochs of the log", epochs],
        ["s from the camera's return to the next attempt: median, worst", _both(waits)],
        ["s from the camera's return to the next frame: median, worst", _both(back)],
        ["every frame accounted for", watched.conserved()],
    ]
    rule = f"a frame within {soak.allowed:g} s of each return (longest wait {soak.args.cap:g} s, the rest to connect)"
    return Found(good, f"{rule}; an epoch for each life; conservation", ["", "found"], rows)


def _both(values: list[float]) -> str:
    return f"{statistics.median(values):.2f}, {max(values):.2f}"


@dataclass
class Fault:
    """Something that happens to a camera; `begin` returns when all is well again, with the camera that stands then."""

    name: str
    begin: Callable[[SimulatedCamera], SimulatedCamera]
    query: str = ""
    flowing: bool = False
    """Frames are to come also while it lasts."""


def fault_list(soak: Soak) -> list[Fault]:
    """The faults of the acceptance."""

    def lasting(wait: float, kind: str, **parameters: float | str) -> Callable[[SimulatedCamera], SimulatedCamera]:
        def begin(camera: SimulatedCamera) -> SimulatedCamera:
            camera.fault(kind, **parameters)
            time.sleep(wait)
            camera.clear()
            return camera

        return begin

    def replace(camera: SimulatedCamera) -> SimulatedCamera:
        port = int(camera.url.rpartition(":")[2].partition("/")[0])
        kill(camera)
        return SimulatedCamera(soak.other, port=port)

    brief, stall = soak.args.fault, soak.args.stall
    return [
        Fault(f"stalls for {stall:g} s, connections open", lasting(stall, "stall", seconds=stall)),
        Fault("replaced: H.265 320x240 for H.264 640x360", replace),
        Fault(f"answers 401 for {brief:g} s", lasting(brief, "401")),
        Fault(f"garbage for pictures, {brief:g} s", lasting(brief, "garbage", seconds=brief)),
        Fault(f"garbage between messages, {brief:g} s", lasting(brief, "garbage-rtsp", seconds=brief)),
        Fault(f"UDP with 5 % loss, {brief:g} s", lasting(brief, "loss", percent=5), "?transport=udp", True),
    ]


@dataclass
class Window:
    """A stretch of time and what the healthy camera did in it."""

    ages: list[float]
    drops: int
    seconds: float


def faults(soak: Soak) -> Found:
    """One fault after the other to a camera beside a healthy one."""
    lines: list[tuple[Fault, str, float, int, Window]] = []
    free: list[Window] = []
    with SimulatedCamera(soak.video) as healthy, soak.watch({"healthy": healthy.url}) as watched:
        watched.more("healthy", 10)
        for number, fault in enumerate(fault_list(soak)):
            name = f"faulty{number}"
            camera = SimulatedCamera(soak.video)
            watched.add(name, camera.url + fault.query)
            watched.more(name, 10)
            with _window(watched, free):
                time.sleep(soak.args.window)
            during: list[Window] = []
            states, frames = len(watched.states[name]), len(watched.frames[name])
            began = time.monotonic()
            with _window(watched, during):
                camera = fault.begin(camera)
                over, meanwhile = time.monotonic(), len(watched.frames[name]) - frames
                back = watched.first_after(name, over).came - over
                watched.more(name, 3)
                time.sleep(max(0.0, began + soak.args.fault - time.monotonic()))  # a quantile needs its samples
            told = ", ".join(dict.fromkeys(str(state) for state in watched.states[name][states:])) or "nothing"
            lines.append((fault, told, back, meanwhile, during[0]))
            say(f"{fault.name}: {told}; frames {back:.1f} s after it was over")
            watched.remove(name)
            camera.stop()
    calm = quantile([age for window in free for age in window.ages], 0.95)
    rate = sum(window.drops for window in free) / sum(window.seconds for window in free)
    good, rows = watched.conserved(), []
    for fault, told, back, meanwhile, window in lines:
        age = quantile(window.ages, 0.95)
        extra = max(0.0, window.drops - rate * window.seconds)
        held_here = back <= soak.allowed and age <= RATIO * calm and extra < 1 and (meanwhile > 0 or not fault.flowing)
        good = good and held_here
        rows.append([fault.name, told, f"{back:.2f}", f"{age * 1e3:.0f}", age / calm, f"{extra:.0f}", word(held_here)])
    rule = (
        f"frames within {soak.allowed:g} s after it is over, under loss also meanwhile; the healthy camera's p95 age "
        f"at most {RATIO} times that of the fault-free windows ({calm * 1e3:.0f} ms, {len(free)} windows of "
        f"{soak.args.window:g} s between the faults), no extra drop; conservation ({watched.conserved()})"
    )
    header = ["fault", "the log said", "frames again, s", "healthy p95, ms", "ratio", "extra drops", "held"]
    return Found(good, rule, header, rows)


@contextlib.contextmanager
def _window(watched: Watched, windows: list[Window]) -> Iterator[None]:
    """Note what the healthy camera does meanwhile."""
    start, drops = time.monotonic(), watched.drops("healthy")
    yield
    end = time.monotonic()
    windows.append(Window(watched.ages("healthy", start, end), watched.drops("healthy") - drops, end - start))
