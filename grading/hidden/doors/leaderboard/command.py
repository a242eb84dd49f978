"""`python -m grading samples`: the command line. What does the work is imported when it is asked for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from grading.errors import GradingError, not_installed
from grading.hidden.intake.platforms import PLATFORMS
from grading.submission import ROOT

DATASETS = ("mnist", "fashion_mnist", "digits")
JUDGE = Path("result/leaderboard/judge.pt")  # below the tree, where git ignores it
EXAMPLES = """\
examples:
  python -m grading samples --train-judge                          once: a judge that students do not have
  python -m grading samples submissions/ --out board               judge everybody's samples.npz
  python -m grading samples submissions.zip --out board --platform canvas
  python -m grading samples ada.npz bob.npz --out board
  python -m grading samples --train-judge digits.pt --dataset digits
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "samples",
        help="instructors: judge the pictures that students drew; runs nobody's code",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="PATH", help="what `grade` takes, or .npz files")
    add("--out", type=Path, help="folder for samples.csv and leaderboard.html; may be that of `grade`")
    add("--judge", type=Path, default=ROOT / JUDGE, metavar="FILE", help=f"the judge's weights (default: {JUDGE})")
    add(
        "--train-judge",
        nargs="?",
        type=Path,
        const=ROOT / JUDGE,
        metavar="FILE",
        help=f"train a judge and write its weights (default: {JUDGE})",
    )
    add(
        "--dataset",
        choices=DATASETS,
        help="what students trained on (default: mnist for a new judge, else the judge's)",
    )
    add(
        "--data-dir",
        type=Path,
        default=os.environ.get("HW3_DATA_DIR", "data"),
        help="where MNIST lies (default: HW3_DATA_DIR, else data)",
    )
    add("--platform", choices=sorted(PLATFORMS), help="as for `grade`")
    add("--bulk", action="store_true", help="as for `grade`")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.train_judge and (args.paths or args.out):
        raise GradingError("--train-judge takes no PATH and no --out: train first, then judge with --judge FILE", 2)
    if not args.train_judge and not (args.paths and args.out):
        raise GradingError("name the submissions and --out DIR (or --train-judge): python -m grading samples --help", 2)
    try:
        from grading.hidden.doors.leaderboard import board, judge
    except ImportError as error:
        raise not_installed(error, "this", "requirements-instructor.txt") from error
    if args.train_judge:
        print(judge.make_judge(args.train_judge, args.dataset or "mnist", args.data_dir))
        return 0
    return board.judge_inbox(
        args.paths,
        args.out,
        weights=args.judge,
        dataset=args.dataset,
        data_dir=args.data_dir,
        platform=args.platform,
        bulk=args.bulk,
    )
