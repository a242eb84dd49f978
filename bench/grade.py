"""Seconds, overhead and memory per graded submission: our engine, a fresh pytest per submission, and nbgrader.

examples:
  python bench/grade.py --json grade.json          everything; half an hour on two cores
  python bench/grade.py --large 0                  without the large run
  python bench/grade.py --rounds 0 --large 1000    only the large run
  python bench/grade.py --skip-nbgrader --rounds 1 --batch 20 --rivals 1 --large 40

Submissions are made of the bank (grading/hidden/reference/bank): every graded function is one of its right versions,
and in three of four submissions one to three functions are wrong. All of them differ.

1. The same hidden cases, taking turns. In each round
     ours      `python -m grading grade` on a batch, with a worker per core as it does by default: wall time, start and
               summary included, / batch;
     pytest    `python -m pytest grading/` for each of a few submissions of the batch, in the handout with their three
               files and the hidden cases (and no others) laid in: wall time of the processes / their number;
     nbgrader  one `nbgrader autograde` for the same few: wall time / their number. Their three files lie beside a
               notebook with one test cell per graded function, which runs the same cases and judge.
   Copying files into place is not timed for the rivals. The points of every function must agree, or the bench stops.

2. Overhead: what grading costs beyond the student's own computation. In each round the batch is graded once more with
   one worker and clocks around the engine's parts. Overhead = (from the first submission on until the command is done)
   / batch - computation. Computation = the time that the same imports and calls take one after the other, on one
   thread, in a process that has imported everything and is neither forked nor confined. So the page faults of a fresh
   fork, a slower start of its caches, and an import repeated in a further worker are counted as overhead.

3. The large run: the command on that many submissions, and before on a tenth of them, while a thread reads
   /proc/PID/smaps_rollup of the judge, the zygote and the workers every 100 ms. Memory is the sum of their PSS: a page
   that n processes share counts 1/n in each, so pages that workers share with the zygote are counted once. (Resident
   sizes would count torch once per process.) "anonymous" is the part without the pages of files, most of them torch's
   libraries, which the system may drop at any time. Reading workers' PSS needs root: they are not dumpable. Processes
   outside that map the same files take their share, too: with another torch on the machine the sum comes out too low.

Needs `pip install -r requirements-instructor.txt`. The engine runs in its sandbox, as it does by default.
"""

import argparse
import ast
import contextlib
import csv
import functools
import importlib.metadata
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# This process imports no torch: its pages would be shared with the zygote's and halve their PSS.

TARGETS = {"pytest": 10.0, "nbgrader": 20.0}
OVERHEAD_MS = 60.0
LARGE_SECONDS = 600.0  # for 1,000 submissions
MEMORY_MB = (700, 60)  # for all, and for each worker
SAMPLE_EVERY = 0.1

Points = dict[str, dict[str, float]]  # submission -> id -> points


