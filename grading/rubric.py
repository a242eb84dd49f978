"""The rubric: grading/rubric.toml as objects, and points from verdicts."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grading.errors import GradingError
from grading.submission import ROOT

if TYPE_CHECKING:  # `todo` needs no numpy
    from grading.cases import Case

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What is measured of pictures that students drew. Of all but the distance more is better.
DISTANCE = "frechet_distance"
MEASURES = ("label_accuracy", DISTANCE, "precision", "recall", "density", "coverage")
LEVELS = ("idea", "term", "factor")  # of hints: nothing more; which weight, in which rows; also by what
RUBRIC = Path(__file__).parent / "rubric.toml"


@dataclass(frozen=True)
class Function:
    """One graded function; the fields are explained in rubric.toml."""

    id: str
    title: str
    points: float
    file: str
    name: str
    before: str
    idea: str
    weights: dict[str, float]
    public: list[str]
    gate: str = ""
    visibility: str = ""


@dataclass(frozen=True)
class LatePolicy:
    """What lateness costs; the fields are explained in rubric.toml."""

    grace_minutes: float = 0.0
    percent_per_day: float = 0.0
    max_percent: float = 0.0

    def penalty(self, earned: float, hours_late: float) -> float:
        """Points to take off: a share of those earned for every day begun after the grace period."""
        minutes = hours_late * 60 - self.grace_minutes
        if not minutes > 0:
            return 0.0
        days = math.ceil(round(min(minutes / 1440, 1e6), 6))  # rounded: 24 h after the grace period is one day, not two
        return round(earned * min(days * self.percent_per_day, self.max_percent) / 100, 4)


@dataclass(frozen=True)
class Hints:
    """How much is told of what was measured of a wrong answer; the fields are explained in rubric.toml."""

    self_check: str = "term"
    feedback: str = "term"


@dataclass(frozen=True)
class Thresholds:
    """Points for pictures, off where there is no table; the fields are explained in rubric.toml.

    steps: measure -> pairs of a threshold and points.
    """

    steps: dict[str, list[list[float]]]

    def points(self, measured: Mapping[str, float]) -> float:
        """The points of all measures: of each, the most whose threshold is reached. What was not measured has none."""
        return sum(self._of(name, measured[name]) for name in self.steps if name in measured)

    @property
    def possible(self) -> float:
        """The most that can be had."""
        return sum(max(points for _, points in steps) for steps in self.steps.values())

    def _of(self, name: str, value: float) -> float:
        reached = (points for at, points in self.steps[name] if (value <= at if name == DISTANCE else value >= at))
        return max(reached, default=0)


@dataclass(frozen=True)
class Source:
    """The text of a rubric, to say in which line something is wrong."""

    path: Path
    text: str

    def error(self, problem: str, key: str = "", table: str = "", number: int = 0) -> GradingError:
        """What is wrong with a key of the number-th table of that name; without a name, of the top."""
        return self.error_in(self._line(key, table, number), problem)

    def error_in(self, line: int, problem: str) -> GradingError:
        """What is wrong with a line."""
        shown = self.path.relative_to(ROOT).as_posix() if self.path.is_relative_to(ROOT) else str(self.path)
        return GradingError(f"{shown}, line {line}: {problem}", exit_code=2)

    def _line(self, key: str, table: str, number: int) -> int:
        """The line of a key, else of its table. tomllib does not tell, so this looks for lines as people write them."""
        place, tables = ("", 0), Counter[str]()
        found = {(place, ""): 1}
        for line, text in enumerate(self.text.split("\n"), 1):
            if header := re.match(r"\s*\[+\s*([\w.-]+)\s*\]", text):
                place = (header[1], tables[header[1]])
                tables[header[1]] += 1
                found[place, ""] = line
            elif entry := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*[.=]", text):
                found.setdefault((place, entry[1]), line)
        wanted = [((table, number), key), ((key, 0), ""), ((table, number), ""), (("", 0), table), (("", 0), "")]
        return next(found[each] for each in wanted if each in found)


@dataclass(frozen=True)
class Rubric:
    """The whole rubric. submit: the files that a submission consists of."""

    title: str
    submit: tuple[str, ...]
    max_file_bytes: int
    functions: dict[str, Function]
    late: LatePolicy
    source: Source = field(repr=False)
    visibility: str = "visible"
    stdout_visibility: str = "hidden"
    hints: Hints = field(default_factory=Hints)
    samples: Thresholds | None = None

    @property
    def total(self) -> float:
        """All points together."""
        return sum(function.points for function in self.functions.values())


def load_rubric(path: Path = RUBRIC) -> Rubric:
    """Read and check the rubric. Raises GradingError, with the line, for whatever makes no sense."""
    source, raw = _read(path)
    _check(source, raw, _TOP, optional=("visibility", "stdout_visibility", "late", "hints", "samples"))
    functions: dict[str, Function] = {}
    for number, entry in enumerate(raw.pop("function")):
        function = _function(source, entry, number)
        if function.id in functions:
            raise source.error(f"the id {function.id} appears twice: rename one of the two", "id", "function", number)
        if function.file not in raw["submit"]:
            problem = f"{function.id} is in {function.file}, which is not in `submit`: correct one of them"
            raise source.error(problem, "file", "function", number)
        functions[function.id] = function
    for file in raw["submit"]:
        if file not in {function.file for function in functions.values()}:
            raise source.error(f"no function is in {file}: take it out of `submit`", "submit")
    late = raw.pop("late", {})
    _check(source, late, _LATE, optional=_LATE, table="late")
    hints = raw.pop("hints", {})
    _check(source, hints, _HINTS, optional=_HINTS, table="hints")
    samples = raw.pop("samples", None)
    _check(source, samples or {}, _SAMPLES, optional=_SAMPLES, table="samples")
    settings = {**raw, "submit": tuple(raw["submit"]), "samples": Thresholds(samples) if samples else None}
    return Rubric(**settings, functions=functions, late=LatePolicy(**late), source=source, hints=Hints(**hints))


def _read(path: Path) -> tuple[Source, dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GradingError(f"{path} cannot be read: {error.strerror}", exit_code=2) from error
    source = Source(path, content.decode("utf-8-sig", errors="replace"))
    try:
        content.decode("utf-8")
        return source, tomllib.loads(source.text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise source.error_in(line, "there is a character that is not UTF-8: save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        problem, _, place = str(error).rpartition(" (at ")
        match = re.match(r"line (\d+)", place)  # else it is at the end of the document
        line = int(match[1]) if match else source.text.count("\n") + 1
        raise source.error_in(line, f"this is not TOML: {problem}") from error


def _function(source: Source, entry: dict[str, Any], number: int) -> Function:
    _check(source, entry, _FUNCTION, optional=("gate", "visibility"), table="function", number=number)
    function = Function(**entry)
    for key, groups in (("public", function.public), ("gate", [function.gate] * bool(function.gate))):
        for group in groups:
            if group not in function.weights:
                problem = f"{function.id}: `{key}` has the group {group}, and `weights` gives it no weight"
                raise source.error(problem, key, "function", number)
    return function


# -- what each setting must be: in words, and as a test ------------------------------------------------------

Kind = tuple[str, Callable[[Any], bool]]


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high  # a bool is no number, nor is NaN


def _name(value: Any) -> bool:
    return type(value) is str and re.fullmatch(r"[\w-]+", value) is not None


def _texts(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _weights(value: Any) -> bool:
    return type(value) is dict and value != {} and all(map(_number(1e-6, 1e6), value.values()))


def _steps(value: Any) -> bool:
    pairs = type(value) is list and value != [] and all(type(pair) is list and len(pair) == 2 for pair in value)
    return pairs and all(map(_number(0, 1e6), [number for pair in value for number in pair]))


_SEEN_BY = ("hidden", "after_due_date", "after_published", "visible")  # Gradescope's words
_TEXT: Kind = ("a text in quotes", lambda value: type(value) is str)
_TEXTS: Kind = ("a list of texts in quotes", _texts)
_VISIBILITY: Kind = (f"one of {', '.join(_SEEN_BY)}", lambda value: value in _SEEN_BY)
_PERCENT: Kind = ("a number from 0 to 100", _number(0, 100))

_TOP: dict[str, Kind] = {
    "title": _TEXT,
    "submit": _TEXTS,
    "max_file_bytes": ("a whole number above 0", lambda value: type(value) is int and value > 0),
    "visibility": _VISIBILITY,
    "stdout_visibility": _VISIBILITY,
    "late": ("a table", lambda value: type(value) is dict),
    "hints": ("a table", lambda value: type(value) is dict),
    "samples": ("a table", lambda value: type(value) is dict),
    "function": ("a list of tables", lambda value: type(value) is list and all(type(item) is dict for item in value)),
}
_FUNCTION: dict[str, Kind] = {
    "id": ("a name of letters, digits, _ and -", _name),
    "title": _TEXT,
    "points": ("a number above 0", _number(1e-6, 1e6)),
    "file": _TEXT,
    "name": _TEXT,
    "before": _TEXT,
    "idea": _TEXT,
    "weights": ("a positive weight for every group, as { group = number },", _weights),
    "public": _TEXTS,
    "gate": _TEXT,
    "visibility": _VISIBILITY,
}
_HINT: Kind = (f"one of {', '.join(LEVELS)}", lambda value: value in LEVELS)
_HINTS: dict[str, Kind] = {"self_check": _HINT, "feedback": _HINT}
_SAMPLES: dict[str, Kind] = dict.fromkeys(MEASURES, ("a list of pairs [threshold, points]", _steps))
_LATE: dict[str, Kind] = {
    "grace_minutes": ("a number from 0 to 1,000,000", _number(0, 1e6)),
    "percent_per_day": _PERCENT,
    "max_percent": _PERCENT,
}


def _check(
    source: Source,
    raw: dict[str, Any],
    kinds: dict[str, Kind],
    *,
    optional: Iterable[str],
    table: str = "",
    number: int = 0,
) -> None:
    """A table has every setting that it needs, each of its kind, and no others."""
    owner = f"{raw['id']}: " if _name(raw.get("id")) else ""
    for key, value in raw.items():
        if key not in kinds:
            close = difflib.get_close_matches(key, kinds, 1)
            instead = f"is `{close[0]}` meant?" if close else f"there are {', '.join(kinds)}"
            raise source.error(f"{owner}there is no setting `{key}`; {instead}", key, table, number)
        words, test = kinds[key]
        if not test(value):
            raise source.error(f"{owner}`{key}` is {value!r}, where {words} is asked for", key, table, number)
    for key in kinds:
        if key not in raw and key not in optional:
            raise source.error(f"{owner}the setting `{key}` is missing: add it", "", table, number)


# -- the rubric beside the cases, and points -----------------------------------------------------------------


def check_cases(rubric: Rubric, cases: Iterable[Case]) -> None:
    """Rubric and cases have the same ids and groups. Raises GradingError. Students have public cases only."""
    found: dict[bool, dict[str, set[str]]] = {False: {}, True: {}}
    for case in cases:
        if case.check != "sample":  # whole samplers belong to no id and carry no points
            found[case.hidden].setdefault(case.id, set()).add(case.group)
    for hidden, groups in found.items():
        side = "hidden" if hidden else "public"
        for id in sorted(groups.keys() - rubric.functions.keys()):
            raise rubric.source.error(f"there are {side} cases of {id}, and no function: add it, or delete {id}.npz")
        for id in rubric.functions if groups else ():
            for problem in group_problems(rubric, id, groups.get(id, set()), hidden=hidden):
                raise problem


def group_problems(rubric: Rubric, id: str, made: set[str], *, hidden: bool) -> Iterator[GradingError]:
    """Where one function's groups in the rubric are not the groups of its cases."""
    key, side = ("weights", "hidden") if hidden else ("public", "public")
    function, number = rubric.functions[id], list(rubric.functions).index(id)
    wanted = set(function.weights if hidden else function.public)
    for group in sorted(made - wanted):
        problem = f"{id}: the group {group} has {side} cases: add it to `{key}`"
        yield rubric.source.error(problem, key, "function", number)
    for group in sorted(wanted - made):
        problem = f"{id}: the group {group} has no {side} case: make one, or take it out of `{key}`"
        yield rubric.source.error(problem, key, "function", number)


def note_total(rubric: Rubric) -> None:
    """Say when the points do not add up to 100: they need not, but it may be an oversight."""
    if not math.isclose(rubric.total, 100):
        print(f"grading: note: the points of the rubric add up to {rubric.total:g}, not to 100", file=sys.stderr)


def score(function: Function, outcomes: Iterable[tuple[str, bool]]) -> float:
    """Points from (group, passed) of the cases of one id, down to a half. Groups without a case do not count."""
    total, passed = Counter[str](), Counter[str]()
    for group, ok in outcomes:
        total[group] += 1
        passed[group] += ok
    weight = sum(function.weights[group] for group in total)
    if weight == 0 or passed[function.gate] < total[function.gate]:
        return 0.0
    share = sum(function.weights[group] * passed[group] / total[group] for group in total) / weight
    return float(function.points) if math.isclose(share, 1) else math.floor(2 * function.points * share + 1e-9) / 2
