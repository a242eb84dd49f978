"""Pictures show what was computed, pixel by pixel, and drawing them leaves no trace in the process."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image, ImageSequence
from torch import nn

from harness import ROOT
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.generate import ImageModel, draw, starting_noise, trajectory
from HW3.plumbing.errors import UsageError
from HW3.vae import ConvVAE
from HW3.viz import (
    kl_curve,
    labelled_grid,
    latent_map,
    loss_curves,
    pairs,
    pca,
    save_curves,
    save_gif,
    save_grid,
    save_pairs,
    slerp,
    strips,
    to_uint8,
    tsne,
)

CPU = torch.device("cpu")


class Denoiser(nn.Module):
    """A network that is nobody's, with a layer that behaves otherwise in training."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.Dropout(0.5), nn.Linear(16, size))
        self.shape = shape
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))

    def forward(self, x, t, cond=None):
        shift = 0 if cond is None else cond.mean(dim=1).view(-1, *[1] * len(self.shape))
        return 0.8 * x + self.body(x).view(x.shape) + shift


def pixels(timesteps: int = 12) -> ImageModel:
    process = DiffusionConfig(timesteps=timesteps, image_size=8, beta_start=0.05, beta_end=0.4)
    return ImageModel(lambda x: (x + 1) / 2, None, GaussianDiffusion(Denoiser(1, 8, 8), process), steps=6)


