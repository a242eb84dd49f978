"""What is read of one submission, and that nothing in it does harm."""

import io
import os
import socket
import stat
import struct
import sys
import tempfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from handed_in import (
    CAP,
    DIFFUSION,
    FUZZ,
    GOOD,
    REST,
    RUBRIC,
    TINY,
    VAE,
    WHOLE,
    D,
    T,
    V,
    check,
    found_or_refused,
    handins,
    info,
    put,
    read_folder,
    read_zip,
    strays,
    under,
    zipped,
)
from hypothesis import given
from hypothesis import strategies as st

from grading.hidden.intake import inbox, untrusted
from grading.hidden.intake.inbox import Contents
from grading.hidden.reports.gradescope import write_result
from grading.hidden.reports.result import FunctionResult, Result

# -- one submission: where files lie ----------------------------------------------------------------------

PLACES = [
    # id, files, what becomes of HW3/vae.py, a part of the notes ("" for none at all)
    ("expected", GOOD, V, ""),
    ("wrapper", under("hw3-ada"), V, ""),
    ("wrappers", under("a/b"), V, "HW3/vae.py was found as a/b/HW3/vae.py."),
    ("flat", {"vae.py": V, "diffusion.py": D, TINY: T}, V, "HW3/vae.py was found as vae.py."),
    ("flat in a wrapper", {"ada/vae.py": V, "ada/diffusion.py": D, f"ada/{TINY}": T}, V, "found as ada/vae.py"),
    ("flat but deep", {"a/lib/vae.py": V, **REST}, None, "HW3/vae.py is missing."),
    ("case", {"hw3/VAE.py": V, **REST}, V, "HW3/vae.py was found as hw3/VAE.py."),
    ("two cases", {"hw3/VAE.py": V, "hw3/Vae.py": V, **REST}, None, "more than once (hw3/VAE.py, hw3/Vae.py)"),
    ("case and exact", {"hw3/VAE.py": b"other", **GOOD}, V, "taken from HW3/vae.py and not from hw3/VAE.py"),
    ("shallowest", {"old/HW3/vae.py": b"old", **GOOD}, V, "taken from HW3/vae.py and not from old/HW3/vae.py."),
    ("tie", {"a/HW3/vae.py": V, "b/HW3/vae.py": V, **REST}, None, "more than once (a/HW3/vae.py, b/HW3/vae.py)"),
    ("many", {f"{i}/HW3/vae.py": V for i in range(9)} | REST, None, "and 5 more)"),
    ("handout's copies", {**under("grading/originals"), **REST}, None, "HW3/vae.py is missing."),
    ("whole tree", {**GOOD, **under("grading/originals"), "README.md": b"", "HW3/Unet.py": b""}, V, ""),
    ("litter", {**GOOD, "__MACOSX/HW3/vae.py": b"", "HW3/._vae.py": b"", ".git/HW3/vae.py": b""}, V, ""),
    ("only litter", {"__MACOSX/HW3/vae.py": V, ".venv/HW3/vae.py": V, **REST}, None, "missing"),
    ("backslashes", {"HW3\\vae.py": V, **REST}, V, ""),
    ("one of three", {VAE: V}, V, "HW3/diffusion.py is missing."),
    ("too large", {VAE: b"#" * (CAP + 1), **REST}, None, "HW3/vae.py is larger than 200,000 bytes"),
    ("as large as can be", {VAE: V.ljust(CAP), **REST}, V.ljust(CAP), ""),
    ("empty file", {VAE: b"", **REST}, b"", ""),
]


@pytest.mark.parametrize("kind", ["folder", "zip", "zip in a folder", "bulk"])
@pytest.mark.parametrize(("files", "vae", "note"), [row[1:] for row in PLACES], ids=[row[0] for row in PLACES])
def test_places(tmp_path, kind, files, vae, note):
    if kind == "folder":
        contents = read_folder(put(tmp_path / "ada", files))
    elif kind == "zip":
        contents = read_zip(tmp_path, zipped(files))
    elif kind == "zip in a folder":
        contents = read_folder(put(tmp_path / "ada", {"hw3.zip": zipped(files), "README.md": b""}))
    else:
        student = under("Ada_1_assignsubmission_file_", files)
        (tmp_path / "all.zip").write_bytes(zipped({"Bob_2_assignsubmission_file_/x.zip": b"", **student}))
        contents = handins([tmp_path / "all.zip"])[0].read(RUBRIC)
        check(contents)
    assert contents.files.get(VAE) == vae
    assert not contents.unreadable
    assert (note in " ".join(contents.notes)) if note else contents.notes == []
    if kind in ("zip", "folder") and VAE in files and DIFFUSION in files:
        assert {VAE: vae, **contents.files} == {**GOOD, VAE: vae}


