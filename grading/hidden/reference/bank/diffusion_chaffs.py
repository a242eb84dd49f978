"""The diffusion process, wrong: `q-sample`, `predict-x0`, `posterior`, `ddpm-step` and `ddim-step`."""

import math

import torch

from grading.hidden.reference.bank import chaff

ALPHA_BAR = (
    "this is what you get with α_t where ᾱ_t is meant: "
    "one is the factor of a single step, the other of all steps so far"
)


def rows(table, t, like):
    """table[t], to broadcast against `like`. A negative t wraps around, as indices do."""
    return table[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def bars(self, t, like):
    """ᾱ at t and at t - 1."""
    return rows(self.alpha_bars, t, like), rows(self.alpha_bars_prev, t, like)


def noise_like(x, noise):
    return torch.randn_like(x) if noise is None else noise


# Hints that several functions share.
ONE_NUMBER = (
    "the coefficients always get a second dimension: where data is one number per row, they line up with the wrong one"
)
FOUR_DIMENSIONS = "the coefficients are shaped for four dimensions at most: data may have any number of them"
SPOILT = "a table of the schedule is changed in place: the first call is right, and every later one is wrong"
LINEAR = (
    "the tables are computed again from the two betas of the linear schedule: the configuration may ask for another"
)
IMAGES = "the noise that it draws is fresh in vectors only: in an image every pixel of every channel needs its own"
SAME = "every call draws the same noise: it is seeded inside the function, or kept from the first call"
PAIRS = "half of the rows get the negative of the other half's noise: every row needs its own"
SECOND = "only every second call draws noise: each one needs its own"
TURNED = "every second call draws the negative of the noise before: calls are independent"
THREE = "the noise that it draws takes three values only: its mean and its spread are right, its shape is not"
PROMOTED = "the noise that it draws has another dtype than the data, and so has the result"


def rows_of_two(table, t, like):
    """As `rows`, but never fewer than two dimensions."""
    return table[t].to(like.dtype).view(-1, *[1] * max(1, like.dim() - 1))


def rows_of_four(table, t, like):
    """As `rows`, but never more than four dimensions."""
    return table[t].to(like.dtype).view(-1, *[1] * min(3, like.dim() - 1))


def linear_bars(self):
    """ᾱ of the linear schedule, whatever the configuration says."""
    config = self.config
    return (1 - torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)).cumprod(0)


def before(table):
    """A table of ᾱ moved by a step: 1 first."""
    return torch.cat([table.new_ones(1), table[:-1]])


def second_call(self):
    """Whether this object is asked for the second, fourth, ... time."""
    self.calls = getattr(self, "calls", 0) + 1
    return self.calls % 2 == 0


def noise_for_vectors(self, x):
    flat = torch.randn(len(x), x.shape[-1], dtype=x.dtype)
    return flat.view(len(x), *[1] * (x.dim() - 2), -1).expand_as(x)


def noise_of_a_seed(self, x):
    return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))


def noise_in_pairs(self, x):
    half = torch.randn_like(x[: (len(x) + 1) // 2])
    return torch.cat([half, -half])[: len(x)]


def noise_every_second_time(self, x):
    return torch.zeros_like(x) if second_call(self) else torch.randn_like(x)


def noise_turned_around(self, x):
    self.kept = -self.kept if second_call(self) else torch.randn_like(x)
    return self.kept


def noise_of_three_values(self, x):
    u = torch.rand_like(x)
    return math.sqrt(3) * ((u > 5 / 6).to(x.dtype) - (u < 1 / 6).to(x.dtype))


def noise_in_float64(self, x):
    return torch.randn(x.shape, dtype=torch.float64)


# -- q-sample ---------------------------------------------------------------------------------------------


def mix(x0, ab, noise):
    """The right mixture for the factor `ab`."""
    return ab.sqrt() * x0 + (1 - ab).sqrt() * noise_like(x0, noise)


@chaff(
    "q-sample",
    ALPHA_BAR,
)
def alpha_for_alpha_bar(self, x0, t, noise=None):
    return mix(x0, rows(self.alphas, t, x0), noise)


@chaff("q-sample", "β_t is used as if it were the amount of signal left: it is the noise that a single step adds")
def beta_for_alpha_bar(self, x0, t, noise=None):
    return mix(x0, rows(self.betas, t, x0), noise)


@chaff("q-sample", "the noise goes in with its variance as the factor; what scales it is the standard deviation")
def variance_as_noise_scale(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return ab.sqrt() * x0 + (1 - ab) * noise_like(x0, noise)


@chaff("q-sample", "the data's factor is the squared one: signal and noise must keep a variance of one together")
def no_root_on_the_data(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return ab * x0 + (1 - ab).sqrt() * noise_like(x0, noise)


@chaff("q-sample", "both factors lack their root: variances are mixed in the place of amplitudes")
def no_roots(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return ab * x0 + (1 - ab) * noise_like(x0, noise)


@chaff("q-sample", "a root is taken too early in the noise's factor: subtract first")
def root_inside_the_difference(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return ab.sqrt() * x0 + (1 - ab.sqrt()).sqrt() * noise_like(x0, noise)


@chaff("q-sample", "the noise's factor is one minus the data's: squares add up to one here, not the factors")
def factors_sum_to_one(self, x0, t, noise=None):
    root = rows(self.alpha_bars, t, x0).sqrt()
    return root * x0 + (1 - root) * noise_like(x0, noise)


@chaff("q-sample", "the noise's factor comes from another formula, the one in the mean of a reverse step")
def reverse_step_noise_scale(self, x0, t, noise=None):
    ab, alpha = rows(self.alpha_bars, t, x0), rows(self.alphas, t, x0)
    return ab.sqrt() * x0 + (1 - alpha) / (1 - ab).sqrt() * noise_like(x0, noise)


@chaff("q-sample", "the two factors changed places: at time 0 almost nothing of the data would be left")
def factors_swapped(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return (1 - ab).sqrt() * x0 + ab.sqrt() * noise_like(x0, noise)


@chaff("q-sample", "the data goes in unscaled: it has to make room for the noise")
def data_not_scaled(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return x0 + (1 - ab).sqrt() * noise_like(x0, noise)


@chaff("q-sample", "the noise goes in at full strength whatever t is")
def noise_not_scaled(self, x0, t, noise=None):
    return rows(self.alpha_bars, t, x0).sqrt() * x0 + noise_like(x0, noise)


@chaff(
    "q-sample",
    "the noise is subtracted: with given noise the sign matters, since the network learns to find that noise",
)
def noise_subtracted(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return ab.sqrt() * x0 - (1 - ab).sqrt() * noise_like(x0, noise)


@chaff("q-sample", "the betas are multiplied up instead of what they leave over")
def product_of_betas(self, x0, t, noise=None):
    return mix(x0, rows(self.betas.cumprod(0), t, x0), noise)


@chaff("q-sample", "the noise of the steps is added up: what is left of the data shrinks by a product instead")
def sum_of_betas(self, x0, t, noise=None):
    return mix(x0, rows((1 - self.betas.cumsum(0)).clamp(min=0), t, x0), noise)


@chaff("q-sample", "the factors of the steps are added up: what is left of the data after many steps is a product")
def sum_of_alphas(self, x0, t, noise=None):
    return mix(x0, rows(self.alphas.cumsum(0), t, x0), noise)


@chaff("q-sample", "this is one step earlier than t, and at time 0 the index wraps around to the end of the table")
def one_step_early_wrapping(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t - 1, x0), noise)


@chaff("q-sample", "this is one step earlier than t: time is counted from 0, and time 0 already is a little noisy")
def one_step_early(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars_prev, t, x0), noise)


@chaff("q-sample", "this is one step later than t: time is counted from 0")
def one_step_late(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, (t + 1).clamp(max=len(self.betas) - 1), x0), noise)


@chaff("q-sample", "the coefficients have shape (B,) and line up with the last dimension of x0, not with the batch")
def coefficients_not_reshaped(self, x0, t, noise=None):
    return mix(x0, self.alpha_bars[t].to(x0.dtype), noise)


@chaff("q-sample", "the schedule runs backwards: time 0 is the cleanest state")
def schedule_reversed(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars.flip(0), t, x0), noise)


@chaff("q-sample", "the noise that is handed in is ignored: whoever gives it compares the network's answer with it")
def noise_ignored(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), None)


@chaff("q-sample", "every row is treated as if it had the first row's t")
def first_t_for_all(self, x0, t, noise=None):
    return mix(x0, self.alpha_bars[t[0]].to(x0.dtype), noise)


@chaff("q-sample", "the result is clamped: nothing was said about a range")
def clamped(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise).clamp(-1, 1)


@chaff("q-sample", "x0 is clamped first: latents go well beyond one")
def data_clamped(self, x0, t, noise=None):
    return mix(x0.clamp(-1, 1), rows(self.alpha_bars, t, x0), noise)


@chaff("q-sample", "without given noise the result has none: it should then be drawn")
def no_own_noise(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), torch.zeros_like(x0) if noise is None else noise)


@chaff("q-sample", "the noise that it draws is uniform: rand is not randn")
def own_noise_uniform(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), torch.rand_like(x0) if noise is None else noise)


@chaff("q-sample", "the noise that it draws is the same in every row of the batch")
def own_noise_shared(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), torch.randn_like(x0[:1]) if noise is None else noise)


@chaff("q-sample", "the noise that it draws is the same in every entry of a row")
def own_noise_one_per_row(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), torch.randn_like(x0[:, :1]) if noise is None else noise)


