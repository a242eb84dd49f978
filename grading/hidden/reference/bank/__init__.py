"""Wheats and chaffs: right and wrong ways to write each graded function, each with a name and a sentence.

Every wheat must get full marks and every chaff must lose some on its own id and none on another. The chaffs are also
the misconception bank: their hints are what a student reads when a wrong answer is recognised. A hint points at the
idea and never contains the right formula.

    @chaff("posterior", "hint ...")
    def beta_as_variance(self, x0, x_t, t):
        ...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grading.submission import Submission

# id -> (file, qualified name of the graded function)
PLACES = {
    "reparameterize": ("HW3/vae.py", "ConvVAE.reparameterize"),
    "kl": ("HW3/vae.py", "kl_divergence"),
    "q-sample": ("HW3/diffusion.py", "GaussianDiffusion.q_sample"),
    "predict-x0": ("HW3/diffusion.py", "GaussianDiffusion.predict_x0"),
    "posterior": ("HW3/diffusion.py", "GaussianDiffusion.q_posterior"),
    "ddpm-step": ("HW3/diffusion.py", "GaussianDiffusion.ddpm_step"),
    "ddim-step": ("HW3/diffusion.py", "GaussianDiffusion.ddim_step"),
    "conditioning": ("train_tiny_sd.py", "EpsMLPCond.forward"),
    "guidance": ("train_tiny_sd.py", "guided_eps"),
}


@dataclass(frozen=True)
class Entry:
    """One implementation. text: for a chaff the hint, for a wheat what is different about it."""

    id: str
    name: str
    text: str
    function: Callable[..., Any]
    is_wheat: bool

    def submission(self) -> Submission:
        """The tree's own code with this implementation in place of the graded function."""
        return Submission(replaced={PLACES[self.id]: self.function})


BANK: list[Entry] = []


def chaff(id: str, hint: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a wrong implementation."""
    return _register(id, hint, is_wheat=False)


def wheat(id: str, note: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a right one."""
    return _register(id, note, is_wheat=True)


def _register(id: str, text: str, *, is_wheat: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        assert id in PLACES, id
        assert all((entry.id, entry.name) != (id, function.__name__) for entry in BANK), (id, function.__name__)
        BANK.append(Entry(id, function.__name__, text, function, is_wheat))
        return function

    return register


def chaffs_of(id: str) -> list[Entry]:
    """The wrong implementations of one graded function."""
    return [entry for entry in BANK if entry.id == id and not entry.is_wheat]


for _module in ("conditioning", "diffusion_chaffs", "diffusion_wheats", "vae"):
    importlib.import_module(f"{__name__}.{_module}")
