"""What is said of code that raises: the student's own line, and what usually stands behind such an error."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from grading.submission import FILES, ROOT, describe

if TYPE_CHECKING:  # a worker has no rubric, and asks for a line only
    from grading.rubric import Function

# What an error's text has in it -> what to look at. The first that fits is said.
_USUAL = {
    r"Boolean value of Tensor": "`if` asks one question, and every row of a batch has an answer of its own",
    r"Tensor with \d+ elements cannot be converted|[Oo]nly (one element|integer) tensors": (
        "this takes one number, and a batch has one for every row: stay with tensors"
    ),
    r"must be Tensor, not (float|int)": "torch's functions take tensors: for a plain number there is `math`",
    r"out of (bounds|range)": "a time from outside the schedule reached a table: which rows have none to look up?",
    r"NVIDIA|CUDA|cuda": "a device is named in the code: tensors belong where the inputs are, wherever that is",
    r"on the same device": "a tensor was made on another device than the inputs lie on",
    r"size of tensor a \(\d+\) must match": "one number for each row does not line up with data of more dimensions",
    r"shapes cannot be multiplied": "a layer is fed something of another width than it was made for",
    r"requires grad": "the result must stay part of the graph, through which gradients flow",
}


def usual(text: str) -> str:
    """What usually stands behind an error with this text; "" if nothing is known."""
    return next((said for pattern, said in _USUAL.items() if re.search(pattern, text)), "")


def own_frame(error: BaseException, path: Path, given: ModuleType) -> traceback.FrameSummary | None:
    """Where a student's own code raised, or called given code that did: the last line of its file on the way there.

    given: the module as it is handed out. What it defines is not the student's, but for the function that was called.
    """
    stack = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    frames = [frame for frame in stack if frame.filename == str(path)]
    own = [frame for frame in frames if frame.name == frames[0].name or frame.name not in _functions(given)]
    return own[-1] if own else None


def _functions(module: ModuleType) -> set[str]:
    """The names of its functions and methods."""
    here = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    members = [value for cls in here if isinstance(cls, type) for value in vars(cls).values()]
    methods = [getattr(member, "__func__", member) for member in members]  # out of staticmethod and classmethod
    return {value.__name__ for value in [*here, *methods] if inspect.isfunction(value)}


def crash_message(function: Function, asked: str, error: BaseException) -> str:
    """What a student reads where a check ended with an exception."""
    lines = [f"{function.id} ({function.name} in {function.file}) raises {describe(error)}"]
    frame = own_frame(error, ROOT / function.file, sys.modules[FILES[function.file]])
    if frame is not None:
        lines.append(f"  line {frame.lineno}: {frame.line}")
    lines.append(f"  asked:   {asked}")
    if usual(str(error)):
        lines.append(f"  usually: {usual(str(error))}")
    lines.append(f"  all of it: pytest grading/ -k {function.id.replace('-', '_')} --tb=long, or --pdb to look around")
    return "\n".join(lines)
