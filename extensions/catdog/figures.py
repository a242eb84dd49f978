"""Pictures of a trained run, in --out-dir/figures.

examples:
  python -m extensions.catdog figures --quick
  python -m extensions.catdog figures --quick --to imgs/extensions/catdog

  reconstruction.png     held-out pictures above what the VAE makes of them
  latents.png            the latents of held-out pictures, on their principal axes and by t-SNE, a colour per class
  samples.png            drawn pictures, a class below the other
  denoising_CLASS.png    the states of one way back from noise, decoded; below, the same way through the latents
  animation_CLASS.gif    nine pictures of a class on their way from noise
  losses.png             the losses of the VAE and of the diffusion model, epoch by epoch
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.pictures import save_pictures
from extensions.catdog.evaluate import decoded
from extensions.catdog.track import Track
from extensions.catdog.train import latent_space
from extensions.catdog.trained import Trained, encode, load_diffusion, track_settings
from HW3.data import ImageSet
from HW3.diffusion import ddim_timesteps
from HW3.generate import draw
from HW3.latent import LatentCache
from HW3.plumbing.device import pick_device
from HW3.viz import gif, grid_png, loss_curves, new_figure, pairs, show

COLUMNS = 12
STATES = 11  # columns of a denoising picture
MOVING = 9  # pictures of an animation
FRAMES = 16
MAPPED = 600  # held-out latents behind a way through them


def main(track: Track) -> None:
    parser = track_parser(track.doc(__doc__ or ""), track.name)
    parser.add_argument("--to", type=Path, help="the folder for the pictures; by default figures in --out-dir")
    args = parser.parse_args(arguments())
    config = track_settings(track, args)
    device = pick_device(args.device)
    data = track.load(config.data, args.data_dir, args.seed)
    model = load_diffusion(track, args.out_dir, device, config, data)
    names = model.class_names
    test = data.test.to(device).subset(MAPPED)
    cache = encode(model.vae, test)
    shown = test.limit(2 * COLUMNS)

    rows = torch.arange(len(names) * 3 * COLUMNS, device=device) // (3 * COLUMNS)  # three rows of a class
    drawn, _ = draw(model.drawer, len(rows), device, labels=rows, seed=args.seed, progress=True)
    pictures: dict[str, Figure | bytes] = {
        "reconstruction.png": reconstruction(model, shown),
        "latents.png": latent_space(model.vae, test),
        "samples.png": grid_png(drawn, columns=COLUMNS),
        "losses.png": losses(args.out_dir),
    }
    for label, name in enumerate(names):
        one = way_back(model, torch.tensor([label], device=device), args.seed)
        many = way_back(model, torch.full((MOVING,), label, device=device), args.seed)
        pictures[f"denoising_{name}.png"] = denoising(model, one, cache)
        pictures[f"animation_{name}.gif"] = animation(model, many)
    folder = args.to or args.out_dir / "figures"
    save_pictures(pictures, folder)


def losses(out_dir: Path) -> Figure:
    """The losses of the VAE, of which there are many, and of the diffusion model."""
    figure = loss_curves({stage: log_of(out_dir / stage) for stage in ("vae", "diffusion")})
    for axes in figure.axes:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))  # beside the curves
    return figure


def log_of(folder: Path) -> list[dict[str, float]]:
    """The metrics log of a stage, without losses that took no part in it."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    used = {name for record in records for name, value in record.items() if value != 0}
    return [{name: value for name, value in record.items() if name in used} for record in records]


def reconstruction(model: Trained, shown: ImageSet) -> bytes:
    """Pictures above the decoded posterior means."""
    recon = decoded(model.vae, encode(model.vae, shown).mu)
    columns = len(shown) // 2 or 1
    return grid_png(pairs(shown.batch(slice(None))[0], recon, columns), columns=columns)


@dataclass(frozen=True)
class Way:
    """The states of one run of the sampler, from noise to samples: u (S + 1, N, D) at these times, and their labels."""

    states: Tensor
    times: list[int]
    labels: Tensor


def way_back(model: Trained, labels: Tensor, seed: int) -> Way:
    """Draw pictures of these classes, and keep every state on the way; the last is what decodes to the samples."""
    drawer, states = model.drawer, []
    diffusion, device = drawer.diffusion, labels.device
    assert diffusion is not None
    assert drawer.texts is not None
    diffusion.sample_ddim(
        len(labels),
        device,
        drawer.steps,
        cond=drawer.texts[labels],
        shape=drawer.shape,
        generator=torch.Generator(device).manual_seed(seed),
        on_state=lambda u: states.append(u.clone()),
    )
    times = [*ddim_timesteps(diffusion.config.timesteps, drawer.steps), -1]
    return Way(torch.stack(states), times, labels)


def _some(way: Way, wanted: int) -> list[int]:
    """Which states to show: evenly spaced, with the first and the last."""
    last = len(way.states) - 1
    return sorted({round(k * last / (wanted - 1)) for k in range(wanted)})


@torch.inference_mode()
def denoising(model: Trained, way: Way, cache: LatentCache) -> Figure:
    """The first sample's way: some of its states, decoded, above the map of latents with all of its states on it."""
    some = _some(way, STATES)
    images = decoded(model.vae, model.space.denormalize(way.states[some, 0]))
    names = ["x" if way.times[k] < 0 else f"t = {way.times[k]}" for k in some]

    # All on the same two axes: those along which standardised latents vary most.
    known = model.space.normalize(cache.mu).cpu()
    middle = known.mean(dim=0)
    axes = torch.linalg.svd((known - middle).double(), full_matrices=False).Vh[:2].float()  # (2, D)
    points, path = ((rows.cpu() - middle) @ axes.T for rows in (known, way.states[:, 0]))

    figure = new_figure(0.62 * len(some), 5)
    above, below = figure.subplots(2, 1, height_ratios=(1, 6))
    show(above, images, len(some), column_names=names)
    for label, name in enumerate(model.class_names):
        of_class = points[cache.labels.cpu() == label]
        below.scatter(*of_class.T.tolist(), s=6, linewidths=0, color=f"C{label}", alpha=0.5, label=name)
    below.plot(*path.T.tolist(), color="black", linewidth=1)
    for here, then in pairwise(some):
        tip = {"arrowstyle": "->", "color": "black"}
        below.annotate("", path[then].tolist(), path[here].tolist(), arrowprops=tip)
    below.annotate("noise", path[0].tolist(), (4, 4), textcoords="offset points")
    below.annotate(model.class_names[int(way.labels[0])], path[-1].tolist(), (4, 4), textcoords="offset points")
    below.set(xticks=[], yticks=[])
    below.legend(markerscale=2)
    return figure


@torch.inference_mode()
def animation(model: Trained, way: Way) -> bytes:
    """Some states of the way, decoded, as a GIF."""
    frames = [decoded(model.vae, model.space.denormalize(way.states[k])) for k in _some(way, FRAMES)]
    return gif(torch.stack(frames), columns=3, fps=8)
