"""Features of videos as files: what a tower sees, what is taken from elsewhere, and what happens to odd videos."""

import json
import os

import numpy as np
import psutil
import pytest

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.decode.node import VideoSource
from onlooker.operators.errors import OnlookerError
from onlooker.operators.tower.node import ClipTower
from onlooker.training.moments.extract import FeatureRecipe, extract_features, find_videos, on_grid
from onlooker.training.moments.features import SETTINGS, FeatureFolder, write_features

from ..videos import cut, write_video

RECIPE = FeatureRecipe(batch=4)
ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_npz_tells_its_own_rate(tmp_path):
    write_features(tmp_path / "a.npz", ROWS, 2.0, 2.9)
    (tmp_path / SETTINGS).write_text('{"fps": 5}')
    read = FeatureFolder(tmp_path, fps=7.0).read("a", duration=9.0)
    assert np.array_equal(read.rows, ROWS) and read.rows.dtype == np.float32
    assert (read.fps, read.duration) == (2.0, 2.9)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.npz", SETTINGS]


def test_rates_of_files_that_do_not_say(tmp_path):
    np.save(tmp_path / "a.npy", ROWS.astype(np.float16))
    with pytest.raises(OnlookerError, match="--feature-fps"):
        FeatureFolder(tmp_path).read("a")
    spread = FeatureFolder(tmp_path).read("a", duration=12.0)
    assert (spread.fps, spread.duration) == (0.5, 12.0)
    (tmp_path / SETTINGS).write_text('{"fps": 2}')
    assert FeatureFolder(tmp_path).read("a", duration=12.0).fps == 2.0
    given = FeatureFolder(tmp_path, fps=3.0).read("a")
    assert (given.fps, given.duration) == (3.0, 2.0)


def test_values_too_large_for_half_precision_stay(tmp_path):
    write_features(tmp_path / "a.npz", ROWS + 1e6, 2.0, 3.0)
    assert np.array_equal(FeatureFolder(tmp_path).read("a").rows, ROWS + np.float32(1e6))


def test_names_of_activitynet_with_and_without_prefix(tmp_path):
    np.save(tmp_path / "v_x.npy", ROWS)
    np.save(tmp_path / "y.npy", ROWS)
    folder = FeatureFolder(tmp_path)
    assert folder.has("x") and folder.has("v_x") and folder.has("v_y") and not folder.has("z")
    assert len(folder.read("x", 3.0).rows) == 6


def test_wrong_files_are_told_in_one_line(tmp_path):
    arrays = {
        "nan": np.full((2, 2), np.nan), "flat": ROWS.ravel(), "none": ROWS[:0], "whole": ROWS.astype(int),
        "pickle": np.array([{}], dtype=object),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "noise.npz").write_bytes(os.urandom(99))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    np.savez(tmp_path / "named.npz", x=ROWS)
    np.savez(tmp_path / "rate.npz", features=ROWS, fps=0.0)
    folder = FeatureFolder(tmp_path, fps=2.0)
    messages = {
        "nan": "not finite", "flat": "(rows, width)", "none": "(rows, width)", "whole": "(rows, width)",
        "pickle": "cannot be read", "noise": "cannot be read", "cut": "cannot be read",
        "named": "no array named features", "rate": "its fps is no positive number",
        "missing": "no features of video 'missing'",
    }  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(OnlookerError) as caught:
            folder.read(name)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    np.save(tmp_path / "rate.npy", ROWS)
    with pytest.raises(OnlookerError, match="two files for video 'rate'"):
        FeatureFolder(tmp_path)
    with pytest.raises(OnlookerError, match="localize-features"):
        FeatureFolder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OnlookerError, match="holds no features"):
        FeatureFolder(tmp_path / "empty")
    for text in ("[1]", '{"fps": 0}', "{"):
        (tmp_path / "empty" / "a.npy").write_bytes(b"")
        (tmp_path / "empty" / SETTINGS).write_text(text)
        with pytest.raises(OnlookerError, match=SETTINGS):
            FeatureFolder(tmp_path / "empty")


