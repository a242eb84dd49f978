"""Residual blocks that attend to channels and to places: Woo et al. 2018, "CBAM", after Hu et al. 2018.

Each picture of a batch is attended to on its own: no operation here crosses the first axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """In groups of at least an eighth of the channels. It has no statistics of a batch, which processes would share."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ChannelAttention(nn.Module):
    """Squeeze and excite: a weight in (0, 1) for each channel, from the means of all of them."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, h: Tensor) -> Tensor:
        """h: (B, C, H, W).  Returns like h."""
        return h * self.weigh(h.mean(dim=(2, 3)))[:, :, None, None]


class SpatialAttention(nn.Module):
    """A weight in (0, 1) for each place, from the mean and the maximum over the channels around it."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, h: Tensor) -> Tensor:
        """h: (B, C, H, W).  Returns like h."""
        over_channels = torch.cat([h.mean(dim=1, keepdim=True), h.amax(dim=1, keepdim=True)], dim=1)  # (B, 2, H, W)
        return h * self.conv(over_channels).sigmoid()


class AttentionBlock(nn.Module):
    """Two convolutions, weighed by channel and by place, and added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            ChannelAttention(channels),
            SpatialAttention(),
        )
        self.activation = nn.SiLU()

    def forward(self, h: Tensor) -> Tensor:
        """h: (B, C, H, W).  Returns like h."""
        return self.activation(h + self.body(h))
