"""Gaussian diffusion: the forward process, its posterior, and the DDPM and DDIM samplers.

Notation is that of Ho et al., with 0-based time: t in [0, T), x_0 is data and x_{T-1} the noisiest state.
`alpha_bars[t]` is the product of alphas up to and including t; before the first step it is 1. Song et al. write
alpha_t for what is alpha_bar_t here. docs/notes derives what the TODOs need, page by page.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; Song et al. 2021, "Denoising Diffusion
Implicit Models"; Nichol & Dhariwal 2021 (cosine schedule); Salimans & Ho 2022 (v prediction); Lu et al. 2022,
"DPM-Solver++".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from HW3.schedules import DiffusionConfig


class GaussianDiffusion(nn.Module):
    """The diffusion process of `config` around a network `model(x_t, t)` or `model(x_t, t, cond)`.

    x_t is (B, ...) of any rank, float32 or float64; t is (B,) long in [0, T), mixed per row. Every method
    keeps the dtype and device of its input and modifies no argument.

    x0_scale: what samplers multiply the estimate of x_0 by in every step. A network that goes on from its own samples
    draws them a little paler than its data. Ning et al. 2024, "Elucidating the Exposure Bias in Diffusion Models",
    scale eps to the same end.
    """

    betas: Tensor  # (T,) beta_t
    alphas: Tensor  # (T,) 1 - beta_t
    alpha_bars: Tensor  # (T,) product of alphas up to and including t
    alpha_bars_prev: Tensor  # (T,) the same up to t - 1: entry 0 is 1
    sqrt_alpha_bars: Tensor  # (T,)
    sqrt_one_minus_alpha_bars: Tensor  # (T,)

    def __init__(self, model: Callable[..., Tensor], config: DiffusionConfig, *, x0_scale: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.x0_scale = x0_scale
        betas = config.betas()  # float64 until the tables are done
        alpha_bars = (1 - betas).cumprod(0)
        tables = {
            "betas": betas,
            "alphas": 1 - betas,
            "alpha_bars": alpha_bars,
            "alpha_bars_prev": torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]]),
            "sqrt_alpha_bars": alpha_bars.sqrt(),
            "sqrt_one_minus_alpha_bars": (1 - alpha_bars).sqrt(),
        }
        for name, table in tables.items():  # made again from the config, so no checkpoint needs them
            self.register_buffer(name, table.float(), persistent=False)

    @staticmethod
    def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """Rows `table[t]`, shaped (B, 1, ..., 1) to broadcast against `like` (B, ...), in its dtype."""
        rows = table.index_select(0, t).view(-1, *[1] * (like.dim() - 1))
        return rows if rows.dtype == like.dtype else rows.to(like.dtype)

    # -- the forward process and its inverse ---------------------------------------------------------

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw x_t from q(x_t | x_0), Ho et al. 2020 eq. 4.

        docs/notes/2-forward-process.md#from-one-step-to-many
        x0: (B, ...);  t: (B,) long in [0, T);  noise: eps like x0, drawn from N(0, I) when None.
        Returns x_t, shaped like x0.
        """
        # TODO(q-sample): mix data and noise (`self.at` reads a table); draw the noise if none is given. About 3 lines.
        ### BEGIN SOLUTION
        if noise is None:
            noise = torch.randn_like(x0)
        # sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε
        return self.at(self.sqrt_alpha_bars, t, x0) * x0 + self.at(self.sqrt_one_minus_alpha_bars, t, x0) * noise
        ### END SOLUTION

    def predict_x0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 that gives x_t with this noise: `q_sample` solved for x_0. Not clipped.

        docs/notes/2-forward-process.md#and-back
        x_t, eps: (B, ...) same shape;  t: (B,) long in [0, T).  Returns x_0, shaped like x_t.
        """
        # TODO(predict-x0): solve the equation of q_sample for x_0, with the same tables (`self.at`). About 1 line.
        ### BEGIN SOLUTION
        # (x_t - sqrt(1 - ᾱ_t) ε) / sqrt(ᾱ_t)
        return (x_t - self.at(self.sqrt_one_minus_alpha_bars, t, x_t) * eps) / self.at(self.sqrt_alpha_bars, t, x_t)
        ### END SOLUTION

    def predict_eps(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """The noise that leads from x0 to x_t: `q_sample` solved for eps. Shapes as in `predict_x0`."""
        return (x_t - self.at(self.sqrt_alpha_bars, t, x_t) * x0) / self.at(self.sqrt_one_minus_alpha_bars, t, x_t)

    def q_posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_{t-1} | x_t, x_0), Ho et al. 2020 eq. 6-7.

        docs/notes/2-forward-process.md#the-posterior
        x0, x_t: (B, ...) same shape;  t: (B,) long in [0, T).
        Returns mean (B, ...) and variance, broadcastable to it; at t = 0 the variance is 0.
        """
        # TODO(posterior): the mean, a weighted sum of x0 and x_t, and the variance (`self.at`). About 4 lines.
        ### BEGIN SOLUTION
        beta, alpha = self.at(self.betas, t, x_t), self.at(self.alphas, t, x_t)
        ab, ab_prev = self.at(self.alpha_bars, t, x_t), self.at(self.alpha_bars_prev, t, x_t)
        # μ̃_t = [sqrt(ᾱ_{t-1}) β_t x_0 + sqrt(α_t) (1 - ᾱ_{t-1}) x_t] / (1 - ᾱ_t),  β̃_t = β_t (1 - ᾱ_{t-1}) / (1 - ᾱ_t)
        mean = (ab_prev.sqrt() * beta * x0 + alpha.sqrt() * (1 - ab_prev) * x_t) / (1 - ab)
        return mean, beta * (1 - ab_prev) / (1 - ab)
        ### END SOLUTION

    # -- one step back -------------------------------------------------------------------------------

    def ddpm_step(self, x_t: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
        """One ancestral step x_t -> x_{t-1} given the noise estimate, Ho et al. 2020 algorithm 2.

        docs/notes/3-ddpm.md#one-step
        x_t, eps, noise: (B, ...) same shape;  t: (B,) long.  The step's variance is that of `q_posterior`;
        rows with t = 0 land on the mean, without noise.  Returns x_{t-1}, shaped like x_t.
        """
        # TODO(ddpm-step): the posterior at the estimate of x_0, and a draw from it. About 2 lines.
        ### BEGIN SOLUTION
        mean, variance = self.q_posterior(self.predict_x0(x_t, t, eps), x_t, t)
        return mean + variance.sqrt() * noise  # β̃_0 = 0: no noise in the last step
        ### END SOLUTION

    def ddim_step(
        self,
        x_t: Tensor,
        t: Tensor,
        t_prev: Tensor,
        eps: Tensor,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One DDIM step from t to t_prev given the noise estimate, Song et al. 2021 eq. 12 and 16.

        Their alpha_t is alpha_bar_t here; docs/notes/4-ddim.md#the-same-marginals-by-another-road
        x_t, eps: (B, ...) same shape;  t, t_prev: (B,) long with -1 <= t_prev < t, and t_prev = -1 meaning
        clean data, where the step lands on `predict_x0`.  eta: 0 is deterministic; 1 has, for t_prev = t - 1,
        DDPM's variance.
        noise: like x_t; drawn when None and eta > 0, unused when eta = 0.  Returns x at t_prev, like x_t.
        """
        # TODO(ddim-step): the estimate of x_0, the direction to x_t (`self.at`), and noise if eta > 0. About 9 lines.
        ### BEGIN SOLUTION
        x0 = self.predict_x0(x_t, t, eps)
        ab_prev = self.at(self.alpha_bars_prev, t_prev + 1, x_t)  # ᾱ at t_prev: 1 where t_prev = -1
        if eta == 0:
            return ab_prev.sqrt() * x0 + (1 - ab_prev).sqrt() * eps
        if noise is None:
            noise = torch.randn_like(x_t)
        ab = self.at(self.alpha_bars, t, x_t)
        variance = eta**2 * (1 - ab_prev) / (1 - ab) * (1 - ab / ab_prev)  # σ², eq. 16
        direction = (1 - ab_prev - variance).clamp(min=0).sqrt()
        return ab_prev.sqrt() * x0 + direction * eps + variance.sqrt() * noise
        ### END SOLUTION

    # -- the network ---------------------------------------------------------------------------------

    def model_output(self, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The network's raw prediction, in the dtype of x_t."""
        output = self.model(x_t, t) if cond is None else self.model(x_t, t, cond)
        return output.to(x_t.dtype)

    def model_eps(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's noise estimate at (x_t, t), whichever quantity it predicts."""
        output = self.model_output(x_t, t, cond)
        if self.config.prediction == "eps":
            return output
        # v = sqrt(ᾱ) ε - sqrt(1-ᾱ) x_0 (Salimans & Ho 2022 appendix D), with x_t solved for ε
        return self.at(self.sqrt_alpha_bars, t, x_t) * output + self.at(self.sqrt_one_minus_alpha_bars, t, x_t) * x_t

    def p_mean_variance(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance of the learned p(x_{t-1} | x_t): the posterior at the estimated x_0, unclipped."""
        eps = self.model_eps(x_t, t, cond)
        return self.q_posterior(self.predict_x0(x_t, t, eps), x_t, t)

    def training_loss(
        self, x0: Tensor, noise: Tensor | None = None, cond: Tensor | None = None, t: Tensor | None = None
    ) -> Tensor:
        """Mean squared error of the network's prediction, a scalar.

        For eps this is Ho et al. 2020 eq. 14; for v it weighs the steps otherwise, by one over alpha_bar.
        x0: (B, ...) data;  noise: like x0 and t: (B,) long, both drawn when None.
        """
        if t is None:
            t = torch.randint(0, self.config.timesteps, (len(x0),), device=x0.device)
        if noise is None:
            noise = torch.randn_like(x0)
        target = noise
        if self.config.prediction == "v":
            target = self.at(self.sqrt_alpha_bars, t, x0) * noise - self.at(self.sqrt_one_minus_alpha_bars, t, x0) * x0
        return (self.model_output(self.q_sample(x0, t, noise), t, cond) - target).square().mean()

    # -- the samplers --------------------------------------------------------------------------------

    def sample_ddpm(
        self,
        batch_size: int,
        device: torch.device | str,
        cond: Tensor | None = None,
        shape: tuple[int, ...] | None = None,
        *,
        clip_x0: bool | None = None,
        generator: torch.Generator | None = None,
        on_state: Callable[[Tensor], None] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Draw samples by all T ancestral steps. The arguments are those of `sample_ddim`."""

        def step(x: Tensor, t: Tensor, t_prev: Tensor, eps: Tensor, is_last: bool) -> Tensor:
            noise = torch.zeros_like(x) if is_last else _randn(x.shape, x.device, generator)
            return self.ddpm_step(x, t, eps, noise)

        ts = list(reversed(range(self.config.timesteps)))
        x = _randn((batch_size, *self._sample_shape(shape)), device, generator)
        clip = shape is None if clip_x0 is None else clip_x0
        return self._reverse(x, ts, step, cond, clip_x0=clip, on_state=on_state, progress=progress)

    def sample_ddim(
        self,
        batch_size: int,
        device: torch.device | str,
        steps: int = 50,
        eta: float = 0.0,
        cond: Tensor | None = None,
        shape: tuple[int, ...] | None = None,
        *,
        clip_x0: bool | None = None,
        generator: torch.Generator | None = None,
        on_state: Callable[[Tensor], None] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Draw samples by `steps` DDIM steps over an even grid from T-1 to 0.

        cond: (B, ...) handed to the network.  shape: one sample's shape, by default the config's image.
        clip_x0: clamp the estimated x_0 to [-1, 1] in every step; by default for images (shape None) only.
        generator: source of every draw, torch's global one for None.  progress: show a bar, on a terminal.
        on_state: called with the state (B, *shape) before every step and after the last: from noise to samples.
        Returns the samples, (B, *shape).
        """

        def step(x: Tensor, t: Tensor, t_prev: Tensor, eps: Tensor, is_last: bool) -> Tensor:
            step_eta = 0.0 if is_last else eta  # σ = 0 in the step that lands on x_0
            noise = _randn(x.shape, x.device, generator) if step_eta > 0 else None
            return self.ddim_step(x, t, t_prev, eps, step_eta, noise)

        ts = ddim_timesteps(self.config.timesteps, steps)
        x = _randn((batch_size, *self._sample_shape(shape)), device, generator)
        clip = shape is None if clip_x0 is None else clip_x0
        return self._reverse(x, ts, step, cond, clip_x0=clip, on_state=on_state, progress=progress)

    def sample_dpm(
        self,
        batch_size: int,
        device: torch.device | str,
        steps: int = 15,
        cond: Tensor | None = None,
        shape: tuple[int, ...] | None = None,
        *,
        clip_x0: bool | None = None,
        generator: torch.Generator | None = None,
        on_state: Callable[[Tensor], None] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Draw samples by `steps` steps of DPM-Solver++(2M), Lu et al. 2022 algorithm 2, without noise in between.

        DDIM goes to t_prev as if the estimate of x_0 stayed as it is. This one continues the change that it has seen
        from the step before, so fewer steps do. The arguments are those of `sample_ddim`.
        """
        log_snr = self.sqrt_alpha_bars.log() - self.sqrt_one_minus_alpha_bars.log()  # lambda_t
        before: tuple[Tensor, Tensor] | None = None  # the estimate of x_0 one step earlier, and that step's size h

        def step(x: Tensor, t: Tensor, t_prev: Tensor, eps: Tensor, is_last: bool) -> Tensor:
            nonlocal before
            x0 = self.predict_x0(x, t, eps)
            if is_last:
                return x0
            h = self.at(log_snr, t_prev, x) - self.at(log_snr, t, x)
            extrapolated = x0 if before is None else x0 + h / (2 * before[1]) * (x0 - before[0])
            before = x0, h
            noise_left = self.at(self.sqrt_one_minus_alpha_bars, t_prev, x) / self.at(
                self.sqrt_one_minus_alpha_bars, t, x
            )
            return noise_left * x - self.at(self.sqrt_alpha_bars, t_prev, x) * torch.expm1(-h) * extrapolated

        ts = trailing_timesteps(self.config.timesteps, steps)
        x = _randn((batch_size, *self._sample_shape(shape)), device, generator)
        clip = shape is None if clip_x0 is None else clip_x0
        return self._reverse(x, ts, step, cond, clip_x0=clip, on_state=on_state, progress=progress)

    def _sample_shape(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        size = self.config.image_size
        return (self.config.channels, size, size) if shape is None else shape

    @torch.inference_mode()
    def _reverse(
        self,
        x: Tensor,
        ts: list[int],
        step: Callable[[Tensor, Tensor, Tensor, Tensor, bool], Tensor],
        cond: Tensor | None,
        *,
        clip_x0: bool,
        on_state: Callable[[Tensor], None] | None,
        progress: bool,
    ) -> Tensor:
        """The one reverse loop: from noise x through the descending timesteps `ts`, network and `step` in turns."""
        # All timesteps go to the device at once, one row (B,) per step: the loop itself never waits for it.
        grid = torch.tensor([*ts, -1], device=x.device)[:, None].repeat(1, len(x)).unbind(0)
        was_training = {module: module.training for module in self.modules()}
        self.eval()
        try:
            for i in tqdm(range(len(ts)), desc="sampling", leave=False, disable=None if progress else True):
                if on_state is not None:
                    on_state(x)
                t, t_prev = grid[i], grid[i + 1]
                eps = self.model_eps(x, t, cond)
                if clip_x0 or self.x0_scale != 1:
                    x0 = self.x0_scale * self.predict_x0(x, t, eps)
                    eps = self.predict_eps(x, t, x0.clamp(-1, 1) if clip_x0 else x0)
                x = step(x, t, t_prev, eps, i == len(ts) - 1)
        finally:
            for module, mode in was_training.items():
                module.training = mode
        if on_state is not None:
            on_state(x)
        return x


def ddim_timesteps(timesteps: int, steps: int) -> list[int]:
    """`steps` distinct timesteps from T-1 down to 0; one step alone starts at T-1, where the noise is."""
    if not 1 <= steps <= timesteps:
        raise ValueError(f"DDIM steps must be in 1 to {timesteps}, not {steps}")
    if steps == 1:
        return [timesteps - 1]
    return [i * (timesteps - 1) // (steps - 1) for i in reversed(range(steps))]


def trailing_timesteps(timesteps: int, steps: int) -> list[int]:
    """`steps` timesteps, each the last of an equal part of [0, T): the last step is as long as the others.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.3.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must be in 1 to {timesteps}, not {steps}")
    return [(i + 1) * timesteps // steps - 1 for i in reversed(range(steps))]


def _randn(shape: tuple[int, ...], device: torch.device | str, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, device=device, generator=generator)
