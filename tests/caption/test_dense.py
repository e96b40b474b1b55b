"""The dense and the paragraph model: what the goldens do not vary."""

import pytest
import torch

from onlooker.operators.caption.contexts import StreamingOptions
from onlooker.operators.caption.dense import DenseCaptioner, search_text
from onlooker.operators.caption.dense_config import DenseConfig, FrameEncoderConfig, MemoryConfig, SearchConfig
from onlooker.operators.caption.dense_memory import (
    frame_memories,
    memories_at_frames,
    memories_at_points,
    point_frames,
    video_memory,
)
from onlooker.training.dvc_loss import caption_loss

from .dense_parts import (
    BEGIN,
    BINS,
    END,
    FRAMES,
    LENGTH,
    WIDTH,
    WORDS,
    decoder,
    dense,
    dense_config,
    paragraph,
    targets,
    videos,
)

FRAMES_AT = torch.tensor([[1, 3, 5, 7], [0, 2, 4, 7]])


def tokens(count=2, seed=0):
    return torch.randn(count, FRAMES, 5, WIDTH, generator=torch.Generator().manual_seed(seed))


# --- memories


@pytest.mark.parametrize("method", ["kmeans", "temporal_mean_pool", "ema"])
def test_a_memory_knows_nothing_of_later_frames(method):
    config = MemoryConfig(method, size=10)
    whole = frame_memories(tokens()[0], config)
    changed = tokens()[0].clone()
    changed[6:] += 3.0
    other = frame_memories(changed, config)
    for frame in range(6):
        assert torch.equal(whole[frame], other[frame])
    assert not torch.equal(whole[6], other[6])


@pytest.mark.parametrize("method", ["kmeans", "temporal_mean_pool", "ema"])
def test_videos_together_have_their_own_memories(method):
    config = MemoryConfig(method, size=10)
    together = frame_memories(tokens(3), config)
    for video in range(3):
        for memory, alone in zip(together, frame_memories(tokens(3)[video], config), strict=True):
            assert torch.equal(memory[video], alone)


@pytest.mark.parametrize("method", ["temporal_mean_pool", "ema"])
def test_the_last_running_memory_is_the_whole_video_s(method):
    config = MemoryConfig(method, decay=0.7)
    torch.testing.assert_close(frame_memories(tokens()[0], config)[-1], video_memory(tokens()[0], config))


def test_given_and_equal_points_agree_where_they_coincide():
    config = MemoryConfig(size=10)
    frames = torch.tensor([point_frames(FRAMES, 4)] * 2)
    assert frames[0].tolist() == [1, 3, 5, 7]
    given = memories_at_frames(tokens(), config, frames)
    for point, memory in enumerate(memories_at_points(tokens(), config, 4)):
        assert torch.equal(memory, given[:, point])


@pytest.mark.parametrize("method", ["kmeans", "adjacent_tome", "none", "temporal_mean_pool"])
def test_points_from_scratch_are_those_of_shorter_videos(method):
    config = MemoryConfig(method, "fixed_checkpoints", size=10)
    points = memories_at_points(tokens(), config, 2)
    if method == "temporal_mean_pool":  # of the spans between points, not of the frames
        spans = tokens()[0].reshape(2, -1, WIDTH)
        assert torch.equal(points[0][0], spans[0])
        torch.testing.assert_close(points[1][0], spans.mean(0))
    else:
        for memory, seen in zip(points, (4, 8), strict=True):
            assert torch.equal(memory[1], video_memory(tokens()[1, :seen], config))


def test_points_from_scratch_may_cut_a_frame():
    points = memories_at_points(tokens(), MemoryConfig("none", "fixed_checkpoints"), 3)
    assert [memory.shape[1] for memory in points] == [13, 26, 39], "40 tokens, 13 a point"


def test_methods_without_a_form_for_points_are_named():
    with pytest.raises(ValueError, match="'spatial_mean_pool' has no form that is updated frame by frame"):
        frame_memories(tokens()[0], MemoryConfig("spatial_mean_pool"))
    with pytest.raises(ValueError, match="'spatial_mean_pool' has no form for decoding points"):
        memories_at_points(tokens(), MemoryConfig("spatial_mean_pool", "fixed_checkpoints"), 2)
    with pytest.raises(ValueError, match="'ema' with 'fixed_checkpoints' folds"):
        memories_at_points(tokens(), MemoryConfig("ema", "fixed_checkpoints"), 2)
    with pytest.raises(ValueError, match="must name some of the 8 frames"):
        memories_at_frames(tokens(), MemoryConfig(size=10), torch.tensor([[8], [0]]))


def test_a_video_shorter_than_the_memory_keeps_what_there_is():
    memories = frame_memories(tokens()[0, :3], MemoryConfig(size=20))
    assert [memory.shape for memory in memories] == [(15, WIDTH)] * 3


# --- the dense model


def test_every_point_is_a_text_of_its_own():
    """Row (b, c) is the decoder on the memory of video b at point c, after its own prefix."""
    model, rows, context = dense(), targets(), targets(seed=5)
    logits = model(videos(), rows, context, FRAMES_AT)
    assert logits.shape == (8, LENGTH, WORDS + BINS)
    features = model.encode(videos())
    for video, point in ((0, 2), (1, 0)):
        memory = frame_memories(features[video], model.config.memory)[int(FRAMES_AT[video, point])]
        alone = model.decoder(rows[video, point][None], memory[None], None, context[video, point][None])
        torch.testing.assert_close(logits[video * 4 + point], alone[0], atol=1e-5, rtol=1e-5)


