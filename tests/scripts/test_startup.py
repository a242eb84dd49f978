"""What keeps a script of a handout from starting is one line: nothing written yet, a broken file, no packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from grading.hidden.handout.release import build, write_tree
from harness import ROOT, assert_one_line, child_env
from HW3.plumbing.startup import explain, old_python

SCRIPTS = sorted([*(path.name for path in ROOT.glob("train_*.py")), "sample.py", "evaluate.py", "app.py"])


@pytest.fixture(scope="module")
def handout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("handout")
    write_tree(folder, build(ROOT)[0])
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    write_tree(folder, build(ROOT)[1])
    path = folder / "HW3" / "vae.py"
    path.write_text(path.read_text() + "\ndef broken(:\n")
    return folder


def run(folder: Path, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, *map(str, command)]
    return subprocess.run(whole, cwd=cwd or folder, env=child_env(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("script", "id", "file"),
    [("train_vae.py", "reparameterize", "vae.py"), ("train_diffusion.py", "q-sample", "diffusion.py")],
)
def test_a_todo_that_is_not_written(script, id, file, handout):
    result = run(handout, script, "--dataset", "digits", "--quick", "--limit", 40)
    assert_one_line(result, 1, f"{id} is still to be written ({file}, line ")


@pytest.mark.parametrize("script", ["train_vae.py", "sample.py"])
def test_a_syntax_error(script, broken, tmp_path):
    """From another folder, too."""
    for cwd in (broken, tmp_path):
        result = run(broken, broken / script, "--help", cwd=cwd)
        number = (broken / "HW3" / "vae.py").read_text().count("\n")
        assert_one_line(result, 1, f"HW3/vae.py, line {number}: Python cannot read `def broken(:`", "correct that line")


def test_an_error_in_a_file_is_a_traceback(broken):
    """That is not for us to explain."""
    (broken / "HW3" / "clip.py").write_text("1 / 0\n")
    result = run(broken, "train_clip.py", "--help")
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_packages(script, handout):
    """Without site-packages there is no numpy and no torch."""
    file = "requirements-app.txt" if script == "app.py" else "requirements.txt"
    assert_one_line(run(handout, "-S", script), 1, f" is not installed: pip install -r {file}, or activate .venv")


def test_no_packages_for_the_commands(handout, tmp_path):
    assert run(handout, "-S", "-m", "grading", "todo").returncode == 0
    result = run(handout, "-S", "-m", "grading", "pack", "--name", "x", "--out", tmp_path)
    assert_one_line(result, 2, "is not installed: pip install -r requirements.txt, or activate .venv")


def test_an_old_python():
    assert old_python((3, 9)) == "Python 3.9 is too old, 3.10 is needed"
    assert old_python((3, 10)) is None
    assert old_python() is None


@pytest.mark.parametrize("file", [*SCRIPTS, "HW3/__init__.py", "HW3/plumbing/startup.py", "grading/__init__.py"])
def test_an_old_python_reads_what_tells_it_so(file):
    """Each is parsed before it can say anything."""
    ast.parse((ROOT / file).read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_is_imported_before_anything_else(script):
    body = ast.parse((ROOT / script).read_text()).body
    first = next(node for node in body if isinstance(node, (ast.Import, ast.ImportFrom)))
    assert ast.unparse(first) == "import HW3.plumbing.startup"


def test_the_commands_refuse_an_old_python():
    code = "import sys; sys.version_info = (3, 9, 1); import grading"
    result = run(ROOT, "-c", code)
    assert (result.returncode, result.stderr) == (
        1,
        "grading: error: Python 3.9 is too old, 3.10 is needed: make .venv anew with a newer one\n",
    )


def test_errors_of_others_are_not_explained():
    assert explain(SyntaxError("bad", ("/elsewhere/x.py", 1, 1, "x"))) is None
    assert explain(ModuleNotFoundError("No module named 'pandas'", name="pandas")) is None
    assert explain(ModuleNotFoundError("No module named 'HW3.x'", name="HW3.x")) is None
    assert explain(ModuleNotFoundError("No module named '-r'", name="-r requirements")) is None
    assert explain(ModuleNotFoundError("", name="sklearn.datasets")) == (
        "sklearn is not installed: pip install -r requirements.txt, or activate .venv"
    )
