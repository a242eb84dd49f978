"""What every check shares: the code under test, the first look at the machine, and the points at the end."""

from __future__ import annotations

import re
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:  # at run time only after the machine has been looked at
    from grading.cases import Case
    from grading.judge import Verdict
    from grading.rubric import Rubric
    from grading.submission import Submission

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30  # of computing, for one case; right answers take milliseconds
PRINTED = 2000  # characters of what a check prints that are shown
PATIENCE = 10  # times as long may pass, because other programs compute as well

if str(ROOT) not in sys.path:  # an IDE may start pytest anywhere
    sys.path.insert(0, str(ROOT))


def pytest_sessionstart(session: pytest.Session) -> None:
    """A broken machine must not be mistaken for a broken answer."""
    problem = _environment_problem()
    if problem:
        pytest.exit(f"the checks cannot run here: {problem}", returncode=2)
    import torch

    from grading.cases import all_cases
    from grading.errors import GradingError
    from grading.rubric import check_cases, load_rubric

    torch.set_num_threads(1)  # more wait for each other when a training runs beside this: 0.05 s became 30 s
    try:
        check_cases(load_rubric(), all_cases())
    except GradingError as error:
        pytest.exit(f"grading: error: {error}", returncode=error.exit_code)


def _environment_problem() -> str | None:
    from grading.submission import GIVEN  # before anything imports HW3

    if not (ROOT / "HW3").is_dir():
        return "HW3 not found beside the folder grading/: run this in the assignment's folder"
    try:
        import numpy  # noqa: F401
        import torch
    except ImportError as error:
        return f"{error.name} is not installed: pip install -r requirements.txt, or activate .venv"
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        return f"torch {torch.__version__} is too old, 2.6 is needed: pip install --upgrade torch torchvision"
    import HW3

    found = Path(HW3.__file__).resolve().parent
    if found != GIVEN / "HW3":
        return f"`import HW3` finds {found}, not {GIVEN / 'HW3'}: run pytest from {ROOT}"
    return None


@dataclass
class Checks:
    """What all checks of a session share.

    said: what has been said already, so that one cause is one message, however many cases it spoils.
    """

    submission: Submission
    rubric: Rubric
    hints: dict[str, dict[str, str]]
    watched: dict[str, str]
    said: set[tuple[Hashable, ...]] = field(default_factory=set)

    def fail(self, text: str, *cause: Hashable) -> NoReturn:
        """Fail with a message, or where it has been said, be skipped, which earns nothing either."""
        if cause in self.said:
            pytest.skip(SAID)
        self.said.add(cause)
        pytest.fail(text, pytrace=False)

    def fail_by(self, case: Case, verdict: Verdict, text: str) -> NoReturn:
        """Fail by a verdict. Its cause is the mistake; where that is not known, what was measured, and in which rows.

        What cannot be told, and what comes of the noise that a function draws, says less than what was said before.
        """
        from grading.judge import WRONG_KIND

        if verdict.is_formal:
            self.fail(text, verdict.problem if verdict.discreet == WRONG_KIND else (case.id, verdict.discreet))
        found = tuple((finding.output, finding.kind) for finding in verdict.findings)
        known = verdict.mistakes or (found and (*found, case.group == "last"))
        said_before = any(case.id in cause for cause in self.said)
        if said_before and (not known or case.check == "noise"):
            pytest.skip(SAID)
        self.fail(text, case.id, known)


SAID, SLOW = "for the reason that is said above", "out of time"
TODO = re.compile(r"TODO\(([\w-]+)\)")


@pytest.fixture(scope="session")
def checks() -> Checks:
    """The student's code, in this process: debuggers work as usual."""
    from grading.cases import PUBLIC, load_cases
    from grading.feedback import mistakes
    from grading.judge import device_case
    from grading.rubric import load_rubric
    from grading.submission import Submission

    rubric = load_rubric()
    paths = {id: PUBLIC / f"{id}.npz" for id in rubric.functions}  # a tree may hold hidden cases only
    watched = {id: device_case(load_cases(path, hidden=False)).name for id, path in paths.items() if path.is_file()}
    return Checks(Submission(), rubric, mistakes(), watched)


