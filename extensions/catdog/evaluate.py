"""Measure the models of a run on held-out pictures, by the classifier of the latents and by the judge.

examples:
  python -m extensions.catdog evaluate --quick
  python -m extensions.catdog evaluate --quick --json metrics.json --set sample.guidance=1

  latent_accuracy      held-out pictures of which the classifier of the latents says the class, at the posterior mean
  judge_accuracy       held-out pictures of which the judge does: how far to believe the next two
  judge_accuracy_reconstruction    the same pictures, encoded and decoded
  class_agreement      drawn pictures in which the judge sees the class that was asked for; also by class,
                       class_agreement_NAME
  reconstruction_error     squared error per pixel of held-out pictures
  frechet_distance     of drawn pictures from training pictures, in the judge's features. Lower is better; it is no FID
  frechet_distance_real, frechet_distance_reconstruction    of held-out pictures, and of these encoded and decoded
  frechet_distance_fitted  of latents drawn from a Gaussian for each class in place of the diffusion model
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.fitted import fitted_gaussian
from extensions.catdog.models import CHUNK, LabelledVAE
from extensions.catdog.track import Track
from extensions.catdog.train import look_at
from extensions.catdog.trained import encode, load_diffusion, load_judge, load_vae, track_settings
from HW3.data import ImageSet
from HW3.generate import draw
from HW3.metrics import REFERENCE, RESAMPLES, frechet_distance
from HW3.plumbing.device import pick_device
from HW3.plumbing.files import write_atomically


def main(track: Track) -> None:
    parser = track_parser(track.doc(__doc__ or ""), track.name)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args(arguments())
    config = track_settings(track, args)
    device = pick_device(args.device)
    data = track.load(config.data, args.data_dir, args.seed)
    judge = load_judge(track, args.out_dir, device, data)
    vae = load_vae(track, args.out_dir, device, data)
    model = load_diffusion(track, args.out_dir, device, config, data)
    num, names = config.evaluate.samples, data.train.class_names
    train, test = data.train.to(device), data.test.to(device)
    torch.manual_seed(args.seed)

    with torch.inference_mode():
        looked = look_at(vae, test)
    found = {"latent_accuracy": looked["val_accuracy"], "reconstruction_error": looked["val_rec"]}

    # What the judge sees in held-out pictures, in these encoded and decoded, in drawn ones
    labels = model.labels(num)
    drawn, _ = draw(model.drawer, num, device, labels=labels.to(device), seed=args.seed, progress=True)
    some = test.subset(num)  # in a random order, where there are more
    pictures = {
        "real": (some.batch(slice(None))[0], some.labels),
        "reconstruction": (decoded(model.vae, encode(model.vae, some).mu), some.labels),
        "fitted": (decoded(model.vae, fitted_latents(model.vae, train, labels)), labels),
        "diffusion": (drawn, labels),
    }
    reference = judge.judge(train.subset(REFERENCE).batch(slice(None))[0])[0]
    agreement, distances = {}, {}
    for name, (images, asked) in pictures.items():
        features, seen = judge.judge(images)
        agreement[name] = seen == asked.cpu()
        distances[name] = frechet_distance(features, reference, name, RESAMPLES)
    found["judge_accuracy"] = rate(judge.judge(test.batch(slice(None))[0])[1] == test.labels.cpu())
    found["judge_accuracy_reconstruction"] = rate(agreement["reconstruction"])
    found["class_agreement"] = rate(agreement["diffusion"])
    for label, name in enumerate(names):
        found[f"class_agreement_{name}"] = rate(agreement["diffusion"][labels == label])
    found["class_agreement_fitted"] = rate(agreement["fitted"])
    found["frechet_distance"] = distances["diffusion"].value
    found |= {f"frechet_distance_{name}": d.value for name, d in distances.items() if name != "diffusion"}

    print(f"{data.source}: {len(test)} held-out pictures; {num} drawn, guidance {config.sample.guidance:g}\n")
    for key in ("latent_accuracy", *(key for key in found if key.startswith(("judge", "class")))):
        print(f"{key:32} {100 * found[key]:5.1f} %")
    print(f"{'reconstruction_error':32} {found['reconstruction_error']:.5f}\n")
    print(f"{'Fréchet distance':20} {'':>8}   95 % interval")
    for name, (value, low, high) in distances.items():
        print(f"{name:20} {value:8.2f}   {low:.2f} to {high:.2f}")
    if args.json:
        numbers = {"data": data.source, "samples": num, "guidance": config.sample.guidance, **found}
        write_atomically(args.json, (json.dumps(numbers, indent=2) + "\n").encode())


def rate(right: Tensor) -> float:
    return right.double().mean().item()


@torch.inference_mode()
def decoded(vae: LabelledVAE, z: Tensor) -> Tensor:
    """Latents (N, D) -> images, a part after the other."""
    return torch.cat([vae.decode(part) for part in z.split(CHUNK)])


def fitted_latents(vae: LabelledVAE, train: ImageSet, labels: Tensor) -> Tensor:
    """Latents (N, D) of these classes, each from a Gaussian with the moments of its class in the training pictures."""
    cache = encode(vae, train)
    mu, owner = cache.mu.cpu().double(), cache.labels.cpu()
    z = torch.randn(len(labels), mu.shape[1], dtype=mu.dtype)
    for label in labels.unique():
        rows = labels == label
        z[rows] = fitted_gaussian(mu[owner == label], z[rows])
    return z.float().to(train.images.device)
