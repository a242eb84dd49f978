"""The diffusion process and its samplers: formulas, golden loops, oracles, and what a step costs."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from HW3.diffusion import DiffusionConfig, GaussianDiffusion, ddim_timesteps, trailing_timesteps
from HW3.embedding import timestep_embedding
from HW3.generate import SAMPLERS
from HW3.schedules import SCHEDULES

HOSTILE = DiffusionConfig(image_size=4, timesteps=8, beta_start=0.05, beta_end=0.6)


def no_model(x, t, cond=None):
    raise AssertionError("this test calls no network")


def mixed_t(config=HOSTILE):
    return torch.tensor([0, 1, config.timesteps // 2, config.timesteps - 1])


class TinyNet(nn.Module):
    """A fixed small network whose output depends on everything it is given."""

    def forward(self, x, t, cond=None):
        level = (t.to(x.dtype) + 1).view(-1, *[1] * (x.dim() - 1))
        return torch.tanh(0.3 * x + 0.1 * level.sqrt()) + 0.05 * x.flip(-1)


# -- schedules and tables --------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_proper_and_end_in_noise(schedule):
    diffusion = GaussianDiffusion(no_model, DiffusionConfig(schedule=schedule))
    assert diffusion.betas.shape == (1000,)
    assert diffusion.betas.dtype == torch.float32
    assert ((diffusion.betas > 0) & (diffusion.betas < 1)).all()
    assert (diffusion.alpha_bars.diff() < 0).all()
    assert diffusion.alpha_bars[-1] < 1e-4
    assert diffusion.alpha_bars_prev[0] == 1
    torch.testing.assert_close(diffusion.alpha_bars_prev[1:], diffusion.alpha_bars[:-1])


def test_linear_schedule_has_the_paper_ends():
    betas = GaussianDiffusion(no_model, DiffusionConfig()).betas
    assert betas[0].item() == pytest.approx(1e-4)
    assert betas[-1].item() == pytest.approx(0.02)


@pytest.mark.parametrize(
    "bad", [{"timesteps": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"schedule": "sine"}, {"prediction": "x0"}]
)
def test_impossible_configs_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DiffusionConfig(**bad)


def test_tables_are_not_in_the_state_dict():
    assert not GaussianDiffusion(nn.Identity(), HOSTILE).state_dict()


def test_timestep_embedding_tells_all_timesteps_apart():
    emb = timestep_embedding(torch.arange(1000), 64)
    assert emb.shape == (1000, 64)
    distances = torch.cdist(emb, emb) + 10 * torch.eye(1000)
    assert distances.min() > 0.05


# -- the formulas, against float64 written out one number at a time -----------------------------------


def scalars(t, config=HOSTILE):
    """beta, alpha, alpha_bar and alpha_bar of the step before, as Python floats."""
    span = max(1, config.timesteps - 1)
    betas = [config.beta_start + (config.beta_end - config.beta_start) * i / span for i in range(config.timesteps)]
    bars = [math.prod(1 - b for b in betas[: i + 1]) for i in range(config.timesteps)]
    return betas[t], 1 - betas[t], bars[t], bars[t - 1] if t > 0 else 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 5), (4, 1, 4, 4), (4,)])
def test_formulas_match_the_papers_row_by_row(shape, dtype):
    diffusion = GaussianDiffusion(no_model, HOSTILE)
    a, b, z = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    t, t_prev = mixed_t(), torch.tensor([-1, 0, 1, 3])
    got = {
        "q_sample": diffusion.q_sample(a, t, z),
        "predict_x0": diffusion.predict_x0(a, t, z),
        "mean": diffusion.q_posterior(a, b, t)[0],
        "variance": diffusion.q_posterior(a, b, t)[1].expand(shape),
        "ddpm": diffusion.ddpm_step(a, t, b, z),
        "ddim0": diffusion.ddim_step(a, t, t_prev, b),
        "ddim": diffusion.ddim_step(a, t, t_prev, b, 0.5, z),
    }
    for i in range(4):
        beta, alpha, ab, before = scalars(int(t[i]))
        target = scalars(int(t_prev[i]))[2] if t_prev[i] >= 0 else 1.0
        x0 = (a[i] - math.sqrt(1 - ab) * b[i]) / math.sqrt(ab)
        var = beta * (1 - before) / (1 - ab)
        sigma = 0.5 * math.sqrt((1 - target) / (1 - ab) * (1 - ab / target))

        def mean(x0, x_t, ab=ab, before=before, beta=beta, alpha=alpha):
            return (math.sqrt(before) * beta * x0 + math.sqrt(alpha) * (1 - before) * x_t) / (1 - ab)

        want = {
            "q_sample": math.sqrt(ab) * a[i] + math.sqrt(1 - ab) * z[i],
            "predict_x0": (a[i] - math.sqrt(1 - ab) * z[i]) / math.sqrt(ab),
            "mean": mean(a[i], b[i]),
            "variance": torch.full_like(a[i], var),
            "ddpm": mean(x0, a[i]) + math.sqrt(var) * z[i],
            "ddim0": math.sqrt(target) * x0 + math.sqrt(1 - target) * b[i],
            "ddim": math.sqrt(target) * x0 + math.sqrt(1 - target - sigma**2) * b[i] + sigma * z[i],
        }
        for name, value in want.items():
            assert got[name].dtype == dtype, name
            torch.testing.assert_close(got[name][i], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_methods_modify_no_argument():
    diffusion = GaussianDiffusion(TinyNet(), HOSTILE)
    x, eps, noise = torch.randn(3, 4, 6)
    t, t_prev = mixed_t(), mixed_t() - 1
    kept = [arg.clone() for arg in (x, eps, noise, t, t_prev)]
    diffusion.q_sample(x, t, noise)
    diffusion.q_posterior(x, eps, t)
    diffusion.ddpm_step(x, t, eps, noise)
    diffusion.ddim_step(x, t, t_prev, eps, 1.0, noise)
    diffusion.training_loss(x, noise, t=t)
    for arg, before in zip((x, eps, noise, t, t_prev), kept, strict=True):
        assert torch.equal(arg, before)


def test_predict_eps_inverts_predict_x0():
    diffusion = GaussianDiffusion(no_model, HOSTILE)
    x, eps = torch.randn(2, 4, 6)
    torch.testing.assert_close(diffusion.predict_eps(x, mixed_t(), diffusion.predict_x0(x, mixed_t(), eps)), eps)


def test_eta_one_between_neighbours_is_ddpm():
    diffusion = GaussianDiffusion(no_model, HOSTILE)
    x, eps, z = torch.randn(3, 4, 6)
    t = torch.tensor([1, 2, 5, 7])
    ddim = diffusion.ddim_step(x, t, t - 1, eps, 1.0, z)
    torch.testing.assert_close(ddim, diffusion.ddpm_step(x, t, eps, z), atol=1e-5, rtol=1e-5)


def test_p_mean_variance_is_the_posterior_at_the_estimate():
    diffusion = GaussianDiffusion(TinyNet(), HOSTILE)
    x, t = torch.randn(4, 6), mixed_t()
    mean, variance = diffusion.p_mean_variance(x, t)
    step = diffusion.ddpm_step(x, t, TinyNet()(x, t), torch.ones_like(x))
    torch.testing.assert_close(mean + variance.sqrt(), step)


# -- prediction types and the loss -------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_network_has_no_loss_and_gives_eps_back(prediction):
    config = DiffusionConfig(timesteps=8, beta_start=0.05, beta_end=0.6, prediction=prediction)
    x0, noise, t = torch.randn(4, 6), torch.randn(4, 6), mixed_t()
    exact = GaussianDiffusion(no_model, config)
    ab = exact.alpha_bars[t][:, None]
    target = noise if prediction == "eps" else ab.sqrt() * noise - (1 - ab).sqrt() * x0
    diffusion = GaussianDiffusion(lambda x, t: target, config)
    assert diffusion.training_loss(x0, noise, t=t).item() == pytest.approx(0, abs=1e-10)
    x_t = diffusion.q_sample(x0, t, noise)
    torch.testing.assert_close(diffusion.model_eps(x_t, t), noise, atol=1e-5, rtol=1e-5)


def test_training_draws_every_timestep_and_hands_the_condition_on():
    seen, conds = set(), []

    def spy(x, t, cond):
        seen.update(t.tolist())
        conds.append(cond)
        return torch.zeros_like(x)

    cond = torch.randn(256, 3)
    GaussianDiffusion(spy, HOSTILE).training_loss(torch.randn(256, 2), cond=cond)
    assert seen == set(range(8))
    assert conds[0] is cond


# -- whole samplers ----------------------------------------------------------------------------------


def sample(diffusion, sampler, batch_size=3, shape=(6,), **options):
    options = {"shape": shape, "generator": torch.Generator().manual_seed(7), **options}
    draw = getattr(diffusion, f"sample_{sampler}")
    return draw(batch_size, "cpu", **({} if sampler == "ddpm" else {"steps": 4}), **options)


@pytest.mark.parametrize(
    ("sampler", "prediction", "golden"),
    [
        ("ddpm", "eps", [-4.64142, 2.54945, 1.27049, -3.19804]),
        ("ddim", "eps", [-4.05939, 0.24825, 6.81079, -2.77187]),
        ("ddpm", "v", [-0.40341, 0.53986, -0.11477, -0.78099]),
        ("ddim", "v", [-0.63263, -0.00957, 0.82977, -0.44186]),
    ],
)
def test_full_loops_have_not_changed(sampler, prediction, golden):
    """Golden values: a change here changes every picture that anyone has made."""
    config = DiffusionConfig(timesteps=8, beta_start=0.05, beta_end=0.6, prediction=prediction)
    torch.testing.assert_close(
        sample(GaussianDiffusion(TinyNet(), config), sampler)[0, :4], torch.tensor(golden), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_vectors_and_images_agree(sampler):
    diffusion = GaussianDiffusion(TinyNet(), HOSTILE)
    flat = sample(diffusion, sampler, shape=(4,))
    images = sample(diffusion, sampler, shape=(1, 1, 4))
    assert images.shape == (3, 1, 1, 4)
    torch.testing.assert_close(images.flatten(1), flat)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_point_mass_oracle_lands_on_its_point(sampler, steps):
    point = torch.tensor([0.5, -2.0, 3.0])
    diffusion = GaussianDiffusion(None, HOSTILE)
    diffusion.model = lambda x, t: diffusion.predict_eps(x, t, point.expand_as(x))
    options = {} if sampler == "ddpm" else {"steps": steps}
    draw = getattr(diffusion, f"sample_{sampler}")
    torch.testing.assert_close(draw(5, "cpu", shape=(3,), **options), point.expand(5, 3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("sampler", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 1.0), ("dpm", 0.0)])
def test_a_gaussian_oracle_gives_its_gaussian(sampler, eta):
    """For data N(2, 0.5²) the ideal denoiser is known; many fine steps must reproduce the data's moments."""
    mean, std = 2.0, 0.5
    diffusion = GaussianDiffusion(None, DiffusionConfig(timesteps=200, beta_start=1e-3, beta_end=0.1))

    def ideal(x, t):
        ab = diffusion.alpha_bars[t][:, None]
        return (1 - ab).sqrt() * (x - ab.sqrt() * mean) / (ab * std**2 + 1 - ab)  # -sqrt(1-ᾱ) times the score

    diffusion.model = ideal
    options = {"shape": (1,), "generator": torch.Generator().manual_seed(0)}
    if sampler == "ddpm":
        x = diffusion.sample_ddpm(20_000, "cpu", **options)
    elif sampler == "dpm":
        x = diffusion.sample_dpm(20_000, "cpu", steps=25, **options)
    else:
        x = diffusion.sample_ddim(20_000, "cpu", steps=200, eta=eta, **options)
    assert x.mean().item() == pytest.approx(mean, abs=0.02)
    assert x.std().item() == pytest.approx(std, abs=0.02)


