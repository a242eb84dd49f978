"""The networks: shapes, memory layouts, dtypes, and the losses that are ours."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

from harness import OnAppleGPU
from HW3.autoguidance import autoguided, early_epoch, weights_now
from HW3.clip import NUM_CLASSES, SimpleCLIP, contrastive_loss
from HW3.data import ImageSet
from HW3.latent import EpsMLP, LatentCache, LatentSpace, encode_dataset, text_conditions
from HW3.Unet import UNet
from HW3.vae import ConvVAE, kl_divergence, vae_loss
from train_clip import mean_loss
from train_tiny_sd import EpsMLPCond, GuidedModel, guided_eps


def randomise(module):
    """Zero-initialised layers hide mistakes; give every parameter a value."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.1)
    return module


# -- VAE ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_vae_shapes_and_layouts(layout):
    vae = ConvVAE(latent_dim=7).to(memory_format=layout)
    x = torch.rand(3, 1, 32, 32).to(memory_format=layout)
    recon, mu, logvar = vae(x)
    assert recon.shape == x.shape
    assert mu.shape == logvar.shape == (3, 7)
    assert (recon >= 0).all()
    assert (recon <= 1).all()
    vae_loss(recon, x, mu, logvar)[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in vae.parameters())


def test_vae_layouts_agree():
    vae, x = ConvVAE(latent_dim=7), torch.rand(3, 1, 32, 32)
    contiguous = vae.encode(x)[0]
    channels_last = vae.to(memory_format=torch.channels_last).encode(x.to(memory_format=torch.channels_last))[0]
    torch.testing.assert_close(channels_last, contiguous, atol=1e-4, rtol=1e-4)


def test_reparameterize_has_the_right_moments_and_gradients():
    vae = ConvVAE(latent_dim=3).eval()
    mu = torch.tensor([[1.0, -2.0, 0.0]]).expand(20_000, 3).clone().requires_grad_()
    logvar = torch.tensor([[0.0, 1.0, -2.0]]).expand(20_000, 3).clone().requires_grad_()
    z = vae.reparameterize(mu, logvar)
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.06, rtol=0)
    torch.testing.assert_close(z.std(0), (0.5 * logvar[0]).exp(), atol=0.06, rtol=0)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones_like(mu))
    torch.testing.assert_close(logvar.grad, 0.5 * (z - mu).detach())


def test_kl_divergence_is_torchs():
    mu, logvar = torch.randn(2, 5, 4, dtype=torch.float64)
    ours = kl_divergence(mu, logvar)
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    torch.testing.assert_close(ours, torch.distributions.kl_divergence(q, torch.distributions.Normal(0, 1)).sum(1))
    assert ours.dtype == torch.float64
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


@pytest.mark.parametrize(("loss_type", "reference"), [("mse", F.mse_loss), ("bce", F.binary_cross_entropy)])
def test_vae_loss_is_a_sum_over_the_batch(loss_type, reference):
    recon, x = torch.rand(2, 3, 1, 8, 8)
    mu, logvar = torch.randn(2, 3, 5)
    total, rec, kl = vae_loss(recon, x, mu, logvar, 0.5, loss_type)
    torch.testing.assert_close(rec, reference(recon, x, reduction="sum"))
    torch.testing.assert_close(kl, kl_divergence(mu, logvar).sum())
    torch.testing.assert_close(total, rec + 0.5 * kl)
    with pytest.raises(ValueError, match="mse or bce"):
        vae_loss(recon, x, mu, logvar, loss_type="l1")


# -- U-Net -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [{}, {"attention": True}, {"cond_dim": 5}, {"patch_size": 1, "base_channels": 6}])
def test_unet_takes_any_size_and_channels(size, channels, options):
    options = {"base_channels": 8, **options}
    net = randomise(UNet(channels, **options))
    x, t = torch.randn(2, channels, size, size), torch.tensor([0, 999])
    cond = torch.randn(2, 5) if "cond_dim" in options else None
    out = net(x, t, cond)
    assert out.shape == x.shape
    out.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("options", [{}, {"attention": True}, {"patch_size": 2}])
