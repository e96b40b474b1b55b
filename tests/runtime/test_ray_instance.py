"""A private Ray instance starts and stops without a trace. Each test runs a program of its own, as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import ray

from onlooker.pipeline.errors import UsageError
from onlooker.pipeline.runtime.ray_instance import check_reachable, ray_instance

ROOT = Path(__file__).resolve().parents[2]

PROLOGUE = """
    import json, os, re, signal, sys
    import psutil
    from onlooker.pipeline.runtime.ray_runner import RayRunner
    from onlooker.pipeline.session import Session
    from tests.runtime.graphs import counter_graph, specs
    from tests.runtime.parts import BrokenSourceError

    def children():
        return [p.pid for p in psutil.Process().children(recursive=True)]

    def folders():
        # Those of the private instances that run, as Ray's processes were told them.
        words = [word for pid in children() for word in psutil.Process(pid).cmdline()]
        return {found for word in words for found in re.findall("/tmp/onlooker-[a-z0-9_]+", word)}

    def session(**parts):
        return Session(counter_graph(**parts), RayRunner, specs("cam"), [])
"""


def start(program: str, **environment: str) -> subprocess.Popen[str]:
    """Start a program in a session of its own, so that a signal to its group is Ctrl-C on its terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROLOGUE) + textwrap.dedent(program)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def running(pids: list[int]) -> list[int]:
    """Those that have not ended; a zombie has."""
    alive = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.append(pid)
        except psutil.Error:
            continue
    return alive


def pids_of(output: str) -> list[int]:
    """The process numbers that the program printed on its first line."""
    return [int(word) for word in output.splitlines()[0].split()]


def test_two_runs_print_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    """The first loses an actor on the way, which Ray would like to tell the user about."""
    program = start(
        f"""
        events = session(teller={{"die_at": 5.0, "marker": {str(tmp_path / "died")!r}}}).events()
        first = next(events)
        started, used = children(), folders()
        count = 1 + len(list(events))
        second = session().events()
        next(second)
        started += children()
        used |= folders()
        assert count == 1 + len(list(second))
        print(*started)
        print(children(), "RAY_AUTH_TOKEN" in os.environ)
        print(*used)
        """,
        RAY_ADDRESS="192.0.2.1:6379",
    )
    out, err = program.communicate(timeout=300)
    assert (program.returncode, err) == (0, "")
    assert out.splitlines()[1] == "[] False"
    assert len(pids_of(out)) >= 8
    assert running(pids_of(out)) == []
    used = out.splitlines()[2].split()
    assert len(used) == 2 and not any(Path(folder).exists() for folder in used)


def test_error_leaves_nothing_behind() -> None:
    program = start(
        """
        events = session(teller={"fail_at": 5.0}).events()
        next(events)
        print(*children())
        try:
            list(events)
        except BrokenSourceError as error:
            print(error)
        """
    )
    out, err = program.communicate(timeout=300)
    assert (program.returncode, err) == (0, "")
    assert out.splitlines()[1] == "the packet at 5.0 s is odd"
    assert running(pids_of(out)) == []


def test_ctrl_c_lets_the_workers_finish_what_was_read() -> None:
    """The terminal sends SIGINT to all processes of the group; only the driver may react."""
    program = start(
        """
        run = session(source={"frames": 100000, "pause": 0.05})
        signal.signal(signal.SIGINT, lambda number, frame: run.interrupt())
        events = run.events()
        next(events), next(events)
        print(*children(), flush=True)
        rest = list(events)
        print(rest[-1].data.reason, run.exit_code, rest[-2].data.t_end == rest[-1].data.t_end)
        """
    )
    assert program.stdout is not None
    first = program.stdout.readline()
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=300)
    assert (program.returncode, err) == (0, "")
    assert out == "interrupted 130 True\n"
    assert running(pids_of(first)) == []


def test_consumer_that_leaves_early_leaves_nothing_behind() -> None:
    program = start(
        """
        events = session(source={"frames": 100000}).events()
        next(events)
        print(*children())
        events.close()
        print(children())
        """
    )
    out, err = program.communicate(timeout=300)
    assert (program.returncode, err) == (0, "")
    assert out.splitlines()[1] == "[]"
    assert running(pids_of(out)) == []


def test_workers_are_no_nicer_than_their_driver(ray_ready: None) -> None:
    """Else a camera's decoder starves beside any busy program."""

    def niceness() -> int:
        return os.nice(0)

    assert ray.get(ray.remote(niceness).remote()) == os.nice(0)


def test_client_without_the_token_of_the_run_is_refused(ray_ready: None) -> None:
    program = f"""
        import ray
        try:
            ray.init(address={ray.get_runtime_context().gcs_address!r}, log_to_driver=False)
        except ConnectionError:
            print("refused")
    """
    without = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    for client in [start(program, **without), start(program, **wrong)]:
        out, err = client.communicate(timeout=300)
        assert out == "refused\n"
        assert "InvalidAuthToken" in err


def test_client_with_the_token_of_the_run_is_let_in(ray_ready: None) -> None:
    """The twin of the test above: what makes the difference is the token alone."""
    address = ray.get_runtime_context().gcs_address
    program = f"import ray; ray.init(address={address!r}, logging_level='critical'); print('joined')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert "joined" in result.stdout


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:ray", "[::1]:1"])
def test_cluster_that_does_not_answer_is_refused_without_asking_ray(address: str) -> None:
    with pytest.raises(UsageError, match="cannot join the Ray cluster at .*give HOST:PORT of its head node"):
        check_reachable(address)


def test_ray_client_address_is_refused() -> None:
    with pytest.raises(UsageError, match="Ray Client is not supported"), ray_instance("ray://h:1", cpus=1, threads=1):
        pass


def test_a_stream_added_to_a_private_instance_finds_room_though_its_source_reserves_a_cpu() -> None:
    """Whose CPUs are what the actors reserved at the start: nothing is free for one more."""
    program = """
        import dataclasses
        from onlooker.pipeline.config import StageSpec
        from onlooker.pipeline.runtime.batch import SourceSpec
        from tests.e2e.live_runs import live_graph

        pattern = "lavfi:testsrc2=size=64x48:rate=25"
        graph = live_graph()
        graph = dataclasses.replace(graph, placement={**graph.placement, "decode": StageSpec(num_cpus=1)})
        run = Session(graph, RayRunner, [SourceSpec(pattern, "one")], [])
        added = False
        for event in run.events():
            if event.kind == "caption" and not added:
                run.add(SourceSpec(pattern, "two"))
                added = True
            if event.kind == "caption" and event.data.stream == "two":
                run.interrupt()
        print(json.dumps({name: end.reason for name, end in run.ends.items()}))
    """
    done = start(program)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert json.loads(out) == {"one": "interrupted", "two": "interrupted"}