def test_the_network_sees_every_timestep_once_in_order():
    seen = []

    def spy(x, t, cond):
        assert t.dtype == torch.long
        assert (t == t[0]).all()
        assert cond.shape == (2, 3)
        seen.append(int(t[0]))
        return torch.zeros_like(x)

    diffusion = GaussianDiffusion(spy, DiffusionConfig(timesteps=10))
    cond = torch.zeros(2, 3)
    diffusion.sample_ddpm(2, "cpu", cond=cond, shape=(4,))
    assert seen == list(range(9, -1, -1))
    seen.clear()
    diffusion.sample_ddim(2, "cpu", steps=4, cond=cond, shape=(4,))
    assert seen == [9, 6, 3, 0]
    seen.clear()
    diffusion.sample_ddim(2, "cpu", steps=1, cond=cond, shape=(4,))
    assert seen == [9]
    seen.clear()
    diffusion.sample_dpm(2, "cpu", steps=3, cond=cond, shape=(4,))
    assert seen == [9, 5, 2], "the last step is as long as the others"


def test_dpm_needs_fewer_steps_than_ddim():
    """Of second order: where the exact way is known, twice the steps leave about a quarter of the error."""
    diffusion = GaussianDiffusion(None, DiffusionConfig(timesteps=1000, schedule="cosine"))

    def ideal(x, t):  # of data N(0, 4): the exact way from x_T ends in twice the noise that it began with
        ab = diffusion.alpha_bars[t][:, None]
        return (1 - ab).sqrt() * x / (ab * 4 + 1 - ab)

    diffusion.model = ideal
    start = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))

    def error(sampler, steps):
        source = torch.Generator().manual_seed(0)
        x = getattr(diffusion, f"sample_{sampler}")(50, "cpu", steps, shape=(1,), generator=source)
        return (x - 2 * start).abs().max().item()

    assert error("dpm", 20) < error("ddim", 20) / 3
    assert error("dpm", 40) < error("dpm", 20) / 2.5
    assert error("ddim", 40) > error("ddim", 20) / 2.5


