"""Data sets of expressions: read, compared row by row, divided so that nothing held out is seen."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from extensions.structured import grammar
from extensions.structured.data import (
    CONDITION_DIM,
    PARTS,
    TYPES,
    from_rows,
    load,
    load_pair,
    split,
    write_pair,
)
from extensions.structured.standin import ROWS_PER_PAIR, standin_rows
from HW3.plumbing.errors import UsageError

ROWS = [
    ("wave_4", "cosine_part", "cos(0.581*pi*t*4)"),
    ("ode_pde", "ode_depth_2", "x + 1"),
    ("wave_16", "cosine_part", "cos(0.581*pi*t*4)"),
    ("burgers", "average", "(0.933+2.499)/2"),
]


@pytest.fixture
def pair(tmp_path):
    """A pair of files of ROWS: HDF5, CSV."""
    files = tmp_path / "d.h5", tmp_path / "d.csv"
    write_pair(from_rows(ROWS, "ROWS"), *files)
    return files


def write_hdf5(path, data, **attributes):
    with h5py.File(path, "w") as file:
        file["data"] = data
        file.attrs.update(attributes)


def one_hot(sequences, size=grammar.SIZE, dtype=np.float64):
    return np.eye(size, dtype=dtype)[np.asarray(sequences)][:, None]


def test_a_pair_comes_back(pair):
    rows, read = from_rows(ROWS, "ROWS"), load_pair(*pair)
    for name in ("sequences", "types", "parts"):
        assert torch.equal(getattr(read, name), getattr(rows, name))
    assert read.texts == ["cos(0.581*pi*t*4)", "x+1", "cos(0.581*pi*t*4)", "(0.933+2.499)/2"]
    assert (read.has_grammar, read.productions) == (True, 53)
    with h5py.File(pair[0]) as file:
        assert file["data"].shape == (4, 1, 72, 53)
        assert file.attrs["productions"][4] == "S -> T"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, bool])
def test_a_pair_made_elsewhere_is_read_as_it_is(pair, dtype):
    """No names of productions, and another type of number."""
    write_hdf5(pair[0], one_hot(from_rows(ROWS, "ROWS").sequences, dtype=dtype))
    assert load_pair(*pair).has_grammar


@pytest.mark.parametrize("size", [53, 60])
def test_productions_of_another_grammar_are_read_as_they_are(pair, size):
    sequences = np.full((4, 72), size - 1)
    sequences[:, :2] = [[5, 1], [5, 2], [5, 1], [6, 2]]
    write_hdf5(pair[0], one_hot(sequences, size))
    read = load_pair(*pair)
    assert (read.has_grammar, read.productions) == (False, size)
    assert np.array_equal(read.sequences.numpy(), sequences)

    write_hdf5(pair[0], one_hot(sequences[[1, 0, 2, 3]], size))
    with pytest.raises(UsageError, match="rows 1 and 3 have the same expression in one file and not in the other"):
        load_pair(*pair)


def test_a_condition_says_type_and_part():
    condition = from_rows(ROWS, "ROWS").conditions()
    assert condition.shape == (4, CONDITION_DIM) == (4, 28)
    assert condition.sum(dim=1).tolist() == [2] * 4
    assert condition[0].nonzero()[:, 0].tolist() == [TYPES.index("wave_4"), 8 + PARTS.index("cosine_part")]


# -- what is refused -----------------------------------------------------------------------------------------


def test_rows_in_another_order_are_refused(pair):
    lines = pair[1].read_text().splitlines(keepends=True)
    pair[1].write_text("".join([*lines[:2], lines[3], lines[2], lines[4]]))
    with pytest.raises(UsageError, match=r"row 2 is cos\(0.581\*pi\*t\*4\) in .*d.csv and x\+1 in .*d.h5"):
        load_pair(*pair)


def test_files_of_different_lengths_are_refused(pair):
    with pair[1].open("a") as file:
        file.write("ode_pde,ode_depth_2,x\n")
    with pytest.raises(UsageError, match=r"d.h5 has 4 rows and .*d.csv has 5"):
        load_pair(*pair)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("ode_pde", "ode_depth_2", "x+1"), ("ode_pde", "ode_depth_2", "x + z")], "F, row 2, position 5: expected"),
        ([("ode_pd", "ode_depth_2", "x")], "F, row 1: unknown type 'ode_pd': did you mean ode_pde?"),
        ([("ode_pde", "cos_part", "x")], "F, row 1: unknown part 'cos_part': did you mean cosine_part?"),
        ([("?", "ode_depth_2", "x")], "unknown type '?': there are burgers, diffusion"),
        ([("ode_pde", "ode_depth_2", "1" * 71)], "takes 73 productions, and a sequence holds 72"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows, says):
    with pytest.raises(UsageError) as error:
        from_rows(rows, "F")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no column type"),
        (b"type,part\n", "has no column expr"),
        (b"type,part,expr\n", "has no rows"),
        (b"type,part,expr\n\xff,b,c\n", "cannot read"),
        (b"type,part,expr\nburgers\n", "row 1, position 1"),
    ],
)
def test_a_csv_that_is_none_is_refused(tmp_path, content, says):
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        load("real", tmp_path, "d.csv")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.write_bytes(b"no HDF5"), "cannot read"),
        (lambda path: path.unlink(), "cannot read"),
        (lambda path: h5py.File(path, "w").close(), "has no key `data`"),
        (lambda path: write_hdf5(path, np.zeros((4, 72, 53))), r"`data` is \(4, 72, 53\)"),
        (lambda path: write_hdf5(path, np.zeros((4, 1, 72, 53))), "row 1: not one production"),
        (
            lambda path: write_hdf5(path, one_hot([[0] * 72] * 3 + [[52] * 72]) * [[[[1]]]] * 3 + [[[[2]]]]),
            "row 1: not",
        ),
    ],
)
def test_an_hdf5_file_that_does_not_fit_is_refused(pair, change, says):
    change(pair[0])
    with pytest.raises(UsageError, match=says):
        load_pair(*pair)


def test_without_the_real_rows_the_stand_in_is_taken_only_where_it_may(tmp_path):
    data, name = load("auto", tmp_path)
    assert (name, len(data)) == ("standin", 25 * ROWS_PER_PAIR)
    with pytest.raises(UsageError, match=r"no .*tsoulos_dataset_1.csv: put the CSV there.*data.source=standin"):
        load("real", tmp_path)
    with pytest.raises(UsageError, match=r"no .*other\.csv"):
        load("auto", tmp_path, "other.csv")
    with pytest.raises(UsageError, match=r"data\.source must be auto, real or standin, not 'none'"):
        load("none", tmp_path)


# -- the stand-in and the split -------------------------------------------------------------------------------


def test_the_stand_in_is_the_same_every_time_and_has_every_pair():
    rows = standin_rows(5)
    assert rows == standin_rows(5)
    assert rows[0] == ("burgers", "average", "(-3.478+1.782)/2")
    data = from_rows(rows, "the stand-in")
    assert len(data.pairs()) == 25
    assert all(grammar.is_valid(row) for row in data.sequences.tolist())


def test_nothing_held_out_is_seen():
    data = from_rows(standin_rows(), "the stand-in")
    rows = split(data, 42)
    seen, val, held_out = (set(part.texts) for part in (rows.train, rows.val, rows.test))
    assert seen.isdisjoint(val | held_out)
    assert val.isdisjoint(held_out)
    assert len(rows.train) + len(rows.val) + len(rows.test) == len(data)
    assert 0.17 < len(rows.test) / len(data) < 0.23
    assert rows.repeated == len(data) - len(set(data.texts)) > 0


def test_the_split_is_the_seed_s():
    data = from_rows(standin_rows(), "the stand-in")
    assert split(data, 42).test.texts == split(data, 42).test.texts != split(data, 43).test.texts
    with pytest.raises(UsageError, match="too few to divide"):
        split(from_rows(ROWS[:1] * 50, "ROWS"), 42)
