"""The trunk and its pre-processing: what the goldens do not vary."""

import numpy as np
import pytest
import torch

from onlooker.operators.tower.vit import VisionTransformer, VitConfig, normalize, preprocess, resize_crop

SMALL = {"image_size": 28, "width": 16, "num_layers": 2, "num_heads": 2, "drop_path": 0.0}


def trunk(**options):
    torch.manual_seed(0)
    model = VisionTransformer(VitConfig(**(SMALL | options))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def images(size=28, count=2):
    return torch.randn(count, size, size, 3, generator=torch.Generator().manual_seed(1))


def keys(x):
    """Keys' cubic kernel with a = -0.5."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(before, after):
    """(after, before) weights of an antialiased cubic resize whose weights sum to one, from the definition."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale - 0.5
    weights = keys((centres[:, None] - np.arange(before)) / max(scale, 1.0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [42, 70, 14])
def test_positions_are_resized_bicubically(size):
    model = trunk()
    patches = model.pos_embed[0, 1:].detach().double().numpy().reshape(2, 2, 16)
    matrix = resize_matrix(2, size // 14)
    expected = np.einsum("ia,jb,abd->ijd", matrix, matrix, patches).reshape(-1, 16)
    resized = model.positions((size // 14, size // 14))[0]
    np.testing.assert_allclose(resized[1:].detach().numpy(), expected, atol=1e-6)
    assert torch.equal(resized[0], model.pos_embed[0, 0])
    assert model(images(size)).shape == (2, (size // 14) ** 2 + 1, 16)


def test_a_grid_need_not_be_square():
    assert trunk()(torch.randn(1, 28, 56, 3)).shape == (1, 2 * 4 + 1, 16)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"class_token": False}, 4),
        ({"class_token": False, "class_position": False}, 4),
        ({"positions": False}, 5),
        ({"qkv_bias": "query_value"}, 5),
        ({"qkv_bias": "none"}, 5),
        ({"patch_bias": True, "norm_before": False, "norm_after": False}, 5),
        ({"layer_scale": 0.1, "activation": "gelu"}, 5),
    ],
)
def test_options_change_what_they_name(options, tokens):
    model = trunk(**options)
    assert model(images()).shape == (2, tokens, 16)
    assert model.config.num_tokens == tokens
    names = {name for name, _ in model.named_parameters()}
    assert ("class_embedding" in names) == model.config.class_token
    assert ("pos_embed" in names) == model.config.positions
    assert ("patch.bias" in names) == model.config.patch_bias
    assert ("blocks.0.gamma_1" in names) == (model.config.layer_scale is not None)
    assert ("blocks.0.attn.q_bias" in names) == (model.config.qkv_bias == "query_value")


def test_a_key_bias_would_change_nothing():
    """Softmax ignores it; hence BEiT has none, and with a zero key bias the fused bias is the same function."""
    beit, fused = trunk(qkv_bias="query_value"), trunk()
    state = {name: value for name, value in beit.state_dict().items() if "_bias" not in name}
    for block in range(2):
        q, v = (beit.state_dict()[f"blocks.{block}.attn.{part}_bias"] for part in "qv")
        state[f"blocks.{block}.attn.qkv.bias"] = torch.cat([q, torch.randn(16), v])
    fused.load_state_dict(state)
    torch.testing.assert_close(beit(images()), fused(images()), atol=1e-5, rtol=1e-5)


def test_branches_are_dropped_in_training_only():
    model = trunk(drop_path=0.9)
    torch.testing.assert_close(model(images()), trunk()(images()))
    torch.manual_seed(0)
    kept = [torch.equal(model.train()(images()), trunk()(images())) for _ in range(8)]
    assert not all(kept), "the last block drops nine of ten branches"
    assert trunk(num_layers=1, drop_path=0.9).blocks[0].drop_path == 0.0


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ValueError, match="width 16 is not a multiple of num_heads 3"):
        VitConfig(**(SMALL | {"num_heads": 3}))
    with pytest.raises(ValueError, match="class_token needs class_position"):
        VitConfig(**(SMALL | {"class_position": False}))
    with pytest.raises(ValueError, match="side 7 holds no patch of side 14"):
        VitConfig(**(SMALL | {"image_size": 7}))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (28, 28), (29, 300), (28, 57)])
def test_crop_takes_the_middle(shape):
    """A ramp along each axis keeps its value at the centre, whatever the sides."""
    rows, columns = torch.meshgrid(torch.linspace(0, 200, shape[0]), torch.linspace(0, 100, shape[1]), indexing="ij")
    frames = torch.stack([rows, columns, torch.full(shape, 7.0)], -1)[None]
    square = resize_crop(frames, 28)
    assert square.shape == (1, 28, 28, 3) and square.dtype == torch.float32
    middle = square[0, 13:15, 13:15].mean((0, 1))
    # Cutting the long side to whole pixels shifts the middle by at most a pixel of the result.
    step = 200 * min(shape) / 28 / min(shape)
    torch.testing.assert_close(middle, torch.tensor([100.0, 50.0, 7.0]), atol=step, rtol=0)


def test_preprocess_is_resize_crop_and_normalise():
    frames = torch.randint(0, 256, (2, 3, 40, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = preprocess(frames, 28)
    assert whole.shape == (2, 3, 28, 28, 3)
    assert torch.equal(whole[1, 2], normalize(resize_crop(frames[1], 28))[2])
    assert torch.equal(preprocess(frames[1, 2], 28), whole[1, 2])
    assert abs(float(normalize(torch.full((1, 3), 255 * 0.45)).mean())) < 0.2


def test_frames_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 28, 28\) are not \(T, H, W, 3\)"):
        resize_crop(torch.zeros(2, 3, 28, 28), 28)
