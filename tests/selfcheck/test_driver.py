"""What a student may do in a class without losing the points of a function; and what may import what."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from grading import driver
from grading.cases import PUBLIC, all_cases, load_cases
from grading.hidden.reference.bank import PLACES
from grading.judge import DEVICE_NOTE, device_case, device_note, run_and_judge
from grading.submission import Submission
from HW3.diffusion import GaussianDiffusion
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


# -- one object, several calls ----------------------------------------------------------------------------


class Counting(GaussianDiffusion):
    """Remembers on which rows each of its functions is called."""

    calls: ClassVar[list[list[int]]] = []

    def predict_x0(self, x_t, t, eps):
        self.calls.append(t.tolist())
        return super().predict_x0(x_t, t, eps)


def test_the_judged_answer_comes_after_another_one_of_the_same_object():
    submission = Submission(replaced={("HW3/diffusion.py", "GaussianDiffusion"): Counting})
    for case in all_cases("predict-x0"):
        Counting.calls.clear()
        assert run_and_judge(partial(driver.run, submission), case).passed
        t = case.inputs["t"].tolist()
        assert Counting.calls == ([t[::-1], t] if len(t) > 1 else [t])


@pytest.mark.parametrize("id", ["q-sample", "ddim-step"])
def test_draws_that_are_not_alike_are_one_sentence(id):
    def uneven(self, x, t, *args, **kwargs):
        self.count = getattr(self, "count", 0) + 1
        return x[: self.count]

    case = next(case for case in all_cases(id) if case.check == "noise")
    verdict = run_and_judge(partial(driver.run, Submission(replaced={PLACES[id]: uneven})), case)
    assert verdict.problem == "the same call came back with another shape or dtype when it was made again"


# -- where tensors are made -------------------------------------------------------------------------------


def by_draw(make):
    """q_sample with noise made by `make`."""

    def q_sample(self, x0, t, noise=None):
        ab = self.alpha_bars[t].view(-1, *[1] * (x0.dim() - 1)).to(x0)
        return ab.sqrt() * x0 + (1 - ab).sqrt() * (make(self, x0) if noise is None else noise)

    return q_sample


FORGETS = {
    "mixed with the data": lambda self, x: torch.randn(x.shape).to(x.dtype),
    "after some arithmetic": lambda self, x: 2 * torch.normal(0.0, 0.5, x.shape) + torch.zeros(1),
    "a generator says no device either": lambda self, x: torch.randn(x.shape, generator=torch.default_generator),
    "joined": lambda self, x: torch.cat([torch.randn(1, *x.shape[1:]), torch.randn_like(x[1:])]),
}
TELLS = {
    "like": lambda self, x: torch.randn_like(x),
    "told": lambda self, x: torch.randn(x.shape, device=x.device),
    "moved": lambda self, x: torch.randn(x.shape).to(x.device),
    "moved as the data is": lambda self, x: (torch.randn(x.shape) * torch.ones(1)).to(x),
    "moved by type": lambda self, x: torch.randn(x.shape).type_as(x),
    "new": lambda self, x: x.new_empty(x.shape).normal_(),
    "a number": lambda self, x: torch.randn_like(x) * torch.tensor(1.0),
    "a number out of a table": lambda self, x: torch.randn_like(x) * torch.linspace(1, 2, 5)[0],
    "a number as such": lambda self, x: torch.randn_like(x) / float(torch.ones(3)[1]),
    "from a tensor": lambda self, x: torch.as_tensor(torch.randn_like(x)),
    "filled": lambda self, x: torch.zeros_like(x).copy_(torch.randn(x.shape)),
    "from numbers": lambda self, x: torch.tensor(torch.randn(x.shape).tolist(), device=x.device),
    "of tensors": lambda self, x: torch.normal(torch.zeros_like(x), torch.ones_like(x)),
}


def noted(id: str, function) -> str:
    submission = Submission(replaced={PLACES[id]: function} if function else {})
    case, call = device_case(load_cases(PUBLIC / f"{id}.npz", hidden=False)), partial(driver.run, submission)
    assert run_and_judge(call, case).passed
    return device_note(call, case)


@pytest.mark.parametrize("name", FORGETS)
def test_what_is_made_beside_its_input_is_noted(name):
    assert noted("q-sample", by_draw(FORGETS[name])) == DEVICE_NOTE


@pytest.mark.parametrize("name", TELLS)
def test_what_is_told_its_device_or_moved_there_is_not(name):
    assert noted("q-sample", by_draw(TELLS[name])) == ""


def test_what_comes_back_from_elsewhere_is_noted():
    def kl(mu, logvar):
        values = torch.empty(len(mu))
        for i, (m, lv) in enumerate(zip(mu, logvar)):
            values[i] = 0.5 * (m**2 + lv.exp() - 1 - lv).sum()
        return values

    assert noted("kl", kl) == DEVICE_NOTE


@pytest.mark.parametrize("id", PLACES)
def test_the_trees_own_functions_get_no_note(id):
    assert noted(id, None) == ""


def test_a_sibling_that_forgets_costs_no_note():
    def predict_x0(self, x_t, t, eps):
        return GaussianDiffusion.predict_x0(self, x_t, t, eps) + torch.zeros(x_t.shape)

    submission = Submission(replaced={PLACES["predict-x0"]: predict_x0})
    for id, note in (("predict-x0", DEVICE_NOTE), ("ddpm-step", ""), ("ddim-step", "")):
        case = device_case(load_cases(PUBLIC / f"{id}.npz", hidden=False))
        assert device_note(partial(driver.run, submission), case) == note