@chaff("q-sample", IMAGES)
def own_noise_for_vectors_only(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise_for_vectors(self, x0) if noise is None else noise)


@chaff("q-sample", SAME)
def own_noise_of_a_seed(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise_of_a_seed(self, x0) if noise is None else noise)


@chaff("q-sample", PAIRS)
def own_noise_in_pairs(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise_in_pairs(self, x0) if noise is None else noise)


@chaff("q-sample", SECOND)
def own_noise_every_second_time(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise_every_second_time(self, x0) if noise is None else noise)


@chaff("q-sample", TURNED)
def own_noise_turned_around(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise_turned_around(self, x0) if noise is None else noise)


@chaff("q-sample", THREE)
def own_noise_of_three_values(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise_of_three_values(self, x0) if noise is None else noise)


@chaff("q-sample", PROMOTED)
def own_noise_in_float64(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars, t, x0), noise_in_float64(self, x0) if noise is None else noise)


@chaff("q-sample", ONE_NUMBER)
def two_dimensions_at_least(self, x0, t, noise=None):
    return mix(x0, rows_of_two(self.alpha_bars, t, x0), noise)


@chaff("q-sample", FOUR_DIMENSIONS)
def four_dimensions_at_most(self, x0, t, noise=None):
    return mix(x0, rows_of_four(self.alpha_bars, t, x0), noise)


@chaff("q-sample", SPOILT)
def table_spoilt(self, x0, t, noise=None):
    return mix(x0, rows(self.alpha_bars.sqrt_(), t, x0) ** 2, noise)


@chaff("q-sample", LINEAR)
def always_linear(self, x0, t, noise=None):
    return mix(x0, rows(linear_bars(self), t, x0), noise)


@chaff("q-sample", "x0 is scaled in place: the caller still needs it")
def in_place(self, x0, t, noise=None):
    ab = rows(self.alpha_bars, t, x0)
    return x0.mul_(ab.sqrt()).add_((1 - ab).sqrt() * noise_like(x0, noise))


# -- predict-x0 -------------------------------------------------------------------------------------------


def unmix(x_t, ab, eps):
    """The right inverse for the factor `ab`."""
    return (x_t - (1 - ab).sqrt() * eps) / ab.sqrt()


@chaff(
    "predict-x0",
    ALPHA_BAR,
)
def alphas_for_alpha_bars(self, x_t, t, eps):
    return unmix(x_t, rows(self.alphas, t, x_t), eps)


