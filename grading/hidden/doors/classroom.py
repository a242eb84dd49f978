"""GitHub Classroom's clones: what a student's default branch held at the deadline.

A clone is hostile as a whole: it may be somebody's folder with a `.git` of his own making. Git runs what a repository's
configuration, hooks and attributes name, so none of these is ever read. Git is given a repository of our own, without
any, and of the clone the objects only, to look them up by their hashes; branches are read here, as text. What is found
becomes a zip of the files that are graded, which is then read like any other submission.

Dates in commits are written by who commits, and can be any. GitHub's own times of pushes are in the table of grades
that Classroom exports, which `--late-csv` takes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from grading.errors import GradingError
from grading.hidden.intake.inbox import Handin, listed
from grading.hidden.intake.platforms import is_litter
from grading.hidden.intake.untrusted import MAX_DEPTH, Piece, Refused, is_wanted, open_plain
from grading.rubric import Rubric

MAX_COMMITS = 10_000  # looked at in one clone
MAX_TREES = 2_000
MAX_FILES = 100  # that may be graded ones
MAX_OBJECT_BYTES = 4 << 20
MAX_ENTRIES = 100_000  # in the folder of objects
MAX_MEMORY_BYTES = 2 << 30
CLASSROOM = "classroom"  # as a platform
SECONDS = 60  # for one clone
_LITTLE_MEMORY = ("core.packedGitWindowSize=16m", "core.packedGitLimit=256m", "core.deltaBaseCacheLimit=64m")
_LOST = "cannot be read: it is damaged, or takes too long"
_SHA1 = re.compile(r"[0-9a-f]{40}")
_BRANCH = re.compile(r"ref: (refs/(?:heads|remotes)/[\w./-]+)")


class NoHistory(Exception):
    """Why a clone's history is not read, as the end of a sentence."""


@dataclass(frozen=True)
class Commit:
    """time: of the committer."""

    id: str
    tree: str
    parents: tuple[str, ...]
    time: datetime


def at_deadline(handins: Sequence[Handin], before: datetime | None, folder: Path, rubric: Rubric) -> list[Handin]:
    """Clones with the time of their last commit; with `before`, as they were then, as zips in `folder`.

    Of a clone whose history cannot be read, what lies in the folder is graded, and with `before` nothing.
    """
    found, others = [], []
    for number, handin in enumerate(handins):
        clone = _clone(handin)
        if clone is None or not (before or handin.platform == CLASSROOM):
            found.append(handin)
            others.append(handin.name)
            continue
        try:
            found.append(_at(replace(handin, platform=CLASSROOM), clone, before, folder / f"{number}.zip", rubric))
        except NoHistory as problem:
            note = f"The repository's history {problem}. Nothing of it is graded."
            found.append(_empty(handin, note) if before else handin)
    if before and others:
        print(f"grading: warning: --before is for clones; graded as they are: {listed(others)}", file=sys.stderr)
    return found


def _clone(handin: Handin) -> Path | None:
    """The folder that is a clone; None for anything else."""
    [piece] = handin.pieces if len(handin.pieces) == 1 else [None]
    if piece is None or piece.member is not None or piece.name or not os.path.lexists(piece.path / ".git"):
        return None
    return piece.path


def _empty(handin: Handin, note: str) -> Handin:
    return replace(handin, pieces=(), notes=(*handin.notes, note))


def _at(handin: Handin, clone: Path, before: datetime | None, path: Path, rubric: Rubric) -> Handin:
    with _objects(clone) as objects:
        newest = objects.commit(_tip(clone / ".git"))
        commit: Commit | None = newest
        if before is None:
            return replace(handin, submitted=newest.time.isoformat(sep=" "))
        for _ in range(MAX_COMMITS):
            if commit is None or commit.time <= before:
                break
            commit = objects.commit(commit.parents[0]) if commit.parents else None
        else:
            raise NoHistory(f"has more than {MAX_COMMITS:,} commits after the deadline")
        when = f"{before:%Y-%m-%d %H:%M %z}".rstrip()
        if commit is None:
            return _empty(handin, f"There is no commit at or before {when}: nothing is graded.")
        pieces = _zipped(objects, commit, path, rubric)
        here = commit.time.astimezone(before.tzinfo)
        note = f"Graded is commit {commit.id[:10]} of {here:%Y-%m-%d %H:%M %z}, the last one at or before {when}."
        submitted = commit.time.isoformat(sep=" ")
        return replace(handin, pieces=pieces, notes=(*handin.notes, note), submitted=submitted)


