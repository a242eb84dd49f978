"""What instructors give to `grade`, as submissions: folders, zips, folders of either, a platform's bulk download.

Everything inside a submission is hostile, and read through `untrusted`. Only the names that the rubric asks for are
taken, so all other names are only ever compared.

A folder that is given is an inbox: each folder and archive in it is a submission, also one that is empty or broken, so
that nobody vanishes from the grades. It is itself a submission when files of the rubric lie in it at their places and
nothing else in it looks like a submission. A zip that is given is one submission, unless all of it has the structure of
a platform's export. What could be either is refused: students choose names and contents, so no entry of an inbox
decides how the others are read. `platforms` says what names mean.

Whatever lies in an inbox is part of a submission, or in the list of what was not understood.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from grading.errors import GradingError
from grading.hidden.intake import platforms
from grading.hidden.intake.platforms import PLAIN, Child, Upload, is_litter, printable
from grading.hidden.intake.untrusted import (
    DAMAGED,
    ENCRYPTED,
    MAX_BULK_MEMBERS,
    MAX_MEMBERS,
    Entry,
    Piece,
    Refused,
    entries_of,
    is_link,
    is_wanted,
    member_entry,
    open_plain,
    parts_of,
    shown_name,
    zip_directory,
)
from grading.hidden.reports.result import RESERVED
from grading.rubric import Rubric

MAX_DIRECTORY_BYTES = 4 << 20  # of a zip's list of members
MAX_BULK_DIRECTORY_BYTES = 16 << 20
MAX_NESTED_BYTES = 64 << 20  # of a student's zip inside a bulk download, and of Gradescope's metadata
MAX_ARCHIVES = 4
MAX_STUDENTS = 2_000  # in a zip that nobody called an export
MAX_NAME_BYTES = 200  # file systems take 255
MAX_NOTES = 20  # for one student, and
MAX_NOTE = 500  # characters of each: what is written about a submission does not grow with it


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

    name: the folder's name or the zip's stem, verbatim where that can be a folder's name and nobody else's; unique.
    student: the id that the name, or Gradescope's metadata, gives.
    source: a hash of where it lies, by which a later run knows whether it is the same submission.
    entries: of how many files and folders that were given it is made.  notes: sentences for the student.
    platform: whose names these are; "" for nobody's.  originals: what it is made of, as the platform called it.
    submitted: when it was handed in, as the platform wrote it; "" where it does not say.
    """

    name: str
    student: str
    pieces: tuple[Piece, ...]
    source: str = ""
    entries: int = 1
    notes: tuple[str, ...] = ()
    platform: str = ""
    originals: tuple[str, ...] = ()
    submitted: str = ""

    def read(self, rubric: Rubric) -> Contents:
        """Look for the rubric's files. Raises nothing, whatever was handed in."""
        reading = _Reading(rubric)
        reading.notes += self.notes
        reading.entries += entries_of(self.pieces, _basenames(rubric), reading.notes)
        loose = [entry for entry in reading.entries if not entry.problem]
        if not all(any(_place(file, entry) for entry in loose) for file in rubric.submit):
            reading.open_archives()
        files = {file: content for file in rubric.submit if (content := reading.take(file)) is not None}
        if not files:
            reading.explain()
        return Contents(files, _some(reading.notes), not files and (reading.is_closed or reading.is_damaged))


@dataclass
class Inbox:
    """What was given.

    handins: sorted by name.  strays: what was not understood, with the reason.  platforms: whose names were read.
    """

    handins: list[Handin] = field(default_factory=list)
    strays: list[tuple[str, str]] = field(default_factory=list)
    platforms: list[str] = field(default_factory=list)

    @property
    def given(self) -> int:
        """How many files and folders were given; of a platform's export, how many it holds."""
        return sum(handin.entries for handin in self.handins) + len(self.strays)

    def in_two_rows(self) -> dict[str, list[str]]:
        """student -> submissions, for those who have more than one, alone or in a group."""
        rows: dict[str, list[str]] = {}
        for handin in self.handins:
            for student in dict.fromkeys(handin.student.split(";")):
                rows.setdefault(student, []).append(handin.name)
        return {student: names for student, names in rows.items() if len(names) > 1}


# -- finding submissions ----------------------------------------------------------------------------------


