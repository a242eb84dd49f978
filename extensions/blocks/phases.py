"""Weights that change over a run, as data: points (share of the run, weight) with straight lines between them.

kl_weight: [[0.2, 0.0], [0.6, 0.01]]     0 for a fifth of the run, then up until three fifths are done, then 0.01
class_weight: [[0.0, 0.1]]               the same all the time
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from HW3.plumbing.errors import UsageError

Points = Sequence[Sequence[float]]


def check_points(points: Points, key: str) -> None:
    """Raise UsageError unless these are pairs whose shares grow from 0 or more to 1 or less."""
    is_pairs = len(points) > 0 and all(len(point) == 2 for point in points)
    if not is_pairs or any(not 0 <= share <= 1 for share, _ in points):
        raise UsageError(f"{key} must be pairs [share of the run from 0 to 1, weight], not {points}")
    if any(here[0] >= then[0] for here, then in pairwise(points)):
        raise UsageError(f"{key}: the shares of the run must grow from point to point, not {points}")


def weight_at(points: Points, share: float) -> float:
    """The weight when this share of the run, in [0, 1], is done: that of the first and the last point beyond them."""
    if share <= points[0][0]:
        return points[0][1]
    for (start, low), (end, high) in pairwise(points):
        if share <= end:
            return low + (high - low) * (share - start) / (end - start)
    return points[-1][1]


def is_used(points: Points) -> bool:
    """Whether the weight is ever above 0."""
    return any(weight > 0 for _, weight in points)
