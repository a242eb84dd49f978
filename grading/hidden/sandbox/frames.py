"""Frames: a JSON header and raw arrays, as bytes. What both sides of the pipe speak.

    4 bytes  length of the header          8 bytes  length of the body
    header   JSON object; "arrays": [[name, dtype, shape], ...]
    body     the arrays' bytes, one after the other

Nothing is unpickled. Whoever reads a frame treats it as hostile: sizes are checked before a byte is stored, and
every array against its declared type and shape before it is made.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_HEADER = 64 * 1024
MAX_BODY = 16 * 1024 * 1024
MAX_RANK = 8

_PREFIX = struct.Struct(">IQ")
# Plain numbers only: an object array is a pickle in disguise.
_DTYPES = {"|b1", "|u1", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"}


class FrameError(Exception):
    """Bytes that are no frame, or arrays that do not fit into one."""


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """One frame. Raises FrameError for arrays of other types than plain numbers, and for frames that are too large."""
    # Before any array is copied: an expanded tensor of one number may claim any size.
    if sum(array.nbytes for array in arrays.values()) > MAX_BODY:
        raise FrameError(f"the arrays are larger than {MAX_BODY:,} bytes")
    for name, array in arrays.items():
        if array.dtype.str not in _DTYPES or array.ndim > MAX_RANK:
            raise FrameError(f"`{name}` is {array.dtype} of rank {array.ndim}")
    listing = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({**header, "arrays": listing}, allow_nan=False).encode()
    if len(head) > MAX_HEADER:
        raise FrameError(f"the header is larger than {MAX_HEADER:,} bytes")
    body = b"".join(array.tobytes() for array in arrays.values())
    return _PREFIX.pack(len(head), len(body)) + head + body


class FrameReader:
    """Puts one frame together from pieces.

    `feed` takes bytes as they come; `frame` is what they make, once it is whole; `rest` is true when more followed.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._sizes: tuple[int, int] | None = None
        self.frame: tuple[dict[str, Any], dict[str, np.ndarray]] | None = None

    @property
    def wanted(self) -> int:
        """How many bytes are missing from the frame, as far as is known; 0 when it is whole."""
        if self.frame is not None:
            return 0
        return (_PREFIX.size if self._sizes is None else _PREFIX.size + sum(self._sizes)) - len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take at most `wanted` bytes. Raises FrameError as soon as they cannot become a frame any more."""
        if len(data) > self.wanted:
            raise FrameError("more bytes than the frame has")
        self._buffer += data
        if self._sizes is None and len(self._buffer) == _PREFIX.size:
            head, body = _PREFIX.unpack(self._buffer)
            if head > MAX_HEADER or body > MAX_BODY:
                raise FrameError(f"a header of {head} and a body of {body} bytes are too large")
            self._sizes = (head, body)
        if self._sizes is not None and self.wanted == 0:
            head_end = _PREFIX.size + self._sizes[0]
            self.frame = _decode(bytes(self._buffer[_PREFIX.size : head_end]), memoryview(self._buffer)[head_end:])


def _decode(head: bytes, body: memoryview) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        header = json.loads(head)
    except (ValueError, RecursionError):
        raise FrameError("the header is no JSON") from None
    listing = header.pop("arrays", None) if isinstance(header, dict) else None
    if not isinstance(listing, list):
        raise FrameError("the header lists no arrays")
    arrays: dict[str, np.ndarray] = {}
    at = 0
    for entry in listing:
        name, dtype, shape = _entry(entry)
        size = math.prod(shape) * dtype.itemsize
        if name in arrays or size > len(body) - at:
            raise FrameError("an array is listed twice, or the body is too short for it")
        arrays[name] = _array(body[at : at + size], dtype, shape)
        at += size
    if at != len(body):
        raise FrameError("the body is longer than its arrays")
    return header, arrays


def _array(data: memoryview, dtype: np.dtype, shape: list[int]) -> np.ndarray:
    """An array that owns its memory, aligned and writable."""
    try:
        array = np.empty(shape, dtype)
    except ValueError:  # no values, and dimensions whose product overflows all the same
        raise FrameError("an array has an impossible shape") from None
    array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8) if len(data) else 0
    return array != 0 if dtype == np.bool_ else array  # a bool of 2 is neither true nor false


def _entry(entry: Any) -> tuple[str, np.dtype, list[int]]:
    """One [name, dtype, shape] of the listing, checked."""
    if not isinstance(entry, list) or len(entry) != 3:
        raise FrameError("an array is not listed as name, dtype, shape")
    name, dtype, shape = entry
    if not isinstance(name, str) or len(name) > 200 or not isinstance(dtype, str) or dtype not in _DTYPES:
        raise FrameError("an array has no proper name or dtype")
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise FrameError("an array has no proper shape")
    if not all(type(size) is int and 0 <= size <= MAX_BODY for size in shape):
        raise FrameError("an array has no proper shape")
    return name, np.dtype(dtype), shape
