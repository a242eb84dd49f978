"""Several processes as one run: `torchrun --nproc-per-node N train_x.py ...`.

Every process trains on an equal share of each batch and draws its noise from a generator of its own; DDP averages their
gradients, so the loss stays the mean over the batch.
"""

from __future__ import annotations

import atexit
import gc
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from HW3.plumbing.errors import UsageError


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
        """Meet the other processes. Raises UsageError if the batch does not divide among them."""
        if self.size == 1:
            return
        if batch_size % self.size:
            raise UsageError(f"--batch-size {batch_size} does not divide evenly among {self.size} processes")
        if dist.is_initialized():  # by an earlier run of these processes
            return
        # The group ends its threads when nothing refers to it any more. That must be before the interpreter closes: a
        # thread that meets it then aborts the process ("terminate called without an active exception"). What DDP
        # imports keeps the group as a default argument, for ever, unless it is imported before there is a group.
        from torch.distributed.nn import functional  # noqa: F401

        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(gc.collect)  # DDP, which refers to the group, refers to itself as well

    def leave(self) -> None:
        """Part from the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch that divides evenly: (B, ...) -> (B / size, ...)."""
        return batch.chunk(self.size)[self.rank]

    def sum(self, x: Tensor) -> Tensor:
        """The sum of x over all processes."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag), device=device)))

    def wait(self, device: torch.device) -> None:
        """Until all processes are here: what one of them wrote before, all can read afterwards."""
        self.sum(torch.zeros((), device=device))

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, (B / size, ...) -> (B, ...). Gradients flow back to every process."""
        return rows if self.size == 1 else _Gather.apply(rows, self.rank, self.size)


class _Gather(torch.autograd.Function):
    """All-gather with gradients. (torch.distributed.nn has one that is deprecated in favour of a private one.)"""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.size = rank, size
        parts = [torch.empty_like(rows) for _ in range(size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(ctx.size)[ctx.rank], None, None
