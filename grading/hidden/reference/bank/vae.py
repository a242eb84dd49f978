"""The VAE: `reparameterize` and `kl`."""

import math

import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from grading.hidden.reference.bank import chaff, wheat

# -- reparameterize: wrong --------------------------------------------------------------------------------


@chaff(
    "reparameterize",
    "the spread grows too fast: logvar is the log of the variance, and noise is scaled by another quantity",
)
def variance_as_std(self, mu, logvar):
    return mu + logvar.exp() * torch.randn_like(mu)


@chaff("reparameterize", "logvar itself is used as the spread: it is a logarithm, and may be negative")
def logvar_as_std(self, mu, logvar):
    return mu + logvar * torch.randn_like(mu)


@chaff("reparameterize", "the spread shrinks where logvar grows: look at the sign in the exponent")
def sign_of_logvar(self, mu, logvar):
    return mu + torch.exp(-0.5 * logvar) * torch.randn_like(mu)


@chaff("reparameterize", "halving a variance does not make it a standard deviation, and the spread comes out wrong")
def half_outside_the_exponential(self, mu, logvar):
    return mu + 0.5 * logvar.exp() * torch.randn_like(mu)


@chaff("reparameterize", "z is the mean plus one standard deviation: nothing in it is random, so it is not a draw")
def no_noise(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar)


@chaff(
    "reparameterize",
    "z is just mu: a draw is asked for, in eval mode too, and it differs from mu by noise as large as logvar says",
)
def returns_the_mean(self, mu, logvar):
    return mu


@chaff(
    "reparameterize",
    "z is just mu: a draw is asked for, in eval mode too, and it differs from mu by noise as large as logvar says",
)
def mean_in_eval_mode(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu) if self.training else mu


@chaff("reparameterize", "one vector of noise serves the whole batch: every sample needs its own")
def one_noise_per_batch(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu[:1])


@chaff("reparameterize", "one number of noise serves a whole row: every latent dimension needs its own")
def one_noise_per_row(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu[:, :1])


