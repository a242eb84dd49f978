"""What HW3.ipynb does besides showing text: run the assignment's commands, and show what they write while they run.

lab = Lab(dataset="digits", quick=True)
lab.check("kl")                       # pytest grading/ -k kl, in short
lab.train("vae")                      # python train_vae.py, with its curves and newest pictures
lab.run("evaluate.py", "result/vae/convae_latest.pt")

A command runs in a process of its own, as it would in a terminal. So a mistake in a function reaches the notebook as
the lines that the command ends with, and never stops "Run all".
"""

from __future__ import annotations

import ast
import glob
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from IPython.display import DisplayHandle, Image, display

from HW3.plumbing.startup import old_python

SECONDS = 1.0  # between two looks at what a command has written
LINES, WIDTH = 25, 300  # of a command's output that are shown; its end is what says how it went
LINES_OF_A_FAILURE = 12
TORCH = ("torch", "torchvision")


class Stop(Exception):
    """Something without which no cell works. The notebook shows its text and no traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]


class Lab:
    """The settings of the notebook's first cell, and the commands with them.

    again: train anew what is trained already.  more: flags for every training script, after all others.
    """

    def __init__(self, *, dataset: str = "mnist", quick: bool = True, again: bool = False, more: str = "") -> None:
        self.flags = ["--dataset", dataset, *["--quick"] * quick]
        self.again, self.more = again, shlex.split(more)

    def train(self, stage: str, *flags: object) -> None:
        """`python train_STAGE.py`, with its curves and its newest pictures.

        What is trained already is continued, which does nothing where it is complete.
        """
        folder = Path("result", stage)
        start = [] if not any(folder.glob("*_latest.pt")) else ["--overwrite" if self.again else "--resume"]
        command = [
            f"train_{stage}.py",
            *self.flags,
            *map(str, flags),
            *self.more,
            "--out-dir",
            folder.as_posix(),
            *start,
        ]
        _follow(command, pictures=lambda: newest_pictures(folder))

    def draw(self, checkpoint: str, out: str, *flags: object) -> None:
        """`python sample.py CHECKPOINT --out OUT`, and the picture."""
        if _follow(["sample.py", checkpoint, *map(str, flags), "--out", out]):
            display(Image(filename=out))

    def run(self, *command: object) -> None:
        """`python COMMAND`, with `*` in the names of files."""
        words = [str(word) for word in command]
        _follow([found for word in words for found in sorted(glob.glob(word)) or [word]])

    def check(self, only: str = "") -> None:
        """`pytest grading/ -k ONLY`: the first failure of each function, then the points."""
        chosen = ["-k", only] if only else []
        print("$", *_quoted("pytest", "grading/", *chosen))
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.xml")
            quiet = ["-q", "--tb=no", "-rN", "--no-header", "--color=no", f"--junitxml={report}"]
            lines, _ = _run(["-m", "pytest", "grading/", *chosen, *quiet])
            failures = first_failures(report) if report.is_file() else {}
        for id, message in failures.items():
            print(f"{id}: {shorten(message)}\n")
        points = next((i for i, line in enumerate(lines) if re.fullmatch(r"=+ (to do|points) =+", line)), None)
        print("\n".join(lines[-LINES:] if points is None else lines[points + 1 :]))

    def pack(self, name: str) -> None:
        """`python -m grading pack`, and on Colab the zip as a download."""
        if not name.strip():
            print(
                'pack: write your name into NAME in the first cell, NAME = "Ada Lovelace"; run that cell and this one'
            )
        elif _follow(["-m", "grading", "pack", "--name", name]) and "google.colab" in sys.modules:
            from google.colab import files

            files.download(str(max(Path.cwd().glob("hw3-*.zip"), key=lambda path: path.stat().st_mtime)))


# -- set-up --------------------------------------------------------------------------------------------------


def set_up() -> None:
    """Install what requirements.txt names and this Python lacks; nothing that is there changes its version.

    Raises Stop, in one line, where that is impossible.
    """
    if problem := old_python():
        raise Stop(f"{problem}: choose another kernel")
    missing, kept = what_is_missing(Path("requirements.txt"))
    if missing:
        print("installing", ", ".join(missing))
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder, "constraints.txt")
            constraints.write_text("".join(f"{package}=={there}\n" for package, there in kept.items()))
            pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(constraints)]
            lines, code = _run([*pip, *missing])
        if code != 0:
            last = next((line for line in reversed(lines) if line.strip()), "")
            raise Stop(f"pip could not install {', '.join(missing)} ({last}): try again, or choose a newer runtime")
    lines, code = _run(["-c", "import torch, torchvision; print(torch.__version__, torch.cuda.is_available())"])
    if code != 0:
        raise Stop(
            f"torch does not work here ({lines[-1] if lines else 'no output'}): choose another runtime or kernel"
        )
    found, has_gpu = lines[-1].split()
    print(
        f"Python {sys.version.split()[0]}, torch {found}, {'a GPU' if has_gpu == 'True' else 'no GPU'}; in {Path.cwd()}"
    )


def what_is_missing(requirements: Path) -> tuple[list[str], dict[str, str]]:
    """(requirements that are not met, what is installed of all: name -> version).

    Raises Stop for a torch that is too old: a platform's own is never replaced, as others depend on it.
    """
    from packaging.requirements import Requirement  # comes with every kernel

    missing, kept = [], {}
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if not (text := line.partition("#")[0].strip()):
            continue
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            missing.append(f"{requirement.name}{requirement.specifier}")
            continue
        if requirement.specifier.contains(there, prereleases=True):
            kept[requirement.name] = there
        elif requirement.name in TORCH:
            needed = f"{requirement.name} {there} is installed, and {requirement.specifier} is needed"
            raise Stop(f"{needed}: choose a newer runtime, or a kernel with its own packages")
        else:
            missing.append(f"{requirement.name}{requirement.specifier}")
    return missing, kept


# -- what commands write -------------------------------------------------------------------------------------


def newest_pictures(folder: Path) -> dict[str, Path]:
    """The curves, and the last picture of each series (`samples_epoch_012.png`): series -> file."""
    found = [folder / "loss.png"] * (folder / "loss.png").is_file() + sorted(folder.glob("*_epoch_*.png"))
    return {re.sub(r"_epoch_\d+$", "", path.stem): path for path in found}


def first_failures(report: Path) -> dict[str, str]:
    """id -> message of the first case of each function that failed, from a report in JUnit's XML."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        graded = next((p.get("value", "") for p in case.iter("property") if p.get("name") == "graded"), None)
        name = ast.literal_eval(graded)[0] if graded else re.sub(r"\[.*", "", case.get("name", ""))
        for problem in (*case.findall("failure"), *case.findall("error")):
            found.setdefault(name, problem.get("message", "").removeprefix("Failed: "))
    return found


