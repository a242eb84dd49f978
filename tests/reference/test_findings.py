"""What is said of a wrong answer is true, and of nearly every wrong answer something is said.

The wrong answers are mutants and the bank's chaffs. Whether a finding is true is asked of the function itself, on
inputs of this file: the weight of an input is what the result changes by when that input alone does.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from time import process_time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.mutation import Mutant, mutants

from grading import driver
from grading.cases import Arrays, Case, all_cases
from grading.feedback import message
from grading.findings import SUMS, Finding, sentences
from grading.hidden.reference.bank import BANK, PLACES, Entry
from grading.judge import judge
from grading.measuring import find
from grading.rubric import LEVELS, load_rubric
from grading.submission import Submission
from HW3.diffusion import GaussianDiffusion

IDS = [id for id in PLACES if id != "conditioning"]  # which is a network: it has no weights to measure
NEAR = 2e-5  # tables are float32
# What the judge says better than any measurement: the answer is not looked at, or is of another kind.
SAID_ALREADY = ("was changed", "keep the dtype", "wrong shape", "another kind", "NaN or infinite", "raised")
SAID_ALREADY += ("no gradient", "share their noise", "not Gaussian", "tells that of another", "two calls gave the same")
# What the first two take for a number depends on all of the input, so other inputs show another mistake; the others are
# right on another schedule, and in their first call.
ONE_OF_A_KIND = ("rescaled", "one_spread_per_row")
ONE_OF_A_KIND += ("beta_as_variance_on_long_schedules", "beta_as_variance_after_the_first")
OTHER_SCHEDULE = {"schedule": "linear", "timesteps": 13, "beta_start": 0.03, "beta_end": 0.4}


def cases_of(id: str) -> list[Case]:
    """Of each group of hidden cases the first, and of the first group the second."""
    groups: dict[str, list[Case]] = {}
    for case in all_cases(id):
        if case.hidden:
            groups.setdefault(case.group, []).append(case)
    first, *others = groups.values()
    return [*first[:2], *(cases[0] for cases in others)]


@dataclass(frozen=True)
class Answer:
    """One wrong answer: whose, on which case, what the judge says and what was found. problem: "" if it passes."""

    of: Mutant | Entry
    case: Case
    problem: str
    mistake: str | None
    finding: Finding | None
    seconds: float = 0.0


def answer(of: Mutant | Entry, case: Case) -> Answer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = driver.run(of.submission(), case.call, case.params, case.inputs)
        except Exception as error:
            return Answer(of, case, f"raised {type(error).__name__}", None, None)
        verdict = judge(case, result)
        if verdict.passed:
            return Answer(of, case, "", None, None)
        begin = process_time()
        finding = next(iter(find(case, result)), None)
        return Answer(of, case, verdict.discreet, verdict.mistake, finding, process_time() - begin)


@cache
def answers_of_mutants(id: str) -> list[list[Answer]]:
    """Of each on the first case, and on two more in turns."""
    first, *others = cases_of(id)
    turns = [
        [first, *{case.name: case for case in (others[i % len(others)], others[(i + 1) % len(others)])}.values()]
        for i in range(len(mutants(id)))
    ]
    return [[answer(mutant, case) for case in turn] for mutant, turn in zip(mutants(id), turns)]


@cache
def answers_of_chaffs(id: str) -> list[list[Answer]]:
    chaffs = [entry for entry in BANK if entry.id == id and not entry.is_wheat]
    return [[answer(chaff, case) for case in cases_of(id)] for chaff in chaffs]


def is_wrong(answers: list[Answer]) -> bool:
    """Whether it is wrong in a way that has to be located."""
    problems = [a.problem for a in answers if a.problem]
    return any(not any(words in problem for words in SAID_ALREADY) for problem in problems)


# -- how many are located ------------------------------------------------------------------------------------


def test_wrong_answers_are_located():
    """Nine of ten mutants get a name or a finding; what raises or comes in another kind has a sentence of its own."""
    counts, silent = Counter(), []
    for id in IDS:
        for answers in answers_of_mutants(id):
            if not is_wrong(answers):
                counts["right, or of another kind"] += 1
                continue
            named, found = any(a.mistake for a in answers), any(a.finding for a in answers)
            counts["named" if named else "found" if found else "silent"] += 1
            silent += [str(answers[0].of)] * (not named and not found)
    print(dict(counts))
    assert counts["named"] + counts["found"] >= 300
    assert len(silent) <= 0.1 * (counts["named"] + counts["found"] + len(silent)), silent


@pytest.mark.slow
def test_chaffs_are_located_without_their_names():
    silent, located = [], 0
    for id in IDS:
        for answers in answers_of_chaffs(id):
            if is_wrong(answers):
                found = any(a.finding for a in answers)
                located += found
                silent += [f"{id}: {answers[0].of.name}"] * (not found)
    print(f"{located} of {located + len(silent)} located; not: {silent}")
    assert located >= 150
    assert len(silent) <= 0.1 * (located + len(silent)), silent


def test_nothing_is_found_in_right_answers():
    for entry in BANK:
        if entry.is_wheat and entry.id in IDS:
            for case in cases_of(entry.id):
                result = driver.run(entry.submission(), case.call, case.params, case.inputs)
                if case.check == "value":
                    assert find(case, result) == [], (entry.id, entry.name, case.name)


def test_finding_costs_little():
    seconds = sorted(a.seconds for id in IDS for answers in answers_of_mutants(id) for a in answers if a.problem)
    print(f"median {1e3 * np.median(seconds):.1f} ms, most {1e3 * seconds[-1]:.1f} ms")
    assert np.median(seconds) < 0.01


# -- what is said ----------------------------------------------------------------------------------------------


def bare(sentence: str) -> str:
    """Without the names of arguments and of quantities, which have digits of their own."""
    return re.sub(r"`\w+`|\(1−ᾱ\)|t−1|t\+1", "", sentence)


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("level", LEVELS)
def test_of_hidden_cases_one_of_few_sentences_is_said(id, level):
    for case in {(case.call, case.check): case for case in cases_of(id)}.values():
        possible = set(sentences(case.call, case.check, level))
        assert all(not re.search(r"\d", bare(sentence)) for sentence in possible)
        assert all(len(sentence) < 300 and not sentence.endswith(".") for sentence in possible)
        said = {
            a.finding.sentence(level, hidden=True)
            for answers in [*answers_of_mutants(id), *answers_of_chaffs(id)]
            for a in answers
            if a.finding and (a.case.call, a.case.check) == (case.call, case.check)
        }
        assert said - {""} <= possible
        assert len(possible) == {"idea": 0}.get(level, len(possible))
        assert level != "term" or len(possible) < 400


def test_how_much_is_said():
    finding = Finding("weight", "x0", ("eps",), ("x_t",), "every", "same", 2.0)
    says = {level: finding.sentence(level, hidden=False) for level in LEVELS}
    assert says["idea"] == ""
    assert says["term"] == "the weight of `eps` is wrong in every row; the weight of `x_t` is right"
    assert "(by the same factor everywhere, 2);" in says["factor"]
    assert "2" not in finding.sentence("factor", hidden=True)


def test_the_self_check_says_it_where_no_mistake_is_known():
    case = next(case for case in all_cases("predict-x0") if not case.hidden)

    def tripled(self, x_t, t, eps):
        return GaussianDiffusion.predict_x0(self, x_t, t, 3 * eps)

    submission = Submission(replaced={PLACES["predict-x0"]: tripled})
    verdict = judge(case, driver.run(submission, case.call, case.params, case.inputs))
    texts = {level: message(load_rubric().functions["predict-x0"], case, verdict, {}, level) for level in LEVELS}
    assert "found:" not in texts["idea"]
    assert "  found:   the weight of `eps` is wrong in every row" in texts["term"]
    assert "(by the same" not in texts["term"]
    assert "(by the same factor everywhere, 3)" in texts["factor"]
    assert all("  revisit: " in text for text in texts.values())


# -- whatever comes --------------------------------------------------------------------------------------------

ANY_CASE = st.sampled_from([case for id in IDS for case in all_cases(id)])
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-300, 3e38, -1.7e308, np.nan, np.inf, -np.inf])


@st.composite
def any_result(draw: st.DrawFn) -> tuple[Case, Arrays]:
    """A case, its inputs perhaps all alike, and arrays of the right names."""
    case = draw(ANY_CASE)
    if draw(st.booleans()):
        alike = {name: np.full_like(array, array.flat[0]) for name, array in case.inputs.items()}
        case = replace(case, inputs=alike)
    names = {"z", "again", "x_t", "x_prev", *case.expected}
    like = next(iter(case.expected.values()))
    result = {}
    for name in sorted(names):
        right = case.expected.get(name, like)
        kind = draw(st.sampled_from(["right", "scaled", "constant", "noisy", "none", "one", "empty", "shape", "int"]))
        with np.errstate(all="ignore"):
            if kind == "noisy":
                right = right + np.random.default_rng(draw(st.integers(0, 9))).standard_normal(right.shape)
            elif kind == "one":
                right = right.copy()
                right.flat[:1] = draw(NUMBERS)
            elif kind == "scaled":
                right = right * draw(NUMBERS)
            elif kind == "constant":
                right = np.full_like(right, draw(NUMBERS))
            elif kind in ("empty", "shape"):
                right = right[:0] if kind == "empty" else right[..., None][:1]
            elif kind == "int":
                right = np.nan_to_num(right).astype(np.int64)
        if kind != "none":
            result[name] = right
    return case, result


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(any_result())
def test_any_result_gets_a_sentence_or_none(given_result):
    case, result = given_result
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find(case, result)
    for finding in found:
        assert finding.sentence("term", hidden=True) in sentences_of(case.call, case.check)


@cache
def sentences_of(call: str, check: str) -> frozenset[str]:
    return frozenset(sentences(call, check, "term"))


def test_nothing_is_found_where_there_is_nothing():
    case = next(case for case in all_cases("predict-x0"))
    empty = {name: array[:0] for name, array in case.inputs.items()}
    assert find(replace(case, inputs=empty, expected={"x0": empty["x_t"]}), {"x0": empty["x_t"]}) == []


# -- whether it is true ----------------------------------------------------------------------------------------


class Probe:
    """A function, measured on inputs that are no case's: (rows, ...) float64 at the times of a case."""

    def __init__(self, of: Mutant | Entry | None, case: Case, output: str, **params: object) -> None:
        self.of, self.submission = of, of.submission() if of else Submission()
        self.case, self.output, self.params = case, output, {**case.params, **params}
        self.shape = case.expected.get(output, next(iter(case.inputs.values()))).shape
        self.names = [name for name in SUMS[case.call][output] or ("x0", "x_t") if name in case.inputs]

    def __call__(self, **changed: np.ndarray) -> np.ndarray:
        arrays = {**self.inputs, **changed}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = driver.run(self.submission, self.case.call, self.params, arrays)[self.output]
        return self.flat(given)

    def flat(self, array: np.ndarray) -> np.ndarray:
        """(rows, n); at several scales, a row is the answer at one of them."""
        return np.broadcast_to(array, self.shape).reshape(self.shape[0], -1)

    @cached_property
    def inputs(self) -> Arrays:
        rng = np.random.default_rng(5)
        return {
            name: 2 * rng.standard_normal(array.shape) if array.dtype.kind == "f" else array
            for name, array in self.case.inputs.items()
        }

    @cached_property
    def value(self) -> np.ndarray:
        return self()

    @cached_property
    def offset(self) -> np.ndarray:
        return self(**{name: np.zeros_like(self.inputs[name]) for name in self.names})

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Name -> (rows, n), from doubling that input alone."""
        return {
            name: (self(**{name: 2 * self.inputs[name]}) - self.value) / self.flat(self.inputs[name])
            for name in self.names
        }

    @property
    def is_sum(self) -> bool:
        flat = {name: self.flat(self.inputs[name]) for name in self.names}
        total = self.offset + sum(self.weights[name] * flat[name] for name in self.names)
        even = all(np.ptp(w, axis=1).max() <= 1e-4 * (1 + np.abs(w).max()) for w in self.weights.values())
        return even and np.allclose(total, self.value, atol=1e-4, rtol=1e-4)

    def weight(self, term: str) -> np.ndarray:
        """(rows,)"""
        if term == self.output:
            return self.value.mean(axis=1)
        return (self.offset if term == "constant" else self.weights[term]).mean(axis=1)


def expected_rows(where: str, case: Case) -> np.ndarray:
    t, t_prev = case.inputs.get("t"), case.inputs.get("t_prev")
    return {
        "every": lambda: np.ones(len(next(iter(case.expected.values()))), bool),
        "scales": lambda: np.ones(len(case.params["scales"]), bool),
        "zero": lambda: t == 0,
        "late": lambda: t > 0,
        "last": lambda: t == case.params["timesteps"] - 1,
        "landing": lambda: t_prev == -1,
        "flying": lambda: t_prev >= 0,
        "stride": lambda: t - t_prev > 1,
    }[where]()


def check_rows(where: str, case: Case, wrong: np.ndarray) -> None:
    """wrong: (rows,) by probing."""
    assert wrong.any()
    if where not in ("", "some", "some scales"):
        assert np.array_equal(wrong, expected_rows(where, case)), (where, wrong)


def check_weight(a: Answer) -> None:
    f = a.finding
    if f.terms[0] in ("draws", "own noise"):
        return check_own_noise(a)
    given, right = Probe(a.of, a.case, f.output), Probe(None, a.case, f.output)
    if f.terms != (f.output,):
        assert given.is_sum
    change = {name: given.weight(name) - right.weight(name) for name in (*f.terms, *f.right)}
    for term in f.terms:
        check_rows(f.where, a.case, np.abs(change[term]) > NEAR * (1 + np.abs(right.weight(term))))
    for term in f.right:
        assert (np.abs(change[term]) <= NEAR * (1 + np.abs(right.weight(term)))).all(), term
    if f.factor:
        check_factor(f, given, right)


def check_factor(f: Finding, given: Probe, right: Probe) -> None:
    w, v = (np.stack([probe.weight(term) for term in f.terms], axis=1) for probe in (given, right))
    exact = {"atol": NEAR, "rtol": 1e-3}
    if f.factor == "missing":
        assert np.allclose(w, 0, **exact)
    elif f.factor == "sign":
        assert np.allclose(w, -v, **exact)
    elif f.factor == "swapped":
        assert np.allclose(w, v[:, ::-1], **exact)
    elif f.factor == "same":
        assert np.allclose(w, f.number * v, **exact)
    elif f.factor == "constant":
        assert np.allclose(w, w[0], **exact)
    else:
        check_rule(f, given)


def check_rule(f: Finding, given: Probe) -> None:
    """On another schedule, at all its times, but for those of a last step if the case has none."""
    steps, case = OTHER_SCHEDULE["timesteps"], given.case
    has_last = {name: case.inputs[name].min() == end for name, end in (("t", 0), ("t_prev", -1)) if name in case.inputs}
    first, to = 0 if has_last.get("t", True) else 1, -1 if has_last.get("t_prev", True) else 0
    t, t_prev = np.array([(a, b) for a in range(max(first, to + 1), steps) for b in range(to, a)]).T
    inputs = {name: np.ones((len(t), len(t))) for name, array in case.inputs.items() if array.dtype.kind == "f"}
    inputs |= {name: {"t": t, "t_prev": t_prev}[name] for name in ("t", "t_prev") if name in case.inputs}
    other = Case(case.id, case.name, case.call, case.check, {**case.params, **OTHER_SCHEDULE}, inputs, {})
    mine, right = Probe(given.of, other, f.output), Probe(None, other, f.output)
    betas = np.linspace(OTHER_SCHEDULE["beta_start"], OTHER_SCHEDULE["beta_end"], steps)
    bars = np.cumprod(1 - betas)
    nothing = [np.nan]
    tables = {
        "β": np.concatenate([nothing, betas, nothing]),
        "α": np.concatenate([nothing, 1 - betas, nothing]),
        "ᾱ": np.concatenate([[1], bars, nothing]),
        "(1−ᾱ)": np.concatenate([[0], 1 - bars, nothing]),
    }
    times = {"t": t, "t−1": t - 1, "t+1": t + 1, "t_prev": t_prev}

    def product(words: str) -> np.ndarray:
        found = np.ones(len(t))
        for root, name, time in re.findall(r"(√?)(β|α|ᾱ|\(1−ᾱ\))\[([^]]+)\]", words):
            values = tables[name][times[time] + 1]
            found = found * (np.sqrt(values) if root else values)
        return found

    kind, _, rest = f.factor.removeprefix("the right one ").removeprefix("divided ").partition(" ")
    above, _, below = rest.partition(" / ")
    sign = -1 if kind == "−" or above.startswith("−") else 1
    for term in f.terms:
        w, v = mine.weight(term), right.weight(term)
        if kind in ("+", "−"):
            difference = w - v - sign * product(above)
        elif kind == "by":
            difference = w * product(above) - sign * v
        else:
            assert kind == "times"
            difference = w * product(below) - sign * v * product(above)
        known = np.isfinite(difference)
        assert known.sum() > 20
        assert (np.abs(difference[known]) <= 1e-4).all(), (f.factor, np.abs(difference[known]).max())


def check_nonlinear(a: Answer) -> None:
    """It is not additive, not nothing for inputs of nothing, or not the same in another call."""
    given, again = (Probe(a.of, a.case, a.finding.output, seed=seed) for seed in (0, 1))
    assert not given.is_sum or np.abs(given.offset).max() > 1e-4 or not np.allclose(given.value, again.value, atol=1e-6)


def check_mixed(a: Answer) -> None:
    given = Probe(a.of, a.case, a.finding.output)
    moved, rng = {}, np.random.default_rng(6)
    for name in given.names:
        array = given.inputs[name].copy()
        array[0] += rng.standard_normal(array[0].shape)
        moved[name] = array
    before, after = given(), given(**moved)
    assert np.abs(after - before)[1:].max() > 1e-6


def check_input(a: Answer) -> None:
    given, name = Probe(a.of, a.case, a.finding.output), a.finding.terms[0]
    x = given.inputs[name]
    steps = [given(**{name: k * x}) for k in (0, 1, 2)]
    assert not np.allclose(steps[2] - steps[1], steps[1] - steps[0], atol=1e-4)
    for other in given.names:
        if other != name:
            y = given.inputs[other]
            steps = [given(**{other: k * y}) for k in (0, 1, 2)]
            assert np.allclose(steps[2] - steps[1], steps[1] - steps[0], atol=1e-4)


def check_offset(a: Answer) -> None:
    given, right = Probe(a.of, a.case, a.finding.output), Probe(None, a.case, a.finding.output)
    check_rows(a.finding.where, a.case, np.abs(given.offset).max(axis=1) > 1e-6)
    assert given.is_sum
    for name in given.names:
        assert np.allclose(given.weight(name), right.weight(name), atol=1e-4)


def check_first(a: Answer) -> None:
    given, right = Probe(a.of, a.case, a.finding.output), Probe(None, a.case, a.finding.output)
    times = {name: np.full_like(t, t[0]) for name, t in a.case.inputs.items() if t.dtype.kind == "i"}
    assert np.allclose(given.value, right(**times), atol=1e-4, rtol=1e-4)


def check_dimension(a: Answer) -> None:
    """The right function of turned inputs, turned back."""
    given, right = Probe(a.of, a.case, a.finding.output), Probe(None, a.case, a.finding.output)
    shape = given.inputs[given.names[0]].shape
    turns = [axis for axis in range(1, len(shape)) if shape[axis] == shape[0]]
    assert any(
        np.allclose(
            given.value.reshape(shape),
            right(**{name: given.inputs[name].swapaxes(0, axis) for name in given.names})
            .reshape(shape)
            .swapaxes(0, axis),
            atol=1e-4,
            rtol=1e-4,
        )
        for axis in turns
    )


def check_clamped(a: Answer) -> None:
    given = Probe(a.of, a.case, a.finding.output)
    large = given(**{name: 100 * given.inputs[name] for name in given.names})
    assert np.abs(large).max() <= np.abs(given(**{name: 10 * given.inputs[name] for name in given.names})).max() + 1e-6


def check_nan(a: Answer) -> None:
    """At its own inputs where values matter; everywhere where times do."""
    given = Probe(a.of, a.case, a.finding.output)
    if a.finding.where in ("", "some"):
        assert not np.isfinite(given(**{name: a.case.inputs[name] for name in given.names})).all()
    else:
        check_rows(a.finding.where, a.case, ~np.isfinite(given.value).any(axis=1))


def check_uneven(a: Answer) -> None:
    assert np.ptp(Probe(a.of, a.case, a.finding.output).value, axis=1).max() > 1e-6


# -- own noise, draws and the divergence ---------------------------------------------------------------------


def draws(a: Answer, seed: int) -> np.ndarray:
    """(calls, rows, n) of noise at the case's inputs, in units of the right one: 20 times as many as in the case."""
    found = []
    for i in range(20):
        params = {**a.case.params, "seed": 1000 * seed + i}
        found.append(driver.run(a.of.submission(), a.case.call, params, a.case.inputs)[a.finding.output])
    mean, scale = a.case.expected["mean"], a.case.expected["scale"]
    z = (np.concatenate(found) - mean) / scale
    return z.reshape(len(z), len(mean), -1)


