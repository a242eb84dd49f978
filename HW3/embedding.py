"""How a network is told the time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoids of t, (B,) -> (B, dim) float32, `dim` even; Vaswani et al. 2017 section 3.5."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
