"""Settings that all tests share."""

import os
import signal
from pathlib import Path

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file stay in one process, so that what they share is made once; so do all that share one Ray."""
    for item in items:
        shares_ray = "ray_ready" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("ray" if shares_ray else str(Path(item.path))))
