"""Microseconds and dispatched operations of one sampler step, beside a network that costs nothing.

examples:
  python bench/sample.py
  python bench/sample.py --rounds 30 --json sample.json

"plain" gathers every coefficient, takes every root anew and adds a noise term even where sigma = 0
(bench/plain.py). They take turns, and the medians of all turns are printed as a table.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.plain import PlainDiffusion
from HW3.diffusion import DiffusionConfig, GaussianDiffusion

STATES = {"latents": (64, 100), "images": (16, 1, 32, 32)}
TARGET = {"ddim": 2.0}
MAX_STEPS = 200


def identity(x: Tensor, t: Tensor) -> Tensor:
    """A network for free: what remains is the sampler."""
    return x


def samplers(name: str, size: tuple[int, ...]) -> dict[str, Callable[[int], object]]:
    """Functions that take that many sampler steps: "plain", "ours", and for DDIM "plain, no noise"."""
    batch, *shape = size

    def plain(steps: int, **options: bool) -> Tensor:
        process = PlainDiffusion(MAX_STEPS)
        sample = process.sample_ddim if name == "ddim" else process.sample_ddpm
        return sample(identity, torch.randn(size), list(range(steps - 1, -1, -1)), **options)

    def ours(steps: int) -> Tensor:
        process = GaussianDiffusion(identity, DiffusionConfig(timesteps=MAX_STEPS if name == "ddim" else steps))
        options = {"shape": tuple(shape), "clip_x0": False}
        if name == "ddim":
            return process.sample_ddim(batch, "cpu", steps, 0.0, **options)
        return process.sample_ddpm(batch, "cpu", **options)

    pair = {"plain": plain, "ours": ours}
    return pair | {"plain, no noise": lambda steps: plain(steps, noisy=False)} if name == "ddim" else pair


def micros_per_step(sample: Callable[[int], object], steps: int) -> float:
    """One loop of `steps` steps, its set-up included, divided by them."""
    started = time.perf_counter()
    sample(steps)
    return (time.perf_counter() - started) / steps * 1e6


class CountOps(TorchDispatchMode):
    """Counts the operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def ops_per_step(sample: Callable[[int], object]) -> int:
    """What one more step in the middle of the loop adds."""
    counts = []
    for steps in (10, 11):
        with CountOps() as ops:
            sample(steps)
        counts.append(ops.count)
    return counts[1] - counts[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each sampler; the medians are printed")
    parser.add_argument("--steps", type=int, default=200, help="steps in a turn, at most 200")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()

    if not 1 <= args.steps <= MAX_STEPS:
        parser.error(f"--steps must be 1 to {MAX_STEPS}")

    rows = []
    print(
        "| sampler | state | plain µs/step | ours µs/step | ratio | target | plain, no noise | plain ops | ours ops |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in ("ddim", "ddpm"):
        for state, size in STATES.items():
            rivals = samplers(name, size)
            turns = {who: [] for who in rivals}
            for _ in range(args.rounds + 1):
                for who, sample in rivals.items():
                    turns[who].append(micros_per_step(sample, args.steps))
            micros = {who: median(times[1:]) for who, times in turns.items()}  # the first turn warms up
            ops = {who: ops_per_step(sample) for who, sample in rivals.items()}
            target = TARGET.get(name)
            rows.append({"sampler": name, "state": size, "us_per_step": micros, "ops": ops, "target": target})
            quiet = micros.get("plain, no noise")
            print(
                f"| {name} | {state} {size} | {micros['plain']:.0f} | {micros['ours']:.0f} "
                f"| {micros['plain'] / micros['ours']:.2f} | {f'≥ {target:g}' if target else ''} "
                f"| {f'{quiet:.0f}' if quiet else ''} | {ops['plain']} | {ops['ours']} |",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
