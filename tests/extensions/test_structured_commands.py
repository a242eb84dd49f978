"""The commands of the track: every setting trains, runs go on where they stopped, what is wrong is one line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import h5py
import pytest
import torch
import yaml

from extensions.structured.data import from_rows, split
from extensions.structured.models import ExpressionVAE
from extensions.structured.standin import standin_rows
from extensions.structured.trained import FOLDER, STAGES, encode, load_vae
from harness import ROOT, assert_succeeds, child_env, load, metrics
from HW3.diffusion import GaussianDiffusion
from HW3.plumbing.run import Run
from tracks import Commands

# The smallest models that still do everything.
SMALL = {
    "data.source": "standin",
    **{"vae.epochs": 2, "vae.batch_size": 300, "vae.latent_dim": 12, "vae.width": 8},
    **{f"{stage}.{name}": value for stage in ("diffusion", "prior") for name, value in {
        "epochs": 2, "batch_size": 300, "time_dim": 8, "hidden_dim": 16, "timesteps": 20,
    }.items()},
    **{"classifier.epochs": 2, "classifier.batch_size": 300, "classifier.width": 8},
    **{"evaluate.rows": 20, "evaluate.noise_step": 10},
}  # fmt: skip

structured = Commands("structured", SMALL)
changes, assert_refused = structured.changes, structured.assert_refused


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of small models on the stand-in."""
    out_dir = tmp_path_factory.mktemp("structured")
    assert_succeeds(structured("train", *changes(), "--out-dir", out_dir))
    return out_dir


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


def rows_of_standin():
    return from_rows(standin_rows(), "the stand-in")


# -- training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_every_config_trains_two_steps(flags, tmp_path):
    """The models of default.yaml and quick.yaml as they are, on the stand-in's 725 rows in two batches."""
    steps = [f"{stage}.{name}" for stage in STAGES for name in ("epochs=1", "batch_size=400")]
    few = [flag for step in steps for flag in ("--set", step)]
    result = structured("train", *flags, *few, "--data-dir", tmp_path, "--out-dir", tmp_path)
    assert_succeeds(result)
    assert "standin: 1000 rows" in result.stdout
    for stage in STAGES:
        assert load(tmp_path / stage / f"{stage}_latest.pt")["optimizer"]["state"][0]["step"] == 2


def test_the_presets_are_what_training_gets(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Run, "epochs", lambda run: seen.append(run.args.epochs) or iter(()))
    vae = ExpressionVAE(latent_dim=4, width=8).eval()
    monkeypatch.setattr("extensions.structured.train.load_vae", lambda out_dir, device, data, seed: vae)
    config = tmp_path / "mine.yaml"
    config.write_text("vae: {epochs: 77}\n")
    flags = ("--set", "data.source=standin", "--set", "prior.epochs=99", "--config", config, "--out-dir", tmp_path)
    assert_succeeds(structured("train", "--quick", *flags))
    quick_diffusion, quick_classifier = (quick(stage)["epochs"] for stage in ("diffusion", "classifier"))
    assert seen == [77, quick_diffusion, 99, quick_classifier]


def quick(stage):
    return yaml.safe_load((FOLDER / "quick.yaml").read_text())[stage]


def test_what_a_run_leaves(trained):
    assert {path.name for path in trained.iterdir()} == set(STAGES)
    for stage in STAGES:
        files = {path.name for path in (trained / stage).iterdir()}
        assert files == {f"{stage}_latest.pt", f"{stage}_best.pt", "metrics.jsonl", "loss.png"}
        assert [record["epoch"] for record in metrics(trained / stage)] == [1, 2]
        assert all("val_loss" in record for record in metrics(trained / stage))


@pytest.mark.parametrize("call", [1, 5, 8, 11, 16])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(call, trained, tmp_path, monkeypatch):
    """Three steps an epoch and two epochs a stage: these steps are in the VAE, in the diffusion, and so on."""
    structured.assert_ends_as(trained, STAGES, tmp_path, monkeypatch, stop_at=call)


def test_a_trained_model_is_replaced_only_on_demand(copied):
    refused = structured("train", *changes(), "--out-dir", copied)
    assert_refused(refused, copied / "vae/vae_latest.pt", "2 epochs", "--resume", "--overwrite")
    before = (copied / "vae/vae_latest.pt").read_bytes()
    again = structured("train", *changes(prior__epochs=1), "--only", "prior", "--overwrite", "--out-dir", copied)
    assert_succeeds(again)
    assert len(metrics(copied / "prior")) == 1
    assert (copied / "vae/vae_latest.pt").read_bytes() == before


