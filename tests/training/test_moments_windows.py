"""Windows of annotated videos: what is seen lies where the annotation says, and texts of others count as absent."""

import numpy as np
import pytest

from onlooker.operators.errors import OnlookerError
from onlooker.operators.localize.unloc.sampling import Sampling
from onlooker.training.localize_labels import LabelOptions, class_labels, moment_labels
from onlooker.training.moments.annotations import Annotations, Moment, MomentVideo
from onlooker.training.moments.features import FeatureFolder, VideoFeatures, write_features
from onlooker.training.moments.windows import MomentWindows, WindowRecipe, at_rate, last_wins

FPS = 2.0
SECONDS = {"a": 20.0, "b": 45.0, "c": 5.0}


def encode(texts):
    """Each text becomes its number, so that a window tells which one was drawn."""
    encode.texts = list(texts)
    return np.arange(len(texts), dtype=np.float32)[:, None]


def captions(**videos):
    found = [
        MomentVideo(name, name, SECONDS[name], tuple(Moment(*moment) for moment in moments))
        for name, moments in videos.items()
    ]
    return Annotations("captions", tuple(found))


CAPTIONS = captions(
    a=[("one", 2.0, 6.0), ("two", 5.0, 19.0)],
    b=[("three", 10.0, 14.5), ("four", 30.0, 45.0), ("three", 40.0, 42.0)],
    c=[("five", 0.0, 5.0)],
)


@pytest.fixture
def folder(tmp_path):
    """Features whose rows are their own times in seconds."""
    for name, seconds in SECONDS.items():
        times = np.arange(int(seconds * FPS), dtype=np.float32) / FPS
        write_features(tmp_path / f"{name}.npz", np.stack([times, times * 0 + ord(name)], 1), FPS, seconds)
    return FeatureFolder(tmp_path)


def draws(windows, count=200, seed=0):
    return [windows(np.random.default_rng([seed, i])) for i in range(count)]


def asked(window):
    """(text, spans) of a window."""
    return [(encode.texts[int(row[0])], spans) for row, spans in zip(window.texts, window.moments, strict=True)]


@pytest.mark.parametrize("frames", [8, 16, 64])
def test_a_window_over_the_whole_video_has_the_labels_of_the_reference(folder, frames):
    windows = MomentWindows(CAPTIONS, folder, encode, WindowRecipe("linspace", frames, queries=4, own=2))
    options, seen = LabelOptions(), set()
    for window in draws(windows, 40):
        name = chr(int(window.features[0, 1]))
        total = int(SECONDS[name] * FPS)
        sampling = Sampling("linspace", frames, total)
        assert window.length == frames
        assert np.array_equal(window.features[:, 0] * FPS, sampling.indexes())
        for text, spans in asked(window):
            moments = [m for v in CAPTIONS.videos if v.video == name for m in v.moments if m.text == text]
            assert len(spans) == len(moments)
            own = class_labels(spans, [0] * len(spans), 1, Sampling("random", frames, frames, offset=0), options)
            frames_of = [(m.t_start * FPS, m.t_end * FPS) for m in moments]
            if len(moments) == 1:
                # With one class the reference takes no displacement beyond F + 1, also where F < T.
                single = moment_labels(frames_of, sampling, options)
                positive, displacements = single.positive[0][:, None], single.displacements[0][:, None]
            else:
                positive, displacements = class_labels(frames_of, [0] * len(spans), 1, sampling, options)
            assert np.array_equal(own.positive, positive)
            inside = positive[:, 0] > 0
            assert np.allclose(own.displacements[inside], displacements[inside], atol=1e-4)
            seen |= {text} if inside.any() else set()
    assert seen >= {"two", "four", "five"}


