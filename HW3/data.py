"""Datasets as in-memory tensors: decoded and resized once, then drawn by index.

`load_dataset` returns an `ImageSet`, one uint8 tensor that fits any laptop (MNIST: 61 MB) and moves to
the training device whole. A batch is an index and a conversion, so there is nothing for workers to do.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from HW3.plumbing.errors import UserError

DATASETS = ("mnist", "fashion_mnist", "digits")

_DIGIT_NAMES = tuple(str(digit) for digit in range(10))
_FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class ImageSet:
    """Labelled images: `images` (N, C, H, W) uint8, `labels` (N,) int64, on one device."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) as float32 in [0, 1], and labels (B,), at these indices."""
        return self.images[index].float().div_(255), self.labels[index]

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def limit(self, n: int | None) -> ImageSet:
        """The first `n` images (all of them for None)."""
        return self if n is None else replace(self, images=self.images[:n], labels=self.labels[:n])

    def subset(self, n: int, seed: int = 0) -> ImageSet:
        """A seeded random choice of `n` images (all of them, in another order, where there are fewer)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:n].to(self.labels.device)
        return replace(self, images=self.images[order], labels=self.labels[order])

    def split(self, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
        """(training, validation) sets; a seeded random `fraction`, at least one image, is held out."""
        if not 0 < fraction < 1 or len(self) < 2:
            raise ValueError(f"cannot hold out {fraction} of {len(self)} images")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        n_val = min(max(1, round(fraction * len(self))), len(self) - 1)
        parts = order[n_val:].sort().values, order[:n_val].sort().values
        train, val = (replace(self, images=self.images[i], labels=self.labels[i]) for i in parts)
        return train, val


def load_dataset(
    name: str, data_dir: str | Path = "data", *, train: bool = True, image_size: int = 32, limit: int | None = None
) -> ImageSet:
    """Load a dataset, resized to `image_size`, as uint8 tensors on the CPU.

    `mnist` and `fashion_mnist` are read by torchvision from `data_dir` (`ROOT/MNIST/raw`, or `ROOT/raw` if that is
    not the other one's) and downloaded there if absent; `digits` is scikit-learn's and needs no file.
    Raises UserError when files are missing, truncated or corrupt, ValueError for an unknown name.
    """
    if name == "digits":
        images, labels = _read_digits(train)
        names = _DIGIT_NAMES
    elif name in DATASETS:
        images, labels = _read_idx_dataset(name, Path(data_dir), train)
        names = _FASHION_NAMES if name == "fashion_mnist" else _DIGIT_NAMES
    else:
        raise ValueError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    if limit is not None:  # before resizing: a small limit should be fast
        images, labels = images[:limit], labels[:limit]
    return ImageSet(resize_uint8(images, image_size), labels.long(), names)


def resize_uint8(images: Tensor, size: int) -> Tensor:
    """Antialiased bilinear resize of uint8 images (N, C, H, W) to (N, C, size, size), still uint8.

    `F.interpolate` works on uint8 directly and agrees with torchvision's `Resize`, up to rounding on some CPUs.
    """
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def _read_digits(train: bool) -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 real 8 x 8 scans; every fifth one is the test set."""
    from sklearn.datasets import load_digits  # a second to import, and only this dataset needs it

    digits = load_digits()
    images = torch.from_numpy(digits.images).div(16).mul(255).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(digits.target)
    in_test = torch.arange(len(labels)) % 5 == 4
    keep = ~in_test if train else in_test
    return images[keep], labels[keep]


# -- MNIST and Fashion-MNIST: torchvision reads and downloads, we find the folder and check the files ---


def _read_idx_dataset(name: str, root: Path, train: bool) -> tuple[Tensor, Tensor]:
    from torchvision import datasets  # a second to import, and the digits do not need it

    base = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    files = _idx_files(train)
    raw = _find_raw(root, base.__name__)
    if raw is None:
        raw = _download(base, root)
    _check_idx_pair(*(raw / file for file in files))

    # torchvision insists on ROOT/<Class>/raw; this also reads ROOT/raw
    here = type(base.__name__, (base,), {"raw_folder": str(raw)})
    dataset = here(str(root), train=train, download=False)
    return dataset.data[:, None], dataset.targets


def _idx_files(train: bool) -> tuple[str, str]:
    part = "train" if train else "t10k"
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


_ALL_FILES = (*_idx_files(True), *_idx_files(False))


def _find_raw(root: Path, class_name: str) -> Path | None:
    """The folder with all four files (torchvision wants all of them), or None."""
    own, shared = root / class_name / "raw", root / "raw"
    if _is_complete(own):
        return own
    if _is_complete(shared) and _owner(shared) == class_name:
        return shared
    return None


def _is_complete(raw: Path) -> bool:
    return all((raw / file).is_file() for file in _ALL_FILES)


# The first labels of the training sets: idx files carry no name, and both sets have files of the same names and sizes.
_FIRST_LABELS = {bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]): "MNIST", bytes([9, 0, 0, 3, 0, 2, 7, 2, 5, 5]): "FashionMNIST"}


