"""Seconds per epoch of the five trainings, against the plain pipeline that a course would ship.

examples:
  python bench/train.py                            all five, real MNIST from HW3_DATA_DIR or data/
  python bench/train.py --model vae --model clip --rounds 9
  python bench/train.py --images 1024 --json train.json

The two pipelines take turns on the same freshly made networks; medians of the turns are scaled to an epoch of
60,000 images. bench/README.md says what is in an epoch and how it is scaled.
"""

import argparse
import contextlib
import copy
import json
import os
import platform
import signal
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from bench.plain import PlainDiffusion, adam, adam_step, mnist_batches
from HW3.clip import NUM_CLASSES, SimpleCLIP, contrastive_loss
from HW3.data import ImageSet, load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import EpsMLP, LatentCache, LatentSpace, encode_dataset, text_conditions
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import add_data_dir, add_device, run_main
from HW3.plumbing.device import BF16_GAINS, has_native_bf16, pick_device
from HW3.plumbing.run import Run
from HW3.Unet import UNet
from HW3.vae import ConvVAE, vae_loss
from train_tiny_sd import EpsMLPCond, GuidedModel

EPOCH = 60_000
SHORT = 4  # network calls of a sampler that are timed
THREADS = torch.get_num_threads()  # of the plain pipeline; ours takes what its `Run` chose


@dataclass
class Work:
    """What one pipeline does in an epoch, as functions that the turns call.

    step: one training step.  once: work done once a run, in parts: name -> (function, images it covers).
    samplers: drawing with SHORT network calls -> how many calls an epoch makes on average.
    """

    step: Callable[[], object]
    samplers: list[tuple[Callable[[], object], float]] = field(default_factory=list)
    once: dict[str, tuple[Callable[[], object], int]] = field(default_factory=dict)


@dataclass
class Bench:
    """A model on the bench: batch_size, epochs, sample_every, ema, clip_norm are those of its script."""

    kind: str
    batch_size: int
    epochs: int
    target: float
    make: Callable[["Stage"], tuple[Work, Work, Callable[[int], Tensor]]]
    sample_every: int = 1
    ema: float = 0.0
    clip_norm: float = 1.0


