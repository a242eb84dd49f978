"""Train the track's three models, one after the other: the VAE, the GAN, the diffusion model.

examples:
  python -m extensions.gan_zoo train --quick                       laptop, real MNIST
  python -m extensions.gan_zoo train --quick --set data.source=digits         no download
  python -m extensions.gan_zoo train --set vae.loss=bce --set vae.beta=1 --only vae --out-dir result/bce
  python -m extensions.gan_zoo train --quick --set data.source=folder --set data.folder=PATH --out-dir result/mine
  python -m extensions.gan_zoo train --resume                      go on where Ctrl-C stopped it
  torchrun --nproc-per-node 2 -m extensions.gan_zoo train

Each leaves {vae,gan,diffusion}_latest.pt, metrics.jsonl, loss.png and pictures in a folder of its name in --out-dir:
samples_epoch_NNN.png from the same latents every time, and for the VAE reconstruction_epoch_NNN.png.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from extensions.blocks.adversarial import Optimizers, average_gradients, discriminator_loss, frozen, generator_loss
from extensions.blocks.averaging import warmed_up_ema
from extensions.blocks.command import arguments, stage_args, track_parser
from extensions.gan_zoo.data import Images, load
from extensions.gan_zoo.models import GAN, MLPVAE, reconstruction_loss
from extensions.gan_zoo.trained import STAGES, guided_drawer, labelled_unet, zoo_settings
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.generate import CHUNK, draw
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import Parser
from HW3.plumbing.run import Run
from HW3.vae import kl_divergence
from HW3.viz import save_grid, save_pairs

SHOWN = 64  # pictures in a grid
COLUMNS = 8


def main() -> None:
    parser = track_parser(__doc__ or "", "gan_zoo")
    parser.add_argument("--only", choices=STAGES, help="train this one")
    add_start(parser)
    args = parser.parse_args(arguments())
    config = zoo_settings(args)
    data = load(config.data, args.data_dir, args.seed)

    stages = STAGES if args.only is None else (args.only,)
    for stage in stages:
        flags = zoo_args(args, config, getattr(config, stage), stage)
        run = Run(f"gan_zoo_{stage}", stage, flags, is_last=stage == stages[-1])
        if stage == stages[0]:
            run.say(
                f"{data.source}: {len(data.train)} images to train on, {len(data.val)} to validate, "
                f"{len(data.test)} held out; {len(data.train.class_names)} classes, {data.image_size} pixels"
            )
        if stage == "vae":
            train_vae(run, config.vae, data)
        elif stage == "gan":
            train_gan(run, config.gan, data)
        else:
            train_diffusion(run, config.diffusion, config.sample, data)


def add_start(parser: Parser) -> None:
    """How a training run begins."""
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from the latest checkpoints in --out-dir")
    start.add_argument("--overwrite", action="store_true", help="start anew although --out-dir holds trained models")


def zoo_args(args: Namespace, config: SimpleNamespace, section: SimpleNamespace, folder: str) -> Namespace:
    """What a Run is told of one stage; the data settings, too, as no run may continue on other images."""
    data = {f"data_{name}": value for name, value in vars(config.data).items()}
    return Namespace(**vars(stage_args(args, section, args.out_dir / folder)), **data)


def train_vae(run: Run, settings: SimpleNamespace, data: Images) -> None:
    """Images -> 80 latent numbers -> images."""
    train, val = data.train.to(run.device), data.val.to(run.device)
    net_config = {
        "image_size": data.image_size,
        "hidden_dim": settings.hidden_dim,
        "latent_dim": settings.latent_dim,
    }
    vae = MLPVAE(**net_config).to(run.device)
    ema = AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(0.0))  # the weights as they are
    optimizer = torch.optim.AdamW(vae.parameters(), lr=settings.lr, fused=True)
    model = run.start(vae, ema, optimizer, config={"net": net_config, "origin": data.origin()})

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            x = train.batch(idx)[0]  # (B, 1, S, S)
            recon, mu, logvar = model(x)
            rec = reconstruction_loss(recon, x, settings.loss).mean()  # per image: a sum over pixels
            kl = kl_divergence(mu, logvar).mean()  # per image, too, so that beta means the same in batches of any size
            loss = rec + settings.beta * kl

            optimizer.zero_grad()
            loss.backward()
            for params in optimizer.param_groups:
                params["lr"] = settings.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(vae)
            run.log(loss=loss, rec=rec, kl=kl)

        with run.evaluation() as eval_vae:
            x = val.batch(slice(None))[0]
            val_loss = mean_over(lambda x: vae_losses(eval_vae, x, settings), x)
            if run.time_for_pictures(epoch):
                shown = x[: min(len(x), SHOWN // 2) // COLUMNS * COLUMNS or None]
                recon = eval_vae.decode(eval_vae.encode(shown)[0])
                save_pairs(shown, recon, run.out_dir / f"reconstruction_epoch_{epoch:03d}.png", columns=COLUMNS)
                z = torch.randn(SHOWN, settings.latent_dim, device=run.device)  # `evaluation` draws the same every time
                save_grid(eval_vae.decode(z), run.out_dir / f"samples_epoch_{epoch:03d}.png", columns=COLUMNS)
        run.end_epoch(val_loss=val_loss)


def vae_losses(vae: MLPVAE, x: Tensor, settings: SimpleNamespace) -> Tensor:
    """The loss of each image, (B,)."""
    recon, mu, logvar = vae(x)
    return reconstruction_loss(recon, x, settings.loss) + settings.beta * kl_divergence(mu, logvar)


def mean_over(losses: Callable[..., Tensor], *rows: Tensor) -> float:
    """The mean over all rows of what `losses` gives for each row of a chunk."""
    chunks = zip(*(tensor.split(CHUNK) for tensor in rows), strict=True)
    return torch.cat([losses(*chunk) for chunk in chunks]).mean().item()


def diffusion_losses(diffusion: GaussianDiffusion, x: Tensor, labels: Tensor) -> Tensor:
    """The loss of a chunk of images, at random steps, for each of them, (B,)."""
    return diffusion.training_loss(x * 2 - 1, cond=labels).expand(len(x))


def train_gan(run: Run, settings: SimpleNamespace, data: Images) -> None:
    """A generator against a discriminator, a step of each in turns."""
    train = data.train.to(run.device)
    net_config = {
        "kind": settings.kind,
        "image_size": data.image_size,
        "latent_dim": settings.latent_dim,
        "width": settings.width,
        "hidden_dim": settings.hidden_dim,
    }
    gan = GAN(**net_config).to(run.device).to(memory_format=torch.channels_last)
    ema = AveragedModel(gan.generator, multi_avg_fn=warmed_up_ema(settings.ema))
    options = {"lr": settings.lr, "betas": (settings.beta1, settings.beta2), "weight_decay": 0, "fused": True}
    optimizer_d = torch.optim.AdamW(gan.discriminator.parameters(), **options)
    optimizer_g = torch.optim.AdamW(gan.generator.parameters(), **options)
    both = Optimizers(discriminator=optimizer_d, generator=optimizer_g)
    run.start(gan, ema, both, config={"net": net_config, "origin": data.origin()})  # type: ignore[arg-type]

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            real = train.batch(idx)[0]  # (B, 1, S, S)
            with run.autocast():
                fake = gan.generator(torch.randn(len(real), settings.latent_dim, device=run.device))

            # The discriminator: the generator is left as it is.
            with run.autocast():
                d_loss = discriminator_loss(gan.discriminator(real), gan.discriminator(fake.detach()))
            optimizer_d.zero_grad()
            d_loss.backward()
            average_gradients(gan.discriminator, run.world)
            optimizer_d.step()

            # The generator, against the discriminator as it is now.
            with frozen(gan.discriminator), run.autocast():
                g_loss = generator_loss(gan.discriminator(fake))
            optimizer_g.zero_grad()
            g_loss.backward()
            average_gradients(gan.generator, run.world)
            optimizer_g.step()

            ema.update_parameters(gan.generator)
            run.log(loss=d_loss, generator_loss=g_loss)

        if run.time_for_pictures(epoch):
            with run.evaluation() as eval_generator:
                z = torch.randn(SHOWN, settings.latent_dim, device=run.device)
                save_grid(eval_generator(z), run.out_dir / f"samples_epoch_{epoch:03d}.png", columns=COLUMNS)
        run.end_epoch()


def train_diffusion(run: Run, settings: SimpleNamespace, sample: SimpleNamespace, data: Images) -> None:
    """Noise -> images, by HW3's process; the network is told the class, or with a token that there is none."""
    train, val = data.train.to(run.device), data.val.to(run.device)
    net_config = {
        "classes": len(data.train.class_names),
        "base_channels": settings.base_channels,
        "levels": settings.levels,
        "attention": settings.attention,
        "patch_size": settings.patch_size,
        "cond_dropout": settings.cond_dropout,
    }
    process = DiffusionConfig(
        image_size=data.image_size,
        timesteps=settings.timesteps,
        schedule=settings.schedule,
        prediction=settings.prediction,
    )
    unet = labelled_unet(net_config).to(run.device)
    ema = AveragedModel(unet, multi_avg_fn=warmed_up_ema(settings.ema))
    optimizer = torch.optim.AdamW(unet.parameters(), lr=settings.lr, weight_decay=0, fused=True)
    config = {"net": net_config, "diffusion": vars(process), "origin": data.origin()}
    model = run.start(unet, ema, optimizer, config=config)
    diffusion = GaussianDiffusion(model, process).to(run.device)

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            x, labels = train.batch(idx)
            with run.autocast():
                # Draws t and the noise; the network itself hides some of the labels.
                loss = diffusion.training_loss(x * 2 - 1, cond=labels)

            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), 1.0)
            for params in optimizer.param_groups:
                params["lr"] = settings.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(unet)
            run.log(loss=loss, grad_norm=grad_norm)

        with run.evaluation() as eval_unet, run.autocast():
            judged = GaussianDiffusion(eval_unet, process).to(run.device)
            x, labels = val.batch(slice(None))
            val_loss = mean_over(partial(diffusion_losses, judged), x, labels)
            if run.time_for_pictures(epoch):
                drawer = guided_drawer(eval_unet, process, sample, run.device)
                shown = torch.arange(SHOWN, device=run.device) % net_config["classes"]
                images, _ = draw(drawer, SHOWN, run.device, labels=shown, seed=run.args.seed, progress=True)
                save_grid(images, run.out_dir / f"samples_epoch_{epoch:03d}.png", columns=COLUMNS)
        run.end_epoch(val_loss=val_loss)
