"""Where a wrong answer is wrong: the weights that it gives to its inputs are measured and compared with the right ones.

Almost every graded function is a weighted sum of its inputs, with weights that depend on the time. So the error of an
answer, too, is a weighted sum: least squares, row by row, tell of which inputs, and in which rows. What is right is
measured in the same way, from a case's expected arrays; no formula stands here.

A finding is made only if it explains every value of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from grading.cases import Arrays, Case
from grading.findings import OVER, PLUS, SUMS, TIMES, Finding, pair_rules, quantity_names

# Two values are the same if they differ by less than this part of the tolerance. Right answers differ by 5e-7 where
# 1e-4 is allowed, and at worst by 3.5e-4 where 2e-3 is.
ROUNDING = 0.2
ROUNDED = 2e-6  # of the largest value of a row: float32 over a few operations, where a wrong answer is large
# What is called right must be this near, as a part of the values: 20 times what float32 costs.
EXACT = 1e-5
# A case that allows more has the usual schedule, on which some mistakes hide in rounding: there nothing is called right
# and no rule is read off.
SHARP = 2e-4
LARGEST = 1e9  # beyond it the rounding of float32 hides every other input, and squares may overflow
SIGMAS = 6.0  # as in judge.py: what is drawn deviates by more once in 10^9 times
FEW, NO_NOISE = 100, 1e-3  # draws, of which fewer tell nothing; and the size of noise that is none, as in judge.py
DECIDED = 10  # times what rounding explains; what deviates by less may be rounding that added up
WELL_POSED = 1e-3  # of the largest singular value: below, inputs are too much alike to be told apart
TINY = 1e-9  # float64's rounding, with room
RULE, RULE_OF_TWO = 3, 4  # times on which a rule must hold: fewer agree with one of so many by chance


def find(case: Case, result: Arrays) -> list[Finding]:
    """What is surely wrong with the result of one call, at most one thing for each output; [] if nothing can be said.

    Takes any result: arrays may be missing, of other shapes, huge or NaN.
    """
    found: list[Finding | None] = []
    with np.errstate(all="ignore"):
        if case.check == "value" and case.call in SUMS:
            found = [_on_sum(case, output, names, result) for output, names in SUMS[case.call].items()]
        elif case.check == "value" and case.call == "kl_divergence":
            found = [_on_kl(case, result)]
        elif case.check == "noise" and case.call in SUMS:
            found = [_on_own_noise(case, result)]
        elif case.check == "reparameterize":
            found = [_on_draw(case, result)]
    return [finding for finding in found if finding is not None]


# -- measuring -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    """Weights by least squares. weights, errors: (rows, terms), what was measured and how far that may be off.

    left: (rows,) the largest deviation that the weights leave, 1 being what rounding explains.
    """

    weights: np.ndarray
    errors: np.ndarray
    left: np.ndarray

    @property
    def explains(self) -> bool:
        """Whether nothing is left in any row."""
        return bool((self.left <= 1).all())


def _fit(y: np.ndarray, x: np.ndarray) -> _Fit:
    """y: (rows, n), x: (rows, n, terms), both in units of what rounding explains.

    An error is the most by which a weight changes if every value of y changes by one unit.
    """
    inverse = np.linalg.pinv(x)
    weights = (inverse @ y[..., None])[..., 0]
    left = np.abs(y - (x @ weights[..., None])[..., 0]).max(axis=1)
    return _Fit(weights, np.abs(inverse).sum(axis=2), left)


def _well_posed(x: np.ndarray) -> bool:
    """Whether the columns of every (n, terms) can be told apart."""
    if x.shape[1] < x.shape[2]:
        return False
    values = np.linalg.svd(x, compute_uv=False)
    return bool((values[:, -1] > WELL_POSED * values[:, 0]).all())


def _measurable(*arrays: np.ndarray) -> bool:
    return all(a.dtype.kind == "f" and a.size > 0 and np.abs(a).max() < LARGEST for a in arrays)


def _tolerance(case: Case, output: str) -> tuple[float, float]:
    """What a case allows one of its results; an array may have a tolerance of its own."""
    return case.tolerances.get(output, case.tolerance)


def _unit(case: Case, output: str, want: np.ndarray) -> np.ndarray:
    """What rounding explains, for each value."""
    absolute, relative = _tolerance(case, output)
    return ROUNDING * (absolute + relative * np.abs(want))


# -- weighted sums of the inputs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sum:
    """A result that is a weighted sum, as rows of numbers.

    names: of the inputs, last "constant".  x: (rows, n, names), the last one 1.  want, got, unit: (rows, n).
    shape: of the result as it came.
    """

    case: Case
    output: str
    names: tuple[str, ...]
    x: np.ndarray
    want: np.ndarray
    got: np.ndarray
    unit: np.ndarray
    shape: tuple[int, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it should be a sum of."""
        return self.names[:-1] or self.names

    def fit(self, y: np.ndarray, x: np.ndarray) -> _Fit:
        """y (rows, n) as a weighted sum of x (rows, n, terms)."""
        return _fit(y / self.unit, x / self.unit[..., None])

    def is_explained_by(self, values: np.ndarray) -> bool:
        """Whether the result is these values."""
        return bool((np.abs(self.got - values) <= self.unit).all())

    @property
    def is_sharp(self) -> bool:
        """Whether what seems right is right."""
        return _tolerance(self.case, self.output)[0] <= SHARP

    @property
    def is_a_sum(self) -> bool:
        """Whether some weights give the result; too few values leave no doubt that they do."""
        return self.fit(self.got, self.x).explains

    def finding(self, kind: str, **more: object) -> Finding:
        """A finding about this result."""
        return Finding(kind, self.output, **more)  # type: ignore[arg-type]


