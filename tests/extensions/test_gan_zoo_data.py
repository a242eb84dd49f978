"""The track's images: HW3's data sets and folders of one's own; what is wrong with them is one line."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from extensions.gan_zoo.data import load, read_folder
from HW3.plumbing.errors import UserError
from tracks import user_error


def picture(path, value, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)


@pytest.fixture
def folder(tmp_path):
    for number in range(8):
        picture(tmp_path / "images/dark" / f"{number}.png", 10 + number)
        picture(tmp_path / "images/light" / f"{number}.jpg", 200 + number, mode="L")
    return tmp_path / "images"


def section(**more):
    return SimpleNamespace(**{"source": "digits", "folder": "", "image_size": 28, "validation": 0.1, **more})


@pytest.mark.parametrize("size", [28, 32])
def test_digits_have_the_size_that_is_asked_for_and_three_parts(size):
    images = load(section(image_size=size), "nowhere", 0)
    assert images.train.images.shape[1:] == (1, size, size)
    assert (len(images.train), len(images.val), len(images.test)) == (1294, 144, 359)


def test_a_folder_is_read_in_grey_with_a_class_for_each_folder(folder):
    found = read_folder(folder, 28)
    assert (found.images.shape, found.images.dtype) == ((16, 1, 28, 28), torch.uint8)
    assert found.class_names == ("dark", "light")
    assert found.images.flatten(1).float().mean(dim=1)[found.labels == 0].max() < 20
    assert found.images.flatten(1).float().mean(dim=1)[found.labels == 1].min() > 190


def test_the_middle_square_of_an_image_is_taken(folder):
    wide = np.zeros((30, 90), dtype=np.uint8)
    wide[:, 30:60] = 255
    Image.fromarray(wide).save(folder / "dark/0.png")
    assert read_folder(folder, 28).images[0].min() == 255


def test_what_is_held_out_of_a_folder_does_not_depend_on_the_seed(folder):
    parts = [load(section(source="folder", folder=str(folder)), "nowhere", seed) for seed in (1, 2)]
    assert torch.equal(parts[0].test.images, parts[1].test.images)
    assert parts[0].origin() == parts[1].origin()
    assert (len(parts[0].test), len(parts[0].train) + len(parts[0].val)) == (3, 13)


def refused(path, *parts):
    with user_error(*parts):
        read_folder(path, 28)


def test_folders_that_cannot_be_read_are_one_line(folder, tmp_path):
    refused(tmp_path / "none", tmp_path / "none", "FOLDER/CLASS/image.png")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "empty", "FOLDER/CLASS/image.png")
    (folder / "nothing").mkdir()
    refused(folder, "nothing", "FOLDER/CLASS/image.png")
    (folder / "nothing").rmdir()
    for path in (folder / "light").iterdir():
        path.rename(folder / "dark" / path.name)
    (folder / "light").rmdir()
    refused(folder, "one class only, dark")


@pytest.mark.parametrize("name", ["dark/3.png", "light/3.jpg"])
def test_a_broken_image_is_named(name, folder):
    path = folder / name
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused(folder, path, "replace it or delete it")


def test_fashion_mnist_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    from torchvision import datasets

    def no_network(self):
        raise OSError("no network")

    monkeypatch.setattr(datasets.MNIST, "download", no_network)
    with pytest.raises(UserError, match=r"FashionMNIST is not in .*no network.*--data-dir") as error:
        load(section(source="fashion_mnist"), tmp_path, 0)
    assert "\n" not in str(error.value)
