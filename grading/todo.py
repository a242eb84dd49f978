"""`python -m grading todo`: which graded functions are still to be written. Nothing is imported or run."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

from grading.rubric import Rubric, load_rubric
from grading.submission import ROOT


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("todo", help="list what is done and what is left")
    parser.set_defaults(run=lambda args: _run())


def _run() -> int:
    rubric = load_rubric()
    states = status(rubric, ROOT)
    for id, state in states.items():
        function = rubric.functions[id]
        print(f"{state:<10} {id:<16}{function.points:>4g} points   {function.name} in {function.file}")
    left = sum(state != "written" for state in states.values())
    print(f"{len(states) - left} of {len(states)} written; `pytest grading/` says which are right")
    return 0


def status(rubric: Rubric, root: Path) -> dict[str, str]:
    """id -> "written" | "to do" | "missing" (its file) | "unreadable" (a syntax error in its file)."""
    states = {}
    for id, function in rubric.functions.items():
        path = root / function.file
        try:
            left = open_todos(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            states[id] = "missing"
        except (SyntaxError, ValueError):
            states[id] = "unreadable"
        else:
            states[id] = "to do" if id in left else "written"
    return states


def open_todos(source: str) -> set[str]:
    """The ids whose `raise NotImplementedError("TODO(id): ...")` still stands. Raises SyntaxError."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = node.exc.args[0]
            if isinstance(text, ast.Constant) and (match := re.match(r"TODO\(([\w-]+)\)", str(text.value))):
                found.add(match[1])
    return found