@dataclass
class Stage:
    """What a benchmark is given: where to compute, the data, and `Run` as its script would set it up.

    step: our training step, as the scripts have it; `pair` makes it.
    """

    device: torch.device
    data_dir: Path
    data: ImageSet
    run: Run
    bench: Bench
    step: Callable[..., None] | None = None

    def plain_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the plain loop, on the device."""
        for x, labels in mnist_batches(self.data_dir, self.bench.batch_size):
            yield x.to(self.device), labels.to(self.device)

    def indices(self, n: int) -> Iterator[Tensor]:
        """The batches of our loop over n images, epoch after epoch."""
        while True:
            yield from self.run.batches(n)
            self.run.end_epoch()

    def pair(
        self, model: nn.Module, layout: torch.memory_format = torch.channels_last
    ) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
        """The same network twice: for us, in the layout of its script, and for the plain loop with its optimiser."""
        plain = copy.deepcopy(model).to(self.device)
        ours = model.to(self.device).to(memory_format=layout)
        ema = AveragedModel(ours, multi_avg_fn=get_ema_multi_avg_fn(self.bench.ema))
        optimizer = torch.optim.AdamW(ours.parameters(), lr=2e-4, weight_decay=0, fused=True)
        trained = self.run.start(ours, ema, optimizer, config={})

        def step(loss: Tensor, **parts: Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(trained.parameters(), self.bench.clip_norm)
            for params in optimizer.param_groups:
                params["lr"] = 2e-4 * warmup_cosine(self.run.step, self.run.total_steps)
            optimizer.step()
            ema.update_parameters(ours)
            self.run.log(loss=loss, grad_norm=grad_norm, **parts)

        self.step = step
        return trained, plain, adam(plain)


# -- the five trainings ---------------------------------------------------------------------------
# Each gives the plain work, our work, and our loss on the first n images, for the precision and FLOP columns.


def make_vae(stage: Stage) -> tuple[Work, Work, Callable[[int], Tensor]]:
    run, data = stage.run, stage.data
    model, plain_model, optimizer = stage.pair(ConvVAE())
    batches, indices = stage.plain_batches(), stage.indices(len(data))

    def plain() -> None:
        x, _ = next(batches)
        recon, mu, logvar = plain_model(x)
        adam_step(vae_loss(recon, x, mu, logvar)[0] / len(x), optimizer)

    def loss(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with run.autocast():
            recon, mu, logvar = model(x)
        return vae_loss(recon, x, mu, logvar)

    def ours() -> None:
        x, _ = data.batch(next(indices))
        total, rec, kl = loss(x)
        stage.step(total / len(x), rec=rec / len(x), kl=kl / len(x))

    return Work(plain), Work(ours), lambda n: loss(data.batch(slice(n))[0])[0] / n


def make_diffusion(stage: Stage) -> tuple[Work, Work, Callable[[int], Tensor]]:
    run, data = stage.run, stage.data
    model, plain_model, optimizer = stage.pair(UNet(), torch.contiguous_format)
    batches, indices = stage.plain_batches(), stage.indices(len(data))
    process, plain_process = _process(model, stage), PlainDiffusion(device=stage.device)

    def plain() -> None:
        x, _ = next(batches)
        adam_step(plain_process.loss(plain_model, x * 2 - 1), optimizer)

    def ours() -> None:
        x0 = data.batch(next(indices))[0] * 2 - 1
        with run.autocast():
            loss = process.training_loss(x0)
        stage.step(loss)

    def draw(ddpm: bool) -> None:
        with run.evaluation() as eval_model, run.autocast():
            sampler = _process(eval_model, stage, SHORT if ddpm else 1000)
            sampler.sample_ddpm(64, stage.device) if ddpm else sampler.sample_ddim(64, stage.device, SHORT)

    x_T = torch.randn(64, 1, 32, 32, device=stage.device)
    grids = [
        (lambda: plain_process.sample_ddpm(plain_model, x_T, _times(SHORT)), 1000),
        (lambda: plain_process.sample_ddim(plain_model, x_T, _times(SHORT)), 200),
    ]
    every = stage.bench.sample_every
    our_grids = [(lambda: draw(ddpm=True), 1000 / every), (lambda: draw(ddpm=False), 200 / every)]
    return Work(plain, grids), Work(ours, our_grids), lambda n: process.training_loss(data.batch(slice(n))[0] * 2 - 1)


def make_latent(stage: Stage, *, text: bool = False) -> tuple[Work, Work, Callable[[int], Tensor]]:
    """Latent diffusion, or with `text` the tiny Stable Diffusion. An untrained VAE costs what a trained one does."""
    run, data, device = stage.run, stage.data, stage.device
    vae = ConvVAE().to(device).eval().requires_grad_(False)
    texts = text_conditions(SimpleCLIP().to(device)).clone()  # (10, E)
    some = data.limit(2000)
    part = encode_dataset(vae, some)  # repeated, this makes a cache as large as the real one
    cache = LatentCache(*(rows.repeat(30, *[1] * (rows.dim() - 1)) for rows in (part.mu, part.logvar, part.labels)))
    space = LatentSpace(vae.latent_dim).to(device).fit(cache)
    net = EpsMLPCond(vae.latent_dim, texts.shape[1]) if text else EpsMLP(vae.latent_dim)
    model, plain_model, optimizer = stage.pair(net)
    batches, indices = stage.plain_batches(), stage.indices(len(cache))
    process, plain_process = _process(model, stage), PlainDiffusion(device=device)

    def hide(cond: Tensor, dropped: Tensor) -> Tensor:
        return cond.masked_fill(dropped[:, None], 0)

    def plain() -> None:
        x, labels = next(batches)
        with torch.no_grad():
            z = vae.reparameterize(*vae.encode(x))
        cond = (hide(texts[labels], torch.rand(len(x), device=device) < 0.1),) if text else ()
        adam_step(plain_process.loss(plain_model, z, *cond), optimizer)

    def ours() -> None:
        idx = next(indices)
        u0 = space.normalize(vae.reparameterize(cache.mu[idx], cache.logvar[idx]))
        cond = hide(texts[cache.labels[idx]], torch.rand(len(u0), device=device) < 0.1) if text else None
        with run.autocast():
            loss = process.training_loss(u0, cond=cond)
        stage.step(loss)

    # Both draw the same grid: 64 images with 200 steps; with text 400, column = class, 50 guided steps.
    labels = torch.arange(NUM_CLASSES, device=device).repeat(40)
    n, steps, cond = (len(labels), 50, (texts[labels],)) if text else (64, 200, ())

    def plain_draw() -> None:
        network = GuidedModel(plain_model, 2.0) if text else plain_model
        x_T = torch.randn(n, vae.latent_dim, device=device)
        plain_process.sample_ddim(network, x_T, _times(SHORT), *cond)

    def draw() -> None:
        with run.evaluation() as eval_model, run.autocast():
            sampler = _process(GuidedModel(eval_model, 2.0) if text else eval_model, stage)
            sampler.sample_ddim(n, device, SHORT, 0.0, *cond, shape=(vae.latent_dim,))

    def loss_of_first(n: int) -> Tensor:
        return process.training_loss(space.normalize(cache.mu[:n]), cond=texts[cache.labels[:n]] if text else None)

    once = {"encode": (lambda: encode_dataset(vae, some), len(some))}
    return (
        Work(plain, [(plain_draw, steps)]),
        Work(ours, [(draw, steps / stage.bench.sample_every)], once),
        loss_of_first,
    )


def make_clip(stage: Stage) -> tuple[Work, Work, Callable[[int], Tensor]]:
    run, data = stage.run, stage.data
    model, plain_model, optimizer = stage.pair(SimpleCLIP())
    batches, indices = stage.plain_batches(), stage.indices(len(data))

    def plain() -> None:
        x, labels = next(batches)
        image_emb, text_emb, scale = plain_model(x, labels)
        adam_step(contrastive_loss(image_emb, text_emb, labels, scale), optimizer)

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        with run.autocast():
            image_emb, text_emb, scale = model(x, labels)
        return contrastive_loss(image_emb, text_emb, labels, scale)

    def ours() -> None:
        stage.step(loss(*data.batch(next(indices))))

    return Work(plain), Work(ours), lambda n: loss(*data.batch(slice(n)))


def _process(model: nn.Module, stage: Stage, timesteps: int = 1000) -> GaussianDiffusion:
    return GaussianDiffusion(model, DiffusionConfig(timesteps=timesteps)).to(stage.device)


def _times(steps: int) -> list[int]:
    return [999 - i for i in range(steps)]


BENCHES = {
    "vae": Bench("vae", 128, 40, 1.8, make_vae, clip_norm=1000.0),
    "diffusion": Bench("diffusion", 128, 20, 2.4, make_diffusion, sample_every=5, ema=0.999),
    "latent_diffusion": Bench("latent_diffusion", 128, 40, 8.0, make_latent, sample_every=5, ema=0.999),
    "clip": Bench("clip", 256, 10, 2.4, make_clip, clip_norm=10.0),
    "tiny_sd": Bench(
        *("tiny_sd", 128, 40, 7.0, lambda stage: make_latent(stage, text=True)),
        sample_every=5,
        ema=0.999,
    ),
}


# -- measuring ------------------------------------------------------------------------------------


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, with the work it leaves on a GPU."""
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def turn(step: Callable[[], object], least_steps: int, device: torch.device) -> float:
    """Seconds per step over at least `least_steps` and a second.

    The steps before it empty what the workers have loaded ahead while they were waiting (at most 4 batches);
    where steps are slow the workers keep up anyway, and one is enough.
    """
    skipped = 0.0
    for _ in range(4):
        skipped += seconds(step, device)
        if skipped > 0.5:
            break
    steps, total = 0, 0.0
    while steps < least_steps or total < 1:
        total += seconds(step, device)
        steps += 1
    return total / steps


