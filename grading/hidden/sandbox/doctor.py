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

from grading.errors import GradingError

PROBE = Path(__file__).parent / "probe.py"
_FILE = "HW3/vae.py"  # the probe takes this file's place


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
    from grading.hidden.sandbox.workers import Worker, WorkerLost, Zygote, ZygoteLost

    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        try:
            zygote = Zygote(Path(folder), enforced=True)
        except GradingError as error:
            return str(error)
        try:
            worker = Worker(zygote, 0, {_FILE: PROBE.read_bytes()}, cpu_seconds=30)
            worker.request({"op": "load", "file": _FILE}, {}, 20)
            report = json.loads(worker.take_output())
            worker.close()
        except (WorkerLost, ZygoteLost) as error:
            return f"a worker that survives: {error}"
        finally:
            zygote.close()
    for attempt, outcome in report.items():
        print(f"{'refused' if outcome else 'ALLOWED':<14}{attempt}" + (f" ({outcome})" if outcome else ""))
    for name, count in worker.refused.items():
        print(f"counted       {name} x {count}")
    let_through = [attempt for attempt, outcome in report.items() if not outcome]
    return f"protection from: {', '.join(let_through)}" if let_through else None
