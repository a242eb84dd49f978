"""The same commands with another track's data and settings: CelebA, 64 pixels, a discriminator that plays."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image

from extensions.catdog.data import TRACK as CATDOG
from extensions.catdog.models import VAEGAN
from extensions.catdog.track import STAGES
from extensions.catdog.trained import load_vae
from extensions.faces.data import TRACK
from harness import assert_succeeds, load, metrics
from tracks import catdog, faces, keys, write_celeba

changes, assert_refused = faces.changes, faces.assert_refused


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extensions.catdog.evaluate.RESAMPLES", 3)
        patch.setattr("extensions.catdog.train.tsne", lambda points: points[:, :2])
        yield


@pytest.fixture(scope="module")
def trained(_quickly, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("faces")
    assert_succeeds(faces("train", *changes(), "--out-dir", out_dir))
    return out_dir


def settings_of(track, name):
    return yaml.safe_load((track.folder / f"{name}.yaml").read_text())


def test_the_settings_are_those_of_catdog_but_for_the_data():
    default, other = settings_of(TRACK, "default"), settings_of(CATDOG, "default")
    assert {name: list(section) for name, section in default.items() if name != "data"} == {
        name: list(section) for name, section in other.items() if name != "data"
    }
    assert keys(TRACK.folder, "quick") <= keys(TRACK.folder)
    assert default["vae"]["adversarial_weight"][-1][1] > 0
    assert other["vae"]["adversarial_weight"] == [[0.0, 0.0]]
    assert default["data"]["attribute"] == "Smiling"
    assert default["vae"]["widths"] == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize("flags", [pytest.param([], marks=pytest.mark.slow), ["--quick"]])  # 80 million parameters
def test_every_config_trains_two_steps(flags, tmp_path, monkeypatch):
    """The models as they are, on 8 pictures of the stand-in in two batches; the discriminator plays from the start."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    steps = [f"{stage}.{name}" for stage in STAGES for name in ("epochs=1", "batch_size=4")]
    steps += ["diffusion.batch_size=8", "data.source=standin", "data.standin_images=16", "data.validation=0.5"]
    steps += ["sample.ddim_steps=2", "vae.adversarial_weight=[[0.0, 0.1]]"]
    result = faces("train", *flags, *[flag for step in steps for flag in ("--set", step)], "--out-dir", tmp_path)
    assert_succeeds(result)
    for stage in STAGES:
        optimizer = load(tmp_path / stage / f"{stage}_latest.pt")["optimizer"]
        parts = [optimizer["vae"], optimizer["discriminator"]] if stage == "vae" else [optimizer]
        assert all(part["state"][0]["step"] == 2 for part in parts)
    shutil.rmtree(tmp_path)  # a gigabyte


@pytest.mark.parametrize("call", [10, 11])
def test_a_run_that_was_stopped_against_the_discriminator_ends_as_one_that_was_not(
    call, trained, tmp_path, monkeypatch
):
    """Two steps an epoch, two epochs a stage: 10 is between two epochs of the VAE, 11 within one."""
    faces.assert_ends_as(trained, STAGES, tmp_path, monkeypatch, stop_at=call)


def test_periodic_and_final_checkpoints_load_again(trained, tmp_path, monkeypatch):
    """Also the one after the first epoch, which `latest` is until the next."""
    device = torch.device("cpu")
    last = load_vae(TRACK, trained, device)
    run = shutil.copytree(trained, tmp_path / "run")
    assert_succeeds(faces("train", *changes(vae__epochs=1), "--only", "vae", "--overwrite", "--out-dir", run))
    first = load_vae(TRACK, run, device)
    x = torch.rand(2, 3, 64, 64)
    assert first(x)[0].shape == last(x)[0].shape == x.shape
    assert not torch.equal(first.to_mu.weight, last.to_mu.weight)
    checkpoint = load(run / "vae/vae_latest.pt")
    nets = VAEGAN(first, [4, 8])
    nets.load_state_dict(checkpoint["model"])  # the discriminator, too
    assert checkpoint["optimizer"].keys() == {"vae", "discriminator"}


def test_the_discriminator_plays_when_its_phase_comes(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    flags = changes(vae__adversarial_weight=[[0.4, 0.0], [0.5, 0.1]])
    assert_succeeds(faces("train", *flags, "--only", "vae", "--overwrite", "--out-dir", run))
    first, second = metrics(run / "vae")
    assert first["discriminator_loss"] == first["adversarial_loss"] == 0
    assert second["discriminator_loss"] > 0


def test_celeba_goes_all_the_way(tmp_path, monkeypatch):
    write_celeba(tmp_path / "data", monkeypatch, train=100, test=80)
    more = {f"{stage}__epochs": 1 for stage in STAGES}
    flags = (*changes(data__source="celeba", data__limit=900, **more), "--data-dir", tmp_path / "data")
    flags = (*flags, "--out-dir", tmp_path / "run")
    result = faces("train", *flags)
    assert_succeeds(result)
    assert "celeba: 95 images to train on, 5 to validate, 80 held out; not_smiling, smiling; 64 pixels" in result.stdout
    assert_succeeds(faces("evaluate", *flags, "--json", tmp_path / "m.json"))
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert numbers.keys() >= {"latent_accuracy", "class_agreement", "frechet_distance", "class_agreement_smiling"}
    assert_succeeds(faces("figures", *flags, "--to", tmp_path / "figures"))
    assert (tmp_path / "figures/animation_smiling.gif").is_file()
    out = tmp_path / "smiles.png"
    assert_succeeds(faces("sample", *flags, "--label", "smiling", "--num", 2, "--out", out))
    assert Image.open(out).size == (2 * 66 + 2, 66 + 2)


# -- what is wrong ------------------------------------------------------------------------------------------------


def test_celeba_that_is_not_there_is_one_line(tmp_path):
    result = faces("train", *changes(data__source="celeba"), "--data-dir", tmp_path, "--out-dir", tmp_path / "run")
    assert_refused(result, tmp_path / "celeba", "lacks list_attr_celeba.txt", code=1)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_catdog_is_refused(trained, tmp_path):
    other, flags = tmp_path / "catdog", catdog.changes(judge__epochs=1)
    assert_succeeds(catdog("train", *flags, "--only", "judge", "--out-dir", other))
    run = shutil.copytree(trained, tmp_path / "run")
    path = shutil.copy(other / "judge/judge_latest.pt", run / "judge/judge_latest.pt")
    result = faces("evaluate", *changes(), "--out-dir", run)
    assert_refused(
        result, path, "holds a catdog_judge model where a faces_judge one is needed", "extensions.faces train"
    )


def test_an_unknown_key_of_the_data_and_help():
    assert_refused(faces("train", "--set", "data.atribute=Male"), "no key data.atribute: did you mean data.attribute?")
    assert_refused(faces("train", "--set", "data.folder=x"), "there is no key data.folder")
    for result in (faces("--help"), faces("train", "--help")):
        assert_succeeds(result)
        assert "extensions.faces train" in result.stdout
        assert "extensions.catdog train" not in result.stdout
