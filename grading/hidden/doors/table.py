"""A table that another program wrote, as CSV: read with the line of every mistake, and written back as it was.

Only the cells that are set differ afterwards: the encoding, the line ends, the separator and even the quotes of all
other cells stay, as the program that wrote the file is to read it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grading.errors import GradingError
from grading.hidden.reports.text import no_formula

MAX_BYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass
class Row:
    """cells: what they mean.  raw: how they are written.  end: the line end behind them, "" at the end of the file."""

    line: int
    cells: list[str]
    raw: list[str]
    end: str


@dataclass
class Table:
    """A header and rows that are as long as it."""

    path: Path
    separator: str
    header: Row
    rows: list[Row] = field(default_factory=list)
    has_bom: bool = False
    _blank: dict[int, str] = field(default_factory=dict)  # number of rows before it -> lines without a cell

    def columns(self, name: str) -> list[int]:
        """Where the columns of that name are."""
        return [place for place, called in enumerate(self.header.cells) if called == name]

    def cell(self, row: Row, name: str) -> str:
        """What stands in the first column of that name, "" where there is no such column."""
        places = self.columns(name)
        return row.cells[places[0]].strip() if places else ""

    def error(self, line: int, problem: str) -> GradingError:
        """What is wrong with a line."""
        return GradingError(f"{self.path}, line {line}: {problem}", exit_code=2)

    def add_column(self, name: str) -> int:
        """A new last column, empty. Returns where it is."""
        for row in (self.header, *self.rows):
            row.cells.append("")
            row.raw.append("")
        self.set(self.header, len(self.header.cells) - 1, name)
        return len(self.header.cells) - 1

    def set(self, row: Row, column: int, text: str) -> None:
        """Write a cell, harmless in a spreadsheet."""
        text = no_formula(text)
        row.cells[column] = text
        quoted = '"' + text.replace('"', '""') + '"'
        row.raw[column] = quoted if re.search(r'[",;\r\n]', text) else text

    def to_bytes(self) -> bytes:
        """The file."""
        lines = [self.separator.join(row.raw) + row.end for row in (self.header, *self.rows)]
        for place in sorted(self._blank, reverse=True):
            lines.insert(place, self._blank[place])
        return _BOM * self.has_bom + "".join(lines).encode("utf-8")


def read_table(path: Path, recognised: Callable[[Sequence[str]], bool], needed: str) -> Table:
    """Read a file, with the separator by which its header is recognised.

    needed: which columns there must be, for the message.
    Raises GradingError when it cannot be read, is damaged, or has no such header.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise GradingError(f"{path} cannot be read: {error.strerror}", exit_code=2) from error
    if len(content) > MAX_BYTES:
        raise GradingError(f"{path} is larger than {MAX_BYTES >> 20} MiB: is it the right file?", exit_code=2)
    try:
        text = content.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise GradingError(f"{path}, line {line}: this is not UTF-8: save the file as CSV UTF-8", exit_code=2) from None
    found = None
    for separator in ",;":
        try:
            header = next(_records(path, text, separator), None)
        except GradingError:
            continue
        if header and recognised(header.cells):
            found = separator
            break
    if found is None:
        raise GradingError(f"{path}, line 1: {needed} needed, separated by `,` or `;`", exit_code=2)
    return _table(path, text, found, content.startswith(_BOM))


def _table(path: Path, text: str, separator: str, has_bom: bool) -> Table:
    header, *rows = _records(path, text, separator)
    table = Table(path, separator, header, has_bom=has_bom)
    for row in rows:
        if row.raw == [""]:
            place = len(table.rows) + 1
            table._blank[place] = table._blank.get(place, "") + row.end
        elif len(row.cells) != len(header.cells):
            counts = f"{len(row.cells)} cells, and the header has {len(header.cells)}"
            raise table.error(row.line, f"there are {counts}: export the file again")
        else:
            table.rows.append(row)
    return table


def _records(path: Path, text: str, separator: str) -> Iterator[Row]:
    """The lines of the text as rows."""
    cell = re.compile(rf'(?:"((?:[^"]|"")*)"|((?:[^"{separator}\r\n][^{separator}\r\n]*)?))({separator}|\r\n|\r|\n|\Z)')
    line, place = 1, 0
    while place < len(text):
        row = Row(line, [], [], separator)
        while row.end == separator:
            match = cell.match(text, place)
            if not match:
                problem = "a quote is not closed, or followed by something: export the file again"
                raise GradingError(f"{path}, line {line}: {problem}", exit_code=2)
            quoted, bare, row.end = match.groups()
            row.raw.append(match[0][: len(match[0]) - len(row.end)])
            row.cells.append(bare if quoted is None else quoted.replace('""', '"'))
            line += len(re.findall(r"\r\n|\r|\n", match[0]))
            place = match.end()
        yield row
