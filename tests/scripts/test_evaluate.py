"""evaluate.py, on one tiny checkpoint of every kind and on pictures made elsewhere."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate as script
from harness import KINDS, assert_one_line, assert_succeeds, load, run_here
from HW3.data import load_dataset
from HW3.judge import Judge, save_judge
from HW3.metrics import Estimate, mean

DRAWING = ("vae", "diffusion", "latent_diffusion", "tiny_sd")
SAMPLES = {"confidence", "frechet_distance", "precision", "recall", "density", "coverage", "classes", "copies"}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """The intervals are tested elsewhere."""
    monkeypatch.setattr("HW3.metrics.bootstrap.__defaults__", (5,))


def evaluate(*flags):
    return run_here("evaluate.py", "--num", 70, *flags)


@pytest.fixture
def drawn(tmp_path):
    """The training images of the digits as samples.npz, with what should be different."""
    images, labels = load_dataset("digits").subset(100).batch(slice(None))

    def write(name="samples.npz", **changes):
        arrays = {"images": images[:, 0].mul(255).round().byte().numpy(), "labels": labels.numpy()} | changes
        np.savez(tmp_path / name, **{key: value for key, value in arrays.items() if value is not None})
        return tmp_path / name

    return write


def rows_of(path):
    return {row.get("checkpoint", row["kind"]): row for row in json.loads(path.read_text())}


def test_a_table_of_everything(tiny, tmp_path):
    ckpts = [tiny.checkpoint(kind) for kind in KINDS]
    files = ("--json", tmp_path / "m.json", "--markdown", tmp_path / "m.md")
    result = evaluate(*ckpts, "--clip-ckpt", tiny.checkpoint("clip"), *files)
    assert_succeeds(result)
    rows = rows_of(tmp_path / "m.json")
    assert set(rows) == {"real", "noise", *map(str, ckpts)}
    by_kind = {row["kind"]: row for row in rows.values()}
    for kind in ("real", "noise", *DRAWING):
        row = by_kind[kind]
        assert row.keys() >= SAMPLES
        assert all(row[f"{name}_ci95"][0] <= row[f"{name}_ci95"][1] for name in SAMPLES)
        assert row["num"] == 70
        assert ("label_accuracy" in row) == ("clip_label_accuracy" in row) == (kind in ("real", "noise", "tiny_sd"))
    assert len({row["judge"] for row in rows.values() if "judge" in row}) == 1
    assert all(row["dataset"] == "digits" for row in rows.values())
    assert all(by_kind[kind]["epochs"] == 2 for kind in KINDS)
    assert by_kind["real"]["frechet_distance"] < by_kind["vae"]["frechet_distance"]
    assert 0 < by_kind["vae"]["reconstruction_error"] < 1
    assert by_kind["vae"]["elbo_bernoulli"] < 0
    assert 0 <= by_kind["vae"]["active_units"] <= load(tiny.checkpoint("vae"))["args"]["latent_dim"]
    assert by_kind["vae"]["num_test"] == by_kind["clip"]["num_test"] == 359
    assert "elbo_bernoulli" not in by_kind["diffusion"]
    assert 0 <= by_kind["clip"]["zero_shot_accuracy"] <= 1
    assert "frechet_distance" not in by_kind["clip"]
    # What is printed is what is written; every line of a table is as long as the others.
    assert [line for line in result.stdout.splitlines() if line] == [
        line for line in (tmp_path / "m.md").read_text().splitlines() if line
    ]
    tables = (tmp_path / "m.md").read_text().split("\n\n")[1:]
    assert [len(table.strip().splitlines()) - 2 for table in tables] == [6, 6, 1, 1, 1]
    assert all(len({len(line) for line in table.strip().splitlines()}) == 1 for table in tables)
    assert "digits, version" in result.stdout.splitlines()[0]
    assert "FID" not in result.stdout


def test_pictures_made_elsewhere(drawn, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    with np.load(drawn()) as arrays:
        for i, picture in enumerate(arrays["images"]):
            Image.fromarray(picture).save(folder / f"{i:03d}.png")
    result = evaluate(drawn(), folder, "--dataset", "digits", "--json", tmp_path / "m.json")
    assert_succeeds(result)
    rows = rows_of(tmp_path / "m.json")
    file, pictures = rows[str(drawn())], rows[str(folder)]
    assert file["kind"] == pictures["kind"] == "samples"
    assert file["label_accuracy"] > 0.9  # labels go with their images, also where some are chosen
    assert file["copies"] == pictures["copies"] == 1  # these are training images
    assert file["frechet_distance"] == pictures["frechet_distance"]
    assert "label_accuracy" not in pictures


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": np.zeros((0, 32, 32), np.uint8), "labels": None}, "is empty"),
        ({"labels": np.full(100, 4)}, "one class only (4)"),
        ({"images": np.full((100, 32, 32), np.nan)}, "100 of the 100 images"),
        ({"images": np.zeros((100, 28, 28), np.uint8)}, "N x 32 x 32 is needed"),
        ({"images": np.full((100, 32, 32), 200.0)}, "go from 200 to 200"),
    ],
)
def test_a_bad_file_is_one_line(drawn, changes, says):
    assert_one_line(evaluate(drawn(**changes), "--dataset", "digits"), 2, "samples.npz", says)


def test_too_few_for_a_covariance(drawn):
    few = drawn(images=np.random.default_rng(0).integers(0, 255, (64, 32, 32), np.uint8), labels=None)
    assert_one_line(evaluate(few, "--dataset", "digits"), 2, "samples.npz: 64 images are too few", "65 are needed")
    assert_one_line(evaluate(few, "--dataset", "digits", "--num", 64), 2, "--num", "65 or more")


def test_pictures_alone_need_a_data_set(drawn):
    assert_one_line(evaluate(drawn()), 2, "--dataset")


def test_a_checkpoint_of_another_data_set(tiny, tmp_path):
    state = load(tiny.checkpoint("vae"))
    state["args"]["dataset"] = "mnist"
    torch.save(state, tmp_path / "x.pt")
    result = evaluate(tiny.checkpoint("clip"), tmp_path / "x.pt")
    assert_one_line(result, 2, "x.pt was trained on mnist, and the other rows are about digits")


def test_another_judge(drawn, tmp_path, monkeypatch):
    path = tmp_path / "judge_digits.pt"
    monkeypatch.setattr("HW3.judge.WEIGHTS", tmp_path)
    flags = (drawn(), "--dataset", "digits")
    assert_one_line(evaluate(*flags), 2, "no judge for digits", "python -m HW3.judge --dataset digits")
    save_judge(Judge("digits"), 0.5, path)
    torch.save(load(path) | {"version": 0}, path)
    assert_one_line(evaluate(*flags), 2, "judge of version 0")


def test_clip_is_the_students_choice(tiny, tmp_path):
    flags = (tiny.checkpoint("diffusion"), "--clip-ckpt", tmp_path / "no.pt")
    assert_one_line(evaluate(*flags), 2, "no checkpoint at", "train_clip.py")


def test_what_cannot_be_measured_does_not_keep_the_rest_from_the_table(tiny, tmp_path):
    ckpts = [tmp_path / "nowhere.pt", tiny.checkpoint("latent_diffusion"), tmp_path / "neither.npz"]
    result = evaluate(*ckpts, "--json", tmp_path / "m.json")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "no checkpoint at" in result.stderr
    assert "1 more could not be measured" in result.stderr
    assert set(rows_of(tmp_path / "m.json")) == {"real", "noise", str(tiny.checkpoint("latent_diffusion"))}


def test_nothing_to_measure_takes_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "load_dataset", lambda *args, **options: pytest.fail("it reads the data"))
    assert_one_line(evaluate(tmp_path / "nowhere.pt"), 2, "no checkpoint at")


def test_the_same_seed_gives_the_same_numbers(tiny, tmp_path):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert_succeeds(evaluate(tiny.checkpoint("latent_diffusion"), "--seed", seed, "--json", tmp_path / name))
        found.append((tmp_path / name).read_text())
    assert found[0] == found[1] != found[2]


def test_cells():
    assert script.cell(Estimate(0.994, 0.99, 0.998), 100, 1) == "99.4 ±0.4"
    assert script.cell(mean(torch.ones(3)), 100, 1) == "100.0"
