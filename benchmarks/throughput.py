"""How fast is the file graph, and what does the engine cost?

One run, one table. The bare loop calls the same operators one after the other without any engine, in the fastest of
torch threads {1, 2} x decoder threading {SLICE, AUTO}. The bound is what two perfectly overlapping workers could
reach: the slower of the slowest stage alone and the CPU seconds over the cores. The last assumes that cores do not
slow each other down, which those of a shared machine do; so two bare loops also run at once, and the bound at the pace
they keep together stands beside it. Every measurement is a process of its own, the kinds take turns, and the figure is
the median. Loading models is not part of the speed; it is in the time to
the first event.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import publish, spread, table

QUERIES = ["a cat", "a rocket", "a cup of coffee", "a person in a space suit", "a page of text"]


def make_video(path: Path, seconds: float) -> None:
    """A 640x360, 25 fps video of the demo photographs."""
    from onlooker.training.scenes import demo_scenes, write_scenes

    write_scenes(demo_scenes(), path, total_seconds=seconds)


def plan(threads: int, decoder: str) -> Any:
    """The file graph with five queries."""
    from onlooker.pipeline.assemble import make_plan

    overrides = [f"runtime.threads={threads}", f"decode.thread_type={decoder}"]
    return make_plan("file", queries=QUERIES, overrides=overrides).graph


def bare(video: str, threads: int, decoder: str) -> dict[str, float]:
    """The operators in a plain loop, and how long each took."""
    import torch

    from onlooker.operators.contract import Context, Inputs

    torch.set_num_threads(threads)
    graph = plan(threads, decoder)
    context = Context(threads, outputs=frozenset({"frames", "tokens", "embedding", "memory", "events"}))
    source = graph.source.cls(graph.source.config, video, "bench")
    operators = []
    for node in graph.nodes[1:]:
        operator = node.cls(node.config)
        operator.open(context)
        operators.append((node, operator))
    states = {node.name: operator.initial_state("bench") for node, operator in operators}
    info = source.open(context)
    cursor, end, frames, spent, begin, cpu = source.initial_cursor(), None, 0, {}, 0.0, 0.0
    while end is None:
        if not begin and frames:  # the first call warms caches up
            begin, cpu, frames, spent = time.perf_counter(), time.process_time(), 0, {}
        started = time.perf_counter()
        cursor, out = source.read(cursor)
        end = out.end
        edges = {f"{graph.source.name}.{port}": packets for port, packets in out.packets.items()}
        frames += len(edges.get("decode.frames", ()))
        spent["decode"] = spent.get("decode", 0.0) + time.perf_counter() - started
        for node, operator in operators:
            started = time.perf_counter()
            packets = {port: edges.get(edge, []) for port, edge in node.inputs.items()}
            state, outputs = operator.process(states[node.name], Inputs(packets, out.watermark, out.watermark))
            if end is not None:
                state, last = operator.flush(state, end.t)
                for port, more in last.packets.items():
                    outputs.packets.setdefault(port, []).extend(more)
            states[node.name] = state
            edges.update({f"{node.name}.{port}": list(found) for port, found in outputs.packets.items()})
            spent[node.name] = spent.get(node.name, 0.0) + time.perf_counter() - started
    wall = time.perf_counter() - begin
    return {
        "seconds_per_frame": wall / frames,
        "cpu_per_frame": (time.process_time() - cpu) / frames,
        "fps": frames / wall,
        "media": float(info.duration or 0),
        **{f"stage_{k}": v / frames for k, v in spent.items()},
    }


def engine(video: str, runner: str, threads: int, decoder: str) -> dict[str, float]:
    """The same through a runner: speed between the first and the last batch, time to first event, memory."""
    from onlooker.pipeline.assemble import runner_factory, source_spec

    launched = float(os.environ.get("BENCH_LAUNCHED", time.time()))
    graph = plan(threads, decoder)
    peak = PeakMemory()
    frames, begin, first_event, counted = 0, 0.0, 0.0, 0
    for batch in runner_factory(runner)(graph, frozenset()).run([source_spec(video)]):
        now = time.perf_counter()
        counted = batch.counters.get("frames_sampled", counted)
        if not begin and counted:
            begin, frames = now, counted
        if not first_event and any(batch.packets.get(edge) for edge in graph.event_edges):
            first_event = time.time() - launched
        wall = now - begin
    return {
        "seconds_per_frame": wall / (counted - frames),
        "fps": (counted - frames) / wall,
        "first_event": first_event,
        "pss": peak.stop(),
    }


class PeakMemory:
    """Peak proportional set size of this process and all it started, sampled."""

    def __init__(self) -> None:
        """Start to watch."""
        self._peak, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Stop to watch; the peak in bytes."""
        self._over.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        import psutil

        while not self._over.wait(1.0):
            total, me = 0, psutil.Process()
            for process in [me, *me.children(recursive=True)]:
                try:
                    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                    total += int(rollup.split("\nPss:")[1].split()[0]) * 1024
                except (OSError, IndexError, psutil.Error):
                    continue
            self._peak = max(self._peak, float(total))