def _on_sum(case: Case, output: str, names: tuple[str, ...], result: Arrays) -> Finding | None:
    """A result that should be a weighted sum; from what is sure to what is bold."""
    if output not in result or output not in case.expected:
        return None
    want, got = case.expected[output], result[output]
    if got.shape != want.shape:
        if names or not _broadcasts(got.shape, want.shape):
            return None
        got = np.broadcast_to(got, want.shape)
    if got.size == 0 or got.dtype.kind != "f":
        return None
    rows = len(want) if want.ndim else 1
    finite: np.ndarray = np.isfinite(got).reshape(rows, -1)
    if not finite.all():  # whole rows tell of the time, single values of themselves
        return Finding("nan", output, where=_where(case, ~np.any(finite, axis=1), np.all(finite, axis=1)))
    if not _measurable(want, got):
        return None
    names = tuple(name for name in names if name in case.inputs)
    given = [case.inputs[name].astype(np.float64) for name in names]
    if "scales" in case.params:  # a row is the answer at one scale
        given = [np.broadcast_to(array, (rows, *array.shape)) for array in given]
    if any(array.shape != want.shape for array in given):
        return None
    flat = [array.reshape(rows, -1) for array in given]
    want, got = (array.astype(np.float64).reshape(rows, -1) for array in (want, got))
    x = np.stack([*flat, np.ones_like(want)], axis=-1)
    shape = case.expected[output].shape
    unit = _unit(case, output, want) + ROUNDED * np.abs(got).max(axis=1, keepdims=True)
    this = _Sum(case, output, (*names, "constant"), x, want, got, unit, shape)
    if not (np.abs(got - want) > _unit(case, output, want) / ROUNDING).any():
        return None  # it is another result that is wrong
    for look in (_clamped, _other_rows, _weights, _inputs_changed, _mixed, _nonlinear):
        found = look(this)
        if found:
            return found
    return None


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _clamped(s: _Sum) -> Finding | None:
    """The right values, but none beyond two limits; three values on a limit, and three between, are no chance."""
    low, high = s.got.min(), s.got.max()
    is_cut = ((s.got == low) & (s.want < low - s.unit)) | ((s.got == high) & (s.want > high + s.unit))
    is_between = (s.got > low) & (s.got < high)
    if s.names[:-1] and min(is_cut.sum(), is_between.sum()) >= 3 and s.is_explained_by(np.clip(s.want, low, high)):
        return s.finding("clamped")
    return None


