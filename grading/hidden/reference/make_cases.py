"""Write every case: `python -m grading.hidden.reference.make_cases`.

Inputs are drawn here, expectations come from expectations.py, and the answers of known mistakes from running the bank
on the same inputs. Public and hidden cases differ in their inputs and in nothing else.

Public inputs come from a seed. Hidden ones come from a secret that is kept nowhere: the stored cases are the record,
and only what the record does not have is drawn. `python -m grading refresh` draws all of them anew.

The same inputs give the same expectations and answers on every machine, but for their last digits: CPUs round exp and
log differently. A file that differs in these only is left as it is.
"""

from __future__ import annotations

import json
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from grading import driver
from grading.cases import HIDDEN, PUBLIC, Arrays, Case, load_cases, save_cases
from grading.hidden.reference import formulas as ref
from grading.hidden.reference.bank import chaffs_of
from grading.hidden.reference.expectations import TOY_CENTRE, TOY_STD, complete
from grading.hidden.reference.formulas import Schedule
from grading.judge import CHECKS

HOSTILE_TOLERANCE, DEFAULT_TOLERANCE = (1e-4, 1e-4), (2e-3, 1e-4)
# On the usual schedule a posterior's variance is at most 0.02, and 5e-5 at time 1. Right answers in float32 differ from
# it by 0.05 % at most, at any time; that of a forward step by half at time 1 and by 2 % at time 90.
DEFAULT_VARIANCE_TOLERANCE = (1e-5, 1e-2)

# name, shape, dtype, which of the id's schedules. B = W and B != W, every rank, one row.
Layout = tuple[str, tuple[int, ...], str, str]
HIDDEN_LAYOUTS: list[Layout] = [
    ("hostile/vectors", (6, 5), "float32", "hostile"),
    ("hostile/square batch", (4, 4), "float32", "hostile"),
    ("hostile/images", (5, 2, 4, 3), "float32", "hostile"),
    ("dtype/float64", (7, 3, 2), "float64", "hostile"),
    ("single/one row", (1, 6), "float32", "hostile"),
    ("default/images", (4, 1, 4, 4), "float32", "default"),
    ("default/vectors", (6, 9), "float64", "default"),
    ("ranks/a number per row", (9,), "float32", "hostile"),
    ("ranks/videos", (4, 2, 1, 3, 2), "float32", "hostile"),
    ("cosine/images", (6, 2, 3, 3), "float32", "cosine"),
    ("cosine/vectors", (7, 4), "float64", "cosine"),
]
PUBLIC_LAYOUTS: list[Layout] = [
    ("hostile/vectors", (5, 4), "float32", "hostile"),
    ("hostile/images", (4, 1, 4, 4), "float32", "hostile"),
    ("dtype/float64", (6, 3), "float64", "hostile"),
    ("default/images", (5, 1, 3, 4), "float32", "default"),
    ("ranks/a number per row", (7,), "float32", "hostile"),
    ("ranks/videos", (5, 1, 2, 2, 3), "float32", "hostile"),
    ("cosine/images", (5, 1, 3, 4), "float32", "cosine"),
]
# Of a step: the last one, onto clean data, has rules of its own. Its rows stand in these cases only, among others, so
# that who gets them wrong loses these points and no more.
HIDDEN_LAST: list[Layout] = [
    ("last/vectors", (6, 4), "float32", "hostile"),
    ("last/images", (5, 1, 3, 4), "float32", "cosine"),
    ("last/float64", (7, 3), "float64", "default"),
]
PUBLIC_LAST: list[Layout] = [
    ("last/vectors", (5, 3), "float32", "hostile"),
    ("last/images", (6, 1, 2, 3), "float32", "default"),
]
# name, shape, dtype of what is drawn without noise being given, several times.
HIDDEN_DRAWS = [
    ("latents", (100, 16), "float32"),
    ("images", (16, 3, 8, 8), "float32"),
    ("float64", (40, 24), "float64"),
]
PUBLIC_DRAWS = [("latents", (80, 20), "float32"), ("images", (18, 2, 9, 9), "float32")]
DRAWS = 4
PARTS = ["time_mlp", "stem", "blocks", "head", "cond_proj"]  # of the conditional denoiser, as it is given


