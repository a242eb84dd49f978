"""The reference formulas of the graders, against the schedulers of diffusers; the cases, made again."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from grading.cases import PUBLIC, all_cases, load_cases, save_cases
from grading.hidden.reference import formulas as ref
from grading.hidden.reference import make_cases
from grading.hidden.reference.make_cases import HIDDEN_SIDE, PUBLIC_SIDE, USUAL, differences
from grading.hidden.reference.verify import unfair
from harness import ROOT, child_env

SCHEDULES = [PUBLIC_SIDE.basic.hostile, HIDDEN_SIDE.ddpm.hostile, PUBLIC_SIDE.ddim.hostile, USUAL]
SCHEDULES += [PUBLIC_SIDE.basic.cosine, HIDDEN_SIDE.ddim.cosine]


def scheduler_options(s):
    return {
        "num_train_timesteps": s.timesteps,
        "beta_start": s.beta_start,
        "beta_end": s.beta_end,
        "beta_schedule": "linear" if s.kind == "linear" else "squaredcos_cap_v2",
        "clip_sample": False,
    }


def draws(n):
    return np.random.default_rng(0).standard_normal((n, 6, 5))


@pytest.mark.parametrize("s", SCHEDULES, ids=str)
def test_q_sample_is_diffusers(s):
    x0, noise = draws(2)
    t = np.array([0, 1, 2, s.timesteps // 2, s.timesteps - 2, s.timesteps - 1])
    theirs = DDPMScheduler(**scheduler_options(s)).add_noise(*map(torch.from_numpy, (x0, noise, t)))
    np.testing.assert_allclose(ref.q_sample(s, x0, t, noise), theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("s", SCHEDULES, ids=str)
def test_ddpm_step_is_diffusers(s):
    x_t, eps = draws(2)
    theirs = DDPMScheduler(variance_type="fixed_small", **scheduler_options(s))
    for t in (0, 1, s.timesteps // 2, s.timesteps - 1):
        rows = np.full(len(x_t), t)
        noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
        step = theirs.step(*_tensors(eps), t, *_tensors(x_t), generator=torch.Generator().manual_seed(3))
        ours = ref.ddpm_step(s, x_t, rows, eps, noise)
        atol, prev = 2e-3 if s is USUAL else 1e-4, step.prev_sample.numpy()
        np.testing.assert_allclose(ours, prev, rtol=1e-5, atol=atol, err_msg=str(t))
        np.testing.assert_allclose(
            ref.predict_x0(s, x_t, rows, eps), step.pred_original_sample.numpy(), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("s", SCHEDULES, ids=str)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_step_is_diffusers(s, eta):
    x_t, eps, noise = draws(3)
    theirs = DDIMScheduler(set_alpha_to_one=True, **scheduler_options(s))
    for steps in (2, s.timesteps // 2, s.timesteps):
        theirs.set_timesteps(steps)
        stride = s.timesteps // steps
        for t in [*theirs.timesteps.tolist()[:: max(1, steps // 3)], 0]:
            step = theirs.step(*_tensors(eps), t, *_tensors(x_t), eta=eta, variance_noise=torch.from_numpy(noise))
            before = max(t - stride, -1)
            rows = np.full(len(x_t), t)
            ours = ref.ddim_step(s, x_t, rows, np.full(len(x_t), before), eps, eta, noise if eta else None)
            np.testing.assert_allclose(ours, step.prev_sample.numpy(), rtol=1e-3, atol=2e-3 if s is USUAL else 1e-4)


def _tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_kl_is_torchs():
    mu, logvar = np.random.default_rng(0).standard_normal((2, 6, 5))
    q = torch.distributions.Normal(torch.from_numpy(mu), torch.from_numpy(np.exp(logvar / 2)))
    theirs = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    np.testing.assert_allclose(ref.kl_divergence(mu, logvar), theirs.numpy())


def test_the_reference_imports_nothing_of_ours():
    code = "import sys, grading.hidden.reference.formulas; "
    code += "print([m for m in sys.modules if m.startswith(('HW3', 'torch'))])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def slowest_paths():
    """Settings with which numpy and torch use none of the CPU's newer instructions."""
    dispatched = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(dispatched), "ATEN_CPU_CAPABILITY": "default"}