def test_windows_at_a_fixed_rate_show_what_the_annotation_says(folder):
    windows = MomentWindows(CAPTIONS, folder, encode, WindowRecipe("fixed", 16, FPS, queries=4, own=3))
    lengths, firsts, cut = set(), set(), 0
    for window in draws(windows):
        assert not window.features[window.length :].any()
        name, times = chr(int(window.features[0, 1])), window.features[: window.length, 0]
        assert np.allclose(np.diff(times), 1 / FPS)
        lengths.add(window.length)
        firsts.add((name, float(times[0])))
        for text, spans in asked(window):
            moments = [m for v in CAPTIONS.videos if v.video == name for m in v.moments if m.text == text]
            seen = np.zeros(window.length, bool)
            for start, end in spans:
                assert 0 <= start < end <= window.length
                seen[int(np.ceil(start)) : int(np.ceil(end))] = True
            true = np.any([(m.t_start <= times) & (times < m.t_end) for m in moments] or [times < 0], axis=0)
            assert np.array_equal(seen, true), (name, text)
            cut += bool(moments) and not spans
    assert {name for name, _ in firsts} == set("abc") and max(lengths) == 16
    assert len(firsts) > 30 and cut, "windows lie in many places, in some of which nothing was to be seen"


def test_windows_lie_where_something_happens(folder):
    """Without `hit`, a long video's windows mostly show nothing of what is asked."""
    rare = captions(b=[("three", 10.0, 11.0)])

    def share(hit):
        recipe = WindowRecipe("fixed", 8, FPS, queries=1, own=1, hit=hit, short=0.0)
        return np.mean([bool(window.moments[0]) for window in draws(MomentWindows(rare, folder, encode, recipe))])

    assert share(1.0) == 1.0 and share(0.0) < 0.4


def test_short_windows_are_as_at_the_beginning_of_a_stream(folder):
    recipe = WindowRecipe("fixed", 16, FPS, short=1.0)
    lengths = [window.length for window in draws(MomentWindows(CAPTIONS, folder, encode, recipe), 60)]
    assert min(lengths) == 4 and max(lengths) > 12


def test_each_window_is_asked_as_many_texts(folder):
    """Own ones first, then others; where there are too few texts they come again."""
    for own, queries in ((2, 4), (2, 20), (1, 1)):
        windows = MomentWindows(CAPTIONS, folder, encode, WindowRecipe("fixed", 16, FPS, queries=queries, own=own))
        for window in draws(windows, 30):
            name = chr(int(window.features[0, 1]))
            mine = {m.text for v in CAPTIONS.videos if v.video == name for m in v.moments}
            texts = [text for text, _ in asked(window)]
            assert len(texts) == queries
            first = min(own, len(mine))
            assert set(texts[:first]) <= mine and len(set(texts[:first])) == first
            assert not mine & set(texts[first:])
    alone = MomentWindows(
        captions(c=[("five", 0.0, 5.0)]), folder, encode, WindowRecipe("fixed", 16, FPS, queries=3, own=1)
    )
    assert [text for text, _ in asked(alone(np.random.default_rng(0)))] == ["five"] * 3
    assert len(draws(alone, 1)[0].moments[2]) == 1, "its own text stays true"


def test_queries_of_one_video_belong_together(folder):
    """A query for which annotators found nothing is asked too, and never taken for another video's."""
    found = Annotations(
        "queries",
        (
            MomentVideo("a#1", "a", 20.0, (Moment("x", 1.0, 3.0), Moment("x", 8.0, 9.0)), "x"),
            MomentVideo("a#2", "a", 20.0, (), "y"),
            MomentVideo("b#3", "b", 45.0, (Moment("z", 1.0, 3.0),), "z"),
        ),
    )
    windows = MomentWindows(found, folder, encode, WindowRecipe("linspace", 16, queries=3, own=2))
    assert len(windows) == 2
    for window in draws(windows, 20):
        spans = dict(asked(window))
        if window.features[0, 1] == ord("a"):
            assert list(spans)[2] == "z" and len(spans["x"]) == 2 and spans["y"] == () == spans["z"]


