"""Train a diffusion model on the latents of the VAE: a small MLP instead of a U-Net.

examples:
  python train_latent_diffusion.py --quick             laptop, after train_vae.py
  python train_latent_diffusion.py --epochs 40         the full run
  python train_latent_diffusion.py --canonicalize --out-dir result/latent_canonical
  python sample.py result/latent_diffusion/latent_diffusion_latest.pt --out samples.png

Writes samples_epoch_XXX.png, loss.png, metrics.jsonl and latent_diffusion_latest.pt to --out-dir.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from HW3.autoguidance import autoguided, early_epoch, weights_now
from HW3.data import load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import EpsMLP, LatentSpace, encode_dataset
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import add_diffusion, add_latent, check_agrees, parse, run_main, training_parser
from HW3.plumbing.run import Run
from HW3.pretrained import embed, load_vae
from HW3.viz import save_grid

QUICK = {
    "epochs": {"digits": 80, "*": 36},
    "batch_size": {"digits": 128, "*": 512},
    "lr": {"digits": 1e-3, "*": 2e-3},
    "blocks": {"digits": 3, "*": 5},
    "prediction": "v",
    "autoguidance": {"digits": 1.0, "*": 2.0},
    "ddim_steps": {"digits": 50, "*": 100},
    "ddim_eta": {"digits": 0.0, "*": 1.0},
    "ema": 0.99,
    "sample_every": 0,
}
# Ho et al. 2020: the network predicts the noise, on a linear schedule; and no guidance.
PAPER = {"prediction": "eps", "autoguidance": 1.0, "ddim_eta": 0.0}


def main() -> None:
    parser = training_parser(
        __doc__, out_dir="result/latent_diffusion", epochs=40, batch_size=128, lr=2e-4, ema=0.999, sample_every=5
    )
    add_diffusion(parser, ddim_steps=200)
    add_latent(parser).add_argument(
        "--canonicalize", action="store_true", help="standardise along the principal axes of the latents, to compare"
    )
    args = parse(parser, QUICK, PAPER)

    run = Run("latent_diffusion", "latent_diffusion", args)
    vae = load_vae(args.vae_ckpt, run.device, args.dataset)
    check_agrees("--latent-dim", args.latent_dim, vae.latent_dim, args.vae_ckpt)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)
    cache = encode_dataset(vae, data)  # once: training never sees an image again
    space = LatentSpace(vae.latent_dim, canonicalize=args.canonicalize).to(run.device).fit(cache)

    sizes = {"time_dim": args.time_dim, "hidden_dim": args.hidden_dim, "blocks": args.blocks}
    net_config = {"latent_dim": vae.latent_dim, **sizes}
    process = DiffusionConfig(timesteps=args.timesteps, schedule=args.schedule, prediction=args.prediction)
    net = EpsMLP(**net_config).to(run.device)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=0, fused=True)
    config, extra = {"net": net_config, "diffusion": vars(process)}, {"vae": embed(vae), "space": space.state_dict()}
    model = run.start(net, ema, optimizer, config=config, extra=extra)
    diffusion = GaussianDiffusion(model, process).to(run.device)

    for epoch in run.epochs():
        for idx in run.batches(len(cache)):
            z = vae.reparameterize(cache.mu[idx], cache.logvar[idx])  # (B, D), a new one at every visit
            with run.autocast():
                loss = diffusion.training_loss(space.normalize(z))  # draws t and the noise

            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), 1.0)
            for params in optimizer.param_groups:
                params["lr"] = args.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(net)
            run.log(loss=loss, grad_norm=grad_norm)

        if epoch == early_epoch(args.epochs):
            extra["early"] = weights_now(ema)
        if run.time_for_pictures(epoch):
            with run.evaluation() as eval_net, run.autocast():
                guided = autoguided(eval_net, extra.get("early"), args.autoguidance, args.timesteps)
                sampler = GaussianDiffusion(guided, process, x0_scale=args.x0_scale).to(run.device)
                u = sampler.sample_ddim(64, run.device, args.ddim_steps, args.ddim_eta, shape=(vae.latent_dim,))
                save_grid(vae.decode(space.denormalize(u)), args.out_dir / f"samples_epoch_{epoch:03d}.png")
        run.end_epoch()


if __name__ == "__main__":
    run_main(main)
