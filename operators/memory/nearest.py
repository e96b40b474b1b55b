"""Which centre is nearest to a point, as explicit float32 differences say, at about the price of a matrix product.

|x - c|^2 = |x|^2 - 2 x.c + |c|^2 needs one product for all pairs, but cancels where points are far from the origin and
near to each other. So the product only narrows the choice: a bound on its rounding error leaves every centre that could
be the nearest, and where more than one is left those few are measured by `distance`. The product's own rounding, which
depends on library, shape and device, therefore never decides: the result is that of the explicit formula, bit by bit,
whatever else is in the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BLOCK = {"cpu": 1 << 18}
"""Numbers per temporary when pairs are measured explicitly, by type of device; on the CPU they stay in its cache."""
_BLOCK_ELSEWHERE = 1 << 24
_FEW = 64
"""Terms of a sum that are left to be added up for all pairs at once: calls on short rows cost more than additions."""


@torch.no_grad()
def distance(points: Tensor, centers: Tensor) -> Tensor:
    """Euclidean distance along the last dimension by explicit differences: the definition that `assign` follows.

    Squares are added in a fixed tree, (..., D) -> (...): one half onto the other until one number is left. So a
    distance has the same bits in any shape and on any device, and an error of few roundings. Without gradient.
    """
    return _fold(torch.sub(points, centers).square_()).squeeze(-1).sqrt()


def paired_distance(points: Tensor, row: Tensor, centers: Tensor, column: Tensor) -> Tensor:
    """`distance` (m,) between `points[row]` and `centers[column]`, bit by bit, without all of them as temporaries.

    Args:
        points: (P, D).
        row: (m,) int64.
        centers: (C, D).
        column: (m,) int64.
    """
    block = max(1, _BLOCK.get(points.device.type, _BLOCK_ELSEWHERE) // points.shape[1])
    sums = []
    for r, c in zip(torch.split(row, block), torch.split(column, block), strict=True):
        squares = points.index_select(0, r).sub_(centers.index_select(0, c)).square_()
        sums.append(_fold(squares, _FEW).clone())
    return _fold(torch.cat(sums)).squeeze(-1).sqrt()


def _fold(terms: Tensor, width: int = 1) -> Tensor:
    """Add up the last dimension in place, one half onto the other, until no more than `width` numbers are left."""
    while (count := terms.shape[-1]) > width:
        half = count // 2
        terms[..., :half].add_(terms[..., half : 2 * half])
        if count % 2:
            terms[..., 0].add_(terms[..., -1])
        terms = terms[..., :half]
    return terms


def assign(data: Tensor, centers: Tensor) -> Tensor:
    """Index of the nearest centre of each point by `distance`, the lowest where several are equally near.

    Without gradient, and in the dtype of its arguments also under autocast.

    Args:
        data: (..., n, D) float32 points.
        centers: (..., K, D) float32, the same leading dimensions: a problem of its own each.

    Returns:
        (..., n) int64.
    """
    return Points(data).nearest(centers)


class Points:
    """The points of one or several clustering problems, made ready for several questions about their nearest centre."""

    def __init__(self, data: Tensor) -> None:
        """Take points (..., n, D) float32."""
        self._shape = data.shape[:-1]
        with torch.no_grad():
            self._data = data.detach().reshape(-1, *data.shape[-2:])  # B, n, D
            # Relative to their mean, products are as small as they can be, and so is the error they are allowed.
            self._shift = self._data.mean(1, keepdim=True)  # B, 1, D
            self._centered = self._data - self._shift
            self._square = _square_norm(self._centered)[:, :, None]  # B, n, 1

    def nearest(self, centers: Tensor) -> Tensor:
        """Index (..., n) int64 of the nearest of the centres (..., K, D) of the point's problem; see `assign`."""
        with torch.no_grad(), torch.autocast(centers.device.type, enabled=False):
            centers = centers.detach().reshape(-1, *centers.shape[-2:])  # B, K, D
            near = self._candidates(centers).flatten(0, 1)  # B * n, K
            row, column = near.nonzero(as_tuple=True)
            if row.numel() > near.shape[0]:  # every row has one candidate at least
                column = self._measure(centers, row, column)
            return column.view(self._shape)

    def _candidates(self, centers: Tensor) -> Tensor:
        """(B, n, K) bool, True where the rounding of the product leaves a centre the chance to be the nearest.

        With x and c relative to one point, u the unit roundoff and d_ij the true squared distance, the score
        |c_j|^2 - 2 x_i.c_j is d_ij - |x_i|^2 up to (D + 7) u (|x_i| + |c_j|)^2: roundings of the product, of the
        square and of making x and c relative. That `distance` names as nearest what is not so in truth takes another
        2 (2 log2(D) + 5) u of the same. The bound is split by (a + b)^2 <= 2 a^2 + 2 b^2 into a term of x and one of c.
        """
        c = centers - self._shift
        c_square = _square_norm(c)[:, None]  # B, 1, K
        width = c.shape[-1]
        bound = 2.0 * _roundoff(width, c.dtype)
        score = torch.baddbmm(c_square * (1.0 + bound), self._centered, c.transpose(1, 2), alpha=-2.0)  # at most
        # The last term covers what is so small that its square underflows, where errors are not relative.
        best = score.amin(-1, keepdim=True) + (self._square * (2.0 * bound) + 8 * width * torch.finfo(c.dtype).tiny)
        score -= c_square * (2.0 * bound)  # at least
        return torch.gt(score, best).logical_not_()  # what is not a number stays in, for `distance` to decide

    def _measure(self, centers: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Nearest centre (B * n,) int64 from the candidates: pairs of `row` in B * n and `column` in K, sorted."""
        points, per_problem = self._data.flatten(0, 1), self._data.shape[1]
        nearest: Tensor = row.new_zeros(len(points))
        several = torch.bincount(row)[row] > 1
        nearest[row[~several]] = column[~several]
        row, column = row[several], column[several]

        center = row.div(per_problem, rounding_mode="floor") * centers.shape[1] + column  # row of all problems' centres
        exact = paired_distance(points, row, centers.flatten(0, 1), center)
        best = exact.new_full((len(points),), torch.inf).scatter_reduce_(0, row, exact, "amin")
        winner = (exact == best[row]) | exact.isnan()  # as argmin has it, nan is least
        nearest.scatter_reduce_(0, row[winner], column[winner], "amin", include_self=False)
        return nearest


def _square_norm(rows: Tensor) -> Tensor:
    """(..., D) -> (...), without a temporary of the size of the input."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return norms.square_()


def _roundoff(width: int, dtype: torch.dtype) -> float:
    """What roundings amount to, relative to (|x| + |c|)^2; see `Points._candidates`."""
    roundings = width + 4.0 * math.log2(width) + 32.0
    try:
        exact = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set for each backend by itself, in ways that the getter does not tell
        exact = False
    # Otherwise PyTorch may take the inputs of products as TF32 or bfloat16.
    return roundings * torch.finfo(dtype).eps / 2.0 + (0.0 if exact else 2.0**-7)
