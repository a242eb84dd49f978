"""`python -m grading pack`: the zip to hand in, with exactly the files that the rubric names."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from grading.errors import GradingError
from grading.rubric import Rubric, load_rubric
from grading.submission import ORIGINALS, ROOT
from grading.todo import status

MANIFEST = ORIGINALS / "manifest.json"  # sha256 of every file of the handout


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("pack", help="build the zip to hand in, and run the self-check")
    parser.add_argument("--name", help="your name, for the file's name (default: your user name)")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder for the zip (default: the assignment's)")
    parser.add_argument("--no-check", action="store_true", help="do not run the self-check")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    rubric = load_rubric()
    name = re.sub(r"[^\w-]+", "-", args.name or getpass.getuser()).strip("-").lower()
    if not name:
        raise GradingError("--name needs at least one letter or digit", exit_code=2)
    path = args.out / f"hw3-{name}.zip"
    packed = write_zip(path, rubric, ROOT)
    for warning in warnings(rubric, ROOT):
        print(f"warning: {warning}")
    left = [id for id, state in status(rubric, ROOT).items() if state == "to do"]
    if left:
        print(f"still to do: {', '.join(left)}")
    print(f"packed {len(packed)} files into {path}: {', '.join(packed)}")
    if not args.no_check:
        print("self-check (pytest grading/):", flush=True)
        subprocess.run(
            [sys.executable, "-m", "pytest", "grading/", "-q", "--tb=no", "--no-header"], cwd=ROOT, check=False
        )
    return 0


def write_zip(path: Path, rubric: Rubric, root: Path) -> list[str]:
    """Pack the rubric's files that are there. Raises GradingError when none is, or the zip cannot be written."""
    files = [file for file in rubric.submit if (root / file).is_file()]
    if not files:
        raise GradingError(f"none of {', '.join(rubric.submit)} is in {root}: run this in the assignment's folder", 2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(root / file, file)
    except OSError as error:
        raise GradingError(f"cannot write {path}: {error.strerror}") from error
    return files


def warnings(rubric: Rubric, root: Path) -> list[str]:
    """What the author should know before handing in."""
    found = []
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8")) if MANIFEST.is_file() else {}
    for file in rubric.submit:
        path = root / file
        if not path.is_file():
            found.append(f"{file} is missing; its functions will get no points")
        elif path.stat().st_size > rubric.max_file_bytes:
            found.append(f"{file} is larger than {rubric.max_file_bytes:,} bytes and will not be read")
        elif digest(path) == manifest.get(file):
            found.append(f"{file} is as it was handed out")
    for file, handed_out in manifest.items():
        path = root / file
        if file not in rubric.submit and (not path.is_file() or digest(path) != handed_out):
            found.append(f"{file} was changed or deleted, but is not handed in: grading uses the original")
    return found


def digest(path: Path) -> str:
    """sha256 of a file, whatever its line endings."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
