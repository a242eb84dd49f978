"""The images of the track: HW3's data sets, or a folder of one's own with a folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from HW3.data import DATASETS, ImageSet, load_dataset, resize_uint8
from HW3.plumbing.errors import UserError

SOURCES = (*DATASETS, "folder")
HELD_OUT = 0.2  # of a folder's images


@dataclass(frozen=True)
class Images:
    """What models train on, what training only looks at, and what it never sees. Grey, (N, 1, S, S)."""

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


def load(settings: SimpleNamespace, data_dir: Path, seed: int) -> Images:
    """The images that the section `data` asks for. Raises UserError where they are not there, or broken."""
    size = settings.image_size
    if settings.source == "folder":
        everything = read_folder(Path(settings.folder), size)
        train, test = everything.split(HELD_OUT, 0)  # whatever the seed: what is held out stays so
    else:
        train, test = (load_dataset(settings.source, data_dir, train=t, image_size=size) for t in (True, False))
    train, val = train.split(settings.validation, seed)
    return Images(train, val, test, settings.source)


def read_folder(folder: Path, size: int) -> ImageSet:
    """FOLDER/CLASS/image.png and the like, in grey, cropped to a square and resized. Raises UserError."""
    from torchvision.datasets import ImageFolder  # a second to import, and only this source needs it

    layout = "put the images of each class into a folder of its own, FOLDER/CLASS/image.png"
    if folder == Path() or not folder.is_dir():
        raise UserError(f"data.folder: there is no folder {str(folder)!r}: {layout}")
    try:
        found = ImageFolder(str(folder), loader=lambda path: _read_image(Path(path), size))
    except FileNotFoundError as error:  # no class, or a class without images
        raise UserError(f"{folder}: {str(error).splitlines()[0]} {layout}") from None
    if len(found.classes) < 2:
        raise UserError(f"{folder} has one class only, {found.classes[0]}, and two are needed: {layout}")
    if len(found) < 10:
        raise UserError(f"{folder} has {len(found)} images, which is too few to hold some out: add more")
    images, labels = zip(*found, strict=True)
    return ImageSet(torch.stack(images), torch.tensor(labels), tuple(found.classes))


def _read_image(path: Path, size: int) -> Tensor:
    """An image in grey, (1, size, size) uint8: its largest square in the middle."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            grey = torch.from_numpy(np.array(file.convert("L")))
    # What Pillow raises for a broken file depends on its format and on where it breaks.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as an image ({reason}): replace it or delete it") from None
    height, width = grey.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = grey[None, None, top : top + side, left : left + side].contiguous()  # (1, 1, side, side)
    return resize_uint8(square, size)[0]
