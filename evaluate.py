"""Measure any checkpoints of the training scripts, on the test images of their data set.

examples:
  python evaluate.py result/*/*_latest.pt
  python evaluate.py result/tiny_sd/tiny_sd_latest.pt --num 2000 --json metrics.json

What is measured, per kind of checkpoint:
  vae               reconstruction error (squared, per pixel); Fréchet distance of decoded noise
  clip              accuracy of its labels for test images
  diffusion, latent_diffusion, tiny_sd
                    Fréchet distance of samples to test images, in the embedding of --clip-ckpt
  tiny_sd           label accuracy: how often CLIP sees what was asked for
The distances compare models of one data set, under one --clip-ckpt and --num; lower is better.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
import json
import sys
from importlib import import_module
from pathlib import Path

import torch

from HW3.clip import NUM_CLASSES
from HW3.data import load_dataset
from HW3.generate import draw, load_image_model
from HW3.metrics import frechet_distance, label_accuracy, reconstruction_error
from HW3.plumbing.checkpoints import load_checkpoint
from HW3.plumbing.cli import Parser, add_data_dir, add_device, at_least, run_main
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UserError
from HW3.plumbing.files import write_atomically
from HW3.pretrained import load_clip, load_vae


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("ckpts", metavar="CKPT", nargs="+", type=Path, help="checkpoints, of any kind")
    parser.add_argument("--clip-ckpt", default="result/clip/clip_latest.pt", type=Path, help="the judge of samples")
    parser.add_argument("--num", type=at_least(2), default=500, help="samples to draw from each model")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the samples")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    add_data_dir(parser)
    add_device(parser)
    args = parser.parse_args()

    device = pick_device(args.device)
    rows, problems = [], []
    for path in args.ckpts:
        try:
            row = evaluate(path, args.clip_ckpt, args.data_dir, args.num, args.seed, device)
        except UserError as error:  # the others are measured all the same
            problems.append(error)
            continue
        rows.append({"checkpoint": str(path), **row})
        print(format_row(rows[-1]), flush=True)
    if args.json and rows:
        write_atomically(args.json, (json.dumps(rows, indent=2) + "\n").encode())
    if problems:
        more = f" (and {len(problems) - 1} more could not be measured)" if len(problems) > 1 else ""
        raise type(problems[0])(f"{problems[0]}{more}")


def evaluate(path: Path, judge: Path, data_dir: Path, num: int, seed: int, device: torch.device) -> dict:
    """All metrics that the checkpoint's kind has, by name, after its kind, data set and number of epochs."""
    checkpoint = load_checkpoint(path)
    kind, dataset = checkpoint["kind"], checkpoint["args"]["dataset"]
    test = load_dataset(dataset, data_dir, train=False).to(device)
    images, labels = test.batch(slice(None))
    row = {"kind": kind, "dataset": dataset, "epochs": checkpoint["position"]["epoch"]}
    if kind == "clip":
        return row | {"label_accuracy": label_accuracy(load_clip(path, device, dataset), images, labels)}
    if kind == "vae":
        row["reconstruction_error"] = reconstruction_error(load_vae(path, device, dataset), images)
        if not judge.is_file():  # the VAE comes before CLIP
            print(f"note: no Fréchet distance without {judge}: make it with train_clip.py", file=sys.stderr)
            return row

    clip = load_clip(judge, device, dataset)
    asked = torch.arange(num, device=device) % NUM_CLASSES if kind == "tiny_sd" else None
    model = load_image_model(path, device, import_module)
    samples, _ = draw(model, num, device, labels=asked, seed=seed, progress=True)
    row["frechet_distance"] = frechet_distance(clip, samples, images)
    if asked is not None:
        row["label_accuracy"] = label_accuracy(clip, samples, asked)
    return row


def format_row(row: dict) -> str:
    """One line of the table."""
    names = [name for name in row if name not in ("checkpoint", "kind", "dataset", "epochs")]
    metrics = "   ".join(f"{name} {row[name]:.4f}" for name in names)
    return f"{row['kind']:<17} {row['dataset']:<8} {row['epochs']:>4} epochs   {metrics}"


if __name__ == "__main__":
    run_main(main)
