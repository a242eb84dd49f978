"""Runs one submission on the hidden cases of a disputed mark, and prints what is expected and what comes.

THIS RUNS THE STUDENT'S CODE AS YOU, WITHOUT A SANDBOX: it can do whatever you can. Read it before. And this folder is
not for students: it holds hidden cases and their answers.

    python replay.py              all cases that were kept
    python replay.py kl/extreme   those whose name begins like that
    python -m pdb replay.py       in a debugger; or write `breakpoint()` into the student's file
"""

import sys
import traceback
from pathlib import Path

import numpy as np

from grading import driver
from grading.cases import Arrays, Case, load_cases
from grading.judge import run_and_judge
from grading.submission import Submission


def replay(case: Case, submission: Submission) -> None:
    """Print one case: its inputs, what is expected, what comes, and the verdict."""
    got: Arrays = {}
    helped = False

    def call(name: str, params: dict, arrays: Arrays, standins: dict) -> Arrays:
        nonlocal helped
        helped = bool(standins)
        got.clear()
        got.update(driver.run(submission, name, params, arrays, standins))
        return got

    print(f"\n== {case.id}/{case.name}: {case.call} {case.params}")
    show("input", case.inputs)
    show("expected", case.expected)
    try:
        verdict = run_and_judge(call, case)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return
    show("got", {name: value for name, value in got.items() if not name.startswith("after/")})
    if helped:
        print("that is with right answers for the other graded functions that it calls")
    print("passed" if verdict.passed else f"FAILED: {verdict.problem}")


def show(what: str, arrays: Arrays) -> None:
    """Print arrays, long ones cut."""
    for name, value in arrays.items():
        print(f"-- {what} {name} {value.shape} {value.dtype}\n{value}")


if __name__ == "__main__":
    print("This runs the student's code as you, without a sandbox.")
    np.set_printoptions(precision=6, suppress=True, threshold=60, linewidth=120)
    code = Submission()
    for path in sorted((Path(__file__).parent / "disputed").glob("*.npz")):
        for kept in load_cases(path, hidden=True):
            if f"{kept.id}/{kept.name}".startswith(tuple(sys.argv[1:]) or ""):
                replay(kept, code)
