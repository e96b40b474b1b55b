"""Annotation files of six formats: what they say, what cannot be used, and how a wrong one is told."""

import gzip
import json
import os
from pathlib import Path

import pytest

from onlooker.operators.errors import OnlookerError
from onlooker.training.moments.annotations import Moment, MomentVideo
from onlooker.training.moments.formats import FORMATS, read_moments

QVH = {
    "qid": 7,
    "query": "A dog  runs",
    "vid": "a_60.0_210.0",
    "duration": 150,
    "relevant_windows": [[4, 8], [20, 30]],
}
CAPTIONS = {"duration": 10.5, "timestamps": [[0, 4], [3.5, 10.51]], "sentences": ["A man sits.", " He gets up."]}
FRAMES = {"fps": 25, "num_frames": 100, "timestamps": [[0, 50], [25, 110]], "sentences": ["He cuts.", "He eats."]}
COIN = {
    "v1": {
        "duration": 60.0, "subset": "training", "class": "ChangeTire",
        "annotation": [
            {"id": "30", "label": "lift it", "segment": [10.0, 20.0]},
            {"id": "4", "label": "put it on", "segment": [15.0, 70.0]},
        ],
    },
    "v2": {"duration": 5.0, "subset": "testing", "annotation": [{"id": "11", "label": "lift it", "segment": [0, 5]}]},
}  # fmt: skip
ACTIVITYNET = {
    "v1": {"duration": 60.0, "subset": "training", "annotations": [{"label": "Surfing", "segment": [1.5, 20.0]}]},
    "v2": {"duration": 5.0, "subset": "testing", "annotations": []},
}
TAXONOMY = [
    {"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None},
    {"nodeId": 1, "nodeName": "Water", "parentId": 0, "parentName": "Root"},
    {"nodeId": 2, "nodeName": "Surfing", "parentId": 1, "parentName": "Water"},
    {"nodeId": 3, "nodeName": "Archery", "parentId": 0, "parentName": "Root"},
]


@pytest.fixture
def write(tmp_path):
    """Writes a text, or what becomes JSON, to a file; its path."""

    def call(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "notes.txt").write_text(text)
        return tmp_path / "notes.txt"

    return call


def lines(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"


def test_qvhighlights(write):
    read = read_moments(write(lines(QVH, "", {**QVH, "qid": 8, "query": "Other"})), "qvhighlights")
    assert read.kind == "queries" and read.classes == () and read.left_out == ()
    first, second = read.videos
    moments = (Moment("A dog runs", 4.0, 8.0), Moment("A dog runs", 20.0, 30.0))
    assert first == MomentVideo("a_60.0_210.0#7", "a_60.0_210.0", 150.0, moments, "A dog runs")
    assert (second.id, second.video) == ("a_60.0_210.0#8", first.video)


def test_queries_of_the_test_split_have_no_moments(write):
    row = {name: QVH[name] for name in ("qid", "query", "vid", "duration")}
    (video,) = read_moments(write(lines(row)), "qvhighlights").videos
    assert video.query == "A dog runs" and video.moments == ()


def test_charades(write):
    text = "AO8RW 0.0 6.9##a person, reading.\nX 1 2##sits\nAO8RW 3.5 9##laughs\n"
    read = read_moments(write(text), "charades")
    assert [video.id for video in read.videos] == ["AO8RW", "X"] and read.videos[0].duration is None
    assert read.videos[0].moments == (Moment("a person, reading.", 0.0, 6.9), Moment("laughs", 3.5, 9.0))


def test_activitynet_captions_are_cut_to_the_video(write):
    (video,) = read_moments(write({"v_a": CAPTIONS}), "activitynet").videos
    assert video == MomentVideo("v_a", "v_a", 10.5, (Moment("A man sits.", 0.0, 4.0), Moment("He gets up.", 3.5, 10.5)))


def test_tacos_counts_frames(write):
    (video,) = read_moments(write({"s1.avi": FRAMES}), "tacos").videos
    assert (video.id, video.duration) == ("s1", 4.0)
    assert video.moments == (Moment("He cuts.", 0.0, 2.0), Moment("He eats.", 1.0, 4.0))


def test_coin_classes_are_step_numbers(write):
    path = write({"database": COIN})
    read = read_moments(path, "coin")
    assert read.classes == ("put it on", "lift it", "lift it"), "by id; ids with the same words stay apart"
    first, second = read.videos
    assert first.moments == (Moment("lift it", 10.0, 20.0, 2), Moment("put it on", 15.0, 60.0, 0))
    assert second.moments[0].label == 1
    part = read_moments(path, "coin", "testing")
    assert part.videos == (second,) and part.classes == read.classes


def test_activitynet_classes_are_the_leaves(write):
    path = write({"version": "VERSION 1.3", "taxonomy": TAXONOMY, "database": ACTIVITYNET})
    read = read_moments(path, "activitynet1.3", "training")
    assert read.kind == "classes" and read.classes == ("Archery", "Surfing")
    assert read.videos == (MomentVideo("v1", "v1", 60.0, (Moment("Surfing", 1.5, 20.0, 1),)),)
    assert read_moments(path, "activitynet1.3").videos[1].moments == ()
    assert read_moments(write({"database": ACTIVITYNET}), "activitynet1.3").classes == ("Surfing",)


@pytest.mark.parametrize("packed", [False, True])
def test_gzip_and_byte_order_marks(tmp_path, packed):
    text = ("\ufeff" + lines(QVH)).encode()
    (tmp_path / "x").write_bytes(gzip.compress(text) if packed else text)
    assert len(read_moments(tmp_path / "x", "qvhighlights").videos) == 1


def test_moments_that_take_no_time_are_left_out_and_told(write):
    text = "A 5 4##reversed\nA 3 3##empty\nA -2 2##early\nA -3 -1##before\n"
    read = read_moments(write(text), "charades")
    assert read.videos[0].moments == (Moment("early", 0.0, 2.0),)
    assert len(read.left_out) == 3
    assert read.left_out[0] == "notes.txt, line 1: from 5 to 4 s is no time"
    assert "notes.txt, line 4" in read.left_out[2] and "before the video begins" in read.left_out[2]
    late = {**CAPTIONS, "timestamps": [[0, 4], [11, 12]]}
    read = read_moments(write({"v": late}), "activitynet")
    assert len(read.videos[0].moments) == 1
    assert read.left_out == ("notes.txt, video 'v', sentence 2: from 11 to 12 s, but the video ends at 10.5 s",)


def changed(entry, **values):
    return {**entry, **values}


def without(entry, name):
    return {key: value for key, value in entry.items() if key != name}


BROKEN = {
    "qvhighlights": [
        (lines(QVH, QVH), "notes.txt, line 2: query 7 of video 'a_60.0_210.0' stands in line 1 too."),
        (lines(QVH, "{"), "notes.txt, line 2: no JSON"),
        (lines(without(QVH, "vid")), "notes.txt, line 1: it lacks vid."),
        (lines([1]), "notes.txt, line 1: it lacks qid, query, vid, duration."),
        (lines(changed(QVH, relevant_windows=[[1]])), "line 1: the times are '[1]', not [start, end]"),
        (lines(changed(QVH, relevant_windows=7)), "no list"),
        (lines(changed(QVH, duration=0)), "line 1: the duration is '0'"),
        (lines(changed(QVH, query=" ")), "line 1: expected a text"),
        ("\n", "no annotated video"),
        ("[" * 100_000, "nested too deeply"),
    ],
    "charades": [
        ("A 1 2 sits\n", "notes.txt, line 1: expected `VIDEO start end##sentence`"),
        ("A 1 2##ok\nA 1##sits\n", "notes.txt, line 2: expected"),
        ("A x 2##sits\n", "line 1: start and end must be seconds, got 'x 2'"),
        ("A nan 2##sits\n", "line 1: the times are"),
        ("A 1 2##\n", "line 1: expected a text"),
    ],
    "activitynet": [
        (lines({"v": without(CAPTIONS, "duration")}), "notes.txt, video 'v': it lacks duration."),
        (lines({"v": changed(CAPTIONS, sentences=["one"])}), "video 'v': it needs one sentence for each timestamp"),
        ("[]", "line 1: expected one JSON object"),
        ('{\n"v":\n}', "notes.txt, line 3: no JSON"),
        (f'{{"v": {json.dumps(CAPTIONS)}, "v": {json.dumps(CAPTIONS)}}}', "entry 'v': it stands there twice."),
    ],
    "tacos": [(lines({"v": changed(FRAMES, fps=True)}), "video 'v': the duration is 'True'")],
    "coin": [
        (lines({"v": {}}), '{"database"'),
        (lines({"database": {"v": {"duration": 1}}}), "video 'v': it lacks subset"),
        (
            lines({"database": {"v": changed(COIN["v2"], annotation=[{"id": "x", "label": "a", "segment": [0, 1]}])}}),
            "video 'v', step 1: the id of a step is 'x', not a number",
        ),
        (
            lines({"database": {**COIN, "v3": changed(COIN["v2"], annotation=[
                {"id": "4", "label": "other", "segment": [0, 1]}
            ])}}),
            "video 'v3', step 1: step id 4 is 'other' here and 'put it on' elsewhere",
        ),
    ],
    "activitynet1.3": [
        (
            lines({"database": ACTIVITYNET, "taxonomy": TAXONOMY[:2]}),
            "no activity 'Surfing', which videos are labelled with",
        ),
        (lines({"database": ACTIVITYNET, "taxonomy": [{}]}), '"taxonomy", node 1: it lacks nodeId'),
        (lines({"database": {"v": changed(ACTIVITYNET["v1"], annotations={"a": 1})}}), '"annotations" is no list'),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name,text,message", [(name, *case) for name, cases in BROKEN.items() for case in cases])
def test_wrong_files_are_told_in_one_line(write, name, text, message):
    with pytest.raises(OnlookerError) as caught:
        read_moments(write(text), name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_read_at_all(tmp_path, write):
    cases = {
        "no such file": tmp_path / "none",
        "is a directory": tmp_path,
        "no whole gzip": tmp_path / "cut.gz",
        "UTF-8": tmp_path / "latin",
    }
    cases["no whole gzip"].write_bytes(gzip.compress(lines(QVH).encode())[:-9])
    cases["UTF-8"].write_bytes("Café 1 2##x".encode("latin-1"))
    for message, path in cases.items():
        with pytest.raises(OnlookerError, match=message):
            read_moments(path, "charades")
    with pytest.raises(OnlookerError, match="choose one of qvhighlights, charades"):
        read_moments(tmp_path, "didemo")
    with pytest.raises(OnlookerError, match="no video of subset 'val'; it has testing, training"):
        read_moments(write({"database": COIN}), "coin", "val")
    with pytest.raises(OnlookerError, match="one subset"):
        read_moments(write(lines(QVH)), "qvhighlights", "training")
    assert set(BROKEN) == set(FORMATS)


# (videos or queries, moments, moments that take no time); of TACoS the files of 2D-TAN.
PUBLISHED = {
    ("activitynet", "activitynet_captions_train.json.gz"): (10_009, 37_421, 4),
    ("activitynet", "activitynet_captions_val.json.gz"): (4_917, 17_505, 0),
    ("activitynet", "activitynet_captions_test.json.gz"): (4_885, 17_031, 0),
    ("charades", "charades_sta_train.txt.gz"): (5_338, 12_408, 4),
    ("charades", "charades_sta_test.txt.gz"): (1_334, 3_720, 0),
    ("qvhighlights", "qvhighlights_train.jsonl.gz"): (7_218, 12_803, 0),
    ("qvhighlights", "qvhighlights_val.jsonl.gz"): (1_550, 2_803, 0),
    ("qvhighlights", "qvhighlights_test.jsonl.gz"): (1_542, 0, 0),
    ("tacos", "tacos_train.json.gz"): (75, 9_790, 0),
    ("tacos", "tacos_val.json.gz"): (27, 4_436, 0),
    ("tacos", "tacos_test.json.gz"): (25, 4_001, 0),
}


@pytest.mark.data
@pytest.mark.parametrize("name,file", PUBLISHED)
def test_the_real_files_hold_what_was_published(name, file):
    root = os.environ.get("ONLOOKER_DATA")
    if not root:
        pytest.skip("ONLOOKER_DATA is not set")
    read = read_moments(Path(root) / "annotations" / file, name)
    videos, moments, left_out = PUBLISHED[name, file]
    assert len(read.videos) == videos and len(read.left_out) == left_out
    assert sum(len(video.moments) for video in read.videos) + left_out == moments
    assert len({video.id for video in read.videos}) == videos
    for video in read.videos:
        for moment in video.moments:
            assert 0 <= moment.t_start < moment.t_end and moment.text
            assert video.duration is None or moment.t_end <= video.duration