def test_unet_listens_to_everything_and_keeps_rows_apart(options):
    net = randomise(UNet(base_channels=8, cond_dim=5, **options)).eval()
    x, t, cond = torch.randn(3, 1, 32, 32), torch.tensor([3, 500, 900]), torch.randn(3, 5)
    out = net(x, t, cond)
    for changed in (net(x + 1, t, cond), net(x, t + 7, cond), net(x, t, cond + 1)):
        assert not torch.allclose(changed, out)
    torch.testing.assert_close(net(x[1:2], t[1:2], cond[1:2]), out[1:2], atol=1e-4, rtol=1e-4)


def test_unet_starts_at_zero():
    x, t = torch.randn(2, 1, 32, 32), torch.tensor([0, 5])
    assert torch.equal(UNet(base_channels=8)(x, t), torch.zeros_like(x))


def test_unet_refuses_what_it_cannot_do():
    net = UNet(base_channels=8)
    with pytest.raises(ValueError, match="not divisible by 4"):
        net(torch.randn(1, 1, 30, 30), torch.tensor([0]))
    with pytest.raises(ValueError, match="takes no condition"):
        net(torch.randn(1, 1, 32, 32), torch.tensor([0]), torch.randn(1, 5))


@pytest.mark.parametrize("base_channels", [1, 6, 7, 12])
def test_unet_group_counts_adapt(base_channels):
    net = UNet(base_channels=base_channels)
    assert net(torch.randn(1, 1, 32, 32), torch.tensor([0])).shape == (1, 1, 32, 32)


def test_unet_runs_in_float64():
    net = randomise(UNet(base_channels=8)).double()
    assert net(torch.randn(1, 1, 32, 32, dtype=torch.float64), torch.tensor([3])).dtype == torch.float64


# -- CLIP --------------------------------------------------------------------------------------------


def test_clip_embeddings_have_length_one_and_predict_labels():
    clip = SimpleCLIP(embed_dim=16)
    images, texts, scale = clip(torch.rand(5, 1, 32, 32), torch.arange(5))
    for emb in (images, texts):
        assert emb.shape == (5, 16)
        torch.testing.assert_close(emb.norm(dim=1), torch.ones(5))
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-4)
    predicted = clip.predict(torch.rand(5, 1, 32, 32))
    assert predicted.shape == (5,)
    assert predicted.dtype == torch.long
    assert clip.all_text_embeddings().shape == (NUM_CLASSES, 16)


def test_contrastive_loss_without_repeated_labels_is_clips():
    images, texts = F.normalize(torch.randn(2, 6, 8), dim=-1)
    logits = 10 * images @ texts.T
    target = torch.arange(6)
    want = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(contrastive_loss(images, texts, target, torch.tensor(10.0)), want)


def test_contrastive_loss_counts_all_images_of_a_class_as_positives():
    texts = torch.eye(4)[:2]  # two classes, told apart perfectly
    labels = torch.tensor([0, 1, 0, 0, 1])
    emb = texts[labels]
    perfect = contrastive_loss(emb, emb, labels, torch.tensor(100.0))
    # Row by row, the best that can be done is to spread the probability over the positives.
    entropy = sum(math.log((labels == label).sum()) for label in labels) / len(labels)
    assert perfect.item() == pytest.approx(entropy, abs=1e-4)
    assert contrastive_loss(emb, emb.flip(0), labels, torch.tensor(100.0)) > perfect + 1


def test_the_temperature_is_limited_in_validation_as_in_training():
    clip = SimpleCLIP(embed_dim=8)
    with torch.no_grad():
        clip.logit_scale.fill_(math.log(1000))
    images, labels = torch.rand(6, 1, 32, 32), torch.arange(6) % 3
    image_emb, text_emb, scale = clip(images, labels)
    assert scale.item() == pytest.approx(100)
    want = contrastive_loss(image_emb, text_emb, labels, scale).item()
    assert mean_loss(clip, image_emb, labels, batch_size=6) == pytest.approx(want)


# -- latents -----------------------------------------------------------------------------------------


def test_mlp_family():
    x, t, cond = torch.randn(4, 6), torch.tensor([0, 1, 500, 999]), torch.randn(4, 3)
    net = randomise(EpsMLP(6, time_dim=8, hidden_dim=16))
    assert net(x, t).shape == x.shape
    told = randomise(EpsMLPCond(6, 3, time_dim=8, hidden_dim=16))
    out = told(x, t, cond)
    assert out.shape == x.shape
    for changed in (told(x + 1, t, cond), told(x, t + 7, cond), told(x, t, cond + 1)):
        assert not torch.allclose(changed, out)
    torch.testing.assert_close(told(x[2:3], t[2:3], cond[2:3]), out[2:3])
    assert told.double()(x.double(), t, cond.double()).dtype == torch.float64


