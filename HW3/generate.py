"""Drawing from any checkpoint: what every kind of trained model becomes, and the one function that draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from HW3.autoguidance import autoguided
from HW3.clip import SimpleCLIP
from HW3.diffusion import DiffusionConfig, GaussianDiffusion, ddim_timesteps
from HW3.latent import EpsMLP, LatentSpace, text_conditions
from HW3.plumbing.checkpoints import TRAINED_BY, load_checkpoint, restore
from HW3.plumbing.errors import UsageError
from HW3.pretrained import Model, check_dataset, unembed
from HW3.Unet import UNet
from HW3.vae import ConvVAE

CHUNK = 500  # images drawn at once
SAMPLERS = ("ddpm", "ddim", "dpm")  # all T steps; a part of them; few of them (DPM-Solver++)
DPM_STEPS = 15
SURE = 0.8  # of CLIP's probability for the label, where it checks what is drawn


@dataclass(frozen=True)
class ImageModel:
    """A trained model, ready to draw.

    decode: states (B, *shape) -> images (B, C, H, W) in [0, 1].  shape: of one state; None for images.
    diffusion: None for a VAE, which decodes plain noise.  texts: (10, E) conditions, None if it takes no labels.
    steps, eta: of DDIM, with which it was trained to be shown.
    clip: where there are texts, it looks at what is drawn, and what it is not sure of is drawn again: `tries` times in
    all. Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation", choose the best of many so.
    """

    decode: Callable[[Tensor], Tensor]
    shape: tuple[int, ...] | None
    diffusion: GaussianDiffusion | None = None
    texts: Tensor | None = None
    steps: int = 1
    eta: float = 0.0
    clip: SimpleCLIP | None = None
    tries: int = 1

    @property
    def timesteps(self) -> int:
        """The most steps that drawing can take."""
        return 1 if self.diffusion is None else self.diffusion.config.timesteps


def load_image_model(
    path: Path,
    device: torch.device,
    import_script: Callable[[str], ModuleType],
    guidance_scale: float | None = None,
    *,
    guidance_until: float | None = None,
    autoguidance: float | None = None,
    x0_scale: float | None = None,
    clip_tries: int | None = None,
    kind: str | None = None,
    dataset: str | None = None,
) -> ImageModel:
    """Rebuild the model in a checkpoint. Raises UsageError for one that cannot draw.

    import_script: imports `train_tiny_sd`, which defines the conditional network; called for its checkpoints only.
    guidance_scale, guidance_until, clip_tries: tiny_sd only.  autoguidance, x0_scale: any denoiser.  None for those of
    training.
    kind, dataset: what it must be; None for any.
    """
    checkpoint = load_checkpoint(path, kind, device)
    if dataset is not None:
        check_dataset(checkpoint, dataset, path)
    kind, config, extra, args = (checkpoint[key] for key in ("kind", "config", "extra", "args"))
    if kind == "clip":
        raise UsageError(f"{path} is a CLIP model, which compares images and draws none; evaluate.py measures it")
    if kind != "tiny_sd" and (guidance_scale, guidance_until, clip_tries) != (None, None, None):
        flags = "--guidance-scale, --guidance-until and --clip-tries"
        raise UsageError(f"{flags} need a tiny_sd checkpoint, and {path} holds a {kind} model")
    if autoguidance not in (None, 1) and "early" not in extra:
        raise UsageError(f"--autoguidance: {path} holds no earlier version of a denoiser; train one (again)")
    if kind == "vae":
        vae = _built(ConvVAE(**config), checkpoint, path, device)
        return ImageModel(vae.decode, (vae.latent_dim,))

    process = DiffusionConfig(**config["diffusion"])
    away = args.get("autoguidance", 1.0) if autoguidance is None else autoguidance
    stretch = args.get("x0_scale", 1.0) if x0_scale is None else x0_scale

    def built(net: nn.Module) -> nn.Module:
        return autoguided(_built(net, checkpoint, path, device), extra.get("early"), away, process.timesteps)

    if kind == "diffusion":
        net = built(UNet(**config["net"]))
        diffusion = GaussianDiffusion(net, process, x0_scale=stretch).to(device)
        return ImageModel(lambda x: (x + 1) / 2, None, diffusion, steps=args["ddim_steps"], eta=args["ddim_eta"])

    vae = unembed(ConvVAE, extra["vae"], path, device)
    space = LatentSpace(vae.latent_dim, canonicalize="basis" in extra["space"]).to(device)
    restore(space, extra["space"], path)
    clip, texts = None, None
    if kind == "latent_diffusion":
        net = built(EpsMLP(**config["net"]))
    else:
        script = import_script(TRAINED_BY[kind].removesuffix(".py"))
        scale = args["guidance_scale"] if guidance_scale is None else guidance_scale
        until = args.get("guidance_until", 1.0) if guidance_until is None else guidance_until
        limits = () if until == 1 else (until * process.timesteps,)  # older scripts know none
        net = script.GuidedModel(built(script.EpsMLPCond(**config["net"])), scale, *limits)
        clip = unembed(SimpleCLIP, extra["clip"], path, device)
        texts = text_conditions(clip)
    return ImageModel(
        lambda u: vae.decode(space.denormalize(u)),
        (vae.latent_dim,),
        GaussianDiffusion(net, process, x0_scale=stretch).to(device),
        texts,
        args["ddim_steps"],
        args["ddim_eta"],
        clip,
        args.get("clip_tries", 1) if clip_tries is None else clip_tries,
    )


def _built(model: Model, checkpoint: dict, path: Path, device: torch.device) -> Model:
    restore(model, checkpoint["ema"], path)
    return model.to(device).eval()


class Frames:
    """Of a trajectory of `steps` steps, about `wanted` evenly spaced images: the noise, the samples, and between.

    on_frame: is told each of them as soon as it is there.  kept: which states these are, the first being 0.
    """

    def __init__(
        self,
        wanted: int,
        steps: int,
        decode: Callable[[Tensor], Tensor],
        on_frame: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.images: list[Tensor] = []
        self._decode, self._on_frame = decode, on_frame
        self.kept = {round(k * steps / max(1, wanted - 1)) for k in range(wanted)} | ({steps} if wanted else set())
        self._seen = 0

    def take(self, state: Tensor) -> None:
        """Take in the next state."""
        if self._seen in self.kept:
            self.images.append(self._decode(state).clamp(0, 1))
            if self._on_frame is not None:
                self._on_frame(self.images[-1])
        self._seen += 1


@torch.inference_mode()
def draw(
    model: ImageModel,
    num: int,
    device: torch.device,
    *,
    labels: Tensor | None = None,
    sampler: str = "ddim",
    steps: int | None = None,
    eta: float | None = None,
    seed: int = 0,
    frames: int = 0,
    on_frame: Callable[[Tensor], None] | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Draw `num` images (N, C, H, W) in [0, 1], and with frames > 0 their trajectory (F, N, C, H, W).

    labels: (N,) for a model with texts.  sampler: one of SAMPLERS; steps: of DDIM (None: as in training) and of DPM
    (None: 15).  eta: DDIM's (None: as in training).
    on_frame: called with each frame of the trajectory as soon as it is there, (N, C, H, W) in [0, 1]; not of what is
    drawn again because CLIP was not sure of it, which takes its place in the trajectory that is returned.
    """
    source = torch.Generator(device).manual_seed(seed)
    n_steps = {
        "ddpm": model.timesteps,
        "ddim": steps or model.steps,
        "dpm": steps or min(DPM_STEPS, model.timesteps),
    }[sampler]

    def once(n: int, labels: Tensor | None, kept: Frames) -> Tensor:
        """n images (n, C, H, W), whose way `kept` sees."""
        if model.diffusion is None:
            return model.decode(torch.randn(n, *(model.shape or ()), generator=source, device=device))
        cond = model.texts[labels] if model.texts is not None and labels is not None else None
        common: dict[str, Any] = {"cond": cond, "shape": model.shape, "generator": source}
        common |= {"on_state": kept.take if frames else None, "progress": progress}
        if sampler == "ddpm":
            x = model.diffusion.sample_ddpm(n, device, **common)
        elif sampler == "dpm":
            x = model.diffusion.sample_dpm(n, device, n_steps, **common)
        else:
            x = model.diffusion.sample_ddim(n, device, n_steps, model.eta if eta is None else eta, **common)
        return model.decode(x)

    images, movies, unsure = [], [], 0
    for start in range(0, num, CHUNK):
        wanted = None if labels is None else labels[start : start + CHUNK].to(device)
        kept = Frames(frames, n_steps, model.decode, on_frame)
        drawn = once(min(CHUNK, num - start), wanted, kept)
        if model.clip is not None and wanted is not None and model.tries > 1:
            doubtful = _doubtful(model.clip, drawn, wanted)
            for _ in range(model.tries - 1):
                if not doubtful.any():
                    break
                other = Frames(frames, n_steps, model.decode)
                drawn[doubtful] = once(int(doubtful.sum()), wanted[doubtful], other)
                for frame, replacement in zip(kept.images, other.images, strict=True):
                    frame[doubtful] = replacement
                doubtful = _doubtful(model.clip, drawn, wanted)
            unsure += int(doubtful.sum())
        if kept.images:
            movies.append(torch.stack(kept.images))
        images.append(drawn)
    if unsure and progress:
        print(f"CLIP is not sure of {unsure} of {num} images, after {model.tries} tries each", flush=True)
    return torch.cat(images).clamp(0, 1), torch.cat(movies, dim=1) if movies else None


