"""Networks whose maps say what pictures have in common: a small classifier trained here, or VGG16 where it is.

Nothing is downloaded.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from extensions.blocks.residual import group_norm
from HW3.plumbing.errors import UsageError

VGG16 = "vgg16-397923af.pth"  # torchvision's name for the weights
_TO_RELU3_3: list[str | int] = [64, 64, "M", 128, 128, "M", 256, 256, 256]  # the first 16 layers of its features


class SmallClassifier(nn.Module):
    """Images (B, C, S, S) in [0, 1] -> logits (B, K). Its maps, from fine to coarse, are what `features` gives."""

    def __init__(self, classes: int = 2, channels: int = 3, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        sizes = list(pairwise((channels, *widths)))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), group_norm(b), nn.SiLU(), *_same(b))
            for a, b in sizes
        )
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images -> the map of each stage, with half the pixels of the one before."""
        maps, h = [], x * 2 - 1
        for stage in self.stages:
            h = stage(h)
            maps.append(h)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[-1].mean(dim=(2, 3)))


def _same(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, padding=1), group_norm(channels), nn.SiLU()]


class VGG16Features(nn.Module):
    """relu3_3 of torchvision's VGG16, as Johnson et al. 2016 use it. Images are (B, 3, S, S) in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.vgg import make_layers  # a second to import, and only this network needs it

        self.layers = make_layers(_TO_RELU3_3)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])  # of its training images
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def features(self, x: Tensor) -> list[Tensor]:
        """Images -> one map, (B, 256, S / 4, S / 4)."""
        return [self.layers((x - self.mean) / self.std)]


def vgg16_weights(given: str) -> Path | None:
    """The file with VGG16's weights: the one that is given, or torch.hub's copy; None where there is none."""
    if given:
        return Path(given)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / VGG16
    return cached if cached.is_file() else None


def load_vgg16(path: Path) -> VGG16Features:
    """VGG16 with the weights of a file, frozen. Raises UsageError for a file that has none."""
    wanted = f"it must be torchvision's {VGG16}; without perceptual.weights a small classifier is trained in its place"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
        net = VGG16Features()
        net.layers.load_state_dict({name: state[name] for name in net.layers.state_dict()})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}: {wanted}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, AttributeError, TypeError, ValueError):
        raise UsageError(f"{path} does not hold the weights of VGG16: {wanted}") from None
    return net.eval().requires_grad_(False)
