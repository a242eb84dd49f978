"""What every test shares: a quiet environment, and tiny trained checkpoints."""

from __future__ import annotations

import pytest
import torch

pytest.register_assert_rewrite("harness")

from harness import KINDS, Tiny, assert_succeeds, run_here, script  # noqa: E402

# As many tests run at once as there are cores, and sums are the same on every machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch):
    """A developer's own data folder decides nothing here."""
    monkeypatch.delenv("HW3_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """All five models, trained for two tiny epochs, once per test process."""
    runs = Tiny(tmp_path_factory.mktemp("tiny"))
    for kind in KINDS:
        assert_succeeds(run_here(script(kind), *runs.flags(kind, runs.out_dir(kind))))
    return runs
