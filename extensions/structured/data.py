"""The data set: expressions as sequences of productions, their types and their parts.

    CSV     columns type, part, expr, a row per expression
    HDF5    key `data`, (N, 1, 72, G): row i of the CSV as 72 one-hot productions out of G, the last of them padding

Row i of one file belongs to row i of the other, so a pair is compared row by row before it is used. Rows are counted
from 1, without the heading.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from extensions.blocks.config import nearest
from extensions.structured import grammar
from extensions.structured.standin import standin_rows
from HW3.plumbing.errors import UsageError
from HW3.plumbing.files import write_atomically

TYPES = ("burgers", "diffusion", "ode_pde", "outgoing", "poisson_gauss", "shallow", "wave_16", "wave_4")
PARTS = (
    "average",
    "combined_mode",
    "combined_mode_wave",
    "cosine_part",
    "decay",
    "envelope",
    "exp_with_mask",
    "extra_decay",
    "ode_depth_2",
    "ode_depth_3",
    "oscillation",
    "oscillatory",
    "pde_xy_depth_2",
    "pde_xy_depth_3",
    "pde_xy_depth_4",
    "shock_term",
    "sine",
    "sine_part",
    "ux",
    "uy",
)
CONDITION_DIM = len(TYPES) + len(PARTS)
COLUMNS = ("type", "part", "expr")
CSV = Path("expressions/tsoulos_dataset_1.csv")  # in --data-dir

_PRODUCTIONS = [f"{left} -> {' '.join(right)}" for left, right in grammar.PRODUCTIONS]  # as an HDF5 file names them


@dataclass(frozen=True)
class Expressions:
    """Rows of a data set.

    sequences: (N, 72) long, indices of productions.  types, parts: (N,) long, indices of TYPES and PARTS.
    texts: the expressions, normalised.  productions: G.  has_grammar: whether these are grammar.PRODUCTIONS; where
    they are not, sequences are learnt as they are, and nothing can be written as text.
    """

    sequences: Tensor
    types: Tensor
    parts: Tensor
    texts: list[str]
    productions: int = grammar.SIZE
    has_grammar: bool = True

    def __len__(self) -> int:
        return len(self.sequences)

    def rows(self, index: Tensor) -> Expressions:
        """Those rows."""
        texts = [self.texts[i] for i in index.tolist()]
        return Expressions(
            self.sequences[index], self.types[index], self.parts[index], texts, self.productions, self.has_grammar
        )

    def conditions(self) -> Tensor:
        """What a prior is told of each row, (N, 28)."""
        return condition(self.types, self.parts)

    def pairs(self) -> Tensor:
        """The pairs of type and part that occur, (P, 2), in the order of their indices."""
        return torch.stack([self.types, self.parts], dim=1).unique(dim=0)


def condition(types: Tensor, parts: Tensor) -> Tensor:
    """One-hot type beside one-hot part: (N,), (N,) -> (N, 28)."""
    one_hot = torch.nn.functional.one_hot
    return torch.cat([one_hot(types, len(TYPES)), one_hot(parts, len(PARTS))], dim=1).float()


def index_of(name: str, known: Sequence[str], what: str, where: str) -> int:
    """The index of a type or a part. Raises UsageError, which names the nearest one."""
    if name not in known:
        raise UsageError(f"{where}: unknown {what} {name!r}: {nearest(name, known)}")
    return known.index(name)


# -- where the data comes from -----------------------------------------------------------------------------


def load(source: str, data_dir: Path, csv_file: str = "", hdf5_file: str = "") -> tuple[Expressions, str]:
    """The data set, and what to call it. Raises UsageError where it cannot be used.

    source: "real", "standin", or "auto" for real rows where they are and the stand-in elsewhere.
    csv_file, hdf5_file: names of another CSV, and of the HDF5 file that belongs to it, in data_dir or anywhere.
    """
    path = data_dir / (csv_file or CSV)
    if hdf5_file:
        return load_pair(data_dir / hdf5_file, path), hdf5_file
    if source not in ("auto", "real", "standin"):
        raise UsageError(f"data.source must be auto, real or standin, not {source!r}")
    if source == "standin" or (source == "auto" and not csv_file and not path.is_file()):
        return from_rows(standin_rows(), "the stand-in"), "standin"
    return from_rows(read_csv(path), str(path)), path.name


def read_csv(path: Path) -> list[tuple[str, str, str]]:
    """The rows (type, part, expr) of a CSV."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UsageError(f"{path} has no column {missing[0]}: its first line must be {','.join(COLUMNS)}")
            rows = [tuple(row[name] or "" for name in COLUMNS) for row in reader]
    except FileNotFoundError:
        raise UsageError(
            f"no {path}: put the CSV there, name its folder's parent with --data-dir, or train on the bundled "
            "stand-in with --set data.source=standin"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if not rows:
        raise UsageError(f"{path} has no rows")
    return rows  # type: ignore[return-value]  # three columns


def from_rows(rows: Sequence[tuple[str, str, str]], where: str) -> Expressions:
    """Parse the expressions of a CSV's rows. Raises UsageError with the row and the position in it."""
    sequences = torch.full((len(rows), grammar.LENGTH), grammar.PADDING)
    for i, (_, _, expr) in enumerate(rows):
        try:
            derivation = grammar.parse(expr)
        except grammar.GrammarError as error:
            raise UsageError(f"{where}, row {i + 1}, {error}: {expr!r} is outside the grammar") from None
        if len(derivation) > grammar.LENGTH:
            raise UsageError(
                f"{where}, row {i + 1}: {expr!r} takes {len(derivation)} productions, and a sequence holds "
                f"{grammar.LENGTH}"
            )
        sequences[i, : len(derivation)] = torch.tensor(derivation)
    return Expressions(sequences, *_types_and_parts(rows, where))


def _types_and_parts(rows: Sequence[tuple[str, str, str]], where: str) -> tuple[Tensor, Tensor, list[str]]:
    types = [index_of(row[0], TYPES, "type", f"{where}, row {i + 1}") for i, row in enumerate(rows)]
    parts = [index_of(row[1], PARTS, "part", f"{where}, row {i + 1}") for i, row in enumerate(rows)]
    return torch.tensor(types), torch.tensor(parts), [grammar.normalise(row[2]) for row in rows]


# -- the pair of HDF5 and CSV ------------------------------------------------------------------------------


def write_pair(data: Expressions, hdf5_file: Path, csv_file: Path) -> None:
    """Write a data set in the schema above; the HDF5 file also names its productions."""
    one_hot = np.zeros((len(data), 1, grammar.LENGTH, data.productions), np.uint8)
    np.put_along_axis(one_hot, data.sequences.numpy()[:, None, :, None], 1, axis=3)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("data", data=one_hot, compression="gzip", chunks=(min(len(data), 256), *one_hot.shape[1:]))
        if data.has_grammar:
            file.attrs["productions"] = _PRODUCTIONS
    write_atomically(hdf5_file, buffer.getvalue())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    types, parts = data.types.tolist(), data.parts.tolist()
    writer.writerows((TYPES[t], PARTS[p], expr) for t, p, expr in zip(types, parts, data.texts))
    write_atomically(csv_file, text.getvalue().encode())


def load_pair(hdf5_file: Path, csv_file: Path) -> Expressions:
    """A pair of files of the schema. Raises UsageError unless row i of one is row i of the other."""
    rows = read_csv(csv_file)
    sequences, productions, names = _read_hdf5(hdf5_file)
    if len(sequences) != len(rows):
        raise UsageError(
            f"{hdf5_file} has {len(sequences)} rows and {csv_file} has {len(rows)}: row i of one must be row i of the "
            "other, so take the two that were made together"
        )
    types, parts, texts = _types_and_parts(rows, str(csv_file))
    written = [grammar.write(row) for row in sequences.tolist()] if productions == grammar.SIZE else []
    # A file without names has this grammar if all of its rows are derivations of it.
    has_grammar = names == _PRODUCTIONS or (names is None and bool(written) and None not in written)
    if has_grammar:
        for i, (found, expected) in enumerate(zip(written, texts)):
            if found != expected:
                raise UsageError(
                    f"row {i + 1} is {expected} in {csv_file} and {found} in {hdf5_file}: the rows are not in the same "
                    "order"
                )
    else:
        _check_consistent(sequences, texts, hdf5_file, csv_file)
    return Expressions(sequences, types, parts, texts, productions, has_grammar)


def _check_consistent(sequences: Tensor, texts: list[str], hdf5_file: Path, csv_file: Path) -> None:
    """With productions that are not ours: equal expressions must be equal sequences, and the other way round."""
    first_by_text: dict[str, int] = {}
    first_by_sequence: dict[bytes, int] = {}
    for i, (text, row) in enumerate(zip(texts, sequences.numpy())):
        j, k = first_by_text.setdefault(text, i), first_by_sequence.setdefault(row.tobytes(), i)
        if j != k:
            other, same = (j, "expression") if j != i else (k, "sequence")
            raise UsageError(
                f"rows {other + 1} and {i + 1} have the same {same} in one file and not in the other: "
                f"{hdf5_file} and {csv_file} are not in the same order"
            )


def _read_hdf5(path: Path) -> tuple[Tensor, int, list[str] | None]:
    """Sequences (N, 72), how many productions there are, and their names if the file has them."""
    try:
        with h5py.File(path, "r") as file:
            if "data" not in file or not isinstance(file["data"], h5py.Dataset):
                raise UsageError(f"{path} has no key `data`: it must hold (N, 1, {grammar.LENGTH}, productions)")
            data = file["data"]
            if data.ndim != 4 or data.shape[1:3] != (1, grammar.LENGTH) or 0 in data.shape:
                raise UsageError(f"{path}: `data` is {data.shape}, and must be (N, 1, {grammar.LENGTH}, productions)")
            names = [str(name) for name in file.attrs["productions"]] if "productions" in file.attrs else None
            parts = [
                _indices(data[start : start + 1000, 0], start, path) for start in range(0, len(data), 1000)
            ]  # as one array the real data is 350 MB of float32
            return torch.cat(parts), data.shape[3], names
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def _indices(one_hot: np.ndarray, start: int, path: Path) -> Tensor:
    """(n, 72, G) -> (n, 72) long."""
    is_one_hot = ((one_hot == 0) | (one_hot == 1)).all(axis=(1, 2)) & (one_hot.sum(axis=2) == 1).all(axis=1)
    if not is_one_hot.all():
        raise UsageError(
            f"{path}, row {start + int(is_one_hot.argmin()) + 1}: not one production in each of its places"
        )
    return torch.from_numpy(one_hot.argmax(axis=2).astype(np.int64))


# -- the split -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Training, validation and held-out rows; `repeated`: how many rows have an expression that an earlier one has."""

    train: Expressions
    val: Expressions
    test: Expressions
    repeated: int


def split(data: Expressions, seed: int, *, test: float = 0.2, val: float = 0.1) -> Split:
    """A fifth is held out, and of the rest a tenth is for validation.

    It is expressions that are divided, not rows: one that occurs twice, with two types, is on one side only.
    """
    known: dict[bytes, int] = {}
    group = torch.tensor([known.setdefault(row.tobytes(), len(known)) for row in data.sequences.numpy()])  # (N,)
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    place = torch.empty(len(known)).scatter_(0, order, torch.arange(len(known)) / len(known))[group]  # (N,) in [0, 1)
    train_end = (1 - test) * (1 - val)
    train, held = place < train_end, place >= 1 - test
    masks = (train, ~train & ~held, held)
    if not all(mask.any() for mask in masks):
        raise UsageError(f"{len(data)} rows with {len(known)} expressions are too few to divide in three")
    first, second, third = (data.rows(mask.nonzero()[:, 0]) for mask in masks)
    return Split(first, second, third, repeated=len(data) - len(known))
