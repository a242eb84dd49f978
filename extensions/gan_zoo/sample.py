"""Draw pictures from one of the models: a grid, or each in a file of its own.

examples:
  python -m extensions.gan_zoo sample                                     144 of the diffusion model, in a 12 x 12 grid
  python -m extensions.gan_zoo sample --model gan --out gan.png
  python -m extensions.gan_zoo sample --label 7 --num 5 --single          five sevens, as single pictures
  python -m extensions.gan_zoo sample --set sample.guidance=4
"""

from __future__ import annotations

from pathlib import Path

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.config import nearest
from extensions.gan_zoo.trained import STAGES, Trained, load_trained, zoo_settings
from HW3.generate import draw
from HW3.plumbing.cli import at_least
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError
from HW3.viz import save_grid

COLUMNS = 12


def main() -> None:
    parser = track_parser(__doc__ or "", "gan_zoo")
    parser.add_argument("--model", choices=STAGES, default="diffusion", help="which of the models draws")
    parser.add_argument("--num", type=at_least(1), default=COLUMNS**2, help="how many pictures")
    parser.add_argument("--label", help="diffusion: the name of the class to draw; by default all in turn")
    parser.add_argument("--single", action="store_true", help="each in a file of its own; --out is a folder then")
    parser.add_argument("--out", type=Path, help="the PNG, or the folder; by default samples_MODEL in --out-dir")
    args = parser.parse_args(arguments())
    device = pick_device(args.device)
    config = zoo_settings(args)
    if not args.single and args.out is not None and args.out.suffix.lower() != ".png":
        raise UsageError(f"--out {args.out}: the name must end in .png; --single takes a folder")
    model = load_trained(args.out_dir, args.model, device, config)

    label = None if args.label is None else class_of(args.label, model)
    labels = model.labels(args.num, label)
    images, _ = draw(model.drawer, args.num, device, labels=labels, seed=args.seed, progress=True)
    out = args.out or args.out_dir / f"samples_{args.model}{'' if args.single else '.png'}"
    if args.single:
        digits = len(str(args.num - 1))
        for number, image in enumerate(images):
            save_grid(image[None], out / f"{number:0{digits}d}.png")  # one image has no frame
    else:
        save_grid(images, out, columns=min(COLUMNS, args.num))
    print(f"{args.num} images -> {out}")


def class_of(name: str, model: Trained) -> int:
    """The number of a class. Raises UsageError where there is none of this name, or the model is not told any."""
    if model.drawer.texts is None:
        raise UsageError("--label: this model draws what it likes; --model diffusion is told a class")
    if name not in model.class_names:
        raise UsageError(f"--label: there is no class {name!r}: {nearest(name, model.class_names)}")
    return model.class_names.index(name)
