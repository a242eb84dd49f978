"""`grade --scheduler` on a real cluster of two worker processes, with and without TLS."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from classroom import grades, grading, handout, solution, start, write
from grading.errors import GradingError
from grading.hidden.doors import cluster
from grading.hidden.doors.cluster import _require_safe
from harness import ROOT, assert_one_line, child_env

DASK = [sys.executable, "-m", "dask"]


@contextlib.contextmanager
def processes(folder: Path, *options: object, address: str = "tcp://127.0.0.1:0") -> Iterator[tuple[str, list]]:
    """A scheduler and two workers of one thread: the scheduler's address, and the workers' processes."""
    env = {**child_env(), "PYTHONPATH": str(ROOT), "DASK_TEMPORARY_DIRECTORY": str(folder)}
    options = ["--no-dashboard", *map(str, options)]
    running = []

    def run(*args: str) -> subprocess.Popen:
        log = (folder / f"{len(running)}.log").open("w")
        running.append(subprocess.Popen([*DASK, *args, *options], env=env, cwd=folder, stdout=log, stderr=log))
        return running[-1]

    place = folder / "scheduler.json"
    protocol = address.partition("://")[0]
    run("scheduler", "--host", "127.0.0.1", "--port", "0", "--protocol", protocol, "--scheduler-file", str(place))
    try:
        end = time.monotonic() + 60
        while not place.is_file() or not place.read_text().strip():
            assert time.monotonic() < end, (folder / "0.log").read_text()
            time.sleep(0.1)
        found = json.loads(place.read_text())["address"]
        # No nanny: a worker that is killed stays dead, so what it had must go to the other one.
        workers = [run("worker", found, "--nthreads", "1", "--no-nanny", "--name", str(i)) for i in range(2)]
        yield found, workers
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def inbox(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "in"
    for number in range(16):
        write(folder / f"s{number:02}", handout() if number % 4 == 0 else solution())
    write(folder / "broken", {**solution(), "HW3/vae.py": b"def ("})
    return folder


TOTALS = {f"s{number:02}": "0" if number % 4 == 0 else "100" for number in range(16)} | {"broken": "80"}


@pytest.mark.slow
def test_a_worker_that_dies_loses_nothing(inbox, tmp_path):
    out = tmp_path / "out"
    with processes(tmp_path) as (address, workers):
        run = start("grade", inbox, "--out", out, "--scheduler", address, "--workers", 4)
        end = time.monotonic() + 90
        while len(list(out.glob("*/results.json"))) < 3:
            assert time.monotonic() < end
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        _, stderr = run.communicate(timeout=120)
        assert run.returncode == 0, stderr
        assert {name: row["total"] for name, row in grades(out).items()} == TOTALS
        # The same verdicts as without a cluster, so each run can go on with the other's results.
        stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/results.json")}
        assert grading("grade", inbox, "--out", out, "--resume").returncode == 0
        (out / "s03" / "results.json").unlink()
        done = grading("grade", inbox, "--out", out, "--resume", "--scheduler", address)
        assert done.returncode == 0, done.stderr
        changed = {path.parent.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
        assert changed == {"s03"}
        assert {name: row["total"] for name, row in grades(out).items()} == TOTALS


def test_a_worker_with_another_version_grades_nothing(monkeypatch):
    monkeypatch.setattr(cluster, "base_fingerprint", lambda *_: b"another")
    found, problem = cluster._grade(cluster.Task(("kl",), 10.0, "process", b"ours"), {})
    assert "another version of the grader" in problem
    assert found.functions == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_over_tls(inbox, tmp_path, monkeypatch):
    one = tmp_path / "in" / "s01"
    shutil.copytree(inbox / "s01", one)
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    tls = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key]
    with processes(tmp_path, *tls, address="tls://127.0.0.1:0") as (address, _):
        assert address.startswith("tls://")
        without = grading("grade", one, "--out", tmp_path / "out", "--scheduler", address)
        assert_one_line(without, 2, "needs certificates")
        names = {"CA_FILE": cert, "CLIENT__CERT": cert, "CLIENT__KEY": key}
        for name, path in names.items():
            monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{name}", str(path))
        done = grading("grade", one, "--out", tmp_path / "out", "--scheduler", address)
        assert done.returncode == 0, done.stderr
    assert grades(tmp_path / "out")["s01"]["total"] == "100"


@pytest.mark.slow
def test_nobody_there(inbox, tmp_path):
    done = grading("grade", inbox, "--out", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert_one_line(done, 2, "no scheduler answers at tcp://127.0.0.1:9")


OPEN = ["tcp://10.0.0.3:8786", "tcp://0.0.0.0:8786", "tcp://head:8786", "ws://127.0.0.1:1", "8786"]
SAFE = ["tls://10.0.0.3:8786", "tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"]


@pytest.mark.parametrize("address", OPEN)
def test_open_connections_are_refused(address):
    with pytest.raises(GradingError, match="only tls://"):
        _require_safe(address, "the scheduler")


@pytest.mark.parametrize("address", SAFE)
def test_safe_connections_are_not(address):
    _require_safe(address, "the scheduler")
