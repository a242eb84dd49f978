"""An average of weights that is of use from its first steps on.

With a fixed decay of 0.9999 a run of 1,000 steps would be drawn from weights of which nine tenths are the initial ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim.swa_utils import get_ema_multi_avg_fn


def warmed_up_ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """The `multi_avg_fn` of an AveragedModel whose decay grows with the number n of updates up to `decay`.

    decay_n = min(decay, (1 + n) / (10 + n)): until then an average over about the last tenth of the run.
    """

    def update(averaged: Any, current: Any, updates: Any) -> None:
        n = int(updates)  # a buffer of the AveragedModel, so a resumed run goes on with it
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, updates)

    return update
