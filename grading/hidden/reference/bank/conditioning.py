"""The tiny Stable Diffusion: `conditioning` and `guidance`."""

import torch
import torch.nn.functional as F
from torch import nn

from grading.hidden.reference.bank import chaff, wheat

# -- conditioning: wrong ----------------------------------------------------------------------------------


@chaff("conditioning", "the text is never used: the network draws whatever it likes")
def deaf_to_text(self, x, t, cond):
    return self.denoise(x, self.embed_time(t))


@chaff("conditioning", "the time is never used: the network cannot tell how noisy its input is")
def deaf_to_time(self, x, t, cond):
    return self.denoise(x, self.cond_proj(cond))


@chaff("conditioning", "the latent is never used: the network must look at what it denoises")
def deaf_to_latent(self, x, t, cond):
    return self.denoise(torch.zeros_like(x), self.embed_time(t) + self.cond_proj(cond))


@chaff("conditioning", "the input comes back as the prediction: run it through the network")
def returns_latent(self, x, t, cond):
    return x


@chaff("conditioning", "the prediction is zero everywhere: run the latent through the network")
def returns_zeros(self, x, t, cond):
    return torch.zeros_like(x)


@chaff(
    "conditioning",
    "every row hears the average of the batch's texts: rows of a batch have nothing to do with each other",
)
def mean_text_of_the_batch(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond.mean(dim=0, keepdim=True)))


@chaff("conditioning", "every row hears the first row's text: each has its own")
def text_of_the_first_row(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond[:1]))


@chaff("conditioning", "every row gets the first row's time: t is mixed within a batch")
def time_of_the_first_row(self, x, t, cond):
    return self.denoise(x, self.embed_time(t[:1].expand(len(t))) + self.cond_proj(cond))


@chaff("conditioning", "the texts are standardised over the batch, so a row's result depends on its neighbours")
def batch_norm_of_text(self, x, t, cond):
    text = (cond - cond.mean(dim=0)) / (cond.std(dim=0) + 1e-5)
    return self.denoise(x, self.embed_time(t) + self.cond_proj(text))


@chaff("conditioning", "a softmax over the wrong dimension mixes the rows of the batch")
def softmax_over_the_batch(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond).softmax(dim=0))


@chaff("conditioning", "the texts of the batch are shuffled: row i of the text belongs to row i of the latent")
def rolled_text(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond.roll(1, dims=0)))


@chaff("conditioning", "the text is detached: no gradient reaches it")
def text_detached(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond.detach()))


@chaff("conditioning", "the text's projection is detached: it stays random for ever")
def projection_detached(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond).detach())


@chaff("conditioning", "the forward pass runs without gradients, so nothing can learn")
def under_no_grad(self, x, t, cond):
    with torch.no_grad():
        return self.denoise(x, self.embed_time(t) + self.cond_proj(cond))


@chaff("conditioning", "the text is reduced to its signs: a step function has no slope, and most of the text is lost")
def sign_of_text(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond.sign()))


@chaff("conditioning", "only a part of the text embedding is used")
def first_entry_of_text(self, x, t, cond):
    text = F.pad(cond[:, :1], (0, cond.shape[1] - 1))
    return self.denoise(x, self.embed_time(t) + self.cond_proj(text))


@chaff(
    "conditioning", "a layer made inside forward has new random weights at every call, and the optimizer never sees it"
)
def fresh_layer_every_call(self, x, t, cond):
    project = nn.Linear(cond.shape[1], self.stem.out_features, dtype=x.dtype)
    return self.denoise(x, self.embed_time(t) + project(cond))


@chaff(
    "conditioning",
    "the text is dropped at random inside the network: hiding it is the training loop's business, not forward's",
)
def drops_text_at_random(self, x, t, cond):
    keep = torch.rand(len(cond), 1) > 0.5
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond * keep))


@chaff("conditioning", "something in forward stays random in eval mode: the same input must give the same output")
def noisy_in_eval_mode(self, x, t, cond):
    emb = self.embed_time(t) + self.cond_proj(cond)
    return self.denoise(x, emb * (torch.rand_like(emb) > 0.2))


