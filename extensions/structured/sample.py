"""Draw expressions from the prior: of a type and a part, or of every pair that the training rows have.

examples:
  python -m extensions.structured sample --num 3
  python -m extensions.structured sample --type wave_4 --part sine_part --num 20 --out waves.csv

Prints the expressions, and writes them as a CSV of the data set's columns: type and part are what was asked for.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import torch

from extensions.blocks.command import arguments, settings, track_parser
from extensions.structured import grammar
from extensions.structured.data import COLUMNS, PARTS, TYPES, condition, index_of
from extensions.structured.trained import FOLDER, decode, load_latent
from HW3.plumbing.cli import at_least
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically


def main() -> None:
    parser = track_parser(__doc__ or "", "structured")
    parser.add_argument("--type", help="what type to draw; by default all")
    parser.add_argument("--part", help="what part to draw; by default all of that type")
    parser.add_argument("--num", type=at_least(1), default=1, help="how many of each pair of type and part")
    parser.add_argument("--out", type=Path, help="the CSV; by default samples.csv in --out-dir")
    args = parser.parse_args(arguments())
    config = settings(args, FOLDER)
    device = pick_device(args.device)
    prior, has_grammar = load_latent(args.out_dir, "prior", device)
    if not has_grammar:
        raise UsageError(f"the prior in {args.out_dir} draws productions of another grammar: they cannot be written")

    pairs = pairs_asked_for(prior.pairs, args.type, args.part)
    types, parts = torch.tensor(pairs).repeat_interleave(args.num, dim=0).unbind(1)  # (N,), (N,)
    torch.manual_seed(args.seed)
    z = prior.draw(len(types), condition(types, parts).to(device), config.sample.guidance)
    sequences = decode(prior.vae, z, has_grammar=True)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for type_, part, sequence in zip(types.tolist(), parts.tolist(), sequences.tolist()):
        row = TYPES[type_], PARTS[part], grammar.write(sequence) or ""  # a legal derivation is never None
        writer.writerow(row)
        print(f"{row[0]:14} {row[1]:19} {row[2]}")
    write_atomically(args.out or args.out_dir / "samples.csv", text.getvalue().encode())


def pairs_asked_for(pairs: list[list[int]], type_: str | None, part: str | None) -> list[list[int]]:
    """Those of the prior's pairs that have this type and this part. Raises UsageError if there are none."""
    type_index = None if type_ is None else index_of(type_, TYPES, "type", "--type")
    part_index = None if part is None else index_of(part, PARTS, "part", "--part")
    found = [pair for pair in pairs if type_index in (None, pair[0]) and part_index in (None, pair[1])]
    if not found:
        there = [PARTS[p] for t, p in pairs if t == type_index] or [TYPES[t] for t, _ in pairs]
        raise UsageError(f"the training rows have no type {type_} with part {part}: there are {', '.join(there)}")
    return found