def find(
    paths: Sequence[Path], rubric: Rubric, *, platform: str | None = None, bulk: bool = False, out: Path | None = None
) -> Inbox:
    """The submissions that the paths hold.

    platform: whose names these are; None to tell by the names.  bulk: every path is an inbox.
    out: the folder of the results, which is no submission.
    Raises GradingError when a path does not exist or holds none, and when it could be one submission or several.
    """
    search = _Search(rubric, platform, Path(os.path.realpath(out)) if out else None)
    wholes = {_named(path): printable(str(path)) for path in map(Path, paths)}
    loose: list[Child] = []
    several: dict[str, str] = {}  # the folder in which an inbox lies -> the inbox
    for whole, shown in wholes.items():
        if whole.pieces[0].path == search.out and len(wholes) == 1:
            raise GradingError(f"{shown} cannot be both handed in and the folder of results: name another --out", 2)
        if whole.pieces[0].path == search.out or is_litter(whole.name):
            continue
        inside = search.inside(whole, shown, alone=len(wholes) == 1, bulk=bulk)
        if inside is not None:
            search.take_in(inside)
            several[_around(whole)] = shown
        else:
            loose.append(whole)
    for child in loose:  # what a shell makes of inbox/*, where somebody handed in a folder of folders
        if _around(child) in several and not bulk:
            raise GradingError(
                f"{several[_around(child)]} holds several submissions, and {wholes[child]} beside it is one: "
                "name the folder in which they lie, or grade them one after the other",
                2,
            )
    if loose:
        around = {_around(child) for child in loose}
        search.take_in(_Folder(os.path.basename(around.pop()) if len(around) == 1 else "", "", loose))
    if not search.rows:
        listed = "".join(f"; {printable(child.name)} {reason}" for child, reason in [*search.strays.items()][:3])
        raise GradingError(f"no submission is named{listed}: name folders, zips, or a folder of them", 2)
    return search.inbox()


@dataclass(frozen=True)
class _Folder:
    """An inbox. place: where it lies; "" for paths that were named one by one."""

    name: str
    place: str
    children: list[Child]


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


def _around(child: Child) -> str:
    """The folder in which something on disk lies."""
    return os.path.dirname(child.pieces[0].path)


