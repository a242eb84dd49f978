"""`python -m grading refresh`: new hidden cases, from a secret that is kept nowhere, tried before they are written.

What is stored afterwards is the record: nothing can make the same cases again, and nothing has to.
"""

from __future__ import annotations

import argparse
import csv
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grading.cases import HIDDEN, Case, save_cases
from grading.errors import GradingError
from grading.hidden.handout.release import release_list
from grading.rubric import load_rubric
from grading.submission import ROOT

SECRET_BITS = 128
DRAWS = 3  # one in a hundred is no good by chance; a mistake in the code makes all so
EXAMPLES = """\
examples:
  python -m grading refresh                              new hidden cases
  python -m grading refresh --check last-year/           the same, if last year's submissions keep their points
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "refresh",
        help="instructors: draw new hidden cases",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=_seed, help="draw from this number and not from a secret of 128 bits")
    parser.add_argument(
        "--check",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="submissions to grade on the old and on the new cases; if any points differ, nothing is written",
    )
    parser.add_argument("--isolation", choices=("auto", "sandbox", "process"), default="auto", help="as for `grade`")
    parser.set_defaults(run=_run)


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("0 or more")
    return value


def _run(args: argparse.Namespace) -> int:
    secret = args.seed
    if secret is None:
        secret = secrets.randbits(SECRET_BITS)
    else:
        print(
            f"grading: warning: whoever knows this number and this code knows the cases: keep it to yourself, and take "
            f"one of {SECRET_BITS} bits; without --seed nobody can know it",
            file=sys.stderr,
        )
    made = draw(secret)
    if args.check:
        changed = list(differences(made, args.check, args.isolation))
        if changed:
            print("\n".join(changed))
            places = f"{len(changed)} place{'s' * (len(changed) != 1)}"
            print(f"points differ in {places}: nothing was written", file=sys.stderr)
            return 1
        print("every submission keeps its points")
    for line in write(made, HIDDEN):
        print(line)
    return 0


def draw(secret: int) -> dict[str, list[Case]]:
    """All hidden cases, by id, from a secret; from the numbers after it where chance made cases that are no good.

    Raises GradingError, in one line, if it does so every time.
    """
    import torch

    from grading.hidden.reference import make_cases, verify

    torch.set_num_threads(1)
    print("trying every answer of the bank on them: half a minute", file=sys.stderr)
    for number in range(secret, secret + DRAWS):
        made = {id: make_cases.hidden_cases(id, number) for id in make_cases.MAKERS}
        found = list(verify.problems([case for cases in made.values() for case in cases]))
        if not found:
            return made
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        print(f"draw {number - secret + 1} of {DRAWS}: {found[0]}{more}", file=sys.stderr)
    raise GradingError(f"{DRAWS} draws were no good: nothing was written; see the lines above")


def write(made: dict[str, list[Case]], folder: Path) -> Iterator[str]:
    """Put the cases in the place of those in `folder`, all or none, and say what changed, a line for each id."""
    lines = [f"{id}: {_counted(len(cases))} on new inputs" for id, cases in made.items()]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".refresh-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        for id, cases in made.items():
            save_cases(new / f"{id}.npz", cases)
        try:
            folder.rename(old)
            new.rename(folder)
        except BaseException:
            if not folder.exists():
                old.rename(folder)
            raise
    yield from lines
    yield f"written to {folder}: commit it, it is the only record"


def _counted(cases: int) -> str:
    return f"{cases} case{'s' * (cases != 1)}"


# -- do verdicts stay? -----------------------------------------------------------------------------------


def differences(made: dict[str, list[Case]], paths: list[Path], isolation: str) -> Iterator[str]:
    """A line for each submission and id whose points on these cases are not those on the stored ones."""
    with tempfile.TemporaryDirectory(prefix="hw3-refresh-") as scratch:
        tree = _tree_with(made, Path(scratch) / "tree")
        graded = [
            _graded(root, paths, Path(scratch) / name, isolation) for root, name in ((ROOT, "old"), (tree, "new"))
        ]
        before, after = graded
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name, {}), after.get(name, {})
            for id in load_rubric().functions:
                if old.get(id) != new.get(id):  # written by the same code, so the same points are the same text
                    yield f"{name}: {id} {old.get(id, 'not graded')} -> {new.get(id, 'not graded')}"


def _tree_with(made: dict[str, list[Case]], tree: Path) -> Path:
    """What `grade` needs of this tree, with other hidden cases."""
    for origin in release_list(load_rubric()):
        (tree / origin).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / origin, tree / origin)
    shutil.copytree(
        ROOT / "grading", tree / "grading", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    for id, cases in made.items():
        save_cases(tree / HIDDEN.relative_to(ROOT) / f"{id}.npz", cases)
    return tree


def _graded(tree: Path, paths: list[Path], out: Path, isolation: str) -> dict[str, dict[str, str]]:
    """Submission -> id -> points, by the `grade` of a tree."""
    places = [str(path.resolve()) for path in paths]
    command = [sys.executable, "-m", "grading", "grade", *places, "--out", str(out), "--isolation", isolation]
    done = subprocess.run(command, cwd=tree, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1) or not (out / "grades.csv").is_file():  # 1: some could not be graded
        raise GradingError("the submissions could not be graded: nothing was written", exit_code=done.returncode or 1)
    with (out / "grades.csv").open(newline="", encoding="utf-8") as file:
        ids = load_rubric().functions
        return {row["submission"]: {id: row[id] for id in ids} for row in csv.DictReader(file)}
