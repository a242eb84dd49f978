"""The sandbox by itself: a child of this process is confined, and says what it may still do."""

from __future__ import annotations

import errno
import os
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


def test_doctor_tries_it():
    result = grading("doctor")
    assert result.returncode == 0, result.stdout
    assert "ALLOWED" not in result.stdout
    assert result.stdout.count("refused") >= 13
