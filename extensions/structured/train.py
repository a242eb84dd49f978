"""Train the track's four models, one after the other: the VAE, two diffusion models of its latents, a classifier.

examples:
  python -m extensions.structured train --quick                    the real rows if they are there, else the stand-in
  python -m extensions.structured train --set vae.epochs=30 --out-dir result/longer
  python -m extensions.structured train --resume                   go on where Ctrl-C stopped it
  python -m extensions.structured train --only prior --overwrite   one of them anew, on the others as they are
  torchrun --nproc-per-node 2 -m extensions.structured train

Each leaves {vae,diffusion,prior,classifier}_{latest,best}.pt, metrics.jsonl and loss.png in a folder of its name in
--out-dir. `best` is chosen on validation rows, and is what the later ones and all other commands use.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from extensions.blocks.command import arguments, settings, stage_args, track_parser
from extensions.blocks.conditional import EpsMLPNull
from extensions.structured.data import CONDITION_DIM, Expressions, Split, load, split
from extensions.structured.models import Classifier, ExpressionVAE
from extensions.structured.trained import FOLDER, STAGES, encode, held_out_from, load_vae, reconstruct
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import EpsMLP, LatentSpace
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.run import Run
from HW3.pretrained import embed
from HW3.vae import kl_divergence


def main() -> None:
    parser = track_parser(__doc__ or "", "structured")
    parser.add_argument("--only", choices=STAGES, help="train this one, on the others as they are")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from the latest checkpoints in --out-dir")
    start.add_argument("--overwrite", action="store_true", help="start anew although --out-dir holds trained models")
    args = parser.parse_args(arguments())
    config = settings(args, FOLDER)
    data, name = load(config.data.source, args.data_dir, config.data.csv, config.data.hdf5)
    rows = split(data, args.seed)

    stages = STAGES if args.only is None else (args.only,)
    for stage in stages:
        section = getattr(config, stage)
        flags = stage_args(args, section, args.out_dir / stage)
        run = Run(f"structured_{stage}", stage, flags, is_last=stage == stages[-1])
        if stage == stages[0]:
            run.say(
                f"{name}: {len(data)} rows, {rows.repeated} of them an expression again; "
                f"{len(rows.train)} to train on, {len(rows.val)} to validate, {len(rows.test)} held out"
            )
        if stage == "vae":
            train_vae(run, section, data, rows)
            continue
        run.world.wait(run.device)  # for the VAE that the main process writes
        vae = load_vae(args.out_dir, run.device, data, args.seed)
        if stage == "classifier":
            train_classifier(run, section, data, rows, vae)
        else:
            train_diffusion(run, section, data, rows, vae, is_prior=stage == "prior")


def train_vae(run: Run, settings: SimpleNamespace, data: Expressions, rows: Split) -> None:
    """Sequences -> 200 latent numbers -> sequences."""
    x_train, x_val = rows.train.sequences.to(run.device), rows.val.sequences.to(run.device)  # (N, 72)
    net_config = {"productions": data.productions, "latent_dim": settings.latent_dim, "width": settings.width}
    vae = ExpressionVAE(**net_config).to(run.device)
    ema = AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(0.0))  # the weights as they are
    optimizer = torch.optim.AdamW(vae.parameters(), lr=settings.lr, weight_decay=0, fused=True)
    model = run.start(vae, ema, optimizer, config={"net": net_config, "rows": held_out_from(data, run.args.seed)})

    for _ in run.epochs():
        for idx in run.batches(len(x_train)):
            x = x_train[idx]  # (B, 72)
            logits, mu, logvar = model(x)  # (B, G, 72), (B, D), (B, D)
            rec = F.cross_entropy(logits, x, reduction="sum") / len(x)  # of a softmax over productions, per sequence
            kl = kl_divergence(mu, logvar).mean()
            loss = rec + settings.kl_weight * kl

            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), 100.0)
            for params in optimizer.param_groups:
                params["lr"] = settings.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(vae)
            run.log(loss=loss, rec=rec, kl=kl, grad_norm=grad_norm)

        with run.evaluation() as eval_vae:
            logits, mu, logvar = eval_vae(x_val)
            val_loss = F.cross_entropy(logits, x_val, reduction="sum") / len(x_val)
            val_loss += settings.kl_weight * kl_divergence(mu, logvar).mean()
            exact = (eval_vae.decode(mu).argmax(dim=1) == x_val).all(dim=1).float().mean()
        run.end_epoch(best=val_loss.item(), val_loss=val_loss.item(), val_exact=exact.item())


def train_diffusion(
    run: Run, settings: SimpleNamespace, data: Expressions, rows: Split, vae: ExpressionVAE, *, is_prior: bool
) -> None:
    """Diffusion of the VAE's standardised latents; the prior is told type and part, the other one nothing."""
    cache, val = encode(vae, rows.train.sequences), encode(vae, rows.val.sequences)  # once
    space = LatentSpace(vae.latent_dim).to(run.device).fit(cache)
    cond, cond_val = rows.train.conditions().to(run.device), rows.val.conditions().to(run.device)  # (N, 28)

    net_config: dict[str, Any] = {
        "latent_dim": vae.latent_dim,
        "time_dim": settings.time_dim,
        "hidden_dim": settings.hidden_dim,
    }
    if is_prior:
        net_config |= {"cond_dim": CONDITION_DIM, "cond_dropout": settings.cond_dropout}
    process = DiffusionConfig(timesteps=settings.timesteps, schedule=settings.schedule, prediction=settings.prediction)
    net = (EpsMLPNull if is_prior else EpsMLP)(**net_config).to(run.device)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=0, fused=True)
    rows_seen = {"rows": held_out_from(data, run.args.seed), "pairs": data.pairs().tolist()}
    config = {"net": net_config, "diffusion": vars(process), **rows_seen}
    model = run.start(
        net, ema, optimizer, config=config, extra={"vae": embed(vae, vae.config), "space": space.state_dict()}
    )
    diffusion = GaussianDiffusion(model, process).to(run.device)

    for _ in run.epochs():
        for idx in run.batches(len(cache)):
            u = space.normalize(cache.mu[idx])  # (B, D)
            # Draws t and the noise; the network itself hides some of the conditions.
            loss = diffusion.training_loss(u, cond=cond[idx] if is_prior else None)

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
            val_loss = judged.training_loss(space.normalize(val.mu), cond=cond_val if is_prior else None).item()
        run.end_epoch(best=val_loss, val_loss=val_loss)


