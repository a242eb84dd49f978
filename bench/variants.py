"""What other choices of the latent denoiser would bring: schedules, targets, weights, networks that HW3 does not have.

examples:
  python bench/variants.py                                    all of them on one thread: an hour
  python bench/variants.py --only "the base" "flow matching"
  python bench/variants.py --smoke                            bundled digits, an epoch: that all of it works

Each is trained as train_tiny_sd.py --quick trains, in the latents of bench/quality.py's chain, with one thing other
than in the base: 3 blocks, batches of 256, learning rate 0.001. What --quick has now came out of this table. Two judges
look at what is drawn without any guidance, where differences show, and with the preset's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.quality import CPU, Judges, Lever, Runs, real_images
from HW3.autoguidance import autoguided, early_epoch, weights_now
from HW3.clip import NUM_CLASSES
from HW3.data import load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import LatentCache, LatentSpace, ResidualBlock, encode_dataset, text_conditions
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import add_data_dir, at_least, run_main
from HW3.plumbing.device import has_native_bf16
from HW3.pretrained import load_clip, load_vae
from HW3.schedules import SCHEDULES
from HW3.vae import ConvVAE
from train_tiny_sd import QUICK, EpsMLPCond, GuidedModel

DRAWN_AT_ONCE = 500
PRESET: dict[str, Any] = {name: value["*"] if isinstance(value, dict) else value for name, value in QUICK.items()}

# -- processes --------------------------------------------------------------------------------------------


def sigmoid_betas(config: DiffusionConfig) -> Tensor:
    """Jabri et al. 2023, "Scalable Adaptive Computation for Iterative Generation": a sigmoid between 3 and -3."""
    u = torch.linspace(0, 1, config.timesteps + 1, dtype=torch.float64)
    start, end = torch.tensor(-3.0, dtype=torch.float64).sigmoid(), torch.tensor(3.0, dtype=torch.float64).sigmoid()
    alpha_bar = ((end - (6 * u - 3).sigmoid()) / (end - start)).clamp(min=1e-9)
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def uniform(process: GaussianDiffusion, n: int) -> Tensor:
    """(n,) steps, as `training_loss` draws them."""
    return torch.randint(0, process.config.timesteps, (n,))


def stratified(process: GaussianDiffusion, n: int) -> Tensor:
    """One draw from each n-th part of T: every batch has all of it."""
    return ((torch.arange(n) + torch.rand(n)) / n * process.config.timesteps).long()


def lognormal(process: GaussianDiffusion, n: int) -> Tensor:
    """Karras et al. 2022 ("EDM") table 1: the noise level of x / sqrt(alpha_bar) is exp(N(-1.2, 1.2²)).

    Their preconditioning, for data of variance 1, is the prediction of -v with all weights 1.
    """
    sigmas = process.sqrt_one_minus_alpha_bars / process.sqrt_alpha_bars
    return torch.searchsorted(sigmas, torch.exp(1.2 * torch.randn(n) - 1.2)).clamp(max=process.config.timesteps - 1)


def equal(process: GaussianDiffusion, t: Tensor) -> Tensor:
    """Weights (B,) of the squared errors at t (B,), as `training_loss` has them."""
    return torch.ones(len(t))


def min_snr(process: GaussianDiffusion, t: Tensor) -> Tensor:
    """Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", for v, gamma = 5."""
    snr = (process.alpha_bars / (1 - process.alpha_bars))[t]
    return snr.clamp(max=5) / (snr + 1)


class Process(GaussianDiffusion):
    """HW3's, with a variant's draws of t and weights of the loss."""

    def __init__(self, model: nn.Module, variant: Variant) -> None:
        super().__init__(model, DiffusionConfig(prediction=variant.prediction, schedule=variant.schedule))
        self.variant = variant

    def loss(self, x0: Tensor, cond: Tensor) -> Tensor:
        """Weighted squared error of the prediction."""
        t, noise = self.variant.draw_t(self, len(x0)), torch.randn_like(x0)
        target = noise
        if self.config.prediction == "v":
            target = self.at(self.sqrt_alpha_bars, t, x0) * noise - self.at(self.sqrt_one_minus_alpha_bars, t, x0) * x0
        error = (self.model_output(self.q_sample(x0, t, noise), t, cond) - target).square().mean(dim=1)
        return (self.variant.weigh(self, t) * error).mean()

    def draw(self, model: nn.Module, cond: Tensor, dim: int) -> Tensor:
        """DDIM, 50 steps."""
        return GaussianDiffusion(model, self.config).sample_ddim(len(cond), CPU, 50, cond=cond, shape=(dim,))