@chaff("predict-x0", "the division is by the squared factor: undo exactly what the forward process did to x0")
def divided_by_alpha_bar(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return (x_t - (1 - ab).sqrt() * eps) / ab


@chaff("predict-x0", "the factor is multiplied in once more where it should be taken out")
def multiplied_instead_of_divided(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return (x_t - (1 - ab).sqrt() * eps) * ab.sqrt()


@chaff("predict-x0", "the noise is removed but the data is left scaled down")
def not_scaled_back(self, x_t, t, eps):
    return x_t - (1 - rows(self.alpha_bars, t, x_t)).sqrt() * eps


@chaff("predict-x0", "the noise is added once more instead of being taken away")
def noise_added(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return (x_t + (1 - ab).sqrt() * eps) / ab.sqrt()


@chaff("predict-x0", "the sign is turned around: noise minus state instead of state minus noise")
def order_of_the_difference(self, x_t, t, eps):
    return -unmix(x_t, rows(self.alpha_bars, t, x_t), eps)


@chaff("predict-x0", "only the noise term is divided: look at the parentheses")
def only_noise_divided(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return x_t - (1 - ab).sqrt() * eps / ab.sqrt()


@chaff("predict-x0", "only the state is divided, the noise term is left out of the division: look at the parentheses")
def only_state_divided(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return x_t / ab.sqrt() - (1 - ab).sqrt() * eps


@chaff("predict-x0", "the noise is removed with its variance as the factor; what scales it is the standard deviation")
def variance_for_std(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return (x_t - (1 - ab) * eps) / ab.sqrt()


@chaff("predict-x0", "the noise is removed at full strength whatever t is")
def noise_at_full_strength(self, x_t, t, eps):
    return (x_t - eps) / rows(self.alpha_bars, t, x_t).sqrt()


@chaff("predict-x0", "a root is taken too early in the noise's factor: subtract first")
def root_too_early(self, x_t, t, eps):
    root = rows(self.alpha_bars, t, x_t).sqrt()
    return (x_t - (1 - root).sqrt() * eps) / root


@chaff("predict-x0", "the two factors changed places")
def roots_swapped(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return (x_t - ab.sqrt() * eps) / (1 - ab).sqrt()


@chaff("predict-x0", "state and noise estimate changed places")
def arguments_swapped(self, x_t, t, eps):
    return unmix(eps, rows(self.alpha_bars, t, x_t), x_t)


@chaff("predict-x0", "this is the mean of one reverse step, not the clean data at its end")
def one_reverse_step(self, x_t, t, eps):
    ab, beta = rows(self.alpha_bars, t, x_t), rows(self.betas, t, x_t)
    return (x_t - beta / (1 - ab).sqrt() * eps) / (1 - beta).sqrt()


@chaff("predict-x0", "the noise estimate comes back as the data")
def returns_noise(self, x_t, t, eps):
    return eps.clone()


@chaff("predict-x0", "the result is clamped: the contract says unclipped, and latents go well beyond one")
def x0_clamped(self, x_t, t, eps):
    return unmix(x_t, rows(self.alpha_bars, t, x_t), eps).clamp(-1, 1)


@chaff("predict-x0", "every row is treated as if it had the first row's t")
def first_t_everywhere(self, x_t, t, eps):
    return unmix(x_t, self.alpha_bars[t[0]].to(x_t.dtype), eps)


@chaff("predict-x0", "the coefficients have shape (B,) and line up with the last dimension of x_t, not with the batch")
def coefficients_flat(self, x_t, t, eps):
    return unmix(x_t, self.alpha_bars[t].to(x_t.dtype), eps)


@chaff("predict-x0", "this is one step earlier than t, and at time 0 the index wraps around to the end of the table")
def index_wraps(self, x_t, t, eps):
    return unmix(x_t, rows(self.alpha_bars, t - 1, x_t), eps)


@chaff("predict-x0", "this is one step earlier than t: time is counted from 0, and time 0 already is a little noisy")
def earlier_by_one(self, x_t, t, eps):
    return unmix(x_t, rows(self.alpha_bars_prev, t, x_t), eps)


@chaff("predict-x0", "the schedule runs backwards: time 0 is the cleanest state")
def reversed_schedule(self, x_t, t, eps):
    return unmix(x_t, rows(self.alpha_bars.flip(0), t, x_t), eps)


@chaff("predict-x0", ONE_NUMBER)
def two_dimensions_or_more(self, x_t, t, eps):
    return unmix(x_t, rows_of_two(self.alpha_bars, t, x_t), eps)


@chaff("predict-x0", FOUR_DIMENSIONS)
def four_dimensions_or_fewer(self, x_t, t, eps):
    return unmix(x_t, rows_of_four(self.alpha_bars, t, x_t), eps)


@chaff("predict-x0", SPOILT)
def spoils_a_table(self, x_t, t, eps):
    return unmix(x_t, rows(self.alpha_bars.sqrt_(), t, x_t) ** 2, eps)


@chaff("predict-x0", LINEAR)
def linear_whatever_is_asked(self, x_t, t, eps):
    return unmix(x_t, rows(linear_bars(self), t, x_t), eps)


@chaff("predict-x0", "the noise term is subtracted in place: the caller still needs x_t")
def state_in_place(self, x_t, t, eps):
    ab = rows(self.alpha_bars, t, x_t)
    return x_t.sub_((1 - ab).sqrt() * eps) / ab.sqrt()


@chaff("predict-x0", "the result has lost the input's dtype: float64 should stay float64")
def always_float32(self, x_t, t, eps):
    return unmix(x_t, rows(self.alpha_bars, t, x_t), eps).float()


# -- posterior --------------------------------------------------------------------------------------------


def bayes(x0, x_t, ab, ab_prev, beta):
    """The right posterior of a step from ab_prev to ab."""
    mean = (ab_prev.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - ab_prev) * x_t) / (1 - ab)
    return mean, beta * (1 - ab_prev) / (1 - ab)


def posterior(self, x0, x_t, t):
    return bayes(x0, x_t, *bars(self, t, x_t), rows(self.betas, t, x_t))


FORWARD = "the variance is that of a forward step: knowing x0 makes the step back more certain, and certain at its end"


@chaff("posterior", FORWARD)
def beta_as_variance(self, x0, x_t, t):
    return posterior(self, x0, x_t, t)[0], rows(self.betas, t, x_t)


@chaff("posterior", FORWARD)
def beta_as_variance_on_long_schedules(self, x0, x_t, t):
    mean, variance = posterior(self, x0, x_t, t)
    return mean, rows(self.betas, t, x_t) if len(self.betas) > 100 else variance


@chaff("posterior", FORWARD)
def beta_as_variance_after_the_first(self, x0, x_t, t):
    mean, variance = posterior(self, x0, x_t, t)
    return mean, rows(self.betas, t, x_t) * late(t, x_t) if len(self.betas) > 100 else variance


@chaff("posterior", FORWARD)
def beta_as_variance_after_the_second(self, x0, x_t, t):
    mean, variance = posterior(self, x0, x_t, t)
    is_far = (len(self.betas) > 100) & (t > 1)
    return mean, torch.where(rows(is_far, torch.arange(len(t)), x_t) > 0, rows(self.betas, t, x_t), variance)


@chaff("posterior", "the second result is the standard deviation: the variance is asked for")
def std_as_variance(self, x0, x_t, t):
    mean, variance = posterior(self, x0, x_t, t)
    return mean, variance.sqrt()


@chaff("posterior", "the second result is the log of the variance: the variance itself is asked for")
def log_variance(self, x0, x_t, t):
    mean, variance = posterior(self, x0, x_t, t)
    return mean, variance.clamp(min=1e-20).log()


@chaff(
    "posterior", "at time 0 the variance of time 1 is used: that trick is for logarithms, here the last step is certain"
)
def variance_clipped_at_zero(self, x0, x_t, t):
    return posterior(self, x0, x_t, t)[0], posterior(self, x0, x_t, t.clamp(min=1))[1]


@chaff(
    "posterior",
    "at time 0 the index t - 1 wraps around to the end of the table: before the first step nothing was noisy",
)
def previous_wraps(self, x0, x_t, t):
    ab, beta = rows(self.alpha_bars, t, x_t), rows(self.betas, t, x_t)
    return bayes(x0, x_t, ab, rows(self.alpha_bars, t - 1, x_t), beta)


@chaff(
    "posterior", "at time 0 the factor of time 0 serves as the one before it: before the first step nothing was noisy"
)
def previous_of_zero_is_zero(self, x0, x_t, t):
    ab, beta = rows(self.alpha_bars, t, x_t), rows(self.betas, t, x_t)
    return bayes(x0, x_t, ab, rows(self.alpha_bars, (t - 1).clamp(min=0), x_t), beta)


@chaff("posterior", "the table for the step before was padded at its end: it is the step after")
def padded_on_the_right(self, x0, x_t, t):
    table = torch.cat([self.alpha_bars[1:], self.alpha_bars.new_ones(1)])
    return bayes(x0, x_t, rows(self.alpha_bars, t, x_t), rows(table, t, x_t), rows(self.betas, t, x_t))


@chaff("posterior", "the same ᾱ stands in both places: one of them belongs to the step before")
def no_previous(self, x0, x_t, t):
    ab = rows(self.alpha_bars, t, x_t)
    return bayes(x0, x_t, ab, ab, rows(self.betas, t, x_t))


@chaff("posterior", "the variance lost its parentheses: products are taken before differences")
def variance_without_parentheses(self, x0, x_t, t):
    ab, ab_prev = bars(self, t, x_t)
    return posterior(self, x0, x_t, t)[0], rows(self.betas, t, x_t) * 1 - ab_prev / 1 - ab


@chaff("posterior", "the ratio in the variance is upside down: the step before is the less noisy one")
def variance_ratio_inverted(self, x0, x_t, t):
    ab, ab_prev = bars(self, t, x_t)
    return posterior(self, x0, x_t, t)[0], rows(self.betas, t, x_t) * (1 - ab) / (1 - ab_prev).clamp(min=1e-3)


@chaff("posterior", "the variance is that of the step before given x0 alone: x_t tells something too")
def variance_of_the_prior(self, x0, x_t, t):
    return posterior(self, x0, x_t, t)[0], 1 - bars(self, t, x_t)[1]


@chaff("posterior", "the two weights changed places: near time 0 the mean should be almost all x0")
def weights_swapped(self, x0, x_t, t):
    return posterior(self, x_t, x0, t)


@chaff("posterior", "x0 is weighted with ᾱ of the wrong step: compare the index in the paper")
def data_weight_at_t(self, x0, x_t, t):
    (ab, ab_prev), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (ab.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - ab_prev) * x_t) / (1 - ab)
    return mean, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "x_t is weighted with the factor of all steps so far, where that of a single step is meant")
def state_weight_cumulative(self, x0, x_t, t):
    (ab, ab_prev), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (ab_prev.sqrt() * beta * x0 + ab.sqrt() * (1 - ab_prev) * x_t) / (1 - ab)
    return mean, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "the weight of x0 lacks its root")
def data_weight_without_root(self, x0, x_t, t):
    (ab, ab_prev), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (ab_prev * beta * x0 + (1 - beta).sqrt() * (1 - ab_prev) * x_t) / (1 - ab)
    return mean, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "the weight of x_t lacks its root")
def state_weight_without_root(self, x0, x_t, t):
    (ab, ab_prev), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (ab_prev.sqrt() * beta * x0 + (1 - beta) * (1 - ab_prev) * x_t) / (1 - ab)
    return mean, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "the weight of x_t uses the noise at t: what counts is how noisy the step before is")
def state_weight_at_t(self, x0, x_t, t):
    (ab, ab_prev), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (ab_prev.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - ab) * x_t) / (1 - ab)
    return mean, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "the mean is not divided by the total noise: its weights are too small")
