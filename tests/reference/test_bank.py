"""The bank is exact: every wrong answer loses marks where it is wrong and nowhere else, every right one none."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from functools import cache, partial
from itertools import combinations

import numpy as np
import pytest
import torch

from grading import driver
from grading.cases import Case, all_cases
from grading.hidden.reference.bank import BANK, PLACES, Entry, chaffs_of
from grading.judge import GRADED_OUTPUTS, Verdict, run_and_judge
from grading.submission import Submission

CASES = [case for case in all_cases() if case.id in PLACES]
SAMPLERS = [case for case in all_cases() if case.id not in PLACES]  # carry no points
ALL = {(case.id, case.name, case.hidden): case for case in [*CASES, *SAMPLERS]}
CHAFFS, WHEATS = [e for e in BANK if not e.is_wheat], [e for e in BANK if e.is_wheat]

# Whatever the wrong answer is, the judge's own sentence says it better than a list of known mistakes.
GATED = ("was changed; leave arguments", "NaN or infinite", "keep the dtype", " returned ", "raised ")


def named(entries):
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: f"{entry.id}-{entry.name}")


def verdict(entry: Entry, case: Case) -> Verdict:
    return _verdict(entry, (case.id, case.name, case.hidden))


@cache
def _verdict(entry: Entry, key: tuple[str, str, bool]) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run_and_judge(partial(driver.run, entry.submission()), ALL[key])
        except Exception as error:
            return Verdict(False, f"raised {type(error).__name__}: {error}")


@cache
def touched(key: tuple[str, str, bool]) -> frozenset[str]:
    """The graded functions that a case runs in the tree's own code."""
    seen = set()

    def recording(id, original):
        def function(*args, **kwargs):
            seen.add(id)
            return original(*args, **kwargs)

        return function

    places = {}
    for id, (file, name) in PLACES.items():
        owner, _, method = name.partition(".")
        found = Submission().get(file, owner)
        places[file, name] = recording(id, getattr(found, method) if method else found)
    case = ALL[key]
    # The recorders take any arguments, so the call is made as it would be for the function itself.
    driver.run(Submission(replaced=places), case.call, case.params, case.inputs)
    return frozenset(seen)


def cases_of(id: str, *, hidden: bool | None = None) -> list[Case]:
    return [case for case in CASES if case.id == id and hidden in (None, case.hidden)]


def lost(entry: Entry, cases: list[Case]) -> list[Case]:
    return [case for case in cases if not verdict(entry, case).passed]


def loses(entry: Entry, cases: list[Case]) -> bool:
    return any(not verdict(entry, case).passed for case in cases)


def elsewhere(entry: Entry, cases: list[Case]) -> list[Case]:
    """The cases of other functions that run this one too; no other can tell the difference."""
    return [case for case in cases if case.id != entry.id and entry.id in touched((case.id, case.name, case.hidden))]


# -- the bank --------------------------------------------------------------------------------------------


def test_enough_of_each():
    chaffs, wheats = Counter(e.id for e in CHAFFS), Counter(e.id for e in WHEATS)
    assert {id: n for id in PLACES if (n := chaffs[id]) < 10} == {}
    assert {id: n for id in PLACES if (n := wheats[id]) < 6} == {}


@named(CHAFFS)
def test_chaff_loses_on_its_own_function(entry):
    assert loses(entry, cases_of(entry.id, hidden=True)), "passes every hidden case"
    assert loses(entry, cases_of(entry.id, hidden=False)), "passes every public case"


@named(CHAFFS)
def test_chaff_loses_on_no_other_function(entry):
    assert [(case.id, case.name) for case in lost(entry, elsewhere(entry, CASES))] == []


@named(WHEATS)
def test_wheat_passes_everything(entry):
    cases = [*cases_of(entry.id), *elsewhere(entry, [*CASES, *SAMPLERS])]
    assert [(case.id, case.name, verdict(entry, case).problem) for case in lost(entry, cases)] == []


DEAF = ("deaf_to_text", "deaf_to_time", "deaf_to_latent", "returns_latent", "returns_zeros")


@named([entry for entry in CHAFFS if entry.id == "conditioning" and entry.name in DEAF])
def test_a_deaf_network_passes_no_case(entry):
    assert [case.name for case in cases_of("conditioning") if verdict(entry, case).passed] == []


@pytest.mark.parametrize("id", PLACES)
def test_no_case_is_dead_weight(id):
    """A case on which no wrong answer fails proves nothing."""
    dead = [
        f"{'hidden' if case.hidden else 'public'} {case.name}"
        for case in cases_of(id)
        if all(verdict(chaff, case).passed for chaff in chaffs_of(id))
    ]
    assert dead == []


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
    for case in cases_of(id):
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
        cases = [case for case in cases_of(chaff.id, hidden=False) if case.mistakes]
        verdicts = [verdict(chaff, case) for case in lost(chaff, cases)]
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
    for case in cases_of(id, hidden=False):
        found = [torch.from_numpy(case.expected[name]) for name in names if name in case.expected]
        if len(found) == len(names) and found[0].shape == like.shape:
            return [array.to(like.dtype) for array in found]
    return None


def constant_answers(id: str):
    """Name and implementation of every answer that can be given without computing anything."""
    pair = id == "posterior"
    value = next((case for case in cases_of(id, hidden=False) if case.check == "value"), None)
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
    for case in cases_of(id, hidden=True):
        try:
            passed += [case.name] if run_and_judge(partial(driver.run, submission), case).passed else []
        except Exception as error:
            pytest.fail(f"{case.name}: {error!r}")
    assert passed == []
