"""Pictures that are nearly the same: of the training set, of another student, or of the same file.

Distances are root mean squares per pixel, with pixels in [0, 1]. The nearest is looked for among pictures of 8 x 8
means, which can only be nearer to each other than the pictures themselves, so what is the same is found; the few
nearest are compared in full.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 4  # that are compared in full
ROWS = 250  # looked for at once
ROUNDING = 1e-3  # of a distance that is the root of a difference of large numbers


def small(images: Tensor) -> Tensor:
    """Means of 4 x 4 pixels of images (N, 32, 32) uint8: (N, 64) in [0, 1]."""
    return F.avg_pool2d(images[:, None].float().div_(255), 4).flatten(1)


class Album:
    """Pictures among which the nearest is looked for."""

    def __init__(self, images: Tensor) -> None:
        """images: (M, 32, 32) uint8."""
        self.images, self.small = images, small(images)
        self.squares = self.small.square().sum(dim=1)

    def nearest(self, images: Tensor, within: float = torch.inf, *, but_itself: bool = False) -> tuple[Tensor, Tensor]:
        """The distance of each image (N, 32, 32) uint8 to the nearest in the album, and which one that is.

        within: what is further apart may have an infinite distance, which takes less time.
        but_itself: the images are the album's own, in its order, and their equals are other ones.
        """
        parts = enumerate(images.split(ROWS))
        found = [self._nearest(part, within, at * ROWS if but_itself else None) for at, part in parts]
        distances, indices = zip(*found, strict=True)
        return torch.cat(distances), torch.cat(indices)

    def _nearest(self, images: Tensor, within: float, first: int | None) -> tuple[Tensor, Tensor]:
        rows, own = torch.arange(len(images)), small(images)
        # Squares of the distances of means, but for what is the same for all in the album.
        between = torch.addmm(self.squares, own, self.small.T, alpha=-2)  # (n, M)
        if first is not None:
            between[rows, first + rows] = torch.inf
        least, close = between.topk(min(FEW, between.shape[1]), largest=False)  # (n, FEW)
        at_least = ((least[:, 0] + own.square().sum(dim=1)).clamp(min=0) / own.shape[1]).sqrt()
        asked = (at_least < within + ROUNDING).nonzero()[:, 0]
        pairs = images[asked, None].float() - self.images[close[asked]].float()  # (asked, FEW, 32, 32)
        distances = torch.full(close.shape, torch.inf)
        distances[asked] = pairs.div_(255).square_().mean(dim=(2, 3)).sqrt_()
        if first is not None:
            distances[close == first + rows[:, None]] = torch.inf
        value, place = distances.min(dim=1)
        return value, close.gather(1, place[:, None])[:, 0]


def shifts(images: Tensor) -> list[Tensor]:
    """The images (N, 32, 32), and moved by a pixel in eight directions; what enters is black."""
    padded = F.pad(images, [1] * 4)
    size = images.shape[-1]
    return [padded[:, y : y + size, x : x + size] for y in (1, 0, 2) for x in (1, 0, 2)]