@pytest.mark.parametrize("env", [{}, slowest_paths()], ids=["this CPU", "an old CPU"])
def test_cases_are_regenerated(tmp_path, env):
    made = {"grading/cases": tmp_path / "public", "grading/hidden/reference/cases": tmp_path / "hidden"}
    command = [sys.executable, "-m", "grading.hidden.reference.make_cases", *made.values()]
    subprocess.run(command, cwd=ROOT, env=child_env(**env), check=True)
    for kept, folder in made.items():
        files = sorted(path.name for path in folder.iterdir())
        assert files == sorted(path.name for path in (ROOT / kept).iterdir())
        assert {file: found for file in files if (found := changed(folder / file, ROOT / kept / file))} == {}


def changed(made, kept):
    if made.suffix == ".npz":
        return differences(made, kept)
    return [made.name] if made.read_bytes() != kept.read_bytes() else []


@pytest.mark.parametrize(
    ("part", "key", "change", "is_rounding"),
    [
        ("expected", "grad_mu", lambda a: a * (1 + 1e-14), True),
        ("expected", "grad_mu", lambda a: a * (1 + 1e-8), False),
        ("expected", "grad_mu", lambda a: a.astype(np.float32), False),
        ("expected", "grad_mu", lambda a: a[:-1], False),
        ("inputs", "mu", lambda a: np.nextafter(a, np.float32(9)), False),
        ("mistakes", "negative", lambda kept: {key: a * np.float32(1.0001) for key, a in kept.items()}, True),
        ("mistakes", "negative", lambda kept: {key: a * np.float32(1.001) for key, a in kept.items()}, False),
        ("mistakes", "negative", lambda kept: {"kl": kept["kl"]}, False),
        ("params", "seed", lambda kept: 1, False),
    ],
)
def test_rounding_is_no_difference_and_all_else_is(tmp_path, part, key, change, is_rounding):
    kept = PUBLIC / "kl.npz"
    case, *others = load_cases(kept, hidden=False)
    getattr(case, part)[key] = change(getattr(case, part).get(key))
    save_cases(tmp_path / "kl.npz", [case, *others])
    assert (differences(tmp_path / "kl.npz", kept) == []) == is_rounding


def test_a_file_that_differs_by_rounding_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(make_cases, "MAKERS", {"guidance": make_cases.guidance_cases})
    public, hidden = tmp_path / "public" / "guidance.npz", tmp_path / "hidden" / "guidance.npz"
    for path, factor in ((public, 1 + 1e-14), (hidden, 1 + 1e-6)):
        make_cases.make(public.parent, hidden.parent)
        cases = load_cases(path, hidden=False)
        cases[0].expected["eps"] *= factor
        save_cases(path, cases)
    before = public.read_bytes(), hidden.read_bytes()
    make_cases.make(public.parent, hidden.parent)
    assert (public.read_bytes() == before[0], hidden.read_bytes() == before[1]) == (True, False)


def test_steps_are_checked_on_schedules_of_their_own():
    """A stand-in's answers must answer nothing that is graded elsewhere."""
    basic = {s for side in (PUBLIC_SIDE, HIDDEN_SIDE) for s in vars(side.basic).values()}
    steps = {
        s for side in (PUBLIC_SIDE, HIDDEN_SIDE) for family in (side.ddpm, side.ddim) for s in vars(family).values()
    }
    assert not basic & steps
    for s in basic | steps:
        assert s.alpha_bars[-1] >= 1e-5, s


def test_graded_inputs_are_fair_and_no_expectation_is_an_input():
    assert [(case.id, case.name, problem) for case in all_cases() for problem in unfair(case)] == []


def test_public_and_hidden_cases_share_no_input():
    public, hidden = ([case for case in all_cases() if case.hidden == side] for side in (False, True))
    for case in hidden:
        for other in public:
            for name in case.inputs.keys() & other.inputs.keys() - {"t", "t_prev"}:
                a, b = case.inputs[name], other.inputs[name]
                if len(np.unique(a)) > 3:
                    assert a.shape != b.shape or not np.allclose(a, b), (case.id, case.name, name)