def matmul_gflops(device: torch.device, n: int = 1024) -> float:
    """GFLOP/s of an n x n x n product in fp32: the ceiling of a network made of products."""
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    return 2 * n**3 / min(seconds(lambda: a @ b, device) for _ in range(10)) / 1e9


def training_gflop(loss: Callable[[], Tensor]) -> float:
    """GFLOP of one forward and backward pass: the products and convolutions, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return counter.get_total_flops() / 1e9


def precision_seconds(loss: Callable[[], Tensor], run: Run, rounds: int) -> dict[str, float]:
    """Seconds of a forward and backward pass in fp32 and under bf16 autocast, taking turns."""

    def one_pass() -> None:
        with run.autocast():
            value = loss()
        value.backward()

    chosen = run.bf16
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(rounds + 1):
        for name in times:
            run.bf16 = name == "bf16"
            times[name].append(seconds(one_pass, run.device))
    run.bf16 = chosen
    return {name: median(values[1:]) for name, values in times.items()}  # the first turn warms up


def measure(bench: Bench, stage: Stage, images: int, rounds: int, load_seconds: float) -> dict[str, object]:
    """All numbers of one model, plain and ours in turns."""
    threads = {"plain": THREADS, "ours": torch.get_num_threads()}
    plain, ours, loss = bench.make(stage)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `start` made Ctrl-C save a checkpoint
    least = max(1, images // bench.batch_size)
    steps: dict[str, list[float]] = {"plain": [], "ours": []}
    draws: dict[str, list[float]] = {"plain": [], "ours": []}
    once: dict[str, list[float]] = {name: [] for name in ours.once}
    ceiling = []
    for _ in range(rounds):
        for who, work in (("plain", plain), ("ours", ours)):
            torch.set_num_threads(threads[who])
            steps[who].append(turn(work.step, least, stage.device))
            draws[who].append(sum(seconds(f, stage.device) / SHORT * calls for f, calls in work.samplers))
        for name, (function, count) in ours.once.items():
            once[name].append(seconds(function, stage.device) * len(stage.data) / count)
        ceiling.append(matmul_gflops(stage.device))

    per_epoch = EPOCH / bench.batch_size
    train = {who: median(times) * per_epoch for who, times in steps.items()}
    draw = {who: median(times) for who, times in draws.items()}
    one_time = {"load": load_seconds} | {name: median(times) for name, times in once.items()}
    total = {"plain": train["plain"] + draw["plain"]}
    total["ours"] = train["ours"] + draw["ours"] + sum(one_time.values()) / bench.epochs
    gflops = training_gflop(lambda: loss(bench.batch_size)) / median(steps["ours"])
    # Emulated bf16 is slower by orders of magnitude: there a small batch must do.
    rows = bench.batch_size if has_native_bf16(stage.device) else 16
    return {
        "model": bench.kind,
        "plain_s": total["plain"],
        "ours_s": total["ours"],
        "ratio": total["plain"] / total["ours"],
        "target": bench.target,
        "train_s": train,
        "draw_s": draw,
        "one_time_s": one_time,
        "epochs": bench.epochs,
        "precision_of_ours": "bf16" if stage.run.bf16 else "fp32",
        "threads_of_ours": threads["ours"],
        "gflops": gflops,
        "matmul_gflops": median(ceiling),
        "pass_s": precision_seconds(lambda: loss(rows), stage.run, min(3, rounds)),
        "pass_rows": rows,
    }


def run_for(bench: Bench, device: str, scratch: str) -> Run:
    """The `Run` of this model's script with its defaults, writing to a scratch folder."""
    flags = Namespace(
        **{"device": device, "precision": "auto", "batch_size": bench.batch_size, "epochs": bench.epochs},
        **{
            "lr": 2e-4,
            "ema": bench.ema,
            "seed": 42,
            "resume": False,
            "overwrite": True,
            "sample_every": bench.sample_every,
        },
        out_dir=Path(scratch) / bench.kind,
    )
    return Run(bench.kind, bench.kind, flags)


