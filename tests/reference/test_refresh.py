"""`python -m grading refresh`: all cases or none, from a secret that nobody can guess, on answers that are known."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from classroom import copy_tree, from_bank, grading, handout, solution, write
from grading.cases import HIDDEN, PUBLIC, load_cases, save_cases
from grading.errors import GradingError
from grading.hidden.reference import make_cases, refresh, verify
from grading.hidden.reference.bank import BANK
from grading.hidden.reference.make_cases import hidden_cases
from harness import ROOT

SMALL = {"kl": make_cases.kl_cases, "guidance": make_cases.guidance_cases}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def inputs(cases):
    return {f"{case.name} {name}": array for case in cases for name, array in case.inputs.items()}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two functions' cases in a folder of their own."""
    folder = tmp_path / "cases"
    monkeypatch.setattr(make_cases, "MAKERS", SMALL)
    monkeypatch.setattr(make_cases, "HIDDEN", folder)
    for id in SMALL:
        save_cases(folder / f"{id}.npz", hidden_cases(id, 1))
    return folder


def test_a_secret_gives_its_cases_and_no_others():
    first, again, other = (inputs(hidden_cases("kl", secret)) for secret in (2**127 + 1, 2**127 + 1, 2**127 + 2))
    assert first.keys() == again.keys() == other.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


def test_the_stored_cases_come_from_no_number_that_one_would_try():
    kept = make_cases.stored("kl")
    number = list(make_cases.MAKERS).index("kl")
    for seed in (*range(300), *range(2020, 2040)):
        for draw in (make_cases.Draw(seed, number), make_cases.Draw(seed)):
            case = next(make_cases.kl_cases(draw, make_cases.HIDDEN_SIDE))
            assert not np.array_equal(case.inputs["mu"], kept[case.name].inputs["mu"]), seed


def test_the_record_is_made_again_from_itself(small):
    before = contents(small)
    make_cases.make(small.parent / "public", small)
    assert contents(small) == before


def test_only_what_the_record_does_not_have_is_drawn(small, monkeypatch):
    kept = make_cases.stored("kl")

    def one_more(draw, side):
        cases = list(make_cases.kl_cases(draw, side))
        cases[0].inputs = {name: array[:2] for name, array in cases[0].inputs.items()}  # another form
        new = make_cases.replace(cases[1], name="extreme/new")
        yield from [*cases, new]

    monkeypatch.setitem(SMALL, "kl", one_more)
    made = {case.name: case for case in hidden_cases("kl")}
    first, *others = kept
    assert made.keys() - kept.keys() == {"extreme/new"}
    assert all(np.array_equal(made[name].inputs["mu"], kept[name].inputs["mu"]) for name in others)
    assert made[first].inputs["mu"].shape == (2, 5)


def test_a_chaff_more_changes_no_input(small, monkeypatch):
    before = make_cases.stored("guidance")
    chaffs = make_cases.chaffs_of("guidance")
    monkeypatch.setattr(make_cases, "chaffs_of", lambda id: chaffs[:-1])
    after = {case.name: case for case in hidden_cases("guidance")}
    assert {name: case.inputs.keys() for name, case in before.items()} == {n: c.inputs.keys() for n, c in after.items()}
    for name, case in before.items():
        assert all(np.array_equal(case.inputs[key], after[name].inputs[key]) for key in case.inputs)
        assert case.mistakes.keys() - after[name].mistakes.keys() <= {chaffs[-1].name}


# -- all or nothing ---------------------------------------------------------------------------------------


