"""Two processes train as one would: the same batches, the same noise, the same curve."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from harness import KINDS, LATEST, ROOT, assert_one_line, assert_succeeds, child_env, load, metrics, run_here, script
from HW3.parallel import World

# 31 training images in batches of 15: shares of 7 and 8, and a last batch that leaves one process without an image.
LIMITS = {"vae": 33, "clip": 34, "diffusion": 31, "latent_diffusion": 31, "tiny_sd": 31}


def torchrun(kind: str, *flags: object) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    return [*launcher, script(kind), *map(str, flags)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_like_one(kind, tiny, tmp_path):
    more = ("--batch-size", 15, "--limit", LIMITS[kind], "--precision", "fp32")
    assert_succeeds(run_here(script(kind), *tiny.flags(kind, tmp_path / "one"), *more))
    two = subprocess.run(
        torchrun(kind, *tiny.flags(kind, tmp_path / "two"), *more),
        cwd=ROOT,
        env=child_env(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert two.returncode == 0, two.stderr
    lines = two.stdout.splitlines()
    assert ", 2 processes" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2"]  # one of them prints
    assert metrics(tmp_path / "two") == [pytest.approx(record, rel=1e-4) for record in metrics(tmp_path / "one")]
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}

    ours, theirs = (load(tmp_path / folder / LATEST[kind]) for folder in ("two", "one"))
    assert ours.keys() == theirs.keys()
    # Adam turns rounding in a tiny gradient into a part of a step, so weights agree to less than the loss.
    torch.testing.assert_close(ours["model"], theirs["model"], rtol=0, atol=2e-4)
    assert torch.equal(ours["random"]["generator"], theirs["random"]["generator"])


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_and_one_can_go_on(tiny, tmp_path):
    flags = [*tiny.flags("latent_diffusion", tmp_path), "--sample-every", "0"]
    command = torchrun("latent_diffusion", *flags, "--epochs", "100000")
    with subprocess.Popen(
        command, cwd=ROOT, env=child_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        rest, _ = process.communicate(timeout=90)

    assert process.returncode != 0
    assert ("".join(seen) + rest).count("to continue: ") == 1
    position = load(tmp_path / LATEST["latent_diffusion"])["position"]
    assert position["epoch"] >= 2
    go_on = ("--resume", "--epochs", position["epoch"] + 1)
    assert_succeeds(run_here("train_latent_diffusion.py", *flags, *go_on))
    assert [record["epoch"] for record in metrics(tmp_path)] == list(range(1, position["epoch"] + 2))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_batch_smaller_than_the_number_of_processes_is_refused(rank, tiny, tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}.items():
        monkeypatch.setitem(os.environ, name, str(value))
    result = run_here("train_clip.py", *tiny.flags("clip", tmp_path), "--batch-size", 1)
    if rank == 0:
        assert_one_line(result, 2, "--batch-size 1", "2 processes")
    else:
        assert (result.returncode, result.stderr) == (2, "")  # one of them says it
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 7, 8, 128])
def test_rows_share_a_batch_out_evenly(n, size, monkeypatch):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", str(size))
    shares = []
    for rank in range(size):
        monkeypatch.setitem(os.environ, "RANK", str(rank))
        rows = list(range(n))[World().rows(n)]
        assert rows  # no network has to cope with an empty batch
        shares.append(rows[: World().share(n)])
    assert [row for share in shares for row in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_no_process_group():
    world, x = World(), torch.arange(3.0)
    world.join(torch.device("cpu"), batch_size=1)
    assert (world.size, world.is_main) == (1, True)
    assert not torch.distributed.is_initialized()
    assert world.sum(x) is x
    assert world.gather(x, 3) is x
    assert world.any(True, torch.device("cpu")) is True
    world.leave()