class BenchError(Exception):
    """The bench cannot go on; exit_code as the command's."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


# -- submissions ------------------------------------------------------------------------------------------


class Bank:
    """Right and wrong versions of every graded function as source text, and submissions made of them."""

    def __init__(self) -> None:
        from grading.hidden.handout.release import build
        from grading.rubric import load_rubric

        self.rubric = load_rubric()
        self.solved = build(ROOT)[1]
        self.versions: dict[str, dict[str, list[str]]] = {"wheat": defaultdict(list), "chaff": defaultdict(list)}
        for path in sorted((ROOT / "grading" / "hidden" / "reference" / "bank").glob("[!_]*.py")):
            self._read(ast.parse(path.read_text(encoding="utf-8")))

    def write(self, folder: Path, first: int, count: int) -> list[str]:
        """Write that many submissions and return their names. One with the same number is always the same."""
        names = [f"s{number:05}" for number in range(first, first + count)]
        for number, name in enumerate(names, first):
            _write(folder / name, self._files(number))
        return names

    def _files(self, number: int) -> dict[str, str]:
        rng = random.Random(number)
        wrong = rng.sample(sorted(self.rubric.functions), number % 4)
        files = {file: f"# submission {number}\n{self.solved[file].decode()}" for file in self.rubric.submit}
        for id, function in self.rubric.functions.items():
            versions = self.versions["chaff" if id in wrong else "wheat"][id]
            name = f"_{id.replace('-', '_')}"
            block = textwrap.indent(rng.choice(versions), "    ")
            files[function.file] += f"\n\ndef {name}():\n{block}\n\n\n{function.name} = {name}()\n"
        return files

    def _read(self, module: ast.Module) -> None:
        """Take in the decorated functions of one file, each with all that it uses of its module."""
        entries, defined = [], {}
        for node in module.body:
            for name in _names_defined(node):
                defined[name] = node
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                [decorator] = node.decorator_list
                if isinstance(decorator, ast.Call) and decorator.func.id in self.versions:
                    node.decorator_list = []
                    entries.append((decorator.func.id, decorator.args[0].value, node))
        for kind, id, node in entries:
            needed, left = {id_of(node): node}, [node]
            while left:
                for inner in ast.walk(left.pop()):
                    other = defined.get(inner.id) if isinstance(inner, ast.Name) else None
                    if other is not None and id_of(other) not in needed:
                        needed[id_of(other)] = other
                        left.append(other)
            parts = [ast.unparse(node) for node in module.body if id_of(node) in needed]
            self.versions[kind][id].append("\n".join([*parts, f"return {node.name}"]))


id_of = id  # `id` is a graded function's name here, as everywhere in grading/


def _names_defined(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return [name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]


def _write(folder: Path, files: dict[str, str | bytes]) -> None:
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def timed(command: list[str | Path], **options) -> tuple[float, subprocess.CompletedProcess]:
    """Wall time of a command, and what it printed."""
    begin = time.perf_counter()
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, **options)
    return time.perf_counter() - begin, done


def cpu_seconds() -> float:
    """CPU time of all commands so far, with everything that they started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check(done: subprocess.CompletedProcess, what: str) -> None:
    """Raise BenchError with the exception, or else the last line, of a command that failed."""
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        told = [line.strip() for line in lines if re.match(r"\s*[\w.]+(Error|Exception): ", line)]
        raise BenchError(f"{what} failed (exit code {done.returncode}): {[*lines[-1:], *told][-1]}")


# -- the three that grade -----------------------------------------------------------------------------------


def our_command(folder: Path, out: Path, workers: int) -> list[str | Path]:
    return [sys.executable, "-m", "grading", "grade", folder, "--out", out, "--workers", str(workers)]


def our_points(out: Path) -> Points:
    """grades.csv as numbers."""
    from grading.rubric import load_rubric

    ids = load_rubric().functions
    with (out / "grades.csv").open(newline="", encoding="utf-8") as file:
        return {row["submission"]: {id: float(row[id]) for id in ids} for row in csv.DictReader(file)}


def course_tree(bank: Bank, folder: Path) -> Path:
    """The handout with the hidden cases in the place of the public ones, without the samplers, which earn nothing."""
    public = [place for place in bank.solved if place.startswith("grading/cases/") and place.endswith(".npz")]
    unwanted = {*public, "grading/test_samplers.py"}
    _write(folder, {place: content for place, content in bank.solved.items() if place not in unwanted})
    for id in bank.rubric.functions:
        target = folder / "grading" / "hidden" / "reference" / "cases" / f"{id}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "grading" / "hidden" / "reference" / "cases" / f"{id}.npz", target)
    return folder


class Pytest:
    """A fresh process per submission in one tree, as in a loop over a course."""

    def __init__(self, bank: Bank, scratch: Path) -> None:
        self.tree = course_tree(bank, scratch / "pytest")

    def grade(self, folder: Path, names: list[str]) -> tuple[float, Points]:
        total, points = 0.0, {}
        for name in names:
            shutil.copytree(folder / name, self.tree, dirs_exist_ok=True)
            seconds, done = timed([sys.executable, "-m", "pytest", "grading/"], cwd=self.tree)
            if done.returncode not in (0, 1):  # 1: some cases failed
                check(done, "pytest")
            found = re.findall(r"^([\w-]+) +([\d.]+) / [\d.]+ +\d+/\d+ hidden cases$", done.stdout, re.MULTILINE)
            total, points[name] = total + seconds, {id: float(value) for id, value in found}
        return total, points


