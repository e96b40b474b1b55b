"""Cases of the Dense VOC family: `<root>/dense_voc/<kind>*.npz`, whole files or cases `cN/`, as ours."""

from __future__ import annotations

import math
from typing import Any

import torch

from onlooker.operators.caption.convert_config import decoder_sizes
from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.objects.densevoc.association import Association, AssociationConfig
from onlooker.operators.objects.densevoc.convert import TEXT, load_reference
from onlooker.operators.objects.densevoc.identity import assign_identities
from onlooker.operators.objects.densevoc.model import DenseVoc
from onlooker.operators.objects.densevoc.reference import densevoc_config

from . import goldens
from .goldens import Case, parametrize_with

FAMILY = "dense_voc"
DECODER = f"{TEXT}/"


def find_files(kind: str) -> list[Case]:
    """Every file whose stem begins with `kind`, each one case."""
    return goldens.find_files(FAMILY, kind)


def split(file: Case) -> list[Case]:
    """The cases `cN/` of a file; as many as it says it holds."""
    names = sorted({name.partition("/")[0] for name in file.arrays if "/" in name and not name.startswith("p:")})
    cases = [Case(file.file, name, file.below(f"{name}/")) for name in names]
    assert len(cases) == int(file.number("num_cases")), f"{file} holds {names}"
    return cases


def find_parts(*kinds: str) -> list[Case]:
    """The cases `cN/` of every file of the kinds."""
    return [case for kind in kinds for file in find_files(kind) for case in split(file)]


def parametrize_files(metafunc: Any, *kinds: str) -> None:
    """Give a test one `case` for each file of the kinds; None, on which it fails, for a kind without any."""

    def find() -> list[Case | None]:
        return [case for kind in kinds for case in (find_files(kind) or [None])]

    parametrize_with(metafunc, "case", find)


def build_association(tree: dict[str, Any], heads: int) -> Association:
    """The tracker of a tree."""
    size, width = tree["tracking_layers/fc1/kernel"].shape
    model = Association(AssociationConfig(size, width, heads))
    load_reference(model, tree, "association")
    return model.eval()


def build_decoder(tree: dict[str, Any], heads: int, begin: int, end: int) -> GitDecoder:
    """The text decoder of a tree, whose names may lack that of the decoder."""
    if not any(name.startswith(DECODER) for name in tree):
        tree = {DECODER + name: array for name, array in tree.items()}
    sizes = decoder_sizes(tree, TEXT, "object_feature_projection.0", of="a text decoder")
    decoder = GitDecoder(GitConfig(**sizes, num_heads=heads, begin_token=begin, end_token=end))
    load_reference(decoder, tree, "captioner")
    return decoder.eval()


def build_whole(case: Case, tree: dict[str, Any]) -> DenseVoc:
    """The model of a case with the weights of its tree; what it does not say is as in the released configurations."""
    with torch.device("meta"):  # no random numbers where all are replaced
        shape = DenseVoc(densevoc_config(tree, None, _options(case.arrays)).config)
    model = shape.to_empty(device="cpu")
    load_reference(model, tree)
    return model.eval()


def _options(arrays: dict[str, Any]) -> dict[str, Any]:
    """What the shapes of a whole model's results say of its options, by the reference's names."""
    options: dict[str, Any] = {
        "post_nms_topk_test": arrays["proposal_scores"].shape[1],
        "roi_post_nms_num_detections": arrays["out/detection_scores"].shape[1],
        "max_caption_length": arrays["text_tokens"].shape[-1],
        "object_feat_res": math.isqrt(arrays["out/object_features"].shape[2]),
        "hard_tracking": "out/track_features" in arrays,
        "use_tracked_object_features": "out/tracked_object_features" in arrays,
        "consistent_soft_track": True,
        "tracking_score_thresh": _threshold(arrays),
    }
    if "out/track_features" in arrays:
        tracks, tokens, _ = arrays["out/track_features"].shape
        options["max_num_tracks"] = tracks
        options["hard_tracking_frames"] = tokens // arrays["out/object_features"].shape[2]
    return options


def _threshold(arrays: dict[str, Any]) -> float:
    """The one of the released configurations by which the stored scores become the stored identities."""
    scores, ids = arrays["out/asso_scores"], arrays["out/track_ids"]
    square, wanted = scores.reshape(scores.shape[-2:]), ids.flatten().tolist()
    for threshold in (0.7, 0.3):
        if assign_identities(square, len(ids), threshold).tolist() == wanted:
            return threshold
    raise AssertionError("no threshold of the reference makes the stored identities of the stored scores")