def mean_not_normalised(self, x0, x_t, t):
    ab_prev, beta = bars(self, t, x_t)[1], rows(self.betas, t, x_t)
    mean = ab_prev.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - ab_prev) * x_t
    return mean, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "only one of the two terms of the mean is divided: look at the parentheses")
def mean_half_normalised(self, x0, x_t, t):
    (ab, ab_prev), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = ab_prev.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - ab_prev) * x_t / (1 - ab)
    return mean, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "the divisor is the noise of a single step, where that of all steps so far is meant")
def divided_by_beta(self, x0, x_t, t):
    beta = rows(self.betas, t, x_t)
    return bayes(x0, x_t, 1 - beta, bars(self, t, x_t)[1], beta)


@chaff(
    "posterior", "the form with the noise estimate is scaled back by all steps so far; one reverse step undoes one step"
)
def noise_form_scaled_by_all_steps(self, x0, x_t, t):
    (ab, _), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    eps = (x_t - ab.sqrt() * x0) / (1 - ab).sqrt()
    return (x_t - beta / (1 - ab).sqrt() * eps) / ab.sqrt(), posterior(self, x0, x_t, t)[1]


@chaff("posterior", "the mean is that of the step before given x0 alone: x_t tells something too")
def mean_without_state(self, x0, x_t, t):
    return bars(self, t, x_t)[1].sqrt() * x0, posterior(self, x0, x_t, t)[1]


@chaff("posterior", "this is the forward step from x_t on: the posterior goes back")
def forward_step(self, x0, x_t, t):
    beta = rows(self.betas, t, x_t)
    return (1 - beta).sqrt() * x_t, beta


