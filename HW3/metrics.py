"""How good is it: what can be measured of samples, of a VAE and of a CLIP. Images are (N, 1, 32, 32) in [0, 1].

Samples are compared with training images in the features of the judge (`judge.py`). What each number is:

    label_accuracy       the fraction of samples in which the judge sees the label that was asked for
    confidence           the probability that it gives the class that it sees, on average
    frechet_distance     between Gaussians fitted to both sets' features, Heusel et al. 2017 eq. 6. Not the FID: that
                         has Inception's features, and other values. 0 is best; grows with fewer samples
    precision, recall    the fraction of samples near a real image, and of real images near a sample: Kynkäänniemi et
                         al. 2019 eq. 2. Near: within the distance of the k-th neighbour in its own set
    density, coverage    how many real images a sample is near to, against k; the fraction of real images that have a
                         sample within their own distance: Naeem et al. 2020 eq. 3 and 4. Outliers matter less to them
    classes              how many classes there are, as the exponential of the entropy of those that the judge sees
    copies               the fraction of samples nearer to a training image than 99 % of the test images are to theirs

The numbers of two sets compare where judge, reference and number of samples are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HW3.clip import label_accuracy as label_accuracy  # train_tiny_sd.py had it from here, and submissions still may
from HW3.clip import recognised
from HW3.data import ImageSet
from HW3.plumbing.errors import UsageError
from HW3.vae import kl_divergence

if TYPE_CHECKING:
    from HW3.clip import SimpleCLIP
    from HW3.judge import Judge
    from HW3.vae import ConvVAE

CHUNK = 500  # images that go through a network at once

RESAMPLES = 200  # of the bootstrap
NEIGHBOURS = 5  # k of precision, recall, density and coverage, as in Naeem et al.
REFERENCE = 10_000  # training images of which the Fréchet distance takes the moments
HELD_OUT = 2000  # test images that say how near a new image comes to a training image
NEARER_THAN = 0.01  # the share of test images that would be called copies
ACTIVE = 0.01  # the variance above which a latent unit is active, Burda et al. 2016 section 5.2


# -- estimates and their intervals -----------------------------------------------------------------------


class Estimate(NamedTuple):
    """A number and its 95 % interval, for the draw of the samples; judge and reference count as given."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Callable[[Tensor], float], n: int, resamples: int = RESAMPLES) -> Estimate:
    """The statistic of n items and its interval, Efron & Tibshirani 1993 chapter 13.

    statistic: of the items with these indices (n,), some of them repeated.
    The percentiles are moved so that the resamples agree with the statistic on average: repetitions alone make a
    Fréchet distance larger. Where all items agree (all labels right) the interval is empty; up to 3/n of all
    can then still be otherwise. Without resamples the interval is empty, too.
    """
    value = statistic(torch.arange(n))
    if resamples == 0:
        return Estimate(value, value, value)
    source = torch.Generator().manual_seed(0)
    drawn = torch.tensor([statistic(torch.randint(n, (n,), generator=source)) for _ in range(resamples)]).double()
    low, high = (value + drawn.quantile(torch.tensor([0.025, 0.975]).double()) - drawn.mean()).tolist()
    return Estimate(value, low, high)


def mean(values: Tensor) -> Estimate:
    """The mean of one value per item, (N,)."""
    values = values.detach().cpu().double()
    return bootstrap(lambda index: values[index].mean().item(), len(values))


