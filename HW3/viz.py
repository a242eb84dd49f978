"""Pictures: grids, GIFs, curves, and maps of latents. Images are (N, C, H, W) in [0, 1]; files are written atomically.

Nothing here draws from a global random generator or runs a network: what is shown is computed before, by
`HW3.generate`. Figures are matplotlib's without pyplot, so there is no display and no global state.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from HW3.plumbing.files import write_atomically

if TYPE_CHECKING:  # half a second to import, and `--help` draws nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# -- pixels --------------------------------------------------------------------------------------------


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
    save_grid(pairs(originals, reconstructions, columns), path, columns=columns)


def pairs(originals: Tensor, reconstructions: Tensor, columns: int) -> Tensor:
    """The images of both in the order in which a grid shows them: a row of originals, the row of reconstructions."""
    rows = zip(originals.split(columns), reconstructions.split(columns), strict=True)
    return torch.cat([image for pair in rows for image in pair])


def save_gif(frames: Tensor, path: Path, *, columns: int = 8, fps: int = 15) -> None:
    """An animated grid, frames (F, N, C, H, W); the last frame stays for two seconds, then it loops."""
    write_atomically(path, gif(frames, columns=columns, fps=fps))


def gif(frames: Tensor, *, columns: int = 8, fps: int = 15) -> bytes:
    """The same animation as the bytes of a GIF: grey is exact, and frames that are equal become a longer one."""
    pictures, buffer = [_grid(images, columns) for images in frames], io.BytesIO()
    # Where Pillow optimises palettes, the greys of a frame may be off by two.
    options = {"duration": [round(1000 / fps)] * (len(pictures) - 1) + [2000], "loop": 0, "optimize": False}
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], **options)
    return buffer.getvalue()


def strips(*movies: Tensor) -> Tensor:
    """Trajectories (F, N, C, H, W) of the same samples -> images (N * movies * F, C, H, W) for a grid of F columns.

    Time goes from left to right. A sample has a row in each movie, one below the other: x_t, then the estimate of x_0.
    """
    return torch.stack(movies, dim=2).movedim(0, 2).flatten(0, 2)  # (N, movies, F, ...)


def to_uint8(images: Tensor) -> Tensor:
    """[0, 1] -> 0 ... 255, rounded; what lies outside is clamped."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


_PADDING = 2  # grey pixels between images


def _grid(images: Tensor, columns: int) -> Image.Image:
    from torchvision.utils import make_grid  # a second to import, and `--help` draws nothing

    grid = to_uint8(make_grid(images.detach().cpu().float(), nrow=columns, padding=_PADDING, pad_value=0.5))
    if images.shape[1] == 1:  # grey in, grey out: exact in a GIF, whose palette has 256 colours
        return Image.fromarray(grid[0].numpy())
    return Image.fromarray(grid.permute(1, 2, 0).numpy())


