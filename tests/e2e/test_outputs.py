"""The command writes every output, complete and valid; one that breaks takes nothing else with it."""

import json
import resource

import av
import pytest

from onlooker.operators.events import canonical_line, parse_event


@pytest.fixture(scope="module")
def outputs(demo, tmp_path_factory):
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("out")
    names = {"events": "e.jsonl", "vtt": "c.vtt", "srt": "c.srt", "report": "r.html", "video": "a.mp4"}
    command = [sys.executable, "-m", "onlooker.pipeline.cli.main", "run", str(demo[0]), "--runner", "local"]
    command += ["--query", "a cat", "--query", "<script>alert(1)</script>", "--json-logs"]
    for option, name in names.items():
        command += [f"--{option}", str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_every_line_of_the_log_is_an_event_and_the_last_says_why_it_ended(outputs):
    events = [parse_event(line) for line in (outputs[0] / "e.jsonl").read_text().splitlines()]
    assert (events[0].kind, events[0].phase) == ("stream", "new")
    assert (events[-1].kind, events[-1].phase, events[-1].data.reason) == ("stream", "end", "complete")
    assert all(e.data.side is not None and "language" in e.data.side.latency_ms for e in events if e.kind == "caption")


def test_event_ids_are_unique(outputs):
    ids = [json.loads(line)["id"] for line in (outputs[0] / "e.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids))


def test_subtitles_hold_the_captions(outputs):
    lines = (outputs[0] / "e.jsonl").read_text().splitlines()
    texts = [e.data.text for e in map(parse_event, lines) if e.kind == "caption"]
    for name in ("c.vtt", "c.srt"):
        written = (outputs[0] / name).read_text()
        assert all(text in written for text in texts)


def test_the_annotated_video_is_as_long_as_the_source(outputs, demo):
    with av.open(str(outputs[0] / "a.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == round(demo[1].duration * demo[1].fps)


def test_the_report_is_self_contained_and_safe(outputs):
    page = (outputs[0] / "r.html").read_text()
    assert "data:image/jpeg" in page
    assert "<script>alert(1)" not in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_json_logs_are_json_lines(outputs):
    logs = [json.loads(line) for line in outputs[1].stderr.splitlines()]
    assert {"progress", "event"} <= {entry["log"] for entry in logs}


def test_events_on_standard_output_are_events_alone(onlooker, demo):
    done = onlooker("run", demo[0], "--events", "-", "--canonical", "--runner", "local")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines and all(canonical_line(line) == line for line in lines)


def test_an_output_without_room_stops_and_no_other_does(onlooker, demo, tmp_path):
    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))  # as a full disk: a write fails with an OSError

    log, vtt = tmp_path / "e.jsonl", tmp_path / "c.vtt"
    done = onlooker("run", demo[0], "--vtt", vtt, "--events", log, "--runner", "local", preexec_fn=little_room)
    assert "Traceback" not in done.stderr
    assert done.returncode == 3, done.stderr
    assert "JsonlSink stopped" in done.stderr
    kept = [parse_event(line) for line in log.read_text().splitlines()]
    assert 2 <= len(kept) < 9
    assert vtt.read_text().count("-->") == 8


def test_a_device_is_no_output(onlooker, demo):
    done = onlooker("run", demo[0], "--vtt", "/dev/full", "--runner", "local")
    assert done.returncode == 2
    assert "not a regular file" in done.stderr
