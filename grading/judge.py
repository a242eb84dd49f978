"""Looks at what a call returned and says whether it is right; if not, what was asked, what came, what to revisit.

A check is a function (case, result) -> (fingerprint, problems). The fingerprint is what known mistakes are recognised
by: the output itself, or statistics of it. No problem means that the case is passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from grading.cases import Arrays, Case, Standins
from grading.findings import SUMS, Finding
from grading.measuring import find
from grading.submission import SubmissionError


class Problem(NamedTuple):
    """What is wrong. discreet: the same without a number that tells of the inputs; empty if `text` has none.

    is_formal: whether it would be wrong whatever the formula is: another shape, dtype, kind.
    """

    text: str
    discreet: str = ""
    is_formal: bool = False


# (call, params, arrays, standins) -> arrays: what `driver.run` does, in this process or in another one.
Call = Callable[[str, dict[str, Any], Arrays, Standins], Arrays]
Check = Callable[[Case, Arrays], tuple[Arrays, list[Problem]]]

WRONG_KIND = "it cannot be called as the assignment does, or returns something of another kind than asked for"

SIGMAS = 6.0  # a right answer to a random check fails once in 10^9 seeds, and the seeds are fixed
CHANCE = 1e-9  # the same as a probability
NO_NOISE = 1e-3  # in standard deviations of what is asked for


@dataclass
class Verdict:
    """Whether a case is passed; if not, why, and the names of the known mistakes that give the same result.

    discreet: why, in words that may be shown although the case is hidden.
    is_formal: whether the formula has nothing to do with it.
    measure: finds what is wrong by measuring. That takes as long as judging, and hardly any verdict is asked for it.
    """

    passed: bool
    problem: str = ""
    mistakes: tuple[str, ...] = ()
    discreet: str = ""
    is_formal: bool = False
    measure: Callable[[], list[Finding]] = field(default=list, compare=False, repr=False)

    @property
    def mistake(self) -> str | None:
        """The known mistake that explains most."""
        return self.mistakes[0] if self.mistakes else None

    @cached_property
    def findings(self) -> list[Finding]:
        """What was measured of what no known mistake explains, at most one finding for each result."""
        return self.measure()

    @property
    def finding(self) -> Finding | None:
        """Where no known mistake was recognised, the first of the findings; None if nothing is sure."""
        return self.findings[0] if self.findings and not self.mistakes else None


def judge(case: Case, result: Arrays) -> Verdict:
    """The verdict on the result of one call. Shape, dtype, finiteness and purity first, values after that."""
    mistakes: tuple[str, ...] = ()
    problem = _gate(case, result)
    if problem is None:
        with np.errstate(all="ignore"):  # a result may hold the largest numbers there are
            fingerprint, problems = CHECKS[case.check](case, result)
            if not problems:
                return Verdict(True)
            problem = problems[0]
            mistakes, result = _explain(case, fingerprint, result)
    said = problem.discreet or problem.text
    return Verdict(False, problem.text, mistakes, said, problem.is_formal, partial(find, case, result))


def run_and_judge(call: Call, case: Case) -> Verdict:
    """Judge a case with the submission's own helpers, and if that fails with sound ones; the better result counts.

    What the submission raises passes through, if the second try raises too.
    """
    verdict = None
    try:
        verdict = judge(case, call(case.call, case.params, case.inputs, {}))
    except SubmissionError as error:
        verdict = Verdict(False, str(error), discreet=WRONG_KIND, is_formal=True)
    except Exception:
        if not case.standins:
            raise
    if verdict is not None and (verdict.passed or not case.standins):
        return verdict
    try:
        second = judge(case, call(case.call, case.params, case.inputs, case.standins))
    except SubmissionError as error:
        second = Verdict(False, str(error), discreet=WRONG_KIND, is_formal=True)
    except Exception:
        if verdict is None:
            raise
        return verdict
    # The second verdict is about this function alone, so it is also the better explanation.
    is_better = second.passed or verdict is None or second.mistake or (not verdict.mistake and second.finding)
    return second if is_better or verdict is None else verdict


# -- the gate ------------------------------------------------------------------------------------------


def _gate(case: Case, result: Arrays) -> Problem | None:
    """What is wrong with the result whatever its values are."""
    dtype = next(array for array in case.inputs.values() if array.dtype.kind == "f").dtype
    arguments = {f"after/{name}": given for name, given in case.inputs.items()}
    for name, given in arguments.items():
        if name not in result or result[name].shape != given.shape or not np.array_equal(result[name], given):
            changed = f"the argument `{name.removeprefix('after/')}` was changed; leave arguments as they are"
            return Problem(changed, is_formal=True)
    for name, value in result.items():
        if name in arguments:
            continue
        if name not in OUTPUTS:  # names are not repeated: they can be made up of hidden inputs
            return Problem("something came back that was not asked for", is_formal=True)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            return Problem(
                f"{bad} of {value.size} values of `{name}` are NaN or infinite",
                f"values of `{name}` are NaN or infinite",
            )
        if name in GRADED_OUTPUTS and value.dtype != dtype:
            text = f"`{name}` is {value.dtype} where the input is {dtype}; keep the dtype"
            return Problem(text, f"`{name}` has another dtype than the input; keep the dtype", is_formal=True)
    return None


GRADED_OUTPUTS = {"x_t", "x0", "mean", "variance", "x_prev", "kl", "z", "eps", "out"}
_RECORDED = {"again", "grad_mu", "grad_logvar", "samples", "seen_x", "seen_t", "seen_cond"}
_RECORDED |= {"rows", "grad_cond", "params_reached", "moved", "out_other_x", "out_other_t", "out_other_cond"}
OUTPUTS = GRADED_OUTPUTS | _RECORDED


def _shapes(result: Arrays, **want: tuple[int, ...] | None) -> Problem | None:
    """The first of these results that is missing or has another shape; None for any shape.

    Results come from where the submission runs. Nothing may be computed from one before its shape is known.
    """
    for name, shape in want.items():
        if name not in result:
            return Problem(f"`{name}` could not be computed", is_formal=True)
        if shape is not None and result[name].shape != shape:
            text = f"`{name}` has shape {result[name].shape}, where {shape} is asked for"
            return Problem(text, f"`{name}` has the wrong shape")
    return None


# -- the checks -----------------------------------------------------------------------------------------


def check_value(case: Case, result: Arrays) -> tuple[Arrays, list[Problem]]:
    """Every expected array, within the case's tolerance. A variance may be broadcastable to its mean."""
    fingerprint: Arrays = {}
    for name, want in case.expected.items():
        if name == "variance" and name in result:
            try:
                got = np.broadcast_to(result[name], want.shape)
            except ValueError:
                shape = result[name].shape
                text = f"`variance` has shape {shape}, which does not broadcast to the mean's {want.shape}"
                discreet = "`variance` has a shape that does not broadcast to the mean's"
                return {name: result[name].astype(np.float64)}, [Problem(text, discreet)]
            fingerprint[name] = got.astype(np.float64)
            continue
        problem = _shapes(result, **{name: want.shape})
        if problem:
            return {name: result[name].astype(np.float64)} if name in result else {}, [problem]
        fingerprint[name] = result[name].astype(np.float64)
    problems = []
    for name, want in case.expected.items():
        atol, rtol = case.tolerances.get(name, case.tolerance)
        error = np.abs(fingerprint[name] - want)
        wrong = error > atol + rtol * np.abs(want)
        if wrong.any():
            rows = np.flatnonzero(wrong.reshape(len(want), -1).any(axis=1))
            text = f"`{name}` is off by up to {error.max():.2g} in {_rows(rows, len(want), case)} "
            text += f"(allowed: {atol:g} + {rtol:g} of the value)"
            row = "scale" if "scales" in case.params else "row"
            where = f"every {row}" if len(rows) == len(want) else f"some {row}s"
            problems.append(Problem(text, f"`{name}` has wrong values in {where}"))
    return fingerprint, problems


