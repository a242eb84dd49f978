"""Exports: the platform's file comes back with one column filled in, and nothing else changed by a byte."""

from __future__ import annotations

import csv
import io

import pytest

from classroom import graded
from grading.__main__ import main
from grading.hidden.decisions.record import Record
from grading.hidden.doors.table import read_table
from grading.hidden.reports.gradescope import write_result
from grading.hidden.reports.result import TOTAL, Member, Override
from grading.hidden.reports.text import no_formula
from grading.rubric import load_rubric

RUBRIC = load_rubric()
TITLE = RUBRIC.title
CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Quiz (1),HW three (12),Final Score,Final Score\r\n"
    ",,,,,,Manual Posting,,\r\n"
    '    Points Possible,,,,,10,100.00,(read only),"(read only)"\r\n'
    '"=Lovelace, ""Ada""",7,s7,ada,S1,9,,90,\r\n'
    "Bob,8,s8,bob,S1,,33,,\r\n"
    '"Student, Test",9,,feed,S1,,,,\r\n'
)
MOODLE = (
    'Identifier,"Full name","Email address",Status,Grade,"Maximum Grade"\n'
    '"Participant 7","Ada Lovelace",ada@uni,Submitted,,100.00\n\n'
    '"Participant 8",Bob,bob@uni,,-,"100,00"\n'
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`export`, in this process, of results. Returns (exit code, content, stderr)."""

    def run(text, results, *flags, record=None, bom=False):
        for result in results:
            write_result(tmp_path / "graded", result, RUBRIC)
        (record or Record()).write(tmp_path / "graded")
        (tmp_path / "roster.csv").write_bytes(b"\xef\xbb\xbf" * bom + text.encode())
        out = tmp_path / "out.csv"
        out.unlink(missing_ok=True)
        argv = ["grading", "export", tmp_path / "graded", "--roster", tmp_path / "roster.csv", "--out", out, *flags]
        monkeypatch.setattr("sys.argv", [str(arg) for arg in argv])
        code = main()
        err = capsys.readouterr().err
        assert (tmp_path / "roster.csv").read_bytes() == b"\xef\xbb\xbf" * bom + text.encode()
        return code, out.read_bytes().decode() if out.exists() else None, err

    return run


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("separator", [",", ";"])
def test_canvas(run, bom, separator):
    text = CANVAS.replace(",", separator)
    code, out, err = run(text, [graded("x", "7", penalty=10)], "--to", "canvas", "--column", "HW three", bom=bom)
    expected = text.replace(separator.join(["S1", "9", "", "90"]), separator.join(["S1", "9", "90", "90"]))
    assert (code, out, err) == (0, "\ufeff" * bom + expected, "")
    assert out != text


def test_canvas_gets_a_new_column(run):
    code, out, _ = run(CANVAS, [graded("x", "s8")], "--to", "canvas")
    rows = list(csv.reader(io.StringIO(out, newline="")))
    assert code == 0
    assert [row[-1] for row in rows] == [TITLE, "", "100", "", "100", ""]
    assert [row[:-1] for row in rows] == list(csv.reader(io.StringIO(CANVAS, newline="")))


def test_moodle(run):
    results = [graded("x", "7"), graded("y", "bob@uni", overrides=[Override(TOTAL, 61.5, "x")])]
    code, out, _ = run(MOODLE, results, "--to", "moodle")
    assert (code, out) == (0, MOODLE.replace("Submitted,,", "Submitted,100,").replace(",,-,", ",,61.5,"))


def test_members_each_get_their_mark_and_absent_ones_none(run):
    members = [Member(student="ada"), Member(student="bob", penalty=20), Member(student="cyd", penalty=0)]
    members[2].overrides = [Override(TOTAL, 5, "x")]
    record = Record(absent={"dan": 12.0})
    text = "student,name\nada,A\nbob,B\ncyd,C\ndan,D\neve,E\n"
    code, out, _ = run(text, [graded("s", "ada;bob;cyd", members=members)], "--to", "csv", record=record)
    assert (code, out) == (0, "student,name,total\nada,A,100\nbob,B,80\ncyd,C,5\ndan,D,12\neve,E,\n")


def test_who_is_not_in_the_roster_is_told(run):
    code, out, err = run("student\nada\n", [graded("ada"), graded("x", "mallory")], "--to", "csv")
    assert (code, out) == (1, "student,total\nada,100\n")
    assert "mallory (100)" in err


@pytest.mark.parametrize(
    ("text", "results", "flags", "parts"),
    [
        ("student,email\nada,x\nbob,x\n", [graded("s", "x")], ("csv",), ("x may be ada (line 2) or bob (line 3)",)),
        ("student\nada\n", [graded("s", "ada"), graded("t", "ADA")], ("csv",), ("ada has 2 marks: s, t",)),
        ("student\nada\n", [graded("ada")], ("canvas",), ("Canvas' gradebook",)),
        ("student\nada\nada\n", [graded("ada")], ("csv",), ("line 3",)),
        ("name\nada\n", [graded("ada")], ("csv",), ("line 1", "student")),
        ("student,a,a\nada,,\n", [graded("ada")], ("csv", "--column", "a"), ("2 columns", "--column")),
        (MOODLE.replace("100.00", "20.00"), [graded("s", "7")], ("moodle",), ("line 2", "20.00", "100")),
        (CANVAS.replace("100.00", "20"), [graded("s", "7")], ("canvas", "--column", "HW three"), ("line 3", "20")),
        (CANVAS, [graded("s", "7")], ("canvas", "--column", "Final Score"), ("2 columns",)),
    ],
)
def test_what_is_not_clear_is_refused(run, text, results, flags, parts):
    code, out, err = run(text, results, "--to", *flags)
    assert (code in (1, 2), out, len(err.splitlines())) == (True, None, 1)
    assert [part for part in parts if part not in err] == []


def test_another_rubrics_results_are_refused(run):
    other = graded("ada")
    other.functions = other.functions[1:]
    code, out, err = run("student\nada\n", [other], "--to", "csv")
    assert (code, out) == (2, None)
    assert "another rubric" in err


def test_no_results_are_one_line(run):
    code, out, err = run("student\nada\n", [], "--to", "csv")
    assert (code, out) == (2, None)
    assert "holds no results" in err


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\r=1", "  =1", "\uff1d1", "-1+1"])
def test_formulas_are_made_text(text):
    assert no_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "x", "-5", "+5.5", "a=b", "87.5", "'=1"])
def test_numbers_and_texts_stay(text):
    assert no_formula(text) == text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_a_table_is_written_as_it_was(tmp_path, end, last):
    text = end.join(['a,"b ""x""",c', '"1,\n2", 3 ,', "", 'x"y,"",z']) + end * last
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    table = read_table(path, lambda header: "a" in header, "")
    assert [row.cells for row in table.rows] == [["1,\n2", " 3 ", ""], ['x"y', "", "z"]]
    assert table.to_bytes() == text.encode()
    table.set(table.rows[1], 2, '=a,"')
    assert table.to_bytes().decode() == text.replace(',"",z', ',"","\'=a,"""')