def test_tokens_of_a_tower_will_do():
    """A model without a trunk: what a small model trained on cached features is."""
    config = DenseConfig(None, decoder(), MemoryConfig(size=10), num_bins=BINS, max_length=LENGTH, train_points=4)
    bare, whole = DenseCaptioner(config).eval(), dense()
    bare.decoder.load_state_dict(whole.decoder.state_dict())
    features = whole.encode(videos())
    expected = whole(videos(), targets(), None, FRAMES_AT)
    assert torch.equal(bare.forward_tokens(features, targets(), None, FRAMES_AT), expected)
    assert torch.equal(bare.decode_tokens(features).tokens, whole.decode(videos()).tokens)
    with pytest.raises(ValueError, match="this model has no trunk"):
        bare.decode(videos())


def test_gradients_reach_the_trunk_through_the_memory():
    """Finite differences through clustering, prefix and decoder, in double precision."""
    model = dense().double()
    parameter = model.encoder.vision.patch.weight
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def size():
        return model(videos(), targets(), targets(seed=5), FRAMES_AT).square().mean()

    def size_at(step):
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            moved = float(size())
            parameter.sub_(direction, alpha=step)
        return moved

    size().backward()
    slope = float((parameter.grad * direction).sum())
    assert slope == pytest.approx((size_at(1e-7) - size_at(-1e-7)) / 2e-7, rel=1e-4)


def test_a_frozen_trunk_gets_no_gradient():
    model = dense(encoder={"frozen": True, "temporal_embedding": True})
    logits = model(videos(), targets(), targets(seed=5), FRAMES_AT)
    caption_loss(logits, targets().flatten(0, 1), BINS, END).total.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("encoder.vision."), name


def test_the_temporal_embedding_is_of_the_frame():
    model = dense(encoder={"temporal_embedding": True})
    with_time = model.encode(videos())
    model.encoder.temporal_embedding.data[3] += 1.0
    change = model.encode(videos()) - with_time
    assert torch.allclose(change[:, 3], torch.ones(()), atol=1e-5) and not change[:, [0, 1, 2, 4]].any()


def test_decoding_feeds_each_point_what_was_written_before():
    model = dense()
    result = model.decode(videos())
    memories = memories_at_points(model.encode(videos()), model.config.memory, 2)
    for point, decoded in enumerate(result.points):
        alone = search_text(model.decoder, memories[point], decoded.fed, model.config.search, LENGTH)
        assert torch.equal(decoded.tokens, alone)
    assert result.points[1].fed.tolist() != result.points[0].fed.tolist()


def test_a_video_does_not_depend_on_its_neighbours():
    model = dense()
    together = model.decode(videos(3))
    alone = [model.decode(videos(3)[i : i + 1]).tokens[0].tolist() for i in range(3)]
    assert together.tokens.tolist() == alone
    assert len({tuple(row) for row in alone}) == 3, "all videos get the same text: nothing was compared"


@pytest.mark.parametrize("search", [SearchConfig("greedy"), SearchConfig("beam", 2), SearchConfig("beam", 4, 0.0)])
def test_searches_override_the_config_s(search):
    rows = dense().decode(videos(), search).points[0].tokens
    assert rows.shape == (2, LENGTH) and (rows[:, 0] == BEGIN).all()
    if search.method == "greedy":
        inner = rows[:, 1:-1]
        repeated = (inner[:, 1:] == inner[:, :-1]) & (inner[:, 1:] != END)
        assert not repeated.any()


def test_points_may_stand_alone():
    model = dense(context=StreamingOptions(early_segments_as_context=False))
    result = model.decode(videos())
    assert torch.equal(result.tokens, result.points[-1].tokens) and result.points[1].fed is None


def test_what_does_not_fit_is_named():
    model = dense()
    with pytest.raises(ValueError, match=r"not videos \(B, 8, H, W, 3\)"):
        model.decode(videos()[:, :4])
    with pytest.raises(ValueError, match="'given_checkpoints' need the frames of 4 points per video, got None"):
        model(videos(), targets())
    strided = dense(memory={"points": "per_frame_and_gather"})
    with pytest.raises(ValueError, match="targets for 3 points do not fit train_points 4"):
        strided(videos(), targets(points=3))
    growing = dense(memory={"method": "none", "points": "fixed_checkpoints"})
    with pytest.raises(ValueError, match="'none' grows with the video"):
        growing(videos(), targets())
    with pytest.raises(ValueError, match="the decoder takes tokens of width 16 but the trunk makes 1024"):
        DenseConfig(FrameEncoderConfig(), decoder(), num_bins=BINS, max_length=LENGTH)
    with pytest.raises(ValueError, match="train_points 9 must lie between 1 and the number of frames"):
        dense_config(train_points=9)
    with pytest.raises(ValueError, match=r"max_length 17 must lie in 3\.\.16"):
        dense_config(max_length=17)


# --- the paragraph model


@pytest.mark.parametrize(
    "method", ["kmeans", "adjacent_tome", "temporal_mean_pool", "spatial_mean_pool", "ema", "none"]
)
def test_paragraphs_from_every_memory(method):
    model = paragraph(memory={"method": method})
    memory = model.memory(videos())
    sizes = {"kmeans": 10, "adjacent_tome": 10, "temporal_mean_pool": 5, "spatial_mean_pool": 8, "ema": 5, "none": 40}
    assert memory.shape == (2, sizes[method], WIDTH)
    assert torch.equal(memory[1], video_memory(model.encoder(videos())[1], model.config.memory))
    assert model.decode(videos()).shape == (2, LENGTH)


def test_paragraph_targets_share_the_video():
    model, rows = paragraph(), targets(points=2).clamp(max=WORDS - 1)
    logits = model(videos(), rows)
    assert logits.shape == (4, LENGTH, WORDS)
    torch.testing.assert_close(logits[3], model(videos()[1:], rows[1:, 1:])[0], atol=1e-5, rtol=1e-5)
