"""What may continue, and what may be overwritten."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from HW3.plumbing.checkpoints import TRAINED_BY, load_checkpoint
from HW3.plumbing.errors import UsageError

# Flags that a continued run may change: they decide where and how long, not what is learnt.
_WHERE_AND_HOW_LONG = {
    "resume",
    "overwrite",
    "preset",
    "quick",  # of older checkpoints
    "epochs",
    "out_dir",
    "data_dir",
    "device",
    "no_cuda",
    "num_workers",
}
_PICTURES = {
    "sample_every",
    "save_recon",
    "ddim_steps",
    "ddim_eta",
    "x0_scale",
    "guidance_scale",
    "guidance_until",
    "autoguidance",
}
_FROZEN = {"vae_ckpt", "clip_ckpt"}  # where they lie; what they hold is part of the checkpoint and compared
_FREE_FLAGS = _WHERE_AND_HOW_LONG | _PICTURES | _FROZEN


def plain_args(args: Namespace) -> dict[str, Any]:
    """The flags as a checkpoint keeps them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def check_overwrite(latest: Path, kind: str) -> None:
    """Raise UsageError when a new run would replace what an earlier one has learnt."""
    if not latest.exists():
        return
    try:
        position = load_checkpoint(latest, kind)["position"]
        what = f"holds a run of {position['epoch']} epochs and {position['steps']} steps"
    except UsageError:
        what = f"is no checkpoint that {TRAINED_BY[kind]} can continue"
    raise UsageError(
        f"{latest} {what}, and this run would replace it: "
        "--resume continues it, --overwrite starts anew, --out-dir names another folder"
    )


def load_for_resume(
    latest: Path, kind: str, device: torch.device, args: Namespace, extra: dict[str, Any]
) -> dict[str, Any]:
    """The checkpoint to continue. Raises UsageError where it was trained with other flags or other frozen models."""
    checkpoint = load_checkpoint(latest, kind, device)
    then, now = checkpoint["args"], plain_args(args)
    for name in sorted(now.keys() - _FREE_FLAGS):
        if then.get(name) != now[name]:
            raise UsageError(
                f"{latest} was trained with --{name.replace('_', '-')} {then.get(name)}, not {now[name]}: "
                "repeat the flags of its first run, or start anew with --overwrite"
            )
    for name in extra.keys() & {"vae", "clip"}:
        if not _equal(checkpoint["extra"][name], extra[name]):
            raise UsageError(
                f"{latest} was trained with another {name} than the one in --{name}-ckpt now: "
                "give that one, or start anew with --overwrite"
            )
    return checkpoint


def _equal(a: Any, b: Any) -> bool:
    """Whether two nested dicts of tensors and plain values hold the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a.cpu(), b.cpu())
    return bool(a == b)
