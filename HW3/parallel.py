"""Several processes as one: `torchrun --nproc-per-node N train_x.py ...` gives the run of one process.

Every process holds the same random generators and draws for the whole batch, then keeps its own rows.
Losses are means over those rows, weighted so that the averaged gradient is that of the whole batch.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from HW3.errors import UsageError


class World:
    """The processes of this run: `size` of them, this one being `rank`. One process needs no torchrun."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))

    @property
    def is_main(self) -> bool:
        """The one process that prints and writes."""
        return self.rank == 0

    def join(self, device: torch.device, batch_size: int) -> None:
        """Meet the other processes. Raises UsageError if the batch has fewer rows than there are processes."""
        if self.size == 1:
            return
        if batch_size < self.size:
            raise UsageError(f"--batch-size {batch_size} leaves some of the {self.size} processes without an image")
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def leave(self) -> None:
        """Part from the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def share(self, n: int) -> int:
        """How many rows of a batch of n count as this process's; 0 is possible in a small last batch."""
        return (self.rank + 1) * n // self.size - self.rank * n // self.size

    def rows(self, n: int) -> slice:
        """This process's rows of a batch of n. Without a share it gets a row that does not count, because an
        empty batch breaks some layers.
        """
        start = self.rank * n // self.size
        return slice(start, start + max(1, self.share(n)))

    def sum(self, x: Tensor) -> Tensor:
        """The sum of x over all processes."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag), device=device)))

    def gather(self, x: Tensor, n: int) -> Tensor:
        """The whole batch of n rows, given this process's rows of it. Gradients flow back to every process."""
        return x if self.size == 1 else _Gather.apply(x[: self.share(n)], self.rows(n).start, n)


class _Gather(torch.autograd.Function):
    """All-gather of unequal parts: each process adds its rows to zeros, which is exact."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, n: int) -> Tensor:
        ctx.rows = slice(start, start + len(x))
        whole = x.new_zeros(n, *x.shape[1:])
        whole[ctx.rows] = x
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[ctx.rows], None, None
