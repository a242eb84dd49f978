"""Looks at what a call returned and says whether it is right; if not, what was asked, what came, what to revisit.

A check is a function (case, result) -> (fingerprint, problems). The fingerprint is what known mistakes are recognised
by: the output itself, or statistics of it. No problem means that the case is passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grading import driver
from grading.cases import Arrays, Case
from grading.submission import Submission, SubmissionError

Check = Callable[[Case, Arrays], tuple[Arrays, list[str]]]

SIGMAS = 6.0  # a right answer to a random check fails once in 10^9 seeds, and the seeds are fixed


@dataclass
class Verdict:
    """Whether a case is passed; if not, why, and the name of the known mistake that gives the same result."""

    passed: bool
    problem: str = ""
    mistake: str | None = None


def judge(case: Case, result: Arrays) -> Verdict:
    """The verdict on the result of one call. Shape, dtype, finiteness and purity first, values after that."""
    problem = _gate(case, result)
    if problem:
        return Verdict(False, problem)
    fingerprint, problems = CHECKS[case.check](case, result)
    if not problems:
        return Verdict(True)
    return Verdict(False, problems[0], _recognise(case, fingerprint))


def run_and_judge(submission: Submission, case: Case) -> Verdict:
    """Judge a case with the submission's own helpers, and if that fails with sound ones; the better result counts.

    What the submission raises passes through, if the second try raises too.
    """
    try:
        verdict = judge(case, driver.run(submission, case.call, case.params, case.inputs))
    except SubmissionError as error:
        verdict = Verdict(False, str(error))
    except Exception:
        if not case.standins:
            raise
        verdict = None
    if (verdict is not None and verdict.passed) or not case.standins:
        return verdict
    try:
        second = judge(case, driver.run(submission, case.call, case.params, case.inputs, case.standins))
    except SubmissionError as error:
        second = Verdict(False, str(error))
    except Exception:
        if verdict is None:
            raise
        return verdict
    # The second verdict is about this function alone, so it is also the better explanation.
    return second if second.passed or verdict is None or second.mistake else verdict


def describe(case: Case) -> str:
    """The case in words: what was called, on what."""
    floats = next(array for array in case.inputs.values() if array.dtype.kind == "f")
    parts = [f"{case.call} on {tuple(floats.shape)} {floats.dtype}"]
    if "timesteps" in case.params:
        p = case.params
        parts.append(f"T = {p['timesteps']}, betas from {p['beta_start']:g} to {p['beta_end']:g}")
    for name in ("t", "t_prev"):
        if name in case.inputs and case.inputs[name].ndim == 1:
            values = case.inputs[name].tolist()
            parts.append(f"{name} = {values if len(values) <= 8 else 'mixed'}")
    parts += [f"{name} = {case.params[name]:g}" for name in ("eta", "scale") if name in case.params]
    return ", ".join(parts)


# -- the gate ------------------------------------------------------------------------------------------


def _gate(case: Case, result: Arrays) -> str | None:
    """What is wrong with the result whatever its values are."""
    dtype = next(array for array in case.inputs.values() if array.dtype.kind == "f").dtype
    for name, value in result.items():
        if name.startswith("after/"):
            given = case.inputs[name.removeprefix("after/")]
            if value.shape != given.shape or not np.array_equal(value, given):
                return f"the argument `{name.removeprefix('after/')}` was changed; leave arguments as they are"
        elif value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            return f"{bad} of {value.size} values of `{name}` are NaN or infinite"
        elif name in GRADED_OUTPUTS and value.dtype != dtype:
            return f"`{name}` is {value.dtype} where the input is {dtype}; keep the dtype"
    return None


GRADED_OUTPUTS = {"x_t", "x0", "mean", "variance", "x_prev", "kl", "z", "eps", "out"}


def _same_shape(name: str, value: np.ndarray, want: tuple[int, ...]) -> str | None:
    if value.shape != want:
        return f"`{name}` has shape {value.shape}, where {want} is asked for"
    return None


# -- the checks -----------------------------------------------------------------------------------------


def check_value(case: Case, result: Arrays) -> tuple[Arrays, list[str]]:
    """Every expected array, within the case's tolerance. A variance may be broadcastable to its mean."""
    fingerprint: Arrays = {}
    for name, want in case.expected.items():
        if name not in result:  # gradients are not asked for when the values have the wrong shape
            return {}, [f"`{name}` could not be computed"]
        got = result[name].astype(np.float64)
        if name == "variance":
            try:
                got = np.broadcast_to(got, want.shape)
            except ValueError:
                return {"variance": got}, [
                    f"`variance` has shape {got.shape}, which does not broadcast to the mean's {want.shape}"
                ]
        problem = _same_shape(name, got, want.shape)
        if problem:
            return {name: got}, [problem]
        fingerprint[name] = got
    atol, rtol = case.tolerance
    problems = []
    for name, want in case.expected.items():
        error = np.abs(fingerprint[name] - want)
        wrong = error > atol + rtol * np.abs(want)
        if wrong.any():
            rows = np.flatnonzero(wrong.reshape(len(want), -1).any(axis=1))
            problems.append(
                f"`{name}` is off by up to {error.max():.2g} in {_rows(rows, len(want), case)} "
                f"(allowed: {atol:g} + {rtol:g} of the value)"
            )
    return fingerprint, problems