@pytest.fixture
def check(
    checks: Checks, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[Case], None]:
    """Judge one case; fail with a message that says what was asked, what came back, and what to look at again."""
    from grading import driver
    from grading.crashes import crash_message
    from grading.feedback import message, question
    from grading.judge import device_note, run_and_judge
    from grading.submission import SubmissionError

    call = partial(driver.run, checks.submission)
    debugs = request.config.getoption("usepdb")
    is_long = debugs or request.config.getoption("tbstyle") == "long"

    def check_case(case: Case) -> None:
        function = checks.rubric.functions.get(case.id)
        if function is None:  # whole samplers belong to no id and carry no points
            if checks.said:
                pytest.skip(SAID)
        else:
            record_property("graded", [case.id, case.group, case.hidden])
            if (case.id, SLOW) in checks.said:  # it would take as long again
                pytest.skip(SAID)
        try:
            with time_limit(0 if debugs else SECONDS):
                verdict: Verdict | BaseException = run_and_judge(call, case)
        except OutOfTime as error:
            verdict = error
        except Exception as error:
            is_todo = isinstance(error, NotImplementedError) and TODO.match(str(error))  # a stub's own words
            if not (is_todo or isinstance(error, SubmissionError)) and (is_long or function is None):
                raise
            verdict = error
        # Outside of `except`, so that the message is not one about an exception during another one.
        if isinstance(verdict, OutOfTime):
            checks.fail(f"{case.id}: {verdict}", case.id, SLOW)
        if isinstance(verdict, SubmissionError):
            checks.fail(f"{case.id}: {verdict}", str(verdict))
        if isinstance(verdict, NotImplementedError) and (todo := TODO.match(str(verdict))):
            if todo[1] != case.id:
                pytest.skip(f"waits for {todo[0]}")
            record_property("todo", str(verdict))
            pytest.skip(str(verdict))
        if isinstance(verdict, BaseException):
            assert function is not None
            text = crash_message(function, question(case), verdict)
            checks.fail(text, case.id, *(line for line in text.splitlines() if "asked:" not in line))
        if not verdict.passed:
            checks.fail_by(
                case, verdict, message(function, case, verdict, checks.hints, checks.rubric.hints.self_check)
            )
        if not case.hidden and checks.watched.get(case.id) == case.name:
            record_property("note", [case.id, device_note(call, case)])

    return check_case


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of what a failed check printed, a page is shown: a loop that prints would push everything else away."""
    report = yield
    report.sections = [(title, _end_of(text)) for title, text in report.sections]
    return report


def _end_of(text: str) -> str:
    if len(text) <= PRINTED:
        return text
    return f"(the last {PRINTED} of {len(text)} characters)\n{text[-PRINTED:]}"


class OutOfTime(BaseException):
    """A case took too long. Not an Exception, so that a submission's `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise OutOfTime after that much computing, or PATIENCE times as long; 0 for no limit, as on Windows."""
    if not seconds or not hasattr(signal, "setitimer"):
        yield
        return

    def looping(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"no answer within {seconds} seconds of computing: is there a loop that does not end?")

    def waiting(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"no answer within {PATIENCE * seconds} seconds: does it wait for something?")

    limits = (
        (signal.ITIMER_PROF, signal.SIGPROF, looping, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, waiting, PATIENCE * seconds),
    )
    previous = {number: signal.signal(number, stop) for _, number, stop, _ in limits}
    try:
        for timer, _, _, limit in limits:
            signal.setitimer(timer, limit)
        yield
    finally:
        for timer, number, _, _ in limits:
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])


def _graded(config: pytest.Config) -> Iterator[tuple[pytest.TestReport, dict[str, Any]]]:
    """The reports on cases that carry points, each with what was recorded."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for outcome in ("passed", "failed", "skipped"):
        for report in reporter.getreports(outcome) if reporter else []:
            recorded = dict(report.user_properties)
            if report.when == "call" and "graded" in recorded:
                yield report, recorded


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A case that is skipped, because its function is not written yet, is no success."""
    if exitstatus == pytest.ExitCode.OK and not all(report.passed for report, _ in _graded(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What is to be written, and points per id, from the cases that ran."""
    from grading.rubric import load_rubric, score
    from grading.step_summary import write_step_summary

    outcomes: dict[tuple[str, bool], list[tuple[str, bool]]] = defaultdict(list)
    notes: list[tuple[str, str]] = []
    todo: dict[str, str] = {}
    for report, recorded in _graded(terminalreporter.config):
        id, group, hidden = recorded["graded"]
        outcomes[id, hidden].append((group, report.passed))
        if recorded.get("note", ["", ""])[1]:
            notes.append(recorded["note"])
        if "todo" in recorded:
            todo[id] = recorded["todo"]
    if not outcomes:
        return
    rubric, rows = load_rubric(), list[tuple[str, float, float, str]]()
    if todo:
        terminalreporter.section("to do")
        for id in rubric.functions:
            if id in todo:
                terminalreporter.write_line(f"{rubric.functions[id].file}: {todo[id]}")
    terminalreporter.section("points")
    for hidden in (False, True):
        ids = [id for id in rubric.functions if (id, hidden) in outcomes]
        if not ids:
            continue
        points = {id: score(rubric.functions[id], outcomes[id, hidden]) for id in ids}
        possible = sum(rubric.functions[id].points for id in ids)
        kind = "hidden" if hidden else "public"
        for id in ids:
            passed = sum(ok for _, ok in outcomes[id, hidden])
            cases = f"{passed}/{len(outcomes[id, hidden])} {kind} cases" if id not in todo else "to do"
            terminalreporter.write_line(f"{id:<16}{points[id]:>6g} / {rubric.functions[id].points:<4g}{cases}")
            rows += [] if hidden else [(id, points[id], rubric.functions[id].points, cases)]
        terminalreporter.write_line(f"{'total':<16}{sum(points.values()):>6g} / {possible:<4g}on the {kind} cases")
    write_step_summary(rows)
    for id, note in notes:
        terminalreporter.write_line(f"{id}: {note}")
    if not any(hidden for _, hidden in outcomes):
        terminalreporter.write_line("The grade comes from other inputs; an answer that is right passes those too.")
