"""How the tests run a script: as a child process, or, much faster, in this one."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import torch

from HW3.plumbing.cli import run_main

ROOT = Path(__file__).resolve().parents[1]

# Every training script, by what it trains, in an order in which each finds the checkpoints that it needs.
KINDS = ("vae", "clip", "diffusion", "latent_diffusion", "tiny_sd")

LATEST = {
    "vae": "convae_latest.pt",
    "clip": "clip_latest.pt",
    "diffusion": "diffusion_latest.pt",
    "latent_diffusion": "latent_diffusion_latest.pt",
    "tiny_sd": "tiny_sd_latest.pt",
}

# 40 images in batches of 16: several steps to be interrupted between, and a last batch that is smaller.
_COMMON = ("--dataset", "digits", "--limit", "40", "--batch-size", "16", "--epochs", "2", "--sample-every", "1")
_DIFFUSION = ("--timesteps", "20", "--ddim-steps", "4")
_MLP = ("--time-dim", "16", "--hidden-dim", "32")
_SMALL = {
    "vae": ("--latent-dim", "32"),  # a mean over fewer would be mostly noise: losses are compared
    "clip": ("--embed-dim", "16"),
    "diffusion": ("--base-channels", "8", "--patch-size", "4", *_DIFFUSION),
    "latent_diffusion": (*_MLP, *_DIFFUSION),
    "tiny_sd": (*_MLP, *_DIFFUSION),
}


_NOT_INHERITED = {"CI", "BUILD_NUMBER", "HW3_DATA_DIR", "PYTHONUNBUFFERED", "PYTHONWARNINGS"}


class OnAppleGPU(torch.Tensor):
    """A tensor as on MPS, which has no float64: asking for it raises, until the tensor is back on the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs)
        if func is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return result


class Tiny:
    """The smallest runs that still do everything, and where their checkpoints lie."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def out_dir(self, kind: str) -> Path:
        return self.root / kind

    def checkpoint(self, kind: str) -> Path:
        return self.out_dir(kind) / LATEST[kind]

    def flags(self, kind: str, out_dir: Path) -> list[str]:
        """The flags of a tiny run into `out_dir`; what is appended to them overrides them."""
        flags = [*_COMMON, *_SMALL[kind], "--out-dir", str(out_dir)]
        if kind in ("latent_diffusion", "tiny_sd"):
            flags += ["--vae-ckpt", str(self.checkpoint("vae"))]
        if kind == "tiny_sd":
            flags += ["--clip-ckpt", str(self.checkpoint("clip"))]
        return flags


def script(kind: str) -> str:
    return f"train_{kind}.py"


def child_env(**env: str) -> dict[str, str]:
    """This environment without what would change a script's behaviour, and with one thread per process."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return {**inherited, "OMP_NUM_THREADS": "1", **env}


def hears_ctrl_c() -> None:
    """In a child before it starts: what runs in the background of a shell ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_script(name: str, *flags: object, cwd: Path = ROOT, **options: Any) -> CompletedProcess[str]:
    """`python NAME FLAGS...` as a child process."""
    command = [sys.executable, str(ROOT / name), *map(str, flags)]
    return subprocess.run(
        command, cwd=cwd, env=child_env(), capture_output=True, text=True, timeout=300, check=False, **options
    )


def run_here(name: str, *flags: object) -> CompletedProcess[str]:
    """What `python NAME FLAGS...` does, in this process: its exit code, its stdout and its stderr."""
    out, err = io.StringIO(), io.StringIO()
    argv = [name, *map(str, flags)]
    with (
        _as_found(),
        warnings.catch_warnings(record=True) as warned,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("always", UserWarning)  # as in a script; not into pytest's own list
        sys.argv = argv
        try:
            run_main(importlib.import_module(name.removesuffix(".py")).main)
        except SystemExit as stop:
            code = stop.code or 0
    shown = [f"{w.filename}:{w.lineno}: {w.message}\n" for w in warned if issubclass(w.category, UserWarning)]
    return CompletedProcess(argv, code, out.getvalue(), "".join(shown) + err.getvalue())


@contextlib.contextmanager
def _as_found():
    """Put back what a script changes in its process."""
    argv, handlers = sys.argv, {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)


def parsed(monkeypatch, kind: str, *flags: object) -> Namespace:
    """What a script makes of its command line, without running it."""

    class Parsed(Exception):
        pass

    def stop(run_kind: str, name: str, args: Namespace) -> None:
        raise Parsed(args)

    module = importlib.import_module(f"train_{kind}")
    with monkeypatch.context() as patch:
        patch.setattr(module, "Run", stop)
        patch.setattr(sys, "argv", [script(kind), *map(str, flags)])
        try:
            module.main()
        except Parsed as found:
            return found.args[0]
    raise AssertionError("the script made no Run")


def assert_succeeds(result: CompletedProcess[str]) -> None:
    """Exit code 0, and nothing on stderr."""
    assert (result.returncode, result.stderr) == (0, ""), result.stderr


def assert_one_line(result: CompletedProcess[str], code: int, *parts: object) -> None:
    """The command ended with `code` and one line on stderr, which starts with its name and contains `parts`."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(f"{Path(_script_of(result)).name}: error: "), lines[0]
    missing = [str(part) for part in parts if str(part) not in lines[0]]
    assert not missing, f"{missing} not in: {lines[0]}"
    assert result.returncode == code, lines[0]


def _script_of(result: CompletedProcess[str]) -> str:
    return next((str(arg) for arg in result.args if str(arg).endswith(".py")), "grading")  # python -m grading


# -- what a run leaves ---------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def metrics(out_dir: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the seconds, the one thing that differs between equal runs."""
    records = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def differences(a: Any, b: Any, at: str = "") -> list[str]:
    """Where two checkpoints, or parts of them, are not bit for bit the same."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [place for key in a for place in differences(a[key], b[key], f"{at}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [place for i, pair in enumerate(zip(a, b)) for place in differences(*pair, f"{at}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [at]
    return [] if a == b else [at]


def assert_same_run(a: Path, b: Path, name: str) -> None:
    """Two runs ended in the same state, and logged the same."""
    states = [load(out_dir / name) for out_dir in (a, b)]
    for state in states:
        del state["args"]  # where to, and how often a picture: allowed to differ
    assert differences(*states) == []
    assert metrics(a) == metrics(b)
