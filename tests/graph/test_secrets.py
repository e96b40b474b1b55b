"""Values from outside: where they come from, who may read the file, and that nobody else sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from onlooker.operators.decode.live import parse_source
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.errors import GraphError
from onlooker.pipeline.graph import load_graph
from onlooker.pipeline.secrets import Secrets, SecretsError

PASSWORD = "p@ss/w:rd %41 #'\""


def private(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def graph_with(tmp_path: Path, query: str, fps: str = "2") -> Path:
    text = load_graph("file").to_yaml().replace("queries: []", f"queries: [{query!r}]")
    path = tmp_path / "g.yaml"
    path.write_text(text.replace("fps: 2.0", f"fps: {fps}"))
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cams.env", f"# cameras\n\nDOOR = {PASSWORD}\nPIN=0123\nQUOTED='  a b '\nEMPTY=\n"),
        ("cams.yaml", "DOOR: \"p@ss/w:rd %41 #'\\\"\"\nPIN: 0123\nQUOTED: '  a b '\nEMPTY: ''\n"),
    ],
)
def test_both_forms_keep_values_as_they_are_written(tmp_path: Path, name: str, text: str) -> None:
    secrets = Secrets(private(tmp_path / name, text))
    found = secrets.resolve("${secret:DOOR}|${secret:PIN}|${secret:QUOTED}|${secret:EMPTY}", "it")
    assert found == f"{PASSWORD}|0123|  a b |"


@pytest.mark.parametrize("written", ["rtsp://admin:${secret:CAM}@cam:8554/live", "rtsp://${env:LOGIN}@cam:8554/live"])
def test_passwords_in_addresses_may_hold_any_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("LOGIN", f"admin:{PASSWORD}")
    secrets = Secrets(private(tmp_path / "s", f"CAM={PASSWORD}"))
    address = parse_source(secrets.resolve(written, "the source"))
    assert (address.user, address.password, address.host, address.port) == ("admin", PASSWORD, "cam", 8554)
    assert address.shown == "rtsp://cam:8554/live"


def test_other_parts_of_an_address_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "10.0.0.2:554")
    monkeypatch.setenv("REST", "a/b?c=d@e")
    assert Secrets().resolve("rtsp://me:x@${env:HOST}/${env:REST}", "it") == "rtsp://me:x@10.0.0.2:554/a/b?c=d@e"
    monkeypatch.setenv("ALL", "rtsp://me:%41@cam/x")
    assert Secrets().resolve("${env:ALL}", "it") == "rtsp://me:%41@cam/x"


def test_a_value_is_not_looked_into_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "${env:INNER}")
    monkeypatch.setenv("INNER", "never")
    graph = load_graph(str(graph_with(tmp_path, "${env:OUTER}")))
    assert next(n.config.queries for n in graph.nodes if n.use == "query_localizer") == ["${env:INNER}"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "my cams.env", "A=1", mode)
    with pytest.raises(SecretsError, match=r"chmod 600 '.*/my cams\.env'"):
        Secrets(path).resolve("${secret:A}", "it")
    path.chmod(0o400)
    assert Secrets(path).resolve("${secret:A}", "it") == "1"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.env", b"CAM=1\nhunter2 is no line\n", "line 2"),
        ("a.env", b"C AM=hunter2\n", "line 1"),
        ("a.env", b"CAM=hunter2\xff\n", "UTF-8"),
        ("a.env", b"CAM=hunter2\n" + b"#" * (1 << 20), "too large"),
        ("a.yaml", b"- hunter2\n", "mapping"),
        ("a.yaml", b"CAM: {deep: hunter2}\n", "mapping"),
        ("a.yaml", b"CAM: 'hunter2\n", "not valid YAML"),
        ("a.env", b"CAMS=hunter2\n", "did you mean 'CAMS'"),
        ("a.yaml", b"", "which is not in a.yaml"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_its_secrets(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(SecretsError, match=words) as caught:
        Secrets(private(tmp_path / name, content)).resolve("${secret:CAM}", "the source")
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_missing_values_and_files_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONLOOKER_SECRETS", raising=False)
    for file, text, words in (
        (None, "${secret:CAM}", "--secrets FILE"),
        (tmp_path / "none", "${secret:CAM}", "no such file"),
        (tmp_path, "${secret:CAM}", "directory"),
        (None, "${env:NOT_SET_ANYWHERE}", "the environment variable NOT_SET_ANYWHERE"),
        (None, "${secrets:CAM}", r"write \$\{env:NAME\} or \$\{secret:NAME\}"),
    ):
        with pytest.raises(SecretsError, match=words):
            Secrets(file).resolve(text, "the source")
    monkeypatch.setenv("ONLOOKER_SECRETS", str(private(tmp_path / "s", "CAM=1")))
    assert Secrets().resolve("${secret:CAM}", "it") == "1"


def test_a_graph_is_shown_without_them_whatever_they_look_like(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # YAML would double the quotes, escape the backslash and fold the line, and a text search would then miss it.
    secret = 'it\'s \\ "quoted" ' + "long " * 30 + "end"
    file = private(tmp_path / "s", f"ASK={secret}")
    path = graph_with(tmp_path, "${secret:ASK}")
    assert main(["graph", "show", str(path), "--secrets", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "'***'" in shown and "quoted" not in shown and "long" not in shown
    graph = load_graph(str(path), secrets=Secrets(file))
    assert next(n.config.queries for n in graph.nodes if n.use == "query_localizer") == [secret]


def test_errors_about_a_graph_hold_none(tmp_path: Path) -> None:
    secrets = Secrets(private(tmp_path / "s", "NODE=hunter2"))
    path = graph_with(tmp_path, "x")
    path.write_text(path.read_text().replace("use: clip_tower", "use: ${secret:NODE}"))
    with pytest.raises(GraphError, match=r"\*\*\*") as caught:
        load_graph(str(path), secrets=secrets)
    assert "hunter2" not in str(caught.value) and caught.value.__cause__ is None


def test_run_resolves_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = private(tmp_path / "s", "WHERE=nowhere")
    assert main(["run", "${secret:WHERE}.mp4", "--secrets", str(file), "--runner", "local", "--quiet"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["run", "${secret:OTHER}.mp4", "--secrets", str(file), "--runner", "local", "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "the source needs the secret OTHER" in told and told.count("\n") == 1
