"""The pictures of docs/notes, in imgs/notes: trains what is missing, then draws everything. `make figures` runs it.

examples:
  python docs/figures.py                        20 minutes on 2 idle cores; a second time only the drawing
  python docs/figures.py --only 4-ddim 8-guidance

A new picture is a function with its runs above it: `@figure("name", "run", ...)`.
"""

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from HW3.data import load_dataset  # noqa: E402
from HW3.diffusion import DiffusionConfig, GaussianDiffusion  # noqa: E402
from HW3.generate import ImageModel, draw, load_image_model  # noqa: E402
from HW3.plumbing.checkpoints import load_checkpoint  # noqa: E402
from HW3.plumbing.files import write_atomically  # noqa: E402
from HW3.pretrained import load_vae  # noqa: E402

CPU = torch.device("cpu")
IMGS = ROOT / "imgs" / "notes"
COLOURS = 16  # of a PNG: digits are grey

# run -> what trains it, in an order in which each finds the checkpoints that it needs; --seed is the scripts' own, 42.
RUNS = {
    "vae": "train_vae.py --quick",
    "vae-kl-10": "train_vae.py --quick --loss-type mse --kl-weight 10 --epochs 1",
    "clip": "train_clip.py --quick",
    "diffusion": "train_diffusion.py --dataset digits --quick",
    "latent": "train_latent_diffusion.py --quick --vae-ckpt {runs}/vae/convae_latest.pt",
    "latent-eps": "train_latent_diffusion.py --quick --prediction eps --vae-ckpt {runs}/vae/convae_latest.pt",
    "tiny_sd": "train_tiny_sd.py --quick --vae-ckpt {runs}/vae/convae_latest.pt --clip-ckpt {runs}/clip/clip_latest.pt",
}
FIGURES: dict[str, tuple[tuple[str, ...], Callable[["Runs"], Figure]]] = {}


def figure(name: str, *runs: str) -> Callable:
    """Register a picture, and the runs that it is made of."""

    def register(draws: Callable[["Runs"], Figure]) -> Callable[["Runs"], Figure]:
        FIGURES[name] = runs, draws
        return draws

    return register


class Runs:
    """Where the runs are, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def train(self, run: str) -> None:
        """Train a run that is not there, and those that it needs."""
        for needed in RUNS:
            if f"{{runs}}/{needed}/" in RUNS[run]:
                self.train(needed)
        if any(self.folder.glob(f"{run}/*_latest.pt")):
            return
        command = f"{RUNS[run].format(runs=self.folder)} --out-dir {self.folder}/{run}"
        print("$ python", command, flush=True)
        subprocess.run([sys.executable, *command.split()], cwd=ROOT, check=True)

    def checkpoint(self, run: str) -> Path:
        """The latest checkpoint of a run."""
        return next(self.folder.glob(f"{run}/*_latest.pt"))

    def model(self, run: str, guidance_scale: float | None = None) -> ImageModel:
        """A run's model, ready to draw."""
        return load_image_model(self.checkpoint(run), CPU, import_module, guidance_scale)

    def losses(self, run: str) -> list[float]:
        """The training loss of each epoch."""
        lines = (self.folder / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["loss"] for line in lines]


# -- the pictures ----------------------------------------------------------------------------------------


@figure("1-vae", "vae", "vae-kl-10")
def vae(runs: Runs) -> Figure:
    """Reconstructions of a good run, and of one whose KL term is so strong that z says nothing."""
    images = test_images("mnist", 12)
    rows = {"test images": images}
    for run in ("vae", "vae-kl-10"):
        model = load_vae(runs.checkpoint(run), CPU, "mnist")
        rows[f"--kl-weight {weight_of(runs, run):g}"] = model.decode(model.encode(images)[0])
    return stacked(rows)