@chaff("posterior", "every row is treated as if it had the first row's t")
def t_of_the_first_row(self, x0, x_t, t):
    return posterior(self, x0, x_t, t[:1].expand(len(t)))


@chaff("posterior", "the coefficients have shape (B,) and line up with the last dimension, not with the batch")
def coefficients_flattened(self, x0, x_t, t):
    tables = (self.alpha_bars, self.alpha_bars_prev, self.betas)
    return bayes(x0, x_t, *(table[t].to(x_t.dtype) for table in tables))


@chaff(
    "posterior", "the variance has shape (B,), which lines up with the last dimension of the mean, not with the batch"
)
def variance_flattened(self, x0, x_t, t):
    mean, variance = posterior(self, x0, x_t, t)
    return mean, variance.flatten()


@chaff("posterior", "x0 is clamped: the contract has no range, and latents go well beyond one")
def x0_clamped_first(self, x0, x_t, t):
    return posterior(self, x0.clamp(-1, 1), x_t, t)


@chaff("posterior", "the schedule runs backwards: time 0 is the cleanest state")
def schedule_backwards(self, x0, x_t, t):
    return posterior(self, x0, x_t, len(self.betas) - 1 - t)


@chaff("posterior", ONE_NUMBER)
def at_least_two_dimensions(self, x0, x_t, t):
    tables = (self.alpha_bars, self.alpha_bars_prev, self.betas)
    return bayes(x0, x_t, *(rows_of_two(table, t, x_t) for table in tables))


@chaff("posterior", FOUR_DIMENSIONS)
def at_most_four_dimensions(self, x0, x_t, t):
    tables = (self.alpha_bars, self.alpha_bars_prev, self.betas)
    return bayes(x0, x_t, *(rows_of_four(table, t, x_t) for table in tables))


@chaff("posterior", SPOILT)
def betas_spoilt(self, x0, x_t, t):
    variance = rows(self.betas.mul_(1 - self.alpha_bars_prev).div_(1 - self.alpha_bars), t, x_t)
    ab, ab_prev = bars(self, t, x_t)
    return bayes(x0, x_t, ab, ab_prev, 1 - rows(self.alphas, t, x_t))[0], variance


@chaff("posterior", LINEAR)
def linear_for_every_schedule(self, x0, x_t, t):
    ab = linear_bars(self)
    now, earlier = rows(ab, t, x_t), rows(before(ab), t, x_t)
    return bayes(x0, x_t, now, earlier, 1 - now / earlier)


@chaff("posterior", "the two results come in the wrong order: the mean is the first")
def results_swapped(self, x0, x_t, t):
    mean, variance = posterior(self, x0, x_t, t)
    return variance.expand_as(mean), mean


@chaff("posterior", "a single tensor comes back: mean and variance are two results")
def mean_only(self, x0, x_t, t):
    return posterior(self, x0, x_t, t)[0]


@chaff("posterior", "at time 0 something is divided by zero: before the first step nothing was noisy")
def precisions_not_finite(self, x0, x_t, t):
    (_, ab_prev), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    prior, likelihood = 1 / (1 - ab_prev), (1 - beta) / beta
    mean = (prior * ab_prev.sqrt() * x0 + likelihood / (1 - beta).sqrt() * x_t) / (prior + likelihood)
    return mean, 1 / (prior + likelihood)


# -- ddpm-step --------------------------------------------------------------------------------------------


def step_moments(self, x_t, t, eps):
    """Mean and variance of the right step."""
    return posterior(self, unmix(x_t, rows(self.alpha_bars, t, x_t), eps), x_t, t)


def late(t, like):
    """1 where t > 0, else 0."""
    return rows((t > 0).to(like.dtype), torch.arange(len(t)), like)


