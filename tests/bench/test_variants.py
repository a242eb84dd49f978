"""bench/variants.py: what it changes is what it says. That all of it works is seen in test_quality.py."""

from __future__ import annotations

import pytest
import torch

from bench.variants import VARIANTS, Flow, Process, Variant, lognormal, min_snr, sigmoid_betas, stratified
from HW3.schedules import DiffusionConfig


@pytest.fixture
def process() -> Process:
    return Process(torch.nn.Identity(), Variant())


def test_the_base_has_the_loss_of_training():
    x0, cond = torch.randn(8, 5), torch.randn(8, 3)
    process = Process(lambda x, t, cond: 0.5 * x, Variant())
    torch.manual_seed(0)
    ours = process.loss(x0, cond)
    torch.manual_seed(0)
    t, noise = torch.randint(0, 1000, (8,)), torch.randn_like(x0)
    torch.testing.assert_close(ours, process.training_loss(x0, noise, cond, t))


def test_stratified_steps_are_spread(process):
    t = stratified(process, 100)
    assert torch.equal(t // 10, torch.arange(100))


def test_edm_draws_its_noise_levels(process):
    torch.manual_seed(0)
    t = lognormal(process, 20_000)
    sigma = process.sqrt_one_minus_alpha_bars[t] / process.sqrt_alpha_bars[t]
    assert sigma.log().mean() == pytest.approx(-1.2, abs=0.05)
    assert sigma.log().std() == pytest.approx(1.2, abs=0.05)


def test_min_snr_weights(process):
    """For x_0 they are min(SNR, 5), and a squared error of v is 1 / (SNR + 1) of that."""
    t = torch.tensor([0, 500, 999])
    snr = process.alpha_bars[t] / (1 - process.alpha_bars[t])
    torch.testing.assert_close(min_snr(process, t), torch.minimum(snr, torch.tensor(5.0)) / (snr + 1))


def test_the_sigmoid_schedule_ends_in_noise():
    alpha_bars = (1 - sigmoid_betas(DiffusionConfig())).cumprod(0)
    assert alpha_bars[0] > 0.999
    assert alpha_bars[499] == pytest.approx(0.5, abs=0.01)
    assert alpha_bars[-1] < 1e-4
    assert (alpha_bars.diff() < 0).all()


def test_flow_matching_goes_straight_to_the_data():
    """The velocity of one data point, of which the way from any noise is a line."""
    data = torch.tensor([1.0, -2.0])

    def velocity(x, t, cond):
        return (x - data) / ((t + 1) / 1000)[:, None]

    flow = Flow(velocity, Variant(process=Flow))
    assert flow.loss(data.expand(64, 2), torch.zeros(64, 1)) < 1e-2
    found = flow.draw(velocity, torch.zeros(16, 1), 2)
    assert (found - data).abs().max() < 0.1


def test_each_changes_something():
    assert len({repr(variant) for variant in VARIANTS.values()}) == len(VARIANTS)
