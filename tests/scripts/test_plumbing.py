"""What surrounds a run: which way imports go, and how many threads a run takes."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
import torch

from harness import ROOT
from HW3.plumbing.device import Threads


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*(name for name in sys.modules if name != '__main__'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_plumbing_imports_no_model_and_nothing_that_is_graded():
    names = [f"HW3.plumbing.{path.stem}" for path in (ROOT / "HW3" / "plumbing").glob("*.py") if path.stem[0] != "_"]
    found = {name for name in imported_by(f"import {', '.join(names)}") if name.startswith("HW3.")}
    assert found - set(names) == {"HW3.plumbing", "HW3.data", "HW3.schedules", "HW3.viz"}


def test_the_library_imports_no_script_and_no_grader():
    files = [path for path in (ROOT / "HW3").rglob("*.py") if path.stem[0] != "_"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    found = imported_by(f"import {', '.join(names)}")
    assert not {name for name in found if name.startswith(("train_", "sample", "evaluate", "grading", "extensions"))}


def test_drawing_from_pixels_needs_nothing_of_tiny_sd():
    assert "train_tiny_sd" not in imported_by("import sample, evaluate")


@pytest.fixture
def four_cores(monkeypatch):
    """A machine with four cores; its load, in cores, is what the test says."""
    load = [0.0]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(psutil, "cpu_percent", lambda: 100 * load[0] / 4)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield load
    torch.set_num_threads(before)


@pytest.mark.parametrize(("busy", "threads"), [(0.0, 4), (0.3, 4), (1.0, 3), (2.6, 1), (4.0, 1)])
def test_a_run_leaves_busy_cores_to_others(four_cores, busy, threads):
    four_cores[0] = busy
    run = Threads("vae", torch.device("cpu"))
    assert torch.get_num_threads() == threads
    four_cores[0] = 0.0
    run.adapt()
    assert torch.get_num_threads() == 4


def test_a_container_with_some_of_the_cores_takes_what_it_has(four_cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    four_cores[0] = 3.0  # of others, on cores that are not ours
    Threads("vae", torch.device("cpu"))
    assert torch.get_num_threads() == 4


def test_a_latent_mlp_takes_one_thread(four_cores):
    Threads("tiny_sd", torch.device("cpu"))
    assert torch.get_num_threads() == 1


def test_the_environment_decides(four_cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    four_cores[0] = 4.0
    for kind in ("vae", "tiny_sd"):
        Threads(kind, torch.device("cpu")).adapt()
        assert torch.get_num_threads() == 4
