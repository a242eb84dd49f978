"""What the track's commands share: settings that fit together, and trained models, found again and ready to draw."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from extensions.blocks.command import settings
from extensions.blocks.conditional import EpsMLPNull, Guided
from extensions.blocks.config import check_below_one, check_choice
from extensions.blocks.features import SmallClassifier, VGG16Features, load_vgg16, vgg16_weights
from extensions.blocks.images import Images
from extensions.blocks.phases import check_points, is_used
from extensions.catdog.models import JudgeNet, LabelledVAE
from extensions.catdog.track import STAGES, Track
from HW3.data import ImageSet
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.generate import ImageModel
from HW3.latent import LatentCache, LatentSpace, encode_dataset
from HW3.plumbing.checkpoints import load_checkpoint, restore
from HW3.plumbing.errors import UsageError
from HW3.pretrained import restored, unembed
from HW3.schedules import PREDICTIONS, SCHEDULES

WEIGHTS = ("kl", "perceptual", "class", "centre", "adversarial")  # of the VAE's losses, vae.NAME_weight


def track_settings(track: Track, args: Namespace) -> SimpleNamespace:
    """The configuration that the flags describe. Raises UsageError for what no model can be made of."""
    config = settings(args, track.folder)
    precisions = ("auto", "fp32", "bf16")
    for key, choices in {
        "data.source": track.sources,
        "perceptual.features": ("auto", "classifier", "vgg16"),
        **{f"{stage}.precision": precisions for stage in ("judge", "features", "vae")},
        "diffusion.schedule": tuple(SCHEDULES),
        "diffusion.prediction": PREDICTIONS,
    }.items():
        check_choice(config, key, choices)
    for name in WEIGHTS:
        check_points(getattr(config.vae, f"{name}_weight"), f"vae.{name}_weight")
    check_below_one(config, "data.validation", "diffusion.cond_dropout", "vae.centre_decay", "data.jitter")
    check_below_one(config, *(f"{stage}.ema" for stage in STAGES))
    if config.data.validation == 0:
        raise UsageError("data.validation must be above 0: something must be left to look at")
    if config.perceptual.features == "classifier" and config.perceptual.weights:
        raise UsageError("perceptual.weights is read with perceptual.features auto or vgg16, not with classifier")
    LabelledVAE(size=config.data.image_size, latent_dim=1, widths=config.vae.widths, head_dim=2)  # do they fit?
    return config


def perceptual_weights(config: SimpleNamespace) -> Path | None:
    """The file of VGG16 if that gives the perceptual features; None where the classifier of this run does."""
    if config.perceptual.features == "classifier":
        return None
    path = vgg16_weights(config.perceptual.weights)
    if path is None and config.perceptual.features == "vgg16":
        raise UsageError(
            "perceptual.features vgg16 needs its weights: name torchvision's file with perceptual.weights; nothing is "
            "downloaded"
        )
    return path


def stages_of(config: SimpleNamespace) -> tuple[str, ...]:
    """What `train` trains: the classifier for perceptual features only if there are any, and no VGG16."""
    if is_used(config.vae.perceptual_weight) and perceptual_weights(config) is None:
        return "judge", "features", "vae", "diffusion"
    return "judge", "vae", "diffusion"


# -- trained models ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """The diffusion model of a run, ready to draw with HW3.generate."""

    drawer: ImageModel
    space: LatentSpace
    vae: LabelledVAE  # the one whose latents it learnt
    class_names: list[str]

    def labels(self, num: int, label: int | None = None) -> Tensor:
        """The classes of `num` images: of one class, or all in turn."""
        return torch.arange(num) % len(self.class_names) if label is None else torch.full((num,), label)


def load_classifier(
    track: Track, out_dir: Path, stage: str, device: torch.device, data: Images | None = None
) -> JudgeNet | SmallClassifier:
    """The network of the stage "judge" or "features"."""
    checkpoint, path = _checkpoint(track, out_dir, stage, device, data)
    net = (JudgeNet if stage == "judge" else SmallClassifier)(**checkpoint["config"]["net"])
    return restored(net, checkpoint["ema"], path, device)


def load_judge(track: Track, out_dir: Path, device: torch.device, data: Images) -> JudgeNet:
    """Who judges samples of this run."""
    judge = load_classifier(track, out_dir, "judge", device, data)
    assert isinstance(judge, JudgeNet)
    return judge


def load_features(
    track: Track, out_dir: Path, config: SimpleNamespace, device: torch.device, data: Images
) -> SmallClassifier | VGG16Features | None:
    """The network whose maps a reconstruction is compared by. None where perceptual_weight is 0 throughout."""
    if not is_used(config.vae.perceptual_weight):
        return None
    vgg16 = perceptual_weights(config)
    if vgg16 is not None:
        return load_vgg16(vgg16).to(device)
    features = load_classifier(track, out_dir, "features", device, data)
    assert isinstance(features, SmallClassifier)
    return features


def load_vae(track: Track, out_dir: Path, device: torch.device, data: Images | None = None) -> LabelledVAE:
    """The VAE of a run."""
    checkpoint, path = _checkpoint(track, out_dir, "vae", device, data)
    return restored(LabelledVAE(**checkpoint["config"]["net"]), checkpoint["ema"], path, device)


def load_diffusion(
    track: Track, out_dir: Path, device: torch.device, config: SimpleNamespace, data: Images | None = None
) -> Trained:
    """The diffusion model of a run, with the VAE that it was trained on."""
    checkpoint, path = _checkpoint(track, out_dir, "diffusion", device, data)
    process = DiffusionConfig(**checkpoint["config"]["diffusion"])
    if config.sample.ddim_steps > process.timesteps:
        raise UsageError(f"sample.ddim_steps {config.sample.ddim_steps} is outside 1 to {process.timesteps}")
    vae = unembed(LabelledVAE, checkpoint["extra"]["vae"], path, device)
    space = LatentSpace(vae.latent_dim).to(device)
    restore(space, checkpoint["extra"]["space"], path)
    net = restored(EpsMLPNull(**checkpoint["config"]["net"]), checkpoint["ema"], path, device)
    drawer = guided_drawer(net, process, vae, space, config.sample)
    return Trained(drawer, space, vae, checkpoint["config"]["origin"]["class_names"])


def guided_drawer(
    net: EpsMLPNull, process: DiffusionConfig, vae: LabelledVAE, space: LatentSpace, settings: SimpleNamespace
) -> ImageModel:
    """What draws by DDIM with guidance: standardised latents, taken back to the VAE's, decoded.

    HW3's `texts` are conditions by label: here one-hot vectors.
    """
    device = space.mean.device
    diffusion = GaussianDiffusion(Guided(net, settings.guidance), process).to(device)
    one_hot = torch.eye(vae.config["classes"], device=device)
    shape = (vae.latent_dim,)
    return ImageModel(lambda u: vae.decode(space.denormalize(u)), shape, diffusion, one_hot, settings.ddim_steps)


def encode(vae: LabelledVAE, images: ImageSet) -> LatentCache:
    """The posterior means of images, as points: with variance 0.

    These are what diffusion learns. The decoder was trained to bear the posterior's noise around each mean, so an error
    of the drawn latents that is as large as that noise costs nothing.
    """
    cache = encode_dataset(vae, images)  # type: ignore[arg-type]  # which needs `encode` only
    return replace(cache, logvar=torch.full_like(cache.mu, -torch.inf))


def _checkpoint(
    track: Track, out_dir: Path, stage: str, device: torch.device, data: Images | None
) -> tuple[dict[str, Any], Path]:
    """A stage's checkpoint. data: what the model will meet; UsageError where it was trained on something else."""
    path = out_dir / stage / f"{stage}_latest.pt"
    checkpoint = load_checkpoint(path, track.kind(stage), device)
    if data is not None:
        data.check_origin(checkpoint["config"]["origin"], path)
    return checkpoint, path
