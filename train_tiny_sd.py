"""Train a tiny Stable Diffusion: latent diffusion, told by CLIP's text embedding what to draw.

examples:
  python train_tiny_sd.py --quick                 laptop, after train_vae.py and train_clip.py
  python train_tiny_sd.py --guidance-scale 3      the full run, sampled with more guidance
  python sample.py result/tiny_sd/tiny_sd_latest.pt --labels 4,2 --out forty-two.png

Writes samples_epoch_XXX.png (8 x 10, column = class), loss.png, metrics.jsonl and tiny_sd_latest.pt to
--out-dir.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from HW3.autoguidance import autoguided, early_epoch, weights_now
from HW3.clip import NUM_CLASSES, label_accuracy
from HW3.data import load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import EpsMLP, LatentSpace, encode_dataset, text_conditions
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import (
    add_diffusion,
    add_latent,
    at_least,
    between,
    check_agrees,
    parse,
    run_main,
    training_parser,
)
from HW3.plumbing.run import Run
from HW3.pretrained import embed, load_clip, load_vae
from HW3.viz import save_grid

QUICK = {
    "epochs": {"digits": 80, "*": 36},
    "batch_size": {"digits": 128, "*": 512},
    "lr": {"digits": 1e-3, "*": 2e-3},
    "blocks": {"digits": 3, "*": 5},
    "prediction": "v",
    "guidance_scale": {"digits": 1.5, "*": 1.1},
    "guidance_until": {"digits": 1.0, "*": 0.75},
    "clip_tries": {"digits": 1, "*": 4},
    "autoguidance": {"digits": 1.0, "*": 1.75},
    "ema": 0.99,
    "sample_every": 0,
}
# Ho et al. 2020: the network predicts the noise, on a linear schedule; and no guidance.
PAPER = {"prediction": "eps", "guidance_scale": 1.0, "autoguidance": 1.0, "clip_tries": 1}


class EpsMLPCond(EpsMLP):
    """eps(x_t, t, cond) for latents: an `EpsMLP` that also listens to a text embedding."""

    def __init__(
        self, latent_dim: int, cond_dim: int, time_dim: int = 256, hidden_dim: int = 512, *, blocks: int = 3
    ) -> None:
        super().__init__(latent_dim, time_dim, hidden_dim, blocks=blocks)
        self.cond_proj = nn.Linear(cond_dim, hidden_dim)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The prediction for x_t at time t under the condition.

        x: (B, latent_dim);  t: (B,) long;  cond: (B, cond_dim), a text embedding already scaled to unit
        variance, or zeros for no text.  Returns like x.  docs/notes/8-guidance.md#a-denoiser-that-listens
        """
        # TODO(conditioning): `embed_time`, `cond_proj`, and let both reach `self.denoise`. About 2 lines.
        ### BEGIN SOLUTION
        return self.denoise(x, self.embed_time(t) + self.cond_proj(cond))
        ### END SOLUTION