def _other_rows(s: _Sum) -> Finding | None:
    """The right weights in the wrong rows: the first row's in all, or lined up with another dimension.

    Weights of 0 and 1, as some times have them, may as well come from an input that is handed back.
    """
    x = s.x[..., : len(s.inputs)] if s.names[:-1] else s.x
    rows, n, _ = x.shape
    if rows < 2 or "t" not in s.case.inputs or not _well_posed(x):
        return None
    right = s.fit(s.want, x).weights
    is_an_input = np.isclose(np.abs(right[0]), np.round(np.abs(right[0])), atol=NO_NOISE).all()
    if s.is_explained_by(x @ right[0]) and not is_an_input:
        return s.finding("first")
    index = np.arange(n).reshape(s.shape[1:])
    for axis, size in enumerate(s.shape[1:]):
        if size == rows:
            position = np.moveaxis(index, axis, 0).reshape(rows, -1)
            weights = np.empty((n, right.shape[1]))
            for row in range(rows):
                weights[position[row]] = right[row]
            if s.is_explained_by((x * weights).sum(axis=-1)):
                return s.finding("dimension")
    return None


def _weights(s: _Sum) -> Finding | None:
    """The fewest weights whose change explains every value. Not said if as many others would do as well."""
    _, n, count = s.x.shape
    error = s.got - s.want
    for size in range(1, min(count, n - 1) + 1):
        fits = {chosen: s.fit(error, s.x[..., chosen]) for chosen in combinations(range(count), size)}
        found = [chosen for chosen, fit in fits.items() if fit.explains]
        if found:
            chosen = found[0]
            if len(found) > 1 or not _well_posed(s.x[..., chosen] / s.unit[..., None]):
                return None
            return _weight_finding(s, chosen, fits[chosen])
    return None


def _weight_finding(s: _Sum, chosen: tuple[int, ...], fit: _Fit) -> Finding | None:
    x = s.x[..., chosen]
    size = 1 + np.abs(s.want).max(axis=1)
    wrong = np.abs(fit.weights) > fit.errors / ROUNDING
    right = (np.abs(fit.weights) * np.abs(x).max(axis=1) <= EXACT * size[:, None]) & s.is_sharp
    if not wrong.any(axis=0).all():
        return None  # too small to be told from what is allowed
    where = {_where(s.case, wrong[:, i], right[:, i]) for i in range(len(chosen))}
    place = where.pop() if len(where) == 1 else "some scales" if "scales" in s.case.params else "some"
    names = tuple(s.names[i] for i in chosen)
    if s.names == ("constant",):
        factor, number = _factor(s, fit, s.fit(s.want, x).weights)
        return s.finding("weight", terms=(s.output,), where=place, factor=factor, number=number)
    if names == ("constant",):
        return s.finding("offset", where=place)
    rest = (s.got - s.want) - (x * fit.weights[:, None]).sum(axis=-1)
    others: tuple[str, ...] = ()
    if s.is_sharp and (np.abs(rest) <= EXACT * size[:, None]).all():
        others = tuple(name for name in s.inputs if name not in names)
    factor, number = "", None
    inputs = s.x[..., :-1]
    if "constant" not in names and _well_posed(inputs):
        expected = s.fit(s.want, inputs).weights[:, chosen]
        factor, number = _factor(s, fit, expected)
    return s.finding("weight", terms=names, right=others, where=place, factor=factor, number=number)


