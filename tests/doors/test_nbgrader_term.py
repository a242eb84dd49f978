"""A term of twelve submissions through nbgrader: released, graded, synced, marked, fed back, regraded."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from nbgrader.api import Gradebook

from classroom import from_bank, grades, grading, handout, solution, write
from coursework import ANSWERS, PICTURE, RUBRIC, analysis, code_cell, dump, exported, guide, run
from grading.hidden.doors.gradebook.course import open_course
from grading.hidden.handout.regions import solution_statements
from grading.hidden.reference.bank import BANK
from harness import ROOT

VAE, DIFFUSION, TINY_SD = RUBRIC.submit
CHAFF = next(entry for entry in BANK if entry.id == "kl" and not entry.is_wheat)
WHEAT = next(entry for entry in BANK if entry.id == "posterior" and entry.is_wheat)
LOUD = b"\nprint('<script>document.title=1</script> \\x1b[31m ' * 3)\n"
ANSWERED = {name: f"My answer to *{name}*: $\\beta < 1$.\n\n<script>document.title=1</script>" for name in ANSWERS}

# name of the submission -> its submitters' ids, its files; the export says what the ids are called
HANDED_IN = {
    "submission_1": (["ada"], solution()),
    "submission_2": (["bob"], from_bank(CHAFF)),
    "submission_3": (["cam"], from_bank(WHEAT)),
    "submission_4": (["dan"], solution()),  # late
    "submission_5": (["eve"], {VAE: solution()[VAE]}),  # two files are missing
    "submission_6": (["fay"], {**solution(), DIFFUSION: b"def broken(:\n"}),
    "submission_7": (["gil", "hal"], from_bank(CHAFF)),  # a group
    "submission_8": (["kim1"], solution()),
    "submission_9": (["kim2"], {**solution(), TINY_SD: handout()[TINY_SD]}),
    "submission_10": (["ivy"], handout()),
    "submission_11": (["joe"], {**solution(), VAE: solution()[VAE] + LOUD}),
    "submission_12": (["kay"], {}),
}
STUDENTS = [student for students, _ in HANDED_IN.values() for student in students]
NAMES = {"kim1": "Kim Lee", "kim2": "Kim Lee"}


class Text(HTMLParser):
    """The text of a page, as it is read."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.feed(page)
        self.close()

    def handle_data(self, data):
        self.parts.append(data)


def shown(path: Path) -> str:
    return "".join(Text(path.read_text(encoding="utf-8")).parts)


def squeezed(text: str) -> str:
    return "".join(text.split())


class Term:
    """What the term leaves: the inbox, the grades, the course."""

    def __init__(self, root: Path) -> None:
        self.inbox, self.grades, self.course = root / "export", root / "graded", root / "course"
        self.canary = root / "canary"

    def hand_in(self) -> None:
        metadata = {}
        for name, (students, files) in HANDED_IN.items():
            submitters = [{":name": NAMES.get(id, id), ":sid": id, ":email": f"{id}@x.edu"} for id in students]
            metadata[name] = {":submitters": submitters}
            write(self.inbox / name, files)
        (self.inbox / "submission_12").mkdir()
        (self.inbox / "submission_metadata.yml").write_text(yaml.safe_dump(metadata))
        run_me = code_cell(f"open({str(self.canary)!r}, 'w').write('run')\n!touch {self.canary}")
        ada = {"analysis.ipynb": analysis(self.course, ANSWERED, run_me), "figures/kl-weight.png": PICTURE}
        write(self.inbox / "submission_1", ada)
        write(self.inbox / "submission_7", {"hw3/analysis.ipynb": analysis(self.course, {"failure": "It is *ours*."})})
        (self.inbox.parent / "late.csv").write_text("submission,hours_late\nsubmission_4,30\n")

    def grade(self) -> None:
        late = self.inbox.parent / "late.csv"
        done = grading("grade", self.inbox, "--out", self.grades, "--late-csv", late, "--resume", "--workers", 2)
        assert done.returncode == 0, done.stderr

    def sync(self) -> str:
        done = grading("nbgrader", "sync", self.grades, "--course", self.course, "--submissions", self.inbox)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def gradebook(self) -> Gradebook:
        course = open_course(self.course)
        return Gradebook(course.database, course.id)

    def total(self, student: str) -> float:
        name = next(name for name, (students, _) in HANDED_IN.items() if student in students)
        return float(grades(self.grades)[name]["total"])


@pytest.fixture(scope="module")
def term(tmp_path_factory):
    """Graded, synced, and marked by somebody."""
    term = Term(tmp_path_factory.mktemp("term"))
    done = grading("nbgrader", "init", term.course)
    assert done.returncode == 0, done.stderr
    term.hand_in()
    term.grade()
    said = term.sync()
    assert "13 students: 13 new, 0 changed, 0 as they were" in said
    assert "3 of them have handed in the written part" in said
    with term.gradebook() as book:
        for student, marks in {"ada": (10, 8.5, 7, 6), "gil": (0, 0, 0, 9)}.items():
            for name, mark in zip(ANSWERS, marks, strict=True):
                grade = book.find_grade(name, "analysis", "hw3", student)
                grade.manual_score, grade.needs_manual_grade = mark, False
        book.find_comment("failure", "analysis", "hw3", "ada").manual_comment = "Which one of **two** causes?"
        book.db.commit()
    run(term.course, "generate_feedback", "hw3")
    return term


def test_what_is_to_be_marked(term):
    with term.gradebook() as book:
        needed = {
            (grade.student.id, grade.name)
            for submission in book.assignment_submissions("hw3")
            for notebook in submission.notebooks
            for grade in notebook.grades
            if grade.needs_manual_grade
        }
        assert needed == {("hal", "failure")}  # who answered and was not marked; an empty answer has 0 already
        assert book.find_comment("guidance", "analysis", "hw3", "kay").auto_comment == "No response."
        assert book.find_grade("guidance", "analysis", "hw3", "kay").auto_score == 0


