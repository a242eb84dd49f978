"""Draw pictures from one of the models: a grid, or each in a file of its own.

examples:
  python -m extensions.gan_zoo sample                                     144 of the diffusion model, in a 12 x 12 grid
  python -m extensions.gan_zoo sample --model gan --out gan.png
  python -m extensions.gan_zoo sample --label 7 --num 5 --single          five sevens, as single pictures
  python -m extensions.gan_zoo sample --set sample.guidance=4
"""

from __future__ import annotations

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.pictures import add_drawn, check_drawn, class_of, save_drawn
from extensions.gan_zoo.trained import STAGES, load_trained, zoo_settings
from HW3.generate import draw
from HW3.plumbing.device import pick_device
from HW3.plumbing.errors import UsageError

COLUMNS = 12


def main() -> None:
    parser = track_parser(__doc__ or "", "gan_zoo")
    parser.add_argument("--model", choices=STAGES, default="diffusion", help="which of the models draws")
    add_drawn(
        parser,
        columns=COLUMNS,
        label="diffusion: the name of a class; by default all in turn",
        out="samples_MODEL",
    )
    args = parser.parse_args(arguments())
    device = pick_device(args.device)
    config = zoo_settings(args)
    check_drawn(args.out, single=args.single)
    model = load_trained(args.out_dir, args.model, device, config)

    if args.label is not None and model.drawer.texts is None:
        raise UsageError("--label: this model draws what it likes; --model diffusion is told a class")
    label = None if args.label is None else class_of(args.label, model.class_names)
    labels = model.labels(args.num, label)
    images, _ = draw(model.drawer, args.num, device, labels=labels, seed=args.seed, progress=True)
    out = args.out or args.out_dir / f"samples_{args.model}{'' if args.single else '.png'}"
    save_drawn(images, out, single=args.single, columns=COLUMNS)
