"""`samples.npz` as a stranger wrote it: two arrays of plain numbers, or the reason why it is not read.

numpy would unpack a member of any size before it looks at it, and evaluates the header of an array as Python. So the
zip is read as all zips of the intake are, sizes are compared before anything is unpacked, and headers are short.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
import zipfile
from dataclasses import dataclass
from functools import partial

import numpy as np

from grading.hidden.intake.untrusted import Refused, member_entry, parts_of, shown_name, zip_directory

SIZE, CLASSES = 32, 10
MAX_IMAGES = 10_000
MAX_MEMBERS = 20  # sample.py writes two arrays
MAX_DIRECTORY_BYTES = 1 << 16
MAX_AXES = 4
MAX_HEADER = 1_000  # bytes of an array's header; sample.py's are below 200
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

# What numpy lets through from headers that are none, on one Python or another.
_NOT_A_HEADER = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError, tokenize.TokenError),
    *(RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Drawn:
    """What a student drew: `images` (N, 32, 32) uint8, and the `labels` (N,) int64 that were asked for."""

    images: np.ndarray
    labels: np.ndarray


def read_samples(content: bytes) -> Drawn:
    """The arrays of a file. Raises Refused, as the end of a sentence that begins with its name."""
    try:
        members = zip_directory(io.BytesIO(content), MAX_DIRECTORY_BYTES, MAX_MEMBERS)
    except Refused as refusal:
        raise Refused(f"{refusal}; sample.py writes such files") from None
    images = _images(_array(content, members, "images", SIZE * SIZE))
    return Drawn(images, _labels(_array(content, members, "labels", 8), len(images)))


def _array(content: bytes, members: list[zipfile.ZipInfo], name: str, bytes_each: int) -> np.ndarray:
    """An array of the zip, of whatever plain numbers. Raises Refused."""
    found = [member for member in members if member.filename == f"{name}.npy"]
    if len(found) != 1:
        many = "more than one array" if found else "no array"
        raise Refused(f"has {many} `{name}`: write one, as sample.py does")
    [member] = found
    limit = MAX_IMAGES * bytes_each + MAX_HEADER
    if member.file_size > limit:
        most = f"at most {MAX_IMAGES:,} images of {SIZE} x {SIZE} uint8, and their labels, are read"
        raise Refused(f"has `{name}` of {member.file_size:,} bytes: {most}")
    try:
        unpacked = member_entry(member, partial(io.BytesIO, content), parts_of(member.filename)).read(limit)
    except Refused as refusal:
        raise Refused(f"has `{name}`, which {refusal}") from None
    file = io.BytesIO(unpacked)
    shape, fortran, dtype = _header(file, name)
    if dtype.kind not in "buif":
        raise Refused(f"has `{name}` of type {shown_name(str(dtype))}: write plain numbers")
    count = math.prod(shape)
    data = unpacked[file.tell() :]
    is_possible = len(shape) <= MAX_AXES and min(shape, default=0) >= 0 and max(shape, default=0) <= limit
    if not is_possible or len(data) != count * dtype.itemsize:
        raise Refused(f"has `{name}`, which is damaged: its size is not what its header says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _header(file: io.BytesIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd and can be read
            read = _HEADERS[np.lib.format.read_magic(file)]
            return read(file, max_header_size=MAX_HEADER)
    except _NOT_A_HEADER:
        raise Refused(f"has `{name}`, which is no array of numpy") from None


def _images(images: np.ndarray) -> np.ndarray:
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    shape = shown_name(" x ".join(map(str, images.shape)))
    if images.ndim != 3 or images.shape[1:] != (SIZE, SIZE):
        raise Refused(f"has images of shape {shape}, and N x {SIZE} x {SIZE} is needed, in grey")
    if images.dtype != np.uint8:
        broken = " that are not all finite" if images.dtype.kind == "f" and not np.isfinite(images).all() else ""
        raise Refused(f"has pixels of type {images.dtype}{broken}: write uint8, as sample.py does")
    if len(images) == 0:
        raise Refused("is empty: draw some images first")
    if len(images) > MAX_IMAGES:
        raise Refused(f"has {len(images):,} images: at most {MAX_IMAGES:,} are read")
    if images.max() <= 1:
        raise Refused("has no pixel above 1, and uint8 goes from 0 to 255: multiply by 255")
    return images.copy()  # writable, in the usual order of axes


def _labels(labels: np.ndarray, n: int) -> np.ndarray:
    if labels.shape != (n,):
        shape = shown_name(" x ".join(map(str, labels.shape))) or "none"
        raise Refused(f"has labels of shape {shape}: write {n}, one per image")
    if labels.dtype.kind != "i" or labels.dtype.itemsize not in (4, 8):
        raise Refused(f"has labels of type {labels.dtype}: write int64, as sample.py does")
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise Refused(f"has labels from {labels.min()} to {labels.max()}: labels are 0 to {CLASSES - 1}")
    return labels.astype(np.int64)
