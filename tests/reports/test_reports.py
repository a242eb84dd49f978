"""What grading writes: right numbers in the right places, and nothing that a submission says does anything."""

from __future__ import annotations

import ast
import builtins
import csv
import errno
import inspect
import json
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
import time
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from exploits import exploits
from grading.errors import GradingError
from grading.hidden.engine.grade import LOST, SPENT
from grading.hidden.handout.release import build
from grading.hidden.reference.bank import BANK
from grading.hidden.reports import gradescope as results_json
from grading.hidden.reports.concealment import MAX_SHOWN, MODULES
from grading.hidden.reports.feedback import feedback, rows
from grading.hidden.reports.files import folder_of, write_atomically
from grading.hidden.reports.grades import write_grades
from grading.hidden.reports.gradescope import gradescope, read_result, write_result
from grading.hidden.reports.result import FunctionResult, Result
from grading.hidden.reports.similarity import MAX_BYTES, MAX_OWN, CodeIndex
from grading.hidden.reports.summary import write_summary
from grading.hidden.reports.text import readable
from grading.judge import WRONG_KIND
from grading.rubric import LatePolicy, load_rubric
from grading.test_functions import CASES, case_name
from harness import ROOT

RUBRIC = load_rubric()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

HOSTILE = {
    "script": "<script>document.title='HACKED'</script>",
    "image": "<img src=x onerror=\"document.title='HACKED'\">",
    "closing": "</pre></title></style></svg></textarea>--><script>document.title='HACKED'</script>",
    "attribute": "\" onmouseover=\"document.title='HACKED'\" autofocus onfocus=\"document.title='HACKED'\" x='",
    "javascript": "javascript:document.title='HACKED'",
    "template": "{{ 7*7 }}{% for x in y %} ${7*7} <svg/onload=document.title='HACKED'>",
    "ansi": "\x1b[31mred\x1b[0m \x1b]0;HACKED\x07 \x1b]8;;http://evil\x1b\\link \x9b2J \x1b[2Jcleared",
    "control": "nul\0bell\x07back\x08del\x7fnel\x85",
    "bidi": "\u202etxt.exe\u202c \u2066x\u2069 \u200f \u200b",
    "surrogates": "\udcff\ud800 \ufffe \U000e0041",
    "entity": "&lt;script&gt; &amp; &#60;script&#62;",
}
ALL = "\n".join(HOSTILE.values())


def make(submission="ada", student="Ada", lost=(), **changes) -> Result:
    """A result with all points, but for `lost`: id -> points kept or a FunctionResult."""
    lost = dict(lost)
    functions = []
    for id, function in RUBRIC.functions.items():
        kept = lost.get(id, function.points)
        if not isinstance(kept, FunctionResult):
            groups = {group: [4 if kept == function.points else 3, 4] for group in function.weights}
            kept = FunctionResult(id, kept, function.points, groups, "" if kept == function.points else "is off by 0.3")
        functions.append(kept)
    return Result(submission, student, "f00d", "sandbox", functions, **changes)


def hostile(text=ALL, submission="mallory") -> Result:
    """All that a submission can say, said."""
    function = FunctionResult("kl", 2.5, 10, {"moderate": [1, 4]}, text, "mistake", text, text, finding=text)
    return make(
        submission,
        text,
        {"kl": function, "guidance": FunctionResult("guidance", 0, 5, {}, text, "", "", text, finding=text)},
        statuses=[text],
        notes=[text, text],
        events=[text],
        output=text,
        output_dropped=3,
    )


INLINE = {"a", "bdi", "b", "small", "code", "strong"}


