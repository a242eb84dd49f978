"""The VAE and the GAN. Images are (B, 1, S, S) in [0, 1]. The diffusion model is in blocks/conditional.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extensions.blocks.adversarial import LEAK, conv_discriminator
from extensions.blocks.residual import group_norm
from HW3.plumbing.errors import UsageError
from HW3.vae import ConvVAE

LOSSES = ("l1", "l2", "bce")
KINDS = ("mlp", "dcgan")


class MLPVAE(nn.Module):
    """q(z | x) = N(mu, diag(exp(logvar))) and a decoder, with one hidden layer each."""

    def __init__(self, image_size: int = 28, hidden_dim: int = 1024, latent_dim: int = 80) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        pixels = image_size**2
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden_dim), nn.ReLU())
        self.to_mu, self.to_logvar = nn.Linear(hidden_dim, latent_dim), nn.Linear(hidden_dim, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, pixels),
            nn.Unflatten(1, (1, image_size, image_size)),
        )

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """A draw of z, (B, D), by the function of the assignment."""
        return ConvVAE.reparameterize(self, mu, logvar)  # type: ignore[arg-type]  # which needs nothing of a ConvVAE

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> mu and logvar, (B, D) each."""
        h = self.encoder(x)
        return self.to_mu(h), self.to_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, D) -> images."""
        return torch.sigmoid(self.decoder(z))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images -> (reconstructions, mu (B, D), logvar (B, D))."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def reconstruction_loss(recon: Tensor, x: Tensor, kind: str) -> Tensor:
    """What a reconstruction costs, (B,): summed over the pixels of each image, which is 784 times their mean.

    recon, x: in [0, 1].  kind: l1, l2, or bce, which takes pixels as probabilities of white, in nats.
    """
    losses: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "bce": F.binary_cross_entropy}
    return losses[kind](recon, x, reduction="none").flatten(1).sum(dim=1)


class GAN(nn.Module):
    """A generator, latents (B, D) -> images, and a discriminator, images -> one logit each, (B,)."""

    def __init__(
        self, kind: str = "dcgan", image_size: int = 28, latent_dim: int = 100, width: int = 64, hidden_dim: int = 256
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        if kind == "mlp":
            self.generator = _mlp_generator(image_size, latent_dim, hidden_dim)
            self.discriminator = _mlp_discriminator(image_size, hidden_dim)
        else:
            if image_size % 4:
                raise UsageError(f"gan.kind dcgan needs a data.image_size that 4 divides, not {image_size}")
            self.generator = _dc_generator(image_size, latent_dim, width)
            self.discriminator = conv_discriminator(image_size, 1, (width, 2 * width))

    def forward(self, z: Tensor) -> Tensor:
        """Latents -> the logits of what is drawn from them."""
        return self.discriminator(self.generator(z))


def _mlp_generator(image_size: int, latent_dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent_dim, hidden_dim),
        nn.LeakyReLU(LEAK),
        nn.Linear(hidden_dim, image_size**2),
        nn.Sigmoid(),
        nn.Unflatten(1, (1, image_size, image_size)),
    )


def _mlp_discriminator(image_size: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(image_size**2, hidden_dim),
        nn.LeakyReLU(LEAK),
        nn.Linear(hidden_dim, 1),
        nn.Flatten(0),  # (B, 1) -> (B,), also for a batch of one
    )


def _dc_generator(image_size: int, latent_dim: int, width: int) -> nn.Sequential:
    """Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional GANs"."""
    side = image_size // 4
    return nn.Sequential(
        nn.Linear(latent_dim, 2 * width * side**2),
        nn.Unflatten(1, (2 * width, side, side)),  # (B, 2W, 7, 7)
        group_norm(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),  # (B, W, 14, 14)
        group_norm(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),  # (B, 1, 28, 28)
        nn.Sigmoid(),
    )
