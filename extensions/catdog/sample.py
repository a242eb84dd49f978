"""Draw pictures of a class, or of each in turn: a grid, or each in a file of its own.

examples:
  python -m extensions.catdog sample --quick                                   64, the classes in turn
  python -m extensions.catdog sample --quick --label dog --num 16 --out dogs.png
  python -m extensions.catdog sample --quick --label cat --num 100 --single --out cats
  python -m extensions.catdog sample --quick --set sample.guidance=1
"""

from __future__ import annotations

from pathlib import Path

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.config import nearest
from extensions.catdog.track import Track
from extensions.catdog.trained import Trained, load_diffusion, track_settings
from HW3.generate import draw
from HW3.plumbing.cli import at_least
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError
from HW3.viz import save_grid

COLUMNS = 8


def main(track: Track) -> None:
    parser = track_parser(track.doc(__doc__ or ""), track.name)
    parser.add_argument("--num", type=at_least(1), default=COLUMNS**2, help="how many pictures")
    parser.add_argument("--label", help="the name of the class to draw; by default all in turn")
    parser.add_argument("--single", action="store_true", help="each in a file of its own; --out is a folder then")
    parser.add_argument("--out", type=Path, help="the PNG, or the folder; by default samples in --out-dir")
    args = parser.parse_args(arguments())
    device = pick_device(args.device)
    config = track_settings(track, args)
    if not args.single and args.out is not None and args.out.suffix.lower() != ".png":
        raise UsageError(f"--out {args.out}: the name must end in .png; --single takes a folder")
    model = load_diffusion(track, args.out_dir, device, config)

    label = None if args.label is None else class_of(args.label, model)
    labels = model.labels(args.num, label).to(device)
    images, _ = draw(model.drawer, args.num, device, labels=labels, seed=args.seed, progress=True)
    out = args.out or args.out_dir / f"samples{'' if args.single else '.png'}"
    if args.single:
        digits = len(str(args.num - 1))
        for number, image in enumerate(images):
            save_grid(image[None], out / f"{number:0{digits}d}.png")  # one image has no frame
    else:
        save_grid(images, out, columns=min(COLUMNS, args.num))
    print(f"{args.num} images -> {out}")


def class_of(name: str, model: Trained) -> int:
    """The number of a class. Raises UsageError where there is none of this name."""
    if name not in model.class_names:
        raise UsageError(f"--label: there is no class {name!r}: {nearest(name, model.class_names)}")
    return model.class_names.index(name)
