"""`python -m grading grade`: what it writes, what it survives, and that nothing is lost or graded twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import classroom
from classroom import (
    comparable,
    copy_tree,
    from_bank,
    grades,
    grading,
    handout,
    processes_in,
    solution,
    start,
    write,
)
from grading.findings import Finding
from grading.hidden.engine import session
from grading.hidden.engine.grade import Exam, found_by_measuring
from grading.hidden.reference.bank import BANK
from grading.judge import Verdict
from grading.rubric import Hints, load_rubric
from harness import assert_one_line, child_env

IDS = list(load_rubric().functions)
FULL = {id: function.points for id, function in load_rubric().functions.items()}
FILES = {id: function.file for id, function in load_rubric().functions.items()}
VAE, DIFFUSION, TINY_SD = load_rubric().submit

FOREVER = b"\n    while True:\n        pass\n"
SWALLOWS = b"\n    while True:\n        try:\n            pass\n        except:\n            pass\n"
ASKS = b"\nimport socket\ntry:\n    socket.socket()\nexcept OSError:\n    pass\n"


# -- what is told of hidden cases -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("idea", ""),
        ("term", "the weight of `eps` is wrong"),
        ("factor", "the weight of `eps` is wrong (by the same factor everywhere)"),
    ],
)
def test_what_was_measured_most_often_is_told_as_far_as_the_rubric_wants(level, told):
    rubric = replace(load_rubric(), hints=Hints(self_check="factor", feedback=level))
    often, once = (Finding("weight", "x0", (name,), factor="same", number=3.25) for name in ("eps", "x_t"))
    failed = [Verdict(False, measure=lambda f=f: f) for f in ([once], [often], [], [often])]
    assert found_by_measuring(Exam(rubric, {}, {}, {}, 1.0), failed) == told


# -- one class of odd submissions ----------------------------------------------------------------------------


def _method(file: str, cls: str, name: str, body: bytes) -> dict[str, bytes]:
    """The solution, with one method or function replaced."""
    place = f"{cls}.{name}" if cls else name
    text = f"\n\ndef _{name}(*args, **kwargs):".encode() + body + f"\n\n{place} = _{name}\n".encode()
    return {**solution(), file: solution()[file] + text}


ODD = {
    "right": solution(),
    "untouched": handout(),
    "loop-in-kl": _method(VAE, "", "kl_divergence", FOREVER),
    "loop-in-predict-x0": _method(DIFFUSION, "GaussianDiffusion", "predict_x0", FOREVER),
    "loop-swallows": _method(
        VAE,
        "",
        "kl_divergence",
        b"\n    while True:\n        try:\n            pass\n        except:\n            pass\n",
    ),
    "loop-on-import": {**solution(), DIFFUSION: b"while True:\n    pass\n"},
    "exit-in-kl": _method(VAE, "", "kl_divergence", b"\n    import os\n    os._exit(0)\n"),
    "raise-in-kl": _method(VAE, "", "kl_divergence", b"\n    raise ValueError(f'secret {args}')\n"),
    "sys-exit-in-kl": _method(VAE, "", "kl_divergence", b"\n    raise SystemExit(0)\n"),
    "syntax-error": {**solution(), DIFFUSION: solution()[DIFFUSION] + b"\n def\n"},
    "raises-on-import": {**solution(), VAE: b"raise RuntimeError('mind the gap')\n"},
    "missing": {VAE: solution()[VAE]},
    "prints": {**solution(), VAE: solution()[VAE] + b"\nprint('<script>alert(1)</script>' * 3)\n"},
    "floods": {**solution(), VAE: solution()[VAE] + b"\nprint('x' * 5_000_000)\n"},
    "asks": {
        **solution(),
        VAE: solution()[VAE] + b"\nimport socket\ntry:\n    socket.socket()\nexcept OSError:\n    pass\n",
    },
    "no-utf8": {**solution(), VAE: b"\xff\xfe\x00"},
    "two-mistakes": _method(
        DIFFUSION,
        "GaussianDiffusion",
        "q_posterior",
        b"""
    self, x0, x_t, t = args
    tables = (self.alphas, self.betas, self.alpha_bars, self.alpha_bars_prev)
    alpha, beta, bar, before = (self.at(table, t, x0) for table in tables)
    return bar.sqrt() * beta / (1 - bar) * x0 + alpha.sqrt() * (1 - before) / (1 - bar) * x_t, beta
