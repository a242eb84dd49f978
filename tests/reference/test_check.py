"""`python -m grading check`: what does not agree is named, with what to do, before anything is made of it."""

from __future__ import annotations

import shutil

import pytest

from classroom import copy_tree, grading
from grading import driver
from grading.hidden.reference import check, expectations, make_cases
from grading.hidden.reference.bank import BANK
from grading.rubric import load_rubric

RUBRIC, DRIVER, JUDGE = "grading/rubric.toml", "grading/driver.py", "grading/judge.py"
MAKE_CASES, BANK_VAE = "grading/hidden/reference/make_cases.py", "grading/hidden/reference/bank/vae.py"
EXPECTATIONS = "grading/hidden/reference/expectations.py"
PUBLIC, HIDDEN = "grading/cases", "grading/hidden/reference/cases"


def test_this_tree_agrees():
    assert check.findings() == []


def test_what_is_read_as_text_is_what_is_imported():
    assert check._calls() == driver.CALLS.keys()
    assert check._makers() == make_cases.MAKERS.keys()
    assert check._named_in("ANSWERS", check.EXPECTATIONS) == expectations.ANSWERS.keys()
    chaffs, wheats = check._bank()
    assert chaffs == {
        id: {entry.name: entry.text for entry in BANK if entry.id == id and not entry.is_wheat}
        for id in load_rubric().functions
    }
    assert wheats == {id: sum(entry.id == id and entry.is_wheat for entry in BANK) for id in load_rubric().functions}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copy_tree(tmp_path_factory.mktemp("check") / "tree")


@pytest.fixture
def change(tree):
    """Change files of the tree for one test."""
    before = {}

    def change(file, old, new):
        path = tree / file
        before.setdefault(path, path.read_bytes() if path.is_file() else None)
        if old is None:
            shutil.copy(tree / new, path) if new else path.unlink()
            return
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    yield change
    for path, content in before.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)


KL = "# TODO(kl): "


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (RUBRIC, 'id = "kl"', 'id = "divergence"', ["HW3/vae.py: no solution region has the id divergence"]),
        ("HW3/vae.py", KL, "# TODO(kullback): ", ["no solution region has the id kl:", "there is no kullback"]),
        (RUBRIC, 'name = "kl_divergence"', 'name = "kl"', ["TODO(kl) stands in kl_divergence in HW3/vae.py, and the"]),
        ("HW3/vae.py", KL, "# WRITE(kl): ", ["HW3/vae.py, line ", "no `# TODO(<id>): ...` comment above"]),
        ("HW3/vae.py", "def kl_divergence(", "def (", ["HW3/vae.py, line ", "invalid syntax"]),
        (f"{PUBLIC}/samplers.npz", None, "", ["samplers.npz is on the release list and is not there"]),
        ("HW3/viz.py", None, "", ["HW3/viz.py is on the release list and is not there"]),
        (RUBRIC, 'before = "train_vae.py"', 'before = "train.py"', ["kl is needed before train.py, which is"]),
        ("grading/submission.py", '"HW3/vae.py": "HW3.vae", ', "", ["grading/submission.py: FILES has HW3/d"]),
        (DRIVER, "(kl_divergence, ", "(", ["grading/driver.py has no call for kl: write `kl`", "has no call `kl_div"]),
        (MAKE_CASES, '    "kl": kl_cases,\n', "", [f"{MAKE_CASES} makes no cases of kl: write `kl_cases`"]),
        (EXPECTATIONS, "(kl_divergence, ", "(", [f"{EXPECTATIONS} does not say what must come out of kl: write `kl`"]),
        (BANK_VAE, '@wheat("kl"', '@wheat("reparameterize"', ["has 0 right (@wheat) answers to kl, and 1 are needed"]),
        (BANK_VAE, '"kl"', '"lk"', ["0 wrong (@chaff) answers to kl, and 3", "answers to lk, which is not in"]),
        (BANK_VAE, '@chaff("kl", "this is', '@chaff("kl", f"this is', ["vae.py, line ", "of in_bits as two"]),
        (BANK_VAE, "def in_bits", "def in_shannons", [f"{PUBLIC}/kl.npz: the bank has no chaff in_bits any more"]),
        (BANK_VAE, "asks for nats", "wants nats", [f"{PUBLIC}/mistakes.json does not have the hints", "of kl: "]),
        (f"{PUBLIC}/kl.npz", None, "", [f"{PUBLIC}/kl.npz is missing: make the cases again: python -m grading.hidden"]),
        (f"{HIDDEN}/kl.npz", None, "", [f"{HIDDEN}/kl.npz is missing: make"]),
        (f"{HIDDEN}/kl.npz", None, "LICENSE", [f"{HIDDEN}/kl.npz cannot be read"]),
        (f"{HIDDEN}/kl.npz", None, f"{HIDDEN}/guidance.npz", ["kl.npz: there are cases of guidance in it"]),
        (f"{HIDDEN}/lk.npz", None, f"{HIDDEN}/kl.npz", ["lk.npz has the cases of lk, which is not in the rubric"]),
        (JUDGE, '"toy": check_toy', '"game": check_toy', ["grading/judge.py has no check `toy`"]),
        (JUDGE, '"kl", ', "", ["grading/judge.py knows no output `kl`, and refuses it: add it to GRADED_OUTPUTS"]),
        (RUBRIC, "extreme = 4 }", "extreme = 4, odd = 1 }", ["kl: the group odd has no hidden case: make one"]),
        (
            RUBRIC,
            "single = 0.5, default = 1, c",
            "default = 1, c",
            ["q-sample: the group single has hidden cases: add it"],
        ),
        (RUBRIC, '["moderate", "extreme"]', '["moderate"]', ["kl: the group extreme has public cases: add it"]),
        (f"{PUBLIC}/mistakes.json", None, "LICENSE", [f"{PUBLIC}/mistakes.json cannot be read"]),
        (RUBRIC, 'before = "train_tiny_sd.py"', 'before = "sample.py"', ["there is no {before sample.py} in it"]),
        ("README.md", "`train_tiny_sd.py`", "the last", ["README.md does not say that students"]),
    ],
)
def test_each_place_that_does_not_agree_is_named(tree, change, file, old, new, says):
    change(file, old, new)
    result = grading("check", tree=tree)
    assert (result.returncode, result.stderr) == (1, ""), result.stderr
    assert [part for part in says if not any(part in line for line in result.stdout.splitlines())] == [], result.stdout


@pytest.mark.parametrize("command", [("release", "--out"), ("grade", "submission.zip", "--out")])
def test_release_and_grade_ask_first(tree, change, tmp_path, command):
    change(f"{PUBLIC}/kl.npz", None, "")
    change("HW3/vae.py", KL, "# TODO(kullback): ")
    result = grading(*command, tmp_path / "out", tree=tree)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("grading: error: HW3/vae.py: no solution region has the id kl: ")
    assert "(and 2 more: python -m grading check)" in result.stderr
    assert not (tmp_path / "out").exists()


def test_docs_are_no_reason_not_to_grade(tree, change):
    change("README.md", "`train_tiny_sd.py`", "the last")
    result = grading("grade", "nowhere.zip", "--out", "nowhere", tree=tree)
    assert "nowhere.zip" in result.stderr
    assert "README" not in result.stderr
