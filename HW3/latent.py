"""Diffusion in the latent space of a VAE: the latent cache, its standardisation, and the MLP denoiser.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HW3.clip import SimpleCLIP
from HW3.data import ImageSet
from HW3.diffusion import timestep_embedding
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
    rows = [vae.encode(data.at(slice(i, i + batch_size))[0]) for i in range(0, len(data), batch_size)]
    mu, logvar = (torch.cat(parts).float() for parts in zip(*rows, strict=True))
    return LatentCache(mu, logvar, data.labels)


@torch.inference_mode()
def text_conditions(clip: SimpleCLIP) -> Tensor:
    """What a denoiser is told for each class: (10, E) text embeddings, scaled from length 1 to variance 1."""
    return clip.all_text_embeddings() * clip.embed_dim**0.5


class LatentSpace(nn.Module):
    """The affine map between VAE latents z and the standardised u in which diffusion runs; `fit` makes it.

    Buffers: `mean`, `std` (D,), and `basis` (D, D), whose columns are the directions of u: the axes of z
    themselves, or its principal axes.  u = (z - mean) @ basis / std.
    """

    mean: Tensor
    std: Tensor
    basis: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))
        self.register_buffer("basis", torch.eye(latent_dim))

    @torch.no_grad()
    def fit(self, cache: LatentCache, *, canonicalize: bool = False) -> LatentSpace:
        """Measure the aggregate posterior of the cache: mean 0 and variance 1 per dimension of u.

        canonicalize: also turn z onto its principal axes, so that u is uncorrelated.
        """
        mu = cache.mu.double()
        # Cov[z] = Cov[E[z | x]] + E[Cov[z | x]]
        covariance = mu.T.cov(correction=0) + cache.logvar.double().exp().mean(dim=0).diag()
        if canonicalize:
            variance, basis = torch.linalg.eigh(covariance)
            self.basis.copy_(basis)
        else:
            variance = covariance.diag()
        self.mean.copy_(mu.mean(dim=0))
        self.std.copy_(variance.clamp(min=1e-12).sqrt())
        return self

    def normalize(self, z: Tensor) -> Tensor:
        """z (B, D) -> u (B, D)."""
        return (z - self.mean) @ self.basis / self.std

    def denormalize(self, u: Tensor) -> Tensor:
        """u (B, D) -> z (B, D), the inverse of `normalize`."""
        return (u * self.std) @ self.basis.T + self.mean


class EpsMLP(nn.Module):
    """eps(x_t, t) for vectors: x (B, latent_dim), t (B,) -> like x.

    An embedding (B, hidden_dim) of the time, and of whatever else a subclass adds to it, enters every block.
    residual: blocks with skip connections and a zero-initialised end, or the plain MLP of older courses.
    """

    def __init__(
        self, latent_dim: int, time_dim: int = 256, hidden_dim: int = 512, *, blocks: int = 3, residual: bool = True
    ) -> None:
        super().__init__()
        self.time_dim = time_dim
        self.residual = residual
        self.time_mlp = nn.Sequential(nn.Linear(time_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim))
        self.stem = nn.Linear(latent_dim, hidden_dim)
        self.blocks = nn.ModuleList(_Block(hidden_dim, residual) for _ in range(blocks))
        self.head = nn.Linear(hidden_dim, latent_dim)
        if residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def embed_time(self, t: Tensor) -> Tensor:
        """t (B,) -> (B, hidden_dim), in the dtype of the parameters."""
        return self.time_mlp(timestep_embedding(t, self.time_dim).to(self.stem.weight.dtype))

    def denoise(self, x: Tensor, emb: Tensor) -> Tensor:
        """The body of the network: x (B, latent_dim) and an embedding (B, hidden_dim) -> like x."""
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h, emb) if self.residual else block(h, emb)
        return self.head(h)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, latent_dim);  t: (B,) long.  Returns like x."""
        return self.denoise(x, self.embed_time(t))


class _Block(nn.Module):
    """norm, linear, plus the embedding, SiLU, linear. (The plain one: no norm.)"""

    def __init__(self, dim: int, residual: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if residual else nn.Identity()
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(self.norm(h)) + emb))