@dataclass(frozen=True)
class Family:
    """The schedules of one kind of check. On the hostile one (small T, large betas) every correct variant agrees to
    5e-7 and almost every mistake is beyond 9e-2; on the usual one not even correct variants agree to 1e-4. The cosine
    one is as long as the hostile one where it can be, so that who tells schedules apart by their length is wrong.
    """

    hostile: Schedule
    default: Schedule
    cosine: Schedule

    def pick(self, which: str) -> tuple[Schedule, tuple[float, float]]:
        """The schedule, and the tolerance that fits it."""
        return getattr(self, which), DEFAULT_TOLERANCE if which == "default" else HOSTILE_TOLERANCE


@dataclass(frozen=True)
class Side:
    """What makes public cases public and hidden ones hidden: their layouts and schedules.

    last: layouts of steps that end on clean data in some rows; no other case of a step or of the posterior has one.

    Steps are checked on schedules (ddpm, ddim) on which the functions that they call (basic) are not checked, on
    either side, so that a stand-in's answers answer nothing else.
    """

    layouts: list[Layout]
    last: list[Layout]
    draws: list[tuple[str, tuple[int, ...], str]]
    basic: Family
    ddpm: Family
    ddim: Family
    is_public: bool


def cosine(timesteps: int) -> Schedule:
    return Schedule(timesteps, kind="cosine")


USUAL = Schedule(1000, 1e-4, 0.02)
PUBLIC_SEED = 100
PUBLIC_SIDE = Side(
    PUBLIC_LAYOUTS,
    PUBLIC_LAST,
    PUBLIC_DRAWS,
    basic=Family(Schedule(8, 0.05, 0.6), USUAL, cosine(6)),
    ddpm=Family(Schedule(9, 0.06, 0.55), Schedule(1000, 1e-4, 0.0195), cosine(9)),
    ddim=Family(Schedule(10, 0.04, 0.5), Schedule(1000, 1e-4, 0.0185), cosine(10)),
    is_public=True,
)
HIDDEN_SIDE = Side(
    HIDDEN_LAYOUTS,
    HIDDEN_LAST,
    HIDDEN_DRAWS,
    basic=Family(Schedule(7, 0.08, 0.55), USUAL, cosine(7)),
    ddpm=Family(Schedule(8, 0.07, 0.5), Schedule(1000, 1e-4, 0.019), cosine(8)),
    ddim=Family(Schedule(11, 0.03, 0.45), Schedule(1000, 1e-4, 0.018), cosine(11)),
    is_public=False,
)


