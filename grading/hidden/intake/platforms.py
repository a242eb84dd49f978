"""Whose is it? The names that learning platforms give to what students hand in.

| platform | looks like | student |
|---|---|---|
| canvas | `lovelaceada_LATE_12345_678901_hw3.zip`, `anon_a1B2c_678901_hw3.zip` | `12345`, `a1B2c` |
| moodle | `Ada Lovelace_1234567_assignsubmission_file_/`, or flat with `hw3.zip` at the end | `1234567` |
| gradescope | `submission_456/` beside `submission_metadata.yml` | sid, else email; `a;b` for a group |
| classroom | clones `hw3-ada-lovelace/`, `hw3-bob/` | `ada-lovelace`: without the prefix that all share |
| plain | `ada.zip`, `ada/`, and `hw3-ada.zip` of `grading pack` | `ada` |

The ids are those of the platforms' own grade sheets: Canvas' `ID`, Moodle's `Participant 1234567`.

Students choose parts of all these names, so none of them decides anything for the others: an inbox is a platform's
export when that names most of what lies in it (`decide`), and the ids are read where the platform writes them.

* Canvas (`ContentZipper`) takes all but word characters from the name, makes it lower case, and joins it with `LATE`,
  the user's number, the upload's number and the file's name. The first two numbers in a row are Canvas' own.
* Moodle (`mod_assign`) makes spaces of a name's underscores. With a folder per student nothing follows the
  pattern, so its last occurrence is Moodle's; of a flat name, what precedes it holds no underscore.

A submission is called after its folder, or its archive without the ending. A student's other files go with it; where
Canvas, or Moodle without folders, has single files only, they are one submission, called what their names have in
common: `lovelaceada_LATE_12345`. Two archives are never one submission.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from grading.errors import GradingError

PLAIN = "plain"
PLATFORMS = ("gradescope", "moodle", "canvas", "classroom", PLAIN)
METADATA = "submission_metadata.yml"
MAX_EVENTS, MAX_LEVELS = 2_000_000, 100  # in it: some dozens for each student, and a dozen
MAX_GROUP, MAX_ID = 50, 254  # students of one submission, and characters of a sid or an address
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst")
LITTER = {"__macosx", ".ds_store", "thumbs.db", "desktop.ini", ".git", ".gitignore", ".gitkeep", ".idea", ".vscode"}
LITTER |= {".venv", "venv", "__pycache__", "node_modules", ".ipynb_checkpoints"}

_CANVAS = re.compile(
    r"(?P<prefix>(?:LATE_)?anon_(?P<anonymous>\w{5})|(?P<who>[a-z0-9_\x80-\U0010ffff]*?)(?:_LATE)?_(?P<user>\d+))"
    r"_(?:(?P<upload>[1-9]\d{2,})_(?P<file>.+)|(?:text|link)\.html)",
    re.DOTALL,
)
_MOODLE_KIND = r"_assignsubmission_(?P<kind>[a-z]+)"
_MOODLE_FOLDER = re.compile(rf"(?P<prefix>(?P<who>.+(?P<user>_\d+)|[^_]+){_MOODLE_KIND}_?)", re.DOTALL)
_MOODLE_FILE = re.compile(rf"(?P<prefix>(?P<who>[^_]+(?P<user>_\d+)?){_MOODLE_KIND}_)(?P<file>.+)", re.DOTALL)
_GRADESCOPE = re.compile(r"submission_\d+")


@dataclass(frozen=True)
class Child:
    """Something in a folder of submissions. pieces: where its bytes are, which is not this module's business."""

    name: str
    is_folder: bool
    pieces: tuple[Any, ...]
    is_clone: bool = False

    def __hash__(self) -> int:
        """Of the first piece only: a folder in a zip can have a hundred thousand."""
        return hash((self.name, self.is_folder, self.pieces[:1]))

    @property
    def is_archive(self) -> bool:
        """Whether it is meant as an archive."""
        return not self.is_folder and is_archive(self.name)

    @property
    def may_be_submission(self) -> bool:
        """Whether it can be one by itself."""
        return self.is_folder or self.is_archive


