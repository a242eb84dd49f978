"""Code that hides other code from the comparison: `exec` of what a string holds, and what serves the same.

Which words a file uses to run, load or unpack code that is not written in it, and in which lines. Nothing is executed,
and nothing is concluded: honest uses are rare in the files that are graded, but there are some. Nor is a list of words
ever complete; it asks of those who want to hide something that they look further.
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

MAX_SHOWN = 5  # words of one file

# What runs code that is given as data, or reaches what does.
NAMES = {"exec", "eval", "compile", "__import__", "__builtins__", "__loader__", "__spec__", "globals"}
ATTRIBUTES = {"__subclasses__", "__globals__", "__builtins__", "__code__", "__import__", "__getattribute__", "__dict__"}
ATTRIBUTES |= {"__loader__", "import_module", "exec_module", "load_module", "CodeType", "FunctionType", "lambdify"}
ATTRIBUTES |= {"CompilationUnit", "sympify", "fromhex", "b64decode", "b85decode", "a85decode", "unhexlify", "loads"}
ATTRIBUTES |= {"decompress", "attrgetter", "methodcaller", "pickle", "marshal", "builtins", "importlib", "codecs"}
# Modules that unpack, load or run things; no file that is graded has a use for them.
MODULES = {"marshal", "pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "base64", "binascii", "codecs"}
MODULES |= {"zlib", "gzip", "bz2", "lzma", "zipfile", "zipimport", "importlib", "imp", "runpy", "builtins", "ctypes"}
MODULES |= {"timeit", "cProfile", "profile", "trace", "pdb", "doctest", "codeop", "sympy"}
LOOKUPS = {"getattr", "vars", "locals", "modules"}  # of names that are computed

_WORD = re.compile(rf"\b({'|'.join(sorted(NAMES | ATTRIBUTES | MODULES | LOOKUPS))})\b")
_UNSEEN = re.compile(rf"(?<!\.)\b({'|'.join(sorted(NAMES | MODULES))})\b|\b({'|'.join(sorted(ATTRIBUTES))})\b")
# In one of the first two lines (PEP 263), and those in which ASCII is ASCII.
_CODING = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_PLAIN = re.compile(r"utf-?8(-sig)?|(us-?)?ascii|latin-?1|iso-?8859-?\d+|(cp|windows-?)12\d\d", re.IGNORECASE)


@dataclass(frozen=True)
class Concealing:
    """A submission's file that may hide code. words: line and word, each word once, where it stands first."""

    submission: str
    file: str
    words: list[tuple[int, str]]


def lines_of(source: str) -> list[str]:
    """A file's lines, as Python counts them."""
    return re.split(r"\r\n|\r|\n", source)


def own_lines(source: str, given: Container[str]) -> list[tuple[int, str]]:
    """The lines, with their numbers, that are none of the handout's (`given`, without the white space around them)."""
    return [(number, line) for number, line in enumerate(lines_of(source), 1) if line.strip() not in given]


def concealing_words(content: bytes, own: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """The words in a file's own lines by which it may hide code: (line, word), by line. Raises nothing.

    A file that Python cannot parse, or not within its limits, is searched as text.
    """
    coding = [(number, match[1]) for number, line in own if number <= 2 and (match := _CODING.match(line))]
    strange = [(number, "a coding of its own") for number, name in coding if not _PLAIN.fullmatch(name)]
    # Python takes ｅｘｅｃ for exec. What has none of the words need not be parsed.
    plain = [(number, unicodedata.normalize("NFKC", line)) for number, line in own]
    if not any(_WORD.search(line) for _, line in plain):
        return strange
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes and the like
            used = list(_words(ast.parse(content)))
    except Exception:  # hostile code finds a way to break any parser
        found = [(number, match[0]) for number, line in plain for match in _UNSEEN.finditer(line)]
    else:
        numbers = {number for number, _ in own}
        found = [(line, word) for line, word in used if line in numbers]
    first: dict[str, int] = {}
    for line, word in sorted(strange + found):
        first.setdefault(word, line)
    return [(line, word) for word, line in first.items()]


def _words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What a parsed file uses. `model.eval()` and `torch.compile` are nothing of the kind."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in NAMES or (node.id == "getattr" and id(node) not in called):
                yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, name) for alias in node.names if (name := alias.name.split(".")[0]) in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from ((node.lineno, name) for name in names if name in MODULES | ATTRIBUTES | NAMES)
        elif isinstance(node, ast.Call):
            yield from _called(node)
        elif isinstance(node, ast.Subscript) and _is_dictionary(node.value):
            yield node.lineno, "a name looked up in a dictionary"


def _called(node: ast.Call) -> Iterator[tuple[int, str]]:
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("eval", "exec") and (node.args or node.keywords):
        yield node.lineno, node.func.attr
    if isinstance(node.func, ast.Name) and node.func.id == "getattr":
        name = node.args[1] if len(node.args) > 1 else None
        if not isinstance(name, ast.Constant) or name.value in NAMES | ATTRIBUTES | MODULES:
            yield node.lineno, "getattr of such a name, or of a computed one"


def _is_dictionary(node: ast.expr) -> bool:
    """Whether it is `vars(...)`, `locals()` or `sys.modules`, which hold names as strings."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in LOOKUPS
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return False
    return (node.value.id, node.attr) == ("sys", "modules")
