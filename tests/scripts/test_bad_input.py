"""What goes wrong is said in one line that names the cause and the cure; nothing good is lost to it."""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import signal
import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

import HW3.plumbing.files
from harness import KINDS, LATEST, assert_one_line, assert_succeeds, load, metrics, run_here, run_script, script
from HW3.plumbing.run import Run

NEEDS_A_VAE = ["latent_diffusion", "tiny_sd"]


def fails(kind: str, tiny, tmp_path: Path, *more: object, code: int = 2, saying: tuple[object, ...]) -> None:
    """A tiny run with these flags ends with `code` and one line that says all of this."""
    assert_one_line(run_here(script(kind), *tiny.flags(kind, tmp_path / "out"), *more), code, *saying)


# -- checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NEEDS_A_VAE)
def test_a_missing_vae_names_the_script_that_trains_it(kind, tiny, tmp_path):
    missing = tmp_path / "nowhere.pt"
    fails(kind, tiny, tmp_path, "--vae-ckpt", missing, saying=(f"no checkpoint at {missing}", "train_vae.py"))


def test_a_missing_clip_names_the_script_that_trains_it(tiny, tmp_path):
    missing = tmp_path / "nowhere.pt"
    fails("tiny_sd", tiny, tmp_path, "--clip-ckpt", missing, saying=(f"no checkpoint at {missing}", "train_clip.py"))


def test_a_missing_checkpoint_in_sample(tmp_path):
    result = run_here("sample.py", tmp_path / "nowhere.pt", "--out", tmp_path / "s.png")
    assert_one_line(result, 2, f"no checkpoint at {tmp_path / 'nowhere.pt'}")


