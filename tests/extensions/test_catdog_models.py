"""The models of catdog and faces, and latents on their way through diffusion and back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from extensions.blocks.conditional import EpsMLPNull
from extensions.blocks.features import SmallClassifier
from extensions.catdog.evaluate import fitted_latents
from extensions.catdog.models import VAEGAN, JudgeNet, LabelledVAE
from extensions.catdog.standin import standin
from extensions.catdog.trained import encode, guided_drawer
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import LatentSpace
from HW3.pretrained import embed

CPU = torch.device("cpu")


@pytest.fixture
def vae():
    torch.manual_seed(0)
    vae = LabelledVAE(2, 32, 6, (4, 8, 8, 8), head_dim=8).eval()
    vae.to_mu.weight.data.mul_(20)  # latents far from standardised
    vae.to_mu.bias.data.add_(3)
    return vae


@pytest.fixture
def pictures():
    return standin(60, 32, ("cat", "dog"), 0)


# -- the networks --------------------------------------------------------------------------------------------


def test_the_head_has_the_sizes_of_the_brief():
    vae = LabelledVAE(widths=(4, 8, 8, 8))
    linear = [(m.in_features, m.out_features) for m in vae.head if isinstance(m, nn.Linear)]
    assert linear == [(256, 512), (512, 256), (256, 2)]
    assert vae.centres.centres.shape == (2, 256)


def test_a_vae_comes_back_out_of_its_plain_values(vae):
    part = embed(vae, vae.config)
    again = LabelledVAE(**part["config"])
    again.load_state_dict(part["weights"])
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(again.eval().encode(x)[0], vae.encode(x)[0])


def test_there_is_a_discriminator_only_where_there_is_a_use_for_it(vae):
    assert VAEGAN(vae, None).discriminator is None
    assert VAEGAN(vae, (4, 8)).discriminator(torch.rand(3, 3, 32, 32)).shape == (3,)


@pytest.mark.parametrize("size", [32, 64])
def test_the_judge_looks_at_each_picture_alone(size):
    torch.manual_seed(0)
    judge = JudgeNet(2, 4).eval()
    x = torch.rand(3, 3, size, size)
    features, seen = judge.judge(x)
    assert (features.shape, features.dtype, seen.shape) == ((3, 64), torch.float64, (3,))
    torch.testing.assert_close(judge.judge(x[1:2])[0], features[1:2], atol=1e-5, rtol=1e-4)
    assert torch.equal(judge(x).argmax(dim=1), seen)


def test_judge_and_features_are_two_kinds_of_network():
    """What the VAE learns to please must not be who judges it."""
    kinds = [{type(m).__name__ for m in net.modules()} for net in (JudgeNet(), SmallClassifier())]
    assert {"ReLU", "MaxPool2d"} <= kinds[0] - kinds[1]
    assert "SiLU" in kinds[1] - kinds[0]


# -- latents -------------------------------------------------------------------------------------------------


def test_latents_survive_standardising_and_back(vae, pictures):
    cache = encode(vae, pictures)
    space = LatentSpace(6).fit(cache)
    u = space.normalize(cache.mu)
    torch.testing.assert_close(u.mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(u.std(dim=0, correction=0), torch.ones(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(space.denormalize(u), cache.mu, atol=1e-4, rtol=1e-4)
    # A picture's u is its own, whatever else is in the batch.
    torch.testing.assert_close(space.normalize(cache.mu[:1]), u[:1])


def test_encoding_gives_posterior_means_in_the_order_of_the_pictures(vae, pictures):
    cache = encode(vae, pictures)
    torch.testing.assert_close(cache.mu, vae.encode(pictures.batch(slice(None))[0])[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(cache.labels, pictures.labels)
    assert (cache.logvar.exp() == 0).all()


def drawer_of(vae, space, net=None, guidance=1.0):
    torch.manual_seed(0)
    net = net or EpsMLPNull(6, 2, 8, 16)
    nn.init.normal_(net.head.weight)
    process = DiffusionConfig(timesteps=50, schedule="cosine", prediction="v")
    return guided_drawer(net.eval(), process, vae, space, SimpleNamespace(guidance=guidance, ddim_steps=5))


@torch.no_grad()
def test_what_is_drawn_is_taken_back_to_the_vae_s_latents_before_it_is_decoded(vae, pictures):
    cache = encode(vae, pictures)
    space = LatentSpace(6).fit(cache)
    drawer = drawer_of(vae, space)
    u = space.normalize(cache.mu[:3])
    torch.testing.assert_close(drawer.decode(u), vae.decode(cache.mu[:3]), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(drawer.decode(u), vae.decode(u), atol=1e-2)
    assert torch.equal(drawer.texts, torch.eye(2))


def test_oracle_noise_gives_back_the_latent():
    """With the true noise at every step, the chain of the samplers ends at x_0, from any step."""
    torch.manual_seed(0)
    x0 = torch.randn(4, 6)
    process = DiffusionConfig(timesteps=50)
    tables = GaussianDiffusion(nn.Identity(), process)
    oracle = GaussianDiffusion(lambda x, t: tables.predict_eps(x, t, x0), process)
    for drawn in (oracle.sample_ddim(4, CPU, 10, shape=(6,)), oracle.sample_ddpm(4, CPU, shape=(6,))):
        torch.testing.assert_close(drawn, x0, atol=1e-3, rtol=1e-3)
    noise = torch.randn_like(x0)
    for step in (0, 25, 49):
        t = torch.full((4,), step)
        torch.testing.assert_close(oracle.predict_x0(oracle.q_sample(x0, t, noise), t, noise), x0, atol=1e-3, rtol=1e-3)


def test_a_gaussian_for_each_class_has_its_mean(vae, pictures):
    torch.manual_seed(0)
    labels = torch.arange(4000) % 2
    z = fitted_latents(vae, pictures, labels)
    cache = encode(vae, pictures)
    for label in range(2):
        mean, std = cache.mu[cache.labels == label].mean(dim=0), cache.mu[cache.labels == label].std(dim=0)
        assert ((z[labels == label].mean(dim=0) - mean).abs() < 0.2 * std).all()


# -- the stand-in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64])
def test_the_stand_in_is_two_classes_of_shapes_from_a_seed(size):
    before = torch.get_rng_state()
    found = standin(40, size, ("a", "b"), 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert (found.images.shape, found.images.dtype) == ((40, 3, size, size), torch.uint8)
    assert found.labels.bincount().tolist() == [20, 20]
    assert torch.equal(standin(40, size, ("a", "b"), 3).images, found.images)
    assert not torch.equal(standin(40, size, ("a", "b"), 4).images, found.images)
    assert (found.images[0].float() - found.images[0].float().mean()).abs().max() > 30