def test_all_files_are_new(small):
    before = {id: make_cases.stored(id) for id in SMALL}
    lines = list(refresh.write(refresh.draw(5), small))
    assert lines[:2] == ["kl: 8 cases on new inputs", "guidance: 12 cases on new inputs"]
    for id in SMALL:
        after = make_cases.stored(id)
        assert after.keys() == before[id].keys()
        for name, case in after.items():
            assert all(not np.array_equal(case.inputs[key], before[id][name].inputs[key]) for key in case.inputs)
    assert [path.name for path in small.parent.iterdir()] == ["cases"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_rename_that_fails_leaves_what_was_there(small, monkeypatch, which):
    before, made, count = contents(small), refresh.draw(6), []
    rename = refresh.Path.rename

    def failing(path, target):
        count.append(path)
        if len(count) == which + 1:
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(refresh.Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        list(refresh.write(made, small))
    assert contents(small) == before
    assert [path.name for path in small.parent.iterdir()] == ["cases"]


# -- cases that are no good -------------------------------------------------------------------------------


def cases_of(id):
    return load_cases(PUBLIC / f"{id}.npz", hidden=False)


def spoilt_expectation(cases):
    cases[0].expected["eps"] = cases[0].expected["eps"] + 1
    return "the bank's weighted of guidance is right and fails"


def expects_an_input(cases):
    cases[0].expected["eps"] = cases[0].inputs["eps_cond"].astype(float)
    return "what is expected is an input"


def beyond_six(cases):
    cases[0].inputs["eps_cond"] = cases[0].inputs["eps_cond"] * 9
    return "an input is beyond 6"


@pytest.mark.parametrize("spoil", [spoilt_expectation, expects_an_input, beyond_six], ids=lambda f: f.__name__)
def test_what_is_wrong_with_cases_is_said(spoil):
    cases = cases_of("guidance")
    says = spoil(cases)
    assert [line for line in verify.problems(cases) if says in line]


def test_cases_that_tell_nothing_are_said(monkeypatch):
    chaff = next(entry for entry in BANK if entry.name == "halves_swapped")
    monkeypatch.setattr(verify, "BANK", [chaff])
    monkeypatch.setattr(verify, "chaffs_of", lambda id: [chaff])
    cases = cases_of("guidance")
    assert not list(verify.problems(cases))
    for case in cases:
        case.tolerance = (1e4, 0.0)
    said = list(verify.problems(cases))
    assert said[0] == "the bank's halves_swapped of guidance is wrong and passes every case"
    assert said[1:] == [f"no wrong answer of the bank fails {case.name} of guidance" for case in cases]


def test_a_tolerance_that_a_right_answer_nearly_misses_is_said():
    cases = cases_of("kl")
    assert not list(verify.problems(cases))
    cases[0].tolerance = (0.0, 1.5e-7)  # one step of float32
    assert [line for line in verify.problems(cases) if "is right" in line]


def test_what_is_no_good_is_not_written(small, monkeypatch, capsys):
    before = contents(small)
    monkeypatch.setattr(verify, "problems", lambda cases: iter(["kl: no", "kl: no again"]))
    with pytest.raises(GradingError, match=r"^3 draws were no good: nothing was written"):
        refresh.draw(7)
    assert "draw 3 of 3: kl: no (and 1 more)\n" in capsys.readouterr().err
    assert contents(small) == before


def test_what_chance_made_no_good_is_drawn_again(small, monkeypatch, capsys):
    found = iter([["kl: no"], []])
    monkeypatch.setattr(verify, "problems", lambda cases: iter(next(found)))
    made = refresh.draw(7)
    assert "draw 1 of 3: kl: no\n" in capsys.readouterr().err
    assert made.keys() == SMALL.keys()
    for id, cases in made.items():
        next_one = inputs(hidden_cases(id, 8))
        assert all(np.array_equal(array, next_one[name]) for name, array in inputs(cases).items())


def test_no_input_is_too_large_whatever_is_drawn(monkeypatch):
    monkeypatch.setattr(make_cases, "with_mistakes", lambda case: case)
    for secret in range(60):
        said = [line for id in SMALL for case in hidden_cases(id, secret) for line in verify.unfair(case)]
        assert "an input is beyond 6" not in said, secret


# -- the command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copy_tree(tmp_path_factory.mktemp("refresh") / "tree")


@pytest.mark.slow
def test_the_command_writes_nothing_where_points_differ(tree, tmp_path):
    """The old cases of a function could not tell right from wrong."""
    folder = tree / HIDDEN.relative_to(ROOT)
    chaff = next(entry for entry in BANK if entry.name == "scale_not_negative")
    for name, files in (("right", solution()), ("empty", handout()), ("chaff", from_bank(chaff))):
        write(tmp_path / "in" / name, files)
    weak = load_cases(folder / "guidance.npz", hidden=True)
    for case in weak:
        if "scales" in case.params:
            case.tolerance = (1e4, 0.0)
    save_cases(folder / "guidance.npz", weak)
    kept = contents(folder)
    done = grading("refresh", "--check", tmp_path / "in", "--isolation", "process", tree=tree)
    assert (done.returncode, done.stdout) == (1, "chaff: guidance 5 -> 4.5\n"), done.stderr
    assert done.stderr.endswith("points differ in 1 place: nothing was written\n")
    assert "whoever knows" not in done.stderr
    assert contents(folder) == kept


@pytest.mark.parametrize("seed", [None, 2027])
def test_a_seed_is_warned_of_and_used(small, monkeypatch, capsys, seed):
    used = []
    monkeypatch.setattr(refresh, "HIDDEN", small)
    monkeypatch.setattr(refresh, "draw", lambda secret: used.append(secret) or {"kl": []})
    monkeypatch.setattr(refresh, "differences", lambda *args: iter(()))
    args = argparse.Namespace(seed=seed, check=[small], isolation="auto")
    assert refresh._run(args) == 0
    out, err = capsys.readouterr()
    assert out.startswith("every submission keeps its points\n")
    assert ("whoever knows this number and this code knows the cases" in err) == (seed is not None)
    assert used == [seed] if seed else 2**100 < used[0] < 2**128
