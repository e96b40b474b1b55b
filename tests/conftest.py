"""Settings that all tests share."""

import os
import signal
from typing import Any

# Two tests run at a time on two cores; more threads than cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Shared, noisy machines: a deadline would only measure the neighbours.
settings.register_profile("onlooker", deadline=None, max_examples=50)
settings.load_profile("onlooker")

# Scripts start what runs in the background with SIGINT ignored, and children inherit that: then no Ctrl-C reaches them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one file go to one process, so that what they share is made once; so do those that share one Ray."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "ray" if file.startswith("tests/runtime/") else file

    return Scheduling(config, log)
