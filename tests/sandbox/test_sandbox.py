"""The sandbox by itself: a child of this process is confined, and says what it may still do."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from classroom import grading
from grading.hidden.sandbox import confinement
from grading.hidden.sandbox.confinement import (
    CHANNEL,
    FIRST_UID,
    Policy,
    SandboxError,
    landlock_version,
    seccomp_filter,
)

VERSION = landlock_version()


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
    """The name of the error with which `action` ends in a confined child; "" if it does not."""
    policy = Policy.prepare([places["readable"]], seccomp_filter(version))
    policy.version = version
    policy.scopes = policy.scopes and version >= 6
    parent, (answer, channel) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(channel, CHANNEL)
        said = b"the sandbox"
        try:
            policy.confine(0, places["code"], places["scratch"], parent, 10)
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
    assert confined(places, opened(places["scratch"] / "new", os.O_CREAT | os.O_WRONLY)) == ""
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
    assert result.stdout.count("refused") >= 13