class Page(HTMLParser):
    """A page as a browser takes it apart: tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.parts = [], []
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", "".join(self.parts))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.parts.append("" if tag in INLINE else " ")

    def handle_data(self, data):
        self.parts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def harmless(html: str) -> Page:
    """Check that a page holds only what the templates put there."""
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base", "link", "textarea", "button"}
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("href", "src", "xlink:href", "action"):
            assert re.fullmatch(r"#[\w-]+|\./[^/:]+/feedback\.html|", attrs.get(name, ""))
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html) == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    return page


# -- results.json -----------------------------------------------------------------------------------------

TOP = {
    **dict.fromkeys(("score", "execution_time"), (int, float)),
    **dict.fromkeys(("output", "output_format", "test_output_format", "test_name_format"), str),
    **dict.fromkeys(("visibility", "stdout_visibility"), str),
    **{"extra_data": dict, "tests": list, "leaderboard": list},
}
TEST = {
    **dict.fromkeys(("score", "max_score"), (int, float)),
    **dict.fromkeys(("status", "name", "name_format", "number", "output", "output_format", "visibility"), str),
    **{"tags": list, "extra_data": dict},
}


@pytest.mark.parametrize("result", [make(), make(lost={"kl": 4.5}, hours_late=30, penalty=9.45), hostile()])
def test_results_json_is_gradescopes(tmp_path, result):
    write_result(tmp_path, result, RUBRIC)
    data = json.loads((tmp_path / result.submission / "results.json").read_text(encoding="ascii"))
    assert {key: isinstance(data[key], kind) for key, kind in TOP.items()} == dict.fromkeys(data, True)
    assert [test["name"].partition(":")[0] for test in data["tests"]] == list(RUBRIC.functions)
    for test, function in zip(data["tests"], RUBRIC.functions.values()):
        assert {key: isinstance(test[key], kind) for key, kind in TEST.items()} == dict.fromkeys(test, True)
        assert test["status"] == ("passed" if test["score"] == test["max_score"] == function.points else "failed")
        assert test["visibility"] in ("hidden", "after_due_date", "after_published", "visible")
        assert test["output_format"] == test["name_format"] == "text"
    assert data["score"] == result.total
    assert data["output_format"] == data["test_output_format"] == data["test_name_format"] == "text"
    assert (data["visibility"], data["stdout_visibility"], data["leaderboard"]) == ("visible", "hidden", [])
    texts = json.dumps({**data, "extra_data": None})
    assert "\\u0000" not in texts
    assert not re.search(r"\\ud[89a-f]\w\w(?!\\ud)", texts)


def test_one_functions_visibility(tmp_path):
    text = (ROOT / "grading" / "rubric.toml").read_text()
    text = text.replace('id = "kl"', 'id = "kl"\nvisibility = "after_published"')
    text = text.replace('\nvisibility = "visible"', '\nvisibility = "after_due_date"', 1)
    (tmp_path / "rubric.toml").write_text(text)
    data = gradescope(make(), load_rubric(tmp_path / "rubric.toml"))
    seen = {test["tags"][0]: test["visibility"] for test in data["tests"]}
    assert seen.pop("kl") == "after_published"
    assert data["visibility"] == "after_due_date"
    assert set(seen.values()) == {"after_due_date"}


def test_what_a_test_says():
    known = FunctionResult("kl", 4, 10, {"moderate": [1, 4], "extreme": [2, 2]}, "is off", "name", "the hint", "shown")
    tests = gradescope(make(lost={"kl": known, "guidance": 1}), RUBRIC)["tests"]
    kl, guidance = tests[1]["output"], tests[-1]["output"]
    assert "is off" in kl
    assert "the hint" in kl
    assert "moderate 1 of 4, extreme 2 of 2" in kl
    assert kl.endswith("shown")
    assert RUBRIC.functions["kl"].idea not in kl
    assert RUBRIC.functions["guidance"].idea in guidance
    assert "other inputs" in guidance
    assert "is right" in tests[0]["output"]


def test_results_json_comes_last(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(results_json, "write_atomically", lambda path, content: written.append(path.name))
    write_result(tmp_path, make(), RUBRIC)
    assert written == ["feedback.html", "results.json"]


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, make(penalty=float("nan")), RUBRIC)
    assert not (tmp_path / "ada" / "results.json").exists()


def test_round_trip(tmp_path):
    result = make(lost={"kl": 4.5}, hours_late=30.5, penalty=9.45, notes=["late"], events=["slow"], output="é\n\tx")
    write_result(tmp_path, result, RUBRIC)
    assert read_result(tmp_path / "ada" / "results.json") == result


def test_round_trip_of_hostile_text(tmp_path):
    name = os.fsdecode(b"m\xff\"'<b>, ; $(x)\n")
    first = hostile(submission=name)
    write_result(tmp_path, first, RUBRIC)
    page = (tmp_path / name / "feedback.html").read_bytes()
    second = read_result(tmp_path / name / "results.json")
    assert (second.submission, second.total) == (name, first.total)
    assert second.output == readable(ALL)
    write_result(tmp_path, second, RUBRIC)
    assert read_result(tmp_path / name / "results.json") == second
    assert (tmp_path / name / "feedback.html").read_bytes() == page


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "3", '"x"', "{}", '{"extra_data": []}', '{"extra_data": {"result": {}}}'),
        *('{"extra_data": {"result": {"functions": 3}}}', '{"extra_data": {"result": {"functions": [{}]}}}'),
        *("[" * 100_000, "\xff", '{"score": 3, "tests": []}', '{"extra_data": null}'),
    ],
)
def test_foreign_files_are_not_results(tmp_path, content):
    (tmp_path / "results.json").write_text(content, encoding="latin-1")
    assert read_result(tmp_path / "results.json") is None
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "missing.json") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(('"submission": "ada"', '"submission": 5'), ('"seconds": 0.0', '"seconds": NaN')),
        *(('"seconds": 0.0', '"seconds": 1e999'), ('"notes": []', '"notes": [3]'), ('"events": []', '"events": {}')),
        *(('"penalty": 0.0', '"penalty": "0"'), ('"penalty": 0.0', '"penalty": true'), ('"mistake": ""', '"more": ""')),
        *(('"isolation": "sandbox"', '"isolation": null'), ('"output_dropped": 0', '"output_dropped": 0.5')),
        *(('"penalty": 0.0', f'"penalty": {"9" * 400}'), ('"moderate": [', '"moderate": [1,')),
    ],
)
def test_an_edited_result_is_no_result(tmp_path, old, new):
    write_result(tmp_path, make(), RUBRIC)
    path = tmp_path / "ada" / "results.json"
    text = path.read_text()
    at = text.index('"extra_data": {\n  "result"')
    assert old in text[at:]
    path.write_text(text[:at] + text[at:].replace(old, new))
    assert read_result(path) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\\b", "a\0b", "grades.csv", "Summary.html", "\ud800"])
def test_impossible_names(tmp_path, name):
    with pytest.raises(GradingError, match="cannot be called"):
        folder_of(tmp_path, name)


# -- the student's page ---------------------------------------------------------------------------------------


def test_feedback_says_what_failed_and_why():
    known = FunctionResult("kl", 4, 10, {"moderate": [3, 4]}, "kl is off by 2", "name", "the hint", "asked: <x>")
    result = make(lost={"kl": known, "guidance": 1}, notes=["One note."], output="hello", output_dropped=1234)
    page = harmless(feedback(result, RUBRIC))
    assert "90 of 100 points" in page.text
    assert "Ada · handed in as ada" in page.text
    for part in ("kl is off by 2", "the hint", "moderate 3 of 4", "asked: <x>", "One note.", "hello", "1,234 more"):
        assert part in page.text
    assert RUBRIC.functions["guidance"].idea in page.text
    assert RUBRIC.functions["kl"].idea not in page.text  # a recognised mistake says it better
    assert page.text.count("is not enough") == 1  # guidance has no message of a public check
    assert "isolation" not in page.text
    assert "Handed in" not in page.text


def test_what_was_measured_is_told_where_no_mistake_is_known():
    found = FunctionResult("kl", 4, 10, {}, "is off", finding="the weight of the constant term is wrong")
    known = FunctionResult("guidance", 1, 5, {}, "is off", "name", "the hint", finding="never shown")
    result = make(lost={"kl": found, "guidance": known, "posterior": 3})
    page = harmless(feedback(result, RUBRIC))
    assert f"What was measured {found.finding} Look again at {RUBRIC.functions['kl'].idea}" in page.text
    assert page.text.count("What was measured") == 1
    tests = {test["tags"][0]: test for test in gradescope(result, RUBRIC)["tests"]}
    assert f"What was measured: {found.finding}\nLook again at" in tests["kl"]["output"]
    assert tests["kl"]["extra_data"]["finding"] == found.finding
    assert "measured" not in tests["posterior"]["output"] + tests["guidance"]["output"]


def test_feedback_of_a_full_score():
    page = harmless(feedback(make(), RUBRIC))
    assert "Every function passes every hidden check" in page.text
    assert "What to look at again" not in page.text
    assert "printed" not in page.text


def test_feedback_banners():
    result = make(hours_late=30, penalty=20)
    result.isolation = "process"
    page = harmless(feedback(result, RUBRIC))
    assert "Graded without isolation" in page.text
    assert "Handed in 30 hours late: this costs 20 points." in page.text
    assert "80 of 100 points" in page.text
    assert "100 points earned, 20 taken off" in page.text
    within = harmless(feedback(make(hours_late=0.2), RUBRIC))
    assert "Handed in 12 minutes late: nothing is taken off." in within.text


def test_feedback_is_accessible():
    html = feedback(make(lost={"kl": 4}), RUBRIC)
    page = Page(html)
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all("scope" in attrs for attrs in page.all("th"))
    assert all("aria-label" in attrs for attrs in page.all("svg"))
    assert {"prefers-color-scheme", "@media print"} <= set(re.findall(r"prefers-color-scheme|@media print", html))


def test_a_function_without_result_is_told():
    result = make()
    result.functions = result.functions[1:]
    assert rows(result, RUBRIC)[0].result.points == 0
    assert "was not judged" in harmless(feedback(result, RUBRIC)).text
    assert gradescope(result, RUBRIC)["tests"][0]["status"] == "failed"


def test_the_command_finds_the_checks():
    for row in rows(make(), RUBRIC):
        word = row.command.rpartition(" ")[2]
        assert {case.id for case in CASES if word in case_name(case)} == {row.function.id}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_text(text):
    page = harmless(feedback(hostile(text), RUBRIC))
    assert "HACKED" not in text or "HACKED" in page.text or "\x1b" in text
    for piece in readable(text).split():
        assert piece in page.text


def test_readable():
    assert readable("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x \x1b(B\x9b2Jy") == "red x y"
    assert readable("a\r\nb\rc\td") == "a\nb\nc\td"
    assert readable("\x1b]0;unended\nnext line") == "\nnext line"
    assert readable("a\0\x08\x1b") == "a\\x00\\x08\\x1b"
    assert readable("\x1b\x1b[0m[31m") == "\\x1b[31m"
    assert readable("\u202ex\udcff\ud800") == "⟨U+202E⟩x\\xff⟨U+D800⟩"
    assert readable("σ² ᾱ 👩‍🔬 é") == "σ² ᾱ 👩‍🔬 é"
    everything = "".join(map(chr, range(0x110000)))
    assert readable(readable(everything)) == readable(everything)
    readable(everything).encode("utf-8")


def test_long_texts_are_cut_and_quick(tmp_path):
    began = time.perf_counter()
    for text in ("\0" * 200_000, "\x1b[0" * 100_000, "<" * 1_000_000):
        write_result(tmp_path, hostile(text, "long"), RUBRIC)
        html = (tmp_path / "long" / "feedback.html").read_text(encoding="utf-8")
        assert len(html) < 700_000
        harmless(html)
        assert "more characters" in html
        write_summary(tmp_path, [hostile(text, "long")], RUBRIC)
        assert (tmp_path / "summary.html").stat().st_size < 200_000
    assert time.perf_counter() - began < 20  # 2 s, were it alone on the machine


# -- grades.csv -----------------------------------------------------------------------------------------------


def test_grades(tmp_path):
    names = ["b", 'comma, "quote"', "new\nline", "carriage\rreturn", "=1+1", "é", os.fsdecode(b"\xff")]
    results = [make(name, f"{name} & Co", {"kl": 2.5}, penalty=1, statuses=["late", "odd"]) for name in names]
    write_grades(tmp_path, iter([*results, make("a", "nul\0")]), RUBRIC)
    table = list(csv.DictReader((tmp_path / "grades.csv").open(encoding="utf-8", newline=""), strict=True))
    assert list(table[0]) == ["submission", "student", "total", "earned", "penalty", *RUBRIC.functions, "status"]
    assert [row["submission"] for row in table] == [*sorted(["a", *names[:-1]]), "\\udcff"]
    row, a = ({row["submission"]: row for row in table}[name] for name in ("b", "a"))
    assert (row["student"], row["total"], row["kl"], row["posterior"]) == ("b & Co", "91.5", "2.5", "20")
    assert (row["earned"], row["penalty"], a["earned"], a["penalty"]) == ("92.5", "1", "100", "0")
    assert (row["status"], a["status"], a["total"], a["student"]) == ("late; odd", "ok", "100", "nul\\x00")


# -- writing ------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_previous_file_and_no_other(tmp_path, monkeypatch):
    write_atomically(tmp_path / "grades.csv", b"before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GradingError, match=r"cannot write .*grades\.csv: No space left on device: free some space"):
        write_atomically(tmp_path / "grades.csv", b"after")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"grades.csv": b"before"}


def test_reports_have_the_mode_of_other_files(tmp_path):
    write_atomically(tmp_path / "deep" / "report", b"")
    (tmp_path / "other").touch()
    assert (tmp_path / "deep" / "report").stat().st_mode == (tmp_path / "other").stat().st_mode


# -- the rubric's settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "percent"),
    [
        *((0, 0), (-5, 0), (0.25, 0), (0.26, 10), (1, 10), (24.25, 10), (24.26, 20), (48.25, 20), (48.5, 30)),
        *((96.25, 40), (96.5, 50), (1000, 50), (float("inf"), 50), (float("nan"), 0), ((24 * 3600 + 900) / 3600, 10)),
    ],
)
def test_lateness(hours, percent):
    assert LatePolicy(15, 10, 50).penalty(80, hours) == 80 * percent / 100
    assert RUBRIC.late.penalty(80, hours) == 80 * percent / 100
    assert RUBRIC.late.penalty(0, hours) == 0
    assert LatePolicy().penalty(80, hours) == 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("percent_per_day = 10", "percent_per_day = -1", "percent_per_day"),
        ("percent_per_day = 10", "percent_per_day = 101", "from 0 to 100"),
        ("percent_per_day = 10", "percent_per_day = nan", "percent_per_day"),
        ("percent_per_day = 10", "percent_per_day = true", "percent_per_day"),
        ("max_percent = 50", "max_percent = inf", "max_percent"),
        ("max_percent = 50", 'max_percent = "50"', "max_percent"),
        ("grace_minutes = 15", "grace_minutes = -0.5", "grace_minutes"),
        ("grace_minutes = 15", "grace_hours = 1", "no setting `grace_hours`"),
        ('\nvisibility = "visible"', '\nvisibility = "secret"', "secret"),
        ('\nvisibility = "visible"', "\nvisibility = 3", "visibility"),
        ('stdout_visibility = "hidden"', 'stdout_visibility = "Visible"', "stdout_visibility"),
        ('id = "kl"', 'id = "kl"\nvisibility = "never"', "kl"),
        ('id = "kl"', 'id = "kl"\nvisibility = ["visible"]', "kl"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, old, new, says):
    text = (ROOT / "grading" / "rubric.toml").read_text()
    assert old in text
    (tmp_path / "rubric.toml").write_text(text.replace(old, new))
    with pytest.raises(GradingError, match=says):
        load_rubric(tmp_path / "rubric.toml")


def test_a_rubric_without_the_settings(tmp_path):
    text = (ROOT / "grading" / "rubric.toml").read_text()
    text = re.sub(r"\nvisibility = .*|\nstdout_visibility = .*|\[late\]\n(\w+ = \d+\n)*", "\n", text)
    assert "\n[late]" not in text
    (tmp_path / "rubric.toml").write_text(text)
    rubric = load_rubric(tmp_path / "rubric.toml")
    assert (rubric.visibility, rubric.stdout_visibility, rubric.late) == ("visible", "hidden", LatePolicy())


# -- the instructor's page ------------------------------------------------------------------------------------


def small_class() -> list[Result]:
    """Totals 100, 90, 85 and 40."""

    def kl(points, hint):
        return FunctionResult("kl", points, 10, {}, "is off", "name" if hint else "", hint)

    return [
        make("a", seconds=2),
        make("b", lost={"kl": kl(0, "sign")}, seconds=9, statuses=["late"]),
        make("c", lost={"kl": kl(5, "sign"), "q-sample": 0}, seconds=1, events=["tried to open a socket"]),
        make("d", lost={"kl": kl(0, ""), "posterior": 0, "ddim-step": 10}, penalty=20, statuses=["late", "odd"]),
    ]


def test_what_was_measured_is_counted_among_the_mistakes(tmp_path):
    found = FunctionResult("kl", 0, 10, {}, "is off", finding="the constant term is wrong")
    write_summary(tmp_path, [*small_class(), make("e", lost={"kl": found}), make("f", lost={"kl": found})], RUBRIC)
    text = harmless((tmp_path / "summary.html").read_text(encoding="utf-8")).text
    assert "2 × sign b c 2 × the constant term is wrong e f 1 ×" in text
    assert "1 × no known mistake recognised d" in text


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("not written yet", "not written"),
        (f"not written yet (the other checks of this function count once {'`toy`'} is passed)", "not written"),
        ("HW3/vae.py is missing", "its file is missing"),
        ("HW3/vae.py cannot be imported", "gives no answer"),
        ("raises ValueError in line 3 of HW3/vae.py", "gives no answer"),
        *((lost, "gives no answer") for lost in LOST.values()),
        (SPENT, "gives no answer"),
        (WRONG_KIND, "answers with something of another kind"),
        ("`kl` has the wrong shape", "answers with something of another kind"),
        ("`kl` has another dtype than the input; keep the dtype", "answers with something of another kind"),
        ("`kl` has wrong values in every row", "no known mistake recognised"),
        ("values of `kl` are NaN or infinite", "no known mistake recognised"),
    ],
)
def test_who_gave_no_answer_is_counted_apart(tmp_path, problem, said):
    write_summary(tmp_path, [make("e", lost={"kl": FunctionResult("kl", 0, 10, {}, problem)})], RUBRIC)
    text = harmless((tmp_path / "summary.html").read_text(encoding="utf-8")).text
    assert re.search(rf"1 × {said}.* e\b", text), text


def test_summary_numbers(tmp_path):
    write_summary(tmp_path, small_class(), RUBRIC)
    html = (tmp_path / "summary.html").read_text(encoding="utf-8")
    text = harmless(html).text
    # Totals 40, 85, 90, 100; quartiles interpolate: 40 + 0.75 * 45 and 90 + 0.25 * 10.
    for part in ("4 submissions", "78.8 mean", "87.5 median", "73.8 lower quartile", "92.5 upper quartile"):
        assert part in text
    for id, numbers in {
        **{"kl": "1 of 4 25 % 38 %", "q-sample": "3 of 4 75 % 75 %", "posterior": "3 of 4 75 % 75 %"},
        **{"ddim-step": "3 of 4 75 % 88 %", "reparameterize": "4 of 4 100 % 100 %"},
    }.items():
        assert " ".join(text.partition(RUBRIC.functions[id].title)[2].split()[:6]) + " %" == numbers
    assert "2 × sign b c" in text
    assert "1 × no known mistake recognised d" in text
    assert "c tried to open a socket" in text
    assert re.search(r"Slowest Submission Seconds b 9.0 a 2.0 c 1.0 d 0.0", text)
    assert "ok 2" in text
    assert "late 2" in text
    assert "odd 1" in text
    assert "0 to 10: 0" in html
    assert "40 to 50: 1" in html
    assert "80 to 90: 1" in html
    assert "90 to 100: 2" in html
    assert "kl: 25 % with all points, mean share 38 %" in html
    assert "Nothing was compared" in text


def test_summary_is_the_same_every_time(tmp_path):
    write_summary(tmp_path, small_class(), RUBRIC)
    first = (tmp_path / "summary.html").read_bytes()
    write_summary(tmp_path, small_class()[::-1], RUBRIC)
    assert (tmp_path / "summary.html").read_bytes() == first
    assert b"<?xml" not in first
    assert b"currentColor" in first
    assert b"#0102" not in first


def test_summary_of_nobody(tmp_path):
    write_summary(tmp_path, [], RUBRIC)
    assert "0 submissions" in harmless((tmp_path / "summary.html").read_text(encoding="utf-8")).text


def test_summary_links_lead_to_the_pages(tmp_path):
    names = ["plain", "a b#c?d%20", "quote\"'<b>&", "new\nline", "javascript:alert(1)", "ü", os.fsdecode(b"\xff")]
    for name in names:
        write_result(tmp_path, make(name), RUBRIC)
    write_summary(tmp_path, [make(name) for name in names], RUBRIC)
    page = harmless((tmp_path / "summary.html").read_text(encoding="utf-8"))
    links = {attrs["href"] for attrs in page.all("a")}
    found = {Path(tmp_path, unquote(link, errors="surrogateescape")).resolve() for link in links}
    assert found == {(tmp_path / name / "feedback.html").resolve() for name in names}
    assert all(path.is_file() for path in found)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_in_the_summary(tmp_path, text):
    name = re.sub(r"[/\0\ud800]", "_", text)
    write_summary(tmp_path, [hostile(text, name)], RUBRIC)
    harmless((tmp_path / "summary.html").read_text(encoding="utf-8"))


# -- nearly the same code -------------------------------------------------------------------------------------


@cache
def handout() -> dict[str, bytes]:
    files, _ = build(ROOT)
    return {file: files[file] for file in RUBRIC.submit}


def solution(rng: random.Random, ids=tuple(RUBRIC.functions)) -> dict[str, bytes]:
    """A right submission: for each id one of the bank's implementations."""
    found = {}
    for file, content in handout().items():
        lines = []
        for line in content.decode().splitlines():
            id = re.match(r'\s*raise NotImplementedError\("TODO\(([\w-]+)', line)
            if id and id[1] in ids:
                entry = rng.choice([entry for entry in BANK if entry.is_wheat and entry.id == id[1]])
                lines.append(textwrap.indent(body(entry.function), line[: len(line) - len(line.lstrip())]))
            else:
                lines.append(line)
        found[file] = ("\n".join(lines) + "\n").encode()
    return found


