"""A case: one call with its inputs, what must come out, and what known mistakes make of it. Plain data."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

PUBLIC = Path(__file__).parent / "cases"
HIDDEN = Path(__file__).parent / "hidden" / "reference" / "cases"  # in the instructor's tree only

Arrays = dict[str, np.ndarray]
Standins = dict[str, dict[str, Arrays]]  # sibling -> "in" and "out": answers for other graded functions


@dataclass
class Case:
    """One check of one graded function.

    id: the graded function's.  name: unique within it; what comes before the first "/" is the group that the
    rubric weighs.  call: what the driver does.  check: how grading/judge.py looks at the result.
    params: the call's plain parameters.  inputs: its arrays.  expected: what the check compares with.
    tolerance: (absolute, relative).  tolerances: an expected array's own, by name.
    standins: for the graded functions that this one calls.
    mistakes: {name: fingerprint}, what known mistakes give here.
    """

    id: str
    name: str
    call: str
    check: str
    params: dict[str, Any]
    inputs: Arrays
    expected: Arrays = field(default_factory=dict)
    tolerance: tuple[float, float] = (1e-4, 1e-4)
    tolerances: dict[str, tuple[float, float]] = field(default_factory=dict)
    standins: Standins = field(default_factory=dict)
    mistakes: dict[str, Arrays] = field(default_factory=dict)
    hidden: bool = False

    @property
    def group(self) -> str:
        """What the rubric weighs."""
        return self.name.partition("/")[0]


def save_cases(path: Path, cases: list[Case]) -> None:
    """Write cases to an npz. The same cases give the same bytes."""
    arrays: Arrays = {}
    for case in cases:
        meta = {
            "id": case.id,
            "call": case.call,
            "check": case.check,
            "params": case.params,
            "tolerance": case.tolerance,
            "tolerances": case.tolerances,
        }
        arrays[f"{case.name}|meta"] = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), dtype=np.uint8)
        arrays |= {f"{case.name}|in|{key}": value for key, value in case.inputs.items()}
        arrays |= {f"{case.name}|expected|{key}": value for key, value in case.expected.items()}
        for sibling, answers in case.standins.items():
            for side, values in answers.items():
                arrays |= {f"{case.name}|standin|{sibling}|{side}|{key}": value for key, value in values.items()}
        for mistake, values in case.mistakes.items():
            arrays |= {f"{case.name}|mistake|{mistake}|{key}": value for key, value in values.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not np.savez: its bytes differ between versions of Python, and compressed ones between versions of zlib.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())


def load_cases(path: Path, *, hidden: bool) -> list[Case]:
    """Read the cases of one npz, in the order in which they were written."""
    cases: dict[str, Case] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            name, what, *rest = key.split("|")
            value = arrays[key]
            if what == "meta":
                meta = json.loads(value.tobytes())
                meta["tolerance"] = tuple(meta["tolerance"])
                meta["tolerances"] = {of: tuple(pair) for of, pair in meta["tolerances"].items()}
                cases[name] = Case(name=name, inputs={}, expected={}, hidden=hidden, **meta)
                continue
            case = cases[name]
            if what == "in":
                case.inputs[rest[0]] = value
            elif what == "expected":
                case.expected[rest[0]] = value
            elif what == "standin":
                case.standins.setdefault(rest[0], {"in": {}, "out": {}})[rest[1]][rest[2]] = value
            else:
                case.mistakes.setdefault(rest[0], {})[rest[1]] = value
    return list(cases.values())


def all_cases(id: str | None = None) -> list[Case]:
    """The public cases, and in the instructor's tree the hidden ones, of one id or of all."""
    return [
        case
        for folder, hidden in ((PUBLIC, False), (HIDDEN, True))
        for path in sorted(folder.glob(f"{id or '*'}.npz"))
        for case in load_cases(path, hidden=hidden)
    ]