def _rows(rows: np.ndarray, batch: int, case: Case) -> str:
    if len(rows) == batch:
        return "every row" if batch > 1 else "its one row"
    where = f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:6]))}{', ...' if len(rows) > 6 else ''}"
    if "t" in case.inputs:
        where += f" (t = {', '.join(str(case.inputs['t'][row]) for row in rows[:6])})"
    return where


def check_noise(case: Case, result: Arrays) -> tuple[Arrays, list[str]]:
    """mean + scale * noise with noise that the function draws itself: the noise recovered from it is N(0, I)."""
    (name,) = GRADED_OUTPUTS & result.keys()
    mean, scale = case.expected["mean"], case.expected["scale"]
    problem = _same_shape(name, result[name], mean.shape)
    if problem:
        return {}, [problem]
    eps = (result[name] - mean) / scale
    return _noise_statistics(eps)


def _noise_statistics(eps: np.ndarray) -> tuple[Arrays, list[str]]:
    """Moments, and independence between rows and between columns, of what should be (B, D) standard noise."""
    rows, columns = eps.shape
    mean, std, fourth = eps.mean(), eps.std(), (eps**4).mean()
    # For independent entries both are 1 on average: the variance of column means times B, of row means times D.
    across_rows, across_columns = eps.mean(axis=0).var() * rows, eps.mean(axis=1).var() * columns
    problems = []
    if std < 1e-3:
        problems.append("there is no noise in the result: it is the same for every draw")
    if abs(mean) > SIGMAS / np.sqrt(eps.size):
        problems.append(f"the noise has mean {mean:.3f}, where 0 is asked for")
    if abs(std - 1) > SIGMAS / np.sqrt(2 * eps.size):
        problems.append(f"the noise has standard deviation {std:.3f}, where 1 is asked for")
    elif abs(fourth - 3) > SIGMAS * np.sqrt(96 / eps.size):
        problems.append(f"the noise is not Gaussian: its fourth moment is {fourth:.2f}, where 3 is asked for")
    if across_rows > 1 + SIGMAS * np.sqrt(2 / columns):
        problems.append("the rows of a batch share their noise; every element needs its own")
    if across_columns > 1 + SIGMAS * np.sqrt(2 / rows):
        problems.append("the elements of a row share their noise; every element needs its own")
    statistics = {"noise": np.array([mean, std, np.log1p(fourth), np.log1p(across_rows), np.log1p(across_columns)])}
    return statistics, problems


def check_reparameterize(case: Case, result: Arrays) -> tuple[Arrays, list[str]]:
    """The noise is standard in every column, fresh in every call, and gradients reach both arguments by value."""
    mean, scale, weight = case.expected["mean"], case.expected["scale"], case.expected["weight"]
    problem = _same_shape("z", result["z"], mean.shape)
    if problem:
        return {}, [problem]
    z = result["z"].astype(np.float64)
    eps = (z - mean) / scale
    statistics, problems = _noise_statistics(eps)
    stds, n = eps.std(axis=0), len(eps)
    if not problems and np.abs(stds - 1).max() > SIGMAS / np.sqrt(2 * n):
        problems.append("the spread of z does not follow logvar: it is right for some values of logvar only")
    if np.array_equal(result["z"], result["again"]):
        problems.append("two calls gave the same z; every call needs fresh noise")
    want_mu, want_logvar = weight, weight * 0.5 * (z - mean)  # dz/dmu = 1, dz/dlogvar = ½ (z - mu)
    slopes = [_slope(result["grad_mu"], want_mu), _slope(result["grad_logvar"], want_logvar)]
    for name, want in (("mu", want_mu), ("logvar", want_logvar)):
        got = result[f"grad_{name}"]
        if not np.any(got):
            problems.append(f"no gradient reaches `{name}`")
        elif not np.allclose(got, want, atol=1e-3, rtol=1e-3):
            problems.append(f"the gradient with respect to `{name}` is not that of the draw")
    statistics["columns"], statistics["slopes"] = np.log(stds + 1e-6), np.array(slopes)
    return statistics, problems


def _slope(got: np.ndarray, want: np.ndarray) -> float:
    """The factor between two arrays, by least squares."""
    return float((got * want).sum() / max((want * want).sum(), 1e-12))


