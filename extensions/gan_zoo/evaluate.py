"""Measure the three models alike: pictures drawn from each, against training images, in the features of HW3's judge.

examples:
  python -m extensions.gan_zoo evaluate --quick
  python -m extensions.gan_zoo evaluate --quick --json metrics.json --set evaluate.samples=5000
  python -m extensions.gan_zoo evaluate --set data.source=folder --set data.folder=PATH --set evaluate.judge=mnist

  vae_loss                        of the held-out images: reconstruction, summed over pixels, + beta * KL
  frechet_distance_real           of held-out images: what a perfect model gets with as many samples
  frechet_distance_vae, _gan, _diffusion         of pictures drawn from noise. Lower is better; it is not the FID
  frechet_distance_vae_reconstruction            of held-out images, encoded and decoded
  frechet_distance_vae_fitted     of latents drawn from one Gaussian fitted to those of training images, in place of the
                                  prior N(0, I): how much of the distance is due to latents that are not where it says
  label_accuracy_diffusion        pictures of the diffusion model in which the judge sees the class that was asked for
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.fitted import fitted_gaussian
from extensions.gan_zoo.data import Images, load
from extensions.gan_zoo.models import MLPVAE
from extensions.gan_zoo.train import mean_over, vae_losses
from extensions.gan_zoo.trained import STAGES, load_trained, zoo_settings
from HW3.data import ImageSet, resize_uint8
from HW3.generate import draw
from HW3.judge import IMAGE_SIZE, Judge, load_judge
from HW3.metrics import REFERENCE, RESAMPLES, Estimate, frechet_distance
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically
from HW3.viz import to_uint8


def main() -> None:
    parser = track_parser(__doc__ or "", "gan_zoo")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args(arguments())
    config = zoo_settings(args)
    device = pick_device(args.device)
    judge = the_judge(config, device)
    data = load(config.data, args.data_dir, args.seed)
    vae, gan, diffusion = (load_trained(args.out_dir, stage, device, config, data) for stage in STAGES)
    num, reference = config.evaluate.samples, reference_of(judge, data, device)
    test = data.test.to(device).subset(num)  # in a random order, where there are more
    torch.manual_seed(args.seed)

    x = data.test.to(device).batch(slice(None))[0]
    with torch.inference_mode():
        found = {"vae_loss": mean_over(lambda x: vae_losses(vae.vae, x, vae.settings), x)}
        reconstructions = reconstruct(vae.vae, test.batch(slice(None))[0])
        fitted = vae.vae.decode(fitted_latents(vae.vae, data.train.to(device), num))
    labels = diffusion.labels(num)
    drawn = draw(diffusion.drawer, num, device, labels=labels, seed=args.seed, progress=True)[0]
    pictures = {
        "real": test.batch(slice(None))[0],
        "vae": draw(vae.drawer, num, device, seed=args.seed)[0],
        "gan": draw(gan.drawer, num, device, seed=args.seed)[0],
        "diffusion": drawn,
        "vae_reconstruction": reconstructions,
        "vae_fitted": fitted,
    }
    distances = {name: distance(judge, images, reference, name) for name, images in pictures.items()}
    found |= {f"frechet_distance_{name}": value.value for name, value in distances.items()}
    if data.source == judge.dataset and labels is not None:
        seen = judge.judge(as_judged(drawn))[1].argmax(dim=1)
        found["label_accuracy_diffusion"] = (seen == labels).double().mean().item()

    print(f"{data.source}: {len(x)} held-out images, {num} pictures of each model; judge: {judge.name}\n")
    print(f"vae_loss {found['vae_loss']:.3f} ({vae.settings.loss}, beta {vae.settings.beta:g})\n")
    print(f"{'Fréchet distance':20} {'':>8}   95 % interval")
    for name, (value, low, high) in distances.items():
        print(f"{name:20} {value:8.2f}   {low:.2f} to {high:.2f}")
    if "label_accuracy_diffusion" in found:
        print(f"\nlabel_accuracy_diffusion {100 * found['label_accuracy_diffusion']:.1f} %")
    if args.json:
        numbers = {"data": data.source, "judge": judge.name, "samples": num, **found}
        write_atomically(args.json, (json.dumps(numbers, indent=2) + "\n").encode())


def the_judge(config: SimpleNamespace, device: torch.device) -> Judge:
    """The judge of the data, or the one that evaluate.judge names."""
    name = config.evaluate.judge or config.data.source
    if name == "folder":
        raise UsageError("a folder has no judge of its own: name whose features to take, --set evaluate.judge=mnist")
    return load_judge(name, device)


def as_judged(images: Tensor) -> Tensor:
    """Pictures (N, 1, S, S) as the judge saw its training images: 256 grey values, 32 x 32."""
    return resize_uint8(to_uint8(images).cpu(), IMAGE_SIZE).to(images.device).float().div_(255)


def reference_of(judge: Judge, data: Images, device: torch.device) -> Tensor:
    """The features of training images, (M, 64)."""
    return judge.judge(as_judged(data.train.to(device).subset(REFERENCE).batch(slice(None))[0]))[0]


def distance(judge: Judge, images: Tensor, reference: Tensor, name: str, resamples: int = RESAMPLES) -> Estimate:
    """The Fréchet distance of pictures from the reference. Its interval is empty without resamples."""
    return frechet_distance(judge.judge(as_judged(images))[0], reference, name, resamples)


def reconstruct(vae: MLPVAE, images: Tensor) -> Tensor:
    """The decoded posterior means."""
    return vae.decode(vae.encode(images)[0])


def fitted_latents(vae: MLPVAE, train: ImageSet, num: int) -> Tensor:
    """Latents (num, D) from a Gaussian with the moments of the training images' posterior means."""
    mu = vae.encode(train.subset(REFERENCE).batch(slice(None))[0])[0].cpu().double()  # (M, D)
    z = fitted_gaussian(mu, torch.randn(num, mu.shape[1], dtype=mu.dtype))
    return z.float().to(train.images.device)
