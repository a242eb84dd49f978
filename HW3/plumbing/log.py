"""What a run reports: a line per epoch on the terminal and in metrics.jsonl, and the curves in loss.png."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from HW3.plumbing.files import write_atomically
from HW3.viz import save_curves

_NOT_SHOWN = ("epoch", "lr", "grad_norm", "seconds")


def say(message: str) -> None:
    """Print a line without tearing a progress bar; at once, also into a pipe or a log file."""
    tqdm.write(message)
    sys.stdout.flush()


class Means:
    """Means over the images of the epoch under way, as sums that a checkpoint can hold."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}  # over the images that this process has seen

    def add(self, rows: int, values: dict[str, Tensor]) -> None:
        """Take in the means over `rows` images. Nothing is read from the device, which would have to wait."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float() * rows

    def over(self, images: int) -> dict[str, float]:
        """The means, name -> value."""
        return {name: value.item() / images for name, value in self.sums.items()}

    def not_finite(self) -> str | None:
        """The first value that is NaN or infinite."""
        return next((name for name, value in self.sums.items() if not math.isfinite(value.item())), None)


def log_epoch(out_dir: Path, record: dict[str, float], epochs: int, *, curves: bool) -> None:
    """Report an epoch; draw the curves anew if asked to."""
    values = "  ".join(f"{name} {value:.4g}" for name, value in record.items() if name not in _NOT_SHOWN)
    say(f"epoch {record['epoch']}/{epochs}  {values}  {record['seconds']:.1f} s")
    path = out_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if record["epoch"] > 1 and path.is_file() else []
    # A run that was killed after its log but before its checkpoint has lines that this one does again.
    records = [line for line in map(json.loads, lines) if line["epoch"] < record["epoch"]] + [record]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in records).encode())
    if curves:
        save_curves(records, out_dir / "loss.png")
