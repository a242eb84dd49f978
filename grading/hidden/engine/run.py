"""The grading run: which submissions, in which order, and what is written when.

Every submission that is finished is written at once, so the run may be killed at any moment; the next one with
`resume` goes on with what is missing or has changed.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from grading.errors import GradingError, not_installed
from grading.hidden.decisions.decided import Decisions, decide, read_given
from grading.hidden.decisions.record import Record, damaged, keep_edited, read_record, remember_grades
from grading.hidden.decisions.regrade import NAME as REGRADE
from grading.hidden.decisions.regrade import changes, marks_of, write_regrade
from grading.hidden.doors.classroom import at_deadline
from grading.hidden.engine.exam import base_fingerprint, make_exam
from grading.hidden.engine.folders import only_run
from grading.hidden.engine.grade import Exam, Found, result_of
from grading.hidden.engine.grader import Grader
from grading.hidden.handout.release import build
from grading.hidden.intake.inbox import Contents, Handin, Inbox, find, listed
from grading.hidden.reports.grades import write_grades
from grading.hidden.reports.gradescope import results_in, write_result
from grading.hidden.reports.keep import keep_failed
from grading.hidden.reports.result import Change, FunctionResult, Result
from grading.hidden.reports.similarity import CodeIndex
from grading.hidden.reports.summary import write_summary
from grading.submission import ROOT


def grade_inbox(
    paths: list[Path],
    out: Path,
    *,
    workers: int,
    resume: bool,
    isolation: str,
    only: list[str] | None,
    timeout: float,
    late_csv: Path | None,
    roster: Path | None = None,
    overrides: Path | None = None,
    due: datetime | None = None,
    before: datetime | None = None,
    platform: str | None = None,
    bulk: bool = False,
    replace: bool = False,
    scheduler: str | None = None,
    keep: bool = False,
) -> int:
    """Grade what is at `paths` and write the reports to `out`. Returns the exit code; the options are the command's."""
    exam = make_exam(only, timeout)
    inbox = find(paths, exam.rubric, platform=platform, bulk=bulk, out=out)
    given = read_given(exam.rubric, roster=roster, late_csv=late_csv, overrides=overrides, due=due)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GradingError(f"cannot write to {out}: {error.strerror}", exit_code=2) from error
    with only_run(out) as work:
        handout = build(ROOT)[0]
        handins = at_deadline(inbox.handins, before, work / "clones", exam.rubric) if before or due else inbox.handins
        record, held = read_record(out), results_in(out)
        decisions = decide(given, record, out, handins, held, exam.rubric)
        base = base_fingerprint(exam, isolation, handout)
        run = GradingRun(out, exam, isolation, decisions, record, base, held)
        if scheduler:
            open_place: Callable[[], Place] = partial(_cluster, scheduler, only, timeout, isolation, base)
        else:
            # A worker could look up there who else is graded, and how well.
            unseen = [out, *(path if path.is_dir() else path.parent for path in paths)]
            open_place = partial(Grader, exam, work, isolation, at_a_time=workers, unseen=unseen)
        failures = run.grade(handins, open_place, at_a_time=workers, resume=resume, replace=replace)
        run.report(handins, handout)
        if keep:
            run.keep(handins, handout)
    decisions.say()
    _account(inbox, run.results, failures)
    print(f"{out / 'grades.csv'}  {out / 'summary.html'}")
    if isolation == "process":
        print("grading: warning: graded without isolation; every report says so", file=sys.stderr)
    return 1 if failures or inbox.strays else 0


def _cluster(scheduler: str, *settings: Any) -> Place:
    try:
        from grading.hidden.doors.cluster import Cluster
    except ImportError as error:
        raise not_installed(error, "--scheduler", "requirements-cluster.txt") from error
    return Cluster(scheduler, *settings)


