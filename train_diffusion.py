"""Train a U-Net to denoise images, and draw new ones with DDPM and DDIM.

examples:
  python train_diffusion.py --quick                    laptop, real MNIST
  python train_diffusion.py --dataset digits --quick   no download, about a minute
  python train_diffusion.py --base-channels 64         the full run: a GPU, or a night
  python sample.py result/diffusion/diffusion_latest.pt --out samples.png

Writes samples_{ddpm,ddim}_epoch_XXX.png, loss.png, metrics.jsonl and diffusion_latest.pt to --out-dir.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
from argparse import BooleanOptionalAction

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from HW3.autoguidance import autoguided, early_epoch, weights_now
from HW3.data import load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import add_diffusion, at_least, parse, run_main, training_parser
from HW3.plumbing.run import Run
from HW3.Unet import UNet
from HW3.viz import save_grid

QUICK = {
    "epochs": {"digits": 14, "*": 9},
    "batch_size": {"digits": 32, "*": 128},
    "timesteps": {"digits": 250, "*": 1000},
    "lr": 2e-3,
    "base_channels": {"digits": 24, "*": 32},
    "attention": {"digits": False, "*": True},
    "patch_size": 2,
    "prediction": "v",
    "autoguidance": {"digits": 1.0, "*": 2.0},
    "ddim_steps": 50,
    "ddim_eta": {"digits": 0.0, "*": 0.5},
    "x0_scale": {"digits": 1.0, "*": 1.01},
    "ema": 0.99,
    "sample_every": 0,
}
# Ho et al. 2020: the network predicts the noise, on a linear schedule; and no guidance.
PAPER = {"prediction": "eps", "autoguidance": 1.0, "ddim_eta": 0.0, "x0_scale": 1.0}


def main() -> None:
    parser = training_parser(
        __doc__, out_dir="result/diffusion", epochs=20, batch_size=128, lr=1e-4, ema=0.999, sample_every=5
    )
    add_diffusion(parser, ddim_steps=200)
    group = parser.add_argument_group("U-Net")
    group.add_argument("--base-channels", type=at_least(1), default=32, help="width at full resolution")
    group.add_argument(
        "--attention", action=BooleanOptionalAction, default=False, help="self-attention at the lowest resolution"
    )
    group.add_argument(
        "--patch-size", type=at_least(1), default=1, help="fold P x P pixels into one: P^2 times cheaper"
    )
    args = parse(parser, QUICK, PAPER)

    run = Run("diffusion", "diffusion", args)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)

    net_config = {"base_channels": args.base_channels, "attention": args.attention, "patch_size": args.patch_size}
    process = DiffusionConfig(timesteps=args.timesteps, schedule=args.schedule, prediction=args.prediction)
    unet = UNet(**net_config).to(run.device)
    ema = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
    optimizer = torch.optim.AdamW(unet.parameters(), lr=args.lr, weight_decay=0, fused=True)
    extra: dict = {}
    model = run.start(unet, ema, optimizer, config={"net": net_config, "diffusion": vars(process)}, extra=extra)
    diffusion = GaussianDiffusion(model, process).to(run.device)

    for epoch in run.epochs():
        for idx in run.batches(len(data)):
            x0 = data.batch(idx)[0] * 2 - 1  # (B, 1, 32, 32) in [-1, 1]
            with run.autocast():
                loss = diffusion.training_loss(x0)  # draws t and the noise

            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), 1.0)
            for params in optimizer.param_groups:
                params["lr"] = args.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(unet)
            run.log(loss=loss, grad_norm=grad_norm)

        if epoch == early_epoch(args.epochs):
            extra["early"] = weights_now(ema)
        if run.time_for_pictures(epoch):
            with run.evaluation() as eval_unet, run.autocast():
                guided = autoguided(eval_unet, extra.get("early"), args.autoguidance, args.timesteps)
                sampler = GaussianDiffusion(guided, process, x0_scale=args.x0_scale).to(run.device)
                x = sampler.sample_ddim(64, run.device, args.ddim_steps, args.ddim_eta, progress=True)
                save_grid((x + 1) / 2, args.out_dir / f"samples_ddim_epoch_{epoch:03d}.png")
                x = sampler.sample_ddpm(64, run.device, progress=True)
                save_grid((x + 1) / 2, args.out_dir / f"samples_ddpm_epoch_{epoch:03d}.png")
        run.end_epoch()


if __name__ == "__main__":
    run_main(main)
