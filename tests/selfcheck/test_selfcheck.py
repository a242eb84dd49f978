"""`pytest grading/` on a student's machine: what else runs there must not cost points."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time

import pytest

from classroom import write
from grading import conftest
from grading.conftest import OutOfTime, time_limit
from grading.hidden.handout.release import build
from harness import ROOT, child_env


def test_time_that_others_take_is_not_counted():
    with time_limit(1):
        time.sleep(1.3)


def test_a_loop_ends_after_its_computing_time():
    def loop() -> None:
        while True:
            with contextlib.suppress(Exception):  # as a student's `except Exception` would
                sum(range(10**4))

    begin = time.process_time()
    with pytest.raises(OutOfTime, match="no answer within 1 seconds of computing"), time_limit(1):
        loop()
    assert 0.5 < time.process_time() - begin < 3  # the kernel counts ticks, which are coarse beside other processes


def test_who_waits_forever_is_stopped(monkeypatch):
    monkeypatch.setattr(conftest, "PATIENCE", 1)
    with pytest.raises(OutOfTime, match="does it wait for something"), time_limit(1):
        time.sleep(30)


def test_the_limit_leaves_nothing_behind():
    before = [signal.getsignal(number) for number in (signal.SIGPROF, signal.SIGALRM)]
    with time_limit(1):
        assert all(signal.getitimer(timer)[0] > 0 for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL))
    assert all(signal.getitimer(timer) == (0, 0) for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL))
    assert [signal.getsignal(number) for number in (signal.SIGPROF, signal.SIGALRM)] == before
    with time_limit(0):  # under --pdb
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_self_check_computes_on_one_thread(tmp_path):
    """More threads wait for each other when a training runs beside it, for seconds instead of milliseconds."""
    solved = build(ROOT)[1]
    text = "\nimport torch\n\n\ndef guided_eps(*args):\n    raise RuntimeError(f'threads: {torch.get_num_threads()}')\n"
    root = write(tmp_path / "hw3", {**solved, "train_tiny_sd.py": solved["train_tiny_sd.py"] + text.encode()})
    command = [sys.executable, "-m", "pytest", "grading/", "-k", "guidance", "-p", "no:cacheprovider"]
    env = child_env(OMP_NUM_THREADS="4")
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert "threads: 1" in done.stdout, done.stdout
    assert "threads: 4" not in done.stdout


def test_each_file_is_judged_beside_the_handouts_versions_of_the_others(tmp_path):
    """As grading does it: what relies on a changed file gets no points here either, and a broken one costs nothing."""
    files = dict(build(ROOT)[1])
    files["HW3/vae.py"] += b"\n\ndef mine(x):\n    return x\n"
    files["train_tiny_sd.py"] += b"\nfrom HW3.vae import mine\n"
    files["HW3/diffusion.py"] += (
        b"\nfrom HW3 import data\nimport HW3.clip\nassert data.load_dataset, HW3.clip.SimpleCLIP\n"
    )
    files["HW3/data.py"] = b"def broken(:\n"
    root = write(tmp_path / "hw3", files)
    command = [sys.executable, "-m", "pytest", "grading/", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(command, cwd=root, env=child_env(), capture_output=True, text=True, check=False)
    assert "train_tiny_sd.py cannot be imported: ImportError: cannot import name 'mine'" in done.stdout
    assert re.search(r"^total +85 / 100", done.stdout, re.MULTILINE), done.stdout