def _owner(raw: Path) -> str:
    """Whose files lie in ROOT/raw: by their labels, else by the folder's name, else MNIST's."""
    with (raw / "train-labels-idx1-ubyte").open("rb") as file:
        file.seek(8)
        known = _FIRST_LABELS.get(file.read(10))
    named = raw.absolute().parent.name
    return known or (named if named in _FIRST_LABELS.values() else "MNIST")


def _download(base: type, root: Path) -> Path:
    """Let torchvision download into a scratch folder, and move the result into place only when complete."""
    raw = root / base.__name__ / "raw"
    files = ", ".join(_ALL_FILES)
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=existing) as scratch:
            base(scratch, download=True)
            raw.mkdir(parents=True, exist_ok=True)
            for file in (Path(scratch) / base.__name__ / "raw").iterdir():
                if not file.name.endswith(".gz"):
                    shutil.move(file, raw / file.name)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a bad checksum a RuntimeError
        raise UserError(
            f"{base.__name__} is not in {root} and could not be downloaded ({_first_line(error)}): put {files} "
            f"into {raw}, or name another folder with --data-dir, or use --dataset digits, which needs no files"
        ) from error
    return raw


def _check_idx_pair(images: Path, labels: Path) -> None:
    """Raise UserError, naming the file, unless both idx files are whole and belong together."""
    n_images = _check_idx(images, 0x0803)
    n_labels = _check_idx(labels, 0x0801)
    if n_images != n_labels:
        raise UserError(f"{images} holds {n_images} images but {labels.name} holds {n_labels} labels: {_REPLACE}")


_REPLACE = "delete it and run again to download it anew, or copy a good one there"


def _check_idx(path: Path, magic: int) -> int:
    """The number of items in an idx file of unsigned bytes (its header is big-endian 32-bit integers)."""
    n_dims = magic & 0xFF
    with path.open("rb") as file:
        header = file.read(4 * (1 + n_dims))
    if len(header) < 4 * (1 + n_dims):
        raise UserError(f"{path} is truncated ({len(header)} bytes): {_REPLACE}")
    found, *dims = struct.unpack(f">{1 + n_dims}i", header)
    if found != magic or min(dims) < 1 or (n_dims == 3 and dims[1:] != [28, 28]):
        raise UserError(f"{path} is corrupt (not an idx file of the expected kind): {_REPLACE}")
    expected = len(header) + torch.Size(dims).numel()
    if path.stat().st_size != expected:
        raise UserError(f"{path} is truncated or corrupt ({path.stat().st_size} bytes, not {expected}): {_REPLACE}")
    return dims[0]


def _first_line(error: BaseException) -> str:
    with contextlib.suppress(IndexError):
        return str(error).splitlines()[0]
    return type(error).__name__
