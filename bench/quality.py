"""CPU-seconds from nothing to a given quality: the --quick chain, trained and measured with one lever moved at a time.

examples:
  python bench/quality.py                                    the chain as it is and every lever, three seeds: hours
  python bench/quality.py --levers "VAE: squared error" --seeds 42 43
  python bench/quality.py --smoke                            bundled digits, two epochs: that all of it works

Everything is trained by the scripts' own commands, in --runs, and what is there is not trained again. Two judges
measure: the repository's, and one of another architecture that is trained here. bench/README.md says what is measured.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from grading.hidden.doors.leaderboard.judge import load_private, train_private
from HW3.clip import NUM_CLASSES
from HW3.data import ImageSet, load_dataset
from HW3.generate import draw, load_image_model
from HW3.judge import Judge, accuracy, load_judge, save_judge
from HW3.metrics import REFERENCE, effective_classes, frechet_distance, near_each_other
from HW3.plumbing.cli import add_data_dir, at_least, run_main
from HW3.plumbing.files import write_atomically
from HW3.pretrained import load_vae

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
LATEST = {
    "vae": "convae_latest.pt",
    "clip": "clip_latest.pt",
    "latent_diffusion": "latent_diffusion_latest.pt",
    "tiny_sd": "tiny_sd_latest.pt",
    "diffusion": "diffusion_latest.pt",
}
NEEDS: dict[str, tuple[str, ...]] = {"latent_diffusion": ("vae",), "tiny_sd": ("vae", "clip")}
SECOND_JUDGE_SEED = 1


@dataclass(frozen=True)
class Lever:
    """What is moved: flags of training scripts by stage, and how tiny SD and latent diffusion are drawn."""

    flags: dict[str, str] = field(default_factory=dict)
    guidance: tuple[float, float] | None = None  # of tiny SD: its scale, and until which part of T
    autoguidance: float | None = None
    x0_scale: float | None = None
    clip_tries: int | None = None  # of tiny SD
    drawing: dict[str, object] = field(default_factory=dict)

    def moves(self, stage: str) -> bool:
        """Whether it changes what comes out of a stage."""
        if any(part in self.flags for part in (stage, *NEEDS.get(stage, ()))):
            return True
        if self.guidance is not None or self.clip_tries is not None:  # of the text
            return stage == "tiny_sd"
        return stage != "vae" and ((self.autoguidance, self.x0_scale) != (None, None) or bool(self.drawing))


UNGUIDED = Lever(guidance=(1, 1), autoguidance=1, clip_tries=1)

# One at a time, each against the first. `--preset paper` is all of its own at once.
LEVERS = {
    "quick": Lever(),
    "preset paper": Lever({stage: "--preset paper" for stage in LATEST}),
    "float32": Lever({stage: "--precision fp32" for stage in ("vae", "latent_diffusion", "tiny_sd")}),
    "VAE: 2 epochs": Lever({"vae": "--epochs 2"}),
    "VAE: 10 epochs": Lever({"vae": "--epochs 10"}),
    "four CPU-minutes in all": Lever({"vae": "--epochs 2", "tiny_sd": "--epochs 24"}),
    "VAE: 40 latents": Lever({"vae": "--latent-dim 40"}),
    "denoisers: 10 epochs": Lever({stage: "--epochs 10" for stage in ("latent_diffusion", "tiny_sd")}),
    "denoisers: 60 epochs": Lever({stage: "--epochs 60" for stage in ("latent_diffusion", "tiny_sd")}),
    "VAE: squared error": Lever({"vae": "--loss-type mse"}),
    "VAE: KL weight 1": Lever({"vae": "--kl-weight 1"}),
    "VAE: averaged weights": Lever({"vae": "--ema 0.99"}),
    "eps, linear schedule": Lever({stage: "--prediction eps" for stage in ("latent_diffusion", "tiny_sd")}),
    "no averaged weights": Lever({stage: "--ema 0" for stage in ("latent_diffusion", "tiny_sd")}),
    "text never hidden": Lever({"tiny_sd": "--cond-dropout 0"}, guidance=(1, 1)),
    "drawn once": Lever(clip_tries=1),
    "no guidance at all": UNGUIDED,
    "no guidance at all, x0 stretched by 3 %": replace(UNGUIDED, x0_scale=1.03),
    "no guidance at all, x0 stretched by 1 %, eta 1 in 100 steps": replace(
        UNGUIDED, x0_scale=1.01, drawing={"eta": 1.0, "steps": 100}
    ),
    "x0 not stretched": Lever(x0_scale=1.0),
    "autoguidance only": Lever(guidance=(1, 1), clip_tries=1),
    "no autoguidance": Lever(autoguidance=1),
    "autoguidance 1.5": Lever(autoguidance=1.5),
    "autoguidance 2": Lever(autoguidance=2.0),
    "text guidance 1.5 only": replace(UNGUIDED, guidance=(1.5, 1)),
    "text guidance 3 only": replace(UNGUIDED, guidance=(3, 1)),
    "text guidance 2 below 0.75 T, drawn once": Lever(guidance=(2, 0.75), clip_tries=1),
    "text guidance 2 below 0.75 T": Lever(guidance=(2, 0.75)),
    "text guidance 2": Lever(guidance=(2, 1)),
    "eta 0": Lever(drawing={"eta": 0.0}),
    "eta 0.5": Lever(drawing={"eta": 0.5}),
    "eta 1": Lever(drawing={"eta": 1.0}),
    "DDIM, 200 steps": Lever(drawing={"steps": 200}),
    "DDIM, 50 steps": Lever(drawing={"steps": 50}),
    "DDIM, 15 steps": Lever(drawing={"steps": 15}),
    "DPM-Solver++, 15 steps": Lever(drawing={"steps": 15, "sampler": "dpm"}),
    "DPM-Solver++, 10 steps": Lever(drawing={"steps": 10, "sampler": "dpm"}),
    "U-Net: 24 channels": Lever({"diffusion": "--base-channels 24"}),
    "U-Net: 48 channels": Lever({"diffusion": "--base-channels 48"}),
    "U-Net: no attention": Lever({"diffusion": "--no-attention"}),
    "U-Net: patches of 4": Lever({"diffusion": "--patch-size 4 --base-channels 64"}),
}
SMOKE = ("quick", "no guidance at all")


# -- training ---------------------------------------------------------------------------------------------


class Runs:
    """Runs of the training scripts, each in a folder named by what it was trained with."""

    def __init__(self, folder: Path, dataset: str, data_dir: Path, more: Sequence[str]) -> None:
        self.folder, self.dataset, self.data_dir, self.more = folder, dataset, data_dir, list(more)

    def train(self, stage: str, lever: Lever, seed: int) -> tuple[Path, dict[str, float]]:
        """The checkpoint of a stage, and the CPU seconds of it and of all that it needs, by stage."""
        seconds: dict[str, float] = {}
        flags = ["--quick", "--dataset", self.dataset, "--seed", str(seed), *self.more]
        flags += lever.flags.get(stage, "").split()
        for needed in NEEDS.get(stage, ()):
            path, cost = self.train(needed, lever, seed)
            flags += [f"--{needed}-ckpt", str(path)]
            seconds |= cost
        command = [f"train_{stage}.py", *flags]
        folder = self.folder / f"{stage}-{sha256(' '.join(command).encode()).hexdigest()[:12]}"
        record = folder / "cost.json"
        if not record.exists():
            cost = self._run([*command, "--out-dir", str(folder), "--overwrite"])
            write_atomically(record, json.dumps({"command": command, "cpu_seconds": cost}).encode())
        seconds[stage] = json.loads(record.read_text())["cpu_seconds"]
        return folder / LATEST[stage], seconds

    def _run(self, command: list[str]) -> float:
        """Run a script; returns the CPU seconds of all of its threads."""
        print("$ python", *command, flush=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        env = os.environ | {"HW3_DATA_DIR": str(self.data_dir)}
        subprocess.run([sys.executable, *command], cwd=ROOT, env=env, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


# -- measuring --------------------------------------------------------------------------------------------


class Judges:
    """The repository's judge and the second one, what they see in training images, and what real images get."""

    def __init__(self, runs: Runs, num: int) -> None:
        self.num = num
        self.train = load_dataset(runs.dataset, runs.data_dir)
        self.test = load_dataset(runs.dataset, runs.data_dir, train=False)
        self.judges: dict[str, Judge] = {"": load_judge(runs.dataset, CPU), "second_": self._second(runs)}
        reference = self.train.subset(REFERENCE).batch(slice(None))[0]
        self.reference = {name: judge.judge(reference)[0] for name, judge in self.judges.items()}
        images, labels = self.images(self.test)
        self.real = self.measure(images, labels)

    def images(self, data: ImageSet) -> tuple[Tensor, Tensor]:
        """As many images as samples are drawn, or all."""
        return data.subset(min(self.num, len(data)), 0).batch(slice(None))

    def _second(self, runs: Runs) -> Judge:
        path = runs.folder / f"second_judge_{runs.dataset}.pt"
        if not path.exists():
            print("training the second judge", flush=True)
            judge = train_private(runs.dataset, self.train, SECOND_JUDGE_SEED)
            save_judge(judge, accuracy(judge, self.test), path)
        return load_private(path)

    def measure(self, images: Tensor, labels: Tensor | None) -> dict[str, float]:
        """By both judges, without intervals: what varies from seed to seed is shown instead."""
        found = {}
        for name, judge in self.judges.items():
            features, probabilities = judge.judge(images)
            confidence, seen = probabilities[:, :NUM_CLASSES].max(dim=1)
            if labels is not None:
                found[f"{name}label_accuracy"] = (seen == labels).double().mean().item()
            found[f"{name}confidence"] = confidence.mean().item()
            found[f"{name}frechet_distance"] = frechet_distance(features, self.reference[name], resamples=0).value
            near = near_each_other(features, self.reference[name][: len(features)])
            found |= {f"{name}{key}": values.mean().item() for key, values in near.items()}
            share = seen.bincount(minlength=NUM_CLASSES) / len(seen)
            found |= {f"{name}rarest_class": share.min().item(), f"{name}commonest_class": share.max().item()}
            found[f"{name}classes"] = effective_classes(seen)
        return found


