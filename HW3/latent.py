"""Diffusion in the latent space of a VAE: the latent cache, its standardisation, and the MLP denoiser.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HW3.data import ImageSet
from HW3.embedding import timestep_embedding

if TYPE_CHECKING:
    from HW3.clip import SimpleCLIP
    from HW3.vae import ConvVAE


@dataclass(frozen=True)
class LatentCache:
    """q(z | x) of every image of a data set: `mu`, `logvar` (N, D) float32, and `labels` (N,)."""

    mu: Tensor
    logvar: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.mu)


@torch.inference_mode()
def encode_dataset(vae: ConvVAE, data: ImageSet, batch_size: int = 500) -> LatentCache:
    """Run the encoder over the whole set, once. `data` and `vae` are on the same device."""
    rows = [vae.encode(data.batch(slice(i, i + batch_size))[0]) for i in range(0, len(data), batch_size)]
    mu, logvar = (torch.cat(parts).float() for parts in zip(*rows, strict=True))
    return LatentCache(mu, logvar, data.labels)


@torch.inference_mode()
def text_conditions(clip: SimpleCLIP) -> Tensor:
    """What a denoiser is told for each class: (10, E) text embeddings, scaled from length 1 to variance 1."""
    return clip.all_text_embeddings() * clip.embed_dim**0.5


class LatentSpace(nn.Module):
    """The affine map between VAE latents z and the standardised u in which diffusion runs; `fit` makes it.

    u = (z - mean) / std, per dimension; with canonicalize along the principal axes of z: u = (z - mean) @ basis / std.
    Buffers: `mean`, `std` (D,), and `basis` (D, D), whose columns are those axes, or None.
    """

    mean: Tensor
    std: Tensor
    basis: Tensor | None

    def __init__(self, latent_dim: int, *, canonicalize: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))
        self.register_buffer("basis", torch.eye(latent_dim) if canonicalize else None)

    @torch.no_grad()
    def fit(self, cache: LatentCache) -> LatentSpace:
        """Measure the aggregate posterior of the cache: mean 0 and variance 1 per dimension of u."""
        mu, logvar = cache.mu.cpu().double(), cache.logvar.cpu().double()  # on the CPU: Apple's GPUs have no float64
        # Cov[z] = Cov[E[z | x]] + E[Cov[z | x]]
        if self.basis is None:
            variance = mu.var(dim=0, correction=0) + logvar.exp().mean(dim=0)
        else:
            variance, basis = torch.linalg.eigh(mu.T.cov(correction=0) + logvar.exp().mean(dim=0).diag())
            self.basis.copy_(basis)
        self.mean.copy_(mu.mean(dim=0))
        self.std.copy_(variance.clamp(min=1e-12).sqrt())
        return self

    def normalize(self, z: Tensor) -> Tensor:
        """z (B, D) -> u (B, D)."""
        centred = z - self.mean
        return (centred if self.basis is None else centred @ self.basis) / self.std

    def denormalize(self, u: Tensor) -> Tensor:
        """u (B, D) -> z (B, D), the inverse of `normalize`."""
        scaled = u * self.std
        return (scaled if self.basis is None else scaled @ self.basis.T) + self.mean


class EpsMLP(nn.Module):
    """eps(x_t, t) for vectors: x (B, latent_dim), t (B,) -> like x.

    Residual blocks; an embedding (B, hidden_dim) of the time, and of whatever else a subclass adds to it, enters each.
    """

    def __init__(self, latent_dim: int, time_dim: int = 256, hidden_dim: int = 512, *, blocks: int = 3) -> None:
        super().__init__()
        self.time_dim = time_dim
        self.time_mlp = nn.Sequential(nn.Linear(time_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim))
        self.stem = nn.Linear(latent_dim, hidden_dim)
        self.blocks = nn.ModuleList(ResidualBlock(hidden_dim) for _ in range(blocks))
        self.head = nn.Linear(hidden_dim, latent_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def embed_time(self, t: Tensor) -> Tensor:
        """t (B,) -> (B, hidden_dim), in the dtype of the parameters."""
        return self.time_mlp(timestep_embedding(t, self.time_dim).to(self.stem.weight.dtype))

    def denoise(self, x: Tensor, emb: Tensor) -> Tensor:
        """The body of the network: x (B, latent_dim) and an embedding (B, hidden_dim) -> like x."""
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h, emb)
        return self.head(h)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, latent_dim);  t: (B,) long.  Returns like x."""
        return self.denoise(x, self.embed_time(t))


class ResidualBlock(nn.Module):
    """norm, linear, plus the embedding, SiLU, linear: what is added to h (B, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """h, emb: (B, dim).  Returns like h."""
        return self.linear2(F.silu(self.linear1(self.norm(h)) + emb))
