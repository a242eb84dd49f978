"""Labelled pictures in three parts, and how they are read from a folder with a folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from HW3.data import ImageSet, resize_uint8
from HW3.plumbing.errors import UsageError, UserError


@dataclass(frozen=True)
class Images:
    """What models train on, what training only looks at, and what it never sees. (N, C, S, S)."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    source: str

    @property
    def image_size(self) -> int:
        return self.train.images.shape[-1]

    def origin(self) -> dict[str, Any]:
        """What a checkpoint remembers of the images that its model was made for."""
        return {
            "source": self.source,
            "image_size": self.image_size,
            "class_names": list(self.train.class_names),
            # The first test images say which set it is, and the count how it was divided.
            "fingerprint": crc32(self.test.images[:1000].contiguous().numpy().tobytes(), len(self.test)),
        }

    def check_origin(self, origin: dict[str, Any], path: Path) -> None:
        """Raise UsageError unless the model at `path`, made for the images of this origin, was made for these."""
        if origin != self.origin():
            raise UsageError(
                f"{path} was trained on other images ({origin['source']}, {origin['image_size']} pixels): "
                "repeat its data settings and --data-dir, or train anew"
            )


def read_folder(folder: Path, size: int, mode: str = "L") -> ImageSet:
    """FOLDER/CLASS/image.png and the like, cropped to a square and resized. Raises UserError.

    mode: Pillow's name of what pixels are, "L" for grey and "RGB" for colours.
    """
    from torchvision.datasets import ImageFolder  # a second to import, and only this source needs it

    layout = "put the images of each class into a folder of its own, FOLDER/CLASS/image.png"
    if folder == Path() or not folder.is_dir():
        raise UserError(f"data.folder: there is no folder {str(folder)!r}: {layout}")
    try:
        found = ImageFolder(str(folder), loader=lambda path: read_image(Path(path), size, mode))
    except FileNotFoundError as error:  # no class, or a class without images
        raise UserError(f"{folder}: {str(error).splitlines()[0]} {layout}") from None
    if len(found.classes) < 2:
        raise UserError(f"{folder} has one class only, {found.classes[0]}, and two are needed: {layout}")
    images, labels = zip(*found, strict=True)
    return ImageSet(torch.stack(images), torch.tensor(labels), tuple(found.classes))


def read_image(path: Path, size: int, mode: str = "L") -> Tensor:
    """An image as (C, size, size) uint8: its largest square in the middle."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            pixels = torch.from_numpy(np.array(file.convert(mode)))
    # What Pillow raises for a broken file depends on its format and on where it breaks.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as an image ({reason}): replace it or delete it") from None
    image = pixels[None] if pixels.ndim == 2 else pixels.movedim(2, 0)  # (C, H, W)
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top : top + side, left : left + side].contiguous()  # (1, C, side, side)
    return resize_uint8(square, size)[0]
