"""Pictures made elsewhere: what is read, and what is refused in one line."""

import numpy as np
import pytest
import torch
from PIL import Image

from HW3.plumbing.errors import UsageError
from HW3.samples import load_samples

GREY = np.random.default_rng(0).integers(0, 256, (20, 32, 32), dtype=np.uint8)
LABELS = np.arange(20) % 10


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    return write


@pytest.mark.parametrize("images", [GREY, GREY[..., None], GREY / 255, (GREY / 255).astype(np.float16)])
def test_npz(npz, images):
    found = load_samples(npz(images=images, labels=LABELS, other=np.zeros(3)))
    assert found.images.shape == (20, 1, 32, 32)
    assert found.images.dtype == torch.float32
    torch.testing.assert_close(found.images[:, 0], torch.from_numpy(GREY / 255).float(), rtol=0, atol=1e-3)
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == LABELS.tolist()
    assert load_samples(npz(images=images)).labels is None


def test_a_folder_of_pictures(tmp_path):
    for i, picture in enumerate(GREY):
        Image.fromarray(picture).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "notes.txt").touch()
    found = load_samples(tmp_path)
    assert torch.equal(found.images[:, 0].mul(255).round().to(torch.uint8), torch.from_numpy(GREY))
    assert found.labels is None


def test_a_folder_per_label(tmp_path):
    for label in (3, 7):
        (tmp_path / str(label)).mkdir()
        Image.fromarray(GREY[label]).convert("RGB").save(tmp_path / str(label) / "x.PNG")
    found = load_samples(tmp_path)
    assert found.labels.tolist() == [3, 7]
    assert torch.equal(found.images[1, 0].mul(255).round().to(torch.uint8), torch.from_numpy(GREY[7]))


BROKEN = GREY / 255
BROKEN[3:5, 2, 2] = np.nan


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": GREY[:0]}, "is empty"),
        ({"pictures": GREY}, "no array `images`"),
        ({"images": GREY[:, :28, :28]}, "shape 20 x 28 x 28, and N x 32 x 32 is needed"),
        ({"images": GREY.reshape(20, 1024)}, "shape 20 x 1024"),
        ({"images": np.stack([GREY] * 3, axis=-1)}, "shape 20 x 32 x 32 x 3"),
        ({"images": GREY.astype(np.int64)}, "type int64"),
        ({"images": BROKEN}, "2 of the 20 images .* not finite"),
        ({"images": GREY / 127.5 - 1}, "go from -1 to 1: bring them to"),
        ({"images": GREY.astype(np.float32)}, "go from 0 to 255"),
        ({"images": GREY // 128}, "0 and 1, and uint8 goes from 0 to 255"),
        ({"images": GREY, "labels": LABELS[:5]}, "write 20 integers"),
        ({"images": GREY, "labels": LABELS / 1}, "type float64"),
        ({"images": GREY, "labels": LABELS + 1}, "from 1 to 10: labels are 0 to 9"),
        ({"images": GREY, "labels": LABELS - 1}, "from -1 to 8"),
        ({"images": GREY, "labels": LABELS * 0 + 4}, r"one class only \(4\)"),
        ({"images": np.array([{}], dtype=object)}, "not an .npz of plain arrays"),
    ],
)
def test_other_arrays_are_refused(npz, arrays, says):
    with pytest.raises(UsageError, match=says) as caught:
        load_samples(npz(**arrays))
    assert "x.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_npz_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    np.save(tmp_path / "y.npz.npy", GREY)
    (tmp_path / "y.npz.npy").rename(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", images=GREY)
    (tmp_path / "z.npz").write_bytes((tmp_path / "z.npz").read_bytes()[:9000])
    for name in "xyz":
        with pytest.raises(UsageError, match=r"not an .npz of plain arrays, or is damaged"):
            load_samples(tmp_path / f"{name}.npz")
    with pytest.raises(UsageError, match=r"there is no .*nowhere.npz"):
        load_samples(tmp_path / "nowhere.npz")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match="has no pictures"):
        load_samples(tmp_path)
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    Image.fromarray(GREY[0, :28]).save(tmp_path / "b.png")
    with pytest.raises(UsageError, match=r"several sizes: a.png is 32 x 32 and b.png 32 x 28"):
        load_samples(tmp_path)
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read"):
        load_samples(tmp_path)
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        Image.fromarray(GREY[0]).save(tmp_path / name / "x.png")
    with pytest.raises(UsageError, match="folders that are no labels"):
        load_samples(tmp_path)
