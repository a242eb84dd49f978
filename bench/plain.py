"""The plain pipeline that the benchmarks compare with: what a course would ship.

torchvision's data set, decoded and resized image by image in a `DataLoader` with two workers; fp32;
`torch.optim.Adam`; and sampler steps written as the papers print them, with every coefficient gathered and
every root taken anew. The networks and the loss of each model are those of HW3, so only the pipeline differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import datasets, transforms

WORKERS = 2


def mnist_batches(data_dir: Path, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless shuffled batches of MNIST at 32 x 32: images (B, 1, 32, 32) in [0, 1] and labels (B,)."""
    resize = transforms.Compose([transforms.Resize(32), transforms.ToTensor()])
    dataset = datasets.MNIST(str(data_dir), train=True, transform=resize)
    # One very long epoch: the workers start once, which is in favour of this pipeline.
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**9)
    return iter(DataLoader(dataset, batch_size, sampler=sampler, num_workers=WORKERS))


class PlainDiffusion:
    """DDPM with the linear schedule, and its two samplers, for states (B, ...) of any rank."""

    def __init__(self, timesteps: int = 1000, device: torch.device | str = "cpu") -> None:
        self.timesteps = timesteps
        self.betas = torch.linspace(1e-4, 0.02, timesteps, device=device)
        self.alphas = 1 - self.betas
        self.alpha_bars = torch.cumprod(self.alphas, dim=0)

    def loss(self, model: Callable[..., Tensor], x0: Tensor, *cond: Tensor) -> Tensor:
        """Mean squared error of the predicted noise at random times."""
        t = torch.randint(0, self.timesteps, (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        alpha_bar = _column(self.alpha_bars[t], x0)
        x_t = torch.sqrt(alpha_bar) * x0 + torch.sqrt(1 - alpha_bar) * noise
        return F.mse_loss(model(x_t, t, *cond), noise)

    def ddim_step(self, x: Tensor, t: Tensor, t_prev: Tensor, eps: Tensor, eta: float, noisy: bool = True) -> Tensor:
        """Song et al. 2021 eq. 12, for any eta. noisy: False leaves the noise term out."""
        alpha_bar = _column(self.alpha_bars[t], x)
        alpha_bar_prev = self.alpha_bars[t_prev.clamp(min=0)]
        alpha_bar_prev = _column(torch.where(t_prev >= 0, alpha_bar_prev, torch.ones_like(alpha_bar_prev)), x)
        x0 = (x - torch.sqrt(1 - alpha_bar) * eps) / torch.sqrt(alpha_bar)
        sigma = eta * torch.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) * torch.sqrt(1 - alpha_bar / alpha_bar_prev)
        direction = torch.sqrt(1 - alpha_bar_prev - sigma**2) * eps
        x_prev = torch.sqrt(alpha_bar_prev) * x0 + direction
        return x_prev + sigma * torch.randn_like(x) if noisy else x_prev

    def ddpm_step(self, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Ho et al. 2020 algorithm 2, with the posterior's variance."""
        beta, alpha, alpha_bar = (_column(table[t], x) for table in (self.betas, self.alphas, self.alpha_bars))
        alpha_bar_prev = self.alpha_bars[(t - 1).clamp(min=0)]
        alpha_bar_prev = _column(torch.where(t > 0, alpha_bar_prev, torch.ones_like(alpha_bar_prev)), x)
        mean = (x - beta / torch.sqrt(1 - alpha_bar) * eps) / torch.sqrt(alpha)
        variance = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
        return mean + torch.sqrt(variance) * torch.randn_like(x)

    @torch.no_grad()
    def sample_ddim(
        self, model: Callable[..., Tensor], x: Tensor, ts: list[int], *cond: Tensor, noisy: bool = True
    ) -> Tensor:
        """Noise x (B, ...) through the descending timesteps `ts`, with eta = 0."""
        for i, i_prev in zip(ts, [*ts[1:], -1], strict=True):
            t = torch.full((len(x),), i, device=x.device, dtype=torch.long)
            t_prev = torch.full((len(x),), i_prev, device=x.device, dtype=torch.long)
            x = self.ddim_step(x, t, t_prev, model(x, t, *cond), 0.0, noisy)
        return x

    @torch.no_grad()
    def sample_ddpm(self, model: Callable[..., Tensor], x: Tensor, ts: list[int]) -> Tensor:
        """Noise x (B, ...) through the descending timesteps `ts`."""
        for i in ts:
            t = torch.full((len(x),), i, device=x.device, dtype=torch.long)
            x = self.ddpm_step(x, t, model(x, t))
        return x


def adam_step(loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """One step of the plain loop; returns the loss, which such loops add up."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def adam(model: nn.Module, lr: float = 2e-4) -> torch.optim.Optimizer:
    """The optimiser with its defaults."""
    return torch.optim.Adam(model.parameters(), lr=lr)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1)."""
    return values.view(-1, *[1] * (like.dim() - 1))
