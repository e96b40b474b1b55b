"""What the dense graph says about a video of three minutes, beside what was shown.

    python benchmarks/dense_show.py --data FOLDER [--folder FOLDER] [--seed 2100] [--model tiny]

A video of test photographs under pan, zoom and cross-fade is written, `onlooker run --graph dense` watches it, and its
WebVTT is laid beside the truth. The video, the WebVTT and the report stay in `--folder`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from common import publish, table

from onlooker.training.flickr import data_root
from onlooker.training.scenes import VideoOptions, flickr_scenes, write_scenes

_CUE = re.compile(r"^(?:(\d+):)?(\d+):([\d.]+) --> (?:(\d+):)?(\d+):([\d.]+)[^\n]*\n(.+?)(?:\n\n|\Z)", re.M | re.S)


def cues(path: Path) -> list[tuple[float, float, str]]:
    """(start, end, text) of a WebVTT file, seconds."""
    found = []
    for cue in _CUE.finditer(path.read_text(encoding="utf-8")):
        start, end = (
            3600 * int(cue[first] or 0) + 60 * int(cue[first + 1]) + float(cue[first + 2]) for first in (1, 4)
        )
        found.append((start, end, " / ".join(cue[7].splitlines())))
    return found


def main() -> None:
    """Write the video, watch it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--folder", type=Path, default=Path("dense_show"), help="for the video and what is made of it")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=2100)
    parser.add_argument("--model", default="tiny", help="name or folder of a dense captioner")
    parser.add_argument("--runner", default="local", choices=("local", "ray"))
    parser.add_argument("--out", help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    video = arguments.folder / "scenes.mp4"
    scenes = flickr_scenes(data_root(arguments.data), "test", 30, arguments.seed)
    options = VideoOptions(width=480, height=270, fps=10, noise=3.0, crf=28)
    truth = write_scenes(scenes, video, seed=arguments.seed, options=options, total_seconds=arguments.seconds)
    outputs = [f"--vtt={video.with_suffix('.vtt')}", f"--report={video.with_suffix('.html')}"]
    command = ["run", str(video), "--graph=dense", f"--runner={arguments.runner}", *outputs]
    command += ["-o", f"caption.model={arguments.model}"]
    subprocess.run([sys.executable, "-m", "onlooker.pipeline.cli.main", *command], check=True)
    rows = [
        (scene.t_start, 0, f"{scene.t_start:.1f} - {scene.t_end:.1f}", scene.captions[0], "") for scene in truth.scenes
    ]
    rows += [(start, 1, f"{start:.1f} - {end:.1f}", "", text) for start, end, text in cues(video.with_suffix(".vtt"))]
    body = table(["seconds", "what was shown", "what was told"], [row[2:] for row in sorted(rows)])
    body += (
        f"\n\n`{video.name}`: {len(truth.scenes)} test photographs in {truth.duration:.0f} s; one of the five captions "
        "of each is shown. Command: `python benchmarks/dense_show.py`."
    )
    publish("A video of three minutes, told by the dense graph", body, arguments.out)


if __name__ == "__main__":
    main()
