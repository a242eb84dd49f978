"""`python -m grading samples`: everybody's pictures, judged and compared. No submission's code is read or run.

What is measured is what `evaluate.py` measures (HW3/metrics.py), by another judge. Up to JUDGED pictures of a file are
looked at: numbers of more or fewer would not compare. They are drawn by a seed that follows from the judge's weights.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from grading.errors import GradingError
from grading.hidden.doors.leaderboard.arrays import CLASSES, Drawn, read_samples
from grading.hidden.doors.leaderboard.copies import Album, shifts
from grading.hidden.doors.leaderboard.judge import PrivateJudge, load, load_private
from grading.hidden.doors.leaderboard.pages import write_board, write_results
from grading.hidden.intake.inbox import Handin, Inbox, find, listed
from grading.hidden.intake.platforms import printable
from grading.hidden.intake.untrusted import Piece, Refused
from grading.hidden.reports.gradescope import results_in
from grading.hidden.reports.result import RESERVED
from grading.pack import MAX_SAMPLES_BYTES, SAMPLES
from grading.rubric import DISTANCE, MEASURES, Rubric, load_rubric
from HW3.data import ImageSet
from HW3.judge import NUM_FEATURES
from HW3.metrics import REFERENCE, frechet_distance, near_each_other

JUDGED = 1_000
FEWEST = NUM_FEATURES + 1  # for a covariance of the features
SEARCHED = 250  # pictures that are looked for in the training set, in nine places each

# Nearer than this, root mean square per pixel, are no two real digits: of 2,000 of MNIST's test images none is so near
# to one of the 60,000 training images, moved by a pixel or not, nor any of scikit-learn's (docs/ARCHITECTURE.md).
SAME = 0.025
# Between two students, nearer: from the same noise two trained models draw 5 % of their pictures within SAME.
SHARED = 0.015
MOST_SAME = 0.05  # the share of a file's pictures up to which it is not told


@dataclass
class Row:
    """What was found in one submission.

    measured: by measure; what is not there could not be measured.  flags: words of FLAGS.
    notes: sentences for the student.  asides: for the instructor, with names.  points: None where a person decides.
    """

    handin: Handin
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asides: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    points: float | None = None
    images: Tensor | None = None
    labels: Tensor | None = None

    @property
    def is_ranked(self) -> bool:
        """Whether it takes part in the ranking."""
        return not self.flags and DISTANCE in self.measured

    def flag(self, word: str, note: str) -> None:
        """Raise a flag, and say why."""
        self.flags += [word] * (word not in self.flags)
        self.notes.append(note)


# What a flag says. Those of the first kind are facts and cost the points; the others are for a person to look at.
BROKEN = {
    "missing": f"no {SAMPLES} was handed in",
    "unreadable": f"{SAMPLES} is not what sample.py writes",
    "too-few": f"fewer than {FEWEST} pictures: only the labels are judged",
}
SUSPICIOUS = {
    "copied": "pictures that are nearly those of the training set, or of another submission",
    "repeated": "the same picture many times",
    "unbalanced": "classes with less than half of their share",
}
FLAGS = BROKEN | SUSPICIOUS


def judge_inbox(
    paths: list[Path],
    out: Path,
    *,
    weights: Path,
    dataset: str | None,
    data_dir: Path,
    platform: str | None = None,
    bulk: bool = False,
) -> int:
    """Judge what is at `paths` and write the reports to `out`. Returns the exit code; the options are the command's."""
    rubric = load_rubric()
    judge = load_private(weights)
    if dataset not in (None, judge.dataset):
        raise GradingError(f"{weights} judges {judge.dataset}, not {dataset}: name another --judge or --dataset", 2)
    inbox = find_samples(paths, rubric, out, platform=platform, bulk=bulk)
    _refuse_others(out, inbox.handins)
    train, test = (load(judge.dataset, data_dir, train=train) for train in (True, False))
    board = Board(judge, train)
    rows, failures = [], []
    for handin in tqdm(inbox.handins, unit="submission", disable=None):
        try:
            rows.append(board.judge(handin, rubric))
        except Exception as error:  # whatever it is: the others are judged, and this is told at the end
            failures.append((handin.name, f"{type(error).__name__}: {error}"))
    compare(rows)
    for row in rows:
        decide(row, rubric)
    write_results(out, rows, rubric, judge)
    write_board(out, rows, rubric, judge, FLAGS, board.real(test))
    _account(inbox, rows, failures)
    print(f"{out / 'samples.csv'}  {out / 'leaderboard.html'}")
    return 1 if failures or inbox.strays else 0


