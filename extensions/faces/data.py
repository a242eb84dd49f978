"""Faces of CelebA with one of its attributes, as torchvision keeps them: DATA_DIR/celeba. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from extensions.blocks.config import nearest
from extensions.blocks.images import Images, read_image
from extensions.catdog.standin import standin
from extensions.catdog.track import Track
from HW3.data import ImageSet
from HW3.plumbing.errors import UsageError, UserError

SOURCES = ("auto", "celeba", "standin")
TEST_SHARE = 10  # a test picture for so many training pictures


def load(settings: SimpleNamespace, data_dir: Path, seed: int) -> Images:
    """The pictures that the section `data` asks for. Raises UserError where they are not there, or broken."""
    source, size = settings.source, settings.image_size
    if source == "auto":
        source = "celeba" if (data_dir / "celeba").is_dir() else "standin"
    if source == "celeba":
        limits = {"train": settings.limit, "test": -(-settings.limit // TEST_SHARE)}
        train, test = (read_celeba(data_dir, split, settings.attribute, size, n) for split, n in limits.items())
    else:
        num, names = settings.standin_images, class_names(settings.attribute)
        train, test = (standin(n, size, names, seed) for n, seed in ((num, 0), (max(2, num // 5), 1)))
    train, val = train.split(settings.validation, seed)
    return Images(train, val, test, source)


def class_names(attribute: str) -> tuple[str, str]:
    """What faces without and with the attribute are called."""
    return f"not_{attribute.lower()}", attribute.lower()


def read_celeba(root: Path, split: str, attribute: str, size: int, limit: int) -> ImageSet:
    """The first `limit` faces of a split, resized; labels: have they the attribute?

    The pictures are aligned, 178 x 218: the largest square in their middle, of 178, has the face.
    """
    found, folder = _open(root, split), root / "celeba"
    names = [name for name in found.attr_names if name]
    if attribute not in names:
        raise UsageError(f"data.attribute: CelebA has no {attribute!r}: {nearest(attribute, names)}")
    labels = found.attr[:limit, names.index(attribute)].long()
    if len(labels.unique()) < 2:
        raise UserError(f"{folder}: all {len(labels)} {split} faces are one class for {attribute}: raise data.limit")
    files = [folder / "img_align_celeba" / name for name in found.filename[:limit]]
    return ImageSet(torch.stack([read_image(file, size, "RGB") for file in files]), labels, class_names(attribute))


def _open(root: Path, split: str) -> Any:
    """torchvision's CelebA. Raises UserError, which names what is missing, or not as it was published."""
    from torchvision.datasets import CelebA  # a second to import, and only this source needs it
    from torchvision.datasets.utils import check_integrity

    folder = root / "celeba"
    sums = {name: md5 for _, md5, name in CelebA.file_list if name.endswith(".txt")}
    missing = [name for name in sums if not (folder / name).is_file()]
    missing += [] if (folder / "img_align_celeba").is_dir() else ["img_align_celeba/"]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}: unpack CelebA's img_align_celeba.zip there and put its text files "
            "beside it, name another folder with --data-dir, or take the stand-in with --set data.source=standin"
        )
    other = [name for name, md5 in sums.items() if not check_integrity(str(folder / name), md5)]
    if other:
        raise UserError(f"{folder / other[0]} is not the file that CelebA was published with: copy a good one there")
    return CelebA(str(root), split=split, target_type="attr", download=False)


TRACK = Track("faces", Path(__file__).parent, SOURCES, load)
