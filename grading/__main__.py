"""The assignment's own commands.

examples:
  python -m grading todo                      what is done and what is left
  python -m grading pack --name "Ada Lovelace"    build the zip to hand in
  python -m grading release --out handout --push-safe   instructors: write the handout
  python -m grading grade submissions --out graded    instructors: grade what was handed in
  python -m grading gradescope --out autograder.zip   instructors: grade on Gradescope
  python -m grading export graded --to canvas --roster gradebook.csv    instructors: marks for the platform
  python -m grading return graded --to canvas --out feedback.zip    instructors: pages for the students
  python -m grading check                     instructors: is a graded function described everywhere alike?
  python -m grading refresh                   instructors: draw new hidden cases
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grading import pack, todo
from grading.errors import GradingError


def main() -> int:
    """Run one command; a mistake is one line, with exit code 1 or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m grading", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    todo.add_command(commands)
    pack.add_command(commands)
    if (Path(__file__).parent / "hidden" / "engine" / "command.py").is_file():
        from grading.hidden.doors import command as doors
        from grading.hidden.doors import gradescope
        from grading.hidden.doors.gradebook import command as gradebook
        from grading.hidden.engine import command as grade
        from grading.hidden.handout import release
        from grading.hidden.reference import check, refresh
        from grading.hidden.sandbox import doctor

        for command in (release, grade, gradescope, doors, gradebook, check, refresh, doctor):
            command.add_command(commands)
    args = parser.parse_args()
    try:
        if args.command in ("release", "grade", "gradescope", "refresh"):
            from grading.hidden.reference.check import require_agreement

            require_agreement()
        return args.run(args)
    except GradingError as error:
        print(f"grading: error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "grading", "HW3"):  # ours: a broken checkout, not a missing package
            raise
        print(
            f"grading: error: {package} is not installed: pip install -r requirements.txt, or activate .venv",
            file=sys.stderr,
        )
        return 2
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"grading: error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ngrading: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
