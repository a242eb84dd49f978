"""What two networks that play against each other need: their losses, and that a step of one leaves the other alone.

Goodfellow et al. 2014, "Generative Adversarial Nets". Discriminators give logits, never probabilities: a sigmoid before
a loss on logits would keep it above 1 however well they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from extensions.blocks.residual import group_norm
from HW3.plumbing.errors import UsageError
from HW3.plumbing.parallel import World

LEAK = 0.2  # of LeakyReLU


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy of real (B,) against fake (B,): 0 where they are told apart for sure, 2 log 2 at chance."""
    # -log D(x) - log(1 - D(G(z))); autocast may hand over bf16
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D(G(z)), section 3: its gradient does not vanish where the discriminator is sure. log 2 at chance."""
    return F.softplus(-fake_logits.float()).mean()


def conv_discriminator(image_size: int, channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Images (B, C, S, S) -> one logit each, (B,): a convolution for each width, which halves the sides.

    Radford et al. 2016, with GroupNorm for their BatchNorm, whose statistics would mix real images with drawn ones, and
    be those of one process's share of a batch. Raises UsageError for a size that cannot be halved so often.
    """
    times = 2 ** len(widths)
    if image_size % times:
        raise UsageError(f"{len(widths)} widths of a discriminator need images that {times} divides, not {image_size}")
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
    for above, below in pairwise(widths):
        layers += [nn.Conv2d(above, below, 4, stride=2, padding=1), group_norm(below), nn.LeakyReLU(LEAK)]
    layers += [nn.Flatten(), nn.Linear(widths[-1] * (image_size // times) ** 2, 1)]
    return nn.Sequential(*layers, nn.Flatten(0))  # (B, 1) -> (B,), also for a batch of one


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Gradients flow through this model and not into its weights."""
    model.requires_grad_(False)
    try:
        yield
    finally:
        model.requires_grad_(True)


def average_gradients(model: nn.Module, world: World) -> None:
    """What DDP does, for a model that is called in parts: each gradient becomes the mean of all processes'."""
    if world.size > 1:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = world.sum(parameter.grad) / world.size


class Optimizers:
    """Several optimisers as the one that a `Run` keeps in its checkpoints."""

    def __init__(self, **optimizers: Optimizer) -> None:
        self._optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of all of them."""
        return [group for optimizer in self._optimizers.values() for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Name -> state."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])