def test_the_export_has_our_totals_and_the_marks(term):
    rows = exported(term.course)
    assert rows.keys() == set(STUDENTS)
    marks = {"ada": 31.5, "gil": 9.0}
    for student, row in rows.items():
        assert float(row["score"]) == pytest.approx(term.total(student) + marks.get(student, 0)), student
        assert float(row["max_score"]) == RUBRIC.total + 40
    assert [term.total(student) for student in ("ada", "cam", "dan", "kim1", "joe")] == [100, 100, 80, 100, 100]
    assert (float(rows["dan"]["raw_score"]), float(rows["dan"]["late_submission_penalty"])) == (100, 20)
    assert term.total("ivy") == term.total("kay") == 0
    assert term.total("eve") == 20
    assert term.total("gil") == term.total("hal") < 100


def test_feedback_says_what_ours_says(term):
    for name, (students, _) in HANDED_IN.items():
        result = json.loads((term.grades / name / "results.json").read_text())
        for student in students:
            text = squeezed(shown(term.course / "feedback" / student / "hw3" / "code.html"))
            for test in result["tests"]:
                assert squeezed(test["output"]) in text, (student, test["name"])
                assert f"{test['score']:.2f}".rstrip("0").rstrip(".") in text
    page = term.course / "feedback" / "ada" / "hw3" / "analysis.html"
    assert "<strong>two</strong>" in page.read_text()
    text = shown(page)
    assert "My answer to kl-weight" in text
    assert "Score: 8.5 / 10.0" in text
    assert (page.parent / "figures" / "kl-weight.png").read_bytes() == PICTURE
    assert 'src="figures/kl-weight.png"' in page.read_text()


def test_students_see_no_guide_no_solution_and_no_hidden_test(term):
    """In what is released, and in what is fed back; there a student's own code aside, which may be the solution."""
    others = {"ivy", "kay"}
    notebooks, pages = list(term.course.glob("release/*/*")), list(term.course.glob("feedback/*/*/*.html"))
    assert (len(notebooks), len(pages)) == (2, 2 * len(STUDENTS))
    read = {path: squeezed(path.read_text()) for path in notebooks} | {path: squeezed(shown(path)) for path in pages}
    given = squeezed("".join(content.decode() for content in handout().values()))
    secret = [line for line in guide() if len(line) > 20]
    for file in (ROOT / "grading" / "hidden" / "reference").glob("*.py"):
        secret += [line for line in file.read_text().splitlines() if len(line.strip()) >= 40]
    for path, text in read.items():
        assert not [line for line in secret if squeezed(line) in text and squeezed(line) not in given], path
        if path.parts[-3] in others or path.suffix == ".ipynb":
            for file in RUBRIC.submit:
                for statement in solution_statements((ROOT / file).read_text(), file):
                    wanted = squeezed(statement)
                    assert len(statement) < 30 or wanted in given or wanted not in text
    assert "BEGIN SOLUTION" not in read[term.course / "feedback" / "ivy" / "hw3" / "code.html"]


def test_nothing_that_a_student_wrote_is_live(term):
    for page in (term.course / "feedback").rglob("*.html"):
        assert "<script>document.title" not in page.read_text(), page
    text = shown(term.course / "feedback" / "joe" / "hw3" / "code.html")
    assert text.count("<script>document.title=1</script>") == 3


def test_nothing_that_a_student_wrote_is_run(term):
    """`nbgrader autograde` anew, as its own pages do: the points of `code` stay, whatever lies in `submitted`."""
    before = exported(term.course)
    (term.course / "submitted" / "bob" / "hw3" / "code.ipynb").unlink()
    forged = (term.course / "synced" / "ada" / "hw3" / "code.ipynb").read_text().replace("100 of 100", "999 of 100")
    (term.course / "submitted" / "ada" / "hw3" / "code.ipynb").write_text(forged)
    said = run(term.course, "autograde", "hw3", "--force")
    assert not term.canary.exists()
    assert "Traceback" not in said
    assert exported(term.course) == before
    taken_up = json.loads((term.course / "autograded" / "ada" / "hw3" / "analysis.ipynb").read_text())
    code = [cell for cell in taken_up["cells"] if cell["cell_type"] == "code"]
    assert "touch" in "".join(code[-1]["source"])  # it was there to be run
    assert all(cell["outputs"] == [] for cell in code)
    assert "999" not in (term.course / "autograded" / "ada" / "hw3" / "code.ipynb").read_text()


def test_regraded_and_synced_again(term):
    """A resubmission changes its points only; marks and comments stay; the same again changes nothing at all."""
    with term.gradebook() as book:  # whatever was to be looked at again is
        for name in ANSWERS:
            for student in ("ada", "gil"):
                book.find_grade(name, "analysis", "hw3", student).needs_manual_grade = False
        book.db.commit()
    before = exported(term.course)
    write(term.inbox / "submission_2", solution())
    term.grade()
    said = term.sync()
    assert "13 students: 0 new, 1 changed, 12 as they were" in said
    after = exported(term.course)
    assert float(after["bob"]["score"]) == 100 > float(before["bob"]["score"])
    assert {**after, "bob": None} == {**before, "bob": None}
    with term.gradebook() as book:
        assert book.find_comment("failure", "analysis", "hw3", "ada").comment == "Which one of **two** causes?"
    state = dump(term.course)
    assert "0 changed, 13 as they were" in term.sync()
    assert dump(term.course) == state
    assert re.search(r"Traceback|Warning", said) is None
