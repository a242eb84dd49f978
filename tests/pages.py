"""What students read, and the mathematics in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness import ROOT

FILES = ROOT / "grading" / "hidden"
NOTES = sorted((ROOT / "docs" / "notes").glob("*.md"))
ANALYSIS = FILES / "doors" / "gradebook" / "files" / "analysis.ipynb"
PAGES = [*NOTES, FILES / "handout" / "files" / "README.md", ANALYSIS]


def formulas(page: Path) -> tuple[list[str], list[str]]:
    """The formulas of a page, (inline, displayed), as GitHub finds them. Fails where a dollar has no partner."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    displayed = re.findall(r"\$\$(.+?)\$\$", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL)
    inline = []
    for paragraph in text.split("\n\n"):
        assert paragraph.count("$") % 2 == 0, paragraph
        inline += re.findall(r"\$([^$]*)\$", paragraph)
    return inline, displayed
