"""The commands of the track: every setting trains and is read, runs go on where they stopped, errors are one line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image

from extensions.gan_zoo import train
from extensions.gan_zoo.trained import FOLDER, STAGES, load_trained
from harness import assert_same_run, assert_succeeds, load, metrics
from HW3.data import load_dataset
from HW3.generate import draw
from HW3.metrics import frechet_distance
from tracks import Commands, keys, read_keys, who_moves

CPU = torch.device("cpu")

# The smallest models that still do everything, on 512 of the digits in two batches.
SMALL = {
    "data.source": "digits",
    **{f"{stage}.{name}": value for stage in STAGES for name, value in (("epochs", 2), ("batch_size", 256))},
    **{"vae.latent_dim": 6, "vae.hidden_dim": 16, "gan.latent_dim": 6, "gan.width": 8, "gan.precision": "fp32"},
    **{"diffusion.base_channels": 8, "diffusion.levels": 2, "diffusion.patch_size": 2, "diffusion.timesteps": 20},
    **{"diffusion.precision": "fp32", "sample.ddim_steps": 4},
    **{"evaluate.samples": 80, "sweep.betas": "100 0.001", "sweep.epochs": 1, "sweep.samples": 80},
}


zoo = Commands("gan_zoo", SMALL)
changes, assert_refused = zoo.changes, zoo.assert_refused


@pytest.fixture(scope="module", autouse=True)
def _few_digits():
    """512 training images and 27 to validate, and few resamples: the commands are looked at, and not what is learnt."""

    def few(*args, train=True, **more):
        return load_dataset(*args, train=train, **more).limit(539 if train else 200)

    def quickly(features, reference, name, resamples):
        return frechet_distance(features, reference, name, min(resamples, 3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extensions.gan_zoo.data.load_dataset", few)
        patch.setattr("extensions.gan_zoo.evaluate.frechet_distance", quickly)
        yield


@pytest.fixture(scope="module")
def trained(_few_digits, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("gan_zoo")
    assert_succeeds(zoo("train", *changes(), "--out-dir", out_dir))
    return out_dir


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


# -- settings ------------------------------------------------------------------------------------------------


def test_every_key_is_read_by_a_command(tmp_path, monkeypatch):
    """A feature that is in the YAML only would be a key that nobody looks at."""
    seen = read_keys(train, monkeypatch)
    flags = ("--out-dir", tmp_path)
    few = changes(vae__epochs=1, gan__epochs=1, diffusion__epochs=1, sweep__betas="0.1,")
    assert_succeeds(zoo("train", *few, *flags))
    assert_succeeds(zoo("evaluate", *few, *flags))
    assert_succeeds(zoo("sweep", *few, *flags))
    folder = zoo("train", *few, "--set", "data.source=folder", *flags, "--overwrite")
    assert "there is no folder" in folder.stderr
    assert keys(FOLDER) - seen == set()


def test_quick_changes_what_default_has():
    default = yaml.safe_load((FOLDER / "default.yaml").read_text())
    assert keys(FOLDER, "quick") <= keys(FOLDER)
    assert (default["sample"]["ddim_steps"], default["sample"]["guidance"]) == (50, 2.0)
    assert (default["diffusion"]["schedule"], default["diffusion"]["ema"]) == ("cosine", 0.9999)
    assert (default["vae"]["beta"], default["vae"]["loss"]) == (5e-5, "l2")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("vae.epoch=2", "no key vae.epoch: did you mean vae.epochs?"),
        ("vae.loss=l3", "vae.loss cannot be 'l3': there are l1, l2, bce"),
        ("gan.kind=wgan", "gan.kind cannot be 'wgan': did you mean dcgan?"),
        ("data.source=cifar", "data.source cannot be 'cifar': there are mnist"),
        ("diffusion.schedule=cos", "diffusion.schedule cannot be 'cos'"),
        ("diffusion.ema=1", "diffusion.ema must be below 1"),
        ("data.validation=0", "data.validation must be above 0"),
        ("diffusion.levels=4", "diffusion.levels 4 and diffusion.patch_size 2 need a data.image_size that 16 divides"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(change, says, tmp_path):
    assert_refused(zoo("train", *changes(), "--set", change, "--out-dir", tmp_path), says)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_a_sweep_and_steps_of_a_sampler_are_checked(trained):
    assert_refused(zoo("sweep", *changes(sweep__betas="0.1 x"), "--out-dir", trained), "sweep.betas must be numbers")
    steps = zoo("sample", *changes(sample__ddim_steps=21), "--out-dir", trained)
    assert_refused(steps, "sample.ddim_steps 21 is outside 1 to 20")


# -- training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--quick"], ["--set", "gan.kind=mlp", "--set", "vae.loss=bce"]])
def test_every_config_trains_two_steps(flags, tmp_path, monkeypatch):
    """The models as they are, on 8 images in two batches."""
    few = lambda *args, **more: load_dataset(*args, **more).limit(9)  # noqa: E731
    monkeypatch.setattr("extensions.gan_zoo.data.load_dataset", few)
    steps = [f"{stage}.{name}" for stage in STAGES for name in ("epochs=1", "batch_size=4")]
    steps += ["data.source=digits", "sample.ddim_steps=2", "diffusion.precision=fp32", "gan.precision=fp32"]
    monkeypatch.setattr(train, "SHOWN", 8)
    result = zoo("train", *flags, *[flag for step in steps for flag in ("--set", step)], "--out-dir", tmp_path)
    assert_succeeds(result)
    for stage in STAGES:
        state = load(tmp_path / stage / f"{stage}_latest.pt")["optimizer"]
        for part in state.values() if stage == "gan" else [state]:
            assert part["state"][0]["step"] == 2


def test_what_a_run_leaves(trained):
    assert {path.name for path in trained.iterdir()} == set(STAGES)
    for stage in STAGES:
        files = {path.name for path in (trained / stage).iterdir()}
        assert files >= {f"{stage}_latest.pt", "metrics.jsonl", "loss.png", "samples_epoch_002.png"}
    assert (trained / "vae/reconstruction_epoch_002.png").is_file()
    assert "generator_loss" in metrics(trained / "gan")[0]


@pytest.mark.parametrize("call", [1, 5, 7, 9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(call, trained, tmp_path, monkeypatch):
    """Two steps an epoch and two epochs a stage: 1 is in the VAE, 5 and 7 in the GAN with its two optimisers."""
    zoo.assert_ends_as(trained, STAGES, tmp_path, monkeypatch, stop_at=call)


def test_a_run_does_not_continue_on_other_images(copied):
    result = zoo("train", *changes(data__image_size=32), "--resume", "--out-dir", copied)
    assert_refused(result, "was trained with --data-image-size 28, not 32")
    assert_refused(zoo("train", *changes(), "--out-dir", copied), "--resume", "--overwrite")


def test_a_step_of_one_network_leaves_the_other_alone(tmp_path, monkeypatch):
    """Before and after each of the two steps: who moved."""
    moved = who_moves(monkeypatch)
    assert_succeeds(zoo("train", *changes(gan__epochs=1), "--only", "gan", "--out-dir", tmp_path))
    assert moved == [{"discriminator"}, {"generator"}] * 2


def test_validation_is_over_all_images(tmp_path, monkeypatch):
    """With chunks of 10 the last one has 5 images of 25, and the mean is that of all."""
    monkeypatch.setattr(train, "CHUNK", 10)
    losses = torch.arange(25.0)
    assert train.mean_over(lambda x: x, losses) == 12
    seen, original = [], train.mean_over
    monkeypatch.setattr(train, "mean_over", lambda f, *rows: seen.append(len(rows[0])) or original(f, *rows))
    assert_succeeds(zoo("train", *changes(), "--only", "vae", "--out-dir", tmp_path))
    assert seen == [27, 27]


def test_beta_weighs_an_image_s_kl_in_batches_of_any_size(tmp_path):
    """The first epoch's log: loss = rec + beta kl, with kl of one image, in batches of 256 and of 64."""
    kls = []
    for size in (256, 64):
        out_dir = tmp_path / str(size)
        flags = changes(vae__batch_size=size, vae__beta=2, vae__epochs=1, vae__lr=0)
        assert_succeeds(zoo("train", *flags, "--only", "vae", "--out-dir", out_dir))
        record = metrics(out_dir / "vae")[0]
        assert record["loss"] == pytest.approx(record["rec"] + 2 * record["kl"], rel=1e-5)
        kls.append(record["kl"])
    assert kls[0] == pytest.approx(kls[1], rel=1e-5)  # nothing was learnt, so it is the same images' KL


def test_drawing_leaves_the_random_state_alone(trained, tmp_path):
    """With pictures after every epoch and with none in between, training is the same."""
    every = changes(**{f"{stage}__sample_every": 1 for stage in STAGES})
    assert_succeeds(zoo("train", *every, "--out-dir", tmp_path))
    for stage in STAGES:
        assert (tmp_path / stage / "samples_epoch_001.png").is_file()
        assert_same_run(tmp_path / stage, trained / stage, f"{stage}_latest.pt")
    models = [load_trained(trained, stage, CPU, zoo.settings(FOLDER)) for stage in STAGES]
    before = torch.get_rng_state()
    for model in models:
        draw(model.drawer, 3, CPU, labels=model.labels(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_come_from_the_same_latents_every_epoch(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "save_grid", lambda images, *args, **kwargs: seen.append(images.clone()))
    flags = changes(vae__lr=0, vae__sample_every=1, gan__lr=0, gan__sample_every=1)
    for stage in ("vae", "gan"):
        assert_succeeds(zoo("train", *flags, "--only", stage, "--out-dir", tmp_path))
    assert torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[2], seen[3])


# -- the other commands ------------------------------------------------------------------------------------------


def test_evaluate_writes_plain_names(trained, tmp_path):
    result = zoo("evaluate", *changes(), "--out-dir", trained, "--json", tmp_path / "m.json")
    assert_succeeds(result)
    numbers = json.loads((tmp_path / "m.json").read_text())
    names = {"vae_loss", *(f"frechet_distance_{name}" for name in ("real", *STAGES))}
    assert names <= numbers.keys()
    assert all(numbers[name] > 0 for name in names)
    assert numbers["frechet_distance_real"] == min(numbers[n] for n in names if n.startswith("frechet"))
    assert (numbers["data"], numbers["samples"]) == ("digits", 80)
    assert zoo("evaluate", *changes(), "--out-dir", trained).stdout == result.stdout  # the same every time
    other = zoo("evaluate", *changes(vae__beta=7), "--out-dir", trained)
    assert other.stdout == result.stdout  # the loss is that of training


def test_sample_draws_a_grid_and_single_pictures(trained, tmp_path):
    for model in STAGES:
        out = tmp_path / f"{model}.png"
        flags = ("--model", model, "--out", out, "--out-dir", trained)
        assert_succeeds(zoo("sample", *changes(), *flags))
        assert Image.open(out).size == (12 * 30 + 2, 12 * 30 + 2)
    flags = ("--num", 11, "--single", "--label", 7, "--out", tmp_path / "sevens", "--out-dir", trained)
    assert_succeeds(zoo("sample", *changes(), *flags))
    files = sorted((tmp_path / "sevens").iterdir())
    assert [path.name for path in files] == [f"{k:02d}.png" for k in range(11)]
    assert all(Image.open(path).size == (28, 28) for path in files)


def test_what_cannot_be_drawn_is_refused(trained):
    flags = (*changes(), "--out-dir", trained)
    assert_refused(zoo("sample", *flags, "--label", "seven"), "there is no class 'seven': there are 0, 1")
    assert_refused(zoo("sample", *flags, "--label", "7", "--model", "gan"), "draws what it likes")
    assert_refused(zoo("sample", *flags, "--out", "x.jpg"), "must end in .png")


def test_figures(trained, tmp_path):
    assert_succeeds(zoo("figures", *changes(), "--out-dir", trained, "--to", tmp_path))
    names = {"side_by_side", "reconstruction", "interpolation", "forward", "reverse"}
    names |= {f"grid_{stage}" for stage in STAGES}
    assert {path.stem for path in tmp_path.iterdir()} == names
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in tmp_path.iterdir())


def test_a_sweep_is_a_point_per_weight_and_goes_on(tmp_path):
    result = zoo("sweep", *changes(), "--out-dir", tmp_path)
    assert_succeeds(result)
    found = json.loads((tmp_path / "sweep/l2.json").read_text())
    assert [point["beta"] for point in found["points"]] == [0.001, 100]
    assert found["points"][0]["frechet_distance"] != found["points"][1]["frechet_distance"]
    assert (tmp_path / "sweep/sweep.png").is_file()
    assert_refused(zoo("sweep", *changes(), "--out-dir", tmp_path), "--resume continues it")
    more = changes(sweep__betas="100 0.001 0.01")
    assert_succeeds(zoo("sweep", *more, "--resume", "--out-dir", tmp_path))
    again = json.loads((tmp_path / "sweep/l2.json").read_text())
    assert [point["beta"] for point in again["points"]] == [0.001, 0.01, 100]
    assert again["points"][::2] == found["points"]


def test_a_folder_of_one_s_own_goes_all_the_way(tmp_path):
    for number in range(60):
        for name, value in (("dark", 10), ("light", 200)):
            path = tmp_path / "images" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 30), (value, value + number % 50, value)).save(path)
    flags = (*changes(data__source="folder", data__folder=tmp_path / "images", evaluate__samples=70), "--out-dir",
             tmp_path / "run")  # fmt: skip
    trained = zoo("train", *flags)
    assert_succeeds(trained)
    assert "2 classes, 28 pixels" in trained.stdout
    assert_refused(zoo("evaluate", *flags), "a folder has no judge of its own")
    result = zoo("evaluate", *flags, "--set", "evaluate.judge=digits")
    assert_refused(result, "24 images are too few for a covariance of 64 features")
    assert_succeeds(zoo("sample", *flags, "--label", "light", "--num", 3))


# -- what is wrong ------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_track_is_refused(copied, tiny):
    path = copied / "gan/gan_latest.pt"
    shutil.copy(copied / "vae/vae_latest.pt", path)
    says = (path, "holds a gan_zoo_vae model where a gan_zoo_gan one is needed", "extensions.gan_zoo train")
    assert_refused(zoo("evaluate", *changes(), "--out-dir", copied), *says)
    shutil.copy(tiny.checkpoint("diffusion"), path)
    assert_refused(zoo("evaluate", *changes(), "--out-dir", copied), "holds a diffusion model", "gan_zoo_gan")
    path.write_bytes(b"nothing")
    assert_refused(zoo("sample", *changes(), "--model", "gan", "--out-dir", copied), path, "is damaged")


def test_models_of_other_images_are_refused(trained):
    result = zoo("evaluate", *changes(data__image_size=32), "--out-dir", trained)
    assert_refused(result, "vae_latest.pt was trained on other images (digits, 28 pixels)")


def test_before_training_the_commands_say_what_to_run(tmp_path):
    for verb in ("evaluate", "sample", "figures"):
        result = zoo(verb, *changes(), "--out-dir", tmp_path)
        assert_refused(result, "no checkpoint at", "make it with python -m extensions.gan_zoo train")


def test_a_judge_that_is_not_there_is_one_line(trained):
    result = zoo("evaluate", *changes(evaluate__judge="fashion_mnist"), "--out-dir", trained)
    assert_refused(result, "there is no judge for fashion_mnist", "python -m HW3.judge --dataset fashion_mnist")


def test_an_unknown_command_is_one_line_and_help_names_every_one():
    assert_refused(zoo("trian"), "no command trian: did you mean train?")
    result = zoo("--help")
    assert_succeeds(result)
    for verb in ("train", "sample", "evaluate", "sweep", "figures"):
        assert f"extensions.gan_zoo {verb} " in result.stdout


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path):
    """The GAN's two networks are not called through DDP: their gradients are averaged, so both processes agree."""
    zoo.assert_two_processes_are_one_run(STAGES, tmp_path)
