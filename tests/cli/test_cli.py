import json
import subprocess
import sys

import pytest

from onlooker.operators.events import make_event
from onlooker.pipeline.cli.display import describe, format_time, make_display
from onlooker.pipeline.cli.main import main


def test_import_is_light():
    code = "import sys, onlooker; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'ray', 'av', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_unknown_attribute_says_so():
    import onlooker

    with pytest.raises(AttributeError, match="wach"):
        _ = onlooker.wach


@pytest.mark.parametrize("command", [[], ["run"], ["graph", "show"], ["demo"], ["train"], ["doctor"]])
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0
    assert "usage: onlooker" in capsys.readouterr().out


def test_graph_show_prints_a_graph(capsys):
    assert main(["graph", "show"]) == 0
    out = capsys.readouterr().out
    assert "# caption" in out and "horizon: 2.5" in out


def test_graph_validate_says_what_is_wrong(capsys):
    assert main(["graph", "validate", "-o", "decode.fsp=1"]) == 2
    assert "did you mean 'fps'" in capsys.readouterr().err


def test_graph_schema_is_json(capsys):
    assert main(["graph", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "onlooker event"


def test_doctor_finds_what_this_installation_has(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "MISSING" not in out
    for what in ("torch", "h264", "tiny tower", "tiny caption", "ray"):
        assert what in out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (83.44, "1:23.4"), (59.96, "1:00.0"), (3723.4, "1:02:03.4")]
)
def test_media_time_for_people(seconds, text):
    assert format_time(seconds) == text


def event(kind, phase, **content):
    end = None if phase == "new" else 2.0
    return make_event(
        kind, stream="s", epoch=0, event_no=0, rev=0, phase=phase, t_start=1, t_end=end, t_seen=2, score=0.5, **content
    )


def test_people_see_captions_and_queries():
    assert describe(event("caption", "end", text="A dog.")) == "0:01.0-0:02.0  A dog."
    assert describe(event("query", "new", query="a dog")) == "0:01.0  'a dog' begins"
    assert "seen" in describe(event("query", "end", query="a dog"))
    assert describe(event("stream", "new", status="started")) is None


def test_json_logs_are_json(capsys):
    with make_display(quiet=False, json_logs=True, events_on_stdout=False) as display:
        display.note("hello")
        display.event(event("caption", "end", text="A dog."))
        display.warn("careful")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["log"] for line in lines] == ["note", "event", "warning"]


def test_quiet_says_nothing_but_warnings(capsys):
    with make_display(quiet=True, json_logs=False, events_on_stdout=False) as display:
        display.note("hello")
        display.event(event("caption", "end", text="A dog."))
        display.warn("careful")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "onlooker: careful\n"
