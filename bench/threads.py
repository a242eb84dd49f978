"""What threads cost beside other work: a training step with all threads, with threads that do not spin, with one fewer.

examples:
  python bench/threads.py                 all three models, idle and beside one busy process
  python bench/threads.py --busy 2 --seconds 5

Every figure is a process of its own, as OpenMP reads its settings once; the policies take turns.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MODELS = ("vae", "clip", "tiny_sd")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
POLICIES = {
    f"{CORES} threads": {"OMP_NUM_THREADS": str(CORES)},
    f"{CORES} threads, OMP_WAIT_POLICY=PASSIVE": {"OMP_NUM_THREADS": str(CORES), "OMP_WAIT_POLICY": "PASSIVE"},
    f"{max(1, CORES - 1)} threads": {"OMP_NUM_THREADS": str(max(1, CORES - 1))},
}


def measure(model: str, seconds: float) -> float:
    """Milliseconds per training step, in this process."""
    import torch

    from HW3.clip import SimpleCLIP, contrastive_loss
    from HW3.diffusion import DiffusionConfig, GaussianDiffusion
    from HW3.latent import EpsMLP
    from HW3.plumbing.device import computes_in_bf16
    from HW3.vae import ConvVAE, vae_loss

    torch.manual_seed(0)
    x, labels = torch.rand(128, 1, 32, 32), torch.randint(0, 10, (128,))
    net = {"vae": ConvVAE, "clip": SimpleCLIP, "tiny_sd": lambda: EpsMLP(100)}[model]()
    net = net.to(memory_format=torch.channels_last)
    diffusion = GaussianDiffusion(net, DiffusionConfig())
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    in_bf16 = computes_in_bf16("auto", model, torch.device("cpu"))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            if model == "vae":
                recon, mu, logvar = net(x)
                loss = vae_loss(recon, x, mu, logvar)[0] / len(x)
            elif model == "clip":
                image_emb, text_emb, scale = net(x, labels)
                loss = contrastive_loss(image_emb, text_emb, labels, scale)
            else:
                loss = diffusion.training_loss(x[:, 0, :4].reshape(128, 128)[:, :100])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(5):
        step()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return (time.perf_counter() - started) / steps * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=1, help="how many processes compute beside it")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each figure is measured")
    parser.add_argument("--rounds", type=int, default=3, help="figures of each kind; their median is printed")
    parser.add_argument("--measure", choices=MODELS, help=argparse.SUPPRESS)  # what a child is asked for
    args = parser.parse_args()
    if args.measure:
        print(measure(args.measure, args.seconds))
        return
    print(f"| ms per step | {' | '.join(f'{model}, {load}' for model in MODELS for load in ('idle', 'busy'))} |")
    print(f"|---|{'---:|' * 2 * len(MODELS)}")
    times: dict[tuple[str, str, bool], list[float]] = {}
    for _ in range(args.rounds):
        for is_busy in (False, True):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy * is_busy)]
            try:
                for model in MODELS:
                    for policy, env in POLICIES.items():
                        command = [sys.executable, __file__, "--measure", model, "--seconds", str(args.seconds)]
                        out = subprocess.run(command, env={**os.environ, **env}, capture_output=True, check=True).stdout
                        times.setdefault((policy, model, is_busy), []).append(float(out))
            finally:
                for other in others:
                    other.kill()
    for policy in POLICIES:
        row = [f"{median(times[policy, model, is_busy]):.1f}" for model in MODELS for is_busy in (False, True)]
        print(f"| {policy} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
