"""Lateness from everywhere, and that nobody gets points back because a flag was forgotten."""

from __future__ import annotations

import zipfile
from datetime import timezone

import pytest

from classroom import graded
from grading.errors import GradingError
from grading.hidden.decisions.decided import decide, read_given
from grading.hidden.decisions.lateness import Told, from_platform, hours_after, moment, read_late
from grading.hidden.decisions.record import Record, read_record
from grading.hidden.doors.roster import Roster, Student
from grading.hidden.intake.inbox import Handin, find
from grading.hidden.intake.platforms import is_marked_late
from grading.hidden.reports.feedback import feedback, lateness
from grading.hidden.reports.result import Lateness
from grading.rubric import load_rubric

RUBRIC = load_rubric()
DUE = moment("2026-03-01T12:00Z", "")


def handin(name, student="", **fields):
    return Handin(name, student or name, (), **fields)


class Course:
    """One results folder, and runs into it that grade nothing."""

    def __init__(self, path):
        self.path, self.results = path, {}
        self.path.mkdir()

    def run(self, handins, table=None, due=None, roster=None):
        late = self.path / "late.csv"
        late.write_text(table or "")
        given = read_given(RUBRIC, roster=None, late_csv=late if table else None, overrides=None, due=due)
        if roster:
            given = type(given)(roster, given.late, given.rules, given.due)
        record = read_record(self.path)
        decisions = decide(given, record, self.path, handins, self.results, RUBRIC)
        record.write(self.path)
        for each in handins:
            result = graded(each.name, each.student, platform=each.platform)
            self.results[each.name] = decisions.settle(result)
        return {name: decisions.settle(result) for name, result in self.results.items()}

    def totals(self, *args, **kwargs):
        return {name: result.total for name, result in self.run(*args, **kwargs).items()}


@pytest.fixture
def course(tmp_path):
    return Course(tmp_path / "out")


ADA, BOB = handin("ada"), handin("bob")


def test_a_forgotten_table_gives_nothing_back(course):
    assert course.totals([ADA, BOB], "student,hours_late\nada,30\n") == {"ada": 80, "bob": 100}
    assert course.totals([ADA, BOB]) == {"ada": 80, "bob": 100}
    assert course.totals([BOB], "student,hours_late\nbob,1\n") == {"ada": 80, "bob": 90}  # about bob only
    assert course.totals([ADA, BOB]) == {"ada": 80, "bob": 90}
    assert course.totals([ADA, BOB], "student,hours_late\nada,1\n") == {"ada": 90, "bob": 100}  # of the whole class


def test_without_a_record_the_results_remember(course):
    course.totals([ADA], "student,hours_late,slip_days\nada,30,1\n")
    (course.path / ".record.json").unlink()
    assert course.totals([ADA]) == {"ada": 90}


def test_the_table_goes_before_the_platform(course):
    late = handin("ada_LATE_7", "7", platform="canvas", originals=("ada_LATE_7_900_hw3.zip",))
    assert course.totals([late]) == {"ada_LATE_7": 90}
    assert "without saying by how much" in " ".join(lateness(course.results["ada_LATE_7"]))
    assert course.totals([late], "student,hours_late\n7,50\n") == {"ada_LATE_7": 70}
    assert course.totals([late]) == {"ada_LATE_7": 70}
    assert course.totals([late], "student,hours_late\n7,0\n") == {"ada_LATE_7": 100}
    assert course.totals([late], "student,hours_late,slip_days\n7,,1\n") == {"ada_LATE_7": 100}


def test_gradescopes_times(course):
    late = handin("submission_1", "a;b", platform="gradescope", submitted="2026-03-02 14:00:00.123456000 Z")
    assert course.totals([late]) == {"submission_1": 100}
    assert course.totals([late], due=DUE) == {"submission_1": 80}
    assert course.totals([late]) == {"submission_1": 80}
    assert course.results["submission_1"].late_source == "gradescope"


def test_gradescopes_times_are_read_from_an_export(tmp_path):
    metadata = (
        "submission_1:\n  :submitters:\n  - :sid: '7'\n    :email: x@y\n  :created_at: 2026-03-02 14:00:00.1 -05:00\n"
        "submission_2:\n  :submitters:\n  - :sid: '8'\n"
    )
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("e/submission_metadata.yml", metadata)
        archive.writestr("e/submission_1/HW3/vae.py", "")
        archive.writestr("e/submission_2/HW3/vae.py", "")
    first, second = find([tmp_path / "e.zip"], RUBRIC).handins
    assert (first.platform, first.originals) == ("gradescope", ("submission_1",))
    assert from_platform(first, DUE) == (31.0, "gradescope")
    assert from_platform(second, DUE) == (None, "")


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("adal_LATE_12_900_hw3.zip", True),
        ("LATE_anon_a1B2c_900_hw3.zip", True),
        ("adal_12_900_LATE_1_2_hw3.zip", False),
        ("late_12_900_hw3.zip", False),
        ("x_LATE_y.zip", False),
    ],
)
def test_canvas_mark_is_in_canvas_part_of_the_name(name, late):
    assert is_marked_late(name) is late