# -- one submission: hostile zips -------------------------------------------------------------------------

S_IFLNK, S_IFIFO, S_IFCHR, S_IFBLK, S_IFDIR = stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR
MEMBERS = [
    ("../HW3/vae.py", "leads out"),
    ("a/../../HW3/vae.py", "leads out"),
    ("/HW3/vae.py", "leads out"),
    ("C:/HW3/vae.py", "leads out"),
    ("C:\\HW3\\vae.py", "leads out"),
    ("..\\HW3\\vae.py", "leads out"),
    (info(VAE, S_IFLNK | 0o777), "HW3/vae.py is a link"),
    (info("HW3", S_IFLNK | 0o777), "HW3 is a link"),
    (info(VAE, S_IFIFO | 0o644), "not a plain file"),
    (info(VAE, S_IFCHR | 0o644), "not a plain file"),
    (info(VAE, S_IFBLK | 0o644), "not a plain file"),
    ("HW3/vae.py/", "HW3/vae.py is a folder"),
    (info("HW3/vae.py/"), "HW3/vae.py is a folder"),
    (info(VAE, S_IFDIR | 0o755), "HW3/vae.py is a folder"),
    (info(VAE, compress_type=zipfile.ZIP_BZIP2), "unusual way"),
    (info(VAE, compress_type=zipfile.ZIP_LZMA), "unusual way"),
    ("HW3/vae.py\x1b[31m\n/HW3/vae.py", None),  # a folder with a hostile name around a good file
]


@pytest.mark.parametrize(("name", "note"), MEMBERS, ids=[str(getattr(n, "filename", n)) for n, _ in MEMBERS])
def test_bad_members(tmp_path, name, note):
    filename = getattr(name, "filename", name)
    content = b"" if filename.endswith("/") else V
    contents = read_zip(tmp_path, zipped([(name, content), *REST.items()]))
    assert contents.files == (REST if note else GOOD)
    assert note is None or note in " ".join(contents.notes)
    if note and filename != "HW3":  # a good one elsewhere is taken, and the notes say so
        contents = read_zip(tmp_path, zipped([(name, content), *under("hw3").items()]))
        assert contents.files[VAE] == V


def central(content, name, offset, form, value):
    """Change a field of a member's entry in the central directory."""
    content, at = bytearray(content), 0
    while (at := content.index(b"PK\1\2", at)) >= 0:
        length = struct.unpack_from("<H", content, at + 28)[0]
        if content[at + 46 : at + 46 + length] == name.encode():
            struct.pack_into(form, content, at + offset, value)
            return bytes(content)
        at += 4
    raise AssertionError(name)


FIELDS = [
    ("encrypted", 8, "<H", 1, "is encrypted"),
    ("strongly encrypted", 8, "<H", 0x41, "is encrypted"),
    ("method 99", 10, "<H", 99, "is compressed in an unusual way"),
    ("wrong CRC", 16, "<I", 1, "is damaged"),
    ("larger than it says", 24, "<I", 1, "is damaged"),
    ("smaller than it says", 24, "<I", 1000, "is damaged"),
    ("says it is huge", 24, "<I", 0xFFFFFFF0, "is larger than"),
    ("offset beyond the file", 42, "<I", 0x7FFFFFFF, "is damaged"),
    ("offset of something else", 42, "<I", 7, "is damaged"),
    ("compressed size beyond the file", 20, "<I", 0x7FFFFFFF, None),  # deflate knows where it ends
    ("compressed size too small", 20, "<I", 2, "is damaged"),
]


