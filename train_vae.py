"""Train the VAE: images -> 100 latent numbers -> images.

examples:
  python train_vae.py --quick                    laptop, real MNIST, minutes
  python train_vae.py --dataset digits --quick   no download, about a minute
  python train_vae.py --epochs 40                the full run
  python train_vae.py --epochs 60 --resume       go on with it

Writes {samples,recon}_epoch_XXX.png, loss.png, metrics.jsonl and convae_{latest,best}.pt to --out-dir.
"""

from argparse import BooleanOptionalAction

import torch

from HW3.cli import at_least, between, parse, run_main, training_parser
from HW3.data import ImageSet, load_dataset
from HW3.training import Run
from HW3.vae import ConvVAE, vae_loss
from HW3.viz import save_grid, save_pairs

# A small KL weight: sharper reconstructions, and latents that a diffusion model can still learn.
QUICK = {
    "epochs": {"digits": 14, "*": 3},
    "batch_size": {"digits": 32, "*": 128},
    "lr": 1e-3,
    "kl_weight": 0.1,
    "sample_every": 0,
}


def main() -> None:
    parser = training_parser(__doc__, out_dir="result/vae", epochs=40, batch_size=128, lr=2e-4, ema=0.0, sample_every=1)
    group = parser.add_argument_group("VAE")
    group.add_argument("--latent-dim", type=at_least(1), default=100, help="size of z")
    group.add_argument("--kl-weight", type=between(0, 1e6), default=1.0, help="weight of the KL term")
    group.add_argument("--loss-type", choices=("mse", "bce"), default="mse", help="reconstruction term")
    group.add_argument("--val-split", type=between(0.001, 0.5), default=0.05, help="fraction held out to choose `best`")
    group.add_argument("--save-recon", action=BooleanOptionalAction, default=True, help="save recon_epoch_XXX.png")
    group.add_argument("--num-workers", type=int, default=0, help="accepted, but nothing needs workers any more")
    group.add_argument("--no-cuda", action="store_true", help="the same as --device cpu")
    args = parse(parser, QUICK)

    run = Run("vae", "convae", args)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)
    train, val = data.split(args.val_split, args.seed)

    vae = ConvVAE(args.latent_dim)
    vae.reparameterize = run.whole_batch(vae.reparameterize)  # N processes draw the noise that one would
    model = run.prepare(vae, {"latent_dim": args.latent_dim})

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            x, _ = train.at(idx)  # (B, 1, 32, 32) in [0, 1]
            with run.autocast():
                recon, mu, logvar = model(x)  # (B, 1, 32, 32), (B, D), (B, D)
            total, rec, kl = vae_loss(recon, x, mu, logvar, args.kl_weight, args.loss_type)
            run.step(total / len(x), rec=rec / len(x), kl=kl / len(x))

        with run.evaluation() as eval_model:
            val_loss = mean_loss(eval_model, val, args.kl_weight, args.loss_type)
            if run.time_for_pictures(epoch):
                z = torch.randn(64, args.latent_dim, generator=run.picture_generator(), device=run.device)
                save_grid(eval_model.decode(z), args.out_dir / f"samples_epoch_{epoch:03d}.png")
                if args.save_recon:
                    x, _ = val.at(slice(32))
                    mu, _ = eval_model.encode(x)
                    save_pairs(x, eval_model.decode(mu), args.out_dir / f"recon_epoch_{epoch:03d}.png")
        run.end_epoch(best=val_loss, val_loss=val_loss)


def mean_loss(vae: ConvVAE, data: ImageSet, kl_weight: float, loss_type: str) -> float:
    """The loss per image over a whole set."""
    total = 0.0
    for start in range(0, len(data), 500):
        x, _ = data.at(slice(start, start + 500))
        recon, mu, logvar = vae(x)
        total += vae_loss(recon, x, mu, logvar, kl_weight, loss_type)[0].item()
    return total / len(data)


if __name__ == "__main__":
    run_main(main)