def test_extensions_and_slip_days_are_told(course):
    [ada] = course.run([ADA], "student,hours_late,extension_hours,slip_days\nada,60,12,1\n").values()
    assert (ada.hours_charged, ada.penalty) == (24, 10)
    page = feedback(ada, RUBRIC)
    assert "Handed in 60 hours late: this costs 10 points." in page
    assert "With an extension of 12 hours and 1 slip day, 24 hours count." in page


def test_each_members_own_lateness_counts(course):
    group = handin("submission_1", "a;b;c", platform="gradescope", submitted="2026-03-02 14:00Z")
    table = "student,extension_hours\na,48\nb,24\n"
    result = course.run([group], table, due=DUE)["submission_1"]
    assert {member.student: result.mark(member) for member in result.members} == {"a": 100, "b": 90, "c": 80}
    assert result.total == 80
    page = feedback(result, RUBRIC)
    assert "b: Handed in 26 hours late: this costs 10 points. With an extension of 24 hours, 2 hours count." in page
    again = course.run([group])["submission_1"]
    assert again.members == result.members
    same = course.run([group], "student,hours_late\na;b;c,1\n")["submission_1"]
    assert (same.total, [same.mark(member) for member in same.members]) == (90, [90, 90, 90])


def test_ids_of_the_roster_name_students_too(course):
    roster = Roster("classroom", [Student("ada@uni", "Ada", "", ("Ada-L",))])
    [ada] = course.run([handin("hw3-ada-l", "ada-l")], "student,hours_late\nada@uni,1\n", roster=roster).values()
    assert (ada.student, ada.name, ada.total) == ("ada@uni", "Ada", 90)


def test_classrooms_table_of_grades(tmp_path):
    path = tmp_path / "grades.csv"
    path.write_text("assignment_name,github_username,submission_timestamp\nHW3,ada,2026-03-02T13:00:00Z\nHW3,bob,\n")
    rows = {who: row.hours for _, who, row, _ in read_late(path, DUE).rows}
    assert rows == {"ada": 25.0, "bob": None}
    with pytest.raises(GradingError, match="--due"):
        read_late(path, None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("student,hours_late\nada,\n", ("line 2", "hours")),
        ("student,hours_late,slip_days\nada,1,-1\n", ("line 2", "slip_days")),
        ("student,hours_late,slip_days\nada,1,0.5\n", ("line 2", "whole number")),
        ("student,hours_late,extension_hours\nada,1,nan\n", ("line 2", "extension_hours")),
        ("student,submitted_at\nada,yesterday\n", ("line 2", "submitted_at", "2026-03-01T23:59")),
        ("name,hours_late\nada,1\n", ("columns",)),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, text, parts):
    path = tmp_path / "late.csv"
    path.write_text(text)
    with pytest.raises(GradingError) as caught:
        read_late(path, DUE)
    assert caught.value.exit_code == 2
    assert [part for part in ("late.csv", *parts) if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    "text",
    ["2026-03-01T13:00+01:00", "2026-03-01 12:00:00.123456789 Z", "2026-03-01 12:00 UTC", "2026-03-01 07:00:00 -0500"],
)
def test_moments(text):
    assert moment(text, "").astimezone(timezone.utc).replace(microsecond=0) == DUE
    assert hours_after(DUE, moment(text, "")) == 0


@pytest.mark.parametrize("text", ["", "2026-03-01", "12:00", "2026-13-01T00:00", "2026-03-01T25:00", "1" * 9999])
def test_no_moments(text):
    with pytest.raises(GradingError, match="no date with a time"):
        moment(text, "--due")


def test_what_was_told_survives_a_file():
    told = Told.from_json(Told({}, 2.0, "gradescope").to_json())
    assert told.of() == Lateness(hours_late=2.0, late_source="gradescope")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"late": 3}', '{"unknown": 1}', '{"late": {"ada": 3}}'])
def test_a_damaged_record_is_one_line(course, text):
    (course.path / ".record.json").write_text(text)
    with pytest.raises(GradingError, match="is damaged"):
        course.run([ADA])


def test_no_record_is_none(tmp_path):
    assert read_record(tmp_path) == Record()
