"""Train VAEs that differ in the weight of the KL term, and measure what each draws: a curve with a lowest point.

examples:
  python -m extensions.gan_zoo sweep --quick
  python -m extensions.gan_zoo sweep --quick --set vae.loss=l1 --set sweep.betas="0.005 0.05 0.5"
  python -m extensions.gan_zoo sweep --quick --resume              go on where Ctrl-C stopped it

With little weight the latents lie where the prior N(0, I) does not draw; with much they tell little of the image.
Writes sweep/LOSS.json and, of all losses that were swept, sweep/sweep.png in --out-dir.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from matplotlib.figure import Figure

from extensions.blocks.command import arguments, track_parser
from extensions.gan_zoo.data import load
from extensions.gan_zoo.evaluate import distance, reconstruct, reference_of, the_judge
from extensions.gan_zoo.train import add_start, train_vae, zoo_args
from extensions.gan_zoo.trained import load_trained, zoo_settings
from HW3.generate import draw
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically
from HW3.plumbing.run import Run
from HW3.viz import figure_png, new_figure


def main() -> None:
    parser = track_parser(__doc__ or "", "gan_zoo")
    add_start(parser)
    args = parser.parse_args(arguments())
    config = zoo_settings(args)
    betas = weights(config.sweep.betas)
    data = load(config.data, args.data_dir, args.seed)

    folder, points = args.out_dir / "sweep", []
    for beta in betas:
        # A run per weight, each in sweep/LOSS/beta_WEIGHT/vae, so that it is found like any other VAE.
        section = SimpleNamespace(**{**vars(config.vae), "beta": beta, "epochs": config.sweep.epochs})
        place = f"sweep/{section.loss}/beta_{beta:g}"
        run = Run("gan_zoo_vae", "vae", zoo_args(args, config, section, f"{place}/vae"), is_last=beta == betas[-1])
        run.say(f"beta {beta:g}")
        train_vae(run, section, data)
        if not run.world.is_main:
            continue
        judge = the_judge(config, run.device)
        reference = reference_of(judge, data, run.device)
        vae = load_trained(args.out_dir / place, "vae", run.device, config, data)
        test = data.test.to(run.device).subset(config.sweep.samples).batch(slice(None))[0]
        with torch.inference_mode():
            back = reconstruct(vae.vae, test)
        drawn, _ = draw(vae.drawer, config.sweep.samples, run.device, seed=args.seed)
        point = {
            "beta": beta,
            "frechet_distance": distance(judge, drawn, reference, place, 0).value,
            "frechet_distance_reconstruction": distance(judge, back, reference, place, 0).value,
        }
        run.say("  ".join(f"{name} {value:.4g}" for name, value in point.items()))
        points.append(point)
        numbers = {"data": data.source, "loss": section.loss, "judge": judge.name, "points": points}
        write_atomically(folder / f"{section.loss}.json", (json.dumps(numbers, indent=2) + "\n").encode())
        write_atomically(folder / "sweep.png", curve_png(folder))


def weights(text: str) -> list[float]:
    """The numbers of sweep.betas, each once and in order. Raises UsageError for what is none."""
    try:
        found = sorted({float(part) for part in text.replace(",", " ").split()})
    except ValueError:
        found = []
    if not found or not 0 < found[0] <= found[-1] < float("inf"):
        raise UsageError(f"sweep.betas must be numbers above 0 with spaces between them, not {text!r}")
    return found


def curve_png(folder: Path) -> bytes:
    """The picture of all sweeps in a folder."""
    sweeps = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return figure_png(curve(sweeps))


def curve(sweeps: list[dict[str, Any]]) -> Figure:
    """The distance of what is drawn, and of reconstructions, against the weight of the KL term."""
    figure = new_figure(6, 4.4)
    axes = figure.subplots()
    for number, sweep in enumerate(sweeps):
        betas = [point["beta"] for point in sweep["points"]]
        for name, line, what in (
            ("frechet_distance", "o-", "drawn from the prior"),
            ("frechet_distance_reconstruction", "o:", "reconstructions"),
        ):
            values = [point[name] for point in sweep["points"]]
            axes.plot(betas, values, line, color=f"C{number}", label=f"{sweep['loss']}, {what}")
    axes.set(xscale="log", yscale="log", xlabel="beta, the weight of the KL term", ylabel="Fréchet distance")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")  # where no curve can be behind it
    return figure
