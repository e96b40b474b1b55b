import pytest
import yaml

from onlooker.pipeline.config import builtin_graphs, load_spec
from onlooker.pipeline.errors import GraphError
from onlooker.pipeline.graph import load_graph
from onlooker.pipeline.secrets import SecretsError


def write(tmp_path, change=lambda d: None):
    document = load_graph("file").document()
    del document["stages"]
    change(document)
    path = tmp_path / "g.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def node(name, **keys):
    def change(document):
        document["nodes"][name]["config"].update(keys)

    return change


def test_all_builtin_graphs_are_valid():
    assert "file" in builtin_graphs()
    for name in builtin_graphs():
        load_graph(name)


def test_a_shown_graph_is_a_graph(tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(load_graph("file").to_yaml())
    assert load_graph(str(path)).document() == load_graph("file").document()


def test_unknown_config_key_names_the_nearest(tmp_path):
    with pytest.raises(GraphError, match=r"node 'decode'.*'fsp'.*did you mean 'fps'"):
        load_graph(write(tmp_path, node("decode", fsp=3)))


def test_unknown_top_level_key_names_the_nearest(tmp_path):
    with pytest.raises(GraphError, match=r"'runtimes'.*did you mean 'runtime'"):
        load_graph(write(tmp_path, lambda d: d.update(runtimes={})))


def test_unknown_key_inside_a_node_names_the_nearest(tmp_path):
    with pytest.raises(GraphError, match=r"nodes.tower.input'.*did you mean 'inputs'"):
        load_graph(write(tmp_path, lambda d: d["nodes"]["tower"].update(input={})))


def test_unknown_operator_names_the_nearest(tmp_path):
    with pytest.raises(GraphError, match=r"'clip_towr'.*did you mean 'clip_tower'"):
        load_graph(write(tmp_path, lambda d: d["nodes"]["tower"].update(use="clip_towr")))


def test_unknown_graph_names_the_nearest():
    with pytest.raises(GraphError, match="unknown graph 'fiel'; did you mean 'file'"):
        load_graph("fiel")


def test_missing_graph_file_says_so():
    with pytest.raises(GraphError, match="does not exist"):
        load_graph("nowhere/graph.yaml")


def test_wrong_yaml_says_so(tmp_path):
    (tmp_path / "g.yaml").write_text("nodes: [")
    with pytest.raises(GraphError, match="not valid YAML"):
        load_graph(str(tmp_path / "g.yaml"))


def test_wrong_value_says_where(tmp_path):
    with pytest.raises(GraphError, match=r"node 'decode'.*fps"):
        load_graph(write(tmp_path, node("decode", fps=-1)))


def test_precedence_is_defaults_file_flags_overrides(tmp_path):
    default = load_graph("file").nodes[0].config.fps
    path = write(tmp_path, node("decode", fps=3.0))
    assert load_graph(path).source.config.fps == 3.0 != default
    flags = {"decode": {"fps": 4.0}}
    assert load_graph(path, settings=flags).source.config.fps == 4.0
    assert load_graph(path, settings=flags, overrides=["decode.fps=5"]).source.config.fps == 5.0


def test_override_of_runtime():
    assert load_graph("file", overrides=["runtime.threads=2"]).runtime.threads == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("decode", "node.key=value"),
        ("fps=3", "node.key=value"),
        ("decod.fps=3", "did you mean 'decode'"),
        ("decode.fsp=3", "did you mean 'fps'"),
        ("decode.fps={", "not valid YAML"),
    ],
)
def test_wrong_override_says_what_is_right(override, message):
    with pytest.raises(GraphError, match=message):
        load_graph("file", overrides=[override])


def test_environment_value_is_used_and_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("QUERY", "s3cret words")
    path = write(tmp_path, node("queries", queries=["${env:QUERY}"]))
    graph = load_graph(path)
    assert graph.nodes[-1].config.queries == ["s3cret words"] or any(
        getattr(n.config, "queries", None) == ["s3cret words"] for n in graph.nodes
    )
    assert "s3cret" not in graph.to_yaml()
    assert "***" in graph.to_yaml()


def test_unset_environment_value_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(SecretsError, match="NOT_SET_ANYWHERE"):
        load_graph(write(tmp_path, node("queries", queries=["${env:NOT_SET_ANYWHERE}"])))


def test_spec_keeps_the_file_order():
    spec, _ = load_spec("file")
    assert list(spec.nodes)[0] == "decode"