@chaff("reparameterize", "a single random number serves every entry: each element needs its own")
def one_noise_for_all(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn((), dtype=mu.dtype)


@chaff("reparameterize", "the noise comes from a uniform distribution: rand is not randn")
def uniform_noise(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.rand_like(mu)


@chaff("reparameterize", "the noise has the right mean and spread, but its shape is not the bell of a Gaussian")
def uniform_noise_of_unit_variance(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * (torch.rand_like(mu) - 0.5) * math.sqrt(12)


@chaff("reparameterize", "the noise is never negative: it should be symmetric around zero")
def absolute_noise(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu).abs()


@chaff(
    "reparameterize", "the noise scales the mean instead of the spread: mu and the standard deviation changed places"
)
def mean_and_std_swapped(self, mu, logvar):
    return torch.exp(0.5 * logvar) + mu * torch.randn_like(mu)


@chaff("reparameterize", "the spread ignores logvar: the noise goes in with size one everywhere")
def unit_spread(self, mu, logvar):
    return mu + torch.randn_like(mu) + 0 * logvar


@chaff("reparameterize", "drawing straight from a distribution cuts the graph: no gradient reaches mu and logvar")
def torch_normal(self, mu, logvar):
    return torch.normal(mu, torch.exp(0.5 * logvar))


@chaff("reparameterize", "the standard deviation is detached: the encoder never learns how uncertain it should be")
def std_detached(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar).detach() * torch.randn_like(mu)


@chaff(
    "reparameterize", "the mean is detached: the reconstruction can then teach the encoder nothing about where to put z"
)
def mean_detached(self, mu, logvar):
    return mu.detach() + torch.exp(0.5 * logvar) * torch.randn_like(mu)


SAME = "every call draws the same noise: it is seeded inside the function, or kept from the first call"


@chaff("reparameterize", SAME)
def seeded_inside(self, mu, logvar):
    generator = torch.Generator().manual_seed(0)
    return mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=generator, dtype=mu.dtype)


@chaff("reparameterize", SAME)
def noise_kept(self, mu, logvar):
    if not hasattr(self, "kept"):
        self.kept = torch.randn_like(mu)
    return mu + torch.exp(0.5 * logvar) * self.kept


@chaff("reparameterize", "half of the rows get the negative of the other half's noise: every row needs its own")
def noise_in_pairs(self, mu, logvar):
    half = torch.randn_like(mu[: (len(mu) + 1) // 2])
    return mu + torch.exp(0.5 * logvar) * torch.cat([half, -half])[: len(mu)]


@chaff("reparameterize", "only every second call draws noise: each one needs its own")
def noise_every_second_time(self, mu, logvar):
    self.calls = getattr(self, "calls", 0) + 1
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu) * (self.calls % 2)


@chaff("reparameterize", "every second call draws the negative of the noise before: calls are independent")
def noise_turned_around(self, mu, logvar):
    self.kept = -self.kept if hasattr(self, "kept") else torch.randn_like(mu)
    return mu + torch.exp(0.5 * logvar) * self.kept


@chaff("reparameterize", "the noise takes three values only: its mean and its spread are right, its shape is not")
def noise_of_three_values(self, mu, logvar):
    u = torch.rand_like(mu)
    return mu + torch.exp(0.5 * logvar) * math.sqrt(3) * ((u > 5 / 6).to(mu.dtype) - (u < 1 / 6).to(mu.dtype))


@chaff("reparameterize", "logvar is changed in place, so every later use of it, such as the KL term, is wrong")
def in_place_on_logvar(self, mu, logvar):
    return mu + logvar.mul_(0.5).exp_() * torch.randn_like(mu)


@chaff("reparameterize", "an offset is added to the standard deviation: small variances come out too large")
def offset_on_std(self, mu, logvar):
    return mu + (torch.exp(0.5 * logvar) + 0.3) * torch.randn_like(mu)


@chaff("reparameterize", "the variance is averaged over the latent dimensions: each dimension has its own")
def one_spread_per_row(self, mu, logvar):
    return mu + torch.exp(0.5 * logvar).mean(dim=1, keepdim=True) * torch.randn_like(mu)


@chaff("reparameterize", "the result has lost the input's dtype: the noise and what it is mixed with must keep it")
def casts_to_float32(self, mu, logvar):
    return (mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)).float()


# -- reparameterize: right --------------------------------------------------------------------------------


@wheat("reparameterize", "torch.distributions")
def rsample(self, mu, logvar):
    return Normal(mu, (0.5 * logvar).exp()).rsample()


@wheat("reparameterize", "randn of a shape, with dtype and device")
def randn_of_shape(self, mu, logvar):
    eps = torch.randn(mu.shape, dtype=mu.dtype, device=mu.device)
    return mu + eps * torch.exp(logvar / 2)


@wheat("reparameterize", "noise is symmetric, so it may be subtracted")
def minus_noise(self, mu, logvar):
    return mu - logvar.exp().sqrt() * torch.randn_like(logvar)


@wheat("reparameterize", "noise in float64, result in the input's dtype")
def float64_noise(self, mu, logvar):
    noise = torch.randn(mu.size(), dtype=torch.float64)
    return (mu.double() + (0.5 * logvar.double()).exp() * noise).to(mu.dtype)


@wheat("reparameterize", "noise on the device of the module's parameters")
def noise_on_the_module_device(self, mu, logvar):
    eps = torch.randn(mu.shape, device=next(self.parameters()).device).to(mu)
    return eps.mul(logvar.exp().pow(0.5)) + mu


@wheat("reparameterize", "one fused operation, the root of the variance")
def addcmul(self, mu, logvar):
    return torch.addcmul(mu, torch.sqrt(torch.exp(logvar)), torch.randn_like(mu))


@wheat("reparameterize", "noise filled in place, on a tensor of its own")
def empty_normal(self, mu, logvar):
    eps = torch.empty_like(mu).normal_()
    return eps.detach().mul(torch.pow(math.e, logvar * 0.5)).add(mu)


@wheat("reparameterize", "row by row")
def loop(self, mu, logvar):
    return torch.stack([m + torch.exp(lv / 2) * torch.randn(len(m), dtype=m.dtype) for m, lv in zip(mu, logvar)])


@wheat("reparameterize", "torch.normal on standard noise, which needs no gradient")
def standard_torch_normal(self, mu, logvar):
    return mu + logvar.mul(0.5).exp() * torch.normal(torch.zeros_like(mu), torch.ones_like(mu))


@wheat("reparameterize", "a generator for each call, seeded from torch's own")
def own_generator(self, mu, logvar):
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    return mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator, dtype=mu.dtype)


@wheat("reparameterize", "torch.normal of numbers, cast")
def normal_of_numbers(self, mu, logvar):
    return mu + torch.exp(logvar / 2) * torch.normal(0.0, 1.0, mu.shape, dtype=torch.float64).to(mu.dtype)


@wheat("reparameterize", "one multivariate normal per row")
def multivariate(self, mu, logvar):
    return MultivariateNormal(mu, scale_tril=torch.diag_embed((0.5 * logvar).exp())).rsample()


@wheat("reparameterize", "in-place operations on clones")
def in_place_on_clones(self, mu, logvar):
    std = logvar.clone().mul_(0.5).exp_()
    return std.mul(torch.randn_like(std)).add_(mu)


# -- kl: wrong --------------------------------------------------------------------------------------------


def terms(mu, logvar):
    """Twice the divergence of every latent dimension."""
    return mu**2 + logvar.exp() - 1 - logvar


@chaff("kl", "the sign is turned around: a divergence is never negative")
def negative(mu, logvar):
    return -0.5 * terms(mu, logvar).sum(dim=1)


@chaff("kl", "twice too large: a factor in front of the sum got lost")
def no_half(mu, logvar):
    return terms(mu, logvar).sum(dim=1)


@chaff("kl", "averaged over the latent dimensions: independent dimensions add their divergences up")
def mean_over_latents(mu, logvar):
    return 0.5 * terms(mu, logvar).mean(dim=1)


@chaff("kl", "averaged over the batch: one value per sample is asked for, the loss adds them up later")
def mean_over_batch(mu, logvar):
    return 0.5 * terms(mu, logvar).sum(dim=1).mean()


@chaff("kl", "every row gets the batch's average: one value per sample is asked for")
def mean_over_batch_repeated(mu, logvar):
    return 0.5 * terms(mu, logvar).sum(dim=1).mean().expand(len(mu))


@chaff("kl", "one number for the whole batch: one value per sample is asked for")
def summed_over_everything(mu, logvar):
    return 0.5 * terms(mu, logvar).sum()


@chaff("kl", "every row's divergence is divided by the batch size: nothing in this function averages")
def divided_by_batch(mu, logvar):
    return 0.5 * terms(mu, logvar).sum(dim=1) / (len(mu) + 1)


@chaff("kl", "summed over the batch instead of the latent dimensions: check which dimension is which")
def summed_over_the_batch(mu, logvar):
    return 0.5 * terms(mu, logvar).sum(dim=0)


@chaff("kl", "the values are not summed: one per sample is asked for, not one per latent dimension")
def not_summed(mu, logvar):
    return 0.5 * terms(mu, logvar)


@chaff("kl", "a mean of plus one and of minus one are equally far from zero, but here they count differently")
def mean_unsquared(mu, logvar):
    return 0.5 * (mu + logvar.exp() - 1 - logvar).sum(dim=1)


@chaff("kl", "the distance of the mean from zero enters by its absolute value: for Gaussians it enters in another way")
def mean_absolute(mu, logvar):
    return 0.5 * (mu.abs() + logvar.exp() - 1 - logvar).sum(dim=1)


@chaff("kl", "the mean is left out: a narrow Gaussian far from zero would cost nothing extra")
def mean_forgotten(mu, logvar):
    return 0.5 * (logvar.exp() - 1 - logvar).sum(dim=1)


@chaff("kl", "the mean enters with the wrong sign: being far from zero must cost, not pay")
def mean_subtracted(mu, logvar):
    return 0.5 * (logvar.exp() - 1 - logvar - mu**2).sum(dim=1)


@chaff("kl", "the standard deviation stands where the variance belongs")
def std_for_variance(mu, logvar):
    return 0.5 * (mu**2 + (0.5 * logvar).exp() - 1 - logvar).sum(dim=1)


@chaff("kl", "logvar is read as the log of the standard deviation; it is the log of the variance")
def logvar_read_as_log_std(mu, logvar):
    return 0.5 * terms(mu, 2 * logvar).sum(dim=1)


@chaff("kl", "logvar is read as the variance itself: it is a logarithm, and may be negative")
def logvar_read_as_variance(mu, logvar):
    return 0.5 * (mu**2 + logvar - 1 - logvar.abs().clamp(min=1e-6).log()).sum(dim=1)


@chaff(
    "kl", "this is the divergence the other way round, from the prior to the posterior: the order of the two matters"
)
def reverse(mu, logvar):
    return 0.5 * ((mu**2 + 1) / logvar.exp() - 1 + logvar).sum(dim=1)


@chaff("kl", "the sign of logvar is turned around where it stands alone: a wide and a narrow posterior are confused")
def sign_of_the_log_term(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - 1 + logvar).sum(dim=1)


@chaff("kl", "the sign of logvar is turned around everywhere: a wide and a narrow posterior are confused")
def logvar_negated(mu, logvar):
    return 0.5 * terms(mu, -logvar).sum(dim=1)


@chaff("kl", "a constant is missing: the divergence of the prior from itself must be zero")
def no_constant(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - logvar).sum(dim=1)


@chaff("kl", "the constant counts once per sample; each latent dimension brings its own")
def constant_once(mu, logvar):
    return 0.5 * ((mu**2 + logvar.exp() - logvar).sum(dim=1) - 1)


@chaff("kl", "the log of the variance is left out, so nothing keeps the variance from shrinking to zero")
def log_term_forgotten(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - 1).sum(dim=1)


@chaff("kl", "the variance is left out, so nothing keeps it from growing without bound")
def variance_forgotten(mu, logvar):
    return 0.5 * (mu**2 - 1 - logvar).sum(dim=1)


@chaff("kl", "the factor in front reaches only the first term: look at the parentheses")
def half_of_the_mean_only(mu, logvar):
    return (0.5 * mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)


@chaff("kl", "this is measured in bits: the assignment asks for nats")
def in_bits(mu, logvar):
    return 0.5 * terms(mu, logvar).sum(dim=1) / math.log(2)


@chaff("kl", "logvar is clamped: the closed form needs no clamp, and large or tiny variances come out wrong")
def logvar_clamped(mu, logvar):
    return 0.5 * terms(mu, logvar.clamp(-2, 2)).sum(dim=1)


@chaff("kl", "the values are right but cut from the graph: the encoder would not feel this loss")
def detached(mu, logvar):
    return 0.5 * terms(mu, logvar).sum(dim=1).detach()


@chaff("kl", "logvar is changed in place: whoever uses it next gets another number")
def in_place_exp(mu, logvar):
    kept = logvar.clone()
    return 0.5 * (mu**2 + logvar.exp_() - 1 - kept).sum(dim=1)


@chaff(
    "kl", "a draw from the posterior stands in for the integral: right on average, but noisy, and a closed form exists"
)
def monte_carlo(mu, logvar):
    q = Normal(mu, (0.5 * logvar).exp())
    z = q.rsample()
    return (q.log_prob(z) - Normal(0, 1).log_prob(z)).sum(dim=1)


# -- kl: right --------------------------------------------------------------------------------------------


@wheat("kl", "minus one half of the other sign")
def minus_half(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=1)


@wheat("kl", "torch.distributions, elementwise")
def distributions(mu, logvar):
    return kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu))).sum(-1)


