"""Losses of a VAE beside its reconstruction and `HW3.vae.kl_divergence`: distance to class means, and of features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HW3.plumbing.parallel import World

Features = Callable[[Tensor], Sequence[Tensor]]  # images (B, C, H, W) -> maps (B, C_i, H_i, W_i)


class CentreLoss(nn.Module):
    """How far latents are from the mean of their class: Wen et al. 2016, with running means in place of learnt ones.

    The means are buffers, so a checkpoint has them and a resumed run goes on with them.
    """

    centres: Tensor  # (K, D)
    is_known: Tensor  # (K,) whether an image of the class was ever seen

    def __init__(self, classes: int, dim: int, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("centres", torch.zeros(classes, dim))
        self.register_buffer("is_known", torch.zeros(classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, z: Tensor, labels: Tensor, world: World | None = None) -> None:
        """Move each mean towards that of the batch, z (B, D), labels (B,), over all processes.

        A class that the batch does not have stays where it is; the first mean is taken as it is.
        """
        one_hot = F.one_hot(labels, len(self.centres)).float()  # (B, K)
        sums, counts = one_hot.T @ z.detach().float(), one_hot.sum(dim=0)  # (K, D), (K,)
        if world is not None and world.size > 1:
            sums, counts = world.sum(sums), world.sum(counts)
        is_here = counts > 0
        means = sums / counts.clamp(min=1)[:, None]
        moved = torch.where(self.is_known[:, None], self.decay * self.centres + (1 - self.decay) * means, means)
        self.centres.copy_(torch.where(is_here[:, None], moved, self.centres))
        self.is_known.logical_or_(is_here)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Mean squared distance per dimension of z (B, D) from the means of labels (B,): a scalar."""
        return (z.float() - self.centres[labels]).square().mean()


def perceptual_loss(features: Features, recon: Tensor, x: Tensor) -> Tensor:
    """How much a frozen network's maps of two sets of images differ: Johnson et al. 2016, a scalar.

    Each place of a map is scaled to length 1 over its channels (Zhang et al. 2018), so that a weight means the same
    for every network. What is compared with, `x`, needs no gradient.
    """
    with torch.no_grad():
        wanted = [F.normalize(maps.float(), dim=1) for maps in features(x)]
    found = [F.normalize(maps.float(), dim=1) for maps in features(recon)]
    parts = [(a - b).square().sum(dim=1).mean() for a, b in zip(found, wanted, strict=True)]
    return torch.stack(parts).mean()