def _inputs_changed(s: _Sum) -> Finding | None:
    """The result is a weighted sum of the inputs once one of them is changed value by value."""
    _, n, _ = s.x.shape
    inputs = s.x[..., :-1]
    if not s.names[:-1] or len(s.want) < 2 or n <= inputs.shape[-1] or s.is_a_sum:
        return None
    found = []
    for i, name in enumerate(s.names[:-1]):
        for factor, change in _CHANGES.items():
            changed = inputs.copy()
            changed[..., i] = change(inputs[..., i])
            if s.fit(s.got, changed).explains:
                found.append(s.finding("input", terms=(name,), factor=factor))
    return found[0] if len({finding.terms for finding in found}) == 1 else None


_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clamped": lambda x: np.clip(x, -1, 1),
    "absolute": np.abs,
    "squared": np.square,
    "signs": np.sign,
}


def _mixed(s: _Sum) -> Finding | None:
    """The result becomes a weighted sum once other rows' inputs are allowed: their mean, or the first row's."""
    rows, n, count = s.x.shape
    inputs = s.x[..., :-1]
    if rows < 2 or count < 2 or "scales" in s.case.params:
        return None
    if s.fit(s.got, s.x).left.max() <= DECIDED:  # it is such a sum already, or nearly: more inputs explain anything
        return None
    error = s.got - s.want
    for other in (inputs.mean(axis=0, keepdims=True), inputs[:1], np.roll(inputs, 1, axis=0)):
        for chosen in chain(([i] for i in range(count - 1)), [list(range(count - 1))]):
            x = np.concatenate([inputs, np.broadcast_to(other[..., chosen], (rows, n, len(chosen)))], axis=-1)
            if n > x.shape[-1] and s.fit(error, x).explains:
                return s.finding("mixed")
    return None


def _nonlinear(s: _Sum) -> Finding | None:
    """No weights, not even with a constant, give these values: there are more of them than weights in each row."""
    _, n, count = s.x.shape
    if n <= count:
        return None
    left = s.fit(s.got, s.x).left > 1 / ROUNDING
    if not left.any():
        return None
    if not s.names[:-1]:
        return s.finding("uneven")
    return s.finding("nonlinear", terms=s.inputs)


# -- in which rows -------------------------------------------------------------------------------------------


def _where(case: Case, wrong: np.ndarray, right: np.ndarray) -> str:
    """The rows as a key of `_WHERE`. wrong, right: (rows,), and what is neither cannot be told apart."""
    if len(wrong) == 1:
        return ""
    if "scales" in case.params:
        return "scales" if wrong.all() else "some scales"
    if wrong.all():
        return "every"
    found = {
        name
        for name, rows in _times_of(case, len(wrong)).items()
        if np.array_equal(rows, wrong) and np.array_equal(~rows, right)
    }
    return found.pop() if len(found) == 1 else "some"


def _times_of(case: Case, rows: int) -> dict[str, np.ndarray]:
    """What is special about the times of rows: a mask for each key of `_WHERE`."""
    found: dict[str, np.ndarray] = {}
    t, t_prev = case.inputs.get("t"), case.inputs.get("t_prev")
    if t is not None and t.shape == (rows,):
        found |= {"zero": t == 0, "late": t != 0, "last": t == case.params.get("timesteps", 0) - 1}
        if t_prev is not None and t_prev.shape == (rows,):
            found |= {"landing": t_prev == -1, "flying": t_prev != -1, "stride": t_prev < t - 1}
    return found


# -- by what -------------------------------------------------------------------------------------------------


