import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.caption.dense_events import TruncatedEventError, caption_text, parse_events, wordpiece_text
from onlooker.operators.caption.time_tokens import TimeTokens
from onlooker.operators.errors import OnlookerError

TIMES = TimeTokens(50, 16)
DURATION = 15_000_000

bins = st.integers(0, 15)


@given(st.lists(st.tuples(bins, bins, st.lists(st.integers(2, 49), max_size=4)), max_size=5))
def test_what_was_serialised_comes_back(events: list[tuple[int, int, list[int]]]) -> None:
    tokens = [token for start, end, words in events for token in (50 + start, 50 + end, *words)]
    found = parse_events(tokens, TIMES, DURATION)
    assert [(event.start_bin, event.end_bin, list(event.tokens)) for event in found] == events
    assert [event.start_us for event in found] == [start * 1_000_000 for start, _, _ in events]


def test_words_without_a_time_open_one_empty_interval() -> None:
    (event,) = parse_events([1, 1, 1], TIMES, DURATION)
    assert (event.start_us, event.end_us, event.tokens) == (0, 0, (1, 1, 1))
    assert caption_text(event.tokens, str, {0, 1}) == "[]"


def test_a_word_in_the_place_of_the_end_gives_a_negative_end() -> None:
    (event,) = parse_events([53, 48, 7], TIMES, DURATION)
    assert (event.start_bin, event.end_bin, event.end_us, event.tokens) == (3, -2, -2_000_000, (7,))


def test_a_start_without_an_end_is_refused_or_left_out() -> None:
    with pytest.raises(TruncatedEventError, match="bin 5") as refused:
        parse_events([50, 51, 7, 55], TIMES, DURATION)
    assert isinstance(refused.value, OnlookerError) and isinstance(refused.value, IndexError)
    assert len(parse_events([50, 51, 7, 55], TIMES, DURATION, strict=False)) == 1


PIECES = ["[PAD]", "[SEP]", "a", "cat", "##s", "caf\u00e9", "-"]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([2, 3, 4], "a cats"),
        ([4, 3], "##s cat"),
        ([3, 1, 2], "cat"),
        ([3, 0, 2], "cat"),
        ([2, 5], "a caf"),
        ([5, 3], "caf  cat"),
        ([], ""),
    ],
)
def test_text_of_wordpieces(ids: list[int], text: str) -> None:
    assert caption_text(ids, lambda kept: wordpiece_text(kept, PIECES), {0, 1}) == text
