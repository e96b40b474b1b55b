"""GIT checkpoints of transformers: small ones, made and saved here, since no hub can be reached."""

import json

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

from onlooker.operators.caption.captioner import DecodeOptions
from onlooker.operators.caption.huggingface import HuggingFaceCaptioner, load_git
from onlooker.operators.caption.load import CaptionerError, load_captioner
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.memory.clustering import StreamingKMeans
from onlooker.operators.packets import Memory

WORDS = [
    "a",
    "dog",
    "cat",
    "boat",
    "man",
    "woman",
    "runs",
    "sits",
    "jumps",
    "on",
    "the",
    "grass",
    "water",
    "red",
    "##s",
]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SIZE, PATCH, WIDTH = 28, 14, 32
TOKENS = (SIZE // PATCH) ** 2 + 1


def save_checkpoint(folder, frames=None, seed=0):
    """A GIT of two layers with far from tame random weights, its vocabulary and its processor."""
    config = GitConfig(
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": SIZE, "patch_size": PATCH,
        },
        vocab_size=len(PIECES), hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, bos_token_id=2, eos_token_id=3, pad_token_id=0, num_image_with_embedding=frames,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = GitForCausalLM(config)
    for name, parameter in model.named_parameters():
        if "LayerNorm" not in name and "layernorm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    image_processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    GitProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("git"))


@pytest.fixture(scope="module")
def video_folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("git-video"), frames=3, seed=1)


def pictures(count, seed=0):
    """(count, 40, 32, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 40, 32, 3), dtype=np.uint8)


def pixels_of(folder, frames):
    processor = CLIPImageProcessor.from_pretrained(folder)
    return processor(images=list(frames), return_tensors="pt")["pixel_values"]


SEARCHES = [
    {"num_beams": 1, "do_sample": False, "max_length": 12},
    {"num_beams": 4, "do_sample": False, "max_length": 12},
    {"num_beams": 3, "num_return_sequences": 3, "do_sample": False, "max_length": 9, "length_penalty": 0.5},
]


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beam", "all beams"])
@pytest.mark.parametrize("cache", [True, False], ids=["cached", "uncached"])
def test_one_frame_equals_transformers(folder, search, cache):
    theirs = GitForCausalLM.from_pretrained(folder).eval()
    ours = load_git(folder)
    seen = set()
    for frame in pictures(6):
        expected = theirs.generate(pixel_values=pixels_of(folder, [frame]), use_cache=cache, **search)
        actual = ours.generate(ours.encode_frames(frame[None]), use_cache=cache, **search)
        assert actual.tolist() == expected.tolist()
        seen.add(str(expected.tolist()))
    assert len(seen) > 1, "the checkpoint says the same about every picture: nothing was compared"


def test_a_batch_of_pictures_equals_transformers(folder):
    theirs = GitForCausalLM.from_pretrained(folder).eval()
    ours = load_git(folder)
    frames = pictures(4)
    expected = theirs.generate(pixel_values=pixels_of(folder, frames), **SEARCHES[1])
    assert ours.generate(ours.encode_frames(frames), **SEARCHES[1]).tolist() == expected.tolist()


@pytest.mark.parametrize("search", SEARCHES[:2], ids=["greedy", "beam"])
def test_a_few_frames_equal_transformers(video_folder, search):
    theirs = GitForCausalLM.from_pretrained(video_folder).eval()
    for parameter in theirs.git.img_temporal_embedding:
        assert float(parameter.detach().abs().sum()) > 0
    ours = load_git(video_folder)
    for seed in range(3):
        frames = pictures(3, seed)
        expected = theirs.generate(pixel_values=pixels_of(video_folder, frames)[None], **search)
        memory = ours.video_tokens(ours.encode_frames(frames))
        assert memory.shape == (3 * TOKENS, WIDTH)
        assert ours.generate(memory[None], **search).tolist() == expected.tolist()
    with pytest.raises(ValueError, match="4 frames, but the checkpoint was trained on 3"):
        ours.video_tokens(torch.zeros(4, TOKENS, WIDTH))


def test_captions_are_the_best_beams(folder):
    """Text, probability and score of `propose` against transformers' own numbers."""
    ours = load_git(folder, DecodeOptions(beam=3, max_length=10))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    memory = ours.encode_frames(pictures(1))[0]
    arguments = {"num_beams": 3, "num_return_sequences": 3, "max_length": 10, "do_sample": False}
    result = ours.generate(memory[None], output_scores=True, return_dict_in_generate=True, **arguments)
    (proposals,) = ours.propose([memory])
    expected = [tokenizer.decode(ids, skip_special_tokens=True) for ids in result.sequences]
    for proposal, text, score in zip(proposals, expected, result.sequences_scores.tolist(), strict=True):
        assert proposal.text.lower() == text
        assert proposal.total == pytest.approx(score, rel=1e-4)
        assert proposal.probability == pytest.approx(float(np.exp(score)), rel=1e-4)


