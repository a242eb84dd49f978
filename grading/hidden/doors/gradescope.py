"""`python -m grading gradescope`: write the zip that Gradescope builds its autograder from.

What goes into it is what `autograder.py` imports, the files that the handout is made of, and the hidden cases. It holds
no solution, nothing of the bank, and nothing that made the cases.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from grading.cases import HIDDEN, PUBLIC, load_cases
from grading.errors import GradingError
from grading.hidden.engine.session import CALLS_PER_SUBMISSION
from grading.hidden.handout.regions import without_guides, without_solutions
from grading.hidden.handout.release import ANALYSIS, release_list
from grading.hidden.sandbox.surroundings import WORKER_FILES
from grading.rubric import Rubric, check_cases, load_rubric, note_total
from grading.submission import ROOT

FILES = Path(__file__).parent / "files" / "gradescope"
RUNS = "grading/hidden/doors/autograder.py"  # what run_autograder starts

MINUTES = 10  # Gradescope's own limit, unless its settings say another one
FEWEST, MOST = 3, 40
START = 110.0  # seconds of the limit for starting, on half a processor, and for what may go wrong
CALLS = CALLS_PER_SUBMISSION + 1  # that run into their limit, at most, and one to spare
LONGEST = 10.0  # seconds for one call

VISIBILITIES = ("visible", "after_due_date", "after_published", "hidden")
EXAMPLES = """\
examples:
  python -m grading gradescope --out autograder.zip
  python -m grading gradescope --out autograder.zip --time-limit 20     minutes, as in the assignment's settings
  python -m grading gradescope --out autograder.zip --visibility after_due_date
  python -m grading gradescope --out final.zip --cases other-cases/     for the last run, with other hidden cases
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "gradescope",
        help="instructors: write the zip for Gradescope's autograder",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the zip to write")
    add("--time-limit", type=_minutes, default=MINUTES, metavar="MINUTES", help="Gradescope's limit (default: 10)")
    add("--visibility", choices=VISIBILITIES, help="when students see points and feedback (default: the rubric's)")
    add("--cases", type=Path, default=HIDDEN, metavar="DIR", help="other hidden cases than those of this tree")
    add("--no-penalty", action="store_true", help="tell lateness and take nothing off, where the platform does")
    parser.set_defaults(run=_run)


def _minutes(text: str) -> int:
    value = int(text)
    if not FEWEST <= value <= MOST:
        raise argparse.ArgumentTypeError(f"from {FEWEST} to {MOST} minutes, as Gradescope allows")
    return value


def _run(args: argparse.Namespace) -> int:
    rubric = load_rubric()
    note_total(rubric)
    files = autograder(rubric, args.cases, args.time_limit, visibility=args.visibility, penalty=not args.no_penalty)
    write_zip(args.out, files)
    print(f"{args.out}: {len(files)} files; nobody but Gradescope and you may have it, as it holds the hidden cases")
    return 0


def autograder(
    rubric: Rubric,
    cases: Path = HIDDEN,
    minutes: int = MINUTES,
    *,
    visibility: str | None = None,
    penalty: bool = True,
) -> dict[str, bytes]:
    """place -> content of everything in the zip.

    cases: the folder of the hidden cases.  minutes: Gradescope's limit.  visibility: instead of the rubric's.
    penalty: whether lateness costs what the rubric says. Raises GradingError when a file is missing, and when the cases
    are not the rubric's.
    """
    places = {*release_list(rubric), *imported(RUNS), "requirements-grading.txt"}
    places |= {f"grading/hidden/sandbox/{name}" for name in WORKER_FILES}
    files = {place: _read(ROOT / place) for place in sorted(places)}
    for place in rubric.submit:
        files[place] = without_solutions(files[place].decode("utf-8"), place).encode("utf-8")
    files[ANALYSIS] = without_guides(files[ANALYSIS].decode("utf-8"), ANALYSIS).encode("utf-8")
    files |= {f"{HIDDEN.relative_to(ROOT).as_posix()}/{id}.npz": _read(cases / f"{id}.npz") for id in rubric.functions}
    _check_cases(rubric, cases)
    settings = {"timeout": seconds_per_call(minutes), "visibility": visibility, "penalty": penalty}
    files["settings.json"] = json.dumps(settings, indent=1).encode() + b"\n"
    files["requirements-torch.txt"] = _torch(files["requirements.txt"].decode("utf-8")).encode()
    for path in sorted(FILES.iterdir()):
        text = path.read_text(encoding="utf-8")  # with the ends of lines that a shell wants, whatever git made of them
        files[path.name] = text.replace("@SECONDS@", str(60 * minutes - 15)).encode()
    return files


def seconds_per_call(minutes: int) -> float:
    """The engine's --timeout with which a submission that runs into every limit is graded before Gradescope's."""
    return min(LONGEST, round((60 * minutes - START) / CALLS, 1))


def imported(file: str) -> set[str]:
    """The files of grading/ that are run when `file` is imported: itself and what it imports, directly or not."""
    found: set[str] = set()
    left = [file]
    while left:
        place = left.pop()
        if place in found or not (ROOT / place).is_file():
            continue
        found.add(place)
        left += [f"{folder.as_posix()}/__init__.py" for folder in Path(place).parents if folder.name]
        for node in ast.parse((ROOT / place).read_text(encoding="utf-8"), place).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "grading":
                module = str(node.module).replace(".", "/")
                left += [f"{module}.py", *(f"{module}/{name.name}.py" for name in node.names)]
            elif isinstance(node, ast.Import):
                left += [f"{name.name.replace('.', '/')}.py" for name in node.names]
    return found


def _check_cases(rubric: Rubric, folder: Path) -> None:
    """Raise GradingError unless the hidden cases of a folder have the rubric's ids and groups."""
    try:
        hidden = [case for id in rubric.functions for case in load_cases(folder / f"{id}.npz", hidden=True)]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise GradingError(f"{folder} holds no hidden cases that can be read: {error}", exit_code=2) from error
    public = [case for id in rubric.functions for case in load_cases(PUBLIC / f"{id}.npz", hidden=False)]
    check_cases(rubric, [*public, *hidden])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GradingError(f"{path} cannot be read: {error.strerror}", exit_code=2) from error


def _torch(requirements: str) -> str:
    """The lines of requirements.txt that must come from one index."""
    lines = [line.partition("#")[0].strip() for line in requirements.splitlines()]
    return "".join(f"{line}\n" for line in lines if line and Requirement(line).name in ("torch", "torchvision"))


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Write a zip. The same files give the same bytes on every machine: no times, no compression, sorted."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for place, content in sorted(files.items()):
                entry = zipfile.ZipInfo(place)
                entry.create_system = 3  # Unix, which the mode is for
                is_program = re.fullmatch(r"setup\.sh|run_autograder", place)
                entry.external_attr = (0o100755 if is_program else 0o100644) << 16
                archive.writestr(entry, content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
