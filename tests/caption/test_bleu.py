"""BLEU against values worked out by hand."""

import math

import pytest

from onlooker.training.bleu import corpus_bleu, sentence_bleu


def test_hand_computed_corpus():
    # Item 1, 6 words: "the cat sat on the mat" against a reference of 6 and one of 7 words.
    #   1-grams: the(2) cat on mat match, sat does not -> 5/6; 2-grams: "the cat", "on the", "the mat" -> 3/5;
    #   3-grams: "on the mat" -> 1/4; 4-grams: 0/3.
    # Item 2, 4 words, equal to its reference: 4/4, 3/3, 2/2, 1/1.
    hypotheses = ["The cat sat on the mat .", "a dog runs fast"]
    references = [["the cat is on the mat", "there is a cat on the mat"], ["A dog runs fast!"]]
    precisions = [9 / 10, 6 / 8, 3 / 6, 1 / 4]
    expected = [math.exp(sum(map(math.log, precisions[:n])) / n) for n in range(1, 5)]
    assert corpus_bleu(hypotheses, references) == pytest.approx(expected)


def test_clips_by_the_reference_with_most():
    assert corpus_bleu(["the the the"], [["the cat", "the the"]], max_order=1)[0] == pytest.approx(2 / 3)


def test_short_texts_are_penalised_by_the_closest_reference():
    # 2 words against 3 and 6: exp(1 - 3/2).
    assert corpus_bleu(["a dog"], [["a dog runs", "a dog runs over the field"]], 1)[0] == pytest.approx(math.exp(-0.5))


def test_of_two_equally_close_references_the_shorter_counts():
    assert corpus_bleu(["a dog runs"], [["a dog", "a dog runs fast"]], 1)[0] == pytest.approx(1.0)


def test_shuffled_references_score_lower():
    hypotheses = ["a dog runs on the grass", "two men play a game of chess", "a child on a red swing"]
    references = [[text] for text in hypotheses]
    assert corpus_bleu(hypotheses, references)[3] == pytest.approx(1.0)
    assert corpus_bleu(hypotheses, references[1:] + references[:1])[3] < 0.1


def test_no_hypotheses_is_an_error():
    with pytest.raises(ValueError, match="0 hypotheses"):
        corpus_bleu([], [])


def test_sentence_bleu_by_hand():
    # "a dog runs" against "a dog sits": 1-grams 2/3, then (1+1)/(2+1), (0+1)/(1+1), (0+1)/(0+1).
    assert sentence_bleu("A dog runs.", ["a dog sits"]) == pytest.approx((2 / 3 * 2 / 3 * 1 / 2 * 1) ** 0.25)


def test_sentence_bleu_of_nothing_in_common_is_zero():
    assert sentence_bleu("a dog runs", ["two men play"]) == 0.0
    assert sentence_bleu("", ["two men play"]) == 0.0
