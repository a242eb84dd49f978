"""The faces of CelebA as torchvision keeps them; what is wrong with them is one line."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from extensions.faces.data import TRACK, load
from tracks import user_error, write_celeba


def section(**more):
    values = {"source": "auto", "attribute": "Smiling", "limit": 100, "image_size": 64, "validation": 0.2}
    return SimpleNamespace(**{**values, "standin_images": 40, **more})


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    return write_celeba(tmp_path, monkeypatch, train=12, test=6)


def test_faces_are_read_in_their_splits_with_the_attribute_as_label(celeba, tmp_path):
    images = load(section(), tmp_path, 0)
    assert (images.source, images.train.class_names) == ("celeba", ("not_smiling", "smiling"))
    assert (len(images.train) + len(images.val), len(images.test)) == (12, 6)
    for part in (images.train, images.val, images.test):
        assert (part.images.shape[1:], part.images.dtype) == ((3, 64, 64), torch.uint8)
        # `write_celeba` paints who smiles light, and the others dark.
        light = part.images.flatten(1).float().mean(dim=1) > 100
        assert torch.equal(light.long(), part.labels)


def test_another_attribute_and_a_limit(celeba, tmp_path):
    images = load(section(attribute="Male", limit=12), tmp_path, 0)
    assert images.train.class_names == ("not_male", "male")
    assert len(images.train) + len(images.val) == 12
    assert len(images.test) == 2  # a tenth as many, and both classes


def test_the_middle_square_of_178_pixels_is_taken(celeba, tmp_path):
    """Of a picture of 178 x 218 the rows from 20 on: what is above and below is cut away, and nothing squeezed."""
    pixels = np.zeros((218, 178, 3), dtype=np.uint8)
    pixels[20:198] = 255
    for path in (celeba / "img_align_celeba").iterdir():
        Image.fromarray(pixels).save(path, format="PNG")  # exact
    images = load(section(), tmp_path, 0)
    assert images.train.images.min() == 255
    pixels[20:22] = 0
    for path in (celeba / "img_align_celeba").iterdir():
        Image.fromarray(pixels).save(path, format="PNG")
    assert (load(section(), tmp_path, 0).train.images[:, :, 0] < 200).all()


def test_without_data_there_is_the_stand_in_of_the_same_shape(tmp_path):
    images = load(section(), tmp_path, 0)
    assert (images.source, images.train.images.shape) == ("standin", (32, 3, 64, 64))
    assert images.train.class_names == ("not_smiling", "smiling")
    assert TRACK.load is load


def refused(root, *parts, **settings):
    with user_error(*parts):
        load(section(**settings), root, 0)


def test_missing_files_are_named_all_at_once(celeba, tmp_path):
    (celeba / "list_attr_celeba.txt").unlink()
    (celeba / "identity_CelebA.txt").unlink()
    refused(tmp_path, celeba, "lacks list_attr_celeba.txt, identity_CelebA.txt:", "--data-dir", "data.source=standin")
    (celeba / "img_align_celeba").rename(celeba / "images")
    refused(tmp_path, celeba, "img_align_celeba/")
    refused(tmp_path / "none", tmp_path / "none/celeba", "list_eval_partition.txt", source="celeba")


def test_a_text_file_that_was_changed_is_named(celeba, tmp_path, monkeypatch):
    with (celeba / "list_attr_celeba.txt").open("a") as file:
        file.write("\n")
    refused(tmp_path, celeba / "list_attr_celeba.txt", "is not the file that CelebA was published with")


def test_a_face_that_is_missing_or_broken_is_named(celeba, tmp_path):
    path = next((celeba / "img_align_celeba").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    refused(tmp_path, path, "replace it or delete it")
    path.unlink()
    refused(tmp_path, path, "No such file")


def test_faces_of_one_class_only_and_an_unknown_attribute_are_one_line(celeba, tmp_path):
    refused(tmp_path, "one class for Bald", "raise data.limit", attribute="Bald")
    refused(tmp_path, "CelebA has no 'Smilling': did you mean Smiling?", attribute="Smilling")