def test_guidance_between_and_beyond():
    cond, uncond = torch.randn(2, 4, 6)
    torch.testing.assert_close(guided_eps(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(guided_eps(cond, uncond, 1.0), cond)
    torch.testing.assert_close(guided_eps(cond, uncond, 3.0), 3 * cond - 2 * uncond)


def test_guided_model_compares_the_text_with_no_text():
    net = randomise(EpsMLPCond(6, 3, time_dim=8, hidden_dim=16))
    x, t, cond = torch.randn(4, 6), torch.arange(4), torch.randn(4, 3)
    want = guided_eps(net(x, t, cond), net(x, t, torch.zeros_like(cond)), 3.0)
    torch.testing.assert_close(GuidedModel(net, 3.0)(x, t, cond), want)
    below = GuidedModel(net, 3.0, until=2)(x, t, cond)
    torch.testing.assert_close(below[:2], want[:2])
    torch.testing.assert_close(below[2:], net(x, t, cond)[2:], msg="from t = 2 on as without guidance")


def test_autoguidance_moves_away_from_the_earlier_weights_below_its_limit():
    net, x, t = randomise(EpsMLP(6, time_dim=8, hidden_dim=16)), torch.randn(4, 6), torch.arange(4) * 30
    ema = AveragedModel(net)
    early = weights_now(ema)
    was = net(x, t)
    randomise(ema.module)
    guided = autoguided(ema.module, early, 2.0, timesteps=100)
    now = ema.module(x, t)
    torch.testing.assert_close(guided(x, t)[:3], (2 * now - was)[:3])
    torch.testing.assert_close(guided(x, t)[3:], now[3:], msg="t = 90 is not guided")
    assert autoguided(net, early, 1.0, 100) is net
    assert autoguided(net, None, 2.0, 100) is net
    assert [early_epoch(epochs) for epochs in (1, 2, 15, 40)] == [1, 1, 3, 8]


def test_text_conditions_have_unit_variance():
    texts = text_conditions(SimpleCLIP(embed_dim=16))
    torch.testing.assert_close(texts.square().mean(dim=1), torch.ones(NUM_CLASSES))


@pytest.mark.parametrize("canonicalize", [False, True])
def test_latent_space_standardises_the_aggregate_posterior_and_inverts(canonicalize):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 5, generator=generator)
    mu = torch.randn(4000, 5, generator=generator) @ mix + torch.arange(5)
    logvar = torch.randn(4000, 5, generator=generator) - 1
    cache = LatentCache(mu, logvar, torch.zeros(4000))
    space = LatentSpace(5, canonicalize=canonicalize).fit(cache)
    z = mu + (0.5 * logvar).exp() * torch.randn(4000, 5, generator=generator)
    u = space.normalize(z)
    torch.testing.assert_close(u.mean(0), torch.zeros(5), atol=0.05, rtol=0)
    torch.testing.assert_close(u.var(0), torch.ones(5), atol=0.1, rtol=0)
    off_diagonal = (u.T.cov() - u.T.cov().diag().diag()).abs().max()
    assert off_diagonal < 0.1 if canonicalize else off_diagonal > 0.2
    torch.testing.assert_close(space.denormalize(u), z, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("canonicalize", [False, True])
def test_latent_space_is_fitted_on_a_device_without_float64(canonicalize):
    mu, logvar = torch.randn(2, 50, 3)
    want = LatentSpace(3, canonicalize=canonicalize).fit(LatentCache(mu, logvar, torch.zeros(50)))
    cache = LatentCache(mu.as_subclass(OnAppleGPU), logvar.as_subclass(OnAppleGPU), torch.zeros(50))
    got = LatentSpace(3, canonicalize=canonicalize).fit(cache)
    torch.testing.assert_close(got.state_dict(), want.state_dict())


def test_encode_dataset_keeps_the_order():
    images = torch.randint(0, 256, (7, 1, 32, 32), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(7), tuple("0123456"))
    vae = ConvVAE(latent_dim=4).eval()
    cache = encode_dataset(vae, data, batch_size=3)
    mu, logvar = vae.encode(data.batch(slice(None))[0])
    torch.testing.assert_close(cache.mu, mu, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cache.logvar, logvar, atol=1e-5, rtol=1e-5)
    assert torch.equal(cache.labels, data.labels)