def test_the_dpm_step_against_the_papers_formula():
    """Algorithm 2 of Lu et al. 2022 in its own notation, in float64, with Python's numbers."""
    diffusion = GaussianDiffusion(TinyNet(), HOSTILE)
    states = []
    sample(diffusion, "dpm", on_state=states.append)
    alpha, sigma = (
        [v.item() for v in table.double()]
        for table in (diffusion.alpha_bars.double().sqrt(), (1 - diffusion.alpha_bars.double()).sqrt())
    )
    lam = [math.log(a / s) for a, s in zip(alpha, sigma)]
    ts, x0 = [7, 5, 3, 1], []
    for i, x in enumerate(states[:-1]):
        t = torch.full((len(x),), ts[i])
        x0.append(diffusion.predict_x0(x, t, diffusion.model_eps(x, t)))
    for i in range(3):
        now, then = ts[i], ts[i + 1]
        h = lam[then] - lam[now]
        data = x0[i]
        if i > 0:
            r = (lam[now] - lam[ts[i - 1]]) / h
            data = (1 + 1 / (2 * r)) * x0[i] - 1 / (2 * r) * x0[i - 1]
        expected = sigma[then] / sigma[now] * states[i] - alpha[then] * (math.exp(-h) - 1) * data
        torch.testing.assert_close(states[i + 1], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[-1], x0[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("timesteps", [1, 2, 10, 1000])
def test_ddim_grids_run_from_the_top_to_zero(timesteps):
    for steps in {1, 2, min(7, timesteps), timesteps} & set(range(1, timesteps + 1)):
        grid = ddim_timesteps(timesteps, steps)
        assert len(grid) == len(set(grid)) == steps
        assert grid == sorted(grid, reverse=True)
        assert grid[0] == timesteps - 1
        assert grid[-1] == 0 or steps == 1


@pytest.mark.parametrize("steps", [0, -1, 9])
def test_ddim_steps_outside_the_process_are_refused(steps):
    with pytest.raises(ValueError, match="1 to 8"):
        GaussianDiffusion(TinyNet(), HOSTILE).sample_ddim(1, "cpu", steps=steps)


@pytest.mark.parametrize("timesteps", [1, 2, 10, 1000])
def test_dpm_grids_are_ends_of_equal_parts(timesteps):
    for steps in {1, 2, min(7, timesteps), timesteps} & set(range(1, timesteps + 1)):
        grid = trailing_timesteps(timesteps, steps)
        lengths = {a - b for a, b in zip(grid, [*grid[1:], -1])}
        assert grid[0] == timesteps - 1
        assert len(grid) == steps
        assert max(lengths) - min(lengths) <= 1
    with pytest.raises(ValueError, match=f"1 to {timesteps}"):
        trailing_timesteps(timesteps, timesteps + 1)


def test_images_are_clipped_and_latents_are_not():
    def far(x, t):  # an estimate of x_0 far outside [-1, 1]
        return -5 * torch.ones_like(x)

    diffusion = GaussianDiffusion(far, HOSTILE)
    assert diffusion.sample_ddim(2, "cpu", steps=4).abs().max() <= 1.0001
    assert diffusion.sample_ddim(2, "cpu", steps=4, clip_x0=False).abs().max() > 1.1
    assert diffusion.sample_ddim(2, "cpu", steps=4, shape=(5,)).abs().max() > 1.1
    assert diffusion.sample_ddim(2, "cpu", steps=4).shape == (2, 1, 4, 4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_estimate_of_x0_is_stretched_and_then_clipped(sampler):
    """A network that knows its only image, of one colour: what is drawn is that colour, stretched."""

    def drawn(colour, *, x0_scale, **flags):
        diffusion = GaussianDiffusion(lambda x, t: diffusion.predict_eps(x, t, colour), HOSTILE, x0_scale=x0_scale)
        return sample(diffusion, sampler, **flags)

    colour = torch.tensor([-0.6, 0.0, 0.1, 0.3, 0.5, 0.9])
    assert torch.allclose(drawn(colour, x0_scale=1.0), colour, atol=1e-5)
    assert torch.allclose(drawn(colour, x0_scale=1.25), 1.25 * colour, atol=1e-5)
    assert torch.allclose(drawn(colour, x0_scale=1.25, clip_x0=True), (1.25 * colour).clamp(-1, 1), atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trajectories_start_at_noise_and_end_at_the_sample(sampler):
    diffusion = GaussianDiffusion(TinyNet(), HOSTILE)
    states = []
    x = sample(diffusion, sampler, on_state=states.append)
    assert len(states) == 1 + (HOSTILE.timesteps if sampler == "ddpm" else 4)
    first = torch.randn(3, 6, generator=torch.Generator().manual_seed(7))
    assert torch.equal(states[0], first)
    assert torch.equal(states[-1], x)
    assert torch.equal(sample(diffusion, sampler), x)


def test_samplers_use_only_their_generator_and_keep_the_mode():
    net = TinyNet().train()
    diffusion = GaussianDiffusion(net, HOSTILE).train()
    before = torch.get_rng_state()
    modes = []
    net.register_forward_hook(
        lambda module, args, out: modes.append((module.training, torch.is_inference_mode_enabled()))
    )
    first = sample(diffusion, "ddpm")
    second = sample(diffusion, "ddim", eta=1.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(sample(diffusion, "ddpm"), first)
    assert torch.equal(sample(diffusion, "ddim", eta=1.0), second)
    assert set(modes) == {(False, True)}
    assert net.training
    diffusion.eval()
    sample(diffusion, "ddpm")
    assert not net.training


def test_every_module_gets_its_own_mode_back():
    """A network that is in eval mode stays there, also inside a process that is not."""
    net = nn.Sequential(nn.Identity(), nn.Dropout().eval())
    diffusion = GaussianDiffusion(lambda x, t: x, HOSTILE)
    diffusion.model = net.eval()
    net[0].train()
    diffusion.model.forward = lambda x, t: x
    before = [module.training for module in diffusion.modules()]
    assert before == [True, False, True, False]
    sample(diffusion, "ddim")
    assert [module.training for module in diffusion.modules()] == before


def test_the_mode_is_restored_when_the_network_fails():
    def broken(x, t):
        raise RuntimeError("broken")

    diffusion = GaussianDiffusion(broken, HOSTILE).train()
    with pytest.raises(RuntimeError, match="broken"):
        sample(diffusion, "ddpm")
    assert diffusion.training


class CountOps(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def ops_per_step(**options):
    """Dispatched operations of one more step, and their names, with a network that costs nothing."""
    diffusion = GaussianDiffusion(lambda x, t: x, DiffusionConfig(timesteps=100))
    counts = []
    for steps in (10, 20):
        with CountOps() as count:
            diffusion.sample_ddim(4, "cpu", steps=steps, **options)
        counts.append(count.names)
    return (len(counts[1]) - len(counts[0])) / 10, counts[1]


@pytest.mark.parametrize("shape", [(6,), (1, 4, 4)])
def test_a_ddim_step_is_tight(shape):
    per_step, names = ops_per_step(shape=shape)
    assert per_step <= 20
    assert sum("randn" in name or "normal" in name for name in names) == 1  # the first state alone
    assert not any("item" in name or "_local_scalar_dense" in name for name in names)  # nothing waits for a GPU


def test_noise_is_drawn_only_where_there_is_any():
    _, names = ops_per_step(shape=(6,), eta=1.0)
    assert sum("randn" in name for name in names) == 1 + 19  # none in the step that lands on x_0
