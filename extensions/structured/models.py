"""The VAE of sequences of productions, and the classifier that says what type and part a sequence looks like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extensions.structured import grammar
from extensions.structured.data import PARTS, TYPES
from HW3.vae import ConvVAE

_GROUPS = 8  # of GroupNorm; BatchNorm would take its statistics from one process's share of a batch


class ExpressionVAE(nn.Module):
    """q(z | x) = N(mu, diag(exp(logvar))) and a decoder for sequences x (B, 72) of `productions` productions.

    Convolutions along the sequence, and a linear layer that sees all of it. The decoder gives a logit per production
    and place, for a softmax over productions, as one of them is right in each place.
    """

    def __init__(self, productions: int = grammar.SIZE, latent_dim: int = 200, width: int = 64) -> None:
        super().__init__()
        self.productions, self.latent_dim = productions, latent_dim
        self.config = {"productions": productions, "latent_dim": latent_dim, "width": width}  # plain: it rebuilds this
        half = grammar.LENGTH // 2
        self.encoder = nn.Sequential(
            nn.Conv1d(productions, width, 3, padding=1),  # (B, W, 72)
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            nn.Conv1d(width, 2 * width, 4, stride=2, padding=1),  # (B, 2W, 36)
            nn.GroupNorm(_GROUPS, 2 * width),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.to_mu = nn.Linear(2 * width * half, latent_dim)
        self.to_logvar = nn.Linear(2 * width * half, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 2 * width * half),
            nn.Unflatten(1, (2 * width, half)),
            nn.GroupNorm(_GROUPS, 2 * width),
            nn.SiLU(),
            nn.ConvTranspose1d(2 * width, width, 4, stride=2, padding=1),  # (B, W, 72)
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            nn.Conv1d(width, productions, 3, padding=1),  # (B, G, 72)
        )

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """A draw of z, (B, D), by the function of the assignment."""
        return ConvVAE.reparameterize(self, mu, logvar)  # type: ignore[arg-type]  # which needs nothing of a ConvVAE

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sequences (B, 72) long -> mu and logvar, (B, D) each."""
        h = self.encoder(F.one_hot(x, self.productions).to(self.to_mu.weight.dtype).transpose(1, 2))
        return self.to_mu(h), self.to_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, D) -> logits (B, G, 72)."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences -> (logits (B, G, 72), mu (B, D), logvar (B, D))."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def choose(logits: Tensor, *, has_grammar: bool = True) -> Tensor:
    """The sequences that logits (B, G, 72) describe, (B, 72) long: from the left, the likeliest legal production.

    Legal is a production of the nonterminal on top of the stack, unless what it leaves to derive needs more places than
    there are: so every sequence is a derivation that ends. Where the productions are not ours (has_grammar False) the
    likeliest of all is taken.
    """
    if not has_grammar:
        return logits.argmax(dim=1)
    rules = _Rules(logits.device)
    by_place = logits.permute(2, 0, 1).contiguous()  # (72, B, G)
    rows, places = torch.arange(len(logits), device=logits.device), len(by_place)
    stack = torch.full((len(logits), places + 3), rules.end, device=logits.device)  # entry 0 stays: the stack is empty
    stack[:, 1] = rules.start
    top = torch.ones_like(rows)  # (B,) where the top of each stack is
    needed = torch.full_like(rows, int(rules.shortest[rules.start]))  # (B,) places that the stack takes at least
    chosen = []
    for i, scores in enumerate(by_place):
        symbol = stack[rows, top]  # (B,)
        after = needed[:, None] - rules.shortest[symbol][:, None] + rules.adds  # (B, G)
        legal = (rules.left == symbol[:, None]) & (after <= places - i - 1)
        pick = scores.masked_fill(~legal, -torch.inf).argmax(dim=1)
        needed = after[rows, pick]
        top = top - (symbol != rules.end).long()
        for symbols in rules.pushed:  # each (G,), the rightmost nonterminal first
            pushed = symbols[pick]
            top = top + (pushed != rules.end).long()
            stack[rows, top] = torch.where(pushed != rules.end, pushed, stack[rows, top])
        chosen.append(pick)
    return torch.stack(chosen, dim=1)


class _Rules:
    """The grammar as tables. Symbols are indices of NONTERMINALS; `end` is what lies below all of them."""

    def __init__(self, device: torch.device) -> None:
        names = grammar.NONTERMINALS
        self.start, self.end = names.index("S"), len(names)
        inside = [[names.index(symbol) for symbol in right if symbol in names] for _, right in grammar.PRODUCTIONS]
        left = [names.index(left) if left in names else self.end for left, _ in grammar.PRODUCTIONS]
        least = [1] * len(names)  # productions until only text is left: S -> T -> x takes two
        for _ in names:
            for symbol in range(len(names)):
                least[symbol] = min(1 + sum(least[s] for s in found) for found, of in zip(inside, left) if of == symbol)
        shortest = [*least, 0]
        pushed = [[*([self.end] * (2 - len(found))), *reversed(found)] for found in inside]
        self.left = torch.tensor(left, device=device)  # (G,)
        self.shortest = torch.tensor(shortest, device=device)  # (4,)
        self.adds = torch.tensor([sum(shortest[s] for s in found) for found in inside], device=device)  # (G,)
        self.pushed = torch.tensor(pushed, device=device).T  # (2, G)


class Classifier(nn.Module):
    """Type and part of sequences (B, 72): logits (B, 8) and (B, 20). It knows nothing of the VAE or of a condition."""

    def __init__(self, productions: int = grammar.SIZE, width: int = 64) -> None:
        super().__init__()
        self.productions = productions
        self.body = nn.Sequential(
            nn.Conv1d(productions, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(width, 2 * width, 4, stride=2, padding=1),  # (B, 2W, 36)
            nn.GroupNorm(_GROUPS, 2 * width),
            nn.SiLU(),
            nn.Conv1d(2 * width, 2 * width, 4, stride=2, padding=1),  # (B, 2W, 18)
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(2 * width * (grammar.LENGTH // 4), 2 * width),
            nn.SiLU(),
        )
        self.to_type = nn.Linear(2 * width, len(TYPES))
        self.to_part = nn.Linear(2 * width, len(PARTS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sequences -> (logits of the type (B, 8), logits of the part (B, 20))."""
        h = self.body(F.one_hot(x, self.productions).to(self.to_type.weight.dtype).transpose(1, 2))
        return self.to_type(h), self.to_part(h)
