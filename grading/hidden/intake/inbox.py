"""What instructors give to `grade`, as submissions: folders, zips, folders of either, a platform's bulk download.

Everything inside a submission is hostile, and read through `untrusted`. Only the names that the rubric asks for are
taken, so all other names are only ever compared.

A folder is one submission when a file of the rubric lies in it at its place; otherwise its folders and archives are
submissions, also those that are empty or broken, so that nobody vanishes from the grades. Several paths are like the
content of one folder, except that a path that clearly holds several submissions stands for them. `platforms` says what
names mean.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grading.errors import GradingError
from grading.hidden.intake import platforms
from grading.hidden.intake.platforms import Child, Upload, is_litter, printable
from grading.hidden.intake.untrusted import (
    DAMAGED,
    ENCRYPTED,
    Entry,
    Piece,
    Refused,
    entries_of,
    is_wanted,
    member_entry,
    open_plain,
    parts_of,
    zip_directory,
)
from grading.hidden.reports.result import RESERVED
from grading.rubric import Rubric

MAX_DIRECTORY_BYTES = 4 << 20  # of a zip's list of members: a tenth of a million of them at most
MAX_BULK_DIRECTORY_BYTES = 16 << 20
MAX_NESTED_BYTES = 64 << 20  # of a student's zip inside a bulk download, and of Gradescope's metadata
MAX_ARCHIVES = 4
OUTPUTS = {"grades.csv", "summary.html"}  # what lies beside the submissions' folders in the output
MAX_NAME_BYTES = 200  # file systems take 255


@dataclass(frozen=True)
class Contents:
    """What a submission holds.

    files: the rubric's name -> bytes as found.  notes: sentences for the student.
    unreadable: what was handed in could not be read at all; files is then empty.
    """

    files: dict[str, bytes]
    notes: list[str]
    unreadable: bool


@dataclass(frozen=True)
class Handin:
    """One submission, not yet read.

    name: the folder's name or the zip's stem, verbatim but for characters that cannot be printed; unique.
    student: the id that the name, or Gradescope's metadata, gives.
    """

    name: str
    student: str
    source: tuple[Piece, ...]

    def read(self, rubric: Rubric) -> Contents:
        """Look for the rubric's files. Raises nothing, whatever was handed in."""
        reading = _Reading(rubric)
        reading.entries += entries_of(self.source, _basenames(rubric), reading.notes)
        loose = [entry for entry in reading.entries if not entry.problem]
        if not all(any(_place(file, entry) for entry in loose) for file in rubric.submit):
            reading.open_archives()
        files = {file: content for file in rubric.submit if (content := reading.take(file)) is not None}
        if not files:
            reading.explain()
        return Contents(
            files, list(dict.fromkeys(reading.notes)), not files and (reading.is_closed or reading.is_damaged)
        )


# -- finding submissions ----------------------------------------------------------------------------------


def find(paths: Sequence[Path], rubric: Rubric) -> list[Handin]:
    """The submissions that the paths hold, sorted by name.

    Raises GradingError when a path does not exist or holds none, and when two would get the same name.
    """
    found: list[tuple[Handin, str]] = []
    loose: dict[Child, Path] = {}
    for path in map(Path, paths):
        whole = _named(path)
        uploads = _course(whole, rubric, alone=len(paths) == 1)
        if uploads is None:
            loose[whole] = path
        elif not uploads:
            raise GradingError(
                f"{printable(str(path))} holds no submission: name folders, zips, or a folder of them", 2
            )
        else:
            found += [(_handin(upload), f"{path}/{', '.join(_origin(upload))}") for upload in uploads]
    for upload in _uploads(list(loose), _parent(loose.values()), rubric):
        members = [child for _, child in upload.children]
        found.append((_handin(upload), " and ".join(str(loose.pop(child)) for child in members) or upload.name))
    for child, path in loose.items():
        if child.name not in OUTPUTS | {platforms.METADATA} and not is_litter(child.name):
            raise GradingError(f"{printable(str(path))} is neither a folder nor a zip", 2)
    if not found:
        raise GradingError("no submission is named: name folders, zips, or a folder of them", 2)
    _check_names(found)
    return sorted((handin for handin, _ in found), key=lambda handin: handin.name)


