"""What every submission is asked, and a hash of all that a result depends on besides the submission."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from grading.cases import HIDDEN, PUBLIC, load_cases
from grading.errors import GradingError
from grading.feedback import MISTAKES, mistakes
from grading.hidden.engine.grade import Exam
from grading.hidden.reports.text import TEMPLATES
from grading.rubric import load_rubric, note_total


def make_exam(only: list[str] | None, timeout: float) -> Exam:
    """The rubric's functions with their cases. Raises GradingError for an unknown id, and where the two disagree."""
    rubric = load_rubric()
    note_total(rubric)
    unknown = sorted(set(only or []) - rubric.functions.keys())
    if unknown:
        known = ", ".join(rubric.functions)
        raise GradingError(f"--only {unknown[0]}: there is no such id; there are {known}", exit_code=2)
    if only:
        rubric = replace(rubric, functions={id: rubric.functions[id] for id in rubric.functions if id in only})
    hidden = {id: load_cases(HIDDEN / f"{id}.npz", hidden=True) for id in rubric.functions}
    public = {id: load_cases(PUBLIC / f"{id}.npz", hidden=False) for id in rubric.functions}
    return Exam(rubric, hidden, public, mistakes(), timeout)


def base_fingerprint(exam: Exam, isolation: str, handout: dict[str, bytes]) -> bytes:
    """A hash of what all results depend on besides the submission: code, templates, rubric, cases, handout, options."""
    grading = Path(__file__).resolve().parents[2]
    files = [*grading.rglob("*.py"), *TEMPLATES.iterdir(), grading / "rubric.toml"]
    files += [*HIDDEN.glob("*.npz"), *PUBLIC.glob("*.npz"), MISTAKES]
    total = hashlib.sha256(repr((sorted(exam.rubric.functions), exam.timeout, isolation)).encode())
    for path in sorted(files):
        total.update(path.relative_to(grading).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    for place, content in sorted(handout.items()):
        total.update(place.encode() + hashlib.sha256(content).digest())
    return total.digest()