def shorten(message: str) -> str:
    """The first lines of a message, none of them endless."""
    lines = message.strip().splitlines()
    more = [f"... ({len(lines) - LINES_OF_A_FAILURE} more lines)"] if len(lines) > LINES_OF_A_FAILURE else []
    return "\n".join([*map(_clip, lines[:LINES_OF_A_FAILURE]), *more])


def _clip(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[:WIDTH]} ..."


def _quoted(*words: str) -> list[str]:
    return [f'"{word}"' if re.search(r"[\s*]", word) else word for word in words]


# -- processes -----------------------------------------------------------------------------------------------


class _Output(threading.Thread):
    """Reads what a process prints as it comes, and keeps the end: a loop that prints must not fill the notebook."""

    def __init__(self, process: subprocess.Popen[bytes], keep: int) -> None:
        super().__init__(daemon=True)
        self.process, self.kept, self.count = process, deque[str](maxlen=keep), 0
        self.lock = threading.Lock()
        self.start()

    def run(self) -> None:
        assert self.process.stdout is not None
        is_new = True
        while chunk := self.process.stdout.readline(4096):  # a line that does not end comes in pieces
            if is_new:
                with self.lock:
                    self.kept.append(_clip(chunk.decode("utf-8", errors="replace").rstrip("\r\n")))
                    self.count += 1
            is_new = chunk.endswith(b"\n")

    def lines(self) -> list[str]:
        """The last lines, after one that counts those above."""
        with self.lock:
            above = self.count - len(self.kept)
            return [*[f"... ({above:,} lines above)"] * (above > 0), *self.kept]


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # Its own session: the notebook's stop button reaches it once, through `_stop`, and not twice.
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, upon which the scripts finish the step and save."""
    if os.name == "posix":
        process.send_signal(signal.SIGINT)
    else:
        process.terminate()  # Windows has no Ctrl-C for one process; the last checkpoint stays
    process.wait()


def _run(command: Sequence[str]) -> tuple[list[str], int]:
    """A short command: (the last lines of its output, its exit code)."""
    process = _start(command)
    output = _Output(process, keep=20 * LINES)
    try:
        process.wait()
    except KeyboardInterrupt:
        _stop(process)
        raise
    output.join()
    return output.lines(), process.returncode


def _follow(command: Sequence[str], pictures: Callable[[], dict[str, Path]] = dict) -> bool:
    """Run a command; while it runs, show the end of its output, and pictures whenever they are new."""
    print("$", *_quoted("python", *command))
    text, shown = display(_Text([]), display_id=True), _Shown()
    process = _start(command)
    output, began = _Output(process, keep=LINES), time.monotonic()
    try:
        while process.poll() is None:
            text.update(_Text([*output.lines(), f"[{time.monotonic() - began:.0f} s]"]))
            shown.update(pictures())
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        _stop(process)
    output.join()
    text.update(_Text(output.lines()))
    shown.update(pictures())
    return process.returncode == 0


class _Text:
    """Plain text as an output that can be replaced."""

    def __init__(self, lines: list[str]) -> None:
        self.text = "\n".join(lines)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": self.text}


class _Shown:
    """Pictures below each other, each in an output of its own, which the next of its series replaces."""

    def __init__(self) -> None:
        self.outputs: dict[str, DisplayHandle] = {}
        self.times: dict[str, int] = {}

    def update(self, pictures: dict[str, Path]) -> None:
        """Show what is new. pictures: series -> its newest file."""
        for series, path in pictures.items():
            time = path.stat().st_mtime_ns
            if self.times.get(series) == time:
                continue
            self.times[series] = time
            picture = Image(data=path.read_bytes(), format="png")
            if series in self.outputs:
                self.outputs[series].update(picture)
            else:
                self.outputs[series] = display(picture, display_id=True)
