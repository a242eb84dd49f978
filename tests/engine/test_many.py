"""Many submissions of every kind: how many workers grade them changes nothing."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest

from classroom import comparable, from_bank, grading, solution, write
from exploits import exploits
from grading.hidden.reference.bank import BANK


def _mixed(root: Path) -> None:
    """160 submissions of every kind."""
    names = {f"exploit-{exploit.name}": exploit.files for exploit in exploits()}
    for entry in random.Random(0).sample(BANK, 40):
        names[f"{'wheat' if entry.is_wheat else 'chaff'}-{entry.id}-{entry.name}"] = from_bank(entry)
    for name, files in names.items():
        write(root / name, files)
    rest = random.Random(1)
    for number in range(160 - len(names)):
        data = bytearray()
        path = root / f"zip-{number}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, content in solution().items():
                archive.writestr(file, content)
        data = bytearray(path.read_bytes())
        for _ in range(rest.choice((1, 5, 50))):
            data[rest.randrange(len(data))] = rest.randrange(256)
        path.write_bytes(data[: rest.choice((len(data), len(data) - 10, len(data) // 2))])


@pytest.mark.slow
def test_workers_do_not_change_results(tmp_path):
    _mixed(tmp_path / "in")
    assert len(list((tmp_path / "in").iterdir())) == 160
    found = []
    for workers in (1, 4):
        out = tmp_path / f"out-{workers}"
        result = grading("grade", tmp_path / "in", "--out", out, "--workers", workers, "--timeout", 3)
        assert result.returncode == 0, result.stderr
        found.append(comparable(out))
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
    assert len(found[0]) == len(found[1]) == 160
