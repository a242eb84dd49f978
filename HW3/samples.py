"""Pictures that were drawn before: a file as `sample.py` writes it, or a folder of pictures made elsewhere."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from HW3.clip import NUM_CLASSES
from HW3.plumbing.errors import UsageError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class Samples:
    """`images` (N, 1, 32, 32) float32 in [0, 1]; `labels` (N,) that were asked for, or None."""

    images: Tensor
    labels: Tensor | None = None


def load_samples(path: Path, size: int = 32) -> Samples:
    """Read a .npz or a folder. Raises UsageError, which names what is wrong, unless it is grey images of that size.

    .npz: `images` (N, H, W) or (N, H, W, 1), uint8 or floating-point in [0, 1]; `labels` (N,) if there are any.
    A folder: pictures, or one folder of them per label, named 0 to 9.
    """
    arrays = _read_folder(path) if path.is_dir() else _read_npz(path)
    images = _checked_images(arrays["images"], path, size)
    labels = _checked_labels(arrays["labels"], len(images), path) if "labels" in arrays else None
    return Samples(images, labels)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UsageError(f"there is no {path}: make it with sample.py, or name a folder of pictures")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if name in ("images", "labels")} | {
                "images": arrays["images"]
            }
    except KeyError:
        raise UsageError(f"{path} has no array `images`: write one, as sample.py does") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError):
        raise UsageError(f"{path} is not an .npz of plain arrays, or is damaged: make it with sample.py") from None


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    inner = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [file for folder in (inner or [path]) for file in _pictures(folder)]
    if not files:
        raise UsageError(
            f"{path} has no pictures ({', '.join(PICTURES)}), nor folders 0 to 9 of them: name another one"
        )
    try:
        pictures = [np.asarray(Image.open(file).convert("L")) for file in files]
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"a picture in {path} cannot be read ({error}): take it out") from None
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise UsageError(
                f"{path} has pictures of several sizes: {files[0].name} is {_size(pictures[0].shape)} "
                f"and {file.name} {_size(picture.shape)}: make them alike"
            )
    arrays = {"images": np.stack(pictures)}
    if inner:
        if not all(folder.name.isdecimal() for folder in inner):
            raise UsageError(f"{path} has folders that are no labels: name them 0 to {NUM_CLASSES - 1}, or have none")
        arrays["labels"] = np.array([int(file.parent.name) for file in files])
    return arrays


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)


def _checked_images(images: np.ndarray, path: Path, size: int) -> Tensor:
    if images.size == 0:
        raise UsageError(f"{path} is empty: draw some images first")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3 or images.shape[1:] != (size, size):
        shape = " x ".join(map(str, images.shape))
        raise UsageError(f"{path} has images of shape {shape}, and N x {size} x {size} is needed, in grey: resize them")
    if images.dtype == np.uint8:
        if images.max() == 1:
            raise UsageError(f"the pixels in {path} are 0 and 1, and uint8 goes from 0 to 255: multiply them by 255")
        return torch.from_numpy(images)[:, None].float().div_(255)
    if images.dtype.kind != "f":
        raise UsageError(f"{path} has pixels of type {images.dtype}: write uint8, or floating-point in [0, 1]")
    if not np.isfinite(images).all():
        broken = int((~np.isfinite(images)).any(axis=(1, 2)).sum())
        raise UsageError(
            f"{broken} of the {len(images)} images in {path} have pixels that are not finite: draw them anew"
        )
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        raise UsageError(f"the pixels in {path} go from {low:.3g} to {high:.3g}: bring them to [0, 1], or write uint8")
    return torch.from_numpy(images)[:, None].float()


def _checked_labels(labels: np.ndarray, n: int, path: Path) -> Tensor:
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise UsageError(f"{path} has labels {labels.shape} of type {labels.dtype}: write {n} integers, one per image")
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        raise UsageError(f"{path} has labels from {labels.min()} to {labels.max()}: labels are 0 to {NUM_CLASSES - 1}")
    if (labels == labels[0]).all():
        raise UsageError(
            f"{path} holds one class only ({labels[0]}), and cannot be compared with images of all: draw all classes"
        )
    return torch.from_numpy(labels.astype(np.int64))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
