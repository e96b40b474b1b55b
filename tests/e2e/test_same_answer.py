"""Whatever runs the graph and however the stream is cut: the canonical log is the same, byte for byte."""

import pytest

from onlooker.pipeline.assemble import make_plan, runner_factory, source_spec
from onlooker.pipeline.session import Session

QUERIES = ["a cat", "a tower at sunset"]


def canonical_log(video, runner="local", overrides=(), streams=None, name="file"):
    graph = make_plan(name, queries=QUERIES, overrides=overrides).graph
    specs = [source_spec(str(video), name) for name in streams or ["demo"]]
    session = Session(graph, runner_factory(runner), specs, [])
    log = "\n".join(event.to_json(canonical=True) for event in session.events())
    assert session.exit_code == 0
    return log


@pytest.fixture(scope="module")
def reference(demo):
    return canonical_log(demo[0])


def test_the_log_says_something(reference):
    assert reference.count("onlooker.caption.v1") >= 5
    assert reference.count("onlooker.query.v1") >= 2
    assert reference.splitlines()[-1].endswith('"status":"ended","reason":"complete"}}')


@pytest.mark.parametrize("chunk", [1, 3, 100_000])
def test_chunks_do_not_matter(demo, reference, chunk):
    assert canonical_log(demo[0], overrides=[f"decode.chunk={chunk}"]) == reference


def test_stages_do_not_matter(demo, reference, tmp_path):
    import yaml

    from onlooker.pipeline.graph import load_graph

    document = load_graph("file").document()
    for node in ("tower", "memory", "caption", "queries"):
        document["nodes"][node]["stage"] = "models"
    document["stages"] = {}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(document))
    graph = make_plan(str(path), queries=QUERIES).graph
    assert graph.stages == ("models",)
    session = Session(graph, runner_factory("local"), [source_spec(str(demo[0]))], [])
    assert "\n".join(e.to_json(canonical=True) for e in session.events()) == reference


def test_ray_writes_the_same(demo, reference):
    assert canonical_log(demo[0], runner="ray") == reference


def test_a_second_stream_changes_nothing_about_the_first(demo, reference):
    both = canonical_log(demo[0], streams=["demo", "other"]).splitlines()
    assert "\n".join(line for line in both if '"stream":"demo"' in line) == reference


def test_another_sampling_rate_is_another_log(demo, reference):
    """The twin: a comparison that everything passes would show nothing."""
    assert canonical_log(demo[0], overrides=["decode.fps=1"]) != reference


@pytest.mark.slow
def test_objects_are_the_same_on_ray_and_cut_frame_by_frame(demo):
    """One comparison for both: neither the runner nor the chunks may matter."""
    seldom = ["decode.fps=1", "tracks.captions_per_second=0.3"]  # what takes the time
    whole = canonical_log(demo[0], overrides=seldom, name="objects")
    assert whole.count("onlooker.track.v1") >= 10
    assert canonical_log(demo[0], "ray", [*seldom, "decode.chunk=1"], name="objects") == whole
