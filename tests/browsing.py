"""JupyterLab and the system's chromium, for tests that look at pages as people see them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import child_env

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="NO BROWSER TEST: install chromium (.ci/run does, as root)"
)


@contextmanager
def jupyter_lab(folder: Path, runtime: Path) -> Iterator[str]:
    """The address of `jupyter lab` in a folder, with its token, as a pattern. runtime: where its own files are."""
    own = {name: str(runtime / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    flags = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"]
    with (runtime / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyter", "lab", *flags]
        process = subprocess.Popen(command, cwd=folder, env=child_env(**own), stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _wait_for(process, runtime)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(process: subprocess.Popen, runtime: Path) -> str:
    for _ in range(600):
        for path in runtime.glob(f"JUPYTER_RUNTIME_DIR/jpserver-{process.pid}.json"):
            told = json.loads(path.read_text() or "{}")
            if told and "is running at" in (runtime / "log").read_text():
                return f"http://127.0.0.1:{told['port']}{{}}?token={told['token']}"
        assert process.poll() is None, (runtime / "log").read_text()
        time.sleep(0.2)
    raise AssertionError((runtime / "log").read_text())
