"""Every picture of README and of docs/notes but one: trains what is missing, then draws. `make figures` runs it.

examples:
  python docs/figures.py                        half an hour on 2 idle cores; a second time only the drawing
  python docs/figures.py --only 4-ddim 8-guidance

The one is imgs/app.png, a screenshot of app.py in a browser. Runs are kept in --runs: delete the folder of one whose
preset has changed. A new picture is a function with its file and its runs above it: `@figure("notes/name.png", "run")`;
what it returns is a matplotlib figure, or the bytes of the file.
"""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from HW3.clip import NUM_CLASSES  # noqa: E402
from HW3.data import ImageSet, load_dataset  # noqa: E402
from HW3.diffusion import DiffusionConfig, GaussianDiffusion  # noqa: E402
from HW3.generate import ImageModel, draw, load_image_model, starting_noise, trajectory  # noqa: E402
from HW3.plumbing.checkpoints import load_checkpoint  # noqa: E402
from HW3.plumbing.cli import Parser, add_data_dir, run_main  # noqa: E402
from HW3.plumbing.errors import UserError  # noqa: E402
from HW3.plumbing.files import write_atomically  # noqa: E402
from HW3.pretrained import load_vae  # noqa: E402
from HW3.vae import ConvVAE, kl_divergence  # noqa: E402
from HW3.viz import (  # noqa: E402
    gif,
    grid_png,
    kl_curve,
    labelled_grid,
    latent_map,
    loss_curves,
    new_figure,
    pairs,
    pca,
    show,
    slerp,
    strips,
    tsne,
)

CPU = torch.device("cpu")
IMGS = ROOT / "imgs"
GREYS, COLOURS = 16, 64  # of a PNG: the repository keeps it for ever

KL_WEIGHTS = ("0.003", "0.03", "0.3", "3")  # of one epoch each

# run -> what trains it, in an order in which each finds the checkpoints that it needs; --seed is the scripts' own, 42.
RUNS = {
    "vae": "train_vae.py --quick",
    **{f"vae-kl-{weight}": f"train_vae.py --quick --epochs 1 --kl-weight {weight}" for weight in KL_WEIGHTS},
    "vae-kl-10": "train_vae.py --quick --loss-type mse --kl-weight 10 --epochs 1",
    "vae-paper": "train_vae.py --preset paper",
    "clip": "train_clip.py --quick",
    "diffusion": "train_diffusion.py --quick",
    "latent": "train_latent_diffusion.py --quick --vae-ckpt {runs}/vae/convae_latest.pt",
    "latent-eps": "train_latent_diffusion.py --quick --prediction eps --vae-ckpt {runs}/vae/convae_latest.pt",
    "tiny_sd": "train_tiny_sd.py --quick --vae-ckpt {runs}/vae/convae_latest.pt --clip-ckpt {runs}/clip/clip_latest.pt",
}
KL_SWEEP = tuple(f"vae-kl-{weight}" for weight in KL_WEIGHTS)