def test_greedy_probability_is_that_of_the_text(folder):
    ours = load_git(folder, DecodeOptions(beam=1, max_length=10))
    memory = ours.encode_frames(pictures(1))[0]
    ((text, probability),) = ours.caption(memory)
    result = ours.generate(memory[None], max_length=10, num_beams=1, output_scores=True, return_dict_in_generate=True)
    steps = [float(scores.softmax(-1).max()) for scores in result.scores]
    assert probability == pytest.approx(float(np.prod(steps)) ** (1 / len(steps)), rel=1e-4)
    assert text


def test_a_clustering_memory_takes_the_place_of_the_picture(folder):
    """Any number of tokens; what one memory gets does not depend on its neighbours, what it holds does matter."""
    ours = load_git(folder, DecodeOptions(beam=2, max_length=12))
    clustering = StreamingKMeans(2 * TOKENS)
    memories = []
    for seed in range(4):
        state = clustering.initial_state(WIDTH)
        for tokens in ours.encode_frames(pictures(5, seed)):
            state = clustering.update(state, tokens)
        memories.append(state.tokens)
    together = ours.caption_batch([*memories, memories[0][:3]])
    assert together == [ours.caption(memory) for memory in [*memories, memories[0][:3]]]
    assert len({captions[0][0] for captions in together}) > 1


def test_earlier_captions_begin_the_text(folder):
    ours = load_git(folder, DecodeOptions(beam=1, max_length=12, prefix_length=6))
    memory = ours.encode_frames(pictures(1))[0]
    assert ours._prompt(["a dog runs", "a cat sits"]) == [11, 5, 7, 12], "the latest pieces are kept"
    text = ours.caption(memory, ["the red boats"])[0][0]
    assert not text.lower().startswith("the red boats")
    prompt = ours._prompt(["the red boats"])
    whole = ours.generate(memory[None], prompt, num_beams=1, max_length=12 + len(prompt))
    assert ours._tokenizer.decode(whole[0][1 + len(prompt) :], skip_special_tokens=True) == text.lower()


def test_memories_that_do_not_fit_are_named(folder):
    ours = load_git(folder)
    for wrong in (torch.zeros(0, WIDTH), torch.zeros(4, WIDTH + 1)):
        with pytest.raises(ValueError, match="do not fit this captioner"):
            ours.caption(wrong)


def test_the_node_loads_it(folder):
    from onlooker.operators.caption.node import GitCaptioner, GitCaptionerConfig

    node = GitCaptioner(GitCaptionerConfig(model=str(folder), interval=2.0, beam=2))
    node.open(Context())
    model = load_captioner(folder)
    assert isinstance(model, HuggingFaceCaptioner) and model is load_captioner(str(folder))
    memory = model.encode_frames(pictures(1))[0].numpy()
    packets = [Memory("cam", 0, t, memory, np.ones(len(memory), np.int32), 0.0, len(memory)) for t in (0.0, 1.0, 2.0)]
    state, outputs = node.process(node.initial_state("cam"), Inputs({"memory": packets}, watermark=2.0, now=2.0))
    (event,) = outputs.packets["events"][0].events
    assert event.data.text == model.caption(memory, beam=2)[0][0]


def test_broken_folders_are_one_clear_error(folder, tmp_path):
    import shutil

    def broken(name, change):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        change(copy)
        with pytest.raises(CaptionerError) as caught:
            load_captioner(copy)
        assert isinstance(caught.value, OnlookerError) and "\n" not in str(caught.value)
        return str(caught.value)

    def reconfigure(**values):
        def change(copy):
            config = json.loads((copy / "config.json").read_text()) | values
            (copy / "config.json").write_text(json.dumps(config))

        return change

    def no_vocabulary(copy):
        for path in copy.glob("*"):
            if path.name not in ("config.json", "generation_config.json", "model.safetensors"):
                path.unlink()

    assert "tokenizer" in broken("no-vocabulary", no_vocabulary)
    assert "model.safetensors" in broken("no-weights", lambda copy: (copy / "model.safetensors").unlink())
    assert "shapes" in broken("other-size", reconfigure(hidden_size=28))
    assert "checkpoint of 'blip', not of GIT" in broken("other-model", reconfigure(model_type="blip"))


def test_an_unknown_name_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CaptionerError, match="'nobody/no-such-git' cannot be loaded"):
        load_captioner("nobody/no-such-git")
    with pytest.raises(CaptionerError, match="unknown captioner 'some/folder/there'"):
        load_captioner("some/folder/there")


def test_its_image_encoder_is_a_tower(folder):
    """Tokens of the tower and of the captioner are the same where the picture has the trunk's size."""
    from onlooker.operators.tower import TowerError, load_tower

    with pytest.raises(TowerError, match="has no text side"):
        load_tower(f"git:{folder}", parts="text")
    frames = pictures(3)[:, :SIZE, :SIZE]
    tower = load_tower(f"git:{folder}", parts="image")
    seen = tower.encode_frames(frames)
    tokens = load_git(folder).encode_frames(frames)
    assert (tower.grid, tower.token_width) == ((2, 2), WIDTH)
    torch.testing.assert_close(seen.tokens, tokens[:, 1:], atol=2e-5, rtol=0)
    torch.testing.assert_close(seen.class_token, tokens[:, 0], atol=2e-5, rtol=0)
    with pytest.raises(TowerError, match="cannot be loaded"):
        load_tower(f"git:{folder}/missing/folder")
