"""The notebook `code`: what a student wrote for each graded function, its points, and what the grader says about them.

Nothing in it is ever run. What came out of a submission stands in the source of code cells and in plain output only,
which every page shows escaped; markdown would be shown as HTML.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import nbformat
from nbformat import v4

from grading.hidden.handout.notebook import KERNEL
from grading.hidden.reports.feedback import rows
from grading.hidden.reports.gradescope import explanation, overview
from grading.hidden.reports.result import Result
from grading.hidden.reports.text import clip, readable, short
from grading.rubric import Function, Rubric

MAX_SOURCE = 20_000  # characters of one function that are shown
WIDTH = 100  # characters of a line of output: nbgrader's pages do not break lines

_INTRODUCTION = """\
# {title}: your functions

This notebook comes back to you with your code, your points for each function, and what to look at again. There is
nothing to write here: your code is what you hand in as {submit}."""

_AS_IT_IS: dict[str, Any] = {"expand_tabs": False, "replace_whitespace": False, "drop_whitespace": False}


def empty_notebook(rubric: Rubric) -> str:
    """The notebook as nbgrader's `source` has it: a graded cell per function, with the rubric's points."""
    return _notebook(rubric, [cell for function in rubric.functions.values() for cell in _cells(function)])


def graded_notebook(result: Result, rubric: Rubric, files: dict[str, bytes] | None) -> str:
    """The same with a student's code and results. files: what was handed in; None if nobody gave it to us."""
    whole = [f"{short(result.total)} of {short(rubric.total)} points", overview(result)]
    cells = [_code("whole", "# Your submission as a whole.", {}, "\n".join(filter(None, whole)))]
    for row in rows(result, rubric):
        function = row.function
        points = f"{short(row.result.points)} of {short(function.points)} points"
        cells += _cells(function, _shown_source(function, files), f"{points}\n{explanation(row)}")
    return _notebook(rubric, cells)


def source_of(text: str, name: str) -> str | None:
    """The lines of a function or method ("guided_eps", "ConvVAE.reparameterize"), None if there is no such thing.

    A reading by indentation: the text may be no Python at all, and parsers can be made to crash. Where it is defined
    several times, the last one counts, as it does for Python.
    """
    lines, found = text.split("\n"), None
    in_text = _in_text(text)
    around: list[tuple[int, str]] = []  # the blocks that a line lies in: indentation, name
    for number, line in enumerate(lines):
        code = line.lstrip()
        if not code or in_text[number] or code.startswith(_OUT_OF_LINE):
            continue
        while around and around[-1][0] >= len(line) - len(code):
            around.pop()
        if match := re.match(r"(class|(?:async\s+)?def)\s+(\w+)", code):
            around.append((len(line) - len(code), match[2]))
            if match[1] != "class" and ".".join(block for _, block in around) == name:
                found = number
    if found is None:
        return None
    indent = len(lines[found]) - len(lines[found].lstrip())
    last = found
    for number in range(found + 1, len(lines)):
        code = lines[number].lstrip()
        width = len(lines[number]) - len(code)
        if in_text[number] or (code and (width > indent or (width == indent and code.startswith(")")))):
            last = number
        elif code and not code.startswith("#"):
            break
    while found > 0 and lines[found - 1].startswith(lines[found][:indent] + "@"):
        found -= 1
    return "\n".join(line.removeprefix(lines[found][:indent]) for line in lines[found : last + 1])


_OUT_OF_LINE = (")", "#")  # the end of a signature and comments may stand further left than the code around them


def _in_text(text: str) -> list[bool]:
    """For each line, whether it begins inside a string of three quotes."""
    found, inside = [False], ""  # inside: the quotes of a string, or the sign of a comment
    for match in re.finditer(r"\\?\n|\\.|#|\"{3}|'{3}|[\"']", text):
        if match[0].endswith("\n"):
            inside = inside if len(inside) == 3 else ""
            found.append(inside != "")
        elif not inside:
            inside = match[0] if match[0][0] != "\\" else ""
        elif match[0] == inside:
            inside = ""
    return found


def _shown_source(function: Function, files: dict[str, bytes] | None) -> str:
    if files is None:
        return f"# {function.name} in {function.file}: your code is in what you handed in; it is not repeated here."
    if function.file not in files:
        return f"# {function.file} was not handed in."
    source = source_of(readable(files[function.file].decode("utf-8", errors="replace")), function.name)
    return clip(source, MAX_SOURCE) if source else f"# There is no {function.name} in {function.file}."


def _cells(function: Function, source: str = "", output: str = "") -> list[Any]:
    """A heading, a cell for the student's code, on which graders may comment, and the cell with the points."""
    heading = f"## {function.title}\n\n`{function.name}` in `{function.file}`, {function.points:g} points"
    test = f"# {function.id}: judged on inputs that you have not seen. This cell is not run."
    return [
        v4.new_markdown_cell(heading, id=f"{function.id}-title"),
        _code(f"{function.id}-code", source, {"grade": False, "locked": False, "solution": True}),
        _code(function.id, test, {"grade": True, "locked": True, "solution": False, "points": function.points}, output),
    ]


def _code(name: str, source: str, marks: dict[str, Any], output: str = "") -> Any:
    metadata = {"nbgrader": {"grade_id": name, "schema_version": 3, "task": False, "cell_type": "code", **marks}}
    lines = [part for line in output.splitlines() for part in textwrap.wrap(line, WIDTH, **_AS_IT_IS) or [""]]
    outputs = [v4.new_output("stream", name="stdout", text="\n".join(lines))] if output else []
    return v4.new_code_cell(source, id=name[:64], metadata=metadata if marks else {}, outputs=outputs)


def _notebook(rubric: Rubric, cells: list[Any]) -> str:
    text = _INTRODUCTION.format(title=rubric.title, submit=", ".join(f"`{file}`" for file in rubric.submit))
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(text, id="introduction"), *cells], metadata=KERNEL)
    return nbformat.writes(notebook) + "\n"
