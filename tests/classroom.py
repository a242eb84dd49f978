"""Submissions for the tests of the grader: the bank's entries as files, and the command that grades them."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import Any

from grading.hidden.handout.release import build, write_tree
from grading.hidden.reference.bank import PLACES, Entry
from grading.hidden.reports.result import FunctionResult, Result
from grading.rubric import load_rubric
from harness import ROOT, child_env, hears_ctrl_c

SUBMIT = load_rubric().submit

# What stands in a submission's file for the bank's own registry.
_SHIM = """

_BANK = {}


def _register(id, _):
    def register(function):
        _BANK[id, function.__name__] = function
        return function
    return register


def _bank():
    chaff = wheat = _register
"""


@cache
def solution() -> dict[str, bytes]:
    """The tree's own files: full marks."""
    return {file: (ROOT / file).read_bytes() for file in SUBMIT}


@cache
def handout() -> dict[str, bytes]:
    """The files as students receive them: no marks."""
    return {file: build(ROOT)[0][file] for file in SUBMIT}


def from_bank(entry: Entry) -> dict[str, bytes]:
    """The tree's own files with one graded function replaced by an entry of the bank."""
    file, place = PLACES[entry.id]
    module = Path(sys.modules[entry.function.__module__].__file__)
    lines = [line for line in module.read_text().splitlines() if not line.startswith("from __future__")]
    lines = [line for line in lines if not line.startswith("from grading.hidden.reference.bank import")]
    body = "".join(f"    {line}\n" for line in lines)
    text = f"{_SHIM}{body}\n\n_bank()\n{place} = _BANK[{entry.id!r}, {entry.function.__name__!r}]\n"
    return {**solution(), file: solution()[file] + text.encode()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """A submission as a folder."""
    write_tree(folder, files)
    return folder


def graded(submission: str, student: str = "", **changes: Any) -> Result:
    """A result with all points, as if it had been graded."""
    functions = [
        FunctionResult(id, function.points, function.points, {group: [2, 2] for group in function.weights})
        for id, function in load_rubric().functions.items()
    ]
    return Result(submission, student or submission, "f00d", "sandbox", functions, **changes)


def copy_tree(folder: Path) -> Path:
    """The instructor's tree without what work in it leaves."""
    left = (".git", ".venv", "__pycache__", ".*_cache", "data", "demo", "result")
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left))


def start(*args: object, tree: Path = ROOT, **env: str) -> Popen[str]:
    """`python -m grading ARGS...`, running."""
    command = [sys.executable, "-m", "grading", *map(str, args)]
    return Popen(command, cwd=tree, env=child_env(**env), stdout=PIPE, stderr=PIPE, text=True, preexec_fn=hears_ctrl_c)


def grading(*args: object, tree: Path = ROOT, **env: str) -> CompletedProcess[str]:
    """`python -m grading ARGS...`, done. env: TMPDIR, for one, below which the workers' files are."""
    process = start(*args, tree=tree, **env)
    out, err = process.communicate(timeout=600)
    return CompletedProcess(process.args, process.returncode, out, err)


def grades(out: Path) -> dict[str, dict[str, str]]:
    """grades.csv by submission."""
    with (out / "grades.csv").open(newline="", encoding="utf-8") as file:
        return {row["submission"]: row for row in csv.DictReader(file)}


def comparable(out: Path) -> dict[str, object]:
    """Everything that a run wrote about submissions, without times.

    Of exploits the points only: some of them race with themselves and crash here or there, or read what happens to
    be in memory.
    """
    found: dict[str, object] = {}
    for name, row in grades(out).items():
        if name.startswith("exploit-"):
            found[name] = {key: value for key, value in row.items() if key != "status"}
            continue
        result = json.loads((out / name / "results.json").read_text())["extra_data"]["result"]
        for function in result["functions"]:
            del function["seconds"]
        del result["seconds"]
        found[name] = (row, result)
    return found


def processes_in(folder: Path) -> list[str]:
    """Zygotes and workers of a run work in folders below its TMPDIR."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # not a process, or another user's
            if (entry / "cwd").readlink().is_relative_to(folder):
                found.append(entry.name)
    return found