""",
    ),
    "no-such-row": _method(
        DIFFUSION,
        "GaussianDiffusion",
        "q_sample",
        b"\n    self, x0, t, noise = (*args, None)[:4]\n    return self.at(self.alpha_bars, t - 9, x0) * x0  # here\n",
    ),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """The graded odd ones, with a zip, a broken zip and an empty folder among them."""
    root = tmp_path_factory.mktemp("odd")
    for name, files in ODD.items():
        write(root / "in" / name, files)
    with zipfile.ZipFile(root / "in" / "zipped.zip", "w") as archive:
        for file, content in solution().items():
            archive.writestr(f"hw3-zipped/{file}", content)
    (root / "in" / "broken.zip").write_bytes(b"PK\x03\x04 not a zip")
    (root / "in" / "empty").mkdir()
    (root / "tmp").mkdir()
    run = ("grade", root / "in", "--out", root / "out", "--timeout", 3, "--workers", 2)
    result = grading(*run, TMPDIR=str(root / "tmp"))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return root / "out"


def lost(row: dict[str, str]) -> set[str]:
    """The ids without full points."""
    return {id for id in IDS if float(row[id]) < FULL[id]}


@pytest.mark.parametrize(
    ("name", "ids", "status"),
    [
        ("right", (), "ok"),
        ("zipped", (), "ok"),
        ("prints", (), "ok"),
        ("floods", (), "ok"),
        ("asks", (), "ok"),
        ("untouched", IDS, "ok"),
        ("loop-in-kl", ("kl",), "timeout"),
        ("loop-in-predict-x0", ("predict-x0",), "timeout"),
        ("loop-swallows", ("kl",), "timeout"),
        ("loop-on-import", [id for id in IDS if FILES[id] == DIFFUSION], "import-error; timeout"),
        ("exit-in-kl", ("kl",), "crash"),
        ("raise-in-kl", ("kl",), "ok"),
        ("sys-exit-in-kl", ("kl",), "ok"),
        ("syntax-error", [id for id in IDS if FILES[id] == DIFFUSION], "import-error"),
        ("raises-on-import", ("reparameterize", "kl"), "import-error"),
        ("no-utf8", ("reparameterize", "kl"), "import-error"),
        ("missing", [id for id in IDS if FILES[id] != VAE], "missing-files"),
        ("broken", IDS, "unreadable"),
        ("empty", IDS, "missing-files"),
        ("two-mistakes", ("posterior",), "ok"),
        ("no-such-row", ("q-sample",), "ok"),
    ],
)
def test_costs_its_own_ids_only(odd, name, ids, status):
    row = grades(odd)[name]
    assert lost(row) == set(ids)
    assert all(float(row[id]) == 0 for id in ids)
    assert row["status"] == status
    assert float(row["total"]) == sum(FULL[id] for id in IDS if id not in ids)


def report(out: Path, name: str) -> dict:
    return json.loads((out / name / "results.json").read_text())["extra_data"]["result"]


def test_what_happened_is_told(odd):
    assert "timeout in kl: no answer within 3 seconds" in report(odd, "loop-in-kl")["events"]
    assert any("predict-x0" in event for event in report(odd, "loop-in-predict-x0")["events"])
    assert "crash in kl: the process ended itself" in report(odd, "exit-in-kl")["events"]
    assert any("`socket`" in event for event in report(odd, "asks")["events"])
    assert report(odd, "right")["events"] == []


def test_hidden_inputs_stay_hidden(odd):
    """An exception's text is shown for public inputs only, where everybody knows them."""
    (function,) = [f for f in report(odd, "raise-in-kl")["functions"] if f["id"] == "kl"]
    assert function["problem"].startswith("raises ValueError in line ")
    assert "secret" not in function["problem"]
    assert "secret" in function["public"]


