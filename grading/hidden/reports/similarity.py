"""Code that is nearly the same: copydetect's fingerprints of what students wrote themselves, compared pair by pair."""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from grading.hidden.reports.concealment import Concealing, concealing_words, lines_of, own_lines

# copydetect's k: 25 characters of filtered code, about one formula, must agree to count at all.
K = 25
# Two files are reported when they share 80 % of the smaller one's own fingerprints. Of 4,950 pairs of right solutions
# put together at random from the bank, half share less than 13 % and one in a thousand more than 77 %; the four pairs
# above 80 % have four of the five functions of HW3/diffusion.py literally in common. A copy with other names has 100 %.
MIN_OVERLAP = 0.8
# And at least so many. All of HW3/diffusion.py is 360 to 660 fingerprints, so this is two thirds of the shortest
# solution; HW3/vae.py and train_tiny_sd.py have at most 160: two formulas that everybody writes in the same way.
MIN_SHARED = 250
# What is read and compared of one file. The longest file of the handout has 16,000 bytes, and its solution adds 2,000;
# at these limits hostile code costs about a second.
MAX_BYTES = 100_000
MAX_OWN = 30_000


@dataclass(frozen=True)
class Lookalikes:
    """Submissions whose `file` is nearly the same. overlap: smallest and largest share that a pair has in common."""

    file: str
    submissions: list[str]
    overlap: tuple[float, float]


class CodeIndex:
    """Fingerprints of what students wrote themselves: all of a submission's code minus the handout's.

        index = CodeIndex(handout)           # rubric file -> its content as handed out
        index.add(submission, files)         # once for each; never raises
        write_summary(out, results, rubric, index)

    Only hashes are kept, a few kB for each submission. They are salted by the interpreter, so an index cannot be
    stored or sent to another process. What could not be compared is in `not_compared`: (submission, file, why), and
    what may hide code from this in `concealing`.
    """

    def __init__(self, handout: Mapping[str, bytes]) -> None:
        self.problem = ""
        self.not_compared: list[tuple[str, str, str]] = []
        self.concealing: list[Concealing] = []
        self._found: dict[str, dict[str, np.ndarray]] = {file: {} for file in handout}
        self._lines = {
            file: {line.strip() for line in lines_of(content.decode("utf-8"))} for file, content in handout.items()
        }
        try:
            import copydetect  # noqa: F401
        except ImportError:
            self.problem = "copydetect is not installed (pip install copydetect)"
            return
        # As written and as laid out by `ast`; the latter finds what was only formatted anew.
        pieces = {file: list(_pieces(content.decode("utf-8"))) for file, content in handout.items()}
        self._written = {file: {written for written, _ in found} for file, found in pieces.items()}
        self._given = {file: {code for _, code in found} for file, found in pieces.items()}
        self._boilerplate = {file: _fingerprints(given) for file, given in self._given.items()}

    def add(self, submission: str, files: Mapping[str, bytes]) -> None:
        """Take in one submission's files; those that the handout does not have are ignored."""
        for file in sorted(self._found.keys() & files.keys()):
            own = own_lines(files[file].decode("utf-8", errors="replace"), self._lines[file])
            if words := concealing_words(files[file], own):
                self.concealing.append(Concealing(submission, file, words))
            if self.problem or _cannot_be_enough(own):
                continue
            try:
                hashes = self._own(file, files[file])
            except Exception as error:  # hostile code finds a way to break any parser
                self.not_compared.append((submission, file, _reason(error)))
                continue
            if len(hashes) >= MIN_SHARED:
                self._found[file][submission] = hashes

    def _own(self, file: str, content: bytes) -> np.ndarray:
        if len(content) > MAX_BYTES:
            raise _TooLong(f"longer than {MAX_BYTES:,} bytes")
        pieces = _pieces(content.decode("utf-8", errors="replace"), known=self._written[file])
        own = [code for _, code in pieces if code not in self._given[file]]
        size = sum(map(len, own))
        if size > MAX_OWN:
            raise _TooLong(f"more than {MAX_OWN:,} characters of own code")
        if sum(map(_length, own)) < MIN_SHARED:
            return _NONE  # cannot have enough fingerprints, and need not be tokenised, which takes longest
        return np.setdiff1d(_fingerprints(own), self._boilerplate[file], assume_unique=True)

    def lookalikes(self) -> list[Lookalikes]:
        """Nearly identical code, the most suspicious first. Every pair above the limit is in one of these."""
        found = []
        for file, hashes in self._found.items():
            names = sorted(hashes)
            if len(names) > 1:
                found += [
                    Lookalikes(file, [names[i] for i in members], overlap)
                    for members, overlap in _stars(*_overlaps([hashes[name] for name in names]))
                ]
        return sorted(found, key=lambda each: (-each.overlap[1], -len(each.submissions), each.submissions))