def train_classifier(run: Run, settings: SimpleNamespace, data: Expressions, rows: Split, vae: ExpressionVAE) -> None:
    """Type and part of real rows as the VAE decodes them: what the prior's samples are judged by."""
    x_train, x_val = (reconstruct(vae, part) for part in (rows.train, rows.val))  # (N, 72)
    types, parts = rows.train.types.to(run.device), rows.train.parts.to(run.device)  # (N,)
    types_val, parts_val = rows.val.types.to(run.device), rows.val.parts.to(run.device)
    net_config = {"productions": data.productions, "width": settings.width}
    net = Classifier(**net_config).to(run.device)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.0))
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=0.01, fused=True)
    config = {"net": net_config, "rows": held_out_from(data, run.args.seed)}
    model = run.start(net, ema, optimizer, config=config, extra={"vae": embed(vae, vae.config)})

    for _ in run.epochs():
        for idx in run.batches(len(x_train)):
            type_logits, part_logits = model(x_train[idx])  # (B, 8), (B, 20)
            loss = F.cross_entropy(type_logits, types[idx]) + F.cross_entropy(part_logits, parts[idx])

            optimizer.zero_grad()
            loss.backward()
            for params in optimizer.param_groups:
                params["lr"] = settings.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(net)
            run.log(loss=loss)

        with run.evaluation() as eval_net:
            type_logits, part_logits = eval_net(x_val)
            val_loss = (F.cross_entropy(type_logits, types_val) + F.cross_entropy(part_logits, parts_val)).item()
            right = (type_logits.argmax(dim=1) == types_val) & (part_logits.argmax(dim=1) == parts_val)
        run.end_epoch(best=val_loss, val_loss=val_loss, val_accuracy=right.float().mean().item())
