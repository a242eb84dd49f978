"""A function more: `predict_eps`, which is given, becomes a graded one in a copy of the tree, as INSTRUCTOR.md says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from classroom import copy_tree, grades, grading, write
from grading.hidden.handout.regions import without_markers
from grading.hidden.reference.check import FEWEST_CHAFFS
from harness import ROOT, child_env

DIFFUSION, HIDDEN = "HW3/diffusion.py", "grading/hidden/reference"

FUNCTION = """
[[function]]
id = "predict-eps"
title = "The noise in the noisy data"
points = 5
file = "HW3/diffusion.py"
name = "GaussianDiffusion.predict_eps"
before = "train_diffusion.py"
idea = "it undoes q_sample as predict_x0 does, for the other unknown"
weights = { hostile = 2, ranks = 1, dtype = 1, single = 1 }
public = ["hostile", "ranks", "dtype"]
"""
BODY = """\
        return (x_t - self.at(self.sqrt_alpha_bars, t, x_t) * x0) / self.at(self.sqrt_one_minus_alpha_bars, t, x_t)
"""
REGION = f"""\
        # TODO(predict-eps): solve the equation of q_sample for eps. About 1 line.
        ### BEGIN SOLUTION
{BODY}        ### END SOLUTION
"""
CALL = """\
def predict_eps(submission: Submission, params: dict, x: dict[str, Tensor], standins: dict) -> dict[str, Tensor]:
    diffusion = make_diffusion(submission, params, standins)
    return {"eps": _called(params, submission.method(diffusion, "predict_eps"), x["x_t"], x["t"], x["x0"])}


"""
FORMULA = '''

def predict_eps(s: Schedule, x_t: Array, t: Array, x0: Array) -> Array:
    """Ho et al. 2020 eq. 4, solved for the noise."""
    bar = s.bar(t, x_t)
    return (x_t - np.sqrt(bar) * x0) / np.sqrt(1 - bar)
'''
ANSWER = """\
def predict_eps(case: Case) -> Answer:
    s, x = Schedule.of(case.params), case.inputs
    return {"eps": ref.predict_eps(s, x["x_t"], x["t"], x["x0"])}, {}


"""
MAKER = """\
def predict_eps_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in side.layouts:
        if which == "hostile":
            s = side.basic.hostile
            inputs = _cast(dtype, x_t=draw.normal(*shape), t=draw.t(shape[0], s), x0=draw.normal(*shape))
            yield Case("predict-eps", name, "predict_eps", "value", s.params(), inputs, tolerance=HOSTILE_TOLERANCE)


