"""A noise predictor that is told a condition, or that there is none, and guidance between the two.

Ho & Salimans 2022, "Classifier-Free Diffusion Guidance".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from HW3.latent import EpsMLP
from HW3.Unet import UNet
from train_tiny_sd import guided_eps


class EpsMLPNull(EpsMLP):
    """eps(x_t, t, cond) for vectors: an `EpsMLP` with a condition, for which a learned token can stand.

    In training mode the token replaces each row's condition with probability `cond_dropout`. Zeros, as tiny SD has for
    no text, would be a condition like any other where conditions are one-hot vectors.
    """

    def __init__(
        self, latent_dim: int, cond_dim: int, time_dim: int = 256, hidden_dim: int = 512, *, cond_dropout: float = 0.1
    ) -> None:
        super().__init__(latent_dim, time_dim, hidden_dim)
        self.cond_dropout = cond_dropout
        self.cond_mlp = nn.Sequential(nn.Linear(cond_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim))
        self.null = nn.Parameter(torch.zeros(hidden_dim).normal_(std=0.02))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """x: (B, latent_dim);  t: (B,) long;  cond: (B, cond_dim), or None for no condition.  Returns like x."""
        if cond is None:
            emb = self.null.expand(len(x), -1)
        else:
            emb = self.cond_mlp(cond)
            if self.training:
                dropped = torch.rand(len(x), 1, device=x.device) < self.cond_dropout
                emb = torch.where(dropped, self.null.to(emb.dtype), emb)
        return self.denoise(x, self.embed_time(t) + emb)


class LabelledUNet(UNet):
    """eps(x_t, t, label) for images: HW3's U-Net with an embedding of labels, one of which is a token for none.

    In training mode the token replaces each row's label with probability `cond_dropout`.
    """

    def __init__(
        self,
        classes: int = 10,
        base_channels: int = 32,
        channel_mults: tuple[int, ...] = (1, 2, 4),
        attention: bool = False,
        patch_size: int = 1,
        *,
        channels: int = 1,
        cond_dropout: float = 0.1,
    ) -> None:
        width = 4 * base_channels
        super().__init__(channels, base_channels, channel_mults, width, attention, patch_size)
        self.classes, self.cond_dropout = classes, cond_dropout
        self.labels = nn.Embedding(classes + 1, width)  # the last is the token

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W);  t: (B,) long;  cond: labels (B,) long, or None for no condition.  Returns like x."""
        null = torch.full((len(x),), self.classes, device=x.device)
        labels = null if cond is None else cond
        if self.training and cond is not None:
            dropped = torch.rand(len(x), device=x.device) < self.cond_dropout
            labels = torch.where(dropped, null, labels)
        return super().forward(x, t, self.labels(labels))


class Guided(nn.Module):
    """A network that takes a condition or none, with guidance built in, as samplers like it."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        with_cond = self.model(x, t, cond)
        return with_cond if self.scale == 1 else guided_eps(with_cond, self.model(x, t), self.scale)
