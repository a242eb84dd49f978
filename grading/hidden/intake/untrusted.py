"""Reads files out of folders and zips that a stranger made.

Nothing is extracted to disk, no link is followed, nothing but a plain file is opened, and of every file no more is read
than was asked for. Time and memory are bounded by MAX_FILES, MAX_MEMBERS and the MAX_..._BYTES.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import stat
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from grading.hidden.intake import platforms
from grading.hidden.intake.platforms import is_litter, printable

MAX_FILES = 20_000  # looked at in one folder
MAX_MEMBERS = 20_000  # in one student's zip. A handout with a .git and all results of training has some hundreds.
MAX_BULK_MEMBERS = 200_000  # in a platform's export
MAX_DEPTH = 12

_OTHER_FORMATS = {b"Rar!": "rar", b"7z\xbc\xaf": "7z", b"%PDF": "pdf", b"\x1f\x8b\x08": "gz", b"BZh": "bz2"}


class Refused(Exception):
    """Why something is not read, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class Piece:
    """Where a part of a submission lies: a file or folder, or one member of a bulk download.

    name: what the student calls it, with `/` between folders; "" for a folder that is the submission.
    """

    name: str
    path: Path
    member: zipfile.ZipInfo | None = None


def is_link(piece: Piece) -> bool:
    """Whether it is a symbolic link, on disk or in a zip."""
    if piece.member is not None:
        return stat.S_ISLNK(piece.member.external_attr >> 16)
    return os.path.islink(piece.path)


@dataclass(frozen=True)
class Entry:
    """A file that may be one of the rubric's.

    parts: its path in the submission.  shown: the same for people.  problem: why it is not read, "" for a plain file.
    open: given how many bytes are wanted, the content; raises Refused.
    """

    parts: tuple[str, ...]
    shown: str
    problem: str
    open: Callable[[int], BinaryIO]

    @property
    def is_archive(self) -> bool:
        """Whether it is an archive that lies where a submission's only archive would."""
        return len(self.parts) == 1 and platforms.is_archive(self.parts[0])

    def read(self, limit: int) -> bytes:
        """The content. Raises Refused for more than `limit` bytes, and for what cannot be read."""
        if self.problem:
            raise Refused(self.problem)
        with self.open(limit) as file:
            content = _read(file, limit + 1)
        if len(content) > limit:
            raise Refused(f"is larger than {limit:,} bytes")
        return content


def is_wanted(parts: Sequence[str], wanted: set[str]) -> bool:
    """Whether a path may be one of the rubric's files. The handout carries its own copies, in grading/originals."""
    if not parts or parts[-1].lower() not in wanted or any(map(is_litter, parts)):
        return False
    return ("grading", "originals") not in itertools.pairwise(parts)


def shown_name(name: str) -> str:
    """A hostile name in a sentence."""
    shown = printable(name[:80])
    return shown if len(name) <= 80 else shown[:79] + "…"


# -- folders and files ------------------------------------------------------------------------------------


def entries_of(pieces: Iterable[Piece], wanted: set[str], notes: list[str], levels: int = MAX_DEPTH) -> Iterator[Entry]:
    """What may be one of the rubric's files, and whatever lies at the top."""
    for piece in pieces:
        parts = tuple(piece.name.split("/"))
        if piece.member is not None:
            entry = member_entry(piece.member, partial(open_plain, piece.path), parts)
            if is_wanted(parts, wanted) or (len(parts) == 1 and not is_litter(parts[0])):
                yield entry
        elif piece.name == "" and not os.path.islink(piece.path):
            yield from _walk(piece.path, wanted, notes, levels)
        elif piece.name == "":
            notes.append("The submission is a link, which is not followed.")
        else:
            yield _file_entry(piece.path, parts)


def _walk(root: Path, wanted: set[str], notes: list[str], levels: int) -> Iterator[Entry]:
    """Breadth first, so that what is cut off is what lies deepest."""
    queue: deque[tuple[Path, tuple[str, ...]]] = deque([(root, ())])
    left = MAX_FILES
    while queue:
        folder, parts = queue.popleft()
        try:
            with os.scandir(folder) as items:
                some = sorted(itertools.islice(items, left + 1), key=lambda item: item.name)
        except OSError:
            notes.append(f"{shown_name('/'.join(parts)) or 'The folder'} could not be opened.")
            continue
        left -= len(some)
        if left < 0:
            notes.append(f"Only {MAX_FILES:,} files were looked at.")
            return
        for item in some:
            inner = (*parts, *parts_of(item.name))
            if is_litter(item.name) or inner == parts:
                continue
            try:
                is_folder = item.is_dir(follow_symlinks=False)
            except OSError:
                continue
            if is_folder and len(inner) < levels:
                queue.append((Path(item.path), inner))
            if is_wanted(inner, wanted) or (len(inner) == 1 and not is_folder):
                yield _file_entry(Path(item.path), inner)