def _factor(s: _Sum, fit: _Fit, expected: np.ndarray) -> tuple[str, float | None]:
    """What the wrong weights are of the right ones, and the number if it is one; ("", None) if that is not clear.

    expected: (rows, terms) the right weights, where `fit` has what was added to them.
    """
    if not s.is_sharp:
        return "", None
    got, errors = expected + fit.weights, fit.errors
    telling = np.abs(expected) > 10 * errors  # at the others, any factor fits
    rows = telling.any(axis=1)
    if (np.abs(got) <= errors).all():
        return "missing", None
    if (np.abs(got + expected) <= errors).all():
        return "sign", None
    if got.shape[1] == 2 and (np.abs(got - expected[:, ::-1]) <= errors).all():
        return "swapped", None
    times = _distinct(s.case, rows)
    if rows.any() and (times >= 2 or "t" not in s.case.inputs):
        factor = float(np.median((got / expected)[telling]))
        if (np.abs(got - factor * expected) <= errors).all():
            return "same", factor
    if got.shape[1] == 1 and times >= RULE and (np.abs(got - np.median(got)) <= errors).all():
        return "constant", None
    return _rule(s.case, got, expected, errors, times), None


def _distinct(case: Case, rows: np.ndarray) -> int:
    """How many different times these rows have."""
    t = case.inputs.get("t")
    return 1 if t is None or t.shape != rows.shape else len(np.unique(t[rows]))


def _rule(case: Case, got: np.ndarray, expected: np.ndarray, errors: np.ndarray, times: int) -> str:
    """The quantity of the schedule by which the right weights are multiplied, or which is added to them, in words.

    The simplest one that fits in every row; "" if none does, or two of them do.
    """
    table = _quantities(case, len(got))
    if not table or times < RULE:
        return ""
    names, values = list(table), np.stack(list(table.values()))[:, :, None]

    def fits(above: np.ndarray, below: np.ndarray | float, sign: int) -> np.ndarray:
        near = np.abs(got * below - sign * expected * above) <= errors * below + TINY
        return np.flatnonzero(near.all(axis=(1, 2)))

    def one(found: list[str]) -> str:
        return found[0] if len(found) == 1 else ""

    single, added = [], []
    for sign, minus in ((1, ""), (-1, "−")):
        single += [TIMES.format(minus + names[i]) for i in fits(values, 1.0, sign)]
        single += [OVER.format(minus + names[i]) for i in fits(np.ones_like(values), values, sign)]
        near = (np.abs(got - expected - sign * values) <= errors).all(axis=(1, 2))
        added += [PLUS.format(minus or "+", names[i]) for i in np.flatnonzero(near)]
    if single or added:
        return one(single + added)
    if times < RULE_OF_TWO:
        return ""
    first, second = np.triu_indices(len(names))
    a, b = values[first], values[second]
    found = (fits(a * b, 1.0, 1), fits(np.ones_like(a), a * b, 1), fits(a, b, 1), fits(b, a, 1))
    return one([pair_rules(names[first[i]], names[second[i]])[kind] for kind, those in enumerate(found) for i in those])


def _quantities(case: Case, rows: int) -> dict[str, np.ndarray]:
    """Name -> (rows,) of what a schedule has at the times of a case; NaN where there is no such time."""
    betas, t = _betas(case), case.inputs.get("t")
    if betas is None or t is None or t.shape != (rows,):
        return {}
    bars = np.cumprod(1 - betas)
    nothing = [np.nan]
    # Index 0 is the time before the first, at which all is clean.
    tables = [
        np.concatenate([before, values, nothing])
        for before, values in ((nothing, betas), (nothing, 1 - betas), ([1.0], bars), ([0.0], 1 - bars))
    ]
    times = {"t": t, "t−1": t - 1, "t+1": t + 1}
    if "t_prev" in case.inputs and case.inputs["t_prev"].shape == (rows,):
        times["t_prev"] = case.inputs["t_prev"]
    rows_of = [root(table[at + 1]) for at in times.values() for table in tables for root in (np.asarray, np.sqrt)]
    return dict(zip(quantity_names(tuple(times)), rows_of))


