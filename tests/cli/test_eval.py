"""`onlooker eval dense-captions` on files, and the sink that writes what it reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from onlooker.pipeline.cli.main import main
from onlooker.pipeline.sinks.activitynet import ActivityNetSink

from ..sinks.parts import caption, query, started

SENTENCES = {
    "v_a": ["a man throws a red ball", "a dog runs after the ball"],
    "v_b": ["the chef cuts two onions on a table", "she puts the onions into a large bowl"],
    "v_c": ["two people ride their bikes", "the people stop in front of a house"],
}
TIMES = [[0.0, 10.0], [10.0, 30.0]]


def truth(sentences: dict[str, list[str]] = SENTENCES) -> dict[str, Any]:
    return {v: {"duration": 30.0, "timestamps": TIMES, "sentences": s} for v, s in sentences.items()}


def results(sentences: dict[str, list[str]] = SENTENCES) -> dict[str, Any]:
    told = {
        v: [{"sentence": text, "timestamp": time} for text, time in zip(s, TIMES, strict=True)]
        for v, s in sentences.items()
    }
    return {"version": "VERSION 1.0", "results": told, "external_data": {}}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def put(name: str, content: Any) -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return put


def scores(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["eval", "dense-captions", *args, "--no-meteor", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("protocol", ["reference", "activitynet"])
def test_shuffled_captions_score_lower(write: Any, capsys: pytest.CaptureFixture[str], protocol: str) -> None:
    names = list(SENTENCES)
    crippled = {name: SENTENCES[names[i - 1]] for i, name in enumerate(names)}
    gt = write("gt.json", truth())
    right = scores(capsys, write("right.json", results()), gt, "--protocol", protocol)
    wrong = scores(capsys, write("wrong.json", results(crippled)), gt, "--protocol", protocol)
    assert right["protocol"] == protocol and right["videos"] == 3
    assert right["scores"]["CIDEr"] > 5.0 > wrong["scores"]["CIDEr"]
    assert right["scores"]["F1"] == wrong["scores"]["F1"] == pytest.approx(1.0)
    assert "METEOR" not in right["scores"] and "SODA_c" not in right["scores"]


def test_table_and_what_does_not_fit_together(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = results({"v_a": SENTENCES["v_a"], "v_x": ["a", "b"]})
    assert main(["eval", "dense-captions", write("p.json", told), write("gt.json", truth()), "--no-meteor"]) == 0
    out, err = capsys.readouterr()
    assert "CIDEr" in out and "recall" in out and "33.33" in out and "METEOR" not in out
    assert "2 videos without prediction count as 0: v_b, v_c" in err
    assert "1 videos with predictions have no ground truth" in err


def test_two_annotators_and_compressed_files(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = truth()
    for entry in other.values():
        entry["timestamps"] = [[0.0, 1.0], [1.0, 2.0]]
    packed = tmp_path / "gt2.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(other).encode()))
    pred, gt = write("p.json", results()), write("gt.json", truth())
    assert scores(capsys, pred, str(packed))["scores"]["recall"] == 0.0
    assert scores(capsys, pred, str(packed), gt)["scores"]["recall"] == 1.0  # the annotator that fits best counts


@pytest.mark.parametrize(
    ("pred", "gt", "says"),
    [
        (None, {}, "no such file"),
        ("{", {}, "is not JSON"),
        ([], {}, '"results"'),
        ({"results": {"v_a": [{"sentence": "x"}]}}, {}, 'caption 0: needs "sentence" and "timestamp"'),
        ({"results": {"v_a": [{"sentence": "x", "timestamp": [1]}]}}, {}, "not [start, end] in seconds"),
        ({"results": {"v_a": [{"sentence": 5, "timestamp": [1, 2]}]}}, {}, "not a text"),
        ({"results": {}}, {"v_a": {"timestamps": [[0, 1]], "sentences": []}}, "one sentence for each timestamp"),
        ({"results": {}}, {"v_a": {"sentences": []}}, 'needs "timestamps" and "sentences"'),
        ({"results": {}}, {"results": {}}, "is no ground truth"),
        ({"results": {}}, {}, "there is no video to score"),
    ],
)
def test_bad_files_are_one_clear_line(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], pred: Any, gt: Any, says: str
) -> None:
    path = str(tmp_path / "missing.json") if pred is None else write("p.json", pred)
    assert main(["eval", "dense-captions", path, write("gt.json", gt), "--no-meteor"]) == 2
    err = capsys.readouterr().err
    assert says in err and err.startswith("onlooker: ") and err.count("\n") == 1


def test_missing_java_is_said(write: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setenv("PATH", "")
    assert main(["eval", "dense-captions", write("p.json", results()), write("gt.json", truth())]) == 2
    assert "no `java` on the PATH" in capsys.readouterr().err


def test_sink_writes_what_eval_reads(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = ActivityNetSink(tmp_path / "pred.json")
    started(sink)
    sink.event(caption(1, 0.0, 10.0, 'a man says "hé"'))
    sink.event(query(2, 0.0, 5.0, "a man"))
    sink.event(caption(3, 10.0, 30.0, SENTENCES["v_a"][1]))
    sink.close()
    written = json.loads(sink.path.read_text(encoding="utf-8"))
    assert [c["timestamp"] for c in written["results"]["clip"]] == [[0.0, 10.0], [10.0, 30.0]]
    assert written["results"]["clip"][0]["sentence"] == 'a man says "hé"'
    found = scores(capsys, str(sink.path), write("gt.json", truth({"clip": SENTENCES["v_a"]})))
    assert found["scores"]["F1"] == pytest.approx(1.0) and found["scores"]["CIDEr"] > 0


def test_sink_without_captions_is_valid(tmp_path: Path) -> None:
    sink = ActivityNetSink(tmp_path / "pred.json")
    started(sink)
    sink.close()
    assert json.loads(sink.path.read_text())["results"] == {"clip": []}
