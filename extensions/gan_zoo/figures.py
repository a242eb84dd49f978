"""Pictures of a trained run, in --out-dir/figures.

examples:
  python -m extensions.gan_zoo figures --quick
  python -m extensions.gan_zoo figures --quick --to imgs/extensions/gan_zoo

  side_by_side.png      held-out images, and what each model draws
  reconstruction.png    held-out images above what the VAE makes of them
  interpolation.png     from one latent to another: of the VAE, between images; of the GAN, between draws
  forward.png           images on their way to noise
  reverse.png           noise on its way to images of the first classes: the state, above the estimate of the image
  grid_MODEL.png        12 x 12 pictures of each model
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.pictures import save_pictures
from extensions.gan_zoo.data import load
from extensions.gan_zoo.models import MLPVAE
from extensions.gan_zoo.trained import STAGES, Trained, load_trained, zoo_settings
from HW3.diffusion import GaussianDiffusion
from HW3.generate import draw, starting_noise, trajectory
from HW3.plumbing.device import pick_device
from HW3.viz import grid_png, labelled_grid, pairs, slerp, strips

COLUMNS = 12
STEPS = 11  # columns of an interpolation and of a strip
ROWS = 4
SHARES = (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1)  # of T, of the forward strip


def main() -> None:
    parser = track_parser(__doc__ or "", "gan_zoo")
    parser.add_argument("--to", type=Path, help="the folder for the pictures; by default figures in --out-dir")
    args = parser.parse_args(arguments())
    config = zoo_settings(args)
    device = pick_device(args.device)
    data = load(config.data, args.data_dir, args.seed)
    models = {stage: load_trained(args.out_dir, stage, device, config, data) for stage in STAGES}
    vae = models["vae"].vae
    x = data.test.to(device).subset(2 * COLUMNS).batch(slice(None))[0]
    torch.manual_seed(args.seed)

    drawn = {}
    for name, model in models.items():
        labels = model.labels(COLUMNS**2)
        drawn[name], _ = draw(model.drawer, COLUMNS**2, device, labels=labels, seed=args.seed, progress=True)
    names = ("real", *STAGES)
    rows = torch.cat([x[:COLUMNS], *(drawn[name][:COLUMNS] for name in STAGES)])
    pictures: dict[str, Figure | bytes] = {
        "side_by_side": labelled_grid(rows, names, [""] * COLUMNS),
        "reconstruction": reconstructions(vae, x),
        "interpolation": interpolation(vae, models["gan"], x, args.seed),
        "forward": forward(models["diffusion"].drawer.diffusion, x[:ROWS]),  # type: ignore[arg-type]  # it has one
        "reverse": reverse(models["diffusion"], args.seed, device),
    }
    pictures |= {f"grid_{name}": grid_png(images, columns=COLUMNS) for name, images in drawn.items()}
    folder = args.to or args.out_dir / "figures"
    save_pictures({f"{name}.png": picture for name, picture in pictures.items()}, folder)


@torch.inference_mode()
def reconstructions(vae: MLPVAE, x: Tensor) -> bytes:
    """Held-out images above the decoded posterior means."""
    return grid_png(pairs(x, vae.decode(vae.encode(x)[0]), COLUMNS), columns=COLUMNS)


@torch.inference_mode()
def interpolation(vae: MLPVAE, gan: Trained, x: Tensor, seed: int) -> Figure:
    """The VAE's posterior means along straight lines; the GAN's draws of N(0, I) along arcs."""
    weights = torch.linspace(0, 1, STEPS, device=x.device)
    start, end = (vae.encode(part)[0] for part in (x[:ROWS], x[ROWS : 2 * ROWS]))  # (ROWS, D)
    straight = start + weights[:, None, None] * (end - start)  # (STEPS, ROWS, D)
    noise = starting_noise(gan.drawer, 2 * ROWS, x.device, seed=seed)
    arcs = slerp(noise[:ROWS], noise[ROWS:], weights)
    both = (vae.decode, straight), (gan.drawer.decode, arcs)
    images = torch.cat([decode(z.transpose(0, 1).flatten(0, 1)) for decode, z in both])
    return labelled_grid(images, ("vae", "gan"), [f"{w:.1f}" for w in weights.tolist()])


@torch.inference_mode()
def forward(diffusion: GaussianDiffusion, x: Tensor) -> Figure:
    """The same images with the same noise, more and more of it."""
    noise = torch.randn_like(x)
    times = [round(share * (diffusion.config.timesteps - 1)) for share in SHARES]
    states = [diffusion.q_sample(x * 2 - 1, torch.full((len(x),), t, device=x.device), noise) for t in times]
    movie = ((torch.stack(states) + 1) / 2).clamp(0, 1)  # (F, N, 1, S, S)
    return labelled_grid(strips(movie), (), [str(t) for t in times], corner="t")


def reverse(model: Trained, seed: int, device: torch.device) -> Figure:
    """An image of each of the first classes from noise, by the steps that drawing takes."""
    names = model.class_names[:ROWS]
    labels = torch.arange(len(names), device=device)
    noise = starting_noise(model.drawer, len(names), device, seed=seed)
    way = trajectory(model.drawer, noise, labels=labels, frames=STEPS)
    times = ["x" if t < 0 else str(t) for t in way.times]
    return labelled_grid(strips(way.states, way.estimates), names, times, corner="t")
