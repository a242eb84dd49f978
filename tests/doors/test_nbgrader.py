"""The nbgrader course: what `init` makes, what `sync` writes into it, and what both refuse."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.utils import compute_checksum

from classroom import grading, solution
from coursework import ANSWERS, PICTURE, RUBRIC, analysis, dump, everything, graded, guide, result
from grading.errors import GradingError
from grading.hidden.decisions.record import Record
from grading.hidden.doors.gradebook import command, notebooks, sync, written
from grading.hidden.doors.gradebook.course import make_course, open_course
from grading.hidden.handout.regions import solution_statements
from grading.hidden.handout.release import build
from grading.hidden.intake.inbox import find
from grading.hidden.reports.result import Member, Override
from harness import ROOT, child_env


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "generative-models 2027"
    done = grading("nbgrader", "init", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(folder / "release" / "hw3") in done.stdout
    return folder


@pytest.fixture
def course(made, tmp_path, monkeypatch):
    """A course of one's own, which lies elsewhere than where it was made; without nbgrader's slow commands."""
    monkeypatch.setattr(sync, "_autograde", lambda course: [])
    return shutil.copytree(made, tmp_path / "course")


def synced(course, grades, *submissions, code=0, **options):
    options = {"platform": None, "bulk": False, **options}
    assert sync.sync(grades, course, list(submissions), **options) == code


def refusal(course, grades, *submissions):
    before = everything(course)
    with pytest.raises(GradingError) as caught:
        synced(course, grades, *submissions)
    assert everything(course) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gradebook(course):
    return Gradebook(open_course(course).database, open_course(course).id)


def points(course, student):
    """(points of `code`, what is taken off, all points)"""
    with gradebook(course) as book:
        submission = book.find_submission("hw3", student)
        notebook = book.find_submission_notebook("code", "hw3", student)
        return notebook.score, submission.late_submission_penalty, submission.score


# -- init --------------------------------------------------------------------------------------------------


def test_init_makes_a_course_whose_points_are_the_rubrics(made):
    course = open_course(made)
    assert course.points == {id: function.points for id, function in RUBRIC.functions.items()}
    assert course.id == "generative-models-2027"
    assert [path.name for path in made.parent.iterdir()] == [made.name]  # nothing else is left
    with gradebook(made) as book:
        cells = book.find_notebook("analysis", "hw3").grade_cells
        assert {cell.name: cell.max_score for cell in cells} == dict.fromkeys(ANSWERS, 10)


def test_what_is_released_holds_no_guide_and_no_solution(made):
    released = {path.name: path.read_text() for path in (made / "release" / "hw3").iterdir()}
    assert released.keys() == {"analysis.ipynb", "code.ipynb"}
    source = (made / "source" / "hw3" / "analysis.ipynb").read_text()
    database = "\n".join(dump(made))  # nbgrader's pages show what is there
    for line in guide():
        told = json.dumps(line, ensure_ascii=False)[1:-1]
        assert told in source
        assert all(line not in text and told not in text for text in (*released.values(), database)), line
    assert released["analysis.ipynb"].count("YOUR ANSWER HERE") == len(ANSWERS)
    squeezed = "".join("".join(released.values()).split())
    for file in RUBRIC.submit:
        for statement in solution_statements((ROOT / file).read_text(), file):
            assert len(statement) < 30 or "".join(statement.split()) not in squeezed


def test_the_handout_has_the_notebook_that_nbgrader_releases(made):
    """Up to nbgrader's metadata; with its checksums, an answer that nobody wrote is empty to it."""
    ours = nbformat.reads(build(ROOT)[0]["analysis.ipynb"].decode(), as_version=4)
    theirs = nbformat.read(made / "release" / "hw3" / "analysis.ipynb", as_version=4)
    assert [(cell.cell_type, cell.source) for cell in ours.cells] == [
        (cell.cell_type, cell.source) for cell in theirs.cells
    ]
    marks = [cell.metadata["nbgrader"] for cell in theirs.cells if "nbgrader" in cell.metadata]
    graded_cells = [cell for cell in ours.cells if "nbgrader" in cell.metadata]
    assert [compute_checksum(cell) for cell in graded_cells] == [each["checksum"] for each in marks]
    assert [cell.metadata["nbgrader"]["grade_id"] for cell in graded_cells] == list(ANSWERS)


