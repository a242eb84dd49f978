"""Several processes are one run: a batch gives the gradient that one process gives, and one of them writes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from harness import KINDS, LATEST, ROOT, assert_one_line, assert_succeeds, child_env, load, metrics, run_here, script
from HW3.plumbing.parallel import World

# The gradient of one fixed batch (with its t and noise), computed like the scripts do: shares, DDP, `gather`.
FIXED_BATCH = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel
from HW3.clip import SimpleCLIP, contrastive_loss
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.latent import EpsMLP
from HW3.plumbing.parallel import World

def main():
    world = World()
    world.join(torch.device("cpu"), 8)
    wrap = DistributedDataParallel if world.size > 1 else lambda model: model
    torch.manual_seed(0)
    net, clip = EpsMLP(5, time_dim=8, hidden_dim=16), SimpleCLIP(embed_dim=8)
    torch.nn.init.normal_(net.head.weight)
    u0, noise, t = torch.randn(8, 5), torch.randn(8, 5), torch.randint(0, 1000, (8,))
    x, labels = torch.rand(8, 1, 32, 32), torch.arange(8) % 3
    u0, noise, t, x, labels = (world.share(whole) for whole in (u0, noise, t, x, labels))
    diffusion, model = GaussianDiffusion(wrap(net), DiffusionConfig()), wrap(clip)
    diffusion.training_loss(u0, noise, t=t).backward()
    image_emb, text_emb, scale = model(x, labels)
    contrastive_loss(image_emb, text_emb, labels, scale, gather=world.gather).backward()
    if world.is_main:
        torch.save([p.grad for model in (net, clip) for p in model.parameters()], sys.argv[1])
    world.leave()

main()
"""


def torchrun(name: str, *flags: object) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    return [*launcher, name, *map(str, flags)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = child_env(PYTHONPATH=str(ROOT))
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path):
    code = tmp_path / "gradient.py"
    code.write_text(FIXED_BATCH)
    for name, command in (("one", [sys.executable, str(code)]), ("two", torchrun(str(code)))):
        result = run([*command, str(tmp_path / name)])
        assert result.returncode == 0, result.stderr
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert all(grad.abs().max() > 0 for grad in one)
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one_run(kind, tiny, tmp_path):
    # 31 training images: the odd one is left out, and the last batch has 7 for each.
    limit = {"vae": 33, "clip": 34}.get(kind, 31)
    flags = ("--batch-size", 16, "--limit", limit, "--precision", "fp32", "--epochs", 3)
    assert_succeeds(run_here(script(kind), *tiny.flags(kind, tmp_path / "one"), *flags))
    two = run(torchrun(script(kind), *tiny.flags(kind, tmp_path / "two"), *flags))

    assert two.returncode == 0, two.stderr
    lines = two.stdout.splitlines()
    assert ", 2 processes" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]  # one of them prints
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    # Each draws noise of its own, so the losses are of the same size and not the same.
    for ours, theirs in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.25)
        assert ours.keys() == theirs.keys()


# A script, and which threads of its process group are there when it has ended and the interpreter has not.
WITH_THREADS_WRITTEN = """
import atexit, os, pathlib, runpy, sys

def write_threads():
    names = (path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm"))
    pathlib.Path(out + os.environ["RANK"]).write_text(" ".join(name for name in names if "gloo" in name))

out, sys.argv = sys.argv[1], sys.argv[2:]
atexit.register(write_threads)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="where a process can be asked for the names of its threads")
@pytest.mark.parametrize("kind", ["clip", "latent_diffusion"])
def test_no_thread_of_the_group_meets_a_closing_interpreter(kind, tiny, tmp_path):
    code = tmp_path / "threads.py"
    code.write_text(WITH_THREADS_WRITTEN)
    result = run(torchrun(str(code), tmp_path / "threads", script(kind), *tiny.flags(kind, tmp_path), "--epochs", 1))
    assert result.returncode == 0, result.stderr
    assert [(tmp_path / f"threads{rank}").read_text() for rank in range(2)] == ["", ""]


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_and_one_can_go_on(tiny, tmp_path):
    flags = [*tiny.flags("latent_diffusion", tmp_path), "--sample-every", "0"]
    command = torchrun(script("latent_diffusion"), *flags, "--epochs", "100000")
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
@pytest.mark.parametrize("size", [1, 7])
def test_a_batch_that_does_not_divide_evenly_is_refused(size, rank, tiny, tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}.items():
        monkeypatch.setitem(os.environ, name, str(value))
    result = run_here("train_clip.py", *tiny.flags("clip", tmp_path), "--batch-size", size)
    if rank == 0:
        assert_one_line(result, 2, f"--batch-size {size}", "2 processes")
    else:
        assert (result.returncode, result.stderr) == (2, "")  # one of them says it
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shares_put_together_are_the_batch(size, monkeypatch):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", str(size))
    shares = []
    for rank in range(size):
        monkeypatch.setitem(os.environ, "RANK", str(rank))
        shares.append(World().share(torch.arange(8)))
    assert torch.equal(torch.cat(shares), torch.arange(8))
    assert {len(share) for share in shares} == {8 // size}


def test_one_process_needs_no_process_group():
    world, x = World(), torch.arange(3.0)
    world.join(torch.device("cpu"), batch_size=1)
    assert (world.size, world.is_main) == (1, True)
    assert not torch.distributed.is_initialized()
    assert world.sum(x) is x
    assert world.gather(x) is x
    assert world.any(True, torch.device("cpu")) is True
    world.leave()