def measure(runs: Runs, judges: Judges, lever: Lever, seed: int, stages: Sequence[str]) -> dict[str, dict[str, float]]:
    """What a lever does under one seed: metrics by stage, Fréchet distances as multiples of that of real images."""
    found: dict[str, dict[str, float]] = {}
    for stage in stages:
        path, seconds = runs.train(stage, lever, seed)
        if stage == "vae":
            vae = load_vae(path, CPU, runs.dataset)
            images, labels = judges.images(judges.test)
            with torch.inference_mode():
                drawn = torch.cat([vae.decode(vae.encode(x)[0]) for x in images.split(500)])
            asked: Tensor | None = labels
        else:
            asked = torch.arange(judges.num) % NUM_CLASSES if stage == "tiny_sd" else None
            scale, until = lever.guidance if lever.guidance and stage == "tiny_sd" else (None, None)
            tries = lever.clip_tries if stage == "tiny_sd" else None
            model = load_image_model(
                *(path, CPU, import_module, scale),
                guidance_until=until,
                autoguidance=lever.autoguidance,
                x0_scale=lever.x0_scale,
                clip_tries=tries,
            )
            drawn, _ = draw(model, judges.num, CPU, labels=asked, seed=seed, progress=True, **lever.drawing)
        found[stage] = judges.measure(drawn, asked) | {"cpu_seconds": sum(seconds.values())}
        for name in judges.judges:
            key = f"{name}frechet_distance"
            found[stage][f"{name}frechet_ratio"] = found[stage][key] / judges.real[key]
    return found