def body(function) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    return textwrap.dedent("\n".join(source.splitlines()[node.body[0].lineno - 1 : node.end_lineno]))


class Renamed(ast.NodeTransformer):
    """What somebody does who does not want to be found: other names, other layout, no comments."""

    def visit_Name(self, node):
        return ast.Name(node.id if node.id in {"self", "torch", *dir(builtins)} else f"q_{node.id}", node.ctx)

    def visit_arg(self, node):
        return ast.arg("q_" + node.arg if node.arg != "self" else "self", node.annotation)


def index(**submissions) -> CodeIndex:
    found = CodeIndex(handout())
    for name, files in submissions.items():
        found.add(name, files)
    return found


def test_copies_are_found_and_independent_solutions_are_not(tmp_path):
    rng = random.Random(0)
    everybody = {f"student{i:02}": solution(rng) for i in range(30)}
    assert len({files["HW3/diffusion.py"] for files in everybody.values()}) == 30
    found = index(**everybody)
    assert found.lookalikes() == []
    assert found.not_compared == []

    copied = everybody["student07"]["HW3/diffusion.py"].decode()
    renamed = ast.unparse(Renamed().visit(ast.parse(copied)))
    found.add("copy", {"HW3/diffusion.py": renamed.encode()})
    edited = copied.replace("\n", "\r\n") + "\n# mine\n\ndef helper(x):\n    return [y * 2 for y in x]\n"
    found.add("same", {"HW3/diffusion.py": edited.encode()})
    (alike,) = found.lookalikes()
    assert (alike.file, alike.submissions) == ("HW3/diffusion.py", ["copy", "same", "student07"])
    assert alike.overlap[0] > 0.9
    assert alike.overlap[1] == 1

    write_summary(tmp_path, [make("copy"), make("same"), make("student07")], RUBRIC, found)
    page = harmless((tmp_path / "summary.html").read_text(encoding="utf-8"))
    assert re.search(r"HW3/diffusion.py (\d+–)?100 % copy, same, student07", page.text)


