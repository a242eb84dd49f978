"""What runs on Gradescope for each submission: grades the one that lies there and writes results.json.

    ROOT/source/                        the zip that `python -m grading gradescope` wrote; this is run in it
    ROOT/submission/                    what was handed in, by one student or one group
    ROOT/submission_metadata.json       when, what was due when, and everything about earlier submissions
    ROOT/results/results.json           what Gradescope shows; `stopped.json` lies there already

Gradescope's container holds grader and submission, and may forbid what the sandbox is made of. What is there is tried
before a byte of the submission is read, so that none can choose; what is missing is told to the instructor alone, in a
test that students never see.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from grading.errors import GradingError
from grading.hidden.engine.exam import make_exam
from grading.hidden.engine.grade import Exam, grade_submission, result_of
from grading.hidden.intake.inbox import Handin
from grading.hidden.intake.untrusted import Piece
from grading.hidden.reports.feedback import lateness, rows
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.gradescope import gradescope
from grading.hidden.reports.result import Result
from grading.hidden.reports.text import MAX_OUTPUT, clip, readable, short
from grading.hidden.sandbox.workers import Worker, WorkerLost, Zygote, ZygoteError, ZygoteLost
from grading.rubric import Rubric
from grading.submission import ROOT

SUBMISSION = "submission"
METADATA = "submission_metadata.json"


def main(root: Path) -> None:
    """Grade the submission of `root`, or say in results.json why that could not be done."""
    os.umask(0o022)  # workers may be another user, and read what is made for them
    remarks = close_to_others(root)
    settings = json.loads((ROOT / "settings.json").read_text(encoding="utf-8"))
    try:
        report = _grade(root, settings, remarks)
    except GradingError as error:
        report = json.loads((ROOT / "stopped.json").read_text(encoding="utf-8"))
        report["tests"].append(for_the_instructor([f"NOT GRADED: {error}", *remarks]))
    text = json.dumps(report, indent=1, allow_nan=False)
    write_atomically(root / "results" / "results.json", text.encode("ascii") + b"\n")


def _grade(root: Path, settings: dict[str, Any], remarks: list[str]) -> dict[str, Any]:
    exam = make_exam(None, settings["timeout"])
    rubric = replace(exam.rubric, visibility=settings["visibility"] or exam.rubric.visibility)
    handed_in = read_metadata(root / METADATA)
    with _workers(remarks) as (zygote, isolation):
        result = grade(exam, zygote, root / SUBMISSION)
    # From here on nothing of the submission runs any more.
    result = replace(result, isolation=isolation, hours_late=handed_in.hours_late)
    if settings["penalty"]:
        result.penalty = rubric.late.penalty(result.earned, result.hours_late)
    return report(result, rubric, [*remarks, *handed_in.remarks])


def grade(exam: Exam, zygote: Zygote, folder: Path) -> Result:
    """Grade a folder as one submission. Raises GradingError when that cannot be done here."""
    begin = time.monotonic()
    contents = Handin(SUBMISSION, "", (Piece("", folder),)).read(exam.rubric)
    try:
        found = grade_submission(exam, zygote, 0, contents.files)
    except ZygoteLost:
        raise GradingError("the process that starts workers was killed: give the container more memory") from None
    about = {"submission": SUBMISSION, "student": "", "fingerprint": "", "isolation": ""}
    return result_of(exam.rubric, contents, found, seconds=time.monotonic() - begin, **about)


# -- isolation ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """One way to keep submissions in. enforced, as_nobody: as `Zygote` has them.  says: what the instructor is told."""

    enforced: bool
    as_nobody: bool
    says: str


_USER = "ran as a user of its own, who may not read the hidden cases nor write the results"
LEVELS = (
    Level(True, False, "Isolation: the submission ran in the sandbox."),
    Level(
        True,
        True,
        f"WARNING: NO LANDLOCK. The submission {_USER}, and could neither use a network nor start a process. It could "
        "read and write what every user of this container can.",
    ),
    Level(
        False,
        True,
        f"WARNING: NO SANDBOX. The submission {_USER}. It could use the network, if there is one, start processes, "
        "which were ended with it, and read and write what every user of this container can.",
    ),
    Level(
        False,
        False,
        "WARNING: NO ISOLATION. The submission ran as the autograder's own user: it could read the hidden cases and "
        "write its own results. Do not rely on these points: download the submissions and grade them elsewhere.",
    ),
)


@contextlib.contextmanager
def _workers(remarks: list[str]) -> Iterator[tuple[Zygote, str]]:
    """A zygote at the best level that this container allows, and "sandbox" or "process". Adds what it is to remarks."""
    folder = Path(tempfile.mkdtemp(prefix="grading-"))
    folder.chmod(0o711)
    try:
        zygote, level, problems = _open(folder)
        remarks += [level.says, *problems]
        try:
            yield zygote, "sandbox" if level is LEVELS[0] else "process"
        finally:
            zygote.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> tuple[Zygote, Level, list[str]]:
    problems: list[str] = []
    for level in LEVELS:
        if level.as_nobody and os.geteuid() != 0:
            continue
        try:
            zygote = Zygote(folder, enforced=level.enforced, as_nobody=level.as_nobody)
            try:
                Worker(zygote, 0, {}, 10).close()  # without a submission: what is forbidden is met when it is put up
            except BaseException:
                zygote.close()
                raise
        except (ZygoteError, ZygoteLost, WorkerLost) as error:
            problems.append(f"Not possible here: {str(error).strip() or 'the process was killed'}")
        else:
            return zygote, level, list(dict.fromkeys(problems))
    raise GradingError(f"no worker can be started: {' | '.join(problems)}")


def close_to_others(root: Path) -> list[str]:
    """As root, take from other users what lies in `root`, the interpreter aside. Returns what is not possible.

    The results may still be read, by whoever fetches them.
    """
    remarks = []
    for path in sorted(root.iterdir()) if os.geteuid() == 0 else ():
        if path.name != "venv":
            try:
                path.chmod(path.stat().st_mode & (0o755 if path.name == "results" else 0o700))
            except OSError as error:
                remarks.append(f"WARNING: other users may see {path.name}: {error.strerror}.")
    return remarks


# -- lateness -----------------------------------------------------------------------------------------------


@dataclass
class HandedIn:
    """What the metadata say. remarks: for the instructor."""

    hours_late: float = 0.0
    remarks: list[str] = field(default_factory=list)


def read_metadata(path: Path) -> HandedIn:
    """How late a submission is: its time against what was due, for each member of a group; the latest date counts.

    Extensions stand at the student, the assignment's own dates beside them. Who has no date is not late, nor is anybody
    when the file cannot be understood, which is told.
    """
    try:
        data = json.loads(path.read_bytes())
        created = _time(data["created_at"])
        due = {str(user.get("email")): _due(user, data) for user in data["users"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"{METADATA} cannot be used ({type(error).__name__}: {error})"
        return HandedIn(remarks=[f"WARNING: {what}, so this is taken to be in time."])
    if not due or None in due.values():
        return HandedIn()
    dates = [date for date in due.values() if date is not None]
    hours = max(0.0, (created - max(dates)).total_seconds() / 3600)
    remarks = [f"Handed in at {created}, due at {max(dates)}."] if hours else []
    if len(set(dates)) > 1:
        each = ", ".join(f"{email} {date}" for email, date in due.items())
        remarks.append(f"The members of this group have different dates, of which the latest counts: {each}.")
    return HandedIn(hours, remarks)


def _due(user: dict[str, Any], data: dict[str, Any]) -> datetime | None:
    date = user.get("assignment", data["assignment"])["due_date"]
    return None if date is None else _time(date)


def _time(text: str) -> datetime:
    """A moment. Raises ValueError for one without a time zone."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.utcoffset() is None:
        raise ValueError(f"{text} has no time zone")
    return moment


