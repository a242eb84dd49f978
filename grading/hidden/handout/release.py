"""`python -m grading release`: write the handout, and look through it for leaks.

What leaves is an allow-list: a new file is secret until it is listed here, or the rubric names it as what students
write or are checked on.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from grading.errors import GradingError
from grading.feedback import GROUPS, words
from grading.hidden.handout.notebook import notebook
from grading.hidden.handout.regions import (
    BEGIN,
    END,
    guides,
    solution_statements,
    without_guides,
    without_markers,
    without_solutions,
)
from grading.rubric import LatePolicy, Rubric, load_rubric, note_total
from grading.submission import ROOT

README = "grading/hidden/handout/files/README.md"
NOTEBOOK = "grading/hidden/handout/files/notebook.py"  # becomes HW3.ipynb
ANALYSIS = "grading/hidden/doors/gradebook/files/analysis.ipynb"  # the written part, with its marking guide

# What leaves as it is, but for what the rubric names.
_AS_IT_IS = """
    requirements.txt requirements-app.txt LICENSE .gitignore
    train_vae.py train_diffusion.py train_latent_diffusion.py train_clip.py sample.py evaluate.py
    app.py
    HW3/__init__.py HW3/Unet.py HW3/clip.py HW3/latent.py HW3/schedules.py HW3/embedding.py HW3/learning_rate.py
    HW3/data.py HW3/pretrained.py HW3/autoguidance.py HW3/generate.py HW3/samples.py HW3/metrics.py HW3/viz.py
    HW3/judge.py HW3/weights/judge_mnist.pt HW3/weights/judge_digits.pt
    HW3/plumbing/__init__.py HW3/plumbing/run.py HW3/plumbing/cli.py HW3/plumbing/device.py HW3/plumbing/log.py
    HW3/plumbing/checkpoints.py HW3/plumbing/resume.py HW3/plumbing/interrupt.py HW3/plumbing/randomness.py
    HW3/plumbing/parallel.py HW3/plumbing/files.py HW3/plumbing/errors.py HW3/plumbing/startup.py
    HW3/plumbing/notebook.py HW3/plumbing/page.py
    grading/__init__.py grading/__main__.py grading/errors.py grading/todo.py grading/pack.py grading/packages.py
    grading/submission.py grading/driver.py grading/cases.py grading/judge.py grading/feedback.py grading/crashes.py
    grading/measuring.py grading/findings.py grading/rubric.py grading/rubric.toml
    grading/conftest.py grading/step_summary.py grading/test_functions.py grading/test_samplers.py
    grading/cases/samplers.npz grading/cases/mistakes.json
    docs/notes/README.md docs/notes/1-vae.md docs/notes/2-forward-process.md docs/notes/3-ddpm.md docs/notes/4-ddim.md
    docs/notes/5-v-and-cosine.md docs/notes/6-latents.md docs/notes/7-clip.md docs/notes/8-guidance.md
    imgs/notes/1-vae.png imgs/notes/1-losses.png imgs/notes/1-kl-sweep.png imgs/notes/1-kl-curve.png
    imgs/notes/2-forward-process.png imgs/notes/3-ddpm.png imgs/notes/3-x0-hat.png imgs/notes/3-denoising.gif
    imgs/notes/4-ddim.png imgs/notes/4-steps-eta.png imgs/notes/4-slerp.png imgs/notes/5-v-and-cosine.png
    imgs/notes/6-latents.png imgs/notes/6-denoising.png imgs/notes/6-latent-map.png imgs/notes/7-clip.png
    imgs/notes/8-guidance.png
    imgs/vae_recon.png imgs/ddpm_sample.png imgs/ddim_sample.png imgs/tiny_mnist_sd.png imgs/app.png