class _Search:
    """What has been found so far.

    rows: the submissions and where they lie, by what they are made of, so that what is named twice is there once.
    """

    def __init__(self, rubric: Rubric, platform: str | None, out: Path | None) -> None:
        self.rubric, self.platform, self.out = rubric, platform, out
        self.basenames = {file.rpartition("/")[2] for file in rubric.submit}
        self.rows: dict[tuple[Child, ...] | str, tuple[Upload, str]] = {}
        self.strays: dict[Child, str] = {}
        self.platforms: list[str] = []
        self.times: dict[str, str] = {}  # Gradescope's name of a submission -> when it was handed in

    def take_in(self, inbox: _Folder) -> None:
        """Add what lies in an inbox."""
        children = [child for child in inbox.children if not _is_no_submission(child)]
        students = self.students(children)
        platform = self.platform or platforms.decide(children, students)
        if platform != PLAIN:
            if not platforms.labelled(platform, children, students):
                raise GradingError(f"--platform {platform}: nothing here has a name that {platform} gives", 2)
            self.platforms.append(platform)
        if platform == "gradescope":
            self.times |= platforms.gradescope_times(self._metadata(children))
        understood: set[Child] = set()
        for upload in platforms.uploads(platform, children, inbox.name, students, self.basenames):
            own = tuple(child for _, child in upload.children)
            place = inbox.place or _around((own or inbox.children)[0])
            place += f"/{own[0].name if len(own) == 1 else upload.name}"
            self.rows.setdefault(own or place, (upload, place))
            understood.update(own)
        for child in inbox.children:
            if child not in understood and not (platform == "gradescope" and child.name == platforms.METADATA):
                self.strays[child] = _is_no_submission(child) or self._why_stray(child)

    def inside(self, whole: Child, shown: str, *, alone: bool, bulk: bool) -> _Folder | None:
        """What a path holds when it is an inbox; None when it is a submission, or a part of one."""
        if whole.is_folder:
            return self._inside_folder(whole, shown, alone=alone, bulk=bulk)
        if whole.name.lower().endswith(".zip") and (alone or bulk):
            return self._inside_zip(whole, shown, bulk=bulk)
        return None

    def _inside_folder(self, whole: Child, shown: str, *, alone: bool, bulk: bool) -> _Folder | None:
        inbox = _Folder(whole.name, str(whole.pieces[0].path), self.children(whole))
        if bulk:
            return inbox
        if platforms.is_students_folder(whole.name):
            return None
        own = _at_their_places(whole.pieces, self.rubric)
        folders = {file.split("/")[0].lower() for file in self.rubric.submit if "/" in file}
        homes = [child for child in inbox.children if child.is_folder and child.name.lower() in folders]
        rest = (child for child in inbox.children if child not in homes[: len(folders)])
        others = [child.name for child in itertools.islice(filter(self._looks_submitted, rest), 3)]
        if own and not others:
            return None
        if own and (len(others) == 1 or len(own) == len(self.rubric.submit)):
            raise GradingError(
                f"{shown} holds {own[0]}, and what could be other submissions ({printable(listed(others))}): "
                "say --bulk if it is an inbox; if it is one submission, move the rest out of it",
                2,
            )
        if own or len(others) > 1 or self._is_export(inbox.children):
            return inbox
        if not alone:
            return None
        if len(inbox.children) == 1 and self._is_inbox(inbox.children[0]):
            inner = printable(inbox.children[0].name)
            raise GradingError(
                f"{shown} holds nothing but {inner}, which holds several submissions: name {inner} instead, "
                "or say --bulk if it is one submission",
                2,
            )
        if not others and self._platform(inbox.children) == PLAIN:
            raise GradingError(f"{shown} holds no submission: name folders, zips, or a folder of them", 2)
        return inbox

    def _inside_zip(self, whole: Child, shown: str, *, bulk: bool) -> _Folder | None:
        try:
            unpacked = _unpacked(whole)
        except Refused as refusal:
            if bulk:
                raise GradingError(f"{shown} {refusal}", 2) from None
            return None  # it has a row, which says the same
        outer = _Folder(unpacked.name, str(whole.pieces[0].path), self.children(unpacked))
        inner = outer
        if len(outer.children) == 1 and not self._is_one(around := outer.children[0]):  # made of a folder
            inner = _Folder(around.name, f"{outer.place}/{around.name}", self.children(around))
        if bulk:
            return inner if sum(child.may_be_submission for child in inner.children) > 1 else outer
        if self._is_one(unpacked):
            return None
        if self._is_export(inner.children):
            if len(inner.children) > MAX_STUDENTS:
                raise GradingError(f"{shown} holds {len(inner.children):,} submissions: say --bulk if that is so", 2)
            return inner
        if len(unpacked.pieces) > MAX_MEMBERS and self.platform is None:
            raise GradingError(
                f"{shown} lists {len(unpacked.pieces):,} files, too many for one submission: "
                "say --bulk if it holds several, --platform plain if it is one",
                2,
            )
        archives = sum(child.is_archive for child in inner.children)
        entries = entries_of(unpacked.pieces, _basenames(self.rubric), [])
        has_files = any(_place(file, entry) for entry in entries for file in self.rubric.submit)
        if archives > 1 and not has_files and self.platform is None:
            raise GradingError(
                f"{shown} holds {archives} archives: say --bulk if each is a submission, --platform plain if it is one",
                2,
            )
        holders: dict[str, list[str]] = {}
        for child in inner.children:
            for file in self._files_in(child) if child.is_folder else ():
                holders.setdefault(file, []).append(child.name)
        twice = {name for names in holders.values() if len(names) > 1 for name in names}
        if twice and self.platform is None:
            raise GradingError(
                f"{shown} holds the same files in several folders ({listed([*map(shown_name, sorted(twice))])}): "
                "say --bulk if each is a submission, --platform plain if it is one",
                2,
            )
        return None

    def _files_in(self, folder: Child) -> set[str]:
        """Which of the rubric's files lie anywhere in it."""
        entries = [entry for entry in entries_of(folder.pieces, _basenames(self.rubric), []) if not entry.problem]
        return {file for entry in entries for file in self.rubric.submit if _place(file, entry)}

    def _is_inbox(self, child: Child) -> bool:
        """Whether what lies alone in an inbox is one itself, as where an export was unpacked into its own folder."""
        try:
            folder = child if child.is_folder else _unpacked(child)
            inside = self.children(folder)
        except (Refused, GradingError):
            return False
        if self._is_one(folder):
            return False
        labels = platforms.labelled(self._platform(inside), inside, self.students(inside))
        return len(labels) > 1 or sum(inner.is_archive for inner in inside) > MAX_ARCHIVES

    def _is_one(self, child: Child) -> bool:
        """Whether it is surely no inbox."""
        if not child.is_folder or platforms.is_students_folder(child.name):
            return True
        return bool(_at_their_places(child.pieces, self.rubric))

    def _platform(self, children: Sequence[Child]) -> str:
        return self.platform or platforms.decide(children, self.students(children))

    def _is_export(self, children: Sequence[Child]) -> bool:
        return platforms.is_export(self._platform(children), children, self.students(children))

    def _looks_submitted(self, child: Child) -> bool:
        """Whether there is anything in it that could be graded."""
        if _is_no_submission(child):
            return False
        if not child.is_folder:
            return child.is_archive
        names = _basenames(self.rubric)
        return any(
            entry.is_archive
            or (
                is_wanted((child.name, *entry.parts), names) and any(_place(file, entry) for file in self.rubric.submit)
            )
            for entry in entries_of(child.pieces, names, [])
        )

    def children(self, folder: Child) -> list[Child]:
        """What lies directly in a folder on disk or in a zip, litter and our own output aside."""
        if folder.pieces and folder.pieces[0].member is None:
            return self._children_on_disk(folder.pieces[0].path)
        folders: dict[str, list[Piece]] = {}
        children = []
        for piece in folder.pieces:
            name, slash, rest = piece.name.partition("/")
            if is_litter(name):
                continue
            if slash or piece.member.is_dir():
                folders.setdefault(name, []).extend([Piece(rest, piece.path, piece.member)] if rest else [])
            else:  # also a second one of the same name
                children.append(Child(name, False, (piece,)))
        return [*children, *(Child(name, True, tuple(pieces)) for name, pieces in folders.items())]

    def _children_on_disk(self, folder: Path) -> list[Child]:
        try:
            with os.scandir(folder) as items:
                names = sorted(item.name for item in items if not is_litter(item.name))
        except OSError as error:
            raise GradingError(f"{printable(str(folder))} cannot be opened: {error.strerror}", 2) from None
        children = []
        for name in names:
            path = folder / name
            if path == self.out:
                continue
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            is_clone = is_folder and os.path.exists(path / ".git")
            children.append(Child(name, is_folder, (Piece("" if is_folder else name, path),), is_clone))
        return children

    def students(self, children: Sequence[Child]) -> Mapping[str, str]:
        """The ids in Gradescope's metadata, where that lies in an export of Gradescope's."""
        if not (self.platform == "gradescope" or platforms.could_be_gradescope(children)):
            return {}
        return platforms.gradescope_students(self._metadata(children))

    def _metadata(self, children: Sequence[Child]) -> bytes:
        """Gradescope's metadata; of none, what says nothing."""
        metadata = [child for child in children if child.name == platforms.METADATA and not child.is_folder]
        if not metadata:
            return b"{}"
        try:
            [entry] = entries_of(metadata[0].pieces, set(), [])
            return entry.read(MAX_NESTED_BYTES)
        except Refused as refusal:
            raise GradingError(f"{platforms.METADATA} {refusal}", 2) from None

    def _why_stray(self, child: Child) -> str:
        if child.name == platforms.METADATA:
            return "belongs to no export of Gradescope's"
        if child.name.lower() in self.basenames:
            return "lies loose: put it into a folder or a zip of its student's"
        return "is neither a folder nor a zip"

    def inbox(self) -> Inbox:
        """All that was found, with names that are good for folders."""
        rows = sorted(self.rows.values(), key=lambda row: row[1])
        names = _distinct([upload.name for upload, _ in rows])
        handins = []
        for (upload, place), (name, note) in zip(rows, names, strict=True):
            pieces: list[Piece] = []
            for called, child in upload.children:
                pieces += [replace(child.pieces[0], name=called)] if called else child.pieces
            source = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            handins.append(
                Handin(
                    name,
                    printable(upload.student),
                    tuple(pieces),
                    source,
                    entries=len(upload.children),
                    notes=note,
                    platform=upload.platform,
                    originals=tuple(child.name for _, child in upload.children) if upload.platform else (),
                    submitted=self.times.get(upload.name, "") if upload.platform == "gradescope" else "",
                )
            )
        strays = [(shown_name(child.name), reason) for child, reason in self.strays.items()]
        return Inbox(sorted(handins, key=lambda handin: handin.name), sorted(strays), self.platforms)


