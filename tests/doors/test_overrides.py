"""Points that a person sets: applied after grading, explained to the student, and never lost."""

from __future__ import annotations

import json

import pytest

from classroom import graded, grades, grading, solution, write
from grading.errors import GradingError
from grading.hidden.decisions.decided import Decisions, Given, decide
from grading.hidden.decisions.overrides import read_overrides
from grading.hidden.decisions.record import Record, read_record
from grading.hidden.decisions.regrade import changes, marks_of, write_regrade
from grading.hidden.doors.roster import Roster, Student
from grading.hidden.engine.run import GradingRun, make_exam
from grading.hidden.intake.inbox import Handin
from grading.hidden.reports.feedback import feedback
from grading.hidden.reports.grades import write_grades
from grading.hidden.reports.gradescope import gradescope, read_result, write_result
from grading.hidden.reports.result import TOTAL, Absent, Override
from grading.rubric import load_rubric

RUBRIC = load_rubric()
HEADER = "student,submission,id,points,reason\n"


def rules(tmp_path, text):
    path = tmp_path / "overrides.csv"
    path.write_text(HEADER + text)
    return read_overrides(path, RUBRIC)


@pytest.fixture
def settle(tmp_path):
    """The results of submissions (name, student, platform) under overrides; None: as remembered."""
    record, held = Record(), {}

    def settle(text, *rows, roster=None):
        handins = [Handin(name, student, (), platform=platform) for name, student, platform in rows]
        given = Given(roster, None, rules(tmp_path, text) if text is not None else None)
        decisions = decide(given, record, tmp_path, handins, held, RUBRIC)
        held.update({each.name: graded(each.name, each.student, platform=each.platform) for each in handins})
        return {name: decisions.settle(result) for name, result in held.items()} | {
            a.student: a for a in decisions.absent()
        }

    return settle


ADA, BOB = ("ada", "ada", ""), ("b", "bob", "")


def test_points_and_mark(settle):
    found = settle("ada,,kl,4,agreed\n,b,total,50,spoken\n", ADA, BOB)
    assert (found["ada"].total, found["ada"].earned, found["ada"].status) == (94, 94, "override")
    assert (found["b"].total, found["b"].earned, found["b"].status) == (50, 100, "override")
    assert found["ada"].functions[1].points == 10  # the engine's points stay
    assert settle(None, ADA, BOB) == found
    assert settle("ada,,kl,4,agreed\n", ADA, BOB)["b"].total == 100  # the table is the whole truth


def test_a_table_about_one_leaves_the_others(settle):
    settle("ada,,kl,4,agreed\n,b,total,50,spoken\n", ADA, BOB)
    found = settle("ada,,kl,5,agreed\n", ADA)
    assert (found["ada"].total, found["b"].total) == (95, 50)
    assert settle(None, ADA, BOB) == found


def test_one_of_a_group_and_one_who_is_absent(settle):
    roster = Roster("plain", [Student("a"), Student("b"), Student("c")])
    found = settle("a,,total,7,left early\nc,,total,12,spoken\n", ("s", "a;b", "gradescope"), roster=roster)
    group = found["s"]
    assert {member.student: group.mark(member) for member in group.members} == {"a": 7, "b": 100}
    assert (group.total, group.status) == (100, "override")
    assert (found["c"].total, found["c"].status) == (12, "not-submitted; override")
    assert "a: The mark was set to 7 instead of 100: left early" in feedback(group, RUBRIC)


def test_the_student_is_told_why(tmp_path, settle):
    result = settle("ada,,kl,4,<b>agreed</b>\nada,,total,60,spoken\n", ADA)["ada"]
    page = feedback(result, RUBRIC)
    assert "The points of kl were set to 4 instead of 10: &lt;b&gt;agreed&lt;/b&gt;" in page
    assert "The mark was set to 60 instead of 94: spoken" in page
    data = gradescope(result, RUBRIC)
    assert (data["score"], data["tests"][1]["score"]) == (60, 4)
    assert "The mark was set to 60" in data["output"]
    assert "were set to 4" in data["tests"][1]["output"]
    write_result(tmp_path, result, RUBRIC)
    assert read_result(tmp_path / "ada" / "results.json") == result


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (",,kl,4,x\n", ("line 2", "whose")),
        ("ada,,kk,4,x\n", ("line 2", "'kk'", "kl")),
        ("ada,,kl,-1,x\n", ("line 2", "'-1'")),
        ("ada,,kl,nan,x\n", ("line 2", "'nan'")),
        ('ada,,kl,"7,5",x\n', ("line 2", "7,5")),
        ("ada,,kl,4,\n", ("line 2", "reason")),
        ("ada,,kl,4,x\nada,,kl,5,x\n", ("line 3", "twice")),
        ("ada,,kl\n", ("line 2", "3 cells")),
    ],
)
def test_a_bad_row_is_one_line(tmp_path, text, parts):
    with pytest.raises(GradingError) as caught:
        rules(tmp_path, text)
    assert caught.value.exit_code == 2
    assert [part for part in ("overrides.csv", *parts) if part not in str(caught.value)] == []


def test_other_columns_are_one_line(tmp_path):
    (tmp_path / "o.csv").write_text("student,points\n")
    with pytest.raises(GradingError, match=r"line 1: columns .*`reason` are needed"):
        read_overrides(tmp_path / "o.csv", RUBRIC)


