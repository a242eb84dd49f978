"""What commands leave: a run's pictures in a folder, and drawn images as a grid or one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from extensions.blocks.config import nearest
from HW3.plumbing.cli import Parser, at_least
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically
from HW3.viz import figure_png, save_grid


def save_pictures(pictures: Mapping[str, Figure | bytes], folder: Path) -> None:
    """Write each under its file name, and print where."""
    for name, picture in pictures.items():
        write_atomically(folder / name, picture if isinstance(picture, bytes) else figure_png(picture))
        print(folder / name)


def add_drawn(parser: Parser, *, columns: int, label: str, out: str) -> None:
    """The flags of a `sample` that draws images, `columns` in a row. label, out: the help of these two."""
    parser.add_argument("--num", type=at_least(1), default=columns**2, help="how many pictures")
    parser.add_argument("--label", help=label)
    parser.add_argument("--single", action="store_true", help="each in a file of its own; --out is a folder then")
    parser.add_argument("--out", type=Path, help=f"the PNG, or the folder; by default {out} in --out-dir")


def check_drawn(out: Path | None, *, single: bool) -> None:
    """Raise UsageError for an --out that is no name of a picture where one is wanted."""
    if not single and out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the name must end in .png; --single takes a folder")


def class_of(name: str, class_names: Sequence[str]) -> int:
    """The number of a class. Raises UsageError where there is none of this name."""
    if name not in class_names:
        raise UsageError(f"--label: there is no class {name!r}: {nearest(name, class_names)}")
    return class_names.index(name)


def save_drawn(images: Tensor, out: Path, *, single: bool, columns: int) -> None:
    """Images (N, C, H, W) as the PNG `out`, or with `single` each as one in the folder `out`."""
    if single:
        digits = len(str(len(images) - 1))
        for number, image in enumerate(images):
            save_grid(image[None], out / f"{number:0{digits}d}.png")  # one image has no frame
    else:
        save_grid(images, out, columns=min(columns, len(images)))
    print(f"{len(images)} images -> {out}")
