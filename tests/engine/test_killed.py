"""A run whose processes are killed at any moment loses nothing, and grades nothing twice."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from classroom import comparable, from_bank, grading, processes_in, start, write
from grading.hidden.reference.bank import BANK


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost(tmp_path):
    """SIGKILL of the judge, the zygote and workers over 12 rounds; then the same results as if nothing had been."""
    for number, entry in enumerate(random.Random(2).sample(BANK, 16)):
        write(tmp_path / "in" / f"{number:02}-{entry.id}-{entry.name}", from_bank(entry))
    whole = ("grade", tmp_path / "in", "--out", tmp_path / "whole")
    assert grading(*whole).returncode == 0
    run = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--resume")
    dice = random.Random(3)
    rounds = 0
    while rounds < 12:
        if (tmp_path / "out" / "grades.csv").exists():  # complete: begin anew
            shutil.rmtree(tmp_path / "out")
        process = start(*run, TMPDIR=str(tmp_path))
        while process.poll() is None and rounds < 12:
            time.sleep(dice.uniform(0.3, 4))
            victim = _victim(process.pid, dice)
            if victim is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                rounds += 1
            if victim == process.pid:
                break
        _, err = process.communicate(timeout=120)
        gave_up = process.returncode == 1 and "killed again and again" in err
        assert gave_up or process.returncode in (0, -signal.SIGKILL), err
    assert grading(*run, TMPDIR=str(tmp_path)).returncode == 0
    assert comparable(tmp_path / "out") == comparable(tmp_path / "whole")
    assert processes_in(tmp_path) == []


def _victim(judge: int, dice: random.Random) -> int | None:
    """The judge, its zygote, or one of the zygote's workers; None while the one that was chosen is not there."""
    kind = dice.choice(("judge", "zygote", "worker", "worker"))
    if kind == "judge":
        return judge
    zygotes = _children(judge)
    if kind == "zygote" or not zygotes:
        return zygotes[0] if zygotes else None
    workers = _children(zygotes[0])
    return dice.choice(workers) if workers else None


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    return []