def test_of_public_checks_all_causes_are_told_and_of_hidden_ones_one(odd):
    (posterior,) = [f for f in report(odd, "two-mistakes")["functions"] if f["id"] == "posterior"]
    assert "mistake: x0 is weighted with ᾱ of the wrong step" in posterior["public"]
    assert "mistake: the variance is that of a forward step" in posterior["public"]
    assert posterior["mistake"] in ("beta_as_variance", "data_weight_at_t")


def test_the_line_is_the_students_own(odd):
    """And not that of the given helper which it called."""
    (q_sample,) = [f for f in report(odd, "no-such-row")["functions"] if f["id"] == "q-sample"]
    lines = ODD["no-such-row"][DIFFUSION].decode().splitlines()
    own = next(number for number, line in enumerate(lines, start=1) if line.endswith("# here"))
    assert f" in line {own} of {DIFFUSION}" in q_sample["public"]
    assert "usually: a time from outside the schedule reached a table" in q_sample["public"]


def test_output_is_kept_escaped_and_cut(odd):
    assert report(odd, "prints")["output"].count("<script>") == 3
    assert "<script>" not in (odd / "prints" / "feedback.html").read_text()
    assert len(report(odd, "floods")["output"]) <= 20_000
    assert report(odd, "floods")["output_dropped"] > 4_000_000
    assert (odd / "floods" / "feedback.html").stat().st_size < 200_000


def test_nothing_is_left_behind(odd):
    files = sorted(path.name for path in odd.iterdir() if not path.is_dir())
    assert files == [".record.json", "grades.csv", "summary.html"]
    assert list((odd.parent / "tmp").iterdir()) == []
    assert processes_in(odd.parent) == []


# -- the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def one(tmp_path) -> Path:
    return write(tmp_path / "in" / "ada", solution())


def test_resume_grades_what_is_missing_or_changed(one, tmp_path):
    write(tmp_path / "in" / "bob", handout())
    run = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--only", "guidance")
    assert grading(*run).returncode == 0
    stamps = {name: (tmp_path / "out" / name / "results.json").stat().st_mtime_ns for name in ("ada", "bob")}
    write(tmp_path / "in" / "bob", solution())
    assert grading(*run, "--resume").returncode == 0
    again = {name: (tmp_path / "out" / name / "results.json").stat().st_mtime_ns for name in ("ada", "bob")}
    assert (again["ada"] == stamps["ada"], again["bob"] == stamps["bob"]) == (True, False)
    assert grades(tmp_path / "out")["bob"]["guidance"] == "5"
    shutil.rmtree(tmp_path / "out" / "ada")
    (tmp_path / "out" / "bob" / "results.json").write_text("{")
    assert grading(*run, "--resume").returncode == 0
    assert {name: row["total"] for name, row in grades(tmp_path / "out").items()} == {"ada": "5", "bob": "5"}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["reports/templates/feedback.html", "sandbox/confinement.py"])
def test_resume_grades_again_after_a_change_of_the_grader(one, tmp_path, file):
    tree = copy_tree(tmp_path / "tree")
    run = ("grade", one, "--out", tmp_path / "out", "--only", "guidance", "--resume")
    result, stamps = tmp_path / "out" / "ada" / "results.json", []
    for _ in range(2):
        assert grading(*run, tree=tree).returncode == 0
        stamps.append(result.stat().st_mtime_ns)
    with (tree / "grading" / "hidden" / file).open("a") as changed:
        changed.write("\n")
    assert grading(*run, tree=tree).returncode == 0
    assert stamps[0] == stamps[1] != result.stat().st_mtime_ns


def test_what_cannot_be_written_is_one_line(one, tmp_path):
    (tmp_path / "out" / "grades.csv").mkdir(parents=True)
    result = grading("grade", one, "--out", tmp_path / "out", "--only", "guidance")
    assert_one_line(result, 1, "cannot write", "grades.csv", "choose another folder")