def check_conditioning(case: Case, result: Arrays) -> tuple[Arrays, list[str]]:
    """The output listens to x, t and cond in every row, rows are independent, and gradients reach the whole text."""
    out = result["out"]
    problem = _same_shape("out", out, case.expected["like"].shape)
    if problem:
        return {"out": out}, [problem]
    problems = []
    for name, what in (("x", "x"), ("t", "the time"), ("cond", "the text")):
        change = np.abs(result[f"out_other_{name}"] - out).max(axis=1)
        if change.min() < 1e-5:
            problems.append(f"the output stays the same when {what} changes")
    rows = out[slice(*case.params["rows"])]
    if result["rows"].shape != rows.shape or not np.allclose(result["rows"], rows, atol=1e-3, rtol=1e-3):
        problems.append("the output for a row depends on the other rows of the batch")
    slopes = np.abs(result["grad_cond"])
    if (slopes.max(axis=1) == 0).any():
        problems.append("no gradient reaches the text embedding" + (" of some rows" if slopes.any() else ""))
    elif (slopes.max(axis=0) == 0).any():
        problems.append("no gradient reaches some entries of the text embedding")
    if result["params_reached"] == 0:
        problems.append("no gradient reaches any parameter")
    return {name: result[name].astype(np.float64) for name in ("out", "grad_cond", "params_reached")}, problems


def check_toy(case: Case, result: Arrays) -> tuple[Arrays, list[str]]:
    """After the toy training, predictions are nearer to those that know the text than to those that do not."""
    want = case.expected["eps"]
    problem = _same_shape("eps", result["eps"], want.shape)
    if problem:
        return {}, [problem]
    error, deaf = np.square(result["eps"] - want).mean(), float(case.expected["deaf_error"])
    if error < 0.5 * deaf:
        return {}, []
    return {}, [
        f"after a short training on two clusters the error is {error:.3f}; who ignores the text reaches {deaf:.3f}, "
        f"and less than {0.5 * deaf:.3f} is asked for"
    ]


def check_sample(case: Case, result: Arrays) -> tuple[Arrays, list[str]]:
    """A whole sampler around a known linear network, step by step from what the network saw.

    Each step must be x' = gain x + offset + cond_gain mean(cond) + sigma z, with z standard normal.
    """
    want = case.expected
    steps, shape = len(want["t"]), (case.params["batch_size"], *case.params["shape"])
    problem = _same_shape("samples", result["samples"], shape)
    if problem:
        return {}, [problem]
    if len(result["seen_t"]) != steps:
        return {}, [f"the network was called {len(result['seen_t'])} times in {steps} steps"]
    if not np.array_equal(result["seen_t"], np.broadcast_to(want["t"][:, None], (steps, shape[0]))):
        return {}, [f"the network saw t = {result['seen_t'][:, 0].tolist()}, where {want['t'].tolist()} is asked for"]
    text = np.zeros(shape[0])
    if "cond" in case.inputs:
        if "seen_cond" not in result or not all(
            np.array_equal(seen, case.inputs["cond"]) for seen in result["seen_cond"]
        ):
            return {}, ["the network did not get the condition in every step"]
        text = case.inputs["cond"].mean(axis=-1)
    level = (-1, *[1] * (len(shape) - 1))
    states = [*result["seen_x"], result["samples"]]
    noise = [states[0].ravel()]
    for i in range(steps):
        offset = want["offset"][i] + want["cond_gain"][i] * text.reshape(level)
        rest = states[i + 1] - (want["gain"][i] * states[i] + offset)
        if want["sigma"][i] > 0:
            noise.append((rest / want["sigma"][i]).ravel())
        elif np.abs(rest).max() > 1e-3 * (1 + np.abs(states[i + 1]).max()):
            return {}, [f"the step from t = {want['t'][i]} is off by up to {np.abs(rest).max():.2g}"]
    z = np.concatenate(noise)
    if abs(z.mean()) > SIGMAS / np.sqrt(z.size) or abs(z.std() - 1) > SIGMAS / np.sqrt(2 * z.size):
        return {}, [f"the noise of its steps has mean {z.mean():.2f} and standard deviation {z.std():.2f}, not 0 and 1"]
    return {}, []


CHECKS: dict[str, Check] = {
    "value": check_value,
    "noise": check_noise,
    "reparameterize": check_reparameterize,
    "conditioning": check_conditioning,
    "toy": check_toy,
    "sample": check_sample,
}


# -- known mistakes ---------------------------------------------------------------------------------------


def _recognise(case: Case, fingerprint: Arrays) -> str | None:
    """The known mistake that gives this fingerprint: the nearest one that is as near as noise allows."""
    best, best_distance = None, 1.0
    for mistake, known in case.mistakes.items():
        if known.keys() != fingerprint.keys() or any(known[key].shape != fingerprint[key].shape for key in known):
            continue
        distance = max(_distance(case, fingerprint[key], known[key]) for key in known)
        if distance < best_distance:
            best, best_distance = mistake, distance
    return best


def _distance(case: Case, got: np.ndarray, known: np.ndarray) -> float:
    """The largest deviation in units of what is allowed; below 1 is a match."""
    atol, rtol = (0.2, 0.1) if case.check in ("noise", "reparameterize") else (case.tolerance[0], 1e-3)
    return float((np.abs(got - known) / (atol + rtol * np.abs(known))).max())
