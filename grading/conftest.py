"""What every check shares: the code under test, the first look at the machine, and the points at the end."""

from __future__ import annotations

import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # at run time only after the machine has been looked at
    from grading.cases import Case
    from grading.submission import Submission

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30  # of computing, for one case; right answers take milliseconds
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


@pytest.fixture(scope="session")
def submission() -> Submission:
    """The student's code, in this process: tracebacks and debuggers work as usual."""
    from grading.submission import Submission

    return Submission()


@pytest.fixture
def check(
    submission: Submission, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[Case], None]:
    """Judge one case; fail with a message that says what was asked, what came back, and what to look at again."""
    from grading import driver
    from grading.cases import PUBLIC, load_cases
    from grading.feedback import message, mistakes
    from grading.judge import device_case, device_note, run_and_judge
    from grading.rubric import load_rubric
    from grading.submission import SubmissionError

    rubric, hints, call = load_rubric(), mistakes(), partial(driver.run, submission)
    paths = {id: PUBLIC / f"{id}.npz" for id in rubric.functions}  # a tree may hold hidden cases only
    watched = {id: device_case(load_cases(path, hidden=False)).name for id, path in paths.items() if path.is_file()}

    def check_case(case: Case) -> None:
        function = rubric.functions.get(case.id)  # whole samplers belong to no id and carry no points
        if function is not None:
            record_property("graded", [case.id, case.group, case.hidden])
        try:
            with time_limit(0 if request.config.getoption("usepdb") else SECONDS):
                verdict = run_and_judge(call, case)
        except NotImplementedError as error:
            if function is None:
                pytest.skip(f"waits for {str(error).partition(':')[0]}")
            pytest.fail(str(error), pytrace=False)
        except (SubmissionError, OutOfTime) as error:
            pytest.fail(f"{case.id}: {error}", pytrace=False)
        if not verdict.passed:
            pytest.fail(message(function, case, verdict, hints, rubric.hints.self_check), pytrace=False)
        if not case.hidden and watched.get(case.id) == case.name:
            record_property("note", [case.id, device_note(call, case)])

    return check_case


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Points per id, from the cases that ran."""
    from grading.rubric import load_rubric, score
    from grading.step_summary import write_step_summary

    outcomes: dict[tuple[str, bool], list[tuple[str, bool]]] = defaultdict(list)
    notes: list[tuple[str, str]] = []
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        graded = dict(report.user_properties).get("graded")
        if graded and report.when == "call":
            id, group, hidden = graded
            outcomes[id, hidden].append((group, report.passed))
            notes += [note for name, note in report.user_properties if name == "note" and note[1]]
    if not outcomes:
        return
    rubric, rows = load_rubric(), list[tuple[str, float, float, str]]()
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
            cases = f"{passed}/{len(outcomes[id, hidden])} {kind} cases"
            terminalreporter.write_line(f"{id:<16}{points[id]:>6g} / {rubric.functions[id].points:<4g}{cases}")
            rows += [] if hidden else [(id, points[id], rubric.functions[id].points, cases)]
        terminalreporter.write_line(f"{'total':<16}{sum(points.values()):>6g} / {possible:<4g}on the {kind} cases")
    write_step_summary(rows)
    for id, note in notes:
        terminalreporter.write_line(f"{id}: {note}")
    if not any(hidden for _, hidden in outcomes):
        terminalreporter.write_line("The grade comes from other inputs; an answer that is right passes those too.")
