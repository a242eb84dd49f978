"""Measure checkpoints of the training scripts, and pictures made elsewhere, against the images of their data set.

examples:
  python evaluate.py result/*/*_latest.pt
  python evaluate.py result/tiny_sd/tiny_sd_latest.pt --num 2000 --json metrics.json --markdown metrics.md
  python evaluate.py samples.npz folder/of/pictures --dataset mnist

Samples are judged by HW3/judge.py, a classifier that is the same for everybody and takes no part in training; what
each number means is at the top of HW3/metrics.py. Two rows say how to read them: `real` is what test images get,
`noise` what noise gets. Numbers compare under one judge and one --num.

  label %             how often the judge sees what was asked for (tiny_sd, and files with labels)
  conf. %             how sure it is of what it sees
  Fréchet             Fréchet distance to training images, judge features; it is not the FID
  prec., density      how much of what is drawn looks like real images
  recall, cover.      how much of what is real is drawn
  classes             how many classes appear, evenly counted; 10 is all
  copies %            samples nearer to a training image than 99 % of the test images are: 1 is what real images get
A VAE also gets its reconstructions and its ELBO under two likelihoods, CLIP the accuracy of its labels for test images.
Behind each ± is half of a 95 % bootstrap interval.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from HW3.clip import NUM_CLASSES, SimpleCLIP
from HW3.data import DATASETS, ImageSet, load_dataset
from HW3.generate import draw, load_image_model
from HW3.judge import NUM_FEATURES, Judge, load_judge
from HW3.metrics import Estimate, Reference, clip_accuracy, make_reference, measure_samples, measure_vae
from HW3.plumbing.checkpoints import dataset_of, load_checkpoint
from HW3.plumbing.cli import Parser, add_data_dir, add_device, at_least, run_main
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError, UserError
from HW3.plumbing.files import write_atomically
from HW3.pretrained import load_clip, load_vae
from HW3.samples import load_samples

MEASURED = 2000  # images on which a VAE is measured

# Of each table: its title, where a row has the number of its images, and its columns. Of a column: the metric, what is
# written above it, what values are multiplied by, the digits behind the point, and the width.
Column = tuple[str, str, int, int, int]
TABLES: tuple[tuple[str, str, tuple[Column, ...]], ...] = (
    (
        "samples",
        "num",
        (
            ("label_accuracy", "label %", 100, 1, 10),
            ("clip_label_accuracy", "CLIP %", 100, 1, 10),
            ("confidence", "conf. %", 100, 1, 10),
            ("classes", "classes", 1, 2, 11),
            ("copies", "copies %", 100, 1, 10),
        ),
    ),
    (
        "their distribution",
        "num",
        (
            ("frechet_distance", "Fréchet", 1, 1, 15),
            ("precision", "prec. %", 100, 1, 10),
            ("density", "density", 1, 2, 10),
            ("recall", "recall %", 100, 1, 10),
            ("coverage", "cover. %", 100, 1, 10),
        ),
    ),
    (
        "VAE, on test images",
        "num_test",
        (
            ("reconstruction_error", "MSE", 1, 4, 14),
            ("reconstruction_bce", "BCE", 1, 1, 13),
            ("kl", "KL", 1, 1, 11),
            ("active_units", "active units", 1, 0, 12),
        ),
    ),
    (
        "its ELBO",
        "num_test",
        (
            ("elbo_bernoulli", "Bernoulli", 1, 1, 16),
            ("bits_bernoulli", "bits/dim", 1, 3, 14),
            ("elbo_gaussian", "Gaussian", 1, 1, 16),
            ("bits_gaussian", "bits/dim", 1, 3, 14),
            ("sigma", "sigma", 1, 3, 5),
        ),
    ),
    ("CLIP, on test images", "num_test", (("zero_shot_accuracy", "zero-shot %", 100, 2, 13),)),
)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "paths", metavar="CKPT", nargs="+", type=Path, help="checkpoints, .npz files, folders of pictures"
    )
    parser.add_argument("--dataset", choices=DATASETS, help="what to compare with; by default that of the checkpoints")
    parser.add_argument("--clip-ckpt", type=Path, help="also count how often this CLIP sees what was asked for")
    parser.add_argument(
        "--num", type=at_least(NUM_FEATURES + 1), default=500, help="images per row, drawn or chosen from a file"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the samples")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    add_data_dir(parser)
    add_device(parser)
    args = parser.parse_args()

    device = pick_device(args.device)
    dataset = args.dataset or find_dataset(args.paths)
    bench = Bench(dataset, args, device)
    says = f"judge: {bench.judge.name}, which gets {100 * bench.judge.test_accuracy:.2f} % of the test images right"
    print(says, flush=True)

    names = ["real", "noise", *map(shown, args.paths)]
    left_out = () if args.clip_ckpt else ("clip_label_accuracy",)
    first, *others = (
        Table(title, count, [column for column in columns if column[0] not in left_out], names)
        for title, count, columns in TABLES
    )
    rows, problems = [], []
    measurements: list[Callable[[], dict]] = [
        bench.real,
        bench.noise,
        *(partial(bench.file, path) for path in args.paths),
    ]
    for measure in measurements:
        try:
            row = measure()
        except UserError as error:  # the others are measured all the same
            problems.append(error)
            continue
        rows.append(row)
        first.show(row)

    for table in others:
        for row in rows:
            table.show(row)
    if args.json:
        write_atomically(args.json, (json.dumps([plain(row) for row in rows], indent=2) + "\n").encode())
    if args.markdown:
        write_atomically(
            args.markdown,
            ("\n\n".join([says, *(str(table) for table in (first, *others) if table.lines)]) + "\n").encode(),
        )
    if problems:
        more = f" (and {len(problems) - 1} more could not be measured)" if len(problems) > 1 else ""
        raise type(problems[0])(f"{problems[0]}{more}")


def find_dataset(paths: list[Path]) -> str:
    """The data set of the first checkpoint that can be read."""
    checkpoints = [path for path in paths if not is_samples(path)]
    if not checkpoints:
        raise UsageError("--dataset: say which images these are to be compared with")
    return dataset_of(checkpoints)


def is_samples(path: Path) -> bool:
    """Whether this is pictures, and no checkpoint."""
    return path.is_dir() or path.suffix.lower() == ".npz"


def shown(path: Path) -> str:
    """What the tables call it: a run by its folder and file."""
    return "/".join(path.parts[-2:])


class Bench:
    """What all rows have in common: the data set, its judge, and how many images are looked at."""

    def __init__(self, dataset: str, args: Any, device: torch.device) -> None:
        self.dataset, self.num, self.seed, self.device = dataset, args.num, args.seed, device
        self.judge: Judge = load_judge(dataset, device)
        self.clip: SimpleCLIP | None = load_clip(args.clip_ckpt, device, dataset) if args.clip_ckpt else None
        self.train: ImageSet = load_dataset(dataset, args.data_dir).to(device)
        self.test: ImageSet = load_dataset(dataset, args.data_dir, train=False).to(device)
        self.reference: Reference = make_reference(self.judge, self.train, self.test)

    def real(self) -> dict:
        """Test images: as good as samples get."""
        images, labels = self.test.subset(self.num, self.seed).batch(slice(None))
        return {"kind": "real"} | self._samples(images, labels, "real")

    def noise(self) -> dict:
        """Uniform noise: as bad as samples get."""
        source = torch.Generator().manual_seed(self.seed)
        images = torch.rand(self.num, *self.test.images.shape[1:], generator=source)
        return {"kind": "noise"} | self._samples(images.to(self.device), self._asked(), "noise")

    def file(self, path: Path) -> dict:
        """All metrics that a file has: those of its samples, and those of its kind of model."""
        if is_samples(path):
            samples = load_samples(path)
            chosen = torch.randperm(len(samples.images), generator=torch.Generator().manual_seed(self.seed))[: self.num]
            labels = None if samples.labels is None else samples.labels[chosen]
            return {"checkpoint": str(path), "kind": "samples"} | self._samples(
                samples.images[chosen].to(self.device), labels, str(path)
            )

        checkpoint = load_checkpoint(path)
        kind, found = checkpoint["kind"], checkpoint["args"]["dataset"]
        if found != self.dataset:
            raise UsageError(
                f"{path} was trained on {found}, and the other rows are about {self.dataset}: measure it by itself"
            )
        row: dict[str, Any] = {"checkpoint": str(path), "kind": kind, "epochs": checkpoint["position"]["epoch"]}
        images, labels = self.test.batch(slice(None))
        if kind == "clip":
            clip = load_clip(path, self.device, self.dataset)
            return row | {
                "dataset": self.dataset,
                "num_test": len(images),
                "zero_shot_accuracy": clip_accuracy(clip, images, labels),
            }
        asked = self._asked() if kind == "tiny_sd" else None
        model = load_image_model(path, self.device, import_module)
        drawn, _ = draw(model, self.num, self.device, labels=asked, seed=self.seed, progress=True)
        row |= self._samples(drawn, asked, str(path))
        if kind == "vae":
            test, train = (data.subset(MEASURED).batch(slice(None))[0] for data in (self.test, self.train))
            row["num_test"] = len(test)
            row |= measure_vae(load_vae(path, self.device, self.dataset), test, train)
        return row

    def _asked(self) -> Tensor:
        return torch.arange(self.num, device=self.device) % NUM_CLASSES

    def _samples(self, images: Tensor, labels: Tensor | None, name: str) -> dict:
        row: dict[str, Any] = {"dataset": self.dataset, "judge": self.judge.name, "num": len(images)}
        row |= measure_samples(self.judge, images, labels, self.reference, name)
        if self.clip is not None and labels is not None:
            row["clip_label_accuracy"] = clip_accuracy(self.clip, images, labels.to(self.device))
        return row


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON: each estimate as its value, and its interval beside it."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat[name] = value.value if isinstance(value, Estimate) else value
        if isinstance(value, Estimate):
            flat[f"{name}_ci95"] = [value.low, value.high]
    return flat


class Table:
    """A Markdown table that is printed row by row, so that its widths are fixed before it has one."""

    def __init__(self, title: str, count: str, columns: Sequence[Column], names: list[str]) -> None:
        self.count, self.columns, self.heads = count, columns, [title, "n", *(head for _, head, *_ in columns)]
        self.widths = [max(map(len, [title, *names])), 5, *(width for *_, width in columns)]
        self.lines: list[str] = []

    def show(self, row: Mapping[str, Any]) -> None:
        """Print a row, if it has something for this table; before the first one, what stands above it."""
        if not any(name in row for name, *_ in self.columns):
            return
        if not self.lines:
            print()
            self._line(self.heads)
            self._line(["-" * self.widths[0], *("-" * (width - 1) + ":" for width in self.widths[1:])])
        name = shown(Path(row["checkpoint"])) if "checkpoint" in row else row["kind"]
        cells = [cell(row[key], scale, digits) if key in row else "" for key, _, scale, digits, _ in self.columns]
        self._line([name, str(row[self.count]), *cells])

    def _line(self, cells: list[str]) -> None:
        name, *rest = zip(cells, self.widths, strict=True)
        self.lines.append(
            " | ".join(["| " + name[0].ljust(name[1]), *(text.rjust(width) for text, width in rest)]) + " |"
        )
        print(self.lines[-1], flush=True)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def cell(estimate: Estimate, scale: int, digits: int) -> str:
    """`99.4 ±0.3`, or the value alone where there is no interval."""
    half = scale * (estimate.high - estimate.low) / 2
    return f"{scale * estimate.value:.{digits}f}" + (f" ±{half:.{digits}f}" if half else "")


if __name__ == "__main__":
    run_main(main)
