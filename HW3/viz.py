"""Pictures: grids, loss curves and GIFs. Images are (N, C, H, W) in [0, 1]; files are written atomically."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from HW3.plumbing.files import write_atomically


def save_grid(images: Tensor, path: Path, *, columns: int = 8) -> None:
    """A PNG grid of images, filled row by row."""
    _save(_grid(images, columns), path, "PNG")


def grid_png(images: Tensor, *, columns: int = 8, scale: int = 1) -> bytes:
    """The same grid as the bytes of a PNG, with every pixel as scale x scale."""
    grid, buffer = _grid(images, columns), io.BytesIO()
    grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def save_pairs(originals: Tensor, reconstructions: Tensor, path: Path, *, columns: int = 8) -> None:
    """A PNG grid with each row of originals above the row of their reconstructions."""
    rows = zip(originals.split(columns), reconstructions.split(columns), strict=True)
    save_grid(torch.cat([image for pair in rows for image in pair]), path, columns=columns)


def save_gif(frames: Tensor, path: Path, *, columns: int = 8, fps: int = 15) -> None:
    """An animated grid, frames (F, N, C, H, W); the last frame stays for two seconds, then it loops."""
    pictures = [_grid(images, columns) for images in frames]
    durations = [round(1000 / fps)] * (len(pictures) - 1) + [2000]
    _save(pictures[0], path, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def save_curves(records: list[dict[str, float]], path: Path) -> None:
    """Every loss in the metrics log against the epoch, as a PNG."""
    from matplotlib.figure import Figure  # no pyplot: no global state and no display
    from matplotlib.ticker import MaxNLocator

    names = [name for name in records[-1] if name.endswith(("loss", "rec", "kl"))]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in names:
        points = [(record["epoch"], record[name]) for record in records if name in record]
        axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
    axes.set(xlabel="epoch", ylabel="loss", yscale="log" if _log_scale(records, names) else "linear")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def to_uint8(images: Tensor) -> Tensor:
    """[0, 1] -> 0 ... 255, rounded; what lies outside is clamped."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def _grid(images: Tensor, columns: int) -> Image.Image:
    from torchvision.utils import make_grid  # a second to import, and `--help` draws nothing

    grid = to_uint8(make_grid(images.detach().cpu().float(), nrow=columns, padding=2, pad_value=0.5))
    if images.shape[1] == 1:  # grey in, grey out: exact in a GIF, whose palette has 256 colours
        return Image.fromarray(grid[0].numpy())
    return Image.fromarray(grid.permute(1, 2, 0).numpy())


def _log_scale(records: list[dict[str, float]], names: list[str]) -> bool:
    """A log axis when the values span more than a factor of ten."""
    values = [record[name] for record in records for name in names if name in record]
    return min(values) > 0 and max(values) > 10 * min(values)


def _save(picture: Image.Image, path: Path, format: str, **options: object) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    write_atomically(path, buffer.getvalue())
