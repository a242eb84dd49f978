"""Datasets: what is read, how it is resized, and what is said of broken files."""

import os
import struct
from pathlib import Path

import pytest
import torch
from torchvision import datasets
from torchvision.transforms import v2

from HW3.data import load_dataset, resize_uint8
from HW3.plumbing.errors import UserError

REAL_DATA = os.environ.get("HW3_DATA_DIR")  # read before the fixture that hides it from all other tests

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def write_mnist(raw: Path, n: int = 20) -> torch.Tensor:
    """A small MNIST in torchvision's layout; returns its training images."""
    write_idx(raw, 10, "t10k")
    return write_idx(raw, n, "train")


def write_idx(raw: Path, n: int, part: str) -> torch.Tensor:
    raw.mkdir(parents=True, exist_ok=True)
    images = torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8)
    labels = torch.arange(n, dtype=torch.uint8) % 10
    (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, n, 28, 28) + images.numpy().tobytes())
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, n) + labels.numpy().tobytes())
    return images


def test_digits_need_no_files(tmp_path):
    train, test = load_dataset("digits", tmp_path / "nowhere"), load_dataset("digits", train=False)
    assert len(train) + len(test) == 1797
    assert train.images.shape[1:] == (1, 32, 32)
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.int64
    assert train.labels.unique().tolist() == test.labels.unique().tolist() == list(range(10))
    assert train.images.max() > 250
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("layout", ["MNIST/raw", "raw"])
def test_both_layouts_are_read(tmp_path, layout):
    images = write_mnist(tmp_path / layout)
    data = load_dataset("mnist", tmp_path, image_size=28)
    assert torch.equal(data.images[:, 0], images)
    assert data.labels[:11].tolist() == [*range(10), 0]
    assert load_dataset("mnist", tmp_path, limit=3).images.shape == (3, 1, 32, 32)


def test_fashion_mnist_has_its_own_folder_and_names(tmp_path):
    write_mnist(tmp_path / "FashionMNIST/raw")
    assert load_dataset("fashion_mnist", tmp_path).class_names[0] == "T-shirt/top"


FIRST = {"mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "fashion_mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]}


def write_raw_of(name: str, raw: Path) -> None:
    """Files that say whose they are, by the first labels of the real ones."""
    write_mnist(raw, n=10)
    labels = raw / LABELS
    labels.write_bytes(labels.read_bytes()[:8] + bytes(FIRST[name]))


@pytest.fixture
def offline(monkeypatch):
    def refuse(self):
        raise RuntimeError("offline")

    monkeypatch.setattr(datasets.MNIST, "download", refuse)  # Fashion-MNIST inherits it


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("asked", "there"), [("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")])
def test_a_raw_folder_is_read_as_nothing_but_what_it_holds(tmp_path, asked, there):
    write_raw_of(there, tmp_path / "raw")
    assert load_dataset(there, tmp_path).labels.tolist() == FIRST[there]
    with pytest.raises(UserError, match="could not be downloaded"):
        load_dataset(asked, tmp_path)


@pytest.mark.usefixtures("offline")
def test_a_raw_folder_that_says_nothing_is_what_the_folder_around_it_is_called(tmp_path):
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    load_dataset("fashion_mnist", tmp_path / "FashionMNIST")
    with pytest.raises(UserError, match="could not be downloaded"):
        load_dataset("mnist", tmp_path / "FashionMNIST")
    write_mnist(tmp_path / "other" / "raw")
    load_dataset("mnist", tmp_path / "other")
    with pytest.raises(UserError, match="could not be downloaded"):
        load_dataset("fashion_mnist", tmp_path / "other")


@pytest.mark.parametrize("size", [32, 64, 20])
def test_resize_is_torchvisions(size):
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    theirs = v2.functional.resize(images, [size, size], antialias=True)
    difference = resize_uint8(images, size).int() - theirs.int()
    # On CPUs without AVX2 torchvision computes in float and we in integers, which round differently.
    assert difference.abs().max() <= 1
    assert (difference == 0).float().mean() > 0.75


