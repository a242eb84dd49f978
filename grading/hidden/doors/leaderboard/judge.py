"""The judge of the leaderboard: one that students do not have.

They have the weights of `HW3/judge.py`, so pictures can be made which that judge likes and nobody else. This one has
another architecture and a seed that nobody keeps, and it may say that a picture shows no digit at all: it is trained on
noise and on digits in pieces as well. Its weights are made by the instructor and lie in no repository.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import torch
from torch import Tensor, nn

from grading.errors import GradingError
from HW3.data import ImageSet, load_dataset
from HW3.judge import NUM_FEATURES, Judge, accuracy, fit, read_judge, round_weights, save_judge, shifted
from HW3.plumbing.errors import UserError

NOTHING = 10  # the class of what is no digit
DIGITS_PER_NOTHING = 4
EPOCHS = {"digits": 10, "mnist": 4, "fashion_mnist": 8}
BATCH_SIZE = {"digits": 64, "mnist": 128, "fashion_mnist": 128}
AGAIN = "make one with python -m grading samples --train-judge"


class PrivateJudge(Judge):
    """As `Judge`, with strides for pooling, GroupNorm for BatchNorm, and an 11th class for what is no digit."""

    version = "leaderboard-1"

    def __init__(self, dataset: str, fingerprint: str = "", test_accuracy: float = float("nan")) -> None:
        super().__init__(dataset, fingerprint, test_accuracy)
        self.body = nn.Sequential(
            *_block(1, 24, 5),  # (B, 24, 16, 16)
            *_block(24, 48, 5),  # (B, 48, 8, 8)
            *_block(48, 96, 3),  # (B, 96, 4, 4)
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(96 * 4 * 4, NUM_FEATURES),
        )
        self.head = nn.Linear(NUM_FEATURES, NOTHING + 1)


def _block(channels: int, out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2), nn.GroupNorm(4, out), nn.GELU()]


def train_private(dataset: str, data: ImageSet, seed: int | None = None) -> PrivateJudge:
    """Train one; without a seed, from one that is not kept."""
    torch.manual_seed(secrets.randbits(63) if seed is None else seed)
    judge = fit(PrivateJudge(dataset), data, EPOCHS[dataset], BATCH_SIZE[dataset], with_nothing)
    round_weights(judge)
    return judge


def make_judge(path: Path, dataset: str, data_dir: Path) -> str:
    """Train the judge of a data set, write it, and say how good it is. Raises GradingError."""
    if path.exists():
        raise GradingError(f"{path} is there: numbers of another judge do not compare with its; name another file", 2)
    data, test = (load(dataset, data_dir, train=train) for train in (True, False))
    judge = train_private(dataset, data)
    score = accuracy(judge, test)
    save_judge(judge, score, path)
    return f"{path}: {100 * score:.2f} % of the {len(test)} test images right; keep it from students"


def load_private(path: Path) -> PrivateJudge:
    """The judge in a file. Raises GradingError if there is none, or one of another kind or version."""
    if not path.is_file():
        raise GradingError(f"there is no judge at {path}: {AGAIN} {path}", 2)
    try:
        return read_judge(path, PrivateJudge, f"{AGAIN} {path}")
    except UserError as error:
        raise GradingError(str(error), 2) from None


def load(dataset: str, data_dir: Path, *, train: bool) -> ImageSet:
    """A data set. Raises GradingError when its files are missing or damaged."""
    try:
        return load_dataset(dataset, data_dir, train=train)
    except UserError as error:
        raise GradingError(str(error), error.exit_code) from None


# -- what it is trained on ---------------------------------------------------------------------------------


def with_nothing(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A batch (B, 1, 32, 32) with shifts and some noise, and a quarter as many images of nothing."""
    n = max(2, len(images) // DIGITS_PER_NOTHING)
    nothing = torch.cat([_noise(n // 2, images.shape[-1]), _in_pieces(images[: n - n // 2])])
    noisy = images + 0.05 * torch.rand(len(images), 1, 1, 1) * torch.randn_like(images)
    varied = torch.cat([shifted(noisy.clamp(0, 1)), nothing])
    return varied, torch.cat([labels, labels.new_full((len(nothing),), NOTHING)])


def _noise(n: int, size: int) -> Tensor:
    """Noise of some grain and all contrasts: some grey, some of few bright pixels."""
    grain = int(torch.randint(4, size + 1, ()))
    noise = nn.functional.interpolate(torch.rand(n, 1, grain, grain), size=(size, size), mode="bilinear")
    power, contrast = torch.rand(2, n, 1, 1, 1)
    return noise ** (6 * power) * (0.2 + 0.8 * contrast)


def _in_pieces(images: Tensor) -> Tensor:
    """Images cut into 16 squares that lie in another order."""
    n, size = len(images), images.shape[-1] // 4
    pieces = images.unfold(2, size, size).unfold(3, size, size).reshape(n, 16, size, size)
    pieces = pieces[:, torch.randperm(16)].reshape(n, 4, 4, size, size)
    return pieces.transpose(2, 3).reshape(n, 1, 4 * size, 4 * size)