class Runs:
    """Where the runs are, and what is in them; and the data set that they know."""

    def __init__(self, folder: Path, data_dir: Path, dataset: str = "mnist") -> None:
        self.folder, self.data_dir, self.dataset = folder, data_dir, dataset

    def train(self, run: str) -> None:
        """Train a run that is not there, or not to its end, and those that it needs. Raises UserError if that fails."""
        for needed in RUNS:
            if f"{{runs}}/{needed}/" in RUNS[run]:
                self.train(needed)
        flags = ["--dataset", self.dataset, "--data-dir", str(self.data_dir), "--out-dir", str(self.folder / run)]
        command = [part.format(runs=self.folder) for part in RUNS[run].split()] + flags
        if any(self.folder.glob(f"{run}/*_latest.pt")):
            checkpoint = load_checkpoint(self.checkpoint(run))
            if checkpoint["position"]["epoch"] >= checkpoint["args"]["epochs"]:
                return
            command.append("--resume")
        print("$ python", *command, flush=True)
        if subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
            raise UserError(f"the run {run} was not trained: mend what its script says above, and run this again")

    def checkpoint(self, run: str) -> Path:
        """The latest checkpoint of a run."""
        return next(self.folder.glob(f"{run}/*_latest.pt"))

    def model(self, run: str, guidance_scale: float | None = None) -> ImageModel:
        """A run's model, ready to draw: as its preset does, or with this guidance for all t and nothing else."""
        alone = None if guidance_scale is None else 1
        path = self.checkpoint(run)
        return load_image_model(
            path, CPU, import_module, guidance_scale, guidance_until=alone, autoguidance=alone, clip_tries=alone
        )

    def vae(self, run: str) -> ConvVAE:
        """A run's VAE with its encoder."""
        return load_vae(self.checkpoint(run), CPU, self.dataset)

    def kl_weight(self, run: str) -> float:
        """The KL weight that a VAE was trained with."""
        return load_checkpoint(self.checkpoint(run))["args"]["kl_weight"]

    def records(self, run: str) -> list[dict[str, float]]:
        """What was measured in each epoch."""
        lines = (self.folder / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def test_set(self) -> ImageSet:
        """Images that no run has seen."""
        return load_dataset(self.dataset, self.data_dir, train=False)

    def test_images(self, num: int) -> Tensor:
        """The first of them."""
        return self.test_set().batch(slice(num))[0]


Draws = Callable[[Runs], Figure | bytes]


@dataclass(frozen=True)
class Picture:
    """A file in imgs, the runs that it is made of, and what draws it."""

    file: str
    runs: tuple[str, ...]
    draws: Draws


FIGURES: dict[str, Picture] = {}  # by the name of the file without folder and ending


def figure(file: str, *runs: str) -> Callable[[Draws], Draws]:
    """Register a picture."""

    def register(draws: Draws) -> Draws:
        FIGURES[Path(file).stem] = Picture(file, runs, draws)
        return draws

    return register


# -- README ----------------------------------------------------------------------------------------------


@figure("tiny_mnist_sd.png", "tiny_sd")
def tiny_mnist_sd(runs: Runs) -> bytes:
    """A column per digit."""
    labels = torch.arange(NUM_CLASSES).repeat(8)
    return grid_png(draw(runs.model("tiny_sd"), len(labels), CPU, labels=labels)[0], columns=NUM_CLASSES)


@figure("denoising.gif", "tiny_sd")
def denoising(runs: Runs) -> bytes:
    """One true reverse trajectory, a column per digit."""
    labels = torch.arange(NUM_CLASSES).repeat(3)
    return movie(draw(runs.model("tiny_sd"), len(labels), CPU, labels=labels, frames=26)[1], NUM_CLASSES)


@figure("vae_recon.png", "vae")
def vae_recon(runs: Runs) -> bytes:
    """Test images above their reconstructions."""
    images, vae = runs.test_images(32), runs.vae("vae")
    return grid_png(pairs(images, vae.decode(vae.encode(images)[0]), columns=8))


@figure("vae_sample.png", "vae-paper")
def vae_sample(runs: Runs) -> bytes:
    """Decoded noise, of a VAE with the ELBO's own KL weight."""
    return grid_png(draw(runs.model("vae-paper"), 64, CPU)[0])


@figure("ddpm_sample.png", "diffusion")
def ddpm_sample(runs: Runs) -> bytes:
    """All steps."""
    return grid_png(draw(runs.model("diffusion"), 64, CPU, sampler="ddpm")[0])


@figure("ddim_sample.png", "diffusion")
def ddim_sample(runs: Runs) -> bytes:
    """A twentieth of them."""
    return grid_png(draw(runs.model("diffusion"), 64, CPU)[0])


# -- docs/notes ------------------------------------------------------------------------------------------


@figure("notes/1-vae.png", "vae", "vae-kl-10")
def vae(runs: Runs) -> Figure:
    """Reconstructions of a good run, and of one whose KL term is so strong that z says nothing."""
    images = runs.test_images(12)
    rows = {"test images": images}
    for run in ("vae", "vae-kl-10"):
        model = runs.vae(run)
        rows[f"--kl-weight {runs.kl_weight(run):g}"] = model.decode(model.encode(images)[0])
    return stacked(rows)


@figure("notes/1-losses.png", "vae", "clip")
def losses(runs: Runs) -> Figure:
    """The two scripts that hold images out."""
    return loss_curves({"train_vae.py": runs.records("vae"), "train_clip.py": runs.records("clip")})


@figure("notes/1-kl-sweep.png", *KL_SWEEP)
def kl_sweep(runs: Runs) -> Figure:
    """What each KL weight keeps of an image, and what it makes of noise."""
    images = runs.test_images(16)
    kept, drawn = [images[:8]], [images[8:]]
    for run in KL_SWEEP:
        model = runs.vae(run)
        kept.append(model.decode(model.encode(images[:8])[0]))
        drawn.append(draw(runs.model(run), 8, CPU)[0])
    names = ["test images", *(f"--kl-weight {runs.kl_weight(run):g}" for run in KL_SWEEP)]
    whole = new_figure(9, 2.6)
    left, right = whole.subplots(1, 2)
    show(left, torch.cat(kept), 8, "reconstructions", row_names=names)
    show(right, torch.cat(drawn), 8, "decoded noise")
    return whole


@figure("notes/1-kl-curve.png", *KL_SWEEP)
def kl_of_weights(runs: Runs) -> Figure:
    """The same runs as numbers."""
    images, errors, nats = runs.test_images(2000), [], []
    for run in KL_SWEEP:
        model = runs.vae(run)
        with torch.inference_mode():
            mu, logvar = model.encode(images)
            errors.append((model.decode(mu) - images).square().mean().item())
            nats.append(kl_divergence(mu, logvar).mean().item())
    return kl_curve([runs.kl_weight(run) for run in KL_SWEEP], errors, nats)


@figure("notes/2-forward-process.png")
def forward_process(runs: Runs) -> Figure:
    """One digit under two schedules, and with the factors of one step in the place of those of all steps."""
    x0, times = runs.test_images(4)[3:] * 2 - 1, torch.arange(0, 1000, 111)
    noise = torch.randn(len(times), 1, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = {}
    for schedule in ("linear", "cosine"):
        process = GaussianDiffusion(torch.nn.Identity(), DiffusionConfig(schedule=schedule))
        rows[schedule] = process.q_sample(x0.expand(len(times), -1, -1, -1), times, noise)
        if schedule == "linear":
            kept = process.alphas[times].view(-1, 1, 1, 1)
            one_step = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    rows["wrong: one step's factors"] = one_step
    return labelled_grid(
        (torch.cat(list(rows.values())) + 1) / 2, list(rows), [str(t) for t in times.tolist()], corner="t"
    )


@figure("notes/3-ddpm.png", "diffusion")
def ddpm(runs: Runs) -> Figure:
    """The loss of a good run, its samples, and those of two wrong steps with the same network."""
    model = runs.model("diffusion")
    steps = {
        f"DDPM, all {model.timesteps} steps": GaussianDiffusion.ddpm_step,
        "wrong: no noise": lambda self, x, t, eps, noise: GaussianDiffusion.ddpm_step(self, x, t, eps, noise * 0),
        "wrong: variance as the factor": _variance_as_factor,
    }
    whole = new_figure(9, 2.5)
    curve, *grids = whole.subplots(1, 4)
    losses = [record["loss"] for record in runs.records("diffusion")]
    curve.plot(range(1, len(losses) + 1), losses, ".-", color="black")
    curve.set(xlabel="epoch", ylim=(0, None), xticks=range(1, len(losses) + 1, -(-len(losses) // 7)))
    curve.set_title("loss", fontsize=8)
    for axes, (title, step) in zip(grids, steps.items()):
        show(axes, with_step(model, step, num=16), 4, title)
    return whole


def _variance_as_factor(self: GaussianDiffusion, x_t: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
    mean, variance = self.q_posterior(self.predict_x0(x_t, t, eps), x_t, t)
    return mean + variance * noise


@figure("notes/3-x0-hat.png", "diffusion")
def x0_hat(runs: Runs) -> Figure:
    """What the network takes each state for, on the way to three samples."""
    model = runs.model("diffusion")
    way = trajectory(model, starting_noise(model, 3, CPU), frames=11)
    return labelled_grid(strips(way.states, way.estimates), ["$x_t$", r"$\hat{x}_0$"] * 3, times(way.times), corner="t")


@figure("notes/3-denoising.gif", "diffusion")
def denoising_pixels(runs: Runs) -> bytes:
    """One true reverse trajectory, in pixels."""
    return movie(draw(runs.model("diffusion"), 16, CPU, frames=18)[1], 8)


@figure("notes/4-ddim.png", "diffusion")
def ddim(runs: Runs) -> Figure:
    """The same noise in few steps and in many, and DDPM's step with all but every 20th left out."""
    model = runs.model("diffusion")
    whole = new_figure(9, 2.6)
    *grids, last = whole.subplots(1, 4)
    for axes, steps in zip(grids, (10, 50, 1000)):
        steps = min(steps, model.timesteps)
        show(axes, draw(model, 16, CPU, steps=steps, eta=0)[0], 4, f"DDIM, {steps} steps, η = 0")
    show(last, every_20th(model, 16), 4, "wrong: every 20th DDPM step")
    return whole


@torch.inference_mode()
def every_20th(model: ImageModel, num: int) -> Tensor:
    """DDPM's own step, as if the steps between did not matter."""
    diffusion, source = model.diffusion, torch.Generator().manual_seed(1)
    assert diffusion is not None
    x = starting_noise(model, num, CPU)
    for step in range(diffusion.config.timesteps - 1, -1, -20):
        t = torch.full((num,), step)
        eps = diffusion.predict_eps(x, t, diffusion.predict_x0(x, t, diffusion.model_eps(x, t)).clamp(-1, 1))
        x = diffusion.ddpm_step(x, t, eps, torch.randn(x.shape, generator=source))
    return model.decode(x).clamp(0, 1)


@figure("notes/4-steps-eta.png", "diffusion")
def steps_and_eta(runs: Runs) -> Figure:
    """The same three noises in each column, and fresh noise from row to row."""
    model, etas = runs.model("diffusion"), (0, 0.5, 1)
    all_steps = sorted({min(steps, model.timesteps) for steps in (4, 8, 16, 50, 200, 1000)})
    rows = [torch.stack([draw(model, 3, CPU, steps=steps, eta=eta)[0] for steps in all_steps]) for eta in etas]
    images = torch.cat([strips(row) for row in rows])
    return labelled_grid(images, [f"η = {eta:g}" for eta in etas], list(map(str, all_steps)), corner="steps")


@figure("notes/4-slerp.png", "diffusion")
def between_noises(runs: Runs) -> Figure:
    """Four pairs of noises, and what is drawn from those between them."""
    model, weights = runs.model("diffusion"), torch.linspace(0, 1, 9)
    start, end = starting_noise(model, 8, CPU).split(4)
    noises = slerp(start, end, weights)
    images = trajectory(model, noises.flatten(0, 1)).states[-1].unflatten(0, noises.shape[:2])
    return labelled_grid(strips(images), [], [f"{weight:.3g}" for weight in weights.tolist()], corner="weight")


@figure("notes/5-v-and-cosine.png", "latent", "latent-eps")
def v_and_cosine(runs: Runs) -> Figure:
    """How fast the signal goes, and latent samples after equal training on v and on the noise."""
    whole = new_figure(9, 2.9)
    curve, *grids = whole.subplots(1, 3)
    for schedule, style in {"linear": "--", "cosine": "-"}.items():
        process = GaussianDiffusion(torch.nn.Identity(), DiffusionConfig(schedule=schedule))
        curve.plot(process.alpha_bars.sqrt(), style, color="black", label=schedule)
    curve.set(xlabel="t")
    curve.set_title("factor of the data", fontsize=8)
    curve.legend(fontsize=7)
    for axes, (run, title) in zip(grids, {"latent": "v, cosine", "latent-eps": "eps, linear"}.items()):
        show(axes, draw(runs.model(run), 36, CPU)[0], 6, title)
    return whole


@figure("notes/6-latents.png", "latent", "vae")
def latents(runs: Runs) -> Figure:
    """What the diffusion model adds: the VAE alone decodes noise."""
    rows = {
        "latent diffusion": draw(runs.model("latent"), 24, CPU)[0],
        "the VAE alone": draw(runs.model("vae"), 24, CPU)[0],
    }
    return stacked(rows, columns=12)


@figure("notes/6-latent-map.png", "vae")
def map_of_latents(runs: Runs) -> Figure:
    """The means of test images, which the encoder was never told the labels of."""
    images, labels = runs.test_set().batch(slice(2000))
    with torch.inference_mode():
        mu, _ = runs.vae("vae").encode(images)
    return latent_map({"PCA": pca(mu), "t-SNE": tsne(mu)}, labels)


@figure("notes/6-denoising.png", "latent")
def denoising_latents(runs: Runs) -> Figure:
    """States on the way, as the VAE decodes them."""
    model = runs.model("latent")
    way = trajectory(model, starting_noise(model, 4, CPU), frames=11)
    return labelled_grid(strips(way.states), [], times(way.times), corner="t")


@figure("notes/7-clip.png", "clip")
def clip(runs: Runs) -> Figure:
    """The test images nearest to each text, as the script draws them."""
    whole = new_figure(4, 3.2)
    path = max((runs.folder / "clip").glob("nearest_epoch_*.png"))
    axes = whole.subplots()
    axes.imshow(Image.open(path), cmap="gray")
    axes.axis("off")
    return whole


@figure("notes/8-guidance.png", "tiny_sd")
def guidance(runs: Runs) -> Figure:
    """The same noise under four scales: without text, as in training, with guidance, and far too much."""
    labels, scales = torch.arange(NUM_CLASSES).repeat(3), (0, 1, 1.5, 8)
    grids = [draw(runs.model("tiny_sd", scale), len(labels), CPU, labels=labels)[0] for scale in scales]
    return labelled_grid(torch.cat(grids), [f"scale {scale:g}" for scale in scales], list(map(str, range(NUM_CLASSES))))


# -- what they have in common ----------------------------------------------------------------------------


@torch.inference_mode()
def with_step(model: ImageModel, step: Callable[..., Tensor], num: int) -> Tensor:
    """DDPM samples with another step in the place of the right one."""
    diffusion = model.diffusion
    assert diffusion is not None
    other = type("Other", (GaussianDiffusion,), {"ddpm_step": step})(diffusion.model, diffusion.config)
    return model.decode(other.sample_ddpm(num, CPU, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def movie(frames: Tensor | None, columns: int) -> bytes:
    """A trajectory of `draw` as a GIF, slow enough to be followed."""
    assert frames is not None
    return gif(frames, columns=columns, fps=8)


def times(values: list[int]) -> list[str]:
    """The times of a trajectory, as names of columns."""
    return [str(t) if t >= 0 else "sample" for t in values]


def stacked(rows: dict[str, Tensor], columns: int | None = None) -> Figure:
    """Rows of images, each with its name at the left."""
    columns = columns or max(map(len, rows.values()))
    lines = sum(-(-len(images) // columns) for images in rows.values())
    whole = new_figure(7, 0.5 * lines + 0.1)
    for axes, (name, images) in zip(whole.subplots(len(rows), 1), rows.items()):
        show(axes, images, columns)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return whole


def content(drawn: Figure | bytes) -> bytes:
    """What is written: the bytes as they are, a figure as a PNG of few colours."""
    if isinstance(drawn, bytes):
        return drawn
    whole, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(whole, format="png", dpi=100, bbox_inches="tight")
    image = Image.open(whole).convert("RGB")
    red, green, blue = (channel.tobytes() for channel in image.split())
    few = image.convert("L").quantize(GREYS) if red == green == blue else image.quantize(COLOURS)
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("result/figures"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES), help="these pictures")
    add_data_dir(parser)
    args = parser.parse_args()
    runs = Runs(args.runs.absolute(), args.data_dir.absolute())
    for name in args.only:
        picture = FIGURES[name]
        for run in picture.runs:
            runs.train(run)
        data = content(picture.draws(runs))
        write_atomically(IMGS / picture.file, data)
        print(f"imgs/{picture.file}: {len(data) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    run_main(main)
