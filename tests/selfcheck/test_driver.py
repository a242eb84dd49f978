"""What a student may do in a class without losing the points of a function; and what may import what."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from grading import driver
from grading.cases import all_cases
from grading.judge import run_and_judge
from grading.submission import Submission
from HW3.vae import ConvVAE
from train_tiny_sd import EpsMLPCond


def failed(id: str, file: str, cls: type) -> list[tuple[str, str]]:
    """(case, problem) of the cases of an id that fail when a class of the student's takes the tree's place."""
    call = partial(driver.run, Submission(replaced={(file, cls.__bases__[0].__name__): cls}))
    verdicts = [(case.name, run_and_judge(call, case)) for case in all_cases(id)]
    assert verdicts
    return [(name, verdict.problem) for name, verdict in verdicts if not verdict.passed]


# -- the VAE ---------------------------------------------------------------------------------------------


class WithDistribution(ConvVAE):
    def __init__(self, latent_dim: int = 100) -> None:
        super().__init__(latent_dim)
        self.noise = Normal(0, 1)

    def reparameterize(self, mu, logvar):
        return mu + (0.5 * logvar).exp() * self.noise.sample(mu.shape).to(mu.dtype)


class WithComputedBuffer(ConvVAE):
    def __init__(self, latent_dim: int = 100) -> None:
        super().__init__(latent_dim)
        self.register_buffer("factor", torch.full((latent_dim,), 0.25) * 2)

    def reparameterize(self, mu, logvar):
        return mu + (self.factor * logvar).exp() * torch.randn_like(mu)


class WithBranchOnATensor(ConvVAE):
    def __init__(self, latent_dim: int = 100) -> None:
        super().__init__(latent_dim)
        self.factor = 0.5 if torch.ones(3).sum() > 2 else 2.0

    def reparameterize(self, mu, logvar):
        return mu + (self.factor * logvar).exp() * torch.randn_like(mu)


@pytest.mark.parametrize("cls", [WithDistribution, WithComputedBuffer, WithBranchOnATensor])
def test_a_vae_may_compute_in_its_constructor(cls):
    assert failed("reparameterize", "HW3/vae.py", cls) == []


# -- the conditional denoiser ----------------------------------------------------------------------------


class WithFrozenScale(EpsMLPCond):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.scale = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    def forward(self, x, t, cond):
        return self.denoise(x, self.embed_time(t) + self.scale * self.cond_proj(cond))


class WithFrozenTable(EpsMLPCond):
    """Frozen whole numbers: no gradient, and no normal draw either."""

    def __init__(self, latent_dim, cond_dim, time_dim=256, hidden_dim=512) -> None:
        super().__init__(latent_dim, cond_dim, time_dim, hidden_dim)
        self.order = nn.Parameter(torch.arange(cond_dim).flip(0), requires_grad=False)

    def forward(self, x, t, cond):
        return self.denoise(x, self.embed_time(t) + self.cond_proj(cond[:, self.order]))


class WithFrozenEmbedding(EpsMLPCond):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("shift", torch.linspace(0, 1, self.stem.in_features))
        self.offset = nn.Embedding.from_pretrained(torch.zeros(1, self.stem.in_features))  # freezes it

    def forward(self, x, t, cond):
        x = x + self.shift + self.offset(torch.zeros_like(t))
        return self.denoise(x, self.embed_time(t) + self.cond_proj(cond))


@pytest.mark.parametrize("cls", [WithFrozenScale, WithFrozenTable, WithFrozenEmbedding])
def test_a_denoiser_may_have_frozen_parameters(cls):
    assert failed("conditioning", "train_tiny_sd.py", cls) == []


def test_a_denoiser_that_is_all_frozen_learns_nothing():
    class Frozen(EpsMLPCond):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            self.requires_grad_(False)

    cases = {case.name for case in all_cases("conditioning")}
    assert {name for name, _ in failed("conditioning", "train_tiny_sd.py", Frozen)} == cases
