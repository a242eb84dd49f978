"""The sandbox by itself: a child of this process is confined, and says what it may still do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from classroom import grading
from grading.errors import GradingError
from grading.hidden.sandbox import confinement, workers
from grading.hidden.sandbox.confinement import (
    CHANNEL,
    FILE_SIZE,
    FIRST_UID,
    Policy,
    SandboxError,
    landlock_version,
    seccomp_filter,
)
from grading.hidden.sandbox.surroundings import Surroundings
from harness import ROOT

VERSION = landlock_version()
UNSUPPORTED = errno.errorcode[errno.EOPNOTSUPP]
ASKED = "ENOSYS"  # the kernel's answer to system calls about which nobody is left to ask


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """What a worker may read, write and not see, each with a file in it."""
    found = {name: tmp_path / name for name in ("readable", "code", "scratch", "outside")}
    for path in found.values():
        path.mkdir()
        (path / "file").write_text("content")
    if os.geteuid() == 0:
        for path in (found["scratch"], found["scratch"] / "file"):
            os.chown(path, FIRST_UID, FIRST_UID)
    return found


def confined(places: dict[str, Path], action: Callable[[], object], version: int = VERSION) -> str:
    """The name of the error with which `action` ends in a confined child without a judge; "" if it does not."""
    policy = Policy.prepare([places["readable"]], seccomp_filter(version))
    policy.version = version
    policy.scopes = policy.scopes and version >= 6
    parent, (answer, channel) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(channel, CHANNEL)
        said = b"the sandbox"
        try:
            os.close(policy.confine(0, places["code"], places["scratch"], parent, 10))  # ASKED is what one gets then
            said = b""
            action()
        except OSError as error:
            said = said or errno.errorcode[error.errno].encode()
        finally:
            os.write(CHANNEL, said)
            os._exit(0)
    os.close(channel)
    with os.fdopen(answer) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    return said


def opened(path: Path, flags: int) -> Callable[[], object]:
    return lambda: os.close(os.open(path, flags, 0o600))


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_files(places, version):
    """With the rights that every version of Landlock knows, as on older kernels."""
    for name, flags, said in (
        ("readable", os.O_RDONLY, ""),
        ("code", os.O_RDONLY, ""),
        ("scratch", os.O_RDWR, ""),
        ("readable", os.O_WRONLY, "EACCES"),
        ("code", os.O_WRONLY, "EACCES"),
        ("outside", os.O_RDONLY, "EACCES"),
        ("outside", os.O_WRONLY, "EACCES"),
        ("readable", os.O_RDONLY | os.O_TRUNC, "EACCES" if version >= 3 else "EPERM"),
        ("outside", os.O_RDONLY | os.O_TRUNC, "EACCES" if version >= 3 else "EPERM"),
    ):
        found = confined(places, opened(places[name] / "file", flags), version)
        assert (name, flags, found) == (name, flags, said)
    assert {path.name: (path / "file").read_text() for path in places.values()} == dict.fromkeys(places, "content")


def test_the_scratch_folder_is_flat(places):
    assert confined(places, lambda: os.mkdir(places["scratch"] / "folder")) == "EPERM"
    assert confined(places, lambda: os.rename(places["scratch"] / "file", places["outside"] / "moved")) != ""
    assert os.listdir(places["outside"]) == ["file"]


def test_descriptors_run_out(places):
    file = places["readable"] / "file"
    assert confined(places, lambda: [os.open(file, os.O_RDONLY) for _ in range(50)]) == ""
    assert confined(places, lambda: [os.open(file, os.O_RDONLY) for _ in range(500)]) == "EMFILE"


def test_it_is_not_put_up_by_halves(monkeypatch):
    monkeypatch.setattr(confinement, "landlock_version", lambda: 0)
    with pytest.raises(SandboxError, match="Landlock"):
        Policy.prepare([], seccomp_filter(0))
    Policy.prepare([], None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can end another user's processes")
def test_nothing_of_a_user_is_left_not_even_what_ends_everything_else(monkeypatch):
    """Whoever is to be ended may signal all that this user has, and has the time to be first."""
    slot, kill = 77, os.kill
    asked, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(FIRST_UID + slot, FIRST_UID + slot, FIRST_UID + slot)
        os.write(ready, b"!")
        while True:
            with contextlib.suppress(OSError):
                kill(-1, signal.SIGKILL)
    os.read(asked, 1)
    os.close(asked)
    os.close(ready)
    monkeypatch.setattr(os, "kill", lambda *args: (time.sleep(0.3), kill(*args)))
    confinement.end_all_of(slot)
    for _ in range(1000):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        time.sleep(0.01)
    else:
        kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pytest.fail("it is still there")
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there are no such names")
def test_no_two_workers_on_a_machine_have_the_same_seat(monkeypatch):
    """Whichever run they are of: as root the seat is the user, and what ends all of a user must not end another's."""
    name = f"\0test-{os.getpid()}-"  # other tests take seats meanwhile
    monkeypatch.setattr(confinement, "_SEAT_NAME", name)
    ask = f"from grading.hidden.sandbox import confinement; confinement._SEAT_NAME = {name!r}; "
    ask += "seat, held = confinement.claim_seat(); print(seat, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", ask], text=True, cwd=ROOT, **pipes) as other:
        theirs = int(other.stdout.readline())
        held = [confinement.claim_seat() for _ in range(3)]
        assert (theirs, *(seat for seat, _ in held)) == (0, 1, 2, 3)
        other.kill()
        other.wait()
    held.append(confinement.claim_seat())
    assert held[-1][0] == theirs, "a seat whose process was killed is free"
    for _, holder in held:
        holder.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there are no such names")