def _at_their_places(pieces: Iterable[Piece], rubric: Rubric) -> list[str]:
    """The files of the rubric that lie where the assignment has them, or loose at the top."""
    levels = 1 + max(file.count("/") for file in rubric.submit)
    entries = list(entries_of(pieces, _basenames(rubric), [], levels))
    places = ((file, _place(file, entry)) for file in rubric.submit for entry in entries)
    return list(dict.fromkeys(file for file, place in places if place is not None and place[0] == 0))


def _unpacked(whole: Child) -> Child:
    """A zip as a folder. Raises Refused when it cannot be read."""
    path = whole.pieces[0].path
    with open_plain(path) as file:
        members = zip_directory(file, MAX_BULK_DIRECTORY_BYTES, MAX_BULK_MEMBERS)
    named = [("/".join(parts_of(member.filename)), member) for member in members]
    return Child(platforms.stem(whole.name), True, tuple(Piece(name, path, member) for name, member in named if name))


def _is_no_submission(child: Child) -> str:
    """Why something is nobody's, whatever it holds; "" when it may be somebody's."""
    if not child.is_folder and is_link(child.pieces[0]):
        return "is a link, which is not followed: put what it points to in its place"
    if child.is_folder and child.name.startswith("."):
        return "is hidden"
    path = child.pieces[0].path if child.is_folder and child.pieces and child.pieces[0].member is None else None
    runs = (("grades.csv", "summary.html"), ("samples.csv", "leaderboard.html"))
    if path and any(all(os.path.isfile(path / output) for output in run) for run in runs):
        return "holds the results of a run"
    return ""