class Flow(Process):
    """Lipman et al. 2023, "Flow Matching": straight lines from data (s = 0) to noise (s = 1), Euler's method back."""

    def loss(self, x0: Tensor, cond: Tensor) -> Tensor:
        """Squared error of the velocity noise - x_0."""
        s, noise = torch.rand(len(x0), 1), torch.randn_like(x0)
        velocity = self.model_output(torch.lerp(x0, noise, s), self._t(s), cond)
        return (velocity - (noise - x0)).square().mean()

    def draw(self, model: nn.Module, cond: Tensor, dim: int) -> Tensor:
        """50 steps."""
        x = torch.randn(len(cond), dim)
        for s in torch.linspace(1, 0, 51)[:-1]:
            x = x - model(x, self._t(s.expand(len(x), 1)), cond).float() / 50
        return x

    def _t(self, s: Tensor) -> Tensor:
        return (s[:, 0] * self.config.timesteps).long().clamp(max=self.config.timesteps - 1)


# -- networks ---------------------------------------------------------------------------------------------


class FiLMBlock(ResidualBlock):
    """Perez et al. 2018, "FiLM": the embedding scales what it is added to."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.scale = _zeroed(nn.Linear(dim, dim))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(self.norm(h)) * (1 + self.scale(emb)) + emb))


class AdaLNBlock(ResidualBlock):
    """Peebles & Xie 2023, "Scalable Diffusion Models with Transformers": norm and output are modulated."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulation = _zeroed(nn.Linear(dim, 3 * dim))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        scale, shift, gate = self.modulation(F.silu(emb)).chunk(3, dim=1)
        return (1 + gate) * self.linear2(F.silu(self.linear1(self.norm(h) * (1 + scale) + shift)))