"""

# Source -> place in the handout, of what the rubric does not name. `release_list` has both; everything else stays.
ALLOWED = {
    **{file: file for file in _AS_IT_IS.split()},
    README: "README.md",
    NOTEBOOK: "HW3.ipynb",
    ANALYSIS: "analysis.ipynb",
    "grading/hidden/handout/files/Makefile": "Makefile",
    "grading/hidden/handout/files/pyproject.toml": "pyproject.toml",
    "grading/hidden/handout/files/classroom.yml": ".github/workflows/classroom.yml",
    "grading/hidden/handout/files/devcontainer.json": ".devcontainer/devcontainer.json",
}


def release_list(rubric: Rubric) -> dict[str, str]:
    """Source -> place in the handout of everything that leaves."""
    cases = (f"grading/cases/{id}.npz" for id in rubric.functions)
    return ALLOWED | {file: file for file in (*rubric.submit, *cases)}


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("release", help="instructors: write the handout (and its solutions branch)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must be new or empty")
    repository = parser.add_mutually_exclusive_group()
    repository.add_argument("--git", action="store_true", help="make it a git repository: branches main and solutions")
    repository.add_argument(
        "--push-safe",
        action="store_true",
        help="make it a git repository without solutions, and OUT-solutions another one that has both branches",
    )
    parser.add_argument(
        "--repository", default="", metavar="URL", help="where students get the handout: HW3.ipynb clones it on Colab"
    )
    parser.add_argument("--zip", action="store_true", help="also write OUT.zip, the handout as one file")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    rubric = load_rubric()
    note_total(rubric)
    files = release(args.out, git=args.git, push_safe=args.push_safe, zip=args.zip, repository=args.repository)
    what = ["handout"] + ["git branches main and solutions"] * args.git + ["git branch main"] * args.push_safe
    what += [f"solutions in {solutions_beside(args.out)}"] * args.push_safe + [f"{args.out}.zip"] * args.zip
    print(f"{args.out}: {len(files)} files ({', '.join(what)}); no leak found")
    return 0


def solutions_beside(out: Path) -> Path:
    """Where `--push-safe` writes the solutions."""
    whole = Path(os.path.abspath(out))  # `.` has no name
    return whole.with_name(f"{whole.name}-solutions")


def release(
    out: Path,
    *,
    git: bool = False,
    push_safe: bool = False,
    zip: bool = False,
    repository: str = "",
    source: Path = ROOT,
) -> list[str]:
    """Write the handout of `source` to `out`. Nothing is left there when a leak is found.

    git: as a repository with the branches main and solutions.  push_safe: as one with main alone, and beside it
    another one that has both.  repository: the address of it that the notebook clones.
    Raises GradingError when `out` is not empty, a listed file is missing, markers do not pair up, the solution
    regions are not those of the rubric, or the handout holds something that must stay.
    """
    for folder in (out, solutions_beside(out)) if push_safe else (out,):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise GradingError(f"{folder} is not an empty folder: name another one, or delete it", exit_code=2)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".release-") as scratch:
        tree, beside = Path(scratch) / "handout", Path(scratch) / "solutions"
        handout, solved = build(source, repository)
        check_leaks(source, handout)
        write_tree(tree, handout)
        check_leaks(source, read_tree(tree))  # what lies on the disk, not what was meant
        if git or push_safe:
            _git_repository(tree)
            check_leaks(source, _git_files(tree, "main"))
        if git:
            _add_solutions(tree, handout, solved)
            _git(tree, "checkout", "--quiet", "main")
            _check_objects(tree, handout, solved)
        if push_safe:
            _check_objects(tree, handout)
            write_tree(beside, handout)
            _git_repository(beside)
            _add_solutions(beside, handout, solved)
            _check_objects(beside, handout, solved)
            _move(beside, solutions_beside(out))
        if zip:
            _write_zip(out.with_name(out.name + ".zip"), out.name, handout)
        _move(tree, out)
    return sorted(handout)


def _move(folder: Path, to: Path) -> None:
    """Put a folder in the place of an empty one, or of none."""
    if to.exists():
        to.rmdir()
    shutil.move(folder, to)


def build(source: Path, repository: str = "") -> tuple[dict[str, bytes], dict[str, bytes]]:
    """(handout, handout with solutions): path -> content, without writing anything."""
    rubric = load_rubric(source / "grading" / "rubric.toml")
    handout, solved = {}, {}
    for origin, place in release_list(rubric).items():
        path = source / origin
        if not path.is_file():
            raise GradingError(f"{origin} is on the release list and is not there")
        content = path.read_bytes()
        handout[place] = solved[place] = content
        if place.endswith(".py"):
            text = content.decode("utf-8")
            handout[place] = without_solutions(text, origin).encode("utf-8")
            solved[place] = without_markers(text, origin).encode("utf-8")
        elif origin.endswith(".ipynb"):
            handout[place] = solved[place] = without_guides(content.decode("utf-8"), origin).encode("utf-8")
    cells = handout_notebook(handout["HW3.ipynb"].decode("utf-8"), repository).encode("utf-8")
    handout["HW3.ipynb"] = solved["HW3.ipynb"] = cells
    readme = handout_readme(handout["README.md"].decode("utf-8"), rubric).encode("utf-8")
    handout["README.md"] = solved["README.md"] = readme
    for problem in stub_problems(rubric, handout):
        raise GradingError(problem)
    # What grading has besides a submission. The self-check takes it from here, whatever is changed elsewhere.
    kept = [place for place in handout if place.startswith("HW3/") or place in (*rubric.submit, "requirements.txt")]
    originals = {f"grading/originals/{place}": handout[place] for place in kept}
    manifest = {
        place: hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest() for place, content in sorted(handout.items())
    }
    originals["grading/originals/manifest.json"] = (json.dumps(manifest, indent=1) + "\n").encode()
    return handout | originals, solved | originals


def handout_readme(template: str, rubric: Rubric) -> str:
    """The handout's README with what it takes from the rubric filled in."""
    functions = rubric.functions.values()
    rows = [
        f"| `{f.id}` | {f.title} | `{f.name.rpartition('.')[2]}` in `{f.file}` | {f.points:g} | `{f.before}` |"
        for f in functions
    ]
    groups = dict.fromkeys(group for f in functions for group in f.weights)
    explained = [f"| `{group}` | {words(group)} | {GROUPS[group][1]} |" for group in groups if group in GROUPS]
    filled_in = {
        "{todo_table}": "\n".join(["| id | what | where | points | needed before |", "|---|---|---|---|---|", *rows]),
        "{total}": f"{rubric.total:g}",
        "{groups_table}": "\n".join(["| in tests | in feedback | what it asks |", "|---|---|---|", *explained]),
        "{late_policy}": late_policy(rubric.late),
        "{submit}": ", ".join(f"`{file}`" for file in rubric.submit),
        **{
            f"{{before {script}}}": ", ".join(f.id for f in functions if f.before == script)
            for script in dict.fromkeys(f.before for f in functions)
        },
    }
    for place, text in filled_in.items():
        if place not in template:
            raise GradingError(f"{README}: there is no {place} in it, which the rubric fills in: add it")
        template = template.replace(place, text)
    for script in re.findall(r"\{before (.+?)\}", template):
        raise GradingError(f"{README}: no function is needed before {script}: take {{before {script}}} out")
    return template