def check_own_noise(a: Answer) -> None:
    z = draws(a, 1)
    if a.finding.terms == ("draws",):
        off = np.abs(z.mean(axis=0)) > 5 * z.std(axis=0) / np.sqrt(len(z)) + NEAR
        wrong = off.any(axis=1)
    else:
        wrong = np.abs(z.std(axis=0).mean(axis=1) - 1) > 0.01
    assert wrong.any()
    assert wrong.all() or a.finding.where == "some"
    assert a.finding.factor != "missing" or np.abs(z).max() < 1e-3


def check_alike(a: Answer) -> None:
    """Two rows, or two columns, of noise that should have nothing to do with each other."""
    if a.case.check == "reparameterize":
        shape = a.case.inputs["mu"].shape
        arrays = {"mu": np.zeros(shape), "logvar": np.zeros(shape), "weight": np.ones(shape)}
        z = driver.run(a.of.submission(), a.case.call, {**a.case.params, "seed": 9}, arrays)["z"]
    else:
        z = draws(a, 3)
        z = z - z.mean(axis=0)
    z = np.moveaxis(z, -2 if a.finding.kind == "alike rows" else -1, 0)
    assert abs(np.corrcoef(z[0].ravel(), z[1].ravel())[0, 1]) > 0.9 or np.ptp(z) == 0


