"""A stage keeps the promises that the operator contract makes: alignment, order, timers, one flush."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from onlooker.operators.contract import Config, ContractError, Control, End, Inputs, Operator, Outputs, Port, Source
from onlooker.operators.packets import Packet
from onlooker.pipeline.config import RuntimeSpec
from onlooker.pipeline.graph import Graph, Node
from onlooker.pipeline.runtime.batch import Batch
from onlooker.pipeline.runtime.stage import Stage

Call = tuple[dict[str, list[float]], float, list[str]]


class Pair(Source[int]):
    """Two outputs that the tests fill by hand."""

    outputs = {"left": Packet, "right": Packet}


class Probe(Operator[list[Call]]):
    """Its state is what it was called with; a test may script its answers."""

    inputs: ClassVar[Mapping[str, Port]] = {"left": Port(Packet), "right": Port(Packet, optional=True)}
    outputs = {"out": Packet}
    answers: ClassVar[list[Outputs]] = []
    at_flush: ClassVar[list[Outputs]] = []

    def initial_state(self, stream: str) -> list[Call]:
        return []

    def process_batch(self, states: list[list[Call]], inputs: list[Inputs]) -> list[tuple[list[Call], Outputs]]:
        return [(state + [self._seen(one)], self._answer()) for state, one in zip(states, inputs, strict=True)]

    def flush(self, state: list[Call], t_end: float) -> tuple[list[Call], Outputs]:
        return [*state, ({}, t_end, ["flush"])], self.at_flush.pop(0) if self.at_flush else Outputs()

    def _answer(self) -> Outputs:
        return self.answers.pop(0) if self.answers else Outputs()

    @staticmethod
    def _seen(inputs: Inputs) -> Call:
        packets = {port: [packet.t for packet in packets] for port, packets in inputs.packets.items()}
        return packets, inputs.watermark, [control.kind for control in inputs.control]


class Latest(Probe):
    """Reads its second input as it comes."""

    inputs = {"left": Port(Packet), "right": Port(Packet, mode="latest")}


class Harness:
    """One node in a stage, fed by hand."""

    def __init__(self, operator: type[Probe] = Probe, ports: tuple[str, ...] = ("left", "right")) -> None:
        source = Node("pair", "pair", Pair, Config(), {}, "decode")
        node = Node("probe", "probe", operator, Config(), {port: f"pair.{port}" for port in ports}, "models")
        graph = Graph("harness", "", (source, node), RuntimeSpec(), {})
        self.stage = Stage(graph, "models", frozenset({"probe.out"}))
        self.stage.open(threads_set=True)
        operator.answers = []
        operator.at_flush = []
        self.operator = operator

    def step(
        self,
        watermarks: dict[str, float] | None = None,
        *,
        stream: str = "cam",
        now: float = -math.inf,
        control: tuple[Control, ...] = (),
        end: End | None = None,
        **packets: list[float],
    ) -> Batch:
        """Run one batch; ports by name with the times of their packets."""
        given = {f"pair.{port}": [Packet(stream, 0, t) for t in times] for port, times in packets.items()}
        marks = {f"pair.{port}": t for port, t in (watermarks or {}).items()}
        batch = Batch(stream, given, marks, now, control, end=end)  # type: ignore[arg-type]
        [result] = self.stage.step([batch])
        return result

    def calls(self, stream: str = "cam") -> list[Call]:
        """What the operator has been called with."""
        state: list[Call] = self.stage.snapshot().streams[stream]["probe"].state
        return state


def answer(*times: float, **rest: Any) -> Outputs:
    return Outputs({"out": [Packet("cam", 0, t) for t in times]}, **rest)


def test_packets_wait_for_the_slower_port() -> None:
    harness = Harness()
    harness.step({"left": 3.0, "right": 1.0}, left=[1.0, 2.0, 3.0], right=[1.0])
    harness.step({"left": 3.0, "right": 2.5}, right=[2.5])
    assert harness.calls() == [({"left": [1.0], "right": [1.0]}, 1.0, []), ({"left": [2.0], "right": [2.5]}, 2.5, [])]


def test_port_without_packets_lets_the_others_pass_by_its_watermark() -> None:
    harness = Harness()
    harness.step({"left": 2.0, "right": 2.0}, left=[1.0, 2.0])
    assert harness.calls() == [({"left": [1.0, 2.0]}, 2.0, [])]


def test_latest_port_holds_nothing_back() -> None:
    harness = Harness(Latest)
    harness.step({"left": 2.0}, left=[1.0, 2.0])
    harness.step(right=[0.5])
    assert harness.calls() == [({"left": [1.0, 2.0]}, 2.0, []), ({"right": [0.5]}, 2.0, [])]


def test_batch_with_nothing_new_makes_no_call() -> None:
    harness = Harness()
    harness.step({"left": 1.0, "right": 1.0}, left=[1.0])
    harness.step({"left": 1.0, "right": 1.0})
    assert len(harness.calls()) == 1


def test_watermark_alone_makes_a_call() -> None:
    harness = Harness()
    harness.step({"left": 1.0, "right": 1.0})
    assert harness.calls() == [({}, 1.0, [])]


def test_watermarks_do_not_go_back() -> None:
    harness = Harness(ports=("left",))
    harness.step({"left": 2.0}, left=[2.0])
    result = harness.step({"left": 1.0}, control=(Control("query.add"),))
    assert harness.calls()[-1][1] == 2.0
    assert result.watermarks["probe.out"] == 2.0


def test_control_comes_with_the_packets_of_its_batch() -> None:
    harness = Harness(ports=("left",))
    harness.step({"left": 1.0}, left=[1.0], control=(Control("mine", stream="cam"), Control("theirs", stream="yard")))
    assert harness.calls() == [({"left": [1.0]}, 1.0, ["mine"])]


def test_timer_calls_when_it_is_due_and_not_before() -> None:
    harness = Harness(ports=("left",))
    harness.operator.answers = [Outputs(wake_at=5.0)]
    harness.step({"left": 1.0}, left=[1.0], now=1.0)
    harness.step(now=4.9)
    assert len(harness.calls()) == 1
    harness.step(now=5.0)
    assert len(harness.calls()) == 2
    harness.step(now=9.0)
    assert len(harness.calls()) == 2


def test_output_is_final_up_to_the_joint_watermark_unless_the_operator_says_otherwise() -> None:
    harness = Harness()
    harness.operator.answers = [Outputs(), Outputs(watermarks={"out": 2.5})]
    assert harness.step({"left": 2.0, "right": 1.0}).watermarks["probe.out"] == 1.0
    assert harness.step({"left": 4.0, "right": 3.0}).watermarks["probe.out"] == 2.5


def test_flush_follows_the_last_packet_once() -> None:
    harness = Harness(ports=("left",))
    harness.operator.answers = [answer(watermarks={"out": 1.0})]
    harness.operator.at_flush = [answer(2.0)]
    result = harness.step({"left": math.inf}, left=[1.0], now=2.0, end=End("complete", 2.0))
    assert [packet.t for packet in result.packets["probe.out"]] == [2.0]
    assert result.watermarks["probe.out"] == math.inf


def test_state_of_a_stream_goes_with_its_end() -> None:
    harness = Harness(ports=("left",))
    harness.step({"left": 1.0}, stream="yard", left=[1.0])
    harness.step({"left": math.inf}, end=End("complete", 1.0))
    assert set(harness.stage.snapshot().streams) == {"yard"}


def test_late_control_for_an_ended_stream_is_not_processed() -> None:
    harness = Harness(ports=("left",))
    harness.step({"left": math.inf}, end=End("complete", 1.0))
    harness.operator.answers = [answer(3.0)]
    assert harness.step(control=(Control("query.add"),)).packets == {}
    assert harness.stage.snapshot().streams == {}


def test_a_fresh_state_hears_wishes_again_but_no_old_question() -> None:
    harness = Harness(ports=("left",))
    harness.step({"left": 1.0}, left=[1.0], control=(Control("query.add"), Control("ask", lasting=False)))
    assert harness.calls() == [({"left": [1.0]}, 1.0, ["query.add", "ask"])]
    harness.step({"left": math.inf}, end=End("lost", 1.0, final=False))
    harness.step({"left": 2.0}, left=[2.0], control=(Control("ask", lasting=False),))
    assert harness.calls() == [({"left": [2.0]}, 2.0, ["query.add", "ask"])], "the new question, not the old one"


def test_a_stream_that_comes_later_hears_what_all_were_told() -> None:
    harness = Harness(ports=("left",))
    find, forget = Control("query.add"), Control("query.remove")
    for control in (find, forget, find):
        harness.step(control=(control,))
        harness.step(stream="yard", control=(control,))
    harness.step(control=(Control("own", stream="cam"), Control("ask", lasting=False)))
    harness.step({"left": 1.0}, stream="late", left=[1.0])
    assert harness.calls("late") == [({"left": [1.0]}, 1.0, ["query.remove", "query.add"])], "each once, the last last"
    assert [kinds for _, _, kinds in harness.calls("yard")] == [["query.add"], ["query.remove"], ["query.add"]]


def test_streams_do_not_mix() -> None:
    harness = Harness(ports=("left",))
    harness.step({"left": 1.0}, left=[1.0])
    harness.step({"left": 7.0}, stream="yard", left=[7.0])
    assert harness.calls() == [({"left": [1.0]}, 1.0, [])]
    assert harness.calls("yard") == [({"left": [7.0]}, 7.0, [])]


def test_packets_that_nobody_reads_are_dropped() -> None:
    result = Harness(ports=("left",)).step({"left": 1.0, "right": 1.0}, left=[1.0], right=[1.0])
    assert result.packets == {} and set(result.watermarks) == {"probe.out"}


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        (answer(1.0, 1.0), r"'out' at packet\.t = 1\.0 after 1\.0"),
        (answer(2.0, 1.0), r"'out' at packet\.t = 1\.0 after 2\.0"),
        (Outputs({"outt": []}), "no output 'outt'"),
        (Outputs({"out": ["text"]}), "gives Packet, not str"),  # type: ignore[list-item]
    ],
    ids=["twice the same time", "time goes back", "unknown port", "wrong type"],
)
def test_broken_contract_is_an_error_that_names_the_node(outputs: Outputs, complaint: str) -> None:
    harness = Harness(ports=("left",))
    harness.operator.answers = [outputs]
    with pytest.raises(ContractError, match=f"node 'probe'.*{complaint}"):
        harness.step({"left": 1.0}, left=[1.0])


def test_packet_behind_the_own_watermark_is_an_error() -> None:
    harness = Harness(ports=("left",))
    harness.operator.answers = [Outputs(watermarks={"out": 5.0}), answer(4.0)]
    harness.step({"left": 1.0}, left=[1.0])
    with pytest.raises(ContractError, match=r"after 5\.0"):
        harness.step({"left": 2.0}, left=[2.0])


def test_restored_stage_goes_on_as_if_nothing_had_happened() -> None:
    harness, other = Harness(), Harness()
    harness.step({"left": 3.0, "right": 1.0}, left=[1.0, 2.0, 3.0])
    other.stage.restore(pickle.loads(pickle.dumps(harness.stage.snapshot())))
    for each in (harness, other):
        each.step({"right": 3.0}, right=[3.0])
    assert other.calls() == harness.calls()


def test_stage_knows_which_node_holds_something_back() -> None:
    harness = Harness()
    harness.step({"left": 1.0, "right": 1.0}, left=[1.0])
    assert harness.stage.holds_back("cam") is None
    harness.step({"left": 2.0}, left=[2.0])
    assert harness.stage.holds_back("cam") == "probe"
