"""Clips on events: they show what the event is about, whatever happened to the camera, and hold nobody up."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from onlooker.operators.decode import open_video
from onlooker.operators.events import Event, canonical_line
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.clips import ClipSettings
from onlooker.pipeline.errors import OutputError
from onlooker.pipeline.graph import Graph
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.runtime.local import LocalRunner
from onlooker.pipeline.runtime.ray_runner import RayRunner
from onlooker.pipeline.session import Runner, Session
from onlooker.pipeline.simulate import SimulatedCamera
from tests.decode.live.sources import free_port, held, wait_until
from tests.sinks.parts import small_files
from tests.videos import frame_number, write_video

from .live_runs import LiveRun, check_stream
from .number_reader import reader_graph

RATE = 10


class ClipRun(LiveRun):
    """A run whose events get clips."""

    def __init__(
        self,
        graph: Graph,
        sources: dict[str, str],
        folder: Path,
        runner: Callable[..., Runner] = LocalRunner,
    ) -> None:
        super().__init__(graph, sources, runner)
        specs = [SourceSpec(uri, name) for name, uri in sources.items()]
        self.session = Session(graph, runner, specs, [], on_notice=self.notices.append, clips=ClipSettings(folder))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 s, each frame with its number, a key frame each second."""
    path = tmp_path_factory.mktemp("video") / "numbers.mp4"
    return write_video(path, 1000, rate=RATE, gop=RATE, codec_options={"bf": "0"})


def told(event: Event) -> set[int]:
    """The numbers of the frames that an event is about."""
    return {int(number) for number in event.data.text.split()}  # type: ignore[attr-defined]


def shown(folder: Path, event: Event) -> list[int]:
    """The numbers of the frames in the clip of an event."""
    side = event.data.side
    assert side is not None and side.clip is not None
    with open_video(folder / side.clip, rate=None) as clip:
        return [frame_number(frame.pixels) for frame in clip]


def pictured(folder: Path, event: Event) -> int:
    side = event.data.side
    assert side is not None and side.key_frame is not None
    return frame_number(np.asarray(Image.open(io.BytesIO((folder / side.key_frame).read_bytes()))))


def with_clips(events: list[Event]) -> list[Event]:
    return [e for e in events if e.data.side is not None and e.data.side.clip is not None]


def check_clip(folder: Path, event: Event) -> None:
    """It begins at a key frame before the event, shows all of it, and little more; the picture is of the event."""
    numbers, about, picture = shown(folder, event), told(event), pictured(folder, event)
    assert about <= set(numbers), (about, numbers)
    if max(about) - min(about) > 500:  # the camera began its file anew
        about, picture = {n + 1000 * (n < 500) for n in about}, picture + 1000 * (picture < 500)
    assert numbers[0] % RATE == 0 and min(about) - numbers[0] < RATE
    assert numbers[-1] - max(about) <= 3 * RATE, "a second behind it, as far as that had been seen"
    assert min(about) <= picture <= max(about) + RATE
    side = event.data.side
    assert side is not None and side.clip_start is not None and side.clip_start <= event.t_start + 1e-6


@pytest.mark.parametrize("runner", [LocalRunner, RayRunner])
def test_events_before_and_after_a_reconnect_have_clips_of_what_they_tell(
    video: Path, tmp_path: Path, runner: Callable[..., Runner]
) -> None:
    before, port = held(), free_port()
    camera = SimulatedCamera(video, port=port)
    graph = reader_graph(record=60.0)
    with ClipRun(graph, {"door": camera.url}, tmp_path, runner) as run:
        run.until(lambda: len(with_clips(run.captions("door"))) >= 4)
        camera.stop()
        run.until(lambda: run.statuses("door")[-1] == "reconnecting")
        with SimulatedCamera(video, port=port):
            run.until(lambda: len({e.data.media_epoch for e in with_clips(run.captions("door"))}) == 2)
            run.more_captions("door", 3)
            run.stop()
    check_stream(run, "door")
    events = run.captions("door")
    epochs = list(dict.fromkeys(e.data.media_epoch for e in events))
    assert len(epochs) == 2
    # Only the very first event of a connection may have begun before the first key frame that came.
    for event in events:
        check_clip(tmp_path, event)
    last_of_first = [e for e in events if e.data.media_epoch == epochs[0]][-1]
    assert len(told(last_of_first)) <= 10 and with_clips([last_of_first]), "told when its connection was lost"
    # A clip of another time would not do.
    assert not told(events[0]) <= set(shown(tmp_path, events[3]))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {name for e in events for name in (e.data.side.clip, e.data.side.key_frame)}  # type: ignore[union-attr]
    assert any(f"clips: {len(events)} written" in notice for notice in run.notices)
    if runner is LocalRunner:
        wait_until(lambda: held() == before)


@pytest.mark.parametrize("options", [{"codec": "h265"}, {"protocol": "http-mjpeg"}])
def test_other_kinds_of_cameras(video: Path, tmp_path: Path, options: dict[str, object]) -> None:
    camera = SimulatedCamera(video, **options)
    with camera, ClipRun(reader_graph(record=60.0), {"door": camera.url}, tmp_path) as run:
        run.until(lambda: len(with_clips(run.captions("door"))) >= 2)
    for event in run.captions("door"):
        assert told(event) <= set(shown(tmp_path, event))
        assert min(told(event)) - 3 <= pictured(tmp_path, event) <= max(told(event)) + 5


