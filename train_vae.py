"""Train the VAE: images -> 100 latent numbers -> images.

examples:
  python train_vae.py --quick                    laptop, real MNIST, minutes
  python train_vae.py --dataset digits --quick   no download, about a minute
  python train_vae.py --epochs 40                the full run
  python train_vae.py --epochs 60 --resume       go on with it

Writes {samples,recon}_epoch_XXX.png, loss.png, metrics.jsonl and convae_{latest,best}.pt to --out-dir.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
from argparse import SUPPRESS, BooleanOptionalAction

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from HW3.data import ImageSet, load_dataset
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import at_least, between, parse, run_main, training_parser
from HW3.plumbing.run import Run
from HW3.vae import ConvVAE, vae_loss
from HW3.viz import save_grid, save_pairs

# A small KL weight: sharper reconstructions, and latents that a diffusion model can still learn. MNIST is nearly black
# and white, which cross-entropy models better: it halves the Frechet distances of what is drawn (docs/RESULTS.md).
QUICK = {
    "loss_type": {"digits": "mse", "*": "bce"},
    "epochs": {"digits": 14, "*": 5},
    "batch_size": {"digits": 32, "*": 64},
    "lr": 2e-3,
    "kl_weight": {"digits": 0.1, "*": 0.003},
    "sample_every": 0,
}
# The evidence lower bound itself, with a Bernoulli decoder as in Kingma & Welling 2014.
PAPER = {"loss_type": "bce", "kl_weight": 1.0}


def main() -> None:
    parser = training_parser(__doc__, out_dir="result/vae", epochs=40, batch_size=128, lr=2e-4, ema=0.0, sample_every=1)
    group = parser.add_argument_group("VAE")
    group.add_argument("--latent-dim", type=at_least(1), default=100, help="size of z")
    group.add_argument("--kl-weight", type=between(0, 1e6), default=1.0, help="weight of the KL term")
    group.add_argument("--loss-type", choices=("mse", "bce"), default="mse", help="reconstruction term")
    group.add_argument("--val-split", type=between(0.001, 0.5), default=0.05, help="fraction held out to choose `best`")
    group.add_argument("--save-recon", action=BooleanOptionalAction, default=True, help="save recon_epoch_XXX.png")
    group.add_argument("--no-cuda", action="store_true", help="the same as --device cpu")
    group.add_argument("--num-workers", type=int, help=SUPPRESS)  # of older commands; nothing needs workers any more
    args = parse(parser, QUICK, PAPER)

    run = Run("vae", "convae", args)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)
    train, val = data.split(args.val_split, args.seed)

    vae = ConvVAE(args.latent_dim).to(run.device).to(memory_format=torch.channels_last)
    ema = AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0, fused=True)
    model = run.start(vae, ema, optimizer, config={"latent_dim": args.latent_dim})

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            x, _ = train.batch(idx)  # (B, 1, 32, 32) in [0, 1]
            with run.autocast():
                recon, mu, logvar = model(x)  # (B, 1, 32, 32), (B, D), (B, D)
            total, rec, kl = vae_loss(recon, x, mu, logvar, args.kl_weight, args.loss_type)
            loss = total / len(x)

            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), 1000.0)
            for params in optimizer.param_groups:
                params["lr"] = args.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(vae)
            run.log(loss=loss, rec=rec / len(x), kl=kl / len(x), grad_norm=grad_norm)

        with run.evaluation() as eval_vae:
            val_loss = mean_loss(eval_vae, val, args.kl_weight, args.loss_type)
            if run.time_for_pictures(epoch):
                z = torch.randn(64, args.latent_dim, device=run.device)
                save_grid(eval_vae.decode(z), args.out_dir / f"samples_epoch_{epoch:03d}.png")
                if args.save_recon:
                    x, _ = val.batch(slice(32))
                    mu, _ = eval_vae.encode(x)
                    save_pairs(x, eval_vae.decode(mu), args.out_dir / f"recon_epoch_{epoch:03d}.png")
        run.end_epoch(best=val_loss, val_loss=val_loss)


def mean_loss(vae: ConvVAE, data: ImageSet, kl_weight: float, loss_type: str) -> float:
    """The loss per image over a whole set."""
    total = 0.0
    for start in range(0, len(data), 500):
        x, _ = data.batch(slice(start, start + 500))
        recon, mu, logvar = vae(x)
        total += vae_loss(recon, x, mu, logvar, kl_weight, loss_type)[0].item()
    return total / len(data)


if __name__ == "__main__":
    run_main(main)