def _betas(case: Case) -> np.ndarray | None:
    """The schedule of the case, as HW3/schedules.py makes it; None for one that is not known here."""
    p = case.params
    steps, kind = p.get("timesteps"), p.get("schedule", "linear")
    if steps is None:
        return None
    if kind == "cosine":
        bars = np.cos((np.linspace(0, 1, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - bars[1:] / bars[:-1], 0.999)
    return np.linspace(p["beta_start"], p["beta_end"], steps) if kind == "linear" else None


# -- the divergence ------------------------------------------------------------------------------------------


# What a sum over latent dimensions may be made of: the values and their derivatives, of mu or of logvar. Which of
# them the right one is made of is measured.
@dataclass(frozen=True)
class _Form:
    """One form in which an argument may come in. arg: "" for none.  term: a key of `_PHRASES`."""

    arg: str
    term: str
    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]


_FORMS = (
    _Form("mu", "term of mu", lambda m: m, np.ones_like),
    _Form("mu", "term of mu", np.square, lambda m: 2 * m),
    _Form("mu", "term of mu", np.abs, np.sign),
    _Form("logvar", "term of variance", np.exp, np.exp),
    _Form("logvar", "term of variance", lambda v: np.exp(v / 2), lambda v: np.exp(v / 2) / 2),
    _Form("logvar", "term of variance", lambda v: np.exp(-v), lambda v: -np.exp(-v)),
    _Form("logvar", "term of logvar", lambda v: v, np.ones_like),
    _Form("logvar", "term of logvar", np.square, lambda v: 2 * v),
    _Form("", "term of nothing", np.ones_like, np.zeros_like),
)


def _on_kl(case: Case, result: Arrays) -> Finding | None:
    """Values and gradients together are a weighted sum of forms."""
    parts = ("kl", "grad_mu", "grad_logvar")
    if any(name not in result or result[name].shape != case.expected[name].shape for name in parts):
        return None
    if not _measurable(*(result[name] for name in parts)):
        return None
    want, got = ({name: arrays[name].astype(np.float64) for name in parts} for arrays in (case.expected, result))
    units = {name: _unit(case, name, want[name]) for name in parts}
    off = {name: bool((np.abs(got[name] - want[name]) > units[name] / ROUNDING).any()) for name in parts}
    bad = tuple(name for name in ("mu", "logvar") if off[f"grad_{name}"])
    if not off["kl"]:
        return Finding("gradient", "kl", bad) if bad else None
    if _is_the_same_in_all_rows(got["kl"], want["kl"], units["kl"]):
        return Finding("mixed", "kl")

    entries = [form.value(_argument(case, form)) for form in _FORMS]  # (rows, dimensions) each
    weight = case.inputs["weight"].astype(np.float64)[:, None]
    slopes = [
        [weight * form.slope(_argument(case, form)) * (form.arg == arg) for arg in ("mu", "logvar")] for form in _FORMS
    ]
    unit, y, wanted = (np.concatenate([arrays[name].ravel() for name in parts]) for arrays in (units, got, want))
    columns = [np.concatenate([e.sum(axis=1), *(d.ravel() for d in ds)]) for e, ds in zip(entries, slopes)]
    x = np.stack(columns, axis=-1)
    if x.shape[0] <= x.shape[1]:
        return None
    right = _fit_of_forms(wanted / unit, x / unit[:, None])
    used = np.abs(right.weights[0]) > right.errors[0]
    if not right.explains or not used.any():
        return None
    across = sum(w * entry.sum(axis=0) for w, entry, is_used in zip(right.weights[0], entries, used) if is_used)
    if across.shape == got["kl"].shape and (np.abs(got["kl"] - across) <= _unit(case, "kl", across)).all():
        return Finding("dimension", "kl")

    given = _fit_of_forms(y / unit, x / unit[:, None])
    if not given.explains:
        is_cut_off = not np.any(got["grad_mu"]) and not np.any(got["grad_logvar"])
        return Finding("form", "kl", bad) if bad and not is_cut_off else None
    wrong = np.abs(given.weights[0] - right.weights[0]) > given.errors[0]
    strange = {form.arg for form, is_strange in zip(_FORMS, wrong & ~used) if is_strange}
    if strange:
        return Finding("form", "kl", tuple(name for name in ("mu", "logvar") if name in strange))
    if not wrong.any():
        return None
    terms = tuple(form.term for form, is_wrong in zip(_FORMS, wrong) if is_wrong)
    others = tuple(form.term for form, is_right in zip(_FORMS, used & ~wrong) if is_right)
    factor, number = _factor_of_forms(case, right.weights[0][wrong], given.weights[0][wrong], given.errors[0][wrong])
    return Finding("weight", "kl", terms, others, factor=factor, number=number)


def _argument(case: Case, form: _Form) -> np.ndarray:
    return case.inputs[form.arg or "mu"].astype(np.float64)


def _is_the_same_in_all_rows(got: np.ndarray, want: np.ndarray, unit: np.ndarray) -> bool:
    """One value, which is not zero, in the place of several."""
    return bool(np.ptp(got) <= unit.max() < np.ptp(want) and np.abs(got).max() > unit.max())


def _fit_of_forms(y: np.ndarray, x: np.ndarray) -> _Fit:
    """One row's fit, of forms that differ in size by orders of magnitude. y: (n,), x: (n, forms)."""
    size = np.abs(x).max(axis=0)
    fit = _fit(y[None], (x / size)[None])
    return _Fit(fit.weights / size, fit.errors / size, fit.left)


def _factor_of_forms(case: Case, right: np.ndarray, given: np.ndarray, errors: np.ndarray) -> tuple[str, float | None]:
    """What the given weights are of the right ones, as `_factor`; all arrays (terms,)."""
    if (np.abs(given) <= errors).all():
        return "missing", None
    factor = float(np.median(given / right))
    if not (np.abs(given - factor * right) <= errors).all():
        return "", None
    batch, dimensions = case.inputs["mu"].shape
    known = {"sign": -1.0, "dimensions": dimensions, "batch": batch, "bits": np.log(2), "same": 2.0}
    near = {name for name, n in known.items() if np.isclose([n, 1 / n], factor, rtol=1e-3, atol=0).any()}
    named = near.pop() if len(near) == 1 else "same"
    return named, None if named == "sign" else factor


# -- what is drawn -------------------------------------------------------------------------------------------


def _on_own_noise(case: Case, result: Arrays) -> Finding | None:
    """Several draws at the same inputs, (calls, rows, ...): their mean, and their size, row by row."""
    output = next(iter(SUMS[case.call]))
    mean, scale = case.expected["mean"], case.expected["scale"]
    if output not in result or result[output].shape[1:] != mean.shape or not _measurable(result[output], mean, scale):
        return None
    z = ((result[output].astype(np.float64) - mean) / scale).reshape(len(result[output]), len(mean), -1)
    calls, rows, n = z.shape
    if np.abs(z).max() < NO_NOISE:
        return Finding("weight", output, ("own noise",), where="every", factor="missing")
    if calls < 2 or rows * n < FEW or np.ptp(z, axis=0).max() < NO_NOISE:
        return None
    shared = _shared(output, z)
    if shared:
        return shared
    average = z.mean(axis=0)
    # Both are 1 in each row, up to chance, if the noise is as large and its mean where it should be.
    size = np.square(z - average).sum(axis=(0, 2)) / ((calls - 1) * n)
    ratio = np.square(average).mean(axis=1) * calls / np.maximum(size, NO_NOISE)
    for unusual, term in (
        (np.maximum(_sigmas(ratio, n, (calls - 1) * n), 0), "draws"),
        (_sigmas(size, (calls - 1) * n), "own noise"),
    ):
        off = np.abs(unusual) > SIGMAS
        # All rows together tell more. The first statistic has no negative values, so its mean is 0.4 by chance.
        if off.any() or abs(unusual.mean()) * np.sqrt(rows) > SIGMAS + np.sqrt(rows):
            return Finding("weight", output, (term,), where="every" if off.all() else "some")
    return None


def _sigmas(ratio: np.ndarray, above: float, below: float = np.inf) -> np.ndarray:
    """How unusual ratios of means of so many squares of noise are, in standard deviations (Wilson and Hilferty)."""
    return (np.cbrt(ratio) - 1 + 2 / 9 * (1 / above - 1 / below)) / np.sqrt(2 / 9 * (1 / above + 1 / below))


def _shared(output: str, draws: np.ndarray) -> Finding | None:
    """Whether rows or columns of (calls, rows, columns) have noise in common: then it is no sample of so many.

    What two calls differ by is noise alone, and its signs tell, whatever its size depends on.
    """
    pairs = len(draws) // 2
    change = draws[0 : 2 * pairs : 2] - draws[1 : 2 * pairs : 2]
    signs = np.sign(np.where(np.abs(change) < NO_NOISE, 0, change))
    for axis, kind in ((1, "alike rows"), (2, "alike columns")):
        common = np.square(signs.mean(axis=axis)) * signs.shape[axis]  # at most 1 on average, if none is
        if common.mean() > 1 + SIGMAS * np.sqrt(2 / common.size):
            return Finding(kind, output)
    return None


def _on_draw(case: Case, result: Arrays) -> Finding | None:
    """z as mean and spread: whether the mean is mu, and how the spread follows logvar."""
    mean, scale, logvar = case.expected["mean"], case.expected["scale"], case.inputs["logvar"].astype(np.float64)
    if "z" not in result or "again" not in result or not _measurable(result["z"], result["again"], mean, scale):
        return None
    z, again = result["z"], result["again"]
    again = again[0] if again.shape[1:] == mean.shape else again  # one more draw, or several
    if z.shape != mean.shape or again.shape != mean.shape:
        return None
    # In units of the right spread; what two draws differ by is noise alone.
    first, second = ((draw.astype(np.float64) - mean) / scale for draw in (z, again))
    if len(mean) < FEW:
        return None
    shared = _shared("z", np.stack([first, second]))
    if shared:
        return shared
    x = np.stack([mean / scale, 1 / scale, logvar / scale, np.ones_like(scale)], axis=-1).reshape(-1, 4)
    inverse = np.linalg.pinv(x)
    weights = inverse @ first.ravel()
    rest = first.ravel() - x @ weights
    errors = np.sqrt(np.square(inverse * rest).sum(axis=1)) + NO_NOISE  # whatever the size of the rest depends on
    if (np.abs(weights) > SIGMAS * errors).any():
        return Finding("weight", "z", ("mean of z",))
    rest = rest.reshape(mean.shape)
    squares = np.square(rest)
    size, error = squares.mean(axis=0), squares.std(axis=0) / np.sqrt(len(rest))
    if not (np.abs(size - 1) > SIGMAS * error).any():
        return None
    size = np.maximum(size, NO_NOISE**2)
    factor, number = _spread(np.log(size), error / size, logvar.mean(axis=0))
    return Finding("weight", "z", ("spread of z",), factor=factor, number=number)


def _spread(log_size: np.ndarray, errors: np.ndarray, logvar: np.ndarray) -> tuple[str, float | None]:
    """How the variance of the noise, in units of the right one, grows with logvar over the columns."""
    if (log_size < np.log(NO_NOISE)).all():
        return "missing", None
    x = np.stack([logvar - logvar.mean(), np.ones_like(logvar)], axis=-1)
    slope, level = np.linalg.lstsq(x, log_size, rcond=None)[0]
    if (np.abs(log_size - x @ [slope, level]) > SIGMAS * errors + 0.1).any():
        return "", None
    for power, factor in ((0, "same"), (1, "variance"), (-1, "even"), (-2, "shrinks")):
        if abs(slope - power) < 0.1:
            return factor, float(np.exp(level / 2)) if factor == "same" else None
    return "", None