def drawn(a: Answer, mu: float, logvar: float) -> np.ndarray:
    """Many draws at one mean and one variance."""
    shape = (4000, 8)
    arrays = {"mu": np.full(shape, mu), "logvar": np.full(shape, logvar), "weight": np.ones(shape)}
    return driver.run(a.of.submission(), a.case.call, {**a.case.params, "seed": 9}, arrays)["z"]


def check_draw(a: Answer) -> None:
    at = [(mu, logvar) for mu in (-1.5, 2.0) for logvar in (-2.0, 0.5, 1.5)]
    found = {where: drawn(a, *where) for where in at}
    if a.finding.terms == ("mean of z",):
        off = [abs(z.mean() - mu) > 6 * z.std() / np.sqrt(z.size) + 1e-6 for (mu, _), z in found.items()]
        assert any(off)
        return
    size = {where: z.std() / np.exp(where[1] / 2) for where, z in found.items()}
    assert any(abs(s - 1) > 0.03 for s in size.values())
    slopes = [np.log(size[mu, 1.5] / size[mu, -2.0]) / 3.5 for mu in (-1.5, 2.0) if size[mu, -2.0] > 0]
    wanted = {"same": 0.0, "variance": 0.5, "even": -0.5, "shrinks": -1.0}
    if a.finding.factor == "missing":
        assert all(s < 1e-3 for s in size.values())
    elif a.finding.factor:
        assert all(abs(slope - wanted[a.finding.factor]) < 0.05 for slope in slopes), slopes