def test_samples_lie_on_a_grid():
    """Late beginnings and holes are filled with what was seen last, and the grid reaches the end."""
    rows = np.arange(4, dtype=np.float32)[:, None]
    assert on_grid(rows, [0.0, 0.5, 1.0, 1.5], 2.0, 2.0)[:, 0].tolist() == [0, 1, 2, 3]
    assert on_grid(rows, [0.01, 0.5 + 1 / 30, 1.03, 1.52], 2.0, 2.0)[:, 0].tolist() == [0, 1, 2, 3]
    assert on_grid(rows, [1.1, 1.6, 3.0, 3.5], 2.0, 5.2)[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 3]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with two whole videos, one that broke off, one of noise, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 130)
    write_video(folder / "b.MKV", 40, container_options={"live": "0"})
    cut(write_video(folder / "whole.mkv", 200), folder / "c.mkv", 0.6)
    (folder / "whole.mkv").unlink()
    (folder / "d.mp4").write_bytes(os.urandom(5000))
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def extracted(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("features")
    return out, extract_features(find_videos([videos]), out, RECIPE)


def test_broken_videos_do_not_stop_the_others(extracted, videos):
    out, state = extracted
    assert sorted(path.name for path in out.iterdir()) == ["a.npz", "b.npz", "c.npz", SETTINGS]
    assert (state.videos, state.written, state.skipped, state.done) == (4, 3, 0, 4)
    assert state.truncated == ["c.mkv"]
    assert len(state.broken) == 1 and state.broken[0].startswith("d.mp4: ")
    assert json.loads((out / SETTINGS).read_text()) == {"tower": "tiny", "fps": 2.0}
    folder = FeatureFolder(out)
    assert folder.read("a").rows.shape[0] == 11 and folder.read("a").duration == pytest.approx(5.2)
    assert folder.read("b").rows.shape[0] == 4
    assert 0 < len(folder.read("c").rows) < 16


def test_rows_are_what_the_graph_sees(extracted, videos):
    """A localizer trained on these files meets the same features when it watches."""
    source = VideoSource(VideoSource.Config(chunk=50), str(videos / "a.mp4"), "s")
    tower = ClipTower(ClipTower.Config(batch=4))
    source.open(Context())
    tower.open(Context())
    _, read = source.read(source.initial_cursor())
    source.close()
    ((_, seen),) = tower.process_batch([None], [Inputs({"frames": read.packets["frames"]}, 5.2, 5.2)])
    graph = np.stack([packet.features for packet in seen.packets["embedding"]])
    rows = FeatureFolder(extracted[0]).read("a").rows
    assert np.array_equal(rows, graph.astype(np.float16).astype(np.float32))
    assert np.abs(np.diff(rows, axis=0)).max() > 0.01, "frames differ, so the order was tested"


def test_what_is_there_is_not_made_again(extracted, videos):
    out, _ = extracted
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = extract_features(find_videos([videos]), out, RECIPE)
    assert (again.written, again.skipped, again.frames, len(again.broken)) == (0, 3, 0, 1)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    for other in (FeatureRecipe(fps=4.0), FeatureRecipe(tower="other")):
        with pytest.raises(OnlookerError, match="holds features of tower 'tiny' at 2.0 fps"):
            extract_features(find_videos([videos]), out, other)


def test_an_interrupted_run_goes_on(extracted, videos, tmp_path):
    def stop(state):
        if state.written == 1 and state.frames > 13:
            raise KeyboardInterrupt

    files = psutil.Process().num_fds()
    with pytest.raises(KeyboardInterrupt):
        extract_features(find_videos([videos / "a.mp4", videos / "c.mkv"]), tmp_path, RECIPE, stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", SETTINGS], "no half file"
    assert psutil.Process().num_fds() <= files
    state = extract_features(find_videos([videos / "a.mp4", videos / "c.mkv"]), tmp_path, RECIPE)
    assert (state.skipped, state.written) == (1, 1)
    for name in ("a.npz", "c.npz"):
        assert (tmp_path / name).read_bytes() == (extracted[0] / name).read_bytes()


def test_which_files_are_videos(videos, tmp_path):
    assert [path.name for path in find_videos([videos])] == ["a.mp4", "b.MKV", "c.mkv", "d.mp4"]
    assert find_videos([videos / "notes.txt", videos / "notes.txt"]) == [videos / "notes.txt"]
    (tmp_path / "a.webm").write_bytes(b"x")
    with pytest.raises(OnlookerError, match="would share the features of video 'a'"):
        find_videos([videos, tmp_path])
    with pytest.raises(OnlookerError, match="no video .*gone"):
        find_videos([tmp_path / "gone"])
    (tmp_path / "sub").mkdir()
    with pytest.raises(OnlookerError, match="no videos"):
        find_videos([tmp_path / "sub"])