@pytest.mark.parametrize(("offset", "form", "value", "note"), [f[1:] for f in FIELDS], ids=[f[0] for f in FIELDS])
def test_one_damaged_member_costs_itself_only(tmp_path, offset, form, value, note):
    contents = read_zip(tmp_path, central(WHOLE, VAE, offset, form, value))
    assert contents.files == (REST if note else GOOD)
    assert not contents.unreadable
    assert note is None or [f"HW3/vae.py was not read: HW3/vae.py {note}" in text for text in contents.notes] == [True]


def test_damaged_data(tmp_path):
    noise = os.urandom(5000)
    content = bytearray(zipped({VAE: noise, **REST}))
    content[200:300] = bytes(100)
    contents = read_zip(tmp_path, bytes(content))
    assert contents.files == REST
    assert contents.notes == ["HW3/vae.py was not read: HW3/vae.py is damaged."]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_same_name_twice(tmp_path):
    contents = read_zip(tmp_path, zipped([(VAE, V), (VAE, b"other"), *REST.items()]))
    assert contents.files == REST
    assert contents.notes == ["HW3/vae.py was not read: it is there more than once (HW3/vae.py, HW3/vae.py)."]


def test_encrypted_throughout(tmp_path):
    content = WHOLE
    for name in GOOD:
        content = central(content, name, 8, "<H", 1)
    assert read_zip(tmp_path, content).unreadable


def zip_of(count, name, files=()):
    """A zip with so many empty members."""
    return zipped([*((name(i), b"") for i in range(count)), *dict(files).items()])


def tar():
    return b"HW3/vae.py".ljust(257, b"\0") + b"ustar".ljust(300, b"\0")


BROKEN = [
    ("no bytes", b"", "ada.zip is empty."),
    ("text", b"print('hello')\n" * 100, "ada.zip is not a zip."),
    ("rar", b"Rar!\x1a\x07\x01\x00" + bytes(100), "ada.zip is a .rar and not a zip: hand in a zip."),
    ("7z", b"7z\xbc\xaf\x27\x1c" + bytes(100), "ada.zip is a .7z and not a zip"),
    ("tar", tar(), "ada.zip is a .tar and not a zip"),
    ("gzip", b"\x1f\x8b\x08" + bytes(100), "ada.zip is a .gz and not a zip"),
    ("pdf", b"%PDF-1.7" + bytes(100), "ada.zip is a .pdf and not a zip"),
    ("truncated", WHOLE[:-30], "ada.zip is damaged, and cannot be opened."),
    ("no directory", WHOLE[:100], "ada.zip is damaged"),
    ("version 9.9", central(WHOLE, VAE, 6, "<H", 99), "ada.zip is damaged"),
    ("undecodable name", central(central(WHOLE, VAE, 8, "<H", 0x800), VAE, 46, "<B", 0xFF), "ada.zip is damaged"),
    ("long extra field", central(WHOLE, VAE, 30, "<H", 0xFFFF), "ada.zip is damaged"),
    ("directory size", WHOLE[:-10] + struct.pack("<I", 0xFFFFFFF0) + WHOLE[-6:], "ada.zip is damaged"),
]


