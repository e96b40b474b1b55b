import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.localize.changes import step_size, within_shot


def test_a_step_is_measured_by_direction_alone():
    a, b = np.array([3, 0, 0], np.float32), np.array([0, 0.1, 0], np.float32)
    assert step_size(a, 2 * a) == pytest.approx(0)
    assert step_size(a, b) == pytest.approx(1)
    assert step_size(a, -b - a) > 1
    assert step_size(a, 0 * a) == 1, "what is nothing at all is unrelated"


def test_windows_end_at_changes():
    begins = [False, False, True, False, False]
    assert [within_shot(begins, i, 1) for i in range(5)] == [(0, 2), (0, 2), (2, 4), (2, 5), (3, 5)]
    assert [within_shot([False] * 5, i, 1) for i in range(5)] == [(0, 2), (0, 3), (1, 4), (2, 5), (3, 5)]


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 6), st.data())
def test_no_window_holds_a_change_or_is_wider_than_asked(begins, half, data):
    i = data.draw(st.integers(0, len(begins) - 1))
    first, last = within_shot(begins, i, half)
    assert 0 <= i - first <= half and 1 <= last - i <= half + 1 and last <= len(begins)
    assert not any(begins[first + 1 : last])
    assert first == max(0, i - half) or begins[first]
    assert last == min(len(begins), i + half + 1) or begins[last]
