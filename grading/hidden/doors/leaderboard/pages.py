"""What `samples` writes: samples.csv, leaderboard.html with everybody's pictures, and Gradescope's leaderboard."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from grading.hidden.doors.leaderboard.arrays import CLASSES, SIZE
from grading.hidden.reports.files import folder_of, write_atomically
from grading.hidden.reports.gradescope import read_result
from grading.hidden.reports.text import environment, plain, readable
from grading.rubric import DISTANCE, MEASURES, Rubric

if TYPE_CHECKING:
    from grading.hidden.doors.leaderboard.board import Row
    from grading.hidden.doors.leaderboard.judge import PrivateJudge

SHOWN = 4  # pictures of each class
LISTENS = 0.9  # the label accuracy below which pictures rank after all others: good ones of something else
TITLES = {DISTANCE: "Fréchet distance"}  # in the judge's features: not the FID
PERCENT = ("label_accuracy", "precision", "recall", "coverage")


def title(measure: str) -> str:
    """A measure in words."""
    return TITLES.get(measure, measure.replace("_", " ").capitalize())


# -- for each submission ---------------------------------------------------------------------------------------


def write_results(out: Path, rows: Sequence[Row], rubric: Rubric, judge: PrivateJudge) -> None:
    """Write the leaderboard into OUT/<submission>/results.json: into that of `grade`, where it is there."""
    for row in rows:
        path = folder_of(out, row.handin.name) / "results.json"
        report = json.loads(path.read_bytes()) if read_result(path) else _report(row, rubric, judge)
        report["leaderboard"] = leaderboard(row)
        text = json.dumps(report, indent=1, allow_nan=False)
        write_atomically(path, text.encode("ascii") + b"\n")


def leaderboard(row: Row) -> list[dict[str, Any]]:
    """Gradescope's field: https://gradescope-autograders.readthedocs.io/en/latest/specs/. Empty for who is flagged."""
    if not row.is_ranked:
        return []
    order = {DISTANCE: {"order": "asc"}}  # of the others more is better, which is Gradescope's order, too
    return [{"name": title(m), "value": round(row.measured[m], 4), **order.get(m, {})} for m in MEASURES]


def _report(row: Row, rubric: Rubric, judge: PrivateJudge) -> dict[str, Any]:
    lines = [*row.notes, f"Judged by {judge.name}."]
    return {
        "score": row.points or 0.0,
        "output": readable("\n".join(lines)),
        "output_format": "text",
        "visibility": rubric.visibility,
        "stdout_visibility": rubric.stdout_visibility,
        "tests": [],
    }


# -- for the class ---------------------------------------------------------------------------------------------


def write_board(
    out: Path, rows: Sequence[Row], rubric: Rubric, judge: PrivateJudge, flags: dict[str, str], real: dict[str, float]
) -> None:
    """Write OUT/samples.csv, sorted by submission, and OUT/leaderboard.html, the best first.

    flags: what they mean.  real: what real images get. Raises GradingError when the disk refuses.
    """
    write_atomically(out / "samples.csv", _table(rows, rubric).encode("utf-8", errors="backslashreplace"))
    ranked = sorted((row for row in rows if row.is_ranked), key=_rank)
    rest = [row for row in rows if not row.is_ranked]
    page = (
        environment()
        .get_template("leaderboard.html")
        .render(
            rubric=rubric,
            judge=judge,
            ranked=ranked,
            rest=rest,
            flags={word: text for word, text in flags.items() if any(word in row.flags for row in rows)},
            listens=round(100 * LISTENS),
            titles=[title(measure) for measure in MEASURES],
            cells=_cells,
            grid=_grid,
            real=_cells(real),
        )
    )
    write_atomically(out / "leaderboard.html", page.encode("utf-8"))


def _rank(row: Row) -> tuple[bool, float]:
    return row.measured["label_accuracy"] < LISTENS, row.measured[DISTANCE]


def _table(rows: Sequence[Row], rubric: Rubric) -> str:
    """Names stand there as in grades.csv."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["submission", "student", *MEASURES, "flags", *["points"] * (rubric.samples is not None)])
    for row in sorted(rows, key=lambda row: row.handin.name):
        numbers = [plain(row.measured[name]) if name in row.measured else "" for name in MEASURES]
        points = [] if rubric.samples is None else ["" if row.points is None else plain(row.points)]
        cells = [row.handin.name, row.handin.student, *numbers, ";".join(row.flags), *points]
        writer.writerow([cell.replace("\0", "\\x00") for cell in cells])
    return table.getvalue()


def _cells(measured: dict[str, float]) -> list[str]:
    """Measures as a page shows them."""
    return [_shown(name, measured[name]) if name in measured else "" for name in MEASURES]


def _shown(name: str, value: float) -> str:
    if name in PERCENT:
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if name == DISTANCE else f"{value:.2f}"


def _grid(row: Row) -> Markup | str:
    """Some pictures, a column for each class, as what an `img` shows; "" where there are none."""
    if row.images is None or row.labels is None:
        return ""
    step = SIZE + 2
    sheet = np.full((SHOWN * step, CLASSES * step), 128, np.uint8)
    images, labels = row.images.numpy(), row.labels.numpy()
    for label in range(CLASSES):
        for place, index in enumerate(np.flatnonzero(labels == label)[:SHOWN]):
            top, left = place * step + 1, label * step + 1
            sheet[top : top + SIZE, left : left + SIZE] = images[index]
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return Markup("data:image/png;base64,") + base64.b64encode(file.getvalue()).decode("ascii")