class Draw:
    """Inputs for one set of cases, from one generator: fair to float32, blind to nothing known."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed if len(seed) > 1 else seed[0])

    def normal(self, *shape: int, scale: float = 2.0) -> np.ndarray:
        """Values within 6, half of them beyond 1, that float32 holds exactly: another CPU's last digit is cut off."""
        return np.clip(scale * self.rng.standard_normal(shape), -6, 6).astype(np.float32).astype(np.float64)

    def t(self, batch: int, s: Schedule, *, last: bool = True, divides: bool = False) -> np.ndarray:
        """0 (2 if not `last`), 1, the middle and the end, mixed; for one row the middle.

        divides: by what is left of the data, which at the end of a cosine schedule is nothing that float32 could tell.
        """
        end = s.timesteps - 1 if divides and s.kind == "cosine" else s.timesteps
        if batch == 1:
            return np.array([end // 2])
        first = [0 if last else 2, end - 1, 1, end // 2]
        if end > 100:
            first.append(int(self.rng.integers(3, 90)))  # where a posterior still differs from a forward step
        t = np.concatenate([first, self.rng.integers(2, end, size=batch)])[:batch]
        return self.rng.permutation(t)

    def t_prev(self, t: np.ndarray, timesteps: int, *, last: bool) -> np.ndarray:
        """Before t by strides of one and more; if `last`, -1 where t is 0 and in one row more, else nowhere."""
        stride = max(1, timesteps // 9) * self.rng.integers(1, 4, size=len(t))
        t_prev = np.where(self.rng.random(len(t)) < 0.3, t - 1, t - 1 - stride)
        t_prev = np.maximum(t_prev, np.where(t >= 3, 1, -1 if last else 0))  # not all rows onto clean data
        if last and len(t) > 1:
            t_prev[np.argmax(t)] = -1
        return t_prev


# -- one function per id: calls and their inputs ---------------------------------------------------------


def q_sample_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in side.layouts:
        s, tolerance = side.basic.pick(which)
        inputs = {"x0": draw.normal(*shape), "t": draw.t(shape[0], s), "noise": draw.normal(*shape)}
        params = s.params() | _after_another(shape)
        yield Case("q-sample", name, "q_sample", "value", params, _cast(dtype, **inputs), tolerance=tolerance)
    s = side.basic.hostile
    for i, (name, shape, dtype) in enumerate(side.draws, start=1):
        inputs = {"x0": draw.normal(*shape), "t": draw.rng.integers(0, s.timesteps, size=shape[0])}
        params = {**s.params(), "draws": DRAWS, "seed": i}
        yield Case("q-sample", f"noise/{name}", "q_sample", "noise", params, _cast(dtype, **inputs))


def predict_x0_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in side.layouts:
        s, tolerance = side.basic.pick(which)
        inputs = {"x_t": draw.normal(*shape), "t": draw.t(shape[0], s, divides=True), "eps": draw.normal(*shape)}
        params = s.params() | _after_another(shape)
        yield Case("predict-x0", name, "predict_x0", "value", params, _cast(dtype, **inputs), tolerance=tolerance)


def posterior_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in [*side.layouts, *side.last]:
        s, tolerance = side.basic.pick(which)
        t = draw.t(shape[0], s, last=_ends(name))
        inputs = {"x0": draw.normal(*shape), "x_t": draw.normal(*shape), "t": t}
        yield Case(
            *("posterior", name, "q_posterior", "value"),
            s.params() | _after_another(shape),
            _cast(dtype, **inputs),
            tolerance=tolerance,
            tolerances={"variance": DEFAULT_VARIANCE_TOLERANCE} if which == "default" else {},
        )


def ddpm_step_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in [*side.layouts, *side.last]:
        s, tolerance = side.ddpm.pick(which)
        floats = {key: draw.normal(*shape) for key in ("x_t", "eps", "noise")}
        inputs = _cast(dtype, **floats, t=draw.t(shape[0], s, last=_ends(name), divides=True))
        params = s.params() | _after_another(shape)
        yield Case("ddpm-step", name, "ddpm_step", "value", params, inputs, tolerance=tolerance)


def ddim_step_cases(draw: Draw, side: Side) -> Iterator[Case]:
    etas = [0.5, 0.0, 1.0]
    for i, (name, shape, dtype, which) in enumerate([*side.layouts, *side.last]):
        s, tolerance = side.ddim.pick(which)
        floats = {key: draw.normal(*shape) for key in ("x_t", "eps", "noise")}
        t, eta = draw.t(shape[0], s, last=_ends(name), divides=True), etas[i % 3]
        group, _, layout = name.partition("/")
        group = {"hostile": "deterministic" if eta == 0 else "stochastic"}.get(group, group)
        inputs = _cast(dtype, **floats, t=t, t_prev=draw.t_prev(t, s.timesteps, last=_ends(name)))
        params = {**s.params(), "eta": eta} | _after_another(shape)
        yield _ddim_case(f"{group}/{layout}", params, inputs, tolerance, gives_noise=eta > 0)
    # Two more where the grid matters: one step per row from every t to every earlier one.
    s = side.ddim.hostile
    t, t_prev = np.array([(a, b) for a in range(s.timesteps) for b in range(a) if (a + b) % 3 == 0]).T
    floats = {key: draw.normal(len(t), 3) for key in ("x_t", "eps", "noise")}
    inputs = _cast("float32", **floats, t=t, t_prev=t_prev)
    for group, eta in (("deterministic", 0.0), ("stochastic", 0.25 if side.is_public else 0.3)):
        params = {**s.params(), "eta": eta} | _after_another(t.shape)
        yield _ddim_case(f"{group}/all strides", params, inputs, HOSTILE_TOLERANCE, gives_noise=eta > 0)
    # Noise that is given where none is asked for.
    floats = {key: draw.normal(6, 3, 2) for key in ("x_t", "eps", "noise")}
    t = draw.t(6, s, last=False)
    inputs = _cast("float32", **floats, t=t, t_prev=draw.t_prev(t, s.timesteps, last=False))
    yield _ddim_case(
        "deterministic/noise given", {**s.params(), "eta": 0.0}, inputs, HOSTILE_TOLERANCE, gives_noise=True
    )
    for i, (name, shape, dtype) in enumerate(side.draws, start=1):
        t = draw.rng.integers(2, s.timesteps, size=shape[0])
        inputs = {"x_t": draw.normal(*shape), "eps": draw.normal(*shape), "t": t}
        params = {**s.params(), "eta": 1.0 if i == 2 else 0.5, "draws": DRAWS, "seed": i}
        arrays = _cast(dtype, **inputs, t_prev=t - draw.rng.integers(1, 3, size=shape[0]))
        yield Case("ddim-step", f"noise/{name}, eta {params['eta']:g}", "ddim_step", "noise", params, arrays)


def _ends(name: str) -> bool:
    """Whether rows of this case may end on clean data."""
    return name.startswith("last/")


def _ddim_case(
    name: str, params: dict[str, Any], inputs: Arrays, tolerance: tuple[float, float], *, gives_noise: bool
) -> Case:
    given = {key: array for key, array in inputs.items() if gives_noise or key != "noise"}
    return Case("ddim-step", f"{name}, eta {params['eta']:g}", "ddim_step", "value", params, given, tolerance=tolerance)


def kl_cases(draw: Draw, side: Side) -> Iterator[Case]:
    shapes = [(6, 5), (4, 4), (1, 7), (3, 100)] if not side.is_public else [(5, 3), (4, 4)]
    kinds = [("moderate", 1.0), ("extreme", 3.0)]
    for i, shape in enumerate(shapes):
        for kind, spread in kinds:
            mu, weight = draw.normal(*shape, scale=spread), np.clip(draw.normal(shape[0]) + 0.25, -6, 6)
            logvar = np.clip(draw.normal(*shape, scale=1.5 * spread), -12, 6)
            dtype = "float64" if i == 1 else "float32"
            inputs = _cast(dtype, mu=mu, logvar=logvar, weight=weight)
            name = f"{kind}/{shape[0]} x {shape[1]}, {dtype}"
            yield Case("kl", name, "kl_divergence", "value", {}, inputs)


def reparameterize_cases(draw: Draw, side: Side) -> Iterator[Case]:
    modes = [("train", True, "float32"), ("eval", False, "float32"), ("dtype", False, "float64")]
    for name, train, dtype in modes:
        mu = draw.normal(512, 8)
        logvar = np.linspace(-3, 2, 8) + draw.normal(512, 8, scale=0.3)
        inputs = _cast(dtype, mu=mu, logvar=logvar, weight=draw.normal(512, 8, scale=1.0) + 0.25)
        params = {"train": train, "draws": DRAWS, "seed": 2}
        yield Case("reparameterize", f"{name}/512 x 8", "reparameterize", "reparameterize", params, inputs)


def guidance_cases(draw: Draw, side: Side) -> Iterator[Case]:
    scales = [3.0, 7.5, 1.75, 0.25, 2.0, 3.0, 5.0, 4.0, 0.6]
    for scale, (_, shape, dtype, _) in zip(scales, side.layouts):
        inputs = _cast(dtype, eps_cond=draw.normal(*shape), eps_uncond=draw.normal(*shape))
        group = "extrapolates" if scale > 1 else "interpolates"
        name = f"{group}/scale {scale:g}, {' x '.join(map(str, shape))}, {dtype}"
        yield Case("guidance", name, "guided_eps", "value", {"scale": scale}, inputs)
    # Where the answer is one of the inputs, or lies behind them; together with a scale at which it is neither.
    for scale in (0.0, 1.0, -0.5 if side.is_public else -1.5):
        inputs = _cast("float32", eps_cond=draw.normal(5, 3), eps_uncond=draw.normal(5, 3))
        params = {"scales": [2.5, scale]}
        yield Case("guidance", f"edges/scale {scale:g}, 5 x 3", "guided_eps", "value", params, inputs)


def conditioning_cases(draw: Draw, side: Side) -> Iterator[Case]:
    shapes = [(6, 5, 7), (4, 4, 4), (5, 9, 3)] if not side.is_public else [(5, 4, 6), (4, 3, 3)]
    for i, (batch, dim, cond_dim) in enumerate(shapes):
        dtype = "float64" if i == len(shapes) - 1 else "float32"
        inputs = {"x": draw.normal(batch, dim), "t": draw.t(batch, USUAL), "cond": draw.normal(batch, cond_dim)}
        others = {
            "other_x": draw.normal(batch, dim),
            "other_t": (inputs["t"] + 313) % USUAL.timesteps,
            "other_cond": draw.normal(batch, cond_dim),
        }
        params = {"rows": [1, 3], "seed": 3 + i}
        name = f"listens/{batch} x {dim}, text of {cond_dim}, {dtype}"
        yield Case("conditioning", name, "conditioning", "conditioning", params, _cast(dtype, **inputs, **others))
    yield _toy_case(draw, side.basic.hostile)


def _toy_case(draw: Draw, s: Schedule, steps: int = 60, batch: int = 64, dim: int = 3, cond_dim: int = 6) -> Case:
    """Two tight clusters, one per text. Who hears the text can tell the noise, who does not cannot.

    The texts are so far apart that who takes a tenth of the embedding learns in time as well.
    """
    rng, texts = draw.rng, draw.normal(2, cond_dim)

    def batches(n: int) -> tuple[np.ndarray, ...]:
        label, t = rng.integers(0, 2, size=n), rng.integers(3, s.timesteps, size=n)
        eps, centre = rng.standard_normal((n, dim)), np.where(label[:, None] == 0, TOY_CENTRE, -TOY_CENTRE)
        x_t = ref.q_sample(s, centre + TOY_STD * rng.standard_normal((n, dim)), t, eps)
        return x_t, t, texts[label], eps

    train = [np.stack(parts) for parts in zip(*(batches(batch) for _ in range(steps)))]
    x_t, t, cond, _ = batches(256)
    inputs = dict(zip(("x", "t", "cond", "target"), train)) | {"test_x": x_t, "test_t": t, "test_cond": cond}
    params = {"hidden_dim": 32, "time_dim": 16, "lr": 1e-2, "seed": 7, "process": s.params(), "parts": PARTS}
    return Case(
        "conditioning", "toy/learns two clusters", "train_conditioning", "toy", params, _cast("float32", **inputs)
    )


def sampler_cases(draw: Draw, side: Side) -> Iterator[Case]:
    """Whole samplers; they carry no points."""
    s = side.basic.hostile
    runs: list[tuple[str, int, float, tuple[int, ...]]] = [
        ("ddpm", s.timesteps, 0.0, (5,)),
        ("ddim", 4, 0.0, (5,)),
        ("ddim", 3, 0.5, (2, 3, 4)),
        ("ddim", 1, 0.0, (3,)),
    ]
    for sampler, steps, eta, shape in runs:
        a, b = draw.normal(s.timesteps, scale=0.1), draw.normal(s.timesteps, scale=0.3)
        name = f"linear/{sampler}, {steps} steps, eta {eta:g}"
        yield _sampler_case(draw, s, sampler, steps, eta, shape, a, b, 0.4, name)
    # The ideal network for data that is one point: every sampler must end on the point.
    bars = s.alpha_bars
    a, b = 1 / np.sqrt(1 - bars), -1.7 * np.sqrt(bars / (1 - bars))
    for sampler, steps in (("ddpm", s.timesteps), ("ddim", 5), ("ddim", 1)):
        yield _sampler_case(draw, s, sampler, steps, 0.0, (4,), a, b, 0.0, f"one point/{sampler}, {steps} steps")


def _sampler_case(
    draw: Draw,
    s: Schedule,
    sampler: str,
    steps: int,
    eta: float,
    shape: tuple[int, ...],
    a: np.ndarray,
    b: np.ndarray,
    c: float,
    name: str,
) -> Case:
    batch = 64
    params = {**s.params(), "sampler": sampler, "batch_size": batch, "shape": list(shape), "c": c, "seed": 5}
    if sampler == "ddim":
        params |= {"steps": steps, "eta": eta}
    inputs = _cast("float32", a=a, b=b) | (_cast("float32", cond=draw.normal(batch, 3)) if c else {})
    return Case("samplers", name, "sample", "sample", params, inputs)


def _after_another(shape: tuple[int, ...]) -> dict[str, bool]:
    """Whether the same object answers for the same rows in another order first: one row has no other order."""
    return {"again": True} if shape[0] > 1 else {}


def _cast(dtype: str, **arrays: np.ndarray) -> Arrays:
    """Floats to dtype; timesteps stay int64."""
    return {
        name: np.ascontiguousarray(array, dtype=np.int64 if array.dtype.kind == "i" else dtype)
        for name, array in arrays.items()
    }


# In the order of their seeds: a new one goes to the end.
MAKERS: dict[str, Callable[[Draw, Side], Iterator[Case]]] = {
    "reparameterize": reparameterize_cases,
    "kl": kl_cases,
    "q-sample": q_sample_cases,
    "predict-x0": predict_x0_cases,
    "posterior": posterior_cases,
    "ddpm-step": ddpm_step_cases,
    "ddim-step": ddim_step_cases,
    "conditioning": conditioning_cases,
    "guidance": guidance_cases,
    "samplers": sampler_cases,
}


# -- what known mistakes give --------------------------------------------------------------------------


def with_mistakes(case: Case) -> Case:
    """The case with the fingerprint of every chaff of its id that fails it and answers with numbers."""
    mistakes = {}
    # In float64 the last digits of a network's answer are nearly the same everywhere, once rounded.
    inputs = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in case.inputs.items()}
    for chaff in chaffs_of(case.id) if case.check != "toy" else ():  # after a training all mistakes look alike
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = driver.run(chaff.submission(), case.call, case.params, inputs)
            fingerprint, problems = CHECKS[case.check](case, result)
        except Exception:  # a chaff may crash in any way; then there is nothing to recognise
            continue
        if problems and fingerprint and all((np.abs(value) < 1e30).all() for value in fingerprint.values()):
            mistakes[chaff.name] = {key: _round(value) for key, value in fingerprint.items()}
    return replace(case, mistakes=mistakes)


def _round(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.5g}") for value in np.ravel(values)], dtype=np.float32).reshape(np.shape(values))


# -- writing ---------------------------------------------------------------------------------------------


def make(out_public: Path = PUBLIC, out_hidden: Path = HIDDEN) -> None:
    """Write all cases, one file per id on either side, and the hints that name mistakes."""
    for id in MAKERS:
        _write(out_public / f"{id}.npz", public_cases(id))
        _write(out_hidden / f"{id}.npz", hidden_cases(id))
    hints = {id: {chaff.name: chaff.text for chaff in chaffs_of(id)} for id in MAKERS}
    (out_public / "mistakes.json").write_text(json.dumps(hints, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def public_cases(id: str) -> list[Case]:
    """One id's public cases."""
    number = list(MAKERS).index(id)
    return [with_mistakes(complete(case)) for case in MAKERS[id](Draw(PUBLIC_SEED + number), PUBLIC_SIDE)]


def hidden_cases(id: str, secret: int | None = None) -> list[Case]:
    """One id's hidden cases: on the inputs that are stored, or, given a secret of 128 bits, on those drawn from it.

    Where the stored cases have none that fits (the id is new, the case is, or it has another shape or schedule), inputs
    are drawn from a secret of its own.
    """
    kept = {} if secret is not None else stored(id)
    draw = Draw(secrets.randbits(128) if secret is None else secret, list(MAKERS).index(id))
    cases = []
    for case in MAKERS[id](draw, HIDDEN_SIDE):
        case.hidden = True
        old = kept.get(case.name)
        if old is not None and _form(old) == _form(case):
            case = replace(case, inputs=old.inputs)
        cases.append(with_mistakes(complete(case)))
    return cases


def stored(id: str) -> dict[str, Case]:
    """The hidden cases of an id as they are kept, by name."""
    path = HIDDEN / f"{id}.npz"
    return {case.name: case for case in load_cases(path, hidden=True)} if path.is_file() else {}


def _form(case: Case) -> object:
    """What a case is but for its inputs' values."""
    return case.call, case.params, [(name, array.dtype, array.shape) for name, array in case.inputs.items()]


def _write(path: Path, cases: list[Case]) -> None:
    """Replace a file of cases, unless it differs by rounding only."""
    made = path.with_name(f".{path.name}")
    save_cases(made, cases)
    if not path.is_file() or differences(made, path):
        made.replace(path)
    made.unlink(missing_ok=True)


def differences(made: Path, kept: Path) -> list[str]:
    """The arrays in which two files of cases differ by more than another CPU's rounding."""
    with np.load(made, allow_pickle=False) as a, np.load(kept, allow_pickle=False) as b:
        if a.files != b.files:
            return sorted(set(a.files) ^ set(b.files)) or ["the order of the arrays"]
        return [name for name in a.files if not _same(name, a[name], b[name])]


def _same(name: str, a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    _, kind, *rest = name.split("|")
    if kind == "mistake":  # five digits are kept, and the judge allows 1e-4 + 1e-3 of the value
        largest = np.abs(b).max(initial=1.0)  # a small sum of large terms is as exact as these
        return np.allclose(a, b, rtol=2e-4, atol=1e-5 * largest)
    if kind == "expected" or rest[1:2] == ["out"]:
        return np.allclose(a, b, rtol=1e-9, atol=1e-12)
    return np.array_equal(a, b)


if __name__ == "__main__":
    make(*map(Path, sys.argv[1:]))
