"""Draw from any checkpoint of the training scripts.

examples:
  python sample.py result/diffusion/diffusion_latest.pt --num 64 --out samples.png
  python sample.py result/tiny_sd/tiny_sd_latest.pt --labels 4,2 --num 2 --out forty-two.png
  python sample.py result/tiny_sd/tiny_sd_latest.pt --labels all --num 1000 --out samples.npz
  python sample.py result/latent_diffusion/latent_diffusion_latest.pt --out samples.gif
  python sample.py result/diffusion/diffusion_latest.pt --sampler dpm --steps 15 --out quick.png

.png: a grid.  .gif: the true reverse trajectory, from noise to sample.  .npz: `images` uint8 (N, H, W), or
(N, H, W, C) in colour, and `labels` int64 (N,) if the model takes labels.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
import io
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from HW3.clip import NUM_CLASSES
from HW3.generate import DPM_STEPS, SAMPLERS, draw, load_image_model
from HW3.plumbing.cli import Parser, add_device, at_least, between, run_main
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically
from HW3.viz import save_gif, save_grid, to_uint8


def parse_labels(text: str) -> list[int]:
    """`all` or `0,1,2` -> labels. Raises UsageError for what is not a label."""
    if text == "all":
        return list(range(NUM_CLASSES))
    try:
        labels = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--labels {text}: write numbers with commas between them, or `all`") from None
    if not all(0 <= label < NUM_CLASSES for label in labels):
        raise UsageError(f"--labels {text}: labels are 0 to {NUM_CLASSES - 1}")
    return labels


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("ckpt", type=Path, help="a checkpoint of train_{vae,diffusion,latent_diffusion,tiny_sd}.py")
    parser.add_argument("--out", type=Path, required=True, help="the file to write: .npz, .png or .gif")
    parser.add_argument("--num", type=at_least(1), default=64, help="how many images")
    parser.add_argument("--labels", help="tiny_sd: what to draw, e.g. 4,2, repeated up to --num; by default all")
    parser.add_argument("--guidance-scale", type=between(0, 100), help="tiny_sd: by default as in training")
    parser.add_argument(
        "--guidance-until", type=between(0, 1), help="tiny_sd: guide only below this part of T; as in training"
    )
    parser.add_argument("--autoguidance", type=between(0, 100), help="denoisers: by default as in training; 1: none")
    parser.add_argument("--x0-scale", type=between(0.5, 2), help="denoisers: contrast; by default as in training")
    parser.add_argument(
        "--clip-tries",
        type=at_least(1),
        help="tiny_sd: draw what CLIP is not sure of again, so often in all; as in training",
    )
    parser.add_argument(
        "--sampler", choices=SAMPLERS, help="by default ddim; ddpm takes all T steps, dpm (DPM-Solver++) few"
    )
    parser.add_argument(
        "--steps", type=at_least(1), help=f"network calls per image; ddim: as in training, dpm: {DPM_STEPS}"
    )
    parser.add_argument(
        "--ddim-eta", type=between(0, 1), help="ddim: noise per step, 0 to 1; by default as in training"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="the same seed draws the same images")
    add_device(parser)
    args = parser.parse_args()

    suffix = args.out.suffix.lower()
    if suffix not in (".npz", ".png", ".gif"):
        raise UsageError(f"--out {args.out}: the name must end in .npz, .png or .gif")
    device = pick_device(args.device)
    model = load_image_model(
        args.ckpt,
        device,
        import_module,
        args.guidance_scale,
        guidance_until=args.guidance_until,
        autoguidance=args.autoguidance,
        x0_scale=args.x0_scale,
        clip_tries=args.clip_tries,
    )
    of_steps = any(flag is not None for flag in (args.sampler, args.steps, args.ddim_eta, args.x0_scale))
    if model.diffusion is None and (of_steps or suffix == ".gif"):
        flags = "--sampler, --steps, --ddim-eta, --x0-scale or .gif"
        raise UsageError(f"{args.ckpt} is a VAE, which draws in one step: no {flags}")
    if args.sampler == "ddpm" and (args.steps or args.ddim_eta is not None):
        raise UsageError("--steps and --ddim-eta belong to --sampler ddim, --steps also to dpm; ddpm takes them all")
    if args.sampler == "dpm" and args.ddim_eta is not None:
        raise UsageError("--ddim-eta belongs to --sampler ddim; dpm adds no noise")
    if args.steps and args.steps > model.timesteps:
        raise UsageError(f"--steps {args.steps} is outside 1 to {model.timesteps}")
    if args.labels and model.texts is None:
        raise UsageError(f"--labels: the model in {args.ckpt} takes no labels; tiny_sd does")

    labels, columns = None, 8
    if model.texts is not None:
        wanted = parse_labels(args.labels or "all")
        labels = torch.tensor(wanted).repeat(-(-args.num // len(wanted)))[: args.num]
        columns = len(wanted) if len(wanted) > 1 else 8

    images, movie = draw(
        model,
        args.num,
        device,
        labels=labels,
        sampler=args.sampler or "ddim",
        steps=args.steps,
        eta=args.ddim_eta,
        seed=args.seed,
        frames=60 if suffix == ".gif" else 0,
        progress=True,
    )
    if suffix == ".npz":
        arrays = {"images": to_uint8(images).permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()}
        if labels is not None:
            arrays["labels"] = labels.numpy()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # an array, says numpy, could be called allow_pickle
        write_atomically(args.out, buffer.getvalue())
    elif movie is not None:
        save_gif(movie, args.out, columns=min(columns, args.num))
    else:
        save_grid(images, args.out, columns=min(columns, args.num))
    print(f"{args.num} images -> {args.out}")


if __name__ == "__main__":
    run_main(main)