def test_a_run_may_end_while_a_worker_is_left_behind(tmp_path, monkeypatch):
    zygote = workers.Zygote(tmp_path, enforced=False)
    starting, start = threading.Event(), threading.Thread.start

    def slowly(thread):
        if thread is not leaving:
            starting.set()
            time.sleep(0.2)
        start(thread)

    leaving = threading.Thread(target=zygote.leave_behind, args=(zygote.take_seat(0), tmp_path / "box", None))
    monkeypatch.setattr(threading.Thread, "start", slowly)
    leaving.start()
    assert starting.wait(10)
    zygote.close()
    leaving.join()


def test_seats_run_out(monkeypatch):
    monkeypatch.setattr(confinement, "USERS", 0)
    with pytest.raises(SandboxError, match="all 0 seats"):
        confinement.claim_seat()


def test_filters_that_are_forbidden_are_told(monkeypatch):
    """As in a container whose runtime refuses them: libseccomp then knows no such filter."""
    import pyseccomp

    def refuse(action):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(pyseccomp, "SyscallFilter", refuse)
    with pytest.raises(SandboxError, match="no filter can be put up here"):
        seccomp_filter(0)


def test_doctor_tries_it():
    result = grading("doctor")
    assert result.returncode == 0, result.stdout
    assert "ALLOWED" not in result.stdout
    assert result.stdout.count("refused") >= 17
    assert ("hidden  " in result.stdout) != ("visible  " in result.stdout)