def _account(inbox: Inbox, results: dict[str, Result], failures: list[tuple[str, str]]) -> None:
    """Say what became of everything that was given."""
    counts = f"{inbox.given} given"
    if inbox.platforms:
        counts += f", named by {' and '.join(dict.fromkeys(inbox.platforms))}"
    if inbox.given != len(inbox.handins) + len(inbox.strays):  # some have several files, or none at all
        counts += f", {len(inbox.handins)} submissions"
    statuses = Counter(result.status for result in results.values()).most_common()
    of_each = ", ".join(f"{count} {status}" for status, count in statuses)
    counts += f", {len(results)} graded" + (f" ({of_each})" if of_each else "")
    counts += f", {len(failures)} could not be graded" if failures else ""
    print(f"{counts}, {len(inbox.strays)} not understood" + (":" if inbox.strays else ""))
    for name, reason in inbox.strays:
        print(f"  {name} {reason}")
    for student, names in inbox.in_two_rows().items():
        print(f"grading: warning: {student} has {len(names)} rows: {listed(names)}", file=sys.stderr)
    for name, reason in failures:
        print(f"grading: error: {name} could not be graded: {reason}", file=sys.stderr)


class Place(Protocol):
    """Where submissions are graded: this machine, or a cluster. Several threads ask at once.

    `grade` raises GradingError when it cannot be done. After `close`, what is under way fails.
    """

    def grade(self, files: dict[str, bytes]) -> Found: ...

    def close(self) -> None: ...