def _doubtful(clip: SimpleCLIP, images: Tensor, labels: Tensor) -> Tensor:
    """Which images (N, C, H, W) CLIP is not sure to show their label, (N,)."""
    seen = clip.probabilities(images.clamp(0, 1)).gather(1, labels[:, None])[:, 0]
    return ~(seen >= SURE)  # NaN is doubtful, too


def starting_noise(model: ImageModel, num: int, device: torch.device, *, seed: int = 0) -> Tensor:
    """The noise (N, *shape) from which `draw` starts with this seed."""
    shape = model.shape
    if shape is None and model.diffusion is not None:
        config = model.diffusion.config
        shape = (config.channels, config.image_size, config.image_size)
    return torch.randn(num, *(shape or ()), generator=torch.Generator(device).manual_seed(seed), device=device)


@dataclass(frozen=True)
class Trajectory:
    """States on the way from noise to samples, and what the network took them for. F of them, as images in [0, 1].

    times (F): t of each, from T-1 down to -1 for the samples.
    states (F, N, C, H, W): x_t.  estimates, like states: the estimate of x_0 from it; of the samples, themselves.
    """

    times: list[int]
    states: Tensor
    estimates: Tensor


@torch.inference_mode()
def trajectory(
    model: ImageModel, noise: Tensor, *, labels: Tensor | None = None, steps: int | None = None, frames: int = 2
) -> Trajectory:
    """The way of DDIM with η = 0 from the given noise (N, *shape); what `draw` does from noise of its own.

    labels, steps: as for `draw`.  frames: of about so many states, evenly spaced, with both ends.
    """
    diffusion, n_steps = model.diffusion, steps or model.steps
    if diffusion is None:
        raise UsageError("a VAE draws in one step and has no trajectory: take a diffusion model")
    states, estimates = (Frames(max(2, frames), n_steps, model.decode) for _ in range(2))
    cond = model.texts[labels] if model.texts is not None and labels is not None else None

    def step(x: Tensor, t: Tensor, t_prev: Tensor, eps: Tensor, is_last: bool) -> Tensor:
        estimates.take(diffusion.predict_x0(x, t, eps))
        return diffusion.ddim_step(x, t, t_prev, eps)

    ts = ddim_timesteps(diffusion.config.timesteps, n_steps)
    x = diffusion._reverse(noise, ts, step, cond, clip_x0=model.shape is None, on_state=states.take, progress=False)
    estimates.take(x)
    times = [[*ts, -1][k] for k in sorted(states.kept)]
    return Trajectory(times, torch.stack(states.images), torch.stack(estimates.images))