@pytest.mark.parametrize(
    ("text", "rows", "parts"),
    [
        ("eve,,kl,4,x\n", [ADA], ("line 2", "nobody", "'eve'")),
        ("ada,,kl,4,x\n", [ADA, ("ada-2", "ada", "")], ("line 2", "ada, ada-2", "submission")),
        ("a,,kl,4,x\n", [("s", "a;b", "gradescope")], ("line 2", "one of a group")),
        ("ada,,kl,4,x\n,ada,kl,5,x\n", [ADA], ("line 3", "twice")),
    ],
)
def test_nobodys_points_are_one_line(settle, text, rows, parts):
    with pytest.raises(GradingError) as caught:
        settle(text, *rows)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_more_than_all_is_said(tmp_path, capsys):
    [rule] = rules(tmp_path, "ada,,kl,11,bonus\n")
    assert rule.points == 11
    assert "kl of ada is set to 11, and 10 is all" in capsys.readouterr().err


def test_grades_of_who_is_absent(tmp_path):
    results = [graded("cyd", "x", name="=X"), graded("ada", overrides=[Override("kl", 3, "x")])]
    write_grades(tmp_path, results, RUBRIC, [Absent("cyd", "Cyd"), Absent("dan", "")], names=True)
    rows = grades(tmp_path)
    assert list(rows) == ["ada", "cyd", "cyd-2", "dan"]
    assert (rows["ada"]["kl"], rows["ada"]["earned"], rows["ada"]["total"]) == ("3", "93", "93")
    assert list(rows["ada"])[-2:] == ["status", "name"]
    assert (rows["cyd"]["name"], rows["cyd-2"]["student"], rows["cyd-2"]["total"]) == ("'=X", "cyd", "0")
    assert {rows[name]["status"] for name in ("cyd-2", "dan")} == {"not-submitted"}


def test_a_regrade_says_who_and_why(tmp_path):
    before = graded("=a")
    before.functions[1].points, before.functions[1].groups = 4.0, {"moderate": [1, 4], "extreme": [2, 2]}
    after = graded("=a", penalty=10)
    after.functions[1].groups = {"moderate": [4, 4], "extreme": [2, 2]}
    found = changes(json.loads(json.dumps(marks_of([before, graded("b")]))), [after, graded("b"), graded("new")])
    assert [(change.submission, change.before, change.after) for change in found] == [("=a", 94, 90)]
    assert found[0].because == ["kl 4 to 10 (moderate: 1 of 4 to 4 of 4)", "lateness 0 to 10"]
    write_regrade(tmp_path, found)
    assert (tmp_path / "regrade.csv").read_text().splitlines()[1].startswith("'=a,'=a,94,90,-4,")


def test_a_run_and_what_it_remembers(tmp_path):
    """The command: decisions survive --resume and nothing is graded again; an edited table is kept."""
    inbox, out = write(tmp_path / "in" / "ada", solution()).parent, tmp_path / "out"
    (tmp_path / "late.csv").write_text("student,hours_late\nada,30\n")
    (tmp_path / "roster.csv").write_text("student,name\nada,Ada\nbob,Bob\n")
    (tmp_path / "overrides.csv").write_text("student,id,points,reason\nada,guidance,4,agreed\nbob,total,1,spoken\n")
    run = ("grade", inbox, "--out", out, "--only", "guidance")
    first = grading(*run, "--roster", tmp_path / "roster.csv", "--late-csv", tmp_path / "late.csv")
    assert (first.returncode, first.stderr) == (0, "")
    assert "late: 1 by the table" in first.stdout
    assert "roster: 2 students, 1 without a submission: bob" in first.stdout
    assert {name: row["total"] for name, row in grades(out).items()} == {"ada": "4", "bob": "0"}
    assert not (out / "regrade.csv").exists()
    graded_at = read_result(out / "ada" / "results.json").seconds

    (tmp_path / "no-guidance.csv").write_text("student,id,points,reason\nada,kl,4,agreed\n")
    bad = grading(*run, "--resume", "--overrides", tmp_path / "no-guidance.csv")
    assert (bad.returncode, len(bad.stderr.splitlines()[-1:])) == (2, 1)
    (out / "grades.csv").write_bytes((out / "grades.csv").read_bytes().replace(b"ada", b"eve"))
    edited = (out / "grades.csv").read_bytes()
    second = grading(*run, "--resume", "--overrides", tmp_path / "overrides.csv")
    assert second.returncode == 0
    assert "was edited" in second.stderr
    assert (out / "grades.edited-1.csv").read_bytes() == edited
    assert "1 marks changed" in second.stdout
    assert "guidance set to 4" in (out / "regrade.csv").read_text()
    assert "guidance set to 4" in (out / "summary.html").read_text()
    rows = grades(out)
    assert (rows["ada"]["total"], rows["ada"]["penalty"], rows["ada"]["name"]) == ("3.2", "0.8", "Ada")
    assert (rows["bob"]["total"], rows["bob"]["status"]) == ("1", "not-submitted; override")

    third = grading(*run, "--resume")
    assert (third.returncode, third.stderr) == (0, "")
    assert grades(out) == rows
    assert read_result(out / "ada" / "results.json").seconds == graded_at
    assert "agreed" in (out / "ada" / "feedback.html").read_text()
    assert TOTAL not in [override.id for override in read_result(out / "ada" / "results.json").overrides]


def test_a_run_that_is_killed_has_told_the_next_one(tmp_path):
    def killed():
        raise KeyboardInterrupt

    exam, record = make_exam(["guidance"], 10), Record(grades_sha256="f00d")
    run = GradingRun(tmp_path, exam, "sandbox", Decisions(RUBRIC), record, b"", {})
    with pytest.raises(KeyboardInterrupt):
        run.grade([Handin("ada", "ada", ())], killed, at_a_time=1, resume=True)
    assert read_record(tmp_path) == record