def _zipped(objects: _Objects, commit: Commit, path: Path, rubric: Rubric) -> tuple[Piece, ...]:
    """The commit's files that may be graded, as members of a zip. No name of theirs is ever a path on this disk."""
    wanted = {file.rpartition("/")[2].lower() for file in rubric.submit}
    found = {name: (mode, id) for name, mode, id in itertools.islice(objects.files(commit.tree, wanted), MAX_FILES)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (mode, id) in found.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16  # so that a link is refused as one
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, objects.read(id, "blob", rubric.max_file_bytes + 1))  # refused for the byte more
        members = archive.infolist()
    return tuple(Piece(member.filename, path, member) for member in members)


# -- branches, as text ----------------------------------------------------------------------------------------


def _tip(git: Path) -> str:
    """The commit of the default branch, as the server had it when it was cloned; else of the branch at hand."""
    for head in ("refs/remotes/origin/HEAD", "HEAD"):
        text = _text(git, head)
        for _ in range(2):
            if text and _SHA1.fullmatch(text):
                return text
            match = _BRANCH.fullmatch(text or "")
            if not match or ".." in match[1] or "//" in match[1]:
                break
            text = _text(git, match[1]) or _packed(git, match[1])
    raise NoHistory("cannot be read: no branch is found")


def _text(git: Path, name: str) -> str:
    """A small text file below .git, "" when there is none. No link on the way is followed."""
    place = git
    for part in name.split("/"):
        if os.path.islink(place):
            return ""
        place = place / part
    try:
        with open_plain(place) as file:
            return file.read(4096).decode("ascii", "replace").strip()
    except (Refused, OSError):
        return ""


def _packed(git: Path, branch: str) -> str:
    try:
        with open_plain(git / "packed-refs") as file:
            lines = file.read(MAX_OBJECT_BYTES).decode("ascii", "replace").splitlines()
    except (Refused, OSError):
        return ""
    return next((line[:40] for line in lines if line[41:] == branch and _SHA1.fullmatch(line[:40])), "")


# -- objects, through git -------------------------------------------------------------------------------------


def _require_own_objects(git: Path) -> Path:
    """The folder of objects. Raises NoHistory where anything in it leads elsewhere: to another's work, say."""
    folder = git / "objects"
    try:
        for place in (git, folder):
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                raise NoHistory("is refused: `.git` leads elsewhere")
        left = MAX_ENTRIES
        for root, folders, files in os.walk(folder):
            left -= len(folders) + len(files)
            if left < 0:
                raise NoHistory(f"is refused: it has more than {MAX_ENTRIES:,} files")
            for name in (*folders, *files):
                kind = stat.S_IFMT(os.lstat(os.path.join(root, name)).st_mode)
                if kind not in (stat.S_IFDIR, stat.S_IFREG) or name.endswith("alternates"):
                    raise NoHistory("is refused: its objects lie elsewhere")
    except OSError:
        raise NoHistory("cannot be read") from None
    return folder


@contextlib.contextmanager
def _objects(clone: Path) -> Iterator[_Objects]:
    """Read the objects of a clone, for SECONDS at most."""
    folder = _require_own_objects(clone / ".git")
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(tempfile.TemporaryDirectory(prefix="hw3-git-"))
        for name in ("objects", "refs"):
            os.mkdir(os.path.join(own, name))
        Path(own, "HEAD").write_text("ref: refs/heads/none\n", encoding="ascii")
        sizes, contents = (_git(stack, own, folder, option) for option in ("--batch-check", "--batch"))
        yield _Objects(sizes, contents)


