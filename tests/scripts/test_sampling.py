"""sample.py, on one tiny checkpoint of every kind."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import train_tiny_sd
from harness import assert_one_line, assert_succeeds, load, run_here
from HW3.autoguidance import AutoGuided
from HW3.clip import SimpleCLIP
from HW3.generate import SAMPLERS, draw, load_image_model
from HW3.plumbing.errors import UsageError
from sample import parse_labels

DRAWING = ("vae", "diffusion", "latent_diffusion", "tiny_sd")
DIFFUSING = DRAWING[1:]


@pytest.fixture
def lively(tiny, tmp_path_factory):
    """Checkpoints with random weights: after two tiny epochs the networks still answer next to nothing."""

    def checkpoint(kind):
        state = load(tiny.checkpoint(kind))
        torch.manual_seed(0)
        for weights in (state["ema"], state["extra"].get("early", {})):
            for weight in weights.values():
                weight.normal_(std=0.1)
        path = tmp_path_factory.mktemp("lively") / "x.pt"
        torch.save(state, path)
        return path

    return checkpoint


def sample(*flags):
    return run_here("sample.py", *flags)


@pytest.mark.parametrize("kind", DRAWING)
def test_npz_holds_images_and_labels(tiny, tmp_path, kind):
    assert_succeeds(sample(tiny.checkpoint(kind), "--num", 12, "--out", tmp_path / "x.npz"))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert set(arrays) == ({"images", "labels"} if kind == "tiny_sd" else {"images"})
        assert arrays["images"].shape == (12, 32, 32)
        assert arrays["images"].dtype == np.uint8
        assert arrays["images"].std() > 0
        if kind == "tiny_sd":
            assert arrays["labels"].dtype == np.int64
            assert arrays["labels"].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("kind", DRAWING)
def test_png_is_a_grid(tiny, tmp_path, kind):
    assert_succeeds(sample(tiny.checkpoint(kind), "--num", 10, "--out", tmp_path / "new" / "x.png"))
    columns = 10 if kind == "tiny_sd" else 8
    rows = -(-10 // columns)
    assert Image.open(tmp_path / "new" / "x.png").size == (34 * columns + 2, 34 * rows + 2)


@pytest.mark.parametrize("kind", DIFFUSING)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gif_is_the_true_trajectory(lively, tmp_path, kind, sampler):
    common = (lively(kind), "--num", 4, "--sampler", sampler)
    assert_succeeds(sample(*common, "--out", tmp_path / "x.gif"))
    assert_succeeds(sample(*common, "--out", tmp_path / "x.png"))
    with Image.open(tmp_path / "x.gif") as gif, Image.open(tmp_path / "x.png") as png:
        assert gif.n_frames >= 4
        first = np.asarray(gif.convert("L"), dtype=float)
        gif.seek(gif.n_frames - 1)
        last = np.asarray(gif.convert("L"), dtype=float)
        assert np.abs(last - np.asarray(png.convert("L"), dtype=float)).max() <= 1
        assert np.abs(first - last).mean() > 1


@pytest.mark.parametrize("kind", DRAWING)
def test_seed_decides(tiny, tmp_path, kind):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert_succeeds(sample(tiny.checkpoint(kind), "--num", 3, "--seed", seed, "--out", tmp_path / f"{name}.npz"))
    a, b, c = (np.load(tmp_path / f"{name}.npz")["images"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_labels_steps_sampler_and_eta_matter(lively, tmp_path):
    common = (lively("tiny_sd"), "--num", 6, "--labels", "4,2", "--out", tmp_path / "x.npz")
    drawn = []
    for flags in (
        (),
        ("--steps", 7),
        ("--ddim-eta", 1),
        ("--x0-scale", 1.1),
        ("--sampler", "ddpm"),
        ("--sampler", "dpm"),
        ("--sampler", "dpm", "--steps", 7),
    ):
        assert_succeeds(sample(*common, *flags))
        with np.load(tmp_path / "x.npz") as arrays:
            assert arrays["labels"].tolist() == [4, 2, 4, 2, 4, 2]
            drawn.append(arrays["images"].tobytes())
    assert len(set(drawn)) == len(drawn)


def test_guidance_is_the_flag_or_that_of_training(tiny):
    path, cpu = tiny.checkpoint("tiny_sd"), torch.device("cpu")
    assert load_image_model(path, cpu, import_module).diffusion.model.scale == load(path)["args"]["guidance_scale"]
    assert load_image_model(path, cpu, import_module, 9.0).diffusion.model.scale == 9
    assert load_image_model(path, cpu, import_module, guidance_until=0.5).diffusion.model.until == 10, "of T = 20"


@pytest.mark.parametrize("kind", DIFFUSING)
def test_eta_is_the_flag_or_that_of_training(kind, lively, tmp_path):
    path = lively(kind)
    state = load(path)
    assert state["args"]["ddim_eta"] == 0
    drawn = {}
    for trained in (0.0, 0.5):
        state["args"]["ddim_eta"] = trained
        torch.save(state, path)
        for flags in ((), ("--ddim-eta", 0), ("--ddim-eta", 0.5)):
            assert_succeeds(sample(path, "--num", 3, "--out", tmp_path / "x.npz", *flags))
            drawn[trained, flags[1:]] = np.load(tmp_path / "x.npz")["images"].tobytes()
    assert drawn[0.0, ()] == drawn[0.0, (0,)] == drawn[0.5, (0,)]
    assert drawn[0.5, ()] == drawn[0.0, (0.5,)] == drawn[0.5, (0.5,)]
    assert drawn[0.0, ()] != drawn[0.5, ()]


@pytest.mark.parametrize("kind", DIFFUSING)
def test_the_stretch_of_x0_is_the_flag_or_that_of_training(kind, lively):
    path, cpu = lively(kind), torch.device("cpu")
    assert load_image_model(path, cpu, import_module).diffusion.x0_scale == load(path)["args"]["x0_scale"] == 1
    assert load_image_model(path, cpu, import_module, x0_scale=1.5).diffusion.x0_scale == 1.5
    state = load(path)
    state["args"]["x0_scale"] = 1.25
    torch.save(state, path)
    assert load_image_model(path, cpu, import_module).diffusion.x0_scale == 1.25
    del state["args"]["x0_scale"]  # as a run had it before there was any
    torch.save(state, path)
    assert load_image_model(path, cpu, import_module).diffusion.x0_scale == 1


def test_clips_tries_are_the_flag_or_those_of_training(lively):
    path, cpu = lively("tiny_sd"), torch.device("cpu")
    assert load_image_model(path, cpu, import_module).tries == load(path)["args"]["clip_tries"] == 1
    assert load_image_model(path, cpu, import_module, clip_tries=3).tries == 3
    state = load(path)
    del state["args"]["clip_tries"]  # as a run had it before there were any
    torch.save(state, path)
    assert load_image_model(path, cpu, import_module).tries == 1


class Looks(SimpleCLIP):
    """Says how sure it is of each row's label, a list for each time that it is asked; and remembers the images."""

    def __init__(self, labels: Tensor, *sure: list[float]) -> None:
        super().__init__()
        self.labels, self.sure, self.seen = labels, list(sure), []

    def probabilities(self, images: Tensor) -> Tensor:
        self.seen.append(images.clone())
        return torch.tensor(self.sure.pop(0))[:, None] * F.one_hot(self.labels, 10)


