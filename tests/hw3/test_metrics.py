"""Metrics against closed forms, and what they say of generators whose faults are known."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from harness import OnAppleGPU
from HW3.clip import SimpleCLIP, label_accuracy
from HW3.data import ImageSet, load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.judge import load_judge
from HW3.metrics import (
    NEARER_THAN,
    bootstrap,
    clip_accuracy,
    discretised_gaussian,
    effective_classes,
    frechet_distance,
    make_reference,
    mean,
    measure_samples,
    measure_vae,
    near_each_other,
    nearest_distance,
)
from HW3.plumbing.errors import UsageError
from HW3.vae import ConvVAE
from train_tiny_sd import guided_eps


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def shares(fake, real, **options):
    return {name: values.mean().item() for name, values in near_each_other(fake, real, **options).items()}


# -- intervals -------------------------------------------------------------------------------------------


def test_an_interval_is_that_of_the_normal_approximation():
    values = torch.randn(2000).double()
    value, low, high = mean(values)
    half = 1.96 * values.std().item() / 2000**0.5
    assert value == pytest.approx(values.mean().item())
    assert low == pytest.approx(value - half, abs=0.3 * half)
    assert high == pytest.approx(value + half, abs=0.3 * half)
    assert mean(values) == (value, low, high)  # the same numbers give the same interval


def test_intervals_cover():
    inside = 0
    for _ in range(200):
        _, low, high = mean((torch.rand(300) < 0.3).double())
        inside += low <= 0.3 <= high
    assert 178 <= inside <= 199  # 190 expected, sd 3


def test_an_interval_of_a_biased_statistic_has_its_value_inside():
    def spread(index):
        return len(index.unique()) / 100  # of resamples about 0.63, of all items 1

    value, low, high = bootstrap(spread, 100)
    assert value == 1
    assert low < 1 < high


def test_equal_values_have_no_interval():
    assert mean(torch.ones(50)) == (1, 1, 1)


# -- Fréchet distance --------------------------------------------------------------------------------------


def test_frechet_distance_of_two_gaussians():
    """‖μ - μ'‖² + Σ (σ - σ')² for diagonal covariances."""
    n, dim = 4000, 6
    sigma, other = torch.linspace(0.5, 2, dim).double(), torch.linspace(1.5, 1, dim).double()
    x, y = torch.randn(n, dim).double() * sigma, torch.randn(n, dim).double() * other + 0.7
    want = dim * 0.7**2 + (sigma - other).square().sum().item()
    value, low, high = frechet_distance(x, y)
    assert value == pytest.approx(want, rel=0.05)
    assert low < want < high


def test_frechet_distance_with_full_covariances():
    """Rotated by the same matrix, two sets stay as far apart."""
    rotation, _ = torch.linalg.qr(torch.randn(5, 5).double())
    x, y = torch.randn(300, 5).double(), torch.randn(400, 5).double() * 2 + 1
    assert frechet_distance(x @ rotation, y @ rotation).value == pytest.approx(frechet_distance(x, y).value, rel=1e-6)


def test_frechet_distance_of_equal_sets_is_zero():
    x = torch.randn(200, 8)
    assert frechet_distance(x, x).value == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x).low >= 0


def test_too_few_for_a_covariance():
    x = torch.randn(200, 64)
    frechet_distance(x[:65], x)
    for fake, real in ((x[:64], x), (x, x[:64])):
        with pytest.raises(UsageError, match=r"x.npz: 64 images are too few for a covariance of 64 .*: 65 are needed"):
            frechet_distance(fake, real, "x.npz")


# -- precision, recall, density, coverage --------------------------------------------------------------------


def test_identical_sets():
    x = torch.randn(300, 4).double()
    found = shares(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1
    # Each of the n rows has itself and its k - 1 nearest within its open ball.
    assert found["density"] == pytest.approx(1)


def test_the_same_distribution():
    """Coverage of n samples of the same distribution is 1 - 1/2^k, Naeem et al. 2020 lemma 2; density is 1."""
    found = shares(torch.randn(2000, 8).double(), torch.randn(2000, 8).double(), k=3)
    assert found["coverage"] == pytest.approx(1 - 1 / 2**3, abs=0.03)
    assert found["density"] == pytest.approx(1, abs=0.05)


def test_disjoint_sets():
    x = torch.rand(200, 3).double()
    assert set(shares(x + 100, x).values()) == {0}


def test_by_hand():
    """On a line, k = 1: real 0, 1, 10 reach 1, 1, 9; fake 0.5, 4.5, 30 reach 4, 4, 25.5."""
    real, fake = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([[0.5], [4.5], [30.0]])
    found = near_each_other(fake.double(), real.double(), k=1)
    assert found["precision"].tolist() == [1, 1, 0]
    assert found["density"].tolist() == [2, 1, 0]
    assert found["recall"].tolist() == [1, 1, 1]
    assert found["coverage"].tolist() == [1, 1, 1]
    found = near_each_other(fake[:2].double(), real.double(), k=1)
    assert found["recall"].tolist() == [1, 1, 0]
    with pytest.raises(ValueError, match="2 rows have no 2 neighbours"):
        near_each_other(fake[:2], real, k=2)


def test_an_outlier_fools_precision_and_not_density():
    real = torch.randn(500, 2).double()
    fake = real + 40 + 0.1 * torch.randn(500, 2).double()
    outliers = torch.cat([real, torch.tensor([[40.0, 40.0]]).double()])
    found = shares(fake, outliers)
    assert found["precision"] == 1
    assert found["density"] < 0.25


def test_a_collapsed_generator_loses_coverage_and_recall():
    real = torch.randn(1000, 4).double()
    fine, collapsed = torch.randn(1000, 4).double(), 0.05 * torch.randn(1000, 4).double()
    found, fallen = shares(fine, real), shares(collapsed, real)
    assert fallen["precision"] > 0.95
    assert fallen["coverage"] < 0.1 < 0.9 < found["coverage"]
    assert fallen["recall"] < 0.1 < 0.9 < found["recall"]


class TwoClasses(torch.nn.Module):
    """The exact noise prediction for classes at ±1 with variance 1/2, and for a Gaussian as wide as both together."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x, t, cond):
        return guided_eps(self._eps(x, t, cond, 0.5), self._eps(x, t, 0 * cond, 1.5), self.scale)

    def _eps(self, x, t, centre, variance):
        alpha_bar = self.alpha_bars[t][:, None]
        return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * centre) / (variance * alpha_bar + 1 - alpha_bar)