@chaff("conditioning", "the result is a hidden layer's: it must have the latent's shape")
def returns_hidden(self, x, t, cond):
    return self.stem(x) + self.embed_time(t) + self.cond_proj(cond)


@chaff("conditioning", "latent and text changed places")
def latent_and_text_swapped(self, x, t, cond):
    return self.denoise(cond, self.embed_time(t) + self.cond_proj(x))


@chaff(
    "conditioning",
    "the raw text embedding is added to the time embedding: their sizes differ, so it needs its projection",
)
def text_not_projected(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + cond)


@chaff("conditioning", "concatenating the embeddings makes a vector that the blocks do not accept")
def concatenated_embeddings(self, x, t, cond):
    return self.denoise(x, torch.cat([self.embed_time(t), self.cond_proj(cond)], dim=1))


@chaff("conditioning", "the embeddings are stacked along the batch: look at the dimension that joins them")
def concatenated_along_the_batch(self, x, t, cond):
    return self.denoise(torch.cat([x, x]), torch.cat([self.embed_time(t), self.cond_proj(cond)]))


@chaff("conditioning", "the time embedding is added twice and the text not at all")
def time_twice(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.embed_time(t))


@chaff("conditioning", "the result has lost the input's dtype")
def casts_to_float32(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + self.cond_proj(cond)).float()


@chaff("conditioning", "the latent is changed in place: the caller still needs it")
def latent_in_place(self, x, t, cond):
    return self.denoise(x.mul_(0.5), self.embed_time(t) + self.cond_proj(cond))


# -- conditioning: right ----------------------------------------------------------------------------------


@wheat("conditioning", "the sum, with torch.add and keywords")
def torch_add(self, x, t, cond):
    return self.denoise(x=x, emb=torch.add(self.cond_proj(cond), self.embed_time(t)))


@wheat("conditioning", "the text scales the time embedding")
def scales_time(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) * (1 + self.cond_proj(cond)))


@wheat("conditioning", "the time embedding scales and shifts the text, as in FiLM")
def film(self, x, t, cond):
    time, text = self.embed_time(t), self.cond_proj(cond)
    return self.denoise(x, time + text + time * text)


@wheat("conditioning", "a nonlinearity on the sum")
def silu_of_the_sum(self, x, t, cond):
    return self.denoise(x, F.silu(self.embed_time(t) + self.cond_proj(cond)))


@wheat("conditioning", "a nonlinearity on the text alone, which then is scaled")
def silu_of_text(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + 2 * F.silu(self.cond_proj(cond)))


@wheat("conditioning", "the blocks by hand, the text also added to the stem")
def text_in_the_stem(self, x, t, cond):
    text = self.cond_proj(cond)
    emb = self.embed_time(t) + text
    h = self.stem(x) + text
    for block in self.blocks:
        h = h + block(h, emb)
    return self.head(h)


@wheat("conditioning", "the blocks by hand, time in the even ones and text in the odd ones")
def alternating_blocks(self, x, t, cond):
    embeddings = self.embed_time(t), self.cond_proj(cond)
    h = self.stem(x)
    for i, block in enumerate(self.blocks):
        h = h + block(h, embeddings[i % 2])
    return self.head(h)


@wheat("conditioning", "inputs cast to the dtype of the parameters, the output back to that of x")
def casts_inputs(self, x, t, cond):
    dtype = self.head.weight.dtype
    emb = self.embed_time(t.long()) + self.cond_proj(cond.to(dtype))
    return self.denoise(x.to(dtype), emb).to(x.dtype)


@wheat("conditioning", "the projection as a matrix product, no text meaning no contribution")
def without_bias(self, x, t, cond):
    return self.denoise(x, self.embed_time(t) + cond @ self.cond_proj.weight.T)


@wheat("conditioning", "the mean of the two embeddings, stacked")
def mean_of_stacked(self, x, t, cond):
    return self.denoise(x, torch.stack([self.embed_time(t), self.cond_proj(cond)]).mean(dim=0))


