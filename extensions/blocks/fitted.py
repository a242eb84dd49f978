"""Draws from a Gaussian with the moments of given points: what a model of latents has to be better than.

Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fitted_gaussian(points: Tensor, noise: Tensor) -> Tensor:
    """Points (M, D) and noise (N, D) of N(0, I), both float64 -> as many rows with the points' mean and covariance."""
    covariance = points.T.cov() + 1e-6 * torch.eye(points.shape[1], dtype=points.dtype)  # some dimensions hardly vary
    return points.mean(dim=0) + noise @ torch.linalg.cholesky(covariance).T
