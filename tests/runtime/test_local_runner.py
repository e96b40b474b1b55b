"""What the local runner does besides giving the right log, which the tests of the Ray runner compare with."""

from __future__ import annotations

import pytest

from onlooker.operators.contract import Control
from onlooker.pipeline.runtime.local import LocalRunner

from .graphs import counter_graph, local_log, specs
from .parts import BrokenSourceError


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_log_does_not_depend_on_how_the_source_cuts_its_batches(chunk: int) -> None:
    assert local_log(counter_graph(source={"chunk": chunk}), "a", "b") == local_log(counter_graph(), "a", "b")


def test_log_tells_of_other_pictures_from_another_stream() -> None:
    """The twin of all comparisons of logs: they do differ where something differs."""
    one, other = local_log(counter_graph(), "a"), local_log(counter_graph(), "b")
    assert one.replace('"a', '"b').replace("/a", "/b") != other


def test_source_that_cannot_be_opened_is_an_error_at_once() -> None:
    with pytest.raises(BrokenSourceError, match=r"'/somewhere/cam' does not exist"):
        local_log(counter_graph(source={"fail_open": True}))


def test_error_of_an_operator_reaches_the_caller() -> None:
    with pytest.raises(BrokenSourceError, match=r"the packet at 5\.0 s is odd"):
        local_log(counter_graph(teller={"fail_at": 5.0}))


def test_interrupt_before_the_start_ends_the_stream_as_it_begins() -> None:
    runner = LocalRunner(counter_graph())
    runner.interrupt()
    ends = [batch.end for batch in runner.run(specs("cam")) if batch.end is not None]
    assert [(end.reason, end.t) for end in ends] == [("interrupted", 0.0)]


def test_send_does_not_block_where_all_queues_are_full() -> None:
    runner = LocalRunner(counter_graph(source={"chunk": 1}, runtime={"in_flight": 1}))
    told = []
    for batch in runner.run(specs("cam")):
        runner.send(Control("ping"))
        told += [e.data.text for p in batch.packets.get("teller.events", []) for e in p.events]
    assert "ping" in told[-1]