@dataclass(frozen=True)
class Upload:
    """The children that are one submission, each with the name that the student gave it.

    platform: whose names they have; "" for nobody's.
    """

    name: str
    student: str
    children: tuple[tuple[str, Child], ...]
    platform: str = ""


def is_litter(part: str) -> bool:
    """Whether a file or folder of this name was left by a system and is nobody's work."""
    return part.lower() in LITTER or part.startswith("._")


def is_archive(name: str) -> bool:
    """Whether a file of this name is meant as an archive."""
    return name.lower().endswith(ARCHIVES)


def is_students_folder(name: str) -> bool:
    """Whether a platform gives such a name to the folder of one student."""
    return bool(_MOODLE_FOLDER.fullmatch(name))


def printable(text: str) -> str:
    """The text with a replacement character for all that no file or terminal should be given."""
    if text.isprintable():
        return text

    def safe(char: str) -> bool:
        return char.isprintable() or unicodedata.category(char) == "Zs" or char in "\u200c\u200d"

    return "".join(char if safe(char) else "\ufffd" for char in text)


# -- which platform ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Label:
    """What a platform says in the name of something.

    key: the same for all that one student handed in.  prefix: what the platform wrote before the file's own name.
    who: the student's name.  upload: Canvas' number of the file.  is_sure: whether nothing else can be meant.
    """

    student: str
    key: str = ""
    prefix: str = ""
    who: str = ""
    upload: str = ""
    file: str = ""
    is_whole: bool = True
    is_sure: bool = True


def could_be_gradescope(children: Sequence[Child]) -> bool:
    """Whether most of it has names of Gradescope's, so that the metadata beside it is Gradescope's too."""
    rows = [child for child in children if child.may_be_submission]
    return 2 * sum(child.is_folder and bool(_GRADESCOPE.fullmatch(child.name)) for child in rows) > len(rows)


def decide(children: Sequence[Child], students: Mapping[str, str]) -> str:
    """The platform whose export this is: it named more of it than there are other folders and archives.

    students: the ids that Gradescope's metadata gives.
    """
    for platform in PLATFORMS:
        labels = labelled(platform, children, students)
        others = sum(child not in labels and child.may_be_submission for child in children)
        if len(labels) > others and (platform != "canvas" or _is_canvas(labels)):
            return platform
    return PLAIN


def is_export(platform: str, children: Sequence[Child], students: Mapping[str, str]) -> bool:
    """Whether all of it has the platform's structure, which must be more than one name."""
    labels = labelled(platform, children, students)
    return len(labels) > 1 and all(child in labels or child.name == METADATA for child in children)


def labelled(platform: str, children: Sequence[Child], students: Mapping[str, str]) -> dict[Child, _Label]:
    """The children that have a name of the platform's, and what it says."""
    if platform == PLAIN:
        return {}
    read = {"canvas": _canvas, "moodle": _moodle, "gradescope": _gradescope, "classroom": _classroom}[platform]
    return {child: label for child in children if (label := read(child, students))}


def _canvas(child: Child, _: Mapping[str, str]) -> _Label | None:
    match = None if child.is_folder else _CANVAS.fullmatch(child.name)
    if not match:
        return None
    student = match["user"] or match["anonymous"]
    return _Label(
        student,
        key=match["prefix"],
        prefix=match["prefix"],
        who=match["who"] or student,
        upload=match["upload"] or "",
        file=match["file"] or "text.html",
        is_whole=child.is_archive,
        # Who is called lovelaceada_7 gets a name like user 7's, with his own numbers before that of the file.
        is_sure=not re.match(r"\d+_", match["file"] or ""),
    )


def _moodle(child: Child, _: Mapping[str, str]) -> _Label | None:
    match = (_MOODLE_FOLDER if child.is_folder else _MOODLE_FILE).fullmatch(child.name)
    if not match:
        return None
    return _Label(
        (match["user"] or match["who"]).removeprefix("_"),  # those in no team have a common name and no number
        key=match["who"],
        prefix=match["prefix"],
        file="" if child.is_folder else match["file"],
        is_whole=match["kind"] == "file" if child.is_folder else child.is_archive,
    )