def kl_of(of: Mutant | Entry | None) -> Callable[[float, float, int], float]:
    """The value for one row of equal entries."""
    submission = of.submission() if of else Submission()

    def value(mu: float, logvar: float, dimensions: int = 4) -> float:
        shape = (3, dimensions)
        arrays = {"mu": np.full(shape, float(mu)), "logvar": np.full(shape, float(logvar)), "weight": np.ones(3)}
        return float(driver.run(submission, "kl_divergence", {}, arrays)["kl"][0])

    return value


def kl_weights(value: Callable[..., float]) -> dict[str, float]:
    """Its weights, if it has the right forms, by setting all but one argument to 0."""
    at_zero, up, down = value(0, 0), value(0, 1), value(0, -1)
    variance = (up + down - 2 * at_zero) / (np.e + 1 / np.e - 2)
    return {
        "term of mu": value(3, 0) - at_zero,
        "term of variance": variance,
        "term of logvar": (up - down) / 2 - variance * np.sinh(1),
        "term of nothing": at_zero - variance,
    }


def check_kl(a: Answer) -> None:
    f, given, right = a.finding, kl_of(a.of), kl_of(None)
    if f.kind == "weight":
        w, v = kl_weights(given), kl_weights(right)
        assert not [term for term in f.terms if abs(w[term] - v[term]) < 1e-6]
        assert not [term for term in f.right if abs(w[term] - v[term]) > 1e-4]
        if f.factor == "missing":
            assert all(abs(w[term]) < 1e-6 for term in f.terms)
        elif f.factor == "sign":
            assert all(abs(w[term] + v[term]) < 1e-4 for term in f.terms)
        elif f.factor == "dimensions":  # in another number of dimensions, by that number
            ratio = given(1, 1, 7) / given(1, 1, 4) / (right(1, 1, 7) / right(1, 1, 4))
            assert "term of nothing" in f.terms or abs(ratio - 1) > 0.1
    elif f.kind == "form":
        steps = (-3.5, -1.5, -0.5, 0.0, 0.6, 1.7, 3.0)
        for arg in f.terms:
            grown = []  # with the argument, in units of what is right; one number for a wrong weight
            for other in (0.3, -0.8):
                rows = [(x, other) if arg == "mu" else (other, x) for x in steps]
                g, r = (np.array([value(*row) for row in rows]) for value in (given, right))
                grown.append(np.diff(g) / np.diff(r))
            assert np.ptp(grown) > 1e-4 or not np.isfinite(grown).all(), arg
    elif f.kind == "mixed":
        mu = np.array([[0.0] * 4, [3.0] * 4])
        arrays = {"mu": mu, "logvar": 0 * mu, "weight": np.ones(2)}
        assert driver.run(a.of.submission(), "kl_divergence", {}, arrays)["kl"][0] > 1
    elif f.kind == "dimension":
        arrays = {"mu": np.diag([1.0, 2, 3])[:, [1, 0, 2]], "logvar": np.zeros((3, 3)), "weight": np.ones(3)}
        run = driver.run(Submission(), "kl_divergence", {}, {**arrays, "mu": arrays["mu"].T})["kl"]
        assert np.allclose(driver.run(a.of.submission(), "kl_divergence", {}, arrays)["kl"], run)
    else:
        assert f.kind == "gradient"
        assert abs(given(1.3, 0.4) - right(1.3, 0.4)) < 1e-6


