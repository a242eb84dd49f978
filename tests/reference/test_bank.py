"""The bank is exact: every wrong answer loses marks where it is wrong and nowhere else, every right one none."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch

from grading import driver
from grading.cases import all_cases
from grading.hidden.reference.bank import BANK, PLACES, chaffs_of
from grading.hidden.reference.verify import Trial
from grading.judge import GRADED_OUTPUTS, run_and_judge
from grading.submission import Submission

TRIAL = Trial(all_cases())
CHAFFS, WHEATS = [e for e in BANK if not e.is_wheat], [e for e in BANK if e.is_wheat]

# Whatever the wrong answer is, the judge's own sentence says it better than a list of known mistakes.
GATED = ("was changed; leave arguments", "NaN or infinite", "keep the dtype", " returned ", "raised ")


def named(entries):
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: f"{entry.id}-{entry.name}")


# -- the bank --------------------------------------------------------------------------------------------


def test_enough_of_each():
    chaffs, wheats = Counter(e.id for e in CHAFFS), Counter(e.id for e in WHEATS)
    assert {id: n for id in PLACES if (n := chaffs[id]) < 10} == {}
    assert {id: n for id in PLACES if (n := wheats[id]) < 6} == {}


@named(CHAFFS)
def test_chaff_loses_on_its_own_function(entry):
    assert TRIAL.loses(entry, TRIAL.of(entry.id, hidden=True)), "passes every hidden case"
    assert TRIAL.loses(entry, TRIAL.of(entry.id, hidden=False)), "passes every public case"


@named(CHAFFS)
def test_chaff_loses_on_no_other_function(entry):
    others = TRIAL.elsewhere(entry, TRIAL.cases)
    assert [(case.id, case.name) for case in TRIAL.lost(entry, others)] == []


@named(WHEATS)
def test_wheat_passes_everything(entry):
    cases = [*TRIAL.of(entry.id), *TRIAL.elsewhere(entry, TRIAL.all)]
    assert [(case.id, case.name, TRIAL.verdict(entry, case).problem) for case in TRIAL.lost(entry, cases)] == []


DEAF = ("deaf_to_text", "deaf_to_time", "deaf_to_latent", "returns_latent", "returns_zeros")


@named([entry for entry in CHAFFS if entry.id == "conditioning" and entry.name in DEAF])
def test_a_deaf_network_passes_no_case(entry):
    assert [case.name for case in TRIAL.of("conditioning") if TRIAL.verdict(entry, case).passed] == []


@pytest.mark.parametrize("id", PLACES)
def test_no_case_is_dead_weight(id):
    """A case on which no wrong answer fails proves nothing."""
    assert [(case.name, case.hidden) for case in TRIAL.dead(id)] == []


# -- hints ------------------------------------------------------------------------------------------------


@named(CHAFFS)
def test_hint_points_at_the_idea_only(entry):
    hint = entry.text
    assert 30 <= len(hint) <= 200
    assert "\n" not in hint
    assert not hint.endswith(".")
    formula = r"[=*/^√½+]|sqrt|rsqrt|exp\(|log\(|pow\(|self\.|\d\.\d|\b0\.5"
    assert re.findall(formula, hint) == []


@pytest.mark.parametrize("id", PLACES)
def test_mistakes_that_look_the_same_share_a_hint(id):
    """Recognition is by what comes out: where two mistakes give the same in every case, one sentence must fit both."""
    fingerprints = defaultdict(dict)
    for case in TRIAL.of(id):
        for mistake, arrays in case.mistakes.items():
            fingerprints[mistake][case.name, case.hidden] = np.concatenate([np.ravel(a) for a in arrays.values()])
    hints = {chaff.name: chaff.text for chaff in chaffs_of(id)}
    twins = [
        (a, b)
        for a, b in combinations(fingerprints, 2)
        if hints[a] != hints[b] and fingerprints[a].keys() == fingerprints[b].keys()
        if all(
            fingerprints[a][key].shape == fingerprints[b][key].shape
            and np.allclose(fingerprints[a][key], fingerprints[b][key], atol=1e-4, rtol=1e-3)
            for key in fingerprints[a]
        )
    ]
    assert twins == []


def test_mistakes_are_recognised_in_public():
    """A student's self-check names nearly every known mistake, and hardly ever another one."""
    unrecognised, right, wrong = [], 0, 0
    for chaff in CHAFFS:
        hints = {other.name: other.text for other in chaffs_of(chaff.id)}
        cases = [case for case in TRIAL.of(chaff.id, hidden=False) if case.mistakes]
        verdicts = [TRIAL.verdict(chaff, case) for case in TRIAL.lost(chaff, cases)]
        names = [v.mistake for v in verdicts if not any(words in v.problem for words in GATED)]
        same = [hints[name] == chaff.text for name in names if name is not None]
        right, wrong = right + sum(same), wrong + len(same) - sum(same)
        if names and not any(same):
            unrecognised.append(f"{chaff.id}: {chaff.name} ({', '.join(map(str, names))})")
    print(f"recognised {len(CHAFFS) - len(unrecognised)} of {len(CHAFFS)}; {right} names right, {wrong} wrong")
    assert len(unrecognised) <= 0.03 * len(CHAFFS), unrecognised
    assert wrong <= 0.02 * (right + wrong)