def _rows(rows: np.ndarray, batch: int, case: Case) -> str:
    if "scales" in case.params:
        return "its answer at scale " + ", ".join(f"{case.params['scales'][row]:g}" for row in rows)
    if len(rows) == batch:
        return "every row" if batch > 1 else "its one row"
    where = f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:6]))}{', ...' if len(rows) > 6 else ''}"
    if "t" in case.inputs:
        where += f" (t = {', '.join(str(case.inputs['t'][row]) for row in rows[:6])})"
    return where


def check_noise(case: Case, result: Arrays) -> tuple[Arrays, list[Problem]]:
    """mean + scale * noise, drawn several times: the noise recovered from it is N(0, I), and fresh in every call."""
    mean, scale = case.expected["mean"], case.expected["scale"]
    name = "x_t" if case.call == "q_sample" else "x_prev"
    problem = _shapes(result, **{name: (case.params["draws"], *mean.shape)})
    if problem:
        return {}, [problem]
    return _noise_statistics((result[name] - mean) / scale)


# For each axis of the noise: what to say when its slices are alike, are related otherwise, have no noise in some of
# them, or differ in strength.
_SHARED = (
    "calls share their noise; every call needs fresh noise",
    "the rows of a batch share their noise; every element needs its own",
    "the elements of a row share their noise; every element needs its own",
)
_RELATED = (
    "the noise of one call tells that of another; every call needs fresh noise",
    "the noise of one row tells that of another; every element needs its own",
    "the noise of one element of a row tells that of another; every element needs its own",
)
_MISSING = (
    "there is no noise in some calls; every call needs its own",
    "there is no noise in some rows; every row needs its own",
    "there is no noise in some elements of a row; every element needs its own",
)
_UNEVEN = (
    "the noise is stronger in some calls than in others",
    "the noise is stronger in some rows than in others",
    "the noise is stronger in some elements of a row than in others",
)


