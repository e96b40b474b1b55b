import pytest

from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece, normalise

PIECES = [*SPECIAL, "a", "dog", "##s", "run", "##ning", "t", "shirt", "-", "'", "s", "man", "##n"]


@pytest.fixture
def vocabulary():
    return WordPiece(PIECES)


def test_normalises_as_captions_are_learnt():
    assert normalise("A man 's T-shirt , is RED !") == "a man's t-shirt is red"


def test_longest_pieces_first_and_back(vocabulary):
    ids = vocabulary.encode("A dogs running")
    assert [vocabulary.pieces[i] for i in ids] == ["a", "dog", "##s", "run", "##ning"]
    assert vocabulary.decode(ids) == "A dogs running"


def test_text_is_readable_english(vocabulary):
    assert vocabulary.decode(vocabulary.encode("a man 's t-shirt")) == "A man's t-shirt"


def test_stops_at_the_end_and_leaves_out_special_tokens(vocabulary):
    ids = [vocabulary.begin, *vocabulary.encode("a dog"), vocabulary.end, *vocabulary.encode("man")]
    assert vocabulary.decode(ids) == "A dog"
    assert vocabulary.decode([vocabulary.end]) == ""


def test_a_word_that_cannot_be_spelt_is_one_unknown(vocabulary):
    assert vocabulary.encode("zebra dog") == [1, PIECES.index("dog")]


def test_a_vocabulary_without_the_special_tokens_is_refused():
    with pytest.raises(ValueError, match="starts with"):
        WordPiece(["a", "b"])
