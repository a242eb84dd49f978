"""`python -m grading doctor`: what isolation this machine offers, by trying it.

A probe is run as a submission would be, and what it gets away with is printed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from grading.errors import GradingError

if TYPE_CHECKING:
    from grading.hidden.sandbox.workers import Worker

PROBE = Path(__file__).parent / "probe.py"
SEES_NAMES = "see the names of results"  # of the probe's attempts the one that succeeds without root
_FILE, _NEXT = "HW3/vae.py", "HW3/diffusion.py"  # the probe takes the place of the first file, and this of the next:
_FILLER = b"for number in range(10_000):\n    open(str(number), 'w').close()\n"


def add_command(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("doctor", help="instructors: what isolation this machine offers for grading")
    parser.set_defaults(run=lambda args: _run())


def _run() -> int:
    print(f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}")
    problem = _parts()
    if problem is None:
        problem = _try()
    if problem is None:
        print("`python -m grading grade` confines submissions here.")
        return 0
    print(f"missing: {problem}")
    print("`python -m grading grade` refuses to grade here, unless told --isolation process: then submissions run in a")
    print("process of their own with limits on time and memory, but can read and write what you can. Reports say so.")
    return 1


def _fill(worker: Worker) -> str:
    """What became of a file that creates many; "" if nothing did."""
    from grading.hidden.sandbox.workers import WorkerLost

    try:
        worker.request({"op": "load", "file": _NEXT}, {}, 20)
    except WorkerLost as error:
        return "it is ended" if error.reason == "disk" else ""
    return ""


def _parts() -> str | None:
    """Print what the system has; the first part that is missing, if any."""
    from grading.hidden.sandbox.confinement import SandboxError, has_scopes, landlock_version, seccomp_filter

    if not sys.platform.startswith("linux"):
        return "Linux, whose Landlock and seccomp confine submissions" + (
            "; on Windows use WSL 2" if sys.platform == "win32" else ""
        )
    version = landlock_version()
    if version == 0:
        return "Landlock (Linux 5.13 or later, with `landlock` in /sys/kernel/security/lsm)"
    covered = ["files"] + ["truncation"] * (version >= 3) + ["TCP"] * (version >= 4)
    covered += ["abstract sockets", "signals"] * has_scopes(version)
    print(f"Landlock      version {version}: {', '.join(covered)}")
    try:
        program = seccomp_filter(version).program
    except SandboxError as error:
        return str(error)
    print(f"seccomp       a filter of {len(program) // 8} instructions")
    return None


def _try() -> str | None:
    """Run the probe and print its report; what should have been refused and was not, if anything."""
    from grading.hidden.sandbox.workers import SCRATCH_FILES, Worker, WorkerLost, Zygote, ZygoteLost

    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        work, results = Path(folder, "work"), Path(folder, "results")
        work.mkdir()
        (results / "ada").mkdir(parents=True)
        try:
            zygote = Zygote(work, enforced=True, unseen=[results])
        except GradingError as error:
            return str(error)
        try:
            worker = Worker(zygote, 0, {_FILE: PROBE.read_bytes(), _NEXT: _FILLER}, cpu_seconds=30)
            worker.request({"op": "load", "file": _FILE}, {}, 20)
            report = json.loads(worker.take_output())
            sees_names = not report.pop(SEES_NAMES)
            report[f"create more than {SCRATCH_FILES} files"] = _fill(worker)
            worker.close()
        except (WorkerLost, ZygoteLost) as error:
            return f"a worker that survives: {error}"
        finally:
            zygote.close()
    for attempt, outcome in report.items():
        print(f"{'refused' if outcome else 'ALLOWED':<14}{attempt}" + (f" ({outcome})" if outcome else ""))
    for name, count in worker.refused.items():
        print(f"counted       {name} x {count}")
    if sees_names or not zygote.apart:
        print("visible       names, sizes and times of files, for who guesses where they are; hiding the folders of")
        print("              submissions and results takes root with CAP_SYS_ADMIN")
    else:
        print("hidden        the folders of submissions and results; and what is read gets no time of access")
    let_through = [attempt for attempt, outcome in report.items() if not outcome]
    return f"protection from: {', '.join(let_through)}" if let_through else None
