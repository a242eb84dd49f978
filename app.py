"""A page to play with: write digits and watch them being denoised, bend latents, add noise step by step.

examples:
  python app.py                                     the runs in result/
  python app.py --result demo                       those of `make demo`
  python app.py --dataset digits                    what can be seen before anything is trained
  python app.py --handout ../hw3 --result result    another copy's functions, with these runs

The page runs the functions of the folder that app.py lies in, so a mistake in `ddim_step` can be seen; start it again
after you changed one. With --handout it is another copy of the assignment that runs, as it is and outside of any
sandbox. Only this machine reaches the page, and it needs no network. Ctrl-C ends it.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from HW3.data import DATASETS, ImageSet, load_dataset
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.generate import draw, load_image_model
from HW3.latent import LatentSpace, encode_dataset
from HW3.plumbing.checkpoints import dataset_of, load_checkpoint
from HW3.plumbing.cli import Parser, add_data_dir, add_device, at_least, run_main
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError
from HW3.plumbing.page import as_they_come, picture, told
from HW3.pretrained import load_vae
from HW3.schedules import SCHEDULES
from HW3.vae import ConvVAE

ROOT = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
FILES = {  # what draws, and the VAE
    "tiny_sd": "tiny_sd/tiny_sd_latest.pt",
    "latent_diffusion": "latent_diffusion/latent_diffusion_latest.pt",
    "diffusion": "diffusion/diffusion_latest.pt",
    "vae": "vae/convae_latest.pt",
}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST = 20  # pictures at once
WITHOUT_TEXT = 8  # pictures of a model that takes no text
FRAMES, FRAME_SECONDS = 25, 0.08  # of a drawing, and for how long each is seen at least
FILM = 9  # frames that stay, side by side
AXES = 6  # of the latents, the longest first
IMAGES = 1000  # that say where these lie
WAY = 10  # times t in the row that shows the forward process


def labels_in(text: str) -> list[int]:
    """`three 7`, `37` or `3, seven` -> [3, 7]. Raises UsageError for what is no digit."""
    labels: list[int] = []
    for word in text.replace(",", " ").split():
        if word.lower() in WORDS:
            labels.append(WORDS.index(word.lower()))
        elif word.isascii() and word.isdigit():
            labels += map(int, word)
        else:
            raise UsageError(f"`{word}` is no digit: write 0 to 9, or zero to nine")
    if not labels:
        raise UsageError("nothing to draw: write digits or their names, such as: three 7")
    if len(labels) > MOST:
        raise UsageError(f"{len(labels)} digits are too many for one picture: write {MOST} or fewer")
    return labels


class Lab:
    """What the page does. Each of its functions takes what people chose, and returns what is shown."""

    def __init__(self, result: Path, dataset: str, data: ImageSet, device: torch.device) -> None:
        self.result, self.dataset, self.data, self.device = result, dataset, data, device
        self.latents = lru_cache(maxsize=1)(self._latents)

    def path(self, kind: str) -> Path:
        """Where the training script leaves its checkpoint."""
        return self.result / FILES[kind]

    def settings(self, kind: str) -> tuple[dict, dict, dict, dict, str]:
        """How the text, guidance, steps and eta of a model may be set, and a line about it."""
        checkpoint = load_checkpoint(self.path(kind), kind)
        args, takes_text = checkpoint["args"], kind == "tiny_sd"
        guidance = gr.update(interactive=takes_text, **({"value": args["guidance_scale"]} if takes_text else {}))
        steps = gr.update(maximum=args["timesteps"], value=args["ddim_steps"])
        said = f"{self.path(kind)}, after {checkpoint['position']['epoch']} epochs on {args['dataset']}"
        return gr.update(interactive=takes_text), guidance, steps, gr.update(value=args["ddim_eta"]), said

    def draw(
        self, kind: str, text: str, guidance: float, sampler: str, steps: float, eta: float, seed: float | None
    ) -> Iterator[tuple[str, str, str]]:
        """At every frame: the picture, the way there, and a line about both."""
        labels = torch.tensor(labels_in(text)) if kind == "tiny_sd" else None
        # CLIP does not choose among the drawings here: what guidance does, or a mistake, is to be seen.
        num, scale, tries = (WITHOUT_TEXT, None, None) if labels is None else (len(labels), guidance, 1)
        # Read anew each time: what is trained meanwhile is drawn from.
        model = load_image_model(
            self.path(kind), self.device, import_module, scale, clip_tries=tries, kind=kind, dataset=self.dataset
        )
        n_steps = model.timesteps if sampler == "ddpm" else int(steps)
        if n_steps > model.timesteps:
            raise UsageError(f"{n_steps} steps are outside 1 to {model.timesteps}")
        options: dict[str, Any] = {"labels": labels, "sampler": sampler, "steps": n_steps, "eta": eta}
        options |= {"seed": whole(seed), "frames": FRAMES}
        what = f"{num} pictures" if labels is None else " ".join(map(str, labels.tolist()))
        frames: list[Tensor] = []
        began = time.monotonic()
        for images in as_they_come(lambda show: draw(model, num, self.device, on_frame=show, **options)):
            frames.append(images)
            yield picture(images, what, columns=min(num, 10), scale=4), film(frames), f"{what} ..."
            time.sleep(max(0.0, began + len(frames) * FRAME_SECONDS - time.monotonic()))
        yield gr.skip(), gr.skip(), f"{what}: {n_steps} steps of {sampler.upper()}"

    def forward(self, digit: int, t: float, schedule: str, seed: float | None) -> tuple[str, str, str]:
        """What `q_sample` makes of an image: at t beside what it is mixed of, and along the whole way."""
        process = DiffusionConfig(schedule=schedule)
        diffusion = GaussianDiffusion(torch.nn.Identity(), process)
        along = [i * (process.timesteps - 1) // (WAY - 1) for i in range(WAY)]
        ts = torch.tensor([int(t), *along])
        x0 = self.image(digit) * 2 - 1  # (1, C, H, W)
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(whole(seed)))
        x_t = diffusion.q_sample(x0.repeat(len(ts), 1, 1, 1), ts, noise.repeat(len(ts), 1, 1, 1))
        at_t = torch.cat([x0, noise, x_t[:1]])
        data, rest = diffusion.sqrt_alpha_bars[ts[0]], diffusion.sqrt_one_minus_alpha_bars[ts[0]]
        return (
            picture((at_t + 1) / 2, f"x_0, ε, and x_t at t = {ts[0]}", columns=3, scale=5),
            picture((x_t[1:] + 1) / 2, f"x_t at t = {along}", columns=WAY, scale=2),
            f"t = {ts[0]}: √ᾱ_t = {data:.3f} of the image, √(1 − ᾱ_t) = {rest:.3f} of the noise",
        )

    def decode(self, digit: int, *offsets: float) -> tuple[str, str]:
        """An image, and what the VAE decodes where its latent is moved along the axes."""
        vae, space = self.latents(self.path("vae"), changed(self.path("vae")))
        with torch.inference_mode():
            image = self.image(digit).to(self.device)
            u = space.normalize(vae.encode(image)[0])  # (1, D), the longest axes at the end
            u[:, -AXES:] += torch.tensor(offsets, device=self.device).flip(0)
            decoded = vae.decode(space.denormalize(u))
        moved = ", ".join(f"{offset:+.1f}" for offset in offsets)
        shown = picture(torch.cat([image, decoded]), f"a {digit}, and its latent decoded", columns=2, scale=5)
        return shown, f"a test image, and its latent decoded after moving it by {moved} standard deviations"

    def _latents(self, path: Path, _changed: int) -> tuple[ConvVAE, LatentSpace]:
        """The VAE, and the principal axes of its latents."""
        vae = load_vae(path, self.device, self.dataset)
        cache = encode_dataset(vae, self.data.to(self.device))
        return vae, LatentSpace(vae.latent_dim, canonicalize=True).to(self.device).fit(cache)

    def image(self, digit: int) -> Tensor:
        """The first image of a class, (1, C, H, W) in [0, 1]."""
        first = int((self.data.labels == digit).nonzero()[0])
        return self.data.batch(slice(first, first + 1))[0]


def whole(seed: float | None) -> int:
    """A seed as it comes from the page."""
    if seed is None:
        raise UsageError("there is no seed: write a number, and the same one gives the same noise")
    return int(seed)


def changed(path: Path) -> int:
    """When a file was last written; 0 if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def film(frames: list[Tensor]) -> str:
    """The way so far: a row per image, a column per frame, from noise to the last one."""
    kept = [frames[i] for i in sorted({i * (FRAMES - 1) // (FILM - 1) for i in range(FILM)}) if i < len(frames)]
    return picture(torch.stack(kept, dim=1).flatten(0, 1), "from noise to sample", columns=len(kept), scale=2)


def build(lab: Lab) -> gr.Blocks:
    """The page: a tab per function of the lab, whose last output is the line that also says what went wrong."""
    line = partial(gr.Textbox, show_label=False, container=False, interactive=False, elem_classes="said")
    follow: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}  # a slider while it moves
    with gr.Blocks(title="HW3", analytics_enabled=False) as page:
        gr.Markdown(f"# HW3\nFunctions of `{ROOT.name}/`, runs of `{lab.result}`, images of {lab.dataset}.")
        with gr.Tab("Write digits"):
            drawing = [kind for kind in FILES if kind != "vae"]
            there = [kind for kind in drawing if lab.path(kind).is_file()]
            with gr.Row():
                text = gr.Textbox("three 7", label="digits: 0 to 9, or zero to nine", scale=5, elem_id="text")
                button = gr.Button("Draw", variant="primary", scale=1)
            with gr.Row():
                kind = gr.Radio(drawing, value=[*there, *drawing][0], label="model", scale=4)
                sampler = gr.Radio(["ddim", "dpm", "ddpm"], value="ddim", label="sampler", scale=3)
                seed = gr.Number(0, precision=0, minimum=0, label="seed", scale=1)
            with gr.Row():
                guidance = gr.Slider(0, 10, 2, step=0.1, label="guidance")
                steps = gr.Slider(1, 1000, 50, step=1, label="steps")
                eta = gr.Slider(0, 1, 0, step=0.05, label="eta")
            said = line(elem_id="drawn")
            images, way = gr.HTML(elem_id="images"), gr.HTML(elem_id="way")
            gr.on([page.load, kind.change], told(lab.settings, said), kind, [text, guidance, steps, eta, said])
            sampler.change(
                lambda name: [gr.update(interactive=name != "ddpm"), gr.update(interactive=name == "ddim")],
                sampler,
                [steps, eta],
            )
            chosen, shown = [kind, text, guidance, sampler, steps, eta, seed], [images, way, said]
            gr.on([button.click, text.submit], told(lab.draw, said), chosen, shown, show_progress="hidden")
        with gr.Tab("Add noise"):
            gr.Markdown("What `q_sample` does: an image, noise, and both mixed at t. Below: from t = 0 to the end.")
            with gr.Row():
                t = gr.Slider(0, DiffusionConfig.timesteps - 1, 250, step=1, label="t", scale=3, elem_id="t")
                schedule = gr.Radio(list(SCHEDULES), value="linear", label="schedule", scale=2)
                noise = gr.Number(0, precision=0, minimum=0, label="seed", scale=1)
            which = gr.Radio(list(range(10)), value=3, label="image")
            mixed, forward, weights = gr.HTML(elem_id="mixed"), gr.HTML(), line(elem_id="weights")
            chosen = [which, t, schedule, noise]
            changes = [page.load, which.change, t.change, schedule.change, noise.change]
            gr.on(changes, told(lab.forward, weights), chosen, [mixed, forward, weights], **follow)
        with gr.Tab("Bend latents"):
            gr.Markdown("A test image and its reconstruction, whose latent the sliders move along its longest axes.")
            which = gr.Radio(list(range(10)), value=3, label="image")
            axes = []
            for first in range(0, AXES, 3):
                with gr.Row():
                    axes += [gr.Slider(-4, 4, 0, step=0.1, label=f"axis {first + i + 1}") for i in range(3)]
            gr.Button("Back to the image", size="sm").click(lambda: [0] * AXES, None, axes, show_progress="hidden")
            decoded, moved = gr.HTML(elem_id="decoded"), line(elem_id="moved")
            changes = [page.load, which.change, *(axis.change for axis in axes)]
            gr.on(changes, told(lab.decode, moved), [which, *axes], [decoded, moved], **follow)
    return page


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--result", type=Path, default=Path("result"), help="the folder with the runs")
    parser.add_argument("--handout", type=Path, help="run this copy of the assignment instead of the one here")
    parser.add_argument("--dataset", choices=DATASETS, help="whose images; by default that of the checkpoints")
    parser.add_argument("--port", type=at_least(1), default=7860, help="of the page's address")
    add_data_dir(parser)
    add_device(parser)
    args = parser.parse_args()
    if args.port > 65535:
        raise UsageError(f"--port {args.port}: ports are 1 to 65535")

    if args.handout:
        other = args.handout / "app.py"
        if not other.is_file():
            raise UsageError(f"--handout {args.handout}: there is no app.py in it: give a copy of the assignment")
        flags = ["--result", args.result, "--data-dir", args.data_dir, "--device", args.device, "--port", args.port]
        flags += ["--dataset", args.dataset] if args.dataset else []
        sys.exit(subprocess.run([sys.executable, str(other), *map(str, flags)], check=False).returncode)

    device = pick_device(args.device)
    found = [path for file in FILES.values() if (path := args.result / file).is_file()]
    if not found and not args.dataset:
        what = "train a model (train_vae.py --quick is the first), or give --dataset digits for what needs none"
        raise UsageError(f"no checkpoint in {args.result}: {what}")
    dataset = args.dataset or dataset_of(found)
    data = load_dataset(dataset, args.data_dir, train=False, limit=IMAGES)
    page = build(Lab(args.result, dataset, data, device))
    # Gradio asks its own address whether it is there, and must not ask a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), LOOPBACK]))
    try:
        page.launch(
            server_name=LOOPBACK,
            server_port=args.port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            css=".said textarea { font-family: monospace; } img { image-rendering: pixelated; }",
        )
    except OSError:
        raise UsageError(f"port {args.port} is taken: give another one with --port") from None
    print(f"http://{LOOPBACK}:{args.port}  (Ctrl-C ends it)", flush=True)
    page.block_thread()


if __name__ == "__main__":
    run_main(main)