# -- sets of images against training images ----------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """What samples are compared with: the judge's features (M, 64) of some training images, and all of the images.

    near: the distance to the nearest training image below which a sample counts as a copy.
    """

    features: Tensor
    train: Tensor
    near: float


def make_reference(judge: Judge, train: ImageSet, test: ImageSet) -> Reference:
    """The reference of a data set, on whose device everything is computed."""
    features, _ = judge.judge(train.subset(REFERENCE).batch(slice(None))[0])
    held_out, _ = test.subset(HELD_OUT).batch(slice(None))
    near = nearest_distance(held_out, train.images).quantile(NEARER_THAN).item()
    return Reference(features, train.images, near)


def measure_samples(
    judge: Judge, images: Tensor, labels: Tensor | None, reference: Reference, name: str = "this"
) -> dict[str, Estimate]:
    """All that can be said of a set of samples, by name. Raises UsageError where there are too few of them."""
    features, probabilities = judge.judge(images)
    confidence, seen = probabilities.max(dim=1)
    found = {} if labels is None else {"label_accuracy": mean(seen == labels.cpu())}
    found |= {"confidence": mean(confidence)}
    found |= {"frechet_distance": frechet_distance(features, reference.features, name)}
    # As many real images as samples, as in the papers: the values depend on both numbers.
    found |= {
        key: mean(values) for key, values in near_each_other(features, reference.features[: len(features)]).items()
    }
    found |= {"classes": bootstrap(lambda index: effective_classes(seen[index]), len(seen))}
    found |= {"copies": mean(nearest_distance(images, reference.train) < reference.near)}
    return found


def frechet_distance(features: Tensor, reference: Tensor, name: str = "this", resamples: int = RESAMPLES) -> Estimate:
    """Fréchet distance of two sets of features, (N, D) and (M, D). Raises UsageError unless both exceed D."""
    from torchmetrics.image.fid import FrechetInceptionDistance  # seconds to import

    n, dim = features.shape
    if min(n, len(reference)) <= dim:
        raise UsageError(
            f"{name}: {min(n, len(reference))} images are too few for a covariance of {dim} features: "
            f"{dim + 1} are needed, and some hundreds for a steady number"
        )
    distance = FrechetInceptionDistance(feature=_Features(dim), reset_real_features=False)
    distance.update(reference.double().cpu(), real=True)

    def statistic(index: Tensor) -> float:
        distance.reset()
        distance.update(features[index].double().cpu(), real=False)
        return max(0.0, distance.compute().item())  # equal sets can give -1e-12

    value, low, high = bootstrap(statistic, n, resamples)
    return Estimate(value, max(0.0, low), high)


class _Features(nn.Module):
    """The feature extractor that torchmetrics asks for, where the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def near_each_other(fake: Tensor, real: Tensor, k: int = NEIGHBOURS) -> dict[str, Tensor]:
    """Precision, recall, density and coverage of features fake (N, D) and real (M, D), before the average.

    One value per sample for precision and density (N,), one per real image for recall and coverage (M,).
    """
    reach_real, reach_fake = _kth_distance(real, k), _kth_distance(fake, k)  # (M,), (N,)
    between = _distances(fake, real)  # (N, M)
    in_real = between < reach_real  # the sample lies within the reach of the real image
    return {
        "precision": in_real.any(dim=1).double(),
        "recall": (between < reach_fake[:, None]).any(dim=0).double(),
        "density": in_real.double().sum(dim=1) / k,
        "coverage": in_real.any(dim=0).double(),
    }


def _kth_distance(features: Tensor, k: int) -> Tensor:
    """The distance of each row to its k-th neighbour; the row itself is its 0-th."""
    if len(features) <= k:
        raise ValueError(f"{len(features)} rows have no {k} neighbours each")
    return _distances(features, features).kthvalue(k + 1, dim=1).values


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # By differences: from products, the distance there is not quite the distance back, nor that of equal rows 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def effective_classes(seen: Tensor) -> float:
    """exp of the entropy of the classes (N,): 10 if ten are equally frequent, 1 if there is one only."""
    share = seen.bincount().double() / len(seen)
    return math.exp(torch.special.entr(share).sum().item())


@torch.inference_mode()
def nearest_distance(images: Tensor, train: Tensor) -> Tensor:
    """The distance of each image, in [0, 1], to the nearest of train (M, C, H, W) uint8: root mean square per pixel."""
    x = images.flatten(1)
    nearest = torch.full((len(x),), math.inf, device=x.device)
    for chunk in train.split(5000):
        y = chunk.flatten(1).to(x.device).float().div_(255)
        nearest = torch.minimum(nearest, torch.cdist(x, y).min(dim=1).values)
    return nearest / x.shape[1] ** 0.5


