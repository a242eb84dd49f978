"""What must come out of a case, from its parameters and inputs alone: in float64, by formulas.py.

Inputs are drawn once and kept; expectations and stand-ins follow from them, so they can be made again at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from grading.cases import Arrays, Case, Standins
from grading.hidden.reference import formulas as ref
from grading.hidden.reference.formulas import Schedule

Answer = tuple[Arrays, Standins]


def complete(case: Case) -> Case:
    """The case with what is expected of it, and with stand-ins for the graded functions that it calls."""
    inputs = {name: _in_float64(array) for name, array in case.inputs.items()}
    expected, standins = ANSWERS[case.call](replace(case, inputs=inputs))
    return replace(case, expected=expected, standins=standins)


def _in_float64(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


# -- the diffusion process -------------------------------------------------------------------------------


def q_sample(case: Case) -> Answer:
    s, x = Schedule.of(case.params), case.inputs
    if case.check == "noise":
        spread = np.broadcast_to(np.sqrt(1 - s.bar(x["t"], x["x0"])), x["x0"].shape)
        return {"mean": ref.q_sample(s, x["x0"], x["t"], np.zeros_like(x["x0"])), "scale": spread}, {}
    return {"x_t": ref.q_sample(s, x["x0"], x["t"], x["noise"])}, {}


def predict_x0(case: Case) -> Answer:
    s, x = Schedule.of(case.params), case.inputs
    return {"x0": ref.predict_x0(s, x["x_t"], x["t"], x["eps"])}, {}


def q_posterior(case: Case) -> Answer:
    s, x = Schedule.of(case.params), case.inputs
    mean, variance = ref.q_posterior(s, x["x0"], x["x_t"], x["t"])
    return {"mean": mean, "variance": variance}, {}


def ddpm_step(case: Case) -> Answer:
    s, x = Schedule.of(case.params), case.inputs
    x0 = ref.predict_x0(s, x["x_t"], x["t"], x["eps"])
    mean, variance = ref.q_posterior(s, x0, x["x_t"], x["t"])
    posterior = {"in": {"x0": x0, "x_t": x["x_t"], "t": x["t"]}, "out": {"mean": mean, "variance": variance}}
    expected = {"x_prev": ref.ddpm_step(s, x["x_t"], x["t"], x["eps"], x["noise"])}
    return expected, {**_x0_standin(s, x), "q_posterior": posterior}


def ddim_step(case: Case) -> Answer:
    s, x, eta = Schedule.of(case.params), case.inputs, case.params["eta"]
    times = x["t"], x["t_prev"]
    if case.check == "noise":
        spread = np.broadcast_to(ref.ddim_sigma(s, *times, eta, x["x_t"]), x["x_t"].shape)
        expected = {"mean": ref.ddim_step(s, x["x_t"], *times, x["eps"], eta, None), "scale": spread}
    else:
        noise = x["noise"] if eta > 0 else None
        expected = {"x_prev": ref.ddim_step(s, x["x_t"], *times, x["eps"], eta, noise)}
    return expected, _x0_standin(s, x)


def _x0_standin(s: Schedule, x: Arrays) -> Standins:
    given = {name: x[name] for name in ("x_t", "t", "eps")}
    return {"predict_x0": {"in": given, "out": {"x0": ref.predict_x0(s, *given.values())}}}


# -- the VAE and the conditional denoiser ----------------------------------------------------------------


def kl_divergence(case: Case) -> Answer:
    mu, logvar, weight = (case.inputs[name] for name in ("mu", "logvar", "weight"))
    gradients = {"grad_mu": weight[:, None] * mu, "grad_logvar": weight[:, None] * 0.5 * (np.exp(logvar) - 1)}
    return {"kl": ref.kl_divergence(mu, logvar), **gradients}, {}


def reparameterize(case: Case) -> Answer:
    x = case.inputs
    return {"mean": x["mu"], "scale": np.exp(0.5 * x["logvar"]), "weight": x["weight"]}, {}


def guided_eps(case: Case) -> Answer:
    cond, uncond = case.inputs["eps_cond"], case.inputs["eps_uncond"]
    if "scales" in case.params:
        return {"eps": np.stack([ref.guided_eps(cond, uncond, scale) for scale in case.params["scales"]])}, {}
    return {"eps": ref.guided_eps(cond, uncond, case.params["scale"])}, {}


def conditioning(case: Case) -> Answer:
    return {"like": case.inputs["x"]}, {}


TOY_STD, TOY_CENTRE = 0.1, 2.0  # two Gaussian clusters, around plus and minus this number in every dimension


def train_conditioning(case: Case) -> Answer:
    """The toy mixture: the ideal prediction for who knows the text, and the best one without it."""
    s, x = Schedule.of(case.params["process"]), case.inputs
    x_t, t, text = x["test_x"], x["test_t"], x["test_cond"]
    bar = s.bar(t, x_t)
    spread = bar * TOY_STD**2 + 1 - bar
    # E[eps | x_t, t, cluster] for a Gaussian cluster, and the same without knowing which cluster.
    centres = (TOY_CENTRE, -TOY_CENTRE)
    ideal = [np.sqrt(1 - bar) * (x_t - np.sqrt(bar) * c) / spread for c in centres]
    logit = [-0.5 * ((x_t - np.sqrt(bar) * c) ** 2 / spread).sum(1) for c in centres]
    first = 1 / (1 + np.exp(logit[1] - logit[0]))[:, None]
    conditional = np.where(_is_in_the_first(s, x, text)[:, None], *ideal)
    return {"eps": conditional, "deaf": first * ideal[0] + (1 - first) * ideal[1]}, {}


def _is_in_the_first(s: Schedule, x: Arrays, text: np.ndarray) -> np.ndarray:
    """Whether rows of text belong to the cluster around the positive centre: the training data tells which do."""
    x_t, t, seen, eps = (x[name].reshape(-1, *x[name].shape[2:]) for name in ("x", "t", "cond", "target"))
    one = seen[np.argmax(ref.predict_x0(s, x_t, t, eps).mean(axis=1))]
    return (text == one).all(axis=1)


# -- whole samplers ----------------------------------------------------------------------------------------


def sample(case: Case) -> Answer:
    """Around a network linear in x, eps = a x + b + c text, every step is linear in x as well."""
    s, params = Schedule.of(case.params), case.params
    a, b, c, is_ddpm = case.inputs["a"], case.inputs["b"], params["c"], params["sampler"] == "ddpm"
    ts = np.arange(s.timesteps)[::-1] if is_ddpm else _grid(s.timesteps, params["steps"])
    before, eta = np.append(ts[1:], -1), params.get("eta", 0.0)
    one, zero = np.ones(len(ts)), np.zeros(len(ts))

    def step(x: np.ndarray, eps: np.ndarray) -> np.ndarray:
        if is_ddpm:
            return ref.q_posterior(s, ref.predict_x0(s, x, ts, eps), x, ts)[0]
        return ref.ddim_step(s, x, ts, before, eps, eta, zero)

    per_eps = step(zero, one)
    variance = ref.q_posterior(s, zero, zero, ts)[1] if is_ddpm else ref.ddim_sigma(s, ts, before, eta, zero) ** 2
    expected = {
        "t": ts.copy(),
        "gain": step(one, zero) + per_eps * a[ts],
        "offset": per_eps * b[ts],
        "cond_gain": per_eps * c,
        "sigma": np.sqrt(variance),
    }
    return expected, {}


def _grid(timesteps: int, steps: int) -> np.ndarray:
    """The even grid from T-1 to 0; one step alone starts at T-1."""
    if steps == 1:
        return np.array([timesteps - 1])
    return np.array([i * (timesteps - 1) // (steps - 1) for i in range(steps)])[::-1]


ANSWERS: dict[str, Callable[[Case], Answer]] = {
    function.__name__: function
    for function in (
        *(q_sample, predict_x0, q_posterior, ddpm_step, ddim_step),
        *(kl_divergence, reparameterize, guided_eps, conditioning, train_conditioning, sample),
    )
}
