"""Solution regions: find them, take them out, read them.

In Python, a region lies between the comments `### BEGIN SOLUTION` and `### END SOLUTION`, each alone on its line, under
a comment `# TODO(<id>): what to write`. Python's tokenizer finds the comments, so markers inside strings are text. In a
notebook, it is the marking guide of an answer, between the same markers in the cell of that answer.
"""

from __future__ import annotations

import ast
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Callable
from dataclasses import dataclass

from grading.errors import GradingError

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


@dataclass(frozen=True)
class Region:
    """One region. first, last: the marker lines, counted from 0.  todo: the text of its TODO comment."""

    id: str
    todo: str
    first: int
    last: int
    indent: str


def find_regions(source: str, file: str) -> list[Region]:
    """All regions of a source file. Raises GradingError, with file and line, for markers that do not pair up."""
    lines = list(io.StringIO(source, newline=""))  # the lines that the tokenizer counts
    regions: list[Region] = []
    opened: int | None = None
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source, newline="").readline))
    except (tokenize.TokenError, SyntaxError, IndentationError) as error:
        raise GradingError(f"{file} cannot be read as Python: {error}") from error
    for token in tokens:
        if token.type != tokenize.COMMENT or token.string.strip() not in (BEGIN, END):
            continue
        number = token.start[0] - 1
        where = f"{file}, line {number + 1}"
        if lines[number].strip() != token.string.strip():
            raise GradingError(f"{where}: {token.string.strip()} must be alone on its line")
        if token.string.strip() == BEGIN:
            if opened is not None:
                raise GradingError(f"{where}: {BEGIN} inside the region that begins in line {opened + 1}")
            opened = number
        elif opened is None:
            raise GradingError(f"{where}: {END} without {BEGIN}")
        else:
            regions.append(_region(lines, opened, number, file))
            opened = None
    if opened is not None:
        raise GradingError(f"{file}, line {opened + 1}: {BEGIN} without {END}")
    return regions


def _region(lines: list[str], first: int, last: int, file: str) -> Region:
    above = lines[first - 1].strip() if first else ""
    match = re.fullmatch(r"# TODO\(([\w-]+)\): (.+)", above)
    if match is None:
        raise GradingError(f"{file}, line {first + 1}: no `# TODO(<id>): ...` comment above {BEGIN}")
    indent = lines[first][: -len(lines[first].lstrip())]
    return Region(match[1], match[2], first, last, indent)


def without_solutions(source: str, file: str) -> str:
    """The source as handed out: each region is one `raise NotImplementedError("TODO(<id>): ...")`."""

    def stub(region: Region, lines: list[str]) -> list[str]:
        ending = "\r\n" if lines[region.first].endswith("\r\n") else "\n"
        todo = re.sub(r" About \d+ lines?\.$", "", region.todo)  # the comment above says how long it is
        text = f"TODO({region.id}): {todo}".replace("\\", "\\\\").replace('"', '\\"')
        return [f'{region.indent}raise NotImplementedError("{text}"){ending}']

    return _replace_regions(source, file, stub)


def without_markers(source: str, file: str) -> str:
    """The source with its solutions in place and the markers gone: the solutions branch."""
    return _replace_regions(source, file, lambda region, lines: lines[region.first + 1 : region.last])


def _replace_regions(source: str, file: str, replacement) -> str:  # noqa: ANN001
    lines = list(io.StringIO(source, newline=""))  # the lines that the tokenizer counts
    for region in reversed(find_regions(source, file)):
        lines[region.first : region.last + 1] = replacement(region, lines)
    return "".join(lines)


def solution_statements(source: str, file: str) -> list[str]:
    """Every statement inside the regions, and every comment there, as written by `ast` or by the author."""
    lines = source.splitlines()
    found = []
    for region in find_regions(source, file):
        body = lines[region.first + 1 : region.last]
        tree = ast.parse(textwrap.dedent("def f():\n" + textwrap.indent(textwrap.dedent("\n".join(body)), "    ")))
        for node in ast.walk(tree):
            if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef):
                found.append(ast.unparse(node))
                # A leak need not be of the whole statement: what is returned or assigned counts too.
                value = getattr(node, "value", None)
                if isinstance(value, ast.expr):
                    found.append(ast.unparse(value))
        found += [line.strip().lstrip("# ") for line in body if line.strip().startswith("#")]
    return found


# -- notebooks -------------------------------------------------------------------------------------------

ANSWER = "YOUR ANSWER HERE"  # what nbgrader writes in the place of a guide, so that it knows an answer that is empty


def without_guides(notebook: str, file: str) -> str:
    """A notebook as students get it: an empty answer in the place of each marking guide.

    Raises GradingError for markers that do not pair up.
    """
    return _each_guide(notebook, file, lambda line: None)


def guides(notebook: str, file: str) -> list[str]:
    """The lines of all marking guides, without the signs of lists."""
    found: list[str] = []
    _each_guide(notebook, file, found.append)
    return [line.strip("* ") for line in found if line.strip("* ")]


def _each_guide(notebook: str, file: str, take: Callable[[str], None]) -> str:
    """Hand out the lines of all guides, and return the notebook without them."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        lines, inside = [], False
        for line in "".join(cell["source"]).splitlines():
            if line.strip() in (BEGIN, END):
                if inside == (line.strip() == BEGIN):
                    raise GradingError(f"{file}, cell {cell.get('id', '')}: {BEGIN} and {END} do not pair up")
                inside = not inside
                lines += [ANSWER] * inside
            elif inside:
                take(line)
            else:
                lines.append(line)
        if inside:
            raise GradingError(f"{file}, cell {cell.get('id', '')}: {BEGIN} without {END}")
        cell["source"] = "\n".join(lines).splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