def test_a_file_in_real_time_and_one_at_full_speed_have_clips_to_their_last_event(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 40, rate=RATE, gop=RATE)
    for use in ("live", "decode"):
        folder = tmp_path / use
        graph = reader_graph(use, **({"record": 60.0} if use == "live" else {}))
        with ClipRun(graph, {"clip": str(path)}, folder) as run:
            run.join()
        assert run.session.exit_code == 0
        events = run.captions("clip")
        assert len(events) == 4
        for event in events:
            check_clip(folder, event)
        assert run.events[-1].kind == "stream" and run.events[-1].phase == "end"


def test_the_canonical_log_is_the_same_with_and_without_clips(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 40, rate=RATE, gop=RATE)
    logs = []
    for clips in (None, ClipSettings(tmp_path / "clips")):
        session = Session(reader_graph("decode"), LocalRunner, [SourceSpec(str(path), "clip")], [], clips=clips)
        lines = [event.to_json() for event in session.events()]
        logs.append([canonical_line(line) for line in lines])
        assert any('"clip":' in line for line in lines) == (clips is not None)
    assert logs[0] == logs[1]


def test_a_source_that_does_not_answer_holds_up_its_own_events_for_moments_only(video: Path, tmp_path: Path) -> None:
    """The decoding process of one camera hangs while a clip is wanted: its event comes without, others do not wait."""
    camera = SimulatedCamera(video)
    graph = reader_graph(every=5, record=60.0)
    with camera, ClipRun(graph, {"hangs": camera.url, "well": camera.url}, tmp_path) as run:
        run.until(lambda: len(with_clips(run.captions("hangs"))) and len(with_clips(run.captions("well"))))
        # The end of the run asks for a clip of the open event, of a process that cannot answer.
        workers = [p for p in psutil.Process().children() if "live.worker" in " ".join(p.cmdline())]
        assert len(workers) == 2
        workers[0].suspend()
        number = {name: len(run.captions(name)) for name in ("hangs", "well")}
        run.until(lambda: any(len(run.captions(name)) >= n + 6 for name, n in number.items()))
        run.session.interrupt()
        run.join()
    missed = [e for e in run.events if e.kind == "caption" and not with_clips([e])]
    assert len({e.data.stream for e in missed}) == 1, "of the one that hung"
    assert all(check_stream(run, name) for name in ("hangs", "well"))
    assert run.events[-1].kind == "stream"
    assert any("was not cut in time" in notice or "was lost" in notice for notice in run.notices)
    for event in with_clips(run.captions(({"hangs", "well"} - {missed[0].data.stream}).pop())):
        check_clip(tmp_path, event)


def test_what_is_not_compressed_is_told_once_and_goes_without(tmp_path: Path) -> None:
    pattern = "lavfi:testsrc2=size=80x48:rate=25:duration=4"
    with ClipRun(reader_graph(record=60.0), {"lamp": pattern}, tmp_path) as run:
        run.join()
    assert len(run.captions("lamp")) >= 3 and not with_clips(run.events)
    assert len(run.notices) == 3 and all("kept for clips" in notice for notice in run.notices), "and in the account"
    assert run.session.exit_code == 0 and list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 40, rate=RATE, gop=RATE)
    folder = tmp_path / "clips"
    with small_files(500), ClipRun(reader_graph("decode"), {"clip": str(path)}, folder) as run:
        run.join()
    assert len(run.captions("clip")) == 4 and not with_clips(run.events)
    assert run.session.exit_code == 3
    assert run.session.failures == [
        f"clips of some events are missing: not written to {str(folder)!r}, file too large."
    ]
    assert len(run.notices) == 2 and list(folder.iterdir()) == []


def test_a_folder_that_vanishes_and_comes_back(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    camera = SimulatedCamera(video)
    with camera, ClipRun(reader_graph(every=5, record=60.0), {"a": camera.url}, folder) as run:
        run.until(lambda: with_clips(run.captions("a")))
        shutil.rmtree(folder)
        run.until(lambda: not with_clips(run.captions("a")[-1:]))
        folder.mkdir()
        run.until(lambda: with_clips(run.captions("a")[-1:]))
    assert len(run.session.failures) == 1


def test_a_folder_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "no" / "such" / "folder", tmp_path / "file"):
        session = Session(
            reader_graph("decode"), LocalRunner, [SourceSpec("a.mp4", "a")], [], clips=ClipSettings(folder)
        )
        with pytest.raises(OutputError, match="cannot write clips to"):
            next(session.events())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clips", "no/such/folder"], "cannot write clips to 'no/such/folder'"),
        (["--clips", ".", "--clip-of", "caption,stream"], "there are no clips of 'stream'; there are: query, caption"),
        (["--clips", ".", "--clips-keep", "much"], "takes a size such as 500MB"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    arguments: list[str], words: str, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(video), "--runner", "local", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1
