"""The Ray runner gives what the local runner gives, and gets over the loss of its actors."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import ray

from onlooker.operators.contract import ContractError, Control
from onlooker.pipeline.errors import OnlookerError, UsageError
from onlooker.pipeline.runtime import ray_actors
from onlooker.pipeline.runtime.local import LocalRunner
from onlooker.pipeline.runtime.ray_runner import RayRunner
from onlooker.pipeline.session import Session

from .graphs import canonical, counter_graph, local_log, results, run_log, specs
from .parts import BrokenSourceError

pytestmark = pytest.mark.usefixtures("ray_ready")


def test_log_is_that_of_the_local_runner() -> None:
    graph = counter_graph()
    assert run_log(graph, RayRunner) == local_log(graph)


def test_log_of_several_streams_is_that_of_the_local_runner() -> None:
    graph = counter_graph()
    assert run_log(graph, RayRunner, "north", "south", "yard") == local_log(graph, "north", "south", "yard")


@pytest.mark.parametrize("chunk", [1, 1000])
def test_log_does_not_depend_on_how_the_source_cuts_its_batches(chunk: int) -> None:
    assert run_log(counter_graph(source={"chunk": chunk}), RayRunner) == local_log(counter_graph())


def test_stages_in_several_actors_give_the_same_log() -> None:
    graph = counter_graph(teller_stage="telling")
    assert run_log(graph, RayRunner) == local_log(counter_graph())


def test_replicas_of_a_stateless_stage_keep_the_order() -> None:
    graph = counter_graph(
        source={"frames": 60, "chunk": 1},
        mean={"uneven": 0.01},
        teller_stage="telling",
        stages={"models": {"replicas": 3}},
    )
    assert run_log(graph, RayRunner) == local_log(counter_graph(source={"frames": 60}))


def test_sinks_get_the_frames_they_ask_for_with_arrays_of_their_own() -> None:
    graph = counter_graph(source={"size": 224, "frames": 6})
    frames = results(RayRunner(graph, frozenset({"decode.frames"})))["cam", "decode.frames"]
    expected = results(LocalRunner(graph, frozenset({"decode.frames"})))["cam", "decode.frames"]
    assert [f.t for f in frames] == [f.t for f in expected]
    assert all((f.pixels == e.pixels).all() for f, e in zip(frames, expected, strict=True))
    assert all(f.pixels.flags.owndata for f in frames)


def test_packets_that_no_sink_reads_do_not_come_to_the_driver() -> None:
    assert set(results(RayRunner(counter_graph()))) == {("cam", "teller.events")}


def test_source_actor_does_without_torch() -> None:
    counters = [batch.counters for batch in RayRunner(counter_graph()).run(specs("cam"))]
    assert counters[-1] == {"frames_in": 40, "torch_imported": 0}


def test_source_runs_ahead_no_further_than_the_window(tmp_path: Path) -> None:
    """A consumer that stops holds everything up: how far the source gets depends on the credits, not on the video."""
    progress = tmp_path / "progress"
    graph = counter_graph(
        source={"frames": 500, "chunk": 1, "progress": str(progress)}, runtime={"in_flight": 2, "snapshot_every": 4}
    )
    batches = RayRunner(graph).run(specs("cam"))
    taken = list(itertools.islice(batches, 3))
    before, now = -1, int(progress.read_text())
    while now != before:
        time.sleep(1)
        before, now = now, int(progress.read_text())
    assert now < 10
    assert len(taken) + len(list(batches)) == 501


def test_replicas_are_refused_where_a_node_holds_something_back() -> None:
    graph = counter_graph(mean={"wake_in": 1.0}, teller_stage="telling", stages={"models": {"replicas": 2}})
    with pytest.raises(ContractError, match=r"node 'mean' holds packets or a timer .*set replicas: 1"):
        run_log(graph, RayRunner)


def test_control_packets_reach_the_operators() -> None:
    runner = RayRunner(counter_graph(source={"pause": 0.05}))
    batches = runner.run(specs("cam"))
    told = []
    for batch in batches:
        if batch.info is not None:
            runner.send(Control("query.add"))
            runner.send(Control("other.stream", stream="elsewhere"))
        told += [e.data.text for p in batch.packets.get("teller.events", []) for e in p.events]
    assert told[-1].endswith(" query.add")


def test_interrupt_ends_the_stream_after_what_was_read() -> None:
    graph = counter_graph(source={"frames": 10_000, "pause": 0.02})
    runner = RayRunner(graph)
    batches = runner.run(specs("cam"))
    seen = list(itertools.islice(batches, 4))
    runner.interrupt()
    seen += batches
    end = seen[-1].end
    assert end is not None and end.reason == "interrupted"
    shorter = counter_graph(source={"frames": seen[-1].counters["frames_in"]})
    told = [e.data.text for b in seen for p in b.packets.get("teller.events", []) for e in p.events]
    assert told == [e.data.text for p in results(LocalRunner(shorter))["cam", "teller.events"] for e in p.events]


def test_error_of_the_source_arrives_as_it_was_raised() -> None:
    with pytest.raises(BrokenSourceError) as caught:
        run_log(counter_graph(source={"fail_open": True}), RayRunner)
    assert str(caught.value) == "'/somewhere/cam' does not exist; check the path."
    assert caught.value.code == "missing"


def test_error_of_an_operator_arrives_with_the_traceback_of_its_worker() -> None:
    with pytest.raises(BrokenSourceError, match=r"^the packet at 5\.0 s is odd$") as caught:
        run_log(counter_graph(teller={"fail_at": 5.0}), RayRunner)
    assert "parts.py" in str(caught.value.__cause__)


def test_events_before_an_error_are_those_of_the_local_runner() -> None:
    graph = counter_graph(source={"fail_at": 30})
    session = Session(graph, RayRunner, specs("cam"), [])
    events = []
    with pytest.raises(ValueError, match="frame 30 cannot be read"):
        for event in session.events():
            events.append(event)
    whole = local_log(counter_graph(source={"frames": 30}))
    settled = [line for line in canonical(events).splitlines() if "/caption/" in line]
    assert settled and settled == [line for line in whole.splitlines() if "/caption/" in line][: len(settled)]


@pytest.mark.parametrize("snapshot_every", [2, 1000])
def test_stage_actor_killed_half_way_is_replaced_without_a_trace(snapshot_every: int, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    runtime = {"snapshot_every": snapshot_every}
    graph = counter_graph(teller={"die_at": 11.0, "marker": str(marker)}, runtime=runtime)
    assert run_log(graph, RayRunner, "north", "south") == local_log(counter_graph(), "north", "south")
    assert marker.exists()


def test_killed_replica_does_not_disturb_the_order(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    graph = counter_graph(
        source={"frames": 60, "chunk": 1},
        mean={"die_at": 9.0, "marker": str(marker)},
        teller_stage="telling",
        stages={"models": {"replicas": 2}},
        runtime={"snapshot_every": 4},
    )
    assert run_log(graph, RayRunner) == local_log(counter_graph(source={"frames": 60}))
    assert marker.exists()


def test_source_actor_killed_half_way_goes_on_from_its_cursor(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    graph = counter_graph(source={"die_at": 20, "marker": str(marker)})
    assert run_log(graph, RayRunner, "north", "south") == local_log(counter_graph(), "north", "south")
    assert marker.exists()


def test_actor_that_keeps_dying_is_a_clear_error() -> None:
    graph = counter_graph(teller={"die_at": 5.0}, stages={"models": {"max_restarts": 1}})
    with pytest.raises(OnlookerError, match=r"stage 'models' was lost and not replaced again \(max_restarts\)"):
        run_log(graph, RayRunner)


def test_worker_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "_weights_digest", lambda: "feed")
    with pytest.raises(OnlookerError, match=r"has other weights \([0-9a-f]{32}\) than this machine \(feed\)"):
        run_log(counter_graph(), RayRunner)


def test_graph_that_reserves_more_than_there_is_is_refused() -> None:
    graph = counter_graph(stages={"models": {"num_gpus": 1}})
    with pytest.raises(UsageError, match=r"reserve 1 GPUs, Ray has 0; lower num_gpus"):
        run_log(graph, RayRunner)


def test_ray_of_the_host_program_is_left_running() -> None:
    run_log(counter_graph(), RayRunner)
    assert ray.is_initialized()