def test_only_grades_one_id(one, tmp_path):
    assert grading("grade", one, "--out", tmp_path / "out", "--only", "guidance").returncode == 0
    assert grades(tmp_path / "out")["ada"] == {
        "submission": "ada", "student": "ada", "total": "5", "earned": "5", "penalty": "0", "guidance": "5",
        "status": "ok",
    }  # fmt: skip


def zip_to(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def test_everything_given_is_accounted_for(tmp_path):
    """Two students whose names look like one of Canvas', a student with two rows, and what is none."""
    inbox = tmp_path / "in"
    for name in ("hw3_2024_1001_ada", "hw3_2024_1002_bob", "cyd"):
        zip_to(inbox / f"{name}.zip", solution())
    write(inbox / "cyd", handout())
    write(inbox, {"vae.py": solution()[VAE], "notes.txt": b"", ".DS_Store": b""})
    result = grading("grade", inbox, "--out", tmp_path / "out", "--only", "guidance")
    assert result.returncode == 1
    assert result.stdout.splitlines()[:-1] == [
        "6 given, 4 graded (4 ok), 2 not understood:",
        "  notes.txt is neither a folder nor a zip",
        "  vae.py lies loose: put it into a folder or a zip of its student's",
    ]
    assert result.stderr == "grading: warning: cyd has 2 rows: cyd, cyd-2\n"
    totals = {name: row["total"] for name, row in grades(tmp_path / "out").items()}
    assert totals == {"hw3_2024_1001_ada": "5", "hw3_2024_1002_bob": "5", "cyd": "0", "cyd-2": "5"}


def test_another_students_result_is_not_overwritten(tmp_path):
    """A zip that holds what looks like an export of Canvas', with others' names."""
    for user, files in enumerate((solution(), handout(), solution()), 101):
        zip_to(tmp_path / "in" / f"student{user}_{user}_{user + 1000}_hw3.zip", files)
    run = ("--out", tmp_path / "out", "--only", "guidance")
    first = grading("grade", tmp_path / "in", *run)
    assert (first.returncode, first.stdout.splitlines()[0]) == (
        0,
        "3 given, named by canvas, 3 graded (3 ok), 0 not understood",
    )
    assert {row["student"]: row["total"] for row in grades(tmp_path / "out").values()} == {
        "101": "5",
        "102": "0",
        "103": "5",
    }
    bad = zip_to(tmp_path / "bad.zip", handout()).read_bytes()
    inside = {"student101_101_1101_hw3.zip": bad, "student104_104_1104_hw3.zip": bad}
    mallory = zip_to(tmp_path / "mallory.zip", inside)
    before = comparable(tmp_path / "out")
    again = grading("grade", mallory, *run)
    assert_one_line(again, 2, "student101_101_1101_hw3", "--replace", "another --out")
    assert comparable(tmp_path / "out") == before
    # The same submission may be graded again, by itself or with the others.
    ada = tmp_path / "in" / "student101_101_1101_hw3.zip"
    assert grading("grade", ada, *run, "--platform", "canvas").returncode == 0
    assert grades(tmp_path / "out")["student101_101_1101_hw3"]["student"] == "101"
    assert grading("grade", mallory, *run, "--replace").returncode == 0
    assert grades(tmp_path / "out")["student101_101_1101_hw3"]["total"] == "0"


def test_lateness_costs_what_the_rubric_says(one, tmp_path):
    (tmp_path / "late.csv").write_text("student,hours_late\nada,30\nnobody,2\n")
    late = ("--late-csv", tmp_path / "late.csv")
    result = grading("grade", one, "--out", tmp_path / "out", "--only", "guidance", *late)
    assert result.returncode == 0
    assert "nobody here is called 'nobody'" in result.stderr
    row = grades(tmp_path / "out")["ada"]
    assert (row["total"], row["earned"], row["penalty"]) == ("4", "5", "1")  # two days begun: 20 % of 5 points


def test_process_isolation_is_told_in_every_report(one, tmp_path):
    result = grading("grade", one, "--out", tmp_path / "out", "--only", "guidance", "--isolation", "process")
    assert (result.returncode, "without isolation" in result.stderr) == (0, True)
    assert grades(tmp_path / "out")["ada"]["total"] == "5"
    for path in ("ada/feedback.html", "ada/results.json", "summary.html"):
        assert "ithout isolation" in (tmp_path / "out" / path).read_text(), path


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("nowhere",), ("nowhere",)),
        ((".", "--only", "posteriour"), ("posteriour", "posterior")),
        ((".", "--late-csv", "nowhere.csv"), ("nowhere.csv",)),
        ((".", "--out", "file/out"), ("file/out",)),
    ],
)
def test_a_mistake_is_one_line(one, tmp_path, args, parts):
    (tmp_path / "file").write_text("")
    args = [
        tmp_path / "in" if arg == "." else tmp_path / arg if "/" in arg or "nowhere" in arg else arg for arg in args
    ]
    out = () if "--out" in args else ("--out", tmp_path / "out")
    assert_one_line(grading("grade", *args, *out), 2, *parts)