@dataclass
class GradingRun:
    """One run of the command: what is graded, and where the reports go.

    held: the results that OUT has already.
    """

    out: Path
    exam: Exam
    isolation: str
    decisions: Decisions
    record: Record
    base: bytes
    held: dict[str, Result]
    results: dict[str, Result] = field(default_factory=dict)

    def grade(
        self,
        handins: list[Handin],
        open_place: Callable[[], Place],
        *,
        at_a_time: int,
        resume: bool,
        replace: bool = False,
    ) -> list[tuple[str, str]]:
        """Grade what is not there yet. Returns (name, reason) of what could not be graded.

        open_place: called if there is anything to grade.  at_a_time: submissions under way.
        Raises GradingError rather than overwrite the result of a submission that lay elsewhere, without `replace`: a
        student's zip may hold whatever is called like another student's.
        """
        foreign = []
        for handin in handins:
            result = self.held.get(handin.name)
            if result is None:
                continue
            if resume and result.fingerprint == self.fingerprint(handin, handin.read(self.exam.rubric)):
                self.results[handin.name] = result
            elif result.source != handin.source:
                foreign.append(handin.name)
        if foreign and not replace:
            raise GradingError(
                f"{self.out} has results of submissions that lay elsewhere: {listed(foreign)}; "
                "say --replace to overwrite them, or name another --out",
                exit_code=2,
            )
        self.record.write(self.out)  # before anything is graded by it: a run that is killed has told the next one
        self.results = {name: self._settle(result) for name, result in self.results.items()}
        todo = [handin for handin in handins if handin.name not in self.results]
        failures: list[tuple[str, str]] = []
        if not todo:
            return failures
        place = open_place()
        progress = tqdm(total=len(handins), initial=len(self.results), unit="submission", disable=None)
        with ThreadPoolExecutor(at_a_time) as pool:
            running = {pool.submit(self._one, handin, place): handin for handin in todo}
            try:
                for future in as_completed(running):
                    handin = running[future]
                    try:
                        self.results[handin.name] = future.result()
                    except GradingError as error:
                        failures.append((handin.name, str(error)))
                    except Exception as error:  # whatever it is: the others are graded, and this is told at the end
                        failures.append((handin.name, f"{type(error).__name__}: {error}"))
                    progress.update()
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                written = sum((self.out / handin.name / "results.json").is_file() for handin in handins)
                done = f"{written} of {len(handins)} submissions are graded"
                raise GradingError(f"interrupted: {done}; go on with --resume", exit_code=130) from None
            finally:
                place.close()  # its memory is needed for the summary, and what is under way must not be waited for
                progress.close()
        return failures

    def report(self, handins: list[Handin], handout: dict[str, bytes]) -> None:
        """The tables, of this run's submissions and of those that OUT has from earlier ones."""
        rubric, decisions, record = self.exam.rubric, self.decisions, self.record
        results = [self.results[handin.name] for handin in handins if handin.name in self.results]
        now = {handin.name for handin in handins}
        earlier = [self._settle(result) for name, result in self.held.items() if name not in now]
        if earlier:
            names = listed([result.submission for result in earlier])
            print(f"{len(earlier)} results of earlier runs stay in the tables: {names}")
        results += earlier
        found = self._changes(results)
        keep_edited(self.out, record)
        absent = decisions.absent()
        write_grades(self.out, results, rubric, absent, names=decisions.roster is not None)
        remember_grades(self.out, record)
        record.marks = marks_of(results)
        record.absent = {student.student: student.total for student in absent}
        record.write(self.out)
        # Now and not while workers run: it keeps this process busy, and every answer of a worker would wait for it.
        code = CodeIndex({file: handout[file] for file in rubric.submit})
        for handin in tqdm(handins, desc="comparing code", unit="submission", disable=None, leave=False):
            code.add(handin.name, handin.read(rubric).files)
        strangers = decisions.attendance.strangers
        write_summary(self.out, results, rubric, code, changes=found, absent=absent, strangers=strangers)

    def keep(self, handins: list[Handin], handout: dict[str, bytes]) -> None:
        """A folder for each submission that lost something, in which its instructor can replay it."""
        for handin in handins:
            if result := self.results.get(handin.name):
                files = handin.read(self.exam.rubric).files
                folder = keep_failed(self.out, result, files, self.exam.hidden, handout)
                print(
                    f"python {folder / 'replay.py'}" if folder else f"{handin.name}: nothing failed that could be kept"
                )

    def _changes(self, results: list[Result]) -> list[Change]:
        """Whose marks are others than in the last tables; written down, if there are any."""
        try:
            found = changes(self.record.marks, results)
        except (KeyError, TypeError, AttributeError):
            raise damaged(self.out) from None
        if found:
            write_regrade(self.out, found)
            print(f"{len(found)} marks changed: {self.out / REGRADE}")
        return found

    def _settle(self, result: Result) -> Result:
        """Apply what was decided, and write it where that changes what OUT has."""
        settled = self.decisions.settle(result)
        if settled != result:
            write_result(self.out, settled, self.exam.rubric)
        return settled

    def fingerprint(self, handin: Handin, contents: Contents) -> str:
        """A hash of everything that grading this submission depends on; what people decided is applied afterwards."""
        total = hashlib.sha256(self.base)
        names = (handin.name, handin.student, contents.notes)
        total.update(repr(names).encode("utf-8", "surrogateescape"))
        for file, content in sorted(contents.files.items()):
            total.update(file.encode() + hashlib.sha256(content).digest())
        return total.hexdigest()

    def _one(self, handin: Handin, place: Place) -> Result:
        """Grade one submission and write what was found."""
        begin = time.monotonic()
        contents = handin.read(self.exam.rubric)
        found = place.grade(contents.files) if contents.files else self._nothing()
        result = result_of(
            self.exam.rubric,
            contents,
            found,
            submission=handin.name,
            student=handin.student,
            fingerprint=self.fingerprint(handin, contents),
            isolation=self.isolation,
            seconds=round(time.monotonic() - begin, 3),
            source=handin.source,
            platform=handin.platform,
            originals=list(handin.originals),
        )
        result = self.decisions.settle(result)
        write_result(self.out, result, self.exam.rubric)
        return result

    def _nothing(self) -> Found:
        """What comes of a submission without files."""
        functions = self.exam.rubric.functions.values()
        return Found([FunctionResult(f.id, 0.0, f.points, problem=f"{f.file} is missing") for f in functions])
