"""Whose is it? The names that learning platforms give to what students hand in.

| platform | looks like | student |
|---|---|---|
| Canvas | `lovelaceada_LATE_12345_678901_hw3.zip`, `anon_a1B2c_678901_hw3.zip` | `12345`, `a1B2c` |
| Moodle | `Ada Lovelace_1234567_assignsubmission_file_/`, or flat with `hw3.zip` at the end | `1234567` |
| Gradescope | `submission_456/` beside `submission_metadata.yml` | sid, else email; `a;b` for a group |
| GitHub Classroom | clones `hw3-ada-lovelace/`, `hw3-bob/` | `ada-lovelace`: without the prefix that all share |
| `grading pack` | `hw3-ada-lovelace.zip` | `ada-lovelace` |
| none of these | `ada.zip`, `ada/` | `ada` |

The submission is called after the folder, or the archive without its ending. Where Canvas, or Moodle without folders,
has several files of a student and not exactly one archive, they are one submission, called what their names have in
common: `lovelaceada_LATE_12345`, `Ada Lovelace_1234567_assignsubmission_file_`. (Canvas' numbers are the user and the
attachment, so the second one differs between the files of one student.)

The ids are those of the platforms' own grade sheets: Canvas' `ID`, Moodle's `Participant 1234567`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grading.errors import GradingError

METADATA = "submission_metadata.yml"
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst")
LITTER = {"__macosx", ".ds_store", ".git", ".venv", "venv", "__pycache__", "node_modules", ".ipynb_checkpoints"}

_CANVAS = re.compile(
    r"(?P<prefix>(?:LATE_)?anon_(?P<anonymous>\w{5})|.+?_(?P<user>\d+))"
    r"_(?:(?P<attachment>[1-9]\d{2,})_(?P<file>.+)|(?:text|link)\.html)",
    re.DOTALL,
)
_MOODLE = re.compile(
    r"(?P<prefix>(?P<who>.+?)_(?P<user>\d+)_assignsubmission_(?:file|onlinetext)_?)(?P<file>.*)", re.DOTALL
)


@dataclass(frozen=True)
class Child:
    """Something in a folder of submissions. pieces: where its bytes are, which is not this module's business."""

    name: str
    is_folder: bool
    pieces: tuple[Any, ...]
    is_clone: bool = False


@dataclass(frozen=True)
class Upload:
    """The children that are one submission, each with the name that the student gave it."""

    name: str
    student: str
    children: tuple[tuple[str, Child], ...]
    by_platform: bool


def is_litter(part: str) -> bool:
    """Whether a file or folder of this name was left by a tool and is nobody's work."""
    return part.lower() in LITTER or part.startswith("._")


def is_archive(name: str) -> bool:
    """Whether a file of this name is meant as an archive."""
    return name.lower().endswith(ARCHIVES)


def is_students_folder(name: str) -> bool:
    """Whether a platform gives such a name to the folder of one student."""
    return bool(_MOODLE.fullmatch(name))


def printable(text: str) -> str:
    """The text with a replacement character for all that no file or terminal should be given."""

    def safe(char: str) -> bool:
        return char.isprintable() or unicodedata.category(char) == "Zs" or char in "\u200c\u200d"

    return "".join(char if safe(char) else "\ufffd" for char in text)


def uploads(
    children: Sequence[Child], parent: str, students: Mapping[str, str] | None, files: set[str]
) -> list[Upload]:
    """The submissions among the children of the folder `parent`; what is no submission is left out.

    students: the ids that Gradescope's metadata gives.  files: the names that a student's files may have.
    """
    children = sorted(children, key=lambda child: child.name)
    moodle = {child: match for child in children if (match := _MOODLE.fullmatch(child.name))}
    canvas = {} if moodle else _canvas(children)
    sets: dict[tuple[str, ...], list[tuple[re.Match, Child]]] = {}
    for child, match in (moodle | canvas).items():
        key = (match["who"], match["user"]) if child in moodle else (match["prefix"],)
        sets.setdefault(key, []).append((match, child))
    found = [_platform_upload(members, files) for members in sets.values()]

    plain = [
        child
        for child in children
        if child not in moodle and child not in canvas and (child.is_folder or is_archive(child.name))
    ]
    prefix = _shared_prefix(plain, parent)
    for child in plain:
        name = child.name if child.is_folder else stem(child.name)
        student = (students or {}).get(name) or name.removeprefix(prefix) or name
        if student == name:
            student = re.sub(r"^hw3-(?=.)", "", name)
        as_named = "" if child.is_folder else child.name
        found.append(Upload(name, student, ((as_named, child),), by_platform=name in (students or {})))
    if students is not None:  # someone whose folder is not even there still gets a row
        absent = students.keys() - {upload.name for upload in found}
        found += [Upload(name, students[name], (), True) for name in absent if re.fullmatch(r"submission_\d+", name)]
    return found


