"""Draw pictures of a class, or of each in turn: a grid, or each in a file of its own.

examples:
  python -m extensions.catdog sample --quick                                   64, the classes in turn
  python -m extensions.catdog sample --quick --label dog --num 16 --out dogs.png
  python -m extensions.catdog sample --quick --label cat --num 100 --single --out cats
  python -m extensions.catdog sample --quick --set sample.guidance=1
"""

from __future__ import annotations

from extensions.blocks.command import arguments, track_parser
from extensions.blocks.pictures import add_drawn, check_drawn, class_of, save_drawn
from extensions.catdog.track import Track
from extensions.catdog.trained import load_diffusion, track_settings
from HW3.generate import draw
from HW3.plumbing.device import pick_device

COLUMNS = 8


def main(track: Track) -> None:
    parser = track_parser(track.doc(__doc__ or ""), track.name)
    add_drawn(parser, columns=COLUMNS, label="the name of the class to draw; by default all in turn", out="samples")
    args = parser.parse_args(arguments())
    device = pick_device(args.device)
    config = track_settings(track, args)
    check_drawn(args.out, single=args.single)
    model = load_diffusion(track, args.out_dir, device, config)

    label = None if args.label is None else class_of(args.label, model.class_names)
    labels = model.labels(args.num, label).to(device)
    images, _ = draw(model.drawer, args.num, device, labels=labels, seed=args.seed, progress=True)
    out = args.out or args.out_dir / f"samples{'' if args.single else '.png'}"
    save_drawn(images, out, single=args.single, columns=COLUMNS)