class Bomb:
    """A pickle of this runs a command when it is loaded."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self):
        return os.mkdir, (str(self.fuse),)


def _foreign(what: str, path: Path, tiny) -> Path:
    good = tiny.checkpoint("vae").read_bytes()
    contents = {
        "text": b"these are not the weights you are looking for\n",
        "empty": b"",
        "picture": (tiny.out_dir("vae") / "loss.png").read_bytes(),
        "truncated": good[: len(good) // 2],
        "damaged": good[:2000] + bytes(2000) + good[4000:],
        "pickle": pickle.dumps({"kind": "vae", "model": {}}),
    }
    objects = {
        "tensor": torch.zeros(3),
        "weights only": load(tiny.checkpoint("vae"))["model"],
        "list": [1, 2, 3],
        "none": None,
        "old format": {**load(tiny.checkpoint("vae")), "format": 0},
        "module": torch.nn.Linear(2, 2),
    }
    if what in contents:
        path.write_bytes(contents[what])
    else:
        torch.save(objects[what], path)
    return path


FOREIGN = ("text", "empty", "picture", "truncated", "damaged", "pickle")
FOREIGN += ("tensor", "weights only", "list", "none", "old format", "module")


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_not_taken_for_a_checkpoint(what, tiny, tmp_path):
    path = _foreign(what, tmp_path / "foreign.pt", tiny)
    assert_one_line(run_here("sample.py", path, "--out", tmp_path / "s.png"), 2, path, "train")
    fails("latent_diffusion", tiny, tmp_path, "--vae-ckpt", path, saying=(path, "train"))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapped", [False, True], ids=["pickle", "torch"])
def test_code_in_a_checkpoint_is_not_executed(wrapped, protocol, tiny, tmp_path):
    path, fuse = tmp_path / "bomb.pt", tmp_path / "boom"
    bomb = {**load(tiny.checkpoint("vae")), "args": Bomb(fuse)}
    if wrapped:
        torch.save(bomb, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(Bomb(fuse), protocol=protocol))

    assert_one_line(run_here("sample.py", path, "--out", tmp_path / "s.png"), 2, path)
    fails("latent_diffusion", tiny, tmp_path, "--vae-ckpt", path, saying=(path, "train_vae.py"))
    (tmp_path / "out").mkdir(exist_ok=True)
    path.rename(tmp_path / "out" / LATEST["vae"])
    fails("vae", tiny, tmp_path, "--resume", saying=(LATEST["vae"], "train_vae.py"))
    assert not fuse.exists()


def test_a_checkpoint_of_another_kind_names_both(tiny, tmp_path):
    for kind, flag, other, script_name in (
        ("latent_diffusion", "--vae-ckpt", "clip", "train_vae.py"),
        ("tiny_sd", "--vae-ckpt", "diffusion", "train_vae.py"),
        ("tiny_sd", "--clip-ckpt", "vae", "train_clip.py"),
    ):
        path = tiny.checkpoint(other)
        fails(kind, tiny, tmp_path, flag, path, saying=(f"{path} holds a {other} model", script_name))


def test_clip_draws_nothing(tiny, tmp_path):
    result = run_here("sample.py", tiny.checkpoint("clip"), "--out", tmp_path / "s.png")
    assert_one_line(result, 2, tiny.checkpoint("clip"), "draws none")


def test_weights_that_do_not_fit_their_configuration(tiny, tmp_path):
    path = tmp_path / "edited.pt"
    torch.save({**load(tiny.checkpoint("vae")), "config": {"latent_dim": 9}}, path)
    fails("latent_diffusion", tiny, tmp_path, "--vae-ckpt", path, saying=(path, "do not fit"))


@pytest.mark.parametrize("kind", NEEDS_A_VAE)
def test_a_checkpoint_that_knows_another_dataset(kind, tiny, tmp_path):
    """It is said before anything is read or downloaded."""
    flags = ("--dataset", "fashion_mnist", "--data-dir", tmp_path / "none")
    saying = (tiny.checkpoint("vae"), "trained on digits", "--dataset digits", "train_vae.py --dataset fashion_mnist")
    fails(kind, tiny, tmp_path, *flags, saying=saying)


@pytest.mark.parametrize("kind", NEEDS_A_VAE)
def test_a_latent_dim_that_contradicts_the_vae(kind, tiny, tmp_path):
    fails(kind, tiny, tmp_path, "--latent_dim", 100, saying=("--latent-dim 100", tiny.checkpoint("vae"), "has 32"))


def test_an_embed_dim_that_contradicts_clip(tiny, tmp_path):
    fails("tiny_sd", tiny, tmp_path, "--embed_dim", 128, saying=("--embed-dim 128", tiny.checkpoint("clip"), "has 16"))


def test_dimensions_that_agree_are_fine(tiny, tmp_path):
    flags = [*tiny.flags("tiny_sd", tmp_path), "--epochs", 1, "--embed-dim", 16, "--latent-dim", 32]
    assert_succeeds(run_here("train_tiny_sd.py", *flags))


# -- flags -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "flag", "value", "why"),
    [
        ("vae", "--dataset", "cifar10", "invalid choice: 'cifar10'"),
        ("vae", "--epochs", "0", "must be 1 or more"),
        ("vae", "--epochs", "many", "invalid"),
        ("vae", "--limit", "1", "must be 2 or more"),
        ("vae", "--lr", "-1", "must be between 0 and 10"),
        ("vae", "--lr", "nan", "must be between 0 and 10"),
        ("vae", "--loss-type", "l1", "invalid choice"),
        ("vae", "--no-such-flag", "1", "unrecognized arguments"),
        ("clip", "--val-split", "0.9", "must be between"),
        ("clip", "--ema", "1", "must be between"),
        ("diffusion", "--ddim_steps", "0", "must be 1 or more"),
        ("diffusion", "--ddim_steps", "21", "outside 1 to --timesteps 20"),
        ("latent_diffusion", "--ddim-steps", "21", "outside 1 to --timesteps 20"),
        ("tiny_sd", "--ddim-steps", "21", "outside 1 to --timesteps 20"),
        ("tiny_sd", "--ddim-steps", "-3", "must be 1 or more"),
        ("tiny_sd", "--time-dim", "33", "must be even"),
        ("diffusion", "--schedule", "sigmoid", "invalid choice"),
        ("latent_diffusion", "--schedule", "cosine", "with --prediction eps"),
        ("tiny_sd", "--schedule", "cosine", "with --prediction eps"),
    ],
)
def test_a_value_that_a_flag_cannot_have(kind, flag, value, why, tiny, tmp_path):
    fails(kind, tiny, tmp_path, flag, value, saying=(flag.replace("_", "-"), why))
    assert not (tmp_path / "out").exists()  # nothing was begun


@pytest.mark.parametrize("kind", ["diffusion", "latent_diffusion", "tiny_sd"])
def test_the_extreme_ddim_steps_work(kind, tiny, tmp_path):
    for steps in (1, 20):
        flags = [*tiny.flags(kind, tmp_path), "--epochs", 1, "--limit", 16]
        assert_succeeds(run_here(script(kind), *flags, "--ddim-steps", steps, "--overwrite"))


def test_a_device_that_is_not_there(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fails("vae", tiny, tmp_path, "--device", "cuda", saying=("--device cuda", "--device cpu works"))


@pytest.mark.parametrize(
    ("kind", "flags", "parts"),
    [
        ("tiny_sd", ["--labels", "10"], ["--labels 10", "0 to 9"]),
        ("tiny_sd", ["--labels", "3,-1"], ["--labels 3,-1", "0 to 9"]),
        ("tiny_sd", ["--labels", "-1"], ["--labels -1", "0 to 9"]),
        ("tiny_sd", ["--labels", "cat"], ["--labels cat", "numbers"]),
        ("tiny_sd", ["--labels", "1,,2"], ["--labels 1,,2", "numbers"]),
        ("diffusion", ["--labels", "1"], ["--labels", "takes no labels"]),
        ("diffusion", ["--guidance-scale", "2"], ["--guidance-scale", "tiny_sd"]),
        ("diffusion", ["--steps", "21"], ["--steps 21", "1 to 20"]),
        ("diffusion", ["--steps", "0"], ["--steps", "must be 1 or more"]),
        ("diffusion", ["--sampler", "ddpm", "--steps", "5"], ["--steps", "--sampler ddim"]),
        ("diffusion", ["--num", "0"], ["--num", "must be 1 or more"]),
        ("vae", ["--steps", "5"], ["--steps", "VAE"]),
        ("vae", ["--ddim-eta", "0"], ["--ddim-eta", "VAE"]),
        ("vae", ["--out", "s.gif"], [".gif", "VAE"]),
        ("vae", ["--out", "s.jpg"], ["--out s.jpg", ".npz, .png or .gif"]),
    ],
)
def test_what_sample_cannot_draw(kind, flags, parts, tiny, tmp_path):
    out = tmp_path / "s.png"
    assert_one_line(run_here("sample.py", tiny.checkpoint(kind), "--out", out, *flags), 2, *parts)
    assert not out.exists()


# -- the disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_unwritable_output_folder_is_found_before_training(kind, tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    inside = tmp_path / "file" / "out"
    result = run_here(script(kind), *tiny.flags(kind, inside))
    assert_one_line(result, 1, f"cannot write {inside}", "choose another folder")
    assert result.stdout == ""


def test_an_unwritable_output_folder_of_sample(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run_here("sample.py", tiny.checkpoint("vae"), "--out", tmp_path / "file" / "s.png")
    assert_one_line(result, 1, "cannot write", "choose another folder")


def test_a_full_disk_leaves_the_previous_checkpoint(tiny, tmp_path):
    flags = tiny.flags("latent_diffusion", tmp_path)
    assert_succeeds(run_here("train_latent_diffusion.py", *flags, "--epochs", 1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    latest = tmp_path / LATEST["latent_diffusion"]
    room = latest.stat().st_size // 2  # for the log and the pictures, not for a checkpoint
    assert len(before["loss.png"]) < room

    def fill_the_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    result = run_script("train_latent_diffusion.py", *flags, "--resume", preexec_fn=fill_the_disk)
    assert_one_line(result, 1, f"cannot write {latest}", "the previous one is intact", "free some space")
    assert latest.read_bytes() == before[latest.name]
    new = {path.name for path in tmp_path.iterdir()} - before.keys()
    assert new == {"samples_epoch_002.png"}  # and no temporary file

    assert_succeeds(run_here("train_latent_diffusion.py", *flags, "--resume"))
    assert [record["epoch"] for record in metrics(tmp_path)] == [1, 2]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(HW3.plumbing.files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        HW3.plumbing.files.write_atomically(target, b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


# -- a loss that explodes ----------------------------------------------------------------------------------


def _break_the_loss(monkeypatch, from_step: int, then=lambda: None) -> None:
    backward, log, steps = torch.Tensor.backward, Run.log, []

    def broken_backward(loss):
        steps.append(loss)
        backward(loss * float("nan") if len(steps) >= from_step else loss)

    def broken_log(run, loss, **parts):
        log(run, loss=loss * float("nan") if len(steps) >= from_step else loss, **parts)
        if len(steps) == from_step:
            then()

    monkeypatch.setattr(torch.Tensor, "backward", broken_backward)
    monkeypatch.setattr(Run, "log", broken_log)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(kind, tiny, tmp_path, monkeypatch):
    _break_the_loss(monkeypatch, from_step=5)
    out_dir = tmp_path / "out"
    latest = out_dir / LATEST[kind]
    fails(kind, tiny, tmp_path, code=1, saying=("not finite in epoch 2", "--lr", f"{latest} holds the state before"))

    state = load(latest)
    assert state["position"] == {"epoch": 1, "steps": 0}
    assert all(weight.isfinite().all() for weight in state["model"].values())
    assert [record["epoch"] for record in metrics(out_dir)] == [1]


def test_a_broken_first_epoch_leaves_no_checkpoint(tiny, tmp_path, monkeypatch):
    _break_the_loss(monkeypatch, from_step=2)
    fails("vae", tiny, tmp_path, code=1, saying=("loss is not finite in epoch 1", "--precision fp32"))
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_does_not_save_broken_weights(tiny, tmp_path, monkeypatch):
    _break_the_loss(monkeypatch, from_step=5, then=lambda: signal.raise_signal(signal.SIGINT))
    fails("clip", tiny, tmp_path, code=1, saying=("loss is not finite in epoch 2",))
    assert load(tmp_path / "out" / LATEST["clip"])["position"] == {"epoch": 1, "steps": 0}


def test_a_learning_rate_that_is_far_too_high(tiny, tmp_path):
    saying = ("is not finite in epoch 1", "try a lower --lr than 10")
    fails("vae", tiny, tmp_path, "--lr", 10, "--limit", 400, "--batch-size", 8, code=1, saying=saying)


# -- data files --------------------------------------------------------------------------------------------

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _write_mnist(raw: Path, n: int = 40) -> Path:
    """Four whole idx files of `n` images each."""
    raw.mkdir(parents=True)
    for name in IDX_FILES:
        header = struct.pack(">4i", 0x803, n, 28, 28) if "images" in name else struct.pack(">2i", 0x801, n)
        size = n * 28 * 28 if "images" in name else n
        (raw / name).write_bytes(header + bytes(i * 7 % 10 for i in range(size)))
    return raw


def _mnist_flags(tiny, tmp_path: Path) -> list[str]:
    return [*tiny.flags("clip", tmp_path / "out"), "--dataset", "mnist", "--data-dir", str(tmp_path / "data")]


@pytest.mark.parametrize("below", ["MNIST/raw", "raw"])
def test_whole_files_are_read_from_either_folder(below, tiny, tmp_path):
    _write_mnist(tmp_path / "data" / below)
    assert_succeeds(run_here("train_clip.py", *_mnist_flags(tiny, tmp_path), "--epochs", 1))


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_a_failed_download_names_the_files_and_leaves_no_folders(error, tiny, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise error

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", offline)
    result = run_here("train_clip.py", *_mnist_flags(tiny, tmp_path))
    assert_one_line(result, 1, *IDX_FILES, tmp_path / "data" / "MNIST" / "raw", "--dataset digits", "--data-dir")
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_a_download_that_breaks_off_leaves_no_files(tiny, tmp_path, monkeypatch):
    def breaks_off(url, download_root, filename, **kwargs):
        if "labels" in filename:
            raise URLError("connection reset")
        (Path(download_root) / filename).write_bytes(gzip.compress(b"half"))

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", breaks_off)
    assert_one_line(run_here("train_clip.py", *_mnist_flags(tiny, tmp_path)), 1, "could not be downloaded")
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


@pytest.mark.parametrize("name", IDX_FILES[:2])
@pytest.mark.parametrize("damage", ["truncated", "too long", "empty", "wrong magic", "text", "fewer items"])
def test_a_damaged_file_is_named(name, damage, tiny, tmp_path):
    path = _write_mnist(tmp_path / "data" / "MNIST" / "raw") / name
    good = path.read_bytes()
    header = 16 if "images" in name else 8
    item = 784 if "images" in name else 1
    path.write_bytes(
        {
            "truncated": good[:-5],
            "too long": good + b"more",
            "empty": b"",
            "wrong magic": b"\x1f\x8b\x08\x00" + good[4:],
            "text": b"<html>404 not found</html>",
            "fewer items": good[:4] + struct.pack(">i", 39) + good[8 : header + 39 * item],
        }[damage]
    )
    assert_one_line(run_here("train_clip.py", *_mnist_flags(tiny, tmp_path)), 1, name, "delete it and run again")
    assert path.is_file()  # deleting it is the user's to do
