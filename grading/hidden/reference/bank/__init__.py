"""Wheats and chaffs: right and wrong ways to write each graded function, each with a name and a sentence.

Every wheat must get full marks and every chaff must lose some on its own id and none on another. The chaffs are also
the misconception bank: their hints are what a student reads when a wrong answer is recognised. A hint points at the
idea and never contains the right formula.

    @chaff("posterior", "hint ...")
    def beta_as_variance(self, x0, x_t, t):
        ...
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grading.rubric import load_rubric
from grading.submission import Submission

# id -> (file, qualified name of the graded function)
PLACES = {id: (function.file, function.name) for id, function in load_rubric().functions.items()}


@dataclass(frozen=True)
class Entry:
    """One implementation. text: for a chaff the hint, for a wheat what is different about it."""

    id: str
    name: str
    text: str
    function: Callable[..., Any]
    is_wheat: bool

    def submission(self) -> Submission:
        """The tree's own code with this implementation in place of the graded function."""
        return Submission(replaced={PLACES[self.id]: self.function})


BANK: list[Entry] = []


def chaff(id: str, hint: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a wrong implementation."""
    return _register(id, hint, is_wheat=False)


def wheat(id: str, note: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a right one."""
    return _register(id, note, is_wheat=True)


def _register(id: str, text: str, *, is_wheat: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        assert all((entry.id, entry.name) != (id, function.__name__) for entry in BANK), (id, function.__name__)
        BANK.append(Entry(id, function.__name__, text, function, is_wheat))
        return function

    return register


def chaffs_of(id: str) -> list[Entry]:
    """The wrong implementations of one graded function."""
    return [entry for entry in BANK if entry.id == id and not entry.is_wheat]


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