@wheat("conditioning", "at most fifty rows at a time")
def in_chunks(self, x, t, cond):
    chunks = zip(x.split(50), t.split(50), cond.split(50))
    return torch.cat([self.denoise(a, self.embed_time(b) + self.cond_proj(c)) for a, b, c in chunks])


# -- guidance: wrong --------------------------------------------------------------------------------------


@chaff("guidance", "the two predictions changed places: guidance moves towards the text, not away from it")
def halves_swapped(eps_cond, eps_uncond, scale):
    return eps_cond + scale * (eps_uncond - eps_cond)


@chaff("guidance", "the scale reaches one of the two predictions only: look at the parentheses")
def lost_parenthesis(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * eps_cond - eps_uncond


@chaff(
    "guidance",
    "the scale is counted from the conditional prediction: a scale of one should be the plain conditional model",
)
def counted_from_conditional(eps_cond, eps_uncond, scale):
    return eps_cond + scale * (eps_cond - eps_uncond)


@chaff(
    "guidance", "the difference is taken from the conditional side with its sign kept: the text is counted too often"
)
def starts_from_minus(eps_cond, eps_uncond, scale):
    return scale * (eps_cond - eps_uncond) - eps_uncond


@chaff("guidance", "only the difference comes back: it is a direction, and needs a point to start from")
def difference_only(eps_cond, eps_uncond, scale):
    return scale * (eps_cond - eps_uncond)


@chaff(
    "guidance",
    "the scaled conditional prediction is added to the whole unconditional one: the weights should add up to one",
)
def weights_above_one(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * eps_cond


@chaff("guidance", "only the second prediction is reduced: the weights of the two should add up to one")
def unscaled_subtraction(eps_cond, eps_uncond, scale):
    return scale * eps_cond - eps_uncond


@chaff(
    "guidance",
    "this is the plain conditional prediction: the scale is ignored or capped, where guidance should go beyond",
)
def scale_ignored(eps_cond, eps_uncond, scale):
    return eps_cond.clone()


@chaff("guidance", "the text is ignored: this is the unconditional prediction")
def text_ignored(eps_cond, eps_uncond, scale):
    return eps_uncond.clone()


@chaff(
    "guidance", "the two predictions are averaged: guidance goes further than the conditional one, not half-way to it"
)
def averaged(eps_cond, eps_uncond, scale):
    return (eps_cond + eps_uncond) / 2


@chaff("guidance", "the result is divided by the sum of the weights: that pulls it between the two instead of beyond")
def normalised_weights(eps_cond, eps_uncond, scale):
    return (eps_uncond + scale * eps_cond) / (1 + scale)


@chaff(
    "guidance", "the step away from the unconditional prediction goes backwards: look at the order of the difference"
)
def backwards(eps_cond, eps_uncond, scale):
    return eps_uncond - scale * (eps_cond - eps_uncond)


@chaff("guidance", "the unconditional prediction carries a weight of the wrong sign")
def sign_of_unconditional(eps_cond, eps_uncond, scale):
    return scale * eps_cond + (scale - 1) * eps_uncond


@chaff(
    "guidance",
    "the guidance is one too weak: a scale of one should be the plain conditional model, not the unconditional",
)
def scale_minus_one(eps_cond, eps_uncond, scale):
    return eps_uncond + (scale - 1) * (eps_cond - eps_uncond)


@chaff("guidance", "the result is clamped: a noise prediction may be larger than one")
def clamped(eps_cond, eps_uncond, scale):
    return (eps_uncond + scale * (eps_cond - eps_uncond)).clamp(-1, 1)


@chaff("guidance", "the result is rescaled to the size of the conditional prediction: that is another method")
def rescaled(eps_cond, eps_uncond, scale):
    guided = eps_uncond + scale * (eps_cond - eps_uncond)
    return guided * eps_cond.std() / guided.std()


@chaff("guidance", "the scale is rounded down: it need not be a whole number")
def whole_scale(eps_cond, eps_uncond, scale):
    return eps_uncond + int(scale) * (eps_cond - eps_uncond)


@chaff(
    "guidance",
    "this is the plain conditional prediction: the scale is ignored or capped, where guidance should go beyond",
)
def scale_capped(eps_cond, eps_uncond, scale):
    return eps_uncond + min(scale, 1.0) * (eps_cond - eps_uncond)


@chaff("guidance", "a scale of zero is read as guidance switched off: it should give the prediction without the text")
def zero_switches_off(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * (eps_cond - eps_uncond) if scale else eps_cond.clone()


@chaff("guidance", "a scale of one is read as no text at all: it should be the plain conditional model")
def one_switches_off(eps_cond, eps_uncond, scale):
    return eps_uncond.clone() if scale == 1 else eps_uncond + scale * (eps_cond - eps_uncond)


@chaff("guidance", "a negative scale is cut off at zero: it should move away from the text")
def scale_not_negative(eps_cond, eps_uncond, scale):
    return eps_uncond + max(scale, 0.0) * (eps_cond - eps_uncond)


@chaff("guidance", "the sign of the scale is lost: a negative one should move away from the text")
def scale_without_sign(eps_cond, eps_uncond, scale):
    return eps_uncond + abs(scale) * (eps_cond - eps_uncond)


@chaff("guidance", "the difference is averaged over the batch: every row moves along its own")
def mean_difference(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * (eps_cond - eps_uncond).mean(dim=0, keepdim=True)


@chaff("guidance", "only the sign of the difference is used: how much the text changes matters too")
def sign_of_difference(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * (eps_cond - eps_uncond).sign()


@chaff("guidance", "the two predictions are joined into one longer batch, not combined")
def joined(eps_cond, eps_uncond, scale):
    return torch.cat([eps_uncond, scale * (eps_cond - eps_uncond)])


@chaff("guidance", "an argument is changed in place: the caller still needs it")
def in_place(eps_cond, eps_uncond, scale):
    return eps_uncond + eps_cond.sub_(eps_uncond).mul_(scale)


# -- guidance: right --------------------------------------------------------------------------------------


@wheat("guidance", "weights that add up to one")
def weighted(eps_cond, eps_uncond, scale):
    return (1 - scale) * eps_uncond + scale * eps_cond


@wheat("guidance", "torch.lerp")
def lerp(eps_cond, eps_uncond, scale):
    return torch.lerp(eps_uncond, eps_cond, scale)


@wheat("guidance", "from the conditional prediction on, as in the paper")
def from_conditional(eps_cond, eps_uncond, scale):
    w = scale - 1
    return (1 + w) * eps_cond - w * eps_uncond


@wheat("guidance", "torch.add with alpha")
def add_alpha(eps_cond, eps_uncond, scale):
    return torch.add(eps_uncond, eps_cond - eps_uncond, alpha=scale)


@wheat("guidance", "in-place operations on a clone")
def in_place_on_clone(eps_cond, eps_uncond, scale):
    return eps_cond.clone().sub_(eps_uncond).mul_(scale).add_(eps_uncond)


@wheat("guidance", "a stack and two weights")
def stacked(eps_cond, eps_uncond, scale):
    weights = torch.tensor([scale, 1 - scale], dtype=eps_cond.dtype)
    return torch.einsum("k,k...->...", weights, torch.stack([eps_cond, eps_uncond]))


@wheat("guidance", "row by row, in float64")
def row_by_row_in_float64(eps_cond, eps_uncond, scale):
    rows = [u.double() + scale * (c.double() - u.double()) for c, u in zip(eps_cond, eps_uncond)]
    return torch.stack(rows).to(eps_cond.dtype)


@wheat("guidance", "the difference scaled in place, in a tensor of its own")
def difference_in_place(eps_cond, eps_uncond, scale):
    return torch.sub(eps_cond, eps_uncond).mul_(scale).add_(eps_uncond)


@wheat("guidance", "the scale as a tensor, shortcuts at 0 and 1")
def with_shortcuts(eps_cond, eps_uncond, scale):
    if scale == 1:
        return eps_cond.clone()
    return eps_uncond + torch.as_tensor(scale, dtype=eps_cond.dtype) * eps_cond.sub(eps_uncond)