def handout_notebook(source: str, repository: str) -> str:
    """HW3.ipynb, with the repository's address in its first cell."""
    if any(sign in repository for sign in '"\\\n'):
        raise GradingError(
            f"--repository {repository}: an address has no quotes, backslashes or line ends", exit_code=2
        )
    empty = 'REPOSITORY = ""'
    if source.count(empty) != 1:
        raise GradingError(f"{NOTEBOOK}: there must be one line {empty}, which --repository fills in: add it")
    return notebook(source.replace(empty, f'REPOSITORY = "{repository}"'), NOTEBOOK)


def late_policy(late: LatePolicy) -> str:
    """What lateness costs, in a sentence for students."""
    if late.percent_per_day == 0 or late.max_percent == 0:
        return "There is no late policy: nothing is taken off by the grader. Ask your course what holds."
    grace = f", after {late.grace_minutes:g} minutes that cost nothing" if late.grace_minutes else ""
    most = f"{late.max_percent:g} % at most"
    return f"{late.percent_per_day:g} % of the points earned are taken off for every day begun{grace}; {most}."


def stub_problems(rubric: Rubric, handout: dict[str, bytes]) -> list[str]:
    """What keeps each id from having one stub, in the function that the rubric names, and the code from having more."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file, content in handout.items():
        if file.endswith(".py"):
            for name, id in _stubs(content.decode("utf-8")):
                found.setdefault(id, []).append((file, name))
    problems = []
    for id, function in rubric.functions.items():
        places = found.pop(id, [])
        if not places:
            what = f"put `# TODO({id}): what to write`, `{BEGIN}` and `{END}` around the body of {function.name}"
            problems.append(f"{function.file}: no solution region has the id {id}: {what}")
        elif places != [(function.file, function.name)]:
            where = " and ".join(f"{name} in {file}" for file, name in places)
            wanted = f"{function.name} in {function.file}"
            problems.append(f"TODO({id}) stands in {where}, and the rubric says {wanted}: correct one of them")
    for id, places in found.items():
        file, name = places[0]
        what = "add a [[function]] with that id, or take the markers out of"
        problems.append(f"grading/rubric.toml: there is no {id}, and {file} has a TODO({id}): {what} {name}")
    return problems


def _stubs(source: str) -> list[tuple[str, str]]:
    """(qualified function name, id) of every stub."""
    found = []

    def visit(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                visit(child, f"{inside}.{child.name}" if inside else child.name)
                continue
            if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call) and child.exc.args:
                text = child.exc.args[0]
                if isinstance(text, ast.Constant) and str(text.value).startswith("TODO("):
                    found.append((inside, str(text.value)[5:].partition(")")[0]))
            visit(child, inside)

    visit(ast.parse(source), "")
    return found


# -- leaks ---------------------------------------------------------------------------------------------


def check_leaks(source: Path, handout: dict[str, bytes]) -> None:
    """Raise GradingError if the handout holds a solution, a marking guide, a hidden file or a hidden array."""
    listed = release_list(load_rubric(source / "grading" / "rubric.toml"))
    originals = {f"grading/originals/{place}" for place in (*listed.values(), "manifest.json")}
    unexpected = sorted(handout.keys() - originals - set(listed.values()))
    if unexpected:
        raise GradingError(f"leak: {unexpected[0]} is not on the release list")
    pieces = {file: [content, *inside(file, content)] for file, content in handout.items()}
    _check_statements(source, [file for file, place in listed.items() if place.endswith(".py")], pieces)
    _check_guides(source, [file for file in listed if file.endswith(".ipynb")], handout)
    hidden = hidden_hashes(source, listed)
    arrays = hidden_arrays(source)
    # A handout that lies in the tree is not on the list either, but what it holds is no secret.
    is_hit = any(_hash(piece) in hidden for found in pieces.values() for piece in found)
    given = set(build(source)[0].values()) if is_hit else set()
    for file, found in pieces.items():
        for piece in found:
            secret = hidden.get(_hash(piece))
            if secret and piece not in given:
                raise GradingError(
                    f"leak: {file} {'is' if piece is handout[file] else 'holds'} the hidden file {secret}"
                )
            for value_hash, name in _array_hashes(file, piece):
                if value_hash in arrays:
                    raise GradingError(f"leak: {file} holds {name}, which is {arrays[value_hash]}")
    _check_numbers(source, pieces)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def inside(file: str, content: bytes) -> list[bytes]:
    """What a file holds in another form: the texts of a notebook's JSON, which escapes them, and bytes in base64."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:  # pictures and arrays, as they are
        return []
    texts = _texts(json.loads(text)) if file.endswith(".ipynb") else []
    packed = [match[0] for part in (text, *texts) for match in _BASE64.finditer(part)]
    return [*(part.encode() for part in texts), *(base64.b64decode("".join(part.split()) + "==") for part in packed)]


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4}\s*){30,}(?:[A-Za-z0-9+/]{2,3}={1,2})?")  # shorter ones hold nothing


