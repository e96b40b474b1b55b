"""Assignments are those of the explicit formula, however hard the rounding is made."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.memory import nearest
from onlooker.operators.memory.nearest import Points, assign, distance, paired_distance


def explicit(data, centers):
    """The definition: explicit differences, lowest index among equal distances."""
    return distance(data[..., :, None, :], centers[..., None, :, :]).argmin(-1)


def measured(data, centers):
    """How many pairs are measured explicitly."""
    counted = []

    def count(points, row, centers, column):
        counted.append(len(row))
        return paired_distance(points, row, centers, column)

    with patch.object(nearest, "paired_distance", count):
        assign(data, centers)
    return sum(counted)


def unrelated(rng, n, k, d):
    return torch.randn(n, d, generator=rng), torch.randn(k, d, generator=rng)


def around(rng, n, k, d, place, gap):
    """Points on centres that are `gap` from each other and `place` from the origin."""
    centers = place * torch.randn(1, d, generator=rng) + gap * torch.randn(k, d, generator=rng)
    data = centers[torch.randint(k, (n,), generator=rng)]
    return data + 0.3 * gap * torch.randn(n, d, generator=rng), centers


def two_groups(rng, n, k, d):
    """Close together, but half of the centres far from the other half: no common origin makes the products small."""
    data, centers = around(rng, n, k, d, 1.0, 1e-6)
    return torch.cat([data[::2], -data[1::2]]), torch.cat([centers[::2], -centers[1::2]])


def last_bits(rng, n, k, d):
    """Centres that differ in the last bit of some coordinates, points exactly on them."""
    base = torch.randn(1, d, generator=rng).expand(k, d)
    moved = torch.nextafter(base, base + torch.randint(-1, 2, (k, d), generator=rng))
    return moved[torch.randint(k, (n,), generator=rng)], moved


def lattice(rng, n, k, d):
    """Small integers: many distances are exactly equal, and exact in float32."""
    return tuple(torch.randint(-2, 3, (m, d), generator=rng).float() for m in (n, k))


def half_precision(rng, n, k, d):
    """Few different values of float16, nearly the same everywhere."""
    return tuple((3.0 + 0.002 * torch.randn(m, d, generator=rng)).half().float() for m in (n, k))


def mirrored(rng, n, k, d):
    """Centres in pairs at equal distance on both sides of the points."""
    point, step = torch.randn(1, d, generator=rng), torch.randn(k, d, generator=rng)
    step[1::2] = -step[: k - k % 2 : 2]
    return point.round(decimals=1).half().float().expand(n, d), point.round(decimals=1).half().float() + step.half()


KINDS = {
    "unrelated": unrelated,
    "far from the origin": lambda rng, n, k, d: around(rng, n, k, d, 1e3, 1e-2),
    "cancellation": lambda rng, n, k, d: around(rng, n, k, d, 1e6, 0.5),
    "close together": lambda rng, n, k, d: around(rng, n, k, d, 1.0, 1e-6),
    "two groups": two_groups,
    "last bits": last_bits,
    "lattice": lattice,
    "half precision": half_precision,
    "mirrored": mirrored,
    "identical": lambda rng, n, k, d: (torch.full((n, d), 0.1), torch.full((k, d), 0.1)),
    "one outlier": lambda rng, n, k, d: (
        torch.randn(n, d, generator=rng),
        torch.cat([1e4 * torch.ones(1, d), torch.randn(k, d, generator=rng)]),
    ),
    "squares underflow": lambda rng, n, k, d: tuple(1e-22 * t for t in unrelated(rng, n, k, d)),
    "squares overflow": lambda rng, n, k, d: tuple(1e20 * t for t in unrelated(rng, n, k, d)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 12), st.sampled_from([1, 3, 64, 1000, 1280]))
def test_assignment_is_that_of_the_explicit_formula(kind, seed, points, centers, width):
    data, middle = KINDS[kind](torch.Generator().manual_seed(seed), points, centers, width)
    assert torch.equal(assign(data, middle), explicit(data, middle))


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_does_not_depend_on_the_others_in_the_call(kind):
    cases = [KINDS[kind](torch.Generator().manual_seed(seed), 30, 10, 96) for seed in range(5)]
    data, centers = (torch.stack(parts) for parts in zip(*cases, strict=True))
    together = assign(data.unflatten(0, (5, 1)), centers.unflatten(0, (5, 1)))
    assert together.shape == (5, 1, 30)
    for found, (own_data, own_centers) in zip(together[:, 0], cases, strict=True):
        assert torch.equal(found, assign(own_data, own_centers))


@given(st.integers(0, 2**31), st.integers(2, 12), st.sampled_from([2, 5, 33]))
def test_exact_ties_go_to_the_lowest_index(seed, centers, width):
    """Of integers every formula is exact, so that float64 is the judge."""
    data, middle = lattice(torch.Generator().manual_seed(seed), 40, centers, width)
    squares = (data[:, None].double() - middle[None].double()).square().sum(-1)
    assert torch.equal(assign(data, middle), squares.argmin(1))


@given(st.integers(0, 2**31), st.sampled_from(["unrelated", "far from the origin", "close together", "half precision"]))
def test_what_float32_can_tell_apart_is_as_in_float64(seed, kind):
    data, middle = KINDS[kind](torch.Generator().manual_seed(seed), 30, 9, 640)
    true = (data[:, None].double() - middle[None].double()).square().sum(-1).sqrt()
    found = true.gather(1, assign(data, middle)[:, None])[:, 0]
    assert bool((found <= true.amin(1) * (1 + 3e-6)).all())


def test_a_matrix_product_alone_would_assign_otherwise():
    rng = torch.Generator().manual_seed(3)
    data, centers = around(rng, 200, 20, 64, 30.0, 1e-4)
    ranked = (centers.square().sum(1) - 2 * data @ centers.T).argmin(1)
    assert not torch.equal(ranked, explicit(data, centers))
    assert torch.equal(assign(data, centers), explicit(data, centers))


def test_the_product_settles_nearly_all():
    """Else the assignment would be exact, but slow. What all points share does not count as nearness."""
    rng = torch.Generator().manual_seed(0)
    centers = 50.0 * torch.randn(1, 512, generator=rng) + torch.randn(60, 512, generator=rng)
    data = centers.repeat(2, 1) + 0.05 * torch.randn(120, 512, generator=rng)
    assert measured(data, centers) == 0
    assert measured(*unrelated(rng, 120, 60, 512)) <= 12
    twins = torch.nextafter(centers, torch.tensor(torch.inf))
    assert measured(data, torch.cat([centers, twins])) == 2 * 120


def test_many_pairs_are_measured_in_blocks():
    rng = torch.Generator().manual_seed(0)
    data, centers = last_bits(rng, 50, 40, 30)
    with patch.dict(nearest._BLOCK, {"cpu": 64}):
        assert torch.equal(assign(data, centers), explicit(data, centers))


def test_a_bound_of_zero_would_miss_near_ties():
    """The twin that fails: to believe the product in everything."""
    rng = torch.Generator().manual_seed(0)
    data, centers = two_groups(rng, 300, 30, 256)
    assert torch.equal(assign(data, centers), explicit(data, centers))
    with patch.object(nearest, "_roundoff", lambda width, dtype: 0.0):
        assert not torch.equal(assign(data, centers), explicit(data, centers))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_coarse_products_change_nothing(precision):
    data, centers = unrelated(torch.Generator().manual_seed(1), 50, 20, 128)
    expected = assign(data, centers)
    torch.set_float32_matmul_precision(precision)
    try:
        assert nearest._roundoff(128, torch.float32) > 2.0**-8
        assert torch.equal(assign(data, centers), expected)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_autocast_changes_nothing():
    data, centers = around(torch.Generator().manual_seed(1), 200, 20, 128, 1.0, 1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(assign(data, centers), explicit(data, centers))


def test_what_is_not_a_number_is_as_argmin_has_it():
    data, centers = unrelated(torch.Generator().manual_seed(1), 6, 4, 8)
    data[2, 3] = torch.nan
    assert torch.equal(assign(data, centers), explicit(data, centers))
    centers[1, 0] = torch.nan
    assert assign(data, centers).tolist() == [1, 1, 0, 1, 1, 1]


def test_points_answer_for_several_sets_of_centres():
    rng = torch.Generator().manual_seed(1)
    data, centers = unrelated(rng, 30, 8, 16)
    points = Points(data)
    for other in (centers, centers + 5.0, data[:8]):
        assert torch.equal(points.nearest(other), explicit(data, other))


@given(st.integers(0, 2**31), st.integers(1, 300))
def test_a_distance_has_the_same_bits_in_any_shape(seed, width):
    data, centers = unrelated(torch.Generator().manual_seed(seed), 9, 5, width)
    whole = distance(data[:, None], centers[None])
    assert torch.equal(whole[4, 2], distance(data[4], centers[2]))
    assert torch.equal(whole[3:5, 1], distance(data[3:5], centers[1]))
    row, column = torch.arange(9).repeat_interleave(5), torch.arange(5).repeat(9)
    assert torch.equal(whole.flatten(), paired_distance(data, row, centers, column))
    torch.testing.assert_close(whole, (data[:, None] - centers[None]).norm(dim=-1))