@figure("2-forward-process")
def forward_process(runs: Runs) -> Figure:
    """One digit under two schedules, and with the factors of one step in the place of those of all steps."""
    x0, times = test_images("mnist", 4)[3:] * 2 - 1, torch.arange(0, 1000, 111)
    noise = torch.randn(len(times), 1, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = {}
    for schedule in ("linear", "cosine"):
        process = GaussianDiffusion(torch.nn.Identity(), DiffusionConfig(schedule=schedule))
        rows[schedule] = process.q_sample(x0.expand(len(times), -1, -1, -1), times, noise)
        if schedule == "linear":
            kept = process.alphas[times].view(-1, 1, 1, 1)
            one_step = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    rows["wrong: one step's factors"] = one_step
    return stacked({name: (images + 1) / 2 for name, images in rows.items()})


@figure("3-ddpm", "diffusion")
def ddpm(runs: Runs) -> Figure:
    """The loss of a good run, its samples, and those of two wrong steps with the same network."""
    model = runs.model("diffusion")
    steps = {
        "DDPM, all 250 steps": GaussianDiffusion.ddpm_step,
        "wrong: no noise": lambda self, x, t, eps, noise: GaussianDiffusion.ddpm_step(self, x, t, eps, noise * 0),
        "wrong: variance as the factor": _variance_as_factor,
    }
    drawn = Figure(figsize=(9, 2.5), layout="constrained")
    curve, *grids = drawn.subplots(1, 4)
    losses = runs.losses("diffusion")
    curve.plot(range(1, len(losses) + 1), losses, ".-", color="black")
    curve.set(xlabel="epoch", yscale="log")
    curve.set_title("loss", fontsize=8)
    for axes, (title, step) in zip(grids, steps.items()):
        show(axes, with_step(model, step, num=16), 4, title)
    return drawn


def _variance_as_factor(self: GaussianDiffusion, x_t: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
    mean, variance = self.q_posterior(self.predict_x0(x_t, t, eps), x_t, t)
    return mean + variance * noise


@figure("4-ddim", "diffusion")
def ddim(runs: Runs) -> Figure:
    """The same noise in few steps and in many, and DDPM's step with all but every 20th left out."""
    model = runs.model("diffusion")
    drawn = Figure(figsize=(9, 2.6), layout="constrained")
    *grids, last = drawn.subplots(1, 4)
    for axes, steps in zip(grids, (12, 50, 250)):
        show(axes, draw(model, 16, CPU, steps=steps, seed=0)[0], 4, f"DDIM, {steps} steps, η = 0")
    show(last, every_20th(model, 16), 4, "wrong: every 20th DDPM step")
    return drawn


@torch.inference_mode()
def every_20th(model: ImageModel, num: int) -> Tensor:
    """DDPM's own step, as if the steps between did not matter."""
    diffusion, source = model.diffusion, torch.Generator().manual_seed(0)
    assert diffusion is not None
    x = torch.randn(num, 1, 32, 32, generator=source)
    for step in range(diffusion.config.timesteps - 1, -1, -20):
        t = torch.full((num,), step)
        eps = diffusion.predict_eps(x, t, diffusion.predict_x0(x, t, diffusion.model_eps(x, t)).clamp(-1, 1))
        x = diffusion.ddpm_step(x, t, eps, torch.randn(x.shape, generator=source))
    return model.decode(x).clamp(0, 1)


@figure("5-v-and-cosine", "latent", "latent-eps")
def v_and_cosine(runs: Runs) -> Figure:
    """How fast the signal goes, and latent samples after equal training on v and on the noise."""
    drawn = Figure(figsize=(9, 2.7), layout="constrained")
    curve, *grids = drawn.subplots(1, 3)
    for schedule, style in {"linear": "--", "cosine": "-"}.items():
        process = GaussianDiffusion(torch.nn.Identity(), DiffusionConfig(schedule=schedule))
        curve.plot(process.alpha_bars.sqrt(), style, color="black", label=schedule)
    curve.set(xlabel="t")
    curve.set_title("factor of the data", fontsize=8)
    curve.legend(fontsize=7)
    for axes, (run, title) in zip(grids, {"latent": "v, cosine", "latent-eps": "eps, linear"}.items()):
        show(axes, draw(runs.model(run), 32, CPU, seed=0)[0], 8, title)
    return drawn


@figure("6-latents", "latent", "vae")
def latents(runs: Runs) -> Figure:
    """What the diffusion model adds: the VAE alone decodes noise."""
    rows = {
        "latent diffusion": draw(runs.model("latent"), 24, CPU, seed=0)[0],
        "the VAE alone": draw(runs.model("vae"), 24, CPU, seed=0)[0],
    }
    return stacked(rows, columns=12)


@figure("7-clip", "clip")
def clip(runs: Runs) -> Figure:
    """The test images nearest to each text, as the script draws them."""
    drawn = Figure(figsize=(4, 3.2), layout="constrained")
    [path] = (runs.folder / "clip").glob("nearest_epoch_*.png")
    axes = drawn.subplots()
    axes.imshow(Image.open(path), cmap="gray")
    axes.axis("off")
    return drawn


@figure("8-guidance", "tiny_sd")
def guidance(runs: Runs) -> Figure:
    """The same noise under four scales: without text, as trained, as drawn, and far too much."""
    drawn = Figure(figsize=(9, 1.9), layout="constrained")
    labels = torch.arange(10).repeat(6)
    for axes, scale in zip(drawn.subplots(1, 4), (0, 1, 1.5, 8)):
        images, _ = draw(runs.model("tiny_sd", scale), len(labels), CPU, labels=labels, seed=0)
        show(axes, images, 10, f"scale {scale:g}")
    return drawn


# -- what they have in common ----------------------------------------------------------------------------


def test_images(dataset: str, num: int) -> Tensor:
    """The first test images."""
    return load_dataset(dataset, os.environ.get("HW3_DATA_DIR", "data"), train=False).batch(slice(num))[0]


def weight_of(runs: Runs, run: str) -> float:
    """The KL weight that a VAE was trained with."""
    return load_checkpoint(runs.checkpoint(run))["args"]["kl_weight"]


@torch.inference_mode()
def with_step(model: ImageModel, step: Callable[..., Tensor], num: int) -> Tensor:
    """DDPM samples with another step in the place of the right one."""
    diffusion = model.diffusion
    assert diffusion is not None
    other = type("Other", (GaussianDiffusion,), {"ddpm_step": step})(diffusion.model, diffusion.config)
    return model.decode(other.sample_ddpm(num, CPU, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def stacked(rows: dict[str, Tensor], columns: int | None = None) -> Figure:
    """Rows of images, each with its name at the left."""
    columns = columns or max(map(len, rows.values()))
    lines = sum(-(-len(images) // columns) for images in rows.values())
    drawn = Figure(figsize=(7, 0.5 * lines + 0.1), layout="constrained")
    for axes, (name, images) in zip(drawn.subplots(len(rows), 1), rows.items()):
        show(axes, images, columns)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return drawn


def show(axes: Axes, images: Tensor, columns: int, title: str = "") -> None:
    """Images (N, C, H, W) in [0, 1] as a grid."""
    grid = make_grid(images.detach().clamp(0, 1), nrow=columns, padding=2, pad_value=0.5)
    axes.imshow(grid.permute(1, 2, 0))
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)


def save(drawn: Figure, path: Path) -> None:
    """A PNG of few colours, as the repository keeps it for ever."""
    whole, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(whole, format="png", dpi=100, bbox_inches="tight")
    Image.open(whole).convert("L").quantize(COLOURS).save(small, format="png", optimize=True)
    write_atomically(path, small.getvalue())
    print(f"{path.relative_to(ROOT)}: {len(small.getvalue()) / 1000:.0f} kB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("result/figures"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES), help="these pictures")
    args = parser.parse_args()
    runs = Runs(args.runs.absolute())
    for name in args.only:
        needed, draws = FIGURES[name]
        for run in needed:
            runs.train(run)
        save(draws(runs), IMGS / f"{name}.png")


if __name__ == "__main__":
    main()