def _file_entry(path: Path, parts: tuple[str, ...]) -> Entry:
    """A file on disk."""
    try:
        problem = _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode), _SPECIAL)
    except OSError:
        problem = "cannot be read"
    return Entry(parts, shown_name("/".join(parts)), problem, lambda _: open_plain(path))


ENCRYPTED = "is encrypted"
DAMAGED = "is damaged"
_SPECIAL = "is not a plain file"
_KINDS = {
    0: "",
    stat.S_IFREG: "",
    stat.S_IFLNK: "is a link, which is not followed",
    stat.S_IFDIR: "is a folder",
}


def open_plain(path: Path, _: int = 0) -> BinaryIO:
    """Open a plain file and nothing else, whatever has been put there since it was listed. Raises Refused."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # not every system has every one
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        reason = {errno.ELOOP: _KINDS[stat.S_IFLNK], errno.EACCES: "cannot be read: permission denied"}
        raise Refused(reason.get(error.errno or 0, "cannot be read")) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused(_SPECIAL)
    return os.fdopen(handle, "rb")


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError:
        raise Refused("cannot be read") from None


# -- zips -------------------------------------------------------------------------------------------------


class _Limited:
    """A file that never gives more at once than `limit` bytes and `members`, so that a zip's list of them is bounded.

    The list is read in one piece and each member in it begins with a signature. What else a zip says of their number
    may be false.
    """

    def __init__(self, file: BinaryIO, limit: int, members: int) -> None:
        self.seek, self.tell, self._file, self._limit, self._members = file.seek, file.tell, file, limit, members

    def read(self, size: int = -1) -> bytes:
        """Read. Raises Refused when that would be more than allowed."""
        content = self._file.read(min(size, self._limit + 1) if size >= 0 else self._limit + 1)
        if len(content) > self._limit or content.count(b"PK\1\2") > self._members:
            raise Refused(f"is refused: it lists too many files (at most {self._members:,})")
        return content


def zip_directory(file: BinaryIO, limit: int, members: int) -> list[zipfile.ZipInfo]:
    """What a zip holds; no more than `limit` bytes and so many `members` of its list are parsed. Raises Refused."""
    start = _read(file, 512)
    for magic, ending in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise Refused(f"is a .{ending} and not a zip: hand in a zip")
    if start[257:262] == b"ustar":
        raise Refused("is a .tar and not a zip: hand in a zip")
    try:
        with zipfile.ZipFile(_Limited(file, limit, members)) as archive:
            return archive.infolist()
    # What zipfile lets through from damaged headers: unknown versions, undecodable names, offsets beyond the file.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, struct.error):
        if not start:
            raise Refused("is empty") from None
        raise Refused("is damaged, and cannot be opened" if start[:2] == b"PK" else "is not a zip") from None


def parts_of(name: str) -> tuple[str, ...]:
    """A member's path. Windows' own packer writes backslashes."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def member_entry(member: zipfile.ZipInfo, open_zip: Callable[[], BinaryIO], parts: tuple[str, ...]) -> Entry:
    """A member of a zip."""
    name, kind = member.filename.replace("\\", "/"), stat.S_IFMT(member.external_attr >> 16)
    problem = _KINDS.get(kind, _SPECIAL)
    if name.endswith("/"):
        problem = _KINDS[stat.S_IFDIR]
    elif name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
        problem = "has a name that leads out of the zip"
    elif member.flag_bits & 0x2041:  # encrypted, strongly encrypted, with masked headers
        problem = ENCRYPTED
    elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "is compressed in an unusual way: use the zip that comes with your system"
    shown = shown_name(name.rstrip("/") if parts == parts_of(name) else "/".join(parts))
    return Entry(parts, shown, problem, lambda limit: io.BytesIO(_read_member(open_zip, member, limit)))


def _read_member(open_zip: Callable[[], BinaryIO], member: zipfile.ZipInfo, limit: int) -> bytes:
    """The member's bytes, at most `limit` of them. Raises Refused.

    Not ZipFile.open: opening the zip parses its whole list again, which for a bulk download is once per student, and
    its decompressors for bz2 and lzma give out as much as they like.
    """
    if member.file_size > limit:
        raise Refused(f"is larger than {limit:,} bytes")
    with open_zip() as file:
        try:
            file.seek(member.header_offset)
            header = file.read(30)
            if header[:4] != b"PK\3\4" or len(header) < 30:
                raise Refused(DAMAGED)
            file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)
            raw = file.read(min(member.compress_size, limit + limit // 8 + 1024))  # deflate adds less than that
            stored = member.compress_type == zipfile.ZIP_STORED
            content = raw[: limit + 1] if stored else zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, limit + 1)
        except (OSError, ValueError, OverflowError, zlib.error):  # an offset that is none, data that are none
            raise Refused(DAMAGED) from None
    if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
        raise Refused(DAMAGED)
    return content