CHECKS: dict[str, Callable[[Answer], None]] = {
    "weight": check_weight,
    "nonlinear": check_nonlinear,
    "mixed": check_mixed,
    "input": check_input,
    "offset": check_offset,
    "first": check_first,
    "dimension": check_dimension,
    "clamped": check_clamped,
    "nan": check_nan,
    "uneven": check_uneven,
    "alike rows": check_alike,
    "alike columns": check_alike,
}


def check(a: Answer) -> None:
    if a.finding.kind.startswith("alike"):
        check_alike(a)
    elif a.case.check == "reparameterize":
        check_draw(a)
    elif a.case.call == "kl_divergence":
        check_kl(a)
    else:
        CHECKS[a.finding.kind](a)


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("of", [answers_of_mutants, answers_of_chaffs], ids=["mutants", "chaffs"])
def test_findings_are_true(of, id):
    checked, untrue = 0, []
    for answers in of(id):
        for a in answers:
            if a.finding is None or (isinstance(a.of, Entry) and a.of.name in ONE_OF_A_KIND):
                continue
            checked += 1
            try:
                check(a)
            except (AssertionError, RuntimeError) as error:
                what = str(a.of) if isinstance(a.of, Mutant) else a.of.name
                untrue.append(f"{what} on {a.case.name}: {a.finding}: {str(error)[:200]}")
    print(f"{checked} findings")
    assert checked > 0
    assert not untrue, f"{len(untrue)} of {checked}:\n" + "\n".join(untrue[:12])
