"""Pictures of a trained run, in --out-dir/figures.

examples:
  python -m extensions.structured figures
  python -m extensions.structured figures --to imgs/extensions

  latents.png      held-out latents and the prior's samples for the same conditions, on two axes of the former
  conditions.png   what the classifier sees, against what was asked for: the prior's samples beside held-out rows
  denoising.png    what one state of the prior's chain decodes to, from pure noise to the sample
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from extensions.blocks.command import arguments, settings, track_parser
from extensions.blocks.pictures import save_pictures
from extensions.structured import grammar
from extensions.structured.data import PARTS, TYPES, load, split
from extensions.structured.models import Classifier
from extensions.structured.trained import (
    FOLDER,
    LatentModel,
    decode,
    encode,
    held_out_from,
    load_classifier,
    load_latent,
    reconstruct,
)
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError

STATES = (0, 300, 500, 600, 700, 800, 850, 900, 950, 1000)  # of a chain of 1000 steps


def main() -> None:
    parser = track_parser(__doc__ or "", "structured")
    parser.add_argument("--to", type=Path, help="the folder for the pictures; by default figures in --out-dir")
    args = parser.parse_args(arguments())
    config = settings(args, FOLDER)
    device = pick_device(args.device)
    data, _ = load(config.data.source, args.data_dir, config.data.csv, config.data.hdf5)
    if not data.has_grammar:
        raise UsageError("the productions are not those of extensions/structured/grammar.py: nothing can be drawn")
    test = split(data, args.seed).test
    some = test.rows(
        torch.randperm(len(test), generator=torch.Generator().manual_seed(args.seed))[: config.evaluate.rows]
    )
    prior, _ = load_latent(args.out_dir, "prior", device, held_out_from(data, args.seed))
    classifier = load_classifier(args.out_dir, device, data, args.seed)
    torch.manual_seed(args.seed)

    cond = some.conditions().to(device)
    states: list[Tensor] = []  # u of the first rows, before every step and after the last
    z = prior.draw(len(some), cond, config.sample.guidance, on_state=lambda u: states.append(u[:4].clone()))
    drawn = decode(prior.vae, z, has_grammar=True)
    pairs = [(t, p) for t, p in data.pairs().tolist()]
    asked = [pairs.index(pair) for pair in zip(some.types.tolist(), some.parts.tolist())]

    folder = args.to or args.out_dir / "figures"
    pictures = {
        "latents": latents(encode(prior.vae, some.sequences).mu, z, some.types),
        "conditions": conditions(
            pairs,
            asked,
            {
                "held-out rows": seen(classifier, reconstruct(prior.vae, some), pairs),
                "drawn by the prior": seen(classifier, drawn, pairs),
            },
        ),
        "denoising": denoising(prior, torch.stack(states), [pairs[i] for i in asked[:4]]),
    }
    save_pictures({f"{name}.png": figure for name, figure in pictures.items()}, folder)


@torch.inference_mode()
def seen(classifier: Classifier, sequences: Tensor, pairs: list[tuple[int, int]]) -> list[int]:
    """The likeliest pair of each sequence, among those that exist."""
    type_logits, part_logits = (logits.log_softmax(dim=1) for logits in classifier(sequences))
    types, parts = torch.tensor(pairs, device=sequences.device).unbind(1)
    return (type_logits[:, types] + part_logits[:, parts]).argmax(dim=1).tolist()


def latents(real: Tensor, drawn: Tensor, types: Tensor) -> Figure:
    """Both on the principal axes of the real ones, a colour per type."""
    real, drawn = real.cpu(), drawn.cpu()
    _, _, axes = torch.pca_lowrank(real, q=2)  # (D, 2)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for plot, points, title in ((left, real, "held-out rows"), (right, drawn, "drawn by the prior")):
        xy = (points - real.mean(dim=0)) @ axes
        for type_, name in enumerate(TYPES):
            plot.scatter(*xy[types == type_].T.tolist(), s=8, label=name)
        plot.set(title=title, xticks=[], yticks=[])
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", markerscale=2)
    return figure


def conditions(pairs: list[tuple[int, int]], asked: list[int], seen_in: dict[str, list[int]]) -> Figure:
    """A matrix per set: a row per pair that was asked for, and where the classifier puts it."""
    names = [f"{TYPES[t]}, {PARTS[p]}" for t, p in pairs]
    figure = Figure(figsize=(14, 7), layout="constrained")
    plots = figure.subplots(1, len(seen_in), sharey=True)
    for plot, (title, found) in zip(plots, seen_in.items()):
        counts = torch.zeros(len(pairs), len(pairs))
        counts.index_put_((torch.tensor(asked), torch.tensor(found)), torch.tensor(1.0), accumulate=True)
        plot.imshow(counts / counts.sum(dim=1, keepdim=True).clamp(min=1), cmap="Blues", vmin=0, vmax=1)
        plot.set(title=title, xlabel="what the classifier sees")
        plot.set_xticks(range(len(pairs)), names, rotation=90, fontsize=7)
        plot.set_yticks(range(len(pairs)), names, fontsize=7)
    plots[0].set_ylabel("type and part")
    return figure


def denoising(prior: LatentModel, states: Tensor, pairs: list[tuple[int, int]]) -> Figure:
    """What the states (T + 1, n, D) of single chains decode to; the expected x_0 is not shown, but x_t itself."""
    last = len(states) - 1
    lines = []
    for i, (type_, part) in enumerate(pairs):
        lines.append(f"{TYPES[type_]}, {PARTS[part]}")
        steps = [round(share / STATES[-1] * last) for share in STATES]
        z = prior.space.denormalize(states[steps, i])
        for step, sequence in zip(steps, decode(prior.vae, z, has_grammar=True).tolist()):
            text = grammar.write(sequence) or ""
            lines.append(f"  t = {last - step:4}   {text if len(text) < 100 else text[:97] + '...'}")
        lines.append("")
    figure = Figure(figsize=(10, 0.17 * len(lines)))
    figure.text(0.01, 0.99, "\n".join(lines), va="top", family="monospace", fontsize=8)
    return figure
