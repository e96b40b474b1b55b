"""The disjoint training: what each label teaches, and that all of it is learnt in one run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from onlooker.operators.objects.densevoc.model import DenseVoc
from onlooker.training.objects.densevoc_recipes import DenseVocRecipe, LossName, Source
from onlooker.training.objects.disjoint import DisjointLoss, Sample, disjoint_loss, train_disjoint
from onlooker.training.schedules import LearningRate

from ..objects.densevoc_parts import ON_TRUNK, SMALL

RECIPE = DenseVocRecipe(
    20,
    LearningRate(4e-3, 2),
    batch=1,
    sources=(
        Source("photographs", ("detection",), 2, made="independent"),
        Source("phrases", ("regions",), 2, made="independent"),
        Source("clips", ("video",), 2),
        Source("zooms", ("detection", "association"), 2, made="views"),
    ),
    regions=12,
    described=6,
    from_detections=False,
)
PARTS = ("backbone", "proposal_generator", "roi_heads", "association", "captioner")


def sample() -> Sample:
    """Two frames of two rectangles, the second of which is missing in the second frame, with all labels."""
    pictures = torch.full((2, 64, 64, 3), 90.0)
    boxes = torch.tensor([[[4.0, 6, 30, 40], [34, 20, 60, 58]], [[14, 10, 40, 44], [0, 0, 0, 0]]])
    for frame in range(2):
        for (x0, y0, x1, y1), colour in zip(boxes[frame].int().tolist(), ((250, 30, 30), (30, 250, 30)), strict=True):
            pictures[frame, y0:y1, x0:x1] = torch.tensor(colour).float()
    texts = torch.tensor([[2, 4, 5, 3, 0, 0], [2, 4, 9, 10, 3, 0]]).expand(2, 2, 6)
    return Sample(pictures, (64, 64), boxes, torch.tensor([[1, 2], [1, 0]]), texts, torch.tensor([2, 4, 7, 8, 6, 3]))


def loss_of(model: DenseVoc, losses: tuple[LossName, ...], recipe: DenseVocRecipe = RECIPE) -> DisjointLoss:
    return disjoint_loss(model, sample(), losses, recipe, generator=torch.Generator().manual_seed(0))


def new_model() -> DenseVoc:
    torch.manual_seed(0)
    return DenseVoc(SMALL).train()


@pytest.mark.parametrize(
    ("losses", "taught"),
    [
        (("detection",), {"backbone", "proposal_generator", "roi_heads"}),
        (("association",), {"backbone", "association"}),
        (("regions",), {"backbone", "captioner"}),
        (("tracks",), {"backbone", "captioner"}),
        (("video",), {"backbone", "captioner"}),
        (("detection", "association", "regions", "tracks"), set(PARTS)),
    ],
)
def test_a_label_teaches_its_parts_alone(losses: tuple[LossName, ...], taught: set[str]) -> None:
    # Dropping paths at random could leave a part out by chance.
    backbone = replace(SMALL.detector.backbone, drop_path=0.0)  # type: ignore[type-var]
    torch.manual_seed(0)
    tracking = replace(SMALL.tracking, threshold=1e-6)  # all regions are of one track: there is one to describe
    model = DenseVoc(replace(SMALL, detector=replace(SMALL.detector, backbone=backbone), tracking=tracking)).train()
    loss = loss_of(model, losses)
    loss.total.backward()  # type: ignore[no-untyped-call]
    moved = {
        part
        for part in PARTS
        for name, weights in model.named_parameters()
        if part in name and weights.grad is not None and bool(weights.grad.any())
    }
    assert moved == taught
    told = {name: float(value.detach()) for name, value in loss._asdict().items() if name != "total"}
    assert {name for name, value in told.items() if value} == set(losses)
    assert float(loss.total.detach()) == pytest.approx(sum(told.values()), rel=1e-5)


def test_soft_tracks_describe_every_region() -> None:
    torch.manual_seed(0)
    soft = DenseVoc(replace(SMALL, tracking=replace(SMALL.tracking, aggregation="soft"))).train()
    loss = loss_of(soft, ("tracks",))
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert soft.association is not None and soft.captioner is not None
    assert soft.captioner.output.weight.grad is not None
    assert all(weights.grad is None for weights in soft.association.parameters())


def test_detections_instead_of_regions() -> None:
    recipe = replace(RECIPE, from_detections=True)
    assert bool(loss_of(new_model(), ("regions", "association"), recipe).total.isfinite())


@pytest.mark.parametrize(
    ("name", "losses"),
    [("boxes", ("detection",)), ("identities", ("association",)), ("texts", ("tracks",)), ("video_text", ("video",))],
)
def test_a_label_that_is_missing_is_told(name: str, losses: tuple[LossName, ...]) -> None:
    with pytest.raises(ValueError, match=f"needs {name}"):
        disjoint_loss(new_model(), replace(sample(), **{name: None}), losses, RECIPE)


def test_parts_that_are_missing_are_told() -> None:
    with pytest.raises(ValueError, match="no captioner"):
        loss_of(DenseVoc(replace(SMALL, captioner=None)), ("video",))
    with pytest.raises(ValueError, match="no association"):
        loss_of(DenseVoc(replace(SMALL, association=None)), ("association",))


def test_maps_of_a_trunk_can_be_given() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, channels, side, side) for channels, side in zip((5, 6, 7), (8, 4, 2), strict=True)]
    given = replace(sample(), given=maps)
    loss = disjoint_loss(DenseVoc(ON_TRUNK).train(), given, ("detection", "association"), RECIPE)
    assert bool(loss.total.isfinite()) and float(loss.association.detach()) > 0


def trained(steps: int) -> tuple[DenseVoc, list[tuple[str, DisjointLoss]]]:
    model = new_model()
    told: list[tuple[str, DisjointLoss]] = []
    draws = [lambda rng: sample()] * len(RECIPE.sources)
    recipe = replace(RECIPE, steps=steps)
    train_disjoint(model, draws, recipe, seed=1, report=lambda step, name, loss: told.append((name, loss)))
    return model, told


def test_all_sources_are_learnt_in_one_run() -> None:
    _, told = trained(20)
    assert len(told) == 20 and {name for name, _ in told} == {source.name for source in RECIPE.sources}
    pairs = (("photographs", "detection"), ("phrases", "regions"), ("clips", "video"), ("zooms", "association"))
    for name, part in pairs:
        course = [float(getattr(loss, part)) for source, loss in told if source == name]
        assert course[-1] < course[0], (name, course)


def test_the_weights_depend_on_the_seed_alone() -> None:
    (one, _), (other, _) = trained(3), trained(3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