def _gradescope(child: Child, students: Mapping[str, str]) -> _Label | None:
    is_named = child.is_folder and _GRADESCOPE.fullmatch(child.name) and child.name in students
    return _Label(students[child.name], key=child.name) if is_named else None


def _classroom(child: Child, _: Mapping[str, str]) -> _Label | None:
    return _Label(child.name, key=child.name) if child.is_clone else None


def _is_canvas(labels: Mapping[Child, _Label]) -> bool:
    """Whether numbers in names are Canvas'. `hw3_2024_1001_ada.zip` and `hw3_2024_1002_bob.zip` have the same form.

    With Canvas, users have a name of their own and one archive at most, and no upload has two users. This is asked of
    most users and not of all, as one of them could choose names and uploads that break it.
    """
    names = Counter(who for who, _ in {(label.who, label.student) for label in labels.values()})
    uploads = Counter(upload for upload, _ in {(label.upload, label.student) for label in labels.values()})
    archives = Counter(label.student for label in labels.values() if label.is_whole)
    users = {label.student for label in labels.values()}
    odd = {
        label.student
        for label in labels.values()
        if names[label.who] > 1 or (label.upload and uploads[label.upload] > 1)
    }
    odd |= {student for student, count in archives.items() if count > 1}
    return len(labels) > 1 and 2 * len(odd) < len(users)


# -- which submissions ------------------------------------------------------------------------------------


def uploads(
    platform: str, children: Sequence[Child], parent: str, students: Mapping[str, str], files: set[str]
) -> list[Upload]:
    """The submissions among the children of the folder `parent`. Single files that no platform named are in none.

    Folders and archives that the platform did not name were put there by the instructor, and count like any others.
    students: the ids that Gradescope's metadata gives.  files: the names that a student's files may have.
    """
    children = sorted(children, key=lambda child: child.name)
    labels = labelled(platform, children, students)
    sets: dict[str, list[tuple[_Label, Child]]] = {}
    for child, label in labels.items():
        sets.setdefault(label.key, []).append((label, child))
    prefix = _shared_prefix([child.name for child in labels], parent) if platform == "classroom" else ""
    found = []
    for members in sets.values():
        student = members[0][0].student
        found += [
            Upload(
                _name(group),
                student.removeprefix(prefix) or student,
                tuple(_called(*one, files) for one in group),
                platform,
            )
            for group in _grouped(members, files)
        ]
    if platform == "gradescope":  # someone whose folder is not even there still gets a row
        absent = sorted(students.keys() - {child.name for child in labels})
        found += [Upload(name, students[name], (), platform) for name in absent if _GRADESCOPE.fullmatch(name)]
    for child in children:
        if child not in labels and child.may_be_submission:
            name = child.name if child.is_folder else stem(child.name)
            student = re.sub(r"^hw3-(?=.)", "", name)  # so `grading pack` calls its zips
            found.append(Upload(name, student, (("" if child.is_folder else child.name, child),)))
    return found


def _grouped(members: list[tuple[_Label, Child]], files: set[str]) -> list[list[tuple[_Label, Child]]]:
    """What one student handed in, as submissions: one, unless there are two archives or two folders."""
    whole = [member for member in members if member[0].is_whole]
    rest = [member for member in members if not member[0].is_whole]
    wanted = {file.lower() for file in files}
    is_graded = any(_called(*member, files)[0].lower() in wanted for member in rest)
    if not whole:
        return [rest]
    if is_graded and (len(whole) > 1 or not whole[0][0].is_sure):
        return [*([member] for member in whole), rest]
    return [[whole[0], *rest], *([member] for member in whole[1:])]


def _name(group: list[tuple[_Label, Child]]) -> str:
    label, first = group[0]
    if first.is_folder:
        return first.name
    return stem(first.name) if label.is_whole else label.prefix


def _called(label: _Label, child: Child, files: set[str]) -> tuple[str, Child]:
    """What the student called it. `vae-2.py` is the name that a platform gives to the third upload of `vae.py`."""
    if child.is_folder:
        return "", child
    original = re.sub(r"-\d+(?=\.(py|npz)$)", "", label.file)
    return (original if original in files else label.file), child


