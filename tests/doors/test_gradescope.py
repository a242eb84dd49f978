"""The zip for Gradescope: what is in it, how it is set up, and what its run_autograder makes of submissions.

It is run in a folder that is laid out like /autograder, with this project's own interpreter as the environment that
setup.sh would have made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from classroom import copy_tree, grading, handout, solution, write
from coursework import guide
from grading.cases import HIDDEN, load_cases, save_cases
from grading.errors import GradingError
from grading.hidden.doors import autograder as running
from grading.hidden.doors.gradescope import FILES, autograder, imported, seconds_per_call, write_zip
from grading.hidden.engine.session import CALLS_PER_SUBMISSION
from grading.hidden.handout.regions import solution_statements
from grading.hidden.handout.release import ANALYSIS
from grading.hidden.reports.result import FunctionResult, Result
from grading.hidden.sandbox.confinement import FIRST_UID, landlock_version
from grading.rubric import load_rubric
from harness import ROOT, child_env

RUBRIC = load_rubric()
RIGHT = {id: function.points for id, function in RUBRIC.functions.items()}
VAE, DIFFUSION, TINY_SD = RUBRIC.submit
FORBIDDING = Path(__file__).with_name("forbidding.py")
SOMEBODY = FIRST_UID - 2  # a user of whom nobody has heard
IS_ROOT = os.geteuid() == 0

METADATA = {
    "id": 123456,
    "created_at": "2026-03-02T14:22:32.365935-08:00",
    "assignment": {
        "due_date": "2026-03-01T23:00:00.000000-08:00",
        "group_size": None,
        "group_submission": False,
        "id": 25828,
        "course_id": 1234,
        "late_due_date": None,
        "release_date": "2026-02-01T00:00:00.000000-08:00",
        "title": "HW3",
        "total_points": "100.0",
    },
    "submission_method": "upload",
    "users": [{"email": "ada@example.com", "id": 1, "name": "Ada", "sid": "7"}],
    "previous_submissions": [],
}
VISIBILITIES = {"hidden", "after_due_date", "after_published", "visible"}
FORMATS = {"text", "html", "simple_format", "md", "ansi"}

# Tries what a container without a sandbox lets happen, and prints what became of it.
CHEAT = """
import json, os, socket, subprocess


def attempt(action):
    try:
        return str(action())
    except BaseException as error:
        return type(error).__name__


def write(path):
    with open(path, "w") as file:
        file.write('{"score": 100}')
    return "written"


def leave_behind():
    script = "while sleep 0.2; do echo '{}' > @ROOT@/results/results.json; done # @MARK@"
    subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return "left"


print("tried: " + json.dumps({
    "cases": attempt(lambda: len(open("@ROOT@/source/grading/hidden/reference/cases/kl.npz", "rb").read())),
    "source": attempt(lambda: os.listdir("@ROOT@/source")),
    "metadata": attempt(lambda: open("@ROOT@/submission_metadata.json").read()),
    "results": attempt(lambda: write("@ROOT@/results/results.json")),
    "new results": attempt(lambda: write("@ROOT@/results/new")),
    "unlink": attempt(lambda: os.unlink("@ROOT@/results/results.json")),
    "become root": attempt(lambda: os.setuid(0)),
    "left": attempt(leave_behind),
    "socket": attempt(lambda: socket.socket().close()),
}))
"""


# -- a folder like /autograder ----------------------------------------------------------------------------


class Container:
    """The folder, and how submissions are handed in to it."""

    def __init__(self, root: Path, packed: Path) -> None:
        self.root, self.source = root, root / "source"
        for name in ("source", "results"):
            (root / name).mkdir()
        with zipfile.ZipFile(packed) as archive:
            for entry in archive.infolist():
                (self.source / archive.extract(entry, self.source)).chmod(entry.external_attr >> 16)
        (root / "venv").symlink_to(sys.prefix)

    def hand_in(self, files: dict[str, bytes], metadata: dict | None = METADATA) -> None:
        shutil.rmtree(self.root / "submission", ignore_errors=True)
        write(self.root / "submission", files)
        (self.root / "submission_metadata.json").unlink(missing_ok=True)
        if metadata is not None:
            (self.root / "submission_metadata.json").write_text(json.dumps(metadata))

    def run(self, *, forbidden: str = "", somebody: bool = False, opened: bool = False) -> dict:
        """What Gradescope does: run it, then read results.json. forbidden: as in forbidding.py."""
        (self.root / "results" / "results.json").unlink(missing_ok=True)
        command = [str(self.source / "run_autograder")]
        if forbidden:
            command = [sys.executable, str(FORBIDDING), forbidden, *command]
        if somebody:
            for path in (self.root, *self.root.rglob("*")):
                os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
            command = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups", *command]
        if somebody or opened:
            command = readable_by_all(command)
        env = child_env(HW3_AUTOGRADER=str(self.root))
        self.process = subprocess.run(
            command, cwd=self.root, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        found = json.loads((self.root / "results" / "results.json").read_bytes())
        assert_as_specified(found)
        return found


def readable_by_all(command: list[str]) -> list[str]:
    """The command, where everybody can read the interpreter, which may lie in root's own folder.

    For that the command gets its own view of the file system, in which root's folder holds nothing else.
    """
    base = Path(sys.base_prefix)
    closed = [path for path in reversed(base.parents) if not path.stat().st_mode & 0o001]
    if not closed:
        return command
    script = """set -e