@pytest.mark.parametrize(
    ("text", "part"),
    [("ada,3\n", "columns"), ("student,hours_late\nada,soon\n", "line 2"), ("student,hours_late\nada,nan\n", "line 2")],
)
def test_a_bad_list_of_late_ones_is_one_line(one, tmp_path, text, part):
    (tmp_path / "late.csv").write_text(text)
    assert_one_line(
        grading("grade", one, "--out", tmp_path / "out", "--late-csv", tmp_path / "late.csv"), 2, "late.csv", part
    )


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    for number in range(6):
        write(tmp_path / "in" / str(number), solution())
    first = start("grade", tmp_path / "in", "--out", tmp_path / "out")
    try:
        _wait_for(tmp_path / "out" / ".lock")
        assert_one_line(grading("grade", tmp_path / "in", "--out", tmp_path / "out"), 2, "another run")
    finally:
        first.communicate()
    assert first.returncode == 0


def test_interrupting_keeps_what_is_done(tmp_path):
    for number in range(40):
        write(tmp_path / "in" / str(number), solution())
    run = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1)
    process = start(*run)
    _wait_for(tmp_path / "out" / "1" / "results.json")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "go on with --resume" in err
    done = len(list((tmp_path / "out").glob("*/results.json")))
    assert 1 <= done < 40
    assert grading(*run, "--resume").returncode == 0
    assert len(grades(tmp_path / "out")) == 40


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_files_do_not_stay(tmp_path, number):
    """They lie where no submission can guess; what a killed run leaves, the next one into the same folder removes."""
    for name in range(3):
        write(tmp_path / "in" / str(name), {**solution(), VAE: b"while True: pass"})
    tmp = tmp_path / "tmp"
    run = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1)
    foreign = tmp / "grading-0123456789abcdef0123456789abcdef"
    foreign.mkdir(parents=True)
    foreign.chmod(0o755)  # as we make none
    process = start(*run, TMPDIR=str(tmp))
    _wait_for(tmp_path / "out" / ".lock")
    end = time.monotonic() + 60
    while not list(tmp.glob("grading-*/box-*")):
        assert time.monotonic() < end
        time.sleep(0.02)
    [work] = {path for path in tmp.iterdir() if path != foreign}
    assert (work.stat().st_mode & 0o777, work.parent) == (0o700, tmp)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert work.exists() == (number == signal.SIGKILL)
    again = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--timeout", 0.2)
    assert grading(*again, TMPDIR=str(tmp)).returncode == 0
    (tmp_path / "out" / ".lock").write_text(str(foreign))  # whoever wrote it
    assert grading(*again, TMPDIR=str(tmp)).returncode == 0
    assert list(tmp.iterdir()) == [foreign]
    assert processes_in(tmp_path) == []


