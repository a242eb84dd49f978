"""Write every case: `python -m grading.hidden.reference.make_cases`.

Expectations come from formulas.py, in float64. The answers of known mistakes come from running the bank on the same
inputs. Public and hidden cases differ in their inputs and in nothing else.

The same code gives the same inputs on every machine, and the same expectations and answers but for their last digits:
CPUs round exp and log differently. A file that differs in these only is left as it is.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from grading import driver
from grading.cases import HIDDEN, PUBLIC, Arrays, Case, save_cases
from grading.hidden.reference import formulas as ref
from grading.hidden.reference.bank import chaffs_of
from grading.hidden.reference.formulas import Schedule
from grading.judge import CHECKS

HOSTILE_TOLERANCE, DEFAULT_TOLERANCE = (1e-4, 1e-4), (2e-3, 1e-4)

# name, shape, dtype, which of the id's two schedules. B = W and B != W, every rank, one row.
Layout = tuple[str, tuple[int, ...], str, str]
HIDDEN_LAYOUTS: list[Layout] = [
    ("hostile/vectors", (6, 5), "float32", "hostile"),
    ("hostile/square batch", (4, 4), "float32", "hostile"),
    ("hostile/images", (5, 2, 4, 3), "float32", "hostile"),
    ("dtype/float64", (7, 3, 2), "float64", "hostile"),
    ("single/one row", (1, 6), "float32", "hostile"),
    ("default/images", (4, 1, 4, 4), "float32", "default"),
    ("default/vectors", (6, 9), "float64", "default"),
]
PUBLIC_LAYOUTS: list[Layout] = [
    ("hostile/vectors", (5, 4), "float32", "hostile"),
    ("hostile/images", (4, 1, 4, 4), "float32", "hostile"),
    ("dtype/float64", (6, 3), "float64", "hostile"),
    ("default/images", (5, 1, 3, 4), "float32", "default"),
]


@dataclass(frozen=True)
class Family:
    """The two schedules of one kind of check. On the hostile one (small T, large betas) every correct variant agrees
    to 5e-7 and almost every mistake is beyond 9e-2; on the usual one not even correct variants agree to 1e-4.
    """

    hostile: Schedule
    default: Schedule

    def pick(self, which: str) -> tuple[Schedule, tuple[float, float]]:
        """The schedule, and the tolerance that fits it."""
        return (self.hostile, HOSTILE_TOLERANCE) if which == "hostile" else (self.default, DEFAULT_TOLERANCE)


@dataclass(frozen=True)
class Side:
    """What makes public cases public and hidden ones hidden: their seed, layouts and schedules.

    Steps are checked on schedules (ddpm, ddim) on which the functions that they call (basic) are not checked, on
    either side, so that a stand-in's answers answer nothing else.
    """

    seed: int
    layouts: list[Layout]
    basic: Family
    ddpm: Family
    ddim: Family
    is_public: bool


USUAL = Schedule(1000, 1e-4, 0.02)
PUBLIC_SIDE = Side(
    100,
    PUBLIC_LAYOUTS,
    basic=Family(Schedule(8, 0.05, 0.6), USUAL),
    ddpm=Family(Schedule(9, 0.06, 0.55), Schedule(1000, 1e-4, 0.0195)),
    ddim=Family(Schedule(10, 0.04, 0.5), Schedule(1000, 1e-4, 0.0185)),
    is_public=True,
)
HIDDEN_SIDE = Side(
    200,
    HIDDEN_LAYOUTS,
    basic=Family(Schedule(7, 0.08, 0.55), USUAL),
    ddpm=Family(Schedule(8, 0.07, 0.5), Schedule(1000, 1e-4, 0.019)),
    ddim=Family(Schedule(11, 0.03, 0.45), Schedule(1000, 1e-4, 0.018)),
    is_public=False,
)


class Draw:
    """Inputs for one set of cases, from one seeded generator: fair to float32, blind to nothing known."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int, scale: float = 2.0) -> np.ndarray:
        """Values within 6, half of them beyond 1, that float32 holds exactly: another CPU's last digit is cut off."""
        return np.clip(scale * self.rng.standard_normal(shape), -6, 6).astype(np.float32).astype(np.float64)

    def t(self, batch: int, timesteps: int) -> np.ndarray:
        """0, 1, the middle and the end, mixed; for one row the middle."""
        if batch == 1:
            return np.array([timesteps // 2])
        t = np.concatenate([[0, timesteps - 1, 1, timesteps // 2], self.rng.integers(2, timesteps, size=batch)])[:batch]
        return self.rng.permutation(t)

    def t_prev(self, t: np.ndarray, timesteps: int) -> np.ndarray:
        """Before t by strides of one and more, and -1 where t is 0 and in one row more."""
        stride = max(1, timesteps // 9) * self.rng.integers(1, 4, size=len(t))
        t_prev = np.where(self.rng.random(len(t)) < 0.3, t - 1, t - 1 - stride)
        t_prev = np.maximum(t_prev, np.where(t >= 3, 1, -1))  # not all rows onto clean data
        if len(t) > 1:
            t_prev[np.argmax(t)] = -1
        return t_prev


# -- one function per id ---------------------------------------------------------------------------------


def q_sample_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in side.layouts:
        s, tolerance = side.basic.pick(which)
        x0, t, noise = draw.normal(*shape), draw.t(shape[0], s.timesteps), draw.normal(*shape)
        inputs = _cast(dtype, x0=x0, t=t, noise=noise)
        expected = {"x_t": ref.q_sample(s, x0, t, noise)}
        yield Case("q-sample", name, "q_sample", "value", s.params(), inputs, expected, tolerance)
    s = side.basic.hostile
    x0, t = np.full((400, 16), 2.5), draw.rng.integers(0, s.timesteps, size=400)
    bar = s.bar(t, x0)
    expected = {"mean": np.sqrt(bar) * x0, "scale": np.broadcast_to(np.sqrt(1 - bar), x0.shape)}
    inputs, params = _cast("float32", x0=x0, t=t), {**s.params(), "seed": 1}
    yield Case("q-sample", "noise/own", "q_sample", "noise", params, inputs, _cast("float64", **expected))


def predict_x0_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in side.layouts:
        s, tolerance = side.basic.pick(which)
        x_t, t, eps = draw.normal(*shape), draw.t(shape[0], s.timesteps), draw.normal(*shape)
        inputs = _cast(dtype, x_t=x_t, t=t, eps=eps)
        expected = {"x0": ref.predict_x0(s, x_t, t, eps)}
        yield Case("predict-x0", name, "predict_x0", "value", s.params(), inputs, expected, tolerance)


def posterior_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in side.layouts:
        s, tolerance = side.basic.pick(which)
        x0, x_t, t = draw.normal(*shape), draw.normal(*shape), draw.t(shape[0], s.timesteps)
        mean, variance = ref.q_posterior(s, x0, x_t, t)
        inputs, expected = _cast(dtype, x0=x0, x_t=x_t, t=t), {"mean": mean, "variance": variance}
        yield Case("posterior", name, "q_posterior", "value", s.params(), inputs, expected, tolerance)


def ddpm_step_cases(draw: Draw, side: Side) -> Iterator[Case]:
    for name, shape, dtype, which in side.layouts:
        s, tolerance = side.ddpm.pick(which)
        x_t, eps, noise = (draw.normal(*shape) for _ in range(3))
        t = draw.t(shape[0], s.timesteps)
        x0 = ref.predict_x0(s, x_t, t, eps)
        mean, variance = ref.q_posterior(s, x0, x_t, t)
        standins = {
            "predict_x0": {"in": {"x_t": x_t, "t": t, "eps": eps}, "out": {"x0": x0}},
            "q_posterior": {"in": {"x0": x0, "x_t": x_t, "t": t}, "out": {"mean": mean, "variance": variance}},
        }
        inputs = _cast(dtype, x_t=x_t, t=t, eps=eps, noise=noise)
        expected = {"x_prev": ref.ddpm_step(s, x_t, t, eps, noise)}
        yield Case("ddpm-step", name, "ddpm_step", "value", s.params(), inputs, expected, tolerance, standins)


def ddim_step_cases(draw: Draw, side: Side) -> Iterator[Case]:
    etas = [0.5, 0.0, 1.0]
    for i, (name, shape, dtype, which) in enumerate(side.layouts):
        s, tolerance = side.ddim.pick(which)
        x_t, eps, noise = (draw.normal(*shape) for _ in range(3))
        t = draw.t(shape[0], s.timesteps)
        t_prev, eta = draw.t_prev(t, s.timesteps), etas[i % 3]
        group, _, layout = name.partition("/")
        inputs = {"x_t": x_t, "t": t, "t_prev": t_prev, "eps": eps} | ({"noise": noise} if eta > 0 else {})
        expected = {"x_prev": ref.ddim_step(s, x_t, t, t_prev, eps, eta, noise if eta > 0 else None)}
        group = {"hostile": "deterministic" if eta == 0 else "stochastic"}.get(group, group)
        yield Case(
            *("ddim-step", f"{group}/{layout}, eta {eta:g}", "ddim_step", "value"),
            {**s.params(), "eta": eta},
            _cast(dtype, **inputs),
            expected,
            tolerance,
            {"predict_x0": _x0_standin(s, x_t, t, eps)},
        )
    # Two more where the grid matters: one step per row from every t to every earlier one.
    s = side.ddim.hostile
    t, t_prev = np.array([(a, b) for a in range(s.timesteps) for b in range(-1, a) if (a + b) % 3 == 0]).T
    x_t, eps, noise = (draw.normal(len(t), 3) for _ in range(3))
    for group, eta in (("deterministic", 0.0), ("stochastic", 0.5)):
        inputs = {"x_t": x_t, "t": t, "t_prev": t_prev, "eps": eps} | ({"noise": noise} if eta > 0 else {})
        expected = {"x_prev": ref.ddim_step(s, x_t, t, t_prev, eps, eta, noise if eta > 0 else None)}
        yield Case(
            *("ddim-step", f"{group}/all strides, eta {eta:g}", "ddim_step", "value"),
            {**s.params(), "eta": eta},
            _cast("float32", **inputs),
            expected,
            standins={"predict_x0": _x0_standin(s, x_t, t, eps)},
        )
    x_t, eps, t = np.full((400, 16), 1.5), np.full((400, 16), -0.7), draw.rng.integers(2, s.timesteps, size=400)
    t_prev = t - draw.rng.integers(1, 3, size=400)
    expected = {
        "mean": ref.ddim_step(s, x_t, t, t_prev, eps, 0.5, np.zeros_like(eps)),
        "scale": np.broadcast_to(ref.ddim_sigma(s, t, t_prev, 0.5, x_t), x_t.shape),
    }
    yield Case(
        *("ddim-step", "noise/own, eta 0.5", "ddim_step", "noise"),
        {**s.params(), "eta": 0.5, "seed": 1},
        _cast("float32", x_t=x_t, t=t, t_prev=t_prev, eps=eps),
        _cast("float64", **expected),
        standins={"predict_x0": _x0_standin(s, x_t, t, eps)},
    )


def kl_cases(draw: Draw, side: Side) -> Iterator[Case]:
    shapes = [(6, 5), (4, 4), (1, 7), (3, 100)] if not side.is_public else [(5, 3), (4, 4)]
    kinds = [("moderate", 1.0), ("extreme", 3.0)]
    for i, shape in enumerate(shapes):
        for kind, spread in kinds:
            mu, weight = draw.normal(*shape, scale=spread), draw.normal(shape[0]) + 0.25
            logvar = np.clip(draw.normal(*shape, scale=1.5 * spread), -12, 6)
            dtype = "float64" if i == 1 else "float32"
            expected = {
                "kl": ref.kl_divergence(mu, logvar),
                "grad_mu": weight[:, None] * mu,
                "grad_logvar": weight[:, None] * 0.5 * (np.exp(logvar) - 1),
            }
            name = f"{kind}/{shape[0]} x {shape[1]}, {dtype}"
            inputs = _cast(dtype, mu=mu, logvar=logvar, weight=weight)
            yield Case("kl", name, "kl_divergence", "value", {}, inputs, expected, (1e-4, 1e-4))


def reparameterize_cases(draw: Draw, side: Side) -> Iterator[Case]:
    modes = [("train", True, "float32"), ("eval", False, "float32"), ("dtype", False, "float64")]
    for name, train, dtype in modes:
        mu = draw.normal(512, 8)
        logvar = np.linspace(-3, 2, 8) + draw.normal(512, 8, scale=0.3)
        weight = draw.normal(512, 8, scale=1.0) + 0.25
        expected = {"mean": mu, "scale": np.exp(0.5 * logvar), "weight": weight}
        inputs = _cast(dtype, mu=mu, logvar=logvar, weight=weight)
        params = {"train": train, "seed": 2}
        yield Case("reparameterize", f"{name}/512 x 8", "reparameterize", "reparameterize", params, inputs, expected)


def guidance_cases(draw: Draw, side: Side) -> Iterator[Case]:
    scales = [3.0, 7.5, 1.75, 0.25, 2.0, 3.0, 5.0]
    for scale, (_, shape, dtype, _) in zip(scales, side.layouts):
        cond, uncond = draw.normal(*shape), draw.normal(*shape)
        group = "extrapolates" if scale > 1 else "interpolates"
        name = f"{group}/scale {scale:g}, {' x '.join(map(str, shape))}, {dtype}"
        inputs, expected = _cast(dtype, eps_cond=cond, eps_uncond=uncond), {"eps": ref.guided_eps(cond, uncond, scale)}
        yield Case("guidance", name, "guided_eps", "value", {"scale": scale}, inputs, expected)


def conditioning_cases(draw: Draw, side: Side) -> Iterator[Case]:
    shapes = [(6, 5, 7), (4, 4, 4), (5, 9, 3)] if not side.is_public else [(5, 4, 6), (4, 3, 3)]
    for i, (batch, dim, cond_dim) in enumerate(shapes):
        dtype = "float64" if i == len(shapes) - 1 else "float32"
        inputs = {"x": draw.normal(batch, dim), "t": draw.t(batch, 1000), "cond": draw.normal(batch, cond_dim)}
        others = {
            "other_x": draw.normal(batch, dim),
            "other_t": (inputs["t"] + 313) % 1000,
            "other_cond": draw.normal(batch, cond_dim),
        }
        params = {"rows": [1, 3], "seed": 3 + i}
        name = f"listens/{batch} x {dim}, text of {cond_dim}, {dtype}"
        arrays = _cast(dtype, **inputs, **others)
        yield Case("conditioning", name, "conditioning", "conditioning", params, arrays, {"like": inputs["x"]})
    yield _toy_case(draw, side.basic.hostile)


def _toy_case(draw: Draw, s: Schedule, steps: int = 60, batch: int = 64, dim: int = 3, cond_dim: int = 6) -> Case:
    """Two tight clusters, one per text. Who hears the text can tell the noise, who does not cannot."""
    std, rng = 0.1, draw.rng
    centres, texts = np.array([[2.0] * dim, [-2.0] * dim]), draw.normal(2, cond_dim, scale=1.0)

    def batches(n: int) -> tuple[np.ndarray, ...]:
        label, t = rng.integers(0, 2, size=n), rng.integers(3, s.timesteps, size=n)
        eps = rng.standard_normal((n, dim))
        x_t = ref.q_sample(s, centres[label] + std * rng.standard_normal((n, dim)), t, eps)
        return x_t, t, texts[label], eps, label

    train = [np.stack(parts) for parts in zip(*(batches(batch)[:4] for _ in range(steps)))]
    x_t, t, cond, _, label = batches(256)
    bar = s.bar(t, x_t)
    # E[eps | x_t, t, cluster] for a Gaussian cluster, and the same without knowing which cluster.
    ideal = [np.sqrt(1 - bar) * (x_t - np.sqrt(bar) * c) / (bar * std**2 + 1 - bar) for c in centres]
    logit = [-0.5 * ((x_t - np.sqrt(bar) * c) ** 2).sum(1) / (bar[:, 0] * std**2 + 1 - bar[:, 0]) for c in centres]
    first = 1 / (1 + np.exp(logit[1] - logit[0]))[:, None]
    conditional = np.where(label[:, None] == 0, ideal[0], ideal[1])
    deaf = np.square(first * ideal[0] + (1 - first) * ideal[1] - conditional).mean()
    inputs = dict(zip(("x", "t", "cond", "target"), train)) | {"test_x": x_t, "test_t": t, "test_cond": cond}
    return Case(
        *("conditioning", "toy/learns two clusters", "train_conditioning", "toy"),
        {"hidden_dim": 32, "time_dim": 16, "lr": 1e-2, "seed": 7},
        _cast("float32", **inputs),
        {"eps": conditional, "deaf_error": np.array(deaf)},
    )


def sampler_cases(draw: Draw, side: Side) -> Iterator[Case]:
    """Whole samplers; they carry no points. Around a network linear in x every step is linear in x as well."""
    s = side.basic.hostile
    runs = [
        ("ddpm", s.timesteps, 0.0, (5,)),
        ("ddim", 4, 0.0, (5,)),
        ("ddim", 3, 0.5, (2, 3, 4)),
        ("ddim", 1, 0.0, (3,)),
    ]
    for sampler, steps, eta, shape in runs:
        ts = np.arange(s.timesteps)[::-1] if sampler == "ddpm" else _grid(s.timesteps, steps)
        a, b = draw.normal(s.timesteps, scale=0.1), draw.normal(s.timesteps, scale=0.3)
        yield _sampler_case(
            draw, s, sampler, ts, eta, shape, a, b, 0.4, f"linear/{sampler}, {len(ts)} steps, eta {eta:g}"
        )
    # The ideal network for data that is one point: every sampler must end on the point.
    bars = s.alpha_bars
    a, b = 1 / np.sqrt(1 - bars), -1.7 * np.sqrt(bars / (1 - bars))
    for sampler, steps in (("ddpm", s.timesteps), ("ddim", 5), ("ddim", 1)):
        ts = np.arange(s.timesteps)[::-1] if sampler == "ddpm" else _grid(s.timesteps, steps)
        yield _sampler_case(draw, s, sampler, ts, 0.0, (4,), a, b, 0.0, f"one point/{sampler}, {len(ts)} steps")


def _grid(timesteps: int, steps: int) -> np.ndarray:
    """The even grid from T-1 to 0; one step alone starts at T-1."""
    return np.array([i * (timesteps - 1) // max(1, steps - 1) for i in range(steps)] if steps > 1 else [timesteps - 1])[
        ::-1
    ]


def _sampler_case(
    draw: Draw,
    s: Schedule,
    sampler: str,
    ts: np.ndarray,
    eta: float,
    shape: tuple,
    a: np.ndarray,
    b: np.ndarray,
    c: float,
    name: str,
) -> Case:
    batch = 64
    before = np.append(ts[1:], -1)
    one, zero = np.ones(len(ts)), np.zeros(len(ts))

    def step(x: np.ndarray, eps: np.ndarray) -> np.ndarray:
        if sampler == "ddpm":
            return ref.q_posterior(s, ref.predict_x0(s, x, ts, eps), x, ts)[0]
        return ref.ddim_step(s, x, ts, before, eps, eta, zero)

    per_eps = step(zero, one)  # a step is linear in x and in eps, and eps = a x + b + c text
    if sampler == "ddpm":
        sigma = np.sqrt(ref.q_posterior(s, zero, zero, ts)[1])
    else:
        sigma = ref.ddim_sigma(s, ts, before, eta, zero)
    expected = {
        "t": ts.copy(),
        "gain": step(one, zero) + per_eps * a[ts],
        "offset": per_eps * b[ts],
        "cond_gain": per_eps * c,
        "sigma": sigma,
    }
    params = {**s.params(), "sampler": sampler, "batch_size": batch, "shape": list(shape), "c": c, "seed": 5}
    if sampler == "ddim":
        params |= {"steps": len(ts), "eta": eta}
    inputs = _cast("float32", a=a, b=b) | (_cast("float32", cond=draw.normal(batch, 3)) if c else {})
    return Case("samplers", name, "sample", "sample", params, inputs, expected)


def _x0_standin(s: Schedule, x_t: np.ndarray, t: np.ndarray, eps: np.ndarray) -> dict[str, Arrays]:
    return {"in": {"x_t": x_t, "t": t, "eps": eps}, "out": {"x0": ref.predict_x0(s, x_t, t, eps)}}


def _cast(dtype: str, **arrays: np.ndarray) -> Arrays:
    """Floats to dtype; timesteps stay int64."""
    return {
        name: np.ascontiguousarray(array, dtype=np.int64 if array.dtype.kind == "i" else dtype)
        for name, array in arrays.items()
    }


# In the order of their seeds: a new one goes to the end.
MAKERS = {
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
        if problems and fingerprint and all(np.isfinite(value).all() for value in fingerprint.values()):
            mistakes[chaff.name] = {key: _round(value) for key, value in fingerprint.items()}
    return replace(case, mistakes=mistakes)


def _round(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.5g}") for value in np.ravel(values)], dtype=np.float32).reshape(np.shape(values))


def make(out_public: Path = PUBLIC, out_hidden: Path = HIDDEN) -> None:
    """Write all cases, one file per id on either side, and the hints that name mistakes."""
    for number, (id, maker) in enumerate(MAKERS.items()):
        for out, side in ((out_public, PUBLIC_SIDE), (out_hidden, HIDDEN_SIDE)):
            path, made = out / f"{id}.npz", out / f".{id}.npz"
            save_cases(made, [with_mistakes(case) for case in maker(Draw(side.seed + number), side)])
            if not path.is_file() or differences(made, path):
                made.replace(path)
            made.unlink(missing_ok=True)
    hints = {id: {chaff.name: chaff.text for chaff in chaffs_of(id)} for id in MAKERS}
    (out_public / "mistakes.json").write_text(json.dumps(hints, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
        return np.allclose(a, b, rtol=2e-4, atol=1e-5)
    if kind == "expected" or rest[1:2] == ["out"]:
        return np.allclose(a, b, rtol=1e-9, atol=1e-12)
    return np.array_equal(a, b)


if __name__ == "__main__":
    make(*map(Path, sys.argv[1:]))
