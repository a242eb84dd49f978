"""A rubric with a mistake: one line with the place and what to do, in whatever reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from grading.cases import all_cases
from grading.errors import GradingError
from grading.rubric import RUBRIC, check_cases, load_rubric, note_total
from harness import ROOT, child_env

TEXT = RUBRIC.read_text(encoding="utf-8")
KL_WEIGHTS = "weights = { moderate = 6, extreme = 4 }"


def line_of(text: str, part: str, nth: int = 0) -> int:
    """The line in which the nth occurrence of `part` begins."""
    return text[: list(re.finditer(re.escape(part), text))[nth].start()].count("\n") + 1


def error_of(path) -> str:
    with pytest.raises(GradingError) as caught:
        load_rubric(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        # misspelt: the line of the word that is wrong
        (
            KL_WEIGHTS,
            "weigths = { moderate = 6, extreme = 4 }",
            "kl: there is no setting `weigths`; is `weights` meant?",
        ),
        ("max_file_bytes =", "max_file_byte =", "there is no setting `max_file_byte`; is `max_file_bytes` meant?"),
        ("percent_per_day =", "percentperday =", "there is no setting `percentperday`; is `percent_per_day` meant?"),
        ("\n[late]", "\n[lates]", "there is no setting `lates`; is `late` meant?"),
        ('title = "HW3', 'xyzzy = "HW3', "there is no setting `xyzzy`; there are title, submit,"),
        # of the wrong kind, or impossible
        (
            "max_file_bytes = 200_000",
            "max_file_bytes = '200 kB'",
            "'200 kB', where a whole number above 0 is asked for",
        ),
        ("max_file_bytes = 200_000", "max_file_bytes = true", "`max_file_bytes` is True"),
        ("max_file_bytes = 200_000", "max_file_bytes = 0", "`max_file_bytes` is 0"),
        ('feedback = "term"', 'feedback = "all"', "`feedback` is 'all', where one of idea, term, factor is asked for"),
        ("self_check =", "selfcheck =", "there is no setting `selfcheck`; is `self_check` meant?"),
        (KL_WEIGHTS, "weights = 10", "kl: `weights` is 10, where a positive weight for every group"),
        (KL_WEIGHTS, "weights = {}", "a positive weight for every group"),
        (KL_WEIGHTS, "weights = { moderate = 6, extreme = -4 }", "a positive weight for every group"),
        (KL_WEIGHTS, "weights = { moderate = 6, extreme = nan }", "a positive weight for every group"),
        (KL_WEIGHTS, f"weights = {{ moderate = 6, extreme = 1{400 * '0'} }}", "a positive weight for every group"),
        (KL_WEIGHTS, 'weights = { moderate = 6, extreme = "4" }', "a positive weight for every group"),
        ('id = "kl"', "id = 4", "`id` is 4, where a name of letters"),
        ('id = "kl"', 'id = "../kl"', "where a name of letters, digits, _ and - is asked for"),
        ('public = ["moderate", "extreme"]', 'public = "moderate"', "where a list of texts in quotes is asked for"),
        ('public = ["moderate", "extreme"]', 'public = ["easy"]', "`public` has the group easy"),
        ('gate = "toy"', 'gate = "toys"', "`gate` has the group toys"),
        ('"HW3/vae.py", ', '"HW3/vae.py", "HW3/data.py", ', "no function is in HW3/data.py: take it out of `submit`"),
        # not TOML
        ("max_file_bytes = 200_000", "max_file_bytes: 200_000", "this is not TOML: "),
    ],
)
def test_the_line_is_named(tmp_path, old, new, says):
    text = TEXT.replace(old, new, 1)
    assert text != TEXT
    (tmp_path / "rubric.toml").write_text(text, encoding="utf-8")
    line = line_of(text, new.strip())
    message = error_of(tmp_path / "rubric.toml")
    assert message.startswith(f"{tmp_path / 'rubric.toml'}, line {line}: "), message
    assert says in message
    assert "\n" not in message


def test_what_is_missing_is_named_where_it_belongs(tmp_path):
    text = TEXT.replace(KL_WEIGHTS + "\n", "")
    (tmp_path / "rubric.toml").write_text(text, encoding="utf-8")
    line = line_of(text, "\n[[function]]", 1) + 1
    assert error_of(tmp_path / "rubric.toml").endswith(f", line {line}: kl: the setting `weights` is missing: add it")
    (tmp_path / "rubric.toml").write_text(re.sub("title = .*", "", TEXT, count=1), encoding="utf-8")
    assert "line 1: the setting `title` is missing" in error_of(tmp_path / "rubric.toml")


def test_the_second_of_two_ids_is_named(tmp_path):
    text = TEXT.replace('id = "guidance"', 'id = "kl"')
    (tmp_path / "rubric.toml").write_text(text, encoding="utf-8")
    line = line_of(text, 'id = "kl"', 1)
    assert f"line {line}: the id kl appears twice" in error_of(tmp_path / "rubric.toml")


def test_a_file_that_is_not_handed_in(tmp_path):
    text = TEXT.replace('submit = ["HW3/vae.py"', 'submit = ["HW3/vea.py"')
    (tmp_path / "rubric.toml").write_text(text, encoding="utf-8")
    message = error_of(tmp_path / "rubric.toml")
    where = line_of(text, 'file = "HW3/vae.py"')
    assert f"line {where}: reparameterize is in HW3/vae.py, which is not in `submit`" in message


def test_a_file_that_cannot_be_read(tmp_path):
    assert "rubric.toml cannot be read: " in error_of(tmp_path / "rubric.toml")
    lines = TEXT.encode().split(b"\n")
    lines[40] += b" # \xe9"
    (tmp_path / "rubric.toml").write_bytes(b"\n".join(lines))
    assert "line 41: there is a character that is not UTF-8" in error_of(tmp_path / "rubric.toml")
    (tmp_path / "rubric.toml").write_text(TEXT + "x = [1,\n", encoding="utf-8")
    assert f"line {TEXT.count(chr(10)) + 2}: this is not TOML: " in error_of(tmp_path / "rubric.toml")


def test_windows_saves_it_with_a_mark_and_other_line_ends(tmp_path):
    (tmp_path / "rubric.toml").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_rubric(tmp_path / "rubric.toml").functions == load_rubric().functions


# -- the rubric beside the cases -------------------------------------------------------------------------


def test_the_cases_are_those_of_the_rubric():
    rubric, cases = load_rubric(), all_cases()
    check_cases(rubric, cases)
    check_cases(rubric, [case for case in cases if not case.hidden])  # as students have it

    def error(cases) -> str:
        with pytest.raises(GradingError) as caught:
            check_cases(rubric, cases)
        return str(caught.value)

    def at(key: str, id: str) -> str:
        start = TEXT.index(f'id = "{id}"')
        return f"grading/rubric.toml, line {TEXT[: TEXT.index(f'{key} =', start)].count(chr(10)) + 1}: "

    hidden = next(case for case in cases if case.hidden and case.id == "posterior")
    added = [*cases, replace(hidden, name="new/one")]
    assert error(added) == at("weights", "posterior") + "posterior: the group new has hidden cases: add it to `weights`"
    added = [*cases, replace(hidden, name="new/one", hidden=False)]
    assert error(added) == at("public", "posterior") + "posterior: the group new has public cases: add it to `public`"
    without = [case for case in cases if (case.id, case.group, case.hidden) != ("posterior", "single", True)]
    assert error(without).startswith(at("weights", "posterior") + "posterior: the group single has no hidden case: ")
    assert "there are hidden cases of unheard-of" in error([*cases, replace(hidden, id="unheard-of")])


def test_another_total_is_allowed_and_said(tmp_path, capsys):
    (tmp_path / "rubric.toml").write_text(TEXT.replace("points = 20", "points = 22.5", 1), encoding="utf-8")
    note_total(load_rubric())
    assert capsys.readouterr().err == ""
    note_total(load_rubric(tmp_path / "rubric.toml"))
    assert capsys.readouterr().err == "grading: note: the points of the rubric add up to 102.5, not to 100\n"


# -- every command that reads it -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the instructor's tree, to spoil."""
    root = tmp_path_factory.mktemp("tree") / "tree"
    for folder in ("HW3", "grading", "docs", "imgs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, root)
    return root


def run(tree, *args) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, args)]
    return subprocess.run(command, cwd=tree, env=child_env(), capture_output=True, text=True, check=False, timeout=300)