# -- results.json -------------------------------------------------------------------------------------------


def report(result: Result, rubric: Rubric, remarks: list[str]) -> dict[str, Any]:
    """results.json. Points stand where the rubric's visibility says, and how it was graded stands for the instructor.

    Gradescope shows the text about the whole submission at once, whatever the tests' visibility.
    """
    found = gradescope(replace(result, isolation="sandbox", hours_late=0.0, penalty=0.0), rubric)
    for part in (found, *found["tests"]):
        del part["extra_data"]  # what it holds is for `grade --resume`, and for the instructor
    del found["leaderboard"]
    found |= {"score": result.total, "stdout_visibility": "hidden"}
    if late := lateness(result):
        found["tests"].append(_told("Lateness", "\n".join(late), rubric.visibility))
    found["tests"].append(for_the_instructor([*remarks, *_details(result, rubric)]))
    return found


def for_the_instructor(lines: list[str]) -> dict[str, Any]:
    """A test that students never see, without points."""
    return _told("For the instructor", clip(readable("\n".join(lines)), MAX_OUTPUT), "hidden")


def _told(name: str, text: str, visibility: str) -> dict[str, Any]:
    return {"name": name, "name_format": "text", "output": text, "output_format": "text", "visibility": visibility}


def _details(result: Result, rubric: Rubric) -> list[str]:
    """What `grade` tells in its summary."""
    lines = [f"Status: {result.status}. {short(result.earned)} points earned, {short(result.penalty)} taken off."]
    lines += result.events
    for row in rows(result, rubric):
        found = row.result
        mistake = f", known mistake: {found.mistake}" if found.mistake else ""
        points = f"{short(found.points)} of {short(row.function.points)}"
        lines.append(f"{row.function.id}: {points} ({', '.join(row.groups)}; {found.seconds:.1f} s{mistake})")
    return lines


if __name__ == "__main__":
    main(Path(sys.argv[1]))
