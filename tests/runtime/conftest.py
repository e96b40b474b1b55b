"""One Ray for all tests that only need some Ray; tests of starting and stopping run in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onlooker.pipeline.runtime.ray_instance import ray_instance


@pytest.fixture(scope="session")
def ray_ready() -> Iterator[None]:
    """Ray is initialised, so that a RayRunner takes it as the host program's."""
    with ray_instance(None, cpus=4, threads=1):
        yield
