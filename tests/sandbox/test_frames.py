"""Frames carry plain arrays and nothing else, whatever bytes arrive."""

from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from grading.hidden.sandbox.frames import MAX_BODY, MAX_HEADER, FrameError, FrameReader, encode

FUZZ = settings(max_examples=300, deadline=None, derandomize=True)

DTYPES = st.sampled_from(["bool", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]).map(np.dtype)
ARRAYS = st.dictionaries(
    st.text(max_size=10),
    DTYPES.flatmap(lambda d: npst.arrays(d, npst.array_shapes(min_dims=0, min_side=0))),
    max_size=4,
)


def read(data: bytes, piece: int = 1 << 20):
    reader = FrameReader()
    at = 0
    while reader.wanted and at < len(data):
        part = data[at : at + min(piece, reader.wanted)]
        reader.feed(part)
        at += len(part)
    return reader.frame, data[at:]


def frame(header: object, body: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">IQ", len(head), len(body)) + head + body


@FUZZ
@given(arrays=ARRAYS, piece=st.integers(1, 40))
def test_what_is_encoded_is_read(arrays, piece):
    (header, found), rest = read(encode({"nonce": "n"}, arrays), piece)
    assert (header, rest) == ({"nonce": "n"}, b"")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_an_error(data):
    with contextlib.suppress(FrameError):
        read(data)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["<f4", "|b1", "|O"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(listing=JSON, body=st.binary(max_size=64))
def test_any_listing_is_arrays_of_plain_numbers_or_an_error(listing, body):
    try:
        (_, arrays), _ = read(frame({"arrays": listing}, body))
    except FrameError:
        return
    assert sum(array.nbytes for array in arrays.values()) == len(body)
    assert all(array.dtype.kind in "biuf" for array in arrays.values())


@FUZZ
@given(arrays=ARRAYS, at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_never_breaks_the_reader(arrays, at, value):
    data = bytearray(encode({"nonce": "n"}, arrays))
    data[at % len(data)] = value
    with contextlib.suppress(FrameError):
        read(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">IQ", MAX_HEADER + 1, 0),
        struct.pack(">IQ", 0, MAX_BODY + 1),
        struct.pack(">IQ", 2**32 - 1, 2**64 - 1),
        frame(b"\xff\xfe"),
        frame(b"[" * 60_000),
        frame(b'{"arrays": ' + b"9" * 60_000 + b"}"),
        frame([]),
        frame({}),
        frame({"arrays": [["x", "|O", [1]]]}, b"12345678"),
        frame({"arrays": [["x", "<U4", [1]]]}, b"1" * 16),
        frame({"arrays": [["x", "<f4", [-1]]]}),
        frame({"arrays": [["x", "<f4", [True]]]}, b"1234"),
        frame({"arrays": [["x", "<f4", [1] * 9]]}, b"1234"),
        frame({"arrays": [["x", "<f4", [2]]]}, b"1234"),
        frame({"arrays": [["x", "<f4", [1]]]}, b"12345"),
        frame({"arrays": [["x", "<f4", [0, *[MAX_BODY] * 7]]]}),
        frame({"arrays": [["x", "<f4", [1]], ["x", "<f4", [1]]]}, b"12345678"),
    ],
    ids=range(17),
)
def test_refused(data):
    with pytest.raises(FrameError):
        read(data)


def test_a_bool_is_true_or_false():
    (_, arrays), _ = read(frame({"arrays": [["x", "|b1", [3]]]}, b"\x00\x01\x02"))
    assert arrays["x"].tobytes() == b"\x00\x01\x01"


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array(["text"]),
        np.zeros(2, complex),
        np.broadcast_to(np.zeros(1), (10**9,)),  # one number that claims eight gigabytes
        np.zeros((1,) * 9),
    ],
    ids=["object", "text", "complex", "huge", "rank"],
)
def test_not_encoded(array):
    with pytest.raises(FrameError):
        encode({}, {"x": array})


def test_more_than_a_frame_is_refused():
    data = encode({}, {})
    reader = FrameReader()
    with pytest.raises(FrameError):
        reader.feed(data + b"x")
