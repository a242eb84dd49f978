"""Train the track's models, one after the other: the judge, the perceptual features, the VAE, the diffusion model.

examples:
  python -m extensions.catdog train --quick                          laptop
  python -m extensions.catdog train --quick --set data.source=standin        no data needed
  python -m extensions.catdog train --set perceptual.weights=vgg16-397923af.pth
  python -m extensions.catdog train --only vae --set "vae.kl_weight=[[0.0, 0.001]]" --out-dir result/other
  python -m extensions.catdog train --resume                         go on where Ctrl-C stopped it
  torchrun --nproc-per-node 2 -m extensions.catdog train

Each leaves STAGE_latest.pt, metrics.jsonl and loss.png in a folder of its name in --out-dir, and the last two pictures:
reconstruction_epoch_NNN.png and latent_space_epoch_NNN.png, samples_epoch_NNN.png.
"""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel

from extensions.blocks.adversarial import Optimizers, average_gradients, discriminator_loss, frozen, generator_loss
from extensions.blocks.augment import varied
from extensions.blocks.averaging import warmed_up_ema
from extensions.blocks.command import arguments, stage_args, track_parser
from extensions.blocks.conditional import EpsMLPNull
from extensions.blocks.features import SmallClassifier, VGG16Features
from extensions.blocks.images import Images
from extensions.blocks.losses import perceptual_loss
from extensions.blocks.phases import is_used, weight_at
from extensions.catdog.models import CHUNK, VAEGAN, JudgeNet, LabelledVAE
from extensions.catdog.track import STAGES, Track
from extensions.catdog.trained import (
    WEIGHTS,
    encode,
    guided_drawer,
    load_features,
    load_vae,
    perceptual_weights,
    stages_of,
    track_settings,
)
from HW3.data import ImageSet
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.generate import draw
from HW3.latent import LatentSpace
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.errors import UserError
from HW3.plumbing.files import write_atomically
from HW3.plumbing.run import Run
from HW3.pretrained import embed
from HW3.vae import kl_divergence
from HW3.viz import figure_png, latent_map, pca, save_grid, save_pairs, tsne

SHOWN = 32  # pictures in a grid
COLUMNS = 8
MAPPED = 600  # validation images on a map of latents
FEWEST = 4  # of them: a map has two axes, and t-SNE looks at neighbours


def main(track: Track) -> None:
    parser = track_parser(track.doc(__doc__ or ""), track.name)
    parser.add_argument("--only", choices=STAGES, help="train this one, on the others as they are")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from the latest checkpoints in --out-dir")
    start.add_argument("--overwrite", action="store_true", help="start anew although --out-dir holds trained models")
    args = parser.parse_args(arguments())
    config = track_settings(track, args)
    data = track.load(config.data, args.data_dir, args.seed)
    if len(data.val) < FEWEST:
        raise UserError(
            f"data.validation: of {len(data.train)} images {len(data.val)} are too few to look at: raise it"
        )

    stages = stages_of(config) if args.only is None else (args.only,)
    for stage in stages:
        section = getattr(config, stage)
        run = Run(track.kind(stage), stage, run_args(args, config, stage), is_last=stage == stages[-1])
        if stage == stages[0]:
            run.say(
                f"{data.source}: {len(data.train)} images to train on, {len(data.val)} to validate, "
                f"{len(data.test)} held out; {', '.join(data.train.class_names)}; {data.image_size} pixels"
            )
        run.world.wait(run.device)  # for what the main process wrote of the stage before
        if stage in ("judge", "features"):
            train_classifier(run, section, config.data, data)
        elif stage == "vae":
            features = load_features(track, args.out_dir, config, run.device, data)
            train_vae(run, section, config.data, data, features)
        else:
            vae = load_vae(track, args.out_dir, run.device, data)
            train_diffusion(run, section, config.sample, data, vae)


def run_args(args: Namespace, config: SimpleNamespace, stage: str) -> Namespace:
    """What a Run is told of one stage; the data settings, too, as no run may continue on other images."""
    more = {f"data_{name}": value for name, value in vars(config.data).items()}
    if stage == "vae" and is_used(config.vae.perceptual_weight):  # nor against another network
        more["perceptual_features"] = "classifier" if perceptual_weights(config) is None else "vgg16"
    return Namespace(**vars(stage_args(args, getattr(config, stage), args.out_dir / stage)), **more)


def augmented(images: Tensor, settings: SimpleNamespace) -> Tensor:
    """Training images, (B, 3, S, S), each a little other at each visit."""
    return varied(images, rotation=settings.rotation, shift=settings.shift, jitter=settings.jitter)


# -- the classifiers -----------------------------------------------------------------------------------------


