"""The pictures of catdog in both layouts; what is wrong with them is one line."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from extensions.catdog.data import TRACK, load
from tracks import user_error

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def section(**more):
    values = {"source": "auto", "folder": "", "image_size": 32, "validation": 0.1, "standin_images": 40}
    return SimpleNamespace(**{**values, **more})


@pytest.fixture
def folder(tmp_path):
    """The layout of files: {train,test}/{cat,dog}/NNNN.jpg."""
    root = tmp_path / "cifar10_catdog"
    for part, count in (("train", 10), ("test", 4)):
        for name, value in (("cat", 60), ("dog", 180)):
            for number in range(count):
                path = root / part / name / f"{number:04d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (value, value // 2, number)).save(path)
    return root


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """torchvision's layout: pickles of 3,072 numbers a row, channel by channel; checksums are not looked at."""
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        labels = [int(k) for k in rng.integers(10, size=30)]
        rows = rng.integers(0, 256, (30, 3072)).astype(np.uint8)
        rows[:, :1024] = np.array(labels)[:, None]  # red is the label
        (root / name).write_bytes(pickle.dumps({"data": rows, "labels": labels}))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": list(NAMES)}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
    return root


def test_cifar10_as_torchvision_keeps_it(batches, tmp_path):
    images = load(section(), tmp_path, 0)
    assert images.source == "cifar10"
    assert images.train.class_names == ("cat", "dog")
    for part in (images.train, images.val, images.test):
        assert part.images.shape[1:] == (3, 32, 32)
        expected = torch.tensor([3, 5])[part.labels]  # cats are 3 there, and dogs 5
        assert (part.images[:, 0] == expected[:, None, None]).all()
    assert len(images.train) + len(images.val) > 10


def test_a_folder_of_files_in_colour(folder, tmp_path):
    images = load(section(), tmp_path, 0)
    assert (images.source, images.train.class_names) == ("folder", ("cat", "dog"))
    assert (len(images.train), len(images.val), len(images.test)) == (18, 2, 8)
    red, green = images.test.images[:, 0].float().mean(dim=(1, 2)), images.test.images[:, 1].float().mean(dim=(1, 2))
    assert (red - torch.tensor([60.0, 180.0])[images.test.labels]).abs().max() < 8
    assert (green < red).all()


def test_a_folder_that_is_named_wins(folder, batches, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere/mine")
    assert load(section(), tmp_path, 0).source == "cifar10"
    assert load(section(folder=str(moved)), tmp_path, 0).source == "folder"


def test_without_data_there_is_the_stand_in(tmp_path):
    images = load(section(image_size=64), tmp_path, 0)
    assert images.source == "standin"
    assert (len(images.train), len(images.val), len(images.test)) == (36, 4, 8)
    assert images.train.images.shape[1:] == (3, 64, 64)
    assert images.train.class_names == ("cat", "dog")
    train = {image.numpy().tobytes() for image in images.train.images}
    assert not train & {image.numpy().tobytes() for image in images.test.images}
    assert TRACK.load is load


def refused(tmp_path, *parts, **settings):
    with user_error(*parts):
        load(section(**settings), tmp_path, 0)


def test_cifar10_that_is_not_complete_is_one_line(batches, tmp_path, monkeypatch):
    monkeypatch.undo()  # checksums are looked at again
    refused(tmp_path, batches, "not complete", "cifar-10-python.tar.gz", "--set data.source=standin")
    refused(tmp_path / "none", tmp_path / "none", source="cifar10")


def test_a_folder_with_one_class_is_one_line(folder, tmp_path):
    for path in (folder / "train/dog").iterdir():
        path.rename(folder / "train/cat" / f"dog{path.name}")
    (folder / "train/dog").rmdir()
    refused(tmp_path, folder / "train", "one class only, cat")
    (folder / "train/bird").mkdir()
    (folder / "train/cat/0000.jpg").rename(folder / "train/bird/0000.jpg")
    refused(tmp_path, "other classes in train (bird, cat) than in test (cat, dog)")


def test_a_broken_picture_is_named(folder, tmp_path):
    path = folder / "test/dog/0002.jpg"
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused(tmp_path, path, "replace it or delete it")


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    refused(tmp_path, tmp_path / "nowhere", "FOLDER/CLASS/image.png", source="folder", folder=str(tmp_path / "nowhere"))
