"""The models of the track and what they share with others: losses that reach their floor, rows that stay apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from extensions.blocks.adversarial import discriminator_loss, frozen, generator_loss
from extensions.blocks.averaging import warmed_up_ema
from extensions.blocks.conditional import Guided, LabelledUNet
from extensions.gan_zoo.models import GAN, KINDS, LOSSES, MLPVAE, reconstruction_loss
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.plumbing.errors import UsageError

# -- losses --------------------------------------------------------------------------------------------------


def test_the_discriminator_s_loss_reaches_its_floor():
    """On logits: with a sigmoid before it, perfect separation would still cost 1.0."""
    sure = torch.full((8,), 50.0)
    assert discriminator_loss(sure, -sure).item() == pytest.approx(0, abs=1e-6)
    assert discriminator_loss(0 * sure, 0 * sure).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(0 * sure).item() == pytest.approx(math.log(2))
    assert generator_loss(sure).item() == pytest.approx(0, abs=1e-6)
    assert discriminator_loss(-sure, sure).item() == pytest.approx(100)


@pytest.mark.parametrize("kind", KINDS)
def test_a_discriminator_gives_logits(kind):
    """Trained on black against white it passes what probabilities can reach, and its loss goes to 0."""
    torch.manual_seed(0)
    net = GAN(kind, 8, 4, 8, 16).discriminator
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    real, fake = torch.ones(8, 1, 8, 8), torch.zeros(8, 1, 8, 8)
    for _ in range(100):
        loss = discriminator_loss(net(real), net(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert net(real).min() > 1.5
    assert net(fake).max() < -1.5


@pytest.mark.parametrize("kind", LOSSES)
def test_a_reconstruction_costs_the_sum_over_its_pixels(kind):
    x = (torch.rand(5, 1, 28, 28) > 0.5).float()
    at_half = reconstruction_loss(torch.full_like(x, 0.5), x, kind)
    expected = {"l1": 784 / 2, "l2": 784 / 4, "bce": 784 * math.log(2)}[kind]
    torch.testing.assert_close(at_half, torch.full((5,), expected))
    torch.testing.assert_close(reconstruction_loss(x, x, kind), torch.zeros(5))  # the floor


# -- shapes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_has_the_shapes_of_any_other(kind, size):
    gan, vae = GAN(kind, size, 10, 8, 16), MLPVAE(size, 16, 5)
    for n in (1, 3):
        z, x = torch.randn(n, 10), torch.rand(n, 1, size, size)
        assert gan.generator(z).shape == x.shape
        assert gan.discriminator(x).shape == gan(z).shape == (n,)
        recon, mu, logvar = vae(x)
        assert (recon.shape, mu.shape, logvar.shape) == (x.shape, (n, 5), (n, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_in_the_unit_range_and_rows_stay_apart(kind):
    torch.manual_seed(0)
    gan = GAN(kind, 8, 4, 8, 16)
    z = torch.randn(5, 4, requires_grad=True)
    images = gan.generator(z)
    assert images.min() >= 0
    assert images.max() <= 1
    gan.discriminator(images)[2].backward()
    assert z.grad[2].abs().sum() > 0
    assert z.grad[[0, 1, 3, 4]].abs().sum() == 0


def test_the_sizes_are_those_of_the_brief():
    linear = [(m.in_features, m.out_features) for m in MLPVAE().modules() if isinstance(m, nn.Linear)]
    assert linear == [(784, 1024), (1024, 80), (1024, 80), (80, 1024), (1024, 784)]
    linear = [(m.in_features, m.out_features) for m in GAN("mlp").modules() if isinstance(m, nn.Linear)]
    assert linear == [(100, 256), (256, 784), (784, 256), (256, 1)]


def test_dcgan_refuses_a_size_that_it_cannot_halve_twice():
    with pytest.raises(UsageError, match="4 divides, not 30"):
        GAN("dcgan", 30)


def test_gradients_pass_a_frozen_model_and_leave_it_alone():
    gan = GAN("mlp", 8, 4, 8, 16)
    with frozen(gan.discriminator):
        generator_loss(gan(torch.randn(3, 4))).backward()
    assert all(p.grad is None and p.requires_grad for p in gan.discriminator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in gan.generator.parameters())


# -- the average ---------------------------------------------------------------------------------------------


def averaged(decay: float, updates: int) -> float:
    """The average of a weight that is 0 at first and 1 ever after."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.zero_()
    ema = AveragedModel(net, multi_avg_fn=warmed_up_ema(decay))
    ema.update_parameters(net)
    net.weight.data.fill_(1)
    for _ in range(updates):
        ema.update_parameters(net)
    return ema.module.weight.item()


def test_the_average_of_a_short_run_is_not_its_initial_weights():
    assert averaged(0.9999, 100) > 0.99  # 0.01 without warm-up
    assert averaged(0.9999, 1) == pytest.approx(9 / 11)  # decay (1 + 1) / (10 + 1)


def test_the_decay_is_that_of_the_setting_in_a_long_run():
    assert averaged(0.5, 3) == pytest.approx(1 - 2 / 11 * 3 / 12 * 4 / 13)
    assert averaged(0.0, 1) == 1
    ratio = (1 - averaged(0.3, 6)) / (1 - averaged(0.3, 5))
    assert ratio == pytest.approx(0.3, rel=1e-2)  # (1 + 6) / (10 + 6) would be 0.44


# -- the U-Net that is told a label -----------------------------------------------------------------------------


@pytest.fixture
def unet():
    torch.manual_seed(0)
    net = LabelledUNet(4, 8, (1, 2), cond_dropout=0.5)
    for parameter in net.parameters():  # its last layers are 0 at the start
        if parameter.abs().sum() == 0:
            nn.init.normal_(parameter, std=0.1)
    return net.eval()


def batch(n):
    torch.manual_seed(1)
    return torch.randn(n, 1, 8, 8), torch.randint(0, 1000, (n,)), torch.arange(n) % 4


def test_label_and_token_matter_and_rows_stay_apart(unet):
    x, t, labels = batch(5)
    given = unet(x, t, labels)
    for other in (unet(x, t, (labels + 1) % 4), unet(x, t)):
        assert (other - given).abs().flatten(1).amax(dim=1).min() > 1e-4
    alone = torch.cat([unet(x[i : i + 1], t[i : i + 1], labels[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(given, alone, atol=1e-5, rtol=1e-4)


def test_training_hides_labels_row_by_row(unet):
    x, t, labels = batch(400)
    with_label, without = unet(x, t, labels), unet(x, t)
    got = unet.train()(x, t, labels)
    is_hidden = torch.isclose(got, without, atol=1e-5).flatten(1).all(dim=1)
    assert torch.isclose(got, with_label, atol=1e-5).flatten(1).all(dim=1).logical_xor(is_hidden).all()
    assert 0.4 < is_hidden.float().mean() < 0.6


def test_guidance_of_two_goes_beyond_the_label(unet):
    x, t, labels = batch(5)
    with_label, without = unet(x, t, labels), unet(x, t)
    torch.testing.assert_close(Guided(unet, 2.0)(x, t, labels), 2 * with_label - without)
    diffusion = GaussianDiffusion(Guided(unet, 2.0), DiffusionConfig(image_size=8, timesteps=5, schedule="cosine"))
    assert diffusion.sample_ddim(1, "cpu", 3, cond=labels[:1]).shape == (1, 1, 8, 8)
