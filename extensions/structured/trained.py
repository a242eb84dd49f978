"""What the track's commands share once models are trained: finding them, and running them over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from extensions.blocks.conditional import EpsMLPNull, Guided
from extensions.structured.data import Expressions
from extensions.structured.models import Classifier, ExpressionVAE, choose
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import EpsMLP, LatentCache, LatentSpace
from HW3.plumbing.checkpoints import TRAINED_BY, load_checkpoint
from HW3.plumbing.errors import UsageError
from HW3.pretrained import restored, unembed

FOLDER = Path(__file__).parent
STAGES = ("vae", "diffusion", "prior", "classifier")  # of `train`, each on those before it
CHUNK = 500  # rows that go through a network at once

TRAINED_BY.update({f"structured_{stage}": "python -m extensions.structured train" for stage in STAGES})


@dataclass(frozen=True)
class LatentModel:
    """A diffusion model of latents, with all that it takes to draw expressions from it."""

    vae: ExpressionVAE
    space: LatentSpace
    net: nn.Module
    diffusion: GaussianDiffusion  # around net
    pairs: list[list[int]]  # of type and part, that its training rows had

    def draw(
        self,
        num: int,
        cond: Tensor | None = None,
        guidance: float = 1.0,
        on_state: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Latents z (num, D), by all steps of the reverse chain from pure noise. cond: (num, 28), for a prior.

        on_state: as in GaussianDiffusion.sample_ddpm; it is given the standardised u (num, D).
        """
        diffusion = self.diffusion
        if cond is not None:
            diffusion = GaussianDiffusion(Guided(self.net, guidance), diffusion.config).to(cond.device)
        shape, device = (self.vae.latent_dim,), self.space.mean.device
        u = diffusion.sample_ddpm(num, device, cond, shape, on_state=on_state, progress=True)
        return self.space.denormalize(u)

    @torch.inference_mode()
    def noise_and_back(self, z: Tensor, step: int) -> Tensor:
        """Latents z (B, D), noised to step `step` and brought back by every step of the chain from there."""
        t = torch.full((len(z),), step, device=z.device)
        u = self.diffusion.q_sample(self.space.normalize(z), t)
        while bool((t >= 0).all()):
            eps = self.diffusion.model_eps(u, t)
            u = self.diffusion.ddpm_step(u, t, eps, torch.randn_like(u))  # no noise where t = 0
            t = t - 1
        return self.space.denormalize(u)


# -- running a VAE over rows -------------------------------------------------------------------------------


@torch.inference_mode()
def encode(vae: ExpressionVAE, sequences: Tensor) -> LatentCache:
    """The posterior means of sequences (N, 72), as points: with variance 0. Their labels are the rows' numbers.

    These are what diffusion learns. The decoder was trained to bear the posterior's noise around each mean, so an error
    of the prior that is as large as that noise costs nothing; drawn latents have used that margin up already.
    """
    device = vae.to_mu.weight.device
    mu = torch.cat([vae.encode(x.to(device))[0] for x in sequences.split(CHUNK)])
    return LatentCache(mu, torch.full_like(mu, -torch.inf), torch.arange(len(sequences)))


@torch.inference_mode()
def decode(vae: ExpressionVAE, z: Tensor, *, has_grammar: bool) -> Tensor:
    """Latents (N, D) -> sequences (N, 72)."""
    return torch.cat([choose(vae.decode(part), has_grammar=has_grammar) for part in z.split(CHUNK)])


def reconstruct(vae: ExpressionVAE, rows: Expressions) -> Tensor:
    """The sequences (N, 72) that the VAE makes of rows, by way of the posterior mean."""
    return decode(vae, encode(vae, rows.sequences).mu, has_grammar=rows.has_grammar)


# -- checkpoints -------------------------------------------------------------------------------------------


def held_out_from(data: Expressions, seed: int) -> dict[str, Any]:
    """What decides which rows a model has not seen: the rows, their order, and the seed of the split."""
    return {
        "fingerprint": crc32(data.sequences.numpy().tobytes()),
        "productions": data.productions,
        "has_grammar": data.has_grammar,
        "seed": seed,
    }


def load_vae(out_dir: Path, device: torch.device, data: Expressions, seed: int) -> ExpressionVAE:
    """The VAE of a run. Raises UsageError where these rows are not held out from it."""
    checkpoint, path = _best(out_dir, "vae", device, held_out_from(data, seed))
    return restored(ExpressionVAE(**checkpoint["config"]["net"]), checkpoint["ema"], path, device)


def load_classifier(out_dir: Path, device: torch.device, data: Expressions, seed: int) -> Classifier:
    """The classifier of a run, on the same terms."""
    checkpoint, path = _best(out_dir, "classifier", device, held_out_from(data, seed))
    return restored(Classifier(**checkpoint["config"]["net"]), checkpoint["ema"], path, device)


def load_latent(
    out_dir: Path, stage: str, device: torch.device, rows: dict[str, Any] | None = None
) -> tuple[LatentModel, bool]:
    """The diffusion model ("diffusion") or the prior ("prior") of a run, and whether its productions are ours.

    rows: what `held_out_from` says of the rows that it will be measured on.
    """
    checkpoint, path = _best(out_dir, stage, device, rows)
    config, extra = checkpoint["config"], checkpoint["extra"]
    net = (EpsMLPNull if stage == "prior" else EpsMLP)(**config["net"])
    vae = unembed(ExpressionVAE, extra["vae"], path, device)
    space = LatentSpace(vae.latent_dim).to(device)
    space.load_state_dict(extra["space"])
    net = restored(net, checkpoint["ema"], path, device)
    diffusion = GaussianDiffusion(net, DiffusionConfig(**config["diffusion"])).to(device)
    return LatentModel(vae, space, net, diffusion, config["pairs"]), config["rows"]["has_grammar"]


def _best(out_dir: Path, stage: str, device: torch.device, rows: dict[str, Any] | None) -> tuple[dict[str, Any], Path]:
    path = out_dir / stage / f"{stage}_best.pt"
    checkpoint = load_checkpoint(path, f"structured_{stage}", device)
    if rows is not None and checkpoint["config"]["rows"] != rows:
        raise UsageError(
            f"{path} was trained on another data set or split: these rows are not held out from it; repeat its "
            "--data-dir, --seed and data settings, or train anew"
        )
    return checkpoint, path
