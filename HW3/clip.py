"""A small CLIP for images and the names of their classes: Radford et al. 2021.

The "text" is a class label; its encoder is a table of words and an MLP. Both encoders end on the unit
sphere, where the inner product is the similarity that the contrastive loss trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_CLASSES = 10


class SimpleCLIP(nn.Module):
    """`image_encoder`: (B, channels, 32, 32) in [0, 1] -> (B, E);  `text_encoder`: labels (B,) -> (B, E).

    E = embed_dim; all embeddings have length 1. `logit_scale` is the logarithm of the inverse temperature.
    """

    def __init__(self, embed_dim: int = 128, channels: int = 1) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_encoder = nn.Sequential(
            nn.Conv2d(channels, 24, 5, stride=2, padding=2),
            nn.MaxPool2d(2),  # (B, 24, 8, 8)
            nn.GroupNorm(8, 24),
            nn.ReLU(),
            nn.Conv2d(24, 64, 3, padding=1),
            nn.MaxPool2d(2),  # (B, 64, 4, 4)
            nn.GroupNorm(8, 64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 256),
            nn.ReLU(),
            nn.Linear(256, embed_dim),
            UnitLength(),
        )
        self.text_encoder = nn.Sequential(
            nn.Embedding(NUM_CLASSES, embed_dim),
            nn.Linear(embed_dim, embed_dim),
            nn.SiLU(),
            nn.Linear(embed_dim, embed_dim),
            UnitLength(),
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image embeddings (B, E), text embeddings (B, E), and the inverse temperature."""
        return self.image_encoder(images), self.text_encoder(labels), self.scale

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, (): at most 100, as in the paper."""
        return self.logit_scale.exp().clamp(max=100)

    def all_text_embeddings(self) -> Tensor:
        """The embedding of every class, (10, E)."""
        return self.text_encoder(torch.arange(NUM_CLASSES, device=self.logit_scale.device))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Zero-shot probabilities of the classes (B, 10), Radford et al. 2021 section 3.1.2."""
        return (self.scale * self.image_encoder(images) @ self.all_text_embeddings().T).softmax(dim=1)

    def predict(self, images: Tensor) -> Tensor:
        """Zero-shot labels (B,): the class whose text is most similar to each image."""
        return self.probabilities(images).argmax(dim=1)


def recognised(clip: SimpleCLIP, images: Tensor, labels: Tensor) -> Tensor:
    """Which images CLIP sees as their label, (N,)."""
    return torch.cat([clip.predict(chunk) for chunk in images.split(500)]) == labels


def label_accuracy(clip: SimpleCLIP, images: Tensor, labels: Tensor) -> float:
    """The fraction of images that CLIP sees as their label."""
    return recognised(clip, images, labels).float().mean().item()


class UnitLength(nn.Module):
    """Scale each row to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=-1)


def contrastive_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    labels: Tensor,
    scale: Tensor,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Tensor:
    """Symmetric contrastive loss with many positives, Radford et al. 2021 and Khosla et al. 2020 eq. 2.

    image_emb, text_emb: (B, E);  labels: (B,);  scale: inverse temperature.  Image i and text j are a
    positive pair when their labels are equal, and the positives of a row share its probability evenly.
    gather: turns this process's rows into those of the whole batch.  Returns the mean over these rows.
    """
    all_images, all_texts, all_labels = gather(image_emb), gather(text_emb), gather(labels)
    positive = (labels[:, None] == all_labels[None, :]).float()  # (B, whole batch)
    target = positive / positive.sum(dim=1, keepdim=True)
    image_to_text = F.cross_entropy(scale * image_emb @ all_texts.T, target)
    text_to_image = F.cross_entropy(scale * text_emb @ all_images.T, target)
    return (image_to_text + text_to_image) / 2