def _zeroed(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


# -- variants ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """What is changed. The defaults are what --quick was when most of these were measured."""

    process: type[Process] = Process
    prediction: str = "v"
    schedule: str = "cosine"
    draw_t: Callable[[GaussianDiffusion, int], Tensor] = uniform
    weigh: Callable[[GaussianDiffusion, Tensor], Tensor] = equal
    block: type[ResidualBlock] = ResidualBlock
    blocks: int = 3
    width: int = 512
    batch_size: int = 256
    epochs: float = 1  # times as many
    lr: float = 1e-3
    ema: float = PRESET["ema"]
    cond_dropout: float = 0.1
    canonicalize: bool = False


VARIANTS = {
    "the base": Variant(),
    "--quick": Variant(blocks=PRESET["blocks"], batch_size=PRESET["batch_size"], lr=PRESET["lr"]),
    "eps, cosine": Variant(prediction="eps", schedule="cosine"),
    "eps, linear": Variant(prediction="eps", schedule="linear"),
    "v, linear": Variant(prediction="v", schedule="linear"),
    "v, sigmoid": Variant(prediction="v", schedule="sigmoid"),
    "flow matching": Variant(process=Flow),
    "EDM's noise levels": Variant(draw_t=lognormal),
    "min-SNR weights": Variant(weigh=min_snr),
    "stratified t": Variant(draw_t=stratified),
    "FiLM": Variant(block=FiLMBlock),
    "adaLN": Variant(block=AdaLNBlock),
    "width 256": Variant(width=256),
    "width 768": Variant(width=768),
    "2 blocks": Variant(blocks=2),
    "5 blocks": Variant(blocks=5),
    "batch 128": Variant(batch_size=128),
    "batch 512, lr 2e-3": Variant(batch_size=512, lr=2e-3),
    "lr 2e-3": Variant(lr=2e-3),
    "averages over 0.999": Variant(ema=0.999),
    "text hidden 5 %": Variant(cond_dropout=0.05),
    "text hidden 20 %": Variant(cond_dropout=0.2),
    "whitened latents": Variant(canonicalize=True),
    "twice the epochs": Variant(epochs=2),
    "FiLM, twice the epochs": Variant(block=FiLMBlock, epochs=2),
}


@dataclass(frozen=True)
class Latents:
    """What a variant is trained on: the VAE, its latents of the training images, and the texts' embeddings."""

    vae: ConvVAE
    cache: LatentCache
    texts: Tensor


@dataclass(frozen=True)
class Trained:
    """The averaged network, its early weights, and between what and what it goes."""

    net: nn.Module
    early: dict[str, Tensor]
    process: Process
    space: LatentSpace


def train(variant: Variant, latents: Latents, epochs: int, seed: int) -> Trained:
    """As train_tiny_sd.py does."""
    torch.manual_seed(seed)
    vae, cache = latents.vae, latents.cache
    space = LatentSpace(vae.latent_dim, canonicalize=variant.canonicalize).fit(cache)
    net = EpsMLPCond(vae.latent_dim, latents.texts.shape[1], hidden_dim=variant.width)
    net.blocks = nn.ModuleList(variant.block(variant.width) for _ in range(variant.blocks))
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(variant.ema))
    optimizer = torch.optim.AdamW(net.parameters(), lr=variant.lr, weight_decay=0, fused=True)
    process = variant.process(net, variant)
    early, step, epochs = weights_now(ema), 0, round(epochs * variant.epochs)
    steps = epochs * (len(cache) // variant.batch_size)
    for epoch in range(1, epochs + 1):
        for idx in torch.randperm(len(cache)).split(variant.batch_size)[: len(cache) // variant.batch_size]:
            u = space.normalize(vae.reparameterize(cache.mu[idx], cache.logvar[idx]))
            hidden = torch.rand(len(idx), 1) < variant.cond_dropout
            with torch.autocast("cpu", torch.bfloat16, enabled=has_native_bf16(CPU)):
                loss = process.loss(u, latents.texts[cache.labels[idx]].masked_fill(hidden, 0))
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(net.parameters(), 1.0)
            for params in optimizer.param_groups:
                params["lr"] = variant.lr * warmup_cosine(step, steps)
            optimizer.step()
            ema.update_parameters(net)
            step += 1
        if epoch == early_epoch(epochs):
            early = weights_now(ema)
    return Trained(ema.module.eval(), early, process, space)


@torch.inference_mode()
def draw(model: nn.Module, trained: Trained, latents: Latents, labels: Tensor, seed: int) -> Tensor:
    """Images of these labels, from the same noise for every variant. model: the trained network, guided or not."""
    torch.manual_seed(seed)
    images = []
    for part in labels.split(DRAWN_AT_ONCE):
        with torch.autocast("cpu", torch.bfloat16, enabled=has_native_bf16(CPU)):
            u = trained.process.draw(model, latents.texts[part], latents.vae.latent_dim)
        images.append(latents.vae.decode(trained.space.denormalize(u.float())))
    return torch.cat(images)


def row(name: str, variant: Variant, latents: Latents, judges: Judges, epochs: int, seed: int) -> str:
    """Train one variant and measure it: a line of the table."""
    start = time.process_time()
    trained = train(variant, latents, epochs, seed)
    cells = [f"{time.process_time() - start:.0f}"]
    timesteps, labels = trained.process.config.timesteps, torch.arange(judges.num) % NUM_CLASSES
    guided = autoguided(trained.net, trained.early, PRESET["autoguidance"], timesteps)
    for model in (
        trained.net,
        GuidedModel(guided, PRESET["guidance_scale"], PRESET["guidance_until"] * timesteps),
    ):
        found = judges.measure(draw(model, trained, latents, labels, seed), labels)
        ratios = [found[key] / judges.real[key] for key in ("frechet_distance", "second_frechet_distance")]
        cells += [f"{100 * found['label_accuracy']:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
    cells.append(f"{100 * found['recall']:.1f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_dir(parser)
    parser.add_argument("--runs", type=Path, default=Path("result/quality"), help="bench/quality.py's folder of runs")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="these only")
    parser.add_argument("--seed", type=at_least(0), default=42)
    parser.add_argument("--num", type=at_least(65), default=2000, help="samples per cell")
    parser.add_argument("--smoke", action="store_true", help="an epoch on bundled digits: that all of it works")
    args = parser.parse_args()
    SCHEDULES["sigmoid"] = sigmoid_betas  # here, and not for whoever imports this file
    dataset, more, epochs = "mnist", [], PRESET["epochs"]
    if args.smoke:
        dataset, more, epochs, args.num = "digits", ["--epochs", "2"], 1, 100
    runs = Runs(args.runs.absolute(), dataset, args.data_dir.absolute(), more)
    runs.folder.mkdir(parents=True, exist_ok=True)
    vae = load_vae(runs.train("vae", Lever(), args.seed)[0], CPU, dataset)
    clip = load_clip(runs.train("clip", Lever(), args.seed)[0], CPU, dataset)
    latents = Latents(vae, encode_dataset(vae, load_dataset(dataset, runs.data_dir)), text_conditions(clip).clone())
    judges = Judges(runs, args.num)
    torch.set_num_threads(1)  # as train_tiny_sd.py has
    print(f"\n{real_images(judges)}\n")
    columns = ("CPU s", "label %", "Fréchet / real", "second judge", "guided: label %", "Fréchet", "second", "recall %")
    print(f"| tiny SD | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name in args.only:
        print(row(name, VARIANTS[name], latents, judges, epochs, args.seed), flush=True)


if __name__ == "__main__":
    run_main(main)