def test_the_notebook_shows_the_pictures_that_are_taken_from_submissions():
    assert written.pictures() == tuple(
        f"figures/{name}.png" for name in ("kl-weight", "ddim-grid", "guidance", "failure")
    )


def test_init_never_overwrites(made, tmp_path):
    before = everything(made)
    with pytest.raises(GradingError, match="is a course already"):
        make_course(made, RUBRIC)
    assert everything(made) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    for path in (tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
        with pytest.raises(GradingError, match="is not an empty folder"):
            make_course(path, RUBRIC)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


# -- sync --------------------------------------------------------------------------------------------------


def test_points_penalties_and_groups(course, tmp_path, capsys):
    late = result("team", "cy; di", {"posterior": 12.3457}, hours_late=30.0, penalty=18.4691)
    grades = graded(tmp_path / "graded", result("ada"), result("bob", lost=dict.fromkeys(RUBRIC.functions, 0.0)), late)
    synced(course, grades)
    assert points(course, "ada") == (100, 0, 100)
    assert points(course, "bob") == (0, 0, 0)
    assert points(course, "cy") == points(course, "di") == pytest.approx((92.3457, 18.4691, 92.3457))
    with gradebook(course) as book:
        assert not book.find_submission_notebook("code", "hw3", "cy").needs_manual_grade
        assert book.find_grade("posterior", "code", "hw3", "cy").auto_score == 12.3457
    assert "4 students: 4 new, 0 changed, 0 as they were" in capsys.readouterr().out


def test_what_people_decided_is_what_nbgrader_has(course, tmp_path):
    decided = result("ada", overrides=[Override("kl", 4.0, "as agreed")], name="Ada King Lovelace")
    total = result("bob", penalty=3.0, overrides=[Override("total", 77.5, "as agreed")])
    members = [Member(student="cy", penalty=5.0), Member(student="di", name="Di", penalty=0.0)]
    grades = graded(tmp_path / "graded", decided, total, result("team", "cy;di", members=members))
    Record(absent={"zoe": 0.0}).write(grades)
    synced(course, grades)
    assert points(course, "ada") == (94, 0, 94)
    assert points(course, "bob") == (100, 22.5, 100)
    assert points(course, "cy") == (100, 5, 100)
    assert points(course, "di") == (100, 0, 100)
    with gradebook(course) as book:
        assert book.find_grade("kl", "code", "hw3", "ada").auto_score == 4
        assert (book.find_student("ada").first_name, book.find_student("ada").last_name) == ("Ada King", "Lovelace")
        assert book.find_student("zoe").score == 0  # who handed nothing in has a row, and no submission
        assert {each.student_id for each in book.assignment_submissions("hw3")} == {"ada", "bob", "cy", "di"}


def test_sync_again_changes_nothing(course, tmp_path, capsys):
    grades = graded(tmp_path / "graded", result("ada"), result("bob", penalty=10.0))
    synced(course, grades)
    before = everything(course)
    times = {path: path.stat().st_mtime_ns for path in course.rglob("*.ipynb")}
    synced(course, grades)
    assert everything(course) == before
    assert {path: path.stat().st_mtime_ns for path in course.rglob("*.ipynb")} == times
    assert "2 students: 0 new, 0 changed, 2 as they were" in capsys.readouterr().out


def test_marks_and_comments_survive_a_new_grading(course, tmp_path, capsys):
    lost = {"kl": 2.5, "guidance": 0.0}
    grades = graded(tmp_path / "graded", result("ada", lost=lost), result("bob"))
    synced(course, grades)
    with gradebook(course) as book:
        book.find_grade("failure", "analysis", "hw3", "ada").manual_score = 7.5
        book.find_comment("failure", "analysis", "hw3", "ada").manual_comment = "one experiment short"
        for id in ("kl", "guidance"):
            book.find_grade(id, "code", "hw3", "ada").manual_score = 5
        book.find_comment("kl-code", "code", "hw3", "ada").manual_comment = "half of it"
        book.db.commit()
    assert points(course, "ada") == (85 + 10, 0, 102.5)
    graded(grades, result("ada", lost={"kl": 10.0, "guidance": 0.0, "posterior": 11.0}))
    capsys.readouterr()
    synced(course, grades)
    assert points(course, "ada") == (66 + 10 + 10, 0, 93.5)
    with gradebook(course) as book:
        assert book.find_comment("failure", "analysis", "hw3", "ada").comment == "one experiment short"
        assert book.find_comment("kl-code", "code", "hw3", "ada").comment == "half of it"
        kl, guidance = (book.find_grade(id, "code", "hw3", "ada") for id in ("kl", "guidance"))
        assert (kl.auto_score, kl.manual_score, kl.needs_manual_grade) == (10, 5, True)
        assert (guidance.auto_score, guidance.manual_score, guidance.needs_manual_grade) == (0, 5, False)
    said = capsys.readouterr().out
    assert "0 new, 1 changed, 1 as they were" in said
    assert "1 marks that were set by hand stay, and the points below them changed: ada (kl)" in said


def test_who_is_gone_stays_and_is_told(course, tmp_path, capsys):
    grades = graded(tmp_path / "graded", result("ada"), result("bob"))
    synced(course, grades)
    shutil.rmtree(grades / "ada")
    before = points(course, "ada")
    synced(course, grades)
    assert points(course, "ada") == before
    assert "not among these results; left as they were: ada" in capsys.readouterr().out


@pytest.mark.parametrize(
    "others",
    [
        [result("ada-again", "ada")],
        [result("team", "bob;ada")],
        [result("shouted", "ADA")],
        [result("decomposed", "zoe\u0301"), result("composed", "zo\u00e9")],
    ],
    ids=["twice", "also in a group", "one folder where case does not count", "one folder on some systems"],
)
def test_two_results_of_one_student_are_refused(course, tmp_path, others):
    text = refusal(course, graded(tmp_path / "graded", result("ada-1", "ada"), *others))
    assert "students with two results" in text
    assert others[-1].submission in text or "decomposed" in text


def test_ids_that_cannot_be_ids_are_left_out_and_told(course, tmp_path, capsys):
    odd = ["<img src=x onerror=alert(1)>", "../../etc", ".hidden", "=1+1", "a,b", "a\nb", "a/b", "", " ", "{{7*7}}"]
    odd += ["x" * 129, "o'neil", "-x", "a\u202eb"]
    fine = ["Ada Lovelace", "ada@x.edu", "00123", "jo-ann_2.b+c", "Zoë Ånström", "李"]
    results = [result(f"s{number}", student) for number, student in enumerate([*odd, *fine])]
    synced(course, graded(tmp_path / "graded", *results), code=1)
    assert {path.name for path in (course / "synced").iterdir()} == set(fine)
    with gradebook(course) as book:
        assert {student.id for student in book.students} == set(fine)
    err = capsys.readouterr().err
    assert f"{len(odd)} not in the gradebook" in err
    assert err.count("\n") == 1 + odd.count("a\nb")  # as readable text has it
    assert all(f"(s{number})" in err for number in range(len(odd)))


# -- what is refused ---------------------------------------------------------------------------------------


def test_results_of_another_rubric_are_refused(course, tmp_path):
    good = result("ada")
    fewer = replace(good, submission="bob", functions=good.functions[:3])
    worth = replace(good, submission="cy", functions=[replace(good.functions[0], possible=11.0), *good.functions[1:]])
    more = replace(good, submission="di", functions=[*good.functions, replace(good.functions[0], id="eleventh")])
    for number, (other, words) in enumerate(
        {
            "bob": "predict-x0: no points, and the rubric has 5",
            "cy": "reparameterize: 11 points, and the rubric has 10",
            "di": "eleventh: 10 points, and the rubric has no",
        }.items()
    ):
        bad = next(each for each in (fewer, worth, more) if each.submission == other)
        text = refusal(course, graded(tmp_path / str(number), good, bad))
        assert words in text
        assert f"{other}/results.json" in text


def test_a_course_of_another_rubric_is_refused(course, tmp_path):
    with closing(sqlite3.connect(course / "gradebook.db")) as database:
        database.execute("UPDATE grade_cells SET max_score = 12 WHERE max_score = 20")
        database.commit()
    assert "posterior: 12 points, and the rubric has 20" in refusal(course, graded(tmp_path / "graded", result("ada")))


def test_folders_that_hold_no_results_are_refused(course, tmp_path):
    assert "is no folder" in refusal(course, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "holds no results" in refusal(course, tmp_path / "empty")
    for name, content in {"torn": b'{"score"', "list": b"[]"}.items():
        grades = graded(tmp_path / name, result("ada"), result("bob"))
        (grades / "bob" / "results.json").write_bytes(content)
        assert "is damaged" in refusal(course, grades)
    grades = graded(tmp_path / "copied", result("ada"))
    shutil.copytree(grades / "ada", grades / "bob")
    assert "of another submission" in refusal(course, grades)


def test_folders_that_are_no_course_are_refused(course, tmp_path):
    grades = graded(tmp_path / "graded", result("ada"))
    done = grading("nbgrader", "sync", grades, "--course", tmp_path / "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is no nbgrader course" in done.stderr
    with pytest.raises(GradingError, match="is no nbgrader course"):
        open_course(grades)
    released = course / "release" / "hw3" / "analysis.ipynb"
    released.rename(tmp_path / "away")
    assert "nbgrader generate_assignment hw3 --force" in refusal(course, grades)
    (tmp_path / "away").rename(released)
    with closing(sqlite3.connect(course / "gradebook.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '167914646830'")
        database.commit()
    text = refusal(course, grades)
    assert "another version of nbgrader" in text
    assert "167914646830" in text
    (course / "gradebook.db").unlink()
    with closing(sqlite3.connect(course / "gradebook.db")) as database:
        database.execute("CREATE TABLE mine (x)")
        database.commit()
    assert "no nbgrader gradebook" in refusal(course, grades)
    (course / "gradebook.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(GradingError, match="no nbgrader gradebook"):
        open_course(course)


def test_without_nbgrader_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for args in (["init", "x"], ["sync", "x", "--course", "y"]):
        parser = command.argparse.ArgumentParser()
        command.add_command(parser.add_subparsers())
        parsed = parser.parse_args(["nbgrader", *args])
        with pytest.raises(GradingError, match=r"pip install -r requirements-instructor\.txt"):
            parsed.run(parsed)


def test_other_commands_do_not_need_nbgrader():
    code = (
        "import runpy, sys; sys.argv = ['grading', 'todo']; sys.modules['nbformat'] = sys.modules['nbgrader'] = None\n"
    )
    code += "runpy.run_module('grading', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=child_env(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


# -- nothing is half-written -------------------------------------------------------------------------------


def test_a_sync_that_fails_leaves_the_gradebook_as_it_was(course, tmp_path, monkeypatch):
    grades = graded(tmp_path / "graded", result("ada", lost={"kl": 0.0}), result("bob"))
    synced(course, grades)
    before = dump(course)
    graded(grades, result("ada"), result("cy"))
    writes = iter([True, True, False])

    def full(path, content):
        if not next(writes):
            raise GradingError("cannot write: the disk is full")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(sync, "write_atomically", full)
        with pytest.raises(GradingError, match="the disk is full"):
            synced(course, grades)
    assert dump(course) == before
    synced(course, grades)
    assert points(course, "ada") == points(course, "cy") == (100, 0, 100)


def test_a_gradebook_in_use_is_one_line(course, tmp_path):
    grades = graded(tmp_path / "graded", result("ada"))
    with closing(sqlite3.connect(course / "gradebook.db")) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(GradingError, match="database is locked") as caught:
            synced(course, grades)
        database.rollback()
    assert "\n" not in str(caught.value)
    assert not (course / "synced").exists()


# -- the notebooks -----------------------------------------------------------------------------------------


def submitted(tmp_path, course, answers, files=None, name="ada"):
    """A submission with code, the written part and a picture, and its result."""
    content = {
        **solution(),
        "analysis.ipynb": analysis(course, answers),
        "figures/kl-weight.png": PICTURE,
        "figures/guidance.png": b"<script>no picture</script>",
        **(files or {}),
    }
    for file, data in content.items():
        path = tmp_path / "inbox" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    [handin] = find([tmp_path / "inbox"], RUBRIC).handins
    return tmp_path / "inbox", result(name, source=handin.source)


def test_code_and_written_part_are_taken_from_submissions(course, tmp_path, capsys):
    inbox, found = submitted(tmp_path, course, {"failure": "All fours look like nines."})
    grades = graded(tmp_path / "graded", found, result("bob"))
    synced(course, grades, inbox)
    assert "1 of them have handed in the written part" in capsys.readouterr().out
    place = course / "submitted" / "ada" / "hw3"
    assert "All fours look like nines." in (place / "analysis.ipynb").read_text()
    assert [path.name for path in (place / "figures").iterdir()] == ["kl-weight.png"]
    code = nbformat.read(course / "autograded" / "ada" / "hw3" / "code.ipynb", as_version=4)
    [cell] = [cell for cell in code.cells if cell.id == "guidance-code"]
    assert cell.source.startswith("def guided_eps(")
    released = (course / "release" / "hw3" / "analysis.ipynb").read_bytes()
    assert (course / "submitted" / "bob" / "hw3" / "analysis.ipynb").read_bytes() == released
    # What is there stays without --submissions, and is replaced by what is handed in anew.
    taken_up = course / "autograded" / "ada" / "hw3" / "analysis.ipynb"
    taken_up.write_text("taken up")
    synced(course, grades)
    assert "All fours look like nines." in (place / "analysis.ipynb").read_text()
    synced(course, grades, inbox)
    assert taken_up.exists()
    (inbox / "ada" / "figures" / "kl-weight.png").unlink()
    synced(course, grades, inbox)
    assert not taken_up.exists()
    assert not (place / "figures" / "kl-weight.png").exists()


def test_a_written_part_that_is_no_notebook_is_told(course, tmp_path, capsys):
    for number, content in enumerate(
        [b"", b"\xff", b"[]", b"{}", b'{"cells": 1, "nbformat": 4}', b"[" * 100_000, b'{"nbformat": 4, "cells": [{}]}']
    ):
        inbox, found = submitted(tmp_path / str(number), course, {}, {"analysis.ipynb": content})
        synced(course, graded(tmp_path / str(number) / "graded", found), inbox, code=1)
        said = capsys.readouterr()
        assert "ada (analysis.ipynb is no notebook" in said.err
        assert said.err.count("\n") == 1
        assert "0 of them have handed in the written part" in said.out


def test_submissions_of_other_places_are_refused(course, tmp_path):
    inbox, found = submitted(tmp_path, course, {})
    grades = graded(tmp_path / "graded", replace(found, source="elsewhere"))
    assert "none of the results is of a submission in" in refusal(course, grades, inbox)


PYTHON = '''\
class Other:
    def kl(self):
        return "other"

class VAE(Module):
    """Text
def kl(self):
    """

    @staticmethod
    @cache
    def kl(
        mu,
        logvar,
    ) -> Tensor:
        # why
        if mu:

            return 1
    # below
        return 2

    # of the next

    def next(self): pass

def kl(mu): return 0
def kl(mu):
\treturn 1
'''


def test_the_source_of_a_function():
    method = notebooks.source_of(PYTHON, "VAE.kl")
    assert method.startswith("@staticmethod\n@cache\ndef kl(\n    mu,")
    assert method.endswith("        return 1\n# below\n    return 2")  # and without the comment before the next
    assert notebooks.source_of(PYTHON, "kl") == "def kl(mu):\n\treturn 1"
    assert notebooks.source_of(PYTHON, "VAE.kl.inner") is None
    assert notebooks.source_of("def (((\n" * 10_000, "kl") is None
    for file, content in solution().items():
        for function in RUBRIC.functions.values():
            if function.file == file:
                source = notebooks.source_of(content.decode(), function.name)
                assert "### BEGIN SOLUTION" in source
                assert source.rstrip().endswith("### END SOLUTION")


def test_the_source_of_a_huge_file_is_found_at_once():
    many = "class C:\n" + "    def kl(self):\n        pass\n" * 5_000 + "  " * 40_000 + "def kl(): pass\n"
    assert notebooks.source_of(many, "C.kl") is not None


def test_what_came_out_of_a_submission_is_source_or_plain_output_only(course, tmp_path):
    text = "</pre><script>alert(1)</script> \x1b[31m \u202e ![x](http://evil/x.png)"
    function = replace(result("x").functions[1], points=1.0, problem=text, hint=text, public=text)
    hostile = result("ada", notes=[text], output=text)
    hostile.functions[1] = function
    files = {file: text.encode() + b"\n" + content for file, content in solution().items()}
    notebook = nbformat.reads(notebooks.graded_notebook(hostile, RUBRIC, files), as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert "script" not in json.dumps(cell.metadata)
        if cell.cell_type == "code":
            assert all((output.output_type, output.name) == ("stream", "stdout") for output in cell.outputs)
            assert all("\x1b" not in each and "\u202e" not in each for each in [cell.source, str(cell.outputs)])
        else:
            assert "<" not in cell.source
    assert "1 of 10 points" in str(notebook)
