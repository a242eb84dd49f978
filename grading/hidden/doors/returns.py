"""`python -m grading return`: the students' pages as the zip that a learning platform takes back.

| platform | where in the zip | what the platform does |
|---|---|---|
| canvas | the name of the file that was downloaded | attaches it, under the name of the student's own file |
| moodle | `Ada Lovelace_1234567_assignsubmission_file_/feedback.html` | adds it to the feedback files |
| folder | `ada/feedback.html` | |

As Canvas shows the student's own name of the file, the page comes inside a zip where the student handed in a zip. Only
pages leave: no results.json, which has what is for instructors.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import zipfile

from grading.errors import GradingError
from grading.hidden.doors.marks import read_results
from grading.hidden.intake.inbox import find
from grading.hidden.intake.platforms import printable
from grading.hidden.intake.untrusted import Refused, open_plain
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.result import Result
from grading.rubric import load_rubric

PAGE = "feedback.html"
MAX_BYTES = 16 << 20
_MOODLE = re.compile(r"([^_/\\]+_\d+_assignsubmission_file)(_.*)?", re.DOTALL)
_CANVAS = re.compile(r"([^/\\]+_\d+|(LATE_)?anon_\w{5})_\d+_[^/\\]+")  # Canvas looks for the number of the file
_TIME = (1980, 1, 1, 0, 0, 0)  # the same results are the same zip


def run(args: argparse.Namespace) -> int:
    """Write the zip, and say who is not in it. Exit code 1 then."""
    results, _ = read_results(args.grades, load_rubric())
    originals = {name: result.originals for name, result in results.items()}
    if args.submissions:
        handins = find([args.submissions], load_rubric(), platform=None if args.to == "folder" else args.to).handins
        originals |= {handin.name: list(handin.originals) for handin in handins}
    found: dict[str, bytes] = {}
    left_out = []
    for name, result in sorted(results.items()):
        try:
            with open_plain(args.grades / name / PAGE) as file:
                page = file.read(MAX_BYTES)
        except Refused as refusal:
            left_out.append(f"{printable(name)} ({PAGE} {refusal})")
            continue
        place, content = _entry(args.to, result, originals[name], page)
        if place and place not in found:
            found[place] = content
        else:
            left_out.append(printable(name))
    if not found:
        raise GradingError(f"no submission has a name of {args.to}'s: say --to folder, or name --submissions", 2)
    write_atomically(args.out, _zip(found))
    print(f"{args.out}: {len(found)} pages")
    if left_out:
        reason = f"{args.to} gave them no name, or they are damaged" if args.to != "folder" else "they are damaged"
        print(f"grading: warning: not in it, as {reason}: {', '.join(left_out)}", file=sys.stderr)
    return 1 if left_out else 0


def _entry(to: str, result: Result, originals: list[str], page: bytes) -> tuple[str, bytes]:
    """(place in the zip, content); no place where the platform could not tell whose it is."""
    if to == "folder":
        safe = re.sub(r'[\\/:*?"<>|]', "_", printable(result.submission))
        return f"{safe}/{PAGE}", page
    names = sorted((name for name in originals if name == printable(name)), key=lambda name: not _is_zip(name))
    if to == "moodle":
        match = next(filter(None, map(_MOODLE.fullmatch, names)), None)
        return (f"{match[1]}_/{PAGE}" if match else ""), page
    name = next((name for name in names if _CANVAS.fullmatch(name) and not name.startswith(".")), "")
    return name, _zip({PAGE: page}) if _is_zip(name) else page


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _zip(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name, _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return stream.getvalue()
