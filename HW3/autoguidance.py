"""Guidance for models that take no text: away from what the same network did when it had learnt less.

Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself". What a network gets wrong it got wrong
earlier and more so; the difference between then and now points away from it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

EARLY = 0.2  # the part of the training after which the weaker version is kept
UNTIL = 0.8  # the part of T below which it guides; nearer to noise all is still open


def early_epoch(epochs: int) -> int:
    """The epoch after which a run keeps the weaker version of its network."""
    return max(1, round(EARLY * epochs))


class AutoGuided(nn.Module):
    """A model with guidance by an earlier version of itself built in, as samplers like it.

    scale: 1 is the model as it is, more moves away from the earlier one.  until: only rows with t < until are guided.
    """

    def __init__(self, model: nn.Module, early: nn.Module, scale: float, until: float) -> None:
        super().__init__()
        self.model, self.early, self.scale, self.until = model, early, scale, until

    def forward(self, x: Tensor, t: Tensor, *cond: Tensor) -> Tensor:
        """x: (B, ...);  t: (B,) long;  cond: (B, ...) if the model takes one.  Returns like x."""
        now, then = self.model(x, t, *cond), self.early(x, t, *cond)
        is_guided = (t < self.until).view(-1, *[1] * (x.dim() - 1))
        return torch.where(is_guided, torch.lerp(then, now, self.scale), now)


def weights_now(ema: AveragedModel) -> dict[str, Tensor]:
    """The averaged weights as they are, whatever becomes of them later."""
    return {name: weight.clone() for name, weight in ema.module.state_dict().items()}


def autoguided(model: nn.Module, early: dict[str, Tensor] | None, scale: float, timesteps: int) -> nn.Module:
    """The model guided by what it was with the weights `early`; the model itself without these, or with scale 1."""
    if early is None or scale == 1:
        return model
    weaker = copy.deepcopy(model)
    weaker.load_state_dict(early)
    return AutoGuided(model, weaker.eval(), scale, UNTIL * timesteps)
