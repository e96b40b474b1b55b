"""What several parity tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onlooker.operators.caption.metrics.meteor import Meteor, MeteorUnavailable


@pytest.fixture(scope="module")
def meteor() -> Iterator[Meteor | None]:
    """METEOR, or None where Java or its jar is missing."""
    try:
        scorer = Meteor()
    except MeteorUnavailable:
        yield None
        return
    with scorer:
        yield scorer