place=$(mktemp -d); mount --bind "$1" "$place"; mount -t tmpfs -o mode=755 none "$2"; mkdir -p "$1"
mount --bind "$place" "$1"; shift 2; exec "$@" """
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(base), str(closed[0]), *command]


def needs_root_and_its_own_view() -> None:
    if not IS_ROOT:
        pytest.skip("only root can try this as another user: run this as root")
    if subprocess.run(readable_by_all(["true"]), capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{sys.base_prefix} is closed to other users, and `unshare --mount` is not permitted here")


def needs_landlock() -> None:
    if landlock_version() == 0:
        pytest.skip("this machine has no Landlock: run this on Linux 5.13 or later")


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "autograder.zip"
    result = grading("gradescope", "--out", path)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="module")
def container(packed) -> Iterator[Container]:
    """Not in pytest's folder, which is closed to other users."""
    with tempfile.TemporaryDirectory(prefix="autograder-") as folder:
        Path(folder).chmod(0o755)
        yield Container(Path(folder), packed)


def assert_as_specified(report: dict) -> None:
    """https://gradescope-autograders.readthedocs.io/en/latest/specs/: names, types and words of results.json."""
    kinds = {
        "score": (int, float),
        "execution_time": (int, float),
        "output": str,
        "output_format": str,
        "test_output_format": str,
        "test_name_format": str,
        "visibility": str,
        "stdout_visibility": str,
        "tests": list,
    }
    of_a_test = {
        **{"score": (int, float), "max_score": (int, float), "status": str, "name": str, "name_format": str},
        **{"number": str, "output": str, "output_format": str, "tags": list, "visibility": str},
    }
    for part, known in [(report, kinds), *((test, of_a_test) for test in report["tests"])]:
        assert part.keys() <= known.keys()
        assert all(isinstance(value, known[name]) for name, value in part.items()), part
        assert {part.get(name, "visible") for name in ("visibility", "stdout_visibility")} <= VISIBILITIES
        assert {value for name, value in part.items() if name.endswith("_format")} <= FORMATS
        assert part.get("status", "passed") in ("passed", "failed")
    assert "score" in report  # which all tests need not have, where the top has one
    assert report["stdout_visibility"] == "hidden"


def points(report: dict) -> dict[str, float]:
    return {test["tags"][0]: test["score"] for test in report["tests"] if "score" in test}


def for_students(report: dict) -> str:
    """All that somebody who is not an instructor ever gets."""
    return json.dumps({**report, "tests": [test for test in report["tests"] if test.get("visibility") != "hidden"]})


def for_the_instructor(report: dict) -> str:
    [found] = [test["output"] for test in report["tests"] if test.get("visibility") == "hidden"]
    return found


def without_times(report: dict) -> str:
    hidden = [
        line.rpartition("; ")[0] if line.endswith(" s)") else line for line in for_the_instructor(report).split("\n")
    ]
    return json.dumps({**report, "execution_time": 0, "tests": [*report["tests"][:-1], hidden]})


def cheat(container: Container, mark: str) -> dict[str, bytes]:
    code = CHEAT.replace("@ROOT@", str(container.root)).replace("@MARK@", mark)
    return {**handout(), VAE: handout()[VAE] + code.encode()}