# -- the tables -------------------------------------------------------------------------------------------

# Of each table: its stage, and its columns: the metric, what is written above it, a factor, and digits.
TABLES = {
    "vae": (
        ("frechet_ratio", "Fréchet / real", 1, 2),
        ("second_frechet_ratio", "second judge", 1, 2),
        ("cpu_seconds", "CPU s", 1, 0),
    ),
    "latent_diffusion": (
        ("confidence", "confidence %", 100, 1),
        ("rarest_class", "rarest %", 100, 1),
        ("commonest_class", "commonest %", 100, 1),
        ("frechet_ratio", "Fréchet / real", 1, 1),
        ("second_frechet_ratio", "second judge", 1, 1),
        ("recall", "recall %", 100, 1),
        ("coverage", "coverage %", 100, 1),
    ),
    "tiny_sd": (
        ("label_accuracy", "label %", 100, 1),
        ("second_label_accuracy", "second judge", 100, 1),
        ("frechet_ratio", "Fréchet / real", 1, 2),
        ("second_frechet_ratio", "second judge", 1, 2),
        ("recall", "recall %", 100, 1),
        ("coverage", "coverage %", 100, 1),
        ("cpu_seconds", "CPU s in all", 1, 0),
    ),
    "diffusion": (
        ("confidence", "confidence %", 100, 1),
        ("frechet_ratio", "Fréchet / real", 1, 1),
        ("second_frechet_ratio", "second judge", 1, 1),
        ("recall", "recall %", 100, 1),
        ("coverage", "coverage %", 100, 1),
        ("cpu_seconds", "CPU s", 1, 0),
    ),
}