def _named(path: Path) -> Child:
    """A path that the instructor named. Its links are followed: they are the instructor's own."""
    whole = Path(os.path.abspath(path))
    try:
        is_folder = stat.S_ISDIR(os.stat(whole).st_mode)
    except (OSError, ValueError):
        raise GradingError(f"{printable(str(path))} does not exist, or may not be read", 2) from None
    real = Path(os.path.realpath(whole))
    pieces = (Piece("" if is_folder else whole.name, real),)
    return Child(whole.name, is_folder, pieces, is_folder and os.path.exists(real / ".git"))


def _parent(paths: Iterable[Path]) -> str:
    """The name of the folder in which all paths lie; "" when they do not lie in one."""
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
    return os.path.basename(folders.pop()) if len(folders) == 1 else ""


def _course(whole: Child, rubric: Rubric, *, alone: bool) -> list[Upload] | None:
    """The submissions in a folder or a bulk download; None when it is itself a submission, or a part of one.

    A zip is looked into only when it is the only path: among others it may be a student's, who could hand in
    something that looks like a bulk download to be graded under other names.
    """
    if not whole.is_folder and not (alone and whole.name.lower().endswith(".zip")):
        return None
    inbox = whole if whole.is_folder else _bulk(whole)
    if inbox is None or platforms.is_students_folder(inbox.name):
        return None
    children = _children(inbox)
    uploads = _uploads(children, inbox.name, rubric)
    if _is_at_its_place(inbox.pieces, rubric):
        if alone and whole.is_folder and _is_bulk(uploads):
            raise GradingError(f"{inbox.name} holds several submissions, and one itself: move one or the other away", 2)
        return None
    if len(children) == 1 and children[0].is_folder and not _is_at_its_place(children[0].pieces, rubric):
        inner = _uploads(_children(children[0]), children[0].name, rubric)
        uploads = inner if _is_bulk(inner) else uploads  # the folder that an export puts around everything
    if not whole.is_folder:
        is_one = not any(upload.by_platform for upload in uploads) and _holds_any(inbox.pieces, rubric)
        return uploads if _is_bulk(uploads) and not is_one else None
    submitted = (upload for upload in uploads if _looks_submitted(upload, rubric))
    solid = 2 if _is_bulk(uploads) else len(list(itertools.islice(submitted, 2)))
    if alone:
        return uploads if solid else []
    return uploads if solid > 1 else None


def _is_bulk(uploads: Sequence[Upload]) -> bool:
    """Whether names alone tell that these are the submissions of a course."""
    archives = sum(not child.is_folder for upload in uploads for _, child in upload.children)
    return archives > 1 or any(upload.by_platform for upload in uploads)


def _looks_submitted(upload: Upload, rubric: Rubric) -> bool:
    """Whether there is anything in it that could be graded."""
    pieces = [piece for _, child in upload.children for piece in child.pieces]
    return any(not child.is_folder for _, child in upload.children) or _holds_any(pieces, rubric, or_archive=True)


def _holds_any(pieces: Iterable[Piece], rubric: Rubric, *, or_archive: bool = False) -> bool:
    """Whether a file of the rubric lies anywhere in it."""
    entries = entries_of(pieces, _basenames(rubric), [])
    return any(
        (or_archive and entry.is_archive) or any(_place(file, entry) for file in rubric.submit) for entry in entries
    )


def _is_at_its_place(pieces: Iterable[Piece], rubric: Rubric) -> bool:
    """Whether a file of the rubric lies where the assignment has it, or loose at the top."""
    levels = 1 + max(file.count("/") for file in rubric.submit)
    places = (
        _place(file, entry) for entry in entries_of(pieces, _basenames(rubric), [], levels) for file in rubric.submit
    )
    return any(place is not None and place[0] == 0 for place in places)


