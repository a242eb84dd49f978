"""The networks of the track: a VAE that also tells the classes apart, its discriminator, and the judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extensions.blocks.adversarial import conv_discriminator
from extensions.blocks.losses import CentreLoss
from extensions.blocks.residual import group_norm
from extensions.blocks.resvae import ResVAE

CHUNK = 500  # images that go through a network at once


class LabelledVAE(ResVAE):
    """A VAE of images (B, 3, S, S), with a classifier of its latents and their class means."""

    def __init__(
        self,
        classes: int = 2,
        size: int = 32,
        latent_dim: int = 256,
        widths: Sequence[int] = (64, 128, 256, 512),
        head_dim: int = 512,
        centre_decay: float = 0.9,
    ) -> None:
        super().__init__(size, 3, latent_dim, widths)
        self.config: dict[str, Any] = {  # plain values that rebuild it, as checkpoints keep them
            **{"classes": classes, "size": size, "latent_dim": latent_dim, "widths": list(widths)},
            **{"head_dim": head_dim, "centre_decay": centre_decay},
        }
        self.head = nn.Sequential(  # 256 - 512 - 256 - 2
            nn.Linear(latent_dim, head_dim),
            nn.SiLU(),
            nn.Dropout(0.3),
            nn.Linear(head_dim, head_dim // 2),
            nn.SiLU(),
            nn.Linear(head_dim // 2, classes),
        )
        self.centres = CentreLoss(classes, latent_dim, centre_decay)


class VAEGAN(nn.Module):
    """What the stage `vae` trains: the VAE, and where pictures are also to deceive one, a discriminator.

    There is no `forward`: the two are called in turns.
    """

    def __init__(self, vae: LabelledVAE, discriminator_widths: Sequence[int] | None) -> None:
        super().__init__()
        self.vae = vae
        self.discriminator = (
            None if discriminator_widths is None else conv_discriminator(vae.config["size"], 3, discriminator_widths)
        )


class JudgeNet(nn.Module):
    """A classifier that no other model has met, of images (B, 3, S, S) in [0, 1].

    Pairs of convolutions with ReLU and pooling, where the perceptual features have strides and SiLU.
    """

    FEATURES = 64

    def __init__(self, classes: int = 2, width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.body = nn.Sequential(
            *_pair(3, widths[0]),  # (B, W, S / 2, S / 2)
            *_pair(widths[0], widths[1]),
            *_pair(widths[1], widths[2]),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4 * widths[2], self.FEATURES),
        )
        self.head = nn.Linear(self.FEATURES, classes)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 64), before their ReLU: nearer to a Gaussian; and logits (B, K)."""
        features = self.body(images * 2 - 1)
        return features, self.head(F.relu(features))

    def forward(self, images: Tensor) -> Tensor:
        """Images -> logits (B, K)."""
        return self.both(images)[1]

    @torch.inference_mode()
    def judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64) in float64 and the classes seen (N,), on the CPU, of any number of images."""
        parts = [self.both(chunk) for chunk in images.split(CHUNK)]
        features, logits = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        return features.double(), logits.argmax(dim=1)


def _pair(channels: int, out: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before in (channels, out):
        layers += [nn.Conv2d(before, out, 3, padding=1, bias=False), group_norm(out), nn.ReLU()]
    return [*layers, nn.MaxPool2d(2)]
