"""Draw from any checkpoint of the training scripts.

examples:
  python sample.py result/diffusion/diffusion_latest.pt --num 64 --out samples.png
  python sample.py result/tiny_sd/tiny_sd_latest.pt --labels 4,2 --num 2 --out forty-two.png
  python sample.py result/tiny_sd/tiny_sd_latest.pt --labels all --num 1000 --out samples.npz
  python sample.py result/latent_diffusion/latent_diffusion_latest.pt --out samples.gif

.png: a grid.  .gif: the true reverse trajectory, from noise to sample.  .npz: `images` uint8 (N, H, W), or
(N, H, W, C) in colour, and `labels` int64 (N,) if the model takes labels.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from HW3.checkpoints import load_checkpoint, restore, unembed, weights
from HW3.cli import Parser, add_device, at_least, between, run_main
from HW3.clip import NUM_CLASSES, SimpleCLIP
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.errors import UsageError
from HW3.files import write_atomically
from HW3.latent import EpsMLP, LatentSpace, text_conditions
from HW3.training import pick_device
from HW3.Unet import UNet
from HW3.vae import ConvVAE
from HW3.viz import save_gif, save_grid, to_uint8
from train_tiny_sd import EpsMLPCond, GuidedModel

CHUNK = 500  # images drawn at once


@dataclass
class Generator:
    """A trained model, ready to draw: what every kind of checkpoint becomes.

    diffusion: None for a VAE, which decodes plain noise.  shape: of one state; None for images.
    decode: states -> images in [0, 1].  texts: (10, E) conditions, None for an unconditional model.
    steps: DDIM steps it was trained to be shown with.
    """

    decode: Callable[[Tensor], Tensor]
    shape: tuple[int, ...] | None
    diffusion: GaussianDiffusion | None = None
    texts: Tensor | None = None
    steps: int | None = None


def load_generator(path: Path, device: torch.device, guidance_scale: float | None = None) -> Generator:
    """Rebuild the model in a checkpoint. Raises UsageError for one that cannot draw."""
    checkpoint = load_checkpoint(path, device=device)
    kind, config, extra = checkpoint["kind"], checkpoint["config"], checkpoint["extra"]
    if kind == "clip":
        raise UsageError(f"{path} is a CLIP model, which compares images and draws none; evaluate.py measures it")
    if guidance_scale is not None and kind != "tiny_sd":
        raise UsageError(f"--guidance-scale needs a tiny_sd checkpoint, and {path} holds a {kind} model")
    if kind == "vae":
        vae = ConvVAE(**config).to(device)
        restore(vae, weights(checkpoint), path)
        return Generator(vae.eval().decode, (vae.latent_dim,))

    model = {"diffusion": UNet, "latent_diffusion": EpsMLP, "tiny_sd": EpsMLPCond}[kind](**config["net"]).to(device)
    restore(model, weights(checkpoint), path)
    process, steps = DiffusionConfig(**config["diffusion"]), checkpoint["args"]["ddim_steps"]
    if kind == "diffusion":
        return Generator(lambda x: (x + 1) / 2, None, GaussianDiffusion(model, process).to(device), None, steps)

    vae = unembed(ConvVAE, extra["vae"], path, device)
    space = LatentSpace(vae.latent_dim).to(device)
    restore(space, extra["space"], path)
    texts = None
    if kind == "tiny_sd":
        scale = checkpoint["args"]["guidance_scale"] if guidance_scale is None else guidance_scale
        model, texts = GuidedModel(model, scale), text_conditions(unembed(SimpleCLIP, extra["clip"], path, device))
    diffusion = GaussianDiffusion(model, process).to(device)
    return Generator(lambda u: vae.decode(space.denormalize(u)), (vae.latent_dim,), diffusion, texts, steps)


@torch.inference_mode()
def draw(
    generator: Generator,
    num: int,
    device: torch.device,
    *,
    labels: Tensor | None = None,
    sampler: str = "ddim",
    steps: int | None = None,
    eta: float = 0.0,
    seed: int = 0,
    frames: int = 0,
    progress: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Draw `num` images (N, C, H, W) in [0, 1], and with frames > 0 their trajectory (F, N, C, H, W).

    labels: (N,) for a conditional model.
    """
    source = torch.Generator(device).manual_seed(seed)
    images, movies = [], []
    for start in range(0, num, CHUNK):
        n = min(CHUNK, num - start)
        if generator.diffusion is None:
            images.append(generator.decode(torch.randn(n, *generator.shape, generator=source, device=device)))
            continue
        options = {"shape": generator.shape, "generator": source, "frames": frames, "progress": progress}
        if generator.texts is not None:
            options["cond"] = generator.texts[labels[start : start + n]]
        if sampler == "ddpm":
            states = generator.diffusion.sample_ddpm(n, device, **options)
        else:
            states = generator.diffusion.sample_ddim(n, device, steps or generator.steps, eta, **options)
        if frames:
            states, path = states
            movies.append(torch.stack([generator.decode(state) for state in path]))
        images.append(generator.decode(states))
    return torch.cat(images).clamp(0, 1), torch.cat(movies, dim=1).clamp(0, 1) if movies else None


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
    parser.add_argument("--sampler", choices=("ddpm", "ddim"), help="by default ddim; ddpm takes all T steps")
    parser.add_argument("--steps", type=at_least(1), help="ddim: network calls per image; by default as in training")
    parser.add_argument("--ddim-eta", type=between(0, 1), help="ddim: noise per step; by default 0")
    parser.add_argument("--seed", type=at_least(0), default=0, help="the same seed draws the same images")
    add_device(parser)
    args = parser.parse_args()

    suffix = args.out.suffix.lower()
    if suffix not in (".npz", ".png", ".gif"):
        raise UsageError(f"--out {args.out}: the name must end in .npz, .png or .gif")
    device = pick_device(args.device)
    generator = load_generator(args.ckpt, device, args.guidance_scale)
    if generator.diffusion is None and (args.sampler or args.steps or args.ddim_eta is not None or suffix == ".gif"):
        raise UsageError(f"{args.ckpt} is a VAE, which draws in one step: no --sampler, --steps, --ddim-eta or .gif")
    if args.sampler == "ddpm" and (args.steps or args.ddim_eta is not None):
        raise UsageError("--steps and --ddim-eta belong to --sampler ddim; ddpm takes every step")
    if args.steps and args.steps > generator.diffusion.config.timesteps:
        raise UsageError(f"--steps {args.steps} is outside 1 to {generator.diffusion.config.timesteps}")
    if args.labels and generator.texts is None:
        raise UsageError(f"--labels: the model in {args.ckpt} takes no labels; tiny_sd does")

    labels, columns = None, 8
    if generator.texts is not None:
        wanted = parse_labels(args.labels or "all")
        labels = torch.tensor(wanted).repeat(-(-args.num // len(wanted)))[: args.num]
        columns = len(wanted) if len(wanted) > 1 else 8

    images, movie = draw(
        generator,
        args.num,
        device,
        labels=labels,
        sampler=args.sampler or "ddim",
        steps=args.steps,
        eta=args.ddim_eta or 0.0,
        seed=args.seed,
        frames=60 if suffix == ".gif" else 0,
        progress=True,
    )
    if suffix == ".npz":
        arrays = {"images": to_uint8(images).permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()}
        if labels is not None:
            arrays["labels"] = labels.numpy()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(args.out, buffer.getvalue())
    elif suffix == ".png":
        save_grid(images, args.out, columns=min(columns, args.num))
    else:
        save_gif(movie, args.out, columns=min(columns, args.num))
    print(f"{args.num} images -> {args.out}")


if __name__ == "__main__":
    run_main(main)