def test_one_student_graded_again_leaves_the_class_in_the_tables(tmp_path):
    for name in ("ada", "bob"):
        write(tmp_path / "in" / name, solution())
    out = tmp_path / "out"
    assert grading("grade", tmp_path / "in", "--out", out).returncode == 0
    write(tmp_path / "again" / "ada", handout())
    done = grading("grade", tmp_path / "again" / "ada", "--out", out, "--replace")
    assert done.returncode == 0, done.stderr
    assert "1 results of earlier runs stay in the tables: bob" in done.stdout
    assert {name: row["total"] for name, row in grades(out).items()} == {"ada": "0", "bob": "100"}
    assert "bob" in (out / "summary.html").read_text()


def test_a_submissions_time_runs_when_its_worker_is_up(monkeypatch):
    clock, asked = [0.0], []

    class SlowlyStarted:
        def __init__(self, *_: object) -> None:
            clock[0] += 100  # behind others, on a busy machine
            self.refused: dict[str, int] = {}

        def request(self, header: dict, arrays: dict, seconds: float) -> dict:
            asked.append((header["op"], seconds))
            clock[0] += 1
            return {}

    monkeypatch.setattr(session, "Worker", SlowlyStarted)
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    calls = session.Session(None, 0, {VAE: b""}, 1.0)
    calls.begin(load_rubric().functions["kl"], [], hidden=True)
    for _ in range(session.CALLS_PER_SUBMISSION - 1):
        calls.run("kl_divergence", {}, {})
    with pytest.raises(session.BudgetSpent):
        calls.run("kl_divergence", {}, {})
    assert asked == [("load", 1.0)] + [("call", 1.0)] * (session.CALLS_PER_SUBMISSION - 1)


def _wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def test_bank_entries_become_files():
    """A wheat as a file is a right submission; it is the machinery of these tests that is tested here."""
    files = from_bank(next(entry for entry in BANK if entry.is_wheat and entry.id == "posterior"))
    assert files.keys() == solution().keys()
    compile(files[DIFFUSION], DIFFUSION, "exec")
    assert classroom.handout() != solution()


# -- a disputed mark -------------------------------------------------------------------------------------------


def test_what_failed_is_kept_to_be_replayed(tmp_path):
    """For the instructor, who sees every number and may use a debugger."""
    source = solution()[DIFFUSION].decode()
    wrong = f"{source}\n\nGaussianDiffusion.predict_x0 = lambda self, x_t, t, eps: x_t - eps\n"
    write(tmp_path / "in" / "ada", {**solution(), DIFFUSION: wrong.encode()})
    write(tmp_path / "in" / "bob", solution())
    command = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--only", "predict-x0", "--only", "kl", "--keep")
    result = grading(*command)
    assert result.returncode == 0, result.stderr
    kept = tmp_path / "out" / "ada" / "keep"
    assert f"python {kept / 'replay.py'}" in result.stdout
    assert "bob: nothing failed" in result.stdout
    assert not (tmp_path / "out" / "bob" / "keep").exists()
    assert [path.name for path in (kept / "disputed").iterdir()] == ["predict-x0.npz"]
    assert (kept / DIFFUSION).read_text() == wrong
    assert {path.name for path in kept.parent.iterdir()} == {"keep", "feedback.html", "results.json"}
    for names, shown in ((), True), (("predict-x0/single",), False):
        replay = [sys.executable, str(kept / "replay.py"), *names]
        said = subprocess.run(replay, cwd=tmp_path, env=child_env(), capture_output=True, text=True, check=True).stdout
        assert said.startswith("This runs the student's code as you, without a sandbox.")
        assert "FAILED: `x0` is off by up to" in said
        assert "-- expected x0 (" in said
        assert "-- got x0 (" in said
        assert "-- input eps (" in said
        assert ("== predict-x0/hostile" in said) == shown
    assert grading(*command).returncode == 0  # once more over the same folder
    assert_one_line(
        grading("grade", tmp_path / "in", "--out", tmp_path / "o", "--keep"), 2, "--keep goes with --only ID"
    )