def train_classifier(run: Run, settings: SimpleNamespace, data_settings: SimpleNamespace, data: Images) -> None:
    """Images -> which class they are of: the judge, or the network whose maps are the perceptual features.

    Two networks of two kinds and with other draws: the VAE learns to please the features, and never meets the judge.
    """
    train, val = data.train.to(run.device), data.val.to(run.device)
    is_judge = run.name == "judge"
    torch.manual_seed(run.args.seed + is_judge)
    classes = len(data.train.class_names)
    net_config = {"classes": classes, **({"width": settings.width} if is_judge else {"widths": settings.widths})}
    net = (JudgeNet if is_judge else SmallClassifier)(**net_config).to(run.device)
    net = net.to(memory_format=torch.channels_last)
    ema = AveragedModel(net, multi_avg_fn=warmed_up_ema(settings.ema))
    options = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    optimizer = torch.optim.AdamW(net.parameters(), **options)
    model = run.start(net, ema, optimizer, config={"net": net_config, "origin": data.origin()})

    for _ in run.epochs():
        for idx in run.batches(len(train)):
            x, labels = train.batch(idx)
            with run.autocast():
                logits = model(augmented(x, data_settings))  # (B, K)
            loss = F.cross_entropy(logits.float(), labels)

            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            for params in optimizer.param_groups:
                params["lr"] = settings.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(net)
            run.log(loss=loss)

        with run.evaluation() as eval_net, run.autocast():
            logits = torch.cat([eval_net(x) for x in val.batch(slice(None))[0].split(CHUNK)]).float()
            val_loss = F.cross_entropy(logits, val.labels).item()
            val_accuracy = (logits.argmax(dim=1) == val.labels).float().mean().item()
        run.end_epoch(val_loss=val_loss, val_accuracy=val_accuracy)


# -- the VAE -------------------------------------------------------------------------------------------------