@wheat("kl", "torch.distributions, one multivariate normal per row")
def multivariate_normal(mu, logvar):
    prior = MultivariateNormal(torch.zeros_like(mu), torch.eye(mu.shape[1], dtype=mu.dtype).expand(len(mu), -1, -1))
    return kl_divergence(MultivariateNormal(mu, scale_tril=torch.diag_embed((0.5 * logvar).exp())), prior)


@wheat("kl", "torch.distributions, independent dimensions")
def independent(mu, logvar):
    q = Independent(Normal(mu, logvar.exp().sqrt()), 1)
    return kl_divergence(q, Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1))


@wheat("kl", "row by row, entry by entry")
def loops(mu, logvar):
    def row(m, lv):
        return sum(0.5 * (m[i] ** 2 + lv[i].exp() - 1 - lv[i]) for i in range(len(m)))

    return torch.stack([row(m, lv) for m, lv in zip(mu, logvar)])


@wheat("kl", "term by term")
def separate_sums(mu, logvar):
    return 0.5 * (mu.norm(dim=-1) ** 2 + logvar.exp().sum(-1) - logvar.sum(-1) - mu.shape[-1])


@wheat("kl", "by way of the standard deviation")
def through_std(mu, logvar):
    std = torch.exp(logvar / 2)
    return (0.5 * (mu * mu + std * std) - 0.5 - std.log()).sum(dim=-1)


@wheat("kl", "float64 inside, the input's dtype outside")
def float64_inside(mu, logvar):
    m, lv = mu.double(), logvar.double()
    return (0.5 * (m.square() + lv.expm1() - lv).sum(dim=1)).to(mu.dtype)


@wheat("kl", "einsum and flatten")
def einsum(mu, logvar):
    return 0.5 * (torch.einsum("bd,bd->b", mu, mu) + (logvar.expm1() - logvar).flatten(1).sum(1))
