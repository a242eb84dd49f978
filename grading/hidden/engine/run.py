"""The grading run: which submissions, in which order, and what is written when.

Every submission that is finished is written at once, so the run may be killed at any moment; the next one with
`resume` goes on with what is missing or has changed.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import math
import queue
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from grading.cases import HIDDEN, PUBLIC, load_cases
from grading.errors import GradingError
from grading.feedback import MISTAKES, mistakes
from grading.hidden.engine.grade import Exam, Found, grade_submission
from grading.hidden.handout.release import build
from grading.hidden.intake.inbox import Contents, Handin, Inbox, find, listed
from grading.hidden.reports.grades import write_grades
from grading.hidden.reports.gradescope import read_result, write_result
from grading.hidden.reports.keep import keep_failed
from grading.hidden.reports.result import FunctionResult, Result
from grading.hidden.reports.similarity import CodeIndex
from grading.hidden.reports.summary import write_summary
from grading.hidden.reports.text import TEMPLATES
from grading.hidden.sandbox.workers import Zygote, ZygoteLost
from grading.rubric import Rubric, load_rubric, note_total
from grading.submission import ROOT

WORK, LOCK = ".work", ".lock"  # in the output folder, while a run writes to it
RESTARTS = 3  # of the zygote, within one submission


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
    platform: str | None = None,
    bulk: bool = False,
    replace: bool = False,
    keep: bool = False,
) -> int:
    """Grade what is at `paths` and write the reports to `out`. Returns the exit code; the options are the command's."""
    exam = make_exam(only, timeout)
    inbox = find(paths, exam.rubric, platform=platform, bulk=bulk, out=out)
    handins = inbox.handins
    late = read_late(late_csv, handins) if late_csv else {}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GradingError(f"cannot write to {out}: {error.strerror}", exit_code=2) from error
    with _only_run(out) as work:
        handout = build(ROOT)[0]
        run = GradingRun(out, work, exam, isolation, late, base_fingerprint(exam, isolation, handout))
        failures = run.grade(handins, workers=workers, resume=resume, replace=replace)
        run.report(handins, handout)
        if keep:
            run.keep(handins, handout)
    _account(inbox, run.results, failures)
    print(f"{out / 'grades.csv'}  {out / 'summary.html'}")
    if isolation == "process":
        print("grading: warning: graded without isolation; every report says so", file=sys.stderr)
    return 1 if failures or inbox.strays else 0


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


def read_late(path: Path, handins: list[Handin]) -> dict[str, float]:
    """Submission -> hours late. Raises GradingError with the line of what is wrong."""
    by_student: dict[str, list[str]] = {}
    for handin in handins:
        by_student.setdefault(handin.student, []).append(handin.name)
    names = {handin.name for handin in handins}
    late: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            key = next((name for name in ("submission", "student") if name in columns), None)
            if key is None or "hours_late" not in columns:
                raise GradingError(f"{path}: columns `submission` or `student`, and `hours_late` are needed", 2)
            for row in rows:
                try:
                    hours = float(row["hours_late"])
                except (TypeError, ValueError):
                    hours = math.nan
                if not math.isfinite(hours):
                    raise GradingError(f"{path}, line {rows.line_num}: {row['hours_late']!r} is no number of hours", 2)
                found = [row[key]] if key == "submission" and row[key] in names else by_student.get(row[key], [])
                if not found:
                    print(f"grading: warning: {path}: nobody here is called {row[key]!r}", file=sys.stderr)
                late |= dict.fromkeys(found, max(0.0, hours))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GradingError(f"{path} cannot be read: {error}", exit_code=2) from error
    return late


