"""Models that are trained already: the VAE and the CLIP that later scripts build on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from HW3.clip import SimpleCLIP
from HW3.plumbing.checkpoints import TRAINED_BY, load_checkpoint, restore
from HW3.plumbing.errors import UsageError
from HW3.vae import ConvVAE

Model = TypeVar("Model", bound=nn.Module)


def load_vae(path: Path, device: torch.device | str, dataset: str) -> ConvVAE:
    """The VAE of a `train_vae.py` checkpoint, in eval mode. Raises UsageError if it knows another dataset."""
    return _load(ConvVAE, "vae", path, device, dataset)


def load_clip(path: Path, device: torch.device | str, dataset: str) -> SimpleCLIP:
    """The CLIP of a `train_clip.py` checkpoint, in eval mode. Raises UsageError if it knows another dataset."""
    return _load(SimpleCLIP, "clip", path, device, dataset)


def _load(cls: type[Model], kind: str, path: Path, device: torch.device | str, dataset: str) -> Model:
    checkpoint = load_checkpoint(path, kind, device)
    check_dataset(checkpoint, dataset, path)
    return restored(cls(**checkpoint["config"]), checkpoint["ema"], path, device)


def check_dataset(checkpoint: dict[str, Any], dataset: str, path: Path) -> None:
    """Raise UsageError for a checkpoint that knows another dataset."""
    found = checkpoint["args"]["dataset"]
    if found != dataset:
        script = TRAINED_BY[checkpoint["kind"]]
        raise UsageError(f"{path} was trained on {found}: give --dataset {found}, or run {script} --dataset {dataset}")


def embed(model: nn.Module, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """A frozen model as part of another model's checkpoint, which then needs no second file.

    config: the plain values that rebuild it; those of this package's own models are known.
    """
    if config is None:
        names = {ConvVAE: ("latent_dim",), SimpleCLIP: ("embed_dim",)}[type(model)]
        config = {name: getattr(model, name) for name in names}
    return {
        "config": config,
        "weights": {key: value.detach().cpu() for key, value in model.state_dict().items()},
    }


def unembed(cls: type[Model], part: dict[str, Any], path: Path, device: torch.device | str) -> Model:
    """The frozen model that `embed` stored in the checkpoint at `path`."""
    return restored(cls(**part["config"]), part["weights"], path, device)


def restored(model: Model, weights: dict[str, torch.Tensor], path: Path, device: torch.device | str) -> Model:
    """The model with the weights that the checkpoint at `path` has, in eval mode and without gradients."""
    model = model.to(device)
    restore(model, weights, path)
    return model.eval().requires_grad_(False)
