"""A run that is stopped, in whatever moment, goes on to the same end as one that was not."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import HW3.plumbing.checkpoints
import HW3.plumbing.log
import HW3.viz
from harness import (
    KINDS,
    LATEST,
    ROOT,
    Tiny,
    assert_one_line,
    assert_same_run,
    assert_succeeds,
    child_env,
    load,
    metrics,
    run_here,
    script,
)
from HW3.plumbing.files import write_atomically
from HW3.plumbing.run import Run


@contextlib.contextmanager
def signal_in(monkeypatch, method: str, call: int, number: int = signal.SIGINT):
    """Send this process a signal just after the `call`-th time that a run has called one of its methods."""
    original, calls = getattr(Run, method), []

    def wrapped(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        calls.append(method)
        if len(calls) == call:
            signal.raise_signal(number)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Run, method, wrapped)
        yield
    assert len(calls) >= call, f"{method} was called {len(calls)} times only"


def command_in(stdout: str) -> tuple[str, list[str]]:
    """The script and the flags of the command that a stopped run says to continue with."""
    command = re.search(r"to continue: python (.*)$", stdout, re.MULTILINE)
    assert command, stdout
    name, *flags = shlex.split(command[1])
    return name, flags


def assert_stops_and_continues(kind: str, stopped, out_dir: Path, tiny: Tiny, saying: str) -> None:
    """A stopped run says what to do; done, that ends where the fixture's uninterrupted run ended."""
    assert (stopped.returncode, stopped.stderr) == (130, ""), stopped.stderr
    assert saying in stopped.stdout
    name, flags = command_in(stopped.stdout)
    assert flags[-1] == "--resume"
    continued = run_here(name, *flags)
    assert_succeeds(continued)
    assert f"resumed {out_dir / LATEST[kind]}: {saying.removeprefix('stopped after ')} are done" in continued.stdout
    assert_same_run(out_dir, tiny.out_dir(kind), LATEST[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_in_the_middle_of_an_epoch(kind, tiny, tmp_path, monkeypatch):
    with signal_in(monkeypatch, "log", call=5):
        stopped = run_here(script(kind), *tiny.flags(kind, tmp_path))
    assert len(metrics(tmp_path)) == 1
    assert_stops_and_continues(kind, stopped, tmp_path, tiny, "stopped after 1 epochs and 2 steps")


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_while_pictures_are_drawn(kind, tiny, tmp_path, monkeypatch):
    with signal_in(monkeypatch, "time_for_pictures", call=1):
        stopped = run_here(script(kind), *tiny.flags(kind, tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()
    assert_stops_and_continues(kind, stopped, tmp_path, tiny, "stopped after 0 epochs and 3 steps")


@pytest.mark.parametrize("kind", ["vae", "tiny_sd"])
@pytest.mark.parametrize(
    ("method", "call", "saying"),
    [
        ("log", 1, "stopped after 0 epochs and 1 steps"),  # before any checkpoint
        ("log", 3, "stopped after 0 epochs and 3 steps"),  # in the last, smaller batch
        ("evaluation", 1, "stopped after 0 epochs and 3 steps"),  # where the random state is borrowed
        ("_save", 1, "stopped after 1 epochs and 0 steps"),  # between the checkpoint and the log
        ("end_epoch", 1, "stopped after 1 epochs and 0 steps"),  # between two epochs
    ],
)
def test_stopped_at_an_awkward_moment(kind, method, call, saying, tiny, tmp_path, monkeypatch):
    with signal_in(monkeypatch, method, call):
        stopped = run_here(script(kind), *tiny.flags(kind, tmp_path))
    assert_stops_and_continues(kind, stopped, tmp_path, tiny, saying)


def test_pictures_are_dropped_half_drawn_and_drawn_again(tiny, tmp_path, monkeypatch):
    drawn = []

    def interrupted(images):
        drawn.append(images)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(HW3.viz, "to_uint8", interrupted)
        stopped = run_here("train_vae.py", *tiny.flags("vae", tmp_path))
    assert len(drawn) == 1
    assert {path.name for path in tmp_path.iterdir()} == {LATEST["vae"]}
    assert_stops_and_continues("vae", stopped, tmp_path, tiny, "stopped after 0 epochs and 3 steps")


def test_stopped_by_sigterm(tiny, tmp_path, monkeypatch):
    with signal_in(monkeypatch, "log", call=4, number=signal.SIGTERM):
        stopped = run_here("train_tiny_sd.py", *tiny.flags("tiny_sd", tmp_path))
    assert_stops_and_continues("tiny_sd", stopped, tmp_path, tiny, "stopped after 1 epochs and 1 steps")


def test_stopped_twice(tiny, tmp_path, monkeypatch):
    with signal_in(monkeypatch, "log", call=2):
        first = run_here("train_latent_diffusion.py", *tiny.flags("latent_diffusion", tmp_path))
    name, flags = command_in(first.stdout)
    with signal_in(monkeypatch, "log", call=3):
        second = run_here(name, *flags)
    assert command_in(second.stdout) == (name, flags)  # one --resume, however often
    saying = "stopped after 1 epochs and 2 steps"
    assert_stops_and_continues("latent_diffusion", second, tmp_path, tiny, saying)


def test_a_second_ctrl_c_does_not_wait(tiny, tmp_path, monkeypatch):
    flags = tiny.flags("latent_diffusion", tmp_path)
    log = Run.log

    def impatient(self, **values):
        log(self, **values)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", impatient)
    result = run_here("train_latent_diffusion.py", *flags)
    assert result.returncode == 130
    assert result.stderr.strip() == "train_latent_diffusion.py: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_a_real_ctrl_c(tiny, tmp_path):
    flags = [*tiny.flags("latent_diffusion", tmp_path), "--epochs", "100000", "--sample-every", "0"]
    command = [sys.executable, "train_latent_diffusion.py", *flags]
    with subprocess.Popen(
        command, cwd=ROOT, env=child_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        seen = []
        for line in process.stdout:  # epochs arrive in a pipe as they are done
            seen.append(line)
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (130, "")
    name, again = command_in("".join(seen) + rest)
    assert (name, again) == ("train_latent_diffusion.py", [*flags, "--resume"])
    position = load(tmp_path / LATEST["latent_diffusion"])["position"]
    assert 2 <= position["epoch"] < 50
    finished = run_here(name, *again, "--epochs", position["epoch"] + 1)
    assert_succeeds(finished)
    assert len(metrics(tmp_path)) == position["epoch"] + 1


@pytest.mark.parametrize("written", ["nothing", "metrics.jsonl", "loss.png", "convae_best.pt"])
def test_killed_between_the_files_of_an_epoch(written, tiny, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    last_epoch = []

    def end_epoch(run, **values):
        last_epoch.extend([run] if run.epoch == 1 else [])
        if last_epoch and written == "nothing":
            raise Killed
        original_end(run, **values)

    def write(path, content):
        write_atomically(path, content)
        if last_epoch and path.name == written:
            raise Killed

    original_end = Run.end_epoch
    with monkeypatch.context() as patch:
        patch.setattr(Run, "end_epoch", end_epoch)
        for module in (HW3.plumbing.log, HW3.viz, HW3.plumbing.checkpoints):
            patch.setattr(module, "write_atomically", write)
        with pytest.raises(Killed):
            run_here("train_vae.py", *tiny.flags("vae", tmp_path))

    assert_succeeds(run_here("train_vae.py", *tiny.flags("vae", tmp_path), "--resume"))
    for name in ("convae_latest.pt", "convae_best.pt"):
        assert_same_run(tmp_path, tiny.out_dir("vae"), name)


# -- what is not replaced ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_model_is_replaced_only_on_demand(kind, tiny, tmp_path, monkeypatch):
    flags = [*tiny.flags(kind, tmp_path), "--epochs", 1]
    assert_succeeds(run_here(script(kind), *flags))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused = run_here(script(kind), *flags)
    assert_one_line(refused, 2, tmp_path / LATEST[kind], "1 epochs", "--resume", "--overwrite", "--out-dir")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    with signal_in(monkeypatch, "log", call=1):
        stopped = run_here(script(kind), *flags, "--overwrite")
    name, again = command_in(stopped.stdout)
    assert again[-1] == "--resume"
    assert "--overwrite" not in again  # the two contradict each other
    assert_succeeds(run_here(name, *again))
    assert load(tmp_path / LATEST[kind])["position"] == {"epoch": 1, "steps": 0}


def test_a_first_epoch_under_way_is_not_replaced_either(tiny, tmp_path, monkeypatch):
    flags = [*tiny.flags("clip", tmp_path), "--epochs", 1]
    with signal_in(monkeypatch, "log", call=1):
        run_here("train_clip.py", *flags)
    latest = tmp_path / LATEST["clip"]
    before = latest.read_bytes()
    assert_one_line(run_here("train_clip.py", *flags), 2, latest, "0 epochs and 1 steps", "--overwrite")
    assert latest.read_bytes() == before


def test_what_is_no_checkpoint_is_replaced_on_demand(tiny, tmp_path):
    flags = [*tiny.flags("clip", tmp_path), "--epochs", 1]
    latest = tmp_path / LATEST["clip"]
    latest.write_bytes(b"half a file")
    assert_one_line(run_here("train_clip.py", *flags), 2, latest, "no checkpoint that train_clip.py", "--overwrite")
    assert_succeeds(run_here("train_clip.py", *flags, "--overwrite"))


# -- what --resume refuses ---------------------------------------------------------------------------


def test_a_finished_run_has_nothing_to_do_until_epochs_grows(tiny, tmp_path):
    flags = [*tiny.flags("clip", tmp_path), "--resume"]
    assert_succeeds(run_here("train_clip.py", *flags[:-1]))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    done = run_here("train_clip.py", *flags)
    assert_succeeds(done)
    assert "nothing to do" in done.stdout
    assert "has done 2 epochs; a larger --epochs goes on" in done.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    assert_succeeds(run_here("train_clip.py", *flags, "--epochs", 3))
    assert [record["epoch"] for record in metrics(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_resume_without_a_checkpoint_is_refused(kind, tiny, tmp_path):
    result = run_here(script(kind), *tiny.flags(kind, tmp_path), "--resume")
    assert_one_line(result, 2, f"no checkpoint at {tmp_path / LATEST[kind]}", f"make it with {script(kind)}")


@pytest.mark.parametrize(
    ("kind", "flag", "then", "now"),
    [
        ("vae", "--kl-weight", "1.0", "0.5"),
        ("clip", "--embed-dim", "16", "32"),
        ("diffusion", "--base-channels", "8", "16"),
        ("latent_diffusion", "--batch-size", "16", "8"),
        ("tiny_sd", "--seed", "42", "7"),
    ],
)
def test_resume_with_flags_of_another_run_is_refused(kind, flag, then, now, tiny):
    out_dir = tiny.out_dir(kind)
    before = tiny.checkpoint(kind).read_bytes()
    result = run_here(script(kind), *tiny.flags(kind, out_dir), flag, now, "--resume")
    assert_one_line(result, 2, f"was trained with {flag} {then}, not {now}", "repeat the flags of its first run")
    assert tiny.checkpoint(kind).read_bytes() == before


def test_flags_that_do_not_move_training_may_change(tiny, tmp_path, monkeypatch):
    with signal_in(monkeypatch, "log", call=5):
        assert run_here("train_vae.py", *tiny.flags("vae", tmp_path)).returncode == 130
    more = ("--sample-every", 0, "--no-save-recon", "--device", "cpu", "--data-dir", tmp_path, "--num-workers", 2)
    assert_succeeds(run_here("train_vae.py", *tiny.flags("vae", tmp_path), *more, "--resume"))
    assert_same_run(tmp_path, tiny.out_dir("vae"), LATEST["vae"])


def test_frozen_models_may_have_moved(tiny, tmp_path, monkeypatch):
    """What counts is what they hold: the same file under another name, or from another folder."""
    flags = tiny.flags("tiny_sd", tmp_path / "run")
    with signal_in(monkeypatch, "log", call=5):
        assert run_here("train_tiny_sd.py", *flags).returncode == 130
    moved = {part: shutil.copy(tiny.checkpoint(part), tmp_path / f"{part}.pt") for part in ("vae", "clip")}
    monkeypatch.chdir(tmp_path)
    more = ("--vae-ckpt", Path(moved["vae"]).name, "--clip-ckpt", moved["clip"], "--resume")
    assert_succeeds(run_here("train_tiny_sd.py", *flags, *more))
    assert_same_run(tmp_path / "run", tiny.out_dir("tiny_sd"), LATEST["tiny_sd"])


@pytest.mark.parametrize("part", ["vae", "clip"])
def test_a_frozen_model_that_was_trained_anew_is_noticed(tiny, tmp_path, part):
    """The same path, other weights: going on would mix two latent spaces, or two sets of texts."""
    frozen = tmp_path / "frozen.pt"
    state = load(tiny.checkpoint(part))
    torch.save(state, frozen)
    flags = [*tiny.flags("tiny_sd", tmp_path / "run"), f"--{part}-ckpt", frozen]
    assert_succeeds(run_here(script("tiny_sd"), *flags, "--epochs", 1))
    next(iter(state["ema"].values())).add_(1)
    torch.save(state, frozen)
    assert_one_line(run_here(script("tiny_sd"), *flags, "--epochs", 2, "--resume"), 2, f"another {part}", "--overwrite")