def measure(*args: str, at_once: int = 1) -> dict[str, float]:
    """Run one measurement in a process of its own, or several of it `at_once`: then the mean of their figures."""
    env = {**os.environ, "BENCH_LAUNCHED": repr(time.time())}
    command = [sys.executable, __file__, "--one", *args]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) for _ in range(at_once)]
    results: list[dict[str, float]] = []
    for process in running:
        out, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"measurement {args} failed:\n{errors[-3000:]}")
        results.append(json.loads(out.splitlines()[-1]))
    return {name: statistics.mean(result[name] for result in results) for name in results[0]}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180, help="length of the video (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--video", help="use this video instead of making one")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, video, threads, decoder = args.one
        one = bare(video, int(threads), decoder) if kind == "bare" else engine(video, kind, int(threads), decoder)
        print(json.dumps(one))
        return
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or str(Path(folder) / "bench.mp4")
        if not args.video:
            make_video(Path(video), args.seconds)
        report(video, args.repeats, args.out)


def report(video: str, repeats: int, out: str | None) -> None:
    """All measurements in turns, then the table."""
    bares = [(threads, decoder) for threads in ("1", "2") for decoder in ("SLICE", "AUTO")]
    found: dict[tuple[str, ...], list[dict[str, float]]] = {}
    cores = len(os.sched_getaffinity(0))
    together: list[float] = []
    for _ in range(repeats):
        for key in [*(("bare", *b) for b in bares), ("local", "1", "SLICE"), ("ray", "1", "SLICE")]:
            found.setdefault(key, []).append(measure(key[0], video, *key[1:]))
            print(".", end="", file=sys.stderr, flush=True)
        together.append(measure("bare", video, "1", "SLICE", at_once=cores)["seconds_per_frame"])
    print(file=sys.stderr)

    def median(key: tuple[str, ...], what: str) -> float:
        return statistics.median(result[what] for result in found[key])

    best = min((("bare", *b) for b in bares), key=lambda key: median(key, "seconds_per_frame"))
    base = median(best, "seconds_per_frame")
    single = ("bare", "1", "SLICE")  # the settings under which the engines run
    stages = {k.removeprefix("stage_"): median(single, k) for k in found[single][0] if k.startswith("stage_")}
    graph = plan(1, "SLICE")
    alone = [sum(stages[node.name] for node in graph.stage_nodes(stage)) for stage in graph.stages]
    slowest, cpu = max(stages["decode"], *alone), median(single, "cpu_per_frame")
    bound = max(slowest, cpu / cores)
    # How much more all cores get done than one, when they do the same work at once.
    gain = cores * median(single, "seconds_per_frame") / statistics.median(together)
    kept = max(slowest, cpu / min(gain, cores))
    rate = 2.0  # sampled frames per second of media, as the file graph sets it
    rows: list[list[object]] = []
    for key, results in found.items():
        cost = median(key, "seconds_per_frame")
        rows.append(
            [
                f"{key[0]}, torch {key[1]}, decoder {key[2]}" + (" (best bare)" if key == best else ""),
                spread([r["seconds_per_frame"] * 1e3 for r in results]),
                1 / cost / rate,
                base / cost,
                bound / cost,
                kept / cost,
            ]
        )
    heads = ["what", "ms per sampled frame", "x real time", "of best bare loop", "of bound", "of bound at pace kept"]
    body = table(heads, rows)
    body += "\n\n" + table(
        ["stage alone (1 thread)", "ms per sampled frame"],
        [[k, v * 1e3] for k, v in stages.items()]
        + [["bound", bound * 1e3], ["bound at the pace the cores keep together", kept * 1e3]],
    )
    local, ray = ("local", "1", "SLICE"), ("ray", "1", "SLICE")
    body += "\n\n" + table(
        ["runner", "time to first event, s", "peak PSS of all processes, GB"],
        [[k[0], median(k, "first_event"), median(k, "pss") / 1e9] for k in (local, ray)],
    )
    body += f"\n\nTime to first event, Ray over local: {median(ray, 'first_event') / median(local, 'first_event'):.2f}"
    body += f"\n\n{cores} bare loops at once get {gain:.2f} times the work of one done."
    ru = resource.getrusage(resource.RUSAGE_CHILDREN)
    body += f"\n\nVideo: 640x360, 25 fps, 2 samples a second, one beam-3 caption per 5 s, {len(QUERIES)} queries; "
    body += f"{repeats} rounds, median (min-max); {ru.ru_utime + ru.ru_stime:.0f} CPU seconds in all."
    publish("Throughput of the file graph", body, out)


if __name__ == "__main__":
    main()
