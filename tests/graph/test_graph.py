import pytest

from onlooker.pipeline.assemble import make_plan, source_spec
from onlooker.pipeline.config import GraphSpec
from onlooker.pipeline.errors import GraphError, UsageError
from onlooker.pipeline.graph import build_graph, load_graph


def spec(**nodes):
    return GraphSpec.model_validate({"name": "t", "nodes": nodes})


DECODE = {"use": "decode", "stage": "decode"}
TOWER = {"use": "clip_tower", "inputs": {"frames": "decode.frames"}}


def test_nodes_come_in_topological_order_whatever_the_file_says():
    graph = build_graph(spec(tower=TOWER, decode=DECODE))
    assert [n.name for n in graph.nodes] == ["decode", "tower"]


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        ({"use": "clip_tower"}, "'frames'.*not connected"),
        ({"use": "clip_tower", "inputs": {"frame": "decode.frames"}}, "did you mean 'frames'"),
        ({"use": "clip_tower", "inputs": {"frames": "decoder.frames"}}, "did you mean 'decode'"),
        ({"use": "clip_tower", "inputs": {"frames": "decode.frame"}}, "did you mean 'frames'"),
    ],
)
def test_wrong_connections_say_what_is_right(tower, message):
    with pytest.raises(GraphError, match=message):
        build_graph(spec(decode=DECODE, tower=tower))


def test_ports_of_other_types_do_not_connect():
    memory = {"use": "clustering_memory", "inputs": {"tokens": "decode.frames"}}
    with pytest.raises(GraphError, match="takes Tokens, but 'decode.frames' gives Frame"):
        build_graph(spec(decode=DECODE, memory=memory))


def test_a_circle_is_refused():
    a = {"use": "git_captioner", "inputs": {"memory": "b.memory"}}
    b = {"use": "clustering_memory", "inputs": {"tokens": "a.events"}}
    with pytest.raises(GraphError):
        build_graph(spec(decode=DECODE, a=a, b=b))


def test_a_graph_needs_one_source():
    with pytest.raises(GraphError, match="exactly one source"):
        build_graph(spec(decode=DECODE, second=DECODE))


def test_a_stage_cannot_read_from_a_later_one():
    nodes = {
        "decode": DECODE,
        "tower": {**TOWER, "stage": "late"},
        "other": {**TOWER, "stage": "early"},
        "memory": {"use": "clustering_memory", "inputs": {"tokens": "tower.tokens"}, "stage": "early"},
        "late_memory": {"use": "clustering_memory", "inputs": {"tokens": "other.tokens"}, "stage": "late"},
    }
    with pytest.raises(GraphError, match="later stage"):
        build_graph(spec(**nodes))


def test_replicas_need_a_stateless_stage():
    document = {
        "name": "t",
        "nodes": {
            "decode": DECODE,
            "tower": TOWER,
            "memory": {"use": "clustering_memory", "inputs": {"tokens": "tower.tokens"}},
        },
        "stages": {"models": {"replicas": 2}},
    }
    with pytest.raises(GraphError, match="keeps state per stream"):
        build_graph(GraphSpec.model_validate(document))


def test_validating_a_graph_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; from onlooker.pipeline.graph import load_graph; load_graph('file'); "
        "sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_queries_nothing_scores_them():
    assert "queries" not in [n.name for n in make_plan("file").graph.nodes]
    assert "queries" in [n.name for n in make_plan("file", queries=["a dog"]).graph.nodes]


@pytest.mark.parametrize("graph", ["file", "dense", "dense-paper", "moments"])
def test_another_tower_does_not_get_the_embedded_captioner_and_localizer(graph):
    plan = make_plan(graph, model="ViT-B-32", queries=["a dog"])
    assert [n.name for n in plan.graph.nodes] == ["decode", "tower", "queries"]
    assert "no captions" in plan.notices[0]
    (queries,) = [n for n in plan.graph.nodes if n.name == "queries"]
    assert (queries.use, queries.config.model, queries.config.queries) == ("query_localizer", "ViT-B-32", ["a dog"])


def test_a_localizer_of_the_users_own_stays_with_another_tower():
    plan = make_plan("moments", model="ViT-B-32", queries=["a dog"], overrides=["queries.model=folder"])
    (queries,) = [n for n in plan.graph.nodes if n.name == "queries"]
    assert (queries.use, queries.config.model) == ("moment_localizer", "folder")


@pytest.mark.parametrize("graph", ["file", "moments"])
def test_classes_are_looked_for_by_name_or_from_a_file(graph, tmp_path):
    (tmp_path / "classes.txt").write_text("# of the yard\ndog, puppy\ncat\n")
    for classes in (tmp_path / "classes.txt", ["dog, puppy", "cat"]):
        plan = make_plan(graph, classes=classes)
        assert next(n.config.classes for n in plan.graph.nodes if n.name == "queries") == ["dog, puppy", "cat"]


def test_a_class_list_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(GraphError, match="cannot read the class list '/No/List.txt': no such file or directory.$"):
        make_plan("file", classes="/No/List.txt")


def test_nothing_to_do_is_an_error():
    with pytest.raises(UsageError, match="nothing to do"):
        make_plan("file", model="ViT-B-32")


@pytest.mark.parametrize(
    ("uri", "stream"),
    [
        ("/home/me/My holiday.mp4", "My-holiday"),
        ("rtsp://user:secret@cam-1.local:554/h264", "cam-1.local"),
        ("file:///tmp/dog.mp4", "dog"),
    ],
)
def test_streams_are_named_after_file_or_host(uri, stream):
    assert source_spec(uri).stream == stream


def test_edges_end_where_nobody_reads_them():
    graph = load_graph("file")
    assert graph.needed_after(-1, ()) >= {"decode.frames"}
    assert "decode.previews" not in graph.needed_after(-1, ())
    assert "decode.frames" not in graph.needed_after(0, ())
