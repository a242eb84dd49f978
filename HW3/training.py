"""What surrounds every training loop: set-up, random draws, EMA, progress, log, checkpoints, Ctrl-C.

run = Run("vae", "convae", args)
model = run.prepare(ConvVAE(**config), config)   # device, optimiser, EMA, DDP under torchrun, --resume
for epoch in run.epochs():
    for idx in run.batches(len(train)):          # indices: this process's rows of each batch
        loss = ...                               # a mean over these rows
        run.step(loss)                           # backward, optimiser, EMA
    run.end_epoch()                              # log, loss.png, checkpoint
"""

from __future__ import annotations

import json
import math
import shlex
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from HW3.checkpoints import load_checkpoint, restore, save_checkpoint, weights
from HW3.errors import UsageError, UserError
from HW3.files import write_atomically
from HW3.parallel import World
from HW3.viz import save_curves

# Models that should gain from bf16 where the hardware has it; bench/README.md says why, and how to check it.
BF16_GAINS = {
    "cpu": {"vae", "diffusion", "latent_diffusion", "clip", "tiny_sd"},  # matrix products fill a step of each
    "cuda": {"vae", "diffusion", "clip"},  # the latent MLPs are too small to fill a GPU
}

SECONDS_BETWEEN_SAVES = 10.0  # what a power cut may cost; Ctrl-C costs nothing