def tried(report: dict) -> dict[str, str]:
    [line] = [line for line in report["output"].splitlines() if line.startswith("tried: ")]
    return json.loads(line.removeprefix("tried: "))


def alive(mark: str) -> list[str]:
    """The processes whose command line has this in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if mark.encode() in path.read_bytes() else []
        except OSError:  # it ended
            continue
    return found


@pytest.mark.slow
def test_submissions_in_the_sandbox(container):
    """Right, half, broken and cheating; and nothing of one is left for the next."""
    needs_landlock()
    container.hand_in(solution(), {**METADATA, "created_at": "2026-03-01T00:00:00-08:00"})
    right = container.run()
    assert right["score"] == RUBRIC.total
    assert points(right) == RIGHT
    assert for_the_instructor(right).startswith("Isolation: the submission ran in the sandbox.")
    assert "WARNING" not in json.dumps(right)
    assert container.process.stdout == container.process.stderr == ""

    container.hand_in(cheat(container, "cheat-in-a-sandbox"))
    cheating = container.run()
    assert cheating["score"] == 0
    assert set(tried(cheating).values()) <= {"PermissionError", "OSError"}, tried(cheating)
    assert "asked for the system call `socket`, which was refused" in for_the_instructor(cheating)
    assert "socket" not in for_students(cheating).replace(json.dumps(cheating["output"]), "")

    container.hand_in({VAE: b"def broken(:\n"}, None)
    broken = container.run()
    assert broken["score"] == 0
    assert "HW3/vae.py cannot be imported: SyntaxError" in for_students(broken)
    assert f"{DIFFUSION} is missing" in for_students(broken)
    assert "submission_metadata.json cannot be used (FileNotFoundError" in for_the_instructor(broken)
    assert "Status: missing-files; import-error." in for_the_instructor(broken)
    assert "metadata" not in for_students(broken)

    # Who uploads single files has them without their folders; and other things may lie beside them.
    files = {Path(file).name: content for file, content in {**solution(), DIFFUSION: handout()[DIFFUSION]}.items()}
    container.hand_in({**files, "notes/other.py": b"1 / 0\n", "ada.zip": b"PK\x03\x04 no zip"})
    half = container.run()
    earned = sum(function.points for function in RUBRIC.functions.values() if function.file != DIFFUSION)
    assert half["score"] == pytest.approx(0.9 * earned)  # a day begun costs ten per cent
    assert sum(points(half).values()) == earned
    late = next(test for test in half["tests"] if test["name"] == "Lateness")
    assert late["output"] == f"Handed in 15.4 hours late: this costs {earned / 10:g} points."

    container.hand_in(solution(), {**METADATA, "created_at": "2026-03-01T00:00:00-08:00"})
    assert without_times(container.run()) == without_times(right)
    assert {path.name for path in (container.root / "results").iterdir()} == {"results.json"}


def test_without_landlock_root_runs_submissions_as_another_user_under_a_filter(container):
    needs_root_and_its_own_view()
    container.hand_in(cheat(container, "cheat-under-a-filter"))
    report = container.run(forbidden="landlock", opened=True)
    told = for_the_instructor(report)
    assert told.startswith("WARNING: NO LANDLOCK.")
    assert "this kernel has none" in told
    assert "ISOLATION" not in for_students(report).upper()
    assert "LANDLOCK" not in for_students(report)
    assert report["score"] == 0
    assert set(tried(report).values()) <= {"PermissionError", "OSError"}, tried(report)
    assert "asked for the system call `socket`, which was refused" in told


def test_without_filters_too_what_a_submission_leaves_behind_ends_with_it(container):
    needs_root_and_its_own_view()
    container.hand_in(cheat(container, "cheat-as-another-user"))
    report = container.run(forbidden="landlock,seccomp", opened=True)
    assert for_the_instructor(report).startswith("WARNING: NO SANDBOX.")
    assert report["score"] == 0
    outcome = tried(report)
    assert outcome.pop("left") == "left"
    assert outcome.pop("socket") == "None"
    assert set(outcome.values()) == {"PermissionError"}, outcome
    assert alive("cheat-as-another-user") == []
    container.hand_in(solution())
    assert points(container.run(forbidden="landlock,seccomp", opened=True)) == RIGHT


def test_where_nothing_is_possible_the_instructor_is_told_and_nobody_else(container):
    container.hand_in(solution())
    report = container.run(forbidden="landlock,seccomp,user")
    assert points(report) == RIGHT
    assert for_the_instructor(report).startswith("WARNING: NO ISOLATION.")
    assert "solation" not in for_students(report)


@pytest.mark.slow
def test_an_ordinary_user(packed):
    needs_root_and_its_own_view()
    needs_landlock()
    with tempfile.TemporaryDirectory(prefix="autograder-") as folder:
        Path(folder).chmod(0o755)
        container = Container(Path(folder), packed)
        container.hand_in(solution())
        report = container.run(somebody=True)
        assert points(report) == RIGHT
        assert for_the_instructor(report).startswith("Isolation: the submission ran in the sandbox.")
        report = container.run(somebody=True, forbidden="landlock")
        assert points(report) == RIGHT
        assert for_the_instructor(report).startswith("WARNING: NO ISOLATION.")


def test_results_are_there_when_it_is_killed(container):
    container.hand_in(solution())
    script = container.source / "run_autograder"
    text = script.read_text()
    script.write_text(text.replace("timeout --kill-after=5 585", "timeout --kill-after=5 0.2"))
    report = container.run()
    script.write_text(text)
    assert container.process.returncode == 124
    assert report == json.loads((FILES / "stopped.json").read_text())
    assert report["score"] == 0
    assert "nothing about your code" in report["output"]


def test_why_nothing_could_be_graded_is_told_to_the_instructor(container):
    container.hand_in(solution())
    (container.source / "grading" / "rubric.toml").rename(container.root / "moved")
    report = container.run()
    (container.root / "moved").rename(container.source / "grading" / "rubric.toml")
    assert report["score"] == 0
    assert "rubric.toml cannot be read" in for_the_instructor(report)
    assert "rubric" not in for_students(report)


# -- the zip ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return autograder(RUBRIC)


def test_the_zip_is_the_same_bytes_each_time_and_can_be_run(packed, files, tmp_path):
    write_zip(tmp_path / "again.zip", files)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == sorted(files)
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert {place for place, mode in modes.items() if mode & 0o111} == {"setup.sh", "run_autograder"}
    assert not [place for place in ("setup.sh", "run_autograder") if b"\r" in files[place]]


def test_it_holds_no_solution_and_nothing_that_made_the_cases(files):
    hidden = {place for place in files if place.startswith("grading/hidden/")}
    assert not [place for place in hidden if place.startswith("grading/hidden/reference/") and ".npz" not in place]
    stays = ("tests/", "docs/INSTRUCTOR", "docs/ARCHITECTURE", "docs/imgs/", "bench/", ".git/")
    assert not [place for place in files if place.startswith(stays)]
    given = b"".join(
        content for place, content in files.items() if place.endswith(".py") and place not in RUBRIC.submit
    )
    for file in RUBRIC.submit:
        assert b"BEGIN SOLUTION" not in files[file]
        secret = [text for text in solution_statements((ROOT / file).read_text(), file) if len(text) >= 30]
        assert not [text for text in secret if text.encode() in given]
        left = [text for text in secret if text in files[file].decode()]
        assert left == [text for text in left if text in handout()[file].decode()]
    assert ANALYSIS in files
    assert not [line for line in guide() if line.encode() in b"".join(files.values())]


def test_every_file_of_the_grader_in_it_is_imported_there(container):
    """By the run itself, in the tree of the zip: what is missing stops it, and what is too much is found here."""
    code = "import json, sys, grading.hidden.doors.autograder as _; print(json.dumps([m for m in sys.modules]))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=container.source, env=child_env(), capture_output=True, text=True, check=True)
    modules = set(json.loads(found.stdout))
    worker = {"frames", "pages", "confinement", "zygote"}
    for path in (container.source / "grading" / "hidden").rglob("*.py"):
        if "files" in path.parts:  # what a handout is made of, which is read
            continue
        name = ".".join(path.relative_to(container.source).with_suffix("").parts).removesuffix(".__init__")
        assert name in modules or path.stem in worker, name


def test_what_is_imported_is_followed_through_packages():
    found = imported("grading/hidden/doors/autograder.py")
    assert {"grading/__init__.py", "grading/hidden/engine/session.py", "grading/hidden/intake/platforms.py"} <= found
    assert "grading/hidden/reference/formulas.py" not in found


def test_six_calls_that_run_into_their_limit_fit_into_gradescopes(files):
    for minutes in range(3, 41):
        calls = CALLS_PER_SUBMISSION * seconds_per_call(minutes)
        assert 2 <= seconds_per_call(minutes) <= 10
        assert calls < 60 * minutes - 60
    assert b"timeout --kill-after=5 1185 " in autograder(RUBRIC, minutes=20)["run_autograder"]
    for minutes in ("2", "41", "x"):
        result = grading("gradescope", "--out", "never.zip", "--time-limit", minutes)
        assert result.returncode == 2


def test_other_hidden_cases(tmp_path, files):
    for path in HIDDEN.glob("*.npz"):
        shutil.copy(path, tmp_path / path.name)
    other = [replace(case, tolerance=(1e-3, 1e-3)) for case in load_cases(HIDDEN / "kl.npz", hidden=True)]
    save_cases(tmp_path / "kl.npz", other)
    packed = autograder(RUBRIC, tmp_path)
    assert [place for place in files if packed[place] != files[place]] == ["grading/hidden/reference/cases/kl.npz"]
    shutil.copy(HIDDEN / "guidance.npz", tmp_path / "kl.npz")
    with pytest.raises(GradingError, match=r"kl: the group .* has no hidden case"):
        autograder(RUBRIC, tmp_path)
    (tmp_path / "kl.npz").write_bytes(b"no cases")
    with pytest.raises(GradingError, match="holds no hidden cases that can be read"):
        autograder(RUBRIC, tmp_path)
    (tmp_path / "kl.npz").unlink()
    result = grading("gradescope", "--out", tmp_path / "out" / "a.zip", "--cases", tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("grading: error: ")
    assert result.stderr.count("\n") == 1
    assert "kl.npz cannot be read" in result.stderr
    assert not (tmp_path / "out").exists()


# -- setup.sh ---------------------------------------------------------------------------------------------

_FAKE_PYTHON = """#!/bin/bash
echo "python3 $*" >> "$LOG"
if [ "$2" = venv ]; then
  rm -rf "$4"; mkdir -p "$4/bin"; cp "$FAKES/venv-python" "$4/bin/python"