def test_best_is_that_of_validation_and_not_the_last(tmp_path, monkeypatch):
    end_epoch = Run.end_epoch
    monkeypatch.setattr(Run, "end_epoch", lambda run, best, **more: end_epoch(run, best=run.epoch + 1.0, **more))
    assert_succeeds(structured("train", *changes(), "--only", "vae", "--out-dir", tmp_path))
    best, latest = (load(tmp_path / "vae" / f"vae_{name}.pt") for name in ("best", "latest"))
    assert (best["position"]["epoch"], latest["position"]["epoch"]) == (1, 2)
    data = rows_of_standin()
    used = load_vae(tmp_path, torch.device("cpu"), data, 42)
    assert torch.equal(used.to_mu.weight, best["ema"]["to_mu.weight"])
    assert not torch.equal(used.to_mu.weight, latest["ema"]["to_mu.weight"])


def test_checkpoints_load_on_a_machine_without_their_device(trained, monkeypatch):
    asked = []
    original = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: asked.append(kwargs) or original(*args, **kwargs))
    load_vae(trained, torch.device("cpu"), rows_of_standin(), 42)
    assert asked == [{"map_location": torch.device("cpu"), "weights_only": True}]


def test_diffusion_learns_standardised_latents_of_the_rows(trained, tmp_path, monkeypatch):
    """Not noise, and not raw latents: each x_0 is a row's posterior mean, standardised over the training rows."""
    seen, loss = [], GaussianDiffusion.training_loss

    def spy(self, x0, *args, **kwargs):
        seen.append((x0, kwargs["cond"]))
        return loss(self, x0, *args, **kwargs)

    run = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(GaussianDiffusion, "training_loss", spy)
    flags = changes(prior__epochs=1)
    assert_succeeds(structured("train", *flags, "--only", "prior", "--overwrite", "--out-dir", run))
    u, cond = (torch.cat(parts) for parts in zip(*seen[:-1]))  # the last call is validation
    torch.testing.assert_close(u.mean(dim=0), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(u.std(dim=0), torch.ones(12), atol=1e-2, rtol=0)

    data = rows_of_standin()
    train = split(data, 42).train
    mu = encode(load_vae(run, torch.device("cpu"), data, 42), train.sequences).mu
    expected = (mu - mu.mean(dim=0)) / mu.std(dim=0, correction=0)
    nearest = torch.cdist(u, expected).min(dim=1)
    assert nearest.values.max() < 1e-2
    assert (cond == train.conditions()[nearest.indices]).all(dim=1).float().mean() > 0.9  # equal texts, other types


# -- the other commands ------------------------------------------------------------------------------------------


def test_evaluate_writes_plain_names(trained, tmp_path):
    result = structured("evaluate", *changes(), "--out-dir", trained, "--json", tmp_path / "m.json")
    assert_succeeds(result)
    numbers = json.loads((tmp_path / "m.json").read_text())
    rates = {"token_accuracy", "exact_match", "valid_rate", "condition_match", "condition_match_real", "novel"}
    errors = {"mse_vae", "mse_diffusion", "mse_prior", "mse_zeros", "mse_uniform"}
    assert rates | errors <= numbers.keys()
    assert all(0 <= numbers[name] <= 1 for name in rates)
    assert numbers["mse_zeros"] == pytest.approx(0.0189, abs=1e-4)
    assert numbers["mse_uniform"] == pytest.approx(0.0185, abs=1e-4)
    assert (numbers["data"], numbers["rows_diffusion"]) == ("standin", 20)
    assert "what the prior was asked for above what it draws" in result.stdout
    assert structured("evaluate", *changes(), "--out-dir", trained).stdout == result.stdout  # the same every time


def test_sample_writes_rows_of_the_data_set_s_schema(trained, tmp_path):
    out = tmp_path / "waves.csv"
    flags = ("--type", "wave_4", "--num", 3, "--out", out, "--out-dir", trained)
    result = structured("sample", *changes(), *flags)
    assert_succeeds(result)
    rows = list(csv.DictReader(out.open()))
    assert {row["type"] for row in rows} == {"wave_4"}
    assert [row["part"] for row in rows] == [
        part for part in ("combined_mode_wave", "cosine_part", "sine_part") for _ in range(3)
    ]
    assert all(row["expr"] in result.stdout for row in rows)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--type", "wave_5"), "--type: unknown type 'wave_5': did you mean wave_4?"),
        (("--part", "sin"), "--part: unknown part 'sin': did you mean sine?"),
        (("--type", "burgers", "--part", "ux"), "no type burgers with part ux: there are average, shock_term"),
    ],
)
def test_what_cannot_be_drawn_is_refused(flags, says, trained):
    assert_refused(structured("sample", *changes(), *flags, "--out-dir", trained), says)