def test_guidance_raises_precision_and_lowers_recall():
    """Of a model that is broader than the data, whose classes have variance 1/4."""
    cond = (2.0 * (torch.arange(1000) % 2) - 1)[:, None].expand(-1, 4)
    real = cond + 0.5 * torch.randn(1000, 4)
    found = []
    for scale in (1.0, 2.0, 4.0):
        net = TwoClasses(scale)
        diffusion = GaussianDiffusion(net, DiffusionConfig(timesteps=200))
        net.alpha_bars = diffusion.alpha_bars
        x = diffusion.sample_ddim(1000, torch.device("cpu"), 50, 1.0, cond=cond, shape=(4,))
        found.append(shares(x.double(), real.double()))
    for less, more in pairwise(found):
        assert more["precision"] > less["precision"]
        assert more["recall"] < less["recall"] - 0.05
        assert more["coverage"] < less["coverage"] - 0.05
    assert found[-1]["precision"] > found[0]["precision"] + 0.05


# -- classes and copies ------------------------------------------------------------------------------------


def test_effective_classes():
    assert effective_classes(torch.arange(1000) % 10) == pytest.approx(10)
    assert effective_classes(torch.full((50,), 7)) == pytest.approx(1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_classes(torch.tensor([0, 0, 0, 3])) == pytest.approx(math.exp(entropy))


def test_nearest_distance_in_pixels():
    train = torch.zeros(7000, 1, 8, 8, dtype=torch.uint8)  # more than one chunk
    train[6999] = 255
    images = torch.stack([torch.zeros(1, 8, 8), torch.full((1, 8, 8), 0.9), torch.full((1, 8, 8), 0.2)])
    torch.testing.assert_close(nearest_distance(images, train), torch.tensor([0, 0.1, 0.2]), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def digits():
    judge = load_judge("digits")
    train, test = (load_dataset("digits", train=train) for train in (True, False))
    return judge, train, test, make_reference(judge, train, test)


def values(found):
    return {name: estimate.value for name, estimate in found.items()}


def test_real_noise_and_faulty_generators(digits):
    judge, train, test, reference = digits
    images, labels = test.batch(slice(None))
    real = values(measure_samples(judge, images, labels, reference))
    assert real["label_accuracy"] > 0.98
    assert real["copies"] == pytest.approx(NEARER_THAN, abs=0.01)
    assert real["classes"] > 9.6
    assert min(real["precision"], real["recall"], real["coverage"]) > 0.8

    noise = values(measure_samples(judge, torch.rand(300, 1, 32, 32), torch.arange(300) % 10, reference))
    assert noise["label_accuracy"] < 0.3
    # Some of it falls near one odd digit, which is enough for precision.
    assert noise["density"] < 0.1
    assert noise["coverage"] < 0.05
    assert noise["recall"] == noise["copies"] == 0
    assert noise["frechet_distance"] > 10 * real["frechet_distance"]

    memorised, asked = train.subset(300).batch(slice(None))
    copied = values(measure_samples(judge, memorised, asked, reference))
    assert copied["copies"] == 1
    assert copied["label_accuracy"] > 0.99

    threes = images[labels == 3]
    one = values(measure_samples(judge, torch.cat([threes] * 3), None, reference))
    assert one["classes"] < 1.5
    assert one["coverage"] < 0.3
    assert "label_accuracy" not in one


def test_the_reference_is_fixed(digits):
    judge, train, test, reference = digits
    again = make_reference(judge, train, test)
    assert torch.equal(again.features, reference.features)
    assert again.near == reference.near


# -- a VAE -------------------------------------------------------------------------------------------------


def test_discretised_gaussian_is_a_distribution_over_the_grey_values():
    levels = torch.arange(256).double() / 255
    for centre, sigma in ((0.0, 0.1), (0.43, 0.02), (1.0, 0.5), (0.5, 0.001)):
        log_p = discretised_gaussian(levels, torch.tensor(centre).double(), sigma)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_discretised_gaussian_keeps_its_digits_far_out():
    """Fifteen sigma away, where Φ is 1 in float32: as the density times the bin."""
    x, centre = torch.tensor([100 / 255]), torch.tensor([100 / 255 + 0.3])
    want = Normal(centre, 0.02).log_prob(x) - math.log(255)
    found = discretised_gaussian(x, centre, 0.02)
    assert found.item() == pytest.approx(want.item(), rel=0.01)
    assert discretised_gaussian(x, x - 0.3, 0.02).item() == pytest.approx(want.item(), rel=0.01)
    assert torch.isfinite(discretised_gaussian(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 0.02)).all()


class Known(ConvVAE):
    """A VAE with a known posterior and a decoder that answers grey."""

    def __init__(self) -> None:
        super().__init__(latent_dim=4)

    def encode(self, x):
        mu = torch.zeros(len(x), 4)
        mu[:, 1] = torch.linspace(-2, 2, len(x))  # the one unit that tells of the image
        return mu, torch.full((len(x), 4), -0.3)

    def decode(self, z):
        return torch.full((len(z), 1, 32, 32), 0.25)


def test_a_vae_that_is_known():
    x = (torch.rand(100, 1, 32, 32) < 0.25).float()
    found = values(measure_vae(Known(), x, x))
    mu, logvar = Known().encode(x)
    kl = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(dim=1).mean().item()
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    white = x.mean().item()
    bce = -1024 * (white * math.log(0.25) + (1 - white) * math.log(0.75))
    assert found["reconstruction_bce"] == pytest.approx(bce, rel=1e-5)
    assert found["elbo_bernoulli"] == pytest.approx(-bce - kl, rel=1e-5)
    assert found["bits_bernoulli"] == pytest.approx((bce + kl) / (1024 * math.log(2)), rel=1e-5)
    error = white * 0.75**2 + (1 - white) * 0.25**2
    assert found["reconstruction_error"] == pytest.approx(error, rel=1e-5)
    assert found["sigma"] == pytest.approx(error**0.5, rel=1e-5)
    assert found["active_units"] == 1


def test_measuring_a_vae_draws_nothing_from_the_world():
    vae, x = ConvVAE(latent_dim=4), torch.rand(8, 1, 32, 32)
    before = torch.get_rng_state()
    first = measure_vae(vae, x, x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert measure_vae(vae, x, x) == first


# -- a CLIP ------------------------------------------------------------------------------------------------


def test_label_accuracy_counts():
    clip, images = SimpleCLIP(embed_dim=8).eval(), torch.rand(9, 1, 32, 32)
    labels = clip.predict(images)
    assert label_accuracy(clip, images, labels) == 1
    assert label_accuracy(clip, images, (labels + 1) % 10) == 0
    labels[:3] = (labels[:3] + 1) % 10
    assert label_accuracy(clip, images, labels) == pytest.approx(6 / 9)
    assert clip_accuracy(clip, images, labels).value == pytest.approx(6 / 9)


def test_on_a_device_without_float64(digits):
    judge, _, test, reference = digits
    images, labels = test.limit(100).batch(slice(None))
    want = measure_samples(judge, images, labels, reference)
    assert values(measure_samples(judge, images.as_subclass(OnAppleGPU), labels, reference)) == pytest.approx(
        values(want), rel=1e-4
    )
    vae = ConvVAE(latent_dim=4).eval()
    want = measure_vae(vae, images, images)
    assert values(measure_vae(vae, images.as_subclass(OnAppleGPU), images)) == pytest.approx(values(want), rel=1e-4)


def test_a_subset_is_a_seeded_choice():
    data = ImageSet(torch.arange(50, dtype=torch.uint8)[:, None, None, None], torch.arange(50), ("x",))
    chosen = data.subset(20)
    assert torch.equal(chosen.images.flatten().long(), chosen.labels)
    assert len(chosen.labels.unique()) == 20
    assert torch.equal(data.subset(20).labels, chosen.labels)
    assert not torch.equal(data.subset(20, seed=1).labels, chosen.labels)
    assert sorted(data.subset(99).labels.tolist()) == list(range(50))
