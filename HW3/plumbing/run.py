"""One training run: where it computes, how far it is, what it logs and saves. The training loop itself is the script's.

run = Run("vae", "convae", args)                                  # device, precision, seed, output folder
model = run.start(vae, ema, optimizer, config={...})              # --resume; under torchrun the DDP wrapper
for epoch in run.epochs():
    for idx in run.batches(len(train)):                           # indices of this process's images
        ...                                                       # loss, backward, step, EMA
        run.log(loss=loss)
    run.end_epoch()                                               # metrics.jsonl, loss.png, checkpoint
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from HW3.plumbing.checkpoints import restore, save_checkpoint
from HW3.plumbing.device import Threads, computes_in_bf16, pick_device
from HW3.plumbing.errors import UsageError, UserError
from HW3.plumbing.files import check_writable
from HW3.plumbing.interrupt import Interrupt
from HW3.plumbing.log import Means, log_epoch, say
from HW3.plumbing.parallel import World
from HW3.plumbing.randomness import random_state, set_random_state
from HW3.plumbing.resume import check_overwrite, load_for_resume, plain_args

SECONDS_BETWEEN_SAVES = 10.0  # what a power cut may cost; Ctrl-C costs nothing


class Run:
    """One training run.

    kind: what its checkpoints hold.  name: what their files are called.  args: the flags of `training_parser`.
    is_last: False if the same processes train another model afterwards. (They meet once: PyTorch hangs, now and then,
    where a process group is made a second time.)
    """

    def __init__(self, kind: str, name: str, args: Namespace, *, is_last: bool = True) -> None:
        self.kind, self.name, self.args, self._is_last = kind, name, args, is_last
        self.world = World()
        self.device = pick_device("cpu" if getattr(args, "no_cuda", False) else args.device, self.world.local_rank)
        self.bf16 = computes_in_bf16(args.precision, kind, self.device)
        self.world.join(self.device, args.batch_size)
        self.out_dir: Path = args.out_dir
        self.latest = self.out_dir / f"{name}_latest.pt"
        if self.world.is_main:
            check_writable(self.out_dir)  # not after the first epoch
            if not (args.resume or args.overwrite):
                check_overwrite(self.latest, kind)
        self._threads = Threads(kind, self.device)
        torch.manual_seed(args.seed)

        self.epoch = 0  # epochs completed
        self.total_steps = 0  # of the whole run; known from the first call of `batches` on
        self._steps_done = 0  # in the epoch under way
        self._steps_per_epoch = 0
        self._images = 0  # in one epoch
        self._rows = 0  # this process's share of the batch under way
        self._means = Means()
        self._best = math.inf
        self._interrupt = Interrupt()
        self._started = time.monotonic()
        self._saved = -math.inf  # when `latest` was last written

    def start(
        self,
        model: nn.Module,
        ema: AveragedModel,
        optimizer: Optimizer,
        *,
        config: dict[str, Any],
        extra: dict[str, Any] | None = None,
    ) -> nn.Module:
        """Register what checkpoints hold, and with --resume take it from the last one.

        config: plain values that rebuild the model.  extra: what else sampling needs; what is put into it later, too.
        Returns the model to train: itself, or under torchrun its DDP wrapper.
        """
        self._model, self._ema, self._optimizer, self._config = model, ema, optimizer, config
        self._extra = {} if extra is None else extra
        if self.args.resume:
            self._resume()
        elif self.world.size > 1:
            torch.manual_seed(self.args.seed + self.world.rank)  # its own noise; DDP makes the weights the same
        count = sum(parameter.numel() for parameter in model.parameters())
        processes = f", {self.world.size} processes" if self.world.size > 1 else ""
        self.say(f"{self.kind}: {count:,} parameters on {self.device}, {'bf16' if self.bf16 else 'fp32'}{processes}")
        self._interrupt.listen()
        return model if self.world.size == 1 else DistributedDataParallel(model)

    def say(self, message: str) -> None:
        """Print a line, once for all processes."""
        if self.world.is_main:
            say(message)

    # -- the loop ------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Steps completed since the beginning of the run."""
        return self.epoch * self._steps_per_epoch + self._steps_done

    def epochs(self) -> Iterator[int]:
        """The epochs still to do, counted from 1. Each must end with `end_epoch`."""
        if self.epoch >= self.args.epochs:
            self.say(f"nothing to do: {self.latest} has done {self.epoch} epochs; a larger --epochs goes on")
        while self.epoch < self.args.epochs:
            yield self.epoch + 1
            self._threads.adapt()
        if self._is_last:
            self.world.leave()

    def batches(self, n: int) -> Iterator[Tensor]:
        """One pass over n images in random order: the indices of this process's share of each batch."""
        size = self.args.batch_size
        self._images = n - n % self.world.size  # so that every share is as large
        if self._images == 0:
            raise UsageError(f"{n} training images are not enough for {self.world.size} processes")
        self._steps_per_epoch = math.ceil(self._images / size)
        self.total_steps = self.args.epochs * self._steps_per_epoch
        # The order depends on seed and epoch alone, so that a resumed epoch goes on where it stopped.
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1_000_003 * self.epoch + self.args.seed))
        order = order[: self._images].to(self.device)
        self._started = time.monotonic()
        if self._is_stop_wanted():
            self._save_and_leave()
        with self._progress() as bar:
            while self._steps_done < self._steps_per_epoch:
                batch = self.world.share(order[self._steps_done * size : (self._steps_done + 1) * size])
                self._rows = len(batch)
                yield batch
                self._steps_done += 1
                bar.update()
                look = self._steps_done % 10 == 0  # reading a loss makes a GPU wait, so not after every step
                if look:
                    self._check_finite()
                    loss = self._means.sums["loss"].item() / (self._steps_done * size / self.world.size)
                    bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
                if (look or self.world.size == 1) and self._is_stop_wanted():
                    self._sum_means()
                    self._check_finite()  # what is saved here replaces the last good checkpoint
                    self._save_and_leave()
        self._sum_means()
        self._check_finite()
        if self._is_stop_wanted():
            self._save_and_leave()

    def log(self, **values: Tensor) -> None:
        """Take in what this step's images gave on average: the loss, and whatever else the log should show."""
        self._means.add(self._rows, values)

    def autocast(self) -> AbstractContextManager:
        """bf16 where this run uses it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def time_for_pictures(self, epoch: int) -> bool:
        """Whether this process draws pictures at the end of this epoch."""
        every = self.args.sample_every
        return self.world.is_main and (epoch == self.args.epochs or (every > 0 and epoch % every == 0))

    @contextmanager
    def evaluation(self) -> Iterator[Any]:
        """The averaged model in eval mode, without gradients.

        Random draws inside start from the seed each time, so that two epochs' pictures differ by what was learnt and
        not by luck; those of training go on afterwards as if nothing had been drawn. Ctrl-C does not wait for the end.
        """
        if self._interrupt.wanted:
            self._save_and_leave()
        before = random_state(self.device)
        with self._interrupt.leaves(), torch.no_grad():
            torch.manual_seed(self.args.seed)
            yield self._ema.module.eval()
        set_random_state(before, self.device)
        if self._interrupt.wanted:
            self._save_and_leave()

    def end_epoch(self, *, best: float | None = None, **metrics: float) -> None:
        """Log the epoch and write checkpoints: `best` if `best`, lower is better, is a record, and `latest`.

        Where epochs take less than a second, writing `latest` and the curves would take most of the time: they are
        written after the first and the last epoch, and when the last time is SECONDS_BETWEEN_SAVES ago.
        """
        record = {
            "epoch": self.epoch + 1,
            **self._means.over(self._images),
            **metrics,
            "lr": self._optimizer.param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self._started, 2),
        }
        self.epoch, self._steps_done, self._means = self.epoch + 1, 0, Means()
        is_record = best is not None and best < self._best
        self._best = best if best is not None and is_record else self._best
        if self.world.is_main:
            due = self.epoch == self.args.epochs or time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES
            # `latest` comes last: a run killed before it does these epochs, and all of their files, again.
            log_epoch(self.out_dir, record, self.args.epochs, curves=due)
            if is_record:
                self._save(self.out_dir / f"{self.name}_best.pt")
            if due:
                self._save(self.latest)
                self._saved = time.monotonic()
        if self._is_stop_wanted():
            self._save_and_leave()

    # -- checkpoints ---------------------------------------------------------------------------------

    def _save(self, path: Path) -> None:
        """Write everything that sampling or `--resume` needs."""
        checkpoint = {
            "kind": self.kind,
            "config": self._config,
            "extra": self._extra,
            "model": self._model.state_dict(),
            "ema": self._ema.module.state_dict(),
            "ema_updates": int(self._ema.n_averaged),
            "optimizer": self._optimizer.state_dict(),
            "args": plain_args(self.args),
            "position": {"epoch": self.epoch, "steps": self._steps_done},
            "random": random_state(self.device),
            "sums": self._means.sums,
            "best": self._best,
        }
        save_checkpoint(path, checkpoint)

    def _resume(self) -> None:
        checkpoint = load_for_resume(self.latest, self.kind, self.device, self.args, self._extra)
        restore(self._model, checkpoint["model"], self.latest)
        restore(self._ema.module, checkpoint["ema"], self.latest)
        self._ema.n_averaged.fill_(checkpoint["ema_updates"])
        self._optimizer.load_state_dict(checkpoint["optimizer"])
        self.epoch, self._steps_done = checkpoint["position"]["epoch"], checkpoint["position"]["steps"]
        self._best = checkpoint["best"]
        for name in checkpoint["extra"].keys() - self._extra.keys():
            self._extra[name] = checkpoint["extra"][name]
        if not set_random_state(checkpoint["random"], self.device):
            self.say("note: the checkpoint was made on another kind of device; noise is drawn anew")
        if self.world.is_main:
            self._means.sums = checkpoint["sums"]
        else:  # the state is that of the main process, whose noise is its own
            torch.manual_seed(self.args.seed + self.world.rank + 1_000_003 * (self.epoch + 1))
            self._means.sums = {name: value * 0 for name, value in checkpoint["sums"].items()}
        self.say(f"resumed {self.latest}: {self.epoch} epochs and {self._steps_done} steps are done")

    def _sum_means(self) -> None:
        self._means.sums = {name: self.world.sum(value) for name, value in self._means.sums.items()}

    # -- stopping ------------------------------------------------------------------------------------

    def _check_finite(self) -> None:
        name = self._means.not_finite()
        if name is not None:
            kept = f"; {self.latest} holds the state before" if self.epoch > 0 else ""
            raise UserError(
                f"{name} is not finite in epoch {self.epoch + 1}, step {self._steps_done}: "
                f"try a lower --lr than {self.args.lr:g}, or --precision fp32{kept}"
            )

    def _is_stop_wanted(self) -> bool:
        """Whether somebody asked for it, in whichever process."""
        return self.world.any(self._interrupt.wanted, self.device)

    def _save_and_leave(self) -> NoReturn:
        if self.world.is_main:
            self._save(self.latest)
            launcher = ["python"] if self.world.size == 1 else ["torchrun", "--nproc-per-node", str(self.world.size)]
            kept = [arg for arg in sys.argv if arg not in ("--resume", "--overwrite")]
            self.say(
                f"stopped after {self.epoch} epochs and {self._steps_done} steps; saved {self.latest}; "
                f"to continue: {shlex.join([*launcher, *kept, '--resume'])}"
            )
        sys.exit(130)

    def _progress(self) -> tqdm:
        """A bar for people: on a terminal only, and one for all processes."""
        return tqdm(
            total=self._steps_per_epoch,
            initial=self._steps_done,
            desc=f"epoch {self.epoch + 1}/{self.args.epochs}",
            disable=None if self.world.is_main else True,
            leave=False,
        )
