"""`python -m grading export` and `return`: the command lines. What does the work is imported when it is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from grading.errors import not_installed

EXPORT = """\
examples:
  python -m grading export graded --to canvas --roster gradebook.csv --column "HW3 (12345)"
  python -m grading export graded --to moodle --roster worksheet.csv --out upload.csv
"""
RETURN = """\
examples:
  python -m grading return graded --to canvas --out feedback.zip
  python -m grading return graded --to folder --out feedback.zip
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register both commands."""
    export = _parser(commands, "export", "marks into the file that a learning platform exported", EXPORT)
    export.add_argument("--to", choices=("canvas", "moodle", "csv"), required=True, help="whose file the roster is")
    export.add_argument("--roster", type=Path, required=True, help="what the platform exported; it stays as it is")
    export.add_argument("--column", help="where the marks go (default: Canvas: the title, Moodle: Grade, csv: total)")
    export.add_argument("--out", type=Path, help="the file to write (default: beside the roster)")
    export.set_defaults(run=_export)
    back = _parser(commands, "return", "the students' pages as a platform takes them back", RETURN)
    back.add_argument("--to", choices=("canvas", "moodle", "folder"), required=True, help="who takes it back")
    back.add_argument("--out", type=Path, required=True, help="the zip to write")
    back.add_argument("--submissions", type=Path, help="what was downloaded, if the results do not know its names")
    back.set_defaults(run=_return)


def _parser(commands: argparse._SubParsersAction, name: str, what: str, examples: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=f"instructors: {what}",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grades", type=Path, metavar="GRADES_DIR", help="the folder that `grade` wrote")
    return parser


def _export(args: argparse.Namespace) -> int:
    try:
        from grading.hidden.doors import export
    except ImportError as error:
        raise not_installed(error, "this", "requirements-instructor.txt") from error
    return export.run(args)


def _return(args: argparse.Namespace) -> int:
    try:
        from grading.hidden.doors import returns
    except ImportError as error:
        raise not_installed(error, "this", "requirements-instructor.txt") from error
    return returns.run(args)