"""
BANK = '''\
"""`predict-eps`, wrong and right."""

from grading.hidden.reference.bank import chaff, wheat


def rows(table, t, like):
    return table[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))


@chaff("predict-eps", "the noise goes in with its variance as the factor; what scales it is the standard deviation")
def variance_as_scale(self, x_t, t, x0):
    ab = rows(self.alpha_bars, t, x_t)
    return (x_t - ab.sqrt() * x0) / (1 - ab)


@chaff("predict-eps", "the data comes back with the wrong sign: it must be taken out of the mixture")
def data_added(self, x_t, t, x0):
    ab = rows(self.alpha_bars, t, x_t)
    return (x_t + ab.sqrt() * x0) / (1 - ab).sqrt()


@chaff("predict-eps", "the factor of a single step stands where that of all steps so far belongs")
def alpha_for_alpha_bar(self, x_t, t, x0):
    a = rows(self.alphas, t, x_t)
    return (x_t - a.sqrt() * x0) / (1 - a).sqrt()


@wheat("predict-eps", "two quotients")
def term_by_term(self, x_t, t, x0):
    ab = rows(self.alpha_bars, t, x_t)
    return x_t / (1 - ab).sqrt() - (ab / (1 - ab)).sqrt() * x0
'''


class Copy:
    """The copy of the tree, and what is done in it."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.tree / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, (file, old)
        (self.tree / file).write_text(text.replace(old, new), encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        with (self.tree / file).open("a", encoding="utf-8") as out:
            out.write(text)

    def run(self, *command: str) -> str:
        command = (sys.executable, "-m", *command)
        done = subprocess.run(command, cwd=self.tree, env=child_env(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


# One for each place of the list. What `check` says of the next place when that step is done; nothing after the last.


def rubric(copy: Copy) -> str:
    copy.append("grading/rubric.toml", FUNCTION)
    return "HW3/diffusion.py: no solution region has the id predict-eps"


def region(copy: Copy) -> str:
    copy.edit(DIFFUSION, BODY, REGION)
    return "grading/driver.py has no call for predict-eps"


def call(copy: Copy) -> str:
    copy.edit("grading/driver.py", "def q_posterior(", CALL + "def q_posterior(")
    copy.edit("grading/driver.py", "*(q_sample, predict_x0, ", "*(q_sample, predict_x0, predict_eps, ")
    return f"{HIDDEN}/make_cases.py makes no cases of predict-eps"


def cases(copy: Copy) -> str:
    copy.append(f"{HIDDEN}/formulas.py", FORMULA)
    copy.edit(f"{HIDDEN}/expectations.py", "def q_posterior(", ANSWER + "def q_posterior(")
    copy.edit(f"{HIDDEN}/expectations.py", "*(q_sample, predict_x0, ", "*(q_sample, predict_x0, predict_eps, ")
    copy.edit(f"{HIDDEN}/make_cases.py", "def posterior_cases(", MAKER + "def posterior_cases(")
    last = '    "samplers": sampler_cases,\n'
    copy.edit(f"{HIDDEN}/make_cases.py", last, last + '    "predict-eps": predict_eps_cases,\n')
    return f"{HIDDEN}/bank has 0 wrong (@chaff) answers to predict-eps, and {FEWEST_CHAFFS} are needed"


def bank(copy: Copy) -> str:
    (copy.tree / HIDDEN / "bank" / "predict_eps.py").write_text(BANK)
    return "grading/cases/predict-eps.npz is missing: make the cases again"


def make(copy: Copy) -> str:
    copy.run("grading.hidden.reference.make_cases")
    return ""


STEPS = (rubric, region, call, cases, bank, make)
FILES = ("rubric.toml", DIFFUSION, "driver.py", "make_cases.py", "bank/", "make_cases`")


def listed() -> list[str]:
    """The places that INSTRUCTOR.md lists."""
    section = (ROOT / "docs" / "INSTRUCTOR.md").read_text(encoding="utf-8").partition("## Adding a graded function")[2]
    return re.findall(r"^\d+\. (.+(?:\n   .+)*)", section, flags=re.MULTILINE)


def test_the_list_is_that_of_the_steps():
    assert [file in item for file, item in zip(FILES, listed(), strict=True)] == [True] * len(STEPS)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The tree with a tenth function. After each step `check` has named the next place, and nobody went on without."""
    copy = Copy(copy_tree(tmp_path_factory.mktemp("tenth") / "tree"))
    untouched = {path: path.read_bytes() for path in copy.tree.rglob("*.npz")}
    assert grading("check", tree=copy.tree).returncode == 0
    for step in STEPS:
        says = step(copy)
        checked = grading("check", tree=copy.tree)
        assert checked.returncode == (1 if says else 0), (step.__name__, checked.stdout)
        first = checked.stdout.splitlines()[0]
        assert first.startswith(says), (step.__name__, first)
        if step is region:  # the trap that was silent: a release without a check, a grading that dies
            for command in (("release", "--out", "handout"), ("grade", "nowhere.zip", "--out", "graded")):
                refused = grading(*command, tree=copy.tree)
                assert refused.returncode == 2
                assert refused.stderr.startswith(f"grading: error: {first} (and ")
                assert refused.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in untouched} == untouched
    return copy.tree


@pytest.mark.slow
def test_the_checks_and_the_projects_own_tests_know_it(tree):
    copy = Copy(tree)
    out = copy.run("pytest", "grading/", "-k", "predict_eps")
    assert re.search(r"predict-eps +5 / 5 +7/7 hidden cases", out)
    assert re.search(r"predict-eps +5 / 5 +5/5 public cases", out)
    copy.run("pytest", "tests/reference/test_bank.py", "tests/reference/test_reference.py", "-k", "eps or input")


@pytest.mark.slow
def test_it_is_released_and_graded(tree, tmp_path):
    copy = Copy(tree)
    copy.run("grading", "release", "--out", str(tmp_path / "handout"))
    handout = Copy(tmp_path / "handout")
    assert 'raise NotImplementedError("TODO(predict-eps): solve' in (handout.tree / DIFFUSION).read_text()
    assert (
        "| `predict-eps` | The noise in the noisy data | `predict_eps` in" in (handout.tree / "README.md").read_text()
    )
    assert re.search(r"to do +predict-eps +5 points", handout.run("grading", "todo"))
    solved = without_markers((tree / DIFFUSION).read_text(), DIFFUSION)
    (handout.tree / DIFFUSION).write_text(solved)
    assert "5 / 5   on the public cases" in handout.run("pytest", "grading/", "-k", "predict_eps")

    wrong = solved.replace(BODY, BODY.replace("one_minus_", ""))
    for name, text in (("right", solved), ("wrong", wrong), ("undone", solved.replace(BODY, "        pass\n"))):
        write(tmp_path / "in" / name, {DIFFUSION: text.encode()})
    copy.run("grading", "grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    points = {name: (row["predict-eps"], row["posterior"]) for name, row in grades(tmp_path / "out").items()}
    assert points == {"right": ("5", "20"), "wrong": ("0", "20"), "undone": ("0", "20")}