def _noise_statistics(noise: np.ndarray) -> tuple[Arrays, list[Problem]]:
    """Moments, shape and independence of what should be standard noise: (calls, rows, ...).

    Everything is asked the right way round, so that a NaN is no pass.
    """
    eps = noise.reshape(*noise.shape[:2], -1).astype(np.float64)
    squares = np.square(eps)
    mean, std, fourth, distance = eps.mean(), eps.std(), np.square(squares).mean(), _distance_to_normal(eps)
    problems = []
    power = [np.moveaxis(squares, axis, 0).reshape(eps.shape[axis], -1).mean(axis=1) for axis in range(3)]
    if std < NO_NOISE:
        problems.append(Problem("there is no noise in the result: it is the same for every draw"))
    for missing, of in zip(_MISSING, power):
        if std >= NO_NOISE and of.min() < NO_NOISE**2:
            problems.append(Problem(missing))
    if not abs(mean) <= SIGMAS / np.sqrt(eps.size):
        text = f"the noise has mean {mean:.3f}, where 0 is asked for"
        problems.append(Problem(text, "the mean of the noise is not 0"))
    if not abs(std - 1) <= SIGMAS / np.sqrt(2 * eps.size):
        text = f"the noise has standard deviation {std:.3f}, where 1 is asked for"
        problems.append(Problem(text, "the standard deviation of the noise is not 1"))
    ratios = []
    for axis, (shared, related, uneven) in enumerate(zip(_SHARED, _RELATED, _UNEVEN)):
        slices = np.moveaxis(eps, axis, 0).reshape(eps.shape[axis], -1)
        ratio = float(np.square(slices.mean(axis=0)).mean() * len(slices))  # 1 for independent slices
        ratios.append(ratio)
        sigmas = _chi_square_sigmas(ratio, slices.shape[1])
        if not sigmas <= SIGMAS:
            problems.append(Problem(shared))
        elif not sigmas >= -SIGMAS or not _are_unrelated(slices):
            problems.append(Problem(related))
        spread = _chi_square_sigmas(power[axis], slices.shape[1])
        largest = np.sqrt(SIGMAS**2 + 2 * np.log(len(slices)))  # that chance allows for so many
        altogether = _chi_square_sigmas(np.square(spread).mean(), len(slices))
        if not (np.abs(spread).max() <= largest and altogether <= SIGMAS):
            problems.append(Problem(uneven))
    if not abs(fourth - 3) <= SIGMAS * np.sqrt(96 / eps.size):
        text = f"the noise is not Gaussian: its fourth moment is {fourth:.2f}, where 3 is asked for"
        problems.append(Problem(text, "the noise is not Gaussian"))
    elif not distance <= np.sqrt(np.log(2 / CHANCE) / (2 * eps.size)):  # Dvoretzky, Kiefer, Wolfowitz and Massart
        text = f"the noise is not Gaussian: the share of values below some number is off by {distance:.2f}"
        problems.append(Problem(text, "the noise is not Gaussian"))
    return {"noise": np.array([mean, std, np.log1p(fourth), *np.log1p(ratios), distance])}, problems


@cache
def _normal_shares() -> tuple[np.ndarray, np.ndarray]:
    """Numbers, and the probability that a standard normal one is not above them."""
    points = np.linspace(-4, 4, 321)
    return points, np.array([0.5 + 0.5 * math.erf(point / math.sqrt(2)) for point in points])