COMMANDS = {
    "todo": ("todo",),
    "pack": ("pack", "--name", "ada"),
    "release": ("release", "--out", "handout"),
    "grade": ("grade", "HW3", "--out", "graded"),
}


@pytest.mark.parametrize("command", [*COMMANDS, "pytest"])
def test_a_broken_rubric_is_one_line_everywhere(tree, command):
    text = TEXT.replace(KL_WEIGHTS, "weigths = { moderate = 6, extreme = 4 }")
    (tree / "grading" / "rubric.toml").write_text(text, encoding="utf-8")
    expected = (
        f"grading: error: grading/rubric.toml, line {line_of(text, 'weigths')}: kl: there is no setting `weigths`"
    )
    if command == "pytest":
        done = run(tree, "pytest", "grading/", "-p", "no:cacheprovider")
        shown = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        assert expected in shown[-1]
        assert "Traceback" not in done.stdout + done.stderr
    else:
        done = run(tree, "grading", *COMMANDS[command])
        assert done.stderr == f"{expected}; is `weights` meant?\n"
    assert done.returncode == 2


@pytest.mark.parametrize("command", ["release", "grade", "pytest"])
def test_a_group_without_a_weight_is_one_line(tree, command):
    text = TEXT.replace(KL_WEIGHTS, "weights = { moderate = 6 }").replace(
        'public = ["moderate", "extreme"]', 'public = ["moderate"]'
    )
    (tree / "grading" / "rubric.toml").write_text(text, encoding="utf-8")
    expected = "kl: the group extreme has public cases: add it to `public`"
    if command == "pytest":
        done = run(tree, "pytest", "grading/", "-p", "no:cacheprovider")
        assert expected in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    else:
        done = run(tree, "grading", *COMMANDS[command])
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
    assert done.returncode == 2


def test_release_says_another_total(tree):
    (tree / "grading" / "rubric.toml").write_text(TEXT.replace("points = 20", "points = 10", 1), encoding="utf-8")
    done = run(tree, "grading", "release", "--out", "handout")
    assert (done.returncode, done.stderr) == (0, "grading: note: the points of the rubric add up to 90, not to 100\n")
    readme = (tree / "handout" / "README.md").read_text(encoding="utf-8")
    assert "90 points" in readme