def _canvas(children: Sequence[Child]) -> dict[Child, re.Match]:
    """Canvas' files. Attachment ids are unique, unlike those in `hw3_2024_101_ada.zip` and `hw3_2024_101_bob.zip`."""
    found = {child: match for child in children if not child.is_folder and (match := _CANVAS.fullmatch(child.name))}
    ids = [match["attachment"] for match in found.values() if match["attachment"]]
    return found if len(set(ids)) == len(ids) else {}


def _platform_upload(members: Sequence[tuple[re.Match, Child]], files: set[str]) -> Upload:
    """One student's files, or folders, or both."""
    match, first = members[0]  # of Moodle's two folders, the one with files: they are sorted by name
    archives = [child for _, child in members if not child.is_folder and is_archive(child.name)]
    name = stem(archives[0].name) if len(archives) == 1 else match["prefix"]
    name = first.name if first.is_folder else name
    named = tuple((("" if child.is_folder else _as_called(match["file"], files)), child) for match, child in members)
    return Upload(name, match["user"] or match["anonymous"], named, by_platform=True)


def _as_called(file: str | None, files: set[str]) -> str:
    """`vae-2.py` is the name that a platform gives to the third upload of `vae.py`."""
    file = file or "text.html"
    original = re.sub(r"-\d+(?=\.py$)", "", file)
    return original if original in files else file


def _shared_prefix(plain: Sequence[Child], parent: str) -> str:
    """What GitHub Classroom puts before every student's name. "" when these are not clones."""
    names = [child.name for child in plain]
    if not names or not all(child.is_clone for child in plain):
        return ""
    assignment = parent.removesuffix("-submissions") + "-"  # `gh classroom clone` names the folder so
    if parent.endswith("-submissions") and all(name.startswith(assignment) for name in names):
        return assignment
    shared = names[0] if len(names) > 1 else ""
    while not all(name.startswith(shared) for name in names):
        shared = shared[:-1]
    return shared[: shared.rfind("-") + 1]


def stem(name: str) -> str:
    """An archive's name without the ending."""
    ending = next((end for end in (".tar.gz", ".tar.bz2", ".tar.xz", *ARCHIVES) if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def gradescope_students(metadata: bytes) -> dict[str, str]:
    """submission -> id, from Gradescope's metadata. Raises GradingError when it cannot be read.

    The base loader makes strings of everything: no dates that do not exist, no octal student numbers, no objects.
    """
    try:
        import yaml
    except ImportError:
        raise GradingError(f"{METADATA} needs PyYAML to be read: pip install pyyaml") from None
    try:
        loaded = yaml.load(metadata, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise GradingError(
            f"{METADATA} is damaged ({reason}): export again, or delete it to go on without ids", 2
        ) from None
    if not isinstance(loaded, dict):
        raise GradingError(f"{METADATA} is not Gradescope's: export again, or delete it to go on without ids", 2)
    return {name: _submitters(entry) or name for name, entry in loaded.items() if isinstance(name, str)}


def _submitters(entry: Any) -> str:
    people = entry.get(":submitters") if isinstance(entry, dict) else None
    ids = []
    for person in people if isinstance(people, list) else []:
        known = [person.get(key) for key in (":sid", ":email")] if isinstance(person, dict) else []
        ids += [text.strip() for text in known if isinstance(text, str) and text.strip() not in ("", "~", "null")][:1]
    return ";".join(ids)
