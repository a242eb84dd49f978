"""The diffusion process, right in different ways: `q-sample` to `ddim-step`."""

from collections import namedtuple

import torch

from grading.hidden.reference.bank import wheat


def rows(table, t, like):
    """table[t], to broadcast against `like`."""
    return table[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def drawn(like, noise):
    return torch.randn_like(like) if noise is None else noise


def drawn_apart(like, noise):
    """From a generator for this call alone, seeded from torch's own."""
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    return torch.randn(like.shape, generator=generator, dtype=like.dtype) if noise is None else noise


def drawn_in_float64(like, noise):
    """By torch.normal, cast."""
    return torch.normal(0.0, 1.0, like.shape, dtype=torch.float64).to(like.dtype) if noise is None else noise


def tables_of_the_config(self, like):
    """β, ᾱ and ᾱ of the step before, from the configuration, in the dtype of `like`."""
    betas = self.config.betas()
    bars = torch.cumprod(1 - betas, 0)
    return (table.to(like.dtype) for table in (betas, bars, torch.cat([bars.new_ones(1), bars[:-1]])))


# -- q-sample ---------------------------------------------------------------------------------------------


@wheat("q-sample", "gather and reshape, roots on the fly")
def gathered(self, x0, t, noise=None):
    ab = self.alpha_bars.gather(0, t).reshape(len(t), *(1,) * (x0.ndim - 1)).to(x0.dtype)
    return torch.sqrt(ab) * x0 + torch.sqrt(1 - ab) * drawn(x0, noise)


@wheat("q-sample", "None-indices in a loop")
def none_indices(self, x0, t, noise=None):
    a, b = self.sqrt_alpha_bars[t], self.sqrt_one_minus_alpha_bars[t]
    while a.dim() < x0.dim():
        a, b = a[..., None], b[..., None]
    return (a * x0 + b * drawn(x0, noise)).to(x0.dtype)


@wheat("q-sample", "row by row with vmap")
def vmapped(self, x0, t, noise=None):
    ab = self.alpha_bars[t].to(x0.dtype)
    return torch.vmap(lambda a, x, e: a.sqrt() * x + (1 - a).sqrt() * e)(ab, x0, drawn(x0, noise))


@wheat("q-sample", "einsum")
def einsum(self, x0, t, noise=None):
    ab = self.alpha_bars[t].to(x0.dtype)
    signal, spread = torch.einsum("b,b...->b...", ab.sqrt(), x0), (1 - ab).sqrt()
    return signal + torch.einsum("b,b...->b...", spread, drawn(x0, noise))


@wheat("q-sample", "float64 inside, the schedule computed again")
def float64_inside(self, x0, t, noise=None):
    ab = rows(torch.cumprod(1 - self.betas.double(), 0), t, x0.double())
    return (ab.sqrt() * x0.double() + (1 - ab).sqrt() * drawn(x0, noise).double()).to(x0.dtype)


@wheat("q-sample", "addcmul, noise of a shape")
def fused(self, x0, t, noise=None):
    if noise is None:
        noise = torch.randn(x0.shape, dtype=x0.dtype, device=x0.device)
    return torch.addcmul(rows(self.sqrt_alpha_bars, t, x0) * x0, rows(self.sqrt_one_minus_alpha_bars, t, x0), noise)


@wheat("q-sample", "one row at a time")
def row_by_row(self, x0, t, noise=None):
    noise = drawn(x0, noise)
    ab = self.alpha_bars.to(x0.dtype)
    return torch.stack([ab[k].sqrt() * x0[i] + (1 - ab[k]).sqrt() * noise[i] for i, k in enumerate(t.tolist())])


@wheat("q-sample", "in-place operations on clones")
def clones_in_place(self, x0, t, noise=None):
    noise = torch.randn_like(x0) if noise is None else noise.clone()
    return (
        x0.clone().mul_(rows(self.sqrt_alpha_bars, t, x0)).add_(noise.mul_(rows(self.sqrt_one_minus_alpha_bars, t, x0)))
    )


@wheat("q-sample", "noise from a generator of its own, rows flattened")
def rows_flattened(self, x0, t, noise=None):
    ab, noise = self.alpha_bars[t].to(x0.dtype)[:, None], drawn_apart(x0, noise)
    flat = ab.sqrt() * x0.reshape(len(x0), -1) + (1 - ab).sqrt() * noise.reshape(len(x0), -1)
    return flat.view(x0.shape)


@wheat("q-sample", "noise in float64, the tables from the configuration")
def from_the_config(self, x0, t, noise=None):
    _, ab, _ = tables_of_the_config(self, x0)
    return rows(ab, t, x0).sqrt() * x0 + (1 - rows(ab, t, x0)).sqrt() * drawn_in_float64(x0, noise)


@wheat("q-sample", "a normal distribution's sample, the transposed product")
def transposed(self, x0, t, noise=None):
    if noise is None:
        noise = torch.distributions.Normal(torch.zeros_like(x0), torch.ones_like(x0)).sample()
    ab = self.alpha_bars[t].to(x0.dtype)
    last = [*range(1, x0.dim()), 0]
    mixed = x0.permute(last) * ab.sqrt() + noise.permute(last) * (1 - ab).sqrt()
    return mixed.permute(x0.dim() - 1, *range(x0.dim() - 1))


@wheat("q-sample", "the sum of logarithms instead of a product")
def sum_of_logs(self, x0, t, noise=None):
    log_ab = rows(torch.log1p(-self.betas.double()).cumsum(0), t, x0)
    return torch.exp(0.5 * log_ab) * x0 + torch.sqrt(-torch.expm1(log_ab)) * drawn(x0, noise)


# -- predict-x0 -------------------------------------------------------------------------------------------


@wheat("predict-x0", "two factors, as in the papers' code")
def two_factors(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return (1 / ab).sqrt() * x_t - (1 / ab - 1).sqrt() * eps


@wheat("predict-x0", "the signal-to-noise ratio's root")
def noise_to_signal(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return x_t / ab.sqrt() - ((1 - ab) / ab).sqrt() * eps


@wheat("predict-x0", "rsqrt")
def rsqrt(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return torch.rsqrt(ab) * (x_t - torch.sqrt(1.0 - ab) * eps)


@wheat("predict-x0", "addcdiv-style fused operations")
def fused_division(self, x_t, t, eps):
    signal, spread = rows(self.sqrt_alpha_bars, t, x_t), rows(self.sqrt_one_minus_alpha_bars, t, x_t)
    return torch.div(torch.addcmul(x_t, spread, eps, value=-1), signal)


@wheat("predict-x0", "by Tweedie's formula, from the score")
def tweedie(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    score = -eps / (1 - ab).sqrt()
    return (x_t + (1 - ab) * score) / ab.sqrt()


@wheat("predict-x0", "by way of the v prediction")
def through_v(self, x_t, t, eps):
    a, s = rows(self.sqrt_alpha_bars, t, x_t.double()), rows(self.sqrt_one_minus_alpha_bars, t, x_t.double())
    v = (eps.double() - s * x_t.double()) / a
    return (a * x_t.double() - s * v).to(x_t.dtype)


@wheat("predict-x0", "float64 inside")
def in_float64(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t.double())
    return ((x_t.double() - (1 - ab).sqrt() * eps.double()) / ab.sqrt()).to(x_t.dtype)


@wheat("predict-x0", "vmap over the batch")
def vmap_over_rows(self, x_t, t, eps):
    return torch.vmap(lambda ab, x, e: (x - (1 - ab).sqrt() * e) / ab.sqrt())(
        self.alpha_bars[t].to(x_t.dtype), x_t, eps
    )


@wheat("predict-x0", "roots kept on the object from the first call on")
def roots_kept(self, x_t, t, eps):
    if not hasattr(self, "kept_roots"):
        self.kept_roots = self.alpha_bars.sqrt(), (1 - self.alpha_bars).sqrt()
    signal, spread = (rows(table, t, x_t) for table in self.kept_roots)
    return (x_t - spread * eps) / signal


@wheat("predict-x0", "in-place operations on a clone")
def clone_in_place(self, x_t, t, eps):
    return x_t.clone().sub_(rows(self.sqrt_one_minus_alpha_bars, t, x_t) * eps).div_(rows(self.sqrt_alpha_bars, t, x_t))


# -- posterior --------------------------------------------------------------------------------------------


def previous_padded(self):
    return torch.nn.functional.pad(self.alpha_bars[:-1], (1, 0), value=1.0)


def schedule(self, t, like):
    """β, ᾱ_t and ᾱ_{t-1} at t."""
    return (rows(table, t, like) for table in (self.betas, self.alpha_bars, previous_padded(self)))


@wheat("posterior", "two coefficients, a named tuple, the variance spelled out for every entry")
def two_coefficients(self, x0, x_t, t):
    beta, ab, ab_prev = schedule(self, t, x_t)
    c0, ct = beta * ab_prev.sqrt() / (1 - ab), (1 - ab_prev) * (1 - beta).sqrt() / (1 - ab)
    variance = beta * (1 - ab_prev) / (1 - ab)
    return namedtuple("Posterior", "mean variance")(c0 * x0 + ct * x_t, variance.expand_as(x_t))


@wheat("posterior", "the mean by way of the noise")
def noise_form(self, x0, x_t, t):
    beta, ab, ab_prev = schedule(self, t, x_t)
    eps = (x_t - ab.sqrt() * x0) / (1 - ab).sqrt()
    return (x_t - beta / (1 - ab).sqrt() * eps) / (1 - beta).sqrt(), (1 - ab_prev) / (1 - ab) * beta


@wheat("posterior", "the mean by way of the score")
def score_form(self, x0, x_t, t):
    beta, ab, ab_prev = schedule(self, t, x_t)
    score = (ab.sqrt() * x0 - x_t) / (1 - ab)
    return (x_t + beta * score) * (1 - beta).rsqrt(), (1 - ab_prev) / (1 - ab) * beta


@wheat("posterior", "precisions add up, the prior's capped where it is a point")
def precisions(self, x0, x_t, t):
    beta, _, ab_prev = schedule(self, t, x_t)
    alpha, prior_variance = 1 - beta, (1 - ab_prev).clamp(min=1e-12)
    variance = 1 / (alpha / beta + 1 / prior_variance)
    return variance * (alpha.sqrt() / beta * x_t + ab_prev.sqrt() / prior_variance * x0), variance


@wheat("posterior", "a Kalman update: the prior's mean moves towards the observation")
def kalman(self, x0, x_t, t):
    beta, _, ab_prev = schedule(self, t, x_t)
    alpha, prior_variance = 1 - beta, 1 - ab_prev
    gain = prior_variance * alpha.sqrt() / (alpha * prior_variance + beta)
    prior_mean = ab_prev.sqrt() * x0
    return prior_mean + gain * (x_t - alpha.sqrt() * prior_mean), (1 - gain * alpha.sqrt()) * prior_variance


@wheat("posterior", "lerp between the two guesses at x_{t-1}")
def lerp_form(self, x0, x_t, t):
    beta, ab, ab_prev = schedule(self, t, x_t)
    weight = (1 - beta) * (1 - ab_prev) / (1 - ab)
    mean = torch.lerp(ab_prev.sqrt() * x0, x_t / (1 - beta).sqrt(), weight.expand_as(x_t))
    return mean, beta * (1 - ab_prev) / (1 - ab)


@wheat("posterior", "the variance by its clamped logarithm: not quite zero at time 0")
def clamped_log_variance(self, x0, x_t, t):
    beta, ab, ab_prev = schedule(self, t, x_t)
    mean = (beta * ab_prev.sqrt() * x0 + (1 - ab_prev) * (1 - beta).sqrt() * x_t) / (1 - ab)
    log_variance = (beta * (1 - ab_prev) / (1 - ab)).clamp(min=1e-20).log()
    return mean, log_variance.exp()


@wheat("posterior", "ᾱ before by roll, and where at time 0; float64 inside")
def rolled(self, x0, x_t, t):
    ab = (1 - self.betas.double()).cumprod(0)
    before = ab.roll(1)
    before[0] = 1
    beta, ab, ab_prev = (rows(table, t, x_t.double()) for table in (self.betas, ab, before))
    mean = (beta * ab_prev.sqrt() * x0.double() + (1 - ab_prev) * (1 - beta).sqrt() * x_t.double()) / (1 - ab)
    return mean.to(x_t.dtype), torch.where(ab_prev == 1, 0, beta * (1 - ab_prev) / (1 - ab)).to(x_t.dtype)


@wheat("posterior", "ᾱ before by where on the index")
def previous_by_where(self, x0, x_t, t):
    before = torch.where(t > 0, self.alpha_bars[(t - 1).clamp(min=0)], torch.ones_like(self.alpha_bars[t]))
    ab_prev = rows(before, torch.arange(len(t)), x_t)
    beta, ab = rows(self.betas, t, x_t), rows(self.alpha_bars, t, x_t)
    mean = (ab_prev.sqrt() * beta) / (1 - ab) * x0 + ((1 - beta).sqrt() * (1 - ab_prev)) / (1 - ab) * x_t
    return mean, (1 - ab_prev) / (1 - ab) * beta


@wheat("posterior", "ᾱ before by division, in float64")
def previous_by_division(self, x0, x_t, t):
    alpha = rows(1 - self.betas.double(), t, x_t.double())
    ab = rows(torch.cumprod(1 - self.betas.double(), 0), t, x_t.double())
    ab_prev = ab / alpha
    mean = ((1 - alpha) * ab_prev.sqrt() * x0 + alpha.sqrt() * (1 - ab_prev) * x_t) / (1 - ab)
    return mean.to(x_t.dtype), ((1 - alpha) * (1 - ab_prev) / (1 - ab)).to(x_t.dtype)


@wheat("posterior", "the tables from the configuration, one row at a time")
def from_the_config_by_row(self, x0, x_t, t):
    betas, bars, earlier = tables_of_the_config(self, x_t)
    means, variances = [], []
    for i, k in enumerate(t.tolist()):
        rest = 1 - bars[k]
        means.append((earlier[k].sqrt() * betas[k] * x0[i] + (1 - betas[k]).sqrt() * (1 - earlier[k]) * x_t[i]) / rest)
        variances.append(torch.full_like(x_t[i], float(betas[k] * (1 - earlier[k]) / rest)))
    return torch.stack(means), torch.stack(variances)


@wheat("posterior", "ᾱ before by cat, einsum")
def einsum_posterior(self, x0, x_t, t):
    table = torch.cat([torch.ones(1), self.alpha_bars])[:-1]
    beta, ab, ab_prev = (values[t].to(x_t.dtype) for values in (self.betas, self.alpha_bars, table))
    c0, ct = ab_prev.sqrt() * beta / (1 - ab), (1 - beta).sqrt() * (1 - ab_prev) / (1 - ab)
    mean = torch.einsum("b,b...->b...", c0, x0) + torch.einsum("b,b...->b...", ct, x_t)
    return mean, torch.zeros_like(x_t) + (beta * (1 - ab_prev) / (1 - ab)).view(-1, *[1] * (x_t.dim() - 1))


# -- ddpm-step --------------------------------------------------------------------------------------------


def is_late(t, like):
    return (t > 0).view(-1, *[1] * (like.dim() - 1))


@wheat("ddpm-step", "the noise is switched off at time 0 by hand")
def masked(self, x_t, t, eps, noise):
    mean, variance = self.q_posterior(self.predict_x0(x_t, t, eps), x_t, t)
    return mean + is_late(t, x_t) * torch.sqrt(variance) * noise


@wheat("ddpm-step", "the mean in the noise form, all inline")
def noise_form_inline(self, x_t, t, eps, noise):
    beta, ab, ab_prev = schedule(self, t, x_t)
    mean = (x_t - beta / (1 - ab).sqrt() * eps) / (1 - beta).sqrt()
    return mean + (beta * (1 - ab_prev) / (1 - ab)).sqrt() * noise


@wheat("ddpm-step", "the standard deviation by the clamped log-variance")
def clamped_log(self, x_t, t, eps, noise):
    mean, variance = self.q_posterior(self.predict_x0(x_t, t, eps), x_t, t)
    return mean + torch.exp(0.5 * torch.log(variance.clamp(1e-20))) * noise


@wheat("ddpm-step", "where on the row, addcmul")
def where_on_rows(self, x_t, t, eps, noise):
    mean, variance = self.q_posterior(x0=self.predict_x0(x_t=x_t, t=t, eps=eps), x_t=x_t, t=t)
    return torch.where(is_late(t, x_t), torch.addcmul(mean, variance.sqrt().expand_as(mean), noise), mean)


@wheat("ddpm-step", "float64 inside, by way of the sibling functions")
def siblings_in_float64(self, x_t, t, eps, noise):
    x0 = self.predict_x0(x_t.double(), t, eps.double())
    mean, variance = self.q_posterior(x0, x_t.double(), t)
    return (mean + variance.sqrt() * noise.double()).to(x_t.dtype)


@wheat("ddpm-step", "the tables from the configuration, the noise form")
def config_noise_form(self, x_t, t, eps, noise):
    beta, ab, ab_prev = (rows(table, t, x_t) for table in tables_of_the_config(self, x_t))
    mean = (x_t - beta / (1 - ab).sqrt() * eps) / (1 - beta).sqrt()
    return mean + (beta * (1 - ab_prev) / (1 - ab)).sqrt() * noise


@wheat("ddpm-step", "as the stochastic step of DDIM with eta one")
def ddim_with_eta_one(self, x_t, t, eps, noise):
    _, ab, ab_prev = schedule(self, t, x_t)
    variance = (1 - ab_prev) / (1 - ab) * (1 - ab / ab_prev)
    mean = ab_prev.sqrt() * self.predict_x0(x_t, t, eps) + (1 - ab_prev - variance).clamp(min=0).sqrt() * eps
    return mean + variance.sqrt() * noise


@wheat("ddpm-step", "one row at a time")
def rows_one_by_one(self, x_t, t, eps, noise):
    states = []
    for i in range(len(t)):
        x, k, e, z = x_t[i : i + 1], t[i : i + 1], eps[i : i + 1], noise[i : i + 1]
        mean, variance = self.q_posterior(self.predict_x0(x, k, e), x, k)
        states.append(mean if k.item() == 0 else mean + variance**0.5 * z)
    return torch.cat(states)


@wheat("ddpm-step", "a Kalman update of everything inline, noise zeroed on a clone")
def inline_kalman(self, x_t, t, eps, noise):
    beta, ab, ab_prev = schedule(self, t, x_t)
    x0 = x_t / ab.sqrt() - (1 / ab - 1).sqrt() * eps
    gain = (1 - ab_prev) * (1 - beta).sqrt() / (1 - ab)
    fresh = noise.clone()
    fresh[t == 0] = 0
    return ab_prev.sqrt() * x0 + gain * (x_t - ab.sqrt() * x0) + (beta * (1 - ab_prev) / (1 - ab)).sqrt() * fresh


# -- ddim-step --------------------------------------------------------------------------------------------


def level(self, t, like):
    """ᾱ at t, 1 at -1."""
    return rows(torch.cat([self.alpha_bars.new_ones(1), self.alpha_bars]), t + 1, like)


@wheat("ddim-step", "the paper's two equations, word for word")
def literal(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    a, a_prev = level(self, t, x_t), level(self, t_prev, x_t)
    sigma = eta * torch.sqrt((1 - a_prev) / (1 - a)) * torch.sqrt(1 - a / a_prev)
    x0 = (x_t - torch.sqrt(1 - a) * eps) / torch.sqrt(a)
    return torch.sqrt(a_prev) * x0 + torch.sqrt(1 - a_prev - sigma**2) * eps + sigma * drawn(x_t, noise)


@wheat("ddim-step", "one root for the spread, a clamp under the other")
def one_root(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    a, a_prev = level(self, t, x_t), level(self, t_prev, x_t)
    sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).clamp(min=0).sqrt()
    direction = (1 - a_prev - sigma.square()).clamp(min=0).sqrt()
    step = a_prev.sqrt() * self.predict_x0(x_t, t, eps) + direction * eps
    return step if eta == 0 else step + sigma * drawn(x_t, noise)


@wheat("ddim-step", "the state rescaled, without an estimate of the data")
def ratio_form(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    a, a_prev = level(self, t, x_t), level(self, t_prev, x_t)
    ratio = (a_prev / a).sqrt()
    sigma = eta * ((1 - a_prev) * (a_prev - a) / ((1 - a) * a_prev)).sqrt()
    step = ratio * x_t + ((1 - a_prev - sigma**2).clamp(min=0).sqrt() - ratio * (1 - a).sqrt()) * eps
    return step + sigma * drawn(x_t, noise)


@wheat("ddim-step", "by way of the effective beta of the whole stride")
def stride_beta(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    a, a_prev = level(self, t, x_t), level(self, t_prev, x_t)
    beta = 1 - a / a_prev
    variance = eta**2 * beta * (1 - a_prev) / (1 - a)
    x0 = self.predict_x0(x_t, t, eps)
    mean = a_prev**0.5 * x0 + torch.clamp(1 - a_prev - variance, min=0) ** 0.5 * eps
    return (
        mean + variance**0.5 * noise if noise is not None and eta > 0 else mean + variance**0.5 * torch.randn_like(x_t)
    )


@wheat("ddim-step", "float64 inside, from the betas on")
def from_betas_in_float64(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    table = torch.cat([torch.ones(1, dtype=torch.float64), (1 - self.betas.double()).cumprod(0)])
    x, e = x_t.double(), eps.double()
    a, a_prev = rows(table, t + 1, x), rows(table, t_prev + 1, x)
    sigma = eta * torch.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
    out = a_prev.sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - a_prev - sigma**2).clamp(min=0).sqrt() * e
    return (out + sigma * drawn(x_t, noise).double()).to(x_t.dtype)


@wheat("ddim-step", "where at the end of the chain, the siblings for the rest")
def where_at_the_end(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    last = (t_prev < 0).view(-1, *[1] * (x_t.dim() - 1))
    a, a_prev = rows(self.alpha_bars, t, x_t), rows(self.alpha_bars, t_prev.clamp(min=0), x_t)
    x0 = self.predict_x0(x_t, t, eps)
    sigma = eta * ((1 - a_prev) / (1 - a)).sqrt() * (1 - a / a_prev).clamp(min=0).sqrt()
    step = a_prev.sqrt() * x0 + (1 - a_prev - sigma**2).clamp(min=0).sqrt() * eps
    if eta:
        step = step + sigma * drawn(x_t, noise)
    return torch.where(last, x0, step)


@wheat("ddim-step", "one row at a time, in plain numbers")
def row_loop(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    noise = drawn(x_t, noise)
    out = torch.empty_like(x_t)
    for i, (now, then) in enumerate(zip(t.tolist(), t_prev.tolist())):
        a, a_prev = self.alpha_bars[now].item(), self.alpha_bars[then].item() if then >= 0 else 1.0
        variance = eta**2 * (1 - a_prev) / (1 - a) * (1 - a / a_prev)
        x0 = (x_t[i] - (1 - a) ** 0.5 * eps[i]) / a**0.5
        out[i] = a_prev**0.5 * x0 + max(0.0, 1 - a_prev - variance) ** 0.5 * eps[i] + variance**0.5 * noise[i]
    return out


@wheat("ddim-step", "noise from a generator of its own, needed or not")
def own_generator(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    a, a_prev = level(self, t, x_t), level(self, t_prev, x_t)
    sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
    mean = a_prev.sqrt() * self.predict_x0(x_t, t, eps) + (1 - a_prev - sigma**2).clamp(min=0).sqrt() * eps
    return mean + sigma * drawn_apart(x_t, noise)


@wheat("ddim-step", "noise in float64, the tables from the configuration")
def config_and_float64_noise(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    _, bars, _ = tables_of_the_config(self, x_t)
    table = torch.cat([bars.new_ones(1), bars])
    a, a_prev = rows(table, t + 1, x_t), rows(table, t_prev + 1, x_t)
    sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
    x0 = (x_t - (1 - a).sqrt() * eps) / a.sqrt()
    return a_prev.sqrt() * x0 + (1 - a_prev - sigma**2).clamp(min=0).sqrt() * eps + sigma * drawn_in_float64(x_t, noise)


@wheat("ddim-step", "in-place operations on its own tensors")
def own_tensors_in_place(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    a_prev = level(self, t_prev, x_t)
    variance = eta**2 * (1 - a_prev) / (1 - level(self, t, x_t)) * (1 - level(self, t, x_t) / a_prev)
    out = self.predict_x0(x_t, t, eps).clone()
    out.mul_(a_prev.sqrt()).add_((1 - a_prev - variance).clamp_(min=0).sqrt_() * eps)
    return out.addcmul_(variance.sqrt().expand_as(out), drawn(x_t, noise)) if eta > 0 else out