def test_unknown_dataset():
    with pytest.raises(ValueError, match=r"'mnits'.*mnist, fashion_mnist, digits"):
        load_dataset("mnits")


def test_batches_are_floats_in_the_unit_interval():
    data = load_dataset("digits", limit=9)
    x, labels = data.batch(torch.tensor([8, 0]))
    assert x.dtype == torch.float32
    assert x.min() == 0
    assert x.max() <= 1
    assert torch.equal(x[1], data.images[0].float() / 255)
    assert torch.equal(labels, data.labels[[8, 0]])


def test_split_is_seeded_disjoint_and_complete():
    data = load_dataset("digits", limit=50)
    train, val = data.split(0.2, seed=1)
    assert (len(train), len(val)) == (40, 10)
    both = torch.cat([train.images, val.images]).flatten(1)
    assert torch.equal(both.unique(dim=0), data.images.flatten(1).unique(dim=0))
    assert torch.equal(data.split(0.2, seed=1)[1].images, val.images)
    assert not torch.equal(data.split(0.2, seed=2)[1].images, val.images)
    assert len(data.limit(2).split(0.01, seed=0)[1]) == 1
    for fraction, n in ((0.0, 50), (1.0, 50), (0.5, 1)):
        with pytest.raises(ValueError, match="cannot hold out"):
            data.limit(n).split(fraction, seed=0)


# -- broken files --------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>" * 50)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize("damage", [truncate, empty, overwrite, grow])
@pytest.mark.parametrize("file", [IMAGES, LABELS])
def test_a_broken_file_is_named(tmp_path, damage, file):
    write_mnist(tmp_path / "raw", n=200)
    damage(tmp_path / "raw" / file)
    with pytest.raises(UserError, match=f"{file} is (truncated|corrupt)") as error:
        load_dataset("mnist", tmp_path)
    assert "\n" not in str(error.value)


def test_files_that_do_not_belong_together(tmp_path):
    write_mnist(tmp_path / "raw", n=20)
    labels = (tmp_path / "raw" / LABELS).read_bytes()
    write_mnist(tmp_path / "raw", n=30)
    (tmp_path / "raw" / LABELS).write_bytes(labels)
    with pytest.raises(UserError, match=r"30 images but .* 20 labels"):
        load_dataset("mnist", tmp_path)


def test_a_failed_download_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch):
    def fail(self):
        os.makedirs(self.raw_folder)
        (Path(self.raw_folder) / "half").write_bytes(b"x")
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried https://...")

    monkeypatch.setattr(datasets.MNIST, "download", fail)
    with pytest.raises(UserError) as error:
        load_dataset("mnist", tmp_path / "new" / "data")
    message = str(error.value)
    assert "\n" not in message
    for part in (IMAGES, LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "--dataset digits", "MNIST/raw"):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_a_download_lands_whole(tmp_path, monkeypatch):
    def succeed(self):
        for part in ("train", "t10k"):
            write_idx(Path(self.raw_folder), 5, part)
        (Path(self.raw_folder) / "train-images-idx3-ubyte.gz").write_bytes(b"x")

    monkeypatch.setattr(datasets.MNIST, "download", succeed)
    load_dataset("mnist", tmp_path / "data")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [
        f"data/MNIST/raw/{part}-{kind}-ubyte" for part in ("t10k", "train") for kind in ("images-idx3", "labels-idx1")
    ]


@pytest.mark.skipif(REAL_DATA is None, reason="HW3_DATA_DIR names no folder with real MNIST")
def test_real_mnist():
    data = load_dataset("mnist", REAL_DATA)
    assert data.images.shape == (60_000, 1, 32, 32)
    assert data.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert len(load_dataset("mnist", REAL_DATA, train=False)) == 10_000
