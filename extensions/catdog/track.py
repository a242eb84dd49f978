"""What sets a track of this family apart: everything else is the same code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from extensions.blocks.images import Images
from HW3.plumbing.checkpoints import TRAINED_BY
from HW3.plumbing.device import BF16_GAINS

STAGES = ("judge", "features", "vae", "diffusion")  # of `train`, in the order in which they need each other


@dataclass(frozen=True)
class Track:
    """name: of the command and of the folder in result.  folder: of its YAML files.  sources: of images.

    load: the settings of `data`, the data folder and the seed -> the images.
    """

    name: str
    folder: Path
    sources: tuple[str, ...]
    load: Callable[[SimpleNamespace, Path, int], Images]

    def __post_init__(self) -> None:
        for stage in STAGES:
            TRAINED_BY[self.kind(stage)] = f"python -m extensions.{self.name} train"
            if stage != "diffusion":  # of latents, by a network that is too small to gain
                for models in (BF16_GAINS["cpu"], BF16_GAINS["cuda"]):
                    models.add(self.kind(stage))

    def kind(self, stage: str) -> str:
        """What a checkpoint says it holds."""
        return f"{self.name}_{stage}"

    def doc(self, doc: str) -> str:
        """A module's text, with this track in its examples."""
        return doc.replace("extensions.catdog", f"extensions.{self.name}")
