"""How the learning rate changes over a run."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int) -> float:
    """The share of the peak rate at a step of `total`: up over the first twentieth, at most 200 steps; a cosine to 0.

    A function of the step alone, so a resumed run needs no state of it.
    """
    warmup = min(200, total // 20)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
