"""What a right function should change all the same: said in the feedback and in the self-check, without points."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from classroom import grades, grading, solution, write
from grading.hidden.handout.release import build
from grading.judge import DEVICE_NOTE
from harness import ROOT, child_env

FORGETFUL = (
    b"\n\ndef _forgetful(self, mu, logvar):\n"
    b"    return mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, dtype=mu.dtype)\n\n\n"
    b"ConvVAE.reparameterize = _forgetful\n"
    b"kl_divergence = lambda mu, logvar: torch.zeros(len(mu), dtype=mu.dtype)\n"
)


@pytest.fixture(scope="module")
def files():
    return {**solution(), "HW3/vae.py": solution()["HW3/vae.py"] + FORGETFUL}


def test_a_note_costs_no_points_and_only_right_functions_get_one(files, tmp_path):
    write(tmp_path / "in" / "ada", files)
    done = grading("grade", tmp_path / "in", "--out", tmp_path / "out", "--isolation", "process")
    assert done.returncode == 0, done.stderr
    row = grades(tmp_path / "out")["ada"]
    assert (row["reparameterize"], row["kl"], row["total"]) == ("10", "0", "90")
    page = (tmp_path / "out" / "ada" / "feedback.html").read_text(encoding="utf-8")
    assert page.count(DEVICE_NOTE) == 1
    result = json.loads((tmp_path / "out" / "ada" / "results.json").read_text())["extra_data"]["result"]
    assert {function["id"] for function in result["functions"] if function["note"]} == {"reparameterize"}


def test_the_self_check_says_it_too(files, tmp_path):
    root = write(tmp_path / "hw3", {**build(ROOT)[1], "HW3/vae.py": files["HW3/vae.py"]})
    command = [sys.executable, "-m", "pytest", "grading/", "-k", "reparameterize or kl", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=root, env=child_env(), capture_output=True, text=True, check=False)
    assert done.stdout.count(f"reparameterize: {DEVICE_NOTE}") == 1, done.stdout
    assert f"kl: {DEVICE_NOTE}" not in done.stdout
