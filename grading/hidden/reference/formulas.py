"""The graded formulas in float64 numpy, written from the papers. Nothing of HW3 is imported here.

Ho et al. 2020 (DDPM), Song et al. 2021 (DDIM), Nichol & Dhariwal 2021 (cosine schedule), Kingma & Welling 2014 (VAE),
Ho & Salimans 2022 (guidance).
`tests/reference/test_reference.py` compares them with the schedulers of `diffusers`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Schedule:
    """A schedule of betas and what follows from it, indexed by 0-based t. The two betas belong to the linear kind."""

    timesteps: int
    beta_start: float = 1e-4
    beta_end: float = 0.02
    kind: str = "linear"

    @classmethod
    def of(cls, params: dict[str, Any]) -> Schedule:
        """The schedule that a case's parameters name: `params` undone."""
        if params.get("schedule") == "cosine":
            return cls(params["timesteps"], kind="cosine")
        return cls(params["timesteps"], params["beta_start"], params["beta_end"])

    def params(self) -> dict[str, Any]:
        """The schedule as the driver takes it."""
        if self.kind == "cosine":
            return {"timesteps": self.timesteps, "schedule": "cosine"}
        return {"timesteps": self.timesteps, "beta_start": self.beta_start, "beta_end": self.beta_end}

    @property
    def betas(self) -> Array:
        if self.kind == "linear":
            return np.linspace(self.beta_start, self.beta_end, self.timesteps)
        # Nichol & Dhariwal 2021 eq. 17 with s = 0.008: what is left after t of T steps, and its ratios.
        left = [math.cos((t / self.timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(self.timesteps + 1)]
        return np.array([min(1 - after / before, 0.999) for before, after in itertools.pairwise(left)])

    @property
    def alpha_bars(self) -> Array:
        return np.cumprod(1 - self.betas)

    def bar(self, t: Array, like: Array) -> Array:
        """ᾱ_t with ᾱ_{-1} = 1, shaped to broadcast against `like`."""
        padded = np.concatenate([[1.0], self.alpha_bars])
        return _rows(padded[t + 1], like)

    def beta(self, t: Array, like: Array) -> Array:
        return _rows(self.betas[t], like)


def q_sample(s: Schedule, x0: Array, t: Array, noise: Array) -> Array:
    """Ho et al. 2020 eq. 4."""
    bar = s.bar(t, x0)
    return np.sqrt(bar) * x0 + np.sqrt(1 - bar) * noise


def predict_x0(s: Schedule, x_t: Array, t: Array, eps: Array) -> Array:
    """Ho et al. 2020 eq. 4, solved for x_0."""
    bar = s.bar(t, x_t)
    return (x_t - np.sqrt(1 - bar) * eps) / np.sqrt(bar)


def q_posterior(s: Schedule, x0: Array, x_t: Array, t: Array) -> tuple[Array, Array]:
    """Ho et al. 2020 eq. 6-7, as Bayes' rule for Gaussians: precisions add up.

    The prior is q(x_{t-1} | x_0) = N(sqrt(ᾱ_{t-1}) x_0, 1 - ᾱ_{t-1}) and the likelihood of x_t has mean
    sqrt(α_t) x_{t-1} and variance β_t. Multiplied out, so that t = 0, where the prior is a point, needs no case.
    """
    before, beta = s.bar(t - 1, x_t), s.beta(t, x_t)
    alpha, prior_var = 1 - beta, 1 - before
    total = alpha * prior_var + beta
    mean = (np.sqrt(alpha) * prior_var * x_t + beta * np.sqrt(before) * x0) / total
    return mean, np.broadcast_to(prior_var * beta / total, x_t.shape).copy()


def ddpm_step(s: Schedule, x_t: Array, t: Array, eps: Array, noise: Array) -> Array:
    """Ho et al. 2020 algorithm 2, with the posterior's variance."""
    mean, variance = q_posterior(s, predict_x0(s, x_t, t, eps), x_t, t)
    return mean + np.sqrt(variance) * noise


def ddim_sigma(s: Schedule, t: Array, t_prev: Array, eta: float, like: Array) -> Array:
    """Song et al. 2021 eq. 16."""
    bar, before = s.bar(t, like), s.bar(t_prev, like)
    return eta * np.sqrt((1 - before) / (1 - bar)) * np.sqrt(1 - bar / before)


def ddim_step(s: Schedule, x_t: Array, t: Array, t_prev: Array, eps: Array, eta: float, noise: Array | None) -> Array:
    """Song et al. 2021 eq. 12."""
    before, sigma = s.bar(t_prev, x_t), ddim_sigma(s, t, t_prev, eta, x_t)
    mean = np.sqrt(before) * predict_x0(s, x_t, t, eps) + np.sqrt(1 - before - sigma**2) * eps
    return mean if noise is None else mean + sigma * noise


def kl_divergence(mu: Array, logvar: Array) -> Array:
    """Kingma & Welling 2014 appendix B, one value per row."""
    return -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)


def guided_eps(eps_cond: Array, eps_uncond: Array, scale: float) -> Array:
    """Ho & Salimans 2022 eq. 6 with scale = 1 + w."""
    return scale * eps_cond + (1 - scale) * eps_uncond


def _rows(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))