@contextlib.contextmanager
def _only_run(out: Path) -> Iterator[Path]:
    """The folder for the workers' files; a lock keeps a second run out, and leftovers of a killed one are removed."""
    try:
        import fcntl
    except ImportError:
        raise GradingError("grading needs Linux or macOS; on Windows, run it in WSL 2", exit_code=2) from None
    lock = (out / LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise GradingError(f"another run is writing to {out}: wait for it, or name another folder", 2) from None
    work = out.resolve() / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        (out / LOCK).unlink(missing_ok=True)
        lock.close()


@dataclass
class GradingRun:
    """One run of the command: what is graded, where to, and the zygote that does it."""

    out: Path
    work: Path
    exam: Exam
    isolation: str
    late: dict[str, float]
    base: bytes
    results: dict[str, Result] = field(default_factory=dict)
    _zygote: Zygote | None = None
    _restart: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def grade(
        self, handins: list[Handin], *, workers: int, resume: bool, replace: bool = False
    ) -> list[tuple[str, str]]:
        """Grade what is not there yet. Returns (name, reason) of what could not be graded.

        Raises GradingError rather than overwrite the result of a submission that lay elsewhere, without `replace`: a
        student's zip may hold whatever is called like another student's.
        """
        foreign = []
        for handin in handins:
            result = read_result(self.out / handin.name / "results.json")
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
        todo = [handin for handin in handins if handin.name not in self.results]
        failures: list[tuple[str, str]] = []
        if not todo:
            return failures
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(workers):
            slots.put(slot)
        self._zygote = self._start()
        progress = tqdm(total=len(handins), initial=len(self.results), unit="submission", disable=None)
        with ThreadPoolExecutor(workers) as pool:
            running = {pool.submit(self._one, handin, slots): handin for handin in todo}
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
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._zygote.close()
                written = sum((self.out / handin.name / "results.json").is_file() for handin in handins)
                done = f"{written} of {len(handins)} submissions are graded"
                raise GradingError(f"interrupted: {done}; go on with --resume", exit_code=130) from None
            finally:
                progress.close()
        self._zygote.close()  # its memory is needed for the summary
        return failures

    def report(self, handins: list[Handin], handout: dict[str, bytes]) -> None:
        """grades.csv and summary.html, of this run's submissions and of those that OUT has from earlier ones."""
        rubric = self.exam.rubric
        results = [self.results[handin.name] for handin in handins if handin.name in self.results]
        earlier = self._earlier({handin.name for handin in handins})
        if earlier:
            names = listed([result.submission for result in earlier])
            print(f"{len(earlier)} results of earlier runs stay in the tables: {names}")
        results += earlier
        write_grades(self.out, results, rubric)
        # Now and not while workers run: it keeps this process busy, and every answer of a worker would wait for it.
        code = CodeIndex({file: handout[file] for file in rubric.submit})
        for handin in tqdm(handins, desc="comparing code", unit="submission", disable=None, leave=False):
            code.add(handin.name, handin.read(rubric).files)
        write_summary(self.out, results, rubric, code)

    def keep(self, handins: list[Handin], handout: dict[str, bytes]) -> None:
        """A folder for each submission that lost something, in which its instructor can replay it."""
        for handin in handins:
            if result := self.results.get(handin.name):
                files = handin.read(self.exam.rubric).files
                folder = keep_failed(self.out, result, files, self.exam.hidden, handout)
                print(
                    f"python {folder / 'replay.py'}" if folder else f"{handin.name}: nothing failed that could be kept"
                )

    def _earlier(self, now: set[str]) -> list[Result]:
        """The results in OUT of submissions that this run was not given: one student graded again leaves the others."""
        paths = sorted(path for path in self.out.glob("*/results.json") if path.parent.name not in now)
        found = ((path.parent.name, read_result(path)) for path in paths)
        return [result for name, result in found if result is not None and result.submission == name]

    def fingerprint(self, handin: Handin, contents: Contents) -> str:
        """A hash of everything that the result of this submission depends on."""
        total = hashlib.sha256(self.base)
        names = (handin.name, handin.student, contents.notes, self.late.get(handin.name, 0.0))
        total.update(repr(names).encode("utf-8", "surrogateescape"))
        for file, content in sorted(contents.files.items()):
            total.update(file.encode() + hashlib.sha256(content).digest())
        return total.hexdigest()

    def _one(self, handin: Handin, slots: queue.SimpleQueue[int]) -> Result:
        """Grade one submission and write what was found."""
        slot, begin = slots.get(), time.monotonic()
        try:
            contents = handin.read(self.exam.rubric)
            found = self._grade_contents(slot, contents)
            result = Result(
                submission=handin.name,
                student=handin.student,
                fingerprint=self.fingerprint(handin, contents),
                isolation=self.isolation,
                functions=found.functions,
                statuses=_statuses(self.exam.rubric, contents) + found.statuses,
                notes=contents.notes,
                events=found.events,
                output=found.output,
                output_dropped=found.output_dropped,
                seconds=round(time.monotonic() - begin, 3),
                hours_late=self.late.get(handin.name, 0.0),
                source=handin.source,
            )
            result.penalty = self.exam.rubric.late.penalty(result.earned, result.hours_late)
            write_result(self.out, result, self.exam.rubric)
            return result
        finally:
            slots.put(slot)

    def _grade_contents(self, slot: int, contents: Contents) -> Found:
        if not contents.files:  # nothing to run
            functions = self.exam.rubric.functions.values()
            return Found([FunctionResult(f.id, 0.0, f.points, problem=f"{f.file} is missing") for f in functions])
        for tries_left in reversed(range(RESTARTS + 1)):
            zygote = self._zygote
            assert zygote is not None  # started before the first submission
            try:
                return grade_submission(self.exam, zygote, slot, contents.files)
            except ZygoteLost:
                if self._stop.is_set() or tries_left == 0:
                    raise
                self._replace(zygote)
        raise AssertionError("unreachable")

    def _replace(self, lost: Zygote) -> None:
        """Start a new zygote, unless another thread has done so already."""
        with self._restart:
            if self._zygote is lost:
                tqdm.write("grading: warning: the process that starts workers died; starting another", sys.stderr)
                lost.close()
                self._zygote = self._start()

    def _start(self) -> Zygote:
        for tries_left in reversed(range(RESTARTS)):
            try:
                return Zygote(self.work, enforced=self.isolation == "sandbox")
            except ZygoteLost:
                if tries_left == 0:
                    raise GradingError("the process that starts workers is killed again and again") from None
        raise AssertionError("unreachable")


def _statuses(rubric: Rubric, contents: Contents) -> list[str]:
    if contents.unreadable:
        return ["unreadable"]
    return ["missing-files"] if any(file not in contents.files for file in rubric.submit) else []
