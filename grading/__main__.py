"""The assignment's own commands.

examples:
  python -m grading todo                          what is done and what is left
  python -m grading pack --name "Ada Lovelace"    build the zip to hand in
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grading import pack, todo
from grading.errors import GradingError


def main() -> int:
    """Run one command; a mistake is one line, with exit code 1 or 2."""
    is_instructors = (Path(__file__).parent / "hidden" / "commands.py").is_file()  # a handout has the student's only
    if is_instructors:
        from grading.hidden.commands import EXAMPLES, add_commands
    parser = argparse.ArgumentParser(
        prog="python -m grading",
        description=f"{__doc__}{EXAMPLES if is_instructors else ''}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    todo.add_command(commands)
    pack.add_command(commands)
    if is_instructors:
        add_commands(commands)
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