def _uploads(children: Sequence[Child], parent: str, rubric: Rubric) -> list[Upload]:
    """platforms.uploads, with the ids from Gradescope's metadata when that lies there."""
    students = None
    for child in children:
        if child.name == platforms.METADATA and not child.is_folder:
            try:
                [entry] = entries_of(child.pieces, set(), [])
                students = platforms.gradescope_students(entry.read(MAX_NESTED_BYTES))
            except Refused as refusal:
                raise GradingError(f"{platforms.METADATA} {refusal}", 2) from None
    return platforms.uploads(children, parent, students, {file.rpartition("/")[2] for file in rubric.submit})


def _bulk(whole: Child) -> Child | None:
    """A zip as a folder; None when it cannot be read."""
    try:
        with open_plain(whole.pieces[0].path) as file:
            members = zip_directory(file, MAX_BULK_DIRECTORY_BYTES)
    except Refused:
        return None
    named = [("/".join(parts_of(member.filename)), member) for member in members]
    pieces = tuple(Piece(name, whole.pieces[0].path, member) for name, member in named if name)
    return Child(platforms.stem(whole.name), True, pieces)


def _children(folder: Child) -> list[Child]:
    """What lies directly in a folder on disk or in a bulk download, litter and our own output aside."""
    if folder.pieces and folder.pieces[0].member is None:
        return _children_on_disk(folder.pieces[0].path)
    inside: dict[str, list[Piece]] = {}
    for piece in folder.pieces:
        name, _, rest = piece.name.partition("/")
        if not is_litter(name):
            inside.setdefault(name, []).append(Piece(rest, piece.path, piece.member))
    children = []
    for name, pieces in inside.items():
        is_folder = any(piece.name or piece.member.is_dir() for piece in pieces)
        within = tuple(piece for piece in pieces if piece.name)
        children.append(Child(name, is_folder, within if is_folder else tuple(pieces)))
    return children


def _children_on_disk(folder: Path) -> list[Child]:
    try:
        with os.scandir(folder) as items:
            names = sorted(item.name for item in items if not is_litter(item.name))
    except OSError as error:
        raise GradingError(f"{printable(str(folder))} cannot be opened: {error.strerror}", 2) from None
    children = []
    for name in names:
        path = folder / name
        is_folder = os.path.isdir(path)  # also what a link points to, so that it gets a row; it is not followed
        if is_folder and (name.startswith(".") or all(os.path.isfile(path / output) for output in OUTPUTS)):
            continue
        is_clone = is_folder and os.path.exists(path / ".git")
        children.append(Child(name, is_folder, (Piece("" if is_folder else name, path),), is_clone))
    return children


def _handin(upload: Upload) -> Handin:
    """The submission, with a name that may be that of a folder."""
    name = printable(upload.name).encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    source = []
    for called, child in upload.children:
        pieces = child.pieces
        source += [Piece(called, pieces[0].path, pieces[0].member)] if called else pieces
    return Handin(name, printable(upload.student), tuple(source))


def _origin(upload: Upload) -> list[str]:
    return [child.name for _, child in upload.children] or [upload.name]


def _check_names(found: Sequence[tuple[Handin, str]]) -> None:
    """Every name can be a folder of the output, also where file systems do not distinguish A from a."""
    places: dict[str, str] = {}
    for handin, place in found:
        place = printable(place)
        key = unicodedata.normalize("NFC", handin.name).casefold()
        if handin.name.strip(". ") == "" or "/" in handin.name or "\\" in handin.name or key in RESERVED:
            raise GradingError(f"{place}: no submission can be called {handin.name!r}: rename it", 2)
        if key in places:
            raise GradingError(
                f"two submissions would be called {handin.name}: {places[key]} and {place}; rename one", 2
            )
        places[key] = place


# -- one submission ---------------------------------------------------------------------------------------