fi
"""
_FAKE_ENVIRONMENT = """#!/bin/bash
echo "venv $*" >> "$LOG"
case "$*" in *download.pytorch.org*) exit "$INDEX" ;; esac
"""


@pytest.mark.parametrize("name", ["setup.sh", "run_autograder"])
def test_the_scripts_are_bash(name):
    subprocess.run(["bash", "-n", str(FILES / name)], check=True)


@pytest.mark.parametrize("reachable", [True, False])
def test_torch_and_torchvision_come_from_one_index(tmp_path, files, reachable):
    """Without a network, with programs that write down how they are called."""
    source, fakes, log = tmp_path / "source", tmp_path / "fakes", tmp_path / "log"
    write(source, files)
    write(fakes, {"python3": _FAKE_PYTHON.encode(), "venv-python": _FAKE_ENVIRONMENT.encode()})
    write(fakes, {"apt-get": b'#!/bin/bash\necho "apt-get $*" >> "$LOG"\n'})
    for path in fakes.iterdir():
        path.chmod(0o755)
    env = {"PATH": f"{fakes}:{os.environ['PATH']}", "FAKES": str(fakes), "LOG": str(log)}
    env |= {"INDEX": "0" if reachable else "1", "HW3_AUTOGRADER": str(tmp_path)}
    result = subprocess.run(["bash", str(source / "setup.sh")], env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = log.read_text().splitlines()
    torch = [number for number, line in enumerate(lines) if "requirements-torch.txt" in line]
    assert "--index-url https://download.pytorch.org/whl/cpu" in lines[torch[0]]
    assert len(torch) == (1 if reachable else 2)
    for number in torch:
        assert lines[number - 1].startswith("python3 -m venv --clear ")  # nothing of a first try is left
    if not reachable:
        assert "index-url" not in lines[torch[1]]
        assert "come from PyPI" in result.stderr
    [rest] = [number for number, line in enumerate(lines) if "-r requirements.txt" in line]
    assert rest > torch[-1]
    assert "-r requirements-grading.txt" in lines[rest]
    assert "import torch, torchvision, grading.hidden.doors.autograder" in lines[-1]
    assert (source / "setup.sh").stat().st_mode & 0o077 == 0
    assert [line.partition(">")[0] for line in (source / "requirements-torch.txt").read_text().split()] == [
        "torch",
        "torchvision",
    ]


# -- lateness, and who sees what --------------------------------------------------------------------------


def read(tmp_path: Path, change: Callable[[dict], None] = lambda data: None) -> running.HandedIn:
    data = json.loads(json.dumps(METADATA))
    change(data)
    (tmp_path / "metadata.json").write_text(json.dumps(data))
    return running.read_metadata(tmp_path / "metadata.json")


def test_lateness_is_counted_from_the_students_own_date(tmp_path):
    def extended(data):
        data["users"][0]["assignment"] = {"due_date": "2026-03-03T08:00:00+01:00", "late_due_date": None}

    def of_a_group(data):
        extended(data)
        data["users"].append({"email": "bob@example.com"})

    def no_date(data):
        data["users"][0]["assignment"] = {"due_date": None}

    def earlier(data):
        data["created_at"] = "2026-03-02T06:59:59Z"

    def later(data):
        data["created_at"] = "2026-03-02T08:00:00Z"

    assert read(tmp_path).hours_late == pytest.approx(15.376, abs=1e-3)
    assert read(tmp_path, extended).hours_late == 0
    assert read(tmp_path, of_a_group).hours_late == 0
    assert "bob@example.com 2026-03-01" in read(tmp_path, of_a_group).remarks[-1]
    assert read(tmp_path, no_date).hours_late == 0
    assert read(tmp_path, earlier).hours_late == 0
    assert read(tmp_path, later).hours_late == 1


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b"\xff", b"[" * 100_000),
        *(json.dumps({**METADATA, "created_at": text}).encode() for text in (3, "x", "2026-03-02T14:22:32")),
        json.dumps({**METADATA, "users": [None]}).encode(),
    ],
)
def test_metadata_that_cannot_be_understood_cost_nobody_points(tmp_path, content):
    (tmp_path / "metadata.json").write_bytes(content)
    found = running.read_metadata(tmp_path / "metadata.json")
    assert found.hours_late == 0
    assert found.remarks[0].startswith("WARNING: submission_metadata.json cannot be used")


@pytest.mark.parametrize("visibility", sorted(VISIBILITIES))
def test_no_number_of_points_is_seen_before_the_tests_are(visibility):
    rubric = replace(RUBRIC, visibility=visibility)
    functions = [FunctionResult(id, 3.25, f.points, problem="wrong") for id, f in rubric.functions.items()]
    result = Result("submission", "", "", "process", functions, hours_late=30.0, penalty=5.85)
    found = running.report(result, rubric, ["WARNING: remarks"])
    assert_as_specified(found)
    assert found["score"] == pytest.approx(9 * 3.25 - 5.85)
    assert found["output"] == ""
    assert {test["visibility"] for test in found["tests"][:-1]} == {visibility}
    assert found["tests"][-1]["visibility"] == "hidden"
    assert sum("5.85" in test["output"] for test in found["tests"][:-1]) == 1


def test_settings_reach_the_run(container):
    needs_landlock()
    settings = container.source / "settings.json"
    before = settings.read_bytes()
    settings.write_bytes(autograder(RUBRIC, visibility="after_due_date", penalty=False)["settings.json"])
    container.hand_in({**solution(), DIFFUSION: handout()[DIFFUSION]})
    report = container.run()
    settings.write_bytes(before)
    assert report["score"] == sum(points(report).values())
    assert report["visibility"] == "after_due_date"
    late = next(test for test in report["tests"] if test["name"] == "Lateness")
    assert (late["output"], late["visibility"]) == (
        "Handed in 15.4 hours late: nothing is taken off.",
        "after_due_date",
    )


def test_the_zip_needs_the_instructors_tree(tmp_path):
    """A tree in which something is missing, or does not agree, gives no zip."""
    tree = copy_tree(tmp_path / "tree")
    (tree / "requirements-grading.txt").unlink()
    result = grading("gradescope", "--out", tmp_path / "a.zip", tree=tree)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "requirements-grading.txt cannot be read" in result.stderr
    assert not (tmp_path / "a.zip").exists()