def test_what_everybody_has_is_no_copy():
    rng = random.Random(1)
    short = solution(rng, ids=("reparameterize", "kl", "predict-x0", "conditioning", "guidance"))
    reformatted = {file: ast.unparse(ast.parse(text)).encode() for file, text in handout().items()}
    renamed = {file: ast.unparse(Renamed().visit(ast.parse(text))).encode() for file, text in handout().items()}
    found = index(a=handout(), b=handout(), c=reformatted, d=reformatted, e=short, f=short, g=renamed, h=renamed)
    assert found.lookalikes() == []
    assert found.not_compared == []


def test_lookalikes_do_not_chain():
    """b shares with a and with c, which have little in common."""
    rng = random.Random(2)
    first, second = solution(rng), solution(rng)
    file = "HW3/diffusion.py"
    methods = ["q_sample", "predict_x0", "q_posterior", "ddpm_step", "ddim_step"]
    parts = [
        [
            ast.get_source_segment(s[file].decode(), node)
            for node in ast.walk(ast.parse(s[file]))
            if named(node, methods)
        ]
        for s in (first, second)
    ]
    both = "\n".join(["class A:", *(textwrap.indent(part, "    ") for part in parts[0]), ""])
    both += "\n".join(["class B:", *(textwrap.indent(part, "    ") for part in parts[1]), ""])
    found = index(a=first, b={file: both.encode()}, c=second).lookalikes()
    assert [alike.submissions for alike in found] in ([["a", "b", "c"]], [["a", "b"], ["b", "c"]])
    assert "a" not in {name for alike in index(a=first, c=second).lookalikes() for name in alike.submissions}