def _git(stack: contextlib.ExitStack, own: str, objects: Path, option: str) -> subprocess.Popen[bytes]:
    """`git cat-file` in a repository of our own, with a clone's objects."""
    settings = ("core.commitGraph=false", "core.multiPackIndex=false", *_LITTLE_MEMORY)
    command = ["git", *(part for setting in settings for part in ("-c", setting)), "cat-file", option]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": own,
        "LC_ALL": "C",
        "GIT_DIR": own,
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, cwd=own, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise GradingError(f"git cannot be started, which clones need: {error.strerror}") from error
    stack.callback(process.communicate)
    stack.callback(process.kill)
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(OSError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    alarm = threading.Timer(SECONDS, process.kill)
    alarm.daemon = True
    alarm.start()
    stack.callback(alarm.cancel)
    return process


@dataclass
class _Objects:
    """Two git processes that answer: how large an object is, and what is in it."""

    sizes: subprocess.Popen[bytes]
    contents: subprocess.Popen[bytes]
    trees_left: int = MAX_TREES

    def commit(self, id: str) -> Commit:
        """Raises NoHistory, as all of these do."""
        head, _, _ = self.read(id, "commit", MAX_OBJECT_BYTES).partition(b"\n\n")
        tree = re.match(rb"tree ([0-9a-f]{40})\n", head)
        parents = re.findall(rb"^parent ([0-9a-f]{40})$", head, re.MULTILINE)
        time = re.search(rb"^committer .*> (\d{1,11}) [+-]\d{4}$", head, re.MULTILINE)
        if not tree or not time:
            raise NoHistory("is damaged")
        try:
            when = datetime.fromtimestamp(int(time[1]), timezone.utc)
        except (ValueError, OverflowError, OSError):
            raise NoHistory("has a commit of no date") from None
        return Commit(id, tree[1].decode(), tuple(parent.decode() for parent in parents), when)

    def files(self, tree: str, wanted: set[str], around: tuple[str, ...] = ()) -> Iterator[tuple[str, int, str]]:
        """(path, mode, id) of what may be a graded file."""
        self.trees_left -= 1
        if self.trees_left < 0:
            raise NoHistory(f"is refused: it has more than {MAX_TREES:,} folders")
        content = self.read(tree, "tree", MAX_OBJECT_BYTES)
        for mode, name, id in re.findall(rb"([0-7]{5,6}) ([^\0/]+)\0(.{20})", content, re.DOTALL):
            parts = (*around, name.decode("utf-8", "replace"))
            kind = stat.S_IFMT(int(mode, 8))
            if kind == stat.S_IFDIR and len(parts) < MAX_DEPTH and not is_litter(parts[-1]):
                yield from self.files(id.hex(), wanted, parts)
            elif kind in (stat.S_IFREG, stat.S_IFLNK) and is_wanted(parts, wanted):
                yield "/".join(parts), int(mode, 8), id.hex()

    def read(self, id: str, kind: str, limit: int) -> bytes:
        """An object; of a larger one, as many zeros."""
        size = self._ask(self.sizes, id, kind)
        if size > limit:
            if kind != "blob":
                raise NoHistory("is refused: it has huge objects")
            return bytes(limit)
        if self._ask(self.contents, id, kind) != size:
            raise NoHistory("is damaged")
        assert self.contents.stdout is not None
        content = self.contents.stdout.read(size + 1)
        if len(content) != size + 1:
            raise NoHistory(_LOST)
        return content[:-1]

    def _ask(self, process: subprocess.Popen[bytes], id: str, kind: str) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(id.encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline(200).split()
        except OSError:
            raise NoHistory(_LOST) from None
        if answer[1:] == [b"missing"]:
            raise NoHistory("is not whole: it is a shallow clone, or damaged")
        if len(answer) != 3 or answer[1] != kind.encode() or not answer[2].isdigit():
            raise NoHistory(_LOST)
        return int(answer[2])
