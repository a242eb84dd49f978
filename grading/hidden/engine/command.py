"""`python -m grading grade`: the command line. run.py does the work, and imports what has to be installed for it."""

from __future__ import annotations

import argparse
import math
import os
from datetime import datetime
from pathlib import Path

from grading.errors import GradingError, not_installed
from grading.hidden.decisions.lateness import moment
from grading.hidden.intake.platforms import PLATFORMS

EXAMPLES = """\
examples:
  python -m grading grade submissions/ --out graded             folders and zips, or an LMS's export
  python -m grading grade ada.zip --out graded                  one submission
  python -m grading grade submissions.zip --out graded --platform canvas
  python -m grading grade submissions/ --out graded --resume    go on, or grade what has changed
  python -m grading grade submissions/ --out graded --late-csv late.csv
  python -m grading grade submissions/ --out graded --scheduler tls://head:8786    on a dask cluster
  python -m grading grade submissions/ --out graded --resume --roster roster.csv --overrides overrides.csv
  python -m grading grade hw3-submissions/ --out graded --before 2026-03-01T23:59
  python -m grading grade ada.zip --out disputed --only kl --keep
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "grade",
        help="instructors: grade submissions",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="a submission (folder or zip), or a folder of them")
    add(
        "--platform",
        choices=sorted(PLATFORMS),
        help="whose export it is, where the names do not tell; plain: nobody's, names are taken as they are",
    )
    add("--bulk", action="store_true", help="every PATH holds several submissions; needed for zips of zips")
    add("--out", type=Path, required=True, help="folder for grades.csv, summary.html and a folder per submission")
    add("--workers", type=_at_least_one, default=os.cpu_count() or 1, help="submissions at a time (default: cores)")
    add("--replace", action="store_true", help="overwrite results of submissions that lay elsewhere")
    add("--resume", action="store_true", help="skip submissions whose result is there and would be the same")
    add(
        "--isolation",
        choices=("auto", "sandbox", "process"),
        default="auto",
        help="auto and sandbox: confine submissions, or refuse to grade; process: only a process of their own",
    )
    add("--only", action="append", metavar="ID", help="grade this function only; may be repeated")
    add("--keep", action="store_true", help="with --only: leave a folder in which a disputed mark can be replayed")
    add("--timeout", type=_seconds, default=10.0, help="seconds for one call (default: 10); a submission has six times")
    add(
        "--late-csv",
        type=Path,
        help="columns `submission` or `student`, and `hours_late` or `submitted_at`; `extension_hours`, `slip_days`; "
        "the policy is the rubric's",
    )
    add("--due", type=_date, metavar="DATE", help="when it was due, where the platform says when each was handed in")
    add("--before", type=_date, metavar="DATE", help="of clones: grade the last commit at or before this")
    add("--roster", type=Path, help="the course's students: Canvas, Moodle, GitHub Classroom, or a column `student`")
    add("--overrides", type=Path, help="columns `student` or `submission`, `id` (or total), `points`, `reason`")
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="grade on the dask.distributed cluster at tls://HOST:PORT, or at tcp://127.0.0.1:PORT; "
        "--workers is then how many submissions are under way",
    )
    parser.set_defaults(run=_run)


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("a positive number of seconds")
    return value


def _date(text: str) -> datetime:
    try:
        return moment(text, "")
    except GradingError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from None


def _run(args: argparse.Namespace) -> int:
    if args.keep and not args.only:
        raise GradingError("--keep goes with --only ID: say which function is disputed", exit_code=2)
    try:
        from grading.hidden.engine import run
    except ImportError as error:
        raise not_installed(error, "grading", "requirements-instructor.txt") from error
    return run.grade_inbox(
        args.paths,
        args.out,
        platform=args.platform,
        bulk=args.bulk,
        replace=args.replace,
        workers=args.workers,
        resume=args.resume,
        isolation="process" if args.isolation == "process" else "sandbox",
        only=args.only,
        timeout=args.timeout,
        late_csv=args.late_csv,
        scheduler=args.scheduler,
        roster=args.roster,
        overrides=args.overrides,
        due=args.due,
        before=args.before,
        keep=args.keep,
    )
