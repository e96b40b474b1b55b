"""Weights of dense and paragraph captioners: the reference's parameter trees, and our folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from onlooker.operators.caption import dense_reference
from onlooker.operators.caption.convert import load_reference, reference_layout, to_reference
from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import DenseConfig, ParagraphConfig
from onlooker.operators.caption.dense_load import load_video_captioner, save_video_captioner
from onlooker.operators.caption.load import CaptionerError, load_captioner
from onlooker.operators.caption.paragraph import ParagraphCaptioner
from onlooker.operators.convert.read import ReferenceTreeError, read_tree
from onlooker.operators.errors import OnlookerError
from onlooker.training.dvc_tiny import DenseTinyRecipe, dense_from_captioner

from .dense_parts import BINS, PIECES, WORDS, dense, dense_config, paragraph, videos

PUBLISHED = Path(__file__).parents[1] / "goldens" / "streaming_dvc" / "param_trees_git.json"


@pytest.mark.parametrize(
    ("name", "build", "total"),
    [
        ("git_anet_streaming_input_output", lambda: DenseCaptioner(DenseConfig()), 394_294_394),
        ("git_anet_paragraph_streaming_input", lambda: ParagraphCaptioner(ParagraphConfig()), 394_261_562),
    ],
)
def test_the_published_models_have_exactly_these_arrays(name, build, total):
    with torch.device("meta"):
        model = build()
    wanted = {path: tuple(shape) for path, shape in json.loads(PUBLISHED.read_text())[name].items()}
    assert {array.path: array.shape for array in reference_layout(model).values()} == wanted
    assert sum(parameter.numel() for parameter in model.parameters()) == total


OPTIONS = [
    {},
    {"qkv_bias": "query_value", "layer_scale": 0.1},
    {"patch_bias": True, "norm_before": False, "norm_after": False, "activation": "gelu"},
    {"class_token": False, "class_position": False},
    {"qkv_bias": "none", "positions": False},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_there_and_back_is_the_same_model(options):
    size = {"size": 8 if "class_token" in options else 10}
    model, other = paragraph(vision=options, memory=size), paragraph(1, vision=options, memory=size)
    load_reference(other, to_reference(model))
    assert torch.equal(model.memory(videos()), other.memory(videos()))
    assert model.decode(videos()).tolist() == other.decode(videos()).tolist()
    tree = to_reference(model)
    assert tree["temperal_embedding"].shape == (8, 1, 1, 16)
    assert tree["image_encoder/patch_embed.proj/kernel"].shape == (14, 14, 3, 16)
    assert all(array.flags.c_contiguous for array in tree.values())


def test_trees_that_do_not_fit_are_told_by_their_arrays():
    model = dense()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def refused(change):
        tree = to_reference(dense(1))
        change(tree)
        with pytest.raises(ReferenceTreeError) as caught:
            load_reference(model, tree)
        assert isinstance(caught.value, OnlookerError)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "nothing is loaded"
        return str(caught.value)

    assert "lacks textual/output/bias" in refused(lambda tree: tree.pop("textual/output/bias"))
    assert "has unknown textual/extra" in refused(lambda tree: tree.update({"textual/extra": np.zeros(1)}))
    cut = refused(lambda tree: tree.update({"textual/output/bias": np.zeros(5)}))
    assert "textual/output/bias is (5,) instead of (28,)" in cut
    assert "and 70 more" in refused(lambda tree: tree.clear())


def test_a_smaller_vocabulary_leaves_the_time_tokens_as_they_are():
    """A warm start from an image captioner, which knows no times."""
    model, source = dense(), to_reference(dense(1))
    words = {
        "textual/embedding/words/embedding": lambda array: array[:WORDS],
        "textual/output/kernel": lambda array: array[:, :WORDS],
        "textual/output/bias": lambda array: array[:WORDS],
    }
    small = {path: words.get(path, lambda array: array)(array) for path, array in source.items()}
    before = to_reference(model)
    with pytest.raises(ReferenceTreeError, match="words/embedding is"):
        load_reference(model, small)
    load_reference(model, small, grow_vocabulary=True)
    after = to_reference(model)
    for path in words:
        own = after[path].T if path.endswith("kernel") else after[path]
        old = before[path].T if path.endswith("kernel") else before[path]
        new = source[path].T if path.endswith("kernel") else source[path]
        assert np.array_equal(own[:WORDS], new[:WORDS]) and np.array_equal(own[WORDS:], old[WORDS:])


@pytest.mark.parametrize("root", ["", "params/", "optimizer/target/", "optimizer/target/params/"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_trees_are_read_from_files(tmp_path, root, suffix):
    tree = {root + path: array for path, array in to_reference(dense(1)).items()}
    path = tmp_path / f"tree{suffix}"
    if suffix == ".npz":
        np.savez(path, **tree)
    else:
        save_file(tree, path)
    model = dense()
    load_reference(model, read_tree(path))
    assert model.decode(videos()).tokens.tolist() == dense(1).decode(videos()).tokens.tolist()


def test_files_that_are_no_trees_are_told(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("broken.npz", "broken.safetensors", "pickled.npy", "missing.npz"):
        with pytest.raises(ReferenceTreeError, match=f"{name} is no parameter tree"):
            read_tree(tmp_path / name)


def test_released_configurations_become_the_published_sizes():
    """The values of the released ActivityNet configuration."""
    config = dense_reference.dense_config(
        {
            "model_name": "streaming_dense_model", "vocab_size": 30522 + 64, "num_bins": 64, "num_frames": 64,
            "max_caption_length": 256, "with_temp_emb": False, "freeze_image_encoder": True, "loc_loss_weight": 0.5,
            "backbone_args": {
                "embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 14, "pe_bias": False,
                "use_ln_pre": True, "use_ln_post": True,
            },
            "decode_method": "beam", "decode_beam_size": 4, "num_dense_outputs": 16, "num_dense_outputs_test": 2,
            "early_segments_as_context": True, "normalize_early_timestamps": True, "no_timestamp_in_context": True,
            "streaming_method": "kmeans", "streaming_buffer_size": 514, "kmeans_num_iters": 2,
            "streaming_feature_implementation": "given_checkpoints",
        }
    )  # fmt: skip
    default = DenseConfig()
    assert config == DenseConfig(**{**vars(default), "encoder": config.encoder}) and config.encoder.frozen
    assert config.encoder.vision == default.encoder.vision and config.times.vocab_size == 30522


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frame_fuse_fn": "spatial_mean_pool"}, "frame_fuse_fn = 'spatial_mean_pool' is not supported"),
        ({"project_layers_name": "linear"}, "project_layers_name = 'linear' is not supported"),
        ({"num_framse": 8}, "unknown option 'num_framse'"),
        ({"text_decoder_args": {"stochastic_depth": 0.1}}, "text decoder: stochastic_depth = 0.1 is not supported"),
        ({"backbone_args": {"depht": 2}}, "image encoder: unknown option 'depht'"),
    ],
)
def test_configurations_that_are_not_known_are_refused(values, message):
    base = {"num_frames": 8, "num_dense_outputs": 4, "vocab_size": 138, "num_bins": 8, "max_caption_length": 20}
    with pytest.raises(dense_reference.ReferenceConfigError, match=message):
        dense_reference.dense_config(base | values)


@pytest.mark.parametrize("model", [dense(), paragraph()], ids=["dense", "paragraph"])
def test_folders_hold_the_model(tmp_path, model):
    save_video_captioner(tmp_path / "mine", model, PIECES)
    loaded, pieces = load_video_captioner(tmp_path / "mine")
    assert pieces == PIECES and loaded.config == model.config and type(loaded) is type(model)
    theirs, ours = loaded.decode(videos()), model.decode(videos())
    assert getattr(theirs, "tokens", theirs).tolist() == getattr(ours, "tokens", ours).tolist()


def test_half_the_bytes_are_an_option(tmp_path):
    save_video_captioner(tmp_path / "mine", dense(), PIECES, torch.float16)
    loaded, _ = load_video_captioner(tmp_path / "mine")
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, dense().state_dict()[name].half().float())


def test_weights_may_be_a_difference_from_an_embedded_captioner(tmp_path):
    captioner = load_captioner("tiny")
    model = dense_from_captioner(captioner, DenseTinyRecipe())
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.1 * weights.std(correction=0) * torch.randn(weights.shape)
    pieces = captioner.vocabulary.pieces
    save_video_captioner(tmp_path / "whole", model, pieces, torch.float16)
    save_video_captioner(tmp_path / "mine", model, pieces, torch.float16, base="tiny")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("mine", "whole")]
    assert sizes[0] < 0.3 * sizes[1]
    loaded, _ = load_video_captioner(tmp_path / "mine")
    old = dict(captioner.decoder.named_parameters())
    for name, weights in model.decoder.named_parameters():
        off = (loaded.decoder.get_parameter(name) - weights).norm()
        if weights.ndim == 2:  # the twin: the base itself, which the difference is there to leave
            assert off < 0.2 * (weights[: len(old[name]), : old[name].shape[1]] - old[name]).norm(), name
        else:
            torch.testing.assert_close(loaded.decoder.get_parameter(name), weights, atol=1e-3, rtol=1e-3)
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config | {"base": "tyni"}))
    with pytest.raises(CaptionerError, match="unknown captioner 'tyni': did you mean 'tiny'"):
        load_video_captioner(tmp_path / "mine")


def test_models_without_a_trunk_have_folders_too(tmp_path):
    config = DenseConfig(**{**vars(dense_config()), "encoder": None})
    save_video_captioner(tmp_path / "mine", DenseCaptioner(config), PIECES)
    loaded, _ = load_video_captioner(tmp_path / "mine")
    assert loaded.encoder is None and loaded.config == config


def test_broken_folders_are_one_clear_error(tmp_path):
    def refused(change):
        folder = tmp_path / "mine"
        save_video_captioner(folder, dense(), PIECES)
        change(folder)
        with pytest.raises(CaptionerError) as caught:
            load_video_captioner(folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def reconfigure(**values):
        def change(folder):
            config = json.loads((folder / "config.json").read_text()) | values
            (folder / "config.json").write_text(json.dumps(config))

        return change

    assert "it lacks vocab.txt" in refused(lambda folder: (folder / "vocab.txt").unlink())
    assert "architecture 'git'" in refused(reconfigure(architecture="git"))
    assert "max_length 99 must lie in" in refused(reconfigure(max_length=99))
    assert "colour" in refused(reconfigure(colour="red"))
    assert "cannot be loaded" in refused(lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"))
    assert "size mismatch" in refused(reconfigure(decoder=dense_config().decoder.to_dict() | {"max_positions": 20}))
    long = "\n".join([*PIECES, *["more"] * BINS])
    assert "28 words, but the model has rows for 20" in refused(lambda folder: (folder / "vocab.txt").write_text(long))
    with pytest.raises(CaptionerError, match="no dense captioner .*nowhere"):
        load_video_captioner(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="28 words, but the model has rows for 20"):
        save_video_captioner(tmp_path / "other", dense(), [*PIECES, *["more"] * BINS])