def test_classes_are_read_in_every_template(folder):
    moments = (Moment("surfing", 0.0, 10.0, 1), Moment("archery", 8.0, 12.0, 0))
    found = Annotations("classes", (MomentVideo("a", "a", 20.0, moments),), ("archery", "surfing", "chess"))
    recipe = WindowRecipe("fixed", 64, FPS, queries=3, own=2, short=0.0, templates=("{}", "a video of {}"))
    drawn = [asked(window) for window in draws(MomentWindows(found, folder, encode, recipe), 40)]
    wordings = {text for window in drawn for text, _ in window}
    assert wordings == {t for c in found.classes for t in (c, f"a video of {c}")}
    assert all(window[2][0].endswith("chess") and window[2][1] == () for window in drawn)
    exclusive = WindowRecipe("fixed", 64, FPS, queries=3, own=2, short=0.0, templates=("{}",), exclusive=True)
    spans = dict(asked(MomentWindows(found, folder, encode, exclusive)(np.random.default_rng(0))))
    assert spans["surfing"] == ((0.0, 16.0),) and spans["archery"] == ((16.0, 24.0),)


def test_the_last_moment_wins():
    assert last_wins([Moment("a", 0, 10), Moment("b", 2, 4), Moment("a", 3, 5), Moment("c", 20, 21)]) == [
        Moment("a", 0, 2), Moment("a", 5, 10), Moment("b", 2, 3), Moment("a", 3, 5), Moment("c", 20, 21),
    ]  # fmt: skip
    assert last_wins([Moment("a", 1, 2), Moment("b", 0, 3)]) == [Moment("b", 0, 3)]


def test_features_at_another_rate():
    rows = np.arange(10, dtype=np.float32)[:, None]
    assert at_rate(VideoFeatures(rows, 5.0, 2.0), 2.0)[:, 0].tolist() == [0, 2, 5, 7]
    assert at_rate(VideoFeatures(rows, 1.0, 10.0), 2.0)[:, 0].tolist() == [i // 2 for i in range(20)]
    assert np.array_equal(at_rate(VideoFeatures(rows, 2.0, 5.0), 2.0), rows)
    assert len(at_rate(VideoFeatures(rows[:1], 2.0, 0.1), 2.0)) == 1


def test_one_row_is_enough(tmp_path):
    write_features(tmp_path / "c.npz", np.ones((1, 2), np.float32), FPS, 0.5)
    one = captions(c=[("five", 0.0, 0.5)])
    for sampling in ("linspace", "fixed"):
        window = MomentWindows(one, FeatureFolder(tmp_path), encode, WindowRecipe(sampling, 8))(
            np.random.default_rng(0)
        )
        assert window.features.shape == (8, 2) and len(window.moments[0]) == 1


def test_what_does_not_fit_together_is_told(folder, tmp_path):
    def refused(message, annotations, **recipe):
        with pytest.raises(OnlookerError, match=message) as caught:
            draws(MomentWindows(annotations, folder, encode, WindowRecipe(**recipe)), 50)
        assert "\n" not in str(caught.value)

    other = Annotations("captions", (MomentVideo("x", "x", 4.0, (Moment("one", 0, 1),)),))
    refused("1 video without features in .*: x", other)
    refused("test split", Annotations("queries", (MomentVideo("a#1", "a", 4.0, (), "q"),)))
    refused("own <= all", CAPTIONS, queries=2, own=3)
    refused("positive rate", CAPTIONS, fps=0.0)
    refused("must hold {}", CAPTIONS, templates=("a video",))
    both = Annotations("captions", CAPTIONS.videos + other.videos)
    assert MomentWindows(both, folder, encode).missing == ["x"]
    np.savez(folder.folder / "b.npz", features=np.ones((90, 3), np.float32), fps=2.0)
    refused("'b': its features are 3 wide, those of 'a' 2", CAPTIONS)