# -- a VAE -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def measure_vae(vae: ConvVAE, images: Tensor, train: Tensor) -> dict[str, Estimate]:
    """Reconstructions and the ELBO of a VAE on test images; `train`, training images, give the decoder's variance.

    reconstruction_error, reconstruction_bce   of the decoded posterior mean: squared per pixel; cross-entropy per image
    kl                                         KL(q(z | x) || N(0, I)), in nats per image
    elbo_bernoulli, elbo_gaussian              E_q[log p(x | z)] - KL with one z per image, in nats per image
    bits_bernoulli, bits_gaussian              - ELBO in bits per pixel
    active_units                               how many of the latents tell of the image, Burda et al. 2016
    sigma                                      that of the Gaussian

    An ELBO is that of a likelihood, and neither loss of training is one. Bernoulli: the pixel is the probability of a
    white one, so the bound is for binary images drawn from the grey ones. Gaussian: one sigma for all pixels, the
    error on training images, of which the bins of 256 grey values get their parts, Ho et al. 2020 eq. 13.
    """
    sigma = _reconstructed(vae, train)[0].mean().sqrt().item()
    error, bce = _reconstructed(vae, images)
    kl, bernoulli, gaussian, mus = [], [], [], []
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        for x in images.split(CHUNK):
            mu, logvar = vae.encode(x)
            recon = vae.decode(vae.reparameterize(mu, logvar))
            mus.append(mu)
            kl.append(kl_divergence(mu, logvar))
            bernoulli.append(-_bce(recon, x))
            gaussian.append(discretised_gaussian(x, recon, sigma).flatten(1).sum(dim=1))
    kl_term, pixels = torch.cat(kl).cpu().double(), images[0].numel()
    elbos = {"bernoulli": torch.cat(bernoulli).cpu() - kl_term, "gaussian": torch.cat(gaussian).cpu() - kl_term}
    active = float((torch.cat(mus).var(dim=0) > ACTIVE).sum())
    return {
        "reconstruction_error": mean(error),
        "reconstruction_bce": mean(bce),
        "kl": mean(kl_term),
        **{f"elbo_{name}": mean(elbo) for name, elbo in elbos.items()},
        **{f"bits_{name}": mean(-elbo / (pixels * math.log(2))) for name, elbo in elbos.items()},
        "active_units": Estimate(active, active, active),
        "sigma": Estimate(sigma, sigma, sigma),
    }


def _reconstructed(vae: ConvVAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """Per image (N,): squared error per pixel, and cross-entropy in nats, of the decoded posterior mean."""
    recons = [vae.decode(vae.encode(x)[0]) for x in images.split(CHUNK)]
    pairs = list(zip(recons, images.split(CHUNK), strict=True))
    errors = [(recon - x).square().flatten(1).mean(dim=1) for recon, x in pairs]
    return torch.cat(errors), torch.cat([_bce(recon, x) for recon, x in pairs])


def _bce(recon: Tensor, x: Tensor) -> Tensor:
    return F.binary_cross_entropy(recon, x, reduction="none").flatten(1).sum(dim=1)


def discretised_gaussian(x: Tensor, mean: Tensor, sigma: float, levels: int = 256) -> Tensor:
    """log of the part of N(mean, sigma²) in the bin of each pixel x in [0, 1]; the outer bins are open."""
    half = 0.5 / (levels - 1)
    low, high = (x - half - mean) / sigma, (x + half - mean) / sigma
    low, high = low.masked_fill(x < half, -math.inf), high.masked_fill(x > 1 - half, math.inf)
    # Φ(high) - Φ(low) from the tail that keeps its digits: both ends negative.
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(log_low - log_high))


# -- a CLIP ------------------------------------------------------------------------------------------------


def clip_accuracy(clip: SimpleCLIP, images: Tensor, labels: Tensor) -> Estimate:
    """The fraction of images that CLIP recognises as their label, zero-shot."""
    return mean(recognised(clip, images, labels))