def guided_eps(eps_cond: Tensor, eps_uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, Ho & Salimans 2022 eq. 6 with scale = 1 + w.

    eps_cond, eps_uncond: (B, ...) predictions with and without the text; for v predictions it is the same.
    scale: 0 ignores the text, 1 is the plain conditional model, more exaggerates what the text changes.
    Returns like eps_cond.  docs/notes/8-guidance.md#guidance
    """
    # TODO(guidance): start without the text, and move along what the text changes. About 1 line.
    ### BEGIN SOLUTION
    return eps_uncond + scale * (eps_cond - eps_uncond)
    ### END SOLUTION


class GuidedModel(nn.Module):
    """A conditional model with guidance built in, as samplers like it; one pass over both halves.

    until: only rows with t < until are guided. Nearer to noise, guidance decides too early which kind of digit it
    becomes, and all become alike: Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval".
    """

    def __init__(self, model: nn.Module, scale: float, until: float = float("inf")) -> None:
        super().__init__()
        self.model, self.scale, self.until = model, scale, until

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        both = self.model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([cond, torch.zeros_like(cond)]))
        eps_cond, eps_uncond = both.chunk(2)
        is_guided = (t < self.until).view(-1, *[1] * (x.dim() - 1))
        return torch.where(is_guided, guided_eps(eps_cond, eps_uncond, self.scale), eps_cond)


def main() -> None:
    parser = training_parser(
        __doc__, out_dir="result/tiny_sd", epochs=40, batch_size=128, lr=2e-4, ema=0.999, sample_every=5
    )
    add_diffusion(parser, ddim_steps=50)
    add_latent(parser)
    group = parser.add_argument_group("text")
    group.add_argument("--clip-ckpt", default="result/clip/clip_latest.pt", type=Path, help="from train_clip.py")
    group.add_argument("--embed-dim", type=at_least(1), help="CLIP's embedding size, if you want it checked")
    group.add_argument("--cond-dropout", type=between(0, 1), default=0.1, help="how often training hides the text")
    group.add_argument("--guidance-scale", type=between(0, 100), default=2.0, help="1: none; more: surer, less varied")
    group.add_argument(
        "--guidance-until", type=between(0, 1), default=1.0, help="guide only below this part of --timesteps; 1: always"
    )
    group.add_argument(
        "--clip-tries",
        type=at_least(1),
        default=1,
        help="for sample.py: what CLIP is not sure of is drawn again, so often in all; 1: never",
    )
    args = parse(parser, QUICK, PAPER)

    run = Run("tiny_sd", "tiny_sd", args)
    vae = load_vae(args.vae_ckpt, run.device, args.dataset)
    clip = load_clip(args.clip_ckpt, run.device, args.dataset)
    check_agrees("--latent-dim", args.latent_dim, vae.latent_dim, args.vae_ckpt)
    check_agrees("--embed-dim", args.embed_dim, clip.embed_dim, args.clip_ckpt)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)
    cache = encode_dataset(vae, data)  # once: training never sees an image again
    space = LatentSpace(vae.latent_dim).to(run.device).fit(cache)
    texts = text_conditions(clip)  # (10, E)

    sizes = {"time_dim": args.time_dim, "hidden_dim": args.hidden_dim, "blocks": args.blocks}
    net_config = {"latent_dim": vae.latent_dim, "cond_dim": clip.embed_dim, **sizes}
    process = DiffusionConfig(timesteps=args.timesteps, schedule=args.schedule, prediction=args.prediction)
    net = EpsMLPCond(**net_config).to(run.device)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=0, fused=True)
    config = {"net": net_config, "diffusion": vars(process)}
    extra = {"vae": embed(vae), "clip": embed(clip), "space": space.state_dict()}
    model = run.start(net, ema, optimizer, config=config, extra=extra)
    diffusion = GaussianDiffusion(model, process).to(run.device)

    for epoch in run.epochs():
        for idx in run.batches(len(cache)):
            z = vae.reparameterize(cache.mu[idx], cache.logvar[idx])  # (B, D), a new one at every visit
            dropped = torch.rand(len(z), 1, device=run.device) < args.cond_dropout
            cond = texts[cache.labels[idx]].masked_fill(dropped, 0)  # (B, E), zeros where dropped
            with run.autocast():
                loss = diffusion.training_loss(space.normalize(z), cond=cond)  # draws t and the noise

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
        metrics = {}
        if run.time_for_pictures(epoch):
            with run.evaluation() as eval_net, run.autocast():
                labels = torch.arange(NUM_CLASSES, device=run.device).repeat(40)  # column = class
                now = autoguided(eval_net, extra.get("early"), args.autoguidance, args.timesteps)
                guided = GuidedModel(now, args.guidance_scale, args.guidance_until * args.timesteps)
                sampler = GaussianDiffusion(guided, process, x0_scale=args.x0_scale).to(run.device)
                u = sampler.sample_ddim(
                    len(labels), run.device, args.ddim_steps, args.ddim_eta, texts[labels], shape=(vae.latent_dim,)
                )
                images = vae.decode(space.denormalize(u))
                metrics["label_accuracy"] = label_accuracy(clip, images, labels)
                save_grid(images[:80], args.out_dir / f"samples_epoch_{epoch:03d}.png", columns=NUM_CLASSES)
        run.end_epoch(**metrics)


if __name__ == "__main__":
    run_main(main)
