"""The judge of samples: a small classifier with fixed weights that no trained model has ever met.

CLIP tells tiny SD what to draw, so it cannot say whether that was drawn; and each student has another one. The judge
is the same for all, its weights are part of the repository, and no training script imports it.

    python -m HW3.judge --dataset fashion_mnist      makes HW3/weights/judge_fashion_mnist.pt, in minutes on 2 cores

The weights that are there are not replaced: numbers of two judges do not compare, also when only the machine that
trained them differs. `VERSION` counts what changes the network or its training.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from HW3.data import DATASETS, ImageSet, load_dataset
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import Parser, add_data_dir, run_main
from HW3.plumbing.device import has_native_bf16
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically

VERSION = 1
WEIGHTS = Path(__file__).parent / "weights"

IMAGE_SIZE = 32
NUM_FEATURES = 64
CHUNK = 500  # images judged at once

EPOCHS = {"digits": 60, "mnist": 12, "fashion_mnist": 25}
BATCH_SIZE, LR, SEED = {"digits": 32, "mnist": 128, "fashion_mnist": 128}, 2e-3, 0
LARGEST_SHIFT = 2  # pixels


class Judge(nn.Module):
    """A classifier of images (B, 1, 32, 32) in [0, 1], as `ImageSet.batch` gives them.

    `dataset` and `fingerprint`, a hash of the weights, say which judge it is; `test_accuracy` how good.
    """

    version: int | str = VERSION

    def __init__(self, dataset: str, fingerprint: str = "", test_accuracy: float = float("nan")) -> None:
        super().__init__()
        self.dataset, self.fingerprint, self.test_accuracy = dataset, fingerprint, test_accuracy
        self.body = nn.Sequential(
            *_block(1, 16),  # (B, 16, 16, 16)
            *_block(16, 32),  # (B, 32, 8, 8)
            *_block(32, 64),  # (B, 64, 4, 4)
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 4 * 4, NUM_FEATURES),
        )
        self.head = nn.Linear(NUM_FEATURES, 10)

    @property
    def name(self) -> str:
        """What must agree for two numbers to compare."""
        return f"{self.dataset}, version {self.version}, {self.fingerprint}"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 64) and logits (B, 10).

        The features are taken before their ReLU: nearer to a Gaussian, and none of them is zero everywhere.
        """
        features = self.body(images)
        return features, self.head(F.relu(features))

    @torch.inference_mode()
    def judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64) and the probabilities of the classes (N, 10), in float64 on the CPU, of any number."""
        parts = [self(chunk) for chunk in images.split(CHUNK)]
        features, logits = (torch.cat(part).cpu().double() for part in zip(*parts, strict=True))
        return features, logits.softmax(dim=1)


AnyJudge = TypeVar("AnyJudge", bound=Judge)


def _block(channels: int, out: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)  # BatchNorm has the bias
    return [conv, nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]


# -- the weights of the repository -----------------------------------------------------------------------


def weights_path(dataset: str) -> Path:
    """Where the weights of a dataset's judge lie."""
    return WEIGHTS / f"judge_{dataset}.pt"


def load_judge(dataset: str, device: torch.device | str = "cpu", path: Path | None = None) -> Judge:
    """The judge of a dataset, frozen. Raises UsageError if there is none, or one of another version or dataset."""
    path = path or weights_path(dataset)
    again = f"make it with python -m HW3.judge --dataset {dataset}"
    if not path.is_file():
        raise UsageError(f"there is no judge for {dataset} at {path}: {again}")
    judge = read_judge(path, Judge, again, device)
    if judge.dataset != dataset:
        raise UsageError(f"{path} judges {judge.dataset}, and {dataset} is needed: delete it and {again}")
    return judge


def read_judge(path: Path, kind: type[AnyJudge], again: str, device: torch.device | str = "cpu") -> AnyJudge:
    """The judge in a file, frozen. again: how to make one. Raises UsageError unless it is of this kind and version."""
    content = path.read_bytes()
    try:
        saved = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        version, dataset, accuracy, weights = (saved[key] for key in ("version", "dataset", "test_accuracy", "weights"))
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, IndexError, ValueError):
        raise UsageError(f"{path} is not a judge, or is damaged: delete it and {again}") from None
    if version != kind.version:
        raise UsageError(f"{path} is a judge of version {version}, this code has {kind.version}: delete it and {again}")
    judge = kind(dataset, hashlib.sha256(content).hexdigest()[:8], accuracy)
    try:
        judge.load_state_dict({name: value.float() for name, value in weights.items()})
    except (RuntimeError, AttributeError):
        raise UsageError(f"the weights in {path} do not fit the judge: delete it and {again}") from None
    return judge.to(device).eval().requires_grad_(False)