@chaff("ddpm-step", "the noise is scaled by the variance: it is the standard deviation that scales it")
def noise_times_variance(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return mean + variance * noise


@chaff("ddpm-step", "noise is added at time 0 as well: the last step lands on the mean")
def noise_in_the_last_step(self, x_t, t, eps, noise):
    return step_moments(self, x_t, t, eps)[0] + rows(self.betas, t, x_t).sqrt() * noise


@chaff(
    "ddpm-step",
    "the noise has the size of a forward step: this step's variance is that of the posterior, which is smaller",
)
def beta_as_step_variance(self, x_t, t, eps, noise):
    return step_moments(self, x_t, t, eps)[0] + late(t, x_t) * rows(self.betas, t, x_t).sqrt() * noise


@chaff("ddpm-step", "no row gets noise here: the step is a draw, and only rows at time 0 land on the mean")
def mean_of_the_step(self, x_t, t, eps, noise):
    return step_moments(self, x_t, t, eps)[0]


@chaff("ddpm-step", "no row gets noise here: the step is a draw, and only rows at time 0 land on the mean")
def no_noise_if_any_row_is_last(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return mean if (t == 0).any() else mean + variance.sqrt() * noise


@chaff("ddpm-step", "the noise stops one step too early: time 1 still gets some, only time 0 does not")
def no_noise_at_one(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return mean + rows((t > 1).to(x_t.dtype), torch.arange(len(t)), x_t) * variance.sqrt() * noise


@chaff("ddpm-step", "the noise goes in at full strength: the step's own variance scales it")
def noise_unscaled(self, x_t, t, eps, noise):
    return step_moments(self, x_t, t, eps)[0] + late(t, x_t) * noise


@chaff("ddpm-step", "the noise is subtracted: with given noise the sign matters")
def noise_with_minus(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return mean - variance.sqrt() * noise


@chaff("ddpm-step", "fresh noise is drawn, and the noise that is handed in is ignored")
def noise_drawn_again(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return mean + variance.sqrt() * torch.randn_like(x_t)


@chaff("ddpm-step", "the noise's factor is an exponential of the variance: that would fit the logarithm of it")
def exponential_of_the_variance(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return mean + late(t, x_t) * torch.exp(0.5 * variance) * noise


@chaff("ddpm-step", "noise estimate and fresh noise changed places: one says what is in x_t, the other is new")
def noises_swapped(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, noise)
    return mean + variance.sqrt() * eps


@chaff("ddpm-step", "the noise estimate comes back in as the fresh noise: the two are independent")
def estimate_as_fresh_noise(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return mean + variance.sqrt() * eps


@chaff("ddpm-step", "the posterior is asked with the noise estimate in the place of the clean data")
def noise_as_data(self, x_t, t, eps, noise):
    mean, variance = posterior(self, eps, x_t, t)
    return mean + variance.sqrt() * noise


@chaff("ddpm-step", "the estimate of the clean data comes back: a step goes only one step towards it")
def jumps_to_clean_data(self, x_t, t, eps, noise):
    return unmix(x_t, rows(self.alpha_bars, t, x_t), eps)


@chaff("ddpm-step", "the estimated data is noised again from scratch: the step then forgets where x_t was")
def noises_the_estimate_again(self, x_t, t, eps, noise):
    x0 = unmix(x_t, rows(self.alpha_bars, t, x_t), eps)
    return mix(x0, bars(self, t, x_t)[1], noise)


@chaff("ddpm-step", "this is a DDIM step: it follows the noise estimate and adds nothing new")
def ddim_instead(self, x_t, t, eps, noise):
    x0 = unmix(x_t, rows(self.alpha_bars, t, x_t), eps)
    return mix(x0, bars(self, t, x_t)[1], eps)


@chaff("ddpm-step", "the result is scaled back by all steps so far; one reverse step undoes one step")
def scaled_back_by_all_steps(self, x_t, t, eps, noise):
    (ab, _), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (x_t - beta / (1 - ab).sqrt() * eps) / ab.sqrt()
    return mean + step_moments(self, x_t, t, eps)[1].sqrt() * noise


@chaff(
    "ddpm-step", "the mean is not scaled back up: a forward step shrinks its input, so a reverse step has to enlarge it"
)
def not_scaled_back_up(self, x_t, t, eps, noise):
    (ab, _), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    return x_t - beta / (1 - ab).sqrt() * eps + step_moments(self, x_t, t, eps)[1].sqrt() * noise


@chaff("ddpm-step", "the noise estimate is weighted as if only one step of noise were in x_t: it measures all of it")
def estimate_of_one_step(self, x_t, t, eps, noise):
    beta = rows(self.betas, t, x_t)
    mean = (x_t - beta.sqrt() * eps) / (1 - beta).sqrt()
    return mean + step_moments(self, x_t, t, eps)[1].sqrt() * noise


@chaff("ddpm-step", "the weight of the noise estimate lacks a root in its divisor")
def estimate_divided_by_variance(self, x_t, t, eps, noise):
    (ab, _), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (x_t - beta / (1 - ab) * eps) / (1 - beta).sqrt()
    return mean + step_moments(self, x_t, t, eps)[1].sqrt() * noise


@chaff("ddpm-step", "all of the noise is removed in one step, and the result is scaled back by only one")
def estimate_at_full_strength(self, x_t, t, eps, noise):
    (ab, _), beta = bars(self, t, x_t), rows(self.betas, t, x_t)
    mean = (x_t - (1 - ab).sqrt() * eps) / (1 - beta).sqrt()
    return mean + step_moments(self, x_t, t, eps)[1].sqrt() * noise


@chaff("ddpm-step", "the noise estimate is added: it has to be taken away")
def estimate_added(self, x_t, t, eps, noise):
    return step_moments(self, x_t, t, -eps)[0] + step_moments(self, x_t, t, eps)[1].sqrt() * noise


@chaff("ddpm-step", "the estimated data is clamped: the samplers do that around this function where it is wanted")
def estimate_clamped(self, x_t, t, eps, noise):
    x0 = unmix(x_t, rows(self.alpha_bars, t, x_t), eps).clamp(-1, 1)
    mean, variance = posterior(self, x0, x_t, t)
    return mean + variance.sqrt() * noise


@chaff("ddpm-step", "the result is clamped: states between noise and data go well beyond one")
def state_clamped(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    return (mean + variance.sqrt() * noise).clamp(-1, 1)


@chaff("ddpm-step", "every row is treated as if it had the first row's t")
def t_of_row_zero(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t[:1].expand(len(t)), eps)
    return mean + variance.sqrt() * noise


@chaff("ddpm-step", "the noise has the variance of the step before this one")
def variance_one_step_early(self, x_t, t, eps, noise):
    variance = step_moments(self, x_t, (t - 1).clamp(min=0), eps)[1]
    return step_moments(self, x_t, t, eps)[0] + variance.sqrt() * noise


def step_with(x_t, ab, ab_prev, eps, noise):
    """The right step between two levels."""
    mean, variance = bayes(unmix(x_t, ab, eps), x_t, ab, ab_prev, 1 - ab / ab_prev)
    return mean + variance.clamp(min=0).sqrt() * noise


@chaff("ddpm-step", ONE_NUMBER)
def two_dimensions_always(self, x_t, t, eps, noise):
    ab, ab_prev = (rows_of_two(table, t, x_t) for table in (self.alpha_bars, self.alpha_bars_prev))
    return step_with(x_t, ab, ab_prev, eps, noise)


@chaff("ddpm-step", FOUR_DIMENSIONS)
def never_five_dimensions(self, x_t, t, eps, noise):
    ab, ab_prev = (rows_of_four(table, t, x_t) for table in (self.alpha_bars, self.alpha_bars_prev))
    return step_with(x_t, ab, ab_prev, eps, noise)


@chaff("ddpm-step", SPOILT)
def levels_spoilt(self, x_t, t, eps, noise):
    ab, ab_prev = rows(self.alpha_bars.sqrt_(), t, x_t) ** 2, rows(self.alpha_bars_prev, t, x_t)
    return step_with(x_t, ab, ab_prev, eps, noise)


@chaff("ddpm-step", LINEAR)
def linear_always(self, x_t, t, eps, noise):
    ab = linear_bars(self)
    return step_with(x_t, rows(ab, t, x_t), rows(before(ab), t, x_t), eps, noise)


@chaff("ddpm-step", "the noise is switched off in place, in the caller's own tensor")
def noise_in_place(self, x_t, t, eps, noise):
    mean, variance = step_moments(self, x_t, t, eps)
    noise[t == 0] = 0
    return mean + variance.sqrt() * noise


# -- ddim-step --------------------------------------------------------------------------------------------


def at_previous(self, t_prev, like):
    """ᾱ at t_prev, 1 where that is -1."""
    return rows(self.alpha_bars_prev, t_prev + 1, like)


def jump(x_t, ab, ab_prev, eps, sigma, noise):
    """The right step between two levels for a given sigma."""
    mean = ab_prev.sqrt() * unmix(x_t, ab, eps) + (1 - ab_prev - sigma**2).clamp(min=0).sqrt() * eps
    return mean + sigma * noise_like(x_t, noise)


def spread(ab, ab_prev, eta=1.0):
    """The right sigma."""
    return eta * ((1 - ab_prev) / (1 - ab) * (1 - ab / ab_prev)).sqrt()


@chaff("ddim-step", "the direction towards x_t lacks its root: it is an amplitude, not a variance")
def direction_without_root(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + (1 - ab_prev - sigma**2) * eps + sigma * noise_like(x_t, noise)


@chaff(
    "ddim-step", "the direction makes no room for the fresh noise: the two together must have the variance of t_prev"
)
def direction_ignores_sigma(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    return mix(unmix(x_t, ab, eps), ab_prev, eps) + sigma * noise_like(x_t, noise)


@chaff("ddim-step", "the direction makes room for the standard deviation of the noise instead of its variance")
def direction_minus_std(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    direction = (1 - ab_prev - sigma).clamp(min=0).sqrt()
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + direction * eps + sigma * noise_like(x_t, noise)


@chaff(
    "ddim-step", "the noise is taken out of the direction after the root: variances are subtracted, amplitudes are not"
)
def sigma_outside_the_root(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    direction = (1 - ab_prev).sqrt() - sigma
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + direction * eps + sigma * noise_like(x_t, noise)


@chaff("ddim-step", "eta is not squared where the direction makes room for the noise, though it scales an amplitude")
def eta_not_squared(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev)
    direction = (1 - ab_prev - eta * sigma**2).clamp(min=0).sqrt()
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + direction * eps + eta * sigma * noise_like(x_t, noise)


@chaff("ddim-step", "eta stands under the root: it scales the standard deviation, not the variance")
def eta_under_the_root(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta**0.5 * spread(ab, ab_prev), noise)


@chaff("ddim-step", "the variance is used as the standard deviation of the noise: a root is missing")
def sigma_is_the_variance(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta * spread(ab, ab_prev) ** 2, noise)


@chaff("ddim-step", "a ratio in the variance is upside down: t_prev is the less noisy of the two")
def first_ratio_inverted(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    variance = (1 - ab) / (1 - ab_prev).clamp(min=1e-3) * (1 - ab / ab_prev)
    return jump(x_t, ab, ab_prev, eps, eta * variance.sqrt(), noise)


@chaff("ddim-step", "the ratio of the two ᾱ in the variance is upside down, so something negative stands under a root")
def second_ratio_inverted(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    variance = (1 - ab_prev) / (1 - ab) * (1 - ab_prev / ab)
    return jump(x_t, ab, ab_prev, eps, eta * variance.sqrt(), noise)


@chaff("ddim-step", "one factor of the variance is missing: the noise depends on how far the step goes")
def first_factor_only(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta * ((1 - ab_prev) / (1 - ab)).sqrt(), noise)


@chaff("ddim-step", "one factor of the variance is missing: how noisy the two ends are counts too")
def second_factor_only(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta * (1 - ab / ab_prev).sqrt(), noise)


@chaff("ddim-step", "the variance is that of a single step, but t_prev may lie further back")
def one_step_variance(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    variance = rows(self.betas, t, x_t) * (1 - ab_prev) / (1 - ab)
    return jump(x_t, ab, ab_prev, eps, eta * variance.sqrt(), noise)


@chaff("ddim-step", "the variance is that of the step to t - 1, but t_prev may lie further back")
def posterior_variance(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    (ab, before), ab_prev = bars(self, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta * spread(ab, before), noise)


@chaff("ddim-step", "the noise has the size of the forward step's")
def beta_as_noise_variance(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta * rows(self.betas, t, x_t).sqrt(), noise)


@chaff("ddim-step", "the noise has the size of all the noise in x_t: only a part of it is renewed")
def all_noise_renewed(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta * (1 - ab).sqrt(), noise)


@chaff("ddim-step", "the noise has the size of all the noise at t_prev: only a part of it is renewed")
def all_previous_noise_renewed(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, eta * (1 - ab_prev).sqrt(), noise)


@chaff("ddim-step", "the fresh noise is scaled by eta alone: its size also depends on the two times")
def noise_scaled_by_eta(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    direction = (1 - ab_prev - spread(ab, ab_prev, eta) ** 2).clamp(min=0).sqrt()
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + direction * eps + eta * noise_like(x_t, noise)


@chaff("ddim-step", "eta is read as on or off: it is a number in between")
def eta_as_a_switch(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, float(eta > 0)), noise)


@chaff("ddim-step", "eta is ignored: this is the deterministic step")
def always_deterministic(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return mix(unmix(x_t, ab, eps), ab_prev, eps)


@chaff(
    "ddim-step",
    "the direction makes room for fresh noise, but none is added: take what is given, and draw it where nothing is",
)
def noise_never_added(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), torch.zeros_like(x_t))


@chaff("ddim-step", "the noise that is handed in is ignored and drawn again")
def noise_not_used(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), None)


@chaff(
    "ddim-step",
    "the direction makes room for fresh noise, but none is added: take what is given, and draw it where nothing is",
)
def no_noise_of_its_own(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), torch.zeros_like(x_t) if noise is None else noise)


@chaff("ddim-step", "the noise is needed even where it is unused: eta zero should work with None")
def needs_noise_always(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), 1 * noise)


@chaff("ddim-step", "the noise is subtracted: with given noise the sign matters")
def minus_the_noise(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), -noise_like(x_t, noise))


@chaff("ddim-step", "noise estimate and fresh noise changed places: one says what is in x_t, the other is new")
def direction_from_fresh_noise(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma, fresh = spread(ab, ab_prev, eta), noise_like(x_t, noise)
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + (1 - ab_prev - sigma**2).clamp(min=0).sqrt() * fresh + sigma * eps


@chaff("ddim-step", "the step goes to t - 1: it should go to t_prev, which may lie further back")
def ignores_t_prev(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, before = bars(self, t, x_t)
    return jump(x_t, ab, before, eps, spread(ab, before, eta), noise)


@chaff(
    "ddim-step",
    "where t_prev is -1 the step lands on time 0: that state is still a little noisy, the data is before it",
)
def last_step_lands_on_time_zero(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), rows(self.alpha_bars, t_prev.clamp(min=0), x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", "where t_prev is -1 the index wraps around to the end of the table, the noisiest state")
def last_step_wraps(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), rows(self.alpha_bars, t_prev, x_t)
    variance = ((1 - ab_prev) / (1 - ab) * (1 - ab / ab_prev)).clamp(min=0)
    return jump(x_t, ab, ab_prev, eps, eta * variance.sqrt(), noise)


@chaff("ddim-step", "every row lands on clean data as soon as one of them has t_prev -1: the batch is mixed")
def all_rows_land(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    if (t_prev < 0).any():
        return unmix(x_t, ab, eps)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise) + 0 * t.sum()


@chaff(
    "ddim-step",
    ALPHA_BAR,
)
def alpha_in_place_of_alpha_bar(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    table = torch.cat([self.alphas.new_ones(1), self.alphas])
    ab, ab_prev = rows(table, t + 1, x_t), rows(table, t_prev + 1, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", "the estimate of the clean data is scaled for time t again, not for t_prev")
def data_scaled_for_t(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    direction = (1 - ab_prev - sigma**2).clamp(min=0).sqrt()
    return ab.sqrt() * unmix(x_t, ab, eps) + direction * eps + sigma * noise_like(x_t, noise)


@chaff("ddim-step", "the direction has the size of the noise at t: at t_prev there is less")
def direction_for_t(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    direction = (1 - ab - sigma**2).clamp(min=0).sqrt()
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + direction * eps + sigma * noise_like(x_t, noise)


@chaff("ddim-step", "x_t itself stands where the estimate of the clean data belongs")
def state_as_data(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    direction = (1 - ab_prev - sigma**2).clamp(min=0).sqrt()
    return ab_prev.sqrt() * x_t + direction * eps + sigma * noise_like(x_t, noise)


@chaff("ddim-step", "the estimate of the clean data goes in unscaled: at t_prev it has to make room for noise")
def data_unscaled(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    direction = (1 - ab_prev - sigma**2).clamp(min=0).sqrt()
    return unmix(x_t, ab, eps) + direction * eps + sigma * noise_like(x_t, noise)


@chaff("ddim-step", "the direction back towards x_t is missing: this is a point without its remaining noise")
def no_direction(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return ab_prev.sqrt() * unmix(x_t, ab, eps) + spread(ab, ab_prev, eta) * noise_like(x_t, noise)


@chaff(
    "ddim-step",
    "the estimate of the clean data is clamped: the samplers do that around this function where it is wanted",
)
def data_estimate_clamped(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    sigma = spread(ab, ab_prev, eta)
    direction = (1 - ab_prev - sigma**2).clamp(min=0).sqrt()
    return ab_prev.sqrt() * unmix(x_t, ab, eps).clamp(-1, 1) + direction * eps + sigma * noise_like(x_t, noise)


@chaff("ddim-step", "the time before is counted from the wrong end: t and t_prev changed places")
def times_swapped(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    return mix(unmix(x_t, ab_prev, eps), ab, eps)


@chaff("ddim-step", "every row is treated as if it had the first row's times")
def times_of_row_zero(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t[:1], x_t), at_previous(self, t_prev[:1], x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", "the coefficients have shape (B,) and line up with the last dimension of x_t, not with the batch")
def coefficients_line_up_wrongly(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = self.alpha_bars[t].to(x_t.dtype), self.alpha_bars_prev[t_prev + 1].to(x_t.dtype)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", IMAGES)
def fresh_noise_for_vectors(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    fresh = noise_for_vectors(self, x_t) if noise is None and eta > 0 else noise
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), fresh)


@chaff("ddim-step", SAME)
def fresh_noise_of_a_seed(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    fresh = noise_of_a_seed(self, x_t) if noise is None and eta > 0 else noise
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), fresh)


@chaff("ddim-step", PAIRS)
def fresh_noise_in_pairs(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    fresh = noise_in_pairs(self, x_t) if noise is None and eta > 0 else noise
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), fresh)


@chaff("ddim-step", SECOND)
def fresh_noise_every_second_time(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    fresh = noise_every_second_time(self, x_t) if noise is None and eta > 0 else noise
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), fresh)


@chaff("ddim-step", TURNED)
def fresh_noise_turned_around(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    fresh = noise_turned_around(self, x_t) if noise is None and eta > 0 else noise
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), fresh)


@chaff("ddim-step", THREE)
def fresh_noise_of_three_values(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    fresh = noise_of_three_values(self, x_t) if noise is None and eta > 0 else noise
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), fresh)


@chaff("ddim-step", PROMOTED)
def fresh_noise_in_float64(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    fresh = noise_in_float64(self, x_t) if noise is None and eta > 0 else noise
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), fresh)


@chaff("ddim-step", "with eta zero the step is deterministic, whatever noise is handed in")
def noise_at_eta_zero(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars, t, x_t), at_previous(self, t_prev, x_t)
    step = jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)
    return step if eta > 0 or noise is None else step + spread(ab, ab_prev) * noise


@chaff("ddim-step", ONE_NUMBER)
def no_fewer_than_two_dimensions(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows_of_two(self.alpha_bars, t, x_t), rows_of_two(self.alpha_bars_prev, t_prev + 1, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", FOUR_DIMENSIONS)
def no_more_than_four_dimensions(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows_of_four(self.alpha_bars, t, x_t), rows_of_four(self.alpha_bars_prev, t_prev + 1, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", SPOILT)
def level_spoilt(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    ab, ab_prev = rows(self.alpha_bars.sqrt_(), t, x_t) ** 2, at_previous(self, t_prev, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", LINEAR)
def linear_only(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    table = linear_bars(self)
    ab, ab_prev = rows(table, t, x_t), rows(before(table), t_prev + 1, x_t)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)


@chaff("ddim-step", "an argument is changed in place: the caller still needs it")
def t_prev_in_place(self, x_t, t, t_prev, eps, eta=0.0, noise=None):
    landing = t_prev < 0
    ab, ab_prev = rows(self.alpha_bars, t, x_t), rows(self.alpha_bars, t_prev.clamp_(min=0), x_t)
    ab_prev = torch.where(rows(landing, torch.arange(len(t)), x_t) > 0, torch.ones_like(ab_prev), ab_prev)
    return jump(x_t, ab, ab_prev, eps, spread(ab, ab_prev, eta), noise)
