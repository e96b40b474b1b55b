"""What the tests of training share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small models gain nothing from more threads, and on shared cores the threads wait for each other."""
    torch.set_num_threads(1)
