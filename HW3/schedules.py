"""What defines a diffusion process: its length, its schedule of betas, and what the network predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiffusionConfig:
    """A diffusion process. `schedule`: one of SCHEDULES; `prediction`: one of PREDICTIONS.

    `beta_start` and `beta_end` belong to the linear schedule; `image_size` and `channels` give the shape
    that the samplers draw when they are not told another. Raises ValueError for impossible values.
    """

    image_size: int = 32
    channels: int = 1
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    schedule: str = "linear"
    prediction: str = "eps"

    def __post_init__(self) -> None:
        if self.timesteps < 1:
            raise ValueError(f"timesteps must be 1 or more, not {self.timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(f"0 < beta_start <= beta_end < 1 must hold, not {self.beta_start}, {self.beta_end}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be {' or '.join(SCHEDULES)}, not {self.schedule!r}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be {' or '.join(PREDICTIONS)}, not {self.prediction!r}")

    def betas(self) -> Tensor:
        """The schedule, (T,) float64."""
        return SCHEDULES[self.schedule](self)


def linear_betas(config: DiffusionConfig) -> Tensor:
    """Ho et al. 2020 section 4."""
    return torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)


def cosine_betas(config: DiffusionConfig) -> Tensor:
    """Nichol & Dhariwal 2021 eq. 17: alpha_bar(u) = cos^2, betas from its ratios, cut at 0.999."""
    u = torch.linspace(0, 1, config.timesteps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[DiffusionConfig], Tensor]] = {"linear": linear_betas, "cosine": cosine_betas}
PREDICTIONS = ("eps", "v")