_NONE = np.zeros(0, np.int64)


class _TooLong(Exception):
    pass


def _reason(error: Exception) -> str:
    if isinstance(error, _TooLong):
        return str(error)
    if isinstance(error, (SyntaxError, ValueError)):
        return "not valid Python"
    return (
        f"too deeply nested ({type(error).__name__})"
        if isinstance(error, (RecursionError, MemoryError))
        else str(error)
    )


def _cannot_be_enough(own: Iterable[tuple[int, str]]) -> bool:
    """Whether so few lines are not the handout's that they cannot make MIN_SHARED fingerprints. Nothing is parsed then,
    which takes longest. Where they stand between the handout's, K fingerprints reach from one into the other.
    """
    total, last = 0, -1
    for number, line in own:
        total += _length(line) + (K if number > last + 1 else 0)
        last = number
    return total < MIN_SHARED


def _without_strings(tree: ast.AST) -> ast.AST:
    """Empties strings: what they say is no code, and some make copydetect's tokenizer slow."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            node.value, node.kind = "", None
    return tree


def _pieces(source: str, known: Container[str] = ()) -> Iterator[tuple[str, str]]:
    """A file's statements and methods: as they stand there, and without comments in the layout that `ast` gives to all.

    known: statements (as they stand there) to leave out. Most of a file is the handout's, and this saves time.
    """
    lines = lines_of(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escapes and the like
        tree = ast.parse(source)
    for node in tree.body:
        for member in node.body if isinstance(node, ast.ClassDef) else [node]:
            first = min([member.lineno, *(d.lineno for d in getattr(member, "decorator_list", []))])
            written = "\n".join(lines[first - 1 : member.end_lineno])
            if written not in known:
                yield written, ast.unparse(_without_strings(member))


def _length(piece: str) -> int:
    """How long a piece is without white space and with its names replaced; copydetect makes it shorter still."""
    return len(re.sub(r"\s+", "", _NAME.sub(lambda name: name[0] if name[0] in _WORDS else "V", piece)))


_NAME = re.compile(r"[^\W\d]\w*")
_WORDS = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"}


def _fingerprints(pieces: Iterable[str]) -> np.ndarray:
    """copydetect's hashes of all k-grams of the code, with its names replaced. Sorted, each once.

    Piece by piece, as a k-gram over the end of one would be nobody's code. Without winnowing (a window of 1): it would
    choose by the salted hashes, and other ones in every run.
    """
    found: set[int] = set()
    for piece in pieces:
        if len(piece) >= K:
            found |= _hashes(piece)
    return np.unique(np.fromiter(found, dtype=np.int64))


@lru_cache(2000)  # short functions come out the same for many, and tokenising them takes longest; 50 MB if none does
def _hashes(piece: str) -> frozenset[int]:
    from copydetect import CodeFingerprint

    return frozenset(CodeFingerprint("code.py", K, 1, fp=io.StringIO(piece), language="python").hashes)


def _overlaps(hashes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """For all pairs: the share of the smaller one that both have, and whether that is worth reporting.

    A matrix with a row for each file and a column for each hash, times its transpose, counts what pairs share; columns
    with a single entry are left out and the rest is taken in slices, so that a thousand files need a second and 50 MB.
    """
    n, sizes = len(hashes), np.array([len(h) for h in hashes])
    _, column, count = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
    file, several = np.repeat(np.arange(n), sizes), count > 1
    file, column = file[several[column]], (np.cumsum(several) - 1)[column[several[column]]]
    shared = np.zeros((n, n), np.float32)
    for first in range(0, int(several.sum()), 2048):
        part = (column >= first) & (column < first + 2048)
        present = np.zeros((n, 2048), np.float32)
        present[file[part], column[part] - first] = 1
        shared += present @ present.T
    share = shared / np.minimum.outer(sizes, sizes)
    near = (share >= MIN_OVERLAP) & (shared >= MIN_SHARED)
    np.fill_diagonal(near, False)
    return share, near


def _stars(share: np.ndarray, near: np.ndarray) -> Iterator[tuple[list[int], tuple[float, float]]]:
    """Sets that cover all near pairs: one file and all that are near it, so that no chain links strangers."""
    left = near.copy()
    while left.any():
        centre = int(left.sum(axis=1).argmax())
        members = np.sort(np.append(np.flatnonzero(left[centre]), centre))
        inside = np.ix_(members, members)
        values = share[inside][near[inside]]
        left[inside] = False
        yield members.tolist(), (float(values.min()), float(values.max()))
