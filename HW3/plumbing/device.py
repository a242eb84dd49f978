"""Where a run computes: the device, its precision, and on a CPU with how many threads."""

from __future__ import annotations

import os
import time

import psutil
import torch

from HW3.plumbing.errors import UsageError

# Models that gain from bf16 where the hardware has it, as measured in bench/README.md.
BF16_GAINS = {
    "cpu": {"vae", "diffusion", "latent_diffusion", "tiny_sd"},  # not clip, whose layers are too narrow
    "cuda": {"vae", "diffusion", "clip"},  # the latent MLPs are too small to fill a GPU
}

# A second thread brings a latent MLP a fifth at most, for twice the CPU time, and beside another process it costs more.
ONE_THREAD = {"latent_diffusion", "tiny_sd"}


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises UsageError for a device that is not there."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in has if has[kind])
    if not has[name]:
        raise UsageError(f"--device {name}: this machine, or this build of torch, has none; --device cpu works")
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def computes_in_bf16(precision: str, kind: str, device: torch.device) -> bool:
    """What `--precision` means for a model. `auto` is a fixed rule, so that a run can be repeated."""
    gains = kind in BF16_GAINS.get(device.type, ()) and has_native_bf16(device)
    return precision == "bf16" or (precision == "auto" and gains)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bf16 (where it is emulated it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        get = getattr(torch.cpu, "get_capabilities", None)  # an older torch cannot tell, and gets float32
        capabilities: dict[str, bool] = {} if get is None else get()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


class Threads:
    """Leaves cores to whoever else uses them: threads that wait for a busy core cost far more than they bring.

    OpenMP splits work evenly and its idle threads spin, so one thread on a shared core holds up all of them
    (bench/README.md has numbers). OMP_NUM_THREADS decides where it is set.
    """

    def __init__(self, kind: str, device: torch.device) -> None:
        # Where a container or a batch system gives only some of the cores, others' work says nothing about these.
        has_all = not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == psutil.cpu_count()
        self.is_fixed = device.type != "cpu" or "OMP_NUM_THREADS" in os.environ or not has_all
        self.most = 1 if kind in ONE_THREAD else torch.get_num_threads()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(self.most)
        if not self.is_fixed:
            self._mark()
            time.sleep(0.2 if self.most > 1 else 0)
            self.adapt()

    def adapt(self) -> None:
        """Look at what others used of the machine since the last look, and leave that to them."""
        if self.is_fixed:
            return
        others = self._used_by_others()
        torch.set_num_threads(max(1, min(self.most, round((psutil.cpu_count() or 1) - others))))
        self._mark()

    def _mark(self) -> None:
        psutil.cpu_percent()  # counts from its last call
        self._wall, self._own = time.monotonic(), time.process_time()

    def _used_by_others(self) -> float:
        """In cores."""
        own = (time.process_time() - self._own) / max(1e-6, time.monotonic() - self._wall)
        return max(0.0, psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1) - own)
