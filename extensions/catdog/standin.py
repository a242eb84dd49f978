"""A stand-in for photographs of two classes: discs and squares of any colour and place on a shaded ground."""

from __future__ import annotations

import torch

from HW3.data import ImageSet

SHAPES = 2


def standin(num: int, size: int, class_names: tuple[str, ...], seed: int) -> ImageSet:
    """`num` pictures (num, 3, size, size), as many of the first class, discs, as of the second, squares."""
    source = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=source)

    labels = torch.arange(num) % SHAPES
    places = (torch.arange(size) + 0.5) / size
    down, right = (places.view(-1, 1), places.view(1, -1))  # (S, 1), (1, S)
    middle, radius = between(0.35, 0.65, 2, 1, 1), between(0.15, 0.3, 1, 1)
    dy, dx = (down - middle[:, 0]).abs(), (right - middle[:, 1]).abs()  # (N, S, S)
    inside = torch.where((labels == 0)[:, None, None], dx.square() + dy.square() < radius.square(),
                         torch.maximum(dx, dy) < 0.9 * radius)  # fmt: skip
    ground, colour = between(0, 0.5, 3, 1, 1), between(0.5, 1, 3, 1, 1)
    shade = 1 + between(-0.4, 0.4, 1, 1, 1) * (down + right - 1)  # (N, 1, S, S)
    images = torch.where(inside[:, None], colour, ground) * shade
    return ImageSet(images.clamp(0, 1).mul(255).round().to(torch.uint8), labels, class_names)