# -- figures -------------------------------------------------------------------------------------------


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that makes room for its labels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def figure_png(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def show(
    axes: Axes,
    images: Tensor,
    columns: int,
    title: str = "",
    *,
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
) -> None:
    """A grid of images in a part of a figure, filled row by row.

    Names are spread evenly along its left side and above it: one for each row, or for each group of rows.
    """
    axes.imshow(_grid(images, columns), cmap="gray", vmin=0, vmax=255)
    rows = -(-len(images) // columns)
    height, width = (size + _PADDING for size in images.shape[-2:])
    for axis, names, length in ((axes.yaxis, row_names, rows * height), (axes.xaxis, column_names, columns * width)):
        axis.set_ticks([(k + 0.5) * length / len(names) + _PADDING / 2 for k in range(len(names))], names)
    for k in range(1, len(row_names) if len(row_names) < rows else 0):
        axes.axhline(k * rows * height / len(row_names) + _PADDING / 2 - 0.5, color="white", linewidth=3)
    axes.tick_params(length=0, labelsize=8, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_title(title, fontsize=8)
    axes.spines[:].set_visible(False)


def labelled_grid(images: Tensor, row_names: Sequence[str], column_names: Sequence[str], *, corner: str = "") -> Figure:
    """Images (N, C, H, W), a column for each name, and a row or a group of rows; `corner` says what columns are."""
    rows, left_over = divmod(len(images), len(column_names))
    if left_over or rows % max(1, len(row_names)):
        sides = f"{len(row_names)} groups of rows and {len(column_names)} columns"
        raise ValueError(f"{len(images)} images do not fill {sides}: name as many as there are")
    figure = new_figure(0.55 * len(column_names) + 0.1 * max(map(len, row_names), default=0), 0.55 * rows + 0.3)
    axes = figure.subplots()
    show(axes, images, len(column_names), row_names=row_names, column_names=column_names)
    axes.annotate(
        corner,
        (0, 1),
        (-6, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
    )
    return figure


def save_curves(records: list[dict[str, float]], path: Path) -> None:
    """Every loss in the metrics log against the epoch, as a PNG."""
    write_atomically(path, figure_png(loss_curves({"": records}), dpi=120))


def loss_curves(runs: dict[str, list[dict[str, float]]]) -> Figure:
    """Of each run every loss against the epoch; what is held out is dashed, in the colour of its training loss."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(6 if len(runs) == 1 else 4 * len(runs), 4 if len(runs) == 1 else 3)
    for axes, (title, records) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        names = [name for name in records[-1] if name.endswith(("loss", "rec", "kl"))]
        colours = {name: f"C{k}" for k, name in enumerate(dict.fromkeys(name.removeprefix("val_") for name in names))}
        for name in names:
            points = [(record["epoch"], record[name]) for record in records if name in record]
            line = {"color": colours[name.removeprefix("val_")], "linestyle": "--" if name.startswith("val_") else "-"}
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None, **line)
        axes.set(title=title, xlabel="epoch", ylabel="loss", yscale="log" if _log_scale(records, names) else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def kl_curve(weights: Sequence[float], reconstruction: Sequence[float], kl: Sequence[float]) -> Figure:
    """What a VAE's reconstructions cost: their error against the KL term in nats, a point for each KL weight."""
    order = sorted(range(len(weights)), key=lambda k: kl[k])
    figure = new_figure(5, 3.4)
    axes = figure.subplots()
    axes.plot([kl[k] for k in order], [reconstruction[k] for k in order], "o-", color="black")
    for k in order:
        axes.annotate(f"{weights[k]:g}", (kl[k], reconstruction[k]), (6, 5), textcoords="offset points")
    axes.margins(0.15)
    axes.set(xlabel="KL per image, in nats", ylabel="squared error per pixel", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    return figure


def latent_map(maps: dict[str, Tensor], labels: Tensor, names: Sequence[str] = ()) -> Figure:
    """Points (N, 2), such as `pca` and `tsne` give, coloured by label (N,); a panel for each map.

    names: what the legend calls the labels, by default by their numbers.
    """
    figure = new_figure(4 * len(maps) + 0.6, 4)
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (title, points) in zip(panels, maps.items(), strict=True):
        for label in labels.unique().tolist():
            name = names[label] if names else str(label)
            axes.scatter(*points[labels == label].T.tolist(), s=6, linewidths=0, color=f"C{label}", label=name)
        axes.set(xticks=[], yticks=[], title=title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", markerscale=3, frameon=False)
    return figure


# -- what is computed for them -------------------------------------------------------------------------


def slerp(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    """Spherical interpolation, row by row: start, end (N, ...) and weights (W,) in [0, 1] -> (W, N, ...).

    A straight line between two draws of N(0, I) passes through points that are too short to be one. This goes along
    the circle between their directions, and its length from the one to the other.
    """
    a, b = start.flatten(1).double(), end.flatten(1).double()
    a_norm, b_norm = (rows.norm(dim=1, keepdim=True) for rows in (a, b))
    if not ((a_norm > 0) & (b_norm > 0)).all():
        raise ValueError("slerp: zero has no direction; take the ends from N(0, I)")
    a, b = a / a_norm, b / b_norm
    angle = 2 * torch.atan2((a - b).norm(dim=1, keepdim=True), (a + b).norm(dim=1, keepdim=True))  # exact when small
    if (angle > torch.pi - 1e-6).any():
        raise ValueError("slerp: opposite ends have no shortest way between them; take others")
    w = weights.to(a).view(-1, 1, 1)
    # sin((1-w)Ω) / sin(Ω), and for Ω -> 0 the straight line
    from_a, from_b = (torch.where(angle > 1e-6, (u * angle).sin() / angle.sin(), u) for u in (1 - w, w))
    rows = (from_a * a + from_b * b) * ((1 - w) * a_norm + w * b_norm)
    return rows.to(start.dtype).view(len(weights), *start.shape)


def pca(points: Tensor, dims: int = 2) -> Tensor:
    """Points (N, D) along their first principal axes, (N, dims): the directions of the largest variance, in order."""
    if dims > min(points.shape):
        raise ValueError(f"{tuple(points.shape)} points have no {dims} principal axes; ask for fewer")
    centred = (points - points.mean(dim=0)).double()
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:dims]  # (dims, D), eigenvectors of the covariance
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return (centred @ (axes * largest.sign()).T).to(points.dtype)  # an axis has no sign of its own: one is chosen


def tsne(points: Tensor) -> Tensor:
    """Points (N, D) -> (N, 2) that keep who is whose neighbour; distances between groups mean nothing.

    van der Maaten & Hinton 2008, as in scikit-learn, which the bundled digits need anyway.
    """
    from sklearn.manifold import TSNE  # seconds to import

    # It begins with the two principal axes, for which scikit-learn draws numbers where points are many.
    method = TSNE(random_state=0, perplexity=min(30, (len(points) - 1) / 3))
    return torch.from_numpy(method.fit_transform(points.detach().cpu().numpy()))


def _log_scale(records: list[dict[str, float]], names: list[str]) -> bool:
    """A log axis when the values span more than a factor of ten."""
    values = [record[name] for record in records for name in names if name in record]
    return min(values) > 0 and max(values) > 10 * min(values)


def _save(picture: Image.Image, path: Path, format: str, **options: object) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    write_atomically(path, buffer.getvalue())
