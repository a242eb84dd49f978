"""The assignment's own commands.

examples:
  python -m grading todo                      what is done and what is left
  python -m grading pack --name "Ada Lovelace"    build the zip to hand in
  python -m grading release --out handout --git   instructors: write the handout
  python -m grading grade submissions --out graded    instructors: grade what was handed in
  python -m grading check                     instructors: is a graded function described everywhere alike?
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
        from grading.hidden.doors.gradebook import command as gradebook
        from grading.hidden.engine import command as grade
        from grading.hidden.handout import release
        from grading.hidden.reference import check
        from grading.hidden.sandbox import doctor

        for command in (release, grade, gradebook, check, doctor):
            command.add_command(commands)
    args = parser.parse_args()
    try:
        if args.command in ("release", "grade"):
            from grading.hidden.reference.check import require_agreement

            require_agreement()
        return args.run(args)
    except GradingError as error:
        print(f"grading: error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"grading: error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ngrading: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