# -- answers that look at nothing -------------------------------------------------------------------------


def stored_answer(id: str, like: torch.Tensor, names: tuple[str, ...]) -> list[torch.Tensor] | None:
    """The expected arrays of the first public case whose answer has this shape."""
    for case in TRIAL.of(id, hidden=False):
        found = [torch.from_numpy(case.expected[name]) for name in names if name in case.expected]
        if len(found) == len(names) and found[0].shape == like.shape:
            return [array.to(like.dtype) for array in found]
    return None


def constant_answers(id: str):
    """Name and implementation of every answer that can be given without computing anything."""
    pair = id == "posterior"
    value = next((case for case in TRIAL.of(id, hidden=False) if case.check == "value"), None)
    other = {"reparameterize": ("mean",), "conditioning": ("like",)}
    names = other[id] if value is None else tuple(name for name in value.expected if name in GRADED_OUTPUTS)

    def make(answer):
        def function(*args, **kwargs):
            tensors = [
                arg
                for arg in [*args, *kwargs.values()]
                if isinstance(arg, torch.Tensor) and arg.dtype.is_floating_point
            ]
            like = tensors[0].sum(dim=1) if id == "kl" else tensors[0]
            given = answer(tensors, like)
            if given is None:
                given = [torch.zeros_like(like)] * len(names)
            given = [*given, torch.zeros_like(like)][:2] if pair else given
            return tuple(given) if pair else given[0]

        return function

    def argument(i):
        def answer(tensors, like):
            value = tensors[i] if i < len(tensors) else tensors[0]
            return [(value.select(1, 0) if id == "kl" else value).clone()]

        return answer

    arguments = 1 if id == "conditioning" else 3  # whose text has another shape than the answer
    answers = {f"argument {i}": argument(i) for i in range(arguments)}
    answers["zeros"] = lambda tensors, like: None
    answers["stored"] = lambda tensors, like: stored_answer(id, like, names)
    return {name: make(answer) for name, answer in answers.items()}


@pytest.mark.parametrize(("id", "name"), [(id, name) for id in PLACES for name in constant_answers(id)])
def test_constant_answers_score_nothing(id, name):
    submission = Submission(replaced={PLACES[id]: constant_answers(id)[name]})
    passed = []
    for case in TRIAL.of(id, hidden=True):
        try:
            passed += [case.name] if run_and_judge(partial(driver.run, submission), case).passed else []
        except Exception as error:
            pytest.fail(f"{case.name}: {error!r}")
    assert passed == []
