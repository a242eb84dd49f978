"""`python -m grading check`: whether all places that speak of a graded function speak of the same ones.

Nothing is run: what would import torch is read as text, so that this can go first wherever the answer matters.
The places, in the order in which they are looked at here, are listed in docs/INSTRUCTOR.md, "Adding a graded function".
"""

from __future__ import annotations

import argparse
import ast
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from grading.cases import HIDDEN, PUBLIC, Case, load_cases
from grading.errors import GradingError
from grading.feedback import GROUPS, MISTAKES
from grading.hidden.handout.regions import without_solutions
from grading.hidden.handout.release import README, handout_readme, release_list, stub_problems
from grading.judge import CHECKS, OUTPUTS
from grading.rubric import Function, Rubric, group_problems, load_rubric
from grading.submission import FILES, ROOT

DRIVER, SUBMISSION = Path("grading/driver.py"), Path("grading/submission.py")
MAKE_CASES, BANK = Path("grading/hidden/reference/make_cases.py"), Path("grading/hidden/reference/bank")
EXPECTATIONS = Path("grading/hidden/reference/expectations.py")

UNGRADED = {"samplers"}  # cases of no function of their own: whole samplers carry no points
FEWEST_CHAFFS, FEWEST_WHEATS = 3, 1  # a check that has met fewer answers is itself unchecked
AGAIN = f"make the cases again: python -m {'.'.join(MAKE_CASES.with_suffix('').parts)}"

Hints = dict[str, dict[str, str]]  # id -> name of a chaff -> its hint


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("check", help="instructors: do rubric, code, cases, bank and docs agree?")
    parser.set_defaults(run=lambda args: _run())


def _run() -> int:
    found = findings()
    print("\n".join(found) or "rubric, solution regions, driver, bank, cases, release list and docs agree")
    return 1 if found else 0


def require_agreement() -> None:
    """Raise GradingError, in one line, unless everything agrees that grading and the handout depend on."""
    found = _needed(load_rubric())
    if found:
        more = f" (and {len(found) - 1} more: python -m grading check)" if len(found) > 1 else ""
        raise GradingError(found[0] + more, exit_code=2)


def findings() -> list[str]:
    """One line for each place that does not agree with the rubric: which place, what is wrong, what to do."""
    try:
        rubric = load_rubric()
    except GradingError as error:
        return [str(error)]
    return [*_needed(rubric), *_docs(rubric)]


def _needed(rubric: Rubric) -> list[str]:
    try:
        calls, (chaffs, wheats) = _calls(), _bank()
        return [
            *_code(rubric),
            *_driver(rubric, calls),
            *_recipes(rubric, _makers(), _named_in("ANSWERS", EXPECTATIONS)),
            *_answers(rubric, chaffs, wheats),
            *_cases(rubric, calls, chaffs),
            *_hints(rubric, chaffs),
        ]
    except SyntaxError as error:
        return [f"{error.filename}, line {error.lineno}: {error.msg}"]
    except (GradingError, OSError) as error:
        return [str(error)]


# -- what each place says of the rubric -----------------------------------------------------------------


def _code(rubric: Rubric) -> Iterator[str]:
    """The files that leave, and the solution regions in them."""
    listed = release_list(rubric)
    handout: dict[str, bytes] = {}
    made = {MISTAKES, *(PUBLIC / f"{id}.npz" for id in rubric.functions)}  # told with the cases
    for origin, place in listed.items():
        path = ROOT / origin
        if not path.is_file():
            if path not in made:
                yield f"{origin} is on the release list and is not there: bring it back, or take it off the list"
        elif path.suffix == ".py":
            _parse(Path(origin))
            handout[place] = without_solutions(path.read_text(encoding="utf-8"), origin).encode()
    yield from stub_problems(rubric, handout)
    for function in rubric.functions.values():
        if function.before not in listed:
            what = "name a script that is in the handout"
            yield f"grading/rubric.toml: {function.id} is needed before {function.before}, which is not there: {what}"
    if tuple(FILES) != rubric.submit:
        what = f"the rubric's `submit` has {', '.join(rubric.submit)}: name the same, in the order of their imports"
        yield f"{SUBMISSION}: FILES has {', '.join(FILES)}, and {what}"


def _driver(rubric: Rubric, calls: set[str]) -> Iterator[str]:
    for function in rubric.functions.values():
        if not {function.name.rpartition(".")[2], _identifier(function)} & calls:
            what = f"write `{_identifier(function)}` as the others there are written, and add it to CALLS"
            yield f"{DRIVER} has no call for {function.id}: {what}"


def _recipes(rubric: Rubric, makers: set[str], answers: set[str]) -> Iterator[str]:
    for function in rubric.functions.values():
        if function.id not in makers:
            what = f"write `{_identifier(function)}_cases`, its formula in formulas.py, and add it to MAKERS"
            yield f"{MAKE_CASES} makes no cases of {function.id}: {what}"
        if not {function.name.rpartition(".")[2], _identifier(function)} & answers:
            what = f"write `{_identifier(function)}` as the others there are written, and add it to ANSWERS"
            yield f"{EXPECTATIONS} does not say what must come out of {function.id}: {what}"
    for id in sorted(makers - rubric.functions.keys() - UNGRADED):
        yield f"{MAKE_CASES}: MAKERS has {id}, which is not in the rubric: add it there, or take it out of MAKERS"


