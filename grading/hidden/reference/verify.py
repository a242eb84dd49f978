"""Whether cases are any good: the bank's wrong answers lose on them where they are wrong, its right ones never do.

`python -m grading refresh` asks this before it writes cases; tests/reference/test_bank.py asks it of the stored ones.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from grading import driver
from grading.cases import Case
from grading.hidden.reference.bank import BANK, PLACES, Entry, chaffs_of
from grading.judge import Verdict, run_and_judge
from grading.submission import Submission

CPU_SECONDS, SLOWER = 0.2, 3  # for all hidden cases of a right submission; times as long on a slow or busy machine
MARGIN = 0.8  # of its tolerance is what a right answer in float32 may be off at most

Key = tuple[str, str, bool]


class Trial:
    """Every answer of the bank on some cases; each is judged once."""

    def __init__(self, cases: list[Case]) -> None:
        self.all = cases
        self.cases = [case for case in cases if case.id in PLACES]  # whole samplers carry no points
        self._verdicts: dict[tuple[str, str, Key], Verdict] = {}
        self._touched: dict[Key, frozenset[str]] = {}

    def verdict(self, entry: Entry, case: Case) -> Verdict:
        """The verdict on one answer; an exception is one as well."""
        key = (entry.id, entry.name, _key(case))
        if key not in self._verdicts:
            self._verdicts[key] = _judged(entry.submission(), case)
        return self._verdicts[key]

    def of(self, id: str, *, hidden: bool | None = None) -> list[Case]:
        """The cases of one graded function."""
        return [case for case in self.cases if case.id == id and hidden in (None, case.hidden)]

    def lost(self, entry: Entry, cases: list[Case]) -> list[Case]:
        """Those of the cases that an answer fails."""
        return [case for case in cases if not self.verdict(entry, case).passed]

    def loses(self, entry: Entry, cases: list[Case]) -> bool:
        """Whether an answer fails any of the cases."""
        return any(not self.verdict(entry, case).passed for case in cases)

    def elsewhere(self, entry: Entry, cases: list[Case]) -> list[Case]:
        """The cases of other functions that run this one too; no other can tell the difference."""
        return [case for case in cases if case.id != entry.id and entry.id in self.touched(case)]

    def touched(self, case: Case) -> frozenset[str]:
        """The graded functions that a case runs in the tree's own code."""
        key = _key(case)
        if key not in self._touched:
            self._touched[key] = _touched(case)
        return self._touched[key]

    def dead(self, id: str) -> list[Case]:
        """Cases on which no wrong answer fails: they prove nothing."""
        return [case for case in self.of(id) if all(self.verdict(chaff, case).passed for chaff in chaffs_of(id))]


def _key(case: Case) -> Key:
    return case.id, case.name, case.hidden


def _judged(submission: Submission, case: Case) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run_and_judge(partial(driver.run, submission), case)
        except Exception as error:
            return Verdict(False, f"raised {type(error).__name__}: {error}")


def _touched(case: Case) -> frozenset[str]:
    seen = set()

    def recording(id: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            seen.add(id)
            return original(*args, **kwargs)

        return function

    places = {}
    for id, (file, name) in PLACES.items():
        owner, _, method = name.partition(".")
        found = Submission().get(file, owner)
        places[file, name] = recording(id, getattr(found, method) if method else found)
    # The recorders take any arguments, so the call is made as it would be for the function itself.
    driver.run(Submission(replaced=places), case.call, case.params, case.inputs)
    return frozenset(seen)


def problems(cases: list[Case]) -> Iterator[str]:
    """What is wrong with a set of cases, in one line each."""
    trial = Trial(cases)
    for case in cases:
        yield from (f"{case.id}, {case.name}: {problem}" for problem in unfair(case))
    for entry in BANK:
        answer = f"the bank's {entry.name} of {entry.id}"
        mine, others = trial.of(entry.id), trial.elsewhere(entry, trial.all if entry.is_wheat else trial.cases)
        if entry.is_wheat:
            for case in [*trial.lost(entry, mine), *trial.lost(entry, others)]:
                yield f"{answer} is right and fails {case.name} of {case.id}: {trial.verdict(entry, case).problem}"
            for case in mine:
                if not _judged(entry.submission(), _narrower(case)).passed:
                    yield f"{answer} is right and comes near the tolerance of {case.name}"
        else:
            if mine and not trial.loses(entry, mine):
                yield f"{answer} is wrong and passes every case"
            for case in trial.lost(entry, others):
                yield f"{answer} is wrong and fails {case.name} of {case.id}, too"
    for id in PLACES:
        yield from (f"no wrong answer of the bank fails {case.name} of {id}" for case in trial.dead(id))
    seconds = cpu_seconds(trial.cases)
    if seconds > SLOWER * CPU_SECONDS:
        yield f"a right submission computes for {seconds:.2f} seconds, and {CPU_SECONDS:g} are allowed"


def unfair(case: Case) -> Iterator[str]:
    """What float32 cannot be asked, and what tells nothing."""
    floats = [array for array in case.inputs.values() if array.dtype.kind == "f"]
    if case.check not in ("toy", "sample") and any(np.abs(array).max() > 6 for array in floats):
        yield "an input is beyond 6"
    for want in case.expected.values() if case.check == "value" else ():
        answers = [array for side in case.standins.values() for array in side["out"].values()]
        for other in [*floats, *answers, np.zeros_like(want)]:
            if other.shape == want.shape and np.abs(other - want).max() <= 1e-2:
                yield "what is expected is an input, a stand-in's answer, or zero"


def _narrower(case: Case) -> Case:
    """The case with a part of its tolerances."""
    atol, rtol = case.tolerance
    own = {name: (MARGIN * pair[0], MARGIN * pair[1]) for name, pair in case.tolerances.items()}
    return replace(case, tolerance=(MARGIN * atol, MARGIN * rtol), tolerances=own)


def cpu_seconds(cases: list[Case]) -> float:
    """What a right submission computes for all cases, judging included, when nothing is computed for the first time."""
    call, best = partial(driver.run, Submission()), float("inf")
    for _ in range(3):
        begin = time.process_time()
        for case in cases:
            run_and_judge(call, case)
        best = min(best, time.process_time() - begin)
    return best
