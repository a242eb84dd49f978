"""`python -m grading nbgrader`: the command line. course.py and sync.py do the work, and import nbgrader."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from grading.errors import GradingError
from grading.hidden.intake.platforms import PLATFORMS
from grading.rubric import load_rubric

EXAMPLES = """\
examples:
  python -m grading nbgrader init course                          a course with the assignment hw3
  python -m grading nbgrader sync graded --course course          the points of `grade --out graded`
  python -m grading nbgrader sync graded --course course --submissions submissions/
                                                                  and students' code and written part
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "nbgrader",
        help="instructors: an nbgrader course for the written part, with the grader's points in it",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    init = steps.add_parser("init", help="make a course")
    init.add_argument("course", type=Path, metavar="COURSE_DIR", help="folder to write; it must be new or empty")
    init.set_defaults(run=_init)
    sync = steps.add_parser("sync", help="write points into a course's gradebook; again after each grading")
    sync.add_argument("grades", type=Path, metavar="GRADES_DIR", help="what `grade --out` wrote")
    sync.add_argument("--course", type=Path, required=True, metavar="COURSE_DIR", help="what `init` made")
    sync.add_argument(
        "--submissions",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="the PATHs that were graded: shows students' code, and takes their analysis.ipynb and its pictures",
    )
    sync.add_argument("--platform", choices=sorted(PLATFORMS), help="as it was given to `grade`")
    sync.add_argument("--bulk", action="store_true", help="as it was given to `grade`")
    sync.set_defaults(run=_sync)


def _require_nbgrader() -> None:
    if importlib.util.find_spec("nbgrader") is None:
        raise GradingError("nbgrader is not installed: pip install -r requirements-instructor.txt", exit_code=2)


def _init(args: argparse.Namespace) -> int:
    _require_nbgrader()
    from grading.hidden.doors.gradebook.course import ASSIGNMENT, make_course

    make_course(args.course, load_rubric())
    print(f"{args.course}: a course with {ASSIGNMENT}; give students what is in {args.course / 'release' / ASSIGNMENT}")
    return 0


def _sync(args: argparse.Namespace) -> int:
    _require_nbgrader()
    from grading.hidden.doors.gradebook.sync import sync

    return sync(args.grades, args.course, args.submissions, platform=args.platform, bulk=args.bulk)
