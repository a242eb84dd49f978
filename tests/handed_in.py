"""What students hand in, for the tests of the intake: folders and zips, and what holds for all of them."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import HealthCheck, settings

from grading.errors import GradingError
from grading.hidden.intake import inbox
from grading.hidden.intake.inbox import Contents, find
from grading.rubric import load_rubric

RUBRIC = load_rubric()
VAE, DIFFUSION, TINY = RUBRIC.submit
CAP = RUBRIC.max_file_bytes
GOOD = {VAE: b"# vae\n", DIFFUSION: b"# diffusion\r\n", TINY: b"\xff\xfe not utf-8"}
FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def zipped(files, **kinds):
    """A zip; `files` are (name, content) pairs or a dict. The name may be a ZipInfo."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content, **kinds)
    return out.getvalue()


def info(name, mode=0, **fields):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def put(folder, files):
    """Write name -> content (None: an empty folder) below `folder`."""
    for name, content in files.items():
        path = folder / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
    return folder


def under(prefix, files=GOOD):
    return {f"{prefix}/{name}": content for name, content in files.items()}


def read_zip(tmp_path, content, name="ada.zip") -> Contents:
    (tmp_path / name).write_bytes(content)
    [handin] = handins([tmp_path / name])
    contents = handin.read(RUBRIC)
    check(contents, tmp_path)
    return contents


def read_folder(folder) -> Contents:
    """Read a folder as a submission, whatever lies in it."""
    handin = inbox.Handin("ada", "ada", (inbox.Piece("", folder),))
    contents = handin.read(RUBRIC)
    check(contents, folder)
    return contents


def check(contents, folder=None):
    """What holds for everything that is ever read."""
    assert isinstance(contents, Contents)
    assert contents.files.keys() <= set(RUBRIC.submit)
    assert all(isinstance(content, bytes) and len(content) <= CAP for content in contents.files.values())
    assert not (contents.unreadable and contents.files)
    assert contents.notes or contents.files.keys() == set(RUBRIC.submit)
    assert len(contents.notes) <= 20
    for note in contents.notes:
        assert len(note) < 600
        assert all(char.isprintable() for char in note), note
        assert folder is None or str(folder) not in note
        note.encode()


def handins(paths, **options):
    return find(paths, RUBRIC, **options).handins


def summary(paths, **options):
    return {handin.name: handin.student for handin in handins(paths, **options)}


def strays(paths, **options):
    return dict(find(paths, RUBRIC, **options).strays)


def refusal(paths, **options):
    with pytest.raises(GradingError) as caught:
        handins(paths, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def found_or_refused(paths):
    try:
        return handins(paths)
    except GradingError as error:
        str(error).encode()
        return [] if error.exit_code == 2 else pytest.fail(str(error))


V, D, T = b"# vae\n", b"# diffusion\r\n", b"\xff\xfe not utf-8"
REST = {DIFFUSION: D, TINY: T}
WHOLE = zipped(GOOD)
