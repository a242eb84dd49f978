"""A convolutional VAE for 32 x 32 images: Kingma & Welling 2014, "Auto-Encoding Variational Bayes"."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PATCH = 4  # pixels to a side: convolutions at full resolution would take longer than all the others
_CHANNELS = (64, 256)
_SIDE = 32


class ConvVAE(nn.Module):
    """q(z | x) = N(mu, diag(exp(logvar))) and a decoder for images (B, channels, 32, 32) in [0, 1].

    A linear map joins pixels and latents as well, in both directions: what principal components can do, the
    convolutions need not learn.
    """

    def __init__(self, latent_dim: int = 100, channels: int = 1) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        c1, c2 = _CHANNELS
        patch = channels * _PATCH**2  # the pixels of one, side by side as channels
        pixels, features = channels * _SIDE**2, c2 * 4 * 4
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_PATCH),  # (B, 16 C, 8, 8)
            nn.Conv2d(patch, c1, 3, padding=1),  # (B, 64, 8, 8)
            nn.GroupNorm(8, c1),
            nn.SiLU(),
            nn.Conv2d(c1, c2, 4, stride=2, padding=1),  # (B, 256, 4, 4)
            nn.GroupNorm(8, c2),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.to_mu = nn.Linear(features + pixels, latent_dim)
        self.to_logvar = nn.Linear(features + pixels, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, features),
            nn.Unflatten(1, (c2, 4, 4)),
            nn.SiLU(),
            nn.ConvTranspose2d(c2, c1, 4, stride=2, padding=1),  # (B, 64, 8, 8)
            nn.GroupNorm(8, c1),
            nn.SiLU(),
            nn.Conv2d(c1, patch, 3, padding=1),  # (B, 16 C, 8, 8)
            nn.PixelShuffle(_PATCH),  # (B, C, 32, 32)
        )
        self.to_pixels = nn.Sequential(nn.Linear(latent_dim, pixels), nn.Unflatten(1, (channels, _SIDE, _SIDE)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, 32, 32) -> mu and logvar, (B, D) each."""
        h = torch.cat([self.encoder(x), x.flatten(1)], dim=1)
        return self.to_mu(h), self.to_logvar(h)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Draw z from N(mu, exp(logvar)) so that gradients reach both, Kingma & Welling 2014 section 2.4.

        mu, logvar: (B, D).  Returns z (B, D), with fresh noise for every element, in eval mode too.
        docs/notes/1-vae.md#a-draw-with-gradients
        """
        # TODO(reparameterize): write the draw as a function of mu, logvar and standard noise. About 2 lines.
        ### BEGIN SOLUTION
        # z = μ + σ ε
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        ### END SOLUTION

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, D) -> images (B, C, 32, 32) in [0, 1]."""
        return torch.sigmoid(self.decoder(z) + self.to_pixels(z))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images -> (reconstruction like x, mu (B, D), logvar (B, D))."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)) in nats; Kingma & Welling 2014 appendix B gives the negative of it.

    mu, logvar: (B, D).  Returns (B,): summed over the latent dimensions, one value per sample.
    docs/notes/1-vae.md#the-kl-term
    """
    # TODO(kl): the closed form for two Gaussians with diagonal covariance. About 1 line.
    ### BEGIN SOLUTION
    # ½ Σ (μ² + σ² - 1 - log σ²)
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(dim=1)
    ### END SOLUTION


def vae_loss(
    recon_x: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, kl_weight: float = 1.0, loss_type: str = "mse"
) -> tuple[Tensor, Tensor, Tensor]:
    """The negative ELBO with a weight on its KL term: (total, reconstruction, KL), sums over the batch.

    recon_x, x: (B, C, H, W) in [0, 1];  mu, logvar: (B, D);  loss_type: "mse" (squared error) or "bce"
    (cross-entropy in nats).  total = rec + kl_weight * kl.  Raises ValueError for another loss_type.
    With mse and weight 1 this is, up to a constant, the bound for a decoder with variance 1/2 in every pixel.
    """
    # Autocast may hand over bf16; the sums are taken in float32.
    recon_x, mu, logvar = recon_x.float(), mu.float(), logvar.float()
    if loss_type == "mse":
        rec = F.mse_loss(recon_x, x, reduction="sum")
    elif loss_type == "bce":
        rec = F.binary_cross_entropy(recon_x, x, reduction="sum")
    else:
        raise ValueError(f"loss_type must be mse or bce, not {loss_type!r}")
    kl = kl_divergence(mu, logvar).sum()
    return rec + kl_weight * kl, rec, kl
