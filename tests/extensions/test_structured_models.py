"""The models of expressions, against the faults that such models have had."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from extensions.structured import train
from extensions.structured.data import from_rows
from extensions.structured.evaluate import condition_match, squared_error
from extensions.structured.models import Classifier, ExpressionVAE
from extensions.structured.standin import standin_rows
from extensions.structured.trained import LatentModel, encode
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import LatentSpace

DIM = 6


class Oracle(nn.Module):
    """The network that knows u_0, and so the noise in every state; it counts its calls and sees every t."""

    def __init__(self, u0, config):
        super().__init__()
        self.u0, self.alpha_bars, self.seen = u0, GaussianDiffusion(None, config).alpha_bars, []

    def forward(self, u, t, cond=None):
        self.seen += t.unique().tolist()
        ab = self.alpha_bars[t][:, None]
        return (u - ab.sqrt() * self.u0) / (1 - ab).sqrt()


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return ExpressionVAE(latent_dim=DIM, width=8).eval()


@pytest.fixture
def rows():
    return from_rows(standin_rows(2), "the stand-in")


def with_oracle(vae, u0, timesteps=1000):
    space = LatentSpace(DIM)
    space.mean.copy_(torch.arange(DIM)), space.std.copy_(torch.arange(1, DIM + 1) / 3)
    config = DiffusionConfig(timesteps=timesteps)
    oracle = Oracle(u0, config)
    return LatentModel(vae, space, oracle, GaussianDiffusion(oracle, config), []), oracle


@pytest.mark.parametrize("step", [0, 1, 500, 999])
def test_the_chain_brings_back_what_the_true_noise_is_of(vae, step):
    u0 = torch.randn(5, DIM)
    model, oracle = with_oracle(vae, u0)
    z = model.space.denormalize(u0)
    torch.testing.assert_close(model.noise_and_back(z, step), z, atol=2e-3, rtol=0)
    assert oracle.seen == list(range(step, -1, -1))  # every step of the chain, and not one


def test_the_estimate_of_x0_divides_by_sqrt_alpha_bar(vae):
    """With the true noise it is x_0. Multiplied, it would be off by 0.9 of it at t = 500."""
    u0, noise, t = torch.randn(4, DIM), torch.randn(4, DIM), torch.tensor([0, 1, 500, 800])
    diffusion = with_oracle(vae, u0)[0].diffusion
    torch.testing.assert_close(diffusion.predict_x0(diffusion.q_sample(u0, t, noise), t, noise), u0, atol=1e-3, rtol=0)


def test_a_sample_takes_the_whole_chain_and_is_a_latent(vae):
    u0 = torch.randn(5, DIM)
    model, oracle = with_oracle(vae, u0, timesteps=50)
    states = []
    z = model.draw(5, torch.zeros(5, 28), guidance=1.0, on_state=states.append)
    assert oracle.seen == list(range(49, -1, -1))
    assert len(states) == 51
    torch.testing.assert_close(z, model.space.denormalize(u0), atol=2e-3, rtol=0)  # standardised no more
    assert not torch.allclose(z, u0, atol=0.1)


def test_a_chain_starts_in_noise_and_not_in_a_row(vae):
    model, _ = with_oracle(vae, torch.full((2000, DIM), 7.0), timesteps=10)
    states = []
    model.draw(2000, on_state=states.append)
    assert states[0].mean().abs() < 0.1
    assert 0.9 < states[0].std() < 1.1


def test_latents_are_standardised_over_the_data_set_and_come_back(vae, rows):
    cache = encode(vae, rows.sequences)
    space = LatentSpace(DIM).fit(cache)
    u = space.normalize(cache.mu)
    torch.testing.assert_close(u.mean(dim=0), torch.zeros(DIM), atol=1e-4, rtol=0)
    torch.testing.assert_close(u.std(dim=0, correction=0), torch.ones(DIM), atol=1e-3, rtol=0)
    torch.testing.assert_close(space.denormalize(u), cache.mu)
    torch.testing.assert_close(space.normalize(cache.mu[:3]), u[:3])  # of the set, not of the batch


def test_rows_of_a_batch_are_not_mixed(vae, rows):
    """The VAE and the classifier give for a batch what they give for each row."""
    x = rows.sequences[:6]
    classifier = Classifier(width=8).eval()
    for model in (vae.encode, classifier, lambda x: (vae.decode(vae.encode(x)[0]),)):
        alone = [torch.cat(parts) for parts in zip(*(model(x[i : i + 1]) for i in range(6)))]
        torch.testing.assert_close(list(model(x)), alone, atol=1e-4, rtol=1e-4)
    vae.train(), classifier.train()
    torch.testing.assert_close(vae.encode(x)[0][:1], vae.encode(x[:1])[0], atol=1e-4, rtol=1e-4)


def test_the_decoder_can_be_sure(vae, rows):
    """Its outputs are logits: after a sigmoid a softmax over 53 productions could not pass 5 %."""
    x = rows.sequences[:1].repeat(4, 1)
    last = vae.decoder[-1]
    nn.init.zeros_(last.weight)
    last.bias.data.fill_(-20.0)[x[0, -1]] = 20.0  # padding, everywhere
    padding = torch.full_like(x, int(x[0, -1]))
    assert vae.decode(torch.randn(4, DIM)).softmax(dim=1).max() > 0.999
    assert squared_error(vae, torch.randn(4, DIM), padding) < 1e-6


def test_baselines_are_what_they_say(vae, rows):
    """Uniform probabilities have the error that `mse_uniform` states."""
    last = vae.decoder[-1]
    nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    error = squared_error(vae, torch.randn(len(rows), DIM), rows.sequences)
    assert error == pytest.approx((1 - 1 / 53) / 53, rel=1e-4)


def test_condition_match_counts_both(rows):
    class Knows(nn.Module):
        def forward(self, x):
            one_hot = torch.nn.functional.one_hot
            types, parts = one_hot(rows.types, 8).float(), one_hot(rows.parts, 20).float()
            parts[0] = parts[0].roll(1)
            types[1] = types[1].roll(1)
            return types, parts

    n, found = len(rows), condition_match(Knows(), rows.sequences, rows, "m")
    assert found == pytest.approx({"m": (n - 2) / n, "m_type": (n - 1) / n, "m_part": (n - 1) / n})


def test_the_stages_are_what_the_folders_are_called():
    assert train.STAGES == ("vae", "diffusion", "prior", "classifier")
