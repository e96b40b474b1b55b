"""`onlooker eval moments` on files of each format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onlooker.pipeline.cli.main import main

QUERIES = [
    {"qid": 1, "query": "a dog runs", "vid": "v1", "duration": 60, "relevant_windows": [[0, 10], [20, 30]]},
    {"qid": 2, "query": "rain falls", "vid": "v1", "duration": 60, "relevant_windows": [[40, 60]]},
]
CAPTIONS = {
    "v1": {"duration": 60, "timestamps": [[0, 10], [20, 40]], "sentences": ["a dog runs", " rain   falls "]},
    "v2": {"duration": 30, "timestamps": [[5, 25]], "sentences": ["a dog runs"]},
}
CLASSES = {
    "database": {
        "v1": {"subset": "validation", "duration": 60, "annotations": [{"label": "jump", "segment": [0, 10]}]},
        "v2": {"subset": "training", "duration": 60, "annotations": [{"label": "dive", "segment": [0, 10]}]},
    }
}


def lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n\n"


@pytest.fixture
def score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command on contents of files, and returns what it prints as JSON."""

    def run(truth: Any, predictions: Any, form: str, *options: str) -> dict[str, Any]:
        assert main(command(tmp_path, truth, predictions, form, *options, "--json")) == 0
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    return run


def command(folder: Path, truth: Any, predictions: Any, form: str, *options: str) -> list[str]:
    for name, content in (("gt", truth), ("pred", predictions)):
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return ["eval", "moments", str(folder / "pred"), str(folder / "gt"), "--format", form, *options]


def test_queries_by_both_protocols(score: Any) -> None:
    """The public one trusts the order of a file and ranks each query alone; UnLoc ranks all together by score."""
    predictions = [
        {"qid": 1, "vid": "v1", "pred_relevant_windows": [[50, 60, 0.2], [0, 10, 0.9], [20, 30, 0.8]]},
        {"qid": 2, "vid": "v1", "pred_relevant_windows": [[40, 60, 0.1]]},
    ]
    public = score(lines(QUERIES), lines(predictions), "qvhighlights", "--protocol", "public")
    assert public["protocol"] == "public" and public["entries"] == 2 and public["predictions"] == 4
    assert public["scores"] == {"R1@0.5": 0.5, "R1@0.7": 0.5, "mAP": 1, "mAP@0.5": 1, "mAP@0.75": 1}
    unloc = score(lines(QUERIES), lines(predictions), "qvhighlights")["scores"]
    assert unloc["R1@0.5"] == unloc["R5@0.7"] == 1
    assert unloc["mAP"] == unloc["mAP@0.5"] == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_only_the_first_ten_predictions_of_a_query_are_public(score: Any) -> None:
    wrong = [[0, 10, 0.1]] * 10
    predictions = [{"qid": 2, "vid": "v1", "pred_relevant_windows": [*wrong, [40, 60, 0.9]]}]
    assert score(lines(QUERIES[1:]), lines(predictions), "qvhighlights", "--protocol", "public")["scores"]["mAP"] == 0
    assert score(lines(QUERIES[1:]), lines(predictions), "qvhighlights")["scores"]["mAP"] == 1


def test_captions(score: Any) -> None:
    predictions = {
        "results": {
            "v1": [
                {"sentence": "a dog runs", "timestamp": [0, 6], "score": 0.9},
                {"sentence": "rain falls", "timestamp": [0, 1]},
                {"sentence": "rain falls", "timestamp": [20, 40]},
            ],
            "v2": [{"sentence": "a cat runs", "timestamp": [5, 25], "score": 1}],
        }
    }
    told = score(CAPTIONS, predictions, "activitynet")
    assert told["scores"] == {"R1@0.5": 1 / 3, "R1@0.7": 0, "R5@0.5": 2 / 3, "R5@0.7": 1 / 3}
    assert told["without_prediction"] == ["v2: a dog runs"] and told["not_asked_for"] == ["v2: a cat runs"]
    assert score(CAPTIONS, predictions, "activitynet", "--protocol", "public")["scores"] == told["scores"]


def test_classes(score: Any) -> None:
    """The class that is only true in another subset counts as 0 with UnLoc, and not in public."""
    predictions = {"results": {"v1": [{"label": "jump", "segment": [0, 10], "score": 0.9}]}}
    unloc = score(CLASSES, predictions, "activitynet1.3", "--subset", "validation")
    assert unloc["scores"] == {"mAP": 0.5, "mAP@0.5": 0.5, "mAP@0.75": 0.5}
    public = score(CLASSES, predictions, "activitynet1.3", "--subset", "validation", "--protocol", "public")
    assert public["scores"] == {"mAP": 1, "mAP@0.5": 1, "mAP@0.75": 1}
    other = {"results": {"v1": [{"label": "dive", "segment": [0, 10], "score": 0.9}]}}
    assert (
        score(CLASSES, other, "activitynet1.3", "--subset", "validation", "--protocol", "public")["scores"]["mAP"] == 0
    )


def test_table_and_notices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = [
        {"qid": 9, "vid": "v1", "pred_relevant_windows": []},
        {"qid": 2, "vid": "v1", "pred_relevant_windows": [[40, 60]]},
    ]
    assert main(command(tmp_path, lines(QUERIES), lines(predictions), "qvhighlights")) == 0
    out, err = capsys.readouterr()
    assert "R1@0.5" in out and "50.00" in out and "33.33" in out
    assert "1 entries without prediction count as misses: v1#1" in err
    assert "1 entries with predictions are not asked for and left out: v1#9" in err


@pytest.mark.parametrize(
    ("form", "truth", "predictions", "says"),
    [
        ("qvhighlights", lines(QUERIES), '{"qid": 1, "vid": "v1"}', "line 1: it lacks pred_relevant_windows"),
        ("qvhighlights", lines(QUERIES), "{", "line 1: no JSON"),
        (
            "qvhighlights",
            lines(QUERIES),
            lines([{"qid": 1, "vid": "v1", "pred_relevant_windows": []}] * 2),
            "line 2: query 1 of video 'v1' is answered twice",
        ),
        (
            "qvhighlights",
            lines(QUERIES),
            '{"qid": 1, "vid": "v1", "pred_relevant_windows": [[1, 2, "x"]]}',
            "the score is 'x', not a number",
        ),
        (
            "qvhighlights",
            lines(QUERIES),
            '{"qid": 1, "vid": "v1", "pred_relevant_windows": [[1]]}',
            "the times are '[1]', not [start, end]",
        ),
        ("qvhighlights", lines([QUERIES[0] | {"relevant_windows": []}]), "", "tells no moments to score by"),
        ("activitynet", CAPTIONS, {}, 'expected {"results": {video: [...]}}'),
        ("activitynet", CAPTIONS, {"results": {"v1": {}}}, "video 'v1': expected a list of predictions, got '{}'"),
        ("activitynet", CAPTIONS, {"results": {"v1": [{"sentence": "x"}]}}, "prediction 1: it lacks timestamp"),
        (
            "activitynet1.3",
            CLASSES,
            {"results": {"v1": [{"label": "swim", "segment": [0, 1]}]}},
            "video 'v1', prediction 1: 'swim' is no class of the annotations",
        ),
    ],
)
def test_bad_files_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, truth: Any, predictions: Any, says: str
) -> None:
    assert main(command(tmp_path, truth, predictions, form)) == 2
    err = capsys.readouterr().err
    assert says in err and err.startswith("onlooker: ") and err.count("\n") == 1