def _shared_prefix(names: Sequence[str], parent: str) -> str:
    """What GitHub Classroom puts before every student's name."""
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


def is_marked_late(original: str) -> bool:
    """Whether Canvas says so in the name that it gave. A student's part of a name is lower case."""
    match = _CANVAS.fullmatch(original)
    return match is not None and re.match(r"LATE_|.*_LATE_", match["prefix"], re.DOTALL) is not None


def gradescope_students(metadata: bytes) -> dict[str, str]:
    """submission -> id, from Gradescope's metadata. Raises GradingError when it cannot be read."""
    return {name: _submitters(entry) or name for name, entry in _gradescope_entries(metadata).items()}


def gradescope_times(metadata: bytes) -> dict[str, str]:
    """submission -> when it was handed in, as Gradescope writes it. Raises GradingError as above."""
    entries = _gradescope_entries(metadata).items()
    found = {name: entry.get(":created_at") for name, entry in entries if isinstance(entry, dict)}
    return {name: time for name, time in found.items() if isinstance(time, str)}


@lru_cache(maxsize=1)
def _gradescope_entries(metadata: bytes) -> dict[str, Any]:
    """The metadata by submission."""
    loaded = _loaded(metadata)
    if not isinstance(loaded, dict):
        raise GradingError(f"{METADATA} is not Gradescope's: export again, or delete it to go on without ids", 2)
    return {name: entry for name, entry in loaded.items() if isinstance(name, str)}


def _submitters(entry: Any) -> str:
    """Students choose their sid, so one that reads like several is none."""
    people = entry.get(":submitters") if isinstance(entry, dict) else None
    ids = []
    for person in people[:MAX_GROUP] if isinstance(people, list) else []:
        known = [person.get(key) for key in (":sid", ":email")] if isinstance(person, dict) else []
        texts = [text.strip() for text in known if isinstance(text, str)]
        ids += [text for text in texts if text not in ("", "~", "null") and ";" not in text and len(text) <= MAX_ID][:1]
    return ";".join(ids)


@lru_cache(maxsize=1)
def _loaded(metadata: bytes) -> Any:
    """What a YAML text says, as dicts, lists and strings: no dates that do not exist, no octal numbers, no objects.

    Made of the parser's events and not by a loader: those call themselves for each level, so that a text of "[" ends
    the process, and of a key that is there twice they take the last one. Raises GradingError for both.
    """
    try:
        import yaml
    except ImportError:
        raise GradingError(f"{METADATA} needs PyYAML to be read: pip install pyyaml") from None
    top: list[Any] = []
    around: list[tuple[list[Any], str | None, bool]] = [(top, None, False)]  # what is open: items, anchor, is a mapping
    anchors: dict[str, Any] = {}

    def ended(value: Any, anchor: str | None) -> None:
        around[-1][0].append(value)
        if anchor:
            anchors[anchor] = value

    try:
        for number, event in enumerate(yaml.parse(metadata, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))):
            if number > MAX_EVENTS or len(around) > MAX_LEVELS:
                raise ValueError("more than Gradescope writes")
            if isinstance(event, yaml.ScalarEvent):
                ended(event.value, event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                around[-1][0].append(anchors[event.anchor])
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                around.append(([], event.anchor, isinstance(event, yaml.MappingStartEvent)))
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                items, anchor, is_mapping = around.pop()
                ended(_mapping(items) if is_mapping else items, anchor)
    except (yaml.YAMLError, ValueError, KeyError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise GradingError(
            f"{METADATA} is damaged ({reason}): export again, or delete it to go on without ids", 2
        ) from None
    return top[0] if len(top) == 1 else None


def _mapping(items: list[Any]) -> dict[str, Any]:
    """Keys and values in turn as a dict. Raises ValueError for a key that is no text, or there twice."""
    keys = items[::2]
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("a key is no text")
    found = dict(zip(keys, items[1::2], strict=True))
    if len(found) < len(keys):
        raise ValueError(f"{next(key for key, count in Counter(keys).items() if count > 1)[:80]} is there twice")
    return found
