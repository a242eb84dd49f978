"""Rosters: every format, every mistake with its line, and who handed in what."""

from __future__ import annotations

import pytest

from grading.errors import GradingError
from grading.hidden.doors.roster import Roster, Student, attendance, read_roster

CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,HW 3 (12),Final Score\r\n"
    ",,,,,Manual Posting,\r\n"
    "    Points Possible,,,,,100,(read only)\r\n"
    '"Lovelace, Ada",7,s7,ada@uni,S1,,90\r\n'
    '"Student, Test",9,,feed,S1,,\r\n'
)
MOODLE = (
    'Identifier,"Full name","Email address",Status,Grade,"Maximum Grade"\n'
    '"Participant 1234567","Ada Lovelace",ada@uni,Submitted,,100.00\n'
)
CLASSROOM = '"identifier","github_username","github_id","name"\n"ada@uni","Ada-L","5",""\n"bob@uni","","",""\n'
PLAIN = "student;name;group;email\nada;Ada Lovelace;g1;ada@uni\n\nbob;Bob;g1;bob@uni\n"


def write(tmp_path, text, bom=False):
    path = tmp_path / "roster.csv"
    path.write_bytes(b"\xef\xbb\xbf" * bom + (text if isinstance(text, bytes) else text.encode()))
    return path


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize(
    ("text", "kind", "first", "known_as"),
    [
        (CANVAS, "canvas", Student("7", "Lovelace, Ada", "", ("s7", "ada@uni"), 4), ("7", "s7", "ADA@uni")),
        (MOODLE, "moodle", Student("1234567", "Ada Lovelace", "", ("ada@uni",), 2), ("1234567", "ada@uni")),
        (CLASSROOM, "classroom", Student("ada@uni", "", "", ("Ada-L",), 2), ("ada@uni", "ada-l")),
        (PLAIN, "plain", Student("ada", "Ada Lovelace", "g1", ("ada@uni",), 2), ("ada",)),
    ],
)
def test_formats(tmp_path, text, kind, first, known_as, bom):
    roster = read_roster(write(tmp_path, text, bom))
    assert (roster.kind, roster.students[0]) == (kind, first)
    assert len(roster.students) == (1 if kind in ("canvas", "moodle") else 2)
    assert {roster.find(id) for id in known_as} == {first}
    assert roster.find("nobody") is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name,mail\nada,x\n", ("line 1", "column `student`", "ID")),
        ("", ("line 1", "needed")),
        ("student,name\n", ("no student",)),
        ("student,name\nada,A\nbob,B\nada,C\n", ("line 4", "'ada'", "line 2")),
        ('student,name\nada,"A\nB"\nada,C\n', ("line 4", "line 2")),
        ("student,name\n,A\n", ("line 2", "no id")),
        ("student,name\nada\n", ("line 2", "1 cells", "2")),
        ('student,name\nada,"A\n', ("line 2", "quote")),
        ('student,name\nada,"A"x\n', ("line 2", "quote")),
        (b"student,name\nada,\xff\n", ("line 2", "UTF-8")),
        (MOODLE.replace("Participant 1234567", "Participant"), ("line 2", "Identifier")),
        (CANVAS + '"Other, One",7,,,S1,,\r\n', ("line 6", "'7'", "line 4")),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, parts):
    with pytest.raises(GradingError) as caught:
        read_roster(write(tmp_path, text))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert [part for part in ("roster.csv", *parts) if part not in str(caught.value)] == []


def test_a_missing_roster_is_one_line(tmp_path):
    with pytest.raises(GradingError, match="cannot be read"):
        read_roster(tmp_path / "none.csv")


def roster(*students, groups=()):
    return Roster("plain", [Student(id, group=dict(groups).get(id, "")) for id in students])


def test_absent_and_strangers():
    found = attendance(roster("ada", "bob"), [("ada", "ada", ""), ("x", "x", "")])
    assert ([s.id for s in found.absent], found.strangers, found.members) == (["bob"], ["x"], {})
    assert attendance(None, [("x", "x", "")]).strangers == []


@pytest.mark.parametrize(
    ("known", "rows", "members", "doubts"),
    [
        (None, [("s", "a;b", "gradescope")], {"s": ["a", "b"]}, 0),
        (None, [("a;b", "a;b", "")], {}, 1),  # a name that a student chose
        (roster("a", "b"), [("a;b", "a;b", "")], {"a;b": ["a", "b"]}, 0),
        (roster("a", "b"), [("a;b", "a;b", ""), ("b", "b", "")], {}, 1),  # b is no victim of who names him
        (roster("a"), [("a;b", "a;b", "")], {}, 1),
        (roster("a;b"), [("a;b", "a;b", "")], {}, 1),
    ],
)
def test_groups_by_id(known, rows, members, doubts):
    found = attendance(known, rows)
    assert (found.members, len(found.doubts)) == (members, doubts)


def test_groups_of_the_roster():
    groups = roster("a", "b", "c", "d", groups={"a": "g1", "b": "g1", "c": "g2", "d": "g2"}.items())
    found = attendance(groups, [("a", "a", ""), ("c", "c", ""), ("d", "d", "")])
    assert found.members == {"a": ["a", "b"]}
    assert (found.absent, len(found.doubts)) == ([], 2)
    assert attendance(groups, [("x", "g2", "")]).members == {"x": ["c", "d"]}
