"""Cats and dogs of CIFAR-10: 10,000 pictures of 32 x 32 to train on and 2,000 to test.

DATA_DIR/cifar-10-batches-py                             as torchvision keeps CIFAR-10
DATA_DIR/cifar10_catdog/{train,test}/{cat,dog}/*.jpg     the same pictures, or others, as files
data.folder                                              another folder of {train,test}/CLASS/image
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from extensions.blocks.images import Images, read_folder
from extensions.catdog.standin import standin
from extensions.catdog.track import Track
from HW3.data import ImageSet, resize_uint8
from HW3.plumbing.errors import UserError

SOURCES = ("auto", "cifar10", "folder", "standin")
CLASS_NAMES = ("cat", "dog")
CIFAR10 = "cifar-10-batches-py"
FOLDER = "cifar10_catdog"


def load(settings: SimpleNamespace, data_dir: Path, seed: int) -> Images:
    """The pictures that the section `data` asks for. Raises UserError where they are not there, or broken.

    With source auto: CIFAR-10 in either layout, where there is one in data_dir, and the stand-in elsewhere.
    """
    source, folder = settings.source, Path(settings.folder) if settings.folder else data_dir / FOLDER
    if source == "auto":
        found = {"folder": settings.folder or folder.is_dir(), "cifar10": (data_dir / CIFAR10).is_dir()}
        source = next((name for name, is_there in found.items() if is_there), "standin")
    size = settings.image_size
    if source == "cifar10":
        train, test = (read_cifar10(data_dir, size, train=part) for part in (True, False))
    elif source == "folder":
        train, test = (read_folder(folder / part, size, "RGB") for part in ("train", "test"))
        if train.class_names != test.class_names:
            raise UserError(
                f"{folder} has other classes in train ({', '.join(train.class_names)}) than in test "
                f"({', '.join(test.class_names)}): both need a folder for each class"
            )
    else:
        num = settings.standin_images
        train, test = (standin(n, size, CLASS_NAMES, seed) for n, seed in ((num, 0), (max(2, num // 5), 1)))
    train, val = train.split(settings.validation, seed)
    return Images(train, val, test, source)


def read_cifar10(root: Path, size: int, *, train: bool) -> ImageSet:
    """The cats and dogs of torchvision's CIFAR-10 in root/cifar-10-batches-py; nothing is downloaded."""
    from torchvision.datasets import CIFAR10 as Cifar10  # a second to import, and only this source needs it

    try:
        found = Cifar10(str(root), train=train, download=False)
    except RuntimeError:  # files that are missing or whose checksums are others
        raise UserError(
            f"{root / CIFAR10} is not there, or not complete: unpack cifar-10-python.tar.gz in {root}, name its folder "
            "with --data-dir, or take the stand-in with --set data.source=standin"
        ) from None
    targets = torch.tensor(found.targets)
    labels = torch.full_like(targets, -1)
    for label, name in enumerate(CLASS_NAMES):
        labels[targets == found.class_to_idx[name]] = label
    pixels = torch.from_numpy(np.ascontiguousarray(found.data[labels.numpy() >= 0])).movedim(3, 1)  # (N, 3, 32, 32)
    everything = ImageSet(pixels.contiguous(), labels[labels >= 0], CLASS_NAMES)
    return replace(everything, images=resize_uint8(everything.images, size))


TRACK = Track("catdog", Path(__file__).parent, SOURCES, load)
