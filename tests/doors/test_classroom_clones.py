"""GitHub Classroom's clones at the deadline, of which nothing runs, whatever their students put into .git."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import timedelta

import pytest

from grading.hidden.decisions.lateness import from_platform, moment
from grading.hidden.doors import classroom
from grading.hidden.doors.classroom import at_deadline
from grading.hidden.intake.inbox import find
from grading.rubric import load_rubric

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

RUBRIC = load_rubric()
VAE, DIFFUSION, TINY = RUBRIC.submit
DUE = moment("2026-03-01T12:00Z", "")


def git(folder, *args, at=None, **env):
    """Run git as a student would, with both dates of a commit at `at` hours after DUE."""
    if at is not None:
        env |= dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), (DUE + timedelta(hours=at)).isoformat())
    config = [*("-c", "user.name=ada"), *("-c", "user.email=a@b"), *("-c", "init.defaultBranch=main")]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **env}
    command = ["git", *config, *("-c", "protocol.file.allow=always"), *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder, at, **files):
    for name, content in files.items():
        path = folder / {"vae": VAE, "diffusion": DIFFUSION}.get(name, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    git(folder, "add", "-A")
    git(folder, "commit", "--allow-empty", "-m", "x", at=at)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def clones(tmp_path):
    """A folder of two clones, as `gh classroom clone` makes them. The first has commits around the deadline."""
    for name in ("ada", "bob"):
        origin = tmp_path / "github" / name
        origin.mkdir(parents=True)
        git(origin, "init")
        commit(origin, -2, vae=f"{name} early\n", notes="x")
        commit(origin, -1, vae=f"{name} in time\n", diffusion="d\n")
        commit(origin, 3, vae=f"{name} late\n")
        git(tmp_path, "clone", str(origin), str(tmp_path / "hw3-submissions" / f"hw3-{name}"))
    return tmp_path / "hw3-submissions"


def read(clones, before=DUE):
    """student -> (files, notes, how late) of each clone, as it was."""
    handins = at_deadline(find([clones], RUBRIC).handins, before, clones.parent / "zips", RUBRIC)
    contents = {handin.student: handin.read(RUBRIC) for handin in handins}
    late = {handin.student: from_platform(handin, DUE)[0] for handin in handins}
    return {who: (dict(found.files), " ".join(found.notes), late[who]) for who, found in contents.items()}


def test_the_last_commit_in_time_is_graded(clones):
    found = read(clones)
    files, notes, late = found["ada"]
    assert files == {VAE: b"ada in time\n", DIFFUSION: b"d\n"}
    assert (found["bob"][0][VAE], late) == (b"bob in time\n", 0)
    assert "the last one at or before 2026-03-01 12:00" in notes
    assert git(clones / "hw3-ada", "rev-parse", "HEAD~1")[:10] in notes
    assert read(clones, DUE - timedelta(hours=1.5))["ada"][0] == {VAE: b"ada early\n"}


def test_without_a_deadline_the_folder_is_graded_and_the_commit_says_when(clones):
    files, _, late = read(clones, None)["ada"]
    assert (files[VAE], late) == (b"ada late\n", 3)


def test_one_clone_by_itself_and_what_is_none(clones, capsys):
    [ada] = at_deadline(find([clones / "hw3-ada"], RUBRIC).handins, DUE, clones.parent / "zips", RUBRIC)
    assert ada.read(RUBRIC).files[VAE] == b"ada in time\n"
    assert capsys.readouterr().err == ""
    shutil.rmtree(clones / "hw3-bob" / ".git")
    assert read(clones)["bob"][0][VAE] == b"bob late\n"
    assert "--before is for clones; graded as they are: hw3-bob" in capsys.readouterr().err


def test_no_commit_in_time(clones):
    files, notes, _ = read(clones, DUE - timedelta(days=9))["ada"]
    assert files == {}
    assert "There is no commit at or before" in notes
    assert f"{VAE} is missing" in notes


def test_packed_branches_and_objects(clones):
    for command in (("pack-refs", "--all"), ("repack", "-adq"), ("update-ref", "-d", "refs/remotes/origin/x")):
        git(clones / "hw3-ada", *command)
    assert read(clones)["ada"][0][VAE] == b"ada in time\n"


def test_only_what_is_on_the_default_branch(clones):
    ada = clones / "hw3-ada"
    git(ada, "checkout", "-q", "-b", "other", "HEAD~1")
    commit(ada, -0.5, vae="other\n")
    assert read(clones)["ada"][0][VAE] == b"ada in time\n"


def _traps(ada, marker):
    """Whatever of a repository makes git run something."""
    run = f"touch {marker}"
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        path = ada / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\n{run}\n")
        path.chmod(0o755)
    keys = ("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "diff.external")
    keys += ("filter.x.smudge", "filter.x.clean", "filter.x.process", "diff.x.textconv", "credential.helper")
    keys += ("core.alternateRefsCommand", "uploadpack.packObjectsHook", "gpg.program", "alias.cat-file")
    for key in keys:
        git(ada, "config", key, f"!{run}" if key.startswith("alias") else run)
    git(ada, "config", "core.hooksPath", str(ada / ".git" / "hooks"))
    (ada / ".gitattributes").write_text("* filter=x diff=x\n")
    (ada / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    settings = f'[include]\n\tpath = {ada}/more\n[remote "origin"]\n\tpromisor = true\n'
    settings += "[core]\n\trepositoryformatversion = 99\n"  # which git refuses: that this is not read can be seen
    (ada / ".git" / "config").open("a").write(settings)
    (ada / "more").write_text(f"[core]\n\tfsmonitor = {run}\n")


def test_nothing_of_a_clone_is_run(clones, tmp_path):
    _traps(clones / "hw3-ada", tmp_path / "ran")
    (tmp_path / "ran").unlink(missing_ok=True)  # git config itself may have fallen into one
    found = read(clones)
    assert found["ada"][0][VAE] == b"ada in time\n"
    assert not (tmp_path / "ran").exists()


def test_replaced_commits_and_grafts_do_not_count(clones):
    ada = clones / "hw3-ada"
    forged = commit(ada, 5, vae="forged\n")
    git(ada, "reset", "-q", "--hard", "HEAD~1")
    in_time = git(ada, "rev-parse", "HEAD~1")
    git(ada, "replace", in_time, forged)
    (ada / ".git" / "info" / "grafts").write_text(f"{git(ada, 'rev-parse', 'HEAD')}\n")
    assert read(clones)["ada"][0][VAE] == b"ada in time\n"


@pytest.mark.parametrize("how", ["alternates", "objects", "pack", "gitfile", "gitlink"])
def test_what_leads_to_anothers_work_is_refused(clones, how):
    ada, bob = clones / "hw3-ada" / ".git", clones / "hw3-bob" / ".git"
    tip = git(bob, "rev-parse", "HEAD")
    if how == "alternates":
        (ada / "objects" / "info").mkdir(exist_ok=True)
        (ada / "objects" / "info" / "alternates").write_text(f"{bob}/objects\n")
    elif how in ("objects", "pack"):
        git(bob.parent, "repack", "-adq")
        place = "objects" if how == "objects" else "objects/pack"
        shutil.rmtree(ada / place)
        (ada / place).symlink_to(bob / place)
    else:
        shutil.rmtree(ada)
        ada.write_text(f"gitdir: {bob}\n") if how == "gitfile" else ada.symlink_to(bob)
    if how in ("alternates", "objects", "pack"):
        for ref in ("refs/heads/main", "refs/remotes/origin/main"):
            (ada / ref).parent.mkdir(parents=True, exist_ok=True)
            (ada / ref).write_text(f"{tip}\n")
    files, notes, _ = read(clones)["ada"]
    assert files == {}
    assert "Nothing of it is graded" in notes
    assert read(clones)["bob"][0][VAE] == b"bob in time\n"


def test_links_submodules_and_names_that_lead_out(clones, tmp_path):
    ada = clones / "hw3-ada"
    (tmp_path / "secret").write_text("secret")
    blob = git(ada, "hash-object", "-w", VAE)
    link = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=ada, input=b"../../secret", capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    inner = _tree(ada, f"120000 blob {link}\tvae.py")
    upwards = _tree(ada, f"100644 blob {blob}\tdiffusion.py")
    entries = f"040000 tree {upwards}\t..\n160000 commit {'1' * 40}\tsub\n040000 tree {inner}\tHW3"
    tree = _tree(ada, entries)
    forged = git(ada, "commit-tree", tree, "-m", "x", at=-0.1)
    (ada / ".git" / "refs" / "remotes" / "origin" / "main").write_text(f"{forged}\n")
    files, notes, _ = read(clones)["ada"]
    assert files == {}
    assert "is a link, which is not followed" in notes
    assert "leads out of the zip" in notes


def _tree(folder, entries):
    command = ["git", "mktree", "--missing"]
    done = subprocess.run(command, cwd=folder, input=f"{entries}\n".encode(), capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_large_files_are_not_loaded(clones):
    ada = clones / "hw3-ada"
    commit(ada, -0.1, vae="x" * 3 * RUBRIC.max_file_bytes)
    git(ada, "update-ref", "refs/remotes/origin/main", "HEAD")
    [handin, _] = at_deadline(find([clones], RUBRIC).handins, DUE, clones.parent / "zips", RUBRIC)
    assert max(piece.member.file_size for piece in handin.pieces) == RUBRIC.max_file_bytes + 1
    files, notes, _ = read(clones)["ada"]
    assert list(files) == [DIFFUSION]
    assert "is larger than" in notes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HEAD", ""),
        ("HEAD", "ref: refs/heads/../../../bob/.git/HEAD"),
        ("HEAD", "ref: refs/heads/main\n"),
        ("refs/remotes/origin/main", "0" * 40),
        ("refs/remotes/origin/main", "-h"),
        ("refs/remotes/origin/main", "\0" * 5000),
    ],
)
def test_broken_branches_are_one_note(clones, name, content):
    git_folder = clones / "hw3-ada" / ".git"
    if name == "HEAD":
        (git_folder / "refs" / "remotes" / "origin" / "HEAD").unlink()
        shutil.rmtree(git_folder / "refs" / "heads")
    (git_folder / name).write_text(content)
    shutil.rmtree(git_folder / "logs")
    files, notes, _ = read(clones)["ada"]
    if name != "HEAD" and content in ("-h", "\0" * 5000):  # no branch there: the one at hand
        assert files[VAE] == b"ada in time\n"
    else:
        assert files == {}
        assert "The repository's history" in notes


def test_a_clone_without_end_is_given_up(clones, monkeypatch):
    monkeypatch.setattr(classroom, "MAX_COMMITS", 1)
    assert "more than 1 commits" in read(clones)["ada"][1]


def test_damaged_objects_are_one_note(clones):
    for path in (clones / "hw3-ada" / ".git" / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    files, notes, _ = read(clones)["ada"]
    assert files == {}
    assert "The repository's history" in notes