def latents() -> ImageModel:
    """A conditional model of latents, with a VAE as its decoder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = ConvVAE(4)
    vae.decoder[-2].weight.data *= 30  # contrast, so that no two frames are the same picture
    process = DiffusionConfig(timesteps=12, prediction="v", schedule="cosine")
    texts = torch.randn(10, 3, generator=torch.Generator().manual_seed(2))
    return ImageModel(vae.decode, (4,), GaussianDiffusion(Denoiser(4), process), texts, steps=6)


MODELS = {"pixels": pixels, "latents": latents}


def labels_for(model: ImageModel, num: int) -> torch.Tensor | None:
    return None if model.texts is None else torch.arange(num)


def cells(picture: np.ndarray, rows: int, columns: int, size: int) -> torch.Tensor:
    """The images (rows * columns, 1, size, size) of a grid, padding left out. Fails where the grid has another size."""
    assert picture.shape == (rows * (size + 2) + 2, columns * (size + 2) + 2)
    found = [
        picture[2 + r * (size + 2) :, 2 + c * (size + 2) :][:size, :size] for r in range(rows) for c in range(columns)
    ]
    return torch.from_numpy(np.stack(found))[:, None]


# -- what is shown is what was computed ----------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_frames_of_a_gif_are_the_trajectory(kind, sampler, tmp_path):
    model = MODELS[kind]()
    images, movie = draw(model, 6, CPU, labels=labels_for(model, 6), sampler=sampler, frames=7, seed=3)
    save_gif(movie, tmp_path / "way.gif", columns=3)
    with Image.open(tmp_path / "way.gif") as gif:
        assert gif.info["loop"] == 0
        frames = [np.array(frame.convert("L")) for frame in ImageSequence.Iterator(gif)]
    assert len(frames) == len(movie) == 7
    for frame, shown in zip(frames, movie, strict=True):
        assert torch.equal(cells(frame, 2, 3, shown.shape[-1]), to_uint8(shown))
    assert torch.equal(cells(frames[-1], 2, 3, images.shape[-1]), to_uint8(images))


@pytest.mark.parametrize("kind", MODELS)
def test_a_trajectory_from_the_same_noise_is_that_of_draw(kind):
    model = MODELS[kind]()
    labels = labels_for(model, 5)
    images, movie = draw(model, 5, CPU, labels=labels, seed=4, frames=4)
    way = trajectory(model, starting_noise(model, 5, CPU, seed=4), labels=labels, frames=4)
    assert torch.equal(way.states, movie)
    assert torch.equal(way.states[-1], images)
    assert torch.equal(way.estimates[-1], images)
    assert way.times == [11, 6, 2, -1]  # of 11, 8, 6, 4, 2, 0 and the sample


def test_estimates_are_those_of_the_states():
    model = pixels()
    diffusion = model.diffusion.eval()
    noise = starting_noise(model, 5, CPU)
    with torch.no_grad():
        t = torch.full((5,), 11)
        first = diffusion.predict_x0(noise, t, diffusion.model_eps(noise, t)).clamp(-1, 1)
    way = trajectory(model, noise, steps=12, frames=13)
    torch.testing.assert_close(way.estimates[0], (first + 1) / 2, atol=1e-5, rtol=0)
    # With η = 0 the line through a state and its estimate goes on: the next state lies on it.
    ab = diffusion.alpha_bars
    x, x0, following = (2 * part - 1 for part in (way.states[-3], way.estimates[-3], way.states[-2]))
    inside = (x.abs() < 1) & (following.abs() < 1)  # states beyond the range of pixels are cut off in pictures
    eps = (x - ab[1].sqrt() * x0) / (1 - ab[1]).sqrt()
    torch.testing.assert_close(
        (ab[0].sqrt() * x0 + (1 - ab[0]).sqrt() * eps)[inside], following[inside], atol=1e-4, rtol=0
    )
    assert inside.any()


def test_a_vae_has_no_trajectory():
    vae = ConvVAE(4)
    with pytest.raises(UsageError, match="take a diffusion model"):
        trajectory(ImageModel(vae.decode, (4,)), torch.randn(2, 4))


def test_strips_show_the_states_from_left_to_right_and_the_estimates_below(tmp_path):
    way = trajectory(pixels(), starting_noise(pixels(), 3, CPU), frames=4)
    save_grid(strips(way.states, way.estimates), tmp_path / "strips.png", columns=4)
    with Image.open(tmp_path / "strips.png") as picture:
        shown = cells(np.array(picture), 6, 4, 8).view(3, 2, 4, 1, 8, 8)
    for sample in range(3):
        for time in range(4):
            assert torch.equal(shown[sample, 0, time], to_uint8(way.states[time, sample]))
            assert torch.equal(shown[sample, 1, time], to_uint8(way.estimates[time, sample]))


def test_pairs_alternate_by_rows(tmp_path):
    originals, reconstructions = torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    save_pairs(originals[:4], reconstructions[:4], tmp_path / "pairs.png", columns=2)
    with Image.open(tmp_path / "pairs.png") as picture:
        shown = cells(np.array(picture), 4, 2, 8)
    for row, images in enumerate((originals[:2], reconstructions[:2], originals[2:4], reconstructions[2:4])):
        assert torch.equal(shown[2 * row : 2 * row + 2], to_uint8(images))
    assert len(pairs(originals, reconstructions, columns=2)) == 10


def test_a_labelled_grid_names_the_right_rows_and_columns():
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    axes = labelled_grid(images, ["a", "b", "c"], ["0", "1", "2", "3"]).axes[0]
    assert torch.equal(cells(np.asarray(axes.images[0].get_array()), 3, 4, 8), to_uint8(images))
    for axis, names in ((axes.yaxis, "abc"), (axes.xaxis, "0123")):
        assert [label.get_text() for label in axis.get_ticklabels()] == list(names)
        for k, place in enumerate(axis.get_ticklocs()):  # in the middle of its image, padding aside
            assert abs(place - (2 + 10 * k + 3.5)) < 1


def test_a_name_may_stand_for_a_group_of_rows():
    axes = labelled_grid(torch.rand(12, 1, 8, 8), ["a", "b"], ["0", "1", "2"]).axes[0]
    assert list(axes.yaxis.get_ticklocs()) == [11, 31]  # 42 pixels high: two rows each
    assert [line.get_ydata()[0] for line in axes.lines] == [20.5]  # in the padding between the groups


@pytest.mark.parametrize(("num", "rows"), [(11, 3), (12, 2)])
def test_a_labelled_grid_that_is_not_full_is_refused(num, rows):
    with pytest.raises(ValueError, match=f"{num} images do not fill {rows} groups of rows and 4 columns"):
        labelled_grid(torch.rand(num, 1, 8, 8), ["r"] * rows, list("0123"))


def test_validation_is_dashed_in_the_colour_of_training(tmp_path):
    records = [{"epoch": k, "loss": 3.0 / k, "rec": 2.0 / k, "val_loss": 4.0 / k, "lr": 1e-3} for k in (1, 2, 3)]
    figure = loss_curves({"one": records, "two": records[:2]})
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == ["loss", "rec", "val_loss"]
    assert [lines[name].get_linestyle() for name in lines] == ["-", "-", "--"]
    colours = {name: to_hex(line.get_color()) for name, line in lines.items()}
    assert colours["val_loss"] == colours["loss"] != colours["rec"]
    assert list(lines["val_loss"].get_ydata()) == [4, 2, 4 / 3]
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    save_curves(records, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (720, 480)


def test_the_kl_curve_goes_through_its_points_in_order_of_kl():
    axes = kl_curve([1, 0.01, 0.1], [0.3, 0.1, 0.2], [10, 90, 40]).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[10, 0.3], [40, 0.2], [90, 0.1]]
    assert {text.get_text(): text.xy for text in axes.texts} == {"1": (10, 0.3), "0.1": (40, 0.2), "0.01": (90, 0.1)}


def test_a_map_has_each_point_in_the_colour_of_its_label():
    points, labels = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3 * 4
    figure = latent_map({"left": points, "right": points + 1}, labels)
    for axes, shift in zip(figure.axes, (0, 1), strict=True):
        for group, label in zip(axes.collections, (0, 4, 8), strict=True):
            np.testing.assert_allclose(group.get_offsets(), points[labels == label] + shift, rtol=1e-6)
            assert to_hex(group.get_facecolor()[0]) == to_hex(f"C{label}")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "4", "8"]
    named = latent_map({"": points}, labels // 4, ("a", "b", "c"))
    assert [text.get_text() for text in named.legends[0].get_texts()] == ["a", "b", "c"]


# -- what is computed for pictures ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (2, 5, 5)])
def test_slerp_ends_where_it_is_told(shape):
    start, end = torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(0))
    between = slerp(start, end, torch.tensor([0.0, 0.3, 1.0]))
    assert between.shape == (3, 4, *shape)
    assert between.dtype == torch.float32
    torch.testing.assert_close(between[0], start)
    torch.testing.assert_close(between[2], end)


def test_slerp_keeps_the_norm_and_turns_evenly():
    start, end = torch.nn.functional.normalize(
        torch.randn(2, 50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    between = slerp(3 * start, 3 * end, torch.linspace(0, 1, 9))
    torch.testing.assert_close(between.norm(dim=-1), torch.full((9, 50), 3.0, dtype=torch.float64))
    angles = (between[:-1] * between[1:]).sum(-1).div(9).arccos()
    torch.testing.assert_close(angles, angles[:1].expand(8, -1), atol=1e-6, rtol=0)
    whole = (start * end).sum(-1).arccos()
    torch.testing.assert_close(angles.sum(0), whole, atol=1e-6, rtol=0)


def test_slerp_takes_the_norm_from_one_end_to_the_other():
    between = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([0.5]))
    torch.testing.assert_close(between, torch.full((1, 1, 2), 2**0.5))


@pytest.mark.parametrize("shift", [0, 1e-12, 1e-7])
def test_slerp_of_equal_ends_is_the_end(shift):
    end = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    between = slerp(end, end + shift, torch.linspace(0, 1, 5))
    torch.testing.assert_close(between, end.expand(5, -1, -1), atol=2e-7, rtol=0)


@pytest.mark.parametrize(("end", "saying"), [(-1.0, "opposite ends"), (0.0, "zero has no direction")])
def test_slerp_refuses_what_has_no_answer(end, saying):
    start = torch.ones(2, 4)
    with pytest.raises(ValueError, match=saying):
        slerp(start, end * start, torch.tensor([0.5]))


def test_pca_finds_the_axes_of_a_known_covariance():
    """Points whose covariance is exactly Q diag(9, 4, 1, 1/4) Qᵀ, around a mean that is not 0."""
    source = torch.Generator().manual_seed(0)
    white = torch.randn(500, 4, dtype=torch.float64, generator=source)
    white = torch.linalg.qr(white - white.mean(0)).Q * 499**0.5
    axes = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=source)).Q
    points = white * torch.tensor([3, 2, 1, 0.5]) @ axes.T + 7
    found = pca(points, 3)
    torch.testing.assert_close(found.T.cov(), torch.diag(torch.tensor([9.0, 4, 1], dtype=torch.float64)))
    along = (points - points.mean(0)) @ axes[:, :3]
    torch.testing.assert_close(found.abs(), along.abs())
    torch.testing.assert_close(pca(points.flip(0), 3).flip(0), found)  # the sign, too, is the points' own


def test_pca_refuses_more_axes_than_there_are():
    with pytest.raises(ValueError, match="no 2 principal axes"):
        pca(torch.randn(5, 1))


def test_tsne_keeps_groups_apart_and_is_the_same_again():
    centres = torch.tensor([[0.0] * 6, [50.0] * 6, [-50.0] * 6])
    points = (centres[:, None] + torch.randn(3, 15, 6, generator=torch.Generator().manual_seed(0))).flatten(0, 1)
    found = tsne(points)
    assert found.shape == (45, 2)
    distances = torch.cdist(found, found)
    same = torch.arange(45)[:, None] // 15 == torch.arange(45) // 15
    assert distances[same].max() < distances[~same].min()
    assert torch.equal(tsne(points), found)


# -- and nothing else happens --------------------------------------------------------------------------


def random_states() -> list[bytes]:
    return [
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes() + bytes(str(np.random.get_state()[2:]), "ascii"),
        bytes(str(random.getstate()), "ascii"),
    ]


def draw_everything(model: ImageModel, folder) -> None:
    labels = labels_for(model, 4)
    for sampler, eta in (("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0)):
        movie = draw(model, 4, CPU, labels=labels, sampler=sampler, eta=eta, frames=3)[1]
        save_gif(movie, folder / "way.gif")
    start, end = starting_noise(model, 8, CPU).split(4)
    noise = slerp(start, end, torch.tensor([0.5]))[0]
    way = trajectory(model, noise, labels=labels, frames=3)
    labelled_grid(strips(way.states, way.estimates), [], list("abc")).savefig(folder / "strips.png")
    points = torch.randn(501, 60, generator=torch.Generator().manual_seed(0))  # so many that t-SNE draws numbers
    latent_map({"PCA": pca(points), "t-SNE": tsne(points)}, torch.arange(501) % 2).savefig(folder / "map.png")
    kl_curve([1, 2], [3, 4], [5, 6]).savefig(folder / "kl.png")
    save_curves([{"epoch": 1, "loss": 1.0}], folder / "loss.png")


@pytest.mark.parametrize("kind", MODELS)
def test_drawing_leaves_random_generators_and_modules_alone(kind, tmp_path):
    model = MODELS[kind]()
    network = model.diffusion.model
    model.diffusion.train()
    network.body[1].eval()  # mixed: a frozen layer in a network that trains
    network.body[1].weight.requires_grad_(False)
    modes = [module.training for module in model.diffusion.modules()]
    flags = [parameter.requires_grad for parameter in model.diffusion.parameters()]
    weights = [parameter.clone() for parameter in model.diffusion.parameters()]
    before = random_states()
    draw_everything(model, tmp_path)
    assert random_states() == before
    assert [module.training for module in model.diffusion.modules()] == modes
    assert [parameter.requires_grad for parameter in model.diffusion.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.diffusion.parameters())
    assert all(map(torch.equal, model.diffusion.parameters(), weights))


def test_what_is_drawn_does_not_hang_on_the_mode():
    """Dropout is off while drawing, whatever the mode is."""
    model = pixels()
    noise = starting_noise(model, 4, CPU)
    model.diffusion.eval()
    expected = trajectory(model, noise).states
    model.diffusion.train()
    assert torch.equal(trajectory(model, noise).states, expected)


def test_modes_are_put_back_when_drawing_fails():
    model = pixels()
    model.diffusion.train()
    with pytest.raises(RuntimeError):
        trajectory(model, torch.randn(2, 1, 4, 4))
    assert all(module.training for module in model.diffusion.modules())


def test_no_display_is_needed_and_no_figure_is_kept():
    """pyplot is what would want a display and keep figures."""
    code = """if True:
        import sys, torch
        from HW3.viz import kl_curve, labelled_grid, latent_map, loss_curves
        labelled_grid(torch.rand(4, 1, 8, 8), ["a", "b"], ["0", "1"]).savefig("/dev/null", format="png")
        latent_map({"": torch.rand(5, 2)}, torch.arange(5)).savefig("/dev/null", format="png")
        loss_curves({"": [{"epoch": 1, "loss": 1.0}]}), kl_curve([1], [1], [1])
        sys.exit("matplotlib.pyplot" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