def named(node, names):
    return isinstance(node, ast.FunctionDef) and node.name in names


HOSTILE_CODE = {
    "not Python": (b"def f(:" * 100, "not valid Python"),
    "not Python, but short": (b"def f(:", None),  # no copy of anything
    "nul": (b"x = 1\0\n" * 100, "not valid Python"),
    "nested": (b"(" * 90_000, "not valid Python"),
    "signs": (b"-" * 90_000 + b"1", "too deeply nested"),
    "dots": (b"a" + b".a" * 45_000, "too deeply nested"),
    "long": (b"#" * (MAX_BYTES + 1), "longer than"),
    "own": (b"x = y + z\n" * (MAX_OWN // 8), "own code"),
    "binary": (bytes(range(256)) * 300, "not valid Python"),
    "spaces": (b" \n" * 45_000, None),  # a minute in copydetect's tokenizer
    "strings": (b'x = "' + b"\\\\N{" * 20_000 + b'"', None),
    "list": (b"x = [" + b"1," * 9_000 + b"]", None),
    "compare": (b"x = " + b"1<" * 7_000 + b"1", None),
    "encoding": ("# coding: latin-1\nx = 'é'\n".encode("latin-1"), None),
    "empty": (b"", None),
}


@pytest.mark.parametrize(("content", "says"), HOSTILE_CODE.values(), ids=HOSTILE_CODE)
def test_hostile_code_costs_little_and_is_told(tmp_path, content, says):
    found = CodeIndex(handout())
    began = time.perf_counter()
    found.add("<mallory>", {"HW3/vae.py": content, "somewhere/else.py": b"x"})
    assert time.perf_counter() - began < 3
    told = [(name, file) for name, file, why in found.not_compared if says and says in why]
    assert told == ([("<mallory>", "HW3/vae.py")] if says else [])
    assert len(found.not_compared) == len(told)
    write_summary(tmp_path, [make("<mallory>")], RUBRIC, found)
    text = harmless((tmp_path / "summary.html").read_text(encoding="utf-8")).text
    assert ("Not compared: 1 file" in text) == bool(says)


STRANGE_CODE = {
    "exec(b85decode('abc'))": ["exec"],
    "run = eval": ["eval"],
    "\uff45\uff58\uff45\uff43('1')": ["exec"],  # Python reads it as exec
    "compile('1', '', 'eval')": ["compile"],
    "import marshal, os": ["marshal"],
    "from base64 import b85decode as d": ["b85decode", "base64"],
    "from builtins import exec as e": ["builtins", "exec"],
    "import torch.nn, importlib.util as u": ["importlib"],
    "bytes.fromhex('00')": ["fromhex"],
    "().__class__.__base__.__subclasses__()": ["__subclasses__"],
    "f.__globals__['x']": ["__globals__"],
    "__builtins__['exec']": ["__builtins__"],
    "getattr(torch, 'ex' + 'ec')": ["getattr of such a name, or of a computed one"],
    "getattr(torch, 'exec')": ["getattr of such a name, or of a computed one"],
    "get = getattr": ["getattr"],
    "vars(torch)['x']": ["a name looked up in a dictionary"],
    "sys.modules['x']": ["a name looked up in a dictionary"],
    "frame.eval('1')": ["eval"],
    "torch.serialization.pickle": ["pickle"],
    "class A(exec('1')): pass": ["exec"],
    "x = f'{exec(1)}'": ["exec"],
    # Honest code.
    "model.eval()": [],
    "model = torch.compile(model)": [],
    "# in eval mode, nothing to exec": [],
    '"""exec, eval and compile"""': [],
    "getattr(torch, 'sqrt')(x)": [],
    "args = vars(namespace)": [],
    "for name, module in model.modules(): pass": [],
    "state = torch.load(path); import torch.nn as nn": [],
    "evaluate(x); executor = 1; self.compiled = eval_mode": [],
    # What cannot be parsed is searched as text.
    "exec(x) and then (": ["exec"],
    "model.eval() and then (": [],
    "x = exec" + ".a" * 45_000: ["exec"],
    "x = exec" + ".a" * 900 + ".modules[1]": ["exec"],  # parsed, but too deep to be walked by recursion
}


@pytest.mark.parametrize(("source", "expected"), STRANGE_CODE.items(), ids=[source[:40] for source in STRANGE_CODE])
def test_code_that_hides_other_code_is_listed(source, expected):
    given = handout()["HW3/vae.py"]
    found = index(ada={"HW3/vae.py": given + b"\n" + source.encode() + b"\n"}).concealing
    assert [word for file in found for _, word in file.words] == expected
    line = given.count(b"\n") + 2
    assert all(file.submission == "ada" and number == line for file in found for number, _ in file.words)


def test_a_coding_of_its_own_is_listed():
    """Python runs another text than the one that is compared."""
    utf7 = b"# coding: utf-7\n+AGUAeABlAGM-('1')\n"
    for first, expected in ((utf7, 1), (b"#!x\n# -*- coding: unicode_escape -*-", 1), (b"# coding: latin-1", 0)):
        found = index(ada={"HW3/vae.py": first + handout()["HW3/vae.py"]}).concealing
        assert ["a coding of its own" in dict(map(reversed, file.words)) for file in found] == [True] * expected


def test_the_banks_code_in_a_string_is_listed():
    [exploit] = (exploit for exploit in exploits() if exploit.name == "code_in_a_string")
    [file] = index(mallory=exploit.files).concealing
    assert {"exec", "b85decode", "zlib"} <= {word for _, word in file.words}


def test_what_the_handout_says_itself_is_not_listed():
    found = CodeIndex({"HW3/vae.py": b"import zlib\nx = eval\n"})
    found.add("ada", {"HW3/vae.py": b"import zlib\nimport lzma\nx = eval\n"})
    assert [file.words for file in found.concealing] == [[(2, "lzma")]]


def test_right_solutions_and_the_handout_hide_nothing():
    rng = random.Random(3)
    assert index(handout=handout(), **{f"s{i}": solution(rng) for i in range(20)}).concealing == []


def test_the_list_of_what_hides_code_is_bounded_and_does_not_need_copydetect(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "copydetect", None)
    every = "\n".join(f"import {name}" for name in sorted(MODULES)) + "\nexec(1)" * 10_000
    began = time.perf_counter()
    found = index(**{"<mallory>": {"HW3/vae.py": every.encode(), "HW3/diffusion.py": b"x = exec\n"}})
    assert time.perf_counter() - began < 5
    write_summary(tmp_path, [make("<mallory>")], RUBRIC, found)
    text = harmless((tmp_path / "summary.html").read_text(encoding="utf-8")).text
    text = re.sub(r"\s+,", ",", text)
    assert "HW3/vae.py, line 1: _pickle, line 2: base64" in text
    assert f"and {len(MODULES) + 1 - MAX_SHOWN} more" in text
    assert "HW3/diffusion.py, line 1: exec" in text
    assert len(text) < 10_000


def test_a_class_of_a_thousand_stays_small():
    rng = np.random.default_rng(0)
    found = index()
    table = found._found["HW3/diffusion.py"]
    for i in range(1000):
        table[f"s{i}"] = np.sort(rng.choice(20_000, 500, replace=False))
    table["s999"] = table["s5"].copy()
    began = time.perf_counter()
    assert [alike.submissions for alike in found.lookalikes()] == [["s5", "s999"]]
    assert time.perf_counter() - began < 10  # one second, were it alone on the machine
    assert sum(hashes.nbytes for hashes in table.values()) < 5_000_000


def test_without_copydetect(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "copydetect", None)
    found = index(a=handout())
    write_summary(tmp_path, [make("a")], RUBRIC, found)
    assert "Nothing was compared: copydetect is not installed" in (tmp_path / "summary.html").read_text()


# -- in a browser ---------------------------------------------------------------------------------------------


def dom(path: Path, profile: Path) -> str:
    """The page after the browser has read it and run what it lets run."""
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"),
            path.resolve().as_uri(),
        ],
        capture_output=True,
        timeout=60,
    )
    assert b"</html>" in done.stdout, done.stderr[-500:]
    return done.stdout.decode("utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_nothing_runs_in_a_browser(tmp_path):
    result = hostile(submission=re.sub(r"[/\0\ud800]", "_", ALL)[:80])
    write_result(tmp_path, result, RUBRIC)
    write_summary(tmp_path, [result, hostile(submission="javascript:document.title='HACKED'")], RUBRIC)
    html = (tmp_path / result.submission / "feedback.html").read_text(encoding="utf-8")
    # The test must be able to fail: a planted script runs without the policy. With it, it does not; and what was
    # escaped does not run without it.
    summary = (tmp_path / "summary.html").read_text(encoding="utf-8")
    planted = html.replace("</main>", f"{HOSTILE['script']}{HOSTILE['image']}</main>")
    pages = {
        **{"feedback": html, "feedback-escaped": lax(html), "feedback-policy": planted, "control": lax(planted)},
        **{"summary": summary, "summary-escaped": lax(summary)},
    }
    titles = {}
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
        seen = dom(tmp_path / f"{name}.html", tmp_path / "profile")
        titles[name] = re.search(r"<title>(.*?)</title>", seen, re.DOTALL)[1]
    assert titles.pop("control") == "HACKED"
    for name, title in titles.items():
        assert title.startswith("HW3: generative models: "), name


def lax(html: str) -> str:
    """The page without its policy."""
    return html.replace('http-equiv="Content-Security-Policy"', 'name="x"')