# -- which submissions there are -----------------------------------------------------------------------------


def find_samples(paths: list[Path], rubric: Rubric, out: Path, *, platform: str | None, bulk: bool) -> Inbox:
    """The submissions, called as `grade` calls them, and .npz files that are named one by one."""
    files = [path for path in paths if path.name.lower().endswith(".npz") and not path.is_dir()]
    others = [path for path in paths if path not in files]
    # A folder with nothing but samples is a submission, too.
    more = replace(rubric, submit=(*rubric.submit, SAMPLES))
    inbox = find(others, more, platform=platform, bulk=bulk, out=out) if others else Inbox()
    names = {handin.name for handin in inbox.handins} | RESERVED
    for path in files:
        name = printable(path.name[: -len(".npz")])
        if not os.path.exists(path):
            raise GradingError(f"{printable(str(path))} does not exist, or may not be read", 2)
        if name in names or not name.strip(". "):
            raise GradingError(f"{printable(str(path))}: another submission is called {name}: rename the file", 2)
        names.add(name)
        real = Path(os.path.realpath(path))
        source = hashlib.sha256(os.fsencode(real)).hexdigest()[:32]
        inbox.handins.append(Handin(name, name.removeprefix("hw3-"), (Piece(SAMPLES, real),), source))
    inbox.handins.sort(key=lambda handin: handin.name)
    return inbox


def _refuse_others(out: Path, handins: Iterable[Handin]) -> None:
    """Results of `grade` get a leaderboard if they are of these submissions, and are not touched if they are not."""
    held = results_in(out) if out.is_dir() else {}
    foreign = [h.name for h in handins if h.name in held and held[h.name].source != h.source]
    if foreign:
        raise GradingError(
            f"{out} has results of submissions that lay elsewhere: {listed(foreign)}; name another --out", 2
        )


def read_handin(handin: Handin, rubric: Rubric) -> Drawn | Row:
    """The pictures of a submission, or its row where there are none. Raises nothing, whatever was handed in."""
    more = replace(rubric, submit=(*rubric.submit, SAMPLES), max_file_bytes=MAX_SAMPLES_BYTES)
    contents = handin.read(more)  # with the code, beside which it lies: code alone is not unreadable
    row = Row(handin)
    if SAMPLES in contents.files:
        try:
            return read_samples(contents.files[SAMPLES])
        except Refused as refusal:
            row.flag("unreadable", f"{SAMPLES} {refusal}.")
            return row
    row.notes += [note for note in contents.notes if contents.unreadable or SAMPLES in note]
    is_there = contents.unreadable or any(note.startswith(f"{SAMPLES} was not read") for note in row.notes)
    row.flags.append("unreadable" if is_there else "missing")
    return row


# -- judging them --------------------------------------------------------------------------------------------


