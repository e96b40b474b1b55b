"""Dense VOC and the reference's parameter trees: names and shapes, both ways, `onlooker convert`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onlooker.operators.objects.densevoc.association import AssociationConfig
from onlooker.operators.objects.densevoc.convert import load_reference, reference_shapes, to_reference
from onlooker.operators.objects.densevoc.load import load_object_model
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig, TrackingConfig
from onlooker.operators.objects.densevoc.reference import DenseVocConfigError, densevoc_config
from onlooker.pipeline.cli.main import main

from .densevoc_parts import CAPTIONER, PROPOSALS, SMALL, WORDS, random_model

TREE: dict[str, list[int]] = json.loads(gzip.decompress((Path(__file__).parent / "densevoc_tree.json.gz").read_bytes()))
"""Names and shapes of the published model at full size."""
ONE_HEAD = replace(
    SMALL,
    detector=replace(SMALL.detector, proposals=replace(PROPOSALS, width=32, groups=32)),
    captioner=replace(CAPTIONER, hidden_size=64, num_heads=1),
)
"""What the reference has wired: heads of 64 in the text decoder, 32 groups in the norms of the proposals."""


class Shaped:
    """A shape without numbers."""

    def __init__(self, shape: list[int]) -> None:
        self.shape = tuple(shape)


@pytest.fixture
def small() -> DenseVoc:
    return random_model(ONE_HEAD)


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., int]:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")

    def call(tree: dict[str, Any], *more: str) -> int:
        np.savez(tmp_path / "tree.npz", **tree)
        return main(["convert", str(tmp_path / "tree.npz"), str(tmp_path / "out"), "--force", *more])

    return call


def options(*told: str) -> list[str]:
    return [word for option in told for word in ("--config", option)]


def test_names_and_shapes_of_the_published_model() -> None:
    with torch.device("meta"):
        model = DenseVoc(DenseVocConfig())
    own = {path: list(shape) for path, shape in reference_shapes(model).items()}
    assert own == TREE and len(TREE) == 364
    assert sum(parameter.numel() for parameter in model.parameters()) == 207_013_578


def test_the_tree_tells_all_sizes_of_the_published_model() -> None:
    told = densevoc_config({path: Shaped(shape) for path, shape in TREE.items()}, None, {})
    published = DenseVocConfig()
    roi = replace(published.detector.roi, score_threshold=0.5)
    assert told.config == replace(published, detector=replace(published.detector, roi=roi))
    assert told.assumed["tracking_score_thresh"] == 0.7 and "embed_dim" not in told.assumed


def test_trees_go_both_ways(small: DenseVoc) -> None:
    tree = to_reference(small)
    again = random_model(ONE_HEAD)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    load_reference(again, tree)
    assert all(own.equal(read) for own, read in zip(small.parameters(), again.parameters(), strict=True))
    kernel = tree["backbone/simfp_3.0/kernel"]  # out[2i + a] = in[i] k[1 - a]
    weight = small.detector.get_parameter("backbone.simfp_3.0.weight").numpy()
    assert kernel.shape == (2, 2, 32, 16) and kernel[1, 0, 3, 5] == weight[3, 5, 0, 1]


def test_a_checkpoint_becomes_a_folder(
    small: DenseVoc, convert: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    words = ["--vocab", str(tmp_path / "vocab.txt")]
    told = options("post_nms_topk_test=20", "pre_nms_topk_test=60", "roi_post_nms_num_detections=4")
    told += options("max_num_tracks=6", "hard_tracking_frames=2", "tracking_score_thresh=0.3", "max_caption_length=8")
    assert convert(to_reference(small), *words, *told) == 0
    said = capsys.readouterr().out
    assert "densevoc: " in said and "roi_score_threshold=0.5" in said and "max_num_tracks" not in said
    found = load_object_model(tmp_path / "out")
    assert found.pieces == WORDS and found.model.config.captioner == ONE_HEAD.captioner
    assert found.model.config.tracking == ONE_HEAD.tracking
    frames = 255 * torch.rand(2, 64, 64, 3)
    exec("\n".join(line[2:] for line in said.splitlines() if line.startswith("  ")), {"frames": frames})
    own = random_model(found.model.config)
    load_reference(own, to_reference(small))
    assert own.describe(own(frames)).tokens.equal(found.model.describe(found.model(frames)).tokens)


def test_a_file_of_options_has_the_defaults_of_the_reference(small: DenseVoc) -> None:
    """A training configuration, most of whose options are no part of the model."""
    file = {
        "dataset_configs": {"max_boxes": 8},
        "model": {
            "num_classes": -1,
            "backbone_args": {"drop_path_rate": 0.2, "use_ln_pre": True, "img_size": 384},
            "roi_num_classes": 1,
            "roi_conv_dims": (),
            "asso_windows": 3,
            "with_tracking": True,
            "use_tracked_object_features": True,
            "num_text_proposals": 8,
        },
    }
    told = densevoc_config(to_reference(small), file, {"max_num_tracks": 5}, WORDS)
    tracking = TrackingConfig(resolution=3, threshold=0.3, aggregation="soft", window=3)
    assert told.config.tracking == tracking and told.assumed == {}
    assert told.config.detector.roi.detections == 100 and told.config.detector.roi.nms_threshold == 0.7
    assert told.config.detector.backbone is not None and told.config.detector.backbone.drop_path == 0.2
    hard = densevoc_config(to_reference(small), file, {"hard_tracking": True, "max_num_tracks": 5}, WORDS)
    assert (hard.config.tracking.aggregation, hard.config.tracking.tracks) == ("hard", 5)


def test_parts_may_be_missing(small: DenseVoc, convert: Callable[..., int], tmp_path: Path) -> None:
    """GRiT describes without following; a detector alone needs no words."""
    tree = to_reference(small)
    followed = {path: array for path, array in tree.items() if not path.startswith("tracking_")}
    told = densevoc_config(followed, None, {"object_feat_res": 3}, WORDS).config
    assert told.association is None and told.tracking.aggregation == "none" and told.captioner is not None
    detector = {path: array for path, array in followed.items() if "text_decoder" not in path}
    assert convert(detector) == 0
    found = load_object_model(tmp_path / "out")
    assert found.model.captioner is None and found.pieces == ()


def test_what_cannot_be_is_told(small: DenseVoc, convert: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    def refused(tree: dict[str, Any], *more: str) -> str:
        capsys.readouterr()
        assert convert(tree, *more) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err
        assert not (tmp_path / "out").exists()
        return str(said.err)

    tree, words = to_reference(small), ["--vocab", str(tmp_path / "vocab.txt")]
    assert "needs its words" in refused(tree)
    assert "did you mean 'max_num_tracks'" in refused(tree, *words, *options("max_tracks=3"))
    assert "mult_caption_score = True is not supported" in refused(tree, *words, *options("mult_caption_score=True"))
    assert "the tree has 1 stages" in refused(tree, *words, *options("roi_matching_threshold=[0.6,0.7]"))
    assert "threshold 0 must be above 0" in refused(tree, *words, *options("tracking_score_thresh=0"))
    assert "has unknown proposal_generator/agn_hm/biass" in refused(
        tree | {"proposal_generator/agn_hm/biass": np.zeros(1, np.float32)}, *words
    )
    without = {path: array for path, array in tree.items() if path != "tracking_layers/fc2/kernel"}
    assert "lacks tracking_layers/fc2/kernel" in refused(without, *words)
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "one", "more"]) + "\n")
    assert "14 words, but the model has rows for 12" in refused(tree, *words)
    narrow = to_reference(random_model(replace(ONE_HEAD, captioner=CAPTIONER)))
    with pytest.raises(DenseVocConfigError, match="no heads of 64"):
        densevoc_config(narrow, None, {}, WORDS)


def test_heads_of_the_tracker_are_read_off_the_tree() -> None:
    config = replace(ONE_HEAD, association=AssociationConfig(feature_size=9 * 16, width=24, num_heads=6))
    assert densevoc_config(to_reference(random_model(config)), None, {}, WORDS).config.association == config.association
