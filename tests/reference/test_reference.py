"""The reference formulas of the graders, against the schedulers of diffusers; the cases, byte for byte."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from grading.cases import all_cases
from grading.hidden.reference import formulas as ref
from grading.hidden.reference.make_cases import HIDDEN_SIDE, PUBLIC_SIDE, USUAL
from harness import ROOT

SCHEDULES = [PUBLIC_SIDE.basic.hostile, HIDDEN_SIDE.ddpm.hostile, PUBLIC_SIDE.ddim.hostile, USUAL]


def scheduler_options(s):
    return {
        "num_train_timesteps": s.timesteps,
        "beta_start": s.beta_start,
        "beta_end": s.beta_end,
        "beta_schedule": "linear",
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
        np.testing.assert_allclose(ours, step.prev_sample.numpy(), atol=2e-3 if s is USUAL else 1e-4, err_msg=str(t))
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


def test_cases_are_regenerated_byte_for_byte(tmp_path):
    command = [sys.executable, "-m", "grading.hidden.reference.make_cases", tmp_path / "public", tmp_path / "hidden"]
    subprocess.run(command, cwd=ROOT, check=True)
    for made, kept in ((tmp_path / "public", "grading/cases"), (tmp_path / "hidden", "grading/hidden/reference/cases")):
        files = sorted(path.name for path in made.iterdir())
        assert files == sorted(path.name for path in (ROOT / kept).iterdir())
        for file in files:
            assert (made / file).read_bytes() == (ROOT / kept / file).read_bytes(), file


def test_steps_are_checked_on_schedules_of_their_own():
    """A stand-in's answers must answer nothing that is graded elsewhere."""
    basic = {s for side in (PUBLIC_SIDE, HIDDEN_SIDE) for s in (side.basic.hostile, side.basic.default)}
    steps = {
        s for side in (PUBLIC_SIDE, HIDDEN_SIDE) for family in (side.ddpm, side.ddim) for s in vars(family).values()
    }
    assert not basic & steps
    for s in basic | steps:
        assert s.alpha_bars[-1] >= 1e-5, s


def test_graded_inputs_are_fair_and_no_expectation_is_an_input():
    for case in all_cases():
        floats = [array for array in case.inputs.values() if array.dtype.kind == "f"]
        assert all(np.abs(array).max() <= 6 for array in floats if case.check not in ("toy", "sample"))
        for want in case.expected.values() if case.check == "value" else ():
            answers = [a for side in case.standins.values() for a in side["out"].values()]
            for other in [*floats, *answers, np.zeros_like(want)]:
                assert other.shape != want.shape or np.abs(other - want).max() > 1e-2, (case.id, case.name)


def test_public_and_hidden_cases_share_no_input():
    public, hidden = ([case for case in all_cases() if case.hidden == side] for side in (False, True))
    for case in hidden:
        for other in public:
            for name in case.inputs.keys() & other.inputs.keys() - {"t", "t_prev"}:
                a, b = case.inputs[name], other.inputs[name]
                if len(np.unique(a)) > 3:
                    assert a.shape != b.shape or not np.allclose(a, b), (case.id, case.name, name)