def _distinct(names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Names that can be folders side by side, also where file systems do not distinguish A from a, each with notes.

    The notes tell the student when it is not the name that was given.
    """
    clean = [printable(name).replace("/", "_").replace("\\", "_") for name in names]
    clean = [name.encode()[:MAX_NAME_BYTES].decode(errors="ignore") for name in clean]
    clean = [name if name.strip(". ") else "unnamed" for name in clean]
    found: list[tuple[str, tuple[str, ...]]] = [(name, ()) for name in clean]
    taken, numbers = set(RESERVED), dict.fromkeys(clean, 1)
    for i in sorted(range(len(names)), key=lambda i: clean[i] != names[i]):  # first those who can keep their names
        name = clean[i]
        while _folded(name) in taken:
            numbers[clean[i]] += 1
            name = f"{clean[i]}-{numbers[clean[i]]}"
        taken.add(_folded(name))
        note = f"This submission is called {name}: its own name is another's, or cannot be that of a folder."
        found[i] = (name, (note,) if name != names[i] else ())
    return found


def _folded(name: str) -> str:
    """The same for all names that some file system takes for one: those of one spelling, whatever the case, without
    joiners (HFS+), and without dots and spaces at the end (Windows' shares).
    """
    bare = name.replace("\u200c", "").replace("\u200d", "").rstrip(". ")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", bare).upper().casefold())


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
                    members = zip_directory(file, MAX_DIRECTORY_BYTES, MAX_MEMBERS)
                    reopen: Callable[[], BinaryIO] = partial(archive.open, 0)
                    if isinstance(file, io.BytesIO):
                        reopen = partial(io.BytesIO, file.getvalue())
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
                strange = [entry for entry in self.entries if entry.problem and [*entry.parts[-1:]] == folder]
                self.notes += [f"{entry.shown} {entry.problem}." for entry in strange[:3]]
                if len(strange) > 3:
                    self.notes.append(f"{len(strange) - 3:,} more that are called {folder[-1]} are no folders either.")
            return None
        best = min(place for place, _ in usable)
        chosen, *rivals = [entry for place, entry in usable if place == best]
        others = listed([entry.shown for _, entry in placed if entry is not chosen])
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


def listed(names: Sequence[str]) -> str:
    """Some of many names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _some(notes: Iterable[str]) -> list[str]:
    """Some of many notes, each once, and the beginning of long ones."""
    found = [note if len(note) <= MAX_NOTE else note[: MAX_NOTE - 1] + "…" for note in dict.fromkeys(notes)]
    if len(found) > MAX_NOTES:
        found[MAX_NOTES - 1 :] = [f"And {len(found) - MAX_NOTES + 1:,} more notes like these."]
    return found