def _distance_to_normal(values: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance, on a grid."""
    points, shares = _normal_shares()
    return float(np.abs(np.searchsorted(np.sort(values, axis=None), points, side="right") / values.size - shares).max())


def _chi_square_sigmas(ratio: Any, n: int) -> Any:
    """How unusual the mean of n squares of standard normal numbers is, in standard deviations (Wilson and Hilferty)."""
    return (np.cbrt(ratio) - (1 - 2 / (9 * n))) / np.sqrt(2 / (9 * n))


def _are_unrelated(slices: np.ndarray) -> bool:
    """Whether no two rows of independent noise point the same or the opposite way, as far as chance allows."""
    count, n = slices.shape
    length = np.sqrt(np.square(slices).sum(axis=1, keepdims=True))
    directions = (slices / length).astype(np.float32)  # takes half the time, and what is asked is far from its rounding
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, 0)
    largest = float(np.maximum(cosines.max(), -cosines.min()))
    # For directions in n dimensions, P(|cosine| > c) < (1 - c^2)^((n - 1) / 2).
    return bool(largest**2 <= 1 - (CHANCE / (count * (count - 1) / 2)) ** (2 / (n - 1)))


def check_reparameterize(case: Case, result: Arrays) -> tuple[Arrays, list[Problem]]:
    """The noise is standard in every column, fresh in every call, and gradients reach both arguments by value."""
    mean, scale, weight = case.expected["mean"], case.expected["scale"], case.expected["weight"]
    more = (case.params["draws"] - 1, *mean.shape)
    problem = _shapes(result, z=mean.shape, again=more, grad_mu=mean.shape, grad_logvar=mean.shape)
    if problem:
        return {}, [problem]
    z = result["z"].astype(np.float64)
    eps = (np.concatenate([z[None], result["again"]]) - mean) / scale
    statistics, problems = _noise_statistics(eps)
    want_mu, want_logvar = weight, weight * 0.5 * (z - mean)  # dz/dmu = 1, dz/dlogvar = ½ (z - mu)
    slopes = [_slope(result["grad_mu"], want_mu), _slope(result["grad_logvar"], want_logvar)]
    for name, want in (("mu", want_mu), ("logvar", want_logvar)):
        got = result[f"grad_{name}"]
        if not np.any(got):
            problems.append(Problem(f"no gradient reaches `{name}`"))
        elif not np.allclose(got, want, atol=1e-3, rtol=1e-3):
            problems.append(Problem(f"the gradient with respect to `{name}` is not that of the draw"))
    statistics["columns"], statistics["slopes"] = np.log(eps.std(axis=(0, 1)) + 1e-6), np.array(slopes)
    return statistics, problems


def _slope(got: np.ndarray, want: np.ndarray) -> float:
    """The factor between two arrays, by least squares."""
    return float((got * want).sum() / max((want * want).sum(), 1e-12))


def check_conditioning(case: Case, result: Arrays) -> tuple[Arrays, list[Problem]]:
    """The output listens to x, t and cond in every row, rows are independent, and gradients reach the whole text."""
    like = case.expected["like"].shape
    problem = _shapes(result, out=like)
    if problem:
        return {name: result[name] for name in ("out",) if name in result}, [problem]
    others = {f"out_other_{name}": like for name in ("x", "t", "cond")}
    problem = _shapes(result, **others, rows=None, grad_cond=case.inputs["cond"].shape, params_reached=())
    if problem:
        return {}, [problem]
    out, problems = result["out"], []
    for name, what in (("x", "x"), ("t", "the time"), ("cond", "the text")):
        change = np.abs(result[f"out_other_{name}"] - out).max(axis=1)
        if change.min() < 1e-5:
            problems.append(Problem(f"the output stays the same when {what} changes"))
    rows = out[slice(*case.params["rows"])]
    if result["rows"].shape != rows.shape or not np.allclose(result["rows"], rows, atol=1e-3, rtol=1e-3):
        problems.append(Problem("the output for a row depends on the other rows of the batch"))
    slopes = np.abs(result["grad_cond"])
    if (slopes.max(axis=1) == 0).any():
        where = " of some rows" if slopes.any() else ""
        problems.append(Problem(f"no gradient reaches the text embedding{where}"))
    elif (slopes.max(axis=0) == 0).any():
        problems.append(Problem("no gradient reaches some entries of the text embedding"))
    if result["params_reached"] == 0:
        problems.append(Problem("no gradient reaches any parameter"))
    return {name: result[name].astype(np.float64) for name in ("out", "grad_cond", "params_reached")}, problems


def check_toy(case: Case, result: Arrays) -> tuple[Arrays, list[Problem]]:
    """After the toy training, predictions are nearer to those that know the text than to those that do not.

    Who listens a little has learned a little by then; who is deaf has learned nothing of what the text tells.
    """
    want, deaf = case.expected["eps"], case.expected["deaf"]
    parts = case.params["parts"]
    problem = _shapes(result, eps=want.shape, moved=(len(parts),))
    if problem:
        return {}, [problem]
    told = want - deaf  # by the text
    error, allowed = np.square(result["eps"] - want).mean(), 0.5 * np.square(told).mean()
    if error < allowed:
        return {}, []
    text = f"its error is {error:.3f}, where less than {allowed:.3f} is asked for"
    for part, has_moved in zip(parts, result["moved"]):
        text += "" if has_moved else f"; nothing in `{part}` changed, so no gradient reaches it"
    # A right network follows it by nine tenths or more, one that is deaf by less than a tenth.
    if _slope(result["eps"] - deaf, told) > 0.2:
        learned = "after a short training on two clusters it follows the text, but too little, or is wrong otherwise"
    else:
        learned = "after a short training on two clusters it predicts as who ignores the text does"
    return {}, [Problem(f"{learned}: {text}", learned)]


def check_sample(case: Case, result: Arrays) -> tuple[Arrays, list[Problem]]:
    """A whole sampler around a known linear network, step by step from what the network saw.

    Each step must be x' = gain x + offset + cond_gain mean(cond) + sigma z, with z standard normal.
    """
    want = case.expected
    steps, shape = len(want["t"]), (case.params["batch_size"], *case.params["shape"])
    problem = _shapes(result, samples=shape, seen_t=None, seen_x=None)
    if problem:
        return {}, [problem]
    calls = len(result["seen_t"]) if result["seen_t"].ndim else 0
    if calls != steps:
        return {}, [Problem(f"the network was called {calls} times in {steps} steps")]
    problem = _shapes(result, seen_t=(steps, shape[0]), seen_x=(steps, *shape))
    if problem:
        return {}, [problem]
    if not np.array_equal(result["seen_t"], np.broadcast_to(want["t"][:, None], (steps, shape[0]))):
        seen = result["seen_t"][:, 0].tolist()
        return {}, [Problem(f"the network saw t = {seen}, where {want['t'].tolist()} is asked for")]
    text = np.zeros(shape[0])
    if "cond" in case.inputs:
        cond = case.inputs["cond"]
        every = np.broadcast_to(cond, (steps, *cond.shape))
        if "seen_cond" not in result or not np.array_equal(result["seen_cond"], every):
            return {}, [Problem("the network did not get the condition in every step")]
        text = cond.mean(axis=-1)
    level = (-1, *[1] * (len(shape) - 1))
    states = [*result["seen_x"], result["samples"]]
    noise = [states[0].ravel()]
    for i in range(steps):
        offset = want["offset"][i] + want["cond_gain"][i] * text.reshape(level)
        rest = states[i + 1] - (want["gain"][i] * states[i] + offset)
        if want["sigma"][i] > 0:
            noise.append((rest / want["sigma"][i]).ravel())
        elif not np.abs(rest).max() <= 1e-3 * (1 + np.abs(states[i + 1]).max()):
            return {}, [Problem(f"the step from t = {want['t'][i]} is off by up to {np.abs(rest).max():.2g}")]
    z = np.concatenate(noise)
    mean, std = z.mean(), z.std()
    if abs(mean) <= SIGMAS / np.sqrt(z.size) and abs(std - 1) <= SIGMAS / np.sqrt(2 * z.size):
        return {}, []
    return {}, [Problem(f"the noise of its steps has mean {mean:.2f} and standard deviation {std:.2f}, not 0 and 1")]


CHECKS: dict[str, Check] = {
    "value": check_value,
    "noise": check_noise,
    "reparameterize": check_reparameterize,
    "conditioning": check_conditioning,
    "toy": check_toy,
    "sample": check_sample,
}


# -- where tensors are made --------------------------------------------------------------------------------

DEVICE_NOTE = (
    "On a GPU it would stop with an error, or answer on the wrong device: a tensor that it makes is not told to lie "
    "where its input lies. This costs no points."
)


def device_case(cases: list[Case]) -> Case:
    """The one of a function's cases that tells most of where it makes tensors: one in which it draws noise."""
    return next((case for case in cases if case.check == "noise"), cases[0])


def device_note(call: Call, case: Case) -> str:
    """DEVICE_NOTE if a function makes tensors that would lie on another device than its input, else "".

    It must have answered the case before: what it keeps from its first call is not to be made while it is watched.
    """
    found = call("devices", {**case.params, "of": case.call}, case.inputs, case.standins)
    return DEVICE_NOTE if np.array_equal(found.get("is_missed", np.zeros(())), 1) else ""


# -- known mistakes ---------------------------------------------------------------------------------------


def _explain(case: Case, fingerprint: Arrays, result: Arrays) -> tuple[tuple[str, ...], Arrays]:
    """The known mistakes that give this result, and what of it they leave to be measured.

    Where none gives all of it, there may be two. So each output is looked at alone, and in it the rows of the last
    step: a mistake explains such a part if it gives the same there and is wrong nowhere else than the result is.
    """
    comparable = {
        name: known
        for name, known in case.mistakes.items()
        if known.keys() == fingerprint.keys() and all(known[key].shape == fingerprint[key].shape for key in known)
    }
    every = {name: [(known[key], fingerprint[key], key) for key in known] for name, known in comparable.items()}
    whole = _nearest(case, every)
    if whole is not None:
        return (whole,), {}
    shapes = {output: values.shape for output, values in fingerprint.items()}
    if case.call not in SUMS or shapes != {output: values.shape for output, values in case.expected.items()}:
        return (), result
    parts = [(output, rows) for output in case.expected for rows in _kinds_of_rows(case)]
    wrong = _wrong(case, fingerprint, parts)
    found: list[str] = []
    left = dict(result)
    wrong_of = {mistake: set(_wrong(case, known, parts)) for mistake, known in comparable.items()}
    for i in wrong:
        output, rows = parts[i]
        there = {
            mistake: [(known[output][rows], fingerprint[output][rows], output)]
            for mistake, known in comparable.items()
            if i in wrong_of[mistake] and wrong_of[mistake] <= set(wrong)
        }
        name = _nearest(case, there)
        if name is not None:
            found += [name] * (name not in found)
            left[output] = np.broadcast_to(left[output], case.expected[output].shape).copy()
            left[output][rows] = case.expected[output][rows]
    return tuple(found), left


def _kinds_of_rows(case: Case) -> list[np.ndarray]:
    """The rows of the last step, and all others; what a rule of its own can be wrong for."""
    rows = len(next(iter(case.expected.values())))
    if "t" not in case.inputs or case.inputs["t"].shape != (rows,):
        return [np.ones(rows, dtype=bool)]
    is_last = case.inputs["t_prev"] == -1 if "t_prev" in case.inputs else case.inputs["t"] == 0
    return [kind for kind in (~is_last, is_last) if kind.any()]


def _wrong(case: Case, values: Arrays, parts: list[tuple[str, np.ndarray]]) -> list[int]:
    """Which parts of some values are not what is expected."""
    found = []
    for i, (output, rows) in enumerate(parts):
        atol, rtol = case.tolerances.get(output, case.tolerance)
        want = case.expected[output][rows]
        if not (np.abs(values[output][rows] - want) <= atol + rtol * np.abs(want)).all():
            found.append(i)
    return found


def _nearest(case: Case, pairs: dict[str, list[tuple[np.ndarray, np.ndarray, str]]]) -> str | None:
    """The mistake whose values are nearest, out of those that are as near as noise allows.

    pairs: by name, what it gives, what came, and of which output that is.
    """
    best, best_distance = None, 1.0
    for mistake, values in pairs.items():
        distance = max(_distance(case, output, got, known) for known, got, output in values)
        if distance < best_distance:
            best, best_distance = mistake, distance
    return best


def _distance(case: Case, output: str, got: np.ndarray, known: np.ndarray) -> float:
    """The largest deviation in units of what is allowed; below 1 is a match."""
    exact = case.tolerances.get(output, case.tolerance)[0], 1e-3
    atol, rtol = (0.2, 0.1) if case.check in ("noise", "reparameterize") else exact
    return float((np.abs(got - known) / (atol + rtol * np.abs(known))).max())