@pytest.mark.parametrize(("content", "note"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_zips(tmp_path, content, note):
    contents = read_zip(tmp_path, content)
    assert contents.files == {}
    assert contents.unreadable
    assert len(contents.notes) == 1
    assert contents.notes[0].startswith(note)


def test_empty_zip(tmp_path):
    contents = read_zip(tmp_path, zipped({}))
    assert contents.notes == ["ada.zip is a zip without files.", *(f"{file} is missing." for file in RUBRIC.submit)]


def test_zip64(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in GOOD.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    assert read_zip(tmp_path, b"#!/bin/sh\n" + out.getvalue()).files == GOOD  # and something before it


def test_nested_zips_stay_closed(tmp_path):
    contents = read_zip(tmp_path, zipped({"hw3.zip": zipped(GOOD)}))
    assert contents.files == {}
    assert not contents.unreadable


@pytest.mark.parametrize("where", ["disk", "bulk"])
def test_bombs_are_cheap(tmp_path, where):
    """A gigabyte of zeros behind an honest size, behind a lie, and as a whole zip."""
    zeros = zipped({VAE: bytes(100_000_000), **REST})
    lies = central(zeros, VAE, 24, "<I", 1000)
    for bomb in (zeros, lies):
        if where == "bulk":
            outer = zipped({"adal_1_1000_a.zip": bomb, "bob_2_1001_a.zip": zipped({"x": bytes(80_000_000)})})
            (tmp_path / "all.zip").write_bytes(outer)
        else:
            (tmp_path / "all.zip").write_bytes(bomb)
        tracemalloc.start()
        contents = handins([tmp_path / "all.zip"])[0].read(RUBRIC)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        check(contents)
        assert contents.files == REST
        assert peak < 40_000_000  # 16 MiB of it a buffer for the list of members


def test_a_zip_within_a_bulk_download_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inbox, "MAX_NESTED_BYTES", 100)
    (tmp_path / "all.zip").write_bytes(zipped({"ada_1_1000_a.zip": WHOLE, "bob_2_1001_a.zip": WHOLE}))
    contents = handins([tmp_path / "all.zip"])[0].read(RUBRIC)
    assert contents == Contents({}, ["a.zip is larger than 100 bytes."], True)


REFUSED = "ada.zip is refused: it lists too many files (at most 20,000)."


def test_too_many_members(tmp_path):
    """Refused before the list is parsed, also when only zip64's fields tell its size."""
    one = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    listing = one * 200_000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(listing), 0, 0)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 20, 20, 0, 0, 200_000, 200_000, len(listing), 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(listing), 1)
    small = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 46, 0, 0)
    for content in (listing + end, listing + end64 + locator + small):
        handin = inbox.Handin("ada", "ada", (inbox.Piece("ada.zip", tmp_path / "ada.zip"),))
        (tmp_path / "ada.zip").write_bytes(content)
        start = time.perf_counter()
        assert handin.read(RUBRIC) == Contents({}, [REFUSED], True)
        assert time.perf_counter() - start < 1
    for count, notes in ((20_001, [REFUSED]), (20_000, [f"{file} is missing." for file in RUBRIC.submit])):
        size = 46 * count
        (tmp_path / "ada.zip").write_bytes(listing[:size] + end[:12] + struct.pack("<2IH", size, 0, 0))
        assert handin.read(RUBRIC).notes == notes


def test_a_zip_of_many_members_costs_itself_only(tmp_path, monkeypatch):
    """It is refused before it is parsed; what it says of their number is not believed."""
    monkeypatch.setattr(inbox, "MAX_MEMBERS", 2_000)
    many = zip_of(2_001, lambda i: f"{i}/HW3/vae.py")
    lies = many[:-14] + struct.pack("<2H", 1, 1) + many[-10:]
    put(tmp_path / "in", {"ada/1.zip": many, "ada/2.zip": many, "ada/3.zip": lies, "ada/4.zip": lies, "bob.zip": WHOLE})
    ada, bob = handins([tmp_path / "in"])
    contents = ada.read(RUBRIC)
    assert contents.unreadable
    assert contents.notes == [f"{i}.zip is refused: it lists too many files (at most 2,000)." for i in range(1, 5)]
    assert bob.read(RUBRIC).files == GOOD
    most = zip_of(2_000 - len(GOOD), lambda i: f"data/{i}.png", GOOD)
    assert read_zip(tmp_path, most).files == GOOD


def test_of_many_links_three_are_named(tmp_path):
    contents = read_zip(tmp_path, zip_of(300, lambda i: info(f"{i}/HW3", S_IFLNK | 0o777)))
    assert "0/HW3 is a link, which is not followed." in contents.notes
    assert "297 more that are called HW3 are no folders either." in contents.notes
    assert len(contents.notes) == 3 + 3 + 1


