"""Subtitles, report and video of a camera that dies and comes back: one line of time for both of its epochs."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta
from pathlib import Path

import av

from onlooker.pipeline.cli.outputs import make_sinks
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.simulate import SimulatedCamera
from onlooker.pipeline.sinks.live_video import LiveVideoSink
from onlooker.pipeline.sinks.report import ReportSink
from onlooker.pipeline.sinks.subtitles import SrtSink, WebVttSink
from tests.decode.live.sources import free_port
from tests.sinks.test_report import Page
from tests.sinks.test_subtitles import libav_cues, strict_vtt_cues
from tests.videos import write_video

from .live_runs import LiveRun, check_stream, live_graph

A_SECOND = timedelta(seconds=1)
PATTERN = "lavfi:testsrc2=size=64x48:rate=25"


def test_outputs_of_a_camera_killed_and_restarted_tell_of_both_epochs_in_order(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 250, gop=25, codec_options={"bf": "0"})
    vtt, srt = WebVttSink(tmp_path / "out.vtt"), SrtSink(tmp_path / "out.srt")
    report, annotated = ReportSink(tmp_path / "out.html"), LiveVideoSink(tmp_path / "out.mp4", delay=1.0)
    port = free_port()
    camera = SimulatedCamera(video, port=port)
    with LiveRun(live_graph(), {"door": camera.url}, sinks=[vtt, srt, report, annotated]) as run:
        run.more_captions("door")
        camera.stop()
        run.until(lambda: run.statuses("door")[-1] == "reconnecting")
        with SimulatedCamera(video, port=port):
            run.until(lambda: run.statuses("door")[-1] == "live")
            run.more_captions("door")
            run.stop()
    check_stream(run, "door")
    assert run.session.failures == []

    text = vtt.path.read_text()
    told = {e.data.event_id: e for e in run.captions("door")}
    cues = {name: block for block in text.split("\n\n")[2:-1] for name in [block.split("\n")[0]]}
    assert list(cues) == list(told), "all captions of both epochs, in their order"
    times = [cue[:2] for cue in strict_vtt_cues("WEBVTT\n\n" + text.split("\n\n", 2)[2])]  # which checks their order
    assert times == [cue[:2] for cue in libav_cues(srt.path)]
    spans = dict(zip(told, times, strict=True))
    first, second = (
        [spans[name] for name, e in told.items() if e.data.media_epoch == epoch]
        for epoch in dict.fromkeys(e.data.media_epoch for e in told.values())
    )
    assert first[-1][1] <= second[0][0]

    # The second epoch lies between the loss and the end, as seconds since watching began and by the clock on the wall.
    lost = next(e for e in run.states("door") if e.data.status == "reconnecting").data
    end = run.states("door")[-1].data
    assert lost.t_seen <= second[0][0] / 1000 <= end.t_seen
    zero = datetime.fromisoformat(text.split("NOTE Time 0 is ")[1].split("\n")[0])
    moment = zero + timedelta(milliseconds=second[0][0])
    assert datetime.fromisoformat(lost.side.wall) - A_SECOND < moment < datetime.fromisoformat(end.side.wall) + A_SECOND

    page = Page(report.path)
    assert len([row for row in page.rows if row]) == len(told)
    assert page.data["duration"] >= max(end for _, end in times) / 1000 - 1
    with av.open(str(annotated.path)) as container:
        shown = [float(frame.time) for frame in container.decode(video=0)]  # type: ignore[arg-type]
    assert shown == sorted(shown) and sum(t >= second[0][0] / 1000 - 0.01 for t in shown) >= 5


def test_a_camera_that_is_added_leaves_the_output_of_the_first_alone(tmp_path: Path) -> None:
    path, graph = tmp_path / "one.vtt", live_graph()
    options = dict.fromkeys(("events", "vtt", "srt", "activitynet", "mot", "report", "video"))
    args = argparse.Namespace(**{**options, "vtt": str(path)})
    with LiveRun(graph, {"one": PATTERN}, sinks=make_sinks(args, [SourceSpec(PATTERN, "one")], graph)) as run:
        run.more_captions("one")
        run.session.add(SourceSpec(PATTERN, "two"))
        run.more_captions("two")
        run.more_captions("one")
    assert run.session.failures == []
    assert path.read_text().count("-->") == len(run.captions("one"))


def test_each_of_several_streams_has_an_output_of_its_own(tmp_path: Path) -> None:
    sinks = [WebVttSink(tmp_path / f"{name}.vtt") for name in ("one", "two", "bad")]
    for sink in sinks:
        sink.stream = sink.path.stem
    graph = live_graph(source={"policy": "block"})
    sources = {"one": f"{PATTERN}:duration=2", "two": f"{PATTERN}:duration=1", "bad": "rtsp://127.0.0.1:1/cam"}
    with LiveRun(graph, sources, sinks=sinks) as run:
        run.join()
    assert run.session.exit_code == 3 and run.session.failures == []
    for name in ("one", "two"):
        written = (tmp_path / f"{name}.vtt").read_text()
        assert written.count("-->") == len(run.captions(name)) == written.count(f"\n{name}/")
    assert not (tmp_path / "bad.vtt").exists(), "of what could not be opened there is nothing to tell"
