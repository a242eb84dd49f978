"""`grade --only ID --keep`: a folder in which the instructor runs a submission that somebody disputes the mark of.

It holds hidden cases and is for nobody else; what is sent to students never has anything of it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from grading.cases import Case, save_cases
from grading.hidden.handout.release import write_tree
from grading.hidden.reports.files import folder_of
from grading.hidden.reports.result import Result

REPLAY = Path(__file__).with_name("replay.py")
KEEP = "keep"


def keep_failed(
    out: Path, result: Result, files: dict[str, bytes], hidden: dict[str, list[Case]], handout: dict[str, bytes]
) -> Path | None:
    """Write OUT/<submission>/keep: the handout with the student's files, `replay.py`, and what it replays.

    That is each hidden case of a group of which something failed. Returns the folder; None when nothing failed, or no
    file of it was handed in. What an earlier run kept is gone then.
    """
    folder = folder_of(out, result.submission) / KEEP
    shutil.rmtree(folder, ignore_errors=True)
    disputed: dict[str, list[Case]] = {}
    for function in result.functions:
        lost = {group for group, (passed, count) in function.groups.items() if passed < count}
        if cases := [case for case in hidden[function.id] if case.group in lost]:
            disputed[function.id] = cases
    if not disputed or not files:
        return None
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".keep-") as scratch:
        tree = Path(scratch) / KEEP
        write_tree(tree, {**handout, **files, "replay.py": REPLAY.read_bytes()})
        for id, cases in disputed.items():
            save_cases(tree / "disputed" / f"{id}.npz", cases)
        tree.rename(folder)
    return folder
