"""Text that may be hostile, made harmless, and the pages that it is shown on.

Everything that a submission chose (its name, what it printed, what its exceptions say) is hostile. In HTML two things
stand against it: jinja2 escapes every value, and `readable` makes characters harmless that escaping lets through. The
page also forbids itself scripts and anything from outside. In JSON such text is declared as plain text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"

# What one page shows of a text; more would only make the page slow. results.json keeps all.
MAX_MESSAGE = 8_000
MAX_OUTPUT = 50_000

# Sequences that move cursors and colour terminals; one that does not end is cut at the end of its line.
_ANSI = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b\n]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"  # CSI in one character
)


@cache
def _harmless() -> dict[int, str]:
    """What stands for a character that is invisible, reorders its neighbours, or cannot be stored as UTF-8."""
    table = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
    table |= {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}  # bytes of a name that is not UTF-8
    unwanted = (
        *((0x61C, 0x61D), (0x180E, 0x180F), (0x200B, 0x200C), (0x200E, 0x2010), (0x2028, 0x202F)),
        *((0x2060, 0x2070), (0xD800, 0xE000), (0xFEFF, 0xFF00), (0xFFF0, 0xFFFC), (0xFFFE, 0x10000)),
        (0xE0000, 0xE1000),
    )
    for first, end in unwanted:
        table |= {code: f"⟨U+{code:04X}⟩" for code in range(first, end) if code not in table}
    return table


def readable(text: str) -> str:
    """Text without ANSI sequences, with control and bidi characters made visible. Changes nothing a second time."""
    text = _ANSI.sub("", text.replace("\r\n", "\n"))
    return text.replace("\r", "\n").translate(_harmless())


def no_formula(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would compute. Numbers stay."""
    first = unicodedata.normalize("NFKC", text.lstrip(" \u00a0"))[:1]  # also the wide forms of these characters
    if first not in ("=", "+", "-", "@", "\t", "\r", "\n") or not first or re.fullmatch(r"[+-]?\d+([.,]\d+)?", text):
        return text
    return f"'{text}"


def clip(text: str, limit: int) -> str:
    """The beginning of a text, and how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}\n… and {len(text) - limit:,} more characters"


def plain(number: float) -> str:
    """87.5, 100 or 0.3333; never 1e+02."""
    return f"{number:.4f}".rstrip("0").rstrip(".")


def short(number: float) -> str:
    """The same to two places, for pages."""
    return plain(round(number, 2))


def link(submission: str) -> str:
    """The address of a student's page, seen from the folder that holds all of them."""
    return f"./{quote(submission, safe='', errors='surrogateescape')}/feedback.html"


@cache
def environment() -> Environment:
    """The templates. No value reaches a page without passing through `readable` and being escaped."""

    def finalize(value: Any) -> Any:
        return readable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"short": short, "link": link, "clip": clip}
    return found