def train_vae(
    run: Run,
    settings: SimpleNamespace,
    data_settings: SimpleNamespace,
    data: Images,
    features: SmallClassifier | VGG16Features | None,
) -> None:
    """Images -> latent numbers -> images; the latents tell the class, and lie around the mean of their class."""
    train, val = data.train.to(run.device), data.val.to(run.device)
    vae = LabelledVAE(
        classes=len(data.train.class_names),
        size=data.image_size,
        latent_dim=settings.latent_dim,
        widths=settings.widths,
        head_dim=settings.head_dim,
        centre_decay=settings.centre_decay,
    )
    is_adversarial = is_used(settings.adversarial_weight)
    nets = VAEGAN(vae, settings.discriminator_widths if is_adversarial else None)
    nets = nets.to(run.device).to(memory_format=torch.channels_last)
    discriminator = nets.discriminator
    ema = AveragedModel(vae, multi_avg_fn=warmed_up_ema(settings.ema))
    options = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    optimizers: dict[str, torch.optim.Optimizer] = {"vae": torch.optim.AdamW(vae.parameters(), **options)}
    if discriminator is not None:
        rate, betas = settings.discriminator_lr, (0.5, 0.999)
        optimizers["discriminator"] = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=betas, fused=True)
    config = {"net": vae.config, "origin": data.origin()}
    run.start(nets, ema, Optimizers(**optimizers), config=config)  # type: ignore[arg-type]
    schedules = {name: getattr(settings, f"{name}_weight") for name in WEIGHTS}

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            x, labels = train.batch(idx)
            x = augmented(x, data_settings)  # (B, 3, S, S)
            share = run.step / run.total_steps
            weights = {name: weight_at(points, share) for name, points in schedules.items()}
            with run.autocast():
                mu, logvar = vae.encode(x)  # (B, D)
                z = vae.reparameterize(mu.float(), logvar.float())
                recon = vae.decode(z).float()
                class_logits = vae.head(z).float()  # (B, K)

            # Every loss is a mean, so that a weight means the same for pictures and latents of any size.
            zero = torch.zeros((), device=run.device)
            losses = {
                "rec": F.mse_loss(recon, x),
                "kl": kl_divergence(mu.float(), logvar.float()).mean() / vae.latent_dim,  # nats per latent number
                "class": F.cross_entropy(class_logits, labels),
                "perceptual": zero,
                "adversarial": zero,
                "discriminator": zero,
            }
            vae.centres.update(z, labels, run.world)
            losses["centre"] = vae.centres(z, labels)
            if features is not None and weights["perceptual"] > 0:
                with run.autocast():
                    losses["perceptual"] = perceptual_loss(features.features, recon, x)

            if discriminator is not None and weights["adversarial"] > 0:
                # The discriminator: the VAE is left as it is.
                with run.autocast():
                    d_loss = discriminator_loss(discriminator(x), discriminator(recon.detach()))
                optimizers["discriminator"].zero_grad()
                d_loss.backward()
                average_gradients(discriminator, run.world)
                optimizers["discriminator"].step()
                losses["discriminator"] = d_loss
                # The VAE, against the discriminator as it is now.
                with frozen(discriminator), run.autocast():
                    losses["adversarial"] = generator_loss(discriminator(recon))

            loss = losses["rec"] + sum(weights[name] * losses[name] for name in WEIGHTS)
            optimizers["vae"].zero_grad()
            loss.backward()
            average_gradients(vae, run.world)
            grad_norm = clip_grad_norm_(vae.parameters(), 1.0)
            for params in optimizers["vae"].param_groups:
                params["lr"] = settings.lr * warmup_cosine(run.step, run.total_steps)
            optimizers["vae"].step()
            ema.update_parameters(vae)
            named = {name if name in ("rec", "kl") else f"{name}_loss": value for name, value in losses.items()}
            run.log(loss=loss, **named, grad_norm=grad_norm)

        with run.evaluation() as eval_vae, run.autocast():
            metrics = look_at(eval_vae, val)
            if run.time_for_pictures(epoch):
                shown = val.subset(SHOWN // 2).batch(slice(None))[0]  # of all classes, whatever their order
                recon = eval_vae.decode(eval_vae.encode(shown)[0])
                save_pairs(shown, recon, run.out_dir / f"reconstruction_epoch_{epoch:03d}.png", columns=COLUMNS)
                write_atomically(run.out_dir / f"latent_space_epoch_{epoch:03d}.png", latent_space(eval_vae, val))
        run.end_epoch(**metrics)


def look_at(vae: LabelledVAE, images: ImageSet) -> dict[str, float]:
    """How well images come back, and how often the classifier of latents is right; at the posterior mean."""
    errors, right = [], []
    for start in range(0, len(images), CHUNK):
        x, labels = images.batch(slice(start, start + CHUNK))
        mu = vae.encode(x)[0].float()
        errors.append((vae.decode(mu).float() - x).square().flatten(1).mean(dim=1))
        right.append(vae.head(mu).argmax(dim=1) == labels)
    return {"val_rec": torch.cat(errors).mean().item(), "val_accuracy": torch.cat(right).float().mean().item()}


def latent_space(vae: LabelledVAE, images: ImageSet) -> bytes:
    """A map of the posterior means of images, as a PNG: their principal axes, and t-SNE."""
    some = images.subset(MAPPED)
    points = encode(vae, some).mu.cpu()
    maps = {"principal axes": pca(points), "t-SNE": tsne(points)}
    return figure_png(latent_map(maps, some.labels.cpu(), some.class_names))


# -- the diffusion model -------------------------------------------------------------------------------------


def train_diffusion(
    run: Run, settings: SimpleNamespace, sample: SimpleNamespace, data: Images, vae: LabelledVAE
) -> None:
    """Diffusion of the VAE's standardised latents; the network is told the class, or that there is none."""
    cache, val = encode(vae, both_ways(data.train.to(run.device))), encode(vae, data.val.to(run.device))  # once
    space = LatentSpace(vae.latent_dim).to(run.device).fit(cache)
    one_hot = torch.eye(vae.config["classes"], device=run.device)

    net_config = {
        "latent_dim": vae.latent_dim,
        "cond_dim": vae.config["classes"],
        "time_dim": settings.time_dim,
        "hidden_dim": settings.hidden_dim,
        "cond_dropout": settings.cond_dropout,
    }
    process = DiffusionConfig(timesteps=settings.timesteps, schedule=settings.schedule, prediction=settings.prediction)
    net = EpsMLPNull(**net_config).to(run.device)
    ema = AveragedModel(net, multi_avg_fn=warmed_up_ema(settings.ema))
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=0, fused=True)
    config = {"net": net_config, "diffusion": vars(process), "origin": data.origin()}
    model = run.start(
        net, ema, optimizer, config=config, extra={"vae": embed(vae, vae.config), "space": space.state_dict()}
    )
    diffusion = GaussianDiffusion(model, process).to(run.device)

    for epoch in run.epochs():
        for idx in run.batches(len(cache)):
            u = space.normalize(cache.mu[idx])  # (B, D)
            # Draws t and the noise; the network itself hides some of the classes.
            loss = diffusion.training_loss(u, cond=one_hot[cache.labels[idx]])

            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), 1.0)
            for params in optimizer.param_groups:
                params["lr"] = settings.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(net)
            run.log(loss=loss, grad_norm=grad_norm)

        with run.evaluation() as eval_net:
            judged = GaussianDiffusion(eval_net, process).to(run.device)
            val_loss = judged.training_loss(space.normalize(val.mu), cond=one_hot[val.labels]).item()
            if run.time_for_pictures(epoch):
                drawer = guided_drawer(eval_net, process, vae, space, sample)
                labels = torch.arange(SHOWN, device=run.device) * len(one_hot) // SHOWN  # a class below the other
                images, _ = draw(drawer, SHOWN, run.device, labels=labels, seed=run.args.seed)
                save_grid(images, run.out_dir / f"samples_epoch_{epoch:03d}.png", columns=COLUMNS)
        run.end_epoch(val_loss=val_loss)


def both_ways(images: ImageSet) -> ImageSet:
    """Every image, and every image mirrored."""
    pixels = torch.cat([images.images, images.images.flip(3)])
    return ImageSet(pixels, images.labels.repeat(2), images.class_names)