def test_what_clip_is_not_sure_of_is_drawn_again_and_nothing_else(lively):
    cpu, labels = torch.device("cpu"), torch.tensor([7, 0, 3])
    once = load_image_model(lively("tiny_sd"), cpu, import_module)
    as_is, _ = draw(once, 3, cpu, labels=labels)
    clip = Looks(labels, [0.85, 0.75, 0.1], [0.0, 0.85, 0.2], [0.85, 0.85, 0.85])
    shown: list[Tensor] = []
    checked = replace(once, clip=clip, tries=9)
    images, movie = draw(checked, 3, cpu, labels=labels, frames=4, on_frame=shown.append)
    first, second, third = clip.seen
    assert torch.equal(first, as_is)
    assert [changed(first, second), changed(second, third)] == [[1, 2], [0, 2]]
    assert torch.equal(images, third)
    assert torch.equal(movie[-1], images), "the way is that of what is returned"
    assert len(shown) == len(movie)
    assert torch.equal(draw(replace(checked, clip=None), 3, cpu, labels=labels)[0], as_is)


def changed(before: Tensor, after: Tensor) -> list[int]:
    """Which images differ."""
    return (before != after).flatten(1).any(dim=1).nonzero().flatten().tolist()


def test_clip_is_never_sure_and_drawing_ends_with_a_word_about_it(lively, capsys):
    cpu, labels = torch.device("cpu"), torch.tensor([7, 0, 1])
    clip = Looks(labels, *[[0.5, 0.9, float("nan")]] * 3)
    model = replace(load_image_model(lively("tiny_sd"), cpu, import_module), clip=clip, tries=3)
    images, _ = draw(model, 3, cpu, labels=labels, progress=True)
    assert clip.sure == []
    assert changed(clip.seen[0], clip.seen[1]) == changed(clip.seen[1], images) == [0, 2]
    assert capsys.readouterr().out == "CLIP is not sure of 2 of 3 images, after 3 tries each\n"


