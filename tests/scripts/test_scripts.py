"""The scripts do what the assignment says: flags, files, checkpoints, and the same again the second time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import HW3.plumbing.run
from harness import (
    KINDS,
    LATEST,
    ROOT,
    assert_same_run,
    assert_succeeds,
    child_env,
    differences,
    load,
    metrics,
    parsed,
    run_here,
    run_script,
    script,
)
from HW3.plumbing.cli import parse, training_parser
from HW3.plumbing.errors import UsageError

# What two epochs leave with a picture after each.
FILES = {
    "vae": {"convae_latest.pt", "convae_best.pt", "samples_epoch_{}.png", "recon_epoch_{}.png"},
    "clip": {"clip_latest.pt", "clip_best.pt", "nearest_epoch_{}.png"},
    "diffusion": {"diffusion_latest.pt", "samples_ddpm_epoch_{}.png", "samples_ddim_epoch_{}.png"},
    "latent_diffusion": {"latent_diffusion_latest.pt", "samples_epoch_{}.png"},
    "tiny_sd": {"tiny_sd_latest.pt", "samples_epoch_{}.png"},
}

DEFAULTS = {
    "vae": {"epochs": 40, "batch_size": 128, "lr": 2e-4, "latent_dim": 100, "kl_weight": 1, "loss_type": "mse"},
    "clip": {"epochs": 10, "batch_size": 256, "lr": 1e-3, "embed_dim": 128, "weight_decay": 1e-4, "val_split": 0.1},
    "diffusion": {"epochs": 20, "lr": 1e-4, "timesteps": 1000, "ddim_steps": 200, "ddim_eta": 0},
    "latent_diffusion": {"epochs": 40, "time_dim": 256, "hidden_dim": 512, "latent_dim": None, "canonicalize": False},
    "tiny_sd": {"epochs": 40, "lr": 2e-4, "ddim_steps": 50, "time_dim": 256, "hidden_dim": 512},
}
OUT_DIRS = {kind: f"result/{kind}" for kind in KINDS}

CHECKPOINT_KEYS = {
    *("format", "kind", "config", "extra", "model", "ema", "ema_updates"),
    *("optimizer", "args", "position", "random", "sums", "best"),
}
EXTRAS = {
    "diffusion": {"early"},
    "latent_diffusion": {"vae", "space", "early"},
    "tiny_sd": {"vae", "clip", "space", "early"},
}


# -- end to end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_runs_from_the_repository_and_leaves_exactly_its_files(kind, tiny, tmp_path):
    result = run_script(script(kind), *tiny.flags(kind, tmp_path / "out"))

    assert_succeeds(result)
    expected = {name.format(epoch) for name in FILES[kind] for epoch in ("001", "002")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected | {"loss.png", "metrics.jsonl"}
    # The same seed in another process: the same run.
    assert_same_run(tmp_path / "out", tiny.out_dir(kind), LATEST[kind])
    # Into a pipe: no bar, one line for the model and one per epoch.
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2"]
    assert lines[0].startswith(f"{kind}: ")


def test_sample_runs_from_another_folder(tiny, tmp_path):
    result = run_script(
        "sample.py", tiny.checkpoint("tiny_sd"), "--labels", "4,2", "--num", 6, "--out", "o.npz", cwd=tmp_path
    )

    assert_succeeds(result)
    drawn = np.load(tmp_path / "o.npz")
    assert drawn["images"].shape == (6, 32, 32)
    assert drawn["images"].dtype == np.uint8
    assert drawn["labels"].tolist() == [4, 2, 4, 2, 4, 2]
    assert drawn["labels"].dtype == np.int64


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *(("vae", suffix) for suffix in ("npz", "png")),  # no .gif: it draws in one step
        *((kind, suffix) for kind in ("diffusion", "latent_diffusion", "tiny_sd") for suffix in ("npz", "png", "gif")),
    ],
)
def test_sample_draws_from_every_model_into_every_format(kind, suffix, tiny, tmp_path):
    out = tmp_path / f"samples.{suffix}"
    assert_succeeds(run_here("sample.py", tiny.checkpoint(kind), "--num", 20, "--out", out))

    if suffix == "npz":
        drawn = np.load(out)
        assert set(drawn) == ({"images", "labels"} if kind == "tiny_sd" else {"images"})
        assert drawn["images"].shape == (20, 32, 32)
    else:
        columns, rows = (10, 2) if kind == "tiny_sd" else (8, 3)
        with Image.open(out) as picture:
            assert picture.size == (34 * columns + 2, 34 * rows + 2)
            assert getattr(picture, "n_frames", 1) == (5 if suffix == "gif" else 1)  # noise, then 4 steps


# -- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_plain_and_holds_the_documented_keys(kind, tiny):
    checkpoint = load(tiny.checkpoint(kind))

    assert checkpoint.keys() == CHECKPOINT_KEYS
    assert (checkpoint["kind"], checkpoint["format"]) == (kind, 2)
    assert checkpoint["extra"].keys() == EXTRAS.get(kind, set())
    assert checkpoint["position"] == {"epoch": 2, "steps": 0}
    assert checkpoint["args"]["batch_size"] == 16


@pytest.mark.parametrize(("kind", "name"), [("vae", "convae"), ("clip", "clip")])
def test_best_is_the_checkpoint_of_the_best_epoch(kind, name, tiny, tmp_path):
    assert_succeeds(run_here(script(kind), *tiny.flags(kind, tmp_path), "--epochs", 3))
    scores = [record["val_loss"] if kind == "vae" else 1 - record["val_accuracy"] for record in metrics(tmp_path)]

    best = load(tmp_path / f"{name}_best.pt")
    assert best["best"] == min(scores)
    assert best["position"]["epoch"] == 1 + scores.index(min(scores))


@pytest.mark.parametrize("kind", ["vae", "diffusion"])
def test_the_average_follows_the_weights_as_closely_as_asked(kind, tiny, tmp_path):
    assert_succeeds(run_here(script(kind), *tiny.flags(kind, tmp_path / "off"), "--ema", 0))
    assert_succeeds(run_here(script(kind), *tiny.flags(kind, tmp_path / "on"), "--ema", 0.5))
    off, on = (load(tmp_path / folder / LATEST[kind]) for folder in ("off", "on"))

    assert off["ema_updates"] == on["ema_updates"] == 2 * 3  # once per step
    assert on["ema"].keys() == on["model"].keys()
    assert differences(off["ema"], off["model"]) == []
    assert differences(on["ema"], on["model"])
    assert differences(off["model"], on["model"]) == []  # the average only listens


# -- the same again --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(kind, tiny, tmp_path):
    for seed in (42, 43):
        assert_succeeds(run_here(script(kind), *tiny.flags(kind, tmp_path / f"{seed}"), "--seed", seed))

    assert_same_run(tmp_path / "42", tiny.out_dir(kind), LATEST[kind])
    for picture in (tmp_path / "42").glob("*epoch*.png"):
        assert picture.read_bytes() == (tiny.out_dir(kind) / picture.name).read_bytes(), picture.name
    weights = [load(folder / LATEST[kind])["model"] for folder in (tmp_path / "43", tiny.out_dir(kind))]
    assert differences(*weights)


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_pictures_does_not_move_training(kind, tiny, tmp_path):
    assert_succeeds(run_here(script(kind), *tiny.flags(kind, tmp_path), "--sample-every", 0))

    pictures = {path.name for path in tmp_path.glob("*epoch*.png")}
    assert pictures == {name.format("002") for name in FILES[kind] if name.endswith(".png")}
    ours, theirs = load(tmp_path / LATEST[kind]), load(tiny.checkpoint(kind))
    for part in ("model", "ema", "optimizer", "random"):
        assert differences(ours[part], theirs[part], part) == []


# -- flags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_those_of_the_assignment(kind, monkeypatch):
    args = vars(parsed(monkeypatch, kind))
    assert {name: args[name] for name in DEFAULTS[kind]} == DEFAULTS[kind]
    assert str(args["out_dir"]) == OUT_DIRS[kind]
    assert (args["seed"], args["dataset"], args["device"], args["precision"]) == (42, "mnist", "auto", "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_flags_may_be_spelt_with_dashes_or_underscores(kind, monkeypatch):
    dashes = parsed(monkeypatch, kind, "--data-dir", "a_b", "--batch-size=7", "--output-dir", "c_d")
    underscores = parsed(monkeypatch, kind, "--data_dir", "a_b", "--batch_size=7", "--out_dir", "c_d")
    assert dashes == underscores
    assert (str(dashes.data_dir), dashes.batch_size, str(dashes.out_dir)) == ("a_b", 7, "c_d")


def test_the_data_folder_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("HW3_DATA_DIR", "elsewhere")
    assert str(parsed(monkeypatch, "vae").data_dir) == "elsewhere"
    assert str(parsed(monkeypatch, "vae", "--data-dir", "here").data_dir) == "here"


@pytest.mark.parametrize("name", [*map(script, KINDS), "sample.py"])
def test_help_begins_with_what_it_does_and_examples(name):
    result = run_here(name, "--help")
    assert_succeeds(result)
    assert f"\nexamples:\n  python {name} " in result.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_quick_changes_defaults_and_never_what_was_asked_for(kind, monkeypatch):
    plain, quick = parsed(monkeypatch, kind), parsed(monkeypatch, kind, "--quick")
    asked = parsed(monkeypatch, kind, "--quick", "--epochs", 40, "--sample-every", 5)
    assert quick.epochs < plain.epochs
    assert (asked.epochs, asked.sample_every) == (40, 5)  # given, and equal to the plain defaults
    assert vars(asked) == {**vars(quick), "epochs": 40, "sample_every": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_the_presets_differ_in_what_the_papers_came_with(kind, monkeypatch):
    quick, paper = (vars(parsed(monkeypatch, kind, "--preset", name)) for name in ("quick", "paper"))
    assert quick == vars(parsed(monkeypatch, kind, "--quick"))
    differing = {name: value for name, value in paper.items() if value != quick[name] and name != "preset"}
    plain = {"prediction": "eps", "schedule": "linear", "autoguidance": 1.0}
    assert (
        differing
        == {
            "vae": {"kl_weight": 1.0},
            "clip": {},
            "diffusion": plain | {"ddim_eta": 0.0, "x0_scale": 1.0},
            "latent_diffusion": plain | {"ddim_eta": 0.0},
            "tiny_sd": plain | {"guidance_scale": 1.0, "clip_tries": 1},
        }[kind]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_readmes_presets_are_those_of_the_scripts(kind, monkeypatch):
    """Every flag that a preset changes on MNIST has a row, and no other."""
    rows, current = {}, ""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[1].startswith("--"):
            current = cells[0] or current
            rows.setdefault(current, {})[cells[1].removeprefix("--").replace("-", "_")] = cells[2:]
    plain, quick, paper = (
        vars(parsed(monkeypatch, kind, *flags)) for flags in ((), ("--preset", "quick"), ("--preset", "paper"))
    )
    changed = {name for name in plain if (plain[name], plain[name]) != (quick[name], paper[name])}
    changed -= {"preset", "sample_every"}
    assert {name: [shown(of[name]) for of in (plain, quick, paper)] for name in changed} == rows[script(kind)]


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def test_a_script_without_the_preset_says_so(monkeypatch):
    """As one that a student began with before there was one."""
    monkeypatch.setattr(sys, "argv", ["train_old.py", "--preset", "paper"])
    options = {"out_dir": "x", "epochs": 1, "batch_size": 1, "lr": 0.1, "ema": 0.0, "sample_every": 0}
    with pytest.raises(UsageError, match="has no --preset paper"):
        parse(training_parser("an old script", **options), {"epochs": 2})


def test_quick_depends_on_the_dataset(monkeypatch):
    mnist, digits = (parsed(monkeypatch, "tiny_sd", "--quick", "--dataset", name) for name in ("mnist", "digits"))
    assert mnist.epochs < digits.epochs


def test_no_save_recon_leaves_the_reconstructions_out(tiny, tmp_path):
    assert_succeeds(run_here("train_vae.py", *tiny.flags("vae", tmp_path), "--no-save-recon"))
    assert not list(tmp_path.glob("recon*"))
    assert len(list(tmp_path.glob("samples*"))) == 2
    assert_same_run(tmp_path, tiny.out_dir("vae"), LATEST["vae"])


def test_no_cuda_means_the_cpu(tiny, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(HW3.plumbing.run, "pick_device", lambda name, rank: asked.append(name) or torch.device("cpu"))
    for more in ([], ["--no-cuda", "--overwrite"]):
        assert_succeeds(run_here("train_vae.py", *tiny.flags("vae", tmp_path), "--epochs", 1, "--limit", 20, *more))
    assert asked == ["auto", "cpu"]


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_runs_and_learns_in_full_precision_weights(kind, tiny, tmp_path):
    result = run_here(script(kind), *tiny.flags(kind, tmp_path), "--precision", "bf16")
    assert_succeeds(result)
    assert "on cpu, bf16" in result.stdout
    assert {weight.dtype for weight in load(tmp_path / LATEST[kind])["model"].values()} == {torch.float32}
    for ours, theirs in zip(metrics(tmp_path), metrics(tiny.out_dir(kind)), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.1)


def test_canonicalize_changes_the_space_and_nothing_else_needs_to_know(tiny, tmp_path):
    flags = tiny.flags("latent_diffusion", tmp_path)
    assert_succeeds(run_here("train_latent_diffusion.py", *flags, "--canonicalize"))
    checkpoint = load(tmp_path / LATEST["latent_diffusion"])
    assert not torch.equal(checkpoint["extra"]["space"]["basis"], torch.eye(8))
    assert_succeeds(
        run_here("sample.py", tmp_path / LATEST["latent_diffusion"], "--num", 4, "--out", tmp_path / "s.png")
    )


@pytest.mark.parametrize("kind", ["diffusion", "latent_diffusion", "tiny_sd"])
def test_the_schedule_follows_the_prediction(kind, monkeypatch):
    for flags, schedule in (
        ((), "linear"),
        (("--quick",), "cosine"),
        (("--prediction", "v"), "cosine"),
        (("--quick", "--prediction", "eps"), "linear"),
        (("--quick", "--schedule", "linear"), "linear"),
    ):
        assert parsed(monkeypatch, kind, *flags).schedule == schedule, flags


def test_old_commands_with_workers_still_run(monkeypatch):
    assert parsed(monkeypatch, "vae", "--num-workers", 4) == parsed(monkeypatch, "vae", "--num_workers", 4)
    assert "num-workers" not in run_here("train_vae.py", "--help").stdout


@pytest.mark.parametrize("broken", ["vae.py", "diffusion.py"])
def test_a_mistake_in_a_students_file_stops_only_who_needs_it(broken, tiny, tmp_path):
    """CLIP needs neither, the VAE not the diffusion process."""
    root = tmp_path / "copy"
    shutil.copytree(ROOT / "HW3", root / "HW3")
    for kind in KINDS:
        shutil.copy(ROOT / script(kind), root)
    (root / "HW3" / broken).write_text("def unfinished(:\n")
    needs_none = {"vae.py": ["clip"], "diffusion.py": ["clip", "vae"]}[broken]
    for kind in needs_none:
        command = [sys.executable, script(kind), *tiny.flags(kind, tmp_path / kind), "--epochs", "1"]
        result = subprocess.run(command, cwd=root, env=child_env(), capture_output=True, text=True, check=False)
        assert_succeeds(result)


# -- the log ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_is_a_line_of_json(kind, tiny):
    records = [json.loads(line) for line in (tiny.out_dir(kind) / "metrics.jsonl").read_text().splitlines()]
    more = {
        "vae": {"rec", "kl", "val_loss"},
        "clip": {"val_loss", "val_accuracy"},
        "tiny_sd": {"label_accuracy"},
    }.get(kind, set())
    assert [record["epoch"] for record in records] == [1, 2]
    assert all(record.keys() == {"epoch", "loss", "grad_norm", "lr", "seconds"} | more for record in records)
    assert records[1]["loss"] < records[0]["loss"] * 1.2


@pytest.mark.parametrize("kind", ["vae", "diffusion", "latent_diffusion", "tiny_sd"])
def test_pictures_have_the_size_of_their_grids(kind, tiny):
    columns = 10 if kind == "tiny_sd" else 8
    pictures = list(tiny.out_dir(kind).glob("samples*.png"))
    assert pictures
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.size == (34 * columns + 2, 34 * 8 + 2), picture.name