def _texts(node: Any) -> list[str]:
    """Every text in a notebook; one that is written as a list of lines is one text."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, list) and node and all(isinstance(line, str) for line in node):
        return ["".join(node)]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [text for child in children for text in _texts(child)]


def _check_statements(source: Path, modules: list[str], pieces: dict[str, list[bytes]]) -> None:
    texts = {file: (source / file).read_text(encoding="utf-8") for file in modules}
    given = "".join(_squeeze(without_solutions(text, file)) for file, text in texts.items())
    squeezed = {
        place: [_squeeze(piece.decode("utf-8", errors="ignore")) for piece in found] for place, found in pieces.items()
    }
    for file, text in texts.items():
        for statement in solution_statements(text, file):
            wanted = _squeeze(statement)
            if len(statement) < 30 or wanted in given:
                continue
            for place, found in squeezed.items():
                if any(wanted in piece for piece in found):
                    raise GradingError(f"leak: {place} holds the solution statement `{statement.splitlines()[0]}`")


def _check_guides(source: Path, notebooks: list[str], handout: dict[str, bytes]) -> None:
    texts = {place: _squeeze(content.decode("utf-8", errors="ignore")) for place, content in handout.items()}
    for file in notebooks:
        for line in guides((source / file).read_text(encoding="utf-8"), file):
            forms = {line, *(json.dumps(line, ensure_ascii=ascii)[1:-1] for ascii in (True, False))}
            for place, text in texts.items():
                if any(_squeeze(form) in text for form in forms):
                    raise GradingError(f"leak: {place} holds a line of the marking guide, `{line}`")


def _squeeze(text: str) -> str:
    """Without white space and comment signs, and with one kind of quotes, so that formatting hides nothing."""
    return "".join(text.split()).replace("#", "").replace("'", '"')


def hidden_hashes(source: Path, listed: Container[str]) -> dict[str, str]:
    """sha256 -> path of every file of the tree that is not on the list (empty files aside)."""
    secret = {}
    for path in source.rglob("*"):
        file = path.relative_to(source)
        if file.parts[0] in (".git", ".venv", "result", "demo", "data") or "__pycache__" in file.parts:
            continue
        if path.is_file() and path.stat().st_size > 0 and file.as_posix() not in listed:
            secret[hashlib.sha256(path.read_bytes()).hexdigest()] = file.as_posix()
    return secret


def hidden_arrays(source: Path) -> dict[str, str]:
    """Hash of the values -> name of every array of the hidden cases that says anything."""
    found = {}
    for path in sorted((source / "grading" / "hidden" / "reference" / "cases").glob("*.npz")):
        for value_hash, name in _array_hashes(path.name, path.read_bytes()):
            if "|mistake|" not in name:  # statistics of a mistake may be the same on any inputs
                found[value_hash] = f"{name} in the hidden {path.name}"
    return found


def _array_hashes(file: str, content: bytes) -> list[tuple[str, str]]:
    """(hash of the values, name) of the arrays in an npz or npy of any name; constants and short arrays say nothing."""
    if not content.startswith(b"\x93NUMPY") and not (content.startswith(b"PK\x03\x04") and b".npy" in content):
        return []
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
    except zipfile.BadZipFile:  # cut short: nobody reads an array out of it
        return []
    arrays = {file: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    found = []
    for name, array in arrays.items():
        if array.dtype.kind == "f" and len(np.unique(array)) >= 4:
            values = np.ascontiguousarray(array.astype(np.float32))  # whatever precision it was copied in
            found.append((hashlib.sha256(values.tobytes()).hexdigest(), name))
    return found


_NUMBER = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")
_RUN = 5  # numbers in a row, of three digits each, are no coincidence; torch prints four decimals


def _check_numbers(source: Path, pieces: dict[str, list[bytes]]) -> None:
    """Raise GradingError where some numbers of a hidden array are written out, in the order in which they lie there."""
    written: dict[tuple[str, ...], str] = {}
    for file, found in pieces.items():
        for piece in found:
            text = piece.decode("utf-8", errors="ignore")
            for run in _runs([float(number) for number in _NUMBER.findall(text)]):
                written.setdefault(run, file)
    for path in sorted((source / "grading" / "hidden" / "reference" / "cases").glob("*.npz")) if written else []:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if arrays[name].dtype.kind == "f" and "|mistake|" not in name:
                    for run in _runs(arrays[name].ravel().tolist()):
                        if run in written:
                            what = f"{name} in the hidden {path.name}"
                            raise GradingError(f"leak: {written[run]} holds the numbers {', '.join(run)} of {what}")


def _runs(values: list[float]) -> Iterator[tuple[str, ...]]:
    """Each run of numbers that are all different, with three digits."""
    digits = [f"{value:.2e}" for value in values]
    for first in range(len(digits) - _RUN + 1):
        run = tuple(digits[first : first + _RUN])
        if len(set(run)) == _RUN:
            yield run


# -- files, git and zip ----------------------------------------------------------------------------------


def write_tree(root: Path, files: dict[str, bytes]) -> None:
    """Write path -> content below `root`."""
    for file, content in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_tree(root: Path) -> dict[str, bytes]:
    """path -> content of every file below `root`, git's own aside."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] != ".git"
    }