class _Reading:
    """A submission while it is read."""

    def __init__(self, rubric: Rubric) -> None:
        self.rubric = rubric
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self.is_closed = False  # whether there is something whose content is not known
        self.is_damaged = False

    def open_archives(self) -> None:
        """Add what lies in the zips at the top. Zips inside zips stay closed."""
        archives = [entry for entry in self.entries if entry.is_archive and entry.parts[0].lower().endswith(".zip")]
        wanted = _basenames(self.rubric)
        if len(archives) > MAX_ARCHIVES:
            self.notes.append(f"Only {MAX_ARCHIVES} of {len(archives)} zips were looked at: hand in one.")
        for archive in archives[:MAX_ARCHIVES]:
            try:
                if archive.problem:
                    raise Refused(archive.problem)
                with archive.open(MAX_NESTED_BYTES) as file:
                    members = zip_directory(file, MAX_DIRECTORY_BYTES)
                    in_memory = isinstance(file, io.BytesIO)
                    reopen = partial(io.BytesIO, file.getvalue()) if in_memory else partial(archive.open, 0)
            except Refused as refusal:
                self.is_closed = True
                self.notes.append(f"{archive.shown} {refusal}.")
                continue
            if not members:
                self.notes.append(f"{archive.shown} is a zip without files.")
            for member in members:
                parts = parts_of(member.filename)
                if is_wanted(parts, wanted):
                    entry = member_entry(member, reopen, parts)
                    shown = f"{archive.shown}: {entry.shown}" if len(archives) > 1 else entry.shown
                    self.entries.append(replace(entry, shown=shown))

    def take(self, file: str) -> bytes | None:
        """The content of one of the rubric's files, with notes on where it was found or why it was not read."""
        placed = [(place, entry) for entry in self.entries if (place := _place(file, entry)) is not None]
        usable = [(place, entry) for place, entry in placed if not entry.problem] or placed
        if not usable:
            if not self.is_closed:
                self.notes.append(f"{file} is missing.")
                folder = file.split("/")[:-1]
                self.notes += [
                    f"{e.shown} {e.problem}." for e in self.entries if e.problem and [*e.parts[-1:]] == folder
                ]
            return None
        best = min(place for place, _ in usable)
        chosen, *rivals = [entry for place, entry in usable if place == best]
        others = _listed([entry.shown for _, entry in placed if entry is not chosen])
        if rivals:
            self.notes.append(f"{file} was not read: it is there more than once ({chosen.shown}, {others}).")
            return None
        try:
            content = chosen.read(self.rubric.max_file_bytes)
        except Refused as refusal:
            self.is_damaged |= str(refusal) in (ENCRYPTED, DAMAGED)
            self.notes.append(f"{file} was not read: {chosen.shown} {refusal}.")
            return None
        if others:
            self.notes.append(f"{file} was taken from {chosen.shown} and not from {others}.")
        elif best[0] > 1 or best[1] > 0:
            self.notes.append(f"{file} was found as {chosen.shown}.")
        return content

    def explain(self) -> None:
        """Say what was handed in where no file was found."""
        top = [entry for entry in self.entries if len(entry.parts) == 1 and not entry.problem]
        strange = [entry for entry in top if entry.is_archive and not entry.parts[0].lower().endswith(".zip")]
        if not strange and len(top) == 1 and top[0].parts[0].lower() not in _basenames(self.rubric):
            strange = [entry for entry in top if not entry.is_archive]
        for entry in strange[:3]:
            _, dot, ending = entry.shown.rpartition(".")
            self.is_closed = True
            self.notes.append(f"Hand in a zip; {entry.shown} is {'a .' + ending if dot else 'none'}.")


def _place(file: str, entry: Entry) -> tuple[int, int] | None:
    """How far an entry is from the file's place, less being better: (folders around it, how the rest differs)."""
    wanted, parts = tuple(file.split("/")), entry.parts
    around = len(parts) - len(wanted)
    if around >= 0 and parts[around:] == wanted:
        return around, 0
    lowered = [part.lower() for part in parts]
    if around >= 0 and lowered[around:] == [part.lower() for part in wanted]:
        return around, 1
    if lowered[-1] == wanted[-1].lower() and len(parts) <= 2:  # without its folder; deeper it is some library's
        return len(parts) - 1, 2 if parts[-1] == wanted[-1] else 3
    return None


def _basenames(rubric: Rubric) -> set[str]:
    """The names at the end of every path that matters, in lower case: files, and folders that could be links."""
    return {part.lower() for file in rubric.submit for part in file.split("/")}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