# -- the report -----------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, object]:
    """What the numbers depend on."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "cpu": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": THREADS,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "native_bf16": has_native_bf16(device),
    }


def table(rows: list[dict], host: dict[str, object]) -> str:
    """The results as two markdown tables."""
    native = host["native_bf16"]
    lines = [
        f"{host['cpu']}, {host['cores']} cores, {host['threads']} threads, device {host['device']}, "
        f"torch {host['torch']}, bf16 {'native' if native else 'emulated'}",
        "",
        "| model | plain s/epoch | ours s/epoch | ratio | target | plain: train + draw "
        "| ours: train + draw + once/epochs |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for row in rows:
        train, draw, one_time = row["train_s"], row["draw_s"], row["one_time_s"]
        parts = " + ".join(f"{name} {value:.1f}" for name, value in one_time.items())
        lines.append(
            f"| {row['model']} | {row['plain_s']:.1f} | {row['ours_s']:.1f} | {row['ratio']:.2f} | "
            f"≥ {row['target']:g} | {train['plain']:.1f} + {draw['plain']:.1f} | "
            f"{train['ours']:.1f} + {draw['ours']:.1f} + ({parts})/{row['epochs']} |"
        )
    lines += [
        "",
        "| model | ours in | GFLOP/s | fp32 matmul GFLOP/s | share "
        f"| images | fp32 ms | bf16 ms{'' if native else ' (emulated)'} | fp32/bf16 | in BF16_GAINS |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        fp32, bf16 = row["pass_s"]["fp32"], row["pass_s"]["bf16"]
        gflops, ceiling = row["gflops"], row["matmul_gflops"]
        lines.append(
            f"| {row['model']} | {row['precision_of_ours']}, threads: {row['threads_of_ours']} "
            f"| {gflops:.1f} | {ceiling:.1f} | {gflops / ceiling:.0%} "
            f"| {row['pass_rows']} | {fp32 * 1e3:.1f} | {bf16 * 1e3:.1f} | {fp32 / bf16:.2f} "
            f"| {'yes' if row['model'] in BF16_GAINS.get(host['device'].partition(':')[0], ()) else 'no'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=BENCHES, help="measure only this one; may be repeated")
    parser.add_argument("--images", type=int, default=512, help="each turn trains on at least that many images")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each pipeline")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    add_data_dir(parser)
    add_device(parser)
    args = parser.parse_args()

    device = pick_device(args.device)
    started = time.perf_counter()
    data = load_dataset("mnist", args.data_dir).to(device)
    load_seconds = time.perf_counter() - started

    rows = []
    for name in args.model or BENCHES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        torch.manual_seed(0)
        torch.set_num_threads(THREADS)
        # What a training run says about itself does not belong between the lines of a table.
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
            bench = BENCHES[name]
            stage = Stage(device, args.data_dir, data, run_for(bench, args.device, scratch), bench)
            rows.append(measure(bench, stage, args.images, args.rounds, load_seconds))
    host = machine(device)
    print(table(rows, host))
    if args.json:
        args.json.write_text(json.dumps({"machine": host, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
