"""`python -m grading pack`: the zip to hand in, with exactly the files that the rubric names, and what grading sees."""

from __future__ import annotations

import argparse
import ast
import getpass
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from grading.errors import GradingError
from grading.rubric import Rubric, load_rubric
from grading.submission import FILES, GIVEN, ROOT
from grading.todo import status

OURS = {module.partition(".")[0] for module in FILES.values()}  # top-level names: HW3, train_tiny_sd
WRITTEN = "analysis.ipynb"  # the written part, which people mark; it shows pictures that its cells drew
SAMPLES = "samples.npz"  # pictures of the student's own tiny SD, which `samples` judges
MAX_SAMPLES_BYTES = 16 << 20
MANIFEST = GIVEN / "manifest.json"  # sha256 of every file of the handout; the instructor's tree has none


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("pack", help="build the zip to hand in, and check what is in it")
    parser.add_argument("--name", help="your name, for the file's name; you are asked for it if it is not given")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder for the zip (default: the assignment's)")
    parser.add_argument("--no-check", action="store_true", help="do not run the self-check")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    rubric = load_rubric()
    name = re.sub(r"[^\w-]+", "-", _ask_for_name() if args.name is None else args.name).strip("-").lower()
    if not name:
        raise GradingError("--name needs at least one letter or digit", exit_code=2)
    path = args.out / f"hw3-{name}.zip"
    packed = write_zip(path, rubric, ROOT)
    print(f"packed {len(packed)} files into {path}: {', '.join(packed)}")
    left = [id for id, state in status(rubric, ROOT).items() if state == "to do"]
    if left:
        print(f"still to do: {', '.join(left)}")
    if WRITTEN in _manifest() and WRITTEN not in packed:
        print(f"note: {WRITTEN} is missing, or as it was handed out: it is not packed")
    sources = {file: (ROOT / file).read_bytes() for file in packed if file in rubric.submit}
    for warning in [*warnings(rubric, ROOT), *missing_imports(sources)]:
        print(f"warning: {warning}")
    if not args.no_check:
        print("self-check of the zip, unpacked where nothing else of yours is (pytest grading/):", flush=True)
        try:
            code = check_zip(path, rubric)
        except OSError as error:
            raise GradingError(f"{path} is written, but cannot be unpacked to check it: {error}") from error
        if code not in (0, 1):  # 1: some checks failed
            raise GradingError(
                f"{path} is written, but its self-check did not run to its end (pytest's exit code {code}): "
                "mend what it says above, or hand in unchecked what --no-check packs"
            )
    return 0  # what is packed can be handed in, whatever it is worth


# Accounts that a machine gives to everybody who works there: a zip called so says nothing of its author.
_ANYBODY = {
    *("root", "user", "admin", "administrator", "student", "ubuntu", "debian", "ec2-user", "runner", "jovyan"),
    *("codespace", "vscode", "gitpod", "nobody", "guest", "default"),
}


def _ask_for_name() -> str:
    """The author's name: as they type it, or the account's. Raises GradingError if nobody can be asked."""
    try:
        account = getpass.getuser()
    except (OSError, KeyError):  # a container may have a user without a name
        account = ""
    if account.lower() in _ANYBODY:
        account = ""
    if not sys.stdin.isatty():
        if account:
            return account
        raise GradingError('whose work is it? Add --name, as in: python -m grading pack --name "Ada Lovelace"', 2)
    try:
        typed = input(f"your name, for the file's name{f' [{account}]' if account else ''}: ").strip()
    except EOFError:
        typed = ""
    return typed or account


def write_zip(path: Path, rubric: Rubric, root: Path) -> list[str]:
    """Pack the rubric's files that are there, and the written part and the pictures if there are any.

    Raises GradingError when none of the files is there, or the zip cannot be written.
    """
    files = [file for file in rubric.submit if (root / file).is_file()]
    if not files:
        raise GradingError(f"none of {', '.join(rubric.submit)} is in {root}: run this in the assignment's folder", 2)
    files += [file for file in written_part(root) if (root / file).is_file()]
    files += [SAMPLES] * (0 < _size(root / SAMPLES) <= MAX_SAMPLES_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.writestr(file, (root / file).read_bytes())
    except OSError as error:
        raise GradingError(f"cannot write {path}: {error.strerror}") from error
    return files


def written_part(root: Path) -> list[str]:
    """The notebook with the answers, if somebody has worked in it, and the pictures that it shows."""
    path = root / WRITTEN
    if not path.is_file() or digest(path) == _manifest().get(WRITTEN):
        return []
    return [WRITTEN, *pictures_in(path.read_text(encoding="utf-8", errors="replace"))]


def pictures_in(notebook: str) -> tuple[str, ...]:
    """The files of the pictures that a notebook's text shows, each once."""
    return tuple(dict.fromkeys(re.findall(r"\]\((figures/[\w.-]+\.png)\)", notebook)))


def _size(path: Path) -> int:
    """The bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _manifest() -> dict[str, str]:
    return json.loads(MANIFEST.read_text(encoding="utf-8")) if MANIFEST.is_file() else {}


def check_zip(path: Path, rubric: Rubric) -> int:
    """Run the checks on what grading will have: the zip's files, and the rest as it was handed out.

    Returns pytest's exit code.
    """
    with tempfile.TemporaryDirectory(prefix="hw3-") as folder:
        clean = Path(folder)
        shutil.copytree(GIVEN / "HW3", clean / "HW3", ignore=shutil.ignore_patterns("__pycache__"))
        # The hidden cases are in the instructor's tree only, and are no part of a self-check.
        shutil.copytree(ROOT / "grading", clean / "grading", ignore=shutil.ignore_patterns("__pycache__", "hidden"))
        _remove_additions(clean)
        for file in rubric.submit:
            (clean / file).unlink(missing_ok=True)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size <= rubric.max_file_bytes:
                    archive.extract(member, clean)
        command = [sys.executable, "-m", "pytest", "grading/", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "PYTEST_"))}
        return subprocess.run(command, cwd=clean, env=env, check=False).returncode


def warnings(rubric: Rubric, root: Path) -> list[str]:
    """What the author should know before handing in."""
    found, manifest = [], _manifest()
    for file in rubric.submit:
        path = root / file
        if not path.is_file():
            found.append(f"{file} is missing; its functions will get no points")
        elif path.stat().st_size > rubric.max_file_bytes:
            found.append(f"{file} is larger than {rubric.max_file_bytes:,} bytes and will not be read")
        elif digest(path) == manifest.get(file):
            found.append(f"{file} is as it was handed out")
        elif problem := _unreadable(path):
            found.append(f"{file} is no Python ({problem}); its functions will get no points")
    for file in written_part(root)[1:]:
        if not (root / file).is_file():
            found.append(f"{WRITTEN} shows {file}, which is not there: run its cells")
    if _size(root / SAMPLES) > MAX_SAMPLES_BYTES:
        most = f"{MAX_SAMPLES_BYTES >> 20} MiB"
        found.append(f"{SAMPLES} is larger than {most} and is not packed: draw fewer images, as with --num 1000")
    for file, handed_out in manifest.items():
        path = root / file
        if file.endswith(".ipynb"):  # one is handed in, the other is changed by running it
            continue
        if file not in rubric.submit and (not path.is_file() or digest(path) != handed_out):
            found.append(f"{file} was changed or deleted, but is not handed in: grading uses the original")
    return found


def _unreadable(path: Path) -> str:
    """Why Python cannot read the file; "" if it can."""
    try:
        ast.parse(path.read_bytes(), filename=path.name)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except ValueError as error:
        return str(error)
    return ""


def _remove_additions(clean: Path) -> None:
    """Leave nothing beside what was handed out: a module of one's own helps here and is missing in grading."""
    if not MANIFEST.is_file():  # the instructor's own tree
        return
    places = {MANIFEST.name, *_manifest()}
    for path in list(clean.rglob("*")):
        place = path.relative_to(clean).as_posix()
        if path.is_file() and not {place, place.removeprefix("grading/originals/")} & places:
            path.unlink()


def digest(path: Path) -> str:
    """sha256 of a file, whatever its line endings."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


# -- imports that grading will not have ----------------------------------------------------------------------


def missing_imports(files: dict[str, bytes]) -> list[str]:
    """What files import and grading will not have, in sentences for their author. Nothing is imported or run."""
    from grading.packages import needed_distributions, top_level  # `todo` works before anything is installed

    packages = [top_level(package) for package in needed_distributions(GIVEN / "requirements.txt")]
    names = {name.partition(".")[0] for name in set().union(*packages)}  # six.py, _cffi.cpython-312-darwin.so
    can_tell = all(packages)  # some systems' own packages do not list their files
    found = []
    for file, source in files.items():
        try:
            imports = list(_imports(source, file))
        except (SyntaxError, ValueError):  # the self-check says it
            continue
        for line, module in imports:
            top = module.partition(".")[0]
            if top in OURS:
                is_missing = not _lies_in(GIVEN, module)
            else:
                is_missing = can_tell and top not in names and top not in sys.stdlib_module_names
            if is_missing:
                found.append(f"{file}, line {line}: grading has no `{module}`; README.md says what it has")
    return found


def _imports(source: bytes, file: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands. Raises SyntaxError or ValueError."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = FILES[file].split(".")[: -node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield node.lineno, module
            inside = [f"{module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in inside if _lies_in(ROOT, name))  # else it is a function


def _lies_in(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