HOSTILE_ARCHIVES = {
    "links": lambda i: info(f"{i:x}/HW3", S_IFLNK | 0o777),
    "links of other cases": lambda i: info(f"{i:x}/hw3", S_IFLNK | 0o777),
    "links for files": lambda i: info(f"{i:x}/HW3/vae.py", S_IFLNK | 0o777),
    "rivals": lambda i: f"{i:x}/HW3/vae.py",
    "rivals of long names": lambda i: f"{'é' * 90}{i:x}/HW3/vae.py",
    "loose": lambda i: f"{i:x}/vae.py",
    "archives": lambda i: f"{i:x}.zip",
    "other archives": lambda i: f"{i:x}.rar",
    "files at the top": lambda i: f"{i:x}",
    "folders": lambda i: f"{i:x}/",
    "out": lambda i: f"../{i:x}/HW3/vae.py",
    "deep": lambda i: "a/" * 40 + f"{i:x}/HW3/vae.py",
}


@pytest.mark.parametrize("where", ["zip", "bulk", "two zips"])
@pytest.mark.parametrize("kind", HOSTILE_ARCHIVES)
def test_what_is_written_does_not_grow_with_an_archive(tmp_path, kind, where):
    """results.json and feedback.html are small, however many names there are to complain of."""
    name = HOSTILE_ARCHIVES[kind]
    if where == "bulk":
        members = [(f"Ada_1_assignsubmission_file_/{getattr(n, 'filename', n)}", n) for n in map(name, range(3_000))]
        members = [(info(path, getattr(n, "external_attr", 0) >> 16), b"") for path, n in members]
        files = {"all.zip": zipped([*members, ("Bob_2_assignsubmission_file_/x.zip", WHOLE)])}
    elif where == "zip":
        files = {"in/ada.zip": zip_of(3_000, name), "in/bob.zip": WHOLE}
    else:
        files = {f"in/ada/{'x' * 200}{i}.zip": zip_of(1_500, name) for i in range(9)} | {"in/bob.zip": WHOLE}
    put(tmp_path, files)
    ada, bob = handins([tmp_path / next(iter(files)).split("/")[0]])
    assert bob.read(RUBRIC).files == GOOD
    start = time.process_time()
    contents = ada.read(RUBRIC)
    assert time.process_time() - start < 3
    check(contents)
    functions = [FunctionResult(id, 0.0, 10.0, problem="is missing") for id in RUBRIC.functions]
    result = Result(ada.name, ada.student, "f00d", "sandbox", functions, notes=contents.notes)
    write_result(tmp_path / "out", result, RUBRIC)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*/*")}
    assert sizes.keys() == {"results.json", "feedback.html"}
    assert max(sizes.values()) < 40_000, (sizes, contents.notes)


def test_overlapping_members(tmp_path):
    """All three names point at the same bytes: each is read once, so there is nothing to multiply."""
    content = WHOLE
    for name in REST:
        for offset, form in ((16, "<I"), (20, "<I"), (24, "<I"), (42, "<I")):
            at = content.index(b"PK\1\2")
            content = central(content, name, offset, form, struct.unpack_from(form, content, at + offset)[0])
    assert read_zip(tmp_path, content).files == dict.fromkeys(GOOD, V)


def test_hostile_names_in_notes(tmp_path):
    name = "\x1b[2J\n\u202e<b>" + "x" * 300 + "/a/HW3/vae.py"
    [note] = read_zip(tmp_path, zipped({name: V, **REST})).notes
    assert note.startswith("HW3/vae.py was found as \ufffd[2J\ufffd\ufffd<b>xxx")
    assert len(note) < 120


# -- one submission: hostile folders ----------------------------------------------------------------------

posix = pytest.mark.skipif(sys.platform == "win32", reason="no links or special files")


@posix
def test_links_are_not_followed(tmp_path):
    put(tmp_path, {"secret.py": b"secret", **under("elsewhere")})
    folder = put(tmp_path / "ada", REST)
    (folder / VAE).symlink_to(tmp_path / "secret.py")
    contents = read_folder(folder)
    assert contents.files == REST
    assert contents.notes == ["HW3/vae.py was not read: HW3/vae.py is a link, which is not followed."]
    other = put(tmp_path / "bob", {TINY: T})
    (other / "HW3").symlink_to(tmp_path / "elsewhere" / "HW3")
    (other / "loop").symlink_to(other)
    contents = read_folder(other)
    assert contents.files == {TINY: T}
    assert "HW3 is a link, which is not followed." in contents.notes
    zip_link = tmp_path / "cyd"
    zip_link.mkdir()
    (tmp_path / "hw3.zip").write_bytes(WHOLE)
    (zip_link / "hw3.zip").symlink_to(tmp_path / "hw3.zip")
    assert read_folder(zip_link) == Contents({}, ["hw3.zip is a link, which is not followed."], True)


@posix
def test_links_among_submissions_are_not_understood(tmp_path):
    inbox = put(tmp_path / "inbox", under("bob"))
    put(tmp_path, under("elsewhere") | {"x.zip": WHOLE})
    (inbox / "ada").symlink_to(tmp_path / "elsewhere")
    (inbox / "eve.zip").symlink_to(tmp_path / "x.zip")
    (inbox / "self").symlink_to(inbox)
    (inbox / "dangling.zip").symlink_to(tmp_path / "nowhere")
    [bob] = handins([inbox])
    assert (bob.name, bob.read(RUBRIC).files) == ("bob", GOOD)
    reason = "is a link, which is not followed: put what it points to in its place"
    assert strays([inbox]) == dict.fromkeys(("ada", "dangling.zip", "eve.zip", "self"), reason)
    (tmp_path / "all.zip").write_bytes(zipped([("bob.zip", WHOLE), (info("eve.zip", S_IFLNK | 0o777), b"bob.zip")]))
    assert strays([tmp_path / "all.zip"], bulk=True) == {"eve.zip": reason}
    link = inbox.parent / "turned"  # into a link after it was listed
    inbox.rename(link)
    (link / "bob").rename(tmp_path / "bob")
    bob_was = link / "bob"
    bob_was.symlink_to(tmp_path / "bob")
    inbox.symlink_to(link)
    assert bob.read(RUBRIC).files == {}
    assert "The submission is a link, which is not followed." in bob.read(RUBRIC).notes
    (tmp_path / "named").symlink_to(tmp_path / "elsewhere")  # the instructor's own link is followed
    assert handins([tmp_path / "named"])[0].read(RUBRIC).files == GOOD


@posix
def test_special_files_are_not_opened(tmp_path, monkeypatch):
    folder = put(tmp_path / "ada", {DIFFUSION: D})
    os.mkfifo(folder / VAE)
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(TINY)
        contents = read_folder(folder)
    assert contents.files == {DIFFUSION: D}
    assert [note for note in contents.notes if "is not a plain file" in note] == contents.notes
    assert len(contents.notes) == 2


@posix
@pytest.mark.parametrize("becomes", ["link", "fifo", "folder", "nothing"])
def test_swapped_after_it_was_listed(tmp_path, becomes):
    folder = put(tmp_path / "ada", GOOD)
    [entry] = (e for e in untrusted._walk(folder, {"vae.py"}, [], 9) if e.parts[-1] == "vae.py")
    (folder / VAE).unlink()
    if becomes == "link":
        (folder / VAE).symlink_to(folder / TINY)
    elif becomes == "fifo":
        os.mkfifo(folder / VAE)
    elif becomes == "folder":
        (folder / VAE).mkdir()
    with pytest.raises(inbox.Refused):
        entry.read(CAP)


def test_permission_denied(tmp_path, monkeypatch):
    folder = put(tmp_path / "ada", {**GOOD, "locked/x": b""})
    really_open, really_scan = os.open, os.scandir

    def refuse(path, *args, **kwargs):
        if str(path).endswith(("vae.py", "locked")):
            raise PermissionError(13, "Permission denied", str(path))
        return (really_open if args else really_scan)(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    contents = read_folder(folder)
    assert contents.files == REST
    denied = "HW3/vae.py was not read: HW3/vae.py cannot be read: permission denied."
    assert contents.notes == ["locked could not be opened.", denied]


def test_vanished(tmp_path):
    found = handins([put(tmp_path / "inbox", {"a.zip": WHOLE, **under("b")})])
    (tmp_path / "inbox" / "a.zip").unlink()
    (tmp_path / "inbox" / "b").rename(tmp_path / "b")
    for handin in found:
        contents = handin.read(RUBRIC)
        check(contents, tmp_path)
        assert contents.files == {}


def test_huge_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "MAX_FILES", 50)
    folder = put(tmp_path / "ada", {**GOOD, **{f"data/{i}/x": b"" for i in range(60)}})
    contents = read_folder(folder)
    assert contents.files == GOOD  # what is cut off lies deeper
    assert contents.notes == ["Only 50 files were looked at."]
    deep = tmp_path / "deep" / Path(*"abcdefghijklmnop")
    put(deep, GOOD)
    assert read_folder(tmp_path / "deep").files == {}


def test_undecodable_file_names(tmp_path):
    inbox = put(tmp_path / "inbox", {"bob.zip": WHOLE})
    try:
        os.mkdir(os.fsencode(inbox) + b"/ad\xe9")
    except OSError:
        pytest.skip("this file system takes unicode names only")
    put(Path(os.fsdecode(os.fsencode(inbox) + b"/ad\xe9")), {**under("x\n\udcff/y"), "\udce9.py": b""})
    ada = handins([inbox])[0]
    assert (ada.name, ada.student) == ("ad\ufffd", "ad\ufffd")
    contents = ada.read(RUBRIC)
    check(contents)
    assert contents.files == GOOD


def test_everything_damaged(tmp_path):
    wrong_offset = WHOLE[:-6] + struct.pack("<I", 0xFFFFFFF0) + WHOLE[-2:]
    contents = read_zip(tmp_path, wrong_offset)
    assert contents.unreadable
    assert contents.notes == [f"{file} was not read: {file} is damaged." for file in RUBRIC.submit]
    only = zipped({VAE: V})
    contents = read_zip(tmp_path, central(only, VAE, 16, "<I", 1))
    assert "HW3/diffusion.py is missing." in contents.notes
    assert contents.unreadable


def test_too_many_zips_of_one_student(tmp_path):
    contents = read_folder(put(tmp_path / "ada", {f"{i}.zip": WHOLE if i == 0 else zipped({}) for i in range(9)}))
    assert contents.files == GOOD
    assert "Only 4 of 9 zips were looked at: hand in one." in contents.notes


# -- fuzzing ----------------------------------------------------------------------------------------------

ODD_NAMES = [
    VAE,
    DIFFUSION,
    TINY,
    "HW3/VAE.PY",
    "vae.py",
    "a/HW3/vae.py",
    "../HW3/vae.py",
    "HW3\\vae.py",
    "HW3/",
    "x.zip",
]
MEMBER_LISTS = st.lists(
    st.tuples(st.sampled_from(ODD_NAMES) | st.text(max_size=20), st.binary(max_size=50)), max_size=6
)


@st.composite
def mutated_zips(draw):
    """A zip with some bytes changed, most of them in its headers, or cut."""
    content = bytearray(draw(st.sampled_from([WHOLE, zipped(under("hw3") | {"x": bytes(300)}), zipped({})])))
    marks = [at for at in range(len(content)) if content[at : at + 2] == b"PK"]
    for _ in range(draw(st.integers(1, 6))):
        at = (
            draw(st.sampled_from(marks)) + draw(st.integers(0, 60))
            if draw(st.booleans())
            else draw(st.integers(0, 900))
        )
        content[at % len(content)] = draw(st.sampled_from([0, 1, 8, 0x7F, 0xFE, 0xFF]) | st.integers(0, 255))
    start, end = draw(st.sampled_from([(0, None), (0, None), (0, None), (0, -1), (5, None), (0, 200)]))
    return bytes(content[start:end])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("inputs", [st.binary(max_size=300), mutated_zips(), MEMBER_LISTS.map(lambda m: [*m])])
def test_any_bytes_as_a_zip(inputs):
    @FUZZ
    @given(inputs)
    def read(content):
        if isinstance(content, list):
            content = zipped(
                [(name.encode(errors="replace").decode().lstrip("\0") or "x", data) for name, data in content]
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "ada.zip")
            path.write_bytes(content)
            tracemalloc.start()
            start = time.perf_counter()
            for handin in [*found_or_refused([path]), inbox.Handin("ada", "ada", (inbox.Piece("ada.zip", path),))]:
                check(handin.read(RUBRIC), folder)
            took, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert took < 2
            assert peak < 40_000_000

    read()
