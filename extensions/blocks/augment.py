"""Pictures that are varied a little at each visit, each in its own way: mirrored, turned, moved, in other colours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def varied(images: Tensor, *, rotation: float = 0.0, shift: float = 0.0, jitter: float = 0.0) -> Tensor:
    """Images (B, C, S, S) in [0, 1] -> like them, half of them mirrored.

    rotation: up to so many degrees.  shift: up to so much of the width.  jitter: brightness, contrast and saturation
    times a factor of up to 1 ± so much. What comes into view is the picture's own border, mirrored.
    (torchvision's transforms draw once for a whole batch.)
    """
    n, device = len(images), images.device

    def between(largest: float) -> Tensor:
        return (torch.rand(n, device=device) * 2 - 1) * largest  # (B,)

    mirror = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    angle = between(math.radians(rotation))
    moved = [between(2 * shift), between(2 * shift)]  # a picture reaches from -1 to 1
    # Where each pixel is taken from: the inverse of what happens to the picture.
    rows = [
        torch.stack([mirror * angle.cos(), -angle.sin(), moved[0]], dim=1),
        torch.stack([mirror * angle.sin(), angle.cos(), moved[1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    brightness, contrast, saturation = (1 + between(jitter).view(-1, 1, 1, 1) for _ in range(3))
    images = images * brightness
    images = (images - images.mean(dim=(1, 2, 3), keepdim=True)) * contrast + images.mean(dim=(1, 2, 3), keepdim=True)
    grey = images.mean(dim=1, keepdim=True)
    return (grey + (images - grey) * saturation).clamp(0, 1)