def save_judge(judge: Judge, test_accuracy: float, path: Path) -> None:
    """Write the weights, in half precision: the repository keeps them for ever."""
    weights = {name: value.half() for name, value in judge.state_dict().items() if value.is_floating_point()}
    weights |= {name: value for name, value in judge.state_dict().items() if not value.is_floating_point()}
    saved = {"version": judge.version, "dataset": judge.dataset, "test_accuracy": test_accuracy, "weights": weights}
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    write_atomically(path, buffer.getvalue())


# -- how they were made ----------------------------------------------------------------------------------


def train(dataset: str, data: ImageSet, epochs: int, batch_size: int) -> Judge:
    """Train a judge from the fixed seed, on images that are shifted a little at each visit."""
    torch.manual_seed(SEED)
    return fit(Judge(dataset), data, epochs, batch_size, lambda images, labels: (shifted(images), labels))


def fit(
    judge: AnyJudge,
    data: ImageSet,
    epochs: int,
    batch_size: int,
    vary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> AnyJudge:
    """Train a judge and freeze it. vary: what becomes of the images and labels of a batch at each visit."""
    judge = judge.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LR, weight_decay=1e-2, fused=True)
    bf16 = has_native_bf16(torch.device("cpu"))
    step, total_steps = 0, epochs * -(-len(data) // batch_size)
    for epoch in range(1, epochs + 1):
        for idx in torch.randperm(len(data)).split(batch_size):
            x, labels = vary(*data.batch(idx))  # (B, 1, 32, 32) in [0, 1], (B,)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                _, logits = judge(x)
            loss = F.cross_entropy(logits.float(), labels)

            optimizer.zero_grad()
            loss.backward()
            for params in optimizer.param_groups:
                params["lr"] = LR * warmup_cosine(step, total_steps)
            optimizer.step()
            step += 1
        print(f"epoch {epoch}/{epochs}  loss of the last batch {loss.item():.4f}", flush=True)
    return judge.eval().requires_grad_(False)


def shifted(images: Tensor) -> Tensor:
    """Each image moved by a random number of pixels in both directions; what enters is black."""
    n, size = len(images), images.shape[-1]
    padded = F.pad(images, [LARGEST_SHIFT] * 4)
    top, left = torch.randint(2 * LARGEST_SHIFT + 1, (2, n, 1))
    rows, columns = top + torch.arange(size), left + torch.arange(size)  # (B, size) each
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def accuracy(judge: Judge, data: ImageSet) -> float:
    """The fraction of a set that the judge gets right."""
    images, labels = data.batch(slice(None))
    _, probabilities = judge.judge(images)
    return (probabilities.argmax(dim=1) == labels).double().mean().item()


def round_weights(judge: Judge) -> None:
    """Make the weights those that `save_judge` writes, so that what is measured is what is written."""
    for value in judge.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())


def main() -> None:
    parser = Parser(__doc__ or "")
    parser.add_argument("--dataset", choices=DATASETS, required=True, help="whose images it should know")
    add_data_dir(parser)
    parser.add_argument("--out", type=Path, help="the file to write; by default the repository's, if it is not there")
    args = parser.parse_args()

    path = args.out or weights_path(args.dataset)
    if path.exists():
        raise UsageError(f"{path} is there: numbers of another judge do not compare with its; delete it, or give --out")
    data = load_dataset(args.dataset, args.data_dir)
    judge = train(args.dataset, data, EPOCHS[args.dataset], BATCH_SIZE[args.dataset])
    test = load_dataset(args.dataset, args.data_dir, train=False)
    round_weights(judge)
    score = accuracy(judge, test)
    save_judge(judge, score, path)
    print(f"{path}: {100 * score:.2f} % of the {len(test)} test images, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_main(main)
