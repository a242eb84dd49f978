"""A small U-Net for noise prediction, after Ho et al. 2020 appendix B and Nichol & Dhariwal 2021.

Any number of channels, any size that its strides divide, an optional vector condition, and optional
self-attention at the lowest resolution.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HW3.embedding import timestep_embedding


class UNet(nn.Module):
    """eps(x_t, t[, cond]): images (B, in_channels, H, W) -> the same shape.

    base_channels: width at full resolution; channel_mults: width factor per resolution, each one half of
    the last, so H and W must be divisible by patch_size * 2 ** (len(channel_mults) - 1).  cond_dim: size of the
    condition vector, None for none.  attention: self-attention at the lowest resolution.  patch_size: fold
    squares of that many pixels into channels first, which makes everything that many times cheaper, squared.
    """

    def __init__(
        self,
        in_channels: int = 1,
        base_channels: int = 32,
        channel_mults: tuple[int, ...] = (1, 2, 4),
        cond_dim: int | None = None,
        attention: bool = False,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stride = patch_size * 2 ** (len(channel_mults) - 1)
        self.time_dim = _even(base_channels)
        emb_dim = 4 * base_channels
        widths = [base_channels * mult for mult in channel_mults]

        self.time_mlp = nn.Sequential(nn.Linear(self.time_dim, emb_dim), nn.SiLU(), nn.Linear(emb_dim, emb_dim))
        self.cond_proj = None if cond_dim is None else nn.Linear(cond_dim, emb_dim)

        self.stem = _conv3(in_channels * patch_size**2, widths[0])
        self.down_blocks, self.downsamples = nn.ModuleList(), nn.ModuleList()
        for width, below in pairwise(widths):
            self.down_blocks.append(ResBlock(width, width, emb_dim))
            self.downsamples.append(nn.Conv2d(width, below, 3, stride=2, padding=1))
        self.middle = ResBlock(widths[-1], widths[-1], emb_dim)
        self.attention = SelfAttention(widths[-1]) if attention else nn.Identity()
        self.middle_out = ResBlock(widths[-1], widths[-1], emb_dim)
        self.upsamples, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for width, below in reversed(list(pairwise(widths))):
            self.upsamples.append(_conv3(below, width))
            self.up_blocks.append(ResBlock(2 * width, width, emb_dim))

        # Zero output at the start: the first loss is that of predicting no noise at all.
        self.head = nn.Sequential(
            _group_norm(widths[0]), nn.SiLU(), _zeroed(_conv3(widths[0], in_channels * patch_size**2))
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W);  t: (B,) long;  cond: (B, cond_dim) or None.  Returns like x.

        Raises ValueError when H or W is not divisible by the strides, or for a condition that the network
        was not built for.
        """
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            raise ValueError(f"image size {tuple(x.shape[-2:])} is not divisible by {self.stride}")
        emb = self.time_mlp(timestep_embedding(t, self.time_dim).to(x.dtype))  # (B, 4 base)
        if cond is not None:
            if self.cond_proj is None:
                raise ValueError("this UNet was built without cond_dim and takes no condition")
            emb = emb + self.cond_proj(cond)

        h = self.stem(F.pixel_unshuffle(x, self.patch_size))
        skips = []
        for block, downsample in zip(self.down_blocks, self.downsamples, strict=True):
            h = block(h, emb)
            skips.append(h)
            h = downsample(h)
        h = self.middle_out(self.attention(self.middle(h, emb)), emb)
        for upsample, block in zip(self.upsamples, self.up_blocks, strict=True):
            h = upsample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.head(h), self.patch_size)


class ResBlock(nn.Module):
    """norm, SiLU, conv, plus the embedding; norm, SiLU, conv; skip connection."""

    def __init__(self, in_channels: int, out_channels: int, emb_dim: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _group_norm(in_channels), _conv3(in_channels, out_channels)
        self.emb_proj = nn.Linear(emb_dim, out_channels)
        self.norm2, self.conv2 = _group_norm(out_channels), _zeroed(_conv3(out_channels, out_channels))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x: (B, in, H, W);  emb: (B, emb_dim).  Returns (B, out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.emb_proj(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class SelfAttention(nn.Module):
    """Single-head self-attention over the pixels of each image, with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> the same shape."""
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (B, HW, 3C)
        h = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))  # (B, HW, C)
        return x + self.out(h.transpose(1, 2).reshape(x.shape))


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _group_norm(channels: int) -> nn.GroupNorm:
    """At most 8 groups: the largest number that divides the channels."""
    return nn.GroupNorm(next(groups for groups in range(min(8, channels), 0, -1) if channels % groups == 0), channels)


def _zeroed(module: nn.Conv2d) -> nn.Conv2d:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def _even(n: int) -> int:
    return n + n % 2