@pytest.mark.parametrize("kind", DIFFUSING)
def test_autoguidance_is_the_flag_or_that_of_training(kind, lively):
    path, cpu = lively(kind), torch.device("cpu")
    state = load(path)
    assert not any(
        isinstance(module, AutoGuided) for module in load_image_model(path, cpu, import_module).diffusion.modules()
    )
    model = load_image_model(path, cpu, import_module, autoguidance=2.0)
    [guided] = [module for module in model.diffusion.modules() if isinstance(module, AutoGuided)]
    assert (guided.scale, guided.until) == (2, 16), "of T = 20"
    for ours, theirs in ((guided.model, state["ema"]), (guided.early, state["extra"]["early"])):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())
    del state["extra"]["early"]  # as a run had it before there was any
    torch.save(state, path)
    load_image_model(path, cpu, import_module)
    with pytest.raises(UsageError, match="holds no earlier version"):
        load_image_model(path, cpu, import_module, autoguidance=2.0)


def test_a_script_that_knows_no_limit_of_guidance_is_not_given_one(tiny):
    """A submission's train_tiny_sd.py may be older than the limit."""

    class Older(train_tiny_sd.GuidedModel):
        def __init__(self, model, scale):
            super().__init__(model, scale)

    older = SimpleNamespace(EpsMLPCond=train_tiny_sd.EpsMLPCond, GuidedModel=Older)
    model = load_image_model(tiny.checkpoint("tiny_sd"), torch.device("cpu"), lambda name: older)
    assert isinstance(model.diffusion.model, Older)


def test_the_average_is_what_is_drawn(tiny):
    path = tiny.checkpoint("diffusion")
    checkpoint = load(path)
    drawn = load_image_model(path, torch.device("cpu"), import_module).diffusion.model.state_dict()
    assert checkpoint["ema"] is not None
    for name, value in drawn.items():
        assert torch.equal(value, checkpoint["ema"][name])


def test_labels_are_parsed():
    assert parse_labels("all") == list(range(10))
    assert parse_labels("7") == [7]
    assert parse_labels("0, 9,0") == [0, 9, 0]


@pytest.mark.parametrize(
    ("kind", "flags", "says"),
    [
        ("tiny_sd", ("--labels", "3,10"), "0 to 9"),
        ("tiny_sd", ("--labels", "-1"), "0 to 9"),
        ("tiny_sd", ("--labels", "three"), "--labels three"),
        ("tiny_sd", ("--steps", "21"), "1 to 20"),
        ("tiny_sd", ("--sampler", "ddpm", "--steps", "5"), "--sampler ddim"),
        ("tiny_sd", ("--sampler", "dpm", "--ddim-eta", "1"), "dpm adds no noise"),
        ("diffusion", ("--labels", "3"), "takes no labels"),
        ("diffusion", ("--guidance-scale", "2"), "tiny_sd"),
        ("diffusion", ("--guidance-until", "0.5"), "tiny_sd"),
        ("latent_diffusion", ("--clip-tries", "2"), "tiny_sd"),
        ("tiny_sd", ("--clip-tries", "0"), "1 or more"),
        ("vae", ("--autoguidance", "2"), "no earlier version"),
        ("diffusion", ("--out", "x.jpg"), ".npz, .png or .gif"),
        ("diffusion", ("--num", "0"), "1 or more"),
        ("vae", ("--steps", "5"), "one step"),
        ("vae", ("--ddim-eta", "1"), "one step"),
        ("vae", ("--x0-scale", "1.1"), "one step"),
        ("vae", ("--out", "x.gif"), "one step"),
        ("clip", (), "draws none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tiny, tmp_path, monkeypatch, kind, flags, says):
    monkeypatch.chdir(tmp_path)
    assert_one_line(sample(tiny.checkpoint(kind), "--out", "x.png", *flags), 2, says)
    assert list(tmp_path.iterdir()) == []
