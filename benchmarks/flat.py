"""Does memory stay flat over a long video?

Runs the file graph over a generated 60-minute video with events, subtitles, report and annotated video on, in one
process, and samples its resident set. The figure is the growth after minute 5 of media time: the median of the last
tenth of the samples minus the median of those around minute 5.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import publish, table


def make_video(path: Path, minutes: float) -> None:
    """A 640x360 video of the demo photographs."""
    from onlooker.training.scenes import VideoOptions, demo_scenes, write_scenes

    write_scenes(demo_scenes(), path, options=VideoOptions(fps=10), total_seconds=minutes * 60)


def watch(video: Path, folder: Path) -> list[tuple[float, float]]:
    """(media seconds, resident bytes) over one run."""
    outputs = {"events": "e.jsonl", "vtt": "c.vtt", "srt": "c.srt", "report": "r.html", "video": "a.mp4"}
    command = [
        sys.executable,
        "-m",
        "onlooker.pipeline.cli.main",
        "run",
        str(video),
        "--runner",
        "local",
        "--json-logs",
    ]
    command += ["--query", "a cat", "--query", "a rocket"]
    for option, name in outputs.items():
        command += [f"--{option}", str(folder / name)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    import json

    samples = []
    watched = psutil.Process(process.pid)
    for line in process.stderr:
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("log") == "progress" and process.poll() is None:
            samples.append((float(entry["media_time"]), float(watched.memory_info().rss)))
    if process.wait() != 0:
        raise SystemExit(f"the run failed with {process.returncode}")
    return samples


def growth(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """(resident bytes around minute 5, growth from there to the end)."""
    early = [rss for t, rss in samples if 240 <= t <= 360] or [rss for t, rss in samples if t >= 240][:3]
    late = [rss for _, rss in samples[-max(3, len(samples) // 10) :]]
    base = statistics.median(early)
    return base, statistics.median(late) - base


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="length of the video (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs (default: %(default)s)")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    args = parser.parse_args()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_video(folder / "long.mp4", args.minutes)
        for run in range(args.repeats):
            started = time.monotonic()
            base, more = growth(watch(folder / "long.mp4", folder))
            rows.append([f"run {run + 1}", base / 1e6, more / 1e6, time.monotonic() - started])
            print(rows[-1], file=sys.stderr, flush=True)
    rows.append(["median", *(statistics.median(float(str(row[i])) for row in rows) for i in (1, 2, 3))])
    body = table(["run", "RSS at minute 5, MB", "growth to the end, MB", "seconds"], rows)
    body += f"\n\n{args.minutes:.0f} minutes of media; goal: median growth under 20 MB."
    publish("Memory over a long video", body, args.out)


if __name__ == "__main__":
    main()