def _answers(rubric: Rubric, chaffs: Hints, wheats: Counter[str]) -> Iterator[str]:
    for id in rubric.functions:
        for what, count, fewest in (
            ("wrong (@chaff)", len(chaffs.get(id, {})), FEWEST_CHAFFS),
            ("right (@wheat)", wheats[id], FEWEST_WHEATS),
        ):
            if count < fewest:
                yield f"{BANK} has {count} {what} answers to {id}, and {fewest} are needed: write more of them there"
    for id in sorted((chaffs.keys() | wheats.keys()) - rubric.functions.keys()):
        yield f"{BANK} has answers to {id}, which is not in the rubric: add it there, or delete the answers"


def _cases(rubric: Rubric, calls: set[str], chaffs: Hints) -> Iterator[str]:
    for folder, hidden in ((PUBLIC, False), (HIDDEN, True)):
        for function in rubric.functions.values():
            path = folder / f"{function.id}.npz"
            file = path.relative_to(ROOT)
            try:
                cases = load_cases(path, hidden=hidden)
            except FileNotFoundError:
                yield f"{file} is missing: {AGAIN}"
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                yield f"{file} cannot be read ({error}): {AGAIN}"
            else:
                problems = [problem for case in cases for problem in _case(case, function, calls)]
                for problem in dict.fromkeys(problems):
                    yield f"{file}: {problem}"
                gone = {name for case in cases for name in case.mistakes} - chaffs.get(function.id, {}).keys()
                if gone:
                    yield f"{file}: the bank has no chaff {', '.join(sorted(gone))} any more: {AGAIN}"
                groups = {case.group for case in cases}
                yield from map(str, group_problems(rubric, function.id, groups, hidden=hidden))
        for path in sorted(folder.glob("*.npz")):
            if path.stem not in rubric.functions.keys() | UNGRADED:
                what = "which is not in the rubric: add it there, or delete the file"
                yield f"{path.relative_to(ROOT)} has the cases of {path.stem}, {what}"


def _case(case: Case, function: Function, calls: set[str]) -> Iterator[str]:
    """What the driver and the judge do not know of a case."""
    if case.id != function.id:
        yield f"there are cases of {case.id} in it: correct the id in {MAKE_CASES}"
    if case.call not in calls:
        yield f"{DRIVER} has no call `{case.call}`: write it, and add it to CALLS"
    if case.check not in CHECKS:
        yield f"grading/judge.py has no check `{case.check}`: write it, and add it to CHECKS"
    for name in case.expected if case.check == "value" else ():
        if name not in OUTPUTS:
            yield f"grading/judge.py knows no output `{name}`, and refuses it: add it to GRADED_OUTPUTS"


def _hints(rubric: Rubric, chaffs: Hints) -> Iterator[str]:
    file = MISTAKES.relative_to(ROOT)
    try:
        written = json.loads(MISTAKES.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"{file} cannot be read ({error}): {AGAIN}"
        return
    for id in rubric.functions:
        if written.get(id) != chaffs.get(id, {}):
            yield f"{file} does not have the hints of the bank's chaffs of {id}: {AGAIN}"


def _docs(rubric: Rubric) -> Iterator[str]:
    try:
        handout_readme((ROOT / README).read_text(encoding="utf-8"), rubric)
    except GradingError as error:
        yield str(error)
    for function in rubric.functions.values():
        for group in function.weights:
            if group not in GROUPS:
                what = "add it, with the words for feedback and what it asks"
                yield f"grading/feedback.py: GROUPS has no {group}, a group of {function.id}: {what}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for file in rubric.submit:
        if f"`{file}`" not in readme:
            yield f"README.md does not say that students write functions in `{file}`: say so"


# -- reading what is not imported -----------------------------------------------------------------------


def _identifier(function: Function) -> str:
    return function.id.replace("-", "_")


def _calls() -> set[str]:
    """The calls that the driver knows, by name."""
    return _named_in("CALLS", DRIVER)


def _named_in(table: str, file: Path) -> set[str]:
    """The functions of a module that a table in it names."""
    tree = _parse(file)
    named = {node.id for node in ast.walk(_value(tree, table, file)) if isinstance(node, ast.Name)}
    return named & {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def _makers() -> set[str]:
    """The ids for which cases are made."""
    value = _value(_parse(MAKE_CASES), "MAKERS", MAKE_CASES)
    keys = value.keys if isinstance(value, ast.Dict) else []
    return {str(key.value) for key in keys if isinstance(key, ast.Constant)}


def _bank() -> tuple[Hints, Counter[str]]:
    """The chaffs with their hints, and the number of wheats, by id."""
    chaffs: Hints = {}
    wheats: Counter[str] = Counter()
    for path in sorted((ROOT / BANK).glob("*.py")):
        file = path.relative_to(ROOT)
        tree = _parse(file)
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            for mark in function.decorator_list:
                if not isinstance(mark, ast.Call) or ast.unparse(mark.func) not in ("chaff", "wheat"):
                    continue
                values = (_value(tree, arg.id, file) if isinstance(arg, ast.Name) else arg for arg in mark.args)
                try:
                    id, text = map(ast.literal_eval, values)
                except ValueError:
                    what = f"write the id and the text of {function.name} as two strings"
                    raise GradingError(f"{file}, line {mark.lineno}: {what}") from None
                if ast.unparse(mark.func) == "chaff":
                    chaffs.setdefault(id, {})[function.name] = text
                else:
                    wheats[id] += 1
    return chaffs, wheats


def _parse(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), filename=str(file))


def _value(tree: ast.Module, name: str, file: Path) -> ast.expr:
    """What a module assigns to a name."""
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in (ast.unparse(target) for target in targets):
                return node.value
    raise GradingError(f"{file} defines no {name}: bring it back")
