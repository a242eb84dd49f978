"""A notebook out of a text file: cells in the percent format, which VS Code, Spyder and PyCharm run as they are.

    # %% [markdown]
    # Text, each line behind a comment sign.

    # %% tags=["parameters"]
    code = "until the next cell begins"

Notebooks are JSON, so nothing has to be installed for a release.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from grading.errors import GradingError

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
_HEAD = re.compile(r"# %%(?P<markdown> \[markdown\])?(?: tags=(?P<tags>\[.*\]))?")


def notebook(source: str, file: str) -> str:
    """The notebook of a source file, as JSON. Raises GradingError for cells that cannot be read."""
    cells: list[dict[str, Any]] = []
    lines: list[str] = []
    for number, line in enumerate(source.splitlines(), start=1):
        if not line.startswith("# %%"):
            if not cells and line.strip():
                raise GradingError(f"{file}, line {number}: text before the first cell: begin it with `# %%`")
            lines.append(line)
            continue
        head = _HEAD.fullmatch(line)
        if head is None:
            raise GradingError(
                f'{file}, line {number}: no head of a cell: `# %%`, `# %% [markdown]`, `# %% tags=["..."]`'
            )
        _fill(cells, lines, file)
        lines = []
        cells.append(_cell(f"cell-{len(cells) + 1}", head["markdown"] is not None, json.loads(head["tags"] or "[]")))
    _fill(cells, lines, file)
    whole = {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _cell(id: str, is_markdown: bool, tags: list[str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": tags} if tags else {}
    if is_markdown:
        return {"cell_type": "markdown", "id": id, "metadata": metadata, "source": []}
    return {"cell_type": "code", "execution_count": None, "id": id, "metadata": metadata, "outputs": [], "source": []}


def _fill(cells: list[dict[str, Any]], lines: list[str], file: str) -> None:
    """Give the lines to the last cell, which has none yet."""
    if not cells:
        return
    if cells[-1]["cell_type"] == "markdown":
        if stray := next((line for line in lines if line and not re.match(r"#( |$)", line)), None):
            raise GradingError(f"{file}: a line of text is no comment: `{stray}`: write `# ` before it")
        lines = [re.sub("^# ?", "", line) for line in lines]
    text = "\n".join(lines).strip("\n")
    if cells[-1]["cell_type"] == "code":
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise GradingError(f"{file}: a cell cannot be read as Python: {error.msg}: `{error.text}`") from error
    cells[-1]["source"] = text.splitlines(keepends=True)