def table(stage: str, rows: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row per lever, each cell the median over the seeds and, of several, the smallest and largest."""
    columns = TABLES[stage]
    lines = [f"| {stage} | " + " | ".join(head for _, head, *_ in columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, found in rows.items():
        cells = [cell([scale * metrics[key] for metrics in found], digits) for key, _, scale, digits in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def real_images(judges: Judges) -> str:
    """What test images get, of which the ratios are multiples."""
    both = (f"{judges.real['frechet_distance']:.1f}", f"{judges.real['second_frechet_distance']:.1f}")
    return f"{judges.num} test images: Fréchet distance {' and '.join(both)}, judge and second judge"


def cell(values: list[float], digits: int) -> str:
    """`9.3 (8.8–9.9)`"""
    spread = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "fashion_mnist", "digits"))
    add_data_dir(parser)
    parser.add_argument("--runs", type=Path, default=Path("result/quality"), help="folder of the runs")
    parser.add_argument("--levers", nargs="+", choices=list(LEVERS), default=list(LEVERS), help="these only")
    parser.add_argument("--stages", nargs="+", choices=list(TABLES), default=["vae", "latent_diffusion", "tiny_sd"])
    parser.add_argument("--seeds", nargs="+", type=at_least(0), default=[42, 43, 44])
    parser.add_argument("--num", type=at_least(65), default=2000, help="samples per row")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--smoke", action="store_true", help="two epochs on bundled digits: that all of it works")
    args = parser.parse_args()
    more: list[str] = []
    if args.smoke:
        args.dataset, args.levers, args.seeds, args.num, more = "digits", SMOKE, [42], 100, ["--epochs", "2"]

    runs = Runs(args.runs.absolute(), args.dataset, args.data_dir.absolute(), more)
    runs.folder.mkdir(parents=True, exist_ok=True)
    judges = Judges(runs, args.num)
    found: dict[str, dict[str, list[dict[str, float]]]] = {stage: {} for stage in args.stages}
    for name in args.levers:
        lever = LEVERS[name]
        moved = [stage for stage in args.stages if lever == Lever() or lever.moves(stage)]
        for seed in args.seeds:
            print(f"measuring: {name}, seed {seed}", flush=True)
            for stage, metrics in measure(runs, judges, lever, seed, moved).items():
                found[stage].setdefault(name, []).append(metrics)
    print(f"\n{real_images(judges)}")
    for stage, rows in found.items():
        print(f"\n{table(stage, rows)}", flush=True)
    if args.json:
        write_atomically(args.json, (json.dumps({"real": judges.real, "levers": found}, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_main(main)