def test_figures(trained, tmp_path):
    assert_succeeds(structured("figures", *changes(), "--out-dir", trained, "--to", tmp_path))
    names = {path.name: path.read_bytes()[:4] for path in tmp_path.iterdir()}
    assert names == {name: b"\x89PNG" for name in ("latents.png", "conditions.png", "denoising.png")}


def test_a_pair_of_files_is_built_and_trained_on(tmp_path):
    assert_succeeds(structured("build", *changes(), "--out-dir", tmp_path))
    pair = changes(data__csv=tmp_path / "expressions.csv", data__hdf5=tmp_path / "expressions.h5", vae__epochs=1)
    result = structured("train", *pair, "--only", "vae", "--out-dir", tmp_path)
    assert_succeeds(result)
    assert "expressions.h5: 1000 rows" in result.stdout


def test_productions_of_another_grammar_go_all_the_way(tmp_path):
    assert_succeeds(structured("build", *changes(), "--out-dir", tmp_path))
    with h5py.File(tmp_path / "expressions.h5", "r+") as file:
        backwards = file["data"][()][..., [*range(51, -1, -1), 52]]
        del file["data"], file.attrs["productions"]
        file["data"] = backwards
    pair = changes(data__csv=tmp_path / "expressions.csv", data__hdf5=tmp_path / "expressions.h5")
    assert_succeeds(structured("train", *pair, "--out-dir", tmp_path))
    result = structured("evaluate", *pair, "--out-dir", tmp_path, "--json", tmp_path / "m.json")
    assert_succeeds(result)
    assert "nothing can be written as text" in result.stdout
    assert "valid_rate" not in json.loads((tmp_path / "m.json").read_text())
    assert_refused(structured("sample", *pair, "--out-dir", tmp_path), "another grammar")


# -- what is wrong ------------------------------------------------------------------------------------------------


def test_an_unknown_key_or_command_is_one_line():
    assert_refused(structured("train", "--set", "vae.epoch=2"), "no key vae.epoch: did you mean vae.epochs?")
    assert_refused(structured("trian"), "no command trian: did you mean train?")
    assert_refused(structured("train", "--nonsense"), "unrecognized arguments: --nonsense")
    assert_refused(structured("train", "--config", "none.yaml"), "cannot read none.yaml")


def test_a_checkpoint_of_another_track_is_refused(copied, tiny):
    path = copied / "vae/vae_best.pt"
    shutil.copy(copied / "prior/prior_best.pt", path)
    says = (path, "holds a structured_prior model where a structured_vae one is needed", "extensions.structured train")
    assert_refused(structured("evaluate", *changes(), "--out-dir", copied), *says)
    shutil.copy(tiny.checkpoint("vae"), path)
    assert_refused(structured("evaluate", *changes(), "--out-dir", copied), "holds a vae model", "structured_vae")
    path.write_bytes(b"nothing")
    assert_refused(structured("evaluate", *changes(), "--out-dir", copied), path, "is damaged")


def test_rows_that_a_model_may_have_seen_are_refused(trained):
    result = structured("evaluate", *changes(), "--out-dir", trained, "--seed", 7)
    assert_refused(result, "vae_best.pt was trained on another data set or split")


def test_before_training_the_commands_say_what_to_run(tmp_path):
    for verb in ("evaluate", "sample", "figures"):
        result = structured(verb, *changes(), "--out-dir", tmp_path)
        assert_refused(result, "no checkpoint at", "make it with python -m extensions.structured train")


def test_help_names_every_command():
    result = structured("--help")
    assert_succeeds(result)
    for verb in ("build", "train", "sample", "evaluate", "figures"):
        assert f"extensions.structured {verb} " in result.stdout


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path):
    structured.assert_two_processes_are_one_run(STAGES, tmp_path)


def test_a_package_that_is_not_there_is_one_line():
    """Without site-packages there is no h5py."""
    command = [sys.executable, "-S", "-m", "extensions.structured", "train"]
    result = subprocess.run(command, cwd=ROOT, env=child_env(), capture_output=True, text=True, timeout=60, check=False)
    says = "extensions: error: h5py is not installed: pip install -r requirements-extensions.txt\n"
    assert (result.returncode, result.stderr) == (1, says)