# Flags that a continued run may change: they decide where and how long, not what is learnt.
_FREE_FLAGS = {
    *("resume", "quick", "epochs", "out_dir", "data_dir", "device", "no_cuda", "num_workers"),
    *("sample_every", "save_recon", "ddim_steps", "ddim_eta", "guidance_scale"),
}


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises UsageError for a device that is not there."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in has if has[kind])
    if not has[name]:
        raise UsageError(f"--device {name}: this machine, or this build of torch, has none; --device cpu works")
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bf16 (where it is emulated it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch cannot tell, and gets float32
        return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def _equal(a: Any, b: Any) -> bool:
    """Whether two nested dicts of tensors and plain values hold the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a.cpu(), b.cpu())
    return bool(a == b)


def learning_rate(peak: float, step: int, total: int) -> float:
    """Linear warm-up over the first twentieth of the run, at most 200 steps; then a cosine down to 0."""
    warmup = min(200, total // 20)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class Run:
    """One training run.

    kind: what its checkpoints hold.  name: what their files are called.  args: the flags of `training_parser`.
    """

    def __init__(self, kind: str, name: str, args: Namespace) -> None:
        self.kind, self.name, self.args = kind, name, args
        self.world = World()
        self.device = pick_device("cpu" if getattr(args, "no_cuda", False) else args.device, self.world.local_rank)
        self.bf16 = args.precision == "bf16" or (
            args.precision == "auto" and kind in BF16_GAINS.get(self.device.type, ()) and has_native_bf16(self.device)
        )
        self.world.join(self.device, args.batch_size)
        self.out_dir: Path = args.out_dir
        self.latest = self.out_dir / f"{name}_latest.pt"
        self._open_out_dir()

        # Three sources of randomness, none of which moves the others: the global one initialises weights
        # and serves code that takes no generator, this one draws noise, and pictures have their own.
        torch.manual_seed(args.seed)
        self.generator = torch.Generator(self.device).manual_seed(args.seed)

        self.epoch = 0  # epochs completed
        self._steps_done = 0  # in the epoch under way
        self._n_images = 0  # in one epoch
        self._batch_size: int | None = None  # of the whole batch under way
        self._sums: dict[str, Tensor] = {}  # of the losses of the epoch so far, over images
        self._best = math.inf
        self._random_before: dict[str, Any] | None = None  # while pictures are drawn: the state to come back to
        self._started = time.monotonic()
        self._saved = -math.inf  # when `latest` was last written
        self._busy = False  # in the middle of something that Ctrl-C must not cut in two
        self._stop = False  # Ctrl-C came while busy

    # -- set-up --------------------------------------------------------------------------------------

    def prepare(
        self,
        model: nn.Module,
        config: dict[str, Any],
        *,
        extra: dict[str, Any] | None = None,
        clip_norm: float = math.inf,
        weight_decay: float = 0.0,
    ) -> nn.Module:
        """Move the model to the device, make its optimiser and its average, and continue a run if asked to.

        config: plain values that rebuild the model; extra: what else sampling needs; both go into the
        checkpoint.  clip_norm: the largest gradient norm of a step.
        Returns the model to train: itself, or under torchrun its DDP wrapper.
        """
        self.config, self.extra, self.clip_norm = config, extra or {}, clip_norm
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.args.lr,
            weight_decay=weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        decay = self.args.ema
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay > 0 else None
        if self.args.resume:
            self._resume()
        count = sum(parameter.numel() for parameter in self.model.parameters())
        processes = f", {self.world.size} processes" if self.world.size > 1 else ""
        self.say(f"{self.kind}: {count:,} parameters on {self.device}, {'bf16' if self.bf16 else 'fp32'}{processes}")
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)  # what torchrun, and a cluster, send
        return self.model if self.world.size == 1 else DistributedDataParallel(self.model)

    def _open_out_dir(self) -> None:
        """An unwritable folder should fail now, not after the first epoch."""
        if self.world.is_main:
            probe = self.out_dir / ".writable"
            write_atomically(probe, b"")
            probe.unlink()
        if self.latest.exists() and not self.args.resume:
            self.say(f"note: {self.latest} is of an earlier run and will be overwritten; --resume continues it instead")

    def say(self, message: str) -> None:
        """Print a line, once for all processes, without tearing a progress bar."""
        if self.world.is_main:
            tqdm.write(message)
            sys.stdout.flush()  # a pipe or a log file would get it minutes later

    # -- the loop ------------------------------------------------------------------------------------

    def epochs(self) -> Iterator[int]:
        """The epochs still to do, counted from 1. Each must end with `end_epoch`."""
        if self.epoch >= self.args.epochs:
            self.say(f"nothing to do: {self.latest} has done {self.epoch} epochs; a larger --epochs goes on")
        while self.epoch < self.args.epochs:
            yield self.epoch + 1
        self.world.leave()

    def batches(self, n: int) -> Iterator[Tensor]:
        """One pass over n images in random order: the indices of this process's rows of each batch."""
        self._n_images = n
        size, steps = self.args.batch_size, math.ceil(n / self.args.batch_size)
        # The order depends on seed and epoch alone, so that a resumed epoch goes on where it stopped.
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1_000_003 * self.epoch + self.args.seed))
        order = order.to(self.device)
        self._started = time.monotonic()
        self._busy = True
        with self._progress(steps) as bar:
            while self._steps_done < steps:
                batch = order[self._steps_done * size : (self._steps_done + 1) * size]
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(
                        self.args.lr, self.epoch * steps + self._steps_done, self.args.epochs * steps
                    )
                self._batch_size = len(batch)
                yield batch[self.world.rows(len(batch))]
                self._batch_size = None
                self._steps_done += 1
                bar.update()
                at_checkpoint = self._steps_done % 10 == 0  # reading a loss makes a GPU wait, so not every step
                if at_checkpoint:
                    self._check_finite()
                    mean_loss = self._means()["loss"] * self.world.size  # this process's rows stand for all
                    bar.set_postfix_str(f"loss {mean_loss:.4g}", refresh=False)
                if (at_checkpoint or self.world.size == 1) and self.world.any(self._stop, self.device):
                    self._sum_over_processes()
                    self._check_finite()  # what is saved here replaces the last good checkpoint
                    self._save_and_stop()
        self._sum_over_processes()
        self._check_finite()
        stop = self.world.any(self._stop, self.device)
        self._busy = False
        if stop or self._stop:
            self._save_and_stop()

    def step(self, loss: Tensor, **parts: Tensor) -> None:
        """Backward pass, gradient clipping, optimiser step, EMA.

        loss: the mean over this process's rows; so are the parts, which are only logged.
        """
        n_rows = self.world.share(self._batch_size)
        self.optimizer.zero_grad()
        # DDP averages over processes; weighted like this, that is the mean over the whole batch.
        (loss * (n_rows * self.world.size / self._batch_size)).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        for name, value in {"loss": loss, **parts, "grad_norm": norm}.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().float() * n_rows

    def end_epoch(self, *, best: float | None = None, **metrics: float) -> None:
        """Log the epoch and write checkpoints: `best` if `best`, lower is better, is a record, and `latest`.

        Where epochs take less than a second, writing `latest` and the curves would take most of the time: they are
        written after the first and the last epoch, and when the last time is SECONDS_BETWEEN_SAVES ago.
        """
        self._busy = True
        record = {
            "epoch": self.epoch + 1,
            **self._means(),
            **metrics,
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self._started, 2),
        }
        self.epoch, self._steps_done, self._sums = self.epoch + 1, 0, {}
        is_record = best is not None and best < self._best
        self._best = best if is_record else self._best
        if self.world.is_main:
            due = self.epoch == self.args.epochs or time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES
            # `latest` comes last: a run killed before it does these epochs, and all of their files, again.
            self._log(record, curves=due)
            if is_record:
                self.save(self.out_dir / f"{self.name}_best.pt")
            if due:
                self.save(self.latest)
                self._saved = time.monotonic()
        self._busy = False
        if self._stop:
            self._save_and_stop()

    def time_for_pictures(self, epoch: int) -> bool:
        """Whether this process draws pictures at the end of this epoch."""
        every = self.args.sample_every
        return self.world.is_main and (epoch == self.args.epochs or (every > 0 and epoch % every == 0))

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """The model to look at (the averaged one, if there is one), in eval mode and without gradients.

        Random draws inside start from the seed each time and leave those of training alone.
        """
        model = self.model if self.ema is None else self.ema.module
        model.eval()
        self._random_before = self._random_state()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(self.args.seed)
            yield model
        self._random_before = None
        self.model.train()

    def autocast(self) -> AbstractContextManager:
        """bf16 where this run uses it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    # -- draws ---------------------------------------------------------------------------------------

    def randn(self, *shape: int) -> Tensor:
        """Standard normal noise (rows, *shape) for this process's rows of the batch."""
        return self.rows(torch.randn(self._batch_size, *shape, generator=self.generator, device=self.device))

    def randint(self, high: int) -> Tensor:
        """Integers in [0, high), (rows,), for this process's rows of the batch."""
        return self.rows(torch.randint(high, (self._batch_size,), generator=self.generator, device=self.device))

    def rand(self) -> Tensor:
        """Uniform numbers in [0, 1), (rows,), for this process's rows of the batch."""
        return self.rows(torch.rand(self._batch_size, generator=self.generator, device=self.device))

    def rows(self, whole: Tensor) -> Tensor:
        """This process's rows of something that has a row for every image of the batch."""
        return whole[self.world.rows(len(whole))]

    def gather(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`, with gradients. Outside a batch there is nothing to gather."""
        return rows if self._batch_size is None else self.world.gather(rows, self._batch_size)

    def whole_batch(self, draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Let `draw(*rows)`, which takes noise from the global generator, see the rows of all processes.

        Each process then draws the noise of the whole batch and keeps its own rows.
        """

        def draw_for_all(*parts: Tensor) -> Tensor:
            if self._batch_size is None:
                return draw(*parts)
            return self.rows(draw(*(self.gather(part) for part in parts)))

        return draw if self.world.size == 1 else draw_for_all

    def picture_generator(self) -> torch.Generator:
        """The same fresh generator each time: pictures of two epochs differ by what was learnt, not by luck."""
        return torch.Generator(self.device).manual_seed(self.args.seed)

    # -- checkpoints ---------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that sampling or `--resume` needs."""
        checkpoint = {
            "kind": self.kind,
            "config": self.config,
            "extra": self.extra,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "ema_updates": 0 if self.ema is None else int(self.ema.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "args": self._plain_args(),
            "position": {"epoch": self.epoch, "steps": self._steps_done},
            "random": self._random_before or self._random_state(),
            "sums": self._sums,
            "best": self._best,
        }
        save_checkpoint(path, checkpoint)

    def _resume(self) -> None:
        checkpoint = load_checkpoint(self.latest, self.kind, self.device)
        then, now = checkpoint["args"], self._plain_args()
        for name in sorted(now.keys() - _FREE_FLAGS):
            if then.get(name) != now[name]:
                raise UsageError(
                    f"{self.latest} was trained with --{name.replace('_', '-')} {then.get(name)}, not {now[name]}: "
                    "repeat the flags of its first run, or leave out --resume to start anew"
                )
        for name in self.extra.keys() & {"vae", "clip"}:
            if not _equal(checkpoint["extra"][name], self.extra[name]):
                raise UsageError(
                    f"{self.latest} was trained with another {name} than the one in --{name}-ckpt now: "
                    "give that one, or leave out --resume to start anew"
                )
        restore(self.model, checkpoint["model"], self.latest)
        if self.ema is not None:
            restore(self.ema.module, weights(checkpoint), self.latest)
            self.ema.n_averaged.fill_(checkpoint["ema_updates"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.epoch, self._steps_done = checkpoint["position"]["epoch"], checkpoint["position"]["steps"]
        self._sums = checkpoint["sums"] if self.world.is_main else {k: v * 0 for k, v in checkpoint["sums"].items()}
        self._best = checkpoint["best"]
        self._set_random_state(checkpoint["random"])
        self.say(f"resumed {self.latest}: {self.epoch} epochs and {self._steps_done} steps are done")

    def _plain_args(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in vars(self.args).items()}

    def _random_state(self) -> dict[str, Any]:
        on_cuda = self.device.type == "cuda"
        return {
            "device": self.device.type,
            "generator": self.generator.get_state(),
            "global": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }

    def _set_random_state(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["global"].cpu())
        if state["device"] != self.device.type:
            self.say(
                f"note: the random state of {state['device']} means nothing to {self.device.type}; noise is drawn anew"
            )
            return
        self.generator.set_state(state["generator"].cpu())
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)

    # -- Ctrl-C --------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: object) -> None:
        """While pictures are drawn, save and stop at once; in a step, after it. A second Ctrl-C does not wait."""
        if self._stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop = True
        if not self._busy:
            self._save_and_stop()

    def _save_and_stop(self) -> NoReturn:
        if self.world.is_main:
            self._busy = True
            self.save(self.latest)
            launcher = ["python"] if self.world.size == 1 else ["torchrun", "--nproc-per-node", str(self.world.size)]
            command = shlex.join([*launcher, *(arg for arg in sys.argv if arg != "--resume"), "--resume"])
            self.say(
                f"stopped after {self.epoch} epochs and {self._steps_done} steps; saved {self.latest}; "
                f"to continue: {command}"
            )
        sys.exit(130)

    # -- progress and log ----------------------------------------------------------------------------

    def _progress(self, steps: int) -> tqdm:
        """A bar for people: on a terminal only, and one for all processes."""
        return tqdm(
            total=steps,
            initial=self._steps_done,
            desc=f"epoch {self.epoch + 1}/{self.args.epochs}",
            disable=None if self.world.is_main else True,
            leave=False,
        )

    def _sum_over_processes(self) -> None:
        self._sums = {name: self.world.sum(value) for name, value in self._sums.items()}

    def _means(self) -> dict[str, float]:
        """Means over the images of this epoch so far."""
        seen = min(self._steps_done * self.args.batch_size, self._n_images)
        return {name: value.item() / seen for name, value in self._sums.items()}

    def _check_finite(self) -> None:
        broken = [name for name, value in self._means().items() if not math.isfinite(value)]
        if broken:
            kept = f"; {self.latest} holds the state before" if self.epoch > 0 else ""
            raise UserError(
                f"{broken[0]} is not finite in epoch {self.epoch + 1}, step {self._steps_done}: "
                f"try a lower --lr than {self.args.lr:g}, or --precision fp32{kept}"
            )

    def _log(self, record: dict[str, float], *, curves: bool) -> None:
        """A line to the terminal, a line to metrics.jsonl, and, if asked for, the curves drawn anew."""
        shown = {name: value for name, value in record.items() if name not in ("epoch", "lr", "grad_norm", "seconds")}
        values = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        self.say(f"epoch {record['epoch']}/{self.args.epochs}  {values}  {record['seconds']:.1f} s")
        path = self.out_dir / "metrics.jsonl"
        lines = path.read_text().splitlines() if record["epoch"] > 1 and path.is_file() else []
        # A run that was killed after its log but before its checkpoint has lines that this one does again.
        records = [line for line in map(json.loads, lines) if line["epoch"] < record["epoch"]] + [record]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in records).encode())
        if curves:
            save_curves(records, self.out_dir / "loss.png")