class Board:
    """What pictures are judged by, and compared with."""

    def __init__(self, judge: PrivateJudge, train: ImageSet) -> None:
        self.judge_ = judge
        self.train = Album(train.images[:, 0])
        self.features, _ = judge.judge(train.subset(REFERENCE).batch(slice(None))[0])

    def judge(self, handin: Handin, rubric: Rubric) -> Row:
        """One submission, by itself."""
        drawn = read_handin(handin, rubric)
        if isinstance(drawn, Row):
            return drawn
        labels = torch.from_numpy(drawn.labels)
        chosen = self.chosen(len(labels))
        row = Row(handin, images=torch.from_numpy(drawn.images)[chosen], labels=labels[chosen])
        if len(labels) < FEWEST:
            few = f"{len(labels)} pictures are too few for a covariance of {NUM_FEATURES} features: {FEWEST} are needed"
            row.flag("too-few", f"{few}, and {JUDGED:,} are judged where they are there.")
        if scarce := scarce_classes(labels):
            row.flag("unbalanced", f"Few or none of the {len(labels):,} pictures are of {listed(scarce)}.")
        self._measure(row)
        self._look_for_copies(row)
        return row

    def chosen(self, n: int) -> Tensor:
        """Which of n pictures are judged."""
        source = torch.Generator().manual_seed(int(self.judge_.fingerprint, 16))
        return torch.randperm(n, generator=source)[:JUDGED]

    def real(self, test: ImageSet) -> dict[str, float]:
        """What real images get."""
        some = test.subset(JUDGED)
        return self._measured(*some.batch(slice(None)))

    def _measure(self, row: Row) -> None:
        assert row.images is not None
        assert row.labels is not None
        row.measured = self._measured(row.images[:, None].float().div_(255), row.labels)

    def _measured(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        features, probabilities = self.judge_.judge(images)
        found = {"label_accuracy": (probabilities.argmax(dim=1) == labels).double().mean().item()}
        if len(images) < FEWEST:
            return found
        found[DISTANCE] = frechet_distance(features, self.features).value
        near = near_each_other(features, self.features[: len(features)])
        return found | {name: values.mean().item() for name, values in near.items()}

    def _look_for_copies(self, row: Row) -> None:
        assert row.images is not None
        some = row.images[:SEARCHED]
        distance = torch.stack([self.train.nearest(moved, SAME)[0] for moved in shifts(some)]).amin(dim=0)
        if is_told(same := int((distance < SAME).sum()), len(some)):
            row.flag("copied", f"{same} of {len(some)} pictures are nearly the same as images of the training set.")
        distance, _ = Album(row.images).nearest(row.images, SAME, but_itself=True)
        if is_told(same := int((distance < SAME).sum()), len(row.images)):
            row.flag(
                "repeated", f"{same} of {len(row.images)} pictures are nearly the same as another one of the file."
            )


def is_told(same: int, n: int) -> bool:
    """Whether so many of n pictures are too many to be chance."""
    return same > max(1, MOST_SAME * n)


def scarce_classes(labels: Tensor) -> list[str]:
    """The classes that have less than half of their share, and less than chance would give them."""
    share = len(labels) / CLASSES
    least = max(1.0, min(share / 2, share - 3 * share**0.5))
    return [str(label) for label, count in enumerate(labels.bincount(minlength=CLASSES).tolist()) if count < least]


def compare(rows: list[Row]) -> None:
    """Flag pictures that two submissions have."""
    drawn = [(row, row.images) for row in rows if row.images is not None]
    if len(drawn) < 2:
        return
    albums = [Album(images) for _, images in drawn]
    for i, (row, images) in enumerate(tqdm(drawn, desc="comparing", unit="submission", disable=None, leave=False)):
        for (other, _), album in zip(drawn[:i], albums[:i], strict=True):
            distance, _ = album.nearest(images, SHARED)
            same = int((distance < SHARED).sum())
            if is_told(same, min(len(images), len(album.images))):
                for one, another in ((row, other), (other, row)):
                    one.flag("copied", f"{same} pictures are nearly the same as those of another submission.")
                    one.asides.append(f"{same} pictures are nearly the same in {another.handin.name}.")


def decide(row: Row, rubric: Rubric) -> None:
    """The rubric's points: none for what is broken, and none yet for what somebody should look at."""
    if rubric.samples is None or set(row.flags) & SUSPICIOUS.keys():
        return
    row.points = 0.0 if row.flags else rubric.samples.points({name: row.measured[name] for name in MEASURES})


def _account(inbox: Inbox, rows: list[Row], failures: list[tuple[str, str]]) -> None:
    """Say what became of everything that was given."""
    flags = Counter(flag for row in rows for flag in row.flags)
    of_each = ", ".join(f"{flags[flag]} {flag}" for flag in FLAGS if flags[flag])
    given = f"{len(inbox.handins) + len(inbox.strays)} given, {len(rows)} judged" + (f" ({of_each})" if of_each else "")
    given += f", {len(failures)} could not be judged" if failures else ""
    print(f"{given}, {len(inbox.strays)} not understood" + (":" if inbox.strays else ""))
    for name, reason in inbox.strays:
        print(f"  {name} {reason}")
    for name, reason in failures:
        print(f"grading: error: {name} could not be judged: {reason}", file=sys.stderr)
