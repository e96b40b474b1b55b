"""The trunk of a dense captioner's folder as a tower: the captioner's own tokens, and clear words for other folders."""

import pytest
import torch

from onlooker.operators.caption.dense_load import save_video_captioner
from onlooker.operators.caption.dense_node import DenseCaptioner
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.packets import Tokens
from onlooker.operators.tower import TowerError, load_tower
from onlooker.operators.tower.loading import _LOADED
from tests.caption.dense_parts import PIECES, dense, videos


@pytest.fixture
def model():
    return dense(memory={"size": 10})


@pytest.fixture
def folder(model, tmp_path):
    save_video_captioner(tmp_path / "dense", model, PIECES)
    yield tmp_path / "dense"
    for key in [key for key in _LOADED if key[0].startswith("trunk:")]:
        del _LOADED[key]


def test_its_tokens_are_those_of_the_captioner(model, folder):
    tower = load_tower(f"trunk:{folder}", parts="image")
    (video,) = videos(1).numpy()
    assert tower.image_size == video.shape[1:3]  # nothing is resized, so nothing differs but the arithmetic
    seen = tower.encode_frames(tower.preprocess(list(video)), batch=len(video))
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(video)[None])[0]
    together = seen.tokens if seen.class_token is None else torch.cat([seen.class_token[:, None], seen.tokens], 1)
    torch.testing.assert_close(together, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no captioner with a trunk"),
        (lambda path: path.mkdir(), "no captioner with a trunk"),
        (lambda path: save_video_captioner(path, dense(), PIECES) or (path / "config.json").write_text("{"), "trunk"),
    ],
)
def test_folders_without_a_trunk_are_named(tmp_path, make, reason):
    make(tmp_path / "other")
    with pytest.raises(TowerError, match=reason) as caught:
        load_tower(f"trunk:{tmp_path / 'other'}", parts="image")
    assert "\n" not in str(caught.value)


def test_it_has_no_text_side(folder):
    with pytest.raises(TowerError, match="no text side"):
        load_tower(f"trunk:{folder}", parts="text")


def test_tokens_of_another_tower_are_refused(folder):
    memory = ClusteringMemory(ClusteringMemory.Config())
    captioner = DenseCaptioner(DenseCaptioner.Config(model=str(folder), interval=1.0))
    memory.open(Context())
    captioner.open(Context())
    kept = memory.initial_state("s")
    frames = [Tokens("s", 0, float(t), torch.randn(4, 20).numpy()) for t in range(3)]
    _, made = memory.process(kept, Inputs({"tokens": frames}, 2.0, 2.0))
    with pytest.raises(OnlookerError, match=r"width 16, the tower makes 20.*trunk:FOLDER"):
        captioner.process(captioner.initial_state("s"), Inputs({"memory": made.packets["memory"]}, 2.0, 2.0))


def test_a_model_that_numbers_its_frames_has_no_live_form(tmp_path):
    save_video_captioner(tmp_path / "numbered", dense(encoder={"temporal_embedding": True}), PIECES)
    with pytest.raises(OnlookerError, match="temporal embedding"):
        DenseCaptioner(DenseCaptioner.Config(model=str(tmp_path / "numbered"))).open(Context())
