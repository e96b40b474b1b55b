"""Bad input: one clear line on standard error, the documented exit code, no stack trace, nothing lost."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from onlooker.operators.events import parse_event
from tests import videos

LOCAL = ("--runner", "local")


def complains(result, *words):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def test_missing_file(onlooker, tmp_path):
    complains(onlooker("run", tmp_path / "none.mp4", *LOCAL), "none.mp4")


def test_empty_file(onlooker, tmp_path):
    (tmp_path / "empty.mp4").touch()
    complains(onlooker("run", tmp_path / "empty.mp4", *LOCAL), "empty.mp4")


def test_not_a_video(onlooker, tmp_path):
    (tmp_path / "words.mp4").write_text("these are words" * 100)
    complains(onlooker("run", tmp_path / "words.mp4", *LOCAL), "words.mp4")


def test_the_same_through_ray(onlooker, tmp_path):
    complains(onlooker("run", tmp_path / "none.mp4", "--runner", "ray"), "none.mp4")


def test_of_several_files_one_is_missing(onlooker, demo, tmp_path):
    log, written = tmp_path / "events.jsonl", tmp_path / "of-{stream}.vtt"
    result = onlooker("run", tmp_path / "none.mp4", demo[0], "--events", log, "--vtt", written, *LOCAL)
    assert result.returncode == 3 and "Traceback" not in result.stderr, result.stderr
    assert result.stderr.count("onlooker: none: none.mp4: no such file") == 1
    events = [parse_event(line) for line in log.read_text().splitlines()]
    ends = {e.data.stream: e.data.reason for e in events if e.kind == "stream" and e.phase == "end"}
    assert ends == {"none": "not_opened", "demo": "complete"}
    assert (tmp_path / "of-demo.vtt").read_text().count("-->") == 8 and not (tmp_path / "of-none.vtt").exists()


def test_of_several_files_all_are_missing(onlooker, tmp_path):
    result = onlooker("run", tmp_path / "a.mp4", tmp_path / "b.mp4", *LOCAL)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert result.stderr.splitlines() == [f"onlooker: {n}: {n}.mp4: no such file; check the path" for n in "ab"]


def test_unknown_graph(onlooker, demo):
    complains(onlooker("run", demo[0], "--graph", "fiel"), "did you mean 'file'")


def test_unknown_graph_key(onlooker, demo):
    complains(onlooker("run", demo[0], "-o", "decode.fsp=3"), "did you mean 'fps'")


def test_unknown_model(onlooker, demo):
    complains(onlooker("run", demo[0], "--model", "ViT-B-23", "--query", "a cat", *LOCAL), "ViT-B-23", "ViT-B-32")


@pytest.mark.parametrize("option", ["--events", "--vtt", "--srt", "--report", "--video"])
def test_unwritable_output(onlooker, demo, tmp_path, option):
    path = tmp_path / "no" / "folder" / "out.mp4"
    complains(onlooker("run", demo[0], option, path, *LOCAL), "out.mp4", "does not exist")


def test_an_output_that_is_the_source_is_refused(onlooker, demo):
    complains(onlooker("run", demo[0], "--video", demo[0], *LOCAL), "overwrite")


def test_a_truncated_file_gives_what_there_is(onlooker, demo, tmp_path):
    whole = videos.remux(demo[0], tmp_path / "whole.mkv", lambda number, packet: True)
    source = videos.cut(whole, tmp_path / "cut.mkv", 0.5)
    log = tmp_path / "events.jsonl"
    result = onlooker("run", source, "--events", log, *LOCAL)
    assert result.returncode == 3, result.stderr
    assert "breaks off" in result.stderr
    events = [parse_event(line) for line in log.read_text().splitlines()]
    assert any(e.kind == "caption" for e in events)
    assert (events[-1].kind, events[-1].data.status, events[-1].data.reason) == ("stream", "ended", "truncated")


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_ctrl_c_ends_cleanly(demo, tmp_path, runner):
    log, vtt = tmp_path / "events.jsonl", tmp_path / "out.vtt"
    command = [sys.executable, "-m", "onlooker.pipeline.cli.main", "run", str(demo[0]), "--runner", runner]
    # Every frame, two at a time: slow enough to be interrupted in the middle.
    command += ["--events", str(log), "--vtt", str(vtt), "-o", "decode.fps=25", "-o", "decode.chunk=2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (not log.exists() or "caption" not in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    events = [parse_event(line) for line in log.read_text().splitlines()]
    assert events[-1].data.reason == "interrupted"
    assert vtt.read_text().startswith("WEBVTT")
    psutil.wait_procs(family, timeout=30)
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
