"""Measure the models of a run on rows that they have not seen, beside what knows nothing and what cannot be beaten.

examples:
  python -m extensions.structured evaluate
  python -m extensions.structured evaluate --json metrics.json --set evaluate.rows=4000

  mse_*              squared error per element between one-hot productions and probabilities. `zeros` and `uniform` are
                     what no model at all gets: they are low, as 52 of 53 elements are 0, so an MSE alone says little.
                     `vae`: of the posterior mean. `diffusion`: of latents noised to step evaluate.noise_step and back
                     by every step of the chain. `prior`: drawn from noise, knowing the row's type and part only
  token_accuracy     productions that the VAE gives back, of those of the derivation (padding does not count)
  exact_match        expressions that it gives back whole
  valid_rate         decoded samples of the prior that can be read as an expression. The decoder takes legal productions
                     only; `valid_rate_free` is without that, so it says what the model itself knows of the grammar
  condition_match    samples of the prior of which the classifier says the type and the part that were asked for, where
                     these are as frequent as in the data; `condition_match_real`: the same of held-out rows, decoded.
                     That is below 100 %, as some expressions belong to two types alike
  novel              samples of the prior that no row of the data set has
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from extensions.blocks.command import arguments, settings, track_parser
from extensions.structured import grammar
from extensions.structured.data import PARTS, TYPES, Expressions, load, split
from extensions.structured.models import Classifier, ExpressionVAE
from extensions.structured.trained import (
    CHUNK,
    FOLDER,
    decode,
    encode,
    held_out_from,
    load_classifier,
    load_latent,
    load_vae,
)
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically

SHOWN = 12  # decoded expressions


def main() -> None:
    parser = track_parser(__doc__ or "", "structured")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args(arguments())
    config = settings(args, FOLDER)
    device = pick_device(args.device)
    data, name = load(config.data.source, args.data_dir, config.data.csv, config.data.hdf5)
    rows = split(data, args.seed)
    origin = held_out_from(data, args.seed)
    vae = load_vae(args.out_dir, device, data, args.seed)
    classifier = load_classifier(args.out_dir, device, data, args.seed)
    (chain, _), (prior, _) = (load_latent(args.out_dir, stage, device, origin) for stage in ("diffusion", "prior"))
    if config.evaluate.noise_step >= chain.diffusion.config.timesteps:
        raise UsageError(
            f"evaluate.noise_step must be below {chain.diffusion.config.timesteps}, the length of the chain"
        )
    has_grammar = data.has_grammar
    torch.manual_seed(args.seed)

    # The VAE, on all held-out rows
    test, x = rows.test, rows.test.sequences.to(device)  # (N, 72)
    mu = encode(vae, test.sequences).mu
    reconstructed = decode(vae, mu, has_grammar=has_grammar)
    is_production = x != data.productions - 1
    right = reconstructed == x
    found: dict[str, float] = {
        "mse_zeros": 1 / data.productions,  # one element in G is 1
        "mse_uniform": (1 - 1 / data.productions) / data.productions,
        "mse_vae": squared_error(vae, mu, x),
        "token_accuracy": right[is_production].float().mean().item(),
        "exact_match": right.all(dim=1).float().mean().item(),
    }

    # Diffusion in its latents, on some of them
    some = test.rows(
        torch.randperm(len(test), generator=torch.Generator().manual_seed(args.seed))[: config.evaluate.rows]
    )
    x = some.sequences.to(device)
    back = chain.noise_and_back(encode(chain.vae, some.sequences).mu, config.evaluate.noise_step)
    found["mse_diffusion"] = squared_error(chain.vae, back, x)

    # The prior, told what these rows are
    z = prior.draw(len(some), some.conditions().to(device), config.sample.guidance)
    drawn = decode(prior.vae, z, has_grammar=has_grammar)
    found["mse_prior"] = squared_error(prior.vae, z, x)
    if has_grammar:
        free = decode(prior.vae, z, has_grammar=False)
        found["valid_rate"] = mean([grammar.is_valid(row) for row in drawn.tolist()])
        found["valid_rate_free"] = mean([grammar.is_valid(row) for row in free.tolist()])
    found |= condition_match(classifier, drawn, some, "condition_match")
    found |= condition_match(classifier, reconstructed, test, "condition_match_real")
    known = {row.tobytes() for row in data.sequences.numpy()}
    found["novel"] = mean([row.tobytes() not in known for row in drawn.cpu().numpy()])

    print(f"{name}: {len(test)} held-out rows; {len(some)} for the diffusion models\n")
    for key, value in found.items():
        print(f"{key:28} {value:.5f}" if key.startswith("mse") else f"{key:28} {100 * value:.2f} %")
    if has_grammar:
        show("held-out rows above what the VAE makes of them", test.texts, reconstructed)
        labels = [f"{TYPES[t]}, {PARTS[p]}" for t, p in zip(some.types.tolist(), some.parts.tolist())]
        show("what the prior was asked for above what it draws", labels, drawn)
    else:
        print("\nthe productions are not those of extensions/structured/grammar.py: nothing can be written as text")
    if args.json:
        numbers = {"data": name, "rows": len(test), "rows_diffusion": len(some), **found}
        write_atomically(args.json, (json.dumps(numbers, indent=2) + "\n").encode())


@torch.inference_mode()
def squared_error(vae: ExpressionVAE, z: Tensor, x: Tensor) -> float:
    """Mean over the elements of one-hot sequences x (N, 72), against the decoder's probabilities at z (N, D)."""
    total = 0.0
    for z_part, x_part in zip(z.split(CHUNK), x.split(CHUNK)):
        probabilities = vae.decode(z_part).softmax(dim=1)  # (B, G, 72)
        one_hot = F.one_hot(x_part, vae.productions).transpose(1, 2)
        total += (probabilities - one_hot).square().mean().item() * len(x_part)
    return total / len(x)


@torch.inference_mode()
def condition_match(classifier: Classifier, sequences: Tensor, rows: Expressions, name: str) -> dict[str, float]:
    """How often the classifier sees the rows' type, their part, and both."""
    type_logits, part_logits = classifier(sequences)
    types = type_logits.argmax(dim=1).cpu() == rows.types
    parts = part_logits.argmax(dim=1).cpu() == rows.parts
    both = types & parts
    return {
        name: both.float().mean().item(),
        f"{name}_type": types.float().mean().item(),
        f"{name}_part": parts.float().mean().item(),
    }


def mean(values: list[bool]) -> float:
    return sum(values) / len(values)


def show(title: str, above: list[str], sequences: Tensor) -> None:
    """A few decoded expressions, each below what it is to be compared with."""
    print(f"\n{title}:")
    for text, sequence in list(zip(above, sequences.tolist()))[:SHOWN]:
        print(f"  {text}\n  {grammar.write(sequence)}\n")