def _git_repository(tree: Path) -> None:
    """A fresh repository: `main` is the handout, which lies there."""
    _git(tree, "init", "--quiet", "--initial-branch=main", "--template=")
    _commit(tree, "The assignment")


def _add_solutions(tree: Path, handout: dict[str, bytes], solved: dict[str, bytes]) -> None:
    """The branch `solutions`: the handout with every TODO completed. It stays checked out."""
    _git(tree, "checkout", "--quiet", "-b", "solutions")
    write_tree(tree, {file: content for file, content in solved.items() if handout[file] != content})
    _commit(tree, "Every TODO completed")


def _commit(tree: Path, message: str) -> None:
    _git(tree, "add", "--all", "--force")
    _git(tree, "commit", "--quiet", "--no-gpg-sign", "--message", message)


def _git(tree: Path, *args: str) -> bytes:
    """Run git with none of the user's own settings."""
    who = {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in _IDENTITY.items()}
    env = {"PATH": os.environ["PATH"], "HOME": str(tree), "GIT_CONFIG_NOSYSTEM": "1", **who}
    try:
        command = ["git", "-C", str(tree), "-c", "core.autocrlf=false", *args]
        return subprocess.run(command, env=env, check=True, capture_output=True).stdout
    except FileNotFoundError:
        raise GradingError("git is not installed: leave out --git and --push-safe, or install it") from None
    except subprocess.CalledProcessError as error:
        raise GradingError(f"git {args[0]} failed: {error.stderr.decode(errors='replace').strip()}") from error


_IDENTITY = {"NAME": "HW3", "EMAIL": "hw3@localhost"}


def _git_files(tree: Path, branch: str) -> dict[str, bytes]:
    names = _git(tree, "ls-tree", "-r", "-z", "--name-only", branch).decode().split("\0")
    return {name: _git(tree, "show", f"{branch}:{name}") for name in names if name}


def _check_objects(tree: Path, *branches: dict[str, bytes]) -> None:
    """Raise GradingError unless every blob of the repository is a file of one of its branches."""
    listing = _git(tree, "cat-file", "--batch-check", "--batch-all-objects").decode().splitlines()
    blobs = {line.split()[0] for line in listing if line.split()[1] == "blob"}
    known = {
        hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        for files in branches
        for content in files.values()
    }
    if blobs - known:
        raise GradingError(f"leak: the repository holds {len(blobs - known)} objects that are in no branch")


def _write_zip(path: Path, folder: str, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in sorted(files.items()):
            archive.writestr(f"{folder}/{file}", content)
