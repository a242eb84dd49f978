"""`python -m grading pack`: what it says is what grading will find."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile

import pytest

from classroom import write
from grading.hidden.handout.release import build
from grading.pack import MAX_SAMPLES_BYTES, missing_imports, written_part
from grading.rubric import load_rubric
from harness import ROOT, assert_one_line, child_env

VAE, DIFFUSION, TINY_SD = load_rubric().submit


@pytest.fixture
def student(tmp_path):
    """A handout with every TODO completed."""
    return write(tmp_path / "hw3", build(ROOT)[1])


def append(path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def pack(folder, *args, **env) -> str:
    command = [sys.executable, "-m", "grading", "pack", "--name", "ada", *map(str, args)]
    done = subprocess.run(command, cwd=folder, env=child_env(**env), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def points(out: str) -> dict[str, float]:
    """id -> points, and "total", of what the self-check printed."""
    return {id: float(earned) for id, earned in re.findall(r"^([\w-]+) +([\d.]+) / ", out, re.MULTILINE)}


def test_what_works_at_home_only_is_named_and_fails(student):
    (student / "helper.py").write_text("def same(x):\n    return x\n")
    append(student / TINY_SD, "\nfrom helper import same\n")
    append(student / VAE, "\nimport hypothesis\n")  # installed here, and not what grading has
    append(student / "requirements.txt", "hypothesis\n")
    line = (student / TINY_SD).read_text().count("\n")
    out = pack(student, PYTHONPATH=str(student))
    assert f"warning: {TINY_SD}, line {line}: grading has no `helper`; README.md says" in out
    assert f"warning: {VAE}, line" in out
    assert "grading has no `hypothesis`" in out
    assert points(out) == {
        **{f.id: f.points * (f.file != TINY_SD) for f in load_rubric().functions.values()},
        "total": 85,
    }


def test_the_checks_see_the_zip_and_not_the_folder(student):
    (student / TINY_SD).unlink()
    append(student / DIFFUSION, "#" * 250_000)  # more than grading reads
    out = pack(student)
    assert f"warning: {TINY_SD} is missing; its functions will get no points" in out
    assert f"warning: {DIFFUSION} is larger than 200,000 bytes and will not be read" in out
    assert points(out)["total"] == 20
    with zipfile.ZipFile(student / "hw3-ada.zip") as archive:
        assert archive.namelist() == [VAE, DIFFUSION]


def test_the_instructors_tree_can_be_packed(tmp_path):
    out = pack(ROOT, "--out", tmp_path)
    assert "warning" not in out
    assert "hidden" not in out
    assert points(out)["total"] == 100


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("import os, sys\nfrom __future__ import annotations\nimport importlib.metadata, _thread", []),
        ("import numpy.linalg\nfrom PIL import Image\nimport sklearn.datasets, scipy.special", []),
        ("import torchvision, tqdm, pytest, matplotlib.pyplot, mpl_toolkits.mplot3d, typing_extensions, sympy", []),
        ("import HW3.clip\nfrom HW3 import data\nfrom HW3.latent import EpsMLP\nimport train_tiny_sd", []),
        ("from . import data\nfrom .latent import EpsMLP", []),
        ("def f():\n    try:\n        import einops\n    except ImportError:\n        einops = None", ["einops"]),
        ("import numpy, hypothesis, yaml as y", ["hypothesis", "yaml"]),
        ("from helper.deep import f", ["helper.deep"]),
        ("import HW3.helper\nfrom HW3.utils import f\nfrom .more import g", ["HW3.helper", "HW3.utils", "HW3.more"]),
        ("import sample\nfrom train_vae import main\nimport grading.driver", ["sample", "train_vae", "grading.driver"]),
        ("def broken(:", []),  # the self-check says it
        ("x = '\0'", []),
    ],
)
def test_imports_that_grading_will_not_have(source, missing):
    found = missing_imports({VAE: source.encode()})
    assert [re.search(r"`(.*)`", warning)[1] for warning in found] == missing


def test_a_new_module_of_the_library_is_missing(student):
    """`from HW3 import helper` names a module here, and would be a function elsewhere."""
    (student / "HW3" / "helper.py").write_text("")
    append(student / DIFFUSION, "\nfrom HW3 import helper\n")
    assert "grading has no `HW3.helper`" in pack(student, "--no-check")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reading TOML takes a package there")
def test_todo_works_before_anything_is_installed(student):
    command = [sys.executable, "-S", "-m", "grading", "todo"]  # without site-packages
    done = subprocess.run(command, cwd=student, env=child_env(), capture_output=True, text=True, check=False)
    assert "9 of 9 written" in done.stdout, done.stderr


# -- the written part, and the name -------------------------------------------------------------------------


def test_the_written_part_is_packed_with_its_pictures(student):
    assert "note: analysis.ipynb is missing, or as it was handed out: it is not packed" in pack(student, "--no-check")
    append(student / "analysis.ipynb", " ")
    shown = written_part(student)
    assert len(shown) > 1
    (student / "figures").mkdir()
    for file in shown[2:]:
        (student / file).write_bytes(b"\x89PNG")
    append(student / "HW3.ipynb", " ")
    out = pack(student, "--no-check")
    assert f"warning: analysis.ipynb shows {shown[1]}, which is not there: run its cells" in out
    assert "was changed or deleted" not in out
    packed = zipfile.ZipFile(student / "hw3-ada.zip").namelist()
    assert packed == [*load_rubric().submit, "analysis.ipynb", *shown[2:]]


def test_pictures_are_packed_unless_they_are_too_large(student):
    path = student / "samples.npz"
    path.write_bytes(b"pictures")
    assert "samples.npz" in pack(student, "--no-check")
    with zipfile.ZipFile(student / "hw3-ada.zip") as archive:
        assert archive.read("samples.npz") == b"pictures"
    with path.open("wb") as file:
        file.truncate(MAX_SAMPLES_BYTES + 1)
    out = pack(student, "--no-check")
    assert "warning: samples.npz is larger than 16 MiB and is not packed: draw fewer images" in out
    assert zipfile.ZipFile(student / "hw3-ada.zip").namelist() == list(load_rubric().submit)


@pytest.mark.parametrize(("account", "asks"), [("root", True), ("jovyan", True), ("ada", False)])
def test_nobodys_account_is_not_a_name(student, account, asks):
    env = child_env(**dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), account))
    command = [sys.executable, "-m", "grading", "pack", "--no-check"]
    done = subprocess.run(command, cwd=student, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if asks:
        assert_one_line(done, 2, "--name")
        assert list(student.glob("*.zip")) == []
    else:
        assert done.returncode == 0
        assert (student / "hw3-ada.zip").is_file()


def test_a_check_that_cannot_run_is_a_failure(student):
    """The zip is there, and nobody takes it for checked."""
    program = (
        "import grading.pack as pack, sys; pack.check_zip = lambda *args: 2; sys.argv = "
        "['grading', 'pack', '--name', 'ada']; from grading.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=student, env=child_env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "its self-check did not run to its end (pytest's exit code 2)" in done.stderr
    assert (student / "hw3-ada.zip").is_file()
