"""A VAE of residual blocks, for colour pictures of 32 or 64 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from extensions.blocks.residual import AttentionBlock, group_norm
from HW3.plumbing.errors import UsageError
from HW3.vae import ConvVAE

_SIDE = 4  # of the smallest map


class ResVAE(nn.Module):
    """q(z | x) = N(mu, diag(exp(logvar))) and a decoder for images (B, C, S, S) in [0, 1].

    widths: channels of the map of S x S and of each one below it, down to 4 x 4: four numbers for 32 pixels, five for
    64. The decoder knows z and nothing else of the picture.
    """

    def __init__(
        self, size: int = 32, channels: int = 3, latent_dim: int = 256, widths: Sequence[int] = (64, 128, 256, 512)
    ) -> None:
        super().__init__()
        made = _SIDE * 2 ** (len(widths) - 1)
        if size != made:
            raise UsageError(
                f"{len(widths)} widths of a VAE make images of {made} pixels, and these have {size}: "
                f"give a width for each of {size}, {size // 2}, … {_SIDE}"
            )
        self.latent_dim = latent_dim
        last = widths[-1]
        encoder: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1), nn.SiLU()]  # (B, W0, S, S)
        for above, below in pairwise(widths):
            encoder += [nn.Conv2d(above, below, 4, stride=2, padding=1), group_norm(below), nn.SiLU()]
            encoder += [AttentionBlock(below)]
        self.encoder = nn.Sequential(*encoder, nn.Flatten())  # (B, W * 4 * 4)
        self.to_mu, self.to_logvar = (nn.Linear(last * _SIDE**2, latent_dim) for _ in range(2))
        decoder: list[nn.Module] = [nn.Linear(latent_dim, last * _SIDE**2), nn.Unflatten(1, (last, _SIDE, _SIDE))]
        for above, below in reversed(list(pairwise(widths))):
            decoder += [AttentionBlock(below)]
            decoder += [nn.ConvTranspose2d(below, above, 4, stride=2, padding=1), group_norm(above), nn.SiLU()]
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(widths[0], channels, 3, padding=1))  # (B, C, S, S)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> mu and logvar, (B, D) each."""
        h = self.encoder(x)
        return self.to_mu(h), self.to_logvar(h)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """A draw of z, (B, D), by the function of the assignment."""
        return ConvVAE.reparameterize(self, mu, logvar)  # type: ignore[arg-type]  # which needs nothing of a ConvVAE

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, D) -> images."""
        return torch.sigmoid(self.decoder(z))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images -> (reconstructions, mu (B, D), logvar (B, D))."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar
