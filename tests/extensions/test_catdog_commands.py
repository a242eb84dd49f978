"""The commands of the track: every setting trains and is read, runs go on where they stopped, errors are one line."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from extensions.blocks import losses
from extensions.blocks.features import VGG16, VGG16Features
from extensions.catdog import evaluate, figures, train
from extensions.catdog.data import TRACK
from extensions.catdog.models import LabelledVAE
from extensions.catdog.track import STAGES
from extensions.catdog.trained import encode, load_diffusion, load_judge, load_vae
from harness import assert_same_run, assert_succeeds, load, metrics
from HW3.diffusion import GaussianDiffusion
from HW3.generate import draw
from HW3.metrics import frechet_distance
from HW3.plumbing.run import Run
from HW3.viz import latent_map
from tracks import catdog, keys, read_keys, who_moves

CPU = torch.device("cpu")


changes, assert_refused = catdog.changes, catdog.assert_refused


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    """Few resamples, and no t-SNE: the commands are looked at, and not what is learnt."""

    def few(features, reference, name, resamples):
        return frechet_distance(features, reference, name, min(resamples, 3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extensions.catdog.evaluate.frechet_distance", few)
        patch.setattr("extensions.catdog.train.tsne", lambda points: points[:, :2])
        yield


@pytest.fixture(scope="module")
def trained(_quickly, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("catdog")
    assert_succeeds(catdog("train", *changes(), "--out-dir", out_dir))
    return out_dir


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def data():
    return TRACK.load(catdog.settings(TRACK.folder).data, Path("nowhere"), 42)


# -- settings ------------------------------------------------------------------------------------------------


def test_every_key_is_read_by_a_command(tmp_path, monkeypatch):
    """A feature that is in the YAML only would be a key that nobody looks at."""
    seen = read_keys(train, monkeypatch)
    few = [*changes(**{f"{stage}__epochs": 1 for stage in STAGES}), "--out-dir", tmp_path]
    assert_succeeds(catdog("train", *few))
    assert_succeeds(catdog("evaluate", *few))
    assert keys(TRACK.folder) - seen == set()


def test_quick_changes_what_default_has():
    default = yaml.safe_load((TRACK.folder / "default.yaml").read_text())
    assert keys(TRACK.folder, "quick") <= keys(TRACK.folder)
    vae = default["vae"]
    assert (vae["latent_dim"], vae["widths"]) == (256, [64, 128, 256, 512])
    assert (default["diffusion"]["timesteps"], vae["centre_decay"]) == (1000, 0.9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("vae.epoch=2", "no key vae.epoch: did you mean vae.epochs?"),
        ("vae.center_weight=[[0.0, 0.1]]", "no key vae.center_weight: did you mean vae.centre_weight?"),
        ("data.source=cifar", "data.source cannot be 'cifar': did you mean cifar10?"),
        ("vae.kl_weight=0.1", "vae.kl_weight must be a list"),
        ("vae.kl_weight=[[0.5, 1.0], [0.2, 1.0]]", "vae.kl_weight: the shares of the run must grow"),
        ("data.image_size=64", "4 widths of a VAE make images of 32 pixels, and these have 64"),
        ("vae.ema=1", "vae.ema must be below 1"),
        ("data.validation=0", "data.validation must be above 0"),
        ("perceptual.features=resnet", "perceptual.features cannot be 'resnet'"),
        ("perceptual.weights=x.pth", "perceptual.weights is read with perceptual.features auto or vgg16"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(change, says, tmp_path):
    assert_refused(catdog("train", *changes(), "--set", change, "--out-dir", tmp_path), says)
    assert list(tmp_path.iterdir()) == []


# -- training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_every_config_trains_two_steps(flags, tmp_path, monkeypatch):
    """The models as they are, on 8 pictures of the stand-in in two batches."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # whatever lies in this machine's
    steps = [f"{stage}.{name}" for stage in STAGES for name in ("epochs=1", "batch_size=4")]
    steps += [
        "diffusion.batch_size=8",
        "data.source=standin",
        "data.standin_images=16",
        "data.validation=0.5",
        "sample.ddim_steps=2",
    ]
    result = catdog("train", *flags, *[flag for step in steps for flag in ("--set", step)], "--out-dir", tmp_path)
    assert_succeeds(result)
    for stage in STAGES:
        optimizer = load(tmp_path / stage / f"{stage}_latest.pt")["optimizer"]
        assert (optimizer["vae"] if stage == "vae" else optimizer)["state"][0]["step"] == 2


def test_what_a_run_leaves(trained):
    assert {path.name for path in trained.iterdir()} == set(STAGES)
    pictures = {"vae": {"reconstruction_epoch_002.png", "latent_space_epoch_002.png"}}
    pictures["diffusion"] = {"samples_epoch_002.png"}
    for stage in STAGES:  # and no `best`: losses of two phases do not compare
        files = {path.name for path in (trained / stage).iterdir()}
        assert files == {f"{stage}_latest.pt", "metrics.jsonl", "loss.png"} | pictures.get(stage, set())
    logged = metrics(trained / "vae")[-1]
    assert logged.keys() >= {"rec", "kl", "val_rec", "val_accuracy", "discriminator_loss"}
    parts = ("kl", "perceptual_loss", "class_loss", "centre_loss", "adversarial_loss")
    assert all(logged[name] > 0 for name in parts)


def test_the_classifier_of_features_is_trained_where_it_is_needed_only(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Run, "epochs", lambda run: seen.append(run.name) or iter(()))
    monkeypatch.setattr("extensions.catdog.train.load_vae", lambda *a: LabelledVAE(2, 32, 6, (4, 8, 8, 8), 8).eval())
    none = changes(vae__perceptual_weight=[[0.0, 0.0]])
    assert_succeeds(catdog("train", *none, "--out-dir", tmp_path))
    assert seen == ["judge", "vae", "diffusion"]


def test_vgg16_gives_the_features_where_its_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    path = tmp_path / VGG16
    torch.save({f"features.{k}": v for k, v in VGG16Features().layers.state_dict().items()}, path)
    seen, original = [], losses.perceptual_loss
    spy = lambda features, *images: seen.append(features.__self__) or original(features, *images)  # noqa: E731
    monkeypatch.setattr(train, "perceptual_loss", spy)
    few = {"data__standin_images": 16, "data__validation": 0.5, "perceptual__features": "auto", "vae__epochs": 1}
    given = changes(**few, perceptual__weights=path)
    assert_succeeds(catdog("train", *given, "--only", "vae", "--out-dir", tmp_path / "run"))
    assert {type(net).__name__ for net in seen} == {"VGG16Features"}
    resumed = catdog("train", *changes(**few), "--only", "vae", "--resume", "--out-dir", tmp_path / "run")
    assert_refused(resumed, "no checkpoint at", "features_latest.pt")
    missing = changes(**few, perceptual__weights=tmp_path / "no.pth")
    refused = catdog("train", *missing, "--only", "vae", "--overwrite", "--out-dir", tmp_path / "run")
    assert_refused(refused, "cannot read", "no.pth", VGG16)
    needed = changes(**{**few, "perceptual__features": "vgg16"})
    refused = catdog("train", *needed, "--out-dir", tmp_path / "other")
    assert_refused(refused, "perceptual.features vgg16 needs its weights", "nothing is downloaded")


@pytest.mark.parametrize("call", [1, 5, 9, 11, 13])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(call, trained, tmp_path, monkeypatch):
    """Two steps an epoch and two epochs a stage; 9 and 11 are in the VAE with its centres and its discriminator."""
    catdog.assert_ends_as(trained, STAGES, tmp_path, monkeypatch, stop_at=call)


def test_a_run_does_not_continue_on_other_pictures(copied):
    result = catdog("train", *changes(data__rotation=5), "--resume", "--out-dir", copied)
    assert_refused(result, "was trained with --data-rotation 10.0, not 5.0")
    assert_refused(catdog("train", *changes(), "--out-dir", copied), "--resume", "--overwrite")


def test_a_step_of_one_network_leaves_the_other_alone(trained, tmp_path, monkeypatch):
    run = shutil.copytree(trained, tmp_path / "run")
    moved = who_moves(monkeypatch)
    assert_succeeds(catdog("train", *changes(vae__epochs=1), "--only", "vae", "--overwrite", "--out-dir", run))
    assert moved == [{"discriminator"}, {"vae"}] * 2


def test_a_weight_of_0_keeps_a_loss_out(trained, tmp_path):
    """The classifier's head moves where its weight is above 0, and there only."""
    heads = {}
    for weight in (0.0, 0.1):
        run = shutil.copytree(trained, tmp_path / str(weight))
        none = {f"vae__{name}_weight": [[0.0, 0.0]] for name in ("adversarial", "centre", "perceptual")}
        flags = changes(**none, vae__class_weight=[[0.0, weight]], vae__weight_decay=0, vae__epochs=1)
        assert_succeeds(catdog("train", *flags, "--only", "vae", "--overwrite", "--out-dir", run))
        heads[weight] = load(run / "vae/vae_latest.pt")["model"]["vae.head.0.weight"]
    torch.manual_seed(42)
    start = LabelledVAE(2, 32, 6, (4, 8, 8, 8), 8).head[0].weight
    assert torch.equal(heads[0.0], start)
    assert not torch.equal(heads[0.1], start)


def test_the_centres_are_those_of_the_whole_run_and_no_loss_of_labels(trained):
    state = load(trained / "vae/vae_latest.pt")["model"]
    assert state["vae.centres.is_known"].all()
    centres = state["vae.centres.centres"]
    assert (centres[0] - centres[1]).abs().max() > 0
    assert (centres - torch.tensor([[0.0], [1.0]])).abs().max() > 1e-3  # not the numbers of the classes


def test_gradients_are_clipped_after_they_are_complete(trained, tmp_path, monkeypatch):
    """Averaged over processes first, then clipped, then used."""
    order = []
    for name in ("average_gradients", "clip_grad_norm_"):
        original = getattr(train, name)
        spy = lambda *a, name=name, original=original, **k: order.append(name) or original(*a, **k)  # noqa: E731
        monkeypatch.setattr(train, name, spy)
    run = shutil.copytree(trained, tmp_path / "run")
    flags = changes(vae__epochs=1, vae__adversarial_weight=[[0.0, 0.0]])
    assert_succeeds(catdog("train", *flags, "--only", "vae", "--overwrite", "--out-dir", run))
    assert order == ["average_gradients", "clip_grad_norm_"] * 2


def test_drawing_leaves_the_random_state_alone(trained, tmp_path):
    """With pictures after every epoch and with none in between, training is the same."""
    every = changes(vae__sample_every=1, diffusion__sample_every=1)
    assert_succeeds(catdog("train", *every, "--out-dir", tmp_path))
    assert (tmp_path / "vae/latent_space_epoch_001.png").is_file()
    assert (tmp_path / "diffusion/samples_epoch_001.png").is_file()
    for stage in STAGES:
        assert_same_run(tmp_path / stage, trained / stage, f"{stage}_latest.pt")
    model = load_diffusion(TRACK, trained, CPU, catdog.settings(TRACK.folder))
    before = torch.get_rng_state()
    draw(model.drawer, 3, CPU, labels=model.labels(3))
    figures.way_back(model, model.labels(2), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_show_both_classes_also_where_the_files_are_in_order(trained, monkeypatch):
    """A folder's validation pictures are all cats first, and then all dogs."""
    images = data().train
    order = images.labels.argsort()
    images = replace(images, images=images.images[order], labels=images.labels[order])
    seen = []
    spy = lambda maps, labels, names: seen.append(labels.bincount()) or latent_map(maps, labels, names)  # noqa: E731
    monkeypatch.setattr(train, "latent_map", spy)
    monkeypatch.setattr(train, "MAPPED", 60)
    train.latent_space(load_vae(TRACK, trained, CPU), images)
    assert seen[0].min() > 15


def test_diffusion_learns_latents_standardised_over_all_training_pictures(copied, monkeypatch):
    """Not noise, not raw latents, and not a batch's own mean: each x_0 is a picture's, or that of its mirror image."""
    seen, loss = [], GaussianDiffusion.training_loss

    def spy(self, x0, *args, **kwargs):
        seen.append((x0, kwargs["cond"]))
        return loss(self, x0, *args, **kwargs)

    monkeypatch.setattr(GaussianDiffusion, "training_loss", spy)
    flags = changes(diffusion__epochs=1, diffusion__batch_size=50)
    assert_succeeds(catdog("train", *flags, "--only", "diffusion", "--overwrite", "--out-dir", copied))
    u, cond = (torch.cat(parts) for parts in zip(*seen[:-1]))  # the last call is validation
    torch.testing.assert_close(u.mean(dim=0), torch.zeros(6), atol=1e-3, rtol=0)
    assert (seen[0][0].mean(dim=0).abs() > 0.01).any()  # of one batch
    cache = encode(load_vae(TRACK, copied, CPU), train.both_ways(data().train))
    expected = (cache.mu - cache.mu.mean(dim=0)) / cache.mu.std(dim=0, correction=0)
    nearest = torch.cdist(u, expected).min(dim=1)
    assert nearest.values.max() < 1e-2
    assert torch.equal(cond.argmax(dim=1), cache.labels[nearest.indices])


# -- the other commands ------------------------------------------------------------------------------------------


def test_saved_models_load_and_draw(trained):
    model = load_diffusion(TRACK, trained, CPU, catdog.settings(TRACK.folder), data())
    assert load_judge(TRACK, trained, CPU, data()).judge(torch.rand(2, 3, 32, 32))[0].shape == (2, 64)
    images, _ = draw(model.drawer, 3, CPU, labels=model.labels(3))
    assert images.shape == (3, 3, 32, 32)
    assert (model.labels(3).tolist(), model.labels(2, 1).tolist()) == ([0, 1, 0], [1, 1])
    saved = load(trained / "vae/vae_latest.pt")["ema"]
    assert torch.equal(model.vae.to_mu.weight, saved["to_mu.weight"])  # of the end of the run
    assert not model.vae.training


def test_evaluate_writes_plain_names(trained, tmp_path):
    result = catdog("evaluate", *changes(), "--out-dir", trained, "--json", tmp_path / "m.json")
    assert_succeeds(result)
    numbers = json.loads((tmp_path / "m.json").read_text())
    rates = {"latent_accuracy", "class_agreement", "judge_accuracy", "judge_accuracy_reconstruction"}
    rates |= {"class_agreement_cat", "class_agreement_dog", "class_agreement_fitted"}
    distances = {"frechet_distance", *(f"frechet_distance_{n}" for n in ("real", "reconstruction", "fitted"))}
    assert rates | distances <= numbers.keys()
    assert all(0 <= numbers[name] <= 1 for name in rates)
    assert all(numbers[name] >= 0 for name in distances)
    of_both = (numbers["class_agreement_cat"] + numbers["class_agreement_dog"]) / 2
    assert numbers["class_agreement"] == pytest.approx(of_both)
    assert (numbers["data"], numbers["samples"]) == ("standin", 70)
    assert catdog("evaluate", *changes(), "--out-dir", trained).stdout == result.stdout  # the same every time


def test_evaluate_asks_the_judge_of_what_was_drawn(trained, tmp_path, monkeypatch):
    """A model that draws held-out pictures of the class that was asked for agrees as often as the judge is right."""
    test = data().test.batch(slice(None))[0]
    cats, dogs = (test[data().test.labels == label] for label in range(2))

    def real(drawer, num, device, labels, **more):
        return torch.stack([(cats, dogs)[label][k % len(cats)] for k, label in enumerate(labels.tolist())]), None

    monkeypatch.setattr(evaluate, "draw", real)
    judge = load_judge(TRACK, trained, CPU, data())
    right = judge.judge(torch.cat([cats, dogs]))[1] == torch.arange(2).repeat_interleave(len(cats))
    out = tmp_path / "m.json"
    assert_succeeds(catdog("evaluate", *changes(evaluate__samples=2 * len(test)), "--out-dir", trained, "--json", out))
    numbers = json.loads(out.read_text())
    assert numbers["judge_accuracy"] == pytest.approx(right.double().mean().item())
    assert numbers["class_agreement"] == pytest.approx(numbers["judge_accuracy"])


def test_sample_draws_a_grid_and_single_pictures(trained, tmp_path):
    flags = ("--out", tmp_path / "all.png", "--out-dir", trained)
    assert_succeeds(catdog("sample", *changes(), *flags))
    assert Image.open(tmp_path / "all.png").size == (8 * 34 + 2, 8 * 34 + 2)
    flags = ("--num", 11, "--single", "--label", "dog", "--out", tmp_path / "dogs", "--out-dir", trained)
    assert_succeeds(catdog("sample", *changes(), *flags))
    files = sorted((tmp_path / "dogs").iterdir())
    assert [path.name for path in files] == [f"{k:02d}.png" for k in range(11)]
    assert all((Image.open(path).size, Image.open(path).mode) == ((32, 32), "RGB") for path in files)


def test_what_cannot_be_drawn_is_refused(trained):
    flags = (*changes(), "--out-dir", trained)
    assert_refused(catdog("sample", *flags, "--label", "dgo"), "there is no class 'dgo': did you mean dog?")
    assert_refused(catdog("sample", *flags, "--out", "x.jpg"), "must end in .png")
    steps = catdog("sample", *changes(sample__ddim_steps=21), "--out-dir", trained)
    assert_refused(steps, "sample.ddim_steps 21 is outside 1 to 20")


def test_figures(trained, tmp_path):
    assert_succeeds(catdog("figures", *changes(), "--out-dir", trained, "--to", tmp_path))
    names = {f"{name}.png" for name in ("reconstruction", "latents", "samples", "losses")}
    names |= {name for c in ("cat", "dog") for name in (f"denoising_{c}.png", f"animation_{c}.gif")}
    assert {path.name for path in tmp_path.iterdir()} == names
    starts = {".png": b"\x89PNG", ".gif": b"GIF8"}
    assert all(path.read_bytes()[:4] == starts[path.suffix] for path in tmp_path.iterdir())


# -- the way back from noise --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def way(trained):
    model = load_diffusion(TRACK, trained, CPU, catdog.settings(TRACK.folder))
    return model, figures.way_back(model, model.labels(3, 1), 7)


def test_the_way_is_one_run_of_the_sampler_from_pure_noise_to_the_sample(way):
    model, found = way
    noise = torch.randn(3, 6, generator=torch.Generator().manual_seed(7))
    assert torch.equal(found.states[0], noise)
    assert found.times == [19, 12, 6, 0, -1]
    # Each state follows from the one before by a step of DDIM: nothing is begun anew, and nothing noised again.
    diffusion, cond = model.drawer.diffusion, model.drawer.texts[found.labels]
    with torch.no_grad():
        for k, (t, then) in enumerate(zip(found.times, found.times[1:])):
            at, to = (torch.full((3,), value) for value in (t, then))
            eps = diffusion.model_eps(found.states[k], at, cond)
            step = diffusion.ddim_step(found.states[k], at, to, eps)
            torch.testing.assert_close(step, found.states[k + 1], atol=1e-4, rtol=1e-4)
    drawn, _ = draw(model.drawer, 3, CPU, labels=found.labels, seed=7)
    torch.testing.assert_close(model.drawer.decode(found.states[-1]), drawn)


@torch.no_grad()
def test_the_gif_shows_that_way(way, monkeypatch):
    model, found = way
    seen, original = [], figures.gif
    monkeypatch.setattr(figures, "gif", lambda frames, **more: seen.append(frames) or original(frames, **more))
    content = figures.animation(model, found)
    (frames,) = seen
    assert len(frames) == len(found.states) == Image.open(io.BytesIO(content)).n_frames
    for frame, state in zip(frames, found.states):
        torch.testing.assert_close(frame, model.drawer.decode(state))


@torch.no_grad()
def test_the_columns_of_a_denoising_picture_are_of_one_way(way, monkeypatch):
    model, found = way
    seen = []
    monkeypatch.setattr(figures, "show", lambda axes, images, columns, **more: seen.append((images, more)))
    monkeypatch.setattr(GaussianDiffusion, "sample_ddim", lambda *a, **k: pytest.fail("drawn anew"))
    figures.denoising(model, found, encode(model.vae, data().test))
    ((images, more),) = seen
    torch.testing.assert_close(images, model.drawer.decode(found.states[:, 0]))
    assert more["column_names"] == ["t = 19", "t = 12", "t = 6", "t = 0", "x"]


# -- what is wrong ------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_track_is_refused(copied, tiny):
    path = copied / "diffusion/diffusion_latest.pt"
    shutil.copy(copied / "vae/vae_latest.pt", path)
    says = (path, "holds a catdog_vae model where a catdog_diffusion one is needed", "extensions.catdog train")
    assert_refused(catdog("sample", *changes(), "--out-dir", copied), *says)
    shutil.copy(tiny.checkpoint("latent_diffusion"), path)
    assert_refused(catdog("sample", *changes(), "--out-dir", copied), "holds a latent_diffusion model")
    path.write_bytes(b"nothing")
    assert_refused(catdog("evaluate", *changes(), "--out-dir", copied), path, "is damaged")


def test_models_of_other_pictures_are_refused(trained):
    result = catdog("evaluate", *changes(data__standin_images=340), "--out-dir", trained)
    assert_refused(result, "judge_latest.pt was trained on other images (standin, 32 pixels)")


def test_before_training_the_commands_say_what_to_run(tmp_path):
    for verb in ("evaluate", "sample", "figures"):
        result = catdog(verb, *changes(), "--out-dir", tmp_path)
        assert_refused(result, "no checkpoint at", "make it with python -m extensions.catdog train")
    result = catdog("train", *changes(), "--only", "diffusion", "--out-dir", tmp_path)
    assert_refused(result, "no checkpoint at", "vae_latest.pt")


def test_pictures_that_are_too_few_are_one_line(tmp_path):
    result = catdog("train", *changes(data__standin_images=20), "--out-dir", tmp_path)
    assert_refused(result, "data.validation: of 19 images 1 are too few to look at", code=1)


def test_an_unknown_command_is_one_line_and_help_names_every_one():
    assert_refused(catdog("trian"), "no command trian: did you mean train?")
    result = catdog("--help")
    assert_succeeds(result)
    for verb in ("train", "sample", "evaluate", "figures"):
        assert f"extensions.catdog {verb} " in result.stdout


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path):
    catdog.assert_two_processes_are_one_run(STAGES, tmp_path)


def test_small_changes_what_default_has():
    assert set(catdog.small) <= keys(TRACK.folder)