# -- what reaches the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", sorted({2, VERSION}))
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (os.O_RDWR, ""),
        (os.O_RDWR | os.O_APPEND, ""),
        (os.O_RDWR | os.O_CREAT, ASKED),
        (os.O_WRONLY | os.O_CREAT | os.O_EXCL, ASKED),
        (os.O_PATH | os.O_CREAT | os.O_APPEND, ASKED),
        (os.O_RDWR | os.O_TRUNC, ""),
        (os.O_RDWR | os.O_CREAT | os.O_TRUNC, ASKED),
        (os.O_RDWR | os.O_TMPFILE, UNSUPPORTED),
        (os.O_RDWR | os.O_TMPFILE | os.O_CREAT, UNSUPPORTED),
        (os.O_RDWR | os.O_TMPFILE | os.O_TRUNC, UNSUPPORTED),
        (os.O_RDWR | os.O_TMPFILE & ~os.O_DIRECTORY, UNSUPPORTED),
    ],
)
def test_whoever_creates_a_file_asks(places, version, flags, said):
    """Every combination of flags has one answer, with Landlock's truncation and without."""
    if version < 3 and flags & os.O_TRUNC and said != UNSUPPORTED:
        said = "EPERM"
    for place in (
        (places["scratch"], places["scratch"] / "file") if said == UNSUPPORTED else [places["scratch"] / "file"]
    ):
        assert confined(places, opened(place, flags), version) == said


def test_space_is_taken_by_writing_only(places):
    """And no file becomes longer than the limit says."""
    new, libc = places["scratch"] / "file", ctypes.CDLL(None, use_errno=True)

    def call(action: Callable[[int], object]) -> str:
        return confined(places, lambda: action(os.open(new, os.O_RDWR)))

    def reserve(handle: int, mode: int) -> None:
        if libc.fallocate(handle, mode, ctypes.c_long(0), ctypes.c_long(4096)) != 0:
            raise OSError(ctypes.get_errno(), "")

    for mode in (0, 1, 3, 0x10, 0x20):
        assert call(lambda handle, mode=mode: reserve(handle, mode)) == UNSUPPORTED
    assert call(lambda handle: os.pwrite(handle, bytes(FILE_SIZE), 0)) == ""
    assert call(lambda handle: os.ftruncate(handle, FILE_SIZE + 1)) == "EFBIG"
    assert call(lambda handle: os.pwrite(handle, b"x", FILE_SIZE)) == "EFBIG"
    assert new.stat().st_size == FILE_SIZE


def test_renaming_makes_no_inode(places):
    libc, scratch = ctypes.CDLL(None, use_errno=True), places["scratch"]

    def rename(flags: int) -> None:
        if libc.renameat2(-100, bytes(scratch / "file"), -100, bytes(scratch / "moved"), flags) != 0:
            raise OSError(ctypes.get_errno(), "")

    for flags in (1, 2, 4, 5):  # of which 4 and 5 leave a new one behind
        assert confined(places, lambda flags=flags: rename(flags)) in (ASKED, "EINVAL")  # so says glibc
    assert confined(places, lambda: rename(0)) == ""
    assert os.listdir(scratch) == ["moved"]


@pytest.mark.parametrize("how", [os.link, os.symlink, os.mkfifo, os.mkdir])
def test_nothing_but_opening_makes_an_inode(places, how):
    args = ("file", "new") if how in (os.link, os.symlink) else ("new",)
    assert confined(places, lambda: how(*(places["scratch"] / name for name in args))) in (ASKED, "EPERM")


def test_the_number_of_free_blocks_is_not_told(places):
    assert confined(places, lambda: os.statvfs(places["scratch"])) == "EPERM"


# -- where workers' files are --------------------------------------------------------------------------------


def test_a_run_without_room_does_not_start(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: usage._replace(free=99 << 20))
    with pytest.raises(GradingError, match=rf"{tmp_path.parent} has 99 MB free, and 2 workers .* MB: .*TMPDIR"):
        workers.require_room(tmp_path, 2)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))
    workers.require_room(tmp_path, 2)


def test_only_what_nobody_needs_is_hidden(tmp_path):
    for name in ("out", "in/out", "home/.venv", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    surroundings = object.__new__(Surroundings)
    surroundings._folder, surroundings.readable = tmp_path / "work", [tmp_path / "home" / ".venv" / "lib"]
    given = [tmp_path / name for name in ("link", "in/out", "in", "home", "work", ".")] + [Path("/"), Path(sys.prefix)]
    assert surroundings.dispensable(given) == [tmp_path / "in", tmp_path / "out"]
