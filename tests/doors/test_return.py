"""Pages as the platforms take them back: under their names, and nothing but pages."""

from __future__ import annotations

import io
import zipfile

import pytest

from classroom import graded
from grading.__main__ import main
from grading.hidden.reports.gradescope import write_result
from grading.rubric import load_rubric

RUBRIC = load_rubric()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`return`, in this process. Returns (exit code, name -> content, stderr)."""

    def run(results, *flags):
        for result in results:
            write_result(tmp_path / "graded", result, RUBRIC)
            (tmp_path / "graded" / result.submission / "keep").mkdir()
        out = tmp_path / "out.zip"
        argv = ["grading", "return", tmp_path / "graded", "--out", out, *flags]
        monkeypatch.setattr("sys.argv", [str(arg) for arg in argv])
        code = main()
        err = capsys.readouterr().err
        if not out.exists():
            return code, {}, err
        with zipfile.ZipFile(out) as archive:
            return code, {name: archive.read(name) for name in archive.namelist()}, err

    return run


def page(tmp_path, name):
    return (tmp_path / "graded" / name / "feedback.html").read_bytes()


def test_folder(run, tmp_path):
    code, found, err = run([graded("ada"), graded("b:o?b")], "--to", "folder")
    assert (code, err) == (0, "")
    assert found == {"ada/feedback.html": page(tmp_path, "ada"), "b_o_b/feedback.html": page(tmp_path, "b:o?b")}


def test_moodle(run, tmp_path):
    results = [
        graded("a", originals=["Ada Lovelace_1234567_assignsubmission_file_"]),
        graded("b", originals=["Bob_7_assignsubmission_file"]),
        graded("c", originals=["Cyd C_8_assignsubmission_file_hw3.zip"]),
        graded("d", originals=["../../Dan_9_assignsubmission_file_"]),
        graded("e"),
    ]
    code, found, err = run(results, "--to", "moodle")
    assert code == 1
    assert list(found) == [
        "Ada Lovelace_1234567_assignsubmission_file_/feedback.html",
        "Bob_7_assignsubmission_file_/feedback.html",
        "Cyd C_8_assignsubmission_file_/feedback.html",
    ]
    assert found["Bob_7_assignsubmission_file_/feedback.html"] == page(tmp_path, "b")
    assert err.rstrip().endswith("d, e")


def test_canvas_opens_what_it_calls_by_the_students_name(run, tmp_path):
    """Canvas shows the page under the name of the student's file, which for a zip has to be a zip."""
    results = [
        graded("a", originals=["adal_12_900_vae.py", "adal_12_901_hw3.zip"]),
        graded("b", originals=["bob_LATE_13_902_vae.py"]),
        graded("c", originals=["anon_a1B2c_903_hw3.zip"]),
        graded("d", originals=["dan_14_text.html"]),
        graded("e", originals=["../e_15_904_hw3.zip"]),
        graded("f", originals=["f\n_16_905_hw3.zip"]),
    ]
    code, found, err = run(results, "--to", "canvas")
    assert (code, list(found)) == (1, ["adal_12_901_hw3.zip", "bob_LATE_13_902_vae.py", "anon_a1B2c_903_hw3.zip"])
    with zipfile.ZipFile(io.BytesIO(found["adal_12_901_hw3.zip"])) as inner:
        assert {name: inner.read(name) for name in inner.namelist()} == {"feedback.html": page(tmp_path, "a")}
    assert found["bob_LATE_13_902_vae.py"] == page(tmp_path, "b")
    assert err.rstrip().endswith("d, e, f")


def test_names_from_the_download(run, tmp_path):
    for name in ("adal_12_901_hw3", "bobb_13_902_hw3"):
        (tmp_path / "in").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "in" / f"{name}.zip", "w") as archive:
            archive.writestr("HW3/vae.py", "")
    results = [graded("adal_12_901_hw3", "12"), graded("bobb_13_902_hw3", "13")]
    code, found, _ = run(results, "--to", "canvas", "--submissions", tmp_path / "in")
    assert (code, list(found)) == (0, ["adal_12_901_hw3.zip", "bobb_13_902_hw3.zip"])


def test_a_page_that_is_a_link_stays(run, tmp_path):
    (tmp_path / "secret").write_text("secret")
    write_result(tmp_path / "graded", graded("x"), RUBRIC)
    (tmp_path / "graded" / "x" / "feedback.html").unlink()
    (tmp_path / "graded" / "x" / "feedback.html").symlink_to(tmp_path / "secret")
    code, found, err = run([graded("ada")], "--to", "folder")
    assert (code, list(found)) == (1, ["ada/feedback.html"])
    assert "x (" in err


def test_nothing_to_return_is_one_line(run):
    code, found, err = run([graded("ada")], "--to", "canvas")
    assert (code, found, len(err.splitlines())) == (2, {}, 1)
