"""Captions of a small trained captioner, and loading one from a folder."""

import json
import shutil

import pytest
import torch

from onlooker.operators.caption.captioner import DecodeOptions
from onlooker.operators.caption.load import CaptionerError, captioner_names, load_captioner
from onlooker.training.captioner import save_captioner

from .conftest import SENTENCES, SIZE, WIDTH, memory_of


def spoken(text):
    return text[0].upper() + text[1:]


def test_says_what_the_memory_holds(captioner):
    for scene, sentence in enumerate(SENTENCES):
        assert captioner.caption(memory_of(scene, seed=9))[0][0] == spoken(sentence)


def test_shuffled_memories_get_other_captions(captioner):
    captions = [texts[0][0] for texts in captioner.caption_batch([memory_of(s, seed=9) for s in (1, 2, 0)])]
    assert all(caption != spoken(sentence) for caption, sentence in zip(captions, SENTENCES, strict=True))


def test_scores_are_probabilities_in_order_of_the_search(captioner):
    texts = captioner.caption(memory_of(0), beam=3)
    assert 0.9 < texts[0][1] <= 1.0
    assert all(0.0 < score <= 1.0 for _, score in texts)
    assert len({text for text, _ in texts}) == len(texts)


def test_a_caption_does_not_depend_on_its_batch(captioner):
    memories = [memory_of(0), memory_of(1, tokens=3), memory_of(2, tokens=SIZE - 1)]
    prefixes = [(), ("a red boat",), ()]
    together = captioner.caption_batch(memories, prefixes)
    alone = [captioner.caption(memory, prefix) for memory, prefix in zip(memories, prefixes, strict=True)]
    assert together == alone  # to the last bit of the scores


def test_few_tokens_and_arrays_are_taken(captioner):
    assert captioner.caption(memory_of(1, tokens=1).numpy())[0][0] == spoken(SENTENCES[1])


def test_long_prefixes_keep_the_latest_words(captioner):
    ids = captioner.prefix_tokens(["two men play chess"] * 3 + ["a red boat"])
    assert len(ids) == captioner.options.prefix_length
    assert captioner.vocabulary.decode(ids[1:]).endswith("a red boat")


@pytest.mark.parametrize("shape", [(0, WIDTH), (SIZE + 1, WIDTH), (SIZE, WIDTH + 1), (WIDTH,)])
def test_memories_that_do_not_fit_are_named(captioner, shape):
    with pytest.raises(ValueError, match=rf"1 to {SIZE} tokens of width {WIDTH}"):
        captioner.caption(torch.zeros(shape))


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        DecodeOptions(beam=0)


def test_saved_and_loaded_says_the_same(captioner, tmp_path):
    save_captioner(tmp_path / "mine", captioner)
    loaded = load_captioner(tmp_path / "mine")
    assert loaded is load_captioner(str(tmp_path / "mine"))
    for scene in range(3):
        text, score = loaded.caption(memory_of(scene))[0]
        assert text == captioner.caption(memory_of(scene))[0][0]
        assert score == pytest.approx(captioner.caption(memory_of(scene))[0][1], abs=0.01)  # weights are float16


def test_unknown_names_get_the_nearest():
    assert "tiny" in captioner_names()
    with pytest.raises(CaptionerError, match="unknown captioner 'tinny': did you mean 'tiny'"):
        load_captioner("tinny")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_incomplete_folders_are_named(captioner, tmp_path, name):
    save_captioner(tmp_path / "mine", captioner)
    (tmp_path / "mine" / name).unlink()
    with pytest.raises(CaptionerError, match=f"'mine' is not a captioner: it lacks {name}"):
        load_captioner(tmp_path / "mine")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_one_clear_line(captioner, tmp_path, name):
    save_captioner(tmp_path / "mine", captioner)
    (tmp_path / "mine" / name).write_bytes(b"nothing")
    with pytest.raises(CaptionerError, match="captioner 'mine' cannot be loaded: .+") as raised:
        load_captioner(tmp_path / "mine")
    assert "\n" not in str(raised.value)


def test_weights_of_other_sizes_are_refused(captioner, tmp_path):
    save_captioner(tmp_path / "mine", captioner)
    shutil.copytree(tmp_path / "mine", tmp_path / "wrong")
    config = json.loads((tmp_path / "wrong" / "config.json").read_text())
    config["decoder"]["hidden_size"] = 64
    (tmp_path / "wrong" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CaptionerError, match="'wrong' cannot be loaded"):
        load_captioner(tmp_path / "wrong")
