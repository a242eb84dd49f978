"""The one checkpoint writer and reader. A checkpoint holds tensors and plain values only.

Keys: `format`, `kind` ("vae", "diffusion", "latent_diffusion", "clip", "tiny_sd"), `config` (what rebuilds
the model), `ema` (its averaged weights, which are those to use), `extra` (other tensors that sampling needs), and,
to resume, `model`, `args`, `position`, `optimizer`, `ema_updates`, `random`, `sums`, `best`.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from HW3.plumbing.errors import UsageError, UserError
from HW3.plumbing.files import write_atomically

FORMAT = 2

TRAINED_BY = {
    "vae": "train_vae.py",
    "diffusion": "train_diffusion.py",
    "latent_diffusion": "train_latent_diffusion.py",
    "clip": "train_clip.py",
    "tiny_sd": "train_tiny_sd.py",
}


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write the checkpoint whole or not at all; a previous one stays intact until the new one is on disk."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **checkpoint}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, kind: str | None = None, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    kind: what it must hold, None for any.  Raises UsageError, which names the script that makes the right
    one, when the file is missing, is something else, or is of another kind.
    """
    script = TRAINED_BY[kind] if kind else "one of the train_*.py scripts"
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path}: make it with {script}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about foreign files; ours is the error below
            checkpoint = torch.load(path, map_location=device, weights_only=True)
            found, version = checkpoint["kind"], checkpoint["format"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, IndexError, ValueError, OSError):
        raise UsageError(
            f"{path} is not a checkpoint of this assignment, or is damaged: make it with {script}"
        ) from None
    if kind is not None and found != kind:
        raise UsageError(f"{path} holds a {found} model where a {kind} one is needed: make that with {script}")
    if version != FORMAT or found not in TRAINED_BY:
        raise UsageError(f"{path} has format {version} ({found}), this code reads {FORMAT}: train it again")
    return checkpoint


def dataset_of(paths: Sequence[Path]) -> str:
    """The data set of the first of these checkpoints that can be read. Raises UserError where none can."""
    problems = []
    for path in paths:
        try:
            return load_checkpoint(path)["args"]["dataset"]
        except UserError as error:
            problems.append(error)
    raise problems[0]


def restore(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load weights into a model; raises UsageError when they do not fit it."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().removesuffix(".")
        raise UsageError(
            f"the weights in {path} do not fit the model (train it again, if its code changed): {reason}"
        ) from None
