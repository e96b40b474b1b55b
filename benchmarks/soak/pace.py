"""A consumer far slower than its camera."""

from __future__ import annotations

import contextlib
import statistics
import time

from onlooker.pipeline.simulate import SimulatedCamera
from soak.scenario import Found, Soak, say
from soak.watching import Watched, quantile, resident, soak_graph

FLAT = 20e6
"""Bytes by which memory may grow after the first minute."""
CADENCE = 0.4
"""Seconds that the slow consumer needs for a frame; the camera sends one each 0.04 s."""
DEEP = 250
"""Frames in the long queue, ten seconds of the camera."""


def slow(soak: Soak) -> Found:
    """Three consumers of one camera, side by side: the default, a long queue, and its twin without the loop."""
    seconds, target = soak.args.seconds, soak.args.target
    deep = {"policy": "drop_oldest", "queue": DEEP}
    kinds: dict[str, dict[str, object]] = {
        "latest": {"target_latency": target},
        f"drop_oldest, queue {DEEP}": {**deep, "target_latency": target},
        "twin: the same, loop off": {**deep, "target_latency": None},
    }
    memory: list[tuple[float, float]] = []
    with contextlib.ExitStack() as stack:
        camera = stack.enter_context(SimulatedCamera(soak.video))
        runs = {}
        for kind, source in kinds.items():
            graph = soak_graph(light=True, slow=CADENCE, fps=None, **source)
            runs[kind] = stack.enter_context(Watched(graph, {"cam": camera.url}))
        for run in runs.values():
            run.more("cam", 1)
        start = time.monotonic()
        while (now := time.monotonic()) < start + seconds:
            memory.append((now - start, resident({camera.pid})))
            if len(memory) % 30 == 0:
                say(f"slow: {now - start:.0f} of {seconds:g} s, {memory[-1][1] / 1e6:.0f} MB")
            time.sleep(1.0)
    settled = start + min(60.0, seconds / 3)
    growth = _growth(memory, settled - start)
    rows: list[list[object]] = []
    verdicts = []
    for kind, run in runs.items():
        ages = run.ages("cam", settled, start + seconds)
        verdicts.append(quantile(ages, 0.9) <= target)
        counters = run.states["cam"][-1].counters or {}
        share = counters["frames_processed"] / counters["frames_in"]
        percentiles = [f"{quantile(ages, q):.2f}" for q in (0.5, 0.9, 0.95)]
        rows.append([kind, *percentiles, f"{max(ages):.2f}", f"1/{1 / share:.0f}", run.conserved()])
    rows.append(["growth of memory, all three, MB", f"{growth / 1e6:.1f}", "", "", "", "", ""])
    rule = (
        f"{seconds:g} s; nine frames of ten at most {target:g} s old after the first {settled - start:.0f} s, and not "
        f"so in the twin; memory grows by less than {FLAT / 1e6:.0f} MB after that; conservation"
    )
    good = verdicts == [True, True, False] and growth < FLAT and all(run.conserved() for run in runs.values())
    return Found(good, rule, ["consumer", "age p50, s", "p90", "p95", "max", "frames used", "conserved"], rows)


def _growth(memory: list[tuple[float, float]], since: float) -> float:
    late = [size for at, size in memory if at >= since]
    tenth = max(3, len(late) // 10)
    return statistics.median(late[-tenth:]) - statistics.median(late[:tenth])
