"""What the track's commands share: settings that fit together, and trained models, found again and ready to draw."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from extensions.blocks.command import settings
from extensions.blocks.conditional import Guided, LabelledUNet
from extensions.blocks.config import check_below_one, check_choice
from extensions.gan_zoo.data import SOURCES, Images
from extensions.gan_zoo.models import GAN, KINDS, LOSSES, MLPVAE
from HW3.data import DATASETS
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.generate import ImageModel
from HW3.plumbing.checkpoints import TRAINED_BY, load_checkpoint
from HW3.plumbing.device import BF16_GAINS
from HW3.plumbing.errors import UsageError
from HW3.pretrained import restored
from HW3.schedules import PREDICTIONS, SCHEDULES

FOLDER = Path(__file__).parent
STAGES = ("vae", "gan", "diffusion")  # of `train`; none needs another

TRAINED_BY.update({f"gan_zoo_{stage}": "python -m extensions.gan_zoo train" for stage in STAGES})
for _models in (BF16_GAINS["cpu"], BF16_GAINS["cuda"]):
    _models |= {"gan_zoo_gan", "gan_zoo_diffusion"}  # convolutions gain; the VAE's two layers do not


def zoo_settings(args: Namespace) -> SimpleNamespace:
    """The configuration that the flags describe. Raises UsageError for what no model can be made of."""
    config = settings(args, FOLDER)
    precisions = ("auto", "fp32", "bf16")
    for key, choices in {
        "data.source": SOURCES,
        "vae.loss": LOSSES,
        "gan.kind": KINDS,
        "gan.precision": precisions,
        "diffusion.schedule": tuple(SCHEDULES),
        "diffusion.prediction": PREDICTIONS,
        "diffusion.precision": precisions,
        "evaluate.judge": (*DATASETS, ""),
    }.items():
        check_choice(config, key, choices)
    check_below_one(config, "data.validation", "diffusion.cond_dropout", "gan.ema", "diffusion.ema")
    check_below_one(config, "gan.beta1", "gan.beta2")
    if config.data.validation == 0:
        raise UsageError("data.validation must be above 0: something must be left to look at")
    stride = config.diffusion.patch_size * 2 ** (config.diffusion.levels - 1)
    if config.data.image_size % stride:
        raise UsageError(
            f"diffusion.levels {config.diffusion.levels} and diffusion.patch_size {config.diffusion.patch_size} need a "
            f"data.image_size that {stride} divides, not {config.data.image_size}: lower one of them"
        )
    return config


@dataclass(frozen=True)
class Trained:
    """A model of a run, ready to draw with HW3.generate, and what it was trained on."""

    drawer: ImageModel
    origin: dict[str, Any]
    settings: SimpleNamespace  # those of its training
    autoencoder: MLPVAE | None = None

    @property
    def vae(self) -> MLPVAE:
        """The VAE itself. Raises ValueError for another model."""
        if self.autoencoder is None:
            raise ValueError("this model encodes nothing")
        return self.autoencoder

    @property
    def class_names(self) -> list[str]:
        return self.origin["class_names"]

    def labels(self, num: int, label: int | None = None) -> Tensor | None:
        """The classes of `num` images: of one class, or all in turn. None for a model that is not told any."""
        if self.drawer.texts is None:
            return None
        classes = len(self.class_names)
        return torch.arange(num) % classes if label is None else torch.full((num,), label)


def load_trained(
    out_dir: Path, stage: str, device: torch.device, config: SimpleNamespace, data: Images | None = None
) -> Trained:
    """A stage's model. data: what it will be measured on; raises UsageError where it was trained on something else."""
    path = out_dir / stage / f"{stage}_latest.pt"
    checkpoint = load_checkpoint(path, f"gan_zoo_{stage}", device)
    origin, net_config = checkpoint["config"]["origin"], checkpoint["config"]["net"]
    if data is not None:
        data.check_origin(origin, path)
    trained_with = SimpleNamespace(**checkpoint["args"])
    if stage == "diffusion":
        process = DiffusionConfig(**checkpoint["config"]["diffusion"])
        if config.sample.ddim_steps > process.timesteps:
            raise UsageError(f"sample.ddim_steps {config.sample.ddim_steps} is outside 1 to {process.timesteps}")
        net = restored(labelled_unet(net_config), checkpoint["ema"], path, device)
        return Trained(guided_drawer(net, process, config.sample, device), origin, trained_with)
    if stage == "gan":
        gan = GAN(**net_config)
        generator = restored(gan.generator, checkpoint["ema"], path, device)
        return Trained(ImageModel(generator, (gan.latent_dim,)), origin, trained_with)
    vae = restored(MLPVAE(**net_config), checkpoint["ema"], path, device)
    return Trained(ImageModel(vae.decode, (vae.latent_dim,)), origin, trained_with, vae)


def labelled_unet(config: dict[str, Any]) -> LabelledUNet:
    """The network of these plain values, as checkpoints keep them."""
    mults = tuple(2**level for level in range(config["levels"]))
    return LabelledUNet(channel_mults=mults, **{name: value for name, value in config.items() if name != "levels"})


def guided_drawer(
    net: LabelledUNet, process: DiffusionConfig, settings: SimpleNamespace, device: torch.device
) -> ImageModel:
    """What draws by DDIM, with guidance. HW3's `texts` are conditions by label: here the labels themselves."""
    diffusion = GaussianDiffusion(Guided(net, settings.guidance), process).to(device)
    labels = torch.arange(net.classes, device=device)
    return ImageModel(lambda x: (x + 1) / 2, None, diffusion, labels, settings.ddim_steps)
