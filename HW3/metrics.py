"""How good is it: label accuracy, Fréchet distance, reconstruction error. Images are in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from HW3.clip import SimpleCLIP
    from HW3.vae import ConvVAE


@torch.inference_mode()
def label_accuracy(clip: SimpleCLIP, images: Tensor, labels: Tensor) -> float:
    """The fraction of images that CLIP recognises as their label."""
    predicted = torch.cat([clip.predict(chunk) for chunk in images.split(500)])
    return (predicted == labels).float().mean().item()


@torch.inference_mode()
def reconstruction_error(vae: ConvVAE, images: Tensor) -> float:
    """Squared error per pixel of the decoded posterior mean."""
    errors = [(vae.decode(vae.encode(chunk)[0]) - chunk).square().sum() for chunk in images.split(500)]
    return (torch.stack(errors).sum() / images.numel()).item()


@torch.inference_mode()
def frechet_distance(clip: SimpleCLIP, images: Tensor, reference: Tensor) -> float:
    """Fréchet distance between the CLIP embeddings of two sets of images, Heusel et al. 2017 eq. 6.

    FID with a network that knows these images instead of Inception, so that its values compare only among
    themselves. 0 is best; it needs several hundred images on both sides.
    """
    mean, cov = _moments(clip, images)
    mean_ref, cov_ref = _moments(clip, reference)
    # Tr (C C')^½ is the sum of the roots of the eigenvalues of C C', which are real and not negative.
    root_trace = torch.linalg.eigvals(cov @ cov_ref).real.clamp(min=0).sqrt().sum()
    return ((mean - mean_ref).square().sum() + cov.trace() + cov_ref.trace() - 2 * root_trace).item()


def _moments(clip: SimpleCLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    features = torch.cat([clip.image_encoder(chunk) for chunk in images.split(500)])
    features = features.cpu().double()  # Apple's GPUs have no float64
    return features.mean(dim=0), features.T.cov()
