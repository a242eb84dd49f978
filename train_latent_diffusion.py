"""Train a diffusion model on the latents of the VAE: a small MLP instead of a U-Net.

examples:
  python train_latent_diffusion.py --quick             laptop, after train_vae.py
  python train_latent_diffusion.py --epochs 40         the full run
  python train_latent_diffusion.py --canonicalize --out-dir result/latent_canonical
  python sample.py result/latent_diffusion/latent_diffusion_latest.pt --out samples.png

Writes samples_epoch_XXX.png, loss.png, metrics.jsonl and latent_diffusion_latest.pt to --out-dir.
"""

from HW3.checkpoints import embed, load_vae
from HW3.cli import add_diffusion, add_latent, check_agrees, parse, run_main, training_parser
from HW3.data import load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import EpsMLP, LatentSpace, encode_dataset
from HW3.training import Run
from HW3.viz import save_grid

QUICK = {
    "epochs": {"digits": 80, "*": 15},
    "batch_size": {"digits": 128, "*": 256},
    "lr": 1e-3,
    "schedule": "cosine",
    "prediction": "v",
    "ddim_steps": 50,
    "ema": 0.99,
    "sample_every": 0,
}


def main() -> None:
    parser = training_parser(
        __doc__, out_dir="result/latent_diffusion", epochs=40, batch_size=128, lr=2e-4, ema=0.999, sample_every=5
    )
    add_diffusion(parser, ddim_steps=200)
    add_latent(parser)
    args = parse(parser, QUICK)

    run = Run("latent_diffusion", "latent_diffusion", args)
    vae = load_vae(args.vae_ckpt, run.device, args.dataset)
    check_agrees("--latent-dim", args.latent_dim, vae.latent_dim, args.vae_ckpt)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)
    cache = encode_dataset(vae, data)  # once: training never sees an image again
    space = LatentSpace(vae.latent_dim).to(run.device).fit(cache, canonicalize=args.canonicalize)

    net_config = {
        "latent_dim": vae.latent_dim,
        "time_dim": args.time_dim,
        "hidden_dim": args.hidden_dim,
        "residual": args.mlp == "residual",
    }
    config = DiffusionConfig(timesteps=args.timesteps, schedule=args.schedule, prediction=args.prediction)
    model = run.prepare(
        EpsMLP(**net_config),
        {"net": net_config, "diffusion": vars(config)},
        extra={"vae": embed(vae), "space": space.state_dict()},
        clip_norm=1.0,
    )
    diffusion = GaussianDiffusion(model, config).to(run.device)
    draw_z = run.whole_batch(vae.reparameterize)

    for epoch in run.epochs():
        for idx in run.batches(len(cache)):
            u0 = space.normalize(draw_z(cache.mu[idx], cache.logvar[idx]))  # (B, D), a new z at every visit
            t, noise = run.randint(config.timesteps), run.randn(vae.latent_dim)
            with run.autocast():
                loss = diffusion.training_loss(u0, noise, t=t)
            run.step(loss)

        if run.time_for_pictures(epoch):
            with run.evaluation() as eval_model, run.autocast():
                u = (
                    GaussianDiffusion(eval_model, config)
                    .to(run.device)
                    .sample_ddim(
                        64,
                        run.device,
                        args.ddim_steps,
                        args.ddim_eta,
                        shape=(vae.latent_dim,),
                        generator=run.picture_generator(),
                    )
                )
                save_grid(vae.decode(space.denormalize(u)), args.out_dir / f"samples_epoch_{epoch:03d}.png")
        run.end_epoch()


if __name__ == "__main__":
    run_main(main)