SETUP_CELL = """\
import warnings
from functools import partial

from grading.cases import all_cases
from grading.driver import run
from grading.judge import run_and_judge
from grading.rubric import load_rubric, score
from grading.submission import Submission

warnings.simplefilter("ignore")  # nbgrader gives no points to a cell that writes to stderr
call, functions = partial(run, Submission()), load_rubric().functions


def passes(case):
    try:
        return run_and_judge(call, case).passed
    except Exception:
        return False


def points(id):
    return score(functions[id], [(case.group, passes(case)) for case in all_cases(id)])
"""


class Nbgrader:
    """A course in a folder, with one assignment of one notebook. A test cell's value is its partial credit."""

    def __init__(self, bank: Bank, scratch: Path) -> None:
        self.course = scratch / "course"
        self.submit, self.source = bank.rubric.submit, self.course / "source" / "hw3"
        course_tree(bank, self.source)
        self.notebook = json.dumps(_notebook(bank.rubric.functions.values()), indent=1)
        keep = f"c.Autograde.exclude_overwriting = {{'hw3': {list(self.submit)}}}"
        config = f"c = get_config()\nc.CourseDirectory.course_id = 'bench'\n{keep}\nc.Execute.timeout = 300\n"
        _write(self.course, {"nbgrader_config.py": config, "source/hw3/hw3.ipynb": self.notebook})
        own = {name: str(scratch / "jupyter") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
        # As in an activated environment: nbgrader calls `alembic` by its name.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self.env = {**os.environ, **own, "JUPYTER_RUNTIME_DIR": str(scratch / "jupyter"), "JUPYTER_PLATFORM_DIRS": "1"}
        self._run("generate_assignment")

    def _run(self, command: str) -> float:
        seconds, done = timed([sys.executable, "-m", "nbgrader", command, "hw3"], cwd=self.course, env=self.env)
        check(done, f"nbgrader {command}")
        return seconds

    def grade(self, folder: Path, names: list[str]) -> tuple[float, Points]:
        """`nbgrader autograde` passes over those that are graded already."""
        from nbgrader.api import Gradebook

        for name in names:
            target = self.course / "submitted" / name / "hw3"
            shutil.copytree(folder / name, target)
            (target / "hw3.ipynb").write_text(self.notebook, encoding="utf-8")
        seconds = self._run("autograde")
        with Gradebook(f"sqlite:///{self.course / 'gradebook.db'}", "bench") as book:
            found = {}
            for name in names:
                [notebook] = book.find_submission("hw3", name).notebooks
                found[name] = {grade.name: grade.auto_score for grade in notebook.grades}
        return seconds, found


def _notebook(functions) -> dict:
    """The assignment as a notebook: where the work is, the set-up, and a test cell per graded function."""

    def cell(id: str, source: str, **nbgrader) -> dict:
        kind = {"grade": False, "locked": True, "solution": False, "task": False, "schema_version": 3}
        metadata = {"nbgrader": {**kind, "grade_id": id, **nbgrader}}
        rest = {"execution_count": None, "outputs": [], "source": source}
        return {"cell_type": "code", "id": id, "metadata": metadata, **rest}

    work = "# My work is in HW3/vae.py, HW3/diffusion.py and train_tiny_sd.py, beside this notebook."
    cells = [cell("work", work, locked=False, solution=True), cell("setup", SETUP_CELL)]
    cells += [cell(f.id, f'points("{f.id}")', grade=True, points=f.points) for f in functions]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def compare(ours: Points, theirs: Points, who: str) -> None:
    """Raise BenchError where somebody gives other points."""
    for name, points in theirs.items():
        for id, value in ours[name].items():
            if points.get(id) is None or abs(points[id] - value) > 1e-3:
                raise BenchError(
                    f"{who} gives {name} {points.get(id)} points for {id}, and we {value}: not the same work"
                )


# -- overhead -------------------------------------------------------------------------------------------------


def in_child(function, *args):
    """Call a function in a new process, so that what it imports stays there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


class Clock:
    """Seconds by label, without those of wrapped functions that are called inside."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.count: Counter[str] = Counter()
        self.first: dict[str, float] = {}
        self._inner = threading.local()

    def wrap(self, owner: object, name: str, label: str) -> None:
        """Time a function or method from now on. A `{op}` in the label is the operation that is requested."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args, **kwargs):
            inner = self._inner.__dict__.setdefault("stack", [])
            inner.append(0.0)
            begin = time.perf_counter()
            key = label.format(op=args[1]["op"]) if "{op}" in label else label
            self.first.setdefault(key, begin)
            try:
                return original(*args, **kwargs)
            finally:
                whole = time.perf_counter() - begin
                self.total[key] += whole - inner.pop()
                self.count[key] += 1
                if inner:
                    inner[-1] += whole

        setattr(owner, name, wrapped)


def traced(folder: Path, out: Path) -> dict[str, object]:
    """Grade a folder with one worker, in this process, with a clock around each part."""
    begin = time.perf_counter()
    from grading.hidden.engine import grade, grader, run, session
    from grading.hidden.intake import inbox
    from grading.hidden.sandbox import workers

    clock = Clock()
    for owner, name, label in (
        (grader, "Zygote", "zygote"),  # the class: constructing it is what is timed
        (run.GradingRun, "_one", "other"),
        (inbox.Handin, "read", "read"),
        (session, "Worker", "fork"),
        (workers.Worker, "_greet", "confine"),
        (workers.Worker, "request", "request {op}"),
        (workers.Worker, "send_ahead", "request call"),
        (workers.Worker, "next_answer", "request call"),
        (grade, "run_and_judge", "judge"),
        (workers.Worker, "close", "end"),
        (run, "write_result", "report"),
        (run.CodeIndex, "add", "index"),
        (run.GradingRun, "report", "summary"),
    ):
        clock.wrap(owner, name, label)
    options = {"resume": False, "isolation": "sandbox", "only": None, "timeout": 10.0, "late_csv": None}
    with contextlib.redirect_stdout(io.StringIO()):
        run.grade_inbox([folder], out, workers=1, **options)
    end, first = time.perf_counter(), clock.first["other"]
    return {"start": first - begin, "work": end - first, "parts": dict(clock.total), "counts": dict(clock.count)}


def computed(folder: Path, names: list[str]) -> tuple[float, Points]:
    """Seconds of the submissions' own computation: their imports and the calls that the engine makes of them."""
    import warnings

    import torch

    torch.set_num_threads(1)
    from grading.hidden.engine.exam import make_exam

    warnings.simplefilter("ignore")
    exam = make_exam(None, 10.0)
    total, points = 0.0, {}
    for turn, name in enumerate([names[0], *names]):  # the first one warms up
        student = Student(folder / name)
        points[name] = student.grade(exam)
        total += student.seconds if turn else 0.0
    return total, points


class Student:
    """The submission in this process, with a clock around all that is its own."""

    def __init__(self, folder: Path) -> None:
        from grading.driver import run
        from grading.submission import FILES, Submission, execute

        self.seconds, modules = 0.0, {}
        for file, module in FILES.items():
            __import__(module)
            original = sys.modules[module]
            begin = time.perf_counter()
            modules[file] = execute(module, folder / file)
            self.seconds += time.perf_counter() - begin
            sys.modules[module] = original  # each file is judged beside sound versions of the others
        self._run = functools.partial(run, Submission(modules=modules))

    def call(self, *args):
        begin = time.perf_counter()
        try:
            return self._run(*args)
        finally:
            self.seconds += time.perf_counter() - begin

    def grade(self, exam) -> dict[str, float]:
        """The calls that the engine makes: public cases of each function until one fails, then all hidden ones."""
        from grading.hidden.engine.grade import one_of_each_group
        from grading.rubric import score

        points = {}
        for id in exam.rubric.functions:
            all(self._passes(case) for case in one_of_each_group(exam.public[id]))
        for id, function in exam.rubric.functions.items():
            points[id] = score(function, [(case.group, self._passes(case)) for case in exam.hidden[id]])
        return points

    def _passes(self, case) -> bool:
        from grading.judge import run_and_judge

        try:
            return run_and_judge(self.call, case).passed
        except Exception:
            return False


# -- the large run --------------------------------------------------------------------------------------------


class Memory(threading.Thread):
    """Samples the memory of a process and all below it; `peak` has the largest sum of PSS, by role, in MB."""

    ROLES = ("judge", "zygote", "workers")

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.peak_anonymous = pid, {"total": 0.0}, 0.0
        self.samples, self.cpu_seconds, self.unreadable = 0, 0.0, False
        self._stop_it = threading.Event()

    def run(self) -> None:
        while not self._stop_it.wait(SAMPLE_EVERY):
            self._sample()
        self.cpu_seconds = time.thread_time()

    def stop(self) -> None:
        self._stop_it.set()
        self.join()

    def _sample(self) -> None:
        now = dict.fromkeys((*self.ROLES, "anonymous"), 0.0)
        for pid, depth in self._tree():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except PermissionError:
                self.unreadable = True
                continue
            except OSError:  # it has ended
                continue
            sizes = dict(re.findall(r"^(Pss|Pss_Anon): +(\d+) kB$", text, re.MULTILINE))
            now[self.ROLES[min(depth, 2)]] += int(sizes.get("Pss", 0)) / 1024
            now["anonymous"] += int(sizes.get("Pss_Anon", 0)) / 1024
        now["total"] = sum(now[role] for role in self.ROLES)
        self.samples += 1
        self.peak_anonymous = max(self.peak_anonymous, now["anonymous"])
        self.peak = max(self.peak, now, key=lambda sums: sums["total"])

    def _tree(self) -> list[tuple[int, int]]:
        """(pid, how far below the first) of the processes. Not every kernel lists a process's children in /proc."""
        children = defaultdict(list)
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    stat = Path(f"/proc/{entry.name}/stat").read_text()
                    children[int(stat.rpartition(")")[2].split()[1])].append(int(entry.name))
        found = [(self.pid, 0)]
        for pid, depth in found:
            found += [(child, depth + 1) for child in children[pid]]
        return found


def large(bank: Bank, scratch: Path, count: int, workers: int) -> dict[str, object]:
    """Grade that many submissions with the command, and look at time and memory."""
    folder, out = scratch / f"large-{count}", scratch / f"large-{count}-graded"
    bank.write(folder, 100_000, count)
    log = (scratch / "log").open("w+")
    begin, before = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen(list(map(str, our_command(folder, out, workers))), cwd=ROOT, stdout=log, stderr=log)
    memory = Memory(process.pid)
    memory.start()
    try:
        code = process.wait()
    finally:
        process.kill()
        memory.stop()
    seconds, cpu = time.perf_counter() - begin, cpu_seconds() - before
    log.seek(0)
    check(subprocess.CompletedProcess([], code, log.read(), ""), "grading")
    graded = len(our_points(out))
    if graded != count:
        raise BenchError(f"{graded} of {count} submissions have a grade")
    shutil.rmtree(folder), shutil.rmtree(out)
    return {
        **{"submissions": count, "workers": workers, "seconds": seconds, "cpu_s": cpu, "peak_mb": memory.peak},
        **{"peak_anonymous_mb": memory.peak_anonymous, "unreadable": memory.unreadable},
        **{"samples": memory.samples, "sampling_cpu_s": memory.cpu_seconds},
    }


# -- rounds ---------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def one_round(bank: Bank, rivals: dict, scratch: Path, number: int, args: argparse.Namespace) -> dict[str, object]:
    """Everybody once, on submissions that nobody has graded before."""
    folder, out = scratch / f"round-{number}", scratch / f"graded-{number}"
    names = bank.write(folder, number * args.batch, args.batch)
    few = names[: args.rivals]
    before = cpu_seconds()
    seconds, done = timed(our_command(folder, out, workers=os.cpu_count() or 1), cwd=ROOT)
    check(done, "grading")
    points = our_points(out)
    result = {"ours": seconds / args.batch, "cpu": {"ours": (cpu_seconds() - before) / args.batch}}
    say(f"round {number + 1}: ours {result['ours']:.2f} s/submission")
    for who, rival in rivals.items():
        before = cpu_seconds()
        seconds, theirs = rival.grade(folder, few)
        compare(points, theirs, who)
        result[who], result["cpu"][who] = seconds / len(few), (cpu_seconds() - before) / len(few)
        say(f"round {number + 1}: {who} {result[who]:.2f} s/submission, same points")
    result["traced"] = in_child(traced, folder, scratch / f"traced-{number}")
    compute, theirs = in_child(computed, folder, names)
    compare(points, theirs, "the computation in one process")
    result["computation"] = compute / args.batch
    result["overhead"] = result["traced"]["work"] / args.batch - result["computation"]
    say(f"round {number + 1}: overhead {result['overhead'] * 1e3:.0f} ms/submission")
    for used in (folder, out, scratch / f"traced-{number}"):
        shutil.rmtree(used)
    return result


# -- the report -----------------------------------------------------------------------------------------------


def machine(without_nbgrader: bool) -> dict[str, object]:
    """What the numbers depend on."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    packages = ("torch", "pytest") if without_nbgrader else ("torch", "pytest", "nbgrader")
    versions = {name: importlib.metadata.version(name) for name in packages}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": processor, "cores": cores, "python": platform.python_version(), **versions}


def middle(rounds: list[dict], pick) -> float:
    """The median over the rounds."""
    return median(pick(one) for one in rounds)


def speed_table(rounds: list[dict], args: argparse.Namespace) -> list[str]:
    lines = [
        "| who | s/submission | of all rounds | times ours | target | CPU s/submission |",
        "|---|---:|---|---:|---:|---:|",
    ]
    ours = middle(rounds, lambda one: one["ours"])
    for who in ("ours", *TARGETS):
        if who in rounds[0]:
            times = sorted(one[who] for one in rounds)
            how = f"ours, {args.batch} at a time" if who == "ours" else who
            ratio, target = (f"{median(times) / ours:.1f}", f"≥ {TARGETS[who]:g}") if who in TARGETS else ("", "")
            spread, cpu = f"{times[0]:.2f} to {times[-1]:.2f}", middle(rounds, lambda one, who=who: one["cpu"][who])
            lines.append(f"| {how} | {median(times):.2f} | {spread} | {ratio} | {target} | {cpu:.2f} |")
    return lines


PARTS = {
    "read": "reading the submission",
    "fork": "forking a worker: its folder, the question to the zygote",
    "confine": "waiting until it is confined",
    "calls": "waiting for imports and calls, beyond the computation",
    "judge": "judging",
    "end": "ending the worker: kill, reap, delete its folder",
    "report": "writing the report",
    "other": "all else in the submission's thread",
    "after": "after the last submission: grades.csv, summary.html",
}


def overhead_table(rounds: list[dict], batch: int) -> list[str]:
    """Where the overhead is, in ms per submission; the parts add up before medians are taken."""
    waiting = ("request load", "request call")

    def part(one: dict, name: str) -> float:
        parts, submissions = one["traced"]["parts"], batch
        if name == "calls":
            return sum(parts[label] for label in waiting) / submissions - one["computation"]
        if name == "after":
            inside = sum(parts[label] for label in (*waiting, *PARTS) if label in parts)
            return (one["traced"]["work"] - inside) / submissions
        return parts.get(name, 0.0) / submissions

    overhead, computation = (middle(rounds, lambda one, key=key: one[key]) for key in ("overhead", "computation"))
    forks, calls = (
        middle(rounds, lambda one, key=key: one["traced"]["counts"][key] / batch) for key in ("fork", "request call")
    )
    zygote = middle(rounds, lambda one: one["traced"]["parts"]["zygote"])
    index = middle(rounds, lambda one: one["traced"]["parts"]["index"]) / batch
    start = middle(rounds, lambda one: one["traced"]["start"])
    lines = [
        f"Overhead: **{overhead * 1e3:.0f} ms** per submission (target ≤ {OVERHEAD_MS:g}) beside "
        f"{computation * 1e3:.0f} ms of the student's own computation; {calls:.0f} calls in {forks:.1f} workers.",
        f"In the last row are {index * 1e3:.0f} ms per submission for comparing code with copydetect.",
        f"Once per run: start {start:.1f} s, of which the zygote {zygote:.1f} s.",
        "",
        "| part of the overhead | ms/submission |",
        "|---|---:|",
    ]
    lines += [
        f"| {text} | {middle(rounds, lambda one, n=name: part(one, n)) * 1e3:.1f} |" for name, text in PARTS.items()
    ]
    return lines


def large_table(runs: list[dict]) -> list[str]:
    lines = [
        "| submissions | workers | seconds | target | s/submission | CPU s/submission | peak MB | target "
        "| judge + zygote + workers | anonymous, peak MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for run in runs:
        count, peak = run["submissions"], run["peak_mb"]
        parts = " + ".join(f"{peak[role]:.0f}" for role in Memory.ROLES)
        limit = MEMORY_MB[0] + MEMORY_MB[1] * run["workers"]
        most = f"≤ {LARGE_SECONDS * count / 1000:g}" if run is runs[-1] else ""  # the start does not shrink with count
        lines.append(
            f"| {count} | {run['workers']} | {run['seconds']:.0f} | {most} "
            f"| {run['seconds'] / count:.2f} | {run['cpu_s'] / count:.2f} | {peak['total']:.0f} | ≤ {limit} | {parts} "
            f"| {run['peak_anonymous_mb']:.0f} |"
        )
    growth = runs[-1]["peak_mb"]["total"] / runs[0]["peak_mb"]["total"] - 1
    share = runs[-1]["sampling_cpu_s"] / runs[-1]["seconds"]
    lines += ["", f"From the first row to the second the peak changes by {growth:+.0%}. "]
    lines[-1] += f"Sampling used {share:.0%} of a core while the time was taken."
    if any(run["unreadable"] for run in runs):
        lines.append("**Some workers could not be read: run as root. The peaks above are too low.**")
    return lines


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="turns of each; medians are printed; 0: only the large run (default: 5)")
    add("--batch", type=int, default=100, help="submissions that we grade in one round (default: 100)")
    add("--rivals", type=int, default=3, help="of them, how many the others grade (default: 3)")
    add("--large", type=int, default=1000, help="submissions of the large run; 0: none (default: 1000)")
    add("--workers", type=int, default=2, help="of the large run (default: 2)")
    add("--skip-nbgrader", action="store_true", help="compare with pytest only")
    add("--json", type=Path, help="also write all numbers to this file")
    args = parser.parse_args()
    if args.rounds < 0 or args.large < 0 or not 1 <= args.rivals <= args.batch or args.workers < 1:
        parser.error("--rounds and --large must be 0 or more, --workers 1 or more, and --rivals 1 to --batch")
    if 0 < args.large < 10:
        parser.error("--large must be 0, or 10 or more")
    return args


def measure(args: argparse.Namespace, scratch: Path, numbers: dict) -> None:
    """Do everything, print each part when it is there, and put the numbers into `numbers`."""
    bank = Bank()
    if args.rounds:
        rivals = {"pytest": Pytest(bank, scratch)}
        if not args.skip_nbgrader:
            rivals["nbgrader"] = Nbgrader(bank, scratch)
        rounds = numbers["rounds"]
        rounds += [one_round(bank, rivals, scratch, number, args) for number in range(args.rounds)]
        print("", *speed_table(rounds, args), "", *overhead_table(rounds, args.batch), sep="\n", flush=True)
    for count in (args.large // 10, args.large) if args.large else ():
        say(f"{count} submissions with {args.workers} workers ...")
        numbers["large"].append(large(bank, scratch, count, args.workers))
    if numbers["large"]:
        print("", *large_table(numbers["large"]), sep="\n", flush=True)


def main() -> int:
    args = arguments()
    missing = any(not importlib.util.find_spec(name) for name in ("nbgrader", "ipykernel"))
    options = {key: value for key, value in vars(args).items() if key != "json"}
    try:
        if missing and args.rounds and not args.skip_nbgrader:
            raise BenchError("nbgrader is not here: pip install nbgrader ipykernel, or --skip-nbgrader", 2)
        host = machine(missing)
        print(", ".join([host["cpu"], f"{host['cores']} cores", *(f"{k} {v}" for k, v in list(host.items())[2:])]))
        numbers = {"machine": host, "options": options, "rounds": [], "large": []}
        with tempfile.TemporaryDirectory(prefix="bench-grade-", ignore_cleanup_errors=True) as scratch:
            try:
                measure(args, Path(scratch), numbers)
            finally:
                if args.json:
                    args.json.write_text(json.dumps(numbers, indent=1) + "\n")
    except BenchError as error:
        print(f"grade.py: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("grade.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
