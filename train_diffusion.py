"""Train a U-Net to denoise images, and draw new ones with DDPM and DDIM.

examples:
  python train_diffusion.py --quick                    laptop, real MNIST
  python train_diffusion.py --dataset digits --quick   no download, about a minute
  python train_diffusion.py --base-channels 64         the full run: a GPU, or a night
  python sample.py result/diffusion/diffusion_latest.pt --out samples.png

Writes samples_{ddpm,ddim}_epoch_XXX.png, loss.png, metrics.jsonl and diffusion_latest.pt to --out-dir.
"""

from HW3.cli import add_diffusion, at_least, parse, run_main, training_parser
from HW3.data import load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.training import Run
from HW3.Unet import UNet
from HW3.viz import save_grid

QUICK = {
    "epochs": {"digits": 14, "*": 4},
    "batch_size": {"digits": 32, "*": 128},
    "timesteps": {"digits": 250, "*": 1000},
    "lr": 2e-3,
    "base_channels": 24,
    "patch_size": 2,
    "schedule": "cosine",
    "prediction": "v",
    "ddim_steps": 50,
    "ema": 0.99,
    "sample_every": 0,
}


def main() -> None:
    parser = training_parser(
        __doc__, out_dir="result/diffusion", epochs=20, batch_size=128, lr=1e-4, ema=0.999, sample_every=5
    )
    add_diffusion(parser, ddim_steps=200)
    group = parser.add_argument_group("U-Net")
    group.add_argument("--base-channels", type=at_least(1), default=32, help="width at full resolution")
    group.add_argument("--attention", action="store_true", help="self-attention at the lowest resolution")
    group.add_argument(
        "--patch-size", type=at_least(1), default=1, help="fold P x P pixels into one: P^2 times cheaper"
    )
    args = parse(parser, QUICK)

    run = Run("diffusion", "diffusion", args)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)

    net_config = {"base_channels": args.base_channels, "attention": args.attention, "patch_size": args.patch_size}
    config = DiffusionConfig(timesteps=args.timesteps, schedule=args.schedule, prediction=args.prediction)
    model = run.prepare(UNet(**net_config), {"net": net_config, "diffusion": vars(config)}, clip_norm=1.0)
    diffusion = GaussianDiffusion(model, config).to(run.device)

    for epoch in run.epochs():
        for idx in run.batches(len(data)):
            x0 = data.at(idx)[0] * 2 - 1  # (B, 1, 32, 32) in [-1, 1]
            t, noise = run.randint(config.timesteps), run.randn(*x0.shape[1:])
            with run.autocast():
                loss = diffusion.training_loss(x0, noise, t=t)
            run.step(loss)

        if run.time_for_pictures(epoch):
            with run.evaluation() as eval_model, run.autocast():
                sampler = GaussianDiffusion(eval_model, config).to(run.device)
                options = {"generator": run.picture_generator(), "progress": True}
                ddim = sampler.sample_ddim(64, run.device, args.ddim_steps, args.ddim_eta, **options)
                save_grid((ddim + 1) / 2, args.out_dir / f"samples_ddim_epoch_{epoch:03d}.png")
                ddpm = sampler.sample_ddpm(64, run.device, **options)
                save_grid((ddpm + 1) / 2, args.out_dir / f"samples_ddpm_epoch_{epoch:03d}.png")
        run.end_epoch()


if __name__ == "__main__":
    run_main(main)
